"""What can be measured around a voxel of T1w and FLAIR without learning: brightness, edges, shape.

*Near* features are read from the scans at their own resolution: the grey values, their Gaussians, gradients, the
principal curvatures (eigenvalues of the Hessian, which tell sheets from tubes and blobs: Frangi et al., MICCAI 1998)
and the local contrast. They reach some ten voxels. *Wide* ones, Gaussians of 5 and 10 voxels, come from the whole
volume on a grid of four voxels. A crop gets those from its volume.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

#: Brighter than any tissue or lesion are vessels, fat and dura: no formula must go on there.
BRIGHTEST = (0.9, 1.2)
TISSUE = 0.5  # the median of tissue in normalized images
STRIDE = 4  # voxels between the points of the wide grid
WIDE, NEAR = 8, 20  # numbers of features
REACH = 12  # voxels that near features look to each side
_SLAB = 32  # planes of a whole volume at once


def smooth(x: Tensor, sigma: float) -> Tensor:
    """Gaussian of every channel of (B, C, X, Y, Z), as SciPy's ``gaussian_filter`` with zeros around the volume.

    Along each axis a product with a banded matrix: on a CPU far faster than a convolution of one channel.
    """
    radius = int(4 * sigma + 0.5)
    for axis in (2, 3, 4):
        at = torch.arange(x.shape[axis], device=x.device, dtype=torch.float32)
        apart = at[:, None] - at
        band = torch.where(apart.abs() <= radius, torch.exp(-0.5 * (apart / sigma) ** 2), 0.0)
        whole = torch.arange(-radius, radius + 1, device=x.device, dtype=torch.float32)
        band = band / torch.exp(-0.5 * (whole / sigma) ** 2).sum()
        x = torch.matmul(x.movedim(axis, -1), band).movedim(-1, axis)
    return x


def eigenvalues(h: Mapping[tuple[int, int], Tensor]) -> Tensor:
    """Eigenvalues, lowest first, (3, n), of symmetric 3 x 3 matrices, by the trigonometric formula.

    Smith, Commun. ACM 4 (1961) 168: for millions of small matrices far faster than a solver. ``h[i, j]`` with i <= j
    are the elements of all matrices, (n,).
    """
    q = (h[0, 0] + h[1, 1] + h[2, 2]) / 3
    a, b, c = h[0, 0] - q, h[1, 1] - q, h[2, 2] - q
    off = h[0, 1] ** 2 + h[0, 2] ** 2 + h[1, 2] ** 2
    p = ((a**2 + b**2 + c**2 + 2 * off) / 6).sqrt().clamp_min(1e-12)
    a, b, c, d, e, f = (part / p for part in (a, b, c, h[0, 1], h[0, 2], h[1, 2]))
    det = a * (b * c - f**2) - d * (d * c - f * e) + e * (d * f - b * e)
    angle = torch.acos((det / 2).clamp(-1, 1)) / 3
    highest = q + 2 * p * torch.cos(angle)
    lowest = q + 2 * p * torch.cos(angle + 2 * math.pi / 3)
    return torch.stack([lowest, 3 * q - highest - lowest, highest])


def _limited(x: Tensor) -> Tensor:
    return torch.minimum(x.float(), torch.tensor(BRIGHTEST, device=x.device)[:, None, None, None])


def wide(x: Tensor) -> Tensor:
    """Wide features of whole volumes x (B, 2, X, Y, Z), extents multiples of 4: (B, 8, X/4 + 2, Y/4 + 2, Z/4 + 2).

    T1w, FLAIR and the brain smoothed by 5 voxels, the same by 10, both scans by 5 inside the brain alone. Point j + 1
    lies in the middle of the voxels 4 j to 4 j + 3; the outer points repeat their neighbours.
    """
    x = _limited(x)
    brain = (x != 0).any(1, keepdim=True).float()
    coarse = F.avg_pool3d(torch.cat([x, brain], 1), STRIDE)
    near, far = (smooth(coarse, sigma / STRIDE) for sigma in (5.0, 10.0))
    inside = near[:, :2] / (near[:, 2:] + 0.05)
    return F.pad(torch.cat([near, far, inside], 1), (1,) * 6, mode="replicate")


def fine(coarse: Tensor) -> Tensor:
    """Wide features (C, x + 2, y + 2, z + 2) at every voxel, (C, 4 x, 4 y, 4 z), linearly in between."""
    inner = slice(STRIDE, -STRIDE)
    wide_ = F.interpolate(coarse[None], scale_factor=STRIDE, mode="trilinear", align_corners=False)
    return wide_[0, :, inner, inner, inner]


def _slope(x: Tensor, axis: int) -> Tensor:
    """Central difference along an axis of (B, C, X, Y, Z); as if the first and the last plane were repeated."""
    n = x.shape[axis]
    slope = torch.empty_like(x)
    torch.sub(x.narrow(axis, 2, n - 2), x.narrow(axis, 0, n - 2), out=slope.narrow(axis, 1, n - 2))
    torch.sub(x.narrow(axis, 1, 1), x.narrow(axis, 0, 1), out=slope.narrow(axis, 0, 1))
    torch.sub(x.narrow(axis, n - 1, 1), x.narrow(axis, n - 2, 1), out=slope.narrow(axis, n - 1, 1))
    return slope.div_(2)


def near(x: Tensor, where: Tensor) -> Tensor:
    """Near features (n, 20) at voxels ``where`` (n, 3) of x (2, X, Y, Z).

    t and f about the tissue's median, how far their Gaussians (1 and 2.5 voxels) lie from them, how much of the
    Gaussian of 2.5 is brain, length of both gradients (of Gaussians of 1), cosine of the angle between them, length of
    both (of 2.5), three curvatures of each, local standard deviation of each.
    """
    return _near(x, where).T


def _near(x: Tensor, where: Tensor) -> Tensor:
    """:func:`near`, transposed: a feature's voxels lie side by side, as in the volumes that they are taken from."""
    x = _limited(x[None])
    at = (where[:, 0] * x.shape[3] + where[:, 1]) * x.shape[4] + where[:, 2]

    def take(values: Tensor) -> Tensor:
        return values[0].flatten(1).index_select(1, at)

    brain = (x != 0).any(1, keepdim=True).float()
    by_one, by_more = smooth(x, 1.0), smooth(torch.cat([x, brain, x * x], 1), 2.5)
    slopes = [_slope(by_one, axis) for axis in (2, 3, 4)]
    gradient = torch.stack([take(slope) for slope in slopes])  # axis, scan, voxel
    length = (gradient.square().sum(0) + 1e-12).sqrt()
    cosine = gradient.prod(1).sum(0, keepdim=True) / (length.prod(0, keepdim=True) + 1e-4)
    wider = torch.stack([take(_slope(by_more[:, :2], axis)) for axis in (2, 3, 4)])
    bends = {
        (i, j): (take(_slope(slopes[j], i + 2)) + take(_slope(slopes[i], j + 2))) / 2
        if i != j
        else take(_slope(slopes[i], i + 2))
        for i in range(3)
        for j in range(i, 3)
    }
    more = take(by_more)
    sd = (more[3:] - more[:2].square()).clamp_min(0).sqrt()
    own = take(x)
    return torch.cat(
        [
            own - TISSUE,
            take(by_one) - own,
            more[:2] - own,
            more[2:3],
            length,
            cosine,
            (wider.square().sum(0) + 1e-12).sqrt(),
            eigenvalues({key: bend[0] for key, bend in bends.items()}),
            eigenvalues({key: bend[1] for key, bend in bends.items()}),
            sd,
        ]
    )


def rows(x: Tensor, coarse: Tensor, where: Tensor) -> Tensor:
    """Features (n, 28) at voxels ``where`` (n, 3) of x (2, X, Y, Z), near ones first.

    ``coarse``: :func:`wide` of the volume, or of the volume that a crop is of, at the crop, (8, X/4 + 2, ...).
    """
    around = fine(coarse)[(slice(None), *where.T)]
    return torch.cat([_near(x, where), around]).T


def slabs(x: Tensor, coarse: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Brain voxels (n, 3) of x (2, X, Y, Z) and their :func:`rows`, some planes at a time."""
    inside = (x != 0).any(0)
    for first in range(0, x.shape[1], _SLAB):
        last = min(first + _SLAB, x.shape[1])
        where = torch.nonzero(inside[first:last])
        if len(where):
            low, high = max(first - REACH, 0), min(last + REACH, x.shape[1])
            here = where + torch.tensor([first - low, 0, 0], device=x.device)
            part = coarse[:, low // STRIDE : high // STRIDE + 2]
            yield where + torch.tensor([first, 0, 0], device=x.device), rows(x[:, low:high], part, here)
