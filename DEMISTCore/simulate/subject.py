"""One simulated person: anatomy, lesions and the tissue maps that every scan of that person is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..volume import Grid, Volume
from . import lesions as lesion_model
from .anatomy import TEMPLATE, Anatomy, list_anatomies, load_anatomy
from .fields import pull, smooth_field
from .shape import coordinates, moved_surfaces
from .tissues import CLASS_INDEX, CLASSES, CSF, DSEG_LESION, EXTRA, GREY, WHITE

MARGIN = 12  # mm of background kept around the head or brain


@dataclass(frozen=True, eq=False)
class Subject:
    """Ground truth of a simulated person on a 1 mm RAS grid; arrays are (X, Y, Z) float32 unless said otherwise.

    ``psr``: pool size ratio (fraction), 0 outside the brain. ``fractions``: partial volumes of the compartments
    white, grey, CSF and extra-cerebral. ``psr_white`` / ``psr_grey``: PSR inside the compartment (before partial
    volume). ``r2`` and ``pd`` likewise, keyed by compartment. ``water``: free water in place of lost tissue;
    ``r1_factor``: what R1 differs by from the two-pool value. ``dseg``: uint8 labels (see tissues.DSEG_NAMES).
    """

    affine: np.ndarray
    psr: np.ndarray
    dseg: np.ndarray
    brain: np.ndarray
    lesions: lesion_model.Lesions
    fractions: dict[int, np.ndarray]
    compartment_psr: dict[int, np.ndarray]
    r2: dict[int, np.ndarray]
    pd: dict[int, np.ndarray]
    extra: np.ndarray
    water: np.ndarray
    r1_factor: np.ndarray
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

    Raises:
        InputError: anatomies or lesion masks cannot be read.
    """
    rng = np.random.default_rng([int(seed), 20])
    if anatomy is None:
        names = list_anatomies(anatomies)
        anatomy = load_anatomy(names[int(rng.integers(len(names)))])
    classes, affine = _crop(anatomy, skull)
    if rng.random() < 0.5:
        classes = classes[::-1]
    classes = np.ascontiguousarray(classes)
    parameters: dict[str, Any] = {"seed": int(seed), "anatomy": anatomy.name, "skull": bool(skull)}

    channels, layout = _channels(classes, rng, parameters)
    where = coordinates(classes, rng, parameters)
    if surface_sd:
        # Its own generator: with and without, the same seed is the same person otherwise.
        where = moved_surfaces(where, classes, surface_sd, np.random.default_rng([int(seed), 22]), parameters)
    warped = pull(channels, where)
    maps = {name: warped[index] for name, index in layout.items()}

    fractions = _fractions(maps, rng)
    tissue = fractions[WHITE] + fractions[GREY]
    brain = _brain_mask(tissue, maps["ventricle"])
    left = rng.uniform(0.0, 5.0)  # drawn with a skull, too: the same seed is the same person
    if not skull:
        # Extraction tools disagree about how much of the fluid around the brain they leave.
        kept = _grown(brain, left)
        parameters["fluid_left_mm"] = round(left, 2)
        for key in fractions:
            fractions[key] = fractions[key] * kept
    ventricle_distance, cortex_distance = _distances(maps["ventricle"], maps["cortex"])

    if healthy:
        lesions = lesion_model.no_lesions(classes.shape)
    elif lesion_masks is not None and rng.random() < 0.5:
        lesions = lesion_model.from_masks(list(lesion_masks), fractions[WHITE] * maps["cerebrum"], brain, rng)
        parameters["lesion_source"] = "masks"
    else:
        lesions = lesion_model.grow(
            fractions[WHITE] * maps["cerebrum"], ventricle_distance, cortex_distance, rng, lesion_model.draw_count(rng)
        )
        parameters["lesion_source"] = "grown"
    parameters["lesion_count"] = int(lesions.numbers.max())
    parameters["lesion_volume_ml"] = float(lesions.mask.sum() / 1000)

    psr, r2, pd, water, r1_factor = _tissue_maps(maps, lesions, ventricle_distance, cortex_distance, rng, parameters)
    total = sum(psr[key] * fractions[key] for key in (WHITE, GREY))
    dseg = _dseg(fractions, maps, lesions, brain)
    return Subject(
        affine=affine,
        psr=np.where(brain, total, 0).astype(np.float32),
        dseg=dseg,
        brain=brain,
        lesions=lesions,
        fractions=fractions,
        compartment_psr=psr,
        r2=r2,
        pd=pd,
        extra=maps["extra class"] if skull else np.zeros_like(dseg),
        water=water,
        r1_factor=r1_factor,
        parameters=parameters,
    )


