"""The other person: lesion, white-matter and partial-volume laws that no training set is made with.

A test instrument (``simulate --physics shifted``), not a better model: what a network learned of the laws in lesions.py
and tissue_maps.py helps it only as far as it is more than these. Every law here is of another form than its
counterpart, not the same one with other numbers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .lesions import LesionMaps, no_lesions, plain

#: SDs of the factors on PSR, all tissues together and each; those on R2 likewise; mean factors on white and grey PSR.
PSR_SPREAD = (0.085, 0.06)
R2_SPREAD = (0.05, 0.03)
PSR_SHIFT = (0.96, 1.07)


def box_blur(values: np.ndarray, width: float) -> np.ndarray:
    """Mean over a cube of ``width`` voxels (1 to 3) around each voxel: partial volume of a scanner's own voxels.

    (X, Y, Z), in any unit.
    """
    from scipy.ndimage import convolve1d

    side = (width - 1) / 2
    weights = np.array([side, 1.0, side]) / width
    for axis in range(3):
        values = convolve1d(values, weights, axis=axis, mode="nearest")
    return values


def draw_count(rng: np.random.Generator) -> int:
    """Lesions of a person: negative binomial with mean 45, at least 1."""
    return int(1 + rng.poisson(rng.gamma(1.3, 34.0)))


def grow(white: np.ndarray, ventricle_distance: np.ndarray, rng: np.random.Generator, count: int) -> LesionMaps:
    """Spindles along lines that lead away from the ventricles (Dawson's fingers), with gamma-distributed sizes.

    Args:
        white: white-matter fraction (X, Y, Z), 1 mm.
        ventricle_distance: mm (X, Y, Z).
        rng: source of randomness.
        count: number of lesions.
    """
    found = no_lesions(white.shape)
    sites = np.flatnonzero(white > 0.8)
    if not sites.size:
        return found
    pull = np.cumsum(0.2 + np.exp(-((ventricle_distance.flat[sites] / 9) ** 2)))
    for number in range(1, count + 1):
        centre = np.array(np.unravel_index(sites[np.searchsorted(pull, rng.random() * pull[-1])], white.shape))
        radius = 0.7 + float(min(rng.gamma(1.6, 0.9), 7.0))
        reach = int(np.ceil(2.4 * radius)) + 2
        box = tuple(slice(max(c - reach, 0), min(c + reach + 1, n)) for c, n in zip(centre, white.shape))
        points = np.stack(np.meshgrid(*[np.arange(s.start, s.stop) for s in box], indexing="ij"), -1) - centre
        around = tuple(slice(max(c - 3, 0), min(c + 4, n)) for c, n in zip(centre, white.shape))
        line = np.array([g.mean() for g in np.gradient(ventricle_distance[around])]) + rng.normal(0, 0.3, 3)
        line /= max(float(np.linalg.norm(line)), 1e-6)
        along = points @ line
        beside = np.sqrt(np.maximum((points**2).sum(-1) - along**2, 0))
        stretch = float(rng.uniform(1.0, 2.2))
        distance = np.hypot(along / stretch, beside)
        # A smooth bell instead of a ball with a soft rim: half at the radius.
        new = 1 / (1 + (distance / radius) ** float(rng.uniform(4, 10))) * np.clip(2 * white[box] - 0.5, 0, 1)
        new = np.where(new > 0.03, new, 0).astype(np.float32)
        stronger = new > found.amount[box]
        found.owner[box][stronger] = number
        found.numbers[box][stronger & (new > 0.5)] = number
        found.severity[box][stronger] = 0.4
        found.amount[box][:] = np.maximum(found.amount[box], new)
    return plain(found.amount, found.severity, found.numbers, found.owner)


def characterise(lesions: LesionMaps, rng: np.random.Generator) -> LesionMaps:
    """Concentric lesions: every property has one value in the core and another at the rim.

    Demyelination goes with a longer T2 at the rim and with more water in the core; the water's R1 is free of both.
    """
    from scipy.ndimage import distance_transform_edt

    count = int(lesions.owner.max())
    core = np.zeros((4, count + 1), np.float32)
    rim = np.zeros_like(core)
    severity = rng.uniform(0.1, 0.85, count)
    for table, depth in ((core, severity), (rim, severity * rng.uniform(0.25, 1.1, count))):
        table[0, 1:] = np.clip(depth, 0.05, 0.9)
        table[1, 1:] = rng.normal(0.10, 0.16, count)
        table[2, 1:] = 0.3 + rng.gamma(2.5, 0.35, count)
        table[3, 1:] = np.clip(rng.normal(0.25, 0.15, count), 0, 1)
    core[3] += 0.2
    core[1] -= 0.05
    where = np.flatnonzero(lesions.owner)
    owner = lesions.owner.flat[where]
    depth = distance_transform_edt(lesions.mask).flat[where] if lesions.mask.any() else np.zeros(where.size)
    inward = np.clip((depth - 0.5) / 2.5, 0, 1).astype(np.float32)
    maps = [np.zeros(lesions.amount.shape, np.float32) for _ in range(4)]
    for target, inner, outer in zip(maps, core, rim):
        target.flat[where] = inner[owner] * inward + outer[owner] * (1 - inward)
    return replace(lesions, severity=maps[0], r1=maps[1], t2=maps[2], water=np.clip(maps[3], 0, 1))


def nawm_loss(
    distance: np.ndarray, ventricle_distance: np.ndarray, rng: np.random.Generator, parameters: dict
) -> np.ndarray:
    """Share of PSR that normal-appearing white matter lost: everywhere alike, less far from ventricles, and a plateau.

    (X, Y, Z); distances in mm.

    Diffuse disease instead of a decay around each lesion: the loss ends in a straight line some mm from the lesion.
    """
    everywhere, ventricular = float(rng.uniform(0, 0.05)), float(rng.uniform(0, 0.06))
    plateau, reach = float(rng.uniform(0, 0.10)), float(rng.uniform(2, 10))
    parameters["nawm_loss"] = {"everywhere": everywhere, "ventricular": ventricular, "plateau": plateau, "mm": reach}
    around = plateau * np.clip((reach - distance) / 2 + 1, 0, 1)
    return (everywhere + ventricular * np.clip(1 - ventricle_distance / 20, 0, 1) + around).astype(np.float32)
