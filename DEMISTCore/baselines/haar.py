"""The 3-D Haar wavelet transform: a volume as eight sub-bands of half its extents, and back, without loss.

Each axis is cut into the sum and the difference of neighbors over sqrt(2): an orthonormal transform, so white noise
stays white noise. Bands come in the order LLL, LLH, LHL, LHH, HLL, HLH, HHL, HHH (L: sum, H: difference, along x, y,
z).

>>> x = torch.arange(8.0).reshape(1, 1, 2, 2, 2)
>>> bool(torch.allclose(inverse(transform(x)), x, atol=1e-5))
True
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BANDS = 8
#: The low band is this many times larger than it is shown to a network, which brings it near the others' order
#: (Friedrich et al., WDM, arXiv 2402.19043, and cWDM, arXiv 2411.17203, with their published code).
LOW_SCALE = 3.0


def transform(x: Tensor) -> Tensor:
    """Bands (B, 8 C, X/2, Y/2, Z/2), the eight of each channel together, of a volume (B, C, X, Y, Z).

    Raises:
        ValueError: an extent is odd.
    """
    if any(n % 2 for n in x.shape[2:]):
        raise ValueError(f"Extents {tuple(x.shape[2:])} must be even to be halved.")
    bands = x[:, :, None]
    for axis in (2, 3, 4):  # of the volume; the bands' own axis stands before it
        at = axis + 1
        even, odd = bands.unflatten(at, (-1, 2)).unbind(at + 1)
        parts = torch.stack([even + odd, even - odd], 3) / math.sqrt(2)  # (B, C, K, 2, ...): a later axis counts faster
        bands = parts.flatten(2, 3)
    return bands.flatten(1, 2)


def inverse(bands: Tensor) -> Tensor:
    """The volume (B, C, X, Y, Z) of bands (B, 8 C, X/2, Y/2, Z/2)."""
    x = bands.unflatten(1, (-1, BANDS))
    for axis in (4, 3, 2):
        at = axis + 1
        low, high = x.unflatten(2, (-1, 2)).unbind(3)
        pair = torch.stack([low + high, low - high], at + 1) / math.sqrt(2)
        x = pair.flatten(at, at + 1)
    return x.squeeze(2)


def shown(bands: Tensor) -> Tensor:
    """Bands as networks see them: the low band of each channel divided by :data:`LOW_SCALE`.

    (B, 8 C, X, Y, Z), as :func:`transform` makes them.
    """
    return bands / _scales(bands)


def hidden(bands: Tensor) -> Tensor:
    """What :func:`shown` was made of. (B, 8 C, X, Y, Z) both."""
    return bands * _scales(bands)


def _scales(bands: Tensor) -> Tensor:
    scales = torch.ones(bands.shape[1], device=bands.device, dtype=bands.dtype)
    scales[::BANDS] = LOW_SCALE
    return scales.view(1, -1, 1, 1, 1)
