"""Studies as sessions: of each one the T1w and the FLAIR, with BIDS names whatever the archive calls them."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from ...errors import InputError
from ..session import Session
from ..table import label
from .series import OTHER, Series

#: Where the images are, from the folder of the results.
RAW = Path("sourcedata", "raw")


def sessions_of(
    found: Sequence[Series], out: Path, *, participants: Sequence[str] = (), sessions: Sequence[str] = ()
) -> list[Session]:
    """A session a study that has a T1w or a FLAIR, sorted by name; those that cannot be worked on say why.

    Args:
        found: all series, see :func:`.headers.read_archive`.
        out: folder of the results; the images will be in ``sourcedata/raw`` of it.
        participants, sessions: labels to keep; none: all.

    Raises:
        InputError: nothing is left.
    """
    studies = named_studies(found)
    listed = [_session(subject, session, series, out / RAW) for (subject, session), series in studies.items()]
    wanted = {one.removeprefix("sub-") for one in participants}
    kept = {one.removeprefix("ses-") for one in sessions}
    listed = [one for one in listed if not wanted or one.subject[4:] in wanted]
    listed = [one for one in listed if not kept or one.session[4:] in kept]
    if not listed:
        raise InputError("The archive holds no study of the participants and sessions asked for.")
    return sorted(_without_shared_names(listed, studies), key=lambda one: one.name)


def named_studies(found: Sequence[Series]) -> dict[tuple[str, str], list[Series]]:
    """Series by the BIDS names of their study: ``sub-`` and the letters and digits of the Patient ID, ``ses-`` and the
    date; with the time where a patient has two studies on one day."""
    studies = [list(group) for _, group in groupby(sorted(found, key=_of_study), key=_of_study)]
    days = Counter((series[0].patient, series[0].date) for series in studies)
    named: dict[tuple[str, str], list[Series]] = {}
    for series in studies:
        first = series[0]
        subject = label(first.patient) or f"unknown{_short(first.study)}"
        session = label(first.date) or f"undated{_short(first.study)}"
        if days[first.patient, first.date] > 1 and label(first.date):
            session += f"T{label(first.time)[:6]}" if label(first.time) else _short(first.study)
        key = (f"sub-{subject}", f"ses-{session}")
        while key in named:  # of other patients, or of the same minute
            key = (key[0], f"{key[1]}x{_short(first.study)}")
        named[key] = series
    return named


def _of_study(one: Series) -> tuple[str, str, str]:
    return one.patient, one.date, one.study


def _short(uid: str) -> str:
    return hashlib.sha256(uid.encode("utf-8", "replace")).hexdigest()[:6]


def _session(subject: str, session: str, series: Sequence[Series], root: Path) -> Session:
    name = f"{subject}_{session}"
    taken: dict[str, Series] = {}
    notes: list[str] = []
    for kind in ("T1w", "FLAIR"):
        own = sorted((one for one in series if one.kind == kind), key=lambda one: (one.rank, -one.number, one.uid))
        if own:
            taken[kind] = own[0]
        if len(own) > 1 and own[0].rank == own[1].rank:
            others = ", ".join(one.name for one in own[1:] if one.rank == own[0].rank)
            notes.append(f"Of {kind} series that are alike the last one, {own[0].name}, was taken, not {others}.")
    start = Session(subject, session, root=root, shown=series[0].patient or subject, notes=tuple(notes))
    missing = [kind for kind in ("T1w", "FLAIR") if kind not in taken]
    if missing:
        passed = [f"{one.name}: {one.why_not}" for one in series if one.why_not not in ("", OTHER)]
        why = f" Not taken: {'; '.join(passed[:5])}." if passed else ""
        lacks = f"The study has no {' and no '.join(missing)} that its headers tell"
        problem = f"{lacks}; give a table of paths instead.{why}"
        return replace(start, problem=problem, empty=len(missing) == 2)
    anat = root / subject / session / "anat"
    return replace(start, t1w=anat / f"{name}_T1w.nii.gz", flair=anat / f"{name}_FLAIR.nii.gz", series=taken)


def _without_shared_names(
    listed: Sequence[Session], studies: Mapping[tuple[str, str], Sequence[Series]]
) -> list[Session]:
    """Two patients whose numbers have the same letters and digits would become one person; both are refused."""
    patients: dict[str, set[str]] = {}
    for (subject, _), series in studies.items():
        patients.setdefault(subject.casefold(), set()).update(one.patient for one in series)
    result = []
    for one in listed:
        shared = sorted(patients[one.subject.casefold()])
        if len(shared) > 1:
            named = " and ".join(shared[:3])
            why = f"The patients {named} come to one name, {one.subject}; give a table of paths with names of your own."
            one = replace(one, problem=why, empty=False)
        result.append(one)
    return result


def years(age: str) -> str:
    """DICOM's age ("045Y", "018M") in years, or "n/a".

    >>> years("045Y"), years("018M"), years("")
    ('45', '1.5', 'n/a')
    """
    found = re.fullmatch(r"(\d+)([YMWD])", age.strip().upper())
    if found is None:
        return "n/a"
    return f"{int(found[1]) / {'Y': 1, 'M': 12, 'W': 52.18, 'D': 365.25}[found[2]]:g}"
