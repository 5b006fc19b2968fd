"""Which files of a BIDS data set belong to a session, which were passed over, and why.

Raw images are in ``sub-*/[ses-*/]anat``; maps, masks and labels in ``derivatives/*/sub-*/[ses-*/]`` and its folders
(``anat``, ``qmt`` and others). What lies in a template's space, follows a contrast agent or counts other labels is not
taken, and every file that is not taken has its reason.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError
from ..labels import CSF, GREY, WHITE
from ..schema import read_json
from .maps import is_complete
from .names import Name, images, parse

#: What is looked for, by its name here: suffixes that it may have.
SUFFIXES = {
    "t1w": ("T1w",),
    "flair": ("FLAIR",),
    "psr": ("PSRmap", "PSR"),
    "mask": ("mask",),
    "dseg": ("dseg",),
    "lesion": ("mask", "roi"),
    "grey": ("probseg",),
    "white": ("probseg",),
    "reference": ("R1map", "T1map", "M0map", "S0map", "PDw", "T1w", "MTw"),
}
#: Without these a session has nothing to learn from.
NEEDED = ("t1w", "flair", "psr")
_RAW = ("t1w", "flair")
#: Why one of two candidates with nothing between them was not taken.
_EQUAL = "stands equal with the chosen one"
#: Folders of a pipeline whose images are in the qMT scan's place unless their names say otherwise.
_QMT_FOLDERS = ("qmt", "qMT", "sir", "mt")
_TITLES = {"t1w": "T1w", "flair": "FLAIR", "psr": "PSRmap"}
#: Tissue labels that are understood (:mod:`DEMISTCore.labels`), by what they may be called.
_TISSUE_NAMES = {
    CSF: ("csf", "cerebrospinal fluid", "fluid"),
    GREY: ("cortex", "gm", "grey matter", "gray matter", "cortical grey matter", "cortical gray matter"),
    WHITE: ("white matter", "wm"),
}


@dataclass(frozen=True)
class Rejected:
    """A file that was not taken, for what, and the reason."""

    path: Path
    what: str
    why: str


@dataclass
class Choice:
    """Files of one session.

    Attributes:
        subject, session: such as ``sub-01`` and ``ses-02`` ("" without sessions).
        files: chosen path by what it is, the keys of :data:`SUFFIXES`; only those there are.
        rejected: files passed over.
        missing: which of :data:`NEEDED` there are not.
        ambiguous: a sentence where files stand equal and a person must say which one it is.
        in_t1w_space: the PSR map says that it lies where the T1w does.
    """

    subject: str
    session: str
    files: dict[str, Path] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    ambiguous: str | None = None
    in_t1w_space: bool = False

    @property
    def name(self) -> str:
        """Such as ``sub-001_ses-01``."""
        return f"{self.subject}_{self.session}" if self.session else self.subject


def choose(bids: str | Path, filters: Mapping[str, Mapping[str, str]] | None = None) -> list[Choice]:
    """The files of every session of a data set, sorted by name.

    Args:
        bids: folder of the data set.
        filters: entities that a file must have, by what it is; see :func:`read_filters`.

    Raises:
        InputError: there is no such folder.
    """
    root = Path(bids)
    if not root.is_dir():
        raise InputError(f"There is no folder {root}; --data takes a BIDS data set.")
    found = [
        _choose_one(root, anat, dict(filters or {}))
        for anat in sorted([*root.glob("sub-*/anat"), *root.glob("sub-*/ses-*/anat")])
    ]
    return sorted(found, key=lambda choice: choice.name)


def choose_scans(
    subject: str, session: str, raw: Sequence[Name], filters: Mapping[str, Mapping[str, str]] | None = None
) -> Choice:
    """T1w and FLAIR alone, of the images of one session; two that stand equal are ambiguous.

    Args:
        subject, session: such as ``sub-01`` and ``ses-02`` ("" without sessions).
        raw: candidates.
        filters: see :func:`read_filters`.
    """
    choice = Choice(subject, session)
    for what in _RAW:
        _pick(choice, what, [name for name in raw if name.suffix in SUFFIXES[what]], (filters or {}).get(what, {}))
        equal = [one.path for one in choice.rejected if one.what == what and one.why == _EQUAL]
        if equal and choice.ambiguous is None:
            choice.ambiguous = (
                f"{choice.name} has more than one {_TITLES[what]} ({choice.files[what].name} and {equal[0].name}); "
                "remove one, or say which by its entities in a filter file (--bids-filter-file)"
            )
    choice.missing = [_TITLES[what] for what in _RAW if what not in choice.files]
    return choice


def choose_given(
    subject: str, session: str, derived: Sequence[Name], filters: Mapping[str, Mapping[str, str]] | None = None
) -> Choice:
    """Brain mask, lesion mask and tissue labels in the T1w's space, of the images of a pipeline for one session."""
    choice = Choice(subject, session)
    for what in ("mask", "lesion", "dseg"):
        candidates = [name for name in derived if name.suffix in SUFFIXES[what]]
        _pick(choice, what, candidates, (filters or {}).get(what, {}))
    return choice


