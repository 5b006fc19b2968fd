"""What a caller gives in one of several forms, in the one form that the worker takes."""

from __future__ import annotations

import os
from collections.abc import Sequence

from .I18n import _
from .RunError import RunError


def seedList(seeds: int | Sequence[int] | None, first: int) -> list[int] | None:
    """The seeds that a number and a first one stand for; the worker checks them.

    Raises:
        RunError: they are neither a number of samples (1 to 256, from 0 or more on) nor a list.
    """
    if seeds is None:
        return None
    if isinstance(seeds, bool) or not isinstance(seeds, (int, Sequence)) or isinstance(seeds, str):
        raise RunError("input", _("Seeds are a number of samples, or a list of whole numbers, not {seeds!r}.").format(
            seeds=seeds))  # fmt: skip
    if not isinstance(seeds, int):
        return [int(seed) for seed in seeds]
    if not 1 <= seeds <= 256:
        raise RunError("input", _("The number of seeds must be 1 to 256, not {seeds}.").format(seeds=seeds))
    if not isinstance(first, int) or first < 0:
        raise RunError("input", _("The first seed is a whole number, 0 or more, not {first!r}.").format(first=first))
    return list(range(first, first + seeds))


def bundleName(bundle: str | os.PathLike[str] | None) -> str | None:
    """A model's name as it is, a folder as a whole path."""
    if not bundle:
        return None
    text = os.fspath(bundle)
    # A plain name means one of the shipped models, even where there is a folder of that name.
    return wholePath(text) if os.path.basename(text) != text and os.path.isdir(os.path.expanduser(text)) else text


def wholePath(path: str | os.PathLike[str]) -> str:
    """The path from the root: the worker may have been started in another working directory."""
    return os.path.abspath(os.path.expanduser(path))
