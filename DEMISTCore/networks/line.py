"""The simplest thing the scans say of PSR: a line through ten local features, with coefficients for each scan.

A linear model of T1w, FLAIR, their Gaussians and products, fitted in seconds by least squares, is hard to beat where
networks are unsure: in lesions (:mod:`DEMISTCore.baselines.linear` is that model as a rival). So the mean begins there,
and networks learn what the line misses. The adaptive stream moves the coefficients: what a grey value is worth hangs on
the scanner.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

COUNT = 10
_SIGMAS = (1.0, 2.5)  # voxels
_TISSUE = 0.5  # the median of tissue in normalised images


def _smooth(x: Tensor, sigma: float) -> Tensor:
    """Gaussian of every channel, as SciPy's ``gaussian_filter`` with zeros around the volume."""
    radius = int(4 * sigma + 0.5)
    at = torch.arange(-radius, radius + 1, device=x.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = kernel / kernel.sum()
    shape = x.shape
    for axis in (2, 3, 4):
        # One axis at a time, laid out as rows: a 1-D convolution is far faster on a CPU than a 3-D one of one channel.
        rows = x.movedim(axis, -1)
        flat = F.conv1d(rows.reshape(-1, 1, shape[axis]), kernel[None, None], padding=radius)
        x = flat.reshape(rows.shape).movedim(-1, axis)
    return x


def features(x: Tensor) -> Tensor:
    """Ten local features, (B, 10, X, Y, Z) float32, of normalised T1w and FLAIR (B, 2, X, Y, Z).

    They span what :func:`DEMISTCore.baselines.linear.features` does: t and f about the tissue's median, how far their
    Gaussians (1 and 2.5 voxels) lie from them, squares and product, one. Written so, they are hardly correlated.
    """
    x = x.float()
    centred = x - _TISSUE
    around = [_smooth(x, sigma) - x for sigma in _SIGMAS]
    t, f = centred[:, :1], centred[:, 1:]
    return torch.cat([centred, *around, t * t, f * f, t * f, torch.ones_like(t)], 1)


class Line(nn.Module):
    """sum over k of (w_k + b_k(g)) feature_k(x): (B, 1, X, Y, Z). All zero until :meth:`fit`.

    Args:
        width: of the vector g.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(COUNT))
        self.bend = nn.Linear(width, COUNT)
        nn.init.zeros_(self.bend.weight)
        nn.init.zeros_(self.bend.bias)

    def forward(self, x: Tensor, knowledge: Tensor | None, keep: Tensor | None = None) -> Tensor:
        """``x`` (B, 2, X, Y, Z); ``knowledge`` (B, width) or None; ``keep`` (B,) is 0 where dropout took the stream."""
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            weights = self.weights.float().expand(len(x), COUNT)
            if knowledge is not None:
                change = self.bend(knowledge.float())
                weights = weights + (change if keep is None else change * keep.float()[:, None])
            return torch.einsum("bkxyz,bk->bxyz", features(x), weights)[:, None]

    @torch.no_grad()
    def fit(self, rows: Tensor, values: Tensor) -> None:
        """Least squares: ``rows`` (n, 10) of :func:`features`, ``values`` (n,) in the network's units.

        Raises:
            ValueError: the rows do not determine the coefficients.
        """
        gram, right = rows.double().T @ rows.double(), rows.double().T @ values.double()
        if not math.isfinite(float(gram.sum())) or int(torch.linalg.matrix_rank(gram)) < COUNT:
            raise ValueError("T1w or FLAIR hardly vary: a line cannot be fitted to them.")
        self.weights.copy_(torch.linalg.solve(gram, right))
