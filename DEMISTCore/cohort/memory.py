"""The most memory that a process held for one session, where the system can say so."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ..devices import peak_memory


def reset_peak() -> None:
    """From now on :func:`peak` counts anew (Linux); elsewhere it stays that of the whole process."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """Most memory held since, MiB, resident."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 1024, 1)
    return round(peak_memory() / 2**20, 1)
