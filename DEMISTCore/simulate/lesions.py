"""Multiple-sclerosis lesions: grown in white matter, or taken from a folder of real masks, warped and recombined."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..volume import Volume
from .fields import pull, random_affine, smooth_field


@dataclass(frozen=True, eq=False)
class Lesions:
    """Lesion maps on the subject's grid, all (X, Y, Z).

    ``amount``: float32 in [0, 1], 0 outside, 1 in a fully lesioned voxel (soft rim);
    ``severity``: float32, share of the PSR lost at full amount (0.1 mild to 0.9 black hole), 0 away from lesions;
    ``numbers``: uint16, 1 to N where ``amount`` > 0.5.
    """

    amount: np.ndarray
    severity: np.ndarray
    numbers: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """Lesion voxels (bool): at least half of the voxel is lesion."""
        return self.amount > 0.5


def no_lesions(shape: tuple[int, int, int]) -> Lesions:
    """Maps of a brain without lesions."""
    return Lesions(np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.uint16))


def draw_count(rng: np.random.Generator) -> int:
    """Lesions a patient has: log-normal, median 50, 95 % between about 7 and 350, cut at 300.

    Relapsing-remitting patients at 3 T (Lesjak et al., Neuroinformatics 16:51, 2018): 30 patients, 3316 lesions.
    """
    return int(np.clip(rng.lognormal(np.log(50.0), 1.0), 1, 300))


def draw_severity(rng: np.random.Generator) -> float:
    """Share of PSR lost in a lesion's core: mostly 0.25-0.6, a sixth of them black holes (0.6-0.9).

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
) -> Lesions:
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
    amount = np.zeros(white.shape, np.float32)
    severity = np.zeros(white.shape, np.float32)
    numbers = np.zeros(white.shape, np.uint16)
    sites = np.flatnonzero(white > 0.7)
    if sites.size == 0 or count == 0:
        return Lesions(amount, severity, numbers)
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
        axes = radius * np.exp(rng.normal(0, 0.25, 3))
        half = int(np.ceil(axes.max() * 1.6)) + 3
        low = np.maximum(centre - half, 0)
        high = np.minimum(centre + half + 1, white.shape)
        box = tuple(slice(a, b) for a, b in zip(low, high))
        points = np.stack(np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high)], indexing="ij"), -1) - centre
        turn = random_affine(rng, rotation=60, scale=0, shear=0)
        distance = np.linalg.norm(points @ turn / axes, axis=-1).astype(np.float32)
        rough = smooth_field(distance.shape, max(1.5, 0.6 * radius), rng)
        # Signed depth in mm below the roughened surface; the rim is 0.6-2 mm soft.
        depth = radius * (1.0 + 0.22 * rough - distance)
        rim = rng.uniform(0.6, 2.0)
        new = np.clip(depth / rim + 0.5, 0, 1) * np.clip(white[box] * 1.5, 0, 1)
        value = draw_severity(rng)
        stronger = new > amount[box]
        numbers[box][(new > 0.5) & stronger] = number
        severity[box][stronger & (new > 0)] = value
        amount[box][:] = np.maximum(amount[box], new)
    return Lesions(amount, severity, numbers)


def from_masks(
    files: list[Path],
    white: np.ndarray,
    brain: np.ndarray,
    rng: np.random.Generator,
) -> Lesions:
    """Take lesions from one to three real masks, warp them onto this brain and recombine them.

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
    numbers = np.where(amount > 0.5, components, 0)
    _, compact = np.unique(numbers, return_inverse=True)
    return Lesions(amount, severity, compact.reshape(shape).astype(np.uint16))


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
