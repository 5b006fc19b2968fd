"""pip as a child process: its lines as they come, how far it is, and why it failed, in one sentence."""

from __future__ import annotations

import os
import queue
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from ..errors import Cancelled, InputError

#: Bytes that are fetched, about, before pip has said anything: what the share that is done is reckoned against.
EXPECTED = {"cpu": 700e6, "default": 900e6, "shared": 250e6}
EXPECTED_CUDA = 3.3e9

#: pip in a process that ends at once when its parent is gone, however that ended: else a killed build's pip goes on
#: writing into what the next build deletes and makes anew. Its standard input is a pipe that nobody writes to; it ends
#: when the other end is closed. A group of its own (POSIX) takes what pip has started along.
_PIP = """
import os, runpy, signal, sys, threading
def watch():
    while os.read(0, 1):
        pass
    if os.name != "nt":
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
threading.Thread(target=watch, daemon=True).start()
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""

_SIZES = {"kB": 1e3, "MB": 1e6, "GB": 1e9}
_NETWORK = (
    "NewConnectionError",
    "Temporary failure in name resolution",
    "Failed to establish a new connection",
    "Connection refused",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "getaddrinfo failed",
    "Network is unreachable",
)


class Progress:
    """How far pip is, from what it says: bytes fetched first, then packages unpacked.

    Attributes:
        text: what it does just now.
        done: share, 0 to 1.
    """

    def __init__(self, expected: float) -> None:
        self.text, self.done = "Looking for packages", 0.0
        self._expected, self._fetched, self._now = expected, 0.0, 0.0
        self._name, self._names = "", set[str]()
        self.unpacking = False

    def hear(self, line: str) -> bool:
        """Take in one line; True if it is one for people as well."""
        if found := re.match(r"Progress (\d+) of (\d+)", line):  # --progress-bar raw
            here, total = int(found[1]), int(found[2])
            self.text = f"Downloading {self._name} ({here / 1e6:.0f} of {total / 1e6:.0f} MB)"
            self._tell(self._fetched + here)
            return False
        if found := re.match(r"\s*(?:Downloading|Using cached|Processing) (\S+)(?:.*\(([\d.]+) (kB|MB|GB)\))?", line):
            self._fetched += self._now
            self._now = float(found[2]) * _SIZES[found[3]] if found[2] else 0.0
            self._name = found[1].rsplit("/", 1)[-1].split("-")[0]
            self.text = f"Downloading {self._name}"
            self._tell(self._fetched)
        elif found := re.match(r"Collecting ([\w.-]+)", line):
            self._names.add(found[1].lower())
        elif line.startswith("Installing collected packages"):
            self.unpacking, self.text = True, "Unpacking packages"
            self.done = 0.75
        return True

    def count(self, unpacked: int) -> None:
        """So many packages are unpacked."""
        if self.unpacking and self._names:
            self.done = max(self.done, 0.75 + 0.2 * min(unpacked / len(self._names), 1.0))

    def _tell(self, fetched: float) -> None:
        self.done = max(self.done, 0.75 * min(fetched / max(self._expected, fetched * 1.1, 1.0), 1.0))


class Run:
    """pip, run as often as it takes, with one progress for all of it.

    Args:
        folder: of the environment; named in sentences.
        temporary: folder on the same disk for what pip unpacks.
        log: file for all it says.
        expected: bytes to fetch, about.
        tell: called with a text and the share that is done.
        say: called with each line for people.
        cancelled: set when it is to stop.
    """

    def __init__(
        self,
        folder: Path,
        temporary: Path,
        log: Path,
        expected: float,
        tell: Callable[[str, float], object],
        say: Callable[[str], object],
        cancelled: threading.Event,
    ) -> None:
        self._folder, self._temporary, self._log = folder, temporary, log
        self._tell, self._say, self._cancelled = tell, say, cancelled
        self._progress = Progress(expected)

    def install(self, requirements: Sequence[str], target: Path, options: Sequence[str]) -> None:
        """Install into a folder that is not there yet.

        Raises:
            InputError: it failed; the sentence says why.
            Cancelled: it was stopped.
        """
        self._run(["install", "--target", str(target), "--no-warn-conflicts", *options, *requirements])

    def fetch(self, requirement: str, index: str, wheels: Path, options: Sequence[str]) -> None:
        """Fetch one wheel from an index, without what it needs; errors as for :meth:`install`."""
        self._run(
            [
                "download",
                "--no-deps",
                "--only-binary",
                ":all:",
                "--index-url",
                index,
                "--retries",
                "1",
                "--timeout",
                "15",
                "--dest",
                str(wheels),
                *options,
                requirement,
            ]
        )

    def _run(self, arguments: Sequence[str]) -> None:
        """Run pip to its end, hearing what it says."""
        command = [
            sys.executable,
            "-c",
            _PIP,
            arguments[0],
            "--no-input",
            "--disable-pip-version-check",
            "--prefer-binary",
            "--progress-bar",
            "raw" if _knows_raw() else "off",
            *arguments[1:],
        ]
        environment = {
            **os.environ,
            **dict.fromkeys(("TMPDIR", "TMP", "TEMP"), str(self._temporary)),
            "PYTHONUNBUFFERED": "1",
            "PYTHONIOENCODING": "utf-8",
            "PIP_USER": "0",
            "PYTHONNOUSERSITE": "1",
        }
        last = deque[str](maxlen=60)
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.PIPE,
            env=environment,
            cwd=self._temporary,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=os.name != "nt",
        )

        def read() -> None:
            for line in process.stdout or ():
                lines.put(line.rstrip())
            lines.put(None)

        threading.Thread(target=read, daemon=True).start()
        try:
            with open(self._log, "a", encoding="utf-8") as file:
                while True:
                    if self._cancelled.is_set():
                        raise Cancelled("The installation was cancelled.")
                    try:
                        line = lines.get(timeout=0.3)
                    except queue.Empty:
                        unpacked = self._temporary.glob("pip-target-*/lib/python/*.dist-info")
                        self._progress.count(sum(1 for _ in unpacked))
                        self._tell(self._progress.text, self._progress.done)
                        continue
                    if line is None:
                        break
                    if self._progress.hear(line) and line.strip():
                        last.append(line)
                        file.write(line + "\n")
                        file.flush()
                        self._say(line)
                    self._tell(self._progress.text, self._progress.done)
            if process.wait() != 0:
                raise InputError(reason(list(last), self._folder))
        finally:
            _end(process)


def reason(lines: Sequence[str], folder: Path) -> str:
    """Why pip failed, in one sentence with the fix, from the last lines it said."""
    text = "\n".join(lines)
    if "No space left on device" in text or "Errno 28" in text or "not enough space" in text:
        return f"There is no space left on the disk of {folder}; free some, or choose another, and try again."
    if "407" in text and "roxy" in text:
        return (
            "The proxy asks for a name and password; set HTTPS_PROXY=http://name:password@host:port before "
            "starting the program, and install again."
        )
    if "ProxyError" in text or "Cannot connect to proxy" in text:
        return "The proxy cannot be reached; check HTTPS_PROXY, or pip's configuration, and install again."
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            "The certificate of the package index is not trusted here; name your organisation's certificate file "
            "in PIP_CERT, and install again."
        )
    if any(word in text for word in _NETWORK):
        return (
            "The package index cannot be reached; check the network (behind a proxy set HTTPS_PROXY), or install "
            "from a folder of wheels, and install again."
        )
    if "Permission denied" in text or "Access is denied" in text:
        return f"{folder} cannot be written to; choose another folder, and install again."
    if "ResolutionImpossible" in text or "conflicting dependencies" in text:
        return "No versions of the packages fit together here; see the log, and report it."
    if found := re.search(r"No matching distribution found for (\S+)", text):
        return f"There is no {found[1].rstrip(';')} for this Python and system; see the log."
    errors = [line for line in lines if line.startswith("ERROR:")]
    told = (errors or list(lines) or ["it said nothing"])[-1].removeprefix("ERROR:").strip()
    return f"pip failed ({told if len(told) <= 200 else told[:197] + '...'}); see the log."


def _knows_raw() -> bool:
    """Whether pip can say its progress in plain numbers (since 24.1)."""
    try:
        version = metadata.version("pip")
    except metadata.PackageNotFoundError:
        return False
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2]) >= (24, 1)


def _end(process: subprocess.Popen[str]) -> None:
    """See to it that neither pip nor what it started is left."""
    if process.poll() is None:
        if os.name == "nt":
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True, check=False)
        else:
            import signal

            try:
                os.killpg(process.pid, signal.SIGKILL)
            except OSError:
                process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
