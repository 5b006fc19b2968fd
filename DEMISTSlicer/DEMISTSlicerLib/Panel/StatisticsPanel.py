"""The section Regions and statistics: the table, a click that jumps to a lesion, charts, export."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import qt

from ..Errors import InputError
from ..I18n import _
from ..Nodes import Charts, Tables
from ..Views import Jump
from .Units import PERCENT, PSR_COLUMNS

if TYPE_CHECKING:
    from slicer import vtkMRMLPlotChartNode, vtkMRMLTableNode

#: One column in the panel for two of the table node, of statistics and of differences.
INTERVAL = "interval"
ENDS = (("mean_ci90_low", "mean_ci90_high"), ("difference_ci90_low", "difference_ci90_high"))


#: Widest column of names, pixels: volume, mean and interval fit beside it in a panel of 400.
NAMES = 101


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
        "name",
        "volume_ml",
        "mean",
        "difference",
        INTERVAL,
        "mean_before",
        "mean_after",
        "percent",
        "beyond_error",
        "seed_sd",
        "sd",
        "median",
        "uncertainty",
        "volume_change_ml",
    )
    #: Not shown beside an interval of the mean, where people would take it for one.
    NO_ERROR_BAR = "seed_sd"
    #: Headings for a narrow panel; the table node has the long ones.
    SHORT = {  # noqa: RUF012
        "name": _("region"),
        "volume_ml": _("mL"),
        "mean": _("mean"),
        INTERVAL: _("90 % interval"),
        "median": _("median"),
        "uncertainty": _("SD of voxels"),
        "mean_before": _("before"),
        "mean_after": _("after"),
        "difference": _("diff."),
        "percent": _("diff. %"),
        "beyond_error": _("beyond error"),
        "volume_change_ml": _("mL change"),
    }

    def __init__(self, ui: Any, overlay: Any, parameters: Callable[[], Any], report: Callable[[str], object]) -> None:
        self.ui, self.overlay = ui, overlay
        self._parameters, self._report = parameters, report
        self._shown: Any = ()
        table = ui.statisticsTable
        table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        table.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        table.setAlternatingRowColors(True)
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(22)
        table.horizontalHeader().setHighlightSections(False)  # bold headings would not fit their columns
        table.setWordWrap(False)
        table.connect("itemSelectionChanged()", self._onRow)
        ui.rocButton.connect("clicked()", self.showRoc)
        ui.boxPlotButton.connect("clicked()", self.showBoxPlot)
        ui.exportButton.connect("clicked()", self.export)

    def disconnect(self) -> None:
        """Hear no more of the widgets."""
        self.ui.statisticsTable.disconnect("itemSelectionChanged()", self._onRow)
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
        now = None if node is None else (node, node.GetTable().GetMTime(), self._percent)
        if now != self._shown:
            self._shown = now
            self._fill(node)

    def _fill(self, node: vtkMRMLTableNode | None) -> None:
        table = self.ui.statisticsTable
        table.setSortingEnabled(False)  # else rows would move while they are filled
        table.clear()
        columns = self._columns(node) if node is not None else []
        table.setColumnCount(len(columns))
        table.setRowCount(node.GetNumberOfRows() if node is not None else 0)
        table.visible = node is not None
        if node is None:
            return
        table.setHorizontalHeaderLabels([self._title(node, name) for name in columns])
        for row in range(node.GetNumberOfRows()):
            for place, name in enumerate(columns):
                table.setItem(row, place, self._item(node, row, name))
        # Regions before lesions, until a click on a heading sorts.
        table.horizontalHeader().setSortIndicator(-1, qt.Qt.AscendingOrder)
        table.setSortingEnabled(True)
        table.resizeColumnsToContents()
        if len(columns) > 1:  # the numbers are seen beside the names in the narrowest panel; tooltips have whole names
            table.setColumnWidth(0, min(table.columnWidth(0), NAMES))
        table.horizontalHeader().setStretchLastSection(True)

    def _columns(self, node: vtkMRMLTableNode) -> list[str]:
        """What is shown of a table; of one that holds no statistics, its first columns."""
        names = [node.GetTable().GetColumnName(i) for i in range(node.GetNumberOfColumns())]
        known = {*names, INTERVAL} if self._ends(node) else set(names)
        shown = [name for name in self.SHOWN if name in known]
        if INTERVAL in shown:
            shown = [name for name in shown if name != self.NO_ERROR_BAR]
        return shown or names[:6]

    @staticmethod
    def _ends(node: vtkMRMLTableNode) -> tuple[str, str] | None:
        """The columns that hold the ends of intervals; None if the table has no intervals."""
        table = node.GetTable()
        return next((ends for ends in ENDS if all(table.GetColumnByName(end) is not None for end in ends)), None)

    def _item(self, node: vtkMRMLTableNode, row: int, name: str) -> Any:
        """A cell that sorts as what it holds: numbers by size, names by letters; it remembers its row of the node."""
        item = qt.QTableWidgetItem()
        if name == INTERVAL:
            low, high = (self._number(self._cell(node, row, end)) for end in self._ends(node))
            between = "-" if low is None or low >= 0 else _(" to ")  # a minus sign and a dash look alike
            ends = "" if low is None or high is None else f"{self._padded(low)}{between}{self._short(high)}{self._unit}"
            item.setText(ends)
        elif name == "name" or self._number(self._cell(node, row, name)) is None:
            text = self._cell(node, row, name)
            item.setText("" if text == "nan" else text)
        else:
            number = self._number(self._cell(node, row, name))
            if name in PSR_COLUMNS and name != "difference":
                item.setText(self._padded(number) + self._unit)
            else:
                shown = float(self._short(number)) if name in PSR_COLUMNS else _figures(number)
                item.setData(qt.Qt.DisplayRole, shown)
        if name != "name":
            item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
        item.setData(qt.Qt.UserRole, row)
        hint = _("Click to see it in the slice views.") if Jump.lesionOfRow(node, row) else ""
        item.setToolTip("\n".join(part for part in (item.text() if name == "name" else "", hint) if part))
        return item

    @staticmethod
    def _cell(node: vtkMRMLTableNode, row: int, name: str) -> str:
        return node.GetTable().GetValueByName(row, name).ToString()

    def _short(self, value: float) -> str:
        """PSR as people read it, in the unit chosen."""
        return f"{100 * value:.1f}" if self._percent else f"{value:.3f}"

    def _padded(self, value: float) -> str:
        """The same as long as any other of its column, so that texts sort as numbers do; never without its last 0."""
        return self._short(value).rjust(4 if self._percent else 5)

    @property
    def _unit(self) -> str:
        """What follows PSR in a cell."""
        return _(" %") if self._percent else ""

    @property
    def _percent(self) -> bool:
        parameters = self._parameters()
        return bool(parameters) and parameters.unit == PERCENT

    def _title(self, node: vtkMRMLTableNode, name: str) -> str:
        # Newer versions of Slicer call the long name a title, and warn of the older word.
        title = node.GetColumnTitle if hasattr(node, "GetColumnTitle") else node.GetColumnLongName
        text = self.SHORT.get(name) or title(name) or name
        # The other cells say so themselves: a heading with a unit would take the interval's place in a panel of 400.
        return _("{title}, %").format(title=text) if self._percent and name == "difference" else text

    @staticmethod
    def _number(text: str) -> float | None:
        """The number that a cell holds; None for a word, or where nothing is known."""
        try:
            number = float(text)
        except ValueError:
            return None
        return None if number != number else number

    def _onRow(self) -> None:
        """A row was chosen, by mouse or keys: show its lesion."""
        table, node = self.ui.statisticsTable, self.node
        item = table.item(table.currentRow(), 0) if node is not None else None
        if item is None:
            return
        try:
            Jump.jumpToRow(node, int(item.data(qt.Qt.UserRole)))
        except InputError as error:
            self._report(str(error))

    def _charts(self) -> tuple[Any, Any]:
        """ROC curves and box plots of the table that is chosen; None for what there is not."""
        node = self.node
        return (None, None) if node is None else Charts.chartsOf(node)

    def _showChart(self, chart: vtkMRMLPlotChartNode) -> None:
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


def _figures(number: float) -> float:
    """Three figures of a volume, but all before the point and no more than three behind it: others are noise, and take
    the interval's place."""
    behind = next((places for places, least in enumerate((100.0, 10.0, 1.0)) if abs(number) >= least), 3)
    return round(number, behind)
