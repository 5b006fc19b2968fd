"""The two 3-D KL autoencoders: MONAI's, with a normalization that looks at one position only."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from monai.networks.nets import AutoencoderKL
from torch import Tensor, nn

from .config import AutoencoderConfig


class ChannelNorm(nn.Module):
    """Layer normalization over the channels of each position, with a learned scale and shift per channel.

    GroupNorm takes its statistics over the whole field of view, so a tile decodes differently from the volume it was
    cut from. Here nothing but the convolutions couples positions: patch training and tiled decoding agree with the
    whole volume. Input and output (B, C, X, Y, Z); free of copies when the memory format is channels_last_3d.
    """

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise; statistics are accumulated in float32 whatever the input's type."""
        # Autocast on a GPU would turn the full-resolution activations to float32; the kernel does that inside.
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            weight, bias = self.weight, self.bias
            if x.is_cuda:
                weight, bias = weight.to(x.dtype), bias.to(x.dtype)
            y = F.layer_norm(x.movedim(1, -1), (x.shape[1],), weight, bias, self.eps)
        return y.movedim(-1, 1)

    def extra_repr(self) -> str:
        """Show width and eps in the module's repr."""
        return f"{self.weight.numel()}, eps={self.eps}"


def fold_voxels(x: Tensor, edge: int) -> Tensor:
    """Fold blocks of ``edge``^3 voxels into channels: (B, C, X, Y, Z) -> (B, C edge^3, X/edge, Y/edge, Z/edge).

    The 3-D form of sub-pixel convolution's inverse (Shi et al., CVPR 2016).
    """
    pattern = "b c (x i) (y j) (z k) -> b (c i j k) x y z"
    return rearrange(x, pattern, i=edge, j=edge, k=edge).contiguous(memory_format=torch.channels_last_3d)


def unfold_voxels(x: Tensor, edge: int) -> Tensor:
    """The way back of :func:`fold_voxels`. (B, C edge^3, X, Y, Z) -> (B, C, X edge, Y edge, Z edge)."""
    return rearrange(x, "b (c i j k) x y z -> b c (x i) (y j) (z k)", i=edge, j=edge, k=edge)


class Shortcut(nn.Module):
    """Linear code of blocks of ``edge``^3 voxels, (B, C, X, Y, Z) -> (B, L, X/edge, Y/edge, Z/edge), and back.

    It starts as the block's L / C lowest frequencies of the orthonormal discrete cosine transform (Ahmed et al., IEEE
    Trans Comput C-23:90, 1974), each image channel for itself. The energy of anatomy falls about as
    1 / (1 + 3 k^2) with frequency k; each frequency is scaled by the root of that, half-way to equal variances.
    """

    def __init__(self, channels: int, latent_channels: int, edge: int) -> None:
        super().__init__()
        self.edge = edge
        size = channels * edge**3
        self.to_latent = nn.Conv3d(size, latent_channels, 1, bias=False)
        self.to_image = nn.Conv3d(latent_channels, size, 1)
        if self.to_latent.weight.is_meta:
            return  # laid out to look at its shapes: there are no values to set
        # On the CPU whatever device the network is made on.
        position, frequency = torch.arange(edge, device="cpu") + 0.5, torch.arange(edge, device="cpu")
        basis = torch.cos(torch.pi / edge * frequency[:, None] * position) * (2 / edge) ** 0.5
        basis[0] *= 0.5**0.5
        block = torch.einsum("ax,by,cz->abcxyz", basis, basis, basis).reshape(edge**3, edge**3)
        square = (frequency[:, None, None] ** 2 + frequency[:, None] ** 2 + frequency**2).flatten()
        order = torch.sort(square, stable=True).indices
        with torch.no_grad():
            self.to_latent.weight.zero_()
            self.to_image.weight.zero_()
            self.to_image.bias.zero_()
            for row in range(latent_channels):
                channel, index = row % channels, row // channels
                if index >= edge**3:
                    break
                gain = (1 + 3 * float(square[order[index]])) ** 0.5
                columns = slice(channel * edge**3, (channel + 1) * edge**3)
                wave = block[order[index]].to(self.to_latent.weight.device)
                self.to_latent.weight[row, columns, 0, 0, 0] = wave * gain
                self.to_image.weight[columns, row, 0, 0, 0] = wave / gain

    def encode(self, x: Tensor) -> Tensor:
        """Image to latent."""
        return self.to_latent(fold_voxels(x, self.edge))

    def decode(self, z: Tensor) -> Tensor:
        """Latent to image."""
        return unfold_voxels(self.to_image(z), self.edge)


