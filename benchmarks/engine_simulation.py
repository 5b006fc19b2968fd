"""The cohort engine as a discrete-event simulation (simpy): sessions, workers of two kinds, who hands out, storage.

It follows DEMISTCore.cohort.engine and .cluster: at most two sessions a worker are begun; what has begun goes before
what has not; one process hands out tasks and writes status.tsv, of which it gives at most a fiftieth of its time; all
workers share the storage; a worker that dies is replaced, and its session begun again.
"""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import simpy

#: As in DEMISTCore.cohort.cluster and .engine.
AHEAD, LEDGER_PAUSE, LEDGER_SHARE = 2, 5.0, 50


@dataclass(frozen=True)
class Outcome:
    """What came of a simulated run.

    Attributes:
        seconds: from the start of the program to its end.
        worked: the first session's begin to the last one's end.
        busy: share of that time by resource that it was in use: ``cpu``, ``gpu``, ``storage``, ``hand``.
        repeated: sessions' stages that were begun again because a worker died.
    """

    seconds: float
    worked: float
    busy: Mapping[str, float]
    repeated: int

    @property
    def bottleneck(self) -> str:
        """What is used most."""
        return max(self.busy, key=lambda name: self.busy[name])


def simulate(sessions: int, constants: Mapping[str, float], *, workers: int, gpus: int = 0, seed: int = 0) -> Outcome:
    """Run the engine on ``sessions`` alike sessions.

    Args:
        sessions: how many.
        constants: seconds and megabytes, see ``scaling_constants.json``.
        workers: those that do everything, or all but the networks where there are GPUs.
        gpus: workers that do the networks alone.
        seed: of durations and deaths.
    """
    run = _Run(sessions, constants, workers, gpus, random.Random(seed))
    run.env.run(until=run.ended)
    worked = run.env.now - run.began
    busy = {name: used / worked / count for name, (used, count) in run.used().items() if count}
    return Outcome(run.env.now, worked, busy, run.repeated)


class _Run:
    def __init__(
        self, sessions: int, constants: Mapping[str, float], workers: int, gpus: int, rng: random.Random
    ) -> None:
        self.env = simpy.Environment()
        self.c, self.rng, self.sessions = constants, rng, sessions
        self.count = {"cpu": workers, "gpu": gpus}
        self.pools = {kind: simpy.PriorityResource(self.env, count) for kind, count in self.count.items() if count}
        self.hand = simpy.Resource(self.env, 1)
        # Storage serves so many streams at once, as fast as one can be or as its share; more of them wait.
        self.lanes = max(1, math.ceil(constants["storage_mb_s"] / constants["stream_mb_s"]))
        self.stream = min(constants["stream_mb_s"], constants["storage_mb_s"] / self.lanes)
        self.storage = simpy.Resource(self.env, self.lanes)
        self.room = simpy.Container(self.env, AHEAD * (workers + gpus), AHEAD * (workers + gpus))
        self.spent = dict.fromkeys(("cpu", "gpu", "storage", "hand"), 0.0)
        self.done, self.repeated, self.began, self.wrote = 0, 0, math.inf, 0.0
        self.ended = self.env.event()
        self.env.process(self._all())

    def used(self) -> dict[str, tuple[float, int]]:
        return {
            "cpu": (self.spent["cpu"], self.count["cpu"]),
            "gpu": (self.spent["gpu"], self.count["gpu"]),
            "storage": (self.spent["storage"], self.lanes),
            "hand": (self.spent["hand"], 1),
        }

    def _all(self) -> Generator[Any, Any, None]:
        yield self.env.timeout(self.c["index_s"] * self.sessions)
        yield self.env.timeout(self.c["start_s"])
        for _ in range(self.sessions):
            yield self.room.get(1)
            self.env.process(self._session())

    def _session(self) -> Generator[Any, Any, None]:
        c = self.c
        if self.count["gpu"]:
            prepare = c["prepare_s"] + c["convert_s"]
            yield from self._phase("cpu", prepare, c["input_mb"], c["handoff_mb"], 2, c["session_s"])
            yield from self._phase("gpu", c["map_gpu_s"], c["handoff_mb"], c["output_mb"], 1, c["session_s"])
            yield from self._phase(
                "cpu", c["regions_s"] + c["report_s"], c["handoff_mb"] + c["output_mb"], 0, 0, c["session_s"]
            )
        else:
            seconds = c["convert_s"] + c["prepare_s"] + c["map_cpu_s"] + c["regions_s"] + c["report_s"]
            yield from self._phase("cpu", seconds, c["input_mb"], c["output_mb"], 0, c["session_s"])
        yield from self._used(self.hand, "hand", self._ledger())
        self.done += 1
        yield self.room.put(1)
        if self.done == self.sessions:
            self.ended.succeed()

    def _phase(
        self, kind: str, seconds: float, read: float, written: float, rank: int, own: float
    ) -> Generator[Any, Any, None]:
        """One task: handed out, waited for, done; done again if its worker dies on the way."""
        yield from self._used(self.hand, "hand", self.c["dispatch_s"])
        while True:
            with self.pools[kind].request(priority=rank) as turn:
                yield turn
                begin = self.env.now
                self.began = min(self.began, begin)
                yield from self._moved(read)
                lasts = own + seconds * self._factor()
                dies = self.rng.expovariate(self.c["deaths_per_hour"] / 3600) if self.c["deaths_per_hour"] else math.inf
                yield self.env.timeout(min(lasts, dies))
                if dies < lasts:  # its successor has to start before it takes anything
                    self.repeated += 1
                    yield self.env.timeout(self.c["start_s"])
                else:
                    yield from self._moved(written)
                self.spent[kind] += self.env.now - begin
            if dies >= lasts:
                return

    def _factor(self) -> float:
        """Log-normal, of mean 1."""
        spread = self.c["spread"]
        if not spread:
            return 1.0
        sigma = math.sqrt(math.log(1 + spread**2))
        return self.rng.lognormvariate(-(sigma**2) / 2, sigma)

    def _moved(self, megabytes: float) -> Generator[Any, Any, None]:
        if megabytes:
            yield from self._used(self.storage, "storage", megabytes / self.stream)

    def _used(self, resource: simpy.Resource, name: str, seconds: float) -> Generator[Any, Any, None]:
        with resource.request() as turn:
            yield turn
            yield self.env.timeout(seconds)
            self.spent[name] += seconds

    def _ledger(self) -> float:
        """Seconds of writing status.tsv, if it is due."""
        lasts = self.c["ledger_s"] * (self.done + 1)
        if self.env.now - self.wrote < max(LEDGER_PAUSE, LEDGER_SHARE * lasts):
            return 0.0
        self.wrote = self.env.now
        return lasts