def _crop(anatomy: Anatomy, skull: bool) -> tuple[np.ndarray, np.ndarray]:
    """Crop to head or brain with a margin; without skull, drop extra-cerebral classes."""
    classes = anatomy.classes
    compartments = np.array([tissue.compartment for tissue in CLASSES])
    inside = compartments[classes] != EXTRA
    cerebral = inside & (classes > 0) & (classes != CLASS_INDEX["outer CSF"])
    where = np.argwhere(classes > 0) if skull else np.argwhere(cerebral)
    low = np.maximum(where.min(0) - MARGIN, 0)
    high = np.minimum(where.max(0) + 1 + MARGIN, classes.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high))
    cropped = classes[box].copy()
    if not skull:
        cropped[~inside[box]] = 0
    affine = anatomy.affine.copy()
    affine[:3, 3] = (anatomy.affine @ np.append(low, 1.0))[:3]
    return cropped, affine


def _channels(classes: np.ndarray, rng: np.random.Generator, parameters: dict) -> tuple[np.ndarray, dict[str, int]]:
    """Everything that has to be warped, one channel each; tissue means are drawn here, per subject."""
    # Between-subject spread: SD 1.2/11.4 in white and 0.7/7.5 in grey matter (Dortch 2011), the larger part of it
    # shared by all tissues (myelination and B1/calibration scale together).
    shared = rng.normal(1.0, 0.055)
    drawn = {t.name: float(t.psr * shared * rng.normal(1.0, 0.045)) for t in CLASSES if t.compartment in (WHITE, GREY)}
    # R2 differs between people mostly as a whole; were classes independent, cortices would differ visibly in FLAIR.
    r2_shared = rng.normal(1.0, 0.04)
    rate = {t.name: float(t.r2 * r2_shared * rng.normal(1.0, 0.015)) for t in CLASSES if t.compartment in (WHITE, GREY)}
    density = {t.name: float(t.pd * rng.normal(1.0, 0.02)) for t in CLASSES if t.compartment in (WHITE, GREY)}
    parameters["psr_means"] = {name: round(value, 5) for name, value in drawn.items()}

    def table(values: dict[str, float], compartment: int) -> np.ndarray:
        return np.array([values.get(t.name, 0.0) if t.compartment == compartment else 0.0 for t in CLASSES], np.float32)

    def share(*names: str) -> np.ndarray:
        return np.array([t.name in names for t in CLASSES], np.float32)

    compartment = np.array([t.compartment for t in CLASSES])
    tables = {
        "white": (compartment == WHITE).astype(np.float32),
        "grey": (compartment == GREY).astype(np.float32),
        "csf": (compartment == CSF).astype(np.float32),
        "ventricle": share("ventricle", "choroid plexus"),
        "choroid": share("choroid plexus"),
        "cortex": share("cortex"),
        "cerebrum": share("white matter"),
        "psr white": table(drawn, WHITE),
        "psr grey": table(drawn, GREY),
        "r2 white": table(rate, WHITE),
        "r2 grey": table(rate, GREY),
        "pd white": table(density, WHITE),
        "pd grey": table(density, GREY),
        "deep grey": np.array([t.dseg == 4 for t in CLASSES], np.float32),
        "cerebellar grey": share("cerebellar cortex"),
        "brainstem": np.array([t.dseg == 7 for t in CLASSES], np.float32),
    }
    present = [i for i in np.unique(classes) if CLASSES[i].compartment == EXTRA]
    for index in present:
        tables[f"extra {index}"] = (np.arange(len(CLASSES)) == index).astype(np.float32)
    layout = {name: position for position, name in enumerate(tables)}
    return np.stack([values[classes] for values in tables.values()]), layout


