"""All sessions on the workers of a Dask cluster: each session in one piece, or its phases on workers of their kinds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from . import status
from .engine import Ledger, collect
from .options import ATTEMPTS, Options
from .phases import Phase, phase_of, phases
from .session import Session
from .work import Outcome, work
from .workers import Engine, connect

if TYPE_CHECKING:
    from distributed import Client

#: Sessions handed out for each worker: one that it works on, and one that waits, so that it never does.
_AHEAD = 2
_LOOK = 1.0
#: Seconds without any worker at all before a run gives up. A queue may let jobs wait for long.
_PATIENCE, _PATIENCE_OF_QUEUES = 300.0, 86400.0

Task = Callable[[Session, Options, Path, Sequence[str]], Outcome]


def run_cluster(
    sessions: Sequence[Session], options: Options, out: Path, ledger: Ledger, engine: Engine, task: Task = work
) -> None:
    """Work on all sessions by several workers, each with a model of its own that stays warm.

    A worker that dies is started anew (by Dask's nanny, or by the queue) and its session begun again; the locks and
    records of :mod:`.work` see to it that a session which kills its workers ends as failed, and that nothing is done
    twice.

    Args:
        sessions, options, out, ledger: as for :func:`DEMISTCore.cohort.engine.run_here`.
        engine: which workers.
        task: what is done with a session; another one measures the engine itself.

    Raises:
        InputError: Dask is missing, the cluster cannot be reached or is lost, or the disk is full.
    """
    try:
        import distributed
    except ImportError as error:
        raise InputError(
            'Several workers need Dask, which is not installed; pip install "demist[cohort]", or use --workers 1.'
        ) from error
    pool = None
    try:
        with connect(engine, options.scratch) as (client, fix):
            pool = _Workers(client, fix, options, out, task, engine)
            collect(sessions, pool, ledger)
    except (OSError, TimeoutError, distributed.client.FutureCancelledError) as error:
        raise InputError(
            f"The cluster was lost ({' '.join(str(error).split()) or type(error).__name__}). What is done is kept; "
            "start it again and run the same command."
        ) from error
    finally:
        if pool is not None and engine.own:
            _interrupted(pool.sessions(), out)
            ledger.write()


class _Workers:
    """The workers of a cluster, as a pool of sessions.

    At most :data:`_AHEAD` sessions for each worker are begun: where one kind of worker is slower than the others,
    those wait, and no more images are prepared than can soon be used.
    """

    def __init__(
        self, client: Client, fix: Callable[[], None], options: Options, out: Path, task: Task, engine: Engine
    ) -> None:
        self._client, self._fix, self._options, self._out, self._task = client, fix, options, out, task
        self._patience = _PATIENCE_OF_QUEUES if engine.cluster else _PATIENCE
        self._running: dict[str, Session] = {}
        self._ended: SimpleQueue[Any] = SimpleQueue()
        self._phases: list[Phase] = []
        if engine.own:  # else the workers say it, once they are there
            self._phases = phases(options, {"CPU", "GPU"} if engine.gpus else set())
        self._count, self._looked, self._since = 0, float("-inf"), time.monotonic()

    def room(self) -> bool:
        while not self._workers() and not self._running:  # the first ones are still on their way
            time.sleep(_LOOK)
        if not self._phases and self._count:
            self._phases = phases(self._options, self._resources())
        return bool(self._phases) and len(self._running) < _AHEAD * self._workers()

    def hand(self, session: Session) -> None:
        self._submit(session, self._phases[0])

    def held(self) -> int:
        return len(self._running)

    def sessions(self) -> list[Session]:
        """Those that were handed over and have not ended."""
        return list(self._running.values())

    def take(self) -> tuple[Session, Outcome]:
        while True:
            try:
                future = self._ended.get(timeout=_LOOK)
            except Empty:
                self._workers()
                continue
            outcome = _outcome(future, self._running[future.key], self._out)
            session = self._running.pop(future.key)
            future.release()
            if not outcome.left:
                return session, outcome
            self._submit(session, phase_of(outcome.left[0], self._phases))

    def _submit(self, session: Session, phase: Phase) -> None:
        options = replace(self._options, device="cpu") if phase.on_cpu else self._options
        future = self._client.submit(
            _run,
            self._task,
            session,
            options,
            self._out,
            phase.stages,
            pure=False,  # a session that was busy elsewhere is asked for again
            retries=1,
            priority=phase.rank,
            resources={phase.resource: 1} if phase.resource else None,
        )
        self._running[future.key] = session
        future.add_done_callback(self._ended.put)

    def _workers(self) -> int:
        """How many there are, looked at once a second; the loss of all of them is no state to stay in."""
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return self._count
        self._looked = now
        self._count = len(self._listed())
        if self._count:
            self._since = now
        elif now - self._since > self._patience:
            raise TimeoutError(f"no worker for {self._patience:.0f} s")
        self._fix()
        return self._count

    def _resources(self) -> set[str]:
        return {name for told in self._listed().values() for name in told.get("resources") or ()}

    def _listed(self) -> dict[str, Any]:
        return self._client.scheduler_info(n_workers=-1)["workers"]


def _interrupted(sessions: Iterable[Session], out: Path) -> None:
    """Sessions whose workers ended with this run, by somebody's wish: no attempt that failed."""
    for session in sessions:
        record = status.load(out, session.subject, session.session)
        if record.state == "running":
            with suppress(InputError):
                status.save(
                    out, replace(record, state="interrupted", attempts=0, message="Stopped before it was done.")
                )


def _outcome(future: Any, session: Session, out: Path) -> Outcome:
    """What a task gave; one whose workers died too often is a failure of its session."""
    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker:
        record = status.load(out, session.subject, session.session)
        failed = replace(
            record,
            state="failed",
            final=True,
            shown=session.shown,
            message=(
                f"Its process ended {record.attempts or ATTEMPTS} times in the middle of {record.stage or 'its work'} "
                "(killed, or out of memory?); give it more memory and run again with --retry-failed."
            ),
        )
        status.save(out, failed)
        return Outcome(failed)


def _run(task: Task, session: Session, options: Options, out: Path, only: Sequence[str]) -> Outcome:
    """A session, or a phase of it, in a worker."""
    import torch

    logging.getLogger("DEMISTCore").setLevel(logging.ERROR)
    if options.threads and torch.get_num_threads() != options.threads:
        torch.set_num_threads(options.threads)
    return task(session, options, out, only)
