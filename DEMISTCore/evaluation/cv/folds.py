"""Who is trained on and who is tested on: folds by person, alike in diagnosis, and nobody on both sides."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...cohort.group.people import GROUP_COLUMNS, read_rows
from ...errors import InputError
from ...files import sha256
from ...training.data import subject_name

if TYPE_CHECKING:
    from ...training.data import Session

_MISSING = ("", "n/a", "na", "nan", "none")


@dataclass(frozen=True)
class Fold:
    """One split; ``number`` counts from 1, names are those of subjects (``sub-01``), sorted."""

    number: int
    train: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def folder(self) -> str:
        """Of its trainings and results, below that of the experiment."""
        return fold_folder(self.number)


def fold_folder(number: int) -> str:
    """Name of the folder of a fold, for those who know but its number."""
    return f"fold-{number}"


def make_folds(
    sessions: Sequence[Session], count: int, strata: Mapping[str, str] | None = None, seed: int = 0
) -> list[Fold]:
    """Folds by subject, repeat scans together; with ``strata`` every fold has about the same share of each.

    Args:
        sessions: of the data set; a subject with many weighs more when folds are balanced.
        count: of folds.
        strata: class of each subject, such as a diagnosis.
        seed: of the order in which subjects are dealt out.

    Raises:
        InputError: fewer subjects than folds, or fewer than two folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    people = sorted({s.subject for s in sessions})
    if count < 2:
        raise InputError(f"Cross-validation takes 2 folds or more, not {count}.")
    if len(people) < count:
        raise InputError(f"The data set has {len(people)} subjects, fewer than {count} folds; use fewer folds.")
    names = [s.subject for s in sessions]
    classes = [(strata or {}).get(name, "") for name in names]
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    sides = [{names[i] for i in test} for _, test in splitter.split(np.zeros(len(names)), classes, names)]
    # With many scans of few people the balance may leave a fold without anybody; one moves over from the largest.
    for side in sides:
        if not side:
            largest = max(sides, key=lambda s: (len(s), sorted(s)))
            moved = max(largest)
            largest.remove(moved)
            side.add(moved)
    return _folds(people, sides)


def read_folds(path: str | Path, sessions: Sequence[Session]) -> list[Fold]:
    """Folds from a table (CSV or TSV) with the columns ``participant_id`` (or ``subject``) and ``fold``.

    Raises:
        InputError: it cannot be read, a column is missing, a subject is in two folds or in none, or is not there.
    """
    rows = read_rows(Path(path))
    header = list(rows[0]) if rows else []
    key = next((name for name in ("participant_id", "subject") if name in header), None)
    if key is None or "fold" not in header:
        raise InputError(f"{path} needs the columns participant_id and fold.")
    people = sorted({s.subject for s in sessions})
    placed: dict[str, str] = {}
    for row in rows:
        name = subject_name(row[key])
        if placed.setdefault(name, row["fold"]) != row["fold"]:
            raise InputError(f"{path} puts {name} into the folds {placed[name]} and {row['fold']}; leave it in one.")
    strange, left = sorted(set(placed) - set(people)), sorted(set(people) - set(placed))
    if strange:
        raise InputError(f"{path} names {strange[0]}, whom the data set does not have (with T1w, FLAIR and PSR).")
    if left:
        raise InputError(f"{path} puts {left[0]} into no fold; add a row.")
    labels = sorted(set(placed.values()), key=lambda label: (len(label), label))
    if len(labels) < 2:
        raise InputError(f"{path} has one fold only; cross-validation takes 2 or more.")
    return _folds(people, [{name for name in people if placed[name] == label} for label in labels])


def _folds(people: Sequence[str], sides: Sequence[set[str]]) -> list[Fold]:
    return [
        Fold(i, tuple(name for name in people if name not in side), tuple(sorted(side)))
        for i, side in enumerate(sides, 1)
    ]