def _fractions(maps: dict[str, np.ndarray], rng: np.random.Generator) -> dict[int, np.ndarray]:
    """Partial volumes: the warped one-hot maps, blurred a little, because real borders do not follow voxel faces."""
    from scipy.ndimage import gaussian_filter

    sigma = rng.uniform(0.35, 0.6)
    extras = [name for name in maps if name.startswith("extra ")]
    result = {
        key: gaussian_filter(maps[name], sigma, truncate=3)
        for key, name in ((WHITE, "white"), (GREY, "grey"), (CSF, "csf"))
    }
    if extras:
        stack = np.stack([maps[name] for name in extras])
        winner = np.array([int(name.split()[1]) for name in extras], np.uint8)[stack.argmax(0)]
        total = stack.sum(0)
        maps["extra class"] = np.where(total > 0.05, winner, 0).astype(np.uint8)
        result[EXTRA] = gaussian_filter(total, sigma, truncate=3)
        for name in extras:
            del maps[name]
    else:
        maps["extra class"] = np.zeros(maps["white"].shape, np.uint8)
        result[EXTRA] = np.zeros(maps["white"].shape, np.float32)
    return result


def _brain_mask(tissue: np.ndarray, ventricle: np.ndarray) -> np.ndarray:
    """Brain as extraction tools cut it: tissue, ventricles and the sulcal CSF between them (bool)."""
    from scipy.ndimage import binary_closing, binary_fill_holes, label

    solid = (tissue + ventricle) > 0.4
    components, count = label(solid)
    if count > 1:
        solid = components == (np.bincount(components.ravel())[1:].argmax() + 1)
    padded = np.pad(solid, 6)
    closed = binary_closing(padded, iterations=4)[6:-6, 6:-6, 6:-6]
    return binary_fill_holes(closed | solid)


def _grown(mask: np.ndarray, mm: float) -> np.ndarray:
    """``mask`` and all within ``mm`` of it (1 mm voxels)."""
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(~mask) <= mm


