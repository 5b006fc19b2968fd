"""What is asked of the worker, and what becomes of its answer."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from .RunInputs import RunInputs


@dataclass(frozen=True)
class Task:
    """A run before it begins.

    Attributes:
        request: what to ask, without the volumes; see :mod:`DEMISTCore.worker.protocol`.
        make: takes the worker's ``done`` message and makes the nodes; its value is the result. A generator, so that
            the event loop turns between two nodes; see :class:`~DEMISTSlicerLib.Run.Steps.Steps` for what it yields.
        inputs: volumes that go along.
        expectedSeconds: how long it will take, about; None if nobody knows.
    """

    request: dict[str, Any]
    make: Callable[[dict[str, Any]], Generator[Any, None, Any]]
    inputs: RunInputs = field(default_factory=RunInputs)
    expectedSeconds: float | None = None

    @property
    def kind(self) -> str:
        """What is asked of the worker: ``synthesize``, ``statistics``, ``regions``, ``brain_ldm`` or ``simulate``."""
        return self.request["do"]