def find_strata(
    data: str | Path, sessions: Sequence[Session], folds: int, column: str | None
) -> tuple[dict[str, str], str | None, list[str]]:
    """Class of each subject by a column of ``participants.tsv``, the column's name, and sentences on what is not known.

    ``column`` None: the first of :data:`DEMISTCore.cohort.group.people.GROUP_COLUMNS` that can serve; without one, no
    classes.

    Raises:
        InputError: the column that was asked for is not there, is empty for somebody, has one class only, or has a
            class with fewer people than there are folds.
    """
    path = Path(data) / "participants.tsv"
    people = sorted({s.subject for s in sessions})
    if not path.is_file():
        if column is not None:
            raise InputError(f"{path} is not there, and --stratify {column} reads it; add it, or leave --stratify out.")
        return {}, None, ["Folds are not stratified: the data set has no participants.tsv."]
    rows = {subject_name(row.get("participant_id", "")): row for row in read_rows(path)}
    header = list(next(iter(rows.values()))) if rows else []
    if column is not None and column.lower() not in header:
        raise InputError(f"{path} has no column {column}; there are {', '.join(header)}.")
    candidates = [column.lower()] if column else [name for name in GROUP_COLUMNS if name in header]
    notes = []
    for name in candidates:
        classes = {who: rows[who].get(name, "") for who in people if who in rows}
        why = _unfit(path, name, people, classes, folds)
        if why is None:
            return classes, name, []
        if column is not None:
            raise InputError(why)
        notes.append(f"Folds are not stratified by {name}: {why}")
    return {}, None, notes or [f"Folds are not stratified: {path.name} has none of {', '.join(GROUP_COLUMNS)}."]


def _unfit(path: Path, column: str, people: Sequence[str], classes: Mapping[str, str], folds: int) -> str | None:
    """Why a column cannot be stratified by; None: it can."""
    empty = [who for who in people if classes.get(who, "").lower() in _MISSING]
    if empty:
        return f"{path} says nothing of {empty[0]} in the column {column}; fill it in, or choose another column."
    counts = Counter(classes.values())
    if len(counts) < 2:
        return f"{path} has one class only in the column {column} ({next(iter(counts))}); choose another column."
    name, least = min(counts.items(), key=lambda item: (item[1], item[0]))
    if least < folds:
        return (
            f"{path} has {least} subjects of class {name} in the column {column}, fewer than {folds} folds; use "
            "fewer folds or another column."
        )
    return None


def check_apart(folds: Sequence[Fold], sessions: Sequence[Session]) -> None:
    """Nobody is trained on and tested on, by name or by the very same image under two names.

    Raises:
        InputError: somebody is; the sentence says who.
    """
    content: dict[str, tuple[str, Path]] = {}
    twins: list[tuple[str, Path, str, Path]] = []
    for session in sessions:
        for path in (session.t1w, session.flair, session.psr):
            other, there = content.setdefault(sha256(path), (session.subject, path))
            if other != session.subject:
                twins.append((other, there, session.subject, path))
    for fold in folds:
        train, test = set(fold.train), set(fold.test)
        if both := sorted(train & test):
            raise InputError(f"{both[0]} is trained on and tested on in fold {fold.number}; put it into one fold only.")
        for a, first, b, second in twins:
            if (a in train and b in test) or (b in train and a in test):
                raise InputError(
                    f"{first} and {second} are the same image, and {a} and {b} would be trained on and "
                    f"tested on in fold {fold.number}; give them one name or leave one out."
                )


def fold_rows(folds: Sequence[Fold], sessions: Sequence[Session], strata: Mapping[str, str]) -> list[dict[str, object]]:
    """The table of subjects: one row each, with the fold that tests them, class and number of scans."""
    scans = Counter(s.subject for s in sessions)
    tested = {name: fold.number for fold in folds for name in fold.test}
    return [
        {"subject": name, "fold": tested[name], "class": strata.get(name, ""), "scans": scans[name]}
        for name in sorted(tested)
    ]


def fold_summary(
    folds: Sequence[Fold], sessions: Sequence[Session], strata: Mapping[str, str]
) -> list[dict[str, object]]:
    """One row a fold: subjects and scans of either side, and tested subjects of each class."""
    scans = Counter(s.subject for s in sessions)
    classes = sorted(set(strata.values()))
    return [
        {
            "fold": fold.number,
            "training_subjects": len(fold.train),
            "training_scans": sum(scans[n] for n in fold.train),
            "test_subjects": len(fold.test),
            "test_scans": sum(scans[n] for n in fold.test),
            **{f"test_{name}": sum(strata.get(n) == name for n in fold.test) for name in classes},
        }
        for fold in folds
    ]


def digest(folds: Sequence[Fold]) -> str:
    """A hash that two equal lists of folds share."""
    return hashlib.sha256(repr([(f.number, f.train, f.test) for f in folds]).encode()).hexdigest()[:16]