def _distances(ventricle: np.ndarray, cortex: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances in mm to ventricles and cortex, from a 2 mm grid (they only weigh probabilities and gradients)."""
    from scipy.ndimage import distance_transform_edt

    def distance(mask: np.ndarray) -> np.ndarray:
        coarse = distance_transform_edt(~mask[::2, ::2, ::2], sampling=2.0).astype(np.float32)
        import torch

        tensor = torch.from_numpy(coarse)[None, None]
        size = mask.shape
        return torch.nn.functional.interpolate(tensor, size=size, mode="trilinear", align_corners=True)[0, 0].numpy()

    return distance(ventricle > 0.5), distance(cortex > 0.5)


def _tissue_maps(
    maps: dict[str, np.ndarray],
    lesions: lesion_model.Lesions,
    ventricle_distance: np.ndarray,
    cortex_distance: np.ndarray,
    rng: np.random.Generator,
    parameters: dict,
) -> tuple[dict, dict, dict, np.ndarray, np.ndarray]:
    """PSR, R2 and PD inside white and grey matter; how far free water replaces tissue in lesions; a factor on R1."""
    from scipy.ndimage import distance_transform_edt

    shape = maps["white"].shape

    def inside(kind: str, compartment: str, fallback: float) -> np.ndarray:
        total = maps[compartment]
        return np.where(total > 0.02, maps[f"{kind} {compartment}"] / np.maximum(total, 0.02), fallback)

    # Smooth regional variation and tract-scale texture, 4-5 % and 3 % (coefficients of variation between white-matter
    # regions of about 8 % in Dortch 2013); deep white matter is denser in myelin than the U-fibre layer.
    regional = 1 + rng.uniform(0.03, 0.06) * smooth_field(shape, 22.0, rng) + 0.03 * smooth_field(shape, 6.0, rng)
    depth = np.clip(cortex_distance / 8.0, 0, 1)
    white = inside("psr", "white", 0.12) * regional * (0.96 + rng.uniform(0.02, 0.1) * depth)
    grey = inside("psr", "grey", 0.06) * (
        1 + 0.06 * smooth_field(shape, 18.0, rng) + 0.03 * smooth_field(shape, 5.0, rng)
    )

    # Normal-appearing white matter loses myelin near lesions, a loss that decays with distance (Vrenken et al.,
    # AJNR 27:2005, 2006; PSR of normal-appearing white matter in Bagnato et al., Mult Scler J 26:457, 2020).
    loss = np.zeros(shape, np.float32)
    if lesions.mask.any():
        reach = rng.uniform(2.5, 8.0)
        depth_of_loss = rng.uniform(0.0, 0.12)
        # At full resolution: many lesions are smaller than the 2 mm grid that other distances make do with.
        distance = distance_transform_edt(~lesions.mask).astype(np.float32)
        loss = depth_of_loss * np.exp(-distance / reach)
        parameters["nawm_loss"] = {"at_lesion": round(depth_of_loss, 4), "decay_mm": round(reach, 3)}
    damage = lesions.amount * lesions.severity
    # Core worse than rim: within a lesion the loss still grows inwards.
    white = white * (1 - loss * (1 - lesions.amount)) * (1 - damage)
    grey = grey * (1 - 0.7 * damage)

    r2_white, r2_grey = inside("r2", "white", 13.3), inside("r2", "grey", 10.2)
    pd_white, pd_grey = inside("pd", "white", 0.7), inside("pd", "grey", 0.82)
    # Lesion T2: 100-250 ms, longer with more damage but also for reasons of its own (oedema, inflammation), so that
    # FLAIR brightness is not a ruler for PSR (Stevenson et al., J Neurol Sci 178:81, 2000).
    extra_t2 = rng.uniform(0.03, 0.11) * lesions.amount * (0.55 + 0.9 * lesions.severity)
    own = np.exp(0.25 * smooth_field(shape, 4.0, rng)) if lesions.mask.any() else 1.0
    # Periventricular caps and dirty-appearing white matter: T2 longer with hardly any loss of PSR.
    caps = rng.uniform(0, 0.022) * np.exp(-np.maximum(ventricle_distance - 0.5, 0) / rng.uniform(1.0, 3.0))
    dirty = np.maximum(rng.uniform(0, 0.010) * (smooth_field(shape, 10.0, rng) - 0.8), 0)
    r2_white = 1 / (1 / r2_white + extra_t2 * own + caps + dirty)
    r2_grey = 1 / (1 / r2_grey + 0.7 * extra_t2 * own)
    # T2 varies smoothly within normal tissue, and R1 is not a ruler for PSR either: iron, water content and fibre
    # orientation move both by a few per cent (Callaghan 2015, residuals of the linear model).
    texture = 1 + rng.uniform(0.02, 0.05) * smooth_field(shape, 12.0, rng) + 0.02 * smooth_field(shape, 3.0, rng)
    r2_white, r2_grey = r2_white * texture, r2_grey * texture
    r1_factor = 1 + rng.uniform(0.01, 0.03) * smooth_field(shape, 14.0, rng)
    white = white * (1 - 1.5 * caps)
    water = damage
    pd_white = pd_white + (1 - pd_white) * 0.75 * damage
    psr = {WHITE: white.astype(np.float32), GREY: grey.astype(np.float32)}
    r2 = {WHITE: r2_white.astype(np.float32), GREY: r2_grey.astype(np.float32)}
    pd = {WHITE: pd_white.astype(np.float32), GREY: pd_grey.astype(np.float32)}
    return psr, r2, pd, water.astype(np.float32), r1_factor.astype(np.float32)


def _dseg(fractions: dict, maps: dict, lesions: lesion_model.Lesions, brain: np.ndarray) -> np.ndarray:
    """Hard labels: the largest compartment, split by where it is; lesions on top; 0 outside the brain mask."""
    parts = np.stack([fractions[CSF], fractions[GREY], fractions[WHITE]])
    dseg = np.array([1, 2, 3], np.uint8)[parts.argmax(0)]
    dseg[(dseg == 2) & (maps["deep grey"] > 0.3)] = 4
    dseg[(dseg == 2) & (maps["cerebellar grey"] > 0.3)] = 6
    dseg[(dseg == 2) & (maps["choroid"] > 0.3)] = 1
    dseg[(dseg == 3) & (maps["brainstem"] > 0.5)] = 7
    dseg[lesions.mask & np.isin(dseg, (2, 3, 4, 7))] = DSEG_LESION
    return np.where(brain, dseg, 0).astype(np.uint8)
