"""The brain of a T1w: given by a person, seen from an outline, or found; then looked at, before anything uses it."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..volume import Volume, as_volume
from . import brainmask
from .checks import describe
from .placing import Places, place

Source = Volume | str | os.PathLike

#: Brains outside this range (ml) are possible but draw a warning.
USUAL_BRAIN_ML = (300.0, 2300.0)
#: Nobody has a brain outside this range (ml): a slab 20 mm thick holds 200 ml, and of the largest brains (about 2000
#: ml) a generous mask with fluid and dura holds 2700 ml. What is outside needs a person's word.
POSSIBLE_BRAIN_ML = (60.0, 2800.0)
#: Share of a given mask in the air around the head from which it is refused; from which it is told, over a head (right
#: masks of real heads have up to 0.004, those 29 mm away 0.10 and more) and over a stripped brain (generous ones: 0.2).
_AIR_LIMIT, _AIR_OF_HEAD, _AIR_OF_BRAIN = 0.5, 0.05, 0.25
#: Less of the brain than this (mm) along an axis, and an end through its thick: a slab. The scale of brightness then
#: hangs on what is in it. Measured on slabs of six whole scans, axial, at four heights: the T1w's tissue (0.5) moves by
#: up to 0.056 in 24 mm, 0.053 in 36, 0.042 in 60, 0.034 in 80, 0.032 in 100 and 0.026 in 120 (three of the scans stay
#: below 0.015 everywhere); from 100 mm on the typical shift is below 0.01.
_SLAB_MM, _CUT_SHARE = 100.0, 0.3
#: What is smaller than this (ml) and not air is a stripped brain.
_HEAD_ML = 2300.0


@dataclass(frozen=True, eq=False)
class Brain:
    """Where the brain is.

    Attributes:
        volume: float32, 0.5 and more inside, on any grid, in the T1w's world (or the FLAIR's: see ``on_flair``).
        on_flair: a given mask on the FLAIR's own grid; it goes where the FLAIR goes.
        given: the file or thing to name in sentences; None for a brain that was found here.
    """

    volume: Volume
    on_flair: bool = False
    given: str | None = None


def find_brain(
    t1w: Volume,
    flair: Volume,
    given: Source | None,
    skull_strip: str,
    device: str,
    note: list[str],
    warnings: list[str],
) -> Brain:
    """The brain, from a mask if one is ``given``.

    A given mask is cleaned as own ones are: holes filled, specks left out (:func:`.brainmask.cleaned`).

    Args:
        t1w, flair: as read.
        given: mask or None.
        skull_strip: see :func:`.pipeline.prepare`.
        device: where deepbet runs.
        note: what was done is added here.
        warnings: sentences for the user are added here.

    Raises:
        InputError: the mask is empty, no mask, in a lost place, or covers no brain; or none was found.
    """
    if given is not None:
        return _given(t1w, flair, given, note, warnings)
    if skull_strip == "none":
        note.append("off; all but the empty background is kept")
        return Brain(t1w.with_array(brainmask.foreground(t1w.array, t1w.spacing).astype(np.float32)))
    if skull_strip == "auto":
        stripped = brainmask.recognise_stripped(t1w)
        if stripped is not None:
            note.append("the T1w is skull-stripped already")
            return Brain(stripped)
    note.append("deepbet")
    return Brain(brainmask.extract_brain(t1w, device))


def _given(t1w: Volume, flair: Volume, source: Source, note: list[str], warnings: list[str]) -> Brain:
    from ..regions.masks import binary

    mask = as_volume(source, "brain mask")
    label = str(describe(mask, "brain mask"))
    inside, said = binary(mask.with_array(np.nan_to_num(mask.array)), "brain mask")
    if said:
        note.append(said)
    if not inside.array.any():
        raise InputError(f"{label} is empty; give a mask that covers the brain.")
    places = Places({"T1w": t1w.grid}, flair.grid)
    # The FLAIR has not moved yet; a mask on its grid will go with it.
    inside = place(inside, "brain mask", places, warnings)
    on_flair = places.follows_flair(inside.grid)
    solid, filled, left_out = brainmask.cleaned(inside.array > 0, inside.spacing)
    voxel = inside.grid.voxel_volume_ml
    if filled:
        warnings.append(f"{label} had gaps inside the brain: {filled * voxel:.2g} ml (voxels: {filled}) were filled.")
    if left_out:
        warnings.append(
            f"{label} had specks beside the brain: {left_out * voxel:.2g} ml (voxels: {left_out}) were left out."
        )
    brain = inside.with_array(solid.astype(np.float32))
    same = inside.grid.same_as(t1w.grid)
    note.append("given" if same else f"given, resampled from {'the FLAIR' if on_flair else 'its own'} grid")
    if not on_flair:
        check_covers(t1w, brain, label, warnings)
    return Brain(brain, on_flair, label)


def check_covers(t1w: Volume, brain: Volume, label: str, warnings: list[str]) -> None:
    """Refuse a mask that lies beside the head, and say so if a good part of it does.

    Raises:
        InputError: see above; the sentence names the mask by ``label``.
    """
    grid = t1w.grid.isotropic(4.0)
    inside = brain.resampled_to(grid).array >= 0.5
    if not inside.any():
        raise InputError(f"{label} does not overlap {describe(t1w, 'T1w')}; give a mask in the T1w's space.")
    # Outside the T1w's box counts as air, too.
    size = brain.grid.voxel_volume_ml * np.count_nonzero(brain.array)
    beyond = max(0.0, 1.0 - np.count_nonzero(inside) * grid.voxel_volume_ml / size)
    head = brainmask.find_head(t1w, grid)
    share = beyond + (1 - beyond) * np.count_nonzero(inside & ~head) / np.count_nonzero(inside)
    if share > _AIR_LIMIT:
        raise InputError(
            f"{label} is not where the brain is: {share:.0%} of it lies outside the head in {describe(t1w, 'T1w')}; "
            "give a mask in the T1w's space, saved with its affine."
        )
    stripped = np.count_nonzero(head) * grid.voxel_volume_ml < _HEAD_ML
    if share > (_AIR_OF_BRAIN if stripped else _AIR_OF_HEAD):
        warnings.append(f"{share:.0%} of {label} lies outside the head in the T1w; look whether it lies on the brain.")


def require_brain(native_brain: np.ndarray, t1w: Volume, brain: Brain) -> None:
    """Refuse a brain of which nothing lies in the T1w.

    ``native_brain`` (X, Y, Z) is the brain mask on the T1w's grid.

    Raises:
        InputError: see above.
    """
    if native_brain.any():
        return
    label = describe(t1w, "T1w")
    if brain.given is not None:
        raise InputError(f"{brain.given} does not overlap {label}; give a mask in the T1w's space.")
    raise InputError(f"No brain was found in {label}; give a brain mask (--brain-mask).")


def check_volume(native_mask: Volume, t1w: Volume, brain: Brain, confirmed: bool, warnings: list[str]) -> float:
    """Refuse a brain of impossible size unless a person has ``confirmed`` it; returns its volume in ml.

    Raises:
        InputError: outside :data:`POSSIBLE_BRAIN_ML`.
    """
    volume = np.count_nonzero(native_mask.array) * native_mask.grid.voxel_volume_ml
    low, high = POSSIBLE_BRAIN_ML
    if not confirmed and not low <= volume <= high:
        what = brain.given or f"The brain found in {describe(t1w, 'T1w')}"
        raise InputError(
            f"{what} holds {volume:.0f} ml, and a brain in a head scan {low:g} to {high:g} ml; give a (better) brain "
            "mask, or confirm the volume (--any-brain-volume, in Slicer the box below the brain mask)."
        )
    low, high = USUAL_BRAIN_ML
    if not low <= volume <= high:
        warnings.append(f"The brain mask holds {volume:.0f} ml, which is unusual; look at it, or give a brain mask.")
    return volume


def check_extent(native_mask: Volume, warnings: list[str]) -> None:
    """Say so if only a slab of the brain was imaged.

    Args:
        native_mask: brain, > 0 inside, where both images show it; not empty.
        warnings: a sentence is added here.
    """
    inside = native_mask.array > 0
    for axis, spacing in enumerate(native_mask.spacing):
        areas = np.count_nonzero(inside, axis=tuple(a for a in range(3) if a != axis))
        there = np.flatnonzero(areas)
        length = float((there[-1] - there[0] + 1) * spacing)
        if length < _SLAB_MM and max(areas[there[0]], areas[there[-1]]) > _CUT_SHARE * areas.max():
            warnings.append(
                f"Only {length:.0f} mm of the brain were imaged along one axis: brightness is scaled by what is in "
                f"this slab, so PSR can be off by several per cent; give scans of the whole brain."
            )
            return
