"""``build_regions``: whatever is at hand in, masks of regions on one grid out."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..labels import CSF, GREY, WHITE
from ..preprocess.brainmask import solid
from ..preprocess.placing import SAME_MM, Places, place
from ..volume import Grid, Volume
from . import masks as reading
from .holes import fill_white
from .lesions import Lesions, black_holes, number_lesions
from .masks import describe, labels_to_grid, to_grid
from .nawm import lesion_distance, split
from .network import Found, find_tissue, open_network
from .settings import REGIONS, RegionSettings
from .suggest import suggest_lesions
from .tissue import segment_tissue

if TYPE_CHECKING:
    from ..preprocess import Prepared

log = logging.getLogger(__name__)

#: From voxels longer than this (mm) borders of cortex, 2 to 4 mm thick, are guesses.
_THICK_MM = 2.0


@dataclass(frozen=True, eq=False)
class Regions:
    """Masks of one brain on one grid.

    Attributes:
        masks: uint8 by key of :data:`DEMISTCore.regions.REGIONS`, in its order; only those that could be made and
            hold a voxel.
        lesions: numbered; None if no mask was given and none were suggested.
        distance: mm to the nearest lesion, float32; None without lesions.
        settings: as used.
        notes: plain sentences: what was resampled, suggested or left out, and why.
    """

    masks: dict[str, Volume]
    lesions: Lesions | None
    distance: Volume | None
    settings: RegionSettings
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Images:
    """T1w and FLAIR, normalized, and the brain, on one isotropic grid; the longest edge of the T1w's own voxels."""

    t1w: Volume
    flair: Volume | None
    brain: Volume
    edge_mm: float


