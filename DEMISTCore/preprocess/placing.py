"""Masks and labels belong to the image that they were drawn on: where it goes, they go.

A mask says nothing of its image but by its grid. One on the T1w's grid stays, one on the FLAIR's grid follows the
FLAIR to the T1w, any other is placed by its header; whatever is not plain is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError
from ..volume import Grid, Volume
from .checks import describe

#: Affines differ by rounding (headers store float32, qforms unit quaternions): nearer than this (mm) is the same place.
SAME_MM = 0.1
#: A motion that moves no corner of the mask's box farther than this (mm) is not worth a word.
_UNMOVED_MM = 0.05


@dataclass(frozen=True)
class Places:
    """The grids that a mask may have been drawn on.

    Attributes:
        fixed: grids that stay where they are, by the name of their image ("T1w", "PSR map").
        flair: the FLAIR's grid as scanned; None if there is no FLAIR.
        motion: (4, 4) rigid motion, RAS mm, that took the FLAIR onto the T1w.
    """

    fixed: Mapping[str, Grid]
    flair: Grid | None = None
    motion: np.ndarray = field(default_factory=lambda: np.eye(4))

    def follows_flair(self, grid: Grid) -> bool:
        """True if ``grid`` is the FLAIR's and no other image's."""
        if self.flair is None or not _same(grid, self.flair):
            return False
        return not any(_same(grid, other) for other in self.fixed.values())


def place(mask: Volume, name: str, places: Places, notes: list[str], drawn: bool = True) -> Volume:
    """The mask where it belongs: in the world of the T1w.

    Args:
        mask: mask, labels or probabilities as read, with the affine of its file.
        name: what it is, for sentences: "lesion mask".
        places: the images it may have been drawn on.
        notes: sentences about what was done or looks odd are added here.
        drawn: somebody may have drawn it on either image, and where they share a grid that is said. A brain mask is
            made of the image that it stays with.

    Raises:
        InputError: it has an image's shape and a header that lost its place (:func:`lost`).
    """
    label = describe(mask, name)
    known = dict(places.fixed) | ({"FLAIR": places.flair} if places.flair is not None else {})
    for other, grid in known.items():
        if lost(mask.grid) and mask.shape == grid.shape and not any(_same(mask.grid, g) for g in known.values()):
            raise InputError(
                f"{label} has the {other}'s shape, but its header places it {_apart(mask.grid, grid):.0f} mm away and "
                f"says nothing of its orientation; it was saved without the {other}'s affine: save it with that."
            )
    if places.follows_flair(mask.grid):
        moved = Volume(mask.array, places.motion @ mask.affine, mask.path)
        distance = _apart(mask.grid, moved.grid)
        if distance > _UNMOVED_MM:
            notes.append(f"{label} lies on the FLAIR's grid and was moved with the FLAIR, by up to {distance:.1f} mm.")
        return moved
    on = [other for other, grid in known.items() if _same(mask.grid, grid)]
    if on:
        distance = _apart(mask.grid, Grid(mask.shape, places.motion @ mask.affine))
        if drawn and "FLAIR" in on and distance > 1.0:
            notes.append(
                f"{label} lies on the grid that {' and '.join(on)} share; it stays there, while registration moved the "
                f"FLAIR by up to {distance:.1f} mm: if it was drawn on the FLAIR, look at where it lies."
            )
        return mask
    twins = {other: _apart(mask.grid, grid) for other, grid in known.items() if grid.shape == mask.shape}
    if twins:
        other = min(twins, key=lambda key: twins[key])
        notes.append(
            f"{label} has the {other}'s shape, but its header places it up to {twins[other]:.1f} mm away; it was "
            f"placed by its header. If it was drawn on the {other}, save it with the {other}'s affine."
        )
    elif known:
        notes.append(
            f"{label} lies on the grid of {'neither' if len(known) > 1 else 'no'} {' nor '.join(known)}; it was placed "
            "by its header (world coordinates)."
        )
    return mask


def lost(grid: Grid) -> bool:
    """True if an affine is what programs write when they know none: voxel sizes at most, first voxel in the origin."""
    matrix = grid.affine[:3, :3]
    return bool(np.allclose(grid.affine[:3, 3], 0) and np.allclose(matrix, np.diag(np.diag(matrix))))


def _same(grid: Grid, other: Grid) -> bool:
    return grid.same_as(other, SAME_MM)


def _apart(grid: Grid, other: Grid) -> float:
    """The largest distance (mm) between the same corners of two boxes."""
    return float(np.linalg.norm(grid.corners() - other.corners(), axis=1).max())
