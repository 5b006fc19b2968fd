"""What a file must hold to be a 3-D image with a place."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError

#: Voxels outside this range (mm) are not a head scan: a header in unknown units, or a lost one.
SPACING_RANGE = (0.1, 20.0)


def three_dimensional(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The first three lengths of ``shape``, if the others are one."""
    if any(n == 0 for n in shape):
        raise InputError(f"{path} holds no voxels; export it again.")
    if len(shape) > 3 and any(n != 1 for n in shape[3:]):
        raise InputError(f"{path} is {len(shape)}-D ({_times(shape)}); extract the one 3-D volume to use.")
    if len(shape) < 3 or 1 in shape[:3]:
        raise InputError(f"{path} is a 2-D image ({_times(shape)}); give a 3-D volume.")
    x, y, z = (int(n) for n in shape[:3])
    return x, y, z


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)


def check_memory(path: Path, shape: tuple[int, int, int]) -> None:
    """Refuse a volume that would not fit, before it is loaded."""
    import psutil

    # The file's data, a float copy, and one more while it is being resampled.
    needed = 3 * 4 * float(np.prod(shape, dtype=np.float64))
    free = psutil.virtual_memory().available
    if needed > free:
        raise InputError(
            f"{path} ({_times(shape)} voxels) needs about {needed / 2**30:.1f} GiB of memory and "
            f"{free / 2**30:.1f} GiB are free; resample it or crop it."
        )


def invertible(affine: np.ndarray) -> bool:
    """True if all is finite and the voxel has a volume. ``affine`` (4, 4), mm."""
    matrix = affine[:3, :3]
    if not np.isfinite(affine).all():
        return False
    size = np.linalg.norm(matrix, axis=0)
    return bool(size.min() > 0 and abs(np.linalg.det(matrix / size)) > 1e-3)


def check_geometry(path: Path | str, shape: tuple[int, ...], affine: np.ndarray) -> None:
    """Refuse voxels without a place or a credible size. ``affine`` (4, 4), mm."""
    if 0 in shape:
        raise InputError(f"{path} holds no voxels; export it again.")
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    low, high = SPACING_RANGE
    if np.isfinite(affine).all() and sizes.min() > 0 and not (low <= sizes.min() and sizes.max() <= high):
        raise InputError(
            f"{path} has voxels of {' x '.join(f'{s:.3g}' for s in sizes)} mm, outside {low:g} to {high:g} mm; "
            "correct the voxel size in its header."
        )
    if not invertible(affine):
        raise InputError(f"{path} has a singular orientation matrix in its header; convert it again from DICOM.")
