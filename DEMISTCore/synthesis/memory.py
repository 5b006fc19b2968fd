"""Whether there is memory enough, before the work starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..bundle import Bundle
from ..devices import require_memory
from ..volume import Volume

if TYPE_CHECKING:
    import torch

#: Preparation: brain extraction's network, and copies of the images while they are resampled and corrected.
_PREPARE_BASE = 1 << 30
_PREPARE_PER_VOXEL = 48


def model_memory(bundle: Bundle, shape: Sequence[int], dtype: torch.dtype) -> int:
    """About how many bytes synthesis takes at its peak on a model grid of ``shape``, decoding in small tiles."""
    from ..decoding import decode_memory, encode_memory, reach

    config = bundle.config
    latent = [-(-n // config.psr.factor) for n in shape]
    margin = 2 * reach(bundle.autoencoder_psr) + 4
    decoding = decode_memory(bundle.autoencoder_psr, tuple(min(n, margin) for n in latent), dtype)
    encoding = encode_memory(bundle.autoencoder_condition, tuple(shape), dtype)
    # Feature maps of U-Net and ControlNet, skips included, per latent position (measured: 12 per network).
    sampling = 30 * config.backbone.channels[0] * int(np.prod(latent)) * 4
    weights = 4 * sum(
        p.numel() for m in (bundle.autoencoder_psr, bundle.autoencoder_condition, bundle.demist) for p in m.parameters()
    )
    images = 60 * int(np.prod(shape))  # condition, result, their copies
    if config.mean is not None:
        # Maps are decoded by the mean network, whole; its features stay while samples are drawn. At two voxels a level
        # has an eighth of the image's positions; six such tensors are alive in a block, one level's stay.
        fine = config.mean.channels[0] * int(np.prod(shape)) // 8 * 4
        return max(6 * fine, encoding, sampling + fine) + weights + images
    return max(decoding, encoding, sampling) + weights + images


def check_memory(bundle: Bundle, t1w: Volume, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse before the work starts; the model grid is guessed: no larger than the T1w, nor than a large head.

    Raises:
        InputError: too little memory is free.
    """
    sides = [min(n, 256.0) / bundle.spacing for n in t1w.grid.extent]
    shape = [int(-(-min(n, 208 / bundle.spacing) // bundle.config.multiple)) * bundle.config.multiple for n in sides]
    prepare = min(_PREPARE_BASE, 200 * int(np.prod(shape))) + _PREPARE_PER_VOXEL * int(np.prod(t1w.shape))
    sampling = model_memory(bundle, shape, dtype)
    what = f"synthesis of {t1w.path or 'a T1w'} ({' x '.join(str(n) for n in t1w.shape)} voxels)"
    require_memory(prepare if device.type == "cuda" else max(prepare, sampling), None, what)
    if device.type == "cuda":
        require_memory(sampling, device, what)
