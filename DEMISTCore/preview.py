"""One picture of a result: axial slices of T1w, FLAIR, PSR and its uncertainty.

Drawn with matplotlib's object interface alone: no backend is chosen and no global state touched, so it is safe inside
3D Slicer, a notebook or a server.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import InputError
from .files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Color scale of PSR maps everywhere: white matter (0.12) in the middle, fraction.
PSR_LIMITS = (0.0, 0.2)
#: Perceptually uniform, and black where there is no myelin.
PSR_COLORS = "inferno"
UNCERTAINTY_LIMITS = (0.0, 0.03)
UNCERTAINTY_COLORS = "viridis"
FORMATS = (".png", ".jpg", ".jpeg", ".pdf", ".svg")


def mosaic(
    t1w: np.ndarray,
    flair: np.ndarray,
    psr: np.ndarray,
    mask: np.ndarray,
    uncertainty: np.ndarray | None = None,
    *,
    title: str = "Synthesized PSR",
    footer: str = "",
    columns: int = 6,
) -> Figure:
    """Draw axial slices, lowest on the left, in radiological convention (the patient's right is on the left).

    Args:
        t1w, flair, psr, uncertainty: (X, Y, Z) on one grid whose axes run right, anterior, superior (RAS), with
            isotropic voxels; PSR and its standard deviation as fractions.
        mask: brain, > 0 inside, on that grid.
        title: heading.
        footer: small print at the bottom.
        columns: number of slices.
    """
    from matplotlib.figure import Figure

    inside = mask > 0
    box = [np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    if any(len(b) == 0 for b in box):
        box = [np.arange(n) for n in mask.shape]
    pad = 3
    across, along = (slice(max(b[0] - pad, 0), b[-1] + pad + 1) for b in box[:2])
    low, high = box[2][0], box[2][-1]
    # From the cerebellum to the centrum semiovale; the top and bottom slices show little.
    levels = np.round(low + (high - low) * np.linspace(0.25, 0.82, columns)).astype(int)

    rows = [
        ("T1w", t1w, "gray", _window(t1w, inside), None),
        ("FLAIR", flair, "gray", _window(flair, inside), None),
        ("PSR", psr, PSR_COLORS, PSR_LIMITS, "PSR (fraction)"),
    ]
    if uncertainty is not None:
        rows.append(("Uncertainty", uncertainty, UNCERTAINTY_COLORS, UNCERTAINTY_LIMITS, "SD of PSR (fraction)"))

    # Panels of equal size, in inches; a column for the row's name on the left, one for color bars on the right.
    panel = 1.7
    tall = panel * (along.stop - along.start) / max(across.stop - across.start, 1)
    left, right, top, bottom = 0.35, 0.95, 0.4, 0.42
    width, height = left + columns * panel + right, top + len(rows) * tall + bottom
    figure = Figure(figsize=(width, height), facecolor="black")
    for r, (name, data, colors, (vmin, vmax), unit) in enumerate(rows):
        y = (bottom + (len(rows) - 1 - r) * tall) / height
        for c, k in enumerate(levels):
            axes = figure.add_axes(((left + c * panel) / width, y, panel / width, tall / height))
            axes.set(xticks=[], yticks=[])  # axes that are off would still make them when texts are looked for
            axes.set_axis_off()
            shown = (
                np.where(inside[across, along, k], data[across, along, k], np.nan) if unit else data[across, along, k]
            )
            backdrop = t1w[across, along, k]
            if unit:  # the map lies over the T1w; inside the brain it is opaque, so that colors mean what the bar says
                axes.imshow(backdrop[::-1].T, cmap="gray", vmin=rows[0][3][0], vmax=rows[0][3][1], origin="lower")
            drawn = axes.imshow(shown[::-1].T, cmap=colors, vmin=vmin, vmax=vmax, origin="lower")
            if c == 0:
                small = {"color": "0.75", "fontsize": 7, "transform": axes.transAxes, "va": "center"}
                axes.text(0.02, 0.5, "R", ha="left", **small)
                axes.text(0.98, 0.5, "L", ha="right", **small)
        middle = y + tall / height / 2
        figure.text(left / 2 / width, middle, name, rotation=90, va="center", ha="center", color="white", fontsize=10)
        if unit:
            bar_axes = figure.add_axes(
                (1 - (right - 0.12) / width, y + 0.1 * tall / height, 0.13 / width, 0.8 * tall / height)
            )
            bar = figure.colorbar(drawn, cax=bar_axes, extend="max")
            bar.set_ticks(np.linspace(vmin, vmax, 5))
            bar.set_label(unit, color="white", fontsize=8)
            bar.ax.tick_params(colors="white", labelsize=7)
            bar.outline.set_edgecolor("0.5")
    figure.text(left / width, 1 - 0.5 * top / height, title, color="white", fontsize=11, va="center")
    convention = "Axial slices, radiological convention (the patient's right is on the left)."
    figure.text(
        left / width, 0.5 * bottom / height, f"{footer}\n{convention}".strip(), color="0.85", fontsize=7, va="center"
    )
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: int = 130) -> Path:
    """Write a figure, whole or not at all; same figure, same bytes.

    Raises:
        InputError: a suffix that is no picture's, or a folder that cannot be written to.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    path = check_picture_name(path)
    undated = {".png": {"Software": None}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
    for words in figure.findobj(Text):  # file names are titles: no formulas, and any letter may be in them
        words.set_text(words.get_text().encode("utf-8", "backslashreplace").decode("utf-8"))
        words.set_parse_math(False)
    canvas = FigureCanvasAgg(figure)
    with atomic_path(path) as temporary:
        canvas.print_figure(
            temporary, dpi=dpi, facecolor=figure.get_facecolor(), metadata=undated.get(path.suffix.lower())
        )
    return path


def check_picture_name(path: str | os.PathLike[str]) -> Path:
    """The path, if its suffix is that of a picture.

    Raises:
        InputError: it is not.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path} is no name for a picture; use .png (or {', '.join(FORMATS[1:])}).")
    return path


def _window(image: np.ndarray, inside: np.ndarray) -> tuple[float, float]:
    """Grey levels from the brain's darkest to its brightest, without outliers."""
    values = image[inside]
    if values.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(values, (0.5, 99.7))
    # Black is for the background: the darkest tissue should still be seen against it.
    low -= 0.08 * (high - low)
    return float(low), float(max(high, low + 1e-6))
