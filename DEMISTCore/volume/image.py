"""Image data with their place in the world, from files and to files."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .checks import check_geometry
from .forms import Forms
from .grid import Grid
from .reading import read
from .resampling import Order, resample
from .writing import check_writable, write


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3-D image: ``array`` (X, Y, Z), ``affine`` (4, 4) voxel index to RAS mm, and the file it came from.

    ``forms`` is how that file says its place, which files written on the same grid repeat; ``warnings`` are sentences
    about the file for the user.
    """

    array: np.ndarray
    affine: np.ndarray
    path: Path | None = None
    forms: Forms | None = None
    warnings: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if np.ndim(self.array) != 3:
            raise ValueError(f"A volume is 3-D, not {np.ndim(self.array)}-D.")
        object.__setattr__(self, "affine", Grid(self.array.shape, self.affine).affine)
        if self.forms is not None and not self.forms.of(self.affine):
            object.__setattr__(self, "forms", None)  # moved: the file's words are of another place

    @property
    def grid(self) -> Grid:
        """Where the data lies."""
        return Grid(self.array.shape, self.affine, self.forms)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along X, Y, Z."""
        return self.grid.shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along X, Y, Z."""
        return self.grid.spacing

    @property
    def axcodes(self) -> str:
        """Direction in which each voxel axis grows, as in ``"RAS"``."""
        return self.grid.axcodes

    def with_array(self, array: np.ndarray) -> Volume:
        """Other data on the same grid."""
        if array.shape != self.array.shape:
            raise ValueError(f"Data of shape {array.shape} do not fit a grid of {self.array.shape}.")
        return replace(self, array=array)

    @classmethod
    def read(cls, path: str | os.PathLike[str], dtype: Any = np.float32) -> Volume:
        """Read NIfTI, MGH, Analyze or MINC by nibabel; NRRD, MetaImage and others by SimpleITK.

        A fourth dimension of length one is dropped. Intensity scaling of the header is applied, and lengths in metre or
        micron become millimetres. Of an image in several files only those beside its header are read.

        Args:
            path: the file.
            dtype: type of the array; None keeps the type of the (scaled) file.

        Raises:
            InputError: the file is missing, unreadable, truncated, not an image, not 3-D, empty, too large for
                this machine's memory, takes its voxels from elsewhere, or its header gives no usable voxel size and
                orientation; the sentence names the cause and the fix.
        """
        path = Path(path)
        loaded = read(path)
        array = loaded.array if dtype is None else loaded.array.astype(dtype, copy=False)
        return cls(np.ascontiguousarray(array), loaded.forms.affine, path, loaded.forms, tuple(loaded.warnings))

    def write(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = True,
        dtype: Any = None,
        description: str = "",
    ) -> Path:
        """Write to ``path`` (NIfTI, NRRD or MetaImage by suffix), whole or not at all, and in one file.

        The voxels lie where nibabel, SimpleITK and 3D Slicer put those of the file that the grid was read from.
        Same data, same bytes: no time stamp or file name goes into the file.

        Args:
            path: target; missing folders are made.
            overwrite: False refuses to replace an existing file.
            dtype: type on disk; None keeps the array's (bool becomes uint8, float64 stays).
            description: up to 79 characters for NIfTI's ``descrip``.

        Returns:
            The path written.

        Raises:
            InputError: the file exists and may not be replaced, cannot be written, has an unknown suffix, or its
                format cannot hold the place of the voxels (:func:`.writing.check_holds`).
        """
        path = Path(path)
        check_writable(path, overwrite=overwrite)
        array = self.array if dtype is None else self.array.astype(dtype)
        if array.dtype == bool:
            array = array.astype(np.uint8)
        elif array.dtype == np.float16:
            array = array.astype(np.float32)
        write(self.with_array(array), path, description)
        return path

    def aligned_with(self, grid: Grid | Volume) -> Volume:
        """The same voxels on ``grid``, if they are its voxels by another account of its file; else the volume itself.

        Where qform and sform of an image disagree, a mask drawn on it in 3D Slicer is saved where the qform puts it,
        and the image is read where the sform does: voxel by voxel they belong together all the same.
        """
        target = grid.grid if isinstance(grid, Volume) else grid
        there = target.forms.itk if target.forms is not None else None
        if there is None or self.grid.same_as(target) or not self.grid.same_as(Grid(target.shape, there), 1e-2):
            return self
        return replace(self, affine=target.affine, forms=target.forms)

    def reoriented(self, axcodes: str = "RAS") -> Volume:
        """The same voxels with axes swapped and flipped to the nearest ``axcodes``; nothing is interpolated."""
        import nibabel as nib

        now = nib.io_orientation(self.affine)
        wanted = nib.orientations.axcodes2ornt(tuple(axcodes))
        change = nib.orientations.ornt_transform(now, wanted)
        affine = self.affine @ nib.orientations.inv_ornt_aff(change, self.shape)
        return replace(self, array=np.ascontiguousarray(nib.apply_orientation(self.array, change)), affine=affine)

    def resampled_to(self, grid: Grid | Volume, order: Order = "linear", fill: float = 0.0) -> Volume:
        """This image on another grid; see :func:`resample`."""
        target = grid.grid if isinstance(grid, Volume) else grid
        return target.volume(resample(self.array, self.affine, target, order=order, fill=fill), self.path)


def as_volume(x: Volume | str | os.PathLike[str], name: str) -> Volume:
    """Read ``x`` if it is a path, return it if it is a Volume; ``name`` says what it is in errors.

    Raises:
        InputError: ``x`` is neither, or cannot be read.
    """
    if isinstance(x, Volume):
        check_geometry(x.path or f"The {name}", x.shape, x.affine)
        return x
    if isinstance(x, (str, os.PathLike)):
        return Volume.read(x)
    raise InputError(f"The {name} must be a file or a Volume, not {type(x).__name__}.")
