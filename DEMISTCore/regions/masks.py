"""Masks as people give them: read, checked, made binary, brought to another grid. Every change is a sentence."""

from __future__ import annotations

import logging
import os

import numpy as np

from ..errors import InputError
from ..labels import CSF, GREY, WHITE
from ..volume import Grid, Volume, as_volume

log = logging.getLogger(__name__)

#: More different numbers than this are no segmentation.
_MOST_LABELS = 20_000
#: A file may store whole numbers by a scale that is not exact in binary (1 comes back as 1.0000000591): a value this
#: near to a whole number, and in the proportion of float32's own rounding for large labels, is that number.
_WHOLE, _WHOLE_SHARE = 1e-3, 1e-6
#: Splines overshoot: masks that were resampled by them reach this far below 0 and above 1.
_OVERSHOOT = 0.25


def read_mask(path: str | os.PathLike[str] | Volume, name: str, notes: list[str] | None = None) -> Volume:
    """A mask (uint8, 0 or 1) from a file, or from a Volume.

    Integer labels (one number per lesion, say) count above 0, fractions from 0 to 1 (probabilities, partial volume)
    from 0.5 on; either is noted. An empty mask is no error.

    Args:
        path: file or volume.
        name: what it is, for messages: "lesion mask".
        notes: sentences about what was done are added here; they go to the log, too.

    Raises:
        InputError: it cannot be read, or holds NaN, infinite or negative values or grey values.
    """
    volume = Volume.read(path, dtype=None) if not isinstance(path, Volume) else as_volume(path, name)
    mask, note = binary(volume, name)
    if note:
        log.info("%s", note)
        if notes is not None:
            notes.append(note)
    return mask


def binary(volume: Volume, name: str) -> tuple[Volume, str | None]:
    """The mask as uint8 0 and 1, and a sentence if it was not binary before; see :func:`read_mask`."""
    array, label = volume.array, describe(volume, name)
    if array.dtype == bool:
        return volume.with_array(array.astype(np.uint8)), None
    _check_finite(array, label)
    array, whole = _unscaled(array)
    if array.min() < (0 if whole else -_OVERSHOOT):
        raise InputError(f"{label} has negative values, which no mask has; give a mask of 0 and 1.")
    if np.array_equal(array, array != 0):
        return volume.with_array((array != 0).astype(np.uint8)), None
    if whole:
        labels = np.unique(array[array > 0])
        if labels.size > _MOST_LABELS or (labels.size > 50 and _is_image(array)):
            raise InputError(f"{label} is not a mask: it holds grey values; give a mask of 0 and 1, or whole labels.")
        said = f"the value {labels[0]:g}" if labels.size == 1 else f"{labels.size} labels up to {labels[-1]:g}"
        return volume.with_array((array > 0).astype(np.uint8)), f"{label} holds {said}; all above 0 count as mask."
    inside = array[array != 0]
    if inside.min() > 0 and np.ptp(inside) <= _WHOLE_SHARE * inside.max():  # one value: a mask times some scale
        note = f"{label} holds the value {inside[0]:.4g}; all above 0 count as mask."
        return volume.with_array((array > 0).astype(np.uint8)), note
    if array.max() <= 1 + _OVERSHOOT:
        note = f"{label} holds fractions between 0 and 1; voxels of 0.5 and more count as mask."
        return volume.with_array((array >= 0.5).astype(np.uint8)), note
    raise InputError(
        f"{label} is not binary: it holds values such as {_oddest(array):g}; give a mask of 0 and 1, or whole labels."
    )


def tissue_labels(volume: Volume, name: str = "tissue map") -> Volume:
    """A tissue map as uint8: 0 background, 1 CSF, 2 grey, 3 white.

    Raises:
        InputError: other values.
    """
    label = describe(volume, name)
    _check_finite(volume.array, label)
    array, _ = _unscaled(volume.array)
    wrong = ~np.isin(array, (0, CSF, GREY, WHITE))
    if wrong.any():
        raise InputError(
            f"{label} holds the value {array[wrong].flat[0]:g}; a tissue map has 0 background, 1 CSF, 2 grey "
            "and 3 white matter: translate its labels."
        )
    return volume.with_array(array.astype(np.uint8))


def to_grid(mask: Volume, grid: Grid, name: str, notes: list[str], target: str = "PSR map") -> Volume:
    """A mask or label map on ``grid`` by nearest neighbour; a sentence is added to ``notes`` if that moved anything.

    Raises:
        InputError: it holds something, but nothing on ``grid``.
    """
    if mask.grid.same_as(grid):
        return grid.volume(mask.array, mask.path)
    label = describe(mask, name)
    moved = mask.resampled_to(grid, "nearest")
    if mask.array.any() and not moved.array.any():
        raise InputError(f"{label} does not overlap the {target}; give a {name} in the same space.")
    note = f"{label} was resampled to the {target}'s grid (nearest neighbour)."
    log.info("%s", note)
    notes.append(note)
    return moved


def labels_to_grid(labels: Volume, grid: Grid) -> Volume:
    """Tissue labels on another grid: each class is interpolated linearly, and the largest fraction takes the voxel.

    Smoother than nearest neighbours where voxels do not coincide, and right where voxels get larger.
    """
    if labels.grid.same_as(grid):
        return grid.volume(labels.array)
    values = [int(v) for v in np.unique(labels.array) if v]
    best, result = np.zeros(grid.shape, np.float32), np.zeros(grid.shape, np.uint8)
    fractions = {
        v: Volume((labels.array == v).astype(np.float32), labels.affine).resampled_to(grid).array for v in values
    }
    inside = sum(fractions.values(), np.zeros(grid.shape, np.float32)) >= 0.5
    for value, fraction in fractions.items():
        larger = inside & (fraction > best)
        result[larger] = value
        best[larger] = fraction[larger]
    return grid.volume(result)


def describe(volume: Volume, name: str) -> str:
    """The file if there is one, otherwise the name of the thing."""
    return str(volume.path) if volume.path is not None else f"The {name}"


def _check_finite(array: np.ndarray, label: str) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{label} has NaN or infinite values; replace them by 0.")


def _unscaled(array: np.ndarray) -> tuple[np.ndarray, bool]:
    """The array, and whether it holds whole numbers; what a file's scale has moved off them is moved back."""
    if array.dtype.kind in "bui":
        return array, True
    near = np.round(array)
    whole = bool(np.all(np.abs(array - near) <= np.maximum(_WHOLE, _WHOLE_SHARE * np.abs(near))))
    return (near + 0, True) if whole else (array, False)  # + 0: no negative zero


def _is_image(array: np.ndarray) -> bool:
    """Grey values change from voxel to voxel; labels come in pieces."""
    step = np.diff(array.astype(np.float64), axis=0)
    there = (array[1:] > 0) & (array[:-1] > 0)
    return bool(there.any() and np.mean(step[there] != 0) > 0.5)


def _oddest(array: np.ndarray) -> float:
    odd = array[array != np.round(array)]
    return float(odd[np.argmax(odd)])
