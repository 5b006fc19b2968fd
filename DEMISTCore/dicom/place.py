"""Where voxels lie, as DICOM says it: millimetres to the left, to the back and upwards."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError
from ..volume import Volume

#: Flips R and A of our worlds to the L and P of DICOM's.
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def missing_package(error: ModuleNotFoundError) -> InputError:
    """What to say where the packages of the extra ``dicom`` are missing."""
    return InputError(f"DICOM files take the Python package {error.name}; install it (pip install 'demist[dicom]').")


def as_dicom_volume(array: np.ndarray, volume: Volume, frame_of_reference: str) -> Any:
    """An array as a ``highdicom.Volume``: slices first, then rows, then columns.

    Args:
        array: (X, Y, Z), or (X, Y, Z, n) with n channels, on the grid of ``volume``.
        volume: gives the place; right angles only.
        frame_of_reference: UID of the space that the scans lie in.

    Raises:
        InputError: the grid is sheared, which DICOM cannot say; or highdicom is missing.
    """
    try:
        import highdicom
    except ModuleNotFoundError as error:
        raise missing_package(error) from error
    axes = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-4:
        raise InputError("The map's grid is sheared, which DICOM cannot say; resample it to a grid of right angles.")
    affine = RAS_TO_LPS @ volume.affine
    affine = affine[:, [2, 1, 0, 3]]  # the last axis of the array, columns, is our first
    turned = np.ascontiguousarray(np.moveaxis(array, (0, 1, 2), (2, 1, 0)))
    return highdicom.Volume(turned, affine, "PATIENT", frame_of_reference_uid=frame_of_reference)
