"""What a NIfTI file says of its place, read leniently where NIfTI's own library is, and checked for contradictions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from .checks import SPACING_RANGE, invertible
from .forms import TOLERANCE_MM, Forms, distance, sheared

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

#: Millimetres in NIfTI's units of length: metre, millimetre, micron; 0 is not said and means mm.
UNITS = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_UNIT_NAMES = {1: "metre", 3: "micron"}
#: The fields of a NIfTI header that say where voxels lie.
_FIELDS = (
    "qform_code",
    "sform_code",
    "quatern_b",
    "quatern_c",
    "quatern_d",
    "qoffset_x",
    "qoffset_y",
    "qoffset_z",
    "srow_x",
    "srow_y",
    "srow_z",
)
#: 1 - b^2 - c^2 - d^2 below which nibabel refuses a quaternion (three times float32's rounding).
_QUATERNION_LIMIT = 3 * float(np.finfo(np.float32).eps)


class _Rotation:
    """A NIfTI header that takes quaternions longer than 1 as NIfTI's own library does, by their direction alone.

    nibabel refuses them, and single precision makes them: nifti1_io.c, ``nifti_quatern_to_mat44``.
    """

    def get_qform_quaternion(self) -> np.ndarray:
        """(w, x, y, z) of length 1."""
        header = self._structarr  # type: ignore[attr-defined]
        vector = np.array([header["quatern_b"], header["quatern_c"], header["quatern_d"]], np.float64).ravel()
        rest = 1.0 - vector @ vector
        if rest < 1e-7:
            return np.concatenate([[0.0], vector / np.linalg.norm(vector)])
        return np.concatenate([[np.sqrt(rest)], vector])


def _lenient(image: type, header: type) -> type:
    class Header(_Rotation, header):
        pass

    return type(image.__name__, (image,), {"header_class": Header, "__module__": __name__})


#: nibabel's classes for NIfTI files, by those that read longer quaternions too.
LENIENT = {
    nib.Nifti1Image: _lenient(nib.Nifti1Image, nib.Nifti1Header),
    nib.Nifti1Pair: _lenient(nib.Nifti1Pair, nib.nifti1.Nifti1PairHeader),
    nib.Nifti2Image: _lenient(nib.Nifti2Image, nib.Nifti2Header),
    nib.Nifti2Pair: _lenient(nib.Nifti2Pair, nib.nifti2.Nifti2PairHeader),
}


def read_forms(path: Path, image: nib.Nifti1Pair, raw: Nifti1Header, itk: np.ndarray | None) -> tuple[Forms, list[str]]:
    """What a NIfTI file says of its place, and sentences on what is odd about it.

    Args:
        path: the file, for the sentences.
        image: as opened by one of :data:`LENIENT`.
        raw: its header as it is in the file, which nibabel may have fixed in ``image``.
        itk: where ITK puts its voxels, (4, 4) RAS mm, or None.
    """
    header, warnings = image.header, []
    shape = image.shape[:3]
    affine = np.array(image.affine, np.float64)
    codes = {form: int(raw[f"{form}_code"]) for form in ("qform", "sform")}
    kept: dict[str, Any] = {name: np.array(raw[name]) for name in _FIELDS}
    kept["pixdim"], kept["xyzt_units"] = np.array(raw["pixdim"][:4]), int(raw["xyzt_units"]) & 7
    qform = _qform(header) if codes["qform"] > 0 else None
    goes_by = "sform" if codes["sform"] > 0 else "qform"
    if codes["sform"] > 0 and qform is not None and not invertible(affine):
        affine, goes_by = qform, "qform"
        kept["sform_code"] = np.int16(0)
        warnings.append(f"{path}: its sform is singular; its qform is used instead.")
    if qform is not None:
        warnings += _fix_quaternion(path, kept)

    scale, sentence = _units(path, affine, kept["xyzt_units"])
    for matrix in (affine, qform):
        if matrix is not None:
            matrix[:3] *= scale
    if sentence:
        warnings.append(sentence)
    if codes["sform"] <= 0 and codes["qform"] <= 0:
        warnings.append(f"{path} says nothing about its orientation (sform and qform unset); check left and right.")
    elif invertible(affine):
        # ITK believes the units: where they are wrong, its account is off by that factor, and that has been said.
        believed = None if sentence else itk
        warnings += _disagreement(path, affine, qform if goes_by == "sform" else None, believed, goes_by, shape)
    return Forms(affine, itk, kept), warnings


def _qform(header: Nifti1Header) -> np.ndarray | None:
    """The qform (4, 4) in the file's units, None if it makes no sense."""
    try:
        matrix = np.array(header.get_qform(), np.float64)
    except (nib.spatialimages.HeaderDataError, ValueError, np.linalg.LinAlgError):
        return None
    return matrix if invertible(matrix) else None


def _fix_quaternion(path: Path, kept: dict[str, Any]) -> list[str]:
    """Shorten a quaternion that nibabel would refuse to length 1, in place; a sentence if that is not rounding."""
    names = ("quatern_b", "quatern_c", "quatern_d")
    vector = np.array([kept[name] for name in names], np.float64)
    length = float(np.linalg.norm(vector))
    if length**2 - 1.0 < _QUATERNION_LIMIT:
        return []
    for name, value in zip(names, vector / length):
        kept[name] = np.float64(value)
    if length < 1.01:
        return []
    return [f"{path}: the rotation of its qform is no rotation (a quaternion of length {length:.3g}); check its place."]


def _units(path: Path, affine: np.ndarray, unit: int) -> tuple[float, str | None]:
    """Millimetres per unit of the header, and a sentence if the unit that it names cannot be right."""
    low, high = SPACING_RANGE
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    scale = UNITS.get(unit, 1.0)

    def credible(factor: float) -> bool:
        return bool(np.isfinite(sizes).all() and low <= (sizes * factor).min() and (sizes * factor).max() <= high)

    if scale == 1.0 or credible(scale) or not credible(1.0):
        return scale, None
    return 1.0, (
        f"{path}: its header gives lengths in {_UNIT_NAMES[unit]}, which would make voxels of {sizes[0] * scale:g} mm; "
        "they are taken as mm, and 3D Slicer may show it, and results on its grid, in another size."
    )


def _disagreement(
    path: Path,
    affine: np.ndarray,
    qform: np.ndarray | None,
    itk: np.ndarray | None,
    goes_by: str,
    shape: tuple[int, ...],
) -> list[str]:
    """What to know where the accounts of the place differ."""
    by_form = 0.0 if qform is None else distance(affine, qform, shape)
    by_itk = 0.0 if itk is None else distance(affine, itk, shape)
    apart = max(by_form, by_itk)
    if apart > TOLERANCE_MM:
        cause = "its qform and sform" if by_form > TOLERANCE_MM else f"its {goes_by} and its voxel size (pixdim)"
        other = "ITK (3D Slicer) by the other" if by_itk > TOLERANCE_MM else "so does ITK (3D Slicer)"
        return [
            f"{path}: {cause} disagree by up to {apart:.3g} mm; DEMIST goes by the {goes_by} and {other}, so check "
            "where it lies; maps on its grid keep both, and lie over it in either."
        ]
    bent = sheared(affine, shape)
    if itk is None and bent:
        return [
            f"{path}: its axes are sheared (by up to {bent:.3g} mm), which ITK and 3D Slicer do not read; resample it "
            "to see it, and maps on its grid, there."
        ]
    return []
