"""Change over time: each person's first session against the last, with an interval, and the mean of a group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .people import Person
from .tables import Measured, ordered

#: Columns of the change of each person.
COLUMNS = {
    "subject": "whose",
    "group": "as the table of people calls it",
    "region": "key of the region",
    "first": "first session",
    "last": "last session",
    "years": "between them, by dates (acq_time) or by ages; n/a if neither is known",
    "first_mean": "mean PSR then",
    "last_mean": "mean PSR at last",
    "change": "last minus first",
    "ci90_low": "lower end of the 90 % interval of the true change, from the calibrated intervals of both means; n/a "
    "without a calibration",
    "ci90_high": "upper end",
    "per_year": "change by years",
    "per_year_ci90_low": "lower end by years",
    "per_year_ci90_high": "upper end by years",
}
#: Columns of the mean change of a group.
MEAN_COLUMNS = {
    "group": "n/a: all people",
    "region": "key of the region",
    "people": "with two sessions that have the region",
    "what": "per_year where all people's years are known, else change",
    "mean": "mean over people",
    "sd": "over people (n - 1)",
    "ci95_low": "lower end of the 95 % interval of the mean over people (Student's t)",
    "ci95_high": "upper end",
}

NOTE = (
    "Intervals of a person's change take the errors of both sessions as independent (Zou and Donner, Statistics in "
    "Medicine 27:1693, 2008). What a model gets wrong in the same way both times cancels, so they are rather too wide; "
    "a change of scanner or protocol between the sessions is in no interval."
)


def changes(measured: Sequence[Measured], people: Mapping[str, Person]) -> list[dict[str, Any]]:
    """A row a person (of two sessions or more) and region, with the keys of :data:`COLUMNS`."""
    rows = []
    for subject in sorted({one.subject for one in measured}):
        own = [one for one in measured if one.subject == subject]
        if len(own) < 2:
            continue
        person = people.get(subject) or Person(subject)
        own.sort(key=lambda one: (person.dates.get(one.session) is None, str(person.dates.get(one.session)), one.name))
        first, last = own[0], own[-1]
        years = person.years(first.session, last.session)
        for region in ordered(own):
            row = _change(first.regions.get(region, {}), last.regions.get(region, {}))
            if row is None:
                continue
            row |= {
                "subject": subject,
                "group": person.group or None,
                "region": region,
                "years": years,
                "first": first.session,
                "last": last.session,
            }
            if years:
                names = {"change": "per_year", "ci90_low": "per_year_ci90_low", "ci90_high": "per_year_ci90_high"}
                row |= {new: None if row[old] is None else row[old] / years for old, new in names.items()}
            rows.append(row)
    return rows


def _change(first: Mapping[str, float | None], last: Mapping[str, float | None]) -> dict[str, Any] | None:
    a, b = first.get("mean"), last.get("mean")
    if a is None or b is None:
        return None
    row: dict[str, Any] = {"first_mean": a, "last_mean": b, "change": b - a, "ci90_low": None, "ci90_high": None}
    given = [told.get(f"mean_ci90_{end}") for told in (first, last) for end in ("low", "high")]
    ends = [end for end in given if end is not None]
    if len(ends) == 4:
        a_low, a_high, b_low, b_high = ends
        row["ci90_low"] = b - a - math.hypot(b - b_low, a_high - a)
        row["ci90_high"] = b - a + math.hypot(b_high - b, a - a_low)
    return row


def mean_changes(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The mean change of everybody and of each group, with the keys of :data:`MEAN_COLUMNS`."""
    from scipy.stats import t

    groups = [None, *sorted({row["group"] for row in rows if row["group"]})]
    regions = list(dict.fromkeys(row["region"] for row in rows))
    result = []
    for group in groups:
        for region in regions:
            own = [row for row in rows if row["region"] == region and group in (None, row["group"])]
            what = "per_year" if own and all(row.get("per_year") is not None for row in own) else "change"
            values = np.array([row[what] for row in own], float)
            if values.size < 2:
                continue
            half = t.ppf(0.975, values.size - 1) * values.std(ddof=1) / math.sqrt(values.size)
            result.append(
                {
                    "group": group,
                    "region": region,
                    "people": values.size,
                    "what": what,
                    "mean": float(values.mean()),
                    "sd": float(values.std(ddof=1)),
                    "ci95_low": float(values.mean() - half),
                    "ci95_high": float(values.mean() + half),
                }
            )
    return result
