"""Mean and standard deviation over the seeds."""

from __future__ import annotations

import numpy as np

from ..volume import Grid, Volume


class Spread:
    """Running mean and standard deviation of maps (Welford 1962), in float64, in the order they come.

    Attributes:
        count: maps so far.
    """

    def __init__(self) -> None:
        self.count = 0

    def add(self, sample: np.ndarray) -> None:
        """Take a map in; all have one shape."""
        self.count += 1
        if self.count == 1:
            self._mean, self._squares = sample.astype(np.float64), np.zeros(sample.shape)
            return
        delta = sample - self._mean
        self._mean += delta / self.count
        self._squares += delta * (sample - self._mean)

    def volumes(self, grid: Grid) -> tuple[Volume, Volume | None]:
        """Mean and standard deviation (ddof 1; None for one map alone), float32, on ``grid``."""
        mean = grid.volume(self._mean.astype(np.float32))
        if self.count < 2:
            return mean, None
        return mean, grid.volume(np.sqrt(self._squares / (self.count - 1)).astype(np.float32))
