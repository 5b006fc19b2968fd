"""Lesions painted into a crop's white matter: other shapes, sizes and rims in every crop (as LesionMix does, Basaran et
al., MICCAI 2023), with the contrasts that the simulator's lesions have.

A data set has the lesions that it has, and a network that sees each a hundred times learns what *they* look like. At
the brain's rim specks are painted in: vessels with fresh blood, fat and dura that a mask has kept are brighter on real
T1w than on simulated ones, and hold no myelin.
"""

from __future__ import annotations

import numpy as np

from ..labels import LESION, WHITE, labels_of
from .groups import PaintSettings

_WHITE = labels_of(WHITE)
#: Logarithms of T1w, FLAIR and PSR in the core of a lesion over those of white matter around it: mean and covariance.
#: T1w and FLAIR, in normalized units, as in the cores of real lesions (open_ms_data: the darker on T1w, the brighter on
#: FLAIR), wider; what PSR goes with them as in the cores of 238 simulated lesions above 60 mm^3.
CONTRAST_MEAN = (-0.30, 0.42, -0.60)
CONTRAST_COVARIANCE = ((0.0484, -0.0165, 0.0396), (-0.0165, 0.0225, -0.0135), (0.0396, -0.0135, 0.09))
_HIGHEST = (0.15, 0.9, 0.0)  # of the logarithms


def paint(
    x: np.ndarray, y: np.ndarray, labels: np.ndarray, settings: PaintSettings, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x (2, X, Y, Z), y and labels (X, Y, Z) with up to ``most`` more lesions, in a share ``probability`` of the crops,
    and with specks at the brain's rim in a share ``specks``.

    ``y`` may be in any unit. Nothing is changed in place.
    """
    rng = np.random.default_rng(int(rng.integers(2**62)))
    x, y, labels = x.astype(np.float32), y.astype(np.float32), labels.copy()
    if rng.random() < settings.specks:
        _specks(x, y, labels, rng)
    white = np.isin(labels, _WHITE)
    indices = np.flatnonzero(white)
    if rng.random() < settings.probability and indices.size:
        _lesions(x, y, labels, white, rng.choice(indices, int(rng.integers(1, settings.most + 1))), settings, rng)
    return x, y, labels


def _lesions(
    x: np.ndarray,
    y: np.ndarray,
    labels: np.ndarray,
    white: np.ndarray,
    indices: np.ndarray,
    settings: PaintSettings,
    rng: np.random.Generator,
) -> None:
    """Change all three in place, with a lesion at each of ``indices``."""
    from scipy.ndimage import gaussian_filter

    # Lesions end where white matter does, as softly as voxels of two tissues go over into each other.
    share = gaussian_filter((white | (labels == LESION)).astype(np.float32), 0.6)
    for index in indices:
        radius = float(np.clip(np.exp(rng.normal(1.0, 0.5)), 1.2, 10))  # voxels
        part, amount = _blob(np.unravel_index(int(index), y.shape), y.shape, radius, rng)
        amount = amount * share[part]
        change = np.minimum(rng.multivariate_normal(CONTRAST_MEAN, CONTRAST_COVARIANCE), _HIGHEST)
        if rng.random() < settings.faint:
            change = change * rng.uniform(0.1, 0.5)
        for image, by in zip((x[0], x[1], y), np.exp(change)):
            image[part] *= 1 + (np.float32(by) - 1) * amount
        inside = labels[part]
        inside[(amount > 0.5) & (inside > 0)] = LESION


def _specks(x: np.ndarray, y: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> None:
    """Change x and y in place: bright on T1w, anything on FLAIR, no PSR, within three voxels of the brain's edge."""
    from scipy.ndimage import binary_erosion

    brain = labels > 0
    rim = np.flatnonzero(brain & ~binary_erosion(brain, iterations=3, border_value=1))
    if not rim.size:
        return
    for index in rng.choice(rim, int(rng.integers(1, 13))):
        part, amount = _blob(np.unravel_index(int(index), y.shape), y.shape, float(rng.uniform(0.7, 2.5)), rng)
        amount = amount * brain[part]
        for image, to in zip((x[0], x[1], y), (rng.uniform(0.65, 1.2), rng.uniform(0.05, 0.8), 0.0)):
            image[part] += (np.float32(to) - image[part]) * amount


def _blob(
    centre: tuple[np.integer, ...], shape: tuple[int, ...], radius: float, rng: np.random.Generator
) -> tuple[tuple, np.ndarray]:
    """A lumpy ellipsoid about ``centre``: its box, and how much of each voxel there it takes, 0 to 1."""
    from scipy.ndimage import gaussian_filter
    from scipy.spatial.transform import Rotation

    rim = float(np.exp(rng.uniform(np.log(0.25), np.log(1.5))))
    axes = radius * np.exp(rng.normal(0, 0.25, 3))
    reach = int(np.ceil(axes.max() * 1.3 + 4 * rim)) + 1
    part = tuple(slice(max(c - reach, 0), min(c + reach + 1, n)) for c, n in zip(centre, shape))
    at = np.stack(np.meshgrid(*[np.arange(s.start, s.stop) - c for s, c in zip(part, centre)], indexing="ij"))
    turned = np.tensordot(Rotation.random(random_state=int(rng.integers(2**31))).as_matrix(), at, 1)
    distance = np.sqrt(np.square(turned / axes[:, None, None, None]).sum(0))
    lumps = gaussian_filter(rng.standard_normal(distance.shape), max(radius / 2.5, 0.8))
    distance = distance + 0.25 * lumps / max(float(lumps.std()), 1e-6)
    depth = np.clip((distance - 1) * radius / rim, -30, 30)
    return part, (1 / (1 + np.exp(2 * depth))).astype(np.float32)
