"""A plain conditional latent diffusion model: condition latents concatenated to the noisy PSR latents, nothing else.

R. Rombach et al., CVPR 2022 (arXiv 2112.10752), section 3.3: conditions that lie on the latent's grid are concatenated
to it. The same autoencoders, U-Net shape, schedule and samplers as DEMIST has; no frozen backbone, no streams, all
weights trained from the start. What DEMIST's conditioning is worth is what lies between the two.

With a network that is asked once instead of in steps, the same class is the latent regression (:mod:`.vae`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .trained import channels_last, count_parameters, counted, finished

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ..networks.config import BackboneConfig
    from ..training.checkpoint import Run
    from ..training.foundation import Foundation

STAGE = "ldm"
#: How samples are drawn if nobody says otherwise.
SAMPLING: dict[str, Any] = {"sampler": "ddim", "steps": 50}


def build_latent_unet(cfg: BackboneConfig, given: int, taken: int) -> nn.Module:
    """The backbone's U-Net with other channels: (B, given, x, y, z) and t (B,) to (B, taken, x, y, z)."""
    from monai.networks.nets import DiffusionModelUNet

    from ..networks.brain_ldm import UNetConfig, unet_arguments

    shape = replace(UNetConfig.of_backbone(cfg), in_channels=given, out_channels=taken, cross_attention_dim=None)
    import torch

    return DiffusionModelUNet(**unet_arguments(shape)).to(memory_format=torch.channels_last_3d)


@dataclass(eq=False)
class LatentBaseline:
    """A trained network between frozen autoencoders.

    Attributes:
        network: the U-Net.
        foundation: autoencoders, with both latent scales.
        hash: SHA-256 of all weights.
        answer: z of condition latents (1, Cc, x, y, z), by the network: what sets the two baselines apart.
    """

    network: nn.Module
    foundation: Foundation
    hash: str
    answer: Callable[[nn.Module, Tensor, int], Tensor]
    settings: dict[str, Any] = field(default_factory=dict)
    passes: int = 0

    @property
    def parameters(self) -> int:
        """Of the U-Net, the condition's encoder and the PSR decoder."""
        return count_parameters(self.network, self.foundation.condition.encoder, self.foundation.psr.decoder)

    def predict(
        self,
        array: np.ndarray,
        mask: np.ndarray | None = None,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> np.ndarray:
        """PSR (X, Y, Z), see :class:`.trained.Maker`. Whole volumes, as DEMIST samples them."""
        import torch

        from ..decoding import decode
        from ..devices import autocast
        from ..networks.autoencoder import encode

        device, dtype = torch.device(device), dtype or torch.float32
        f = self.foundation
        network = self.network.to(device).eval()
        with torch.no_grad(), autocast(device, dtype), counted(network) as passes:
            c = encode(f.condition.to(device), channels_last(array, device)).float() * f.condition_scale
            z = self.answer(network, c, seed)
        self.passes = passes[0]
        y = decode(f.psr.to(device), z.float() / f.latent_scale, dtype=dtype)
        return finished(y[0, 0], f.psr_range, mask)


def load_ldm(source: str | Path, *, sampler: str | None = None, steps: int | None = None) -> LatentBaseline:
    """The model of an ``ldm`` run, with its averaged weights.

    Args:
        source: run folder.
        sampler, steps: of :data:`DEMISTCore.diffusion.SAMPLERS`; None: :data:`SAMPLING`.

    Raises:
        InputError: no such run, no checkpoint yet, a run of another stage, or its foundation has changed.
    """
    from ..diffusion import SAMPLERS, NoiseSchedule, SeededNoise

    run, baseline = read_baseline(source, STAGE)
    model = baseline.foundation.model
    schedule = NoiseSchedule(**run.settings.schedule, prediction=model.backbone.prediction)
    plan: dict[str, Any] = {"sampler": sampler or SAMPLING["sampler"], "steps": steps or SAMPLING["steps"]}

    def answer(network: nn.Module, c: Tensor, seed: int) -> Tensor:
        noise = SeededNoise([seed])
        start = noise((1, model.psr.latent_channels, *c.shape[2:])).to(c.device)
        return SAMPLERS[plan["sampler"]](conditioned(network, c), start, schedule, plan["steps"], noise=noise)

    baseline.answer, baseline.settings = answer, plan
    return baseline


def conditioned(network: nn.Module, c: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The network with ``c`` beside every z_t: a model for the samplers.

    ``c`` (B, C, X, Y, Z) are scaled latents of the images.
    """
    import torch

    return lambda z, t: network(torch.cat([z, c.expand(len(z), -1, -1, -1, -1)], 1), t)


def read_baseline(source: str | Path, stage: str) -> tuple[Run, LatentBaseline]:
    """A run of ``stage`` and its network between its autoencoders, without an answer yet."""
    from ..errors import InputError
    from ..training.checkpoint import Run, part
    from ..training.foundation import load, read_foundation, read_scales
    from ..training.loop import frozen_hash

    run = Run.read(source)
    if run.stage != stage:
        raise InputError(f"{source} is a run of {run.stage}; give a run of {stage}.")
    foundation = read_foundation(run.foundation_source)
    scales = read_scales(run.folder)
    if scales["autoencoder"] != foundation.autoencoder_hash:
        raise InputError(f"{run.foundation} has changed since {run.folder} was trained on its latents; train it again.")
    from ..networks.limits import read_model

    model = read_model(run.settings.model)
    foundation = replace(
        foundation, model=model, latent_scale=scales["latent_scale"], condition_scale=scales["condition_scale"]
    )
    z, c = model.psr.latent_channels, model.condition.latent_channels
    network = build_latent_unet(model.backbone, c if stage == "vae" else z + c, z)
    load(network, part(run.weights(), "network"), source)
    network = network.requires_grad_(False).eval()
    digest = f"{frozen_hash(network)}-{foundation.autoencoder_hash}"
    return run, LatentBaseline(network, foundation, digest, lambda network, c, seed: c)
