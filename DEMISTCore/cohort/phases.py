"""Which stages of a session run on which kind of worker: preparation beside the GPUs, not on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .options import Options


@dataclass(frozen=True)
class Phase:
    """A part of a session that one worker does in one go.

    Attributes:
        stages: what it may do; empty: all.
        resource: what the worker must have, ``CPU`` or ``GPU`` (Dask's resources); "": any worker does.
        rank: phases of a higher rank go first, so that what has begun is finished before more begins.
    """

    stages: tuple[str, ...] = ()
    resource: str = ""
    rank: int = 0

    @property
    def on_cpu(self) -> bool:
        """Whether nothing here may touch a GPU."""
        return self.resource == "CPU"


def phases(options: Options, resources: set[str]) -> list[Phase]:
    """How a session is shared out among workers with these resources.

    Networks are a fifth of the work of a session on a processor, and nearly nothing on a GPU: a GPU that prepared
    images, too, would stand idle most of the time. So where there are workers of both kinds, the images are prepared
    on one, handed over in a file, and what follows the map is done without the GPU again.

    >>> [(phase.stages[0], phase.resource) for phase in phases(Options("demist-sim"), {"CPU", "GPU"})]
    [('prepare', 'CPU'), ('map', 'GPU'), ('regions', 'CPU')]
    """
    if "GPU" not in resources:
        return [Phase()]
    if "CPU" not in resources:
        return [Phase(resource="GPU")]
    after = tuple(name for name in options.stages if name != "map")
    return [Phase(("prepare",), "CPU", 0), Phase(("map",), "GPU", 1), Phase(after, "CPU", 2)]


def phase_of(stage: str, listed: Sequence[Phase]) -> Phase:
    """The phase that a stage belongs to."""
    return next(phase for phase in listed if not phase.stages or stage in phase.stages)
