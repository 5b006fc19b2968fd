"""Image files out: whole or not at all, in one file, and where their source lies in every program."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..files import atomic_path
from .forms import TOLERANCE_MM, distance, fill_header, sheared
from .itk import image_at, to_sitk

if TYPE_CHECKING:
    from .grid import Grid
    from .image import Volume

_NIFTI = (".nii.gz", ".nii")
#: ITK's formats that keep any place, by the form that they are written in: with the voxels in the same file, also where
#: the suffix is that of a header, whose readers look for ``ElementDataFile = LOCAL`` (MetaImage) or for what follows
#: the blank line (NRRD). Two files get separated, and renaming two is not atomic.
_ITK = {".nrrd": ".nrrd", ".nhdr": ".nrrd", ".mha": ".mha", ".mhd": ".mha"}


def check_writable(path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
    """Refuse a target early, before minutes of work end in a failing write.

    Raises:
        InputError: ``path`` is a folder, exists and may not be replaced, or its folder cannot be written to.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; give a file name, such as {path / 'psr.nii.gz'}.")
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is a pipe or device; give the name of a file.")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already; choose another name or allow overwriting (--overwrite).")
    # The nearest existing ancestor is where folders would be made.
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"Cannot write {path}: {folder} is not a folder you can write to; choose another.")


def check_holds(path: str | os.PathLike[str], grid: Grid) -> None:
    """Refuse early a format that cannot say where the voxels of ``grid`` lie.

    NIfTI says all that a source can say. The other formats have one place and, in most programs, right angles.

    Raises:
        InputError: the suffix is none that images are written with, or the place does not go into its format.
    """
    _place(Path(path), grid)


def _place(path: Path, grid: Grid) -> np.ndarray | None:
    """Where ITK shall put the voxels of a file, (4, 4); None: at the grid's affine, at right angles."""
    name = path.name.lower()
    if name.endswith(_NIFTI):
        return None
    if not name.endswith(tuple(_ITK)):
        raise InputError(f"{path} cannot be written in the format of its suffix; use .nii.gz or .nrrd.")
    forms = grid.forms if grid.forms is not None and grid.forms.of(grid.affine) else None
    if forms is not None and forms.itk is not None:
        apart = distance(forms.itk, grid.affine, grid.shape)
        if apart > TOLERANCE_MM:
            raise InputError(
                f"{path} cannot lie over its source in every program: the source's header names two places, up to "
                f"{apart:.3g} mm apart, and this format holds one; use .nii.gz."
            )
        return forms.itk
    bent = sheared(grid.affine, grid.shape)
    if bent:
        raise InputError(
            f"{path} cannot say where its voxels lie: their axes are sheared, by up to {bent:.3g} mm, and this format "
            "holds right angles; use .nii.gz."
        )
    return None


def write(volume: Volume, path: Path, description: str) -> None:
    """Write atomically; see :meth:`.image.Volume.write`.

    Raises:
        InputError: it cannot be written, or not in this format.
    """
    place = _place(path, volume.grid)
    suffix = next((suffix for suffix in _ITK if path.name.lower().endswith(suffix)), None)
    with atomic_path(path) as temporary:
        if suffix is None:
            _write_nifti(temporary, volume, description)
            return
        import SimpleITK

        image = to_sitk(volume) if place is None else image_at(volume, place)
        whole = temporary.with_name(temporary.name + _ITK[suffix])
        try:
            SimpleITK.WriteImage(image, str(whole), useCompression=True)
            os.replace(whole, temporary)
        except RuntimeError as error:
            raise InputError(
                f"{path} cannot be written: the disk is full, or the format cannot hold it; use another folder, "
                ".nii.gz or .nrrd."
            ) from error
        finally:
            whole.unlink(missing_ok=True)


def _write_nifti(path: Path, volume: Volume, description: str) -> None:
    """NIfTI-1 that says its place as its source does."""
    import nibabel as nib

    array = volume.array
    if array.dtype in (np.int64, np.uint64):
        array = array.astype(np.int32)  # few readers know 64-bit integers
    header = nib.Nifti1Header()
    header.set_data_shape(array.shape)
    header.set_data_dtype(array.dtype)
    fill_header(header, volume.affine, array.shape, volume.forms)
    image = nib.Nifti1Image(array, None, header)
    image.header["descrip"] = description.encode("utf-8")[:79]
    nib.save(image, path)
