"""One loop, several engines: the same bytes from workers of two kinds, from jobs, and after a lost scheduler."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from cohort_data import QUICK, results, rows, write_bids, written

from DEMISTCore import cli
from DEMISTCore.cohort import status
from DEMISTCore.cohort.__main__ import main
from DEMISTCore.cohort.engine import Ledger, collect
from DEMISTCore.cohort.options import Options
from DEMISTCore.cohort.phases import Phase, phase_of, phases
from DEMISTCore.cohort.session import Session
from DEMISTCore.cohort.status import Status
from DEMISTCore.cohort.work import Outcome, work
from DEMISTCore.cohort.workers import Engine, connect, read_options
from DEMISTCore.errors import InputError

ROOT = Path(__file__).parents[1]
SESSIONS = ("sub-01", "sub-02")
posix = pytest.mark.skipif(os.name == "nt", reason="signals")


@pytest.fixture(scope="module")
def arguments(tiny_bundle, tmp_path_factory):
    root = write_bids(tmp_path_factory.mktemp("engine") / "bids", SESSIONS)
    given = ("--derivatives", str(root / "derivatives" / "manual"), "--device", "cpu")
    return lambda out, *more: [str(root), str(out), "participant", "--bundle", str(tiny_bundle), *given, *QUICK, *more]


@pytest.fixture(scope="module")
def undisturbed(arguments, tmp_path_factory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert main(arguments(out)) == 0
    return results(out)


# --- the loop --------------------------------------------------------------------------------------------------------


class Counting:
    """A pool that keeps two sessions at most, and says of each what it is told to."""

    def __init__(self, says) -> None:
        self.says, self.given, self.most, self.order = says, [], 0, []

    def room(self) -> bool:
        return len(self.given) < 2

    def hand(self, session: Session) -> None:
        self.given.append(session)
        self.most = max(self.most, len(self.given))

    def held(self) -> int:
        return len(self.given)

    def take(self) -> tuple[Session, Outcome]:
        session = self.given.pop(0)
        self.order.append(session.name)
        return session, self.says(session, self.order.count(session.name))


def outcome(session: Session, **more) -> Outcome:
    return Outcome(Status(session.subject, "", "done"), **more)


def test_no_more_is_handed_over_than_there_is_room_for_and_busy_ones_come_again(tmp_path, monkeypatch):
    monkeypatch.setattr("DEMISTCore.cohort.engine._LOOK", 0.01)
    sessions = [Session(f"sub-{i}") for i in range(5)]
    pool = Counting(lambda session, time: outcome(session, busy=session.subject == "sub-1" and time < 3))
    ledger = Ledger(tmp_path, sessions)
    collect(sessions, pool, ledger)
    assert pool.most == 2
    assert pool.order == ["sub-0", "sub-1", "sub-2", "sub-3", "sub-4", "sub-1", "sub-1"]
    assert {one.state for one in ledger.rows()} == {"done"}


def test_a_full_disk_ends_the_loop_and_the_table_is_written(tmp_path):
    sessions = [Session(f"sub-{i}") for i in range(4)]
    pool = Counting(lambda session, time: outcome(session, full=session.subject == "sub-1"))
    with pytest.raises(InputError, match="disk is full"):
        collect(sessions, pool, Ledger(tmp_path, sessions))
    assert pool.order == ["sub-0", "sub-1"]
    assert (tmp_path / "status.tsv").is_file()


# --- phases ----------------------------------------------------------------------------------------------------------


def test_phases_follow_what_workers_have():
    options = Options("demist-sim", spaces=("FLAIR",))
    assert phases(options, set()) == [Phase()]
    assert phases(options, {"GPU"}) == [Phase(resource="GPU")]
    listed = phases(options, {"CPU", "GPU"})
    assert [phase.stages for phase in listed] == [("prepare",), ("map",), ("regions", "spaces", "report")]
    assert phase_of("spaces", listed).on_cpu
    assert phase_of("map", [Phase()]) == Phase()


def test_a_session_in_phases_is_the_session_in_one(arguments, undisturbed, tmp_path):
    """Prepared in one go, mapped in another, finished in a third: same bytes; a phase that is done is not repeated."""
    from DEMISTCore.cohort.__main__ import _sessions, options, parser

    args = parser().parse_args(arguments(tmp_path / "out", "--participant-label", "01"))
    [session], chosen, out = _sessions(args), options(args), tmp_path / "out"
    first = work(session, chosen, out, ("prepare",))
    assert (first.computed, first.left) == (("prepare",), ("map", "regions", "report"))
    assert work(session, chosen, out, ("prepare",)).computed == ()
    second = work(session, chosen, out, ("map",))
    assert (second.computed, second.left) == (("map",), ("regions", "report"))
    assert status.load(out, "sub-01", "").state == "waiting"
    last = work(session, chosen, out, ("regions", "report"))
    assert (last.computed, last.left) == (("regions", "report"), ())
    assert last.status.seconds >= second.status.seconds >= first.status.seconds
    assert results(out).items() <= undisturbed.items()
    assert not list(out.rglob("*prepared*")), "prepared images are not kept"


@posix
def test_workers_of_two_kinds(arguments, undisturbed, tmp_path):
    """A worker that holds the resource GPU makes maps and nothing else; scratch is elsewhere."""
    pytest.importorskip("distributed")
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    assert main(arguments(out, "--workers", "1", "--gpus", "1", "--scratch", str(scratch))) == 0
    assert results(out) == undisturbed
    assert not list(out.rglob("*prepared*"))
    assert scratch.is_dir()
    assert not (out / ".demist" / "scratch").exists()


@posix
def test_the_dashboard_is_where_it_says(capsys):
    pytest.importorskip("bokeh")
    with connect(Engine(1, dashboard=True), None):
        link = re.search(r"dashboard: (http://127\.0\.0\.1:\d+/\S+)", capsys.readouterr().err).group(1)
        page = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(link, timeout=60).read()
    assert b"Dask Diagnostic UI" in page


# --- clusters --------------------------------------------------------------------------------------------------------


@posix
def test_jobs_of_a_queue(arguments, undisturbed, tmp_path):
    """dask-jobqueue itself, with jobs that are processes of this machine."""
    pytest.importorskip("dask_jobqueue")
    given = tmp_path / "jobs.yaml"
    given.write_text(f"memory: 4GB\nlog_directory: {tmp_path / 'logs'}\n", encoding="utf-8")
    out = tmp_path / "out"
    assert main(arguments(out, "--cluster", "local", "--cluster-options", str(given), "--workers", "1")) == 0
    assert results(out) == undisturbed


def test_options_of_a_queue_reach_its_jobs(tmp_path):
    """What SLURM would be given, from dask-jobqueue itself."""
    jobqueue = pytest.importorskip("dask_jobqueue")
    from DEMISTCore.cohort.workers import _job

    (tmp_path / "jobs.yaml").write_text(
        "cpu: {queue: long, memory: 20GB}\ngpu: {queue: a100, job_extra_directives: ['--gres=gpu:1']}\n",
        encoding="utf-8",
    )
    given = read_options(tmp_path / "jobs.yaml")
    engine = Engine(2, 1, cluster="slurm", threads=4)
    for kind, resource, wanted in (("cpu", "CPU", "-p long"), ("gpu", "GPU", "--gres=gpu:1")):
        job = jobqueue.slurm.SLURMJob("tcp://127.0.0.1:1", name="x", **_job(engine, given[kind], "/scratch", resource))
        script = job.job_script()
        assert wanted in script
        assert "--cpus-per-task=4" in script
        assert "export OMP_NUM_THREADS=4" in script
        assert f"--resources {resource}=1" in script
        assert "--local-directory /scratch" in script


def test_refusals(arguments, tmp_path, capsys):
    def ends(*more: str) -> str:
        assert cli.run(main, arguments(tmp_path / "out", *more)) == 2
        return capsys.readouterr().err

    assert "give one of them" in ends("--cluster", "slurm", "--scheduler", "tcp://x:1")
    assert "give --cluster, too" in ends("--cluster-options", "x.yaml")
    assert "leave --gpus out" in ends("--gpus", "1", "--scheduler", "tcp://x:1")
    assert "cannot be read" in ends("--cluster", "local", "--cluster-options", str(tmp_path / "none.yaml"))
    (tmp_path / "bad.yaml").write_text("gpu: {queue: a}\nqueue: b\n")
    assert "beside cpu and gpu" in ends("--cluster", "local", "--cluster-options", str(tmp_path / "bad.yaml"))
    (tmp_path / "odd.yaml").write_text("no_such_option: 1\n")
    assert "cannot be used for local" in ends("--cluster", "local", "--cluster-options", str(tmp_path / "odd.yaml"))


@pytest.fixture
def dask_processes():
    """Starts processes of Dask, and ends those that are left."""
    started: list[subprocess.Popen] = []

    def start(*command: str) -> subprocess.Popen:
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "dask", *command],
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@posix
def test_a_dead_scheduler_ends_the_run_and_the_next_one_goes_on(arguments, undisturbed, tmp_path, dask_processes):
    """Same bytes after all, and of what was done nothing is done again."""
    pytest.importorskip("distributed")
    out, told = tmp_path / "out", tmp_path / "scheduler.json"
    scheduler = dask_processes("scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(told))
    workers = dask_processes(
        "worker",
        "--nthreads",
        "1",
        "--nworkers",
        "1",
        "--no-dashboard",
        "--scheduler-file",
        str(told),
        "--local-directory",
        str(tmp_path),
        "--death-timeout",
        "30",
    )
    _wait(lambda: told.is_file() and told.stat().st_size > 0)
    address = json.loads(told.read_text())["address"]
    run = subprocess.Popen(
        [sys.executable, "-m", "DEMISTCore.cohort", *arguments(out, "--scheduler", address)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    _wait(lambda: {"done", "running"} <= _states(out) or run.poll() is not None)
    assert run.poll() is None, run.stderr.read()
    before = {name: made for name, made in written(out).items() if _state(out, name.split("/")[0]) == "done"}
    os.killpg(scheduler.pid, signal.SIGKILL)
    os.killpg(workers.pid, signal.SIGKILL)
    _, said = run.communicate(timeout=300)
    assert run.returncode == 2, said
    assert "The cluster was lost" in said
    assert "Traceback" not in said
    assert main(arguments(out)) == 0
    assert results(out) == undisturbed
    assert before
    after = written(out)
    assert all(after[name] == made for name, made in before.items())
    assert {row["state"] for row in rows(out).values()} == {"done"}


def _wait(there, seconds: float = 400) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end
        time.sleep(0.05)


def _states(out: Path) -> set[str]:
    return {one.state for one in status.load_all(out)}


def _state(out: Path, subject: str) -> str:
    return status.load(out, subject, "").state
