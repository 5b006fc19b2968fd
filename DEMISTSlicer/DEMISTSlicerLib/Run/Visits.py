"""Two visits of one patient compared: a table of differences from the statistics tables of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..Errors import InputError
from ..I18n import _
from ..Nodes import Change, Placement, Tables, Volumes
from ..RunError import RunError
from ..Views import Jump

if TYPE_CHECKING:
    from slicer import vtkMRMLTableNode

#: What a table holds (its attribute ``DEMIST.Table``).
STATISTICS, CHANGE = "Statistics", "Change"
#: How a table of differences refers to those of the visits.
BEFORE, AFTER = "DEMIST.Before", "DEMIST.After"


@dataclass
class VisitsResult:
    """What changed.

    Attributes:
        table: the differences, see :data:`.Change.COLUMNS`.
        rows: the same as dictionaries.
        notes: what a reader should know of the comparison.
    """

    table: vtkMRMLTableNode
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def compareVisits(
    before: vtkMRMLTableNode,
    after: vtkMRMLTableNode,
    registered: bool = False,
    table: vtkMRMLTableNode | None = None,
) -> VisitsResult:
    """Differences of region means between two visits, with intervals; of single lesions, too, if they can be told.

    Args:
        before, after: statistics tables of the two visits, made by :meth:`.Logic.DEMISTSlicerLogic.computeStatistics`.
        registered: the two T1w lie over each other (a transform that registers one to the other is above it, say):
            lesions at the same place are then the same lesion, others are new or gone.
        table: node to write into; None makes one, beside the map of the later visit.

    Raises:
        RunError: these are not two statistics tables, or have no region in common.
    """
    for node, visit in ((before, _("earlier")), (after, _("later"))):
        if node is None or node.GetAttribute("DEMIST.Table") != STATISTICS:
            raise RunError("input", _("Choose the statistics table of the {visit} visit.").format(visit=visit))
    if before is after:
        raise RunError("input", _("The same table is chosen for both visits; choose two."))
    rows = [Tables.rowsOf(node) for node in (before, after)]
    points = [_points(node, told) for node, told in zip((before, after), rows)] if registered else None
    same = None if points is None else Change.matched(*points)
    found = Change.changes(*rows, same)
    if not found:
        raise RunError("input", _("The two tables have no region in common; compute the statistics of both visits."))
    psr = after.GetNodeReference(Placement.VOLUME_REFERENCE)
    positions = {
        int(row["lesion"]): [row[c] for c in Tables.POSITION_COLUMNS]
        for row in rows[1]
        if row.get("lesion") and row.get("R") is not None
    }
    # Numbers belong to the later visit, so a click on a lesion that is gone leads nowhere.
    made = Tables.statisticsTable(
        found,
        Change.COLUMNS,
        _("{after} minus {before}").format(after=after.GetName(), before=before.GetName()),
        positions if registered else None,
        psr,
        table,
        kind=CHANGE,
    )
    made.SetNodeReferenceID(BEFORE, before.GetID())
    made.SetNodeReferenceID(AFTER, after.GetID())
    return VisitsResult(made, found, _notes(before, after, registered, found))


def _points(node: vtkMRMLTableNode, rows: list[dict[str, Any]]) -> dict[int, tuple[float, float, float]]:
    """Where the lesions of a table lie in the world."""
    found = {}
    for row in rows:
        if row.get("lesion"):
            try:
                found[int(row["lesion"])] = Jump.lesionPoint(int(row["lesion"]), node)
            except InputError as error:
                raise RunError("input", str(error)) from error
    return found


def _notes(
    before: vtkMRMLTableNode, after: vtkMRMLTableNode, registered: bool, rows: list[dict[str, Any]]
) -> list[str]:
    notes = []
    models = [_model(node) for node in (before, after)]
    if models[0] != models[1]:
        notes.append(
            _("The two maps were not made by the same model ({before}; {after}): they may differ for it.").format(
                before=models[0] or _("measured or unknown"), after=models[1] or _("measured or unknown")
            )
        )
    if not registered:
        notes.append(_("Single lesions were not compared: for that, the visits must lie over each other (registered)."))
    if not any(row["difference_ci90_low"] is not None for row in rows):
        notes.append(_("There are no intervals: they take maps of a calibrated model, with their uncertainty maps."))
    return notes


def _model(node: vtkMRMLTableNode) -> str:
    """Name, hash and mode of the model behind a table's map; empty for a map that nobody synthesized."""
    psr = node.GetNodeReference(Placement.VOLUME_REFERENCE)
    told = {} if psr is None else Volumes.provenanceOf(psr)
    bundle, settings = told.get("bundle"), told.get("settings")
    named = bundle if isinstance(bundle, Mapping) else {"name": bundle or ""}
    mode = settings.get("mode") if isinstance(settings, Mapping) else None
    return " ".join(str(part)[:12] for part in (named.get("name"), named.get("hash"), mode) if part)
