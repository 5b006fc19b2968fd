"""Signals that end the worker, taken by one thread of its own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

_NAMES = ("SIGTERM", "SIGINT", "SIGHUP")


def _numbers() -> set[signal.Signals]:
    return {getattr(signal, name) for name in _NAMES}


def hold() -> None:
    """Have the signals wait for :func:`on_signals`; to be called before anything is imported that starts threads.

    A thread that began without this would take the signal itself: numpy's OpenBLAS starts some with its import, as many
    as there are cores, and a signal that comes to one of them ends the process without cleaning up, or does nothing.
    """
    if hasattr(signal, "pthread_sigmask"):  # not on Windows, where the worker sees its parent's end
        signal.pthread_sigmask(signal.SIG_BLOCK, _numbers())


def on_signals(leave: Callable[[int], object]) -> None:
    """Call ``leave`` with 128 + n when signal n comes. Another thread waits for it: the main one may be computing."""
    if not hasattr(signal, "pthread_sigmask"):
        return
    hold()
    threading.Thread(target=lambda: leave(128 + signal.sigwait(_numbers())), name="signals", daemon=True).start()
