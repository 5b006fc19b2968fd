"""How each session went: a record a session, and all of them as ``status.tsv``."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from ..errors import printable
from ..files import atomic_path, is_hidden, write_json
from .names import HIDDEN, hidden, safe
from .records import read

#: Columns of status.tsv, and what they mean.
COLUMNS = {
    "subject": "BIDS name of the person",
    "session": "BIDS name of the session; n/a without",
    "state": "done, failed, skipped (no anatomical scan), running, interrupted, waiting",
    "stage": "where it stands or failed: files, convert, prepare, map, regions, spaces, report",
    "message": "why it failed, or what to know of the result",
    "seconds": "computing time of the last run that worked on it",
    "peak_memory_mb": "most memory (MiB, resident) of the process in that time",
}
STATES = ("done", "failed", "skipped", "running", "interrupted", "waiting")


@dataclass(frozen=True)
class Status:
    """How a session went.

    Attributes:
        subject, session, state, stage, message, seconds, peak_memory_mb: see :data:`COLUMNS`.
        shown: how the source calls the person.
        key: of the last stage, that a failure belongs to; "" where it could not be had.
        final: a failure that the same inputs and settings would end in again.
        attempts: starts that ended neither well nor in an error: the process died.
    """

    subject: str
    session: str
    state: str = "waiting"
    stage: str = ""
    message: str = ""
    seconds: float | None = None
    peak_memory_mb: float | None = None
    shown: str = ""
    key: str = ""
    final: bool = False
    attempts: int = 0

    @property
    def name(self) -> str:
        """Such as ``sub-01_ses-02``."""
        return f"{self.subject}_{self.session}" if self.session else self.subject


def load(out: Path, subject: str, session: str) -> Status:
    """A session's record; "waiting" where there is none to be read."""
    start = Status(subject, session)
    return _parsed(read(_path(out, start))) or start


def save(out: Path, status: Status) -> None:
    """Write a session's record.

    Raises:
        InputError: it cannot be written.
    """
    write_json(_path(out, status), asdict(status))


def load_all(out: Path) -> list[Status]:
    """Every record, sorted by name."""
    found = []
    with contextlib.suppress(OSError):
        for path in (out / HIDDEN).glob("*/*.status.json"):
            if not is_hidden(path) and (one := _parsed(read(path))) is not None:
                found.append(one)
    return sorted(found, key=lambda one: one.name)


def write_table(out: Path, waiting: Iterable[Status] = ()) -> list[Status]:
    """``status.tsv``: all records, and the sessions of this run that have none yet.

    Returns:
        Its rows.

    Raises:
        InputError: it cannot be written.
    """
    rows = {one.name: one for one in waiting} | {one.name: one for one in load_all(out)}
    listed = [rows[name] for name in sorted(rows)]
    with (
        atomic_path(out / "status.tsv") as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as stream,
    ):
        writer = csv.writer(
            stream, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None, escapechar=None
        )
        writer.writerow(COLUMNS)
        for one in listed:
            writer.writerow([_cell(getattr(one, name)) for name in COLUMNS])
    return listed


def summary(rows: Sequence[Status], most: int = 10) -> str:
    """How many of each state, and the sentences of those that failed."""
    counted = ", ".join(
        f"{sum(one.state == state for one in rows)} {state}"
        for state in STATES
        if any(one.state == state for one in rows)
    )
    failed = [one for one in rows if one.state == "failed"]
    lines = [f"{len(rows)} sessions: {counted}."]
    lines += [f"  {one.name} ({one.stage}): {one.message}" for one in failed[:most]]
    if len(failed) > most:
        lines.append(f"  and {len(failed) - most} more, see status.tsv")
    return "\n".join(lines)


def running(status: Status, stage: str) -> Status:
    """The record of a session that begins with a stage."""
    return replace(status, state="running", stage=stage, message="", seconds=None, peak_memory_mb=None)


def _path(out: Path, status: Status) -> Path:
    return hidden(out, status.subject) / f"{safe(status.name)}.status.json"


def _parsed(told: dict) -> Status | None:
    known = {field.name for field in fields(Status)}
    try:
        status = Status(**{key: value for key, value in told.items() if key in known})
    except TypeError:
        return None
    text = all(isinstance(getattr(status, name), str) for name in ("subject", "session", "state", "stage", "message"))
    return status if text and status.state in STATES else None


def _cell(value: object) -> str:
    """A cell without tabs, line ends, or what a terminal would obey."""
    if value is None or value == "":
        return "n/a"
    return f"{value:.1f}" if isinstance(value, float) else printable(str(value))
