"""Random smooth fields and diffeomorphic deformations on a 1 mm grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..volume.grid import triple

if TYPE_CHECKING:
    from torch import Tensor


def smooth_field(shape: tuple[int, int, int], scale: float, rng: np.random.Generator) -> np.ndarray:
    """Zero-mean, unit-variance Gaussian random field (float32) with a correlation length of about ``scale`` voxels.

    Of ``shape`` (X, Y, Z).
    """
    import torch
    from scipy.ndimage import gaussian_filter

    step = max(1.0, scale / 3.0)
    # A margin wider than the filter keeps the variance uniform up to the border.
    margin = 9
    coarse_shape = [int(np.ceil(n / step)) + 1 + 2 * margin for n in shape]
    coarse = gaussian_filter(rng.standard_normal(coarse_shape, dtype=np.float32), scale / step, mode="wrap")
    coarse = coarse[margin:-margin, margin:-margin, margin:-margin]
    coarse = coarse / _field_sd(scale / step)
    tensor = torch.from_numpy(np.ascontiguousarray(coarse))[None, None]
    return torch.nn.functional.interpolate(tensor, size=shape, mode="trilinear", align_corners=True)[0, 0].numpy()


def _field_sd(sigma: float) -> float:
    """Standard deviation of white noise after a 3-D Gaussian filter of ``sigma`` voxels (sum of squared weights)."""
    radius = int(4 * sigma + 0.5)
    x = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (x / sigma) ** 2)
    weights /= weights.sum()
    return float(np.sum(weights**2) ** 1.5)


def random_affine(rng: np.random.Generator, *, rotation: float, scale: float, shear: float) -> np.ndarray:
    """Random 3x3 matrix: rotations (SD in degrees about each axis), log-scales and shears (SD)."""
    angles = np.radians(rng.normal(0, rotation, 3))
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    skew = np.eye(3)
    skew[np.triu_indices(3, 1)] = rng.normal(0, shear, 3)
    return matrix @ skew @ np.diag(np.exp(rng.normal(0, scale, 3)))


def diffeomorphism(
    shape: tuple[int, int, int],
    rng: np.random.Generator,
    *,
    amplitudes: tuple[tuple[float, float], ...] = ((18.0, 1.6), (45.0, 3.0)),
    extra: np.ndarray | None = None,
    step: int = 4,
    squarings: int = 6,
) -> np.ndarray:
    """Displacement field (3, X, Y, Z) in voxels of a random diffeomorphism, exp of a smooth stationary velocity field.

    Scaling and squaring as in Arsigny et al., MICCAI 2006. ``amplitudes`` lists (correlation length, SD) in voxels;
    ``extra`` is a velocity (3, x, y, z) on the coarse grid (every ``step`` voxels) to be added.
    """
    import torch

    coarse = triple(np.ceil(n / step) + 1 for n in shape)
    velocity = np.zeros((3, *coarse), np.float32)
    for scale, sd in amplitudes:
        for axis in range(3):
            velocity[axis] += sd / step * smooth_field(coarse, scale / step, rng)
    if extra is not None:
        velocity += extra / step
    flow = torch.from_numpy(velocity) / 2**squarings
    for _ in range(squarings):
        flow = flow + _pull(flow, flow)
    fine = torch.nn.functional.interpolate(flow[None] * step, size=shape, mode="trilinear", align_corners=True)
    return fine[0].numpy()


def coarse_shape(shape: tuple[int, int, int], step: int = 4) -> tuple[int, int, int]:
    """Shape of the coarse velocity grid that :func:`diffeomorphism` uses for ``shape``."""
    return triple(np.ceil(n / step) + 1 for n in shape)


def _pull(image: Tensor, displacement: Tensor) -> Tensor:
    """Sample ``image`` (C, X, Y, Z) at identity + ``displacement`` (3, X, Y, Z) voxels, linearly, edges extended."""
    import torch

    size = image.shape[1:]
    grids = []
    for axis, n in enumerate(size):
        index = torch.arange(n, dtype=torch.float32).reshape([-1 if k == axis else 1 for k in range(3)])
        grids.append((index + displacement[axis]) * (2.0 / max(n - 1, 1)) - 1)
    # grid_sample wants (z, y, x) order of the last axis, i.e. the fastest-running array axis first.
    grid = torch.stack(grids[::-1], -1)[None]
    return torch.nn.functional.grid_sample(
        image[None], grid, mode="bilinear", padding_mode="border", align_corners=True
    )[0]


def pull(channels: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """Sample ``channels`` (C, X, Y, Z) at voxel ``coordinates`` (3, x, y, z), linearly; zero outside.

    Returns:
        Array (C, x, y, z), float32.
    """
    import torch

    size = channels.shape[1:]
    grid = np.stack([coordinates[axis] * (2.0 / max(size[axis] - 1, 1)) - 1 for axis in (2, 1, 0)], -1)
    return torch.nn.functional.grid_sample(
        torch.from_numpy(np.ascontiguousarray(channels, dtype=np.float32))[None],
        torch.from_numpy(np.ascontiguousarray(grid, dtype=np.float32))[None],
        mode="bilinear",
        padding_mode="zeros",
        align_corners=True,
    )[0].numpy()
