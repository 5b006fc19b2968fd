"""Figures: ROC curves, box plots by region, map with region outlines, Bland-Altman.

Drawn with matplotlib's object interface alone, as in :mod:`DEMISTCore.preview`.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..colors import OUTLINED, REGION_COLORS
from ..preview import PSR_COLORS, PSR_LIMITS
from ..volume import Volume
from .comparison import Agreement, Comparison
from .contrast import Contrast, Roc

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..regions import Regions

#: Outlines over the map: lesions on top.
_OUTLINED = {key: REGION_COLORS[key] for key in OUTLINED}
_SMALL, _NORMAL, _LARGE = 8, 9, 11


def roc_figure(contrasts: Sequence[Contrast], *, suggested: bool = False, title: str = "", footer: str = "") -> Figure:
    """ROC curves of lesion against NAWM (all, proximal, distal), voxel level on the left, lesion level on the right.

    Args:
        contrasts: what :func:`~DEMISTCore.statistics.contrast.contrasts` found.
        suggested: the lesions were found on the FLAIR, not drawn.
        title, footer: heading, small print.
    """
    from ..regions import REGIONS

    figure, panels = _canvas(9.4, 5.6, 2, title, footer)
    levels = {
        "voxel": "Voxels\ninterval by lesion and NAWM block",
        "lesion": "Lesions\nmeans of lesions and of NAWM patches of their size",
    }
    what = "suggested " if suggested else ""
    styles = dict(zip(("nawm", "nawm_proximal", "nawm_distal"), ("-", "--", "-.")))
    for axes, (level, heading) in zip(panels, levels.items()):
        axes.plot((0, 1), (0, 1), color="0.75", linewidth=1)
        for contrast in contrasts:
            curve: Roc | None = getattr(contrast, level)
            if curve is None:
                continue
            style = {"color": REGION_COLORS[contrast.against], "linestyle": styles.get(contrast.against, ":")}
            label = f"{_short(REGIONS[contrast.against])}: {curve.auc:.3f} {_interval(curve.best_ci)}"
            axes.plot(*_thin(curve), linewidth=1.8, label=label, drawstyle="default", **style)
            axes.plot(1 - curve.specificity, curve.sensitivity, "o", markersize=5, color=style["color"])
        counts = {(c.n_lesion, c.n_nawm) for c in (getattr(k, level) for k in contrasts) if c is not None}
        if counts:
            lesions = next(iter(counts))[0]
            axes.legend(
                loc="lower right",
                fontsize=_NORMAL,
                frameon=True,
                framealpha=0.9,
                title_fontsize=_NORMAL,
                title=f"{lesions:,} {what}{'lesion voxels' if level == 'voxel' else 'lesions'}; AUC [95 % CI]",
            )
        else:
            axes.text(0.5, 0.45, "not available\n(see the notes)", ha="center", va="center", fontsize=_NORMAL)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        axes.set_xlabel("1 - specificity (NAWM called lesion)", fontsize=_NORMAL)
        axes.set_ylabel("sensitivity (lesion called lesion)", fontsize=_NORMAL)
        axes.set_title(heading, fontsize=_NORMAL)
        axes.tick_params(labelsize=_SMALL)
        axes.grid(alpha=0.25)
    return figure


def box_figure(rows: Sequence[dict[str, Any]], *, title: str = "", footer: str = "") -> Figure:
    """Box plots by region from the rows of the table: quartiles, 5th to 95th percentile, mean; lesions as points.

    Where the table has intervals of means, they are error bars on the means of regions and of lesions.
    """
    whole = [row for row in rows if row["lesion"] is None and math.isfinite(row["median"])]
    single = [row for row in rows if row["lesion"] is not None and math.isfinite(row["mean"])]
    width = max(5.5, 1.05 * len(whole) + 1.2)
    figure, (axes,) = _canvas(width, 5.0, 1, title, footer)
    for k, row in enumerate(whole):
        color = REGION_COLORS.get(row["region"], "0.5")
        stats = {
            "med": row["median"],
            "q1": row["p25"],
            "q3": row["p75"],
            "whislo": row["p5"],
            "whishi": row["p95"],
            "mean": row["mean"],
            "fliers": [],
        }
        axes.bxp(
            [stats],
            positions=[k],
            widths=0.55,
            showmeans=True,
            showfliers=False,
            manage_ticks=False,
            patch_artist=True,
            boxprops={"facecolor": color, "alpha": 0.55, "edgecolor": "0.2"},
            medianprops={"color": "black"},
            meanprops={"marker": "D", "markersize": 4, "markerfacecolor": "white", "markeredgecolor": "black"},
        )
        _error_bars(axes, [k], [row], linewidth=1.6, capsize=4, color="black", zorder=4)
        if row["region"] == "lesion" and len(single) > 1:
            # Points on top of each other should still be counted; the shift is fixed, not random.
            shift = 0.2 * np.sin(7.0 * np.arange(len(single)))
            axes.plot(k + shift, [s["mean"] for s in single], "o", markersize=2.5, alpha=0.6, color="0.15")
            _error_bars(axes, k + shift, single, linewidth=0.7, capsize=0, color="0.15", alpha=0.45)
    names = [textwrap.fill(f"{row['name']}", 14) + f"\n{row['volume_ml']:.3g} mL" for row in whole]
    axes.set_xticks(range(len(whole)), names, fontsize=_SMALL)
    axes.set_ylabel("PSR (fraction)", fontsize=_NORMAL)
    axes.tick_params(axis="y", labelsize=_SMALL)
    axes.set_xlim(-0.6, len(whole) - 0.4)
    axes.grid(axis="y", alpha=0.3)
    explained = "Boxes: quartiles and median; whiskers: 5th to 95th percentile; diamonds: means."
    explained += " Points: means of single lesions." if len(single) > 1 else ""
    lines = textwrap.wrap(explained, int(14.5 * (width - 0.8)))
    if any(_has_interval(row) for row in whole):
        lines.append("Error bars: 90 % intervals of the true means.")
    axes.set_title("\n".join(lines), fontsize=_SMALL)
    return figure


def overlay_figure(
    psr: Volume,
    regions: Regions,
    *,
    backdrop: tuple[str, Volume] | None = None,
    columns: int = 5,
    title: str = "",
    footer: str = "",
) -> Figure:
    """Axial slices of the map, bare above and with outlines of lesions and NAWM below; over them ``backdrop``, if any.

    Args:
        psr: the map, fraction.
        regions: masks on the map's grid.
        backdrop: name and image (T1w or FLAIR) on that grid, drawn with the lesions' outlines.
        columns: number of slices; those with most lesion, else evenly spaced ones.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from ..evaluation.figures import brain_box
    from ..regions import REGIONS
    from .checks import support

    inside = psr.with_array(support(psr).astype(np.uint8)).reoriented("RAS").array > 0
    shown = psr.reoriented("RAS")
    masks = {k: regions.masks[k].reoriented("RAS").array > 0 for k in _OUTLINED if k in regions.masks}
    behind = None if backdrop is None else backdrop[1].reoriented("RAS").array
    across, along = brain_box(inside)
    cuts = _slices(masks.get("lesion"), inside, shown.spacing[2], columns)
    aspect = shown.spacing[1] / shown.spacing[0]

    rows: list[tuple[str, tuple[str, ...] | None]] = [("PSR", None), ("Regions", tuple(masks))]
    if backdrop is not None:
        rows.insert(0, (backdrop[0], ("lesion",)))
    panel, left, right, top, bottom = 1.75, 0.35, 0.95, 0.45, 0.85
    tall = panel * aspect * (along.stop - along.start) / max(across.stop - across.start, 1)
    width, height = left + len(cuts) * panel + right, top + len(rows) * tall + bottom
    figure = Figure(figsize=(width, height), facecolor="black")
    for r, (name, outlined) in enumerate(rows):
        y = (bottom + (len(rows) - 1 - r) * tall) / height
        for c, k in enumerate(cuts):
            axes = figure.add_axes(((left + c * panel) / width, y, 0.99 * panel / width, 0.99 * tall / height))
            axes.set_axis_off()
            if r == 0 and behind is not None:
                image = np.where(behind[across, along, k] == 0, np.nan, behind[across, along, k])  # black around it
                limits, colors = _window(behind, inside), "gray"
            else:
                image = np.where(inside[across, along, k], shown.array[across, along, k], np.nan)
                limits, colors = PSR_LIMITS, PSR_COLORS
            drawn = axes.imshow(
                image[::-1].T,
                cmap=colors,
                vmin=limits[0],
                vmax=limits[1],
                origin="lower",
                aspect=aspect,
                interpolation="nearest",
            )
            for key in outlined or ():
                piece = masks[key][across, along, k] if key in masks else np.zeros((1, 1), bool)
                if piece.any() and not piece.all():
                    axes.contour(piece[::-1].T.astype(float), [0.5], colors=_OUTLINED[key], linewidths=0.7)
            if c == 0:
                small = {"color": "0.8", "fontsize": _SMALL, "transform": axes.transAxes, "va": "center"}
                axes.text(0.02, 0.5, "R", ha="left", **small)
                axes.text(0.98, 0.5, "L", ha="right", **small)
        figure.text(
            0.5 * left / width,
            y + tall / height / 2,
            name,
            rotation=90,
            color="white",
            fontsize=_NORMAL,
            va="center",
            ha="center",
        )
        if not (r == 0 and behind is not None):
            bar_axes = figure.add_axes(
                (1 - (right - 0.12) / width, y + 0.1 * tall / height, 0.13 / width, 0.8 * tall / height)
            )
            bar = figure.colorbar(drawn, cax=bar_axes, extend="max")
            bar.set_ticks(np.linspace(*PSR_LIMITS, 5))
            bar.set_label("PSR (fraction)", color="white", fontsize=_SMALL)
            bar.ax.tick_params(colors="white", labelsize=_SMALL)
            bar.outline.set_edgecolor("0.5")
    if masks:
        mark = " (suggested)" if regions.lesions is not None and regions.lesions.suggested else ""
        lines = [
            Line2D([], [], color=_OUTLINED[k], label=REGIONS[k] + (mark if k == "lesion" else ""))
            for k in reversed(_OUTLINED)
            if k in masks
        ]
        legend = figure.legend(
            handles=lines,
            loc="upper right",
            ncols=len(lines),
            fontsize=_SMALL,
            frameon=False,
            bbox_to_anchor=(1, 1),
            labelcolor="white",
        )
        legend.set_in_layout(False)
    figure.text(left / width, 1 - 0.5 * top / height, title, color="white", fontsize=_LARGE, va="center")
    convention = "Axial slices, radiological convention (the patient's right is on the left)."
    words = textwrap.fill(footer, int(16 * width)) + "\n" + convention
    figure.text(left / width, 0.08 / height, words.strip(), color="0.85", fontsize=_SMALL, va="bottom")
    return figure


