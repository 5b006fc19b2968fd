"""A few means of a fresh map, to see at a glance whether it is plausible."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..regions import build_regions
from ..volume import Volume
from .intervals import find
from .table import region_table

if TYPE_CHECKING:
    from ..preprocess import Prepared

#: Regions that are told, in this order; lesions are not looked for, so that "nawm" is all white matter away from
#: borders.
SHOWN = ("nawm", "grey_matter")


def sanity(
    psr: Volume, uncertainty: Volume | None, prepared: Prepared, provenance: Mapping[str, Any]
) -> dict[str, dict[str, float | None]]:
    """Mean PSR, a fraction, of white and grey matter, with the 90 % interval of each where the model is calibrated.

    Args:
        psr: the map.
        uncertainty: its standard deviation, on the same grid; None: no intervals.
        prepared: what the map was made from, with its brain mask.
        provenance: of the map; holds the calibration.

    Returns:
        ``mean``, ``low`` and ``high`` (None without calibration) by region; a region without voxels is left out.

    Raises:
        InputError: the T1w shows no white matter.
    """
    regions = build_regions(psr, prepared=prepared, suggest=False)
    intervals = find(provenance)[0] if uncertainty is not None else None
    rows = region_table(psr, regions, uncertainty, intervals=intervals)
    found = {row["region"]: row for row in rows if not row["lesion"] and row["voxels"] > row["missing"]}
    return {
        name: {"mean": found[name]["mean"], "low": found[name]["mean_ci90_low"], "high": found[name]["mean_ci90_high"]}
        for name in SHOWN
        if name in found
    }
