"""All sessions, one after the other in this process; what another run works on is waited for, so that both share."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

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


def run_here(sessions: Sequence[Session], options: Options, out: Path, ledger: Ledger) -> None:
    """Work on all sessions in this process.

    Raises:
        InputError: the disk is full; what is done stays, and the same command goes on later.
    """
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    left = list(sessions)
    try:
        while left:
            busy = []
            for session in left:
                outcome = work(session, options, out)
                if outcome.full:
                    raise full_disk(outcome)
                if outcome.busy:
                    busy.append(session)
                else:
                    ledger.add(outcome)
            if len(busy) == len(left):
                time.sleep(_LOOK)
            left = busy
    finally:
        ledger.write()


def full_disk(outcome: Outcome) -> InputError:
    """What a run says when it stops because nothing more can be written."""
    return InputError(
        f"The disk is full ({outcome.status.message.rstrip('.')}). What is done is kept; free some space and run the "
        "same command again."
    )
