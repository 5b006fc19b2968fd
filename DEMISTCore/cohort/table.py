"""Sessions from a table of paths (.csv or .tsv), for archives that are no BIDS data set."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import InputError
from ..schema import read_text
from .session import Session

#: Columns that are read, and what they mean; the first three are needed.
COLUMNS = {
    "subject": "whose scan it is, any text; letters and digits of it make the BIDS label",
    "t1w": "path of the T1w, from the table's folder",
    "flair": "path of the FLAIR",
    "session": "which session, if there are several",
    "brain_mask": "brain mask in the T1w's space",
    "lesions": "lesion mask in the T1w's space",
    "tissue": "tissue labels in the T1w's space: 1 CSF, 2 grey, 3 white matter",
}
_NEEDED = ("subject", "t1w", "flair")
_MOST = 256 << 20


def read_table(path: str | Path, *, participants: Sequence[str] = (), sessions: Sequence[str] = ()) -> list[Session]:
    """The sessions of a table, sorted by name; rows that cannot be worked on say why.

    Args:
        path: ``.csv`` (or ``.tsv``: tabs) with a header, see :data:`COLUMNS`; paths are told from its folder.
        participants, sessions: labels to keep; none: all.

    Raises:
        InputError: it cannot be read, or lacks a column.
    """
    path = Path(path).absolute()
    try:
        text = read_text(path, _MOST)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise InputError(f"{path} is no table ({error}); save it as CSV with commas, or TSV with tabs.") from error
    header = {str(name).strip().lower() for name in (rows[0] if rows else ()) if name is not None}
    missing = [name for name in _NEEDED if name not in header]
    if missing:
        raise InputError(f"{path} has no column {missing[0]} (or no rows); it needs {', '.join(_NEEDED)}.")
    found = [_session(path.parent, number, row) for number, row in enumerate(rows, 2)]
    wanted = {label.removeprefix("sub-") for label in participants}
    kept = {label.removeprefix("ses-") for label in sessions}
    found = [one for one in found if not wanted or one.subject[4:] in wanted]
    found = [one for one in found if not kept or one.session[4:] in kept]
    if not found:
        raise InputError(f"{path} holds no row of the participants and sessions asked for.")
    return sorted(_unique(found), key=lambda one: one.name)


def _session(folder: Path, number: int, row: dict[str | None, str | None]) -> Session:
    cells = {
        str(key).strip().lower(): (value or "").strip()
        for key, value in row.items()
        if key is not None and isinstance(value, str | None)
    }
    subject, session = label(cells.get("subject", "")), label(cells.get("session", ""))
    shown = cells.get("subject", "")
    paths = {
        name: folder / cells[name]
        for name in ("t1w", "flair", "brain_mask", "lesions", "tissue")
        if cells.get(name, "n/a").lower() not in ("", "n/a")
    }
    problem = ""
    if not subject:
        subject, problem = f"row{number}", f"Row {number} of the table names no subject (letters or digits)."
    lacking = [name for name in ("t1w", "flair") if name not in paths]
    if not problem and lacking:
        problem = f"Row {number} of the table gives no {' and no '.join(lacking)}; add the path, or remove the row."
    return Session(
        f"sub-{subject}",
        f"ses-{session}" if session else "",
        root=folder,
        shown=shown or f"row {number}",
        problem=problem,
        t1w=paths.get("t1w"),
        flair=paths.get("flair"),
        brain_mask=paths.get("brain_mask"),
        lesions=paths.get("lesions"),
        tissue=paths.get("tissue"),
        sidecars=_sidecars(paths),
    )


def _sidecars(paths: dict[str, Path]) -> dict[str, list[Path]]:
    from ..acquisition import sidecar_path

    beside = {what: sidecar_path(paths[key]) for what, key in (("T1w", "t1w"), ("FLAIR", "flair")) if key in paths}
    found = {}
    for what, path in beside.items():
        try:
            found[what] = [path] if path.is_file() else []
        except (OSError, ValueError):
            found[what] = []
    return found


def label(text: str) -> str:
    """The letters and digits of a name: what BIDS takes as a label.

    >>> label("MS_0012 (left)")
    'MS0012left'
    """
    return re.sub(r"[^a-zA-Z0-9]", "", text.removeprefix("sub-").removeprefix("ses-"))[:64]


def _unique(found: Sequence[Session]) -> list[Session]:
    """Of rows with one label each is refused: nobody can tell which one is meant."""
    count = Counter(one.name for one in found)
    seen: Counter[str] = Counter()
    result = []
    for one in found:
        if count[one.name] > 1:
            seen[one.name] += 1
            why = f"{count[one.name]} rows of the table come to {one.name}; give each its own subject and session."
            if seen[one.name] > 1:
                continue
            one = replace(one, problem=why)
        result.append(one)
    return result
