"""The level "group" of the BIDS App: from the tables of all sessions to ``group/``, all of it written or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ... import __version__
from ...commit import staging
from ...errors import InputError
from ...files import write_json
from ...preview import save_figure
from ...statistics import write_table
from ...statistics.checks import RESEARCH_USE
from ...statistics.table import COLUMNS as REGION_COLUMNS
from .. import records, status
from . import change, compare, outliers, people, tables
from .figure import figure
from .page import group_page


@dataclass(frozen=True)
class Group:
    """What came of it.

    Attributes:
        sessions, persons: how many.
        notes: sentences on what is not known or could not be done.
        files: what was written, by name.
    """

    sessions: int
    persons: int
    notes: tuple[str, ...]
    files: dict[str, Path]


def run_group(
    out: Path,
    source: Path,
    *,
    participants: Path | None = None,
    column: str | None = None,
    controls: Sequence[str] = (),
) -> Group:
    """Tables, comparisons, change, outliers and a report of all sessions whose tables are in ``out``.

    Args:
        out: folder of the results.
        source: BIDS data set, or table of paths: where group, age, sex and dates are.
        participants, column, controls: see :func:`.people.read_people`.

    Raises:
        InputError: there are no tables, a table of people cannot be read, or the results cannot be written.
    """
    measured = tables.collect(out)
    known, notes = people.read_people(source, participants, column, controls)
    statuses = status.load_all(out)
    undone = {one.name for one in statuses if one.state != "done"}
    stale = [one.name for one in measured if one.name in undone]
    measured = [one for one in measured if one.name not in undone]
    if stale:  # tables of an earlier run: inputs or settings are others now
        notes.append(f"{len(stale)} sessions have tables but are not done, and were left out: {', '.join(stale[:5])}.")
    if not measured:
        raise InputError(f"No session in {out} is done; see status.tsv, and run the level participant again.")
    if any("suggested" in name for one in measured for name in one.names.values()):
        notes.append("Lesions of some sessions are suggestions that no person has checked.")
    models = {str(_model(out, one)) for one in measured}
    if len(models) > 1:
        notes.append("Not all maps were made by the same model; run the level participant again before comparing.")
    compared, said = compare.compare(measured, known)
    notes += said
    changed = change.changes(measured, known)
    means = change.mean_changes(changed)
    ranked = outliers.rank(measured)
    wide, wide_columns = tables.wide_rows(measured, known)
    listed = {
        "psr_long.tsv": (tables.long_rows(measured, known), tables.LONG),
        "psr_wide.tsv": (wide, wide_columns),
        "comparison.tsv": (compared, tuple(compare.COLUMNS)),
        "change.tsv": (changed, tuple(change.COLUMNS)),
        "mean_change.tsv": (means, tuple(change.MEAN_COLUMNS)),
        "outliers.tsv": (ranked, tuple(outliers.COLUMNS)),
    }
    folder = out / "group"
    with staging(folder) as (hidden,):
        for name, (rows, columns) in listed.items():
            write_table(hidden / name, rows, columns)
        save_figure(figure(measured, known), hidden / "psr_by_region.png")
        statement = _statement(out, measured)
        page = group_page(measured, statuses, ranked, compared, means, notes, statement)
        (hidden / "index.html").write_text(page, encoding="utf-8", errors="backslashreplace")
        write_json(
            hidden / "group.json",
            {
                "software": {"name": "DEMIST", "version": __version__},
                "statement": statement,
                "sessions": len(measured),
                "persons": len({one.subject for one in measured}),
                "groups": people.known(known.values()),
                "notes": notes,
                "change": change.NOTE,
                "columns": {
                    "psr_long.tsv": {name: REGION_COLUMNS.get(name, "") for name in tables.NUMBERS},
                    "comparison.tsv": compare.COLUMNS,
                    "change.tsv": change.COLUMNS,
                    "mean_change.tsv": change.MEAN_COLUMNS,
                    "outliers.tsv": outliers.COLUMNS,
                },
            },
        )
        names = sorted(path.name for path in hidden.iterdir())
    return Group(
        len(measured), len({one.subject for one in measured}), tuple(notes), {name: folder / name for name in names}
    )


def _sidecar(out: Path, one: tables.Measured) -> dict:
    return records.read(out / one.subject / one.session / "anat" / f"{one.name}_desc-demist_PSRmap.json")


def _model(out: Path, one: tables.Measured) -> str | None:
    told = _sidecar(out, one).get("bundle")
    return told.get("hash") if isinstance(told, dict) else None


def _statement(out: Path, measured: Sequence[tables.Measured]) -> str:
    """The model's own sentence, of the first map."""
    said = _sidecar(out, measured[0]).get("statement")
    return f"{said} Research use only." if isinstance(said, str) else RESEARCH_USE
