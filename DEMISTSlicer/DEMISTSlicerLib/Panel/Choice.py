"""A combo box of named choices: the text is for people, the value is what is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import qt


class Choice:
    """Fills a combo box and tells when the user (not the program) chose.

    Args:
        comboBox: a QComboBox.
        onChosen: called with the value that the user chose.
    """

    def __init__(self, comboBox: Any, onChosen: Callable[[str], object]) -> None:
        self.comboBox = comboBox
        self._onChosen = onChosen
        comboBox.connect("activated(int)", self._activated)

    def disconnect(self) -> None:
        """Hear no more of the combo box."""
        self.comboBox.disconnect("activated(int)", self._activated)

    def fill(self, items: Iterable[tuple[str, str, str]], value: str | None = None) -> None:
        """Offer ``items`` (value, text, tooltip), and show ``value`` (default: what is shown now)."""
        value = self.value if value is None else value
        was = self.comboBox.blockSignals(True)
        self.comboBox.clear()
        for index, (itemValue, text, tip) in enumerate(items):
            self.comboBox.addItem(text, itemValue)
            self.comboBox.setItemData(index, tip, qt.Qt.ToolTipRole)
        self.show(value)
        self.comboBox.blockSignals(was)

    @property
    def value(self) -> str:
        """The value that is shown; empty where there is none."""
        value = self.comboBox.itemData(self.comboBox.currentIndex)
        return value if isinstance(value, str) else ""

    def show(self, value: str) -> None:
        """Show a value; the first one where it is not offered. The user did not choose: nobody is called."""
        index = self.comboBox.findData(value)
        was = self.comboBox.blockSignals(True)
        self.comboBox.setCurrentIndex(max(index, 0) if self.comboBox.count else -1)
        self.comboBox.blockSignals(was)

    def _activated(self, index: int) -> None:
        self._onChosen(self.value)