def bland_altman_figure(
    a: Volume, b: Volume, comparison: Comparison, where: np.ndarray, *, title: str = "", footer: str = ""
) -> Figure:
    """Differences against means: all voxels (left, shaded by their number), lesions (right).

    Args:
        a, b: the map and the reference, on one grid.
        comparison: what :func:`~DEMISTCore.statistics.comparison.compare` found.
        where: voxels to draw, (X, Y, Z) bool.
    """
    from matplotlib.colors import LogNorm

    both = where & np.isfinite(a.array) & np.isfinite(b.array)
    x, y = a.array[both].astype(np.float64), b.array[both].astype(np.float64)
    lesions = [row for row in comparison.regions if row["lesion"] is not None and math.isfinite(row["difference"])]
    panels: list[tuple[str, Agreement, np.ndarray, np.ndarray]] = []
    if comparison.voxel is not None:
        panels.append(("Voxels (darker: more)", comparison.voxel, (x + y) / 2, x - y))
    if comparison.lesion is not None:
        means = np.array([(row["mean"] + row["reference_mean"]) / 2 for row in lesions])
        panels.append(("Lesions", comparison.lesion, means, np.array([row["difference"] for row in lesions])))
    figure, drawn_on = _canvas(4.9 * len(panels), 4.9, len(panels), title, footer)
    for axes, (name, told, middle, difference) in zip(drawn_on, panels):
        if name.startswith("Voxels"):
            low, high = np.percentile(middle, (0.05, 99.95))
            half = max(np.percentile(np.abs(difference), 99.9), 1e-6)
            axes.hist2d(
                middle,
                difference,
                bins=120,
                range=((low, max(high, low + 1e-6)), (-half, half)),
                norm=LogNorm(),
                cmap="Blues",
            )
        else:
            axes.plot(middle, difference, "o", markersize=4, alpha=0.7, color="tab:blue")
        for value, style in ((told.bias, "-"), (told.lower, "--"), (told.upper, "--")):
            axes.axhline(value, color="black", linestyle=style, linewidth=1.1)
        axes.axhline(0, color="0.6", linewidth=0.7)
        axes.set_title(
            f"{name}: bias {told.bias:+.4f} {_interval(told.bias_ci, '+.4f')}\n"
            f"limits {told.lower:+.4f} to {told.upper:+.4f}; r {told.pearson:.3f}, concordance {told.concordance:.3f}",
            fontsize=_NORMAL,
        )
        axes.set_xlabel("mean of both maps (PSR, fraction)", fontsize=_NORMAL)
        axes.set_ylabel("map minus reference", fontsize=_NORMAL)
        axes.tick_params(labelsize=_SMALL)
        axes.grid(alpha=0.25)
    return figure


