"""The simplest thing the scans say of PSR: a line through ten local features, with coefficients for each scan.

A linear model of T1w, FLAIR, their Gaussians and products, fitted in seconds by least squares, is hard to beat where
networks are unsure: in lesions (:mod:`DEMISTCore.baselines.linear` is that model as a rival). So the mean begins there,
and networks learn what the line misses. The adaptive stream moves the coefficients by what it knows of the whole scan:
what a grey value is worth hangs on the scanner. This, too, is fitted in one go, as a bilinear model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .knowledge import DESCRIPTION_WIDTH

COUNT = 10
#: Chosen by five-fold cross-validation over the people of 200 simulated scans: 24.2 dB without B, 25.1 with it.
DIRECTIONS, RIDGE = 20, 0.2
_SIGMAS = (1.0, 2.5)  # voxels
_TISSUE = 0.5  # the median of tissue in normalised images
# Brighter than any tissue or lesion are vessels, fat and dura: a parabola must not go on there.
_BRIGHTEST = (0.9, 1.2)


def _smooth(x: Tensor, sigma: float) -> Tensor:
    """Gaussian of every channel, as SciPy's ``gaussian_filter`` with zeros around the volume.

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


def features(x: Tensor) -> Tensor:
    """Ten local features, (B, 10, X, Y, Z) float32, of normalised T1w and FLAIR (B, 2, X, Y, Z).

    As bright as tissue and lesions get they span what :func:`DEMISTCore.baselines.linear.features` does: t and f about
    the tissue's median, how far their Gaussians (1 and 2.5 voxels) lie from them, squares and product, one. Written so,
    they are hardly correlated.
    """
    x = torch.minimum(x.float(), torch.tensor(_BRIGHTEST, device=x.device)[:, None, None, None])
    centred = x - _TISSUE
    around = [_smooth(x, sigma) - x for sigma in _SIGMAS]
    t, f = centred[:, :1], centred[:, 1:]
    return torch.cat([centred, *around, t * t, f * f, t * f, torch.ones_like(t)], 1)


class Line(nn.Module):
    """sum over k of (w_k + (B d)_k) feature_k(x): (B, 1, X, Y, Z). All zero until :meth:`fit`.

    d is the description of the scan (:func:`.knowledge.describe`), each number less its mean and in units of its
    standard deviation over the training scans, between -3 and 3.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(COUNT))
        self.bend = nn.Linear(DESCRIPTION_WIDTH, COUNT, bias=False)
        nn.init.zeros_(self.bend.weight)
        self.usual = nn.Parameter(torch.zeros(DESCRIPTION_WIDTH))
        self.spread = nn.Parameter(torch.ones(DESCRIPTION_WIDTH))

    def forward(self, x: Tensor, known: Tensor | None, keep: Tensor | None = None) -> Tensor:
        """``x`` (B, 2, X, Y, Z); ``known`` (B, KNOWN_WIDTH), or None: one line for all scans.

        ``keep`` (B,) is 0 where dropout took the stream.
        """
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            weights = self.weights.float().expand(len(x), COUNT)
            if known is not None:
                change = F.linear(self._standard(known), self.bend.weight.float())
                weights = weights + (change if keep is None else change * keep.float()[:, None])
            return torch.einsum("bkxyz,bk->bxyz", features(x), weights)[:, None]

    def _standard(self, known: Tensor) -> Tensor:
        described = known[:, :DESCRIPTION_WIDTH].float()
        return ((described - self.usual.float()) / self.spread.float()).clamp(-3, 3)

    @torch.no_grad()
    def fit(self, rows: Sequence[Tensor], values: Sequence[Tensor], known: Tensor) -> None:
        """Least squares of w, and of B within the :data:`DIRECTIONS` in which training scans differ most.

        Both at once, with a ridge on B (:data:`RIDGE`) that counts a change of the line by how much it moves the map.

        Args:
            rows: of each scan, (n, 10) of :func:`features`.
            values: of each scan, (n,) in the network's units.
            known: (scans, KNOWN_WIDTH).

        Raises:
            ValueError: the rows do not determine the coefficients.
        """
        described = known[:, :DESCRIPTION_WIDTH].float()
        self.usual.copy_(described.mean(0))
        self.spread.copy_(described.std(0, correction=0) + 1e-3)
        standard = self._standard(known).double()
        directions = torch.linalg.svd(standard, full_matrices=False)[2][:DIRECTIONS]
        places = standard @ directions.T
        scales = places.square().mean(0).sqrt() + 1e-6
        places = torch.cat([torch.ones(len(places), 1, dtype=torch.float64), places / scales], 1)
        count = places.shape[1]
        gram = torch.zeros(COUNT * count, COUNT * count, dtype=torch.float64)
        right, plain = torch.zeros(COUNT * count, dtype=torch.float64), torch.zeros(COUNT, COUNT, dtype=torch.float64)
        for x, y, place in zip(rows, values, places):
            x, y = x.double(), y.double()
            own = x.T @ x
            plain += own
            gram += torch.kron(own, torch.outer(place, place))
            right += torch.outer(x.T @ y, place).ravel()
        if not math.isfinite(float(plain.sum())) or int(torch.linalg.matrix_rank(plain, hermitian=True)) < COUNT:
            raise ValueError("T1w or FLAIR hardly vary: a line cannot be fitted to them.")
        penalty = torch.full((count,), RIDGE, dtype=torch.float64)
        penalty[0] = 0
        gram += torch.kron(plain, torch.diag(penalty))
        solution = torch.linalg.solve(gram, right).reshape(COUNT, count)
        self.weights.copy_(solution[:, 0])
        self.bend.weight.copy_((solution[:, 1:] / scales) @ directions)
