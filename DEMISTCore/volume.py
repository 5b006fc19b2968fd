"""Image data and the place it occupies in the world; the two never travel apart.

World coordinates are millimetres in RAS+ (x to the patient's right, y anterior, z superior), as in NIfTI and
nibabel. :class:`Grid` is a place (shape and affine), :class:`Volume` is data on one.

>>> import numpy as np
>>> volume = Volume(np.zeros((4, 5, 6), np.float32), np.diag([-2.0, 1.0, 1.0, 1.0]))
>>> volume.axcodes, volume.spacing
('LAS', (2.0, 1.0, 1.0))
>>> volume.reoriented("RAS").axcodes
'RAS'
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .errors import InputError
from .files import atomic_path

if TYPE_CHECKING:
    import SimpleITK

log = logging.getLogger(__name__)

Order = Literal["nearest", "linear", "bspline"]

#: File names that nibabel reads; everything else goes to SimpleITK.
_NIBABEL_SUFFIXES = (".nii", ".nii.gz", ".mgz", ".mgh", ".img", ".hdr", ".mnc")
#: Voxels outside this range (mm) are not a head scan: a header in metres or micrometres, or a lost one.
SPACING_RANGE = (0.1, 20.0)
#: A Gaussian's full width at half maximum in standard deviations.
_FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))
#: NIfTI world to ITK world (LPS+), and back.
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Grid:
    """A box of voxels in the world: ``shape`` (X, Y, Z) and ``affine`` (4, 4), voxel index to RAS mm."""

    shape: tuple[int, int, int]
    affine: np.ndarray

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or len(self.shape) != 3:
            raise ValueError(f"A grid needs a 3-D shape and a 4x4 affine, not {self.shape} and {affine.shape}.")
        affine.flags.writeable = False
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along X, Y, Z."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def axcodes(self) -> str:
        """Direction in which each voxel axis grows, as in ``"RAS"`` or ``"LPI"``."""
        import nibabel as nib

        return "".join(nib.aff2axcodes(self.affine))

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @property
    def extent(self) -> tuple[float, float, float]:
        """Edge lengths of the box in mm."""
        x, y, z = (n * s for n, s in zip(self.shape, self.spacing))
        return x, y, z

    @property
    def rotation(self) -> np.ndarray:
        """Directions of the voxel axes as a proper or improper rotation (3, 3): the nearest one, if sheared."""
        u, _, vt = np.linalg.svd(self.affine[:3, :3] / self.spacing)
        return u @ vt

    def to_world(self, index: np.ndarray) -> np.ndarray:
        """Voxel indices (..., 3) to RAS mm (..., 3)."""
        return np.asarray(index) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_index(self, world: np.ndarray) -> np.ndarray:
        """RAS mm (..., 3) to continuous voxel indices (..., 3)."""
        return (np.asarray(world) - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T

    def corners(self) -> np.ndarray:
        """World positions (8, 3) of the box's outer corners, half a voxel beyond the outermost centres."""
        ends = [(-0.5, n - 0.5) for n in self.shape]
        return self.to_world(np.array(np.meshgrid(*ends, indexing="ij")).reshape(3, -1).T)

    def isotropic(self, spacing: float) -> Grid:
        """Cubic voxels over the same box, axes flipped and swapped to the nearest of R, A, S and freed of shear."""
        import nibabel as nib

        change = nib.orientations.ornt_transform(
            nib.io_orientation(self.affine), nib.orientations.axcodes2ornt(tuple("RAS"))
        )
        ras = Grid((1, 1, 1), self.affine @ nib.orientations.inv_ornt_aff(change, self.shape))
        corners = self.corners() @ ras.rotation
        low, high = corners.min(0), corners.max(0)
        sides = np.ceil((high - low) / spacing - 1e-3).astype(int)
        affine = np.eye(4)
        affine[:3, :3] = ras.rotation * spacing
        affine[:3, 3] = ras.rotation @ ((low + high) / 2 - (sides - 1) / 2 * spacing)
        return Grid(tuple(int(n) for n in sides), affine)

    def same_as(self, other: Grid, tolerance: float = 1e-3) -> bool:
        """True if both have one shape and no corner differs by more than ``tolerance`` mm."""
        return self.shape == other.shape and bool(np.abs(self.corners() - other.corners()).max() <= tolerance)


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3-D image: ``array`` (X, Y, Z), ``affine`` (4, 4) voxel index to RAS mm, and the file it came from."""

    array: np.ndarray
    affine: np.ndarray
    path: Path | None = None

    def __post_init__(self) -> None:
        if np.ndim(self.array) != 3:
            raise ValueError(f"A volume is 3-D, not {np.ndim(self.array)}-D.")
        object.__setattr__(self, "affine", Grid(self.array.shape, self.affine).affine)

    @property
    def grid(self) -> Grid:
        """Where the data lies."""
        return Grid(self.array.shape, self.affine)

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

        A fourth dimension of length one is dropped. Intensity scaling of the header is applied.

        Args:
            path: the file.
            dtype: type of the array; None keeps the type of the (scaled) file.

        Raises:
            InputError: the file is missing, unreadable, truncated, not an image, not 3-D, empty, too large for
                this machine's memory, or its header gives no usable voxel size and orientation.
        """
        path = Path(path)
        if path.is_dir():
            raise InputError(f"{path} is a folder, not an image; convert a DICOM series to NIfTI first (dcm2niix).")
        if not path.exists():
            raise InputError(f"{path} does not exist; check the path.")
        try:
            with open(path, "rb") as stream:
                empty = not stream.read(1)
        except OSError as error:
            raise InputError(f"{path} cannot be opened: {error.strerror}; check its permissions.") from error
        if empty:
            raise InputError(f"{path} is an empty file; copy it again from its source.")
        reader = _read_nibabel if path.name.lower().endswith(_NIBABEL_SUFFIXES) else _read_sitk
        try:
            array, affine = reader(path)
        except InputError:
            raise
        except MemoryError as error:
            raise InputError(f"{path} is too large for this machine's memory; resample it or crop it.") from error
        except Exception as error:
            log.debug("Reading %s failed", path, exc_info=True)
            raise InputError(
                f"{path} cannot be read as an image: it is damaged, truncated or of another format; "
                "copy or convert it again."
            ) from error
        if array.dtype.fields is not None or array.dtype.kind not in "buif":
            raise InputError(f"{path} holds {array.dtype} values, not grey values; save it as a scalar image.")
        _check_geometry(path, array.shape, affine)
        if dtype is not None:
            array = array.astype(dtype, copy=False)
        return cls(np.ascontiguousarray(array), affine, path)

    def write(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = True,
        dtype: Any = None,
        description: str = "",
    ) -> Path:
        """Write to ``path`` (NIfTI by suffix, otherwise a SimpleITK format), whole or not at all.

        Same data, same bytes: no time stamp or file name goes into the file.

        Args:
            path: target; missing folders are made.
            overwrite: False refuses to replace an existing file.
            dtype: type on disk; None keeps the array's (bool becomes uint8, float64 stays).
            description: up to 79 characters for NIfTI's ``descrip``.

        Returns:
            The path written.

        Raises:
            InputError: the file exists and may not be replaced, cannot be written, or has an unknown suffix.
        """
        path = Path(path)
        check_writable(path, overwrite=overwrite)
        array = self.array if dtype is None else self.array.astype(dtype)
        if array.dtype == bool:
            array = array.astype(np.uint8)
        elif array.dtype == np.float16:
            array = array.astype(np.float32)
        with atomic_path(path) as temporary:
            if path.name.lower().endswith((".nii", ".nii.gz")):
                _write_nifti(temporary, array, self.affine, description)
            else:
                import SimpleITK

                try:
                    SimpleITK.WriteImage(to_sitk(Volume(array, self.affine)), str(temporary), useCompression=True)
                except RuntimeError as error:
                    raise InputError(
                        f"{path} cannot be written in the format of its suffix; use .nii.gz or .nrrd."
                    ) from error
        return path

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
        return Volume(resample(self.array, self.affine, target, order=order, fill=fill), target.affine, self.path)