class FoldedAutoencoderKL(AutoencoderKL):
    """MONAI's autoencoder on folded voxel blocks, with a linear shortcut (see :class:`AutoencoderConfig`)."""

    def __init__(self, *args: Any, fold: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fold = fold
        self.shortcut: Shortcut | None = None

    @property
    def factor(self) -> int:
        """Down-sampling factor of the latent."""
        return self.fold * 2 ** (len(self.encoder.channels) - 1)

    def add_shortcut(self, shortcut: Shortcut) -> None:
        """Start as the linear code alone: what MONAI's networks add to it is zero, the latent's noise small."""
        self.shortcut = shortcut
        for convolution, bias in (
            (self.quant_conv_mu.conv, 0.0),
            # log variance: a standard deviation of 0.03 against latents of order 0.2 to 1
            (self.quant_conv_log_sigma.conv, -7.0),
            (self.decoder.blocks[-1].conv, 0.0),
        ):
            nn.init.zeros_(convolution.weight)
            nn.init.constant_(convolution.bias, bias)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, X, Y, Z) to mean and standard deviation of the latent."""
        mu, sigma = super().encode(fold_voxels(x, self.fold) if self.fold > 1 else x)
        return (mu if self.shortcut is None else mu + self.shortcut.encode(x)), sigma

    def decode(self, z: Tensor) -> Tensor:
        """Latent to (B, C, X, Y, Z)."""
        x = super().decode(z)
        x = unfold_voxels(x, self.fold) if self.fold > 1 else x
        return x if self.shortcut is None else x + self.shortcut.decode(z)


def _swap_group_norms(module: nn.Module) -> None:
    """Replace each GroupNorm by a ChannelNorm of the same width: same parameter names, same shapes."""
    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(module, name, ChannelNorm(child.num_channels, child.eps))
        else:
            _swap_group_norms(child)


def build_autoencoder(cfg: AutoencoderConfig) -> FoldedAutoencoderKL:
    """Build a KL autoencoder (Rombach et al. 2022, arXiv 2112.10752; Pinaya et al. 2022, arXiv 2209.07162).

    `.encode(x) -> (mu, sigma)` and `.decode(z) -> x` are MONAI's; image extents must be multiples of `cfg.factor`.
    Convolution weights are laid out channels-last, the faster order on a CPU; give it channels-last volumes too.
    """
    autoencoder = FoldedAutoencoderKL(
        fold=cfg.fold,
        spatial_dims=3,
        in_channels=cfg.in_channels * cfg.fold**3,
        out_channels=cfg.out_channels * cfg.fold**3,
        latent_channels=cfg.latent_channels,
        channels=cfg.channels,
        num_res_blocks=cfg.num_res_blocks,
        attention_levels=(False,) * len(cfg.channels),
        norm_num_groups=cfg.norm_groups,
        norm_eps=cfg.norm_eps,
        with_encoder_nonlocal_attn=False,
        with_decoder_nonlocal_attn=False,
        include_fc=False,
    )
    if cfg.norm == "channel":
        _swap_group_norms(autoencoder)
    if cfg.shortcut:
        autoencoder.add_shortcut(Shortcut(cfg.in_channels, cfg.latent_channels, cfg.factor))
    return autoencoder.to(memory_format=torch.channels_last_3d)


def sample_latent(mu: Tensor, sigma: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw z ~ N(mu, sigma^2) by reparametrisation; noise comes from the CPU, so a seed means the same everywhere.

    All of one shape, (B, C, X, Y, Z).
    """
    noise = torch.randn(mu.shape, generator=generator, dtype=torch.float32).to(mu.device)
    return mu + sigma * noise.to(mu.dtype)


def encode(
    autoencoder: FoldedAutoencoderKL, x: Tensor, sample: bool = False, generator: torch.Generator | None = None
) -> Tensor:
    """Encode (B, C, X, Y, Z) to the latent's mean, or to one sample of it (B, L, X/f, Y/f, Z/f).

    Raises:
        ValueError: if an extent is not a multiple of the down-sampling factor.
    """
    factor = autoencoder.factor
    if any(n % factor for n in x.shape[2:]):
        raise ValueError(f"Volume of {tuple(x.shape[2:])} voxels: each extent must be a multiple of {factor}.")
    mu, sigma = autoencoder.encode(x)
    return sample_latent(mu, sigma, generator) if sample else mu
