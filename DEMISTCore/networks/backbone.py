"""The backbone: MONAI's diffusion U-Net over PSR latents, trained once and then frozen."""

from __future__ import annotations

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import nn

from .config import BackboneConfig


def backbone_arguments(cfg: BackboneConfig) -> dict[str, object]:
    """Return the arguments that the U-Net and its ControlNet copy have in common."""
    levels = (*cfg.attention_levels[:-1], True)  # the middle block always attends, with the last level's heads
    return {
        "spatial_dims": 3,
        "in_channels": cfg.latent_channels,
        "channels": cfg.channels,
        "attention_levels": cfg.attention_levels,
        "num_head_channels": tuple(cfg.head_channels if on else 0 for on in levels),
        "num_res_blocks": cfg.num_res_blocks,
        "norm_num_groups": cfg.norm_groups,
        "norm_eps": cfg.norm_eps,
        "with_conditioning": cfg.cross_attention_dim is not None,
        "cross_attention_dim": cfg.cross_attention_dim,
        "include_fc": cfg.include_fc,
        "use_combined_linear": False,
        # Fused attention never writes the (positions x positions) matrix; the parameters are the same either way.
        "use_flash_attention": True,
    }


def build_backbone(cfg: BackboneConfig) -> DiffusionModelUNet:
    """Build the U-Net eps_theta: (z_t (B, C, x, y, z), t (B,)) to a prediction of z_t's shape.

    Latent extents must be multiples of `cfg.multiple`. Weights are laid out channels-last.
    """
    backbone = DiffusionModelUNet(out_channels=cfg.latent_channels, **backbone_arguments(cfg))  # type: ignore[arg-type]
    return backbone.to(memory_format=torch.channels_last_3d)


def freeze(module: nn.Module) -> nn.Module:
    """Switch off gradients and training behaviour, in place."""
    return module.requires_grad_(False).eval()
