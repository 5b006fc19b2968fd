"""Brain LDM's networks (Pinaya et al. 2022, arXiv 2209.07162): a VAE and a conditional diffusion U-Net.

Both are MONAI's, in the published shapes: a checkpoint's names and tensors are theirs. The U-Net is told the same
4-vector twice, as constant channels beside the latent and as the context of its cross-attention.

>>> unet = build_unet(BRAIN_LDM_UNET)                                  # doctest: +SKIP
>>> noise = unet(z, t, context)  # z (B, 3, x, y, z), context (B, 1, 4)  # doctest: +SKIP
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor

from .config import AutoencoderConfig, BackboneConfig, _Config

#: The four conditions in the order in which the published configuration feeds them.
CONDITIONS = ("sex", "age", "ventricular_volume", "brain_volume")


@dataclass(frozen=True)
class UNetConfig(_Config):
    """Shape of a published diffusion U-Net over latents (B, in_channels, x, y, z).

    ``head_channels`` has one entry per level (0 where there is no attention). ``cross_attention_dim`` is the width of
    its own context; a network without one attends to itself only. ``in_channels`` counts the channels of the context
    that are concatenated to the latent as well.
    """

    in_channels: int
    out_channels: int
    channels: tuple[int, ...]
    attention_levels: tuple[bool, ...]
    head_channels: tuple[int, ...]
    num_res_blocks: int = 2
    norm_groups: int = 32
    norm_eps: float = 1e-6
    resblock_updown: bool = False
    transformer_layers: int = 1
    cross_attention_dim: int | None = None
    upcast_attention: bool = False
    include_fc: bool = True

    def __post_init__(self) -> None:
        if not len(self.channels) == len(self.attention_levels) == len(self.head_channels):
            raise ValueError("channels, attention_levels and head_channels need one entry per level each.")

    @property
    def multiple(self) -> int:
        """Every latent extent must be a multiple of this: one halving per level but the last."""
        return 2 ** (len(self.channels) - 1)

    @classmethod
    def of_backbone(cls, cfg: BackboneConfig) -> UNetConfig:
        """The same network as :func:`.backbone.build_backbone` builds."""
        return cls(
            cfg.latent_channels + cfg.context_channels,
            cfg.latent_channels,
            cfg.channels,
            cfg.attention_levels,
            cfg.heads,
            cfg.num_res_blocks,
            cfg.norm_groups,
            cfg.norm_eps,
            cfg.resblock_updown,
            cross_attention_dim=cfg.cross_attention_dim,
            upcast_attention=cfg.upcast_attention,
            include_fc=cfg.include_fc,
        )


BRAIN_LDM_VAE = AutoencoderConfig(1, 1, 3, (64, 128, 128, 128), num_res_blocks=2, norm="group", norm_groups=32)
BRAIN_LDM_UNET = UNetConfig(
    in_channels=7,
    out_channels=3,
    channels=(256, 512, 768),
    attention_levels=(False, True, True),
    head_channels=(0, 512, 768),
    resblock_updown=True,
    cross_attention_dim=4,
    upcast_attention=True,
)


def unet_arguments(cfg: UNetConfig) -> dict[str, Any]:
    """What MONAI's diffusion U-Net is built with."""
    return {
        "spatial_dims": 3,
        "in_channels": cfg.in_channels,
        "out_channels": cfg.out_channels,
        "channels": cfg.channels,
        "num_res_blocks": cfg.num_res_blocks,
        "attention_levels": cfg.attention_levels,
        "num_head_channels": cfg.head_channels,
        "norm_num_groups": cfg.norm_groups,
        "norm_eps": cfg.norm_eps,
        "resblock_updown": cfg.resblock_updown,
        "with_conditioning": cfg.cross_attention_dim is not None,
        "transformer_num_layers": cfg.transformer_layers,
        "cross_attention_dim": cfg.cross_attention_dim,
        "upcast_attention": cfg.upcast_attention,
        "include_fc": cfg.include_fc,
        "use_combined_linear": False,
        # Fused attention never writes the (positions x positions) matrix; the parameters are the same either way.
        "use_flash_attention": True,
    }


class LatentUNet(DiffusionModelUNet):
    """MONAI's diffusion U-Net, which concatenates its context to the latent itself where it was built for that.

    Names and tensors of its state dict are MONAI's.

    Attributes:
        latent_channels: channels of z; ``in_channels`` less the concatenated ones.
        neutral: the context used where none is given, one number per entry.
    """

    def __init__(self, cfg: UNetConfig) -> None:
        super().__init__(**unet_arguments(cfg))
        self.latent_channels = cfg.out_channels
        self.neutral = (0.5,) * (cfg.cross_attention_dim or 0)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        class_labels: Tensor | None = None,
        down_block_additional_residuals: tuple[Tensor, ...] | None = None,
        mid_block_additional_residual: Tensor | None = None,
    ) -> Tensor:
        """Predict from z (B, latent_channels, x, y, z), or from z with the context concatenated already.

        Args:
            x: noisy latent; extents must be multiples of 2 per level but the last.
            timesteps: (B,).
            context: (B, 1, width), or (1, 1, width) for all; None takes ``neutral``.
            class_labels, down_block_additional_residuals, mid_block_additional_residual: see MONAI.
        """
        x, context = self.with_context(x, context)
        return super().forward(
            x, timesteps, context, class_labels, down_block_additional_residuals, mid_block_additional_residual
        )

    def with_context(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(x with the concatenated channels it lacks, context for each sample).

        ``x`` (B, C, X, Y, Z), ``context`` (B or 1, 1, width).
        """
        if not self.with_conditioning:
            return x, context
        if context is None:
            context = torch.tensor(self.neutral, device=x.device, dtype=x.dtype)[None, None]
        context = context.to(x).expand(len(x), -1, -1)
        if x.shape[1] == self.latent_channels != self.in_channels:
            channels = context.flatten(1)[..., None, None, None].expand(-1, -1, *x.shape[2:])
            x = torch.cat([x, channels], 1)
        return x, context


def build_unet(cfg: UNetConfig) -> LatentUNet:
    """Build the U-Net; weights are laid out channels-last, the faster order on a CPU."""
    return LatentUNet(cfg).to(memory_format=torch.channels_last_3d)
