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


def draw(path: Path, rows: Sequence[tuple[str, Tensor | np.ndarray, str]], title: str = "") -> None:
    """Draw (name, volume (X, Y, Z), kind) as columns with an axial, a coronal and a sagittal slice each."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.9 * len(rows), 6.2), facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, len(rows), squeeze=False)
    for column, (name, volume, kind) in enumerate(rows):
        array = np.asarray(volume.detach().float().cpu() if isinstance(volume, Tensor) else volume, np.float32)
        cmap, low, high = KINDS[kind]
        for row, axis in enumerate((2, 1, 0)):
            image = np.take(array, array.shape[axis] // 2, axis)
            axes[row, column].imshow(
                image.T, origin="lower", cmap=colormaps[cmap], vmin=low, vmax=high, interpolation="nearest"
            )
            axes[row, column].set_axis_off()
        axes[0, column].set_title(name, color="white", fontsize=9)
    if title:
        figure.suptitle(title, color="white", fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=80, facecolor="black")
