"""The CTK widgets that the panel uses, thin: same properties, signals and behaviour, drawn plainly.

Compared with ctkCollapsibleButton.h and ctkSliderWidget.h of CTK. Left out: animation, flat style, icons; tracking,
the range pop-up and page step of the slider.
"""

from __future__ import annotations

import types
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

from .flavour import flavoured

_Widget = flavoured(QtWidgets.QWidget)


class ctkCollapsibleButton(_Widget):
    """A titled section; a click on its title folds it, and so does the space bar: CTK's is an abstract button."""

    # PySide6 finds these in the class itself only.
    connect, disconnect = _Widget.connect, _Widget.disconnect
    _HEAD = 24
    toggled = QtCore.Signal(bool)
    clicked = QtCore.Signal(bool)
    contentsCollapsed = QtCore.Signal(bool)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._text, self._collapsed, self._hidden = "", False, []
        self.setContentsMargins(0, self._HEAD + 2, 0, 0)
        self.setFocusPolicy(QtCore.Qt.FocusPolicy.StrongFocus)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Preferred, QtWidgets.QSizePolicy.Policy.Maximum)

    def _get_text(self) -> str:
        return self._text

    def _set_text(self, text: str) -> None:
        self._text = text
        self.update()

    def _get_collapsed(self) -> bool:
        return self._collapsed

    def _set_collapsed(self, collapsed: bool) -> None:
        if collapsed == self._collapsed:
            return
        self._collapsed = collapsed
        children = [c for c in self.children() if isinstance(c, QtWidgets.QWidget)]
        if collapsed:
            self._hidden = [c for c in children if not c.isHidden()]
        for child in self._hidden if not collapsed else children:
            own = QtCore.QObject.property(child, "visibilityToParent")
            child.setVisible(not collapsed and own is not False)
        self.setMaximumHeight(self._HEAD if collapsed else 16777215)
        self.update()
        self.contentsCollapsed.emit(collapsed)
        self.toggled.emit(not collapsed)

    text = QtCore.Property(str, _get_text, _set_text)
    collapsed = QtCore.Property(bool, _get_collapsed, _set_collapsed)

    def setText(self, text: str) -> None:
        self._set_text(text)

    def setCollapsed(self, collapsed: bool) -> None:
        self._set_collapsed(collapsed)

    def childEvent(self, event: Any) -> None:
        """What is put into a folded section is hidden, too (the .ui sets ``collapsed`` first)."""
        if self._collapsed and event.added() and isinstance(event.child(), QtWidgets.QWidget):
            self._hidden.append(event.child())
            event.child().setVisible(False)

    def mousePressEvent(self, event: Any) -> None:
        if event.position().y() <= self._HEAD:
            self._toggle()

    def keyPressEvent(self, event: Any) -> None:
        if event.key() in (QtCore.Qt.Key.Key_Space, QtCore.Qt.Key.Key_Select):
            self._toggle()
        else:
            super().keyPressEvent(event)

    def _toggle(self) -> None:
        self._set_collapsed(not self._collapsed)
        self.clicked.emit(not self._collapsed)

    def minimumSizeHint(self) -> Any:
        size = super().minimumSizeHint()
        return QtCore.QSize(size.width(), self._HEAD if self._collapsed else max(size.height(), self._HEAD))

    def sizeHint(self) -> Any:
        size = super().sizeHint()
        return QtCore.QSize(size.width(), self._HEAD if self._collapsed else max(size.height(), self._HEAD))

    def paintEvent(self, event: Any) -> None:
        painter = QtGui.QPainter(self)
        painter.setRenderHint(QtGui.QPainter.RenderHint.Antialiasing)
        head = QtCore.QRectF(0.5, 0.5, QtWidgets.QWidget.width(self) - 1, self._HEAD - 1)
        painter.setPen(QtGui.QPen(QtGui.QColor("#c3c8ce")))
        painter.setBrush(QtGui.QColor("#e7eaee"))
        painter.drawRoundedRect(head, 3, 3)
        if self.hasFocus():
            painter.setPen(QtGui.QPen(QtGui.QColor("#2b3640"), 1, QtCore.Qt.PenStyle.DotLine))
            painter.drawRect(head.adjusted(2, 2, -2, -2))
        painter.setPen(QtGui.QColor("#2b3640"))
        font = painter.font()
        font.setBold(True)
        painter.setFont(font)
        painter.drawText(head.adjusted(24, 0, 0, 0), QtCore.Qt.AlignmentFlag.AlignVCenter, self._text)
        painter.setBrush(QtGui.QColor("#2b3640"))
        middle = QtCore.QPointF(13, self._HEAD / 2)
        shape = [(-2.5, -4), (-2.5, 4), (3, 0)] if self._collapsed else [(-4, -2.5), (4, -2.5), (0, 3)]
        painter.drawPolygon([middle + QtCore.QPointF(x, y) for x, y in shape])
        painter.end()


class ctkSliderWidget(_Widget):
    """A slider and a spin box that show the same number."""

    valueChanged = QtCore.Signal(float)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal)
        self._slider.setRange(0, 1000)
        self._box = QtWidgets.QDoubleSpinBox()
        row.addWidget(self._slider, 1)
        row.addWidget(self._box)
        self._box.valueChanged.connect(self._on_box)
        self._slider.valueChanged.connect(self._on_slider)

    def _on_box(self, value: float) -> None:
        low, high = self._box.minimum(), self._box.maximum()
        was = self._slider.blockSignals(True)
        self._slider.setValue(round(1000 * (value - low) / (high - low)) if high > low else 0)
        self._slider.blockSignals(was)
        self.valueChanged.emit(value)

    def _on_slider(self, place: int) -> None:
        low, high = self._box.minimum(), self._box.maximum()
        self._box.setValue(low + (high - low) * place / 1000)

    def setValue(self, value: float) -> None:
        self._box.setValue(value)

    value = QtCore.Property(float, lambda self: self._box.value(), lambda self, v: self._box.setValue(v))
    minimum = QtCore.Property(float, lambda self: self._box.minimum(), lambda self, v: self._box.setMinimum(v))
    maximum = QtCore.Property(float, lambda self: self._box.maximum(), lambda self, v: self._box.setMaximum(v))
    singleStep = QtCore.Property(float, lambda self: self._box.singleStep(), lambda self, v: self._box.setSingleStep(v))
    decimals = QtCore.Property(int, lambda self: self._box.decimals(), lambda self, v: self._box.setDecimals(v))


def ctk_module() -> types.ModuleType:
    """The module to put in place as ``ctk``. Other classes of CTK are placeholders that nothing is an instance of."""
    module = types.ModuleType("ctk")
    module.ctkCollapsibleButton = ctkCollapsibleButton
    module.ctkSliderWidget = ctkSliderWidget
    # Slicer's parameterNodeWrapper compares widget types with these.
    others = (
        "CheckBox CheckablePushButton DoubleSlider DoubleSpinBox ComboBox RangeWidget DoubleRangeSlider PathLineEdit "
        "DirectoryButton ColorPickerButton"
    )
    for name in (f"ctk{other}" for other in others.split()):
        setattr(module, name, type(name, (), {"__doc__": "Not used by the panel."}))
    return module
