"""Reads images in a process of its own, with 1 GiB to spend: what a hostile file does to it, a test survives."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np


def read(path: Path) -> str:
    """Read one image; the refusal's sentence, or nothing."""
    from DEMISTCore.errors import InputError
    from DEMISTCore.volume import Volume

    try:
        volume = Volume.read(path)
    except InputError as error:
        return str(error)
    assert np.isfinite(volume.affine).all()
    assert abs(np.linalg.det(volume.affine)) > 0
    assert volume.array.size
    assert volume.array.dtype.kind in "buif"
    return ""


def serve(pipe: Connection) -> None:
    """Answer paths with sentences, or with the exception that came out; until the other end is closed."""
    import nibabel  # noqa: F401
    import SimpleITK  # noqa: F401

    if os.path.exists("/proc/self/statm"):
        import resource

        with open("/proc/self/statm") as stream:
            now = int(stream.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + (1 << 30), now + (1 << 30)))
    while True:
        try:
            path = pipe.recv()
        except EOFError:
            return
        try:
            answer: str | Exception = read(path)
        except Exception as error:
            answer = RuntimeError(repr(error))
        pipe.send(answer)


class Reader:
    """The process as a test sees it; started anew when a file has killed it."""

    def __init__(self) -> None:
        self._process: multiprocessing.process.BaseProcess | None = None

    def __call__(self, path: Path, seconds: float) -> str:
        """The refusal's sentence, or nothing where the image was read.

        Raises:
            RuntimeError: another exception came out, the process died, or it took longer than ``seconds``.
        """
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=serve, args=(theirs,), daemon=True)
            self._process.start()
            theirs.close()
            self._pipe.send(path.with_name("nothing"))  # it has started when it answers
            self._pipe.recv()
        self._pipe.send(path)
        try:
            answer = self._pipe.recv() if self._pipe.poll(seconds) else RuntimeError(f"took longer than {seconds} s")
        except (EOFError, OSError):
            self._process.join()
            answer = RuntimeError(f"killed the reader: exit code {self._process.exitcode}")
        if isinstance(answer, Exception):
            self.close()
            raise answer
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._pipe.close()
            self._process.kill()
            self._process.join()
            self._process = None
