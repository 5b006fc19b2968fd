"""Data from outside, checked at the border: types, ranges, NaN, sizes, depth. A hash says whole, not sensible.

What does not hold raises ``ValueError`` with a few words that fit after a file's name; callers put it into a sentence
of their own kind.
"""

from __future__ import annotations

import json
import math
import os
import stat
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import printable

#: Nobody writes configurations deeper or larger than that.
DEPTH, NODES = 40, 200_000
#: Largest JSON that is read: bundles keep their training's settings in it.
JSON_BYTES = 16 << 20


def read_text(path: str | os.PathLike[str], most: int) -> str:
    """The text of a regular file of at most ``most`` bytes, UTF-8.

    Raises:
        OSError: it cannot be read.
        ValueError: no regular file (a pipe would wait for ever), too large, or not UTF-8.
    """
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise ValueError("it is no regular file")
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it is larger than {most >> 10:,} KiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None


def parse_json(text: str) -> Any:
    """JSON of bounded depth and size.

    Raises:
        ValueError: it is none.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError:
        raise ValueError("it is not JSON") from None
    check_size(content)
    return content


def read_json(path: Path, most: int = JSON_BYTES) -> Any:
    """The content of a JSON file; see :func:`read_text` and :func:`parse_json` for the errors."""
    return parse_json(read_text(path, most))


def check_size(content: Any, depth: int = DEPTH, nodes: int = NODES) -> None:
    """ValueError where a tree of mappings and lists is too deep or has too many values."""
    level, count = [content], 0
    for _ in range(depth):
        level = [
            item
            for value in level
            if isinstance(value, (Mapping, list, tuple))
            for item in (value.values() if isinstance(value, Mapping) else value)
        ]
        count += len(level)
        if count > nodes:
            raise ValueError(f"it holds more than {nodes:,} values")
        if not level:
            return
    raise ValueError("it is nested too deeply")


def finite(value: Any) -> bool:
    """Whether it is a number, and one that a float can hold.

    JSON's whole numbers may have hundreds of digits; ``math.isfinite`` raises OverflowError on those.

    >>> finite(3), finite(True), finite(float("nan")), finite(10**400)
    (True, False, False, False)
    """
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def number(value: Any, what: str, low: float, high: float, *, whole: bool = False) -> float:
    """A finite number from ``low`` to ``high``; 3.0 is a whole one, True is none.

    Raises:
        ValueError: it is not.
    """
    kind = "a whole number" if whole else "a number"
    fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    if fits and isinstance(value, float):
        fits = math.isfinite(value) and (value.is_integer() or not whole)
    if not fits or not low <= value <= high:
        raise ValueError(f"{what} must be {kind} from {low:,.12g} to {high:,.12g}, not {shown(value)}")
    return int(value) if whole else float(value)


def text(value: Any, what: str, longest: int = 200, *, empty: bool = False) -> str:
    """One line of text without control characters.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, str) or len(value) > longest or not (value or empty) or not printable(value) == value:
        raise ValueError(f"{what} must be a line of at most {longest} characters, not {shown(value)}")
    return value


def one_of(value: Any, what: str, choices: Sequence[str]) -> str:
    """One of a few words; ValueError for anything else."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{what} must be one of {', '.join(choices)}, not {shown(value)}")
    return value


def shown(value: Any) -> str:
    """A value for a sentence: short, and with nothing in it that a terminal would obey."""
    try:
        words = repr(value) if not isinstance(value, int) or abs(value) < 1 << 64 else "a number of many digits"
    except (ValueError, RecursionError):
        words = f"a {type(value).__name__}"
    words = printable(words)
    return words if len(words) <= 60 else words[:57] + "..."


def check_fields(
    values: Any, hints: Mapping[str, Any], bounds: Mapping[str, tuple[float, float]], prefix: str = ""
) -> None:
    """Check an object's attributes (or a mapping's values) by their annotations and by bounds.

    Args:
        values: an object with the attributes, or a mapping with the keys.
        hints: types by name: bool, int, float, str, tuples of one of them, and unions with None.
        bounds: (lowest, highest) by name, for numbers and for those in tuples; default 0 to 65536 for whole numbers,
            and anything finite up to 1e9 for others.
        prefix: of the names in messages.

    Raises:
        ValueError: the first one that does not fit.
    """
    for name, hint in hints.items():
        value = values.get(name) if isinstance(values, Mapping) else getattr(values, name)
        _check(value, hint, f"{prefix}{name}", bounds.get(name))


def _check(value: Any, hint: Any, name: str, bound: tuple[float, float] | None) -> None:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        if value is None and type(None) in typing.get_args(hint):
            return
        tuples = isinstance(value, (tuple, list))
        options = [o for o in typing.get_args(hint) if o is not type(None)]
        hint = next((o for o in options if (typing.get_origin(o) is tuple) == tuples), options[0])
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (tuple, list)) or len(value) > 64:
            raise ValueError(f"{name} must be a list of at most 64, not {shown(value)}")
        for item in value:
            _check(item, typing.get_args(hint)[0], name, bound)
    elif hint is bool:
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false, not {shown(value)}")
    elif hint in (int, float):
        low, high = bound or ((0, 65536) if hint is int else (-1e9, 1e9))
        number(value, name, low, high, whole=hint is int)
    elif hint is str:
        text(value, name, empty=True)
