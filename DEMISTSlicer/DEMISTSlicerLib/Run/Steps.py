"""Work on the main thread in slices: a generator that yields often, driven by a timer, so that nothing freezes."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any

import qt


class Steps:
    """Runs a generator a few milliseconds at a time.

    Python threads do not help here: in Slicer they rest while the application waits for events.
    """

    #: Seconds of work per turn of the event loop; one step may take longer, and should not.
    BUDGET = 0.02

    def __init__(
        self, generator: Generator[Any, None, Any], onDone: Callable[[Any], Any], onError: Callable[[Exception], Any]
    ) -> None:
        """Begin at the next turn of the event loop.

        Args:
            generator: the work; what it returns goes to ``onDone``. It yields True where something longer follows,
                so that this gets a turn of its own.
            onDone: called at the end, unless stopped.
            onError: called with what the generator raised.
        """
        self._generator, self._onDone, self._onError = generator, onDone, onError
        self._timer = qt.QTimer()
        self._timer.setInterval(0)
        self._timer.connect("timeout()", self._turn)
        self._timer.start()

    def stop(self) -> None:
        """Go no further; the generator's ``finally`` clauses run."""
        self._timer.stop()
        self._generator.close()

    def _turn(self) -> None:
        end = time.perf_counter() + self.BUDGET
        try:
            while time.perf_counter() < end:
                if next(self._generator):
                    return
        except StopIteration as stopped:
            self._timer.stop()
            self._onDone(stopped.value)
        except Exception as error:
            self._timer.stop()
            self._onError(error)
