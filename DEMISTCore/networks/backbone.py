"""The backbone: MONAI's diffusion U-Net over PSR latents, trained once and then frozen."""

from __future__ import annotations

from typing import TypeVar

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import nn

from .brain_ldm import UNetConfig, build_unet, unet_arguments
from .config import BackboneConfig

Net = TypeVar("Net", bound=nn.Module)


def build_backbone(cfg: BackboneConfig) -> DiffusionModelUNet:
    """Build the U-Net eps_theta: (z_t (B, C, x, y, z), t (B,)) to a prediction of z_t's shape.

    Latent extents must be multiples of `cfg.multiple`. Weights are laid out channels-last. One that concatenates its
    own context to the latent does so itself, and takes the latent alone.
    """
    shape = UNetConfig.of_backbone(cfg)
    if cfg.context_channels:
        return build_unet(shape)
    return DiffusionModelUNet(**unet_arguments(shape)).to(memory_format=torch.channels_last_3d)


def freeze(module: Net) -> Net:
    """Switch off gradients and training behaviour, in place."""
    module.requires_grad_(False).eval()
    return module
