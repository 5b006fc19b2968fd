"""What the fields of a request may hold. What is of another type is the sender's mistake, and said before any work.

Ranges that hang on the model or on the images are checked by the job itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from ..schema import number, shown

_MANY = (1 << 63) - 1


def check_request(request: Mapping[str, Any]) -> None:
    """Check the types of all known fields; null stands for one that is not given.

    Raises:
        ValueError: the first that does not fit, in a few words.
    """
    for name, value in request.items():
        if value is not None and name in _FIELDS:
            _FIELDS[name](value, name)


def _path(value: Any, name: str) -> None:
    if not isinstance(value, str) or not value or len(value) > 32_767 or "\0" in value:
        raise ValueError(f"{name} must be text without null characters, not {shown(value)}")
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        raise ValueError(f"{name} has letters that no file name can have") from None


def _paths(value: Any, name: str) -> None:
    for path in value if isinstance(value, list) else [value]:
        _path(path, name)


def _flag(value: Any, name: str) -> None:
    if not isinstance(value, (bool, int)):
        raise ValueError(f"{name} must be true or false, not {shown(value)}")


def _whole(value: Any, name: str) -> None:
    number(value, name, -_MANY, _MANY, whole=True)


def _number(value: Any, name: str) -> None:
    number(value, name, -1e18, 1e18)


def _seeds(value: Any, name: str) -> None:
    for seed in value if isinstance(value, list) else [value]:
        _whole(seed, name)


def _shape(value: Any, name: str) -> None:
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError(f"{name} must be three numbers, not {shown(value)}")
    for extent in value:
        number(extent, name, 1, 4096, whole=True)


def _guidance(value: Any, name: str) -> None:
    for weight in value.values() if isinstance(value, Mapping) else [value]:
        _number(weight, name)


def _reference(value: Any, name: str) -> None:
    if not isinstance(value, Mapping) or not ("npy" in value or "file" in value):
        raise ValueError(f'{name} must be {{"npy": file, "affine": 4x4 matrix}} or {{"file": path}}')
    for key in ("npy", "file"):
        if key in value:
            _path(value[key], f"{name}.{key}")
    affine = value.get("affine")
    if affine is None and "file" in value:
        return
    if not isinstance(affine, list) or [len(row) if isinstance(row, list) else 0 for row in affine] != [4] * 4:
        raise ValueError(f"{name}.affine must be 4 x 4 numbers")
    for entry in (entry for row in affine for entry in row):
        number(entry, f"{name}.affine", -1e9, 1e9)


def _mapping(value: Any, name: str) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must have keys and values, not {shown(value)}")


def _rows(value: Any, name: str) -> None:
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list, not {shown(value)}")
    for row in value:
        _mapping(row, name)


def _protocol(value: Any, name: str) -> None:
    _mapping(value, name)
    for image, content in value.items():
        _mapping(content, f"{name}.{image}")


_FIELDS: dict[str, Callable[[Any, str], None]] = {
    **dict.fromkeys(
        (
            "t1w",
            "flair",
            "brain_mask",
            "psr",
            "lesions",
            "tissue",
            "uncertainty",
            "reference",
            "nawm_proximal",
            "nawm_distal",
        ),
        _reference,
    ),
    **dict.fromkeys(
        (
            "bundle",
            "out",
            "folder",
            "device",
            "precision",
            "mode",
            "sampler",
            "skull_strip",
            "report",
            "title",
            "patient",
        ),
        _path,
    ),
    **dict.fromkeys(
        (
            "register",
            "bias_correct",
            "overwrite",
            "preview",
            "suggest",
            "unchecked",
            "devices",
            "any_brain_volume",
            "sanity",
            "percent",
        ),
        _flag,
    ),
    **dict.fromkeys(("steps", "seed"), _whole),
    **dict.fromkeys(("eta", "age", "sex", "ventricular_volume", "brain_volume"), _number),
    "seeds": _seeds,
    "series": _paths,
    "shape": _shape,
    "guidance": _guidance,
    "rows": _rows,
    "distances": _mapping,
    "provenance": _mapping,
    "protocol": _protocol,
}