# --- helpers ---------------------------------------------------------------------------------------------------------


def _canvas(width: float, height: float, panels: int, title: str, footer: str) -> tuple[Figure, Any]:
    """A white figure with a heading, panels in a row, and small print that is wrapped to the width."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    if title:
        figure.suptitle(title, fontsize=_LARGE)
    if footer:
        figure.supxlabel(textwrap.fill(footer, int(14.5 * width)), fontsize=_SMALL, color="0.25", x=0.02, ha="left")
    return figure, axes


def _has_interval(row: dict[str, Any]) -> bool:
    ends = row.get("mean_ci90_low"), row.get("mean_ci90_high")
    return all(end is not None and math.isfinite(end) for end in ends)


def _error_bars(axes: Any, places: Sequence[float], rows: Sequence[dict[str, Any]], **style: Any) -> None:
    """Intervals of the means at these places, of those rows that have one."""
    kept = [(place, row) for place, row in zip(places, rows) if _has_interval(row)]
    if kept:
        means = np.array([row["mean"] for _place, row in kept])
        low, high = np.array([(row["mean_ci90_low"], row["mean_ci90_high"]) for _place, row in kept]).T
        reach = np.maximum([means - low, high - means], 0)  # not below 0 where voxels without SD moved the middle
        axes.errorbar([place for place, _row in kept], means, yerr=reach, fmt="none", **style)


def _thin(curve: Roc, most: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """The curve with at most that many points, its ends kept."""
    keep = np.unique(np.linspace(0, curve.fpr.size - 1, most).round().astype(int))
    return curve.fpr[keep], curve.tpr[keep]


def _slices(lesions: np.ndarray | None, inside: np.ndarray, thickness: float, count: int) -> list[int]:
    """Slices through lesions, 8 mm apart if there are enough; filled up evenly from cerebellum to centrum semiovale."""
    from ..evaluation.figures import levels

    there = np.flatnonzero(inside.any(axis=(0, 1)))
    low, high = (int(there[0]), int(there[-1])) if there.size else (0, inside.shape[2] - 1)
    apart = max(1, round(8 / thickness))
    chosen = levels(lesions, count, apart) if lesions is not None and lesions.any() else []
    for k in np.round(low + (high - low) * np.linspace(0.25, 0.82, 4 * count)).astype(int):
        if len(chosen) < count and all(abs(int(k) - c) >= apart for c in chosen):
            chosen.append(int(k))
    return sorted(chosen)


def _window(image: np.ndarray, inside: np.ndarray) -> tuple[float, float]:
    values = image[inside & np.isfinite(image)]
    low, high = np.percentile(values, (0.5, 99.7)) if values.size else (0.0, 1.0)
    low -= 0.08 * (high - low)
    return float(low), float(max(high, low + 1e-6))


def _short(name: str) -> str:
    return "All NAWM" if name == "NAWM" else name


def _interval(ci: tuple[float, float], form: str = ".3f") -> str:
    return "[no interval]" if math.isnan(ci[0]) else f"[{ci[0]:{form}}, {ci[1]:{form}}]"
