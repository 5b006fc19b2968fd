"""A picture to judge by eye: does the FLAIR lie on the T1w, and is the brain mask the brain's outline?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..volume import Volume

#: Standard deviation of the blur before edges are looked for (mm).
_SMOOTH_MM = 1.5


def registration(fixed: Volume, moving: Volume, brain: Volume, names: tuple[str, str] = ("T1w", "FLAIR")) -> Figure:
    """Two images in three directions; edges of the first over both (yellow), the brain mask's outline (cyan).

    Args:
        fixed, moving: values from 0 to 1, on one grid.
        brain: > 0 inside, on the same grid.
        names: what the two are.
    """
    from matplotlib.figure import Figure
    from scipy.ndimage import gaussian_filter

    first, second, mask = (np.asarray(v.array, np.float32) for v in (fixed, moving, brain))
    inside = mask > 0
    # Noise has edges of its own, in every voxel.
    smooth = gaussian_filter(first, _SMOOTH_MM / np.asarray(fixed.spacing))
    level = float(np.percentile(smooth[inside], 50)) if inside.any() else 0.5
    centre = [int(np.median(part)) for part in np.nonzero(inside)] if inside.any() else [n // 2 for n in mask.shape]
    # Radiological convention in the axial and coronal panels: the patient's right is on the left.
    cuts = [
        lambda a: a[::-1, :, centre[2]].T,
        lambda a: a[::-1, centre[1], :].T,
        lambda a: a[centre[0] + (4 if centre[0] + 4 < a.shape[0] else 0)].T,
    ]
    figure = Figure(figsize=(7.5, 5.0), facecolor="black")
    for row, (name, image) in enumerate(zip(names, (first, second))):
        for column, cut in enumerate(cuts):
            axes = figure.add_axes((column / 3, 0.5 - row * 0.5, 1 / 3, 0.46))
            axes.set(xticks=[], yticks=[])  # off alone, they would still be made whenever texts are looked for
            axes.set_axis_off()
            axes.imshow(cut(image), cmap="gray", vmin=0, vmax=1, origin="lower")
            for what, at, color in ((smooth, level, "yellow"), (mask, 0.5, "cyan")):
                here = cut(what)
                if here.min() < at < here.max():
                    axes.contour(here, levels=[at], colors=color, linewidths=0.4, origin="lower")
            if not column:
                title = f"{name}; {names[0]}'s edges yellow, brain mask cyan"
                axes.set_title(title, color="white", fontsize=8, loc="left")
    return figure