def build_regions(
    grid_of: Volume,
    *,
    lesion_mask: Volume | None = None,
    tissue: Volume | None = None,
    t1w: Volume | None = None,
    flair: Volume | None = None,
    brain: Volume | None = None,
    prepared: Prepared | None = None,
    suggest: bool | None = None,
    unchecked: bool = False,
    settings: RegionSettings | None = None,
    flair_place: tuple[Grid, np.ndarray] | None = None,
    any_brain_volume: bool = False,
) -> Regions:
    """Make the regions that the given images and masks allow, on the grid of ``grid_of``.

    All inputs lie in one world space; grids may differ. Masks on the FLAIR's own grid were drawn on it and go where
    registration takes it (:mod:`DEMISTCore.preprocess.placing`). Tissue comes from ``tissue``, otherwise it is
    segmented on the T1w, which is prepared first (brain mask, bias field, FLAIR registered to it); without both, only
    lesions are made. Without lesions all white matter is NAWM.

    Args:
        grid_of: the PSR map; only its grid is used.
        lesion_mask: > 0 inside, or one integer per lesion, or fractions (0.5 and more count). An empty one says that
            there are no lesions.
        tissue: labels 1 CSF, 2 grey, 3 white matter.
        t1w, flair: as scanned or processed, not yet prepared.
        brain: brain mask; nothing outside it counts. Without it, the T1w's brain is extracted.
        prepared: what :func:`DEMISTCore.preprocess.prepare` made of the T1w and FLAIR; spares doing it again.
        suggest: suggest lesions from the FLAIR; None: if there is a T1w and a FLAIR and no lesion mask.
        unchecked: ``lesion_mask`` is itself a suggestion that no person has checked; every output will say so.
        settings: see :class:`RegionSettings`.
        flair_place: the grid of the FLAIR that the map was synthesized from, and the motion (4, 4; RAS mm) that took it
            onto the T1w then: known from the map's sidecar, also where the FLAIR is not at hand.
        any_brain_volume: a person says that the brain's volume is right, see :func:`DEMISTCore.prepare`; that of a
            given mask (``brain``) is not questioned anyway.

    Raises:
        InputError: a mask or image cannot be used; the sentence says what to do.
    """
    settings = settings or RegionSettings()
    grid, notes = grid_of.grid, []
    can_suggest = prepared is not None or (t1w is not None and flair is not None)
    suggest = (lesion_mask is None and can_suggest) if suggest is None else suggest
    if suggest and lesion_mask is not None:
        raise InputError("Give a lesion mask, or ask for suggested lesions, not both.")
    if suggest and not can_suggest:
        raise InputError("Suggesting lesions takes a T1w and a FLAIR image; give both.")
    if lesion_mask is not None:
        reading.binary(lesion_mask, "lesion mask")  # refused now rather than after minutes of work
    masks = {"brain mask": brain, "lesion mask": lesion_mask, "tissue map": tissue}
    places = _places(grid_of, t1w, flair, prepared, flair_place)
    # What was drawn on a FLAIR goes where registration takes it, so that must be known first.
    follows = any(mask is not None and places.follows_flair(mask.grid) for mask in masks.values())
    known = flair_place is not None and places.flair is not None and places.flair.same_as(flair_place[0], SAME_MM)

    images: _Images | None = None
    # A tissue map makes the images superfluous, unless lesions are to be suggested or looked at on the T1w.
    needed = tissue is None or suggest or lesion_mask is not None or (follows and not known)
    if prepared is None and t1w is not None and flair is not None and needed:
        prepared = _prepare(t1w, flair, brain, any_brain_volume)
    if prepared is not None:
        notes.extend(prepared.warnings)
        images = _from_prepared(prepared)
    elif t1w is not None and needed:
        images = _prepare_t1w(t1w, brain, notes, any_brain_volume)
    if images is not None and not images.brain.resampled_to(grid, "nearest").array.any():
        raise InputError(
            f"{describe(t1w or images.t1w, 'T1w')} does not overlap the PSR map; give a T1w in the map's space."
        )
    if prepared is not None:
        places = replace(places, motion=prepared.flair_motion)
    elif known and flair_place is not None:
        places = replace(places, motion=flair_place[1])
    elif follows:
        notes.append("The FLAIR was not registered to a T1w: what lies on its grid stays where its header says.")
    brain, lesion_mask, tissue = (
        None if mask is None else place(mask, name, places, notes, drawn=mask is not brain)
        for name, mask in masks.items()
    )
    outline = None if brain is None else _outline(brain, grid, notes)
    drawn = None if lesion_mask is None else _drawn(lesion_mask, grid, outline, notes)

    seen = None
    if images is not None and settings.method == "network" and (tissue is None or suggest):
        seen = find_tissue(images.t1w, images.brain, flair=images.flair, model=open_network(settings.network))
    labels, fine = _tissue(grid, tissue, images, drawn, seen, notes)
    if outline is not None and labels is not None:
        labels = labels.with_array(np.where(outline, labels.array, 0).astype(np.uint8))
    if labels is not None and not (labels.array == WHITE).any():
        source = describe(tissue, "tissue map") if tissue is not None else describe(t1w or grid_of, "T1w")
        raise InputError(f"{source} shows no white matter in the brain of the PSR map; check that they overlap.")

    lesions = None
    if drawn is not None:
        lesions = _numbered(drawn, settings, unchecked, notes)
        if images is not None and fine is not None and lesions.count:
            lesions = replace(lesions, black_holes=_black_holes(lesions.numbers, images, fine))
    elif suggest:
        assert images is not None
        lesions = _suggested(grid, images, fine, seen, outline, settings)
        notes.append(lesions.note if lesions.count else "No lesions were found on the FLAIR (a suggestion, unchecked).")
    if labels is not None and lesions is not None:
        labels = fill_white(labels, lesions.numbers.array > 0)
        _note_outside(lesions, labels, notes)
    return _assemble(grid, labels, lesions, drawn, images is not None, settings, notes)


# --- inputs ----------------------------------------------------------------------------------------------------------


def _outline(brain: Volume, grid: Grid, notes: list[str]) -> np.ndarray:
    mask, note = reading.binary(brain, "brain mask")
    if note:
        notes.append(note)
    if not mask.array.any():
        raise InputError(f"{describe(brain, 'brain mask')} is empty; give a mask that covers the brain.")
    mask = mask.with_array(solid(mask.array > 0, mask.spacing).astype(np.uint8))
    return to_grid(mask, grid, "brain mask", notes).array > 0


def _drawn(mask: Volume, grid: Grid, outline: np.ndarray | None, notes: list[str]) -> Volume:
    """The lesion mask on ``grid``, inside the brain."""
    label = describe(mask, "lesion mask")
    binary, note = reading.binary(mask, "lesion mask")
    if note:
        notes.append(note)
    here = to_grid(binary, grid, "lesion mask", notes)
    if outline is None or not here.array.any():
        return here
    kept = (here.array > 0) & outline
    inside, all_ = int(kept.sum()), int((here.array > 0).sum())
    if not inside:
        raise InputError(f"{label} has no lesion inside the brain; give a mask in the PSR map's space.")
    if inside < all_:
        notes.append(f"{label}: {all_ - inside} of {all_} voxels lie outside the brain and were left out.")
    return replace(here, array=kept.astype(np.uint8))


