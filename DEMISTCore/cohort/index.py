"""Which sessions a BIDS data set holds, and which T1w and FLAIR of each: indexed by PyBIDS, chosen by our rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import InputError
from ..files import sha256
from ..measured.choice import Choice, choose_given, choose_scans
from ..measured.names import Name, images, parse
from .session import Session
from .sidecars import find_sidecars

#: Folders and files that are looked at: sub-*/[ses-*/]anat and what lies in it. A path is told from the data set's
#: root, with a slash before it or not. Nothing else is entered: neither derivatives nor links that lead in circles.
_PASSED_OVER = re.compile(r"^(?!/?(?:sub-[^/.][^/]*(?:/ses-[^/.][^/]*)?(?:/anat(?:/[^/.][^/]*)?)?)?$)")
_LABEL = re.compile(r"^[a-zA-Z0-9+]+$")
_SUFFIXES = {"t1w": "T1w", "flair": "FLAIR"}


def index_bids(
    root: str | Path,
    *,
    participants: Sequence[str] = (),
    sessions: Sequence[str] = (),
    filters: Mapping[str, Mapping[str, str]] | None = None,
    derivatives: Sequence[str | Path] = (),
) -> list[Session]:
    """Every session of a data set, sorted by name; those that cannot be worked on say why.

    Args:
        root: folder of the data set.
        participants, sessions: labels to keep, with or without ``sub-`` and ``ses-``; none: all.
        filters: entities that an image must have, see :func:`DEMISTCore.measured.choice.read_filters`.
        derivatives: derivative data sets with brain masks, lesion masks or tissue labels in the T1w's space.

    Raises:
        InputError: no such folder, PyBIDS is missing or cannot read the data set, or a label that nobody has.
    """
    root = Path(root).absolute()
    if not root.is_dir():
        raise InputError(f"There is no folder {root}; give a BIDS data set, or a table of paths (.csv, .tsv).")
    found = _names(root)
    wanted = {label.removeprefix("sub-") for label in participants}
    kept = {label.removeprefix("ses-") for label in sessions}
    given = [Path(folder).absolute() for folder in derivatives]
    by_person: dict[Path, list[Name]] = {}
    for name in found:
        by_person.setdefault(root / name.path.relative_to(root).parts[0], []).append(name)
    result: list[Session] = []
    for folder in _folders(root, "sub-"):
        label = folder.name.removeprefix("sub-")
        if wanted and label not in wanted:
            continue
        if not _LABEL.match(label):
            why = f"The folder {folder.name} is no BIDS name: after sub- come letters and digits only; rename it."
            result.append(Session(folder.name, shown=folder.name, root=root, problem=why))
            continue
        result += _person(root, folder, by_person.get(folder, []), kept, filters or {}, given)
    missing = sorted(wanted - {one.subject.removeprefix("sub-") for one in result})
    if missing:
        raise InputError(f"{root} has no participant {', '.join(missing[:5])}; check --participant-label.")
    if not result:
        raise InputError(f"{root} holds no sub-* folder with anat images to work on; give the root of a BIDS data set.")
    return sorted(result, key=lambda one: one.name)


def _names(root: Path) -> list[Name]:
    """Raw T1w and FLAIR images by their names, in PyBIDS' index."""
    try:
        from bids import BIDSLayout
        from bids.layout import BIDSLayoutIndexer
    except ImportError as error:
        raise InputError(
            'A BIDS data set is indexed by PyBIDS, which is not installed; pip install "demist[cohort]", or give a '
            "table of paths (.csv)."
        ) from error
    try:
        indexer = BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=[_PASSED_OVER])
        layout = BIDSLayout(root, validate=False, derivatives=False, indexer=indexer)
        files = layout.get(suffix=list(_SUFFIXES.values()), extension=[".nii", ".nii.gz"], return_type="filename")
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"PyBIDS cannot index {root}: {' '.join(str(error).split())}; fix that.") from error
    names = [parse(Path(path)) for path in sorted(files)]
    return [name for name in names if name is not None]


def _folders(root: Path, prefix: str) -> list[Path]:
    """Folders of that beginning; one that cannot be entered, or is a link, too: its session says so."""
    try:
        return sorted(p for p in root.iterdir() if p.name.startswith(prefix) and (p.is_dir() or p.is_symlink()))
    except OSError:
        return []


