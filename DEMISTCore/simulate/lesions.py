"""Multiple-sclerosis lesions: grown in white matter, or taken from a folder of real masks, warped and recombined."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..volume import Volume
from .fields import pull, random_affine, smooth_field


@dataclass(frozen=True, eq=False)
class LesionMaps:
    """Lesion maps on the subject's grid, all (X, Y, Z).

    ``amount``: float32 in [0, 1], 0 outside, 1 in a fully lesioned voxel (soft rim);
    ``severity``: float32, share of the PSR lost at full amount (0.1 mild to 0.9 black hole), 0 away from lesions;
    ``numbers``: uint16, 1 to N where ``amount`` > 0.5; ``owner``: uint16, the same lesion wherever ``amount`` > 0.
    What lesion_kinds fills in, at full amount: ``r1``, added to the rate of free water (1/s); ``t2``, lengthening in
    units of the person's typical one; ``water``, share of the way that proton density goes to water's.
    """

    amount: np.ndarray
    severity: np.ndarray
    numbers: np.ndarray
    owner: np.ndarray
    r1: np.ndarray
    t2: np.ndarray
    water: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """Lesion voxels (bool): at least half of the voxel is lesion."""
        return self.amount > 0.5


def no_lesions(shape: tuple[int, int, int]) -> LesionMaps:
    """Maps of a brain without lesions."""
    return plain(*(np.zeros(shape, kind) for kind in (np.float32, np.float32, np.uint16, np.uint16)))


def plain(amount: np.ndarray, severity: np.ndarray, numbers: np.ndarray, owner: np.ndarray) -> LesionMaps:
    """Lesions that follow their severity in everything: the water's R1 unchanged, T2 and water content with the PSR.

    All are (X, Y, Z): ``amount`` and ``severity`` fractions, ``numbers`` and ``owner`` integers.
    """
    return LesionMaps(
        amount, severity, numbers, owner, r1=np.zeros_like(amount), t2=0.55 + 0.9 * severity, water=0.75 * severity
    )


def draw_count(rng: np.random.Generator) -> int:
    """Lesions a patient has: log-normal, median 50, 95 % between about 7 and 350, cut at 300.

    Relapsing-remitting patients at 3 T (Lesjak et al., Neuroinformatics 16:51, 2018): 30 patients, 3316 lesions.
    """
    return int(np.clip(rng.lognormal(np.log(50.0), 1.0), 1, 300))


def draw_severity(rng: np.random.Generator) -> float:
    """Share of PSR lost in a lesion's core: mostly 0.25-0.6, a sixth of them black holes (0.6-0.9).

    :mod:`.lesion_kinds`, where it is used, draws the severities anew. The draw stays all the same: without it every
    later one, and with them every simulated person, would be another.

    Lesion PSR well below normal-appearing white matter, lowest in T1 black holes: Dortch 2011; Levesque et al.,
    J Magn Reson Imaging 21:103 (2005); Bagnato et al., Mult Scler J 26:457 (2020); reviewed in York et al., Brain
    Commun 4:fcac088 (2022).
    """
    if rng.random() < 0.17:
        return float(rng.uniform(0.6, 0.9))
    return float(0.15 + 0.5 * rng.beta(2.2, 1.8))


def grow(
    white: np.ndarray,
    ventricle_distance: np.ndarray,
    cortex_distance: np.ndarray,
    rng: np.random.Generator,
    count: int,
) -> LesionMaps:
    """Grow ``count`` lesions in white matter.

    Sites follow the white matter with a periventricular (38 %) and a juxtacortical (27 %) preference, the McDonald
    regions (Filippi et al., Brain 142:1858, 2019; probability maps in Filli et al., Mult Scler J 18:1577, 2012).
    Radii are log-normal (median 1.7 mm, a third of the lesions below 10 mm^3); a lesion is an ellipsoid whose surface
    is roughened by noise. One in three grows at an older one, so that large loads become confluent.

    Args:
        white: white-matter fraction (X, Y, Z), 1 mm voxels.
        ventricle_distance, cortex_distance: distances in mm (X, Y, Z).
        rng: source of all randomness.
        count: number of lesions to place.
    """
    lesions = no_lesions(white.shape)
    sites = np.flatnonzero(white > 0.7)
    if sites.size == 0 or count == 0:
        return lesions
    near_ventricle = np.exp(-np.maximum(ventricle_distance.flat[sites] - 1.0, 0) / 3.0)
    near_cortex = np.exp(-np.maximum(cortex_distance.flat[sites] - 1.0, 0) / 1.5)
    weights = [
        near_ventricle / near_ventricle.sum(),
        near_cortex / near_cortex.sum(),
        np.full(sites.size, 1 / sites.size),
    ]
    cumulative = np.cumsum(0.38 * weights[0] + 0.27 * weights[1] + 0.35 * weights[2])
    placed: list[tuple[np.ndarray, float]] = []
    for number in range(1, count + 1):
        centre = np.array(
            np.unravel_index(sites[np.searchsorted(cumulative, rng.random() * cumulative[-1])], white.shape)
        )
        radius = float(np.clip(rng.lognormal(np.log(1.7), 0.6), 0.8, 13.0))
        if placed and rng.random() < 1 / 3:
            old, reach = placed[int(rng.integers(len(placed)))]
            beside = np.rint(old + rng.normal(0, 0.6 * (reach + radius) + 0.5, 3)).astype(int)
            beside = np.clip(beside, 0, np.array(white.shape) - 1)
            if white[tuple(beside)] > 0.7:
                centre = beside
        placed.append((centre, radius))
        _add(lesions, white, centre, radius, number, rng)
    return plain(lesions.amount, lesions.severity, lesions.numbers, lesions.owner)


def _add(
    lesions: LesionMaps,
    tissue: np.ndarray,
    centre: np.ndarray,
    radius: float,
    number: int,
    rng: np.random.Generator,
    stretch: float = 0.25,
) -> None:
    """Draw an ellipsoid with a rough surface at ``centre`` into ``lesions``, in place, confined to ``tissue``."""
    axes = radius * np.exp(rng.normal(0, stretch, 3))
    half = int(np.ceil(axes.max() * 1.6)) + 3
    low = np.maximum(centre - half, 0)
    high = np.minimum(centre + half + 1, tissue.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high))
    points = np.stack(np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high)], indexing="ij"), -1) - centre
    turn = random_affine(rng, rotation=60, scale=0, shear=0)
    distance = np.linalg.norm(points @ turn / axes, axis=-1).astype(np.float32)
    rough = smooth_field(distance.shape, max(1.5, 0.6 * radius), rng)
    # Signed depth in mm below the roughened surface; the rim is 0.6-2 mm soft.
    depth = radius * (1.0 + 0.22 * rough - distance)
    rim = rng.uniform(0.6, 2.0)
    new = np.clip(depth / rim + 0.5, 0, 1) * np.clip(tissue[box] * 1.5, 0, 1)
    value = draw_severity(rng)
    stronger = new > lesions.amount[box]
    lesions.numbers[box][(new > 0.5) & stronger] = number
    lesions.severity[box][stronger] = value
    lesions.owner[box][stronger] = number
    lesions.amount[box][:] = np.maximum(lesions.amount[box], new)


#: Lesions outside cerebral white matter: mean number (gamma-distributed over people, shape 0.8) and median radius, mm.
#: A tenth of a patient's lesions is infratentorial; cortical ones are mostly leukocortical and few are seen on clinical
#: scans (Filippi et al., Brain 142:1858, 2019; Calabrese et al., Nat Rev Neurol 6:438, 2010).
BEYOND: dict[str, tuple[float, float]] = {
    "cerebellum": (1.6, 1.6),
    "brainstem": (1.4, 1.6),
    "leukocortical": (2.5, 1.4),
    "cortical": (1.2, 1.1),
}


def grow_beyond(
    lesions: LesionMaps, places: dict[str, np.ndarray], domain: dict[str, np.ndarray], rng: np.random.Generator
) -> tuple[LesionMaps, dict[str, int]]:
    """Add lesions of cerebellum, brainstem and cortex to those of cerebral white matter.

    Args:
        lesions: what is there; not changed.
        places: where centres may lie (bool, X, Y, Z), by a name of :data:`BEYOND`.
        domain: tissue that the lesions of this place are confined to (fractions, X, Y, Z).
        rng: source of randomness.

    Returns:
        All lesions, and how many were added at each place.
    """
    grown = LesionMaps(**{name: values.copy() for name, values in vars(lesions).items()})
    number = int(max(lesions.owner.max(), lesions.numbers.max()))
    added = {}
    for name, (mean, median) in BEYOND.items():
        count = int(rng.poisson(rng.gamma(0.8, mean / 0.8)))
        sites = np.flatnonzero(places[name]) if name in places else np.zeros(0, int)
        added[name] = min(count, 12) if sites.size else 0
        for _ in range(added[name]):
            number += 1
            site = np.array(np.unravel_index(sites[int(rng.integers(sites.size))], grown.amount.shape))
            radius = float(np.clip(rng.lognormal(np.log(median), 0.45), 0.8, 5.0))
            _add(grown, domain[name], site, radius, number, rng)
    return plain(grown.amount, grown.severity, grown.numbers, grown.owner), added


def from_masks(
    files: list[Path],
    white: np.ndarray,
    brain: np.ndarray,
    rng: np.random.Generator,
) -> LesionMaps:
    """Take lesions from one to three real masks, warp them onto this brain and recombine them.

    ``white`` (fraction) and ``brain`` (bool) are (X, Y, Z), with voxels of 1 mm.

    Each mask's grid is scaled to the brain's bounding box (with a random affine and a random left-right flip), its
    connected lesions are kept or dropped at random and get severities of their own; lesions are then confined to
    white matter and its border.

    Raises:
        InputError: no mask files, or one that cannot be read.
    """
    from scipy.ndimage import gaussian_filter, label

    if not files:
        raise InputError("The lesion-mask folder holds no .nii or .nii.gz file; give a folder of lesion masks.")
    shape = white.shape
    soft = np.zeros(shape, np.float32)
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        volume = Volume.read(files[int(rng.integers(len(files)))]).reoriented("RAS")
        mask = np.clip(np.nan_to_num(volume.array), 0, 1)
        if rng.random() < 0.5:
            mask = mask[::-1]
        soft = np.maximum(soft, _fit(mask, volume.shape, brain, rng))
    soft = gaussian_filter(soft, rng.uniform(0.4, 0.8)) * np.clip(white * 1.6, 0, 1)
    soft = np.clip(soft * 1.2, 0, 1)
    components, count = label(soft > 0.15)
    keep = rng.random(count + 1) < rng.uniform(0.5, 1.0)
    severities = np.array([0.0] + [draw_severity(rng) for _ in range(count)], np.float32)
    keep[0] = False
    amount = np.where(keep[components], soft, 0).astype(np.float32)
    severity = np.where(keep[components], severities[components], 0).astype(np.float32)
    # Numbered without gaps, those that reach half of a voxel first.
    seen = np.bincount(components[amount > 0.5], minlength=count + 1) > 0
    faint = keep & ~seen
    compact = np.zeros(count + 1, np.uint16)
    compact[seen] = 1 + np.arange(seen.sum())
    compact[faint] = 1 + seen.sum() + np.arange(faint.sum())
    owner = np.where(amount > 0, compact[components], 0).astype(np.uint16)
    return plain(amount, severity, np.where(amount > 0.5, owner, 0).astype(np.uint16), owner)


# Bounding box of the ICBM-152 brain as a share of the 182 x 218 x 182 MNI grid: the box that masks are scaled from.
_MNI_BRAIN = np.array([[0.10, 0.90], [0.09, 0.91], [0.03, 0.86]])


def _fit(mask: np.ndarray, size: tuple[int, int, int], brain: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sample ``mask`` so that the MNI brain box lands on the bounding box of ``brain``, with a random affine."""
    where = np.argwhere(brain[::2, ::2, ::2]) * 2
    low, high = where.min(0), where.max(0)
    centre, extent = (low + high) / 2, high - low
    extent_mask = (_MNI_BRAIN[:, 1] - _MNI_BRAIN[:, 0]) * np.array(size)
    centre_mask = _MNI_BRAIN.mean(1) * np.array(size)
    matrix = np.diag(extent_mask / extent) @ random_affine(rng, rotation=4, scale=0.05, shear=0.03)
    index = np.stack(np.meshgrid(*[np.arange(n, dtype=np.float32) for n in brain.shape], indexing="ij"))
    offset = index - centre.reshape(3, 1, 1, 1)
    coordinates = np.tensordot(matrix.astype(np.float32), offset, 1) + centre_mask.reshape(3, 1, 1, 1)
    wobble = np.stack([1.5 * smooth_field(brain.shape, 14.0, rng) for _ in range(3)])
    return pull(mask[None], (coordinates + wobble).astype(np.float32))[0]
