"""Lesions painted into a crop's white matter: other shapes, sizes and rims in every crop (as LesionMix does, Basaran et
al., MICCAI 2023), with the contrasts that the simulator's lesions have.

A data set has the lesions that it has, and a network that sees each a hundred times learns what *they* look like.
"""

from __future__ import annotations

import numpy as np

from .data import LESION
from .settings import PaintSettings

WHITE = (3, 7)  # labels: white matter, brainstem
#: Logarithms of T1w, FLAIR and PSR in the core of a lesion over those of white matter around it: mean and covariance.
#: T1w and FLAIR, in normalised units, as in the cores of real lesions (open_ms_data: the darker on T1w, the brighter on
#: FLAIR), wider; what PSR goes with them as in the cores of 238 simulated lesions above 60 mm^3.
CONTRAST_MEAN = (-0.30, 0.42, -0.60)
CONTRAST_COVARIANCE = ((0.0484, -0.0165, 0.0396), (-0.0165, 0.0225, -0.0135), (0.0396, -0.0135, 0.09))
_HIGHEST = (0.15, 0.9, 0.0)  # of the logarithms


def paint(
    x: np.ndarray, y: np.ndarray, labels: np.ndarray, settings: PaintSettings, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x (2, X, Y, Z), y and labels (X, Y, Z) with up to ``most`` more lesions, in a share ``probability`` of the crops.

    ``y`` may be in any unit. Nothing is changed in place.
    """
    rng = np.random.default_rng(int(rng.integers(2**62)))
    white = np.isin(labels, WHITE)
    places = np.flatnonzero(white)
    if rng.random() >= settings.probability or not places.size:
        return x, y, labels
    from scipy.ndimage import gaussian_filter

    x, y, labels = x.astype(np.float32), y.astype(np.float32), labels.copy()
    # Lesions end where white matter does, as softly as voxels of two tissues go over into each other.
    share = gaussian_filter((white | (labels == LESION)).astype(np.float32), 0.6)
    for place in rng.choice(places, int(rng.integers(1, settings.most + 1))):
        part, amount = _blob(np.unravel_index(int(place), y.shape), y.shape, rng)
        amount = amount * share[part]
        change = np.minimum(rng.multivariate_normal(CONTRAST_MEAN, CONTRAST_COVARIANCE), _HIGHEST)
        if rng.random() < settings.faint:
            change = change * rng.uniform(0.1, 0.5)
        for image, by in zip((x[0], x[1], y), np.exp(change)):
            image[part] *= 1 + (np.float32(by) - 1) * amount
        inside = labels[part]
        inside[(amount > 0.5) & (inside > 0)] = LESION
    return x, y, labels


def _blob(centre: tuple[int, ...], shape: tuple[int, ...], rng: np.random.Generator) -> tuple[tuple, np.ndarray]:
    """A lumpy ellipsoid about ``centre``: its box, and how much of each voxel there it takes, 0 to 1."""
    from scipy.ndimage import gaussian_filter
    from scipy.spatial.transform import Rotation

    radius = float(np.clip(np.exp(rng.normal(1.0, 0.5)), 1.2, 10))  # voxels
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
