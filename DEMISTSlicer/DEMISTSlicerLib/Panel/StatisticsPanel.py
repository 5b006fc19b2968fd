"""The section Regions and statistics: the table, a click that jumps to a lesion, charts, export."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt

from ..Errors import InputError
from ..I18n import _
from ..Nodes import Charts, Tables
from ..Views import Jump


class StatisticsPanel:
    """Shows a statistics table node in the panel.

    Args:
        ui: the panel's widgets: ``statisticsTable``, ``rocButton``, ``boxPlotButton``, ``exportButton``.
        overlay: an :class:`.Overlay.Overlay`, for the views that charts are shown in.
        parameters: gives the parameter node wrapper, or None.
        report: shows a sentence about what went wrong.
    """

    #: Columns of the table node that are shown in the panel, in this order; all are in the table node.
    SHOWN = (
        "name", "volume_ml", "mean", "mean_ci90_low", "mean_ci90_high", "seed_sd", "sd", "median", "uncertainty",
    )  # fmt: skip
    #: Not shown beside an interval of the mean, where people would take it for one.
    NO_ERROR_BAR = "seed_sd"

    def __init__(self, ui: Any, overlay: Any, parameters: Callable[[], Any], report: Callable[[str], object]) -> None:
        self.ui, self.overlay = ui, overlay
        self._parameters, self._report = parameters, report
        self._shown: tuple[Any, int] | None = None
        table = ui.statisticsTable
        table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        table.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        table.setAlternatingRowColors(True)
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(22)
        table.connect("cellClicked(int,int)", self._onCell)
        ui.rocButton.connect("clicked()", self.showRoc)
        ui.boxPlotButton.connect("clicked()", self.showBoxPlot)
        ui.exportButton.connect("clicked()", self.export)

    def disconnect(self) -> None:
        """Hear no more of the widgets."""
        self.ui.statisticsTable.disconnect("cellClicked(int,int)", self._onCell)
        self.ui.rocButton.disconnect("clicked()", self.showRoc)
        self.ui.boxPlotButton.disconnect("clicked()", self.showBoxPlot)
        self.ui.exportButton.disconnect("clicked()", self.export)

    @property
    def node(self) -> Any:
        """The table node that is chosen, or None."""
        parameters = self._parameters()
        return parameters.statisticsTable if parameters else None

    def update(self) -> None:
        """Show what the parameters say; fills the table only when the node is another or was changed."""
        node = self.node
        self.ui.exportButton.enabled = node is not None
        roc, boxPlot = self._charts()
        self.ui.rocButton.enabled, self.ui.boxPlotButton.enabled = roc is not None, boxPlot is not None
        now = None if node is None else (node, node.GetTable().GetMTime())
        if now != self._shown:
            self._shown = now
            self._fill(node)

    def _fill(self, node: Any) -> None:
        table = self.ui.statisticsTable
        table.clear()
        columns = []
        if node is not None:
            names = [node.GetTable().GetColumnName(i) for i in range(node.GetNumberOfColumns())]
            shown = [name for name in self.SHOWN if name in names]
            if "mean_ci90_low" in shown:
                shown = [name for name in shown if name != self.NO_ERROR_BAR]
            columns = [names.index(name) for name in shown] or list(range(min(len(names), 6)))
        table.setColumnCount(len(columns))
        table.setRowCount(node.GetNumberOfRows() if node is not None else 0)
        if node is None:
            return
        table.setHorizontalHeaderLabels([self._title(node, column) for column in columns])
        for row in range(node.GetNumberOfRows()):
            for place, column in enumerate(columns):
                item = qt.QTableWidgetItem(self._text(node.GetCellText(row, column)))
                item.setToolTip(_("Click to see it in the slice views.") if Jump.lesionOfRow(node, row) else "")
                table.setItem(row, place, item)
        table.resizeColumnsToContents()
        table.horizontalHeader().setStretchLastSection(True)

    @staticmethod
    def _title(node: Any, column: int) -> str:
        name = node.GetTable().GetColumnName(column)
        # Newer versions of Slicer call the long name a title, and warn of the older word.
        title = node.GetColumnTitle if hasattr(node, "GetColumnTitle") else node.GetColumnLongName
        return title(name) or name

    @staticmethod
    def _text(text: str) -> str:
        """Numbers as people read them; what is not known stays empty."""
        try:
            number = float(text)
        except ValueError:
            return text
        return "" if number != number else f"{number:.4g}"

    def _onCell(self, row: int, column: int) -> None:
        if self.node is None:
            return
        try:
            Jump.jumpToRow(self.node, row)
        except InputError as error:
            self._report(str(error))

    def _charts(self) -> tuple[Any, Any]:
        """ROC curves and box plots of the table that is chosen; None for what there is not."""
        node = self.node
        return (None, None) if node is None else Charts.chartsOf(node)

    def _showChart(self, chart: Any) -> None:
        """Show a chart in the views, slices and the table beside it."""
        if chart is None:
            return
        self.overlay.arrange("statistics")
        Charts.showChart(chart)
        if self.node is not None:
            Tables.showTable(self.node)

    def showRoc(self) -> None:
        """Show the ROC curves in the layout."""
        self._showChart(self._charts()[0])

    def showBoxPlot(self) -> None:
        """Show the box plots in the layout."""
        self._showChart(self._charts()[1])

    def export(self) -> None:
        """Save the table as CSV where the user says."""
        node = self.node
        if node is None:
            return
        path = qt.QFileDialog.getSaveFileName(
            None, _("Save the table"), f"{node.GetName()}.csv", _("Comma-separated values (*.csv)")
        )
        if not path:
            return
        try:
            Tables.exportCsv(node, path)
        except InputError as error:
            self._report(str(error))
