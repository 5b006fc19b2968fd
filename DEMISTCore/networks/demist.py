"""DEMIST: a frozen diffusion backbone steered by three decoupled streams (Wang et al., arXiv 2511.12396).

    eps_hat = eps_{theta + dTheta(t, tau)}(z_t, t; tau, {r_i})

>>> from DEMISTCore.networks import PRESETS, build_demist
>>> model = build_demist(PRESETS["tiny"])                        # doctest: +SKIP
>>> condition = model.condition(c)      # once per volume        # doctest: +SKIP
>>> prediction = model(z_t, t, condition)  # once per step       # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from ..weights import misfits
from .backbone import build_backbone, freeze
from .config import ModelConfig, StreamsConfig
from .mean import PosteriorMean, Seen
from .streams import AdaptiveStream, ControlStream, SemanticStream, TokenEncoder
from .wiring import attention_sites, calling, make_recomputable, projection_sites, recomputing

STREAMS = ("semantic", "spatial", "adaptive")


@dataclass(frozen=True)
class Streams:
    """Which streams act. One that is off costs nothing."""

    semantic: bool = True
    spatial: bool = True
    adaptive: bool = True

    def __iter__(self) -> Iterator[tuple[str, bool]]:
        return iter((name, getattr(self, name)) for name in STREAMS)

    def __and__(self, other: Streams) -> Streams:
        return Streams(*(getattr(self, name) and getattr(other, name) for name in STREAMS))

    def without(self, *names: str) -> Streams:
        """Switch the named streams off.

        Raises:
            ValueError: on a name that is no stream.
        """
        for name in names:
            if name not in STREAMS:
                raise ValueError(f"No stream is called {name!r}; there are {', '.join(STREAMS)}.")
        return replace(self, **dict.fromkeys(names, False))


ALL = Streams()
NONE = Streams(False, False, False)


@dataclass(frozen=True)
class Condition:
    """All that depends on x = (T1w, FLAIR) alone, computed once per volume and read at every step.

    Parts are None for streams the model lacks. `keep[stream]` (B,) is 1 where a sample keeps that stream, 0 where
    dropout took it; no entry keeps all.
    """

    shape: tuple[int, int, int]
    batch: int
    mean_token: Tensor | None = None  # (B, D): the tokens' mean, or the mean network's knowledge of the scan
    tokens: Tensor | None = None  # (B, K, D)
    attention: tuple[tuple[Tensor, Tensor, Tensor], ...] | None = None  # keys, values, query places per site
    control: Tensor | None = None  # (B, C0, x, y, z)
    estimate: Tensor | None = None  # (B, C, x, y, z), z_0 as the condition alone tells it
    keep: dict[str, Tensor] = field(default_factory=dict)

    def expand(self, batch: int) -> Condition:
        """Let one volume's condition serve `batch` samples (several seeds); views, no copies.

        Raises:
            ValueError: if this holds several volumes, and not `batch` of them.
        """
        if batch == self.batch:
            return self
        if self.batch != 1:
            raise ValueError(f"A condition of {self.batch} volumes does not fit {batch} samples.")

        def wide(x: Tensor) -> Tensor:
            return x.expand(batch, *x.shape[1:])

        def wide_if_there(x: Tensor | None) -> Tensor | None:
            return None if x is None else wide(x)

        return replace(
            self,
            batch=batch,
            mean_token=wide_if_there(self.mean_token),
            tokens=wide_if_there(self.tokens),
            attention=self.attention and tuple((wide(k), wide(v), wide(places)) for k, v, places in self.attention),
            control=wide_if_there(self.control),
            estimate=wide_if_there(self.estimate),
            keep={name: wide(x) for name, x in self.keep.items()},
        )


class _Pass:
    """One forward pass: what the taps in the backbone ask."""

    def __init__(self, model: Demist, t: Tensor, condition: Condition, streams: Streams) -> None:
        self.model = model
        self.condition = condition
        self.attention = condition.attention or ()
        self.keep = condition.keep
        self.streams = streams
        self.gate: Tensor | None = None
        if streams.adaptive:
            self.gate = model.adaptive.gate(t, condition.mean_token)
            if "adaptive" in self.keep:
                self.gate = self.gate * self.keep["adaptive"].to(self.gate)[:, None]

    def visit(self, site: str, x: Tensor, output: Tensor) -> Tensor:
        if self.streams.adaptive and site in self.model.adaptive.index:
            return output + self.model.adaptive(site, x, self.gate).to(output.dtype)
        if self.streams.semantic and site in self.model.semantic.index:
            return output + self._read(site, x, output)
        return output

    def _read(self, site: str, x: Tensor, output: Tensor) -> Tensor:
        i = self.model.semantic.index[site]
        block = self.model.semantic.attention[i]
        volume = block.site.volume
        # Behind a self-attention h is the output; beside an own cross-attention, the input both share.
        h = output.flatten(2).transpose(1, 2) if volume else x
        delta = block(h, self.attention[i])
        if "semantic" in self.keep:
            delta = delta * self.keep["semantic"].to(delta)[:, None, None]
        if volume:
            delta = delta.transpose(1, 2).reshape(output.shape)
        return delta.to(output.dtype)


class Demist(nn.Module):
    """The conditioned network. The backbone is frozen for good; only the streams have gradients.

    Args:
        backbone: a MONAI `DiffusionModelUNet` in three dimensions, with or without cross-attention of its own. It is
            frozen in place, and otherwise left as it is: `demist.backbone.state_dict()` is the backbone's own.
        cfg: which streams to build, and their sizes.
        condition_channels: channels of c.
        mean: the posterior-mean network, frozen like the backbone; streams then share its tokens, its knowledge of the
            whole scan, and its estimate. None: they have their own.

    At initialisation the output equals the backbone's exactly. Latent extents must be multiples of `self.multiple`.
    """

    def __init__(
        self, backbone: nn.Module, cfg: StreamsConfig, condition_channels: int, mean: PosteriorMean | None = None
    ) -> None:
        super().__init__()
        self.cfg = cfg
        self.condition_channels = condition_channels
        self.backbone = freeze(backbone)
        self.built = Streams(cfg.semantic, cfg.spatial, cfg.adaptive)
        self.multiple = 2 ** (len(backbone.block_out_channels) - 1)
        self.mean: PosteriorMean | None = None if mean is None else freeze(mean)
        if mean is not None and mean.cfg.token_width != cfg.token_width:
            raise ValueError(
                f"Tokens of the mean network are {mean.cfg.token_width} wide and the streams' {cfg.token_width}; "
                "they are the same tokens."
            )
        if mean is None and (cfg.semantic or cfg.adaptive):
            self.tokens = TokenEncoder(condition_channels, cfg)
        if cfg.semantic:
            self.semantic = SemanticStream(attention_sites(backbone), cfg)
        if cfg.spatial:
            features = None if mean is None else mean.cfg.channels[-1]
            self.spatial = ControlStream(backbone, condition_channels, cfg, features)
            make_recomputable(self.spatial.control)
        if cfg.adaptive:
            width = None if mean is None else mean.cfg.knowledge_width
            self.adaptive = AdaptiveStream(projection_sites(backbone), backbone.block_out_channels[0], cfg, width)
        make_recomputable(backbone)
        self.checkpointing = cfg.checkpointing

    @property
    def mean_network(self) -> PosteriorMean:
        """The mean network, where there must be one.

        Raises:
            ValueError: this model has none.
        """
        if self.mean is None:
            raise ValueError("This model has no network for the mean.")
        return self.mean

    def train(self, mode: bool = True) -> Demist:
        """Set training mode for the streams; the frozen backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        if self.mean is not None:
            self.mean.eval()
        return self

    # ------------------------------------------------------------------------------------ condition

    def condition(
        self, c: Tensor, streams: Streams = ALL, offset: Tensor | None = None, seen: Seen | None = None
    ) -> Condition:
        """Compute what depends on the condition alone: tokens, their keys and values, the control embedding.

        Args:
            c: condition latents (B, condition_channels, x, y, z), on the grid of z_t.
            streams: leave out what a switched-off stream would need.
            offset: (B, 3), for crops: the crop's centre minus the volume's centre, in latent voxels.
            seen: what the mean network saw, on the same grid; a model with one needs it.

        Raises:
            ValueError: on a wrong number of channels, extents that are not multiples of `self.multiple`, or `seen`
                missing.
        """
        if c.ndim != 5 or c.shape[1] != self.condition_channels:
            raise ValueError(f"Condition of shape {tuple(c.shape)}; (B, {self.condition_channels}, x, y, z) is needed.")
        if (seen is None) != (self.mean is None):
            raise ValueError("A model with a mean network needs what that saw; one without has none.")
        shape = self._checked(c)
        streams = streams & self.built
        tokens = attention = control = estimate = None
        if seen is not None:
            streams = streams & Streams(seen.tokens is not None, True, seen.knowledge is not None)
            tokens = seen.tokens
        elif streams.semantic or streams.adaptive:
            tokens = self.tokens(c, offset)
        if streams.semantic:
            attention = self.semantic.prepare(tokens, shape, offset)
        if streams.spatial and seen is not None:
            control, estimate = self.spatial.embed(c, seen.estimate, seen.coarse)
        elif streams.spatial:
            control, estimate = self.spatial.embed(c)
        told = None if tokens is None else tokens.mean(1)
        return Condition(
            shape=shape,
            batch=len(c),
            mean_token=told if seen is None else seen.knowledge,
            tokens=tokens,
            attention=attention,
            control=control,
            estimate=estimate,
        )

    # -------------------------------------------------------------------------------------- forward

    def forward(
        self,
        z_t: Tensor,
        t: Tensor,
        condition: Condition | None,
        streams: Streams = ALL,
        context: Tensor | None = None,
        class_labels: Tensor | None = None,
    ) -> Tensor:
        """Predict noise or velocity (what the backbone was trained for), of z_t's shape.

        Args:
            z_t: noisy latents (B, C, x, y, z).
            t: time steps (B,), or (1,) for all.
            condition: from `condition()`, of one volume or of B; None runs the bare backbone.
            streams: switches; a stream that is off costs no computation.
            context: the backbone's own cross-attention context (B, n, D), if it has one.
            class_labels: the backbone's own class labels, if it has them.

        Raises:
            ValueError: if the condition belongs to another grid or batch, or extents do not fit.
        """
        shape = self._checked(z_t)
        batch = len(z_t)
        t = t.expand(batch)
        streams = streams & self.built if condition is not None else NONE
        if condition is None or streams == NONE:
            with calling(None), recomputing(self.checkpointing):
                return self.backbone(z_t, t, context=context, class_labels=class_labels)
        if condition.shape != shape:
            raise ValueError(f"The condition is of extents {condition.shape}, the latent of {shape}.")
        condition = condition.expand(batch)
        for name, part in (
            ("semantic", condition.attention),
            ("spatial", condition.control),
            ("adaptive", condition.mean_token),
        ):
            if getattr(streams, name) and part is None:
                raise ValueError(f"The condition was computed without the {name} stream.")

        down = middle = out = None
        with recomputing(self.checkpointing):
            if streams.spatial:
                down, middle, out = self.spatial(z_t, t, condition.control, context, class_labels)
                if "spatial" in condition.keep:
                    keep = condition.keep["spatial"].to(middle)[:, None, None, None, None]
                    down, middle = [r * keep for r in down], middle * keep
            with calling(_Pass(self, t, condition, streams)):
                prediction = self.backbone(
                    z_t,
                    t,
                    context=context,
                    class_labels=class_labels,
                    down_block_additional_residuals=None if down is None else tuple(down),
                    mid_block_additional_residual=middle,
                )
        if out is None:
            return prediction
        if condition.estimate is not None and self.spatial.fusion is not None:
            out = out + self.spatial.fusion(prediction, z_t, condition.estimate, t)
        if "spatial" in condition.keep:
            out = out * condition.keep["spatial"].to(out)[:, None, None, None, None]
        return prediction + out.to(prediction.dtype)

    def _checked(self, x: Tensor) -> tuple[int, int, int]:
        shape = tuple(x.shape[2:])
        if len(shape) != 3 or any(n % self.multiple or n == 0 for n in shape):
            raise ValueError(f"Latent extents {shape}: each must be a multiple of {self.multiple}.")
        return shape[0], shape[1], shape[2]

    @property
    def device(self) -> torch.device:
        """Where the backbone lies."""
        return next(self.backbone.parameters()).device

    # ----------------------------------------------------------------------------------- parameters

    def stream_parameters(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by stream. The token encoder counts as semantic (as adaptive, where that is missing)."""
        owner = "semantic" if self.built.semantic else "adaptive"
        parameters: dict[str, list[nn.Parameter]] = {name: [] for name, built in self.built if built}
        for name, parameter in self.named_parameters():
            part, _, rest = name.partition(".")
            if part == "mean" and self.mean is not None:
                part = self.mean.stream_of(rest)
            if part != "backbone":
                parameters.setdefault(owner if part == "tokens" else part, []).append(parameter)
        return parameters

    def streams_state_dict(self) -> dict[str, Tensor]:
        """Weights of the streams alone, contiguous: what a delta bundle holds."""
        return {k: v.contiguous() for k, v in self.state_dict().items() if not k.startswith("backbone.")}

    def load_streams_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load `streams_state_dict`'s output; the backbone is not touched.

        Raises:
            ValueError: if a weight is missing, left over, or of another shape.
        """
        own = {k: v for k, v in self.state_dict().items() if not k.startswith("backbone.")}
        if wrong := misfits(own, state):
            raise ValueError(f"These stream weights do not fit the model: {', '.join(wrong[:3])} (of {len(wrong)}).")
        self.load_state_dict(state, strict=False)

    def parameter_table(self) -> str:
        """Frozen and trainable parameters per part, as text."""
        streams = self.stream_parameters()
        rows = [("backbone", list(self.backbone.parameters()))]
        rows += [(name, streams.get(name, [])) for name in STREAMS]
        lines = [f"{'part':<12}{'frozen':>14}{'trainable':>14}"]
        total = [0, 0]
        for name, parameters in rows:
            counts = [sum(p.numel() for p in parameters if p.requires_grad is on) for on in (False, True)]
            total = [a + b for a, b in zip(total, counts)]
            note = "" if name == "backbone" or getattr(self.built, name) else "  (not built)"
            lines.append(f"{name:<12}{counts[0]:>14,}{counts[1]:>14,}{note}")
        lines.append(f"{'total':<12}{total[0]:>14,}{total[1]:>14,}")
        return "\n".join(lines)


def build_mean(cfg: ModelConfig) -> PosteriorMean | None:
    """Build the mean network of a configuration; None where it has none."""
    if cfg.mean is None:
        return None
    return PosteriorMean(cfg.mean, cfg.psr.latent_channels, cfg.condition.latent_channels, cfg.psr.factor)


def build_demist(cfg: ModelConfig, backbone: nn.Module | None = None) -> Demist:
    """Build the conditioned network of a configuration, around `backbone` if one is given."""
    backbone = build_backbone(cfg.backbone) if backbone is None else backbone
    return Demist(backbone, cfg.streams, cfg.condition.latent_channels, build_mean(cfg))
