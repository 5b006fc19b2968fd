"""What a preparation says of itself: steps with times, warnings, progress."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..clock import PREPARATION, Clock, Progress

log = logging.getLogger(__name__)


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
        self._clock, self._stage = Clock(progress, PREPARATION), ""

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Time a step; what the body appends to the list becomes its note."""
        self._stage = name
        note: list[str] = []
        self._clock.report(name, name, 0.0)
        with self._clock.stage(name):
            yield note
        self.steps.append(Step(name, self._clock.seconds[name], "; ".join(note)))
        log.info("%-14s %5.1f s  %s", name, self.steps[-1].seconds, self.steps[-1].note)

    def tick(self, fraction: float) -> None:
        """Report progress within the step."""
        self._clock.report(self._stage, self._stage, fraction)

    def done(self) -> None:
        """Report the end."""
        self._clock.end("prepared")

    def warn(self, sentence: str) -> None:
        """Keep a sentence for the user."""
        self.warnings.append(sentence)
        log.warning("%s", sentence)
