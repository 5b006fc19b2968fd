"""Whatever ends a run, the next one goes on: same bytes as without the interruption, nothing done that was done."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from cohort_data import QUICK, results, rows, write_bids, written

from DEMISTCore import cli
from DEMISTCore.cohort import status, work
from DEMISTCore.cohort.__main__ import main
from DEMISTCore.cohort.engine import Ledger, run_here
from DEMISTCore.cohort.names import SessionPaths
from DEMISTCore.cohort.options import ATTEMPTS, Options
from DEMISTCore.cohort.session import Session
from DEMISTCore.cohort.status import Status
from DEMISTCore.errors import InputError
from DEMISTCore.lock import FolderLock

ROOT = Path(__file__).parents[1]
SESSIONS = ("sub-01", "sub-02", "sub-03", "sub-04")
posix = pytest.mark.skipif(os.name == "nt", reason="signals")


@pytest.fixture(scope="module")
def arguments(tiny_bundle, tmp_path_factory):
    """What follows the command: everything but the folder of the results."""
    root = write_bids(tmp_path_factory.mktemp("resume") / "bids", SESSIONS)
    given = ("--derivatives", str(root / "derivatives" / "manual"))
    return lambda out, *more: [
        str(root),
        str(out),
        "participant",
        "--bundle",
        str(tiny_bundle),
        *given,
        "--no-regions",
        *QUICK,
        *more,
    ]


@pytest.fixture(scope="module")
def undisturbed(arguments, tmp_path_factory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert main(arguments(out)) == 0
    return results(out)


def start(arguments: list[str]) -> subprocess.Popen:
    """The command in a process of its own, and a group of its own, as a shell starts it.

    A suite that was itself started in the background has Ctrl-C switched off, and its children would inherit that.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "DEMISTCore.cohort", *arguments],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_until(there, process: subprocess.Popen, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.02)


def states(out: Path) -> dict[str, str]:
    return {one.name: one.state for one in status.load_all(out)}


def done_and_running(out: Path) -> bool:
    """One is done, another at work."""
    return {"done", "running"} <= set(states(out).values())


def done_images(out: Path) -> dict[str, tuple[int, int]]:
    done = [name for name, state in states(out).items() if state == "done"]
    return {name: told for name, told in written(out).items() if name.split("/")[0] in done}


def end(process: subprocess.Popen, number: int) -> int:
    """Send a signal to the whole group, as a terminal or a queue does; its exit code."""
    os.killpg(process.pid, number)
    process.communicate(timeout=120)
    return process.returncode


@posix
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_ended_goes_on(arguments, undisturbed, tmp_path, number):
    out = tmp_path / "out"
    process = start(arguments(out))
    wait_until(lambda: done_and_running(out), process)
    code = end(process, number)
    before = done_images(out)
    assert before
    if number == signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert code == (130 if number == signal.SIGINT else 143)
        assert "interrupted" in states(out).values()
        assert not list(out.rglob(".tmp-*"))
    assert main(arguments(out)) == 0
    assert results(out) == undisturbed
    after = written(out)
    assert all(after[name] == told for name, told in before.items()), "what was done is not made again"
    assert not list(out.rglob(".tmp-*"))
    assert set(states(out).values()) == {"done"}


@posix
def test_two_runs_share_the_work(arguments, undisturbed, tmp_path):
    """Two at once on one folder: each session is made once, by one of them."""
    out = tmp_path / "out"
    first, second = start(arguments(out)), start(arguments(out))
    seen: dict[str, set[tuple[int, int]]] = {}

    def watch() -> None:
        while first.poll() is None or second.poll() is None:
            for name, told in written(out).items() if out.exists() else ():
                seen.setdefault(name, set()).add(told)
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for process in (first, second):
        _, said = process.communicate(timeout=500)
        assert process.returncode == 0, said
    watcher.join()
    assert results(out) == undisturbed
    assert all(len(versions) == 1 for versions in seen.values()), "made once"


def test_a_session_that_is_locked_is_left_to_its_holder(arguments, tmp_path):
    options = Options("tiny")
    session = Session("sub-01", t1w=tmp_path / "a.nii", flair=tmp_path / "b.nii")
    with FolderLock(SessionPaths(tmp_path, session).lock, "another run"):
        outcome = work.work(session, options, tmp_path)
    assert outcome.busy
    assert not states(tmp_path)


@posix
def test_a_dead_worker_is_replaced(arguments, undisturbed, tmp_path):
    """A process of the local cluster is killed in the middle of a session; the run goes on by itself."""
    pytest.importorskip("distributed")
    out = tmp_path / "out"
    process = start(arguments(out, "--workers", "2"))
    wait_until(lambda: done_and_running(out), process)
    before = done_images(out)
    victims = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if any(str(file.path).endswith("/.lock") for file in child.open_files())
    ]
    assert victims
    victims[0].kill()
    _, said = process.communicate(timeout=500)
    assert process.returncode == 0, said
    assert results(out) == undisturbed
    after = written(out)
    assert all(after[name] == told for name, told in before.items())


