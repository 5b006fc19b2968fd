"""What a job sees of the outside: whether to go on, where to write, whom to tell."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

from ..errors import Cancelled, InputError
from ..volume import Volume
from .cache import Cache
from .exchange import write_reference
from .protocol import Sender

#: Progress is told at most this often (seconds), unless the stage changes.
_EVERY = 0.1


class Context:
    """One job's surroundings.

    Attributes:
        id: the job's.
        request: what was asked for.
        cache: what is kept between jobs.
        cancelled: set when the parent cancels.
    """

    def __init__(self, request: dict[str, Any], send: Sender, cache: Cache, cancelled: Event) -> None:
        self.id, self.request, self.cache, self.cancelled = request["id"], request, cache, cancelled
        self._send = send
        self._stage, self._told = "", 0.0

    def check(self) -> None:
        """Raise :class:`Cancelled` if the parent wants this job no more."""
        if self.cancelled.is_set():
            raise Cancelled("The run was cancelled.")

    def send(self, event: str, **content: Any) -> None:
        """Send an event about this job."""
        self._send(self.id, event, **content)

    def progress(self, stage: str, done: float, remaining: float | None = None) -> None:
        """Tell how far the job is; raises Cancelled if need be, so call it often."""
        self.check()
        now = time.monotonic()
        if stage != self._stage or now - self._told >= _EVERY or done >= 1:
            self._stage, self._told = stage, now
            self.send("progress", stage=stage, done=round(float(done), 4), remaining=remaining)

    def volume(self, key: str, name: str) -> Volume | None:
        """The volume that the request gives as ``key``, or None.

        Raises:
            InputError: it cannot be read.
        """
        reference = self.request.get(key)
        if reference is None:
            return None
        self.check()
        return self.cache.volume(reference, name)

    def needed(self, key: str, name: str) -> Volume:
        """The volume that the request must give as ``key``.

        Raises:
            InputError: it is not there, or cannot be read.
        """
        volume = self.volume(key, name)
        if volume is None:
            raise InputError(f"There is no {name}; give one.")
        return volume

    @property
    def folder(self) -> Path:
        """The parent's folder for what this job gives back.

        Raises:
            InputError: none was named, or it is not there.
        """
        folder = self.request.get("folder")
        if not isinstance(folder, str) or not Path(folder).is_dir():
            raise InputError(f"The folder for results {folder!r} does not exist; run again.")
        return Path(folder)

    def give(self, volume: Volume | None, name: str) -> dict[str, Any] | None:
        """A reference to a volume for the parent; None stays None."""
        return None if volume is None else write_reference(volume, self.folder, name)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let every layer of every network check for cancellation, not just every sampling step."""
        from torch.nn.modules.module import register_module_forward_pre_hook

        hook = register_module_forward_pre_hook(lambda module, inputs: self.check())
        try:
            yield
        finally:
            hook.remove()
