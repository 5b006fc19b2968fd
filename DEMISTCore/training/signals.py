"""A training run that is asked to stop finishes its step and saves."""

from __future__ import annotations

import contextlib
import signal
from typing import Any


class Signals:
    """Note SIGTERM, SIGHUP and Ctrl-C, to be obeyed after the step; a second Ctrl-C interrupts at once."""

    number: int | None = None

    def __enter__(self) -> Signals:
        self.previous = {}
        wanted = [getattr(signal, name, None) for name in ("SIGTERM", "SIGINT", "SIGHUP")]
        with contextlib.suppress(ValueError):  # not in the main thread: then the host application decides
            for n in filter(None, wanted):
                if signal.getsignal(n) != signal.SIG_IGN or n == signal.SIGTERM:  # nohup means what it says
                    self.previous[n] = signal.signal(n, self._note)
        return self

    def _note(self, number: int, frame: Any) -> None:
        if self.number == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self.number is not None

    @property
    def name(self) -> str:
        """The signal that came, in words."""
        if self.number is None:
            return "no signal"
        return "Ctrl-C" if self.number == signal.SIGINT else signal.Signals(self.number).name
