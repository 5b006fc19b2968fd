"""PSR of all sessions by region, as points, groups side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...regions import REGIONS
from .people import Person
from .tables import Measured, ordered

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_OTHER = "not known"


def figure(measured: Sequence[Measured], people: Mapping[str, Person]) -> Figure:
    """A point a session; a line at each group's median. Colors that color-blind people can tell apart."""
    from matplotlib.figure import Figure

    regions = ordered(measured)
    of = {one.name: (people[one.subject].group if one.subject in people else "") or _OTHER for one in measured}
    groups = sorted(set(of.values()), key=lambda name: (name == _OTHER, name))[: len(_COLORS)]
    chart = Figure(figsize=(max(5.0, 1.1 * len(regions) + 1.5), 4.2), layout="constrained")
    axes = chart.add_subplot()
    rng = np.random.default_rng(0)
    width = 0.8 / max(len(groups), 1)
    for g, (group, color) in enumerate(zip(groups, _COLORS)):
        for r, region in enumerate(regions):
            means = [one.mean(region) for one in measured if of[one.name] == group]
            values = np.array([mean for mean in means if mean is not None])
            if not values.size:
                continue
            centre = r - 0.4 + (g + 0.5) * width
            axes.scatter(
                centre + rng.uniform(-0.3, 0.3, values.size) * width,
                values,
                s=9,
                color=color,
                alpha=0.6,
                linewidths=0,
                label=group if r == 0 else None,
            )
            axes.hlines(np.median(values), centre - 0.4 * width, centre + 0.4 * width, color=color)
    axes.set_xticks(range(len(regions)), [REGIONS.get(region, region) for region in regions], rotation=25, ha="right")
    axes.set_ylabel("Mean PSR (fraction)")
    axes.set_ylim(bottom=0)
    if groups != [_OTHER]:
        axes.legend(frameon=False, fontsize=8)
    return chart