def _choose_one(root: Path, anat: Path, filters: dict[str, Mapping[str, str]]) -> Choice:
    parts = anat.relative_to(root).parts[:-1]
    subject, session = parts[0], parts[1] if len(parts) > 1 else ""
    choice = Choice(subject, session)
    raw = images(anat)
    derived = list(_derived(root, subject, session))
    for what in SUFFIXES:
        if what == "reference":
            continue
        candidates = [name for name in (raw if what in _RAW else derived) if name.suffix in SUFFIXES[what]]
        _pick(choice, what, candidates, filters.get(what, {}))
    if "psr" in choice.files:
        psr = next(name for name in derived if name.path == choice.files["psr"])
        choice.in_t1w_space = psr.is_in_t1w_space
        _pick_reference(choice, psr, filters.get("reference", {}))
    choice.missing = [_TITLES[what] for what in NEEDED if what not in choice.files]
    return choice


def _derived(root: Path, subject: str, session: str) -> Iterable[Name]:
    """Images of all pipelines for a session, then those for the whole subject; the simulator's truth first."""
    for own in dict.fromkeys([f"{subject}/{session}".rstrip("/"), subject]):
        for folder in sorted(root.glob(f"derivatives/*/{own}"), key=lambda p: ("truth" not in p.parts, p)):
            inner = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(("ses-", ".")))
            for place in (*inner, folder):
                yield from images(place)


def _pick(choice: Choice, what: str, candidates: Sequence[Name], wanted: Mapping[str, str]) -> None:
    """Take the best candidate, and say of the others why not."""
    left: list[Name] = []
    for name in candidates:
        if not _is_meant(name, what):
            continue
        why = _filtered(name, wanted) or _REASONS[what](name)
        if why:
            choice.rejected.append(Rejected(name.path, what, why))
        else:
            left.append(name)
    if not left:
        return
    order = sorted(left, key=lambda name: _rank(name, what))
    best, others = order[0], order[1:]
    choice.files[what] = best.path
    equal = [name for name in others if _rank(name, what)[:-1] == _rank(best, what)[:-1]]
    if what == "psr" and equal and not wanted:
        choice.ambiguous = (
            f"{choice.name} has more than one PSR map ({best.path} and {equal[0].path}); remove one, or say which by "
            "its entities in a filter file (bids_filter=)"
        )
    for name in others:
        why = _EQUAL if name in equal else f"{best.path.name} comes first"
        choice.rejected.append(Rejected(name.path, what, why))


def _pick_reference(choice: Choice, psr: Name, wanted: Mapping[str, str]) -> None:
    """An anatomical image of the qMT session beside the map, by which it can be registered better than by itself."""
    for suffix in SUFFIXES["reference"]:
        for name in images(psr.path.parent):
            same = name["space"] == psr["space"] and name["run"] in (psr["run"], None)
            taken = name.path in choice.files.values()
            if name.suffix == suffix and same and not taken and _filtered(name, wanted) is None:
                choice.files["reference"] = name.path
                return


def _is_meant(name: Name, what: str) -> bool:
    """Whether a file is a candidate at all: masks of ventricles are no brain masks passed over."""
    label, desc = (name[key] or "" for key in ("label", "desc"))
    if what == "mask":
        return (desc == "brain" and not label) or label == "brain"
    if what == "lesion":
        return label.lower() in ("lesion", "lesions", "wml", "l") or desc.lower() in ("lesion", "lesions")
    if what in ("grey", "white"):
        return label == {"grey": "GM", "white": "WM"}[what]
    return True


#: Entities as PyBIDS, and with it the filter files of BIDS Apps, spell them out.
_LONG = {
    "subject": "sub",
    "session": "ses",
    "acquisition": "acq",
    "ceagent": "ce",
    "reconstruction": "rec",
    "description": "desc",
    "resolution": "res",
    "direction": "dir",
}


