"""Averaged weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


class Ema:
    """Exponential moving average of parameters, in float32.

    a_n = d_n a_{n-1} + (1 - d_n) w_n with d_n = min(decay, (1 + n) / (10 + n)), n = 1, 2, ...: the warm-up of
    TensorFlow's ExponentialMovingAverage, so that a short run is not dominated by the initialisation.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = dict(parameters), decay
        self.average = {name: p.detach().float().clone() for name, p in self.parameters.items()}

    @staticmethod
    def decay_at(update: int, decay: float) -> float:
        """The factor d_n of update n = 1, 2, ..."""
        return min(decay, (1 + update) / (10 + update))

    @torch.no_grad()
    def update(self, number: int) -> None:
        """Take in the present weights as update ``number`` = 1, 2, ..."""
        for kind in {type(average) for average in self.average.values()}:  # shared out among processes or not
            names = [name for name, average in self.average.items() if type(average) is kind]
            torch._foreach_lerp_(
                [self.average[n] for n in names],
                [self.parameters[n].detach().float() for n in names],
                1 - self.decay_at(number, self.decay),
            )

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averaged weights in place of the trained ones for a while."""
        backup = {name: p.detach().clone() for name, p in self.parameters.items()}
        try:
            self._copy(self.average)
            yield
        finally:
            self._copy(backup)

    @torch.no_grad()
    def _copy(self, values: Mapping[str, Tensor]) -> None:
        for name, p in self.parameters.items():
            p.copy_(values[name])
