"""What changed between two visits of one patient: rows of two statistics tables in, rows of differences out.

Plain Python, no node: :mod:`..Run.Visits` makes a table of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..I18n import _
from ..Numbers import finite

#: Columns of the table of differences, with what they mean.
COLUMNS = {
    "region": _("key of the region; lesion for the row of each single lesion, too"),
    "lesion": _("number of the lesion at the later visit; 0 for whole regions and for lesions that are gone"),
    "lesion_before": _("number of the same lesion at the earlier visit; 0 for whole regions and for new lesions"),
    "name": _("for people"),
    "volume_ml_before": _("volume at the earlier visit, mL"),
    "volume_ml_after": _("volume at the later visit, mL"),
    "volume_change_ml": _("later minus earlier volume, mL"),
    "mean_before": _("mean PSR at the earlier visit"),
    "mean_after": _("mean PSR at the later visit"),
    "difference": _("later minus earlier mean PSR"),
    "difference_ci90_low": _(
        "lower end of the 90 % interval of the true difference, from the intervals of both means (Zou, Donner 2008), "
        "their errors taken for independent; what both visits get wrong alike makes it too wide, not too narrow"
    ),
    "difference_ci90_high": _("upper end of that interval"),
    "percent": _("difference in percent of the earlier mean; empty where that is below 0.005"),
    "beyond_error": _("yes: the interval does not hold 0; no: it does; empty without intervals"),
}
#: Lesions of two visits whose points lie farther apart than this (mm) are not the same one.
SAME_LESION_MM = 5.0
#: Below this (fraction) a mean has no percent.
_LEAST = 0.005

Point = Sequence[float]


def changes(
    before: Sequence[Mapping[str, Any]],
    after: Sequence[Mapping[str, Any]],
    same: Sequence[tuple[int, int]] | None = None,
) -> list[dict[str, Any]]:
    """One row per region that both visits have; with ``same``, then one per lesion, new and vanished ones included.

    Args:
        before, after: rows of the two statistics tables, see DEMISTCore.statistics.table.
        same: numbers of one lesion at both visits, see :func:`matched`; None: single lesions are not compared.

    Returns:
        Rows with the keys of :data:`COLUMNS`; what cannot be had is None.
    """
    whole = [{row["region"]: row for row in rows if not row.get("lesion")} for rows in (before, after)]
    found = [_row(whole[0][key], row, row["name"]) for key, row in whole[1].items() if key in whole[0]]
    if same is None:
        return found
    single = [{int(row["lesion"]): row for row in rows if row.get("lesion")} for rows in (before, after)]
    earlier = {later: first for first, later in same}
    for number, row in single[1].items():
        first = single[0].get(earlier.get(number, 0))
        found.append(_row(first, row, row["name"] if first else _("{name}, new").format(name=row["name"])))
    kept = {first for first, _later in same}
    for number, row in single[0].items():
        if number not in kept:
            found.append(_row(row, None, _("{name} of the earlier visit, gone").format(name=row["name"])))
    return found


def matched(before: Mapping[int, Point], after: Mapping[int, Point]) -> list[tuple[int, int]]:
    """Lesions that are the same at both visits: each the other's nearest, no farther than :data:`SAME_LESION_MM`.

    Args:
        before, after: a point of each lesion by its number, mm, in one space.
    """
    nearest = {i: min(after, key=lambda j: math.dist(before[i], after[j])) for i in before if after}
    back = {j: min(before, key=lambda i: math.dist(before[i], after[j])) for j in after if before}
    return [(i, j) for i, j in nearest.items() if back[j] == i and math.dist(before[i], after[j]) <= SAME_LESION_MM]


def interval(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[float, float] | None:
    """The 90 % interval of the difference of two means, each with an interval of its own; None where one has none.

    The distances from mean to interval end are combined as roots of sums of squares, each side by itself, so that
    intervals that are longer on one side stay so: G. Y. Zou, A. Donner, *Stat Med* 27:1693 (2008), for independent
    errors.
    """
    ends = [row.get(key) for row in (before, after) for key in ("mean", "mean_ci90_low", "mean_ci90_high")]
    if not all(finite(end) for end in ends):
        return None
    mean0, low0, high0, mean1, low1, high1 = (float(end) for end in ends)
    difference = mean1 - mean0
    down = math.hypot(max(mean1 - low1, 0.0), max(high0 - mean0, 0.0))
    up = math.hypot(max(high1 - mean1, 0.0), max(mean0 - low0, 0.0))
    return difference - down, difference + up


def _row(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    first, later = before or {}, after or {}
    row: dict[str, Any] = {
        "region": (after or first)["region"],
        "name": name,
        "lesion": int(later.get("lesion") or 0),
        "lesion_before": int(first.get("lesion") or 0),
        "volume_ml_before": first.get("volume_ml"),
        "volume_ml_after": later.get("volume_ml"),
        "volume_change_ml": None,
        "mean_before": first.get("mean"),
        "mean_after": later.get("mean"),
        "difference": None,
        "difference_ci90_low": None,
        "difference_ci90_high": None,
        "percent": None,
        "beyond_error": None,
    }
    if finite(row["volume_ml_before"]) and finite(row["volume_ml_after"]):
        row["volume_change_ml"] = row["volume_ml_after"] - row["volume_ml_before"]
    if finite(row["mean_before"]) and finite(row["mean_after"]):
        row["difference"] = row["mean_after"] - row["mean_before"]
        if abs(row["mean_before"]) >= _LEAST:
            row["percent"] = 100 * row["difference"] / row["mean_before"]
    ends = interval(first, later)
    if ends is not None:
        row["difference_ci90_low"], row["difference_ci90_high"] = ends
        row["beyond_error"] = _("yes") if ends[0] > 0 or ends[1] < 0 else _("no")
    return row
