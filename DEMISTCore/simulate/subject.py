"""One simulated person: anatomy, lesions and the tissue maps that every scan of that person is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..labels import CSF, GREY, LESION, WHITE
from ..volume import Grid, Volume
from . import compartments, lesion_kinds, residue
from . import lesions as lesion_model
from . import shifted_tissue as shifted
from .anatomy import TEMPLATE, Anatomy, list_anatomies, load_anatomy
from .fields import pull
from .shape import coordinates, moved_surfaces
from .tissue_maps import TissueMaps, tissue_maps
from .tracts import tract_factors

#: ``standard`` is what networks are trained on; ``shifted`` is a test instrument with other laws: shifted_tissue.py.
PHYSICS = ("standard", "shifted")


@dataclass(frozen=True, eq=False)
class Subject:
    """Ground truth of a simulated person on a 1 mm RAS grid; arrays are (X, Y, Z) float32 unless said otherwise.

    ``psr``: pool size ratio (fraction), 0 outside the brain. ``fractions``: partial volumes of the compartments
    white, grey, CSF and extra-cerebral. ``psr_white`` / ``psr_grey``: PSR inside the compartment (before partial
    volume). ``r2`` and ``pd`` likewise, keyed by compartment. ``water``: free water in place of lost tissue;
    ``lesion_r1``: what is added to the R1 of free water (1/s) in lesions, vessels and residue, whatever the PSR lost;
    ``r1_factor``: what R1 differs by from the two-pool value. ``dseg``: uint8 labels (see :mod:`DEMISTCore.labels`).

    Vessels and what a brain extraction left are part of the grey compartment with PSR 0, and what it cut away is
    missing, in ``fractions`` and the compartments' maps, from which scans are computed. ``psr``, ``dseg``, ``brain``
    and ``true_fractions`` (white, grey, CSF) are the person's own. ``physics``: the laws it follows, of PHYSICS.
    """

    affine: np.ndarray
    psr: np.ndarray
    dseg: np.ndarray
    brain: np.ndarray
    lesions: lesion_model.LesionMaps
    fractions: dict[int, np.ndarray]
    compartment_psr: dict[int, np.ndarray]
    r2: dict[int, np.ndarray]
    pd: dict[int, np.ndarray]
    extra: np.ndarray
    water: np.ndarray
    lesion_r1: np.ndarray
    r1_factor: np.ndarray
    true_fractions: dict[int, np.ndarray]
    physics: str = "standard"
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def grid(self) -> Grid:
        """The subject's 1 mm RAS grid."""
        return Grid(self.psr.shape, self.affine)

    def volume(self, array: np.ndarray) -> Volume:
        """``array`` on the subject's grid as a Volume."""
        return Volume(array, self.affine)


def simulate_subject(
    seed: int,
    *,
    anatomies: str | Path = TEMPLATE,
    lesion_masks: Sequence[Path] | None = None,
    skull: bool = True,
    healthy: bool = False,
    anatomy: Anatomy | None = None,
    surface_sd: float = 0.0,
    physics: str = "standard",
) -> Subject:
    """Draw one subject; the same arguments give the same subject, bit for bit.

    Args:
        seed: all randomness comes from it.
        anatomies: ``"icbm152"`` or a file or folder of FreeSurfer-numbered label maps; one is picked by the seed.
        lesion_masks: files of real lesion masks (MNI space) to recombine; about half of the subjects use it, the
            others get grown lesions. None: all lesions are grown.
        skull: keep extra-cerebral tissue.
        healthy: no lesions.
        anatomy: use this anatomy instead of picking one from ``anatomies``.
        surface_sd: mm that white matter's and the brain's surface move by (SD), which makes cortex thicker or thinner.
        physics: ``"standard"``, or ``"shifted"`` for a person that follows other laws, to test what was trained.

    Raises:
        InputError: anatomies or lesion masks cannot be read, or an unknown ``physics``.
    """
    if physics not in PHYSICS:
        raise InputError(f"Give --physics {' or '.join(PHYSICS)}, not {physics}.")
    rng = np.random.default_rng([int(seed), 20])
    if anatomy is None:
        names = list_anatomies(anatomies)
        anatomy = load_anatomy(names[int(rng.integers(len(names)))])
    classes, sinus, affine = compartments.crop(anatomy, skull)
    if rng.random() < 0.5:
        classes, sinus = classes[::-1], sinus[::-1]
    classes = np.ascontiguousarray(classes)
    parameters: dict[str, Any] = {"seed": int(seed), "anatomy": anatomy.name, "skull": bool(skull), "physics": physics}

    channels, layout = compartments.channels(classes, rng, parameters, physics)
    where = coordinates(classes, rng, parameters)
    if surface_sd:
        # Its own generator: with and without, the same seed is the same person otherwise.
        where = moved_surfaces(where, classes, surface_sd, np.random.default_rng([int(seed), 22]), parameters)
    if sinus.any() and not skull:
        layout["sinus"] = len(channels)
        channels = np.concatenate([channels, sinus[None].astype(np.float32)])
    warped = pull(channels, where)
    maps = {name: warped[index] for name, index in layout.items()}

    fractions = compartments.fractions(maps, rng, physics)
    tissue = fractions[WHITE] + fractions[GREY]
    brain = compartments.brain_mask(tissue, maps["ventricle"])
    left = rng.uniform(0.0, 5.0)  # drawn with a skull, too: the same seed is the same person
    outside = None
    if not skull:
        # Extraction tools disagree about how much of the fluid around the brain they leave.
        outside = compartments.distance_outside(brain)
        parameters["fluid_left_mm"] = round(left, 2)
        kept = outside <= left
        for key in fractions:
            fractions[key] = fractions[key] * kept
    ventricle_distance, cortex_distance = compartments.distances(maps["ventricle"], maps["cortex"])
    labels = compartments.labels(fractions, maps, brain)
    # What came later than the streams above has generators of its own, so that these stay what they were.
    own = [np.random.default_rng([int(seed), 23 + k]) for k in range(4)]
    if healthy:
        lesions = lesion_model.no_lesions(classes.shape)
    else:
        lesions = _draw_lesions(
            lesion_masks,
            fractions,
            maps,
            (ventricle_distance, cortex_distance),
            brain,
            labels,
            rng,
            own[0],
            physics,
            parameters,
        )
    parameters["lesion_count"] = int(lesions.numbers.max())
    parameters["lesion_volume_ml"] = float(lesions.mask.sum() / 1000)

    tracts = tract_factors(classes, where, own[1], parameters)
    found = tissue_maps(
        maps, lesions, ventricle_distance, cortex_distance, rng, parameters, own=own[2], tracts=tracts, physics=physics
    )
    total = sum(found.psr[key] * fractions[key] for key in (WHITE, GREY))
    dseg = labels.copy()
    dseg[lesions.mask & brain] = LESION
    true_fractions = {key: fractions[key].copy() for key in (WHITE, GREY, CSF)}
    _obscure(fractions, found, brain, outside, sinus, where, left, own[3], parameters)
    return Subject(
        affine=affine,
        psr=np.where(brain, total, 0).astype(np.float32),
        dseg=dseg,
        brain=brain,
        lesions=lesions,
        fractions=fractions,
        compartment_psr=found.psr,
        r2=found.r2,
        pd=found.pd,
        extra=maps["extra class"] if skull else np.zeros_like(dseg),
        water=found.water,
        lesion_r1=found.lesion_r1,
        r1_factor=found.r1_factor,
        true_fractions=true_fractions,
        physics=physics,
        parameters=parameters,
    )


