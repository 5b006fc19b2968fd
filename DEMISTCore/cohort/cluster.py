"""All sessions on several workers, by Dask.distributed: processes of this machine, or a cluster that runs already."""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from . import status
from .engine import Ledger, full_disk
from .options import ATTEMPTS, Options
from .session import Session
from .work import Outcome, work

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

#: Sessions handed out for each worker: one that it works on, and one that waits, so that it never does.
_AHEAD = 2
_LOOK = 1.0
#: What a session needs and takes long to load.
_LARGE = ("torch", "monai.networks.nets", "SimpleITK", "scipy.ndimage", "scipy.stats", "nibabel", "matplotlib.figure",
          "deepbet")  # fmt: skip
#: Seconds without any worker at all before a run on a cluster gives up.
_PATIENCE = 300.0


def run_cluster(
    sessions: Sequence[Session], options: Options, out: Path, ledger: Ledger, *, workers: int, scheduler: str | None
) -> None:
    """Work on all sessions on ``workers`` processes, each with a model of its own that stays warm.

    A worker that dies is started anew (by Dask's nanny) and its session begun again; the locks and records of
    :mod:`.work` see to it that a session which kills its workers ends as failed, and that nothing is done twice.

    Args:
        sessions, options, out, ledger: as for :func:`DEMISTCore.cohort.engine.run_here`.
        workers: processes on this machine.
        scheduler: address of a cluster instead, ``tcp://host:port``; its workers see the same files.

    Raises:
        InputError: Dask is missing, the cluster cannot be reached or is lost, or the disk is full.
    """
    try:
        import distributed
    except ImportError as error:
        raise InputError(
            'Several workers need Dask, which is not installed; pip install "demist[cohort]", or use --workers 1.'
        ) from error
    running: dict[str, Session] = {}
    try:
        with _client(workers, scheduler) as client:
            _drive(client, list(sessions), running, options, out, ledger)
    except (OSError, TimeoutError, distributed.client.FutureCancelledError) as error:
        raise InputError(
            f"The cluster was lost ({' '.join(str(error).split()) or type(error).__name__}). What is done is kept; "
            "start it again and run the same command."
        ) from error
    finally:
        if scheduler is None:
            _interrupted(running.values(), out)
        ledger.write()


def _drive(
    client: Client, left: list[Session], running: dict[str, Session], options: Options, out: Path, ledger: Ledger
) -> None:
    """Hand out sessions as workers become free; those that another run holds come again at the end.

    Args:
        running: those handed out, by the key of their task; kept up to date for the caller.
    """
    from distributed import as_completed

    finished = as_completed(loop=client.loop)
    idle_since = time.monotonic()
    busy: list[Session] = []
    while left or running or busy:
        ahead = _AHEAD * _workers(client)
        if ahead:
            idle_since = time.monotonic()
        elif time.monotonic() - idle_since > _PATIENCE:
            raise TimeoutError(f"no worker for {_PATIENCE:.0f} s")
        while left and len(running) < ahead:
            session = left.pop(0)
            # Not pure: a session that was busy elsewhere is asked for again.
            future = client.submit(_task, session, options, out, pure=False, retries=1)
            running[future.key] = session
            finished.add(future)
        if not running:
            time.sleep(_LOOK)
            left, busy = busy, []
            continue
        future = next(finished)
        session = running.pop(future.key)
        outcome = _outcome(future, session, out)
        future.release()
        if outcome.full:
            raise full_disk(outcome)
        if outcome.busy:
            busy.append(session)
        else:
            ledger.add(outcome)


def _interrupted(sessions: Iterable[Session], out: Path) -> None:
    """Sessions whose workers ended with this run, by somebody's wish: no attempt that failed."""
    for session in sessions:
        record = status.load(out, session.subject, session.session)
        if record.state == "running":
            with suppress(InputError):
                status.save(out, replace(record, state="interrupted", attempts=0,
                                         message="Stopped before it was done."))  # fmt: skip


def _outcome(future: Any, session: Session, out: Path) -> Outcome:
    """What a task gave; one whose workers died too often is a failure of its session."""
    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker:
        record = status.load(out, session.subject, session.session)
        failed = replace(record, state="failed", final=True, shown=session.shown, message=(
            f"Its process ended {record.attempts or ATTEMPTS} times in the middle of {record.stage or 'its work'} "
            "(killed, or out of memory?); give it more memory and run again with --retry-failed."
        ))  # fmt: skip
        status.save(out, failed)
        return Outcome(failed)


def _task(session: Session, options: Options, out: Path) -> Outcome:
    """A session, in a worker."""
    import torch

    logging.getLogger("DEMISTCore").setLevel(logging.ERROR)
    if options.threads and torch.get_num_threads() != options.threads:
        torch.set_num_threads(options.threads)
    return work(session, options, out)


def _ready() -> None:
    """Load the large libraries, in a worker's main thread.

    A task runs in a thread of its own, beside the one that unpacks the next task. Two threads that load libraries at
    once may wait for each other, one with the system loader's lock and one with the interpreter's; and the seconds that
    loading takes are no part of the first session's.
    """
    for name in _LARGE:
        importlib.import_module(name)
    from . import pictures, stages  # noqa: F401


def _plugin() -> Any:
    from distributed import WorkerPlugin

    class Ready(WorkerPlugin):
        """Has each worker, those that replace dead ones too, ready before the first task."""

        name = "demist-ready"

        def setup(self, worker: Any) -> None:
            _ready()

    return Ready()


def _workers(client: Client) -> int:
    return len(client.scheduler_info(n_workers=-1)["workers"])


@contextmanager
def _client(workers: int, scheduler: str | None) -> Iterator[Client]:
    """A connection to a cluster: the given one, or processes of this machine, which end with this one."""
    import dask
    from distributed import Client, LocalCluster

    settings = {
        # The records count attempts; Dask's own limit must not come before theirs.
        "distributed.scheduler.allowed-failures": ATTEMPTS + 1,
        "distributed.worker.daemon": True,
        # Work that computes for minutes without a word is no sign of a dead worker.
        "distributed.scheduler.worker-ttl": None,
        "distributed.admin.tick.limit": "1h",
        # Loading the libraries takes a busy machine longer than a greeting should.
        "distributed.comm.timeouts.connect": "300s",
        "distributed.comm.timeouts.tcp": "600s",
    }
    for name in logging.root.manager.loggerDict:  # what workers lose and find again is told by the records
        if name.split(".")[0] in ("distributed", "tornado"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    with dask.config.set(settings):
        if scheduler is not None:
            with Client(scheduler, timeout="30s", set_as_default=False) as client:
                client.register_plugin(_plugin())
                yield client
            return
        # One thread a worker: a session at a time. Memory is watched by the records, not by pausing workers.
        cluster = LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, memory_limit=0, dashboard_address=None,
            silence_logs=logging.CRITICAL,
        )  # fmt: skip
        client = Client(cluster, set_as_default=False)
        try:
            client.register_plugin(_plugin())
            yield client
        finally:
            with suppress(OSError, TimeoutError):
                client.close(timeout=5)
            with suppress(OSError, TimeoutError):
                cluster.close(timeout=10)
