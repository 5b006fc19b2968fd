"""Names of weights: those of MONAI GenerativeModels (2022 to 2024), and those of the same networks in MONAI today.

When the networks moved into MONAI 1.4, attention became a block of its own and up-sampling another class. Nothing but
names changed; one layer was dropped. GenerativeModels' spatial attention owned a projection (``proj_attn``) that its
forward pass never called: published files carry it, and nothing may be computed with it.

>>> to_current("down_blocks.1.attentions.0.to_q.weight")
'down_blocks.1.attentions.0.attn.to_q.weight'
>>> to_current("middle_block.attention.proj_attn.bias") is None
True
>>> to_published("up_blocks.0.upsampler.postconv.conv.weight")
'up_blocks.0.upsampler.conv.conv.weight'
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

#: Spatial attention: in a U-Net's level, in its middle, or among an autoencoder's blocks.
_ATTENTION = r"(?P<block>(?:.*\.)?(?:attentions\.\d+|middle_block\.attention|blocks\.\d+))"

#: (published, today, back to published). Each name matches one rule at most; others are the same in both.
_RULES = tuple(
    (re.compile(published), current, re.compile(today), back)
    for published, current, today, back in (
        (
            _ATTENTION + r"\.(?P<qkv>to_[qkv])\.(?P<kind>\w+)",
            r"\g<block>.attn.\g<qkv>.\g<kind>",
            _ATTENTION + r"\.attn\.(?P<qkv>to_[qkv])\.(?P<kind>\w+)",
            r"\g<block>.\g<qkv>.\g<kind>",
        ),
        (
            r"(?P<block>.*\.attn[12])\.to_out\.0\.(?P<kind>\w+)",
            r"\g<block>.out_proj.\g<kind>",
            r"(?P<block>.*\.attn[12])\.out_proj\.(?P<kind>\w+)",
            r"\g<block>.to_out.0.\g<kind>",
        ),
        (
            r"(?P<block>.*\.upsampler|decoder\.blocks\.\d+)\.conv\.conv\.(?P<kind>\w+)",
            r"\g<block>.postconv.conv.\g<kind>",
            r"(?P<block>.*\.upsampler|decoder\.blocks\.\d+)\.postconv\.conv\.(?P<kind>\w+)",
            r"\g<block>.conv.conv.\g<kind>",
        ),
    )
)
_UNUSED = re.compile(_ATTENTION + r"\.proj_attn\.\w+")


def to_current(name: str) -> str | None:
    """Today's name of a published weight; None for one that the published network carried and never used."""
    if _UNUSED.fullmatch(name):
        return None
    for published, current, _, _ in _RULES:
        if published.fullmatch(name):
            return published.sub(current, name)
    return name


def to_published(name: str) -> str:
    """The name in GenerativeModels' time of a weight of today's MONAI."""
    for _, _, today, back in _RULES:
        if today.fullmatch(name):
            return today.sub(back, name)
    return name


def is_published(names: Mapping[str, object]) -> bool:
    """True if any of these names is one that MONAI no longer uses."""
    return any(to_current(name) != name for name in names)


def current(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under today's names; what was never used is left out."""
    renamed = ((to_current(name), tensor) for name, tensor in tensors.items())
    return {name: tensor for name, tensor in renamed if name is not None}


def published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under GenerativeModels' names, complete: its unused projections are there, as the identity."""
    import torch

    result = {}
    for name, tensor in tensors.items():
        old = to_published(name)
        result[old] = tensor
        if old.endswith(".to_v.bias") and old != name:
            block = old.removesuffix("to_v.bias")
            result[block + "proj_attn.weight"] = torch.eye(len(tensor), dtype=tensor.dtype, device=tensor.device)
            result[block + "proj_attn.bias"] = torch.zeros_like(tensor)
    return result
