"""The three conditioning streams, each a module of its own: semantic, spatial, adaptive.

Every stream adds exactly zero at initialisation, so training starts from the frozen backbone's own output.
"""

from __future__ import annotations

import math
import threading
from itertools import pairwise

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from monai.networks.nets import ControlNet
from monai.networks.nets.diffusion_model_unet import get_timestep_embedding
from torch import Tensor, nn

from .config import MeanConfig, StreamsConfig
from .wiring import Site

#: Wavelengths (latent voxels) of the position features: from a few voxels to beyond a head.
_WAVELENGTHS = (8.0, 16.0, 32.0, 64.0, 128.0)
POSITION_WIDTH = 3 * 2 * len(_WAVELENGTHS)


def positions(shape: tuple[int, ...], level: int = 0, offset: Tensor | None = None, device: object = None) -> Tensor:
    """Sine and cosine features of where each latent position lies, (B or 1, N, POSITION_WIDTH), float32.

    Coordinates are counted in latent voxels from the centre of the volume, not scaled by its size: a voxel keeps its
    meaning whatever the field of view. `offset` (B, 3) is the place of a crop's centre in its volume.
    """
    axes = []
    for n in shape:
        coordinate = (torch.arange(n >> level, device=device, dtype=torch.float32) + 0.5) * 2**level - n / 2
        axes.append(coordinate)
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(1, -1, 3)
    if offset is not None:
        grid = grid + offset.to(grid)[:, None]
    angle = grid[..., None] * (2 * math.pi / torch.tensor(_WAVELENGTHS, device=device))
    return torch.cat([angle.sin(), angle.cos()], -1).flatten(2)


def _heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, heads * d) -> (B, heads, N, d)."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


class TokenEncoder(nn.Module):
    """tau = TokenEncoder(c): K tokens that tell what is in the volume and, by position features, where.

    Two strided convolutions reduce c (B, Cc, x, y, z); K learned queries read the result by cross-attention (a
    Perceiver resampler, Jaegle et al. 2021, arXiv 2103.03206); transformer layers let the tokens talk. Any extents.
    """

    def __init__(self, channels: int, cfg: StreamsConfig | MeanConfig) -> None:
        super().__init__()
        width = cfg.token_width
        half = max(width // 2, 8)
        self.reduce = nn.Sequential(
            nn.Conv3d(channels, half, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv3d(half, width, 3, stride=2, padding=1),
            nn.SiLU(),
        )
        self.place = nn.Linear(POSITION_WIDTH, width)
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(1, cfg.tokens, width) / math.sqrt(width))
        self.heads = cfg.token_heads
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, cfg.token_heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(cfg.token_layers)
        )
        self.norm_out = nn.LayerNorm(width)

    def forward(self, c: Tensor, offset: Tensor | None = None) -> Tensor:
        """Return tokens (B, K, width)."""
        x = self.reduce(c)
        # The centre of reduced voxel i is latent voxel 4 i: features of the latent grid, taken there.
        where = positions(tuple(c.shape[2:]), 0, offset, c.device).unflatten(1, c.shape[2:])
        where = where[:, ::4, ::4, ::4].flatten(1, 3)
        x = self.norm(x.flatten(2).transpose(1, 2) + self.place(where.to(x.dtype)))
        key, value = (_heads(part, self.heads) for part in self.key_value(x).chunk(2, -1))
        queries = self.queries.to(key.dtype).expand(len(c), -1, -1)
        read = F.scaled_dot_product_attention(_heads(queries, self.heads), key, value)
        tokens = queries + self.out(read.transpose(1, 2).flatten(2))
        for layer in self.layers:
            tokens = layer(tokens)
        return self.norm_out(tokens)


