"""A conditional backbone's own conditions, per subject, from a table (Brain LDM: age, sex, brain shape).

    participant_id,age,sex,ventricular_volume,brain_volume
    sub-001,0.62,1,0.8,0.35

A CSV, or a TSV such as BIDS' ``participants.tsv``; ``session_id`` where sessions differ, other columns are left alone.
What is empty, ``n/a`` or not there is neutral.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..schema import read_text, shown

if TYPE_CHECKING:
    from .data import PreparedSession, Session

log = logging.getLogger(__name__)

NEUTRAL = 0.5
TABLE_BYTES = 16 << 20
_SUBJECT, _SESSION = ("participant_id", "subject"), ("session_id", "session")


def read_contexts(
    table: str | Path, conditions: Sequence[str], sessions: Sequence[Session | PreparedSession]
) -> dict[str, np.ndarray]:
    """The context of each session by its name, float32 (1, conditions), in the order of ``conditions``.

    Raises:
        InputError: the backbone has no named conditions; the table cannot be read, lacks the columns or all of the
            subjects, names one twice, or has a value outside [0, 1].
    """
    if not conditions:
        raise InputError(
            f"context={table}: this backbone takes no conditions by name; leave context out, or train on Brain LDM "
            "(--backbone)."
        )
    rows = _read(Path(table), conditions)
    result, without = {}, []
    for session in sessions:
        label = session.session.removeprefix("ses-")
        subject = session.subject.removeprefix("sub-")
        values = rows.get((subject, label), rows.get((subject, "")))
        if values is None:
            without.append(session.name)
            values = dict.fromkeys(conditions, NEUTRAL)
        result[session.name] = np.array([[values[name] for name in conditions]], np.float32)
    if without and len(without) == len(result):
        raise InputError(f"{table} has a row for none of the subjects ({without[0]}, ...); fix its participant_id.")
    if without:
        log.warning(
            "%s has no row for %d of %d sessions (%s, ...): these are neutral.",
            table,
            len(without),
            len(result),
            without[0],
        )
    return result


def _read(table: Path, conditions: Sequence[str]) -> dict[tuple[str, str], dict[str, float]]:
    try:
        text = read_text(table, TABLE_BYTES)
        return _rows(table, text, conditions)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"Cannot read context={table}: {getattr(error, 'strerror', None) or error}.") from error


def _rows(table: Path, text: str, conditions: Sequence[str]) -> dict[tuple[str, str], dict[str, float]]:
    reader = csv.DictReader(text.splitlines(), delimiter="\t" if table.suffix.lower() == ".tsv" else ",")
    names = reader.fieldnames or ()
    who = next((name for name in _SUBJECT if name in names), None)
    session = next((name for name in _SESSION if name in names), None)
    known = [name for name in conditions if name in names]
    if who is None or not known:
        lacks = "participant_id" if who is None else " nor ".join(conditions)
        raise InputError(
            f"{table} has no column {lacks}; its header should name participant_id and {', '.join(conditions)}."
        )
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for number, row in enumerate(reader, 2):
        where = f"{table}, line {number}"
        subject = (row[who] or "").strip().removeprefix("sub-")
        key = subject, (row.get(session) or "").strip().removeprefix("ses-") if session else ""
        if not subject:
            raise InputError(f"{where}: {who} is empty; name the subject.")
        if key in rows:
            raise InputError(f"{where}: {'_'.join(filter(None, key))} is there twice; keep one row of it.")
        rows[key] = {name: _value(row.get(name), name, where) for name in conditions}
    return rows


def _value(text: str | None, name: str, where: str) -> float:
    text = (text or "").strip()
    if text.lower() in ("", "n/a"):
        return NEUTRAL
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise InputError(
            f"{where}: {name} is {shown(text)}, and must be a number from 0 to 1 (a percentile of UK Biobank; sex 0 "
            "female, 1 male)."
        )
    return value
