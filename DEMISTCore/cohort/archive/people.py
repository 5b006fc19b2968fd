"""The images' own data set: what it is, whose they are, and when they were scanned, as BIDS has it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...files import atomic_path, write_json
from ..dataset import BIDS_VERSION
from .series import Series
from .studies import RAW, named_studies, years

_README = "Images that dcm2niix made of DICOM series: of each study the T1w and the FLAIR that were taken.\n"


def write_people(found: Sequence[Series], out: Path) -> Path:
    """Write ``participants.tsv``, a table of sessions a person, and the description; the folder of the data set.

    All of the archive's people, whoever is worked on, so that runs on parts of it write the same.

    Raises:
        InputError: it cannot be written.
    """
    root = out / RAW
    people: dict[str, list[tuple[str, Series]]] = {}
    for (subject, session), series in named_studies(found).items():
        if any(one.kind for one in series):
            people.setdefault(subject, []).append((session, series[0]))
    write_json(
        root / "dataset_description.json",
        {
            "Name": "T1w and FLAIR of an archive",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "raw",
            "GeneratedBy": [{"Name": "dcm2niix"}],
        },
    )
    _write(root / "README", _README)
    rows = ["participant_id\tage\tsex"]
    for subject, listed in sorted(people.items()):
        listed.sort()
        first = listed[0][1]
        rows.append(f"{subject}\t{years(first.age)}\t{first.sex if first.sex in ('M', 'F', 'O') else 'n/a'}")
        own = ["session_id\tacq_time\tage"]
        own += [f"{session}\t{_when(one)}\t{years(one.age)}" for session, one in listed]
        _write(root / subject / f"{subject}_sessions.tsv", "\n".join(own) + "\n")
    _write(root / "participants.tsv", "\n".join(rows) + "\n")
    return root


def _when(one: Series) -> str:
    """Date and time as BIDS has them."""
    day, time = one.date, (one.time + "000000")[:6]
    if len(day) != 8 or not day.isdigit():
        return "n/a"
    clock = f"T{time[:2]}:{time[2:4]}:{time[4:]}" if time.isdigit() else "T00:00:00"
    return f"{day[:4]}-{day[4:6]}-{day[6:]}{clock}"


def _write(path: Path, text: str) -> None:
    """Only what is not there yet: several jobs of an array write the same."""
    if not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != text:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
