"""Look at a data set before hours are spent on it: what is taken, what is not, and what would spoil a model.

Scans are prepared as the training will prepare them, into the same cache, so nothing here is done twice.
"""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import write_json
from ..guards import protect_folder
from ..labels import LESION
from ..measured.choice import Choice, choose, read_filters
from . import data
from .groups import Settings
from .prepare import prepare_cohort

log = logging.getLogger(__name__)

PAGE, TABLE = "check.html", "check.json"
#: A person's mean PSR in tissue is within this factor of the cohort's median, or a person should look.
UNUSUAL = 1.5
_TISSUE = 0.4  # of normalized T1w and FLAIR, whose median in tissue is 0.5


@dataclass
class Finding:
    """What was found of one session.

    Attributes:
        choice: its files.
        errors: what would spoil a model, a sentence each; training stops at them.
        warnings: what a person should look at.
        facts: numbers: units, coverage, mask volume (mL), values, registration.
        entry: the prepared session, if it could be prepared.
    """

    choice: Choice
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    entry: data.PreparedSession | None = None

    @property
    def name(self) -> str:
        """Such as ``sub-001_ses-01``."""
        return self.choice.name

    @property
    def state(self) -> str:
        """ "left out", "error", "warning" or "good"."""
        if self.choice.missing:
            return "left out"
        return "error" if self.errors else "warning" if self.warnings else "good"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        choice = self.choice
        return {
            "session": self.name,
            "state": self.state,
            "missing": choice.missing,
            "files": {what: str(path) for what, path in choice.files.items()},
            "rejected": [{**asdict(one), "path": str(one.path)} for one in choice.rejected],
            "errors": self.errors,
            "warnings": self.warnings,
            **self.facts,
        }


@dataclass
class Report:
    """What was found of a data set.

    Attributes:
        root: its folder.
        findings: of each session.
        errors, warnings: of the data set as a whole.
        groups: sessions that can be used, by group of participants.tsv; empty without such a column.
    """

    root: Path
    findings: list[Finding]
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    groups: dict[str, int] = field(default_factory=dict)

    @property
    def usable(self) -> list[Finding]:
        """Sessions without errors that have all they need."""
        return [one for one in self.findings if one.state in ("good", "warning")]

    @property
    def all_errors(self) -> list[str]:
        """Every sentence that training would stop at."""
        return [*self.errors, *(f"{one.name}: {sentence}" for one in self.findings for sentence in one.errors)]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "data": self.root.name,
            "usable": len(self.usable),
            "errors": self.errors,
            "warnings": self.warnings,
            "groups": self.groups,
            "sessions": [one.to_dict() for one in self.findings],
        }


def check(root: str | Path, settings: Settings, cache: Path, out: Path | None = None) -> Report:
    """Look at every session of a data set.

    Args:
        root: BIDS data set.
        settings: of the training to come: preparation, ``bids_filter``, ``exclude_subjects``.
        cache: where prepared scans go, and are found.
        out: folder that gets check.html, with a picture a session, and check.json; None: nothing is written.

    Raises:
        InputError: there is no such folder, or ``out`` or ``cache`` cannot be written to.
    """
    from tqdm import tqdm

    if out is not None:
        protect_folder(out, (root,), "folder of the check")
    choices = choose(root, read_filters(settings.bids_filter))
    excluded = {data.subject_name(name) for name in settings.exclude_subjects}
    findings = [Finding(choice) for choice in choices if choice.subject not in excluded]
    report = Report(Path(root), findings)
    logger = logging.getLogger("DEMISTCore.training.prepare")
    level = logger.level
    logger.setLevel(logging.ERROR)  # what is told of each is in the findings
    try:
        for finding in tqdm(findings, desc="check", unit="session"):
            _look(finding, settings, cache)
    finally:
        logger.setLevel(level)
    _compare(report)
    _participants(report)
    if not any(not one.choice.missing for one in findings):
        why = f"{findings[0].name} lacks {' and '.join(findings[0].choice.missing)}" if findings else "no sub-*/anat"
        report.errors.append(
            f"{root} has no subject to train on ({why}); training needs T1w, FLAIR and a PSR map of each."
        )
    if out is not None:
        from .check_page import write_page

        write_json(out / TABLE, report.to_dict())
        write_page(report, out / PAGE)
    return report


def _look(finding: Finding, settings: Settings, cache: Path) -> None:
    choice = finding.choice
    if choice.ambiguous:
        finding.errors.append(f"{choice.ambiguous}.")
    if choice.missing:
        return
    try:
        [entry] = prepare_cohort([data.session_of(choice)], settings, cache, progress=False)
    except InputError as error:
        finding.errors.append(str(error).removeprefix(f"{finding.name}: "))
        return
    finding.entry = entry
    look_at(finding, entry)


def look_at(finding: Finding, entry: data.PreparedSession) -> None:
    """Facts, warnings and errors of a prepared session."""
    meta = entry.meta
    told = dict(meta.get("psr") or {})
    placed = told.get("registration") or {}
    finding.errors += placed.get("alarms", [])
    finding.warnings += [sentence for sentence in meta.get("warnings", []) if sentence not in finding.errors]
    x, labels = np.asarray(entry.x, np.float32), np.asarray(entry.labels)
    spacing = float(meta["settings"]["spacing"])
    inside = labels > 0
    known = inside & (np.asarray(entry.known) > 0)
    values = np.asarray(entry.y, np.float32)[known]
    tissue = known & (x > _TISSUE).all(0)
    finding.facts = {
        **told,
        "mask_ml": round(float(np.count_nonzero((x != 0).any(0))) * spacing**3 / 1000, 1),
        "psr_percentiles": {str(q): round(float(np.percentile(values, q)), 4) for q in (1, 50, 99)},
        "psr_tissue_mean": round(float(np.asarray(entry.y, np.float32)[tissue].mean()), 4) if tissue.any() else None,
        "lesion_ml": round(float(np.count_nonzero(labels == LESION)) * spacing**3 / 1000, 2),
        "segmented": bool((labels[inside] < data.UNLABELLED).any()),
    }


