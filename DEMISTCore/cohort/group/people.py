"""Who is who: group, age and sex from ``participants.tsv``, dates and ages of sessions from BIDS' other tables."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ...errors import InputError
from ...schema import read_text
from ..table import label

#: What the column with the groups may be called, and what people without disease.
GROUP_COLUMNS = ("group", "diagnosis", "dx", "cohort", "patient_group")
CONTROLS = ("control", "controls", "hc", "healthy", "healthy control", "healthy controls", "ctrl", "con", "cn", "nc")
_MOST = 64 << 20
_MISSING = ("", "n/a", "na", "nan", "none", "null")
_MALE, _FEMALE = ("m", "male", "man", "1m"), ("f", "female", "woman", "w")


@dataclass(frozen=True)
class Person:
    """One person as a comparison needs them.

    Attributes:
        subject: ``sub-01``.
        group: as the table calls it; "" where it does not say.
        patient: False for controls; None where the group is not known.
        age: years; None where it is not known.
        sex: ``M`` or ``F``; "" where it is not known.
        dates: day of each session that has one.
        ages: age at each session that has one.
    """

    subject: str
    group: str = ""
    patient: bool | None = None
    age: float | None = None
    sex: str = ""
    dates: Mapping[str, datetime] = field(default_factory=dict)
    ages: Mapping[str, float] = field(default_factory=dict)

    def age_at(self, session: str) -> float | None:
        """Age at a session, else the person's."""
        return self.ages.get(session, self.age)

    def years(self, first: str, second: str) -> float | None:
        """Time between two sessions, by their dates, else by the ages at them; None where neither is known."""
        if first in self.dates and second in self.dates:
            return (self.dates[second] - self.dates[first]).total_seconds() / (365.25 * 86400)
        if first in self.ages and second in self.ages:
            return self.ages[second] - self.ages[first]
        return None


def read_people(
    source: Path, table: Path | None = None, column: str | None = None, controls: Sequence[str] = ()
) -> tuple[dict[str, Person], list[str]]:
    """Everybody of a data set by ``sub-...``, and sentences on what is not known.

    Args:
        source: BIDS data set, or table of paths whose rows hold group, age and sex themselves.
        table: another table than the data set's ``participants.tsv``.
        column: of the groups; None: the first of :data:`GROUP_COLUMNS` that there is.
        controls: what the column calls people without disease; none: :data:`CONTROLS`.

    Raises:
        InputError: a table that was asked for cannot be read, or has no such column or label.
    """
    notes: list[str] = []
    path = table or (source / "participants.tsv" if source.is_dir() else source)
    if not path.is_file():
        if table is not None:
            raise InputError(f"There is no table {table}; check --participants.")
        return {}, [f"There is no {path.name}: nothing is known of groups, age and sex."]
    rows = read_rows(path)
    header = list(rows[0]) if rows else []
    key = next((name for name in ("participant_id", "subject") if name in header), None)
    if key is None:
        raise InputError(f"{path} has no column participant_id; add it.")
    if column is not None and column.lower() not in header:
        raise InputError(f"{path} has no column {column}; there are {', '.join(header)}.")
    chosen = column.lower() if column else next((name for name in GROUP_COLUMNS if name in header), None)
    known = [word.lower() for word in controls] or list(CONTROLS)
    if chosen is None:
        notes.append(f"{path.name} has no column for groups ({', '.join(GROUP_COLUMNS)}); give --group-column.")
    elif controls and not any(row.get(chosen, "").lower() in known for row in rows):
        raise InputError(f"Nobody in {path} is {' or '.join(controls)} by {chosen}; check --control-label.")
    people: dict[str, Person] = {}
    for row in rows:
        subject = f"sub-{label(row.get(key, ''))}"
        group = _cell(row.get(chosen, "")) if chosen else ""
        times = _times(source, subject) if source.is_dir() else ({}, {})
        if source.is_file() and row.get("session"):
            times = _row_times(people.get(subject), row)
        people[subject] = Person(
            subject,
            group,
            group.lower() not in known if group else None,
            _number(row.get("age")),
            _sex(row.get("sex")),
            *times,
        )
    return people, notes


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a TSV (or CSV) with a header, keys in lower case.

    Raises:
        InputError: it cannot be read.
    """
    try:
        text = read_text(path, _MOST)
        delimiter = "," if path.suffix.lower() == ".csv" else "\t"
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}; fix it.") from error
    return [
        {
            str(key).strip().lower(): (value or "").strip()
            for key, value in row.items()
            if key is not None and isinstance(value, str | None)
        }
        for row in rows
    ]


def _times(root: Path, subject: str) -> tuple[dict[str, datetime], dict[str, float]]:
    """Dates and ages by session: of ``sub-01_sessions.tsv``, dates also of each session's ``_scans.tsv``."""
    dates: dict[str, datetime] = {}
    ages: dict[str, float] = {}
    for path in sorted((root / subject).glob("ses-*/*_scans.tsv")):
        found = [
            when
            for row in _quietly(path)
            if "T1w" in row.get("filename", "") and (when := _date(row.get("acq_time"))) is not None
        ]
        if found:
            dates[path.parent.name] = min(found)
    for row in _quietly(root / subject / f"{subject}_sessions.tsv"):
        session = f"ses-{label(row.get('session_id', ''))}"
        if (when := _date(row.get("acq_time"))) is not None:
            dates[session] = when
        if (age := _number(row.get("age"))) is not None:
            ages[session] = age
    return dates, ages


def _row_times(before: Person | None, row: Mapping[str, str]) -> tuple[dict[str, datetime], dict[str, float]]:
    session = f"ses-{label(row['session'])}"
    dates, ages = (dict(before.dates), dict(before.ages)) if before else ({}, {})
    if (when := _date(row.get("date") or row.get("acq_time"))) is not None:
        dates[session] = when
    if (age := _number(row.get("age"))) is not None:
        ages[session] = age
    return dates, ages


def _quietly(path: Path) -> list[dict[str, str]]:
    try:
        return read_rows(path) if path.is_file() else []
    except InputError:
        return []


def _cell(text: str | None) -> str:
    return "" if text is None or text.strip().lower() in _MISSING else text.strip()


def _number(text: str | None) -> float | None:
    """A number; ``89+`` as data sets write it of the oldest counts as 89."""
    try:
        value = float(_cell(text).rstrip("+") or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _sex(text: str | None) -> str:
    word = _cell(text).lower()
    return "M" if word in _MALE else "F" if word in _FEMALE else ""


def _date(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(_cell(text)).replace(tzinfo=None)
    except ValueError:
        return None


def known(people: Iterable[Person]) -> dict[str, int]:
    """How many there are of each group."""
    counted: dict[str, int] = {}
    for person in people:
        if person.group:
            counted[person.group] = counted.get(person.group, 0) + 1
    return dict(sorted(counted.items()))
