"""The tables of an evaluation as a Markdown page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import metrics
from .calibrated import LEVELS
from .methods import Method, reference
from .split import BORDER_MM
from .tables import COLUMNS, LOSSES, SPLIT

if TYPE_CHECKING:
    import pandas as pd

_SCALE = {"mse": 1e6, "mae": 1e3}


def markdown(tables: Mapping[str, pd.DataFrame], methods: Sequence[Method], settings: Mapping[str, Any]) -> str:
    """The page. Two data sets stand side by side in the first table, one below the other in the rest."""
    groups = list(tables["results"]["set"].cat.categories)
    parts = [_head(tables["results"], groups, settings), _main(tables["summary"], methods, groups)]
    if len(tables["knock_outs"]):
        parts.append(_knock_outs(tables["knock_outs"], groups))
    parts.append(_split(tables["summary"], methods, groups))
    parts.append(_bias(tables["regions"], methods, groups))
    if len(tables["calibration_summary"]):
        parts.append(_calibration(tables["calibration_summary"]))
    if len(tables["warnings"]):
        parts.append(_warnings(tables["warnings"], groups))
    return "\n\n".join(parts) + "\n"


def _warnings(table: pd.DataFrame, groups: Sequence[str]) -> str:
    """Each sentence, and the sessions that it was said of."""
    text = "## Warnings\n\nWhat the preparation of the scans remarked on (`warnings.csv`).\n\n"
    rows = []
    for (group, sentence), own in table.groupby(["set", "warning"], sort=False, observed=True):
        who = ", ".join(own["session"])
        rows.append([*([group] if len(groups) > 1 else []), sentence.replace("|", "\\|"), who])
    return text + _table([*(["Set"] if len(groups) > 1 else []), "Warning", "Sessions"], rows)


def _head(results: pd.DataFrame, groups: Sequence[str], settings: Mapping[str, Any]) -> str:
    where = {
        "truth": "the truth's own grid (model-grid maps brought there once, by cubic B-splines)",
        "model": "the model grid (the truth brought there once, by cubic B-splines)",
    }[settings["grid"]]
    counted, covered = [], ""
    shares = results.groupby("session", observed=True)["coverage"].first() if "coverage" in results else None
    if shares is not None and shares.min() < 1:
        covered = (
            f" PSR is known in {shares.mean():.0%} of the brains' voxels ({shares.min():.0%} in "
            f"{shares.idxmin()}), and these alone count."
        )
    for group, source in zip(groups, (settings["data"], settings["shifted"])):
        own = results[results["set"] == group]
        label = f" ({group})" if len(groups) > 1 else ""
        counted.append(
            f"{own['subject'].nunique()} subjects, {own['session'].nunique()} sessions of `{Path(source).name}`{label}"
        )
    return (
        f"# Evaluation of {settings['bundle']}\n\n{settings['warning']}\n\n{'; '.join(counted)}; mean ± SD over "
        f"subjects, inside the true brain mask, on {where}.{covered} PSNR and SSIM with a range of "
        f"{metrics.DATA_RANGE} PSR. Sharpness: Sobel energy over the truth's, 1 is right. Lesion AUC: lesion "
        f"voxels against white matter farther than {settings['lesion_gap_mm']:g} mm from any lesion (look-ups are "
        "given the true lesions). "
        f"Preparation: {settings['preprocess']}. " + " ".join(settings["notes"])
    )


def _main(summary: pd.DataFrame, methods: Sequence[Method], groups: Sequence[str]) -> str:
    """Every method that stands for itself."""
    names = _names(methods)
    chosen = reference(names)
    several = len(groups) > 1
    header = ["Method"]
    header += [f"{title}, {group}" if several else title for _, title, _ in COLUMNS for group in groups]
    if chosen:
        ahead = f"PSNR of {chosen} minus this, mean (95 % interval)"
        header += [f"{ahead}, {group}" if several else ahead for group in groups]
    rows = []
    by = summary.set_index(["set", "method"])
    for name in names:
        cells = [name]
        for key, _, digits in COLUMNS:
            for group in groups:
                row, scale = by.loc[(group, name)], _SCALE.get(key, 1)
                cells.append(_plus_minus(row[f"{key}_mean"] * scale, row[f"{key}_sd"] * scale, digits))
        for group in groups if chosen else ():
            row = by.loc[(group, name)]
            ends = (row["psnr_reference_ahead_low"], row["psnr_reference_ahead_high"])
            cells.append("" if name == chosen else _interval(row["psnr_reference_ahead_mean"], *ends, 2))
        rows.append(cells)
    return _table(header, rows)


def _knock_outs(table: pd.DataFrame, groups: Sequence[str]) -> str:
    text = (
        "## Knock-outs\n\nWhat is lost without an input (set to its own brain median), without a stream, or with the "
        "wrong protocol, against the whole model with the same seed: mean over subjects (95 % interval, paired "
        "bootstrap). Positive: the part is of use; an interval that holds 0 says that this is not shown.\n\n"
    )
    header = [*(["Set"] if len(groups) > 1 else []), "Without", "Beside", *(title for _, title, _, _ in LOSSES)]
    rows = []
    for (group, name, beside), own in table.groupby(["set", "method", "beside"], sort=False):
        by = own.set_index("measure")
        found = [(by.loc[key, ["lost", "low", "high"]], digits) for key, _, _, digits in LOSSES]
        lost = [_interval(mean, low, high, digits) for (mean, low, high), digits in found]
        rows.append([*([group] if len(groups) > 1 else []), name, beside, *lost])
    return text + _table(header, rows)


def _split(summary: pd.DataFrame, methods: Sequence[Method], groups: Sequence[str]) -> str:
    border = float(summary["border_voxels_mean"].mean())
    text = (
        "## Where the error comes from\n\nShares of the squared error: one scale a subject; what is left then within "
        f"{BORDER_MM:g} mm of tissue borders ({border:.0%} of voxels) and in the interior (the three add up to 100); "
        "and, cut another way, the mean of each tissue. PSNR if the scale, or every tissue's mean, were right. Errors "
        "of the scale, and of the means of white matter and cortex: percent of the truth, mean ± SD.\n\n"
    )
    header = [*(["Set"] if len(groups) > 1 else []), "Method", *(title for _, title, _, _ in SPLIT)]
    rows, by = [], summary.set_index(["set", "method"])
    for group in groups:
        for name in _names(methods):
            row = by.loc[(group, name)]
            cells = [
                _plus_minus(row[f"{key}_mean"] * factor, row[f"{key}_sd"] * factor, digits)
                for key, _, factor, digits in SPLIT
            ]
            rows.append([*([group] if len(groups) > 1 else []), name, *cells])
    return text + _table(header, rows)


def _bias(regions: pd.DataFrame, methods: Sequence[Method], groups: Sequence[str]) -> str:
    text = "## Bias by region\n\nSynthesized minus true mean, averaged over subjects, in 1e-3 PSR.\n\n"
    names = list(dict.fromkeys(regions.sort_values("label")["region"]))
    per = regions.groupby(["set", "method", "region", "subject"])[["bias", "true_mean"]].mean()
    per = per.groupby(["set", "method", "region"]).mean()

    def cells(group: str, method: str, what: str, shape: str) -> list[str]:
        keys = [(group, method, region) for region in names]
        return [format(1e3 * per.loc[key][what], shape) if key in per.index else "–" for key in keys]

    rows = []
    for group in groups:
        first = [group] if len(groups) > 1 else []
        rows.append([*first, "*true mean (1e-3)*", *cells(group, methods[0].names[0], "true_mean", ".1f")])
        rows += [[*first, method, *cells(group, method, "bias", "+.2f")] for m in methods for method in m.names]
    return text + _table([*(["Set"] if len(groups) > 1 else []), "Method", *names], rows)


def _calibration(table: pd.DataFrame) -> str:
    text = (
        "## Uncertainty\n\nShare of voxels, and of region means, whose truth lies in the interval that should hold 50, "
        "80, 90 and 95 %; mean width of the 90 % interval (1e-3 PSR); rank correlation of standard deviation and "
        "absolute error; AUSE: area under the sparsification error curve, 0 if the standard deviation ranks errors "
        "perfectly; standard deviation over error (below 1: overconfident). Voxels: means over so many subjects; "
        "region means: so many regions of all subjects.\n\n"
    )
    header = [
        "Set",
        "Method",
        "What",
        "Where",
        "Number",
        *(f"{level} %" for level in LEVELS),
        "Width",
        "Spearman",
        "AUSE",
        "Spread / error",
    ]
    rows = []
    for _, row in table.iterrows():
        rows.append(
            [
                row["set"],
                row["method"],
                row["what"],
                row["group"],
                str(row["count"]),
                *(_number(100 * row[f"coverage_{level}"], 1) for level in LEVELS),
                _number(1e3 * row["width_90"], 2),
                *(_number(row.get(key, np.nan), 3) for key in ("spearman", "ause", "spread_skill")),
            ]
        )
    return text + _table(header, rows)


def _names(methods: Sequence[Method]) -> list[str]:
    return [name for method in methods if method.beside is None for name in method.names]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "–"


def _interval(mean: float, low: float, high: float, digits: int) -> str:
    if not np.isfinite(mean):
        return "–"
    ends = f" ({low:+.{digits}f} to {high:+.{digits}f})" if np.isfinite(low) else ""
    return f"{mean:+.{digits}f}{ends}"


def _plus_minus(mean: float, sd: float, digits: int) -> str:
    if not np.isfinite(mean):
        return "–"
    return f"{mean:.{digits}f}" + (f" ± {sd:.{digits}f}" if np.isfinite(sd) else "")