def read_filters(path: str | Path | None) -> dict[str, dict[str, str]]:
    """Filters from a JSON file as ``--bids-filter-file`` of BIDS Apps has it; none without a file.

    ``{"t1w": {"acquisition": "mprage"}, "psr": {"desc": "sir", "ceagent": null}}``: keys of :data:`SUFFIXES`, entities
    short or spelt out; null: must not have the entity. ``suffix`` and ``datatype`` are known and need not be said.

    Raises:
        InputError: it cannot be read, or names what is not looked for.
    """
    if path is None:
        return {}
    try:
        content = read_json(Path(path), 1 << 16)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"The filter file {path} cannot be read: {why}.") from error
    if not isinstance(content, dict) or not all(isinstance(wanted, dict) for wanted in content.values()):
        example = '{"t1w": {"acq": "mprage"}}'
        raise InputError(f"The filter file {path} should hold entities by image, such as {example}.")
    for what in content:
        if what not in SUFFIXES:
            raise InputError(f"The filter file {path} names {what!r}; there are {', '.join(SUFFIXES)}.")
    return {
        what: {
            _LONG.get(key, key): "" if value is None else str(value)
            for key, value in wanted.items()
            if key not in ("suffix", "datatype", "extension")
        }
        for what, wanted in content.items()
    }


def _filtered(name: Name, wanted: Mapping[str, str]) -> str | None:
    for key, value in wanted.items():
        if (name[key] or "") != str(value or ""):
            return f"the filter asks for {key}-{value}" if value else f"the filter asks for none of {key}-"
    return None


def _not_plain(name: Name) -> str | None:
    if name["ce"]:
        return f"after a contrast agent (ce-{name['ce']})"
    if name["part"] not in (None, "mag"):
        return f"part-{name['part']} is no magnitude image"
    if name["space"]:
        return f"in another space than it was scanned in (space-{name['space']})"
    return None


def _not_native(name: Name) -> str | None:
    return f"in a template's space (space-{name['space']})" if name.is_elsewhere else None


def _not_on_t1w(name: Name) -> str | None:
    if (why := _not_native(name)) is not None:
        return why
    if name.path.parent.name in _QMT_FOLDERS and not name.is_in_t1w_space:
        return "in the qMT scan's space, which is not the T1w's (its name has no space-T1w)"
    if name["space"] and not name.is_in_t1w_space:
        return f"not in the T1w's space (space-{name['space']})"
    return None


def _not_tissues(name: Name) -> str | None:
    why = _not_on_t1w(name)
    if why is None and not has_our_labels(name):
        why = "labels of another atlas: neither desc-tissue, nor a table beside it with 1 CSF, 2 cortex, 3 white matter"
    return why


_REASONS: dict[str, Callable[[Name], str | None]] = {
    "t1w": _not_plain,
    "flair": _not_plain,
    "psr": _not_native,
    "mask": _not_on_t1w,
    "dseg": _not_tissues,
    "lesion": _not_on_t1w,
    "grey": _not_on_t1w,
    "white": _not_on_t1w,
}


def has_our_labels(name: Name) -> bool:
    """Whether a segmentation counts tissues as here: by ``desc-tissue``, or by its look-up table (BIDS ``_dseg.tsv``).

    A table beside the image (same name, ``.tsv``), or for the whole pipeline (``desc-tissue_dseg.tsv``, ``dseg.tsv``).
    """
    if name["desc"] == "tissue":
        return True
    stem = name.path.name.split(".")[0]
    pipeline = next((p for p in name.path.parents if p.parent.name == "derivatives"), name.path.parent)
    for table in (name.path.with_name(f"{stem}.tsv"), pipeline / "dseg.tsv"):
        if name["desc"] and table.name == "dseg.tsv":
            continue
        try:
            rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines(), delimiter="\t"))
            names = {int(row["index"]): row["name"].strip().lower() for row in rows}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error):
            continue
        return all(names.get(index) in known for index, known in _TISSUE_NAMES.items())
    return False


def _rank(name: Name, what: str) -> tuple:
    """The smaller, the sooner taken; the last part only settles ties."""
    number = name["run"] or ""
    run = int(number) if number.isdigit() else 0
    if what in _RAW:
        # Plain ones before variants: what a name adds is what is special about an image.
        plain = (name["acq"] is not None, name["rec"] is not None, name["desc"] is not None)
        return (*plain, run, (name.path.suffix != ".gz", name.path.name))
    truth = not (is_complete(name.path) or "truth" in name.path.parts)
    return (truth, name["ses"] is None, not name.is_in_t1w_space, (run, name.path.suffix != ".gz", str(name.path)))


__all__ = [
    "NEEDED",
    "SUFFIXES",
    "Choice",
    "Name",
    "Rejected",
    "choose",
    "choose_given",
    "choose_scans",
    "has_our_labels",
    "parse",
    "read_filters",
]