def as_volume(x: Volume | str | os.PathLike[str], name: str) -> Volume:
    """Read ``x`` if it is a path, return it if it is a Volume; ``name`` says what it is in errors.

    Raises:
        InputError: ``x`` is neither, or cannot be read.
    """
    if isinstance(x, Volume):
        _check_geometry(x.path or f"The {name}", x.shape, x.affine)
        return x
    if isinstance(x, (str, os.PathLike)):
        return Volume.read(x)
    raise InputError(f"The {name} must be a file or a Volume, not {type(x).__name__}.")


def check_writable(path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
    """Refuse a target early, before minutes of work end in a failing write.

    Raises:
        InputError: ``path`` is a folder, exists and may not be replaced, or its folder cannot be written to.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; give a file name, such as {path / 'psr.nii.gz'}.")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already; choose another name or allow overwriting (--overwrite).")
    # The nearest existing ancestor is where folders would be made.
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"Cannot write {path}: {folder} is not a folder you can write to; choose another.")


def resample(array: np.ndarray, affine: np.ndarray, grid: Grid, *, order: Order = "linear", fill: float = 0.0):
    """Resample ``array`` (X, Y, Z), which lies at ``affine``, onto ``grid``.

    Where the grids share their lattice (flips, axis swaps, crops, pads) values are copied exactly. Otherwise,
    for all orders but ``nearest``, an axis that gets coarser is first smoothed by the Gaussian that takes the
    source's voxel (as full width at half maximum) to the target's, so that nothing aliases
    (Cardoso et al., "Scale factor point spread function matching", MICCAI 2015).

    Orders: ``nearest`` for labels; ``linear`` for masks, maps and fields; ``bspline`` for images: cubic B-spline,
    which keeps the sharpness that trilinear interpolation loses between voxel centres, limited to the range of
    the eight voxels around each point, so that it cannot ring at the rim of the brain or go below zero.

    Returns:
        Array of ``grid.shape``: the source's type for ``nearest``, otherwise float32. ``fill`` outside the source.
    """
    if order not in ("nearest", "linear", "bspline"):
        raise ValueError(f"Unknown interpolation order {order!r}.")
    step = np.linalg.inv(affine) @ grid.affine  # target index -> source index
    copied = _copy_lattice(array, step, grid.shape, fill)
    if copied is not None:
        return copied if order == "nearest" else copied.astype(np.float32, copy=False)

    source = array.astype(np.uint8) if array.dtype == bool else array
    if order == "nearest":
        # Any label survives a round trip through float64.
        result = _itk_resample(source.astype(np.float64), step, grid.shape, "nearest", fill)
        return result.astype(array.dtype)
    source, step = _crop_to_target(source, step, grid.shape)
    if source is None:
        return np.full(grid.shape, fill, np.float32)
    source = _anti_alias(source.astype(np.float32, copy=False), step)
    result = _itk_resample(source, step, grid.shape, order, fill)
    return _limit_to_neighbours(result, source, step, fill) if order == "bspline" else result


def to_sitk(volume: Volume) -> SimpleITK.Image:
    """The volume as a SimpleITK image in its own LPS world; a sheared affine is replaced by the nearest rotation."""
    import SimpleITK

    array = volume.array.astype(np.uint8) if volume.array.dtype == bool else volume.array
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing(volume.spacing)
    image.SetDirection((_LPS[:3, :3] @ volume.grid.rotation).ravel())
    image.SetOrigin((_LPS @ volume.affine)[:3, 3])
    return image


def from_sitk(image: SimpleITK.Image, path: Path | None = None) -> Volume:
    """A 3-D scalar SimpleITK image as a Volume."""
    import SimpleITK

    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    array = SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0)
    return Volume(np.ascontiguousarray(array), _LPS @ affine, path)


# --- reading and writing ---------------------------------------------------------------------------------------


def _read_nibabel(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Data (X, Y, Z) and affine of a file that nibabel knows."""
    import nibabel as nib

    # Hostile headers draw warnings on stderr; the checks here say the same in one sentence.
    nib.imageglobals.logger.setLevel(logging.CRITICAL)
    image = nib.load(path)
    shape = _three_dimensional(path, image.shape)
    _check_memory(path, shape)
    header = image.header
    affine = image.affine
    if isinstance(header, nib.Nifti1Header):
        sform, qform = int(header["sform_code"]), int(header["qform_code"])
        if sform > 0 and not _invertible(affine) and qform > 0:
            affine = header.get_qform()
            log.warning("%s: its sform is singular; its qform is used instead.", path)
        elif sform == 0 and qform == 0:
            log.warning("%s says nothing about its orientation (sform and qform unset); check left and right.", path)
    return np.asanyarray(image.dataobj).reshape(shape), np.asarray(affine, np.float64)


def _read_sitk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Data (X, Y, Z) and affine of a file that SimpleITK knows."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    if reader.GetNumberOfComponents() != 1:
        raise InputError(f"{path} is a colour or vector image, not one of grey values; save it as a scalar image.")
    size = reader.GetSize()
    _check_memory(path, _three_dimensional(path, size))
    image = reader.Execute()
    if image.GetDimension() > 3:
        image = image[(slice(None),) * 3 + (0,) * (image.GetDimension() - 3)]
    volume = from_sitk(image)
    return volume.array, volume.affine


def _write_nifti(path: Path, array: np.ndarray, affine: np.ndarray, description: str) -> None:
    """NIfTI-1 with sform and qform both set."""
    import nibabel as nib

    if array.dtype in (np.int64, np.uint64):
        array = array.astype(np.int32)  # few readers know 64-bit integers
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = description.encode("utf-8")[:79]
    nib.save(image, path)


def _three_dimensional(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
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


def _check_memory(path: Path, shape: tuple[int, int, int]) -> None:
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


def _invertible(affine: np.ndarray) -> bool:
    """True if all is finite and the voxel has a volume."""
    matrix = affine[:3, :3]
    if not np.isfinite(affine).all():
        return False
    size = np.linalg.norm(matrix, axis=0)
    return bool(size.min() > 0 and abs(np.linalg.det(matrix / size)) > 1e-3)


def _check_geometry(path: Path | str, shape: tuple[int, ...], affine: np.ndarray) -> None:
    """Refuse voxels without a place or a credible size."""
    if 0 in shape:
        raise InputError(f"{path} holds no voxels; export it again.")
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    low, high = SPACING_RANGE
    if np.isfinite(affine).all() and sizes.min() > 0 and not (low <= sizes.min() and sizes.max() <= high):
        raise InputError(
            f"{path} has voxels of {' x '.join(f'{s:.3g}' for s in sizes)} mm, outside {low:g} to {high:g} mm; "
            "correct the voxel size in its header."
        )
    if not _invertible(affine):
        raise InputError(f"{path} has a singular orientation matrix in its header; convert it again from DICOM.")


# --- resampling ------------------------------------------------------------------------------------------------
# All of it in index space: `step` (4, 4) takes target indices to source indices, so that shears, flips and
# oblique axes need no special case.


def _copy_lattice(array: np.ndarray, step: np.ndarray, shape: tuple[int, int, int], fill: float) -> np.ndarray | None:
    """An exact copy where target voxels sit on source voxels, else None."""
    whole = np.round(step)
    # The largest miss over the target's box, in source voxels.
    miss = np.abs(step - whole)[:3] @ np.array([*shape, 1])
    if miss.max() > 1e-3 or not np.array_equal(np.abs(whole[:3, :3]).sum(0), (1, 1, 1)):
        return None
    if not np.array_equal(np.abs(whole[:3, :3]).sum(1), (1, 1, 1)):
        return None
    axes = np.abs(whole[:3, :3]).argmax(0)  # source axis of each target axis
    sign = whole[axes, range(3)]
    start = whole[axes, 3]
    result = np.full(shape, fill, array.dtype)
    into, out_of = [], []
    for n, source_n, flip, first in zip(shape, np.take(array.shape, axes), sign, start):
        index = first + flip * np.arange(n)
        inside = np.flatnonzero((index >= 0) & (index < source_n))
        if inside.size == 0:
            return result
        into.append(slice(inside[0], inside[-1] + 1))
        low, high = sorted((int(index[inside[0]]), int(index[inside[-1]])))
        out_of.append((slice(low, high + 1), slice(None, None, int(flip))))
    piece = array.transpose(axes)[tuple(s for s, _ in out_of)][tuple(f for _, f in out_of)]
    result[tuple(into)] = piece
    return result


def _crop_to_target(
    source: np.ndarray, step: np.ndarray, shape: tuple[int, int, int], margin: int = 12
) -> tuple[np.ndarray | None, np.ndarray]:
    """The part of the source that the target can see, with ``margin`` voxels for filters; None if there is none."""
    corners = Grid(shape, step).corners()
    # Smoothing reaches farther where the target is much coarser.
    reach = margin + np.ceil(2 * np.linalg.norm(step[:3, :3], axis=1))
    low = np.maximum(np.floor(corners.min(0) - reach), 0).astype(int)
    high = np.minimum(np.ceil(corners.max(0) + reach) + 1, source.shape).astype(int)
    if (high <= low).any():
        return None, step
    shifted = step.copy()
    shifted[:3, 3] -= low
    return source[tuple(slice(a, b) for a, b in zip(low, high))], shifted


def _anti_alias(source: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Smooth each source axis to the target's voxel size, where that is larger."""
    from scipy.ndimage import gaussian_filter1d

    # Row i of step: how far one target voxel reaches along source axis i, in source voxels.
    for axis, width in enumerate(np.linalg.norm(step[:3, :3], axis=1)):
        sigma = np.sqrt(max(width**2 - 1.0, 0.0)) / _FWHM
        if sigma > 0.1:
            source = gaussian_filter1d(source, sigma, axis=axis, mode="nearest", truncate=3.0)
    return source


def _itk_resample(
    source: np.ndarray, step: np.ndarray, shape: tuple[int, int, int], order: Order, fill: float
) -> np.ndarray:
    """ITK's resampler (threaded, each voxel by itself, so bytes do not depend on the number of threads)."""
    import SimpleITK

    kind = {
        "nearest": SimpleITK.sitkNearestNeighbor,
        "linear": SimpleITK.sitkLinear,
        "bspline": SimpleITK.sitkBSpline,
    }[order]
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(source.transpose(2, 1, 0)))
    transform = SimpleITK.AffineTransform(step[:3, :3].ravel().tolist(), step[:3, 3].tolist())
    resampler = SimpleITK.ResampleImageFilter()
    resampler.SetSize([int(n) for n in shape])
    resampler.SetTransform(transform)
    resampler.SetInterpolator(kind)
    resampler.SetDefaultPixelValue(float(fill))
    result = resampler.Execute(image)  # the view below lives only as long as this name does
    return np.ascontiguousarray(SimpleITK.GetArrayViewFromImage(result).transpose(2, 1, 0))


def _limit_to_neighbours(values: np.ndarray, source: np.ndarray, step: np.ndarray, fill: float) -> np.ndarray:
    """Clip interpolated ``values`` to the range of the eight source voxels around each point."""
    from scipy.ndimage import maximum_filter, minimum_filter

    # A filter of size 2 with origin -1 holds, at i, the extreme of voxels i and i + 1 along each axis. It is looked
    # up at floor(position) = round(position - 1/2); one voxel of padding serves positions before the first centre.
    lookup = step.copy()
    lookup[:3, 3] += 1.0 - 0.5
    limits = []
    for extreme in (minimum_filter, maximum_filter):
        padded = np.pad(extreme(source, size=2, origin=-1, mode="nearest"), ((1, 0),) * 3, mode="edge")
        limits.append(_itk_resample(padded, lookup, values.shape, "nearest", fill))
    return np.clip(values, *limits)
