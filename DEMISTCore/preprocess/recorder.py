"""What a preparation says of itself: steps with times, warnings, progress."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

log = logging.getLogger(__name__)

Progress = Callable[[str, float], None]

# Rough shares of the run time, for the progress callback only.
_WEIGHTS = {"read": 2, "brain mask": 9, "registration": 8, "slices": 1, "resampling": 5, "bias field": 5,
            "normalisation": 1}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One step of the preparation: what, how long (seconds), and what came of it ("off" if switched off)."""

    name: str
    seconds: float
    note: str = ""


class Recorder:
    """Times steps, collects warnings, reports progress."""

    def __init__(self, progress: Progress | None) -> None:
        self.steps: list[Step] = []
        self.warnings: list[str] = []
        self._progress = progress or (lambda stage, fraction: None)
        self._stage, self._before = "", 0.0

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Time a step; what the body appends to the list becomes its note."""
        self._stage = name
        self._progress(name, self._before)
        note: list[str] = []
        start = time.perf_counter()
        yield note
        self.steps.append(Step(name, time.perf_counter() - start, "; ".join(note)))
        self._before = min(1.0, self._before + _WEIGHTS[name] / sum(_WEIGHTS.values()))
        log.info("%-14s %5.1f s  %s", name, self.steps[-1].seconds, self.steps[-1].note)

    def tick(self, fraction: float) -> None:
        """Report progress within the step."""
        self._progress(self._stage, self._before + fraction * _WEIGHTS[self._stage] / sum(_WEIGHTS.values()))

    def done(self) -> None:
        """Report the end."""
        self._progress("prepared", 1.0)

    def warn(self, sentence: str) -> None:
        """Keep a sentence for the user."""
        self.warnings.append(sentence)
        log.warning("%s", sentence)
