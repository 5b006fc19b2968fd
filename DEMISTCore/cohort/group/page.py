"""The report of a cohort: what failed and what stands out first, then groups and change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...regions import REGIONS
from ..page import head, link, number, table, text
from ..status import Status
from .change import NOTE
from .outliers import FAR
from .tables import Measured

#: Rows of the ranking that are shown; all are in the table.
_SHOWN = 25


def group_page(
    measured: Sequence[Measured],
    statuses: Sequence[Status],
    outliers: Sequence[Mapping[str, Any]],
    comparison: Sequence[Mapping[str, Any]],
    mean_changes: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
    statement: str,
) -> str:
    """The page's text; it lies in ``group/`` beside its picture and tables.

    Args:
        measured: sessions with tables.
        statuses: how all sessions went.
        outliers: the ranking, the farthest first.
        comparison: patients against controls.
        mean_changes: of groups.
        notes: sentences on what is not known or could not be done.
        statement: what belongs below every output.
    """
    pages = {one.name: one.page for one in measured}
    shown = {one.name: one.shown or one.subject for one in statuses}
    parts = [head(f"PSR of {len(measured)} sessions"), f'<p class="warning"><b>{text(statement)}</b></p>']
    parts += [f'<p class="warning">{text(sentence)}</p>' for sentence in notes]
    failed = [one for one in statuses if one.state not in ("done", "skipped")]
    if failed:
        rows = [(shown[one.name], one.session, one.state, one.stage, one.message) for one in failed]
        parts += [
            f'<section><h2 class="error">Not done: {len(failed)}</h2>',
            table(("Who", "Session", "State", "Stage", "Why"), rows),
            "</section>",
        ]
    parts += ["<section><h2>What stands out</h2>", _outliers(outliers, pages, shown), "</section>"]
    parts.append(
        '<section><h2>PSR by region</h2><img alt="PSR of all sessions by region" src="psr_by_region.png"></section>'
    )
    parts += ["<section><h2>Patients against controls</h2>", _comparison(comparison), "</section>"]
    parts += ["<section><h2>Change</h2>", _changes(mean_changes), "</section>"]
    parts.append(
        "<footer>Tables: psr_long.tsv, psr_wide.tsv, outliers.tsv, comparison.tsv, change.tsv, "
        "mean_change.tsv; columns are explained in group.json.</footer></html>"
    )
    return "\n".join(parts) + "\n"


def _outliers(rows: Sequence[Mapping[str, Any]], pages: Mapping[str, str], shown: Mapping[str, str]) -> str:
    if not rows:
        return "<p>Too few sessions to tell what stands out.</p>"
    far = sum(row["distance"] > FAR for row in rows)
    lines = [
        f"<p>{far} of {len(rows)} sessions are farther than {FAR:g} robust standard deviations from the median in "
        "one of their numbers; look at their reports first.</p><table><tr><th>Report<th>Session<th>Distance<th>"
        "By<th>Value<th>Median<th>Warnings"
    ]
    for row in rows[:_SHOWN]:
        name = f"{row['subject']}_{row['session']}" if row["session"] else row["subject"]
        who = f'<a href="{link("../" + pages.get(name, ""))}">{text(shown.get(name, row["subject"]))}</a>'
        cells = (
            row["session"] or "",
            number(row["distance"], 1),
            row["by"] or "",
            number(row["value"]),
            number(row["median"]),
            row["warnings"],
        )
        kind = ' class="warning"' if row["distance"] > FAR else ""
        lines.append(f"<tr{kind}><td>{who}" + "".join(f"<td>{text(cell)}" for cell in cells))
    return "".join(lines) + "</table>"


def _comparison(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "<p>Not compared; why, is said above.</p>"
    header = (
        "Region",
        "Patients",
        "Controls",
        "Patients' mean",
        "Controls' mean",
        "Difference",
        "95 % interval",
        "p",
        "p (FDR)",
        "Covariates",
    )
    return table(
        header,
        [
            (
                REGIONS.get(row["region"], row["region"]),
                row["patients"],
                row["controls"],
                number(row["patients_mean"]),
                number(row["controls_mean"]),
                number(row["difference"]),
                f"{number(row['ci95_low'])} to {number(row['ci95_high'])}",
                f"{row['p']:.2g}",
                f"{row['p_fdr']:.2g}",
                row["covariates"] or "none",
            )
            for row in rows
        ],
    )


def _changes(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "<p>No two people have two sessions.</p>"
    header = ("Group", "Region", "People", "Mean change", "95 % interval", "SD")
    listed = [
        (
            row["group"] or "all",
            REGIONS.get(row["region"], row["region"]),
            row["people"],
            number(row["mean"]) + (" a year" if row["what"] == "per_year" else ""),
            f"{number(row['ci95_low'])} to {number(row['ci95_high'])}",
            number(row["sd"]),
        )
        for row in rows
    ]
    return f"{table(header, listed)}<p>{text(NOTE)}</p>"