def _compare(report: Report) -> None:
    """What only shows beside the others: mixed units, and values of another order."""
    units = {one.name: one.facts["units"] for one in report.findings if one.facts.get("units")}
    kinds = Counter(units.values())
    if len(kinds) > 1:
        rare = kinds.most_common()[-1][0]
        names = [name for name, unit in units.items() if unit == rare]
        report.warnings.append(
            f"PSR is in {' and '.join(kinds)} mixed ({rare}: {', '.join(names[:5])}"
            f"{' ...' if len(names) > 5 else ''}); each was read in its own."
        )
    means = {one.name: one for one in report.findings if one.facts.get("psr_tissue_mean")}
    if len(means) >= 3:
        middle = float(np.median([one.facts["psr_tissue_mean"] for one in means.values()]))
        for one in means.values():
            ratio = one.facts["psr_tissue_mean"] / middle
            if not 1 / UNUSUAL < ratio < UNUSUAL:
                one.warnings.append(
                    f"{one.choice.files['psr']}: mean PSR in tissue is {ratio:.2f} times the data "
                    "set's median; check its units and its fit."
                )


def _participants(report: Report) -> None:
    """Usable sessions by group, and people of the table that are not there."""
    table = report.root / "participants.tsv"
    if not table.is_file():
        return
    try:
        rows = list(csv.DictReader(table.read_text(encoding="utf-8-sig").splitlines(), delimiter="\t"))
    except (OSError, ValueError, csv.Error) as error:
        report.warnings.append(f"{table} cannot be read ({getattr(error, 'strerror', None) or error}).")
        return
    column = next((name for name in ("group", "diagnosis", "dx") if rows and name in rows[0]), None)
    groups = {
        data.subject_name((row.get("participant_id") or "").strip()): (row.get(column) or "n/a") if column else ""
        for row in rows
    }
    there = {one.choice.subject for one in report.findings}
    usable = {one.choice.subject for one in report.usable}
    if column:
        report.groups = dict(Counter(groups.get(one.choice.subject, "n/a") for one in report.usable))
    absent = sorted(name for name in groups if name not in usable and name != "sub-")
    if absent:
        some = ", ".join(f"{name} (no scans)" if name not in there else name for name in absent[:8])
        report.warnings.append(
            f"{len(absent)} of the {len(groups)} people of participants.tsv have nothing to train "
            f"on: {some}{' ...' if len(absent) > 8 else ''}."
        )


def stop_at_alarms(entries: Sequence[data.PreparedSession], accept: bool) -> None:
    """Refuse sessions whose map does not lie on its scans, or belongs to somebody else.

    Args:
        entries: prepared sessions.
        accept: go on all the same (they have been told with the other warnings).

    Raises:
        InputError: there are some; the first is quoted.
    """
    found = [
        (entry.name, alarm)
        for entry in entries
        for alarm in ((entry.meta.get("psr") or {}).get("registration") or {}).get("alarms", ())
    ]
    if found and not accept:
        name, alarm = found[0]
        more = f" ({len(found) - 1} more like it)" if len(found) > 1 else ""
        raise InputError(
            f"{name}: {alarm.rstrip('.')}{more}; leave it out (exclude_subjects=), or set "
            "accept_alarms=true if you have looked."
        )


def summary(report: Report) -> str:
    """The report as lines of text."""
    lines = [f"{'session':<24}{'state':<10}{'units':<10}{'known':>7}{'NaN':>7}{'out':>7}{'moved':>8}{'fit':>6}"]
    for one in report.findings:
        facts = one.facts
        if facts:
            placed = facts.get("registration") or {}
            moved = f"{placed['moved_mm']:.1f} mm" if placed else "-"
            fit = f"{placed['fit']:.2f}" if placed.get("fit") is not None else "-"
            numbers = (
                f"{facts['units']:<10}{facts['coverage']:>7.0%}{facts['nan']:>7}"
                f"{facts['low'] + facts['high'] + facts['rim']:>7}{moved:>8}{fit:>6}"
            )
        else:
            numbers = f"lacks {' and '.join(one.choice.missing)}" if one.choice.missing else ""
        lines.append(f"{one.name:<24}{one.state:<10}{numbers}")
    for kind in ("errors", "warnings"):
        said: dict[str, list[str]] = {}
        for one in report.findings:
            for sentence in getattr(one, kind):
                said.setdefault(sentence, []).append(one.name)
        sentences = [
            *getattr(report, kind),
            *(
                f"{', '.join(names[:4])}{' ...' if len(names) > 4 else ''}: {sentence}"
                for sentence, names in said.items()
            ),
        ]
        lines += [f"{kind[:-1]}: {sentence}" for sentence in sentences]
    passed = sum(len(one.choice.rejected) for one in report.findings)
    lines.append(
        f"{len(report.usable)} of {len(report.findings)} sessions can be trained on; {passed} files were passed over."
    )
    if report.groups:
        lines.append("Groups: " + ", ".join(f"{name} {count}" for name, count in sorted(report.groups.items())) + ".")
    return "\n".join(lines)