def _from_prepared(prepared: Prepared) -> _Images:
    return _Images(prepared.t1w, prepared.flair, prepared.mask, max(prepared.native.spacing))


def _places(
    grid_of: Volume,
    t1w: Volume | None,
    flair: Volume | None,
    prepared: Prepared | None,
    flair_place: tuple[Grid, np.ndarray] | None,
) -> Places:
    """The images that masks may have been drawn on; nothing has moved yet."""
    fixed = {"PSR map": grid_of.grid}
    if prepared is not None:
        fixed["T1w"] = prepared.native
    elif t1w is not None:
        fixed["T1w"] = t1w.grid
    if flair is not None:
        return Places(fixed, flair.grid)
    if prepared is not None and prepared.flair_native is not None:
        return Places(fixed, prepared.flair_native)
    return Places(fixed, None if flair_place is None else flair_place[0])


def _prepare(t1w: Volume, flair: Volume, brain: Volume | None, any_brain_volume: bool) -> Prepared:
    """Brain mask, registration, bias field and normalization, at 1 mm; the given outline's volume is not questioned."""
    from ..preprocess import prepare

    mask = None if brain is None else brain.with_array(np.nan_to_num(brain.array) > 0)
    return prepare(t1w, flair, brain_mask=mask, any_brain_volume=mask is not None or any_brain_volume)


def _prepare_t1w(t1w: Volume, mask: Volume | None, notes: list[str], any_brain_volume: bool) -> _Images:
    """The same for a T1w that comes alone."""
    from ..preprocess import checks, model_grid, normalize
    from ..preprocess.bias import correct_bias
    from ..preprocess.brain import Brain, check_volume
    from ..preprocess.brainmask import extract_brain, recognise_stripped

    volume = checks.load_image(t1w, "T1w", notes)
    own = mask is None
    if mask is None:
        mask = recognise_stripped(volume) or extract_brain(volume)
    mask = mask.with_array((np.nan_to_num(mask.array) > 0).astype(np.float32))
    native = volume.with_array((mask.resampled_to(volume).array >= 0.5).astype(np.uint8))
    if not native.array.any():
        raise InputError(
            f"{describe(t1w, 'T1w')} does not overlap the brain mask; give a T1w in the space of the PSR map."
        )
    if own:
        check_volume(native, volume, Brain(mask), any_brain_volume, notes)
    grid = model_grid(native, 1.0, multiple=1)
    inside = (mask.resampled_to(grid).array >= 0.5) & (native.resampled_to(grid, "nearest").array > 0)
    image, _ = correct_bias(volume.resampled_to(grid, "bspline").array, inside, 1.0)
    image = normalize([image], inside)[0]
    brain = Volume(inside.astype(np.uint8), grid.affine)
    return _Images(Volume(image, grid.affine, volume.path), None, brain, max(volume.spacing))


# --- parts -----------------------------------------------------------------------------------------------------------


def _tissue(
    grid: Grid,
    given: Volume | None,
    images: _Images | None,
    drawn: Volume | None,
    seen: Found | None,
    notes: list[str],
) -> tuple[Volume | None, Volume | None]:
    """Tissue labels on ``grid``, and on the grid of the images."""
    if given is not None:
        checked = reading.tissue_labels(given)
        label = describe(given, "tissue map")
        if not checked.array.any():
            raise InputError(f"{label} is empty; give labels 1 CSF, 2 grey and 3 white matter.")
        labels = to_grid(checked, grid, "tissue map", notes)
        fine = None if images is None else checked.resampled_to(images.t1w, "nearest")
        return labels, fine
    if images is None:
        notes.append("There is no T1w and no tissue map: white matter, NAWM and grey matter were left out.")
        return None, None
    source = f"from the T1w{' and FLAIR' if images.flair is not None else ''}"
    if seen is not None:
        hidden = None if drawn is None else drawn.resampled_to(images.t1w, "nearest").array > 0
        fine = fill_white(seen.tissue, np.zeros(images.t1w.shape, bool) if hidden is None else hidden)
        name = f"{seen.model.name} ({seen.model.hash[:12]})"
        trained = ", trained on simulated images" if seen.model.simulated else ""
        notes.append(f"Tissue was segmented {source} by the network {name}{trained}.")
    else:
        fine = segment_tissue(images.t1w, images.brain, flair=images.flair, lesions=drawn)
        notes.append(f"Tissue was segmented automatically {source}.")
    if images.edge_mm > _THICK_MM:
        notes.append(
            f"The T1w's voxels are {images.edge_mm:.1f} mm long, about as much as cortex is thick: grey matter's mean "
            "may be off by several per cent and that of all white matter by one or two; NAWM keeps off borders."
        )
    return labels_to_grid(fine, grid), fine


