"""All sessions through one loop, whoever works on them; what another run works on is waited for, so that both share.

The loop (:func:`collect`) is the only one: a :class:`Pool` stands for those who work, this process alone
(:func:`run_here`) or the workers of a cluster (:mod:`.cluster`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from ..errors import DemistError, InputError
from . import status
from .options import Options
from .session import Session
from .status import Status
from .work import Outcome, work

Tell = Callable[[Outcome], None]

#: Seconds between two looks at what another run works on, and, at least, between two writings of status.tsv.
_LOOK, _WRITE = 1.0, 5.0
#: Of a run's time, writing status.tsv may take one part in so many: a million records are not read every 5 seconds.
_SHARE = 50


class Pool(Protocol):
    """Those who work on sessions."""

    def room(self) -> bool:
        """Whether one more session may be handed over now. False holds back what nobody could begin with."""

    def hand(self, session: Session) -> None:
        """Hand a session over."""

    def held(self) -> int:
        """Sessions that were handed over and have not been taken back."""

    def take(self) -> tuple[Session, Outcome]:
        """Wait for the next one that has ended."""


def collect(sessions: Sequence[Session], pool: Pool, ledger: Ledger) -> None:
    """Have all sessions worked on; those that another run holds come again at the end.

    Raises:
        InputError: the disk is full; what is done stays, and the same command goes on later.
    """
    left: deque[Session] = deque(sessions)
    busy: list[Session] = []
    try:
        while left or busy or pool.held():
            while left and pool.room():
                pool.hand(left.popleft())
            if not pool.held():
                time.sleep(_LOOK)
                left.extend(busy)
                busy.clear()
                continue
            session, outcome = pool.take()
            if outcome.full:
                raise _full_disk(outcome)
            if outcome.busy:
                busy.append(session)
            else:
                ledger.add(outcome)
    finally:
        ledger.write()


class Ledger:
    """Keeps ``status.tsv`` up to date while sessions end."""

    def __init__(self, out: Path, sessions: Sequence[Session], tell: Tell | None = None) -> None:
        self._out, self._tell = out, tell
        self.waiting = [Status(one.subject, one.session, shown=one.shown) for one in sessions]
        self.outcomes: dict[str, Outcome] = {}
        self._last, self._pause = float("-inf"), _WRITE

    def add(self, outcome: Outcome) -> None:
        """One that has ended (not: that is busy elsewhere)."""
        self.outcomes[outcome.status.name] = outcome
        if self._tell is not None:
            self._tell(outcome)
        if time.monotonic() - self._last > self._pause:
            self.write()

    def write(self) -> list[Status]:
        """``status.tsv`` now; on a full disk it stays as it was."""
        rows: list[Status] = []
        start = time.monotonic()
        with suppress(DemistError):
            rows = status.write_table(self._out, self.waiting)
        self._last = time.monotonic()
        self._pause = max(_WRITE, _SHARE * (self._last - start))
        return rows

    def rows(self) -> list[Status]:
        """How the sessions of this run went."""
        return [self.outcomes[one.name].status if one.name in self.outcomes else one for one in self.waiting]


def shard(sessions: Sequence[Session], part: str | None) -> list[Session]:
    """The ``i``-th of ``n`` parts of a list, "i/n" from 1/n to n/n: every n-th session.

    Raises:
        InputError: it is no such pair of numbers.

    >>> [one.name for one in shard([Session("sub-1"), Session("sub-2"), Session("sub-3")], "2/2")]
    ['sub-2']
    """
    if part is None:
        return list(sessions)
    first, _, second = part.partition("/")
    try:
        i, n = int(first), int(second)
    except ValueError:
        i, n = 0, 0
    if not 1 <= i <= n:
        raise InputError(f"--shard takes i/n, from 1/n to n/n, as in 3/10, not {part!r}.")
    return list(sessions)[i - 1 :: n]


class _Here:
    """This process, one session at a time."""

    def __init__(self, options: Options, out: Path) -> None:
        self._options, self._out = options, out
        self._given: list[Session] = []

    def room(self) -> bool:
        return not self._given

    def hand(self, session: Session) -> None:
        self._given.append(session)

    def held(self) -> int:
        return len(self._given)

    def take(self) -> tuple[Session, Outcome]:
        session = self._given.pop()
        return session, work(session, self._options, self._out)


def run_here(sessions: Sequence[Session], options: Options, out: Path, ledger: Ledger) -> None:
    """Work on all sessions in this process.

    Raises:
        InputError: see :func:`collect`.
    """
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    collect(sessions, _Here(options, out), ledger)


def _full_disk(outcome: Outcome) -> InputError:
    """What a run says when it stops because nothing more can be written."""
    return InputError(
        f"The disk is full ({outcome.status.message.rstrip('.')}). What is done is kept; free some space and run the "
        "same command again."
    )
