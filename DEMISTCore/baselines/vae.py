"""Latent regression: from the condition's latents straight to the PSR latents, between variational autoencoders.

What remains of latent diffusion without diffusion: the same KL autoencoders (Kingma and Welling, ICLR 2014; Rombach et
al., CVPR 2022), the same U-Net, asked once, without noise and at time 0, trained with the squared error of the latents.
Its answer is the mean of what the scans leave possible, decoded.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .ldm import LatentBaseline, read_baseline

if TYPE_CHECKING:
    from torch import Tensor, nn

STAGE = "vae"


def regress(network: nn.Module, c: Tensor, seed: int = 0) -> Tensor:
    """PSR latents of condition latents (B, Cc, x, y, z), both scaled; nothing is drawn, so ``seed`` means nothing."""
    import torch

    return network(c, torch.zeros(len(c), dtype=torch.long, device=c.device))


def load_vae(source: str | Path) -> LatentBaseline:
    """The model of a ``vae`` run, with its averaged weights.

    Raises:
        InputError: no such run, no checkpoint yet, a run of another stage, or its foundation has changed.
    """
    _, baseline = read_baseline(source, STAGE)
    baseline.answer = regress
    return baseline
