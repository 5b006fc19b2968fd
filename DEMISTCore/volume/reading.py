"""Image files in: which reader takes them, and one sentence where none can."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError, MemoryShortage
from .causes import damaged_gzip, explain
from .checks import check_geometry, check_memory, three_dimensional
from .forms import Forms

log = logging.getLogger(__name__)

#: File names that nibabel reads; everything else goes to SimpleITK.
_NIBABEL_SUFFIXES = (
    ".nii",
    ".nii.gz",
    ".mgz",
    ".mgh",
    ".img",
    ".hdr",
    ".img.gz",
    ".hdr.gz",
    ".mnc",
)


class Loaded(NamedTuple):
    """What is in a file: array (X, Y, Z), how it says its place, and sentences for the user."""

    array: np.ndarray
    forms: Forms
    warnings: list[str]


def read(path: Path) -> Loaded:
    """Read an image file; every refusal names the file, the cause and the fix.

    Raises:
        InputError: see :meth:`.image.Volume.read`.
    """
    _check_there(path)
    reader = _read_nibabel if path.name.lower().endswith(_NIBABEL_SUFFIXES) else _read_itk
    try:
        loaded = reader(path)
    except InputError:
        raise
    except MemoryError as error:
        raise MemoryShortage(f"{path} is too large for this machine's memory; resample it or crop it.") from error
    except Exception as error:
        log.debug("Reading %s failed", path, exc_info=True)
        raise InputError(explain(path, error)) from error
    if loaded.array.dtype.fields is not None or loaded.array.dtype.kind not in "buif":
        raise InputError(f"{path} holds {loaded.array.dtype} values, not grey values; save it as a scalar image.")
    check_geometry(path, loaded.array.shape, loaded.forms.affine)
    for sentence in loaded.warnings:
        log.warning("%s", sentence)
    return loaded


def _check_there(path: Path) -> None:
    """Refuse what is no file with something in it."""
    try:
        status = os.stat(path)
    except OSError as error:
        if path.is_symlink():
            raise InputError(
                f"{path} is a link to {os.readlink(path)}, which is not there; fetch the file itself (datalad get, "
                "git annex get), or fix the link."
            ) from error
        if isinstance(error, FileNotFoundError):
            raise InputError(f"{path} does not exist; check the path.") from error
        raise InputError(f"{path} cannot be opened: {error.strerror}; check its path and permissions.") from error
    except ValueError as error:  # a zero byte in the name
        raise InputError(f"{str(path)!r} is no file name; check the path.") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path} is a folder, not an image; convert a DICOM series to NIfTI first (dcm2niix).")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is a pipe or device, not a file; save the image to a file first.")
    try:
        with open(path, "rb") as stream:
            empty = not stream.read(1)
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror}; check its permissions.") from error
    if empty:
        raise InputError(f"{path} is an empty file; copy it again from its source.")


def _read_nibabel(path: Path) -> Loaded:
    """A file that nibabel knows."""
    import nibabel as nib

    from .itk import place_in_itk
    from .nifti import read_forms

    # Hostile headers draw warnings on stderr; the checks here say the same in one sentence.
    nib.imageglobals.logger.setLevel(logging.CRITICAL)
    image = _open(path)
    shape = three_dimensional(path, image.shape)
    check_memory(path, shape)
    kind = type(image.header)
    affine = np.asarray(image.affine, np.float64)
    if isinstance(image.header, nib.Nifti1Header):
        forms, warnings = read_forms(path, image, _raw_header(image), place_in_itk(path))
    elif kind.__name__ == "MGHHeader":
        forms, warnings = Forms(affine), []
        with image.file_map["image"].get_prepare_fileobj("rb") as stream:
            place_is_good = stream.read(30)[28:] != b"\0\0"  # nibabel fills in a default where it is not
        if not place_is_good:
            warnings.append(_no_orientation(path))
    else:
        forms, warnings = Forms(affine, place_in_itk(path)), []
        if not kind.__name__.startswith("Minc"):  # Analyze 7.5 in its dialects
            warnings.append(_no_orientation(path))
    array = np.asanyarray(image.dataobj).reshape(shape)
    if path.name.lower().endswith((".gz", ".mgz")):
        damage = damaged_gzip(path)
        if damage:
            raise InputError(damage)
    return Loaded(array, forms, warnings)


def _open(path: Path) -> Any:
    """nibabel's image of a file; what NIfTI's library makes of its rotation, nibabel does here, too.

    Raises:
        nibabel.filebasedimages.ImageFileError, OSError, ValueError: it cannot.
    """
    import nibabel as nib

    from .detached import pair_of
    from .nifti import LENIENT

    partner = pair_of(path)
    if partner is not None and partner.exists() and not partner.is_file():
        raise InputError(f"{partner}, the other half of {path.name}, is no regular file; give the image as one file.")
    sniff = None
    for kind in nib.imageclasses.all_image_classes:
        mine, sniff = kind.path_maybe_image(path, sniff)
        if mine:
            if kind.__name__ == "Minc2Image":
                _check_inside(path)
            return LENIENT.get(kind, kind).from_filename(path)
    raise nib.filebasedimages.ImageFileError("no format that nibabel knows")


def _check_inside(path: Path) -> None:
    """Refuse a MINC 2 file whose voxels HDF5 would take from other files, or whose values nibabel would get wrong.

    Raises:
        InputError: it has external storage, links that lead out of the file, or slices with ranges of values that do
            not say along which axis they are (nibabel takes the last one, where the lengths fit).
    """
    import h5py

    def outside(place: Any) -> bool:
        for name in place:
            link = place.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                return True
            item = place.get(name) if isinstance(link, h5py.HardLink) else None
            if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
                return True
            if isinstance(item, h5py.Group) and outside(item):
                return True
        return False

    with h5py.File(path, "r") as file:
        if outside(file):
            raise InputError(f"{path} takes its voxels from other files; give an image in one file.")
        for name in ("image-min", "image-max"):
            limit = file.get(f"minc-2.0/image/0/{name}")
            if isinstance(limit, h5py.Dataset) and (limit.size or 0) > 1 and "dimorder" not in limit.attrs:
                raise InputError(
                    f"{path} does not say along which axis its slices' ranges of values are ({name} has no dimorder); "
                    "convert the image to NIfTI (mnc2nii)."
                )


def _raw_header(image: Any) -> Any:
    """The header of an open NIfTI image as it is in the file: nibabel fixes it in passing."""
    kind = type(image.header)
    holder = image.file_map.get("header") or image.file_map["image"]
    with holder.get_prepare_fileobj("rb") as stream:
        return kind(stream.read(kind.sizeof_hdr), check=False)


def _no_orientation(path: Path) -> str:
    return f"{path} says nothing about its orientation (its format or header has none); check left and right."


def _read_itk(path: Path) -> Loaded:
    """A file that SimpleITK knows."""
    from .itk import read_itk

    array, affine, warnings = read_itk(path)
    return Loaded(array, Forms(affine, affine), warnings)
