"""Transforms as files of ITK: text for a rigid motion, HDF5 for an affine with a field of displacements.

ITK's own HDF5 writer stamps every object with the time, so that the same transform is never the same bytes twice; h5py
writes the same layout without.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import InputError

if TYPE_CHECKING:
    import h5py
    import SimpleITK


def rigid_text(motion: np.ndarray) -> str:
    """ITK's text of what an image is resampled with: it takes points of the target to points of the source.

    Args:
        motion: (4, 4) RAS mm, takes points of the source onto the target.
    """
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    back = flip @ np.linalg.inv(motion) @ flip
    numbers = [*back[:3, :3].ravel(), *back[:3, 3]]
    return (
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        f"Parameters: {' '.join(f'{value:.10g}' for value in numbers)}\nFixedParameters: 0 0 0\n"
    )


def write_h5(transform: SimpleITK.CompositeTransform, path: Path) -> None:
    """Write a composite of affine transforms and fields of displacements; the same transform is the same bytes.

    Raises:
        InputError: h5py is not installed.
        OSError: it cannot be written.
    """
    try:
        import h5py
    except ImportError as error:
        raise InputError('Transforms to templates are written by h5py; pip install "demist[cohort]".') from error
    import SimpleITK

    parts = [transform.GetNthTransform(i) for i in range(transform.GetNumberOfTransforms())]
    with h5py.File(path, "w", track_order=False) as file:
        for name, told in (("ITKVersion", SimpleITK.Version.ITKVersionString()), ("HDFVersion", "HDF5")):
            _text(file, name, told)
        for name in ("OSName", "OSVersion"):  # ITK wants them there
            _text(file, name, "any")
        group = file.create_group("TransformGroup")
        _text(group.create_group("0"), "TransformType", "CompositeTransform_double_3_3")
        for number, part in enumerate(parts, 1):
            place = group.create_group(str(number))
            _text(place, "TransformType", f"{part.GetName()}_double_3_3")
            place.create_dataset("TransformFixedParameters", data=np.array(part.GetFixedParameters(), np.float64))
            values = _parameters(part)
            packed = {"compression": "gzip", "shuffle": True} if values.size > 1000 else {}
            place.create_dataset("TransformParameters", data=values, **packed)


def _parameters(part: SimpleITK.Transform) -> np.ndarray:
    import SimpleITK

    if part.GetName() == "DisplacementFieldTransform":
        field = SimpleITK.DisplacementFieldTransform(part).GetDisplacementField()
        return SimpleITK.GetArrayFromImage(field).astype(np.float64).ravel()
    return np.array(part.GetParameters(), np.float64)


def _text(place: h5py.Group, name: str, told: str) -> None:
    import h5py

    place.create_dataset(name, data=[told], dtype=h5py.string_dtype("ascii"))
