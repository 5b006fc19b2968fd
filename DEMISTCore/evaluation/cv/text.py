"""Numbers and tables as text, alike in every page of the experiment."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

MINUS = "−"
#: Where there is no p.
NO_P = "–"


def table_of(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(h.replace("|", "\\|") for h in header) + " |", "|---" * len(header) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(str(c).replace("|", "\\|") for c in row) + " |" for row in rows)])


def roc_table(table: pd.DataFrame) -> str:
    """What :func:`.pooled.table` says, in Markdown."""
    if not len(table):
        return "There are no lesions with white matter at these distances."
    return table_of(
        [
            "White matter",
            "Method",
            "Patients",
            "AUC",
            "AUC of the truth",
            "Difference",
            "DeLong, by patients",
            "p",
            "Bootstrap",
        ],
        (
            [
                row["against"],
                row["method"],
                str(row["patients"]),
                number(row["auc"], 3),
                number(row["truth_auc"], 3),
                signed(row["difference"], 3),
                interval(row["patients_low"], row["patients_high"], 3),
                p_value(row["patients_p"]),
                interval(row["bootstrap_low"], row["bootstrap_high"], 3),
            ]
            for _, row in table.iterrows()
        ),
    )


def number(value: float, digits: int) -> str:
    """A number, or a dash for none."""
    return f"{value:.{digits}f}".replace("-", MINUS) if value is not None and math.isfinite(value) else "–"


def signed(value: float, digits: int) -> str:
    """A number with its sign."""
    return f"{value:+.{digits}f}".replace("-", MINUS) if math.isfinite(value) else "–"


def interval(low: float, high: float, digits: int) -> str:
    """Both ends."""
    return f"{signed(low, digits)} to {signed(high, digits)}" if math.isfinite(low) and math.isfinite(high) else "–"


def plus_minus(mean: float, sd: float, digits: int, between: str) -> str:
    """Mean and SD; the mean alone where there is no SD."""
    if not math.isfinite(mean):
        return "–"
    return number(mean, digits) + (f"{between}{number(sd, digits)}" if math.isfinite(sd) else "")


def p_value(value: float) -> str:
    """A p as papers have it."""
    if not math.isfinite(value):
        return NO_P
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
