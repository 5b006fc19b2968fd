"""PNG previews: three slices of every volume of a list, in a color map that suits it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from ..files import atomic_path

#: kind -> (color map, lowest, highest value)
KINDS = {
    "image": ("gray", -0.3, 1.3),
    "psr": ("magma", 0.0, 0.16),
    "difference": ("RdBu_r", -0.05, 0.05),
    "latent": ("viridis", None, None),
    "labels": ("nipy_spectral", 0.0, 8.0),
}
_DPI = 80
#: Pixels: a slice's square, the gap around it, the lines of the names above.
_CELL, _GAP, _HEAD = 148, 4, 40


def draw(path: Path, rows: Sequence[tuple[str, Tensor | np.ndarray, str]], title: str = "") -> None:
    """Draw (name, volume (X, Y, Z), kind) as columns with an axial, a coronal and a sagittal slice each.

    Slices are put into one picture here: a plot for each, with axes that nobody sees, took longer to draw than the
    shortest trainings take to train.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    step = _CELL + _GAP
    height, width = 3 * step + _GAP, len(rows) * step + _GAP
    canvas = np.zeros((height, width, 4), np.uint8)
    canvas[..., 3] = 255
    figure = Figure(figsize=(width / _DPI, (height + _HEAD) / _DPI), dpi=_DPI, facecolor="black")
    FigureCanvasAgg(figure)
    for column, (name, volume, kind) in enumerate(rows):
        array = np.asarray(volume.detach().float().cpu() if isinstance(volume, Tensor) else volume, np.float32)
        for row, axis in enumerate((2, 1, 0)):
            picture = _coloured(np.take(array, array.shape[axis] // 2, axis).T[::-1], kind)
            top = _GAP + row * step + (_CELL - picture.shape[0]) // 2
            left = _GAP + column * step + (_CELL - picture.shape[1]) // 2
            canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
        middle = (_GAP + column * step + _CELL / 2) / width
        figure.text(middle, (height + 4) / (height + _HEAD), name, color="white", fontsize=9, ha="center", va="bottom")
    if title:
        figure.text(0.5, 1 - 4 / (height + _HEAD), title, color="white", fontsize=10, ha="center", va="top")
    figure.figimage(canvas, origin="upper")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, facecolor="black")


def _coloured(image: np.ndarray, kind: str) -> np.ndarray:
    """A slice (H, W) as RGBA (h, w, 4) uint8: the longer side fills a cell, each voxel a rectangle of one colour."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    cmap, low, high = KINDS[kind]
    size = [max(1, round(n * _CELL / max(image.shape))) for n in image.shape]
    across, along = (np.arange(m) * n // m for m, n in zip(size, image.shape))
    shown = np.ma.masked_invalid(image[across[:, None], along])
    return colormaps[cmap](Normalize(low, high)(shown), bytes=True)
