"""To and from SimpleITK, whose world is LPS+ (x to the left, y posterior), and the formats that it reads and writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from .checks import check_memory, three_dimensional
from .detached import check_data_files, says_orientation

if TYPE_CHECKING:
    import SimpleITK

    from .image import Volume

#: NIfTI world to ITK world (LPS+), and back.
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
#: ITK's readers of single files (and of detached headers, which are checked); its others look for further files by
#: themselves, or take them from inside the file (HDF5), or know no 3-D image.
_READERS = (
    "NrrdImageIO",
    "MetaImageIO",
    "GiplImageIO",
    "VTKImageIO",
    "GDCMImageIO",
    "TIFFImageIO",
    "MRCImageIO",
    "PNGImageIO",
    "JPEGImageIO",
    "BMPImageIO",
)
#: Formats without a word on left and right.
_NO_ORIENTATION = ("GiplImageIO", "TIFFImageIO", "MRCImageIO")


def to_sitk(volume: Volume) -> SimpleITK.Image:
    """The volume as a SimpleITK image in its own LPS world; a sheared affine is replaced by the nearest rotation."""
    return _image(volume.array, volume.grid.rotation, volume.spacing, volume.affine[:3, 3])


def image_at(volume: Volume, affine: np.ndarray) -> SimpleITK.Image:
    """The volume's data as a SimpleITK image whose voxels lie exactly at ``affine`` (4, 4; RAS mm), sheared or not."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return _image(volume.array, affine[:3, :3] / spacing, spacing.tolist(), affine[:3, 3])


def _image(array: np.ndarray, directions: np.ndarray, spacing: Sequence[float], origin: np.ndarray) -> SimpleITK.Image:
    import SimpleITK

    array = array.astype(np.uint8) if array.dtype == bool else array
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing(spacing)
    image.SetDirection((_LPS[:3, :3] @ directions).ravel())
    image.SetOrigin(_LPS[:3, :3] @ origin)
    return image


def from_sitk(image: SimpleITK.Image, path: Path | None = None) -> Volume:
    """A 3-D scalar SimpleITK image as a Volume."""
    import SimpleITK

    from .image import Volume

    array = SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0)
    return Volume(np.ascontiguousarray(array), _affine(image), path)


def _affine(image: SimpleITK.Image | SimpleITK.ImageFileReader) -> np.ndarray:
    """(4, 4) voxel to RAS mm, of the first three axes."""
    n = image.GetDimension()
    matrix = np.reshape(image.GetDirection(), (n, n)) * image.GetSpacing()
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix[:3, :3], image.GetOrigin()[:3]
    return _LPS @ affine


def place_in_itk(path: Path) -> np.ndarray | None:
    """Where ITK, and with it SimpleITK and 3D Slicer, puts the voxels of a file: (4, 4) RAS mm; None if it cannot."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    reader = SimpleITK.ImageFileReader()
    try:
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        affine = _affine(reader) if reader.GetDimension() >= 3 else None
    except (RuntimeError, ValueError):  # a format, header or name (ValueError: not UTF-8) that it does not take
        return None
    return affine if affine is not None and np.isfinite(affine).all() else None


def read_itk(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Data (X, Y, Z), affine, and sentences for the user, of a file that SimpleITK knows.

    Raises:
        InputError: its header points to files elsewhere, or it is no 3-D image of grey values.
        RuntimeError: SimpleITK cannot read it.
    """
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    check_data_files(path)
    kind = SimpleITK.ImageFileReader.GetImageIOFromFileName(str(path))
    if kind not in _READERS:
        raise RuntimeError(f"no reader for {kind or 'this format'}")
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO(kind)
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    if reader.GetNumberOfComponents() != 1:
        raise InputError(f"{path} is a colour or vector image, not one of grey values; save it as a scalar image.")
    check_memory(path, three_dimensional(path, reader.GetSize()))
    image = reader.Execute()
    affine = _affine(image)
    if image.GetDimension() > 3:
        image = image[(slice(None),) * 3 + (0,) * (image.GetDimension() - 3)]
    warnings = []
    if kind in _NO_ORIENTATION or not says_orientation(path):
        warnings.append(
            f"{path} says nothing about its orientation (its format or header has none); check left and right."
        )
    array = SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0)
    return array, affine, warnings
