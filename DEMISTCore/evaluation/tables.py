"""The numbers of an evaluation as tables, each a CSV file; :mod:`.page` shows them.

==========================  ===========================================================================
results.csv                 one row per data set, session and method
regions.csv                 that by tissue: true and synthesized mean and median
summary.csv                 one row per data set and method: mean and SD over subjects, beside the reference
knock_outs.csv              what is lost with each input or stream, with a 95 % interval over subjects
calibration.csv             one row per data set, session, method and tissue: do voxels' error bars hold
intervals.csv               one row per data set, session, method and region: interval of its mean
calibration_summary.csv     both over subjects: voxels by tissue, and region means
warnings.csv                what the preparation remarked on, one row per data set, session and sentence
==========================  ===========================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..commit import staging
from .calibrated import LEVELS, region_calibration
from .methods import Method, reference
from .paired import paired_difference

if TYPE_CHECKING:
    import pandas as pd

#: Columns of the tables: key, heading, digits.
COLUMNS = (
    ("psnr", "PSNR (dB)", 2),
    ("ssim", "SSIM", 4),
    ("mse", "MSE (1e-6)", 1),
    ("mae", "MAE (1e-3)", 2),
    ("sharpness", "Sharpness", 3),
    ("lesion_auc", "Lesion AUC", 3),
)
#: Where the error comes from: key, heading, factor, digits.
SPLIT = (
    ("share_scale", "Scale (%)", 100, 0),
    ("share_border", "Borders (%)", 100, 0),
    ("share_interior", "Interior (%)", 100, 0),
    ("share_tissue_means", "Tissue means (%)", 100, 0),
    ("psnr_scaled", "PSNR, scale right (dB)", 1, 2),
    ("psnr_tissue_means", "PSNR, tissue means right (dB)", 1, 2),
    ("scale_error_percent", "Scale error (%)", 1, 1),
    ("abs_scale_error_percent", "its size (%)", 1, 1),
    ("white_error_percent", "White matter (%)", 1, 1),
    ("grey_error_percent", "Cortex (%)", 1, 1),
)
#: What is compared with and without an input or stream: key, heading, 1 if more is better and -1 if less is, digits.
LOSSES = (
    ("psnr", "PSNR (dB)", 1, 2),
    ("psnr_near_lesions", "PSNR within 5 mm of lesions (dB)", 1, 2),
    ("lesion_auc", "Lesion AUC", 1, 3),
    ("abs_scale_error_percent", "Size of the scale error (%)", -1, 1),
)
_CALIBRATION = (
    *(f"coverage_{level}" for level in LEVELS),
    *(f"width_{level}" for level in LEVELS),
    "spearman",
    "ause",
    "spread_skill",
)
_LISTS = ("regions", "calibration", "intervals", "warnings")  # rows in rows: tables of their own
_WHO = ("set", "session", "subject", "method")


def write_tables(rows: Sequence[Mapping[str, Any]], methods: Sequence[Method], settings: dict, out: Path) -> None:
    """All CSV files and summary.md."""
    from .page import markdown

    tables = make_tables(rows, methods)
    for name, table in tables.items():
        if not len(table):
            (out / f"{name}.csv").unlink(missing_ok=True)  # of an earlier evaluation, with other options
    with staging(out) as (hidden,):
        for name, table in tables.items():
            if len(table):
                table.to_csv(hidden / f"{name}.csv", index=False, float_format="%.6g", errors="backslashreplace")
        text = markdown(tables, methods, settings)
        (hidden / "summary.md").write_text(text, encoding="utf-8", errors="backslashreplace")


def make_tables(rows: Sequence[Mapping[str, Any]], methods: Sequence[Method]) -> dict[str, pd.DataFrame]:
    """Tables by name; those that nothing belongs into are empty."""
    import pandas as pd

    names = [name for method in methods for name in method.names]
    results = pd.DataFrame([{key: value for key, value in row.items() if key not in _LISTS} for row in rows])
    results["abs_scale_error_percent"] = results["scale_error_percent"].abs()
    results["method"] = pd.Categorical(results["method"], names, ordered=True)
    results["set"] = pd.Categorical(results["set"], list(dict.fromkeys(row["set"] for row in rows)), ordered=True)
    results = results.sort_values(["set", "session", "method"])
    lists = {
        name: pd.DataFrame(
            [{**{who: row[who] for who in _WHO}, **entry} for row in rows for entry in row.get(name) or ()]
        )
        for name in _LISTS
    }
    return {
        "results": results,
        "regions": lists["regions"],
        "summary": summarise(results, names),
        "knock_outs": knock_outs(results, methods),
        "calibration": lists["calibration"],
        "intervals": lists["intervals"],
        "calibration_summary": summarise_calibration(lists["calibration"], lists["intervals"]),
        "warnings": _once(lists["warnings"]),
    }


def _once(warnings: pd.DataFrame) -> pd.DataFrame:
    """Every method of a session is told the same: one row each."""
    columns = ["set", "session", "subject", "warning"]
    return warnings[columns].drop_duplicates() if len(warnings) else warnings


def summarise(results: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """Mean and SD over subjects (sessions of a subject averaged first), and PSNR paired with the reference's."""
    import pandas as pd

    keys = [*(key for key, *_ in COLUMNS), *(key for key, *_ in SPLIT), "border_voxels", "psnr_near_lesions"]
    numbers = keys + [key for key in _CALIBRATION if key in results]
    per_subject = _per_subject(results, numbers)
    chosen = reference(methods)
    rows = []
    for group in results["set"].cat.categories:
        for method in methods:
            own = per_subject.loc[(group, method)]
            row: dict[str, Any] = {"set": group, "method": method, "subjects": len(own)}
            for key in numbers:
                row |= {f"{key}_mean": own[key].mean(), f"{key}_sd": own[key].std(ddof=1) if len(own) > 1 else np.nan}
            if chosen is not None:
                first, second = per_subject.loc[(group, chosen)]["psnr"].align(own["psnr"])
                ahead, paired = first - second, paired_difference(first, second)
                row |= {
                    "psnr_reference_ahead_mean": ahead.mean(),
                    "psnr_reference_ahead_min": ahead.min(),
                    "psnr_reference_ahead_max": ahead.max(),
                    "psnr_reference_ahead_low": paired.low,
                    "psnr_reference_ahead_high": paired.high,
                }
            rows.append(row)
    return pd.DataFrame(rows)


