"""How long a synthesis takes, stage by stage, and how much of it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Progress = Callable[[str, float], Any]

# Shares of the run time, for the progress callback only.
_WEIGHTS = {"prepare": 45, "encode": 2, "seeds": 50, "write": 3}


class Clock:
    """Seconds by stage, and progress over all of them."""

    def __init__(self, progress: Progress | None, seconds: dict[str, float] | None = None) -> None:
        self.seconds: dict[str, float] = {} if seconds is None else seconds
        self._progress = progress
        self._start = time.perf_counter()
        self._weights = dict(_WEIGHTS)

    @property
    def total(self) -> float:
        """Seconds since it was made."""
        return time.perf_counter() - self._start

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is done inside."""
        start = time.perf_counter()
        yield
        self.add({name: time.perf_counter() - start})

    def add(self, seconds: Mapping[str, float]) -> None:
        """Seconds by stage, on top of those already there."""
        for name, value in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value

    def report(self, stage: str, part: str, done: float) -> None:
        """Hand on the share of all work done: of ``part``, which ``stage`` belongs to, it is ``done`` (0 to 1)."""
        if self._progress is None:
            return
        before = 0.0
        for name, weight in self._weights.items():
            if name == part:
                self._progress(stage, min(1.0, (before + weight * done) / sum(self._weights.values())))
            before += weight

    def skip(self, part: str) -> None:
        """A part that need not be done counts for nothing."""
        self._weights[part] = 0
