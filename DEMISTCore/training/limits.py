"""Which values the settings of a training run may have."""

from __future__ import annotations

import typing
from dataclasses import fields, is_dataclass
from typing import Any

from ..errors import InputError
from ..networks.limits import check_schedule, read_model
from ..schema import check_fields, shown

_SHARE, _WEIGHT, _COUNT = (0, 1), (0, 1e6), (1, 1_000_000)
BOUNDS: dict[str, tuple[float, float]] = {
    "validation": (0, 0.999),
    "seed": (0, (1 << 63) - 1),
    "steps": (1, 1_000_000_000),
    "max_minutes": (1e-6, 1e7),
    "batch": (1, 4096),
    "accumulate": (1, 65536),
    "lr": (1e-12, 10),
    "betas": (0, 1),
    "weight_decay": (0, 1e3),
    "warmup": (0, 1_000_000_000),
    "lr_end": _SHARE,
    "ema": (0, 0.9999999),
    "clip": (0, 1e9),
    "devices": (1, 1024),
    "nodes": (1, 65536),
    "threads": (0, 512),
    "workers": (1, 512),
    "log_every": (1, 1_000_000_000),
    "validate_every": (1, 1_000_000_000),
    "preview_every": (1, 1_000_000_000),
    "save_every": (1, 1_000_000_000),
    "spacing": (0.1, 20),
    "shape": (1, 2048),
    "multiple": (1, 1024),
    "patch": (1, 2048),
    "crop": (1, 2048),
    "decode": (1, 2048),
    "decode_halo": (0, 64),
    "channels": (1, 8192),
    "probability": _SHARE,
    "gain": (0, 10),
    "offset": (0, 10),
    "gamma": (0, 10),
    "bias": (0, 10),
    "noise": (0, 10),
    "blur": (0, 100),
    "highlights": _SHARE,
    "beta_kl": _WEIGHT,
    "discriminator_lr": (1e-12, 10),
    "discriminator_channels": (1, 4096),
    "align_width": (1, 8192),
    "align_positions": (2, 1_000_000),
    "align_temperature": (1e-6, 1e3),
    "latent_noise": (0, 100),
    "validation_patches": _COUNT,
    "validation_crops": _COUNT,
    "validation_samples": (0, 1_000_000),
    "preview_steps": (1, 100_000),
    "latent_augmentations": (0, 1000),
    "focus": _SHARE,
    "recolour": (0, 10),
    "lesion_weight": _WEIGHT,
    "volume_weight": _WEIGHT,
    "mean_weight": _WEIGHT,
    "decode_every": (0, 1_000_000),
}
#: Of a name's beginning or end, where it is not above.
_FAMILIES = (
    ("lambda_", "", _WEIGHT),
    ("dropout_", "", _SHARE),
    ("", "_dropout", _SHARE),
    ("", "_share", _SHARE),
    ("", "_start", _SHARE),
    ("", "_first", _SHARE),
    ("thin_mask", "", _SHARE),
    ("thick_mask", "", _SHARE),
    ("", "_every", (0, 1_000_000_000)),
)
_LENGTHS = {"patch": 3, "crop": 3, "decode": 3, "shape": 3, "betas": 2, "focus": 2, "recolour": 2}
_EXAMPLES = {"betas": "[0.9, 0.99]", "focus": "[0.05, 0.45]", "recolour": "[0.03, 0.06]"}


def check_settings(settings: Any) -> None:
    """Check every value of a stage's settings, the nested ones, its model and its schedule.

    Raises:
        InputError: the first that is of the wrong type, no number, or out of range.
    """
    try:
        _check(settings)
    except ValueError as error:
        raise InputError(f"{error}.") from None
    for name, check in (("schedule", check_schedule), ("model", read_model)):
        value = getattr(settings, name)
        try:
            if value:
                check(value)
        except ValueError as error:
            raise InputError(f"The {name}'s settings do not fit together: {str(error).rstrip('.')}.") from None


def _check(settings: Any, prefix: str = "") -> None:
    hints = typing.get_type_hints(type(settings))
    plain = {}
    for item in fields(settings):
        if is_dataclass(hints[item.name]):
            _check(getattr(settings, item.name), f"{prefix}{item.name}.")
        elif hints[item.name] is not dict:
            plain[item.name] = hints[item.name]
            value, length = getattr(settings, item.name), _LENGTHS.get(item.name)
            if length and value is not None and len(value) != length:
                words = f"{prefix}{item.name} needs {({2: 'two', 3: 'three'})[length]} numbers, for example"
                raise ValueError(f"{words} {_EXAMPLES.get(item.name, '[64, 64, 64]')}, not {shown(value)}")
    own = {item.name: item.metadata["bounds"] for item in fields(settings) if "bounds" in item.metadata}
    bounds = {name: own.get(name) or _bound(name) for name in plain}
    check_fields(settings, plain, {name: bound for name, bound in bounds.items() if bound}, prefix)


def _bound(name: str) -> tuple[float, float] | None:
    if name in BOUNDS:
        return BOUNDS[name]
    return next((b for start, end, b in _FAMILIES if name.startswith(start) and name.endswith(end)), None)


def check_expansion(node: Any, most: int = 20_000, depth: int = 30) -> None:
    """Refuse YAML whose aliases, written out, would be huge or endless (a few lines can stand for billions of values).

    Args:
        node: from ``yaml.compose``; None for an empty document.
        most: values, written out.
        depth: of nesting.

    Raises:
        ValueError: it is too much.
    """
    sizes: dict[int, int] = {}
    inside: set[int] = set()

    def size(node: Any, level: int) -> int:
        if id(node) in sizes:
            return sizes[id(node)]
        if id(node) in inside:
            raise ValueError("an alias refers to what it is a part of")
        if level > depth:
            raise ValueError("it is nested too deeply")
        inside.add(id(node))
        children = node.value if isinstance(node.value, list) else []
        flat = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        total = 1
        for child in flat:
            total += size(child, level + 1)
            if total > most:
                raise ValueError(f"it stands for more than {most:,} values")
        inside.discard(id(node))
        sizes[id(node)] = total
        return total

    if node is not None:
        size(node, 0)
