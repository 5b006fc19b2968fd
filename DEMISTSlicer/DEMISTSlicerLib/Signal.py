"""Signals between the classes of the module. Qt's own, defined in Python, crash PythonQt; these need no Qt at all."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from typing import Any


class Signal:
    """What others may listen to.

    >>> seen = []
    >>> done = Signal()
    >>> handle = done.connect(seen.append)
    >>> done.emit(7)
    >>> done.disconnect(handle)
    >>> done.emit(8)
    >>> seen
    [7]
    """

    def __init__(self) -> None:
        self._slots: dict[int, Callable[..., Any]] = {}
        self._handles = itertools.count(1)

    def connect(self, slot: Callable[..., Any]) -> int:
        """Call ``slot`` whenever the signal is emitted; returns a handle to disconnect it by."""
        handle = next(self._handles)
        self._slots[handle] = slot
        return handle

    def disconnect(self, handle: int) -> None:
        """Call it no more; an unknown handle is ignored."""
        self._slots.pop(handle, None)

    def emit(self, *arguments: Any) -> None:
        """Call every slot, in the order of connection; one that fails is logged and does not keep it from others."""
        for handle, slot in list(self._slots.items()):
            if handle not in self._slots:  # disconnected by one before it
                continue
            try:
                slot(*arguments)
            except Exception:
                logging.exception("A slot of a DEMIST signal failed")