def knock_outs(results: pd.DataFrame, methods: Sequence[Method]) -> pd.DataFrame:
    """What each knock-out loses against the whole model: positive means that the part was of use.

    One row per data set, knock-out and measure: ``lost``, and its 95 % interval ``low`` to ``high`` over ``subjects``.
    """
    import pandas as pd

    per_subject = _per_subject(results, [key for key, *_ in LOSSES])
    rows = []
    for group in results["set"].cat.categories:
        for method in (m for m in methods if m.beside is not None):
            whole, part = per_subject.loc[(group, method.beside)], per_subject.loc[(group, method.names[0])]
            for key, _, sign, _ in LOSSES:
                first, second = whole[key].align(part[key])
                lost = paired_difference(sign * first, sign * second)
                rows.append(
                    {
                        "set": group,
                        "method": method.names[0],
                        "beside": method.beside,
                        "measure": key,
                        "whole": first.mean(),
                        "without": second.mean(),
                        "lost": lost.mean,
                        "low": lost.low,
                        "high": lost.high,
                        "subjects": lost.subjects,
                    }
                )
    return pd.DataFrame(rows)


def summarise_calibration(voxels: pd.DataFrame, intervals: pd.DataFrame) -> pd.DataFrame:
    """Voxels: means over subjects; region means: all subjects' regions together."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    if len(voxels):
        numbers = [key for key in _CALIBRATION if key in voxels]
        per_subject = voxels.groupby(["set", "method", "group", "subject"], sort=False)[numbers].mean()
        for (group, method, tissue), own in per_subject.groupby(["set", "method", "group"], sort=False):
            rows.append(
                {
                    "set": group,
                    "method": method,
                    "what": "voxels",
                    "group": tissue,
                    "count": len(own),
                    **own.mean().to_dict(),
                }
            )
    if len(intervals):
        for (group, method), own in intervals.groupby(["set", "method"], sort=False):
            told = region_calibration(own.to_dict("records"))
            everything = region_calibration({**row, "kind": "all regions"} for row in own.to_dict("records"))
            for entry in (*told, *everything):
                rows.append(
                    {"set": group, "method": method, "what": "region means", "count": entry.pop("regions"), **entry}
                )
    return pd.DataFrame(rows)


def _per_subject(results: pd.DataFrame, numbers: Sequence[str]) -> pd.DataFrame:
    return results.groupby(["set", "method", "subject"], observed=True)[list(numbers)].mean()
