"""What an evaluation leaves: CSV, a Markdown page, two figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import metrics
from ..files import atomic_path
from ..preview import save_figure
from .figures import Column, box_plots, compare_slices
from .methods import ABLATIONS, BOUND_RESAMPLED, ONE_SEED, POPULATION, REGRESSION
from .store import result_paths

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
_SCALE = {"mse": 1e6, "mae": 1e3}
_CALIBRATION = ("correlation", "rank_correlation", "coverage_68", "coverage_95", "spread_skill")


def write_tables(rows: Sequence[Mapping[str, Any]], methods: Sequence[str], settings: dict, out: Path) -> None:
    """results.csv, regions.csv, summary.csv and summary.md."""
    import pandas as pd

    flat = [{key: value for key, value in row.items() if key != "regions"} for row in rows]
    regions = [
        {"session": row["session"], "subject": row["subject"], "method": row["method"], **region}
        for row in rows
        for region in row["regions"]
    ]
    results, by_region = pd.DataFrame(flat), pd.DataFrame(regions)
    results["method"] = pd.Categorical(results["method"], list(methods), ordered=True)
    results = results.sort_values(["session", "method"])
    summary = summarise(results, methods, _reference(methods))
    for name, table in (("results", results), ("regions", by_region), ("summary", summary)):
        with atomic_path(out / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
    with atomic_path(out / "summary.md") as temporary:
        temporary.write_text(markdown(results, by_region, summary, methods, settings), encoding="utf-8")


def _reference(methods: Sequence[str]) -> str | None:
    """The method that the others are compared with: DEMIST's mean over seeds, else its one seed."""
    means = [name for name in methods if name.startswith("DEMIST, mean of")]
    return means[0] if means else ONE_SEED if ONE_SEED in methods else None


def summarise(results: pd.DataFrame, methods: Sequence[str], reference: str | None) -> pd.DataFrame:
    """Mean and SD over subjects (sessions of a subject averaged first), and PSNR paired with the reference's."""
    import pandas as pd

    numbers = [key for key, _, _ in COLUMNS] + [key for key in _CALIBRATION if key in results]
    per_subject = results.groupby(["method", "subject"], observed=True)[numbers].mean()
    rows = []
    for method in methods:
        own = per_subject.loc[method]
        row: dict[str, Any] = {"method": method, "subjects": len(own)}
        for key in numbers:
            row |= {f"{key}_mean": own[key].mean(), f"{key}_sd": own[key].std(ddof=1) if len(own) > 1 else np.nan}
        if reference is not None:
            ahead = per_subject.loc[reference]["psnr"] - own["psnr"]
            row |= {"psnr_reference_ahead_mean": ahead.mean(), "psnr_reference_ahead_min": ahead.min(),
                    "psnr_reference_ahead_max": ahead.max()}  # fmt: skip
        rows.append(row)
    return pd.DataFrame(rows)


