"""Losses that are no mean over samples, where several processes and micro-batches share out the samples of a step.

Gradients are averaged: over micro-batches by the training loop, over processes by DDP. The average is the whole batch's
gradient only if its loss is the mean of theirs. A quotient of two sums, a Dice overlap, a contrast between all samples
are none. Such a loss asks here for what it needs of the other samples:

    rows(x)     x of all samples of the step; gradients flow into this micro-batch's own
    count(n)    n over all samples, divided by the number of micro-batches

so that every micro-batch computes the whole batch's loss. Own gradients are multiplied by the number of micro-batches;
their average is then the sum of the partial derivatives, by the chain rule the gradient of the whole.

Processes exchange values during the forward pass. Micro-batches of one process follow each other, so there all of them
are rehearsed first, without gradients, as far as is needed to know the values (GradCache: Gao et al. 2021, arXiv
2101.06983). Outside of a :class:`Step` nothing is exchanged: validation and synthesis see their own samples alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import torch
from torch import Tensor

_PRESENT: ContextVar[Step | None] = ContextVar("step", default=None)


def rows(own: Tensor) -> Tensor:
    """The rows (n, ...) of all samples of the step, in their order; outside of a step ``own`` itself.

    ``n`` may differ from one micro-batch to the other, and be 0.
    """
    step = _PRESENT.get()
    return own if step is None else step.rows(own)


def count(own: Tensor, least: float = 1.0) -> Tensor:
    """What to divide a micro-batch's sum by, so that the mean over micro-batches is the whole's sum over its count.

    Args:
        own: a scalar, which no trained weight has a part in.
        least: the whole count is at least this.
    """
    step = _PRESENT.get()
    if step is None:
        return own.clamp_min(least)
    return step.rows(own[None]).sum().clamp_min(least) / step.parts


def deviation(values: Tensor) -> Tensor:
    """Standard deviation, a scalar, of all elements of the step's ``values`` of any shape, as ``Tensor.std``."""
    step = _PRESENT.get()
    if step is None:
        return values.std()
    n = torch.full_like(values[:0].sum(), values.numel())
    mean = values.mean()
    n, mean, squares = step.rows(torch.stack([n, mean, (values - mean).square().sum()])[None]).unbind(1)
    middle = (n * mean).sum() / n.sum()  # Chan et al. 1983: as exact as one pass over all of them
    return ((squares + n * (mean - middle).square()).sum() / (n.sum() - 1)).sqrt()


class Step:
    """A step of training, while its micro-batches are computed.

    Args:
        accumulate: micro-batches of each process.
        world: processes, which all do the same at the same time.
    """

    def __init__(self, accumulate: int, world: int) -> None:
        self.accumulate, self.world = accumulate, world
        self._micro, self._calls, self._rehearsing = 0, 0, False
        self._rehearsed: list[list[Tensor]] = []  # by micro-batch, in the order of calls
        self._known: dict[int, list[list[Tensor]]] = {}  # by call, then micro-batch, then process

    @property
    def parts(self) -> int:
        """Micro-batches of all processes together."""
        return self.accumulate * self.world

    @contextlib.contextmanager
    def rehearsal(self) -> Iterator[None]:
        """One after the other, before the first :meth:`micro_batch`: the values of this process's micro-batches."""
        self._rehearsed.append([])
        self._rehearsing = True
        with self._present():
            yield
        self._rehearsing = False

    @contextlib.contextmanager
    def micro_batch(self, number: int) -> Iterator[None]:
        """The forward pass of micro-batch ``number`` of this process."""
        self._micro, self._calls = number, 0
        with self._present():
            yield

    @contextlib.contextmanager
    def _present(self) -> Iterator[None]:
        token = _PRESENT.set(self)
        try:
            yield
        finally:
            _PRESENT.reset(token)

    def rows(self, own: Tensor) -> Tensor:
        """See :func:`rows`; (n, ...) of each micro-batch.

        Raises:
            RuntimeError: this was not rehearsed: a fault of the objective.
        """
        if self._rehearsing:
            self._rehearsed[-1].append(own.detach())
            return own
        if self.parts == 1:
            return own
        call, self._calls = self._calls, self._calls + 1
        if self.accumulate == 1:
            known = _from_all([own.detach()], self.world)
        else:
            if len(self._rehearsed) != self.accumulate or any(len(made) <= call for made in self._rehearsed):
                raise RuntimeError("A loss asks for more of the other samples than its objective has rehearsed.")
            if call not in self._known:
                self._known[call] = _from_all([made[call] for made in self._rehearsed], self.world)
            known = self._known[call]
        mine = own.view_as(own)  # a hook on ``own`` would scale what else it is used for, too
        if mine.requires_grad:
            mine.register_hook(lambda gradient: gradient * self.parts)
        rank = torch.distributed.get_rank() if self.world > 1 else 0
        if known[self._micro][rank].shape != own.shape:
            raise RuntimeError(f"{tuple(own.shape)} was rehearsed as {tuple(known[self._micro][rank].shape)}.")
        known = [list(each) for each in known]
        known[self._micro][rank] = mine
        return torch.cat([part for each in known for part in each])


def _from_all(own: list[Tensor], world: int) -> list[list[Tensor]]:
    """Rows of each micro-batch of each process, which differ in their number only."""
    if world == 1:
        return [[part] for part in own]
    lengths = torch.tensor([len(part) for part in own], device=own[0].device)
    every = [torch.empty_like(lengths) for _ in range(world)]
    torch.distributed.all_gather(every, lengths)
    told = [each.tolist() for each in every]
    most = max(map(sum, told))
    padded = own[0].new_zeros((most, *own[0].shape[1:]))
    padded[: sum(map(len, own))] = torch.cat(own)
    received = [torch.empty_like(padded) for _ in range(world)]
    if most:
        torch.distributed.all_gather(received, padded)
    split = [all_of[: sum(n)].split(n) for all_of, n in zip(received, told)]
    return [[of_rank[micro] for of_rank in split] for micro in range(len(own))]