def _numbered(drawn: Volume, settings: RegionSettings, unchecked: bool, notes: list[str]) -> Lesions:
    numbers = number_lesions(drawn, settings.min_lesion_ml)
    if settings.min_lesion_ml:
        left_out = int(number_lesions(drawn).array.max(initial=0) - numbers.array.max(initial=0))
        if left_out:
            notes.append(f"{left_out} lesions below {settings.min_lesion_ml:g} mL were left out.")
    lesions = Lesions(numbers, suggested=unchecked)
    if unchecked and lesions.count:
        notes.append(lesions.note)
    return lesions


def _black_holes(numbers: Volume, images: _Images, fine: Volume) -> tuple[int, ...]:
    """Lesions by the T1w's own voxels; those too small to have one there have no say."""
    return black_holes(numbers.resampled_to(images.t1w, "nearest"), images.t1w, fine)


def _suggested(
    grid: Grid,
    images: _Images,
    fine: Volume | None,
    seen: Found | None,
    outline: np.ndarray | None,
    settings: RegionSettings,
) -> Lesions:
    assert images.flair is not None
    assert fine is not None
    if seen is None:
        found = suggest_lesions(images.t1w, images.flair, fine, settings=settings).mask
    else:
        numbers = number_lesions(seen.lesions, max(settings.min_suggested_ml, settings.min_lesion_ml))
        found = numbers.with_array((numbers.array > 0).astype(np.uint8))
    mask = (labels_to_grid(found, grid).array > 0) & (True if outline is None else outline)
    numbers = number_lesions(grid.volume(mask.astype(np.uint8)))
    return Lesions(numbers, suggested=True, black_holes=_black_holes(numbers, images, fine))


def _note_outside(lesions: Lesions, labels: Volume, notes: list[str]) -> None:
    outside = int(((lesions.numbers.array > 0) & (labels.array == 0)).sum())
    if outside:
        notes.append(f"{outside} lesion voxels lie outside the segmented brain; they count as lesions all the same.")


def _assemble(
    grid: Grid,
    labels: Volume | None,
    lesions: Lesions | None,
    drawn: Volume | None,
    has_t1w: bool,
    settings: RegionSettings,
    notes: list[str],
) -> Regions:
    masks: dict[str, np.ndarray] = {}
    distance = None
    inside = np.zeros(grid.shape, bool)
    if lesions is not None:
        inside = lesions.numbers.array > 0
        masks["lesion"] = inside
        masks["black_hole"] = lesions.black_hole_mask.array > 0
        # Lesions too small to be measured are no NAWM either.
        known = inside if drawn is None else inside | (drawn.array > 0)
        distance = lesion_distance(Volume(known, grid.affine))
        if lesions.count and not has_t1w:
            notes.append("There is no T1w: T1 black holes were not looked for.")
    if labels is not None:
        white = labels.array == WHITE
        normal = white if distance is None else white & (distance.array > 0)
        masks |= split(normal & _deep(white, labels, settings), None if distance is None else distance.array, settings)
        masks["grey_matter"] = (labels.array == GREY) & ~inside
        masks["white_matter"] = white
        masks["csf"] = (labels.array == CSF) & ~inside
        if distance is None:
            notes.append("There are no lesions: all white matter counts as NAWM, neither proximal nor distal.")
        else:
            for key in ("nawm", "nawm_proximal", "nawm_distal"):
                if not masks[key].any():
                    notes.append(f"{REGIONS[key]}: no voxel lies at the distances chosen, so it was left out.")
    kept = {key: masks[key] for key in REGIONS if key in masks and masks[key].any()}
    for sentence in notes:
        log.info("%s", sentence)
    return Regions(
        {key: grid.volume(mask.astype(np.uint8)) for key, mask in kept.items()},
        lesions,
        distance,
        settings,
        tuple(dict.fromkeys(notes)),
    )


def _deep(white: np.ndarray, labels: Volume, settings: RegionSettings) -> np.ndarray:
    """White matter without its borders to other tissue and to the outside; lesions were made white matter."""
    from scipy.ndimage import distance_transform_edt

    if not settings.depth_mm or white.all():
        return white
    return distance_transform_edt(white, sampling=labels.spacing) > max(settings.depth_mm, min(labels.spacing))
