"""cWDM: diffusion of the map's Haar wavelets, given the scans' wavelets beside them.

P. Friedrich, A. Durrer, J. Wolleb, P. C. Cattin, *cWDM: Conditional Wavelet Diffusion Models for Cross-Modality 3D
Medical Image Synthesis*, arXiv 2411.17203, after WDM (arXiv 2402.19043). As published: one level of the 3-D Haar
transform, low bands divided by three, the eight bands of each scan concatenated to the eight noisy ones of the map, a
U-Net of residual blocks (64 channels, times 1, 2, 2, 4, 4, two blocks a level, no attention) that predicts the clean
bands, mean squared error over all bands alike, 1000 linear steps, AdamW at 1e-5, one volume a batch.

Here the U-Net is MONAI's, whose middle block attends, and windows of the training's patch stand for whole volumes where
memory is short: the estimate of every step is blended over them, so that a sample has no seams.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..volume.grid import triple
from .trained import Trained, channels_last, counted, finished, in_windows

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ..diffusion import NoiseSchedule

STAGE = "cwdm"
SAMPLING: dict[str, Any] = {"sampler": "ddim", "steps": 50}
#: Clean bands lie within this: the published samplers clip at 1 for images from 0 to 1, and PSR reaches half as much
#: again above the range that stands for 1.
CLIP = 1.5
_OVERLAP = 0.25


def build_cwdm(channels: Sequence[int] = (64, 128, 128, 256, 256), blocks: int = 2, groups: int = 32) -> nn.Module:
    """The U-Net: eight noisy bands and sixteen of the scans (B, 24, x, y, z), t (B,), to clean bands (B, 8, x, y, z).

    Extents of the bands are multiples of 2 per level but the last.
    """
    import torch
    from monai.networks.nets import DiffusionModelUNet

    return DiffusionModelUNet(
        spatial_dims=3,
        in_channels=24,
        out_channels=8,
        channels=tuple(channels),
        num_res_blocks=blocks,
        attention_levels=(False,) * len(channels),
        num_head_channels=channels[-1],
        norm_num_groups=groups,
        include_fc=False,
        use_flash_attention=True,
    ).to(memory_format=torch.channels_last_3d)


def schedule() -> NoiseSchedule:
    """The published noise, DDPM's linear betas; samplers are told the clean bands as v, see :func:`as_velocity`."""
    from ..diffusion import NoiseSchedule

    return NoiseSchedule(steps=1000, kind="linear", beta_start=1e-4, beta_end=0.02, prediction="v")


def as_velocity(clean: Callable[[Tensor, Tensor], Tensor], noise: NoiseSchedule) -> Callable[[Tensor, Tensor], Tensor]:
    """A model that predicts z_0 as one that predicts v: v = (alpha z_t - z_0) / sigma, so alpha z_t - sigma v = z_0."""

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = noise.alpha_sigma(t, z)
        return (alpha * z - clean(z, t).float().clamp(-CLIP, CLIP)) / sigma

    return velocity


@dataclass(eq=False)
class WaveletDiffusion(Trained):
    """A trained cWDM, and how it samples."""

    settings: dict[str, Any] = field(default_factory=lambda: dict(SAMPLING))
    passes: int = 0

    def predict(
        self,
        array: np.ndarray,
        mask: np.ndarray | None = None,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> np.ndarray:
        """One sample of PSR (X, Y, Z), see :class:`.trained.Maker`; extents are even."""
        import torch

        from ..devices import autocast
        from ..diffusion import SAMPLERS, SeededNoise
        from ..networks.config import PSR_RANGE
        from . import haar

        device, noise = torch.device(device), SeededNoise([seed])
        network = self.network.to(device).eval()
        window = [n // 2 for n in self.patch]
        with torch.no_grad(), autocast(device, dtype or torch.float32), counted(network) as passes:
            given = haar.shown(haar.transform(channels_last(array, device)))

            def clean(z: Tensor, t: Tensor) -> Tensor:
                return in_windows(lambda part: network(part, t), torch.cat([z, given], 1), window, _OVERLAP)

            start = noise((1, haar.BANDS, *given.shape[2:])).to(device)
            bands = SAMPLERS[self.settings["sampler"]](
                as_velocity(clean, schedule()), start, schedule(), self.settings["steps"], noise=noise
            )
        self.passes = passes[0]
        return finished(haar.inverse(haar.hidden(bands.float()))[0, 0], PSR_RANGE, mask)


def load_cwdm(source: str | Path, *, sampler: str | None = None, steps: int | None = None) -> WaveletDiffusion:
    """The model of a ``cwdm`` run, with its averaged weights.

    Args:
        source: run folder.
        sampler, steps: of :data:`DEMISTCore.diffusion.SAMPLERS`; None: :data:`SAMPLING`. Published: ddpm, 1000.

    Raises:
        InputError: no such run, no checkpoint yet, or a run of another stage.
    """
    from ..errors import InputError
    from ..training.checkpoint import Run, part
    from ..training.foundation import load
    from ..training.loop import frozen_hash
    from ..training.stages.cwdm import CwdmSettings

    run = Run.read(source)
    if run.stage != STAGE:
        raise InputError(f"{source} is a run of {run.stage}; give a run of {STAGE}.")
    s = run.settings_as(CwdmSettings)
    network = build_cwdm(s.channels, s.blocks, s.groups)
    load(network, part(run.weights(), "network"), source)
    network = network.requires_grad_(False).eval()
    plan: dict[str, Any] = {"sampler": sampler or SAMPLING["sampler"], "steps": steps or SAMPLING["steps"]}
    return WaveletDiffusion(network, triple(s.patch), frozen_hash(network), plan)