def markdown(
    results: pd.DataFrame,
    regions: pd.DataFrame,
    summary: pd.DataFrame,
    methods: Sequence[str],
    settings: Mapping[str, Any],
) -> str:
    """The summary as a page."""
    reference = _reference(methods)
    where = {
        "truth": "the truth's own grid (model-grid maps brought there once, by cubic B-splines)",
        "model": "the model grid (the truth brought there once, by cubic B-splines)",
    }[settings["grid"]]
    count = results["subject"].nunique()
    lines = [
        f"# Evaluation of {settings['bundle']}",
        "",
        f"{settings['warning']}",
        "",
        f"{count} subjects, {results['session'].nunique()} sessions of `{Path(settings['data']).name}`; mean ± SD over "
        f"subjects, inside the true brain mask, on {where}. PSNR and SSIM with a range of {metrics.DATA_RANGE} PSR. "
        "Sharpness: Sobel energy over the truth's, 1 is right. Lesion AUC: lesion voxels against white matter farther "
        f"than {settings['lesion_gap_mm']:g} mm from any lesion (look-ups are given the true lesions). "
        f"Preparation: {settings['preprocess']}. "
        + " ".join(settings["notes"]),
        "",
    ]
    header = ["Method", *(heading for _, heading, _ in COLUMNS)]
    ahead = f"PSNR of {reference} minus this, mean (min to max)"
    header += [ahead] if reference else []
    lines += ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for _, row in summary.iterrows():
        cells = [row["method"]]
        for key, _, digits in COLUMNS:
            scale = _SCALE.get(key, 1)
            cells.append(_plus_minus(row[f"{key}_mean"] * scale, row[f"{key}_sd"] * scale, digits))
        if reference:
            low, high = row["psnr_reference_ahead_min"], row["psnr_reference_ahead_max"]
            same = row["method"] == reference
            cells.append("" if same else f"{row['psnr_reference_ahead_mean']:+.2f} ({low:+.2f} to {high:+.2f})")
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "## Bias by region", "", "Synthesized minus true mean, averaged over subjects, in 1e-3 PSR.", ""]
    names = list(dict.fromkeys(regions.sort_values("label")["region"]))
    per = regions.groupby(["method", "region", "subject"])[["bias", "true_mean"]].mean()
    per = per.groupby(["method", "region"]).mean()
    lines += ["| Method | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    truth = [f"{1e3 * per.loc[(methods[0], name)]['true_mean']:.1f}" for name in names]
    lines.append("| *true mean (1e-3)* | " + " | ".join(truth) + " |")
    for method in methods:
        cells = [f"{1e3 * per.loc[(method, name)]['bias']:+.2f}" for name in names]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    calibrated = [row for _, row in summary.iterrows() if np.isfinite(row.get("correlation_mean", np.nan))]
    if calibrated:
        lines += [
            "",
            "## Uncertainty",
            "",
            "Correlation of the standard deviation over seeds with the absolute error; share of voxels with the truth "
            "in the 68 % and 95 % prediction interval of the seeds; expected over actual RMS error (below 1: "
            "overconfident).",
            "",
            "| Method | Pearson | Spearman | 68 % | 95 % | Spread / error |",
            "|---|---|---|---|---|---|",
        ]
        for row in calibrated:
            values = [f"{row[f'{key}_mean']:.3f}" for key in _CALIBRATION]
            lines.append(f"| {row['method']} | " + " | ".join(values) + " |")
    return "\n".join([*lines, ""])


def draw_figures(rows: Sequence[Mapping[str, Any]], methods: Sequence[str], settings: dict, out: Path) -> None:
    """boxes.png: every subject's numbers; slices.png: the median subject and the worst, by the reference's PSNR."""
    shown = {heading: key for key, heading, _ in COLUMNS if key in ("psnr", "ssim", "sharpness", "lesion_auc")}
    # Ablations fail by so much that they would flatten everything else; the table has them.
    drawn = [m for m in methods if m != BOUND_RESAMPLED and m.removesuffix(", 1 seed") not in ABLATIONS]
    values = {
        heading: {m: [row[key] for row in rows if row["method"] == m] for m in drawn} for heading, key in shown.items()
    }
    footer = f"{settings['warning']} Bundle {settings['bundle']} {settings['bundle_hash'][:12]}."
    save_figure(box_plots(values, title="PSR against the simulated truth", footer=footer), out / "boxes.png", dpi=110)

    ranked = sorted((row["psnr"], row["session"]) for row in rows if row["method"] == _reference(methods))
    examples = list(dict.fromkeys([ranked[(len(ranked) - 1) // 2][1], ranked[0][1]]))
    kinds = ("median", "worst") if len(examples) > 1 else ("only one",)
    columns = [m for m in drawn if m in (POPULATION, REGRESSION, ONE_SEED, _reference(methods))]
    cuts = {(session, m): dict(np.load(result_paths(out, session, m)[1])) for session in examples for m in columns}
    cuts = {key: {name: a.astype(np.float32) for name, a in cut.items()} for key, cut in cuts.items()}
    first = [cuts[session, columns[0]] for session in examples]
    errors = [
        [np.where(cut["mask"] > 0, cut["psr"] - cut["truth"], np.nan) for cut in (cuts[s, m] for s in examples)]
        for m in columns
    ]
    figure = compare_slices(
        [
            Column.psr("truth", _same_shape([cut["truth"] for cut in first])),
            *(Column.psr(m, _same_shape([cuts[s, m]["psr"] for s in examples])) for m in columns),
            *(Column.difference(f"error, {m}", _same_shape(error)) for m, error in zip(columns, errors)),
        ],
        contours=_same_shape([cut["lesions"] > 0 for cut in first]),
        row_titles=[f"{session} ({what})" for session, what in zip(examples, kinds)],
        aspect=float(first[0]["aspect"]),
        title="Median and worst subject; lesions outlined",
        footer=footer,
    )
    save_figure(figure, out / "slices.png", dpi=110)


def _same_shape(slices: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Pad slices of different brains to one shape, centred."""
    target = np.max([a.shape for a in slices], axis=0)
    before = [(target - a.shape) // 2 for a in slices]
    return [
        np.pad(a, list(zip(low, target - a.shape - low)), constant_values=np.nan if a.dtype.kind == "f" else 0)
        for a, low in zip(slices, before)
    ]


def _plus_minus(mean: float, sd: float, digits: int) -> str:
    if not np.isfinite(mean):
        return "–"
    return f"{mean:.{digits}f}" + (f" ± {sd:.{digits}f}" if np.isfinite(sd) else "")