def _person(
    root: Path,
    folder: Path,
    names: Sequence[Name],
    kept: set[str],
    filters: Mapping[str, Mapping[str, str]],
    derivatives: Sequence[Path],
) -> list[Session]:
    inner = [path for path in _folders(folder, "ses-") if not kept or path.name.removeprefix("ses-") in kept]
    places = inner if inner or kept else [folder]
    if not kept and (folder / "anat").is_dir() and folder not in places:
        places = [folder, *places]
    result: list[Session] = []
    for place in places:
        label = "" if place == folder else place.name
        own = [name for name in names if name.path.parent == place / "anat"]
        result.append(_session(root, folder.name, label, place, own, filters, derivatives))
    if len(result) > 1:  # a person's sessions without any anatomical scan are left out, but not the person
        result = [one for one in result if not one.empty] or result[:1]
    return _without_twins(result)


def _session(
    root: Path,
    subject: str,
    label: str,
    place: Path,
    names: Sequence[Name],
    filters: Mapping[str, Mapping[str, str]],
    derivatives: Sequence[Path],
) -> Session:
    start = Session(subject, label, root=root, shown=subject)
    refused = _refusal(place)
    if refused:
        return replace(start, problem=refused)
    # As PyBIDS has it, the folder says who it is; a name that says otherwise was put there by mistake.
    strays = [n for n in names if n["sub"] != subject[4:] or (label and n["ses"] != label[4:])]
    choice = choose_scans(subject, label, [name for name in names if name not in strays], filters)
    files, notes = choice.files, [f"{r.path.name} was not taken as {r.what}: {r.why}." for r in choice.rejected]
    notes += [f"{n.path.name} was not taken: its name does not belong into {place.name}." for n in strays]
    given: dict[str, Path] = {}
    for folder in derivatives:
        own = folder / subject / label if label else folder / subject
        found = choose_given(subject, label, [*images(own / "anat"), *images(folder / subject / "anat")], filters)
        given = {**found.files, **given}
    return replace(
        start,
        t1w=files.get("t1w"),
        flair=files.get("flair"),
        brain_mask=given.get("mask"),
        lesions=given.get("lesion"),
        tissue=given.get("dseg"),
        problem=_problem(choice, notes),
        empty=not files and not choice.rejected and not strays,
        notes=tuple(notes),
        sidecars={_SUFFIXES[w]: find_sidecars(root, p) for w, p in files.items() if w in _SUFFIXES},
    )


def _problem(choice: Choice, notes: Iterable[str]) -> str:
    if choice.ambiguous:
        return f"{choice.ambiguous}."
    if not choice.missing:
        return ""
    why = " ".join(notes)
    words = f"{choice.name} has no {' and no '.join(choice.missing)}; add the image, or leave the session out."
    return f"{words} {why}".strip()


def _refusal(place: Path) -> str:
    """The sentence for a folder that cannot be looked into, else nothing."""
    for folder in (place, place / "anat"):
        try:
            if folder.exists() or folder.is_symlink():
                next(folder.iterdir(), None)
        except OSError as error:
            return f"{folder} cannot be read: {error.strerror or error}; check its permissions and links."
    return ""


def _without_twins(sessions: Sequence[Session]) -> list[Session]:
    """The same scan in two sessions of a person would show as no change over years; the later one is refused."""
    known: dict[tuple[int, str], Session] = {}
    result = []
    for one in sessions:
        if one.t1w is not None and not one.problem and len(sessions) > 1:
            try:
                size = one.t1w.stat().st_size
                alike = [
                    other
                    for other in sessions
                    if other is not one and other.t1w is not None and other.t1w.stat().st_size == size
                ]
                key = (size, sha256(one.t1w)) if alike else None
            except OSError:  # reading it will say what is wrong
                key = None
            if key is not None and key in known:
                other = known[key].name
                why = f"Its T1w {one.t1w} is the same file as that of {other}; remove one of the two sessions."
                one = replace(one, problem=why)
            elif key is not None:
                known[key] = one
        result.append(one)
    return result