@posix
def test_a_cluster_stopped_by_ctrl_c_goes_on(arguments, undisturbed, tmp_path):
    pytest.importorskip("distributed")
    out = tmp_path / "out"
    process = start(arguments(out, "--workers", "2"))
    wait_until(lambda: done_and_running(out), process)
    before = done_images(out)
    assert end(process, signal.SIGINT) == 130
    assert "running" not in states(out).values()
    assert main(arguments(out)) == 0
    assert results(out) == undisturbed
    after = written(out)
    assert all(after[name] == told for name, told in before.items())


# --- what is not worth another attempt, and what is ------------------------------------------------------------------


def test_a_session_that_kills_its_process_ends_as_failed(arguments, tmp_path, tiny_bundle):
    """Found "running" without a lock, its process died; after some times somebody must look."""
    out = tmp_path / "out"
    assert main(arguments(out, "--participant-label", "01")) == 0
    record = status.load(out, "sub-01", "")
    dead = Status("sub-01", "", "running", "map", key=record.key, attempts=ATTEMPTS)
    status.save(out, dead)
    assert main(arguments(out, "--participant-label", "01")) == 1
    assert f"ended {ATTEMPTS} times in the middle of map" in rows(out)["sub-01"]["message"]
    assert main(arguments(out, "--participant-label", "01", "--retry-failed")) == 0


def test_a_failure_is_kept_for_the_same_inputs_alone(arguments, tmp_path, monkeypatch):
    """No minutes are spent to fail again; but what the system refused may go well the next time."""
    out = tmp_path / "out"
    calls = []

    def fail(error: Exception):
        def make(job) -> None:
            calls.append(job.session.name)
            raise error

        return make

    from DEMISTCore.cohort import stages

    one = ("--participant-label", "01")
    monkeypatch.setitem(stages.RUN, "map", fail(OSError(errno.EIO, "Input/output error")))
    assert [main(arguments(out, *one)) for _ in range(2)] == [1, 1]
    assert len(calls) == 2
    monkeypatch.setitem(stages.RUN, "map", fail(InputError("It is a cat.")))
    assert [main(arguments(out, *one)) for _ in range(2)] == [1, 1]
    assert len(calls) == 3
    assert rows(out)["sub-01"]["message"] == "It is a cat."
    monkeypatch.setitem(stages.RUN, "map", fail(KeyError("slip")))
    assert main(arguments(out, *one, "--retry-failed")) == 1
    message = rows(out)["sub-01"]["message"]
    log = Path(message.rpartition("see ")[2].rstrip("."))
    assert "KeyError" in log.read_text()


def test_a_full_disk_stops_cleanly_and_goes_on(arguments, undisturbed, tmp_path, monkeypatch, capsys):
    """The error of a full disk, where the second session's files are put in place."""
    from DEMISTCore.cohort import stages

    out = tmp_path / "out"
    make_map, count = stages.RUN["map"], []

    def full(job) -> None:
        count.append(job)
        if len(count) == 2:
            from DEMISTCore import commit

            def refuse(*given: object) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            with monkeypatch.context() as patch:
                patch.setattr(commit, "commit", refuse)
                make_map(job)
        make_map(job)

    monkeypatch.setitem(stages.RUN, "map", full)
    assert cli.run(main, arguments(out)) == 2
    assert "disk is full" in capsys.readouterr().err
    assert len(count) == 2
    assert rows(out)["sub-01"]["state"] == "done"
    assert rows(out)["sub-02"]["state"] == "interrupted"
    assert rows(out)["sub-03"]["state"] == "waiting"
    assert not list(out.rglob(".tmp-*"))
    monkeypatch.setitem(stages.RUN, "map", make_map)
    assert main(arguments(out)) == 0
    assert results(out) == undisturbed


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a file system of a given size")
def test_a_file_system_without_room_for_the_second_session(arguments, undisturbed, tmp_path, capsys):
    """What the first one left stays as it is, nothing is left half, and with room the same command goes on."""
    out = tmp_path / "out"
    out.mkdir()

    def mount(size: int, *more: str) -> int:
        given = ["mount", "-t", "tmpfs", "-o", ",".join((*more, f"size={size}")), "tmpfs", str(out)]
        return subprocess.run(given, check=False, capture_output=True).returncode

    if mount(64 << 20):
        pytest.skip("no file system may be mounted here")
    try:
        assert main(arguments(out, "--participant-label", "01")) == 0
        first = written(out)
        assert mount(shutil.disk_usage(out).used + (48 << 10), "remount") == 0
        assert cli.run(main, arguments(out)) == 2
        assert "disk is full" in capsys.readouterr().err
        assert not list(out.rglob(".tmp-*"))
        assert mount(64 << 20, "remount") == 0
        assert main(arguments(out)) == 0
        assert results(out) == undisturbed
        assert first.items() <= written(out).items()
    finally:
        subprocess.run(["umount", str(out)], check=True)


def test_unreadable_records_count_as_none(tmp_path):
    (tmp_path / ".demist" / "sub-1").mkdir(parents=True)
    for name, text in (("a", "{"), ("b", "[]"), ("c", json.dumps({"subject": 1, "session": "", "state": "done"}))):
        (tmp_path / ".demist" / "sub-1" / f"{name}.status.json").write_text(text)
    assert status.load_all(tmp_path) == []
    ledger = Ledger(tmp_path, [Session("sub-01", problem="It has no FLAIR.")])
    run_here([Session("sub-01", problem="It has no FLAIR.")], Options("tiny"), tmp_path, ledger)
    assert [one.state for one in ledger.rows()] == ["failed"]
