"""Where voxels lie: a box in the world."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, SupportsInt

import numpy as np

if TYPE_CHECKING:
    from .forms import Forms
    from .image import Volume


def triple(numbers: Iterable[SupportsInt]) -> tuple[int, int, int]:
    """Exactly three numbers, as whole ones: a shape, a corner or a voxel index from an array or a sequence.

    Raises:
        ValueError: there are fewer or more.
    """
    x, y, z = numbers
    return int(x), int(y), int(z)


@dataclass(frozen=True, eq=False)
class Grid:
    """A box of voxels in the world: ``shape`` (X, Y, Z) and ``affine`` (4, 4), voxel index to RAS mm.

    ``forms`` is how the file said so that the grid comes from (None: no file), for files written on the same grid.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    forms: Forms | None = None

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or len(self.shape) != 3:
            raise ValueError(f"A grid needs a 3-D shape and a 4x4 affine, not {self.shape} and {affine.shape}.")
        affine.flags.writeable = False
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", triple(self.shape))

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along X, Y, Z."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def axcodes(self) -> str:
        """Direction in which each voxel axis grows, as in ``"RAS"`` or ``"LPI"``."""
        import nibabel as nib

        return "".join(nib.aff2axcodes(self.affine))

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @property
    def extent(self) -> tuple[float, float, float]:
        """Edge lengths of the box in mm."""
        x, y, z = (n * s for n, s in zip(self.shape, self.spacing))
        return x, y, z

    @property
    def rotation(self) -> np.ndarray:
        """Directions of the voxel axes as a proper or improper rotation (3, 3): the nearest one, if sheared."""
        u, _, vt = np.linalg.svd(self.affine[:3, :3] / self.spacing)
        return u @ vt

    def to_world(self, index: np.ndarray) -> np.ndarray:
        """Voxel indices (..., 3) to RAS mm (..., 3)."""
        return np.asarray(index) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_index(self, world: np.ndarray) -> np.ndarray:
        """RAS mm (..., 3) to continuous voxel indices (..., 3)."""
        return (np.asarray(world) - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T

    def corners(self) -> np.ndarray:
        """World positions (8, 3) of the box's outer corners, half a voxel beyond the outermost centres."""
        ends = [(-0.5, n - 0.5) for n in self.shape]
        return self.to_world(np.array(np.meshgrid(*ends, indexing="ij")).reshape(3, -1).T)

    def isotropic(self, spacing: float) -> Grid:
        """Cubic voxels over the same box, axes flipped and swapped to the nearest of R, A, S and freed of shear."""
        import nibabel as nib

        change = nib.orientations.ornt_transform(
            nib.io_orientation(self.affine), nib.orientations.axcodes2ornt(tuple("RAS"))
        )
        ras = Grid((1, 1, 1), self.affine @ nib.orientations.inv_ornt_aff(change, self.shape))
        corners = self.corners() @ ras.rotation
        low, high = corners.min(0), corners.max(0)
        sides = np.ceil((high - low) / spacing - 1e-3).astype(int)
        affine = np.eye(4)
        affine[:3, :3] = ras.rotation * spacing
        affine[:3, 3] = ras.rotation @ ((low + high) / 2 - (sides - 1) / 2 * spacing)
        return Grid(triple(sides), affine)

    def same_as(self, other: Grid, tolerance: float = 1e-3) -> bool:
        """True if both have one shape and no corner differs by more than ``tolerance`` mm."""
        return self.shape == other.shape and bool(np.abs(self.corners() - other.corners()).max() <= tolerance)

    def volume(self, array: np.ndarray, path: str | os.PathLike[str] | None = None) -> Volume:
        """``array`` (X, Y, Z) as a :class:`Volume` here, which says its place in files as this grid's file does.

        Raises:
            ValueError: it has another shape.
        """
        from .image import Volume

        if tuple(array.shape) != self.shape:
            raise ValueError(f"Data of shape {tuple(array.shape)} do not fit a grid of {self.shape}.")
        return Volume(array, self.affine, None if path is None else Path(path), self.forms)
