"""The backbone: MONAI's diffusion U-Net over PSR latents, trained once and then frozen."""

from __future__ import annotations

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import nn

from .config import BackboneConfig


def backbone_arguments(cfg: BackboneConfig) -> dict[str, object]:
    """Return the arguments that the U-Net and its ControlNet copy have in common."""
    return {
        "spatial_dims": 3,
        "in_channels": cfg.latent_channels,
        "channels": cfg.channels,
        "attention_levels": cfg.attention_levels,
        "num_head_channels": cfg.heads,
        "num_res_blocks": cfg.num_res_blocks,
        "norm_num_groups": cfg.norm_groups,
        "norm_eps": cfg.norm_eps,
        "resblock_updown": cfg.resblock_updown,
        "with_conditioning": cfg.cross_attention_dim is not None,
        "cross_attention_dim": cfg.cross_attention_dim,
        "upcast_attention": cfg.upcast_attention,
        "include_fc": cfg.include_fc,
        "use_combined_linear": False,
        # Fused attention never writes the (positions x positions) matrix; the parameters are the same either way.
        "use_flash_attention": True,
    }


def build_backbone(cfg: BackboneConfig) -> DiffusionModelUNet:
    """Build the U-Net eps_theta: (z_t (B, C, x, y, z), t (B,)) to a prediction of z_t's shape.

    Latent extents must be multiples of `cfg.multiple`. Weights are laid out channels-last. One that concatenates its
    own context to the latent does so itself, and takes the latent alone.
    """
    if cfg.context_channels:
        from .brain_ldm import UNetConfig, build_unet

        return build_unet(UNetConfig.of_backbone(cfg))
    backbone = DiffusionModelUNet(out_channels=cfg.latent_channels, **backbone_arguments(cfg))  # type: ignore[arg-type]
    return backbone.to(memory_format=torch.channels_last_3d)


def freeze(module: nn.Module) -> nn.Module:
    """Switch off gradients and training behaviour, in place."""
    return module.requires_grad_(False).eval()
