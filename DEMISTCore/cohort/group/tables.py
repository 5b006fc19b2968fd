"""PSR by session and region as one table, long (a row a region) and wide (a row a session)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files import is_hidden
from ...regions import REGIONS
from ..records import read
from .people import Person, read_rows

#: Numbers of a region, as :data:`DEMISTCore.statistics.table.COLUMNS` has them.
NUMBERS = (
    "voxels",
    "missing",
    "volume_ml",
    "mean",
    "mean_ci90_low",
    "mean_ci90_high",
    "sd",
    "median",
    "p5",
    "p25",
    "p75",
    "p95",
    "uncertainty",
    "seed_sd",
)
WHO = ("subject", "session", "group", "age", "sex")
LONG = (*WHO, "region", "name", *NUMBERS)


@dataclass(frozen=True)
class Measured:
    """What one session has.

    Attributes:
        subject, session: BIDS names.
        regions: numbers by region; None for one that cannot be had.
        names: what each region is called, "suggested" included.
        lesions: how many there are; None where none were looked for.
        brain_ml: volume of the brain.
        warnings: sentences of the map's sidecar.
        page: its report, from the folder of the results.
    """

    subject: str
    session: str
    regions: Mapping[str, Mapping[str, float | None]]
    names: Mapping[str, str] = field(default_factory=dict)
    lesions: int | None = None
    brain_ml: float | None = None
    warnings: tuple[str, ...] = ()
    page: str = ""

    @property
    def name(self) -> str:
        """Such as ``sub-01_ses-02``."""
        return f"{self.subject}_{self.session}" if self.session else self.subject

    def mean(self, region: str) -> float | None:
        """Mean PSR of a region."""
        return self.regions.get(region, {}).get("mean")


def collect(out: Path) -> list[Measured]:
    """Every session whose tables are there, sorted by name.

    Raises:
        InputError: there is none, or a table cannot be read.
    """
    found = []
    for anat in sorted([*out.glob("sub-*/anat"), *out.glob("sub-*/ses-*/anat")]):
        for path in sorted(anat.glob("*_desc-demist_regions.tsv")):
            if not is_hidden(path):
                found.append(_measured(out, anat, path))
    if not found:
        raise InputError(f"{out} holds no tables of regions; run the level participant first.")
    return sorted(found, key=lambda one: one.name)


def _measured(out: Path, anat: Path, path: Path) -> Measured:
    parts = anat.relative_to(out).parts
    subject, session = parts[0], parts[1] if len(parts) > 2 else ""
    regions, names, lesions = {}, {}, 0
    for row in read_rows(path):
        if _is(row.get("lesion")):
            lesions += 1
            continue
        regions[row.get("region", "")] = {name: _number(row.get(name)) for name in NUMBERS}
        names[row.get("region", "")] = row.get("name", "")
    told = read(path.with_name(path.name.replace("_regions.tsv", "_PSRmap.json")))
    summary, said = told.get("summary"), told.get("warnings")
    volume = summary.get("brain_volume_ml") if isinstance(summary, dict) else None
    name = f"{subject}_{session}" if session else subject
    return Measured(
        subject,
        session,
        regions,
        names,
        lesions,
        _number(str(volume)),
        tuple(str(sentence) for sentence in said) if isinstance(said, list) else (),
        f"{subject}/{name}.html",
    )


def long_rows(measured: Iterable[Measured], people: Mapping[str, Person]) -> list[dict[str, Any]]:
    """A row a session and region, with the keys of :data:`LONG`."""
    return [
        {**_who(one, people), "region": region, "name": one.names.get(region, region), **numbers}
        for one in measured
        for region, numbers in one.regions.items()
    ]


def wide_rows(measured: Iterable[Measured], people: Mapping[str, Person]) -> tuple[list[dict[str, Any]], list[str]]:
    """A row a session, and its columns: who, brain, lesions, then mean and volume of every region."""
    measured = list(measured)
    regions = ordered(measured)
    columns = [
        *WHO,
        "warnings",
        "brain_volume_ml",
        "lesions",
        *(f"{region}_{what}" for region in regions for what in ("mean", "volume_ml")),
    ]
    rows = []
    for one in measured:
        row = {
            **_who(one, people),
            "warnings": len(one.warnings),
            "brain_volume_ml": one.brain_ml,
            "lesions": one.lesions,
        }
        for region in regions:
            row |= {f"{region}_{what}": one.regions.get(region, {}).get(what) for what in ("mean", "volume_ml")}
        rows.append(row)
    return rows, columns


def ordered(measured: Iterable[Measured]) -> list[str]:
    """All regions that occur, in the order of tables."""
    there = {region for one in measured for region in one.regions}
    return [*(region for region in REGIONS if region in there), *sorted(there - set(REGIONS))]


def _who(one: Measured, people: Mapping[str, Person]) -> dict[str, Any]:
    person = people.get(one.subject) or Person(one.subject)
    return {
        "subject": one.subject,
        "session": one.session or None,
        "group": person.group or None,
        "age": person.age_at(one.session),
        "sex": person.sex or None,
    }


def _is(text: str | None) -> bool:
    return (text or "").lower() not in ("", "n/a")


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
