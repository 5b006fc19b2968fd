"""Whom the caller of one run wants to be called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Callbacks:
    """What :meth:`.Logic.DEMISTSlicerLogic.synthesize` takes under the same names; None calls nobody."""

    onProgress: Callable[[str, float, float | None], Any] | None = None
    onDone: Callable[[Any], Any] | None = None
    onError: Callable[[str, str], Any] | None = None
