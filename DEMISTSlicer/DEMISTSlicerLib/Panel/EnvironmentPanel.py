"""The section Environment: what is installed, where and how large, and the buttons that change it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer

from ..I18n import _
from ..Install import Place
from ..Install.Installer import Installer
from .Choice import Choice

BUILDS = (
    ("auto", _("As this computer allows"), _("For an NVIDIA GPU if its driver is found, else for the CPU.")),
    ("cpu", _("CPU only (smaller)"), _("A few hundred megabytes instead of gigabytes; slower than with a GPU.")),
)


class EnvironmentPanel:
    """Shows the environment and changes it.

    Args:
        ui: the panel's widgets.
        installer: does it.
        isBusy: whether a run keeps the environment in use.
        release: called before the environment is changed: the worker lets go of it.
        onBegun: called when something is being installed or removed.
    """

    def __init__(
        self,
        ui: Any,
        installer: Installer,
        isBusy: Callable[[], bool],
        release: Callable[[], object],
        onBegun: Callable[[], object],
    ) -> None:
        self.ui, self.installer = ui, installer
        self._isBusy, self._release, self._onBegun = isBusy, release, onBegun
        self.build = Choice(ui.torchBuildComboBox, self._onBuild)
        self.build.fill(BUILDS, "auto")
        self._buttons = (
            (ui.installButton, self.install),
            (ui.repairButton, self.repair),
            (ui.removeButton, self.remove),
            (ui.browseEnvironmentButton, self.browse),
            (ui.wheelsButton, self.fromWheels),
        )
        for button, slot in self._buttons:
            button.connect("clicked()", slot)
        ui.environmentCollapsibleButton.connect("contentsCollapsed(bool)", self._onCollapsed)
        self._found = Place.environment()
        self.enable()
        if not ui.environmentCollapsibleButton.collapsed:
            self.update()

    def disconnect(self) -> None:
        """Hear no more of the widgets."""
        self.build.disconnect()
        for button, slot in self._buttons:
            button.disconnect("clicked()", slot)
        self.ui.environmentCollapsibleButton.disconnect("contentsCollapsed(bool)", self._onCollapsed)

    def _onCollapsed(self, collapsed: bool) -> None:
        """Looked at when it is opened, not when the panel is: to find out what Slicer has itself takes a while."""
        if not collapsed:
            self.update()

    def update(self) -> None:
        """Look what there is, and show it."""
        found = self._found = Place.environment()
        self.ui.environmentFolderEdit.text = str(found.folder)
        self.ui.environmentFolderEdit.toolTip = str(found.folder)
        self.ui.environmentLabel.text = self._words(found)
        self.enable()

    def enable(self) -> None:
        """Which buttons can be pressed just now."""
        found, running = self._found, self.installer.isRunning
        for button, ready in (
            (self.ui.installButton, found.state != "ready"),
            (self.ui.repairButton, found.state != "absent"),
            (self.ui.removeButton, found.state != "absent"),
            (self.ui.wheelsButton, True),
            (self.ui.browseEnvironmentButton, True),
        ):
            button.enabled = ready and not running and not self._isBusy()

    def install(self) -> None:
        """Install what is missing."""
        self._begin()

    def repair(self) -> None:
        """Install all of it again; what is there is replaced when the new one works."""
        self._begin()

    def fromWheels(self) -> None:
        """Install without a network, from a folder of wheels."""
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder of wheels"), "")
        if folder:
            self._begin(Path(folder))

    def remove(self) -> None:
        """Delete the environment, after asking."""
        folder = Place.environmentFolder()
        text = _("Delete DEMIST's Python environment {folder}? It can be installed again.").format(folder=folder)
        if slicer.util.confirmOkCancelDisplay(text, _("DEMIST")):
            self._release()
            self.installer.remove()
            self._onBegun()

    def browse(self) -> None:
        """Choose another folder for environments."""
        folder = qt.QFileDialog.getExistingDirectory(
            None, _("Folder for DEMIST's Python environment"), str(Place.chosenFolder())
        )
        if folder:
            self._release()
            Place.choose(Path(folder))
            self.update()

    def _begin(self, wheels: Path | None = None) -> None:
        self._release()
        self.installer.install(wheels=wheels)
        self._onBegun()

    def _onBuild(self, value: str) -> None:
        self.installer.torch = value

    def _words(self, found: Any) -> str:
        if found.state == "ready":
            device = _("GPU") if found.device in ("cuda", "mps") else _("CPU")
            text = _("Installed: torch {torch} for the {device}, {count} packages, {size:.1f} GB.").format(
                torch=found.versions.get("torch", "?"), device=device, count=len(found.versions), size=found.size / 1e9
            )
            return f"{text} {found.note}".strip()
        if found.state == "broken":
            return _("The environment is damaged; press Repair.")
        if found.state == "foreign":
            return _("The environment is one of another Python ({note}); press Repair.").format(note=found.note)
        if self.installer.hasOwn():
            return _("Not needed: Slicer's own Python has all packages. Install it to keep the two apart.")
        return _("Not installed. Slicer's own packages are not touched by it.")
