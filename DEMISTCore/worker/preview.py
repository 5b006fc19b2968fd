"""The running estimate for live preview, thinned so that it costs little."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .context import Context

if TYPE_CHECKING:
    from ..synthesis import Estimate

#: At most one estimate per so many seconds, and at most this share of all time spent on them.
EVERY, SHARE = 2.0, 0.2


class Preview:
    """Decodes, brings to the T1w's grid and sends estimates, as often as it can afford.

    Decoding takes as long as for a sample, so its own cost, once known, decides how often it happens: with a fast GPU
    every two seconds, on a slow CPU a few times in a run.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._start: float | None = None
        self._last = -float("inf")
        self._spent = self._cost = 0.0
        self._count = 0

    def __call__(self, estimate: Estimate) -> None:
        """Called after every sampling step."""
        now = time.monotonic()
        if self._start is None:
            self._start = now
        # The last step's estimate is the sample, which is about to be decoded anyway.
        if estimate.step == estimate.steps or not self._affordable(now):
            return
        self._last = now
        name = f"estimate-{self._count}"
        self._count += 1
        volume = self._context.give(estimate.volume(), name)
        self._cost = time.monotonic() - now
        self._spent += self._cost
        self._context.send("estimate", seed=estimate.seed, step=estimate.step, steps=estimate.steps, volume=volume)

    def _affordable(self, now: float) -> bool:
        if now - self._last < EVERY:
            return False
        # The first one is what tells the cost.
        start = now if self._start is None else self._start
        return self._count == 0 or self._spent + self._cost <= SHARE * (now - start)
