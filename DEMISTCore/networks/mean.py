"""The posterior mean: what T1w and FLAIR together say of PSR, in one pass, with how sure that is.

    tau = TokenEncoder(c)                      semantic: tokens of the whole volume, with places
    g   = Knowledge(histograms, protocol)      adaptive: one vector for the whole scan
    y_0, s_0 = Local(x, wide(x); d)            all three: what a voxel's surroundings say, fitted first
    h, e = Guide(x; tau, g)                    spatial: features at two voxels and at the latent's grid
    z_hat = W e                                what the scans say of z_0
    y_hat  = y_0 + D(z_hat, h, e; g, x)        the mean: and what that misses
    log s  = log s_0 + S(h', y_hat, x; g)      its local standard deviation, from D's features h', all detached

A latent of 4 mm cannot hold a sulcus. The decoder therefore sees the scans at their own resolution beside the latent,
as the asymmetric VQGAN does (Zhu et al., arXiv 2306.04632). The mean first and the diffusion from there is the order of
posterior-mean rectified flow (Ohayon et al., ICLR 2025, arXiv 2410.00418): the mean has the lowest error that any map
can have. A sample z of the diffusion model is the map y_hat + D_y(z) - D_y(z_hat), with D_y the PSR autoencoder's
decoder: the mean, and what sets the sample apart from it.

Each stream knows something that the others do not. The guide sees some 30 mm around, without absolute place: detail.
What reads the whole volume (tokens, and the wide features of :mod:`.local`) knows what is usual *here*. The vector g
knows the scanner: scale and contrast. Each can be switched off, and the tokens left out altogether (``semantic`` of
:class:`.config.MeanConfig`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import filters
from .autoencoder import ChannelNorm, fold_voxels, unfold_voxels
from .config import MeanConfig
from .knowledge import Bend, Knowledge
from .local import Local
from .streams import GatedCrossAttention, TokenEncoder, positions
from .wiring import Site

FOLD = 2


@dataclass(frozen=True)
class Seen:
    """What the scans alone give, computed once per volume.

    ``folded`` are the scans in blocks of two voxels; ``fine`` lists features from two voxels down to the level above
    the latent's grid; ``coarse`` (B, C, x, y, z) lies on it, like ``estimate`` (B, Cz, x, y, z), what the scans say of
    the scaled z_0. ``tokens`` (B, K, D), ``knowledge`` (B, W) and ``known``, what that was made from, are None for
    streams that are off. ``keep`` as in :class:`.demist.Condition`. ``scan`` (B, 2, X, Y, Z), ``wide`` and ``on``
    (semantic and spatial stream) are what :mod:`.local` needs.
    """

    folded: Tensor
    fine: tuple[Tensor, ...]
    coarse: Tensor
    estimate: Tensor
    tokens: Tensor | None
    knowledge: Tensor | None
    known: Tensor | None
    scan: Tensor
    wide: Tensor
    on: tuple[bool, bool]
    keep: dict[str, Tensor]


class Block(nn.Module):
    """h + conv(silu(conv(silu(norm(bent h))))), the second convolution zero at the start.

    The norm looks at the channels of one position (:class:`.autoencoder.ChannelNorm`), so nothing depends on the field
    of view. The trunk has none, but whoever reads it does: without, it grew until what read it was dead.
    """

    def __init__(self, channels: int, cfg: MeanConfig) -> None:
        super().__init__()
        self.bend = Bend(channels, cfg.knowledge_width, cfg.bend_rank)
        self.norm = ChannelNorm(channels)
        self.first = nn.Conv3d(channels, channels, 3, padding=1)
        self.second = nn.Conv3d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, h: Tensor, knowledge: Tensor | None, keep: Tensor | None) -> Tensor:
        """Return features of the same shape; ``knowledge`` None: not bent."""
        bent = h if knowledge is None else self.bend(h, knowledge, keep)
        return bent + self.second(F.silu(self.first(F.silu(self.norm(bent)))))


def _blocks(count: int, channels: int, cfg: MeanConfig) -> nn.ModuleList:
    return nn.ModuleList(Block(channels, cfg) for _ in range(count))


class Guide(nn.Module):
    """x (B, 2, X, Y, Z) to features at every level, two voxels first; the last lies on the latent's grid.

    Strided by folding (no voxel is skipped). Semantic tokens are read at the coarsest level, between the blocks.
    """

    def __init__(self, cfg: MeanConfig, latent_channels: int) -> None:
        super().__init__()
        widths = cfg.channels
        self.first = nn.Conv3d(2 * FOLD**3, widths[0], 3, padding=1)
        self.levels = nn.ModuleList(_blocks(n, w, cfg) for n, w in zip(cfg.blocks, widths))
        self.norms = nn.ModuleList(map(ChannelNorm, widths))
        self.down = nn.ModuleList(nn.Conv3d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.to_latent = nn.Conv3d(widths[-1], latent_channels, 1)


class DeviationHead(nn.Module):
    """log s from the decoder's features, the mean and the scans, less log s_0: (B, 1, X, Y, Z).

    Noise, blur and lesions make an error likely over some centimetres, tissue borders over a voxel: hence two levels.
    All that it reads is detached: how sure the mean is must not change the mean.
    """

    def __init__(self, cfg: MeanConfig) -> None:
        super().__init__()
        fine, coarse = cfg.spread_channels
        self.first = nn.Conv3d(cfg.channels[0] + 3 * FOLD**3, fine, 3, padding=1)
        self.fine = Block(fine, cfg)
        self.down = nn.Conv3d(fine, coarse, 2, stride=2)
        self.coarse = _blocks(2, coarse, cfg)
        self.up = nn.Conv3d(coarse, fine * 8, 1)
        self.norm = ChannelNorm(fine)
        self.last = nn.Conv3d(fine, FOLD**3, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, h: Tensor, image: Tensor, seen: Seen) -> Tensor:
        """``h``: features at two voxels; ``image``: the mean."""
        keep = seen.keep.get("adaptive")
        knowledge = None if seen.knowledge is None else seen.knowledge.detach()
        s = self.first(torch.cat([h, fold_voxels(image, FOLD).to(h.dtype), seen.folded.to(h.dtype)], 1).detach())
        wide = self.down(F.silu(s))
        for block in self.coarse:
            wide = block(wide, knowledge, keep)
        s = self.fine(s + unfold_voxels(self.up(F.silu(wide)), 2), knowledge, keep)
        return unfold_voxels(self.last(F.silu(self.norm(s))), FOLD)


class GuidedDecoder(nn.Module):
    """D(z_hat, h, e; g, x): latent, and what the scans show, to PSR and the logarithm of its local standard deviation.

    Both in units of the PSR range, (B, 1, X, Y, Z). The mean starts as :mod:`.local`'s, and all else at 0; ``direct``
    sees two voxels to each side, the shortest way from scan to PSR.
    """

    def __init__(self, cfg: MeanConfig, latent_channels: int) -> None:
        super().__init__()
        widths = cfg.channels
        self.local = Local(cfg.local_width)
        self.first = nn.Conv3d(latent_channels + widths[-1], widths[-1], 1)
        self.levels = nn.ModuleList(_blocks(n, w, cfg) for n, w in zip(cfg.decoder_blocks, widths))
        self.norms = nn.ModuleList(map(ChannelNorm, widths))
        self.up = nn.ModuleList(nn.Conv3d(b, a * 8, 1) for a, b in pairwise(widths))
        self.join = nn.ModuleList(nn.Conv3d(2 * a, a, 1) for a in widths[:-1])
        self.last = nn.Conv3d(widths[0], FOLD**3, 3, padding=1)
        self.direct = nn.Sequential(
            nn.Conv3d(2 * FOLD**3, widths[0], 3, padding=1), nn.SiLU(), nn.Conv3d(widths[0], FOLD**3, 1)
        )
        self.spread = DeviationHead(cfg)
        for layer in (self.last, self.direct[-1]):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, seen: Seen) -> tuple[Tensor, Tensor]:
        """Return (PSR, log standard deviation)."""
        z, keep = seen.estimate, seen.keep.get("adaptive")
        h = self.first(torch.cat([z, seen.coarse.to(z.dtype)], 1))
        for block in self.levels[-1]:
            h = block(h, seen.knowledge, keep)
        for i in reversed(range(len(self.up))):
            h = unfold_voxels(self.up[i](F.silu(self.norms[i + 1](h))), 2)
            h = self.join[i](torch.cat([h, seen.fine[i].to(h.dtype)], 1))
            for block in self.levels[i]:
                h = block(h, seen.knowledge, keep)
        h = F.silu(self.norms[0](h))
        image = unfold_voxels(self.last(h) + self.direct(seen.folded), FOLD)
        local, sure = self.local(seen.scan, seen.wide, seen.known, *seen.on, keep=seen.keep)
        image = image + local
        return image, sure + self.spread(h, image, seen)


class PosteriorMean(nn.Module):
    """See the module's text.

    Args:
        cfg: sizes.
        latent_channels, condition_channels: of z and of c.
        factor: voxels per latent position, a power of two of at least 4.
    """

    def __init__(self, cfg: MeanConfig, latent_channels: int, condition_channels: int, factor: int) -> None:
        super().__init__()
        own = FOLD * 2 ** (len(cfg.channels) - 1)
        if factor != own:
            raise ValueError(
                f"The mean network has {len(cfg.channels)} levels, for latents of {own} voxels, and the autoencoders' "
                f"are of {factor}."
            )
        self.cfg, self.factor = cfg, factor
        site = Site("guide", cfg.channels[-1], cfg.channels[-1], 0, cfg.token_heads, volume=True)
        if cfg.semantic:
            self.tokens = TokenEncoder(condition_channels, cfg)
            self.semantic = nn.ModuleList(GatedCrossAttention(site, cfg.token_width) for _ in range(cfg.blocks[-1]))
        self.knowledge = Knowledge(cfg.knowledge_width)
        self.guide = Guide(cfg, latent_channels)
        self.decoder = GuidedDecoder(cfg, latent_channels)
        self.to(memory_format=torch.channels_last_3d)

    def see(
        self,
        x: Tensor,
        c: Tensor | Sequence[Tensor] | None,
        known: Tensor,
        *,
        semantic: bool = True,
        spatial: bool = True,
        adaptive: bool = True,
        offset: Tensor | None = None,
        keep: dict[str, Tensor] | None = None,
        wide: Tensor | None = None,
    ) -> Seen:
        """All that the scans alone say.

        Args:
            x: T1w and FLAIR, (B, 2, X, Y, Z): whole volumes or crops; extents are multiples of ``factor``.
            c: scaled condition latents of the *whole* volumes, (B, Cc, ...), or one (1, Cc, ...) each; None
                where the network has no tokens.
            known: (B, KNOWN_WIDTH), :func:`.knowledge.describe` and the protocol.
            semantic, spatial, adaptive: switches. Without the spatial stream the guide sees nothing of x.
            offset: (B, 3), for crops: the crop's centre minus the volume's, in latent positions.
            keep: by stream, (B,) of 0 and 1: dropout sample by sample.
            wide: for crops: :func:`.filters.wide` of their volumes, at the crops.
        """
        keep = keep or {}
        tokens = None
        if semantic and self.cfg.semantic:
            tokens = self.tokens(c) if isinstance(c, Tensor) else torch.cat([self.tokens(one) for one in c or ()])
        knowledge = self.knowledge(known) if adaptive else None
        kept = keep.get("adaptive")
        coarse = filters.wide(x) if wide is None else wide
        scan, on = x, (semantic, spatial)
        if not spatial:
            x = torch.zeros_like(x)
        elif "spatial" in keep:
            x = x * keep["spatial"].to(x)[:, None, None, None, None]
        folded = fold_voxels(x, FOLD)
        h = self.guide.first(folded)
        fine: list[Tensor] = []
        for level, blocks in enumerate(self.guide.levels):
            last = level == len(self.guide.levels) - 1
            where = None
            if last and tokens is not None:
                where = positions(tuple(h.shape[2:]), 0, offset, h.device)
            for i, block in enumerate(blocks):
                h = block(h, knowledge, kept)
                if where is not None:
                    attend = self.semantic[i]
                    flat = h.flatten(2).transpose(1, 2)
                    delta = attend(flat, attend.prepare(tokens, where)).transpose(1, 2).reshape(h.shape)
                    if "semantic" in keep:
                        delta = delta * keep["semantic"].to(delta)[:, None, None, None, None]
                    h = (h + delta.to(h.dtype)).contiguous(memory_format=torch.channels_last_3d)
            read = self.guide.norms[level](h)
            if not last:
                fine.append(read)
                h = self.guide.down[level](F.silu(read))
        latent = self.guide.to_latent(F.silu(read))
        told = known if adaptive else None
        return Seen(folded, tuple(fine), read, latent, tokens, knowledge, told, scan, coarse, on, dict(keep))

    def decode(self, seen: Seen) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, two (B, 1, X, Y, Z) in units of the PSR range, float32."""
        image, log_sd = self.decoder(seen)
        return image.float(), log_sd.float()

    def stream_of(self, name: str) -> str:
        """Which stream a parameter belongs to."""
        if name.startswith(("tokens.", "semantic.")):
            return "semantic"
        if name.startswith("decoder.local."):
            return self.decoder.local.stream_of(name.removeprefix("decoder.local."))
        adaptive = name.startswith("knowledge.") or ".bend." in name
        return "adaptive" if adaptive else "spatial"
