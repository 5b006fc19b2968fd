"""Volumes on their way between two processes: ``.npy`` files in a folder that the parent makes and removes.

A reference is ``{"npy": path, "affine": 4x4 list}``, axes X, Y, Z, world RAS mm. Files are written in Fortran order: X
runs fastest, as in VTK's images, so that the parent's main thread copies memory and never transposes it. Not NIfTI:
compressing a head takes seconds. ``{"file": path}`` stands for an image file of any format instead.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..volume import Volume


def read_reference(reference: Any, name: str, dtype: Any = np.float32) -> Volume:
    """The volume behind a reference.

    Args:
        reference: see above.
        name: what it is ("T1w"), for errors.
        dtype: type of the array; None keeps the file's.

    Raises:
        InputError: no reference, or the file is missing, damaged, or no 3-D array of numbers.
    """
    if not isinstance(reference, Mapping) or not {"npy", "file"} & set(reference):
        raise InputError(f'The {name} must be given as {{"npy": file, "affine": 4x4 matrix}} or {{"file": path}}.')
    if "file" in reference:
        return Volume.read(reference["file"], dtype)
    path = Path(reference["npy"])
    try:
        affine = np.asarray(reference.get("affine"), np.float64)
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path}, which holds the {name}, is gone; run again.") from error
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}, which holds the {name}, cannot be read ({error}); run again.") from error
    if not isinstance(array, np.ndarray) or array.ndim != 3 or array.dtype.kind not in "buif":
        raise InputError(f"{path}, which holds the {name}, is no 3-D array of numbers.")
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise InputError(f"The {name} comes without a 4x4 affine of finite numbers.")
    # C order, as files are read: sums in another order differ in the last bit, and same input means same bytes.
    return Volume(np.ascontiguousarray(array if dtype is None else array.astype(dtype, copy=False)), affine)


def write_reference(volume: Volume, folder: Path, name: str) -> dict[str, Any]:
    """Write a volume as ``name``.npy into ``folder``; returns its reference.

    Raises:
        InputError: it cannot be written, because the disk is full or the folder is gone.
    """
    path = Path(folder) / f"{name}.npy"
    try:
        with open(path, "wb") as stream:
            np.save(stream, np.asfortranarray(volume.array), allow_pickle=False)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise InputError(disk_sentence(path, error)) from error
    return {"npy": str(path), "affine": volume.affine.tolist()}


def disk_sentence(path: Path, error: OSError) -> str:
    """What went wrong in writing ``path``, in one sentence with the fix."""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return f"There is no space left for {path.name} on the disk of {path.parent}; free some and run again."
    return f"Cannot write {path}: {error.strerror or error}; choose another temporary folder."
