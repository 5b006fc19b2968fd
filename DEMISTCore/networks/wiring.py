"""How the streams reach into a frozen backbone without changing it.

MONAI's modules are left as they are: no subclass, no renamed parameter, so the backbone's state dict, its hash and
published checkpoints stay usable. Instead a `Tap` (a forward hook) sits at each attention site and asks the *call* in
progress, if there is one, whether to add something to the module's output. The call is an object made per forward
pass and held in a context variable: two threads never see each other's, and outside a call the taps do nothing.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from monai.networks.blocks import CrossAttentionBlock, SABlock, SpatialAttentionBlock
from monai.networks.nets.diffusion_model_unet import DiffusionUNetTransformerBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Call(Protocol):
    """What a forward pass adds at the taps."""

    def visit(self, site: str, x: Tensor, output: Tensor) -> Tensor:
        """Return the output to use at `site`, given the tapped module's input and output.

        ``x`` (B, C, ...) and ``output`` (B, D, ...); what is returned has the shape of ``output``.
        """


_CALL: ContextVar[Call | None] = ContextVar("demist_call", default=None)


@contextmanager
def calling(call: Call | None) -> Iterator[None]:
    """Make `call` the one that taps ask, in this thread, for the duration."""
    token = _CALL.set(call)
    try:
        yield
    finally:
        _CALL.reset(token)


class Tap:
    """Forward hook: hands the module's output to the call in progress under the site's name."""

    def __init__(self, site: str) -> None:
        self.site = site

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """Return the replaced output, or None to leave it."""
        call = _CALL.get()
        return None if call is None else call.visit(self.site, inputs[0], output)


def _tap(module: nn.Module, site: str) -> None:
    # A backbone that serves two models is tapped once: the call, not the tap, knows whose pass it is.
    if not any(isinstance(hook, Tap) for hook in module._forward_hooks.values()):
        module.register_forward_hook(Tap(site))


@dataclass(frozen=True)
class Site:
    """One place in the backbone where a stream acts: `width` in, `out` out, `level` halvings below the latent grid."""

    name: str
    width: int
    out: int
    level: int
    heads: int = 1
    volume: bool = False  # the tapped tensor is (B, C, x, y, z), not (B, N, C)


def _level(name: str, levels: int) -> int:
    part, _, rest = name.partition(".")
    if part == "down_blocks":
        return int(rest.split(".")[0])
    if part == "up_blocks":
        return levels - 1 - int(rest.split(".")[0])
    return levels - 1  # middle_block


def attention_sites(backbone: nn.Module) -> list[Site]:
    """Tap the backbone's attention blocks and list them: one per self-attention, or per own cross-attention.

    In a backbone without cross-attention the tensor behind each self-attention (its residual included) is tapped; in
    one that has it (Brain LDM), the output of that cross-attention, so that ours is added in parallel to it.
    """
    levels = len(backbone.block_out_channels)
    sites = []
    for name, module in backbone.named_modules():
        if isinstance(module, SpatialAttentionBlock):
            width = module.norm.num_channels
            sites.append(Site(name, width, width, _level(name, levels), module.attn.num_heads, volume=True))
        elif isinstance(module, DiffusionUNetTransformerBlock):
            attention = module.attn2
            width = attention.hidden_input_size
            name = f"{name}.attn2"
            sites.append(Site(name, width, width, _level(name, levels), attention.num_heads))
        else:
            continue
        _tap(backbone.get_submodule(name), name)
    return sites


def projection_sites(backbone: nn.Module) -> list[Site]:
    """Tap and list the projections q, k, v and out of every attention block: where low-rank adaptation acts."""
    levels = len(backbone.block_out_channels)
    sites = []
    for name, module in backbone.named_modules():
        if not isinstance(module, (SABlock, CrossAttentionBlock)):
            continue
        combined = getattr(module, "use_combined_linear", False)
        for part in ("qkv", "out_proj") if combined else ("to_q", "to_k", "to_v", "out_proj"):
            projection = getattr(module, part)
            if isinstance(projection, nn.Linear):
                width, out = projection.in_features, projection.out_features
            else:  # a block without out-projection (BraTS): the identity is adapted as if it were one
                width = out = module.inner_dim
            site = f"{name}.{part}"
            sites.append(Site(site, width, out, _level(name, levels)))
            _tap(projection, site)
    return sites


class _Recomputing:
    """Stands in for a block's `forward`: while `checkpointing` is asked for, or always, activations are recomputed.

    Set on the instance, so the module tree and its state dict stay as they are. Recomputation happens in the backward
    pass, possibly in another thread; the call in progress is carried over to it.
    """

    def __init__(self, block: nn.Module, always: bool = False) -> None:
        self.block, self.always = block, always

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        forward = type(self.block).forward
        if not ((self.always or _RECOMPUTE.get()) and torch.is_grad_enabled()):
            return forward(self.block, *args, **kwargs)
        call = _CALL.get()
        return checkpoint(
            forward,
            self.block,
            *args,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), calling(call)),
            **kwargs,
        )


_RECOMPUTE: ContextVar[bool] = ContextVar("demist_recompute", default=False)


@contextmanager
def recomputing(on: bool) -> Iterator[None]:
    """Recompute activations of blocks prepared by `make_recomputable`, for forward passes made inside."""
    token = _RECOMPUTE.set(on)
    try:
        yield
    finally:
        _RECOMPUTE.reset(token)


def make_recomputable(network: nn.Module) -> None:
    """Prepare the down, middle and up blocks of a U-Net or ControlNet for activation checkpointing."""
    blocks = [*network.down_blocks, network.middle_block, *getattr(network, "up_blocks", ())]
    for block in blocks:
        if not isinstance(block.__dict__.get("forward"), _Recomputing):
            block.forward = _Recomputing(block)


def always_recompute(network: nn.Module, kinds: Container[str]) -> int:
    """Recompute the activations of all modules of these classes in every backward pass; return how many there are.

    Modules inside of one that is recomputed already count as well: each is recomputed within it.
    """
    found = [child for child in network.modules() if type(child).__name__ in kinds]
    for child in found:
        child.forward = _Recomputing(child, always=True)
    return len(found)
