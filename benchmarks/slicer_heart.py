"""For how long the main thread was blocked, and by what: a beat of the event loop, and a thread that watches it.

Used by ``slicer_responsiveness.py`` and ``slicer_tutorial.py``. A Qt timer of 5 ms notes the time. While it is late,
a thread looks at the main thread's stack every few milliseconds. A gap is told with the share of it that the main
thread computed (its own CPU time: on a machine with other work the rest is waiting for a core, on any machine waiting
for a disk or another process), with the places that it was in, and with whose these are: the module's, or those of
what stands in for Slicer. A call that keeps Python's lock is seen when it returns, and counts from the look before.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[1]
#: Seconds: a beat is due each, a stack is taken when it is later than that, and how often.
BEAT, LATE, LOOK = 0.005, 0.02, 0.005
#: Whose a place is, by the folder that its file is in; the innermost one that is known counts.
OWNERS = {"DEMISTSlicer": "module", "DEMISTCore": "module", "slicer_app": "stand-ins", "benchmarks": "benchmark"}

Places = dict[tuple[str, str], list[float]]


@dataclass
class Gap:
    """A time without a beat.

    Attributes:
        seconds: how long.
        computed: seconds of it that the main thread computed.
        stage: what was said to go on.
        places: seconds by (owner, where): how long, and how much of it the main thread computed (0 where the system
            does not tell).
    """

    seconds: float = 0.0
    computed: float = 0.0
    stage: str = ""
    places: Places = field(default_factory=dict)

    def owners(self) -> dict[str, list[float]]:
        """The same by owner alone: ``module``, ``stand-ins``, ``benchmark``, ``event loop``."""
        told: dict[str, list[float]] = {}
        for (owner, _where), (seconds, computed) in sorted(self.places.items()):
            so_far = told.setdefault(owner, [0.0, 0.0])
            told[owner] = [so_far[0] + seconds, so_far[1] + computed]
        return told

    def words(self, most: int = 4) -> str:
        """The gap in some lines for people; in each the milliseconds, and those of them that were computed."""
        lines = [f"{1000 * self.seconds:.0f} ms, computed {1000 * self.computed:.0f}"]
        lines[0] += "".join(f"; {owner} {_ms(pair)}" for owner, pair in self.owners().items())
        longest = sorted(self.places.items(), key=lambda item: -item[1][0])[:most]
        return "\n".join(lines + [f"    {_ms(pair)} {where}" for (_owner, where), pair in longest])


class Heart:
    """Beats in the event loop and keeps the longest gap; made in the main thread, with the application there.

    No more than one is kept: objects by the thousand would make Python's garbage collector the longest gap.
    """

    def __init__(self) -> None:
        import qt

        self.stage = ""
        self._main = threading.get_ident()
        self._longest = Gap()
        self._places: Places = {}
        self._lock = threading.Lock()
        self._last, self._computed = time.perf_counter(), time.thread_time()
        self._timer = qt.QTimer()
        self._timer.setInterval(int(1000 * BEAT))
        self._timer.connect("timeout()", self._beat)
        self._timer.start()
        threading.Thread(target=self._watch, daemon=True).start()

    def take(self) -> Gap:
        """The longest gap since the last call; the one that lasts is not looked at."""
        longest, self._longest = self._longest, Gap()
        return longest

    def _beat(self) -> None:
        now, computed = time.perf_counter(), time.thread_time()
        with self._lock:
            places, self._places = self._places, {}
            if now - self._last > self._longest.seconds:
                self._longest = Gap(now - self._last, computed - self._computed, self.stage, places)
            self._last, self._computed = now, computed

    def _watch(self) -> None:
        clock = time.pthread_getcpuclockid(self._main) if hasattr(time, "pthread_getcpuclockid") else None
        before, spent = time.perf_counter(), 0.0
        while True:
            time.sleep(LOOK)
            frame = sys._current_frames().get(self._main)
            now, used = time.perf_counter(), time.clock_gettime(clock) if clock is not None else 0.0
            with self._lock:
                if now - self._last > LATE:
                    there = self._places.setdefault(place(frame), [0.0, 0.0])
                    there[0] += now - max(before, self._last)
                    there[1] += used - spent
            before, spent = now, used


def _ms(pair: Sequence[float]) -> str:
    """Seconds and those computed, in milliseconds."""
    return f"{1000 * pair[0]:.0f}/{1000 * pair[1]:.0f}"


def place(frame: FrameType | None) -> tuple[str, str]:
    """Whose a stack is and where it is: the innermost known place, and what it had called."""
    inner = ""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        owner = next((OWNERS[part] for part in path.parts if part in OWNERS), None)
        here = f"{path.name}:{frame.f_lineno} {frame.f_code.co_name}"
        if owner is not None and frame.f_code.co_name in ("turn", "process_events", "processEvents"):
            owner = "event loop"
        if owner is not None:
            return owner, f"{here} < {inner}" if inner else here
        inner, frame = inner or here, frame.f_back
    return "event loop", inner
