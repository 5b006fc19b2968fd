"""Workers of a cluster: processes of this machine, jobs of a queue (SLURM, PBS), or a scheduler that runs already."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .options import ATTEMPTS

if TYPE_CHECKING:
    from distributed import Client

#: Queues that dask-jobqueue knows, by the name of its class; "local": jobs as processes of this machine, to try a file
#: of options out.
QUEUES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
    "oar": "OARCluster",
    "htcondor": "HTCondorCluster",
    "local": "local.LocalCluster",
}
#: What a session needs and takes long to load.
_LARGE = (
    "torch",
    "monai.networks.nets",
    "SimpleITK",
    "scipy.ndimage",
    "scipy.stats",
    "nibabel",
    "matplotlib.figure",
    "deepbet",
)
#: Of a job, unless the file of options says otherwise.
_JOB = {"memory": "12GB", "walltime": "24:00:00"}

#: Dask's own, while a cluster is started and used.
SETTINGS: dict[str, Any] = {
    # The records count attempts; Dask's own limit must not come before theirs.
    "distributed.scheduler.allowed-failures": ATTEMPTS + 1,
    "distributed.worker.daemon": True,
    # Work that computes for minutes without a word is no sign of a dead worker.
    "distributed.scheduler.worker-ttl": None,
    "distributed.admin.tick.limit": "1h",
    # Dask looks at its tasks a hundred times a second and at itself fifty times, for those who write tasks. A
    # session takes a minute, and its record says where it is.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    # Loading the libraries takes a busy machine longer than a greeting should.
    "distributed.comm.timeouts.connect": "300s",
    "distributed.comm.timeouts.tcp": "600s",
}


@dataclass(frozen=True)
class Engine:
    """Which workers.

    Attributes:
        workers: processes of this machine, or jobs.
        gpus: further ones that have a GPU each and do nothing but what needs it.
        scheduler: address of a cluster that runs already, ``tcp://host:port``.
        cluster: one of :data:`QUEUES`.
        cluster_options: YAML file with what a job gets, see :func:`read_options`.
        threads: of each worker.
        dashboard: whether to serve Dask's page of what goes on, and to say where.
    """

    workers: int = 1
    gpus: int = 0
    scheduler: str | None = None
    cluster: str | None = None
    cluster_options: Path | None = None
    threads: int = 0
    dashboard: bool = False

    @property
    def distributed(self) -> bool:
        """Whether there is more to it than this process."""
        return bool(self.workers > 1 or self.gpus or self.scheduler or self.cluster)

    @property
    def own(self) -> bool:
        """Whether the workers end with this run."""
        return self.scheduler is None


Fix = Callable[[], None]


@contextmanager
def connect(engine: Engine, scratch: str | None) -> Iterator[tuple[Client, Fix]]:
    """A connection to workers, and what to call now and then, so that those that have gone are replaced.

    Raises:
        OSError: the scheduler cannot be reached.
        InputError: the options of a queue cannot be used.
    """
    import dask
    from distributed import Client

    for name in logging.root.manager.loggerDict:  # what workers lose and find again is told by the records
        if name.split(".")[0] in ("distributed", "tornado"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    with dask.config.set(SETTINGS):
        if engine.scheduler is not None:
            with _closing(Client(engine.scheduler, timeout="30s", set_as_default=False), 5) as client:
                yield _ready_client(client, engine), lambda: None
            return
        cluster, fix = _jobs(engine, scratch) if engine.cluster else (processes(engine, scratch), lambda: None)
        with _closing(cluster, 10), _closing(Client(cluster, set_as_default=False), 5) as client:
            yield _ready_client(client, engine), fix


@contextmanager
def _closing(what: Any, seconds: float) -> Iterator[Any]:
    """``what``, closed at the end; one that is lost already is not waited for."""
    try:
        yield what
    finally:
        with suppress(OSError, TimeoutError):
            what.close(timeout=seconds)


def _ready_client(client: Client, engine: Engine) -> Client:
    client.register_plugin(_plugin())
    if engine.dashboard and client.dashboard_link:
        print(f"dashboard: {client.dashboard_link}", file=sys.stderr)
    return client


def processes(engine: Engine, scratch: str | None) -> Any:
    """Processes of this machine, which end with this one; each a session at a time.

    Args:
        engine: how many, of which kinds.
        scratch: folder for what is not kept.

    Returns:
        The cluster (``distributed.SpecCluster``).
    """
    from distributed import Nanny, Scheduler, SpecCluster

    # Memory is watched by the records, not by pausing workers.
    common = {
        "nthreads": 1,
        "memory_limit": 0,
        "host": "127.0.0.1",
        "silence_logs": logging.CRITICAL,
        "local_directory": _here(scratch),
    }
    kinds: list[dict[str, Any]] = [{} for _ in range(engine.workers)]
    if engine.gpus:
        kinds = [{"resources": {"CPU": 1}, "env": {"CUDA_VISIBLE_DEVICES": ""}} for _ in range(engine.workers)]
        kinds += [{"resources": {"GPU": 1}, "env": {"CUDA_VISIBLE_DEVICES": name}} for name in _gpus(engine.gpus)]
    return SpecCluster(
        workers={i: {"cls": Nanny, "options": {**common, **kind}} for i, kind in enumerate(kinds)},
        scheduler={
            "cls": Scheduler,
            "options": {
                "host": "127.0.0.1",
                "port": 0,
                "dashboard": engine.dashboard,
                "dashboard_address": "127.0.0.1:0",
            },
        },
        silence_logs=logging.CRITICAL,
    )


def _gpus(count: int) -> list[str]:
    """Names of the GPUs that this process may use, one a worker."""
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if len(named) >= count else [str(i) for i in range(count)]


def _here(scratch: str | None) -> str | None:
    """The folder of scratch on this machine."""
    if scratch is None:
        return None
    folder = Path(os.path.expandvars(scratch)).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot write {folder}: {error.strerror or error}; give another --scratch.") from error
    return str(folder)


def _jobs(engine: Engine, scratch: str | None) -> tuple[Any, Fix]:
    """Jobs of a queue; one that ends (its time is over, its machine fails) is handed in again."""
    try:
        import dask_jobqueue.local
    except ImportError as error:
        raise InputError(
            'Jobs of a queue need dask-jobqueue, which is not installed; pip install "demist[cluster]", or use a job '
            "array with --shard."
        ) from error
    given = read_options(engine.cluster_options)
    cls: Any = dask_jobqueue
    for part in QUEUES[str(engine.cluster)].split("."):
        cls = getattr(cls, part)
    try:
        cluster = cls(
            **_job(engine, given.get("cpu", {}), scratch, "CPU" if engine.gpus else None),
            scheduler_options={"dashboard": engine.dashboard, "dashboard_address": ":0"},
            silence_logs="critical",
        )
        for i in range(engine.gpus):
            job = _job(engine, given.get("gpu", {}), scratch, "GPU")
            cluster.worker_spec[f"gpu-{i}"] = {**cluster.new_spec, "options": {**cluster.new_spec["options"], **job}}
        cluster.scale(engine.workers + engine.gpus)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{engine.cluster_options or 'The options'} cannot be used for {engine.cluster} "
            f"({' '.join(str(error).split())}); see the parameters of dask_jobqueue.{QUEUES[str(engine.cluster)]}."
        ) from error
    return cluster, lambda: cluster.scale(engine.workers + engine.gpus)


def _job(engine: Engine, given: Mapping[str, Any], scratch: str | None, resource: str | None) -> dict[str, Any]:
    """What a job gets: one worker that does one session at a time, on as many cores as it has threads."""
    job = {**_JOB, "cores": 1, "processes": 1, "local_directory": scratch, **given}
    job["worker_extra_args"] = [*given.get("worker_extra_args", ()), "--memory-limit", "0"]
    if resource:
        job["worker_extra_args"] += ["--resources", f"{resource}=1"]
    if engine.threads:
        if engine.cluster == "slurm":
            job.setdefault("job_cpu", engine.threads)
        job["job_script_prologue"] = [f"export OMP_NUM_THREADS={engine.threads}", *given.get("job_script_prologue", ())]
    return job


def read_options(path: Path | None) -> dict[str, dict[str, Any]]:
    """A YAML file of what jobs get: parameters of dask-jobqueue's class, under ``cpu`` and ``gpu``, or without both.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    if path is None:
        return {}
    import yaml

    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{path} cannot be read ({why}); give a YAML file with the options of a job.") from error
    if not isinstance(told, dict) or not all(isinstance(name, str) for name in told):
        raise InputError(f"{path} holds no options by name, as in 'queue: long'; fix it.")
    if not set(told) & {"cpu", "gpu"}:
        return {"cpu": told, "gpu": told}
    if not set(told) <= {"cpu", "gpu"} or not all(isinstance(part, dict) for part in told.values()):
        raise InputError(f"{path} has options beside cpu and gpu; put each under one of them.")
    return told


def _plugin() -> Any:
    from distributed import WorkerPlugin

    class Ready(WorkerPlugin):
        """Has each worker, those that replace dead ones too, ready before the first task."""

        name = "demist-ready"

        def setup(self, worker: Any) -> None:
            load_libraries()

    return Ready()


def load_libraries() -> None:
    """Load the large libraries, in a worker's main thread.

    A task runs in a thread of its own, beside the one that unpacks the next task. Two threads that load libraries at
    once may wait for each other, one with the system loader's lock and one with the interpreter's; and the seconds that
    loading takes are no part of the first session's.
    """
    for name in _LARGE:
        importlib.import_module(name)
    from . import pictures, stages  # noqa: F401
