"""A worker, Ctrl-C, the scheduler, the disk: what benchmarks/cohort_full.py does to a running cohort."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WORKERS = 2
#: Of the run of step 3: so many sessions are done when this happens.
WHEN = {"worker": 3, "ctrl-c": 8, "scheduler": 13, "disk": 18}


def require(holds: bool, what: str) -> None:
    """End with a sentence where something does not hold."""
    if not holds:
        sys.exit(f"FAILED: {what}")


def command(out: Path, to: Path, args: argparse.Namespace, *more: str) -> list[str]:
    """The command line of the cohort."""
    return [
        sys.executable,
        "-m",
        "DEMISTCore.cohort",
        str(out / "bids"),
        str(to),
        "participant",
        "--bundle",
        args.bundle,
        "--skip-bids-validator",
        "-q",
        "--threads",
        "1",
        *more,
    ]


def start(words: Sequence[str], log: Path) -> subprocess.Popen:
    """A process in a group of its own, as a plain user where root would read what nobody may."""
    from test_cohort_damage import _as_a_plain_user

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it, and so would their children
        if sys.platform == "linux" and os.geteuid() == 0:
            _as_a_plain_user()

    with open(log, "a", encoding="utf-8") as stream:
        return subprocess.Popen(
            words, cwd=ROOT, stderr=stream, stdout=stream, start_new_session=True, preexec_fn=prepare
        )


def ended(words: Sequence[str], log: Path) -> int:
    """Run to the end; its exit code."""
    return start(words, log).wait()


def disturbed(out: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The four disturbances, one after the other, in one folder; those that were are not repeated."""
    from cohort_data import written

    to, log, noted = out / "disturbed", out / "disturbed.log", out / "disturbed-so-far.json"
    memory = _limited(to)
    so_far = json.loads(noted.read_text()) if noted.is_file() else {"kept": {}}
    local = command(out, to, args, "--workers", str(WORKERS))

    def happened(what: str, how: Any) -> None:
        so_far[what] = how
        noted.write_text(json.dumps(so_far), encoding="utf-8")

    def until(what: str, process: subprocess.Popen) -> None:
        """Until so many are done; what they have made is to stay."""
        while _done(to) < WHEN[what]:
            require(process.poll() is None, f"the run has ended with {process.returncode} before {what}; see {log}")
            time.sleep(0.5)
        so_far["kept"] |= {name: list(made) for name, made in written(to).items() if _is_done(to, name)}

    if "ctrl-c" not in so_far:
        run = start(local, log)
        if "worker" not in so_far:
            until("worker", run)
            happened("worker", _kill_a_worker(run))
        until("ctrl-c", run)
        os.killpg(run.pid, signal.SIGINT)
        code = run.wait(timeout=300)
        require(code == 130, f"Ctrl-C ended the run with {code}")
        happened("ctrl-c", code)
    if "scheduler" not in so_far:
        cluster, address = _scheduler(out, log)
        run = start(command(out, to, args, "--scheduler", address), log)
        until("scheduler", run)
        for process in cluster:
            os.killpg(process.pid, signal.SIGKILL)
        code = run.wait(timeout=600)
        require(code == 2, f"without its scheduler the run ended with {code}")
        happened("scheduler", code)
    if memory and "disk" not in so_far:
        run = start(local, log)
        until("disk", run)
        _resize(to, shutil.disk_usage(to).used + (8 << 20))
        code = run.wait(timeout=3600)
        _resize(to, 16 << 30)
        require(code == 2, f"a full disk ended the run with {code}")
        happened("disk", code)
    code = ended(local, log)
    require(code == 1, f"the last run ended with {code}; see {log}")
    after = written(to)
    again = [name for name, made in so_far["kept"].items() if list(after.get(name, ())) != made]
    require(not again, f"made again though it was done: {again[:3]}")
    told = {what: so_far.get(what, "not tried: it takes Linux and root") for what in WHEN}
    return {**told, "kept": len(so_far["kept"])}


def _limited(to: Path) -> bool:
    """A file system in memory for the results, so that its size can be set."""
    to.mkdir(exist_ok=True)
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    if os.path.ismount(to):
        return True
    if any(to.iterdir()):  # begun without
        return False
    return subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16g", "tmpfs", str(to)], check=False).returncode == 0


def _resize(to: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(to)], check=True)


def _done(to: Path) -> int:
    from DEMISTCore.cohort import status

    return sum(one.state == "done" for one in status.load_all(to))


def _is_done(to: Path, image: str) -> bool:
    from DEMISTCore.cohort import status

    subject, *rest = image.split("/")
    session = rest[0] if rest[0].startswith("ses-") else ""
    return status.load(to, subject, session).state == "done"


def _kill_a_worker(run: subprocess.Popen) -> str:
    """One that holds a session's lock."""
    import psutil

    end = time.monotonic() + 300
    while time.monotonic() < end:
        for child in psutil.Process(run.pid).children(recursive=True):
            try:
                if any(str(file.path).endswith("/.lock") for file in child.open_files()):
                    child.kill()
                    return "killed"
            except psutil.Error:
                continue
        time.sleep(0.2)
    sys.exit("FAILED: no worker held a lock within 300 s")


def _scheduler(out: Path, log: Path) -> tuple[list[subprocess.Popen], str]:
    """A scheduler and two workers, as processes of their own."""
    told = out / "scheduler.json"
    told.unlink(missing_ok=True)
    dask = [sys.executable, "-m", "dask"]
    listed = [start([*dask, "scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(told)], log)]
    listed.append(
        start(
            [
                *dask,
                "worker",
                "--nthreads",
                "1",
                "--nworkers",
                str(WORKERS),
                "--no-dashboard",
                "--scheduler-file",
                str(told),
                "--local-directory",
                str(out / "dask"),
            ],
            log,
        )
    )
    while not (told.is_file() and told.stat().st_size):
        require(listed[0].poll() is None, f"the scheduler has ended; see {log}")
        time.sleep(0.2)
    return listed, json.loads(told.read_text())["address"]