class GatedCrossAttention(nn.Module):
    """tanh(alpha) W Attn(LN h + p, tau) (Alayrac et al. 2022, arXiv 2204.14198, eq. 4), with W = 0 at the start.

    There alpha = 0 at the start instead. Then one number decides, from what an untrained reader happens to say, whether
    the reader may learn: in a training of 1000 steps it stayed below 0.001, and the stream changed nothing.

    p places each query, so that a position can ask for the tokens about its own neighbourhood. Keys and values depend
    on the condition alone; `prepare` computes them (and p) once per volume.
    """

    def __init__(self, site: Site, token_width: int) -> None:
        super().__init__()
        self.site = site
        self.norm = nn.LayerNorm(site.width)
        self.to_q = nn.Linear(site.width, site.width, bias=False)
        self.place = nn.Linear(POSITION_WIDTH, site.width)
        self.to_k = nn.Linear(token_width, site.width, bias=False)
        self.to_v = nn.Linear(token_width, site.width, bias=False)
        self.out = nn.Linear(site.width, site.width)
        self.alpha = nn.Parameter(torch.ones(()))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def prepare(self, tokens: Tensor, where: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return keys and values (B, heads, K, d) of tokens (B, K, D), and placed offsets of the queries (., N, C)."""
        heads = self.site.heads
        return _heads(self.to_k(tokens), heads), _heads(self.to_v(tokens), heads), self.place(where.to(tokens.dtype))

    def forward(self, h: Tensor, prepared: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Return what to add to h (B, N, C)."""
        key, value, place = prepared
        query = _heads(self.to_q(self.norm(h)) + place, self.site.heads)
        read = F.scaled_dot_product_attention(query, key.to(query.dtype), value.to(query.dtype))
        return self.alpha.tanh() * self.out(read.transpose(1, 2).flatten(2))


class SemanticStream(nn.Module):
    """Gated cross-attention to the tokens, one per attention site of the backbone."""

    def __init__(self, sites: list[Site], cfg: StreamsConfig) -> None:
        super().__init__()
        self.index = {site.name: i for i, site in enumerate(sites)}
        self.attention = nn.ModuleList(GatedCrossAttention(site, cfg.token_width) for site in sites)

    def prepare(
        self, tokens: Tensor, shape: tuple[int, ...], offset: Tensor | None
    ) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
        """Keys, values and query places of every site, for tokens (B, K, D) of latents of extents `shape`."""
        levels = sorted({block.site.level for block in self.attention})
        where = {level: positions(shape, level, offset, tokens.device) for level in levels}
        return tuple(block.prepare(tokens, where[block.site.level]) for block in self.attention)


class Estimate(nn.Module):
    """What the condition alone says about z_0: c (B, Cc, x, y, z) -> (B, C, x, y, z), once per volume.

    Residual convolutions beside a linear path, dilated to see far around (a latent position is 4 voxels). No
    normalization: statistics over the field of view would take away the absolute intensity that PSR hangs on.
    """

    def __init__(self, condition_channels: int, channels: int, width: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.linear = nn.Conv3d(condition_channels, channels, 1)
        self.first = nn.Conv3d(condition_channels, width, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv3d(width, width, 3, padding=d, dilation=d) for d in dilations)
        self.last = nn.Conv3d(width, channels, 1)
        nn.init.zeros_(self.last.weight)

    def forward(self, c: Tensor) -> Tensor:
        """Return the estimate."""
        h = self.first(c)
        for layer in self.layers:
            h = h + layer(F.silu(h))
        return self.linear(c) + self.last(F.silu(h))


class Fusion(nn.Module):
    """How the direct estimate enters the prediction: gamma(t) p + a(t) z_t + b(t) z_hat, channel by channel.

    If z_0 given c is Gaussian about z_hat with variance s^2, the best prediction at z_t is linear in z_t and z_hat,
    with coefficients that depend on the time alone (v = (alpha z_t - x0) / sigma, x0 = z_hat + K (z_t - alpha z_hat),
    K = alpha s^2 / (alpha^2 s^2 + sigma^2)); gamma takes back what the backbone believed without c. All three are zero
    at the start.
    """

    def __init__(self, time_width: int, channels: int, hidden: int = 64) -> None:
        super().__init__()
        self.time_width = time_width
        self.layers = nn.Sequential(nn.Linear(time_width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.out = nn.Linear(hidden, 3 * channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, prediction: Tensor, z_t: Tensor, estimate: Tensor, t: Tensor) -> Tensor:
        """Return what to add to the backbone's prediction.

        ``prediction``, ``z_t``, ``estimate`` and the result are (B, C, X, Y, Z), ``t`` (B,).
        """
        time = get_timestep_embedding(t, self.time_width).to(self.out.weight.dtype)
        gates = self.out(self.layers(time))[..., None, None, None].chunk(3, 1)
        return sum(gate * part for gate, part in zip(gates, (prediction, z_t, estimate)))


class ControlStream(nn.Module):
    """r_i = ControlNet(z_t, t, c) (Zhang et al. 2023, arXiv 2302.05543): MONAI's, on an embedding made beforehand.

    c lies on the latent grid already, so its embedding needs no down-sampling; it is *not* zero at the start (only the
    output convolutions are), or its gradient would wait for theirs. The rest starts as a copy of the backbone's
    encoder.
    """

    def __init__(
        self, backbone: nn.Module, condition_channels: int, cfg: StreamsConfig, mean_channels: int | None = None
    ) -> None:
        super().__init__()
        channels = backbone.block_out_channels
        self.control = ControlNet(
            conditioning_embedding_in_channels=condition_channels,
            conditioning_embedding_num_channels=(8,),
            **_encoder_arguments(backbone),
        )
        # MONAI embeds the condition on every call; ours is embedded once per volume.
        self.control.controlnet_cond_embedding = nn.Identity()
        # A backbone that concatenates its own context to the latent (Brain LDM): its copy takes the same.
        self._with_context = getattr(backbone, "with_context", None)
        own = self.control.state_dict()
        own.update({k: v for k, v in backbone.state_dict().items() if k in own})
        self.control.load_state_dict(own)

        self.estimate: Estimate | None = None
        self.fusion: Fusion | None = None
        if mean_channels is None and cfg.estimate_width:
            self.estimate = Estimate(
                condition_channels, backbone.out_channels, cfg.estimate_width, cfg.estimate_dilations
            )
        if mean_channels is not None or self.estimate is not None:
            self.fusion = Fusion(channels[0], backbone.out_channels)
            condition_channels += backbone.out_channels + (mean_channels or 0)
        widths = (condition_channels, *cfg.control_channels)
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [Convolution(3, a, b, kernel_size=3, conv_only=True), nn.SiLU()]
        layers.append(Convolution(3, widths[-1], channels[0], kernel_size=3, conv_only=True))
        self.embedding = nn.Sequential(*layers)

        # Residuals in the skips speak to PSR only through a frozen decoder; one more at the output lets full-resolution
        # features of the condition say it directly. Zero at the start like the others.
        self.head = nn.Sequential(
            nn.GroupNorm(_groups(backbone), channels[0]),
            nn.SiLU(),
            Convolution(3, channels[0], 2 * channels[0], kernel_size=3, conv_only=True),
            nn.SiLU(),
            Convolution(3, 2 * channels[0], backbone.out_channels, kernel_size=1, padding=0, conv_only=True),
        )
        for parameter in self.head[-1].parameters():
            nn.init.zeros_(parameter)
        # conv_in, then one output per residual block: the last of them before the first down-sampling.
        self._last_fine = backbone.num_res_blocks[0]
        self.to(memory_format=torch.channels_last_3d)

    def embed(
        self, c: Tensor, estimate: Tensor | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Embed the condition, (B, Cc, x, y, z) -> (B, C0, x, y, z), and estimate z_0 from it (None: not built).

        With a mean network, its ``estimate`` and ``features`` on the latent's grid are given.
        """
        if estimate is None and self.estimate is not None:
            estimate = self.estimate(c)
        if estimate is None:
            return self.embedding(c), None
        parts = [c, estimate] if features is None else [c, estimate, features]
        return self.embedding(torch.cat([part.to(c.dtype) for part in parts], 1)), estimate

    def forward(
        self, z_t: Tensor, t: Tensor, embedded: Tensor, context: Tensor | None = None, labels: Tensor | None = None
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Residuals for the skips, for the middle and for the output; zero at the start.

        ``z_t`` (B, C, X, Y, Z), ``t`` (B,), ``embedded`` (B, width, X, Y, Z).
        """
        if self._with_context is not None:
            z_t, context = self._with_context(z_t, context)
        fine: list[Tensor] = []
        here = threading.get_ident()  # other threads may be in the same network

        def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if threading.get_ident() == here:
                fine.append(inputs[0])

        # MONAI's ControlNet returns what its zero convolutions made of the features; the head wants the features.
        tap = self.control.controlnet_down_blocks[self._last_fine].register_forward_pre_hook(keep)
        try:
            down, middle = self.control(z_t, t, embedded, context=context, class_labels=labels)
        finally:
            tap.remove()
        return down, middle, self.head(fine[0])


def _groups(backbone: nn.Module) -> int:
    return next(m for m in backbone.modules() if isinstance(m, nn.GroupNorm)).num_groups


def _encoder_arguments(backbone: nn.Module) -> dict[str, object]:
    """Read back from a MONAI U-Net what its ControlNet copy must share."""
    attention = next(m for m in backbone.middle_block.modules() if hasattr(m, "use_flash_attention"))
    transformer = getattr(backbone.middle_block.attention, "transformer_blocks", None)
    norm = next(m for m in backbone.modules() if isinstance(m, nn.GroupNorm))
    classes = getattr(backbone, "class_embedding", None)
    return {
        "spatial_dims": 3,
        "in_channels": backbone.in_channels,
        "channels": backbone.block_out_channels,
        "num_res_blocks": backbone.num_res_blocks,
        "attention_levels": backbone.attention_levels,
        "num_head_channels": backbone.num_head_channels,
        "norm_num_groups": norm.num_groups,
        "norm_eps": norm.eps,
        "resblock_updown": any(getattr(block, "resblock_updown", False) for block in backbone.down_blocks),
        "with_conditioning": backbone.with_conditioning,
        "transformer_num_layers": len(transformer) if transformer is not None else 1,
        "cross_attention_dim": transformer[0].attn2.context_input_size if transformer is not None else None,
        "num_class_embeds": classes.num_embeddings if classes is not None else None,
        "upcast_attention": attention.attention_dtype is not None,
        "include_fc": attention.include_fc,
        "use_combined_linear": attention.use_combined_linear,
        "use_flash_attention": attention.use_flash_attention,
    }


class AdaptiveStream(nn.Module):
    """dW = g(t, mean tau) B A on every attention projection (LoRA, Hu et al. 2021, arXiv 2106.09685), B = 0 first.

    g is a small network with one output per projection, 1 + tanh(.), equal to 1 at the start: the adaptation follows
    the time step (coarse shape early, detail late) and the condition.
    """

    def __init__(
        self, sites: list[Site], time_width: int, cfg: StreamsConfig, knowledge_width: int | None = None
    ) -> None:
        super().__init__()
        self.index = {site.name: i for i, site in enumerate(sites)}
        rank = cfg.lora_rank
        self.down = nn.ParameterList(torch.randn(rank, site.width) / math.sqrt(site.width) for site in sites)
        self.up = nn.ParameterList(torch.zeros(site.out, rank) for site in sites)
        self.time_width = time_width
        self.time = nn.Linear(time_width, cfg.gate_width)
        # With a mean network the gate follows what that knows of the whole scan, else the mean token.
        self.token = nn.Linear(knowledge_width or cfg.token_width, cfg.gate_width)
        self.gate_out = nn.Linear(cfg.gate_width, len(sites))
        nn.init.zeros_(self.gate_out.weight)
        nn.init.zeros_(self.gate_out.bias)

    def gate(self, t: Tensor, mean_token: Tensor) -> Tensor:
        """g(t, mean tau): t (B,), mean_token (B, D) -> (B, projections), in (0, 2)."""
        own = self.time.weight.dtype
        time = get_timestep_embedding(t, self.time_width).to(own)
        hidden = self.time(time) + self.token(mean_token.to(own))
        return 1 + self.gate_out(F.silu(hidden)).tanh()

    def forward(self, site: str, x: Tensor, gate: Tensor) -> Tensor:
        """Return g B A x at `site`: x (B, N, width) -> (B, N, out); `gate` as `gate()` returns it."""
        i = self.index[site]
        low = F.linear(x, self.down[i])
        return F.linear(low * gate[:, i, None, None].to(low.dtype), self.up[i])
