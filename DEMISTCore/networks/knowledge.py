"""What the adaptive stream knows of a whole scan, and how it bends convolutions by it.

Histograms of both scans and the protocol say how this scanner turns tissue into grey values; local networks cannot
see that, and attention to places does not tell it. It becomes one vector per volume, and bends every convolution block
that it reaches: a scale and a shift per channel (FiLM, Perez et al., AAAI 2018) and a low-rank change of the channels'
mixing whose strength follows the vector (LoRA, Hu et al. 2021, for convolutions of one voxel).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..acquisition import PROTOCOL_WIDTH

_QUANTILES = np.array([1, 2, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 85, 90, 95, 98, 99]) / 100
_BINS = 10
#: Length of :func:`describe`: quantiles of both images, FLAIR by T1w's tenths, roughness along the axes, volume.
DESCRIPTION_WIDTH = 2 * len(_QUANTILES) + 2 * _BINS + 6 + 1
#: What the adaptive stream is given: the description and the protocol.
KNOWN_WIDTH = DESCRIPTION_WIDTH + PROTOCOL_WIDTH


def describe(x: np.ndarray, mask: np.ndarray, spacing: float) -> np.ndarray:
    """Numbers that describe a normalized pair of images as a whole, float32 (DESCRIPTION_WIDTH,).

    Args:
        x: T1w and FLAIR, (2, X, Y, Z), fluid about 0 and tissue's median 0.5.
        mask: the brain, (X, Y, Z).
        spacing: voxel size, mm.

    Raises:
        ValueError: an empty mask.
    """
    inside = np.asarray(mask[::2, ::2, ::2]) > 0
    half = np.asarray(x[:, ::2, ::2, ::2], np.float32)
    if inside.sum() < 8:
        raise ValueError("The brain mask is empty: there is nothing to describe.")
    t1w, flair = (image[inside] for image in half)
    values = [np.quantile(t1w, _QUANTILES), np.quantile(flair, _QUANTILES)]
    edges = np.quantile(t1w, np.linspace(0, 1, _BINS + 1)[1:-1])
    group = np.searchsorted(edges, t1w)
    count = np.maximum(np.bincount(group, minlength=_BINS), 1)
    mean = np.bincount(group, flair, _BINS) / count
    sd = np.sqrt(np.maximum(np.bincount(group, flair * flair, _BINS) / count - mean**2, 0))
    values += [mean, 5 * sd]
    # Neighbours' differences at full resolution along each axis, in a slab through the middle: noise, blur, slices.
    middle = tuple(slice(n // 2 - min(n // 2, 24), n // 2 + min(n // 2, 24)) for n in mask.shape)
    part, brain = np.asarray(x[(slice(None), *middle)], np.float32), np.asarray(mask[middle]) > 0
    for image in part:
        for axis in range(3):
            along = np.moveaxis(brain, axis, 0)
            both = np.moveaxis(along[1:] & along[:-1], 0, axis)
            difference = np.abs(np.diff(image, axis=axis))[both]
            values.append([20 * float(np.median(difference)) if difference.size else 0.0])
    values.append([np.log(max(float(inside.sum()) * 8 * spacing**3 / 1000, 1.0) / 1200)])
    return np.clip(np.concatenate([np.ravel(v) for v in values]), -4, 4).astype(np.float32)


class Knowledge(nn.Module):
    """What is known of a volume, (B, KNOWN_WIDTH), to the vector that bends: (B, width)."""

    def __init__(self, width: int, hidden: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(KNOWN_WIDTH, hidden), nn.SiLU(), nn.Linear(hidden, width), nn.SiLU())

    def forward(self, known: Tensor) -> Tensor:
        """Return the vector."""
        return self.layers(known.to(self.layers[0].weight.dtype))


class Bend(nn.Module):
    """W(g) h + b(g) with W = 1 + diag(s(g)) + U diag(a(g)) V: how the adaptive stream mixes channels; 1 at the start.

    One matrix per volume: at every position it is the same small product, whatever its rank.
    """

    def __init__(self, channels: int, width: int, rank: int) -> None:
        super().__init__()
        self.film = nn.Linear(width, 2 * channels)
        self.gate = nn.Linear(width, rank)
        self.down = nn.Parameter(torch.randn(rank, channels) / channels**0.5)
        self.up = nn.Parameter(torch.zeros(channels, rank))
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, h: Tensor, knowledge: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return the bent features (B, C, X, Y, Z); ``keep`` (B,) is 0 where dropout took the stream."""
        with torch.autocast("cpu" if h.is_meta else h.device.type, enabled=False):
            knowledge = knowledge.float()
            scale, shift = self.film(knowledge).chunk(2, 1)
            change = torch.diag_embed(scale) + (self.up * self.gate(knowledge)[:, None]) @ self.down
            if keep is not None:
                change, shift = change * keep[:, None, None], shift * keep[:, None]
            matrix = (torch.eye(h.shape[1], device=h.device) + change).transpose(1, 2).to(h.dtype)
            flat = h.movedim(1, -1).flatten(1, 3)
            bent = torch.baddbmm(shift[:, None].to(h.dtype), flat, matrix)
        return bent.unflatten(1, h.shape[2:]).movedim(-1, 1)
