"""What a job is made of: the names of its stages, their shares of the time, and the clock that all jobs go by.

Names are what a progress callback is told; :mod:`DEMISTSlicer` has words for them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)

#: Told a stage's name and the share of all work done, 0 to 1.
Progress = Callable[[str, float], Any]

# Rough shares of the run time, for progress only.
PREPARATION = {
    "read": 2,
    "brain mask": 9,
    "registration": 8,
    "slices": 1,
    "resampling": 5,
    "bias field": 5,
    "normalisation": 1,
}
SYNTHESIS = {"prepare": 45, "encode": 2, "seeds": 50, "write": 3}
STATISTICS = {"read": 5, "regions": 55, "table": 5, "curves": 10, "comparison": 5, "write": 20}

#: Stages told by a synthesis whose length says nothing about sampling, which follows ...
BEFORE_SAMPLING = ("load", *PREPARATION, "prepared", "encode", "mean")
#: ... and those after it.
AFTER_SAMPLING = ("write", "done")


class Clock:
    """Seconds by stage, and the share of all work that is done.

    Args:
        progress: told how far the job is; None: nobody is.
        weights: share of the run time by part, in the order of the parts; any scale.
        seconds: where the seconds are added up; None: a mapping of its own.
    """

    def __init__(
        self, progress: Progress | None, weights: Mapping[str, float], seconds: dict[str, float] | None = None
    ) -> None:
        self.seconds: dict[str, float] = {} if seconds is None else seconds
        self._progress = progress
        self._start = time.perf_counter()
        self._weights = dict(weights)

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

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Say that a part begins, time it, and say how long it took."""
        self.report(name, name, 0.0)
        with self.stage(name):
            yield
        log.info("%s: %.1f s", name, self.seconds[name])

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

    def end(self, stage: str = "done") -> None:
        """Report that all is done."""
        if self._progress is not None:
            self._progress(stage, 1.0)

    def skip(self, part: str) -> None:
        """A part that need not be done counts for nothing."""
        self._weights[part] = 0


class Remaining:
    """Seconds that a synthesis still needs, once sampling tells how fast it goes; None before."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._first: tuple[float, float] | None = None
        self.sampling_after: float | None = None

    def __call__(self, stage: str, done: float) -> float | None:
        """Of ``stage`` and the share of all work done, as a progress callback is told them."""
        # Where nothing was sampled, what comes after it is no beginning.
        if stage in BEFORE_SAMPLING or (self._first is None and stage in AFTER_SAMPLING):
            return None
        now = time.monotonic()
        if self._first is None:
            self._first = (now, done)
            self.sampling_after = round(now - self._begin, 3)
        then, at = self._first
        return None if done <= at else round((now - then) * (1 - done) / (done - at), 1)
