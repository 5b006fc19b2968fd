"""How a file says where its voxels lie, kept so that what is written on its grid says it in the same way.

NIfTI says it twice, as a rotation with offset (qform) and as a matrix (sform), and programs differ in whom they
believe: nibabel takes the sform, ITK (SimpleITK, 3D Slicer) mostly the qform, and the voxel size from ``pixdim``
(NIfTI-1, nifti1.h, "3D IMAGE (VOLUME) ORIENTATION"). Where the two disagree, a file written with one of them lies over
its source in one program and centimetres beside it in another; so both are written back as they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .grid import Grid, triple

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

#: Two accounts of a place that differ by more than this (mm, at the farthest corner) are told apart. Quaternions in
#: single precision alone account for up to 0.02 mm in scans of a clinic (measured in open_ms_data).
TOLERANCE_MM = 0.1
#: An axis is sheared, not rounded, if the nearest grid of right angles moves a corner by more than this (mm).
SHEAR_MM = 0.01


@dataclass(frozen=True, eq=False)
class Forms:
    """What a file says of its voxels' place.

    Attributes:
        affine: (4, 4) RAS mm as DEMIST and nibabel take it: the one that a :class:`.image.Volume` is read with.
        itk: (4, 4) RAS mm as ITK (SimpleITK, 3D Slicer) takes it; None if it does not read the file.
        header: fields of a NIfTI header as they were, by name, ``pixdim`` and ``xyzt_units`` too; None: another format.
    """

    affine: np.ndarray
    itk: np.ndarray | None = None
    header: Mapping[str, Any] | None = None

    def tobytes(self) -> bytes:
        """All of it as bytes, to tell one from another."""
        parts = [self.affine.tobytes(), b"" if self.itk is None else self.itk.tobytes()]
        parts += [name.encode() + np.asarray(value).tobytes() for name, value in sorted((self.header or {}).items())]
        return b"".join(parts)

    def of(self, affine: np.ndarray) -> bool:
        """True if ``affine`` (4, 4) is still the place that these forms speak of."""
        return bool(np.allclose(affine, self.affine, rtol=0, atol=1e-6))


def distance(a: np.ndarray, b: np.ndarray, shape: tuple[int, ...]) -> float:
    """The farthest that two affines (4, 4) put a corner of a box of ``shape`` apart, mm."""
    corners = [Grid(triple(shape[:3]), affine).corners() for affine in (a, b)]
    return float(np.linalg.norm(corners[0] - corners[1], axis=1).max())


def without_shear(affine: np.ndarray) -> np.ndarray:
    """The nearest affine (4, 4) whose axes stand at right angles: what a rotation and three voxel sizes can say."""
    grid = Grid((1, 1, 1), affine)
    straight = np.array(affine, np.float64)
    straight[:3, :3] = grid.rotation * grid.spacing
    return straight


def sheared(affine: np.ndarray, shape: tuple[int, ...]) -> float:
    """How far (mm) a corner of a box of ``shape`` moves if its axes are put at right angles; 0 below rounding."""
    moved = distance(affine, without_shear(affine), shape)
    return moved if moved > SHEAR_MM else 0.0


def fill_header(header: Nifti1Header, affine: np.ndarray, shape: tuple[int, ...], forms: Forms | None) -> None:
    """Say in a NIfTI header that voxels lie at ``affine`` (4, 4), in the way of ``forms``; in place.

    Without a NIfTI header to repeat, both forms say the same; a sheared affine goes into the sform alone, because a
    qform without its shear would put the image elsewhere. Where ITK reads the source (Analyze, MINC) in another place,
    the qform, which ITK prefers over an sform of code 2, says that one.
    """
    forms = forms if forms is not None and forms.of(affine) else None
    header.set_xyzt_units("mm", "sec")
    if forms is not None and forms.header is not None:
        for name, value in forms.header.items():
            if name == "pixdim":
                header["pixdim"][:4] = value
            elif name == "xyzt_units":
                header["xyzt_units"] = int(value) | 8  # seconds
            else:
                header[name] = value
        return
    itk = None if forms is None else forms.itk
    apart = itk is not None and distance(itk, affine, shape) > TOLERANCE_MM
    header.set_sform(affine, code=2 if apart else 1)
    if apart:
        header.set_qform(itk, code=1)
    elif sheared(affine, shape):
        header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
        header["qform_code"] = 0
    else:
        header.set_qform(affine, code=1)
