"""PSR as people write it: as a fraction, or in percent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..I18n import _

FRACTION, PERCENT = "fraction", "percent"
#: Columns of the statistics table, and of that of differences, that hold PSR.
PSR_COLUMNS = (
    "mean",
    "mean_ci90_low",
    "mean_ci90_high",
    "sd",
    "median",
    "iqr",
    "p5",
    "p25",
    "p75",
    "p95",
    "min",
    "max",
    "uncertainty",
    "seed_sd",
    "mean_before",
    "mean_after",
    "difference",
    "difference_ci90_low",
    "difference_ci90_high",
)
_REGIONS = (("nawm", _("white matter")), ("grey_matter", _("grey matter")))


def choices() -> list[tuple[str, str, str]]:
    """Value, text and tooltip of each unit, for a combo box."""
    return [
        (FRACTION, _("Fraction (0.12)"), _("As the volume holds it.")),
        (PERCENT, _("Percent (12 %)"), _("The fraction times 100.")),
    ]


def written(value: float, unit: str, digits: int = 3) -> str:
    """A fraction in a unit: "0.118" or "11.8 %"."""
    return f"{100 * value:.{max(digits - 2, 0)}f} %" if unit == PERCENT else f"{value:.{digits}f}"


def sanityText(sanity: Mapping[str, Mapping[str, Any]], unit: str) -> str:
    """Means of a fresh map in one line: "PSR: white matter 0.118, 90 % interval 0.109-0.127; grey matter 0.061".

    Args:
        sanity: see :attr:`.Result.Result.sanity`; an interval is told where there is one.
        unit: of the numbers.
    """
    parts = []
    for key, name in _REGIONS:
        told = sanity.get(key)
        if not told or told.get("mean") is None:
            continue
        text = f"{name} {written(told['mean'], unit)}"
        if told.get("low") is not None and told.get("high") is not None:
            low, high = written(told["low"], unit), written(told["high"], unit)
            text += _(", 90 % interval {low}-{high}").format(low=low.removesuffix(" %"), high=high)
        parts.append(text)
    return _("PSR: {means}").format(means="; ".join(parts)) if parts else ""
