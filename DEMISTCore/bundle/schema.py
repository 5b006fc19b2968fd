"""What ``bundle.json`` may say: types, ranges, sizes. Its hash says that nobody changed it, not that it makes sense."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..networks.limits import SPACINGS, check_schedule
from ..schema import number, one_of, text

_HASH = re.compile(r"[0-9a-f]{64}")
_STREAMS = ("semantic", "spatial", "adaptive", "all")


def find_problem(info: Mapping[str, Any], delta: bool) -> str | None:
    """The first thing in a description that does not hold, in a few words; None if all does.

    Args:
        info: content of ``bundle.json``.
        delta: whether a bundle of its kind builds on another one.
    """
    try:
        for key, check in {**_NEEDED, **({"base": _base} if delta else {})}.items():
            if key not in info:
                raise ValueError(f"{key} is missing")
            check(info[key])
        for key, check in _OPTIONAL.items():
            if info.get(key) is not None:
                check(info[key])
    except ValueError as error:
        return str(error)
    return None


def plain_name(value: Any, what: str) -> str:
    """A name that is one folder or file, and not a way to another.

    Raises:
        ValueError: it is not.
    """
    if text(value, what) in (".", "..") or Path(value).name != value or "\\" in value or ":" in value:
        raise ValueError(f"{what} must be a plain name, not {value!r}")
    return value


def _hash(value: Any, what: str) -> None:
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise ValueError(f"{what} must be a SHA-256 of 64 digits")


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} must have keys and values")
    return value


def _files(value: Any) -> None:
    for name, entry in _mapping(value, "files").items():
        plain_name(name, "a file")
        entry = _mapping(entry, f"files of {name}")
        _hash(entry.get("sha256"), f"sha256 of {name}")
        number(entry.get("bytes"), f"bytes of {name}", 0, 1 << 42, whole=True)


def _base(value: Any) -> None:
    plain_name(_mapping(value, "base").get("name"), "base.name")
    _hash(value.get("hash"), "base.hash")
    for key in ("hub", "kind"):
        if value.get(key) is not None:
            text(value[key], f"base.{key}")


def _sampling(value: Any) -> None:
    value = _mapping(value, "sampling")
    seeds = value.get("seeds", 1)
    for seed in seeds if isinstance(seeds, list) and 0 < len(seeds) <= 1000 else [seeds]:
        number(seed, "sampling.seeds", 0, (1 << 63) - 1 if isinstance(seeds, list) else 1000, whole=True)
    number(value.get("steps", 10), "sampling.steps", 1, 100_000, whole=True)
    number(value.get("eta", 0.0), "sampling.eta", 0, 1)
    number(value.get("start", 1.0), "sampling.start", 1e-4, 1)
    number(value.get("detail", 1.0), "sampling.detail", 0, 1)
    one_of(value.get("mode", "sample"), "sampling.mode", ("mean", "sample"))
    text(value.get("sampler", "ddim"), "sampling.sampler", 40)
    if value.get("spacing") is not None:
        one_of(value["spacing"], "sampling.spacing", SPACINGS)
    for stream, weight in _mapping(value.get("guidance") or {}, "sampling.guidance").items():
        one_of(stream, "a stream of sampling.guidance", _STREAMS)
        number(weight, f"sampling.guidance.{stream}", -100, 100)


def _schedule(value: Any) -> None:
    try:
        check_schedule(value)
    except ValueError as error:
        raise ValueError(f"it has a noise schedule that this version does not understand ({error})") from None


def _simulated(value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError("simulated must be true or false")


def _documents(value: Any) -> None:
    if not isinstance(value, list) or len(value) > 1000:
        raise ValueError("documents must be a list")
    for name in value:
        plain_name(name, "a document")


_NEEDED: dict[str, Callable[[Any], Any]] = {
    "name": lambda v: plain_name(v, "name"),
    "files": _files,
    "model": lambda v: _mapping(v, "model"),
    "licence": lambda v: text(v, "licence"),
    "simulated": _simulated,
}
_OPTIONAL: dict[str, Callable[[Any], Any]] = {
    "version": lambda v: text(v, "version"),
    "schedule": _schedule,
    "latent_scale": lambda v: number(v, "latent_scale", 1e-6, 1e6),
    "condition_scale": lambda v: number(v, "condition_scale", 1e-6, 1e6),
    "psr_range": lambda v: number(v, "psr_range", 1e-3, 10),
    "spacing": lambda v: number(v, "spacing", 0.1, 20),
    "sampling": _sampling,
    "training": lambda v: _mapping(v, "training"),
    "uncertainty": lambda v: _mapping(v, "uncertainty"),
    "documents": _documents,
}
