"""The section Follow-up: two visits of one patient, and what changed between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..I18n import _
from ..Run.Visits import STATISTICS, VisitsResult
from ..RunError import RunError


class FollowUpPanel:
    """Compares the statistics tables of two visits.

    Args:
        ui: the panel's widgets: ``earlierSelector``, ``laterSelector``, ``registeredCheckBox``, ``compareButton``,
            ``followUpLabel``.
        parameters: gives the parameter node wrapper, or None.
        compare: as :meth:`.Logic.DEMISTSlicerLogic.compareVisits`.
        report: shows a sentence about what went wrong.
        onCompared: called with the result.
    """

    def __init__(
        self,
        ui: Any,
        parameters: Callable[[], Any],
        compare: Callable[..., VisitsResult],
        report: Callable[[str], object],
        onCompared: Callable[[VisitsResult], object],
    ) -> None:
        self.ui = ui
        self._parameters, self._compare, self._report, self._onCompared = parameters, compare, report, onCompared
        ui.compareButton.connect("clicked()", self.compare)

    def disconnect(self) -> None:
        """Hear no more of the widgets."""
        self.ui.compareButton.disconnect("clicked()", self.compare)

    def update(self) -> None:
        """What can be pressed, and why not."""
        parameters = self._parameters()
        tables = (parameters.earlierTable, parameters.laterTable) if parameters else (None, None)
        ready = all(_isStatistics(node) for node in tables) and tables[0] is not tables[1]
        self.ui.compareButton.enabled = ready
        self.ui.compareButton.toolTip = (
            _("Later minus earlier, by region, with intervals.")
            if ready
            else _("Choose the statistics tables of two visits: synthesize and measure each of them first.")
        )

    def compare(self) -> None:
        """Make the table of differences and show it."""
        parameters = self._parameters()
        if parameters is None:
            return
        try:
            made = self._compare(parameters.earlierTable, parameters.laterTable, registered=parameters.registered)
        except RunError as error:
            self._report(str(error))
            return
        self.ui.followUpLabel.text = "\n".join([_told(made), *made.notes])
        self.ui.followUpLabel.visible = True
        self._onCompared(made)


def _isStatistics(node: Any) -> bool:
    return node is not None and node.GetAttribute("DEMIST.Table") == STATISTICS


def _told(made: VisitsResult) -> str:
    """How many regions and lesions changed by more than their error."""
    known = [row for row in made.rows if row["beyond_error"] is not None]
    if not known:
        return _("{count} rows compared.").format(count=len(made.rows))
    sure = sum(row["difference_ci90_low"] > 0 or row["difference_ci90_high"] < 0 for row in known)
    return _("{sure} of {count} differences are larger than their 90 % interval of error.").format(
        sure=sure, count=len(known)
    )
