"""What a synthesis gives: the result, and mean and standard deviation over its seeds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..volume import Grid, Volume

if TYPE_CHECKING:
    from ..preprocess import Prepared


@dataclass(eq=False)
class Synthesis:
    """A synthesized PSR map and where it came from.

    Attributes:
        psr: the posterior mean, or the mean over the seeds; fraction, float32, on the T1w's own grid, 0 outside the
            brain.
        uncertainty: standard deviation, fraction, same grid: predicted by a model with a mean network, else over the
            seeds (ddof 1), as ``provenance["uncertainty"]["kind"]`` says; None for one seed of a model without.
        samples: the map of each seed, if asked for.
        mask: brain on the T1w's own grid, uint8.
        provenance: what the JSON sidecar holds.
        prepared: the images as the model saw them.
        model_psr: the mean on the model grid.
        model_uncertainty: the standard deviation on the model grid.
        files: what was written, by kind.
    """

    psr: Volume
    uncertainty: Volume | None
    samples: list[Volume]
    mask: Volume
    provenance: dict[str, Any]
    prepared: Prepared
    model_psr: Volume
    model_uncertainty: Volume | None
    files: dict[str, Path] = field(default_factory=dict)


class RunningDeviation:
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
