"""Figures of the experiment: the table, ROC curves of truth and map, example slices with zooms, region means.

Drawn with matplotlib's object interface alone, as in :mod:`DEMISTCore.preview`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...colors import REGION_COLORS
from ...statistics.comparison import agreement
from ..figures import Column, compare_slices
from .folds import fold_folder
from .pooled import Pool
from .recipes import OURS
from .significance import MAIN
from .store import arrays, scan_arrays

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SMALL, _NORMAL = 7, 9
#: Colors of regions by the names they have here.
_REGIONS = {
    "lesion": REGION_COLORS["lesion"],
    "proximal NAWM": REGION_COLORS["nawm_proximal"],
    "distal NAWM": REGION_COLORS["nawm_distal"],
    "grey matter": REGION_COLORS["grey_matter"],
    "white matter": REGION_COLORS["white_matter"],
}
_CURVES = {"proximal": REGION_COLORS["nawm_proximal"], "distal": REGION_COLORS["nawm_distal"]}
_ACROSS = 4
#: A zoom shows this share of the slice's extents.
_ZOOM = 0.36


def draw(
    results: Sequence[Mapping[str, Any]],
    tables: Mapping[str, pd.DataFrame],
    rows: Sequence[str],
    kinds: Mapping[str, str],
    pool: Pool,
    out: Path,
) -> dict[str, Figure]:
    """All figures by file name; those that there is nothing for are left out."""
    figures = {"table.png": table_figure(tables, rows, kinds)}
    if pool.curve(None, "distal") is not None or pool.curve(None, "proximal") is not None:
        figures["roc.png"] = roc_figure(pool, rows)
    example = _example(results, out)
    if example is not None:
        figures |= panel(*example, rows, out)
    if len(tables["regions"]):
        figures["scatter.png"] = region_figure(tables["regions"], rows, scatter, "Region means: map against truth")
        figures["bland_altman.png"] = region_figure(
            tables["regions"], rows, bland_altman, "Region means: map minus truth against their mean"
        )
    return figures


def table_figure(tables: Mapping[str, pd.DataFrame], rows: Sequence[str], kinds: Mapping[str, str]) -> Figure:
    """The main table as a picture: mean ± SD over folds, the best in bold, stars as in the text."""
    from matplotlib.figure import Figure

    told = tables["summary"].set_index("method")
    measures = [m for m in MAIN if f"{m.key}_mean" in tables["summary"]]
    stars = tables["significance"]
    texts, best = [], []
    for m in measures:
        means = np.array([m.better * float(told.loc[row, f"{m.key}_mean"]) for row in rows])
        best.append(int(np.nanargmax(means)) if np.isfinite(means).any() else -1)
    for row in rows:
        line = [row]
        for m in measures:
            mean, sd = m.factor * told.loc[row, f"{m.key}_mean"], m.factor * told.loc[row, f"{m.key}_sd"]
            own = stars[(stars["measure"] == m.key) & (stars["method"] == row) & stars["best"]] if len(stars) else stars
            mark = str(own.iloc[0]["stars"]) if len(own) else ""
            spread = f" ± {sd:.{m.digits}f}" if math.isfinite(sd) else ""
            line.append(f"{mean:.{m.digits}f}{spread}{mark}" if math.isfinite(mean) else "–")
        texts.append(line)
    figure = Figure(figsize=(2.4 + 1.45 * len(measures), 0.9 + 0.32 * len(rows)), facecolor="white")
    axes = figure.add_axes((0.01, 0.02, 0.98, 0.96))
    axes.set_axis_off()
    widths = [0.19, *[0.81 / len(measures)] * len(measures)]
    header = ["", *(f"{m.title} {'↑' if m.better > 0 else '↓'}" for m in measures)]
    drawn = axes.table(texts, colLabels=header, colWidths=widths, loc="center", cellLoc="center")
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(8)
    drawn.scale(1, 1.35)
    for (line, column), cell in drawn.get_celld().items():
        cell.set_linewidth(0.6)
        cell.set_edgecolor("0.85")  # all edges: cells with some only cannot be filled
        if column == 0:
            cell.set_text_props(ha="left")
        if line == 0 or (column > 0 and line - 1 == best[column - 1]):
            cell.set_text_props(weight="bold")
        if line > 0 and kinds.get(rows[line - 1]) == OURS:
            cell.set_facecolor("#e3eefa")
    return figure


def roc_figure(pool: Pool, rows: Sequence[str]) -> Figure:
    """Lesions against proximal and distal NAWM over all scans: the truth's curve dashed, the map's solid."""
    figure, panels = _grid(len(rows), "Lesions against normal-appearing white matter, all scans")
    for axes, row in zip(panels, rows):
        axes.plot((0, 1), (0, 1), color="0.8", linewidth=0.8)
        for region, color in _CURVES.items():
            pair = pool.compared(row, region)
            if pair is None:
                continue
            for source, style, area in ((None, "--", pair.second), (row, "-", pair.first)):
                points = pool.curve(source, region)
                if points is None:
                    continue
                fpr, tpr = _thin(points)
                what = "reference" if source is None else "synthesized"
                axes.plot(fpr, tpr, style, color=color, linewidth=1.3, label=f"{what}, {region}: {area:.3f}")
        axes.set_title(row, fontsize=_NORMAL)
        axes.legend(loc="lower right", fontsize=6, frameon=False, title="AUC", title_fontsize=6)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        axes.set_xlabel("1 - specificity", fontsize=_SMALL)
        axes.set_ylabel("sensitivity", fontsize=_SMALL)
    return figure


def region_figure(
    regions: pd.DataFrame,
    rows: Sequence[str],
    one: Callable[[Axes, np.ndarray, np.ndarray, np.ndarray, Any], None],
    title: str,
) -> Figure:
    """One panel a method over the region means of all scans, a color a region."""
    figure, panels = _grid(len(rows), title)
    shown = regions[regions["region"].isin(_REGIONS)]
    for axes, row in zip(panels, rows):
        own = shown[shown["method"] == row]
        if not len(own):
            axes.set_axis_off()
            continue
        truth, made = own["truth"].to_numpy(float), own["synthesized"].to_numpy(float)
        one(axes, truth, made, own["region"].to_numpy(str), own["subject"])
        axes.set_title(f"{row}\n{axes.get_title()}", fontsize=8)
        axes.grid(alpha=0.25)
    handles = [_dot(name) for name in _REGIONS if (shown["region"] == name).any()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    return figure


def scatter(axes: Axes, truth: np.ndarray, made: np.ndarray, region: np.ndarray, who: Any) -> None:
    """Map against truth, with the line of identity.

    ``truth``, ``made`` (PSR, fraction) and ``region`` (its number) are (n,), a value for each region of each scan.
    """
    ends = (min(truth.min(), made.min()), max(truth.max(), made.max()))
    axes.plot(ends, ends, color="0.6", linewidth=0.8)
    for name, color in _REGIONS.items():
        axes.plot(truth[region == name], made[region == name], "o", markersize=2.2, alpha=0.6, color=color)
    if truth.size > 1:
        told = agreement(made, truth)
        axes.set_title(f"r {told.pearson:.3f}, concordance {told.concordance:.3f}")
    axes.set_xlabel("reference PSR", fontsize=_SMALL)
    axes.set_ylabel("synthesized PSR", fontsize=_SMALL)


def bland_altman(axes: Axes, truth: np.ndarray, made: np.ndarray, region: np.ndarray, who: Any) -> None:
    """Map minus truth against their mean, with bias and limits of agreement.

    ``truth``, ``made`` (PSR, fraction) and ``region`` (its number) are (n,), a value for each region of each scan.
    """
    for name, color in _REGIONS.items():
        here = region == name
        axes.plot((truth[here] + made[here]) / 2, made[here] - truth[here], "o", markersize=2.2, alpha=0.6, color=color)
    if truth.size > 1:
        told = agreement(made, truth, clusters=np.unique(who, return_inverse=True)[1])
        for value, style in ((told.bias, "-"), (told.lower, "--"), (told.upper, "--")):
            axes.axhline(value, color="black", linestyle=style, linewidth=0.9)
        axes.set_title(f"bias {told.bias:+.4f}, limits {told.lower:+.4f} to {told.upper:+.4f}")
    axes.set_xlabel("mean of both (PSR)", fontsize=_SMALL)
    axes.set_ylabel("synthesized - reference", fontsize=_SMALL)


def panel(fold: int, session: str, rows: Sequence[str], out: Path) -> dict[str, Figure]:
    """One scan: images, measured and synthesized maps, and their differences; the slice, and a zoom on a lesion."""
    folder = out / fold_folder(fold) / "results"
    scan = scan_arrays(folder, session)
    if scan is None:
        return {}
    made = {row: arrays(folder, session, row)["psr"].astype(np.float32) for row in rows}
    mask, lesions = scan["mask"] > 0, scan["lesions"] > 0
    box = _zoom(lesions if lesions.any() else mask)

    def both(image: np.ndarray) -> list[np.ndarray]:
        image = image.astype(np.float32)
        return [image, _same_size(image[box], image.shape)]

    def map_of(image: np.ndarray) -> list[np.ndarray]:
        return both(np.where(mask, image.astype(np.float32), np.nan))

    truth = scan["truth"].astype(np.float32)
    contours = [np.zeros(mask.shape, bool), _same_size(lesions[box].astype(np.float32), mask.shape) > 0.5]
    drawn = partial(compare_slices, contours=contours, row_titles=["slice", "zoom"], aspect=float(scan["aspect"]))
    columns = [
        Column.image("T1w", both(scan["t1w"])),
        Column.image("FLAIR", both(scan["flair"])),
        Column.psr("reference", map_of(truth)),
        *(Column.psr(row, map_of(made[row])) for row in rows),
    ]
    differences = [
        Column.psr("reference", map_of(truth)),
        *(Column.difference(row, map_of(made[row] - truth)) for row in rows),
    ]
    footer = "Outlined in the zoom: lesions."
    return {
        "panel.png": drawn(columns, title=f"{session} (fold {fold})", footer=footer),
        "panel_differences.png": drawn(differences, title=f"{session} (fold {fold}), map minus truth", footer=footer),
    }


def _example(results: Sequence[Mapping[str, Any]], out: Path) -> tuple[int, str] | None:
    """The scan with most lesion in its slice; without lesions the first."""
    scans = sorted({(one["row"]["fold"], one["row"]["session"]) for one in results})
    best: tuple[int, tuple[int, str]] | None = None
    for fold, session in scans:
        scan = scan_arrays(out / fold_folder(fold) / "results", session)
        if scan is not None and (best is None or int((scan["lesions"] > 0).sum()) > best[0]):
            best = int((scan["lesions"] > 0).sum()), (fold, session)
    return None if best is None else best[1]


def _zoom(where: np.ndarray) -> tuple[slice, slice]:
    """A box with the slice's proportions around the densest part of a mask (X, Y)."""
    from scipy.ndimage import uniform_filter

    size = [max(4, round(_ZOOM * n)) for n in where.shape]
    dense = uniform_filter(where.astype(np.float32), size, mode="constant")
    middle = np.unravel_index(int(dense.argmax()), dense.shape)
    starts = [min(max(int(m) - s // 2, 0), n - s) for m, s, n in zip(middle, size, where.shape)]
    return slice(starts[0], starts[0] + size[0]), slice(starts[1], starts[1] + size[1])


def _same_size(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Each voxel repeated until the image has ``shape``."""
    index = [np.minimum((np.arange(n) * m) // n, m - 1) for n, m in zip(shape, image.shape)]
    return image[np.ix_(*index)]


def _grid(count: int, title: str) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    across = min(count, _ACROSS)
    down = math.ceil(count / across)
    figure = Figure(figsize=(2.9 * across, 2.9 * down + 0.5), facecolor="white", layout="constrained")
    panels = list(figure.subplots(down, across, squeeze=False).ravel())
    for axes in panels:
        axes.tick_params(labelsize=6)
    for axes in panels[count:]:
        axes.set_axis_off()
    figure.suptitle(title, fontsize=11)
    return figure, panels


def _dot(name: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], marker="o", linestyle="", markersize=4, color=_REGIONS[name], label=name)


def _thin(curve: tuple[np.ndarray, np.ndarray], most: int = 1500) -> tuple[np.ndarray, np.ndarray]:
    keep = np.unique(np.linspace(0, curve[0].size - 1, most).round().astype(int))
    return curve[0][keep], curve[1][keep]
