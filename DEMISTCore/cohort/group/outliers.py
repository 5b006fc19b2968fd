"""What stands out: sessions whose numbers are far from everybody else's, the farthest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .tables import Measured, ordered

#: Columns of the ranking, and what they mean.
COLUMNS = {
    "subject": "whose",
    "session": "which session",
    "distance": "the largest of its distances from the median, in robust standard deviations (1.4826 MAD)",
    "by": "what is that far",
    "value": "its value",
    "median": "of all sessions",
    "warnings": "sentences of its preparation; read its report",
}
#: Farther than this is worth a look: one of 700 of a normal distribution is.
FAR = 3.2
#: Fewer sessions have no median worth the name.
_LEAST = 5


def rank(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Every session, the farthest from the others first; empty for too few sessions.

    Looked at are the mean PSR of each region (not of lesions, which differ by nature) and the volume of the brain.
    """
    if len(measured) < _LEAST:
        return []
    numbers = {"brain_volume_ml": [one.brain_ml for one in measured]}
    for region in ordered(measured):
        if region not in ("lesion", "black_hole"):
            numbers[f"{region}_mean"] = [one.mean(region) for one in measured]
    best: list[dict[str, Any]] = [
        {
            "subject": one.subject,
            "session": one.session or None,
            "distance": 0.0,
            "by": None,
            "value": None,
            "median": None,
            "warnings": len(one.warnings),
        }
        for one in measured
    ]
    for name, listed in numbers.items():
        values = np.array([np.nan if value is None else value for value in listed], float)
        if np.isfinite(values).sum() < _LEAST:
            continue
        middle = float(np.nanmedian(values))
        deviation = 1.4826 * float(np.nanmedian(np.abs(values - middle)))
        if deviation <= 0:
            continue
        for row, value in zip(best, values):
            away = abs(value - middle) / deviation
            if np.isfinite(away) and away > row["distance"]:
                row |= {"distance": float(away), "by": name, "value": float(value), "median": middle}
    return sorted(best, key=lambda row: (-row["distance"], -row["warnings"], row["subject"], row["session"] or ""))
