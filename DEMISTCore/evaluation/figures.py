"""Pictures that compare maps: rows of axial slices, columns of images, lesion outlines; box plots by method.

Like :mod:`DEMISTCore.preview`, drawn with matplotlib's object interface alone, so that no global state is touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..preview import PSR_COLORS, PSR_LIMITS, UNCERTAINTY_COLORS, UNCERTAINTY_LIMITS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

DIFFERENCE_COLORS = "RdBu_r"
DIFFERENCE_LIMITS = (-0.06, 0.06)
CONTOUR_COLOR = "#35e0ff"


@dataclass(frozen=True, eq=False)
class Column:
    """One column of a figure: slices (one per row, (X, Y) each) and how to show them; NaN is left black."""

    title: str
    slices: Sequence[np.ndarray]
    colors: str
    limits: tuple[float, float]
    unit: str = ""

    @classmethod
    def image(cls, title: str, slices: Sequence[np.ndarray]) -> Column:
        """An MR image in grey, from its darkest to its brightest without outliers."""
        values = np.concatenate([s[s != 0].ravel() for s in slices])  # 0 is the background
        low, high = np.percentile(values, (1, 99.7)) if values.size else (0.0, 1.0)
        low -= 0.1 * (high - low)  # black is for the background
        return cls(title, slices, "gray", (float(low), float(max(high, low + 1e-6))))

    @classmethod
    def psr(cls, title: str, slices: Sequence[np.ndarray]) -> Column:
        """A PSR map."""
        return cls(title, slices, PSR_COLORS, PSR_LIMITS, "PSR (fraction)")

    @classmethod
    def difference(cls, title: str, slices: Sequence[np.ndarray]) -> Column:
        """A difference of PSR maps; blue is too low."""
        return cls(title, slices, DIFFERENCE_COLORS, DIFFERENCE_LIMITS, "PSR difference")

    @classmethod
    def uncertainty(cls, title: str, slices: Sequence[np.ndarray], unit: str = "SD over seeds") -> Column:
        """A standard deviation; ``unit`` says of what."""
        return cls(title, slices, UNCERTAINTY_COLORS, UNCERTAINTY_LIMITS, unit)


def levels(mask: np.ndarray, count: int = 3, apart: int = 10) -> list[int]:
    """The slices (last axis) that show most of ``mask``, at least ``apart`` from each other, lowest first.

    ``mask`` (X, Y, Z).

    Fewer than ``count`` if the mask has no more; without any voxel, the middle of the volume.
    """
    shown = np.asarray(mask).sum((0, 1)).astype(np.int64)
    if not shown.any():
        return [mask.shape[2] // 2]
    chosen: list[int] = []
    for k in np.argsort(-shown, kind="stable"):
        if shown[k] and all(abs(int(k) - c) >= apart for c in chosen):
            chosen.append(int(k))
        if len(chosen) == count:
            break
    return sorted(chosen)


def brain_box(mask: np.ndarray, pad: int = 3) -> tuple[slice, slice]:
    """The part (X, Y) of axial slices that holds the brain."""
    box = []
    for axis in range(2):
        there = np.flatnonzero(np.asarray(mask).any(axis=tuple(a for a in range(3) if a != axis)))
        low, high = (int(there[0]), int(there[-1]) + 1) if there.size else (0, mask.shape[axis])
        box.append(slice(max(low - pad, 0), min(high + pad, mask.shape[axis])))
    return box[0], box[1]


def compare_slices(
    columns: Sequence[Column],
    *,
    contours: Sequence[np.ndarray] | None = None,
    row_titles: Sequence[str] = (),
    aspect: float = 1.0,
    title: str = "",
    footer: str = "",
) -> Figure:
    """Draw columns of axial slices in radiological convention (the patient's right is on the left).

    Args:
        columns: slices (X, Y) whose axes run to the patient's right and to the front (RAS).
        contours: one mask (X, Y) per row, outlined on every panel.
        row_titles: one per row.
        aspect: voxel size along Y over that along X.
        title: heading.
        footer: small print.
    """
    from matplotlib.figure import Figure

    rows = len(columns[0].slices)
    shape = columns[0].slices[0].shape
    panel = 2.0
    tall = panel * aspect * shape[1] / shape[0]
    left, top, bottom = (0.35 if row_titles else 0.08), (0.62 if title else 0.32), 0.95
    width, height = left + len(columns) * panel + 0.08, top + rows * tall + bottom
    figure = Figure(figsize=(width, height), facecolor="black")
    for c, column in enumerate(columns):
        for r, data in enumerate(column.slices):
            y = bottom + (rows - 1 - r) * tall
            axes = figure.add_axes(((left + c * panel) / width, y / height, 0.98 * panel / width, 0.98 * tall / height))
            axes.set_axis_off()
            drawn = _show(axes, data, column, aspect)
            if contours is not None and contours[r].any():
                axes.contour(_flip(contours[r]).astype(float), [0.5], colors=CONTOUR_COLOR, linewidths=0.6)
            if c == 0:
                small = {"color": "0.75", "fontsize": 7, "transform": axes.transAxes, "va": "center"}
                axes.text(0.02, 0.5, "R", ha="left", **small)
                axes.text(0.98, 0.5, "L", ha="right", **small)
        middle = (left + (c + 0.5) * panel) / width
        above = (bottom + rows * tall + 0.12) / height
        figure.text(middle, above, column.title, color="white", fontsize=9, ha="center")
        if column.unit:
            bar_axes = figure.add_axes(
                ((left + (c + 0.12) * panel) / width, (bottom - 0.2) / height, 0.74 * panel / width, 0.09 / height)
            )
            bar = figure.colorbar(drawn, cax=bar_axes, orientation="horizontal", extend="max")
            low, high = column.limits
            bar.set_ticks([low, (low + high) / 2, high])
            bar.set_label(column.unit, color="white", fontsize=7, labelpad=1)
            bar.ax.tick_params(colors="white", labelsize=6)
            bar.outline.set_edgecolor("0.5")
    for r, name in enumerate(row_titles):
        y = (bottom + (rows - 0.5 - r) * tall) / height
        figure.text(0.5 * left / width, y, name, rotation=90, color="white", fontsize=8, va="center", ha="center")
    if title:
        figure.text(left / width, 1 - 0.2 / height, title, color="white", fontsize=11, va="center")
    convention = "Axial slices, radiological convention (the patient's right is on the left)."
    figure.text(left / width, 0.06 / height, f"{footer}\n{convention}".strip(), color="0.85", fontsize=7, va="bottom")
    return figure


def box_plots(values: Mapping[str, Mapping[str, Sequence[float]]], *, title: str = "", footer: str = "") -> Figure:
    """Box plots, one panel per measure, one box per method: ``values[measure][method]`` are the subjects' numbers."""
    from matplotlib.figure import Figure

    methods = list(dict.fromkeys(method for by_method in values.values() for method in by_method))
    figure = Figure(figsize=(max(2.4, 0.42 * len(methods) + 0.8) * len(values), 4.2), layout="constrained")
    for axes, (measure, by_method) in zip(figure.subplots(1, len(values), squeeze=False)[0], values.items()):
        for column, method in enumerate(methods):
            points = np.asarray([v for v in by_method.get(method, ()) if np.isfinite(v)], float)
            if not points.size:
                continue
            grey = {"color": "0.4"}
            axes.boxplot(
                points,
                positions=[column],
                widths=0.6,
                showfliers=False,
                manage_ticks=False,
                medianprops={"color": "black"},
                boxprops=grey,
                whiskerprops=grey,
                capprops=grey,
            )
            # Where points lie on top of each other they should still be counted; the shift is fixed, not random.
            shift = 0.18 * np.sin(7.0 * np.arange(points.size))
            axes.plot(column + shift, points, "o", markersize=3, alpha=0.7, color="tab:blue")
        axes.set_xticks(range(len(methods)), methods, rotation=55, ha="right", rotation_mode="anchor", fontsize=7)
        axes.set_title(measure, fontsize=9)
        axes.tick_params(axis="y", labelsize=7)
        axes.grid(axis="y", alpha=0.3)
    if title:
        figure.suptitle(title, fontsize=10)
    if footer:
        figure.supxlabel(footer, fontsize=7)
    return figure


def _flip(data: np.ndarray) -> np.ndarray:
    """(X, Y) in RAS to the image matrix of radiological convention."""
    return np.asarray(data)[::-1].T


def _show(axes: Axes, data: np.ndarray, column: Column, aspect: float) -> AxesImage:
    low, high = column.limits
    return axes.imshow(
        _flip(np.asarray(data, np.float32)),
        cmap=column.colors,
        vmin=low,
        vmax=high,
        origin="lower",
        aspect=aspect,
        interpolation="nearest",
    )
