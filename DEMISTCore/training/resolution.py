"""A sharp map as a coarser scan would have seen it, and a target for it out of a coarse map.

The loss of a coarse map y is that of the model's map seen as coarsely, A y_hat - y. It is written as a target that the
sharp map is compared with, y_hat + (y - A y_hat), so that all losses stay as they are: what the scan could not see is
left as the model has it (a null space; compare Schwab et al., Inverse Problems 35, 2019), what it saw is corrected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor

#: Beyond so many standard deviations a Gaussian is nothing.
_REACH = 3.0
#: Weight under which a place has seen next to nothing of the crop.
_LEAST = 0.05


def seen_coarsely(psr: Tensor, blur: Tensor) -> Tensor:
    """Maps blurred by Gaussians; beyond their faces nothing is known, and nothing is averaged in.

    Args:
        psr: (B, 1, X, Y, Z), 0 outside the brain.
        blur: (B, 3, 3) covariances in voxels; 0 leaves a map as it is.

    Returns:
        Tensor of psr's shape, float32.
    """
    size = list(psr.shape[2:])
    reach = [math.ceil(_REACH * math.sqrt(max(float(blur[:, i, i].max()), 0))) for i in range(3)]
    full = [next_fast_len(n + r, real=True) for n, r in zip(size, reach)]
    ends = [torch.fft.fftfreq(n, device=psr.device) for n in full[:2]]
    places = torch.stack(torch.meshgrid(*ends, torch.fft.rfftfreq(full[2], device=psr.device), indexing="ij"))
    power = torch.einsum("ixyz,bij,jxyz->bxyz", places, blur.to(places), places)
    passed = torch.exp(-2 * math.pi**2 * power)[:, None]

    def smooth(values: Tensor) -> Tensor:
        spectrum = torch.fft.rfftn(values, s=full, dim=(2, 3, 4)) * passed
        x, y, z = (slice(n) for n in size)
        return torch.fft.irfftn(spectrum, s=full, dim=(2, 3, 4))[:, :, x, y, z]

    psr = psr.float()
    return smooth(psr) / smooth(torch.ones_like(psr)).clamp(min=_LEAST)


def target_of(y_hat: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """What maps ``y_hat`` (B, 1, X, Y, Z) of a batch's "x" are compared with: "y", or :func:`sharp_target` of it where
    the batch says by "blur" that some are coarse."""
    return sharp_target(y_hat, batch["y"], batch["x"], batch["blur"]) if "blur" in batch else batch["y"]


@torch.no_grad()
def sharp_target(y_hat: Tensor, y: Tensor, x: Tensor, blur: Tensor) -> Tensor:
    """What a sharp map should be, given a coarse one: y_hat + (y - A y_hat).

    Args:
        y_hat: the model's maps (B, 1, X, Y, Z).
        y: measured ones, likewise.
        x: the scans (B, 2, X, Y, Z), 0 outside the brain.
        blur: (B, 3, 3) covariances of A in voxels; 0: y is as sharp, and is the target, as it is outside the brain.
    """
    inside = (x != 0).any(1, keepdim=True)
    y_hat = torch.where(inside, y_hat.float(), 0)
    sharp = y + y_hat - seen_coarsely(y_hat, blur)
    return torch.where(inside & (blur.flatten(1) != 0).any(1).view(-1, 1, 1, 1, 1), sharp, y)


def as_measured(psr: np.ndarray, blur: np.ndarray | None) -> np.ndarray:
    """A whole map (X, Y, Z), 0 outside the brain, as coarse as the one that it is compared with.

    ``blur``: :attr:`DEMISTCore.training.data.PreparedSession.blur`, a covariance (3, 3) in voxels; None: as fine.
    """
    if blur is None:
        return psr
    seen = seen_coarsely(torch.from_numpy(np.asarray(psr, np.float32))[None, None], torch.from_numpy(blur)[None])
    return seen[0, 0].numpy()


def sharp_truth(psr: np.ndarray, y: np.ndarray, blur: np.ndarray | None) -> np.ndarray:
    """A whole measured map as sharp as the model's ``psr``, both (X, Y, Z): :func:`sharp_target` without tensors.

    What is left between the two is what their blurred selves differ by: errors of means over regions are all there,
    those of single voxels only as far as the scan could see them.
    """
    return y if blur is None else y + psr - as_measured(psr, blur)


def turned(blur: np.ndarray | None, places: np.ndarray | None = None, flip: bool = False) -> np.ndarray:
    """The covariance in a crop that was warped or flipped left-right, float32 (3, 3); 0 for a map as fine as the grid.

    ``places`` (3, X, Y, Z), see :func:`.warp.draw`: its bend is left out, its turn and stretch are not.
    """
    if blur is None:
        return np.zeros((3, 3), np.float32)
    if flip:
        mirror = np.diag([-1.0, 1.0, 1.0])
        blur = mirror @ blur @ mirror
    if places is None:
        return blur.astype(np.float32)
    steps = [np.diff(places, axis=1 + i).mean((1, 2, 3)) for i in range(3)]
    back = np.linalg.inv(np.stack(steps, 1).astype(np.float64))  # source voxels -> voxels of the crop
    return (back @ blur @ back.T).astype(np.float32)