def _draw_lesions(
    masks: Sequence[Path] | None,
    fractions: dict[int, np.ndarray],
    maps: dict[str, np.ndarray],
    distances: tuple[np.ndarray, np.ndarray],
    brain: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    own: np.random.Generator,
    physics: str,
    parameters: dict[str, Any],
) -> lesion_model.LesionMaps:
    """Lesions of cerebral white matter, grown or from masks, and of the rest of the brain, with their properties."""
    white, grey = fractions[WHITE], fractions[GREY]
    cerebral = white * maps["cerebrum"]
    parameters["lesion_source"] = "grown"
    if masks is not None and rng.random() < 0.5:
        lesions = lesion_model.from_masks(list(masks), cerebral, brain, rng)
        parameters["lesion_source"] = "masks"
    elif physics == "shifted":
        lesions = shifted.grow(cerebral, distances[0], rng, shifted.draw_count(rng))
    else:
        lesions = lesion_model.grow(cerebral, *distances, rng, lesion_model.draw_count(rng))
    cortex = np.where(maps["cortex"] > 0.2, grey, 0)
    solid = labels > 1
    places = {
        "cerebellum": (maps["cerebellar white"] > 0.5) & (white > 0.7),
        "brainstem": (maps["brainstem"] > 0.7) & (white > 0.8),
        "leukocortical": (cortex > 0.3) & (cerebral > 0.3),
        "cortical": cortex > 0.8,
    }
    both = np.where(solid, white + cortex, 0)
    domain = {"cerebellum": white, "brainstem": white, "leukocortical": both, "cortical": np.where(solid, cortex, 0)}
    lesions, parameters["lesions_beyond"] = lesion_model.grow_beyond(lesions, places, domain, own)
    if physics == "shifted":
        lesions = shifted.characterise(lesions, own)
    else:
        lesions, parameters["lesion_kinds"] = lesion_kinds.characterise(lesions, cerebral, own)
    # A voxel that is mostly fluid is no lesion, however much of its tissue is.
    fluid = lesions.mask & ~solid & brain
    amount, numbers = np.where(fluid, np.float32(0.5), lesions.amount), np.where(fluid, 0, lesions.numbers)
    return replace(lesions, amount=amount, numbers=numbers.astype(np.uint16))


def _obscure(
    fractions: dict[int, np.ndarray],
    found: TissueMaps,
    brain: np.ndarray,
    outside: np.ndarray | None,
    sinus: np.ndarray,
    where: np.ndarray,
    left: float,
    rng: np.random.Generator,
    parameters: dict[str, Any],
) -> None:
    """Add vessels and, without skull (``outside`` given), what extraction leaves and cuts away; in place."""
    things = [residue.vessels(fractions[CSF], brain, rng, parameters)]
    if outside is not None:
        warped = pull(sinus[None].astype(np.float32), where)[0] if sinus.any() else np.zeros_like(outside)
        things.append(residue.rim(outside, warped, left, rng, parameters))
    for thing in things:
        residue.mix_in(thing, fractions, found.psr, found.r2, found.pd, found.lesion_r1)
    if outside is not None:
        cut = residue.bitten(brain, rng, parameters)
        if cut is not None:
            for values in fractions.values():
                values[cut] = 0
