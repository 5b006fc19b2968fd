"""Shapes of the networks as plain data: what a bundle's JSON holds, and the presets.

No torch here, so that command lines can list presets and check overrides without loading it.

>>> small = PRESETS["small"]
>>> small.psr.factor, small.backbone.multiple, small.multiple
(4, 4, 16)
>>> ModelConfig.from_dict(small.to_dict()) == small
True
"""

from __future__ import annotations

import typing
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any

#: PSR (a fraction, white matter about 0.12) is divided by this before the PSR autoencoder sees it,
#: and multiplied after decoding, so that the network works on values of order one.
PSR_RANGE = 0.2


_C = typing.TypeVar("_C", bound="_Config")


class _Config:
    """Round trip to plain dictionaries; a key nobody knows is an error, never silently dropped."""

    def to_dict(self) -> dict[str, Any]:
        """Return nested dictionaries, lists, numbers, strings: ready for JSON or YAML."""
        return _plain(asdict(self))  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls: type[_C], values: dict[str, Any]) -> _C:
        """Build from `to_dict`'s output.

        Raises:
            ValueError: on a key that this configuration does not have, or one that it needs and misses.
        """
        hints = typing.get_type_hints(cls)
        known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"{cls.__name__} has no {', '.join(unknown)}; it has {', '.join(sorted(known))}.")
        kwargs = {}
        for name, value in values.items():
            options = (hints[name], *typing.get_args(hints[name]))
            hint = next(
                (h for h in options if is_dataclass(h) and isinstance(h, type) and issubclass(h, _Config)), None
            )
            if hint is not None and isinstance(value, dict):
                value = hint.from_dict(value)
            elif isinstance(value, list):
                value = tuple(value)
            kwargs[name] = value
        try:
            return cls(**kwargs)
        except TypeError as error:
            raise ValueError(f"{cls.__name__}: {error}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def _per_level(name: str, values: tuple, channels: tuple[int, ...]) -> None:
    if len(values) != len(channels):
        raise ValueError(f"{name} {values} must have one entry per level of channels {channels}.")


def _divided(name: str, values: tuple[int, ...], by: str, number: int) -> None:
    """Refuse widths that are no multiples of ``number``; what is no number is for :mod:`.limits` to say."""
    if isinstance(number, int) and number > 0 and any(isinstance(n, int) and n % number for n in values):
        raise ValueError(f"{name} {list(values)} must be multiples of {by} {number}.")


@dataclass(frozen=True)
class AutoencoderConfig(_Config):
    """A 3-D KL autoencoder; image (B, in_channels, X, Y, Z) to latent (B, latent_channels, X/f, Y/f, Z/f).

    `norm` is "channel" (statistics over the channels of one position: local, so patches, tiles and whole volumes
    agree) or "group" (MONAI's GroupNorm, as published models need it; statistics over the whole field of view).
    `fold` is the edge of the voxel blocks folded into channels before the first and after the last convolution: 2
    makes 8 channels of each 2x2x2 block, so that no convolution runs at full resolution (five times faster on a CPU).
    `shortcut` adds a linear path around encoder and decoder that starts as the block's lowest cosine frequencies: the
    networks learn what a linear code misses, as in the residual autoencoding of Chen et al. (DC-AE, ICLR 2025).
    """

    in_channels: int
    out_channels: int
    latent_channels: int
    channels: tuple[int, ...]
    num_res_blocks: int = 1
    norm: str = "channel"
    norm_groups: int = 16
    norm_eps: float = 1e-6
    fold: int = 1
    shortcut: bool = False

    def __post_init__(self) -> None:
        if self.fold < 1:
            raise ValueError(f"fold is a block edge of at least 1 voxel, not {self.fold}.")
        if self.norm not in ("channel", "group"):
            raise ValueError(f'norm is "channel" or "group", not {self.norm!r}.')
        _divided("channels", self.channels, "norm_groups", self.norm_groups)

    @property
    def factor(self) -> int:
        """Down-sampling factor; image extents must be multiples of it."""
        return self.fold * 2 ** (len(self.channels) - 1)


@dataclass(frozen=True)
class BackboneConfig(_Config):
    """A diffusion U-Net over latents (B, latent_channels, x, y, z).

    `prediction` ("v" or "epsilon") says what it was trained to output: the noise schedule must agree.
    `head_channels` is one number, or one per level. The last four are set only for backbones with a context of their
    own (Brain LDM): `cross_attention_dim` wide, of which `context_channels` are concatenated to the latent as well.
    """

    latent_channels: int
    channels: tuple[int, ...]
    attention_levels: tuple[bool, ...]
    head_channels: int | tuple[int, ...] = 32
    num_res_blocks: int = 1
    norm_groups: int = 16
    norm_eps: float = 1e-6
    include_fc: bool = True
    cross_attention_dim: int | None = None
    prediction: str = "v"
    resblock_updown: bool = False
    upcast_attention: bool = False
    context_channels: int = 0

    def __post_init__(self) -> None:
        _per_level("attention_levels", self.attention_levels, self.channels)
        if isinstance(self.head_channels, tuple):
            _per_level("head_channels", self.head_channels, self.channels)
        if self.prediction not in ("v", "epsilon"):
            raise ValueError(f'prediction is "v" or "epsilon", not {self.prediction!r}.')
        _divided("channels", self.channels, "norm_groups", self.norm_groups)
        # The middle block attends whatever the levels do.
        for width, head, attends in zip(self.channels, self.heads, (*self.attention_levels[:-1], True)):
            if attends and isinstance(width, int) and isinstance(head, int) and (head < 1 or width % head):
                raise ValueError(
                    f"channels {list(self.channels)}: {width} attend, and are no multiple of head_channels {head}."
                )

    @property
    def heads(self) -> tuple[int, ...]:
        """Channels per head at each level, 0 where nothing attends; the middle block attends with the last's heads."""
        if isinstance(self.head_channels, tuple):
            return self.head_channels
        return tuple(self.head_channels if on else 0 for on in (*self.attention_levels[:-1], True))

    @property
    def multiple(self) -> int:
        """Every latent extent must be a multiple of this: one halving per level but the last."""
        return 2 ** (len(self.channels) - 1)


@dataclass(frozen=True)
class StreamsConfig(_Config):
    """The three conditioning streams, each of which can be left out altogether.

    `checkpointing` recomputes activations in the backward pass: less memory, about a third more time.
    """

    semantic: bool = True
    spatial: bool = True
    adaptive: bool = True
    tokens: int = 64
    token_width: int = 128
    token_heads: int = 4
    token_layers: int = 2
    control_channels: tuple[int, ...] = (32, 48)
    estimate_width: int = 64  # of the spatial stream's direct estimate of z_0 from c; 0: none
    estimate_dilations: tuple[int, ...] = (1, 2, 4, 1)  # one residual convolution each
    lora_rank: int = 8
    gate_width: int = 64
    checkpointing: bool = False

    def __post_init__(self) -> None:
        _divided("token_width", (self.token_width,), "token_heads", self.token_heads)


@dataclass(frozen=True)
class MeanConfig(_Config):
    """The posterior mean (:mod:`.mean`), which the streams then share.

    ``channels`` are widths from two voxels down to the latent's grid, ``blocks`` and ``decoder_blocks`` how many
    residual blocks each level has on the way down and on the way up. ``spread_channels`` are the widths of what says
    how sure the mean is, at two and at four voxels. Without ``semantic`` there are no tokens, and no streams that read
    them. ``local_width``: of the perceptron that comes first (:mod:`.local`).
    """

    channels: tuple[int, ...] = (64, 128)
    blocks: tuple[int, ...] = (1, 3)
    decoder_blocks: tuple[int, ...] = (2, 1)
    semantic: bool = True
    spread_channels: tuple[int, ...] = (32, 64)
    tokens: int = 64
    token_width: int = 128
    token_heads: int = 4
    token_layers: int = 2
    knowledge_width: int = 64
    bend_rank: int = 8
    local_width: int = 128

    def __post_init__(self) -> None:
        for name in ("blocks", "decoder_blocks"):
            _per_level(name, getattr(self, name), self.channels)
        if len(self.spread_channels) != 2:
            raise ValueError(f"spread_channels are two widths, not {len(self.spread_channels)}.")
        _divided("token_width", (self.token_width,), "token_heads", self.token_heads)
        if self.semantic:
            _divided("channels", self.channels[-1:], "token_heads", self.token_heads)


@dataclass(frozen=True)
class ModelConfig(_Config):
    """Everything needed to build the networks of one bundle."""

    psr: AutoencoderConfig
    condition: AutoencoderConfig
    backbone: BackboneConfig
    streams: StreamsConfig = field(default_factory=StreamsConfig)
    mean: MeanConfig | None = None

    def __post_init__(self) -> None:
        if self.psr.factor != self.condition.factor:
            raise ValueError(
                f"The autoencoders down-sample by {self.psr.factor} and {self.condition.factor}; "
                "their latents must share one grid."
            )
        if self.mean is not None and self.streams.semantic and not self.mean.semantic:
            raise ValueError(
                "The semantic stream reads the mean network's tokens, and this one has none: leave the stream out, too "
                "(model.streams.semantic=false)."
            )
        if self.mean is not None and self.mean.token_width != self.streams.token_width:
            raise ValueError(
                f"Tokens of the mean network are {self.mean.token_width} wide and the streams' "
                f"{self.streams.token_width}; they are the same tokens."
            )
        if self.psr.latent_channels != self.backbone.latent_channels:
            raise ValueError(
                f"The PSR autoencoder has {self.psr.latent_channels} latent channels, "
                f"the backbone takes {self.backbone.latent_channels}."
            )

    @property
    def multiple(self) -> int:
        """Image extents (voxels of the model grid) must be multiples of this."""
        return self.psr.factor * self.backbone.multiple


PRESETS: dict[str, ModelConfig] = {
    # For tests: everything together is below half a million parameters, volumes of 16^3 are enough.
    "tiny": ModelConfig(
        psr=AutoencoderConfig(1, 1, 4, (8, 16, 16), norm_groups=8),
        condition=AutoencoderConfig(2, 2, 4, (8, 16, 16), norm_groups=8),
        backbone=BackboneConfig(4, (8, 16), (False, True), head_channels=8, norm_groups=8),
        streams=StreamsConfig(
            tokens=8,
            token_width=16,
            token_heads=2,
            token_layers=1,
            control_channels=(8,),
            lora_rank=2,
            gate_width=8,
            estimate_width=8,
        ),
    ),
    # The default model: 32 MB in half precision at most, seconds per volume on two CPU cores.
    "small": ModelConfig(
        psr=AutoencoderConfig(1, 1, 24, (48, 96), fold=2, shortcut=True),
        condition=AutoencoderConfig(2, 2, 48, (48, 96), fold=2, shortcut=True),
        backbone=BackboneConfig(24, (32, 48, 96), (False, False, True)),
        # Tokens of the whole volume added nothing to what the vector of histograms and protocol says, in four tries
        # (docs/experiments.md): no semantic stream.
        streams=StreamsConfig(control_channels=(48,), semantic=False),
        mean=MeanConfig((32, 64), semantic=False, spread_channels=(16, 32)),
    ),
    # MONAI model zoo, brats_mri_generative_diffusion (configs/inference.json): the published foundation.
    "brats": ModelConfig(
        psr=AutoencoderConfig(1, 1, 8, (64, 128, 256), num_res_blocks=2, norm="group", norm_groups=32),
        condition=AutoencoderConfig(2, 2, 8, (64, 128, 256), num_res_blocks=2, norm="group", norm_groups=32),
        backbone=BackboneConfig(
            8,
            (256, 256, 512),
            (False, True, True),
            head_channels=64,
            num_res_blocks=2,
            norm_groups=32,
            include_fc=False,
            prediction="epsilon",
        ),
        streams=StreamsConfig(token_width=512, token_heads=8, control_channels=(64, 128), lora_rank=16),
        mean=MeanConfig(token_width=512, token_heads=8),
    ),
    # Pinaya et al. 2022, brain_image_synthesis_latent_diffusion_model: the other published foundation.
    "brain_ldm": ModelConfig(
        psr=AutoencoderConfig(1, 1, 3, (64, 128, 128, 128), num_res_blocks=2, norm="group", norm_groups=32),
        condition=AutoencoderConfig(2, 2, 3, (64, 128, 128, 128), num_res_blocks=2, norm="group", norm_groups=32),
        backbone=BackboneConfig(
            3,
            (256, 512, 768),
            (False, True, True),
            head_channels=(0, 512, 768),
            num_res_blocks=2,
            norm_groups=32,
            cross_attention_dim=4,
            prediction="epsilon",
            resblock_updown=True,
            upcast_attention=True,
            context_channels=4,
        ),
        streams=StreamsConfig(token_width=512, token_heads=8, control_channels=(64, 128), lora_rank=16),
        mean=MeanConfig((64, 128, 192), (1, 2, 3), (2, 1, 1), token_width=512, token_heads=8),
    ),
}
#: For tests, as "tiny", with a mean network that the streams share.
PRESETS["tiny_mean"] = replace(
    PRESETS["tiny"],
    mean=MeanConfig(
        (8, 16),
        (1, 1),
        (1, 1),
        tokens=8,
        token_width=16,
        token_heads=2,
        token_layers=1,
        knowledge_width=8,
        bend_rank=2,
        local_width=16,
    ),
)
