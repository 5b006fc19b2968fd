"""Descriptions of networks and noise schedules from files: read, and checked for sizes that make sense.

No torch here. A description that passes can be built; whether it fits the weights beside it, :mod:`..bundle` says.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from ..schema import check_fields, check_size, number, one_of
from .config import ModelConfig

#: (lowest, highest) by field; whatever is not named here is a whole number up to 65536.
BOUNDS: dict[str, tuple[float, float]] = {
    "in_channels": (1, 64),
    "out_channels": (1, 64),
    "latent_channels": (1, 1024),
    "channels": (1, 8192),
    "control_channels": (1, 8192),
    "num_res_blocks": (1, 16),
    "norm_groups": (1, 1024),
    "norm_eps": (1e-12, 1.0),
    "fold": (1, 8),
    "head_channels": (0, 8192),
    "cross_attention_dim": (1, 8192),
    "context_channels": (0, 8192),
    "transformer_layers": (1, 16),
    "tokens": (1, 4096),
    "token_width": (1, 8192),
    "token_heads": (1, 256),
    "token_layers": (0, 64),
    "estimate_width": (0, 8192),
    "estimate_dilations": (1, 64),
    "lora_rank": (1, 1024),
    "gate_width": (1, 8192),
    "blocks": (1, 32),
    "decoder_blocks": (1, 32),
    "knowledge_width": (1, 4096),
    "bend_rank": (1, 1024),
    "local_width": (2, 4096),
    "steps": (1, 100_000),
    "offset": (0, 1000),
    "beta_start": (1e-9, 0.999),
    "beta_end": (1e-9, 0.999),
}
_LEVELS = 8
SCHEDULES = ("linear", "scaled_linear", "cosine")
SPACINGS = ("trailing", "karras", "leading", "linspace")
PREDICTIONS = ("v", "epsilon")


def read_model(values: Any) -> ModelConfig:
    """The configuration that ``values`` describe, with every size within reason.

    Raises:
        ValueError: a key that is unknown or missing, a value of the wrong type or out of range.
    """
    if not isinstance(values, Mapping):
        raise ValueError("the model must be described by keys and values")
    check_size(values, depth=6, nodes=2000)
    try:
        config = ModelConfig.from_dict(dict(values))
    except (TypeError, AttributeError, KeyError, OverflowError) as error:
        raise ValueError(f"the model's description cannot be read ({error})") from None
    check_config(config)
    return config


def check_config(config: Any, prefix: str = "") -> None:
    """Check one configuration of :mod:`.config` (or of :mod:`.brain_ldm`), nested ones included.

    Raises:
        ValueError: a value of the wrong type or out of range.
    """
    hints = typing.get_type_hints(type(config))
    plain = {}
    for item in fields(config):
        value, hint = getattr(config, item.name), hints[item.name]
        parts = typing.get_args(hint)
        if type(None) in parts and any(map(is_dataclass, parts)):
            if value is None:
                continue
            hint = next(filter(is_dataclass, parts))
        if isinstance(hint, type) and is_dataclass(hint):
            if not isinstance(value, hint):
                raise ValueError(f"{prefix}{item.name} must be described by keys and values")
            check_config(value, f"{prefix}{item.name}.")
        else:
            plain[item.name] = hint
    check_fields(config, plain, BOUNDS, prefix)
    channels = getattr(config, "channels", None)
    if channels is not None and not 1 <= len(channels) <= _LEVELS:
        raise ValueError(f"{prefix}channels must be 1 to {_LEVELS} widths, not {len(channels)}")


def check_schedule(values: Any) -> None:
    """Check the keyword arguments of :class:`DEMISTCore.diffusion.NoiseSchedule`; any of them may be missing.

    Raises:
        ValueError: an unknown key, a value of the wrong type or out of range.
    """
    if not isinstance(values, Mapping):
        raise ValueError("schedule must be described by keys and values")
    known = {
        "steps": lambda v: number(v, "schedule.steps", 1, 100_000, whole=True),
        "kind": lambda v: one_of(v, "schedule.kind", SCHEDULES),
        "beta_start": lambda v: number(v, "schedule.beta_start", 1e-9, 0.999),
        "beta_end": lambda v: number(v, "schedule.beta_end", 1e-9, 0.999),
        "zero_snr": lambda v: check_fields({"zero_snr": v}, {"zero_snr": bool}, {}, "schedule."),
        "spacing": lambda v: one_of(v, "schedule.spacing", SPACINGS),
        "prediction": lambda v: one_of(v, "schedule.prediction", PREDICTIONS),
    }
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"schedule has no {key!s:.40}; it has {', '.join(known)}")
        known[key](value)
    if values.get("beta_start", 0.0015) > values.get("beta_end", 0.0195):
        raise ValueError("schedule.beta_start must not be above schedule.beta_end")
