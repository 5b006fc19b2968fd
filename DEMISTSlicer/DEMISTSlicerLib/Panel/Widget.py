"""The panel: what the user sees and does. Everything that computes is in the logic; they talk by signals."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
import vtk
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from ..I18n import _
from ..Install import Place
from ..Install.Installer import Installer
from ..Logic import DEMISTSlicerLogic
from ..Nodes.Inputs import guess, hint
from ..Views.Overlay import Overlay
from . import SampleData
from .Actions import Actions
from .BatchPanel import BatchPanel
from .Binding import Binding
from .BundleChooser import BundleChooser
from .Choice import Choice
from .Confirmation import Confirmation
from .DisplayPanel import DisplayPanel
from .EnvironmentPanel import EnvironmentPanel
from .FollowUpPanel import FollowUpPanel
from .Parameters import DEMISTParameters
from .ProgressPanel import ProgressPanel
from .Readiness import readiness
from .SamplingPanel import SamplingPanel
from .Sketch import Sketch
from .StatisticsPanel import StatisticsPanel

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode


class DEMISTSlicerWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The module's panel, made from ``Resources/UI/DEMISTSlicer.ui``."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: DEMISTSlicerLogic | None = None
        self._parameterNode: Any = None
        self._confirmedT1: Any = None
        self._binding: Binding | None = None
        self._handles: list[tuple[Any, int]] = []
        self._updating = False
        self._asked = False

    # --- life ----------------------------------------------------------------------------------------------------

    def setup(self) -> None:
        """Make the panel; called once, when the user opens the module for the first time, and after a reload."""
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/DEMISTSlicer.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)

        self.logic = DEMISTSlicerLogic()
        self.installer = Installer()
        self.overlay = Overlay()
        self.bundles = BundleChooser(self.ui, self.logic.bundles, self.logic.describeBundle, self._onBundleChosen)
        self.device = Choice(self.ui.deviceComboBox, lambda value: self._store("device", value))
        self.sampling = SamplingPanel(
            self.ui, self.bundles, lambda: self._parameterNode, self.logic.expectedSeconds, self.updateFromParameters
        )
        self.progress = ProgressPanel(self.ui)
        self.sketch = Sketch(self.ui.sketchLabel)
        self.display = DisplayPanel(self.ui, self.overlay, lambda: self._parameterNode, self._report)
        self.statistics = StatisticsPanel(self.ui, self.overlay, lambda: self._parameterNode, self._report)
        self.followUp = FollowUpPanel(
            self.ui, lambda: self._parameterNode, self.logic.compareVisits, self._report, self._onCompared
        )
        self.environment = EnvironmentPanel(
            self.ui,
            self.installer,
            lambda: self.logic is not None and self.logic.isRunning,
            self._releaseEnvironment,
            self._updateButtons,
        )

        self._connectLogic()
        self.confirmation = Confirmation(self.ui.confirmInputsCheckBox, self._updateButtons)
        self.actions = Actions(
            self.ui,
            self.logic,
            self.installer,
            lambda: self._parameterNode,
            self.sampling,
            self.progress,
            self._report,
            self._updateButtons,
        )
        self.batch = BatchPanel(
            self.ui,
            self.logic,
            self.actions.run,
            self.sampling.options,
            self._report,
            self._useAsInputs,
            self._updateButtons,
        )
        self.actions.onCancel = self.batch.run.cancel
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        self.initializeParameterNode()
        self._updateButtons()

    def cleanup(self) -> None:
        """Let go of everything; called when the application closes and before a reload."""
        self.setParameterNode(None)
        self.removeObservers()
        for signal, handle in self._handles:
            signal.disconnect(handle)
        self._handles.clear()
        parts = "actions confirmation bundles device sampling display statistics followUp batch environment"
        for part in parts.split():
            if hasattr(self, part):
                getattr(self, part).disconnect()
        if self.logic is not None:
            self.installer.shutdown()
            self.logic.shutdown()
            self.logic = None

    def enter(self) -> None:
        """Called each time the user opens this module; the first time, what can compute is looked for."""
        self.initializeParameterNode()
        qt.QTimer.singleShot(0, self._askDevices)  # once the panel is seen

    def _askDevices(self) -> None:
        if self.logic is None or self._asked or self.logic.isRunning or self.installer.isRunning:
            return
        if self.installer.isReady():
            self._asked = True
            self.logic.askDevices(self.bundles.path or None)

    def exit(self) -> None:
        """Called each time the user opens another module: a run goes on, the panel stops listening."""
        self.setParameterNode(None)

    def onSceneStartClose(self, caller: Any = None, event: Any = None) -> None:
        """Just before the scene is closed; the logic ends its run by itself."""
        self.overlay.hide()
        self.setParameterNode(None)

    def onSceneEndClose(self, caller: Any = None, event: Any = None) -> None:
        """Just after the scene is closed."""
        if self._isEntered():
            self.initializeParameterNode()

    def onSceneEndImport(self, caller: Any = None, event: Any = None) -> None:
        """A scene was loaded: take over what it holds."""
        if self._isEntered():
            self.initializeParameterNode()

    def _isEntered(self) -> bool:
        return bool(getattr(self.parent, "isEntered", True))

    def onReload(self) -> None:
        """Reload this module, and all of DEMISTSlicerLib with it (button of Slicer's developer mode)."""
        forget()
        ScriptedLoadableModuleWidget.onReload(self)

    # --- parameters ----------------------------------------------------------------------------------------------

    def initializeParameterNode(self) -> None:
        """Take the scene's parameter node, made if need be, and fill in likely images where none is chosen."""
        if self.logic is None:
            return
        node = self.logic.getParameterNode()
        isNew = not node.GetParameter("preset")
        parameters = DEMISTParameters(node)
        self.setParameterNode(parameters)
        if isNew:  # what the default bundle recommends
            self.sampling.choose(self.sampling.recommended)
        if not parameters.t1 and not parameters.flair:
            t1, flair = guess(slicer.mrmlScene)
            if t1 is not None:
                parameters.t1 = t1
            if flair is not None:
                parameters.flair = flair

    def setParameterNode(self, parameters: Any) -> None:
        """Show these parameters and follow them; None: show none."""
        if self._parameterNode is not None:
            if self._binding is not None:
                self._binding.release()
                self._binding = None
            observed = self._parameterNode.parameterNode
            self.removeObserver(observed, vtk.vtkCommand.ModifiedEvent, self.updateFromParameters)
        self._parameterNode = parameters
        if parameters is None:
            return
        self._confirmedT1 = parameters.t1
        self.bundles.refresh(parameters.bundle)
        self.sampling.offerSamplers()
        self._fillDevices()
        self._binding = Binding(parameters, self.ui)
        # The node, not its wrapper: Slicer's mixin keeps for ever what it has once observed.
        self.addObserver(parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self.updateFromParameters)
        self.updateFromParameters()

    def updateFromParameters(self, caller: Any = None, event: Any = None) -> None:
        """Show what the parameter wrapper does not: choices, hints, times, what can be pressed."""
        parameters = self._parameterNode
        if parameters is None or self._updating:
            return
        self._updating = True
        try:
            if parameters.t1 is not self._confirmedT1:  # what was confirmed is one patient's brain
                self._confirmedT1, parameters.anyBrainVolume = parameters.t1, False
            self.device.show(parameters.device)
            self.sampling.update()
            self.display.update()
            self.statistics.update()
            self.followUp.update()
            self.sketch.update(parameters.gapMm, parameters.proximalMm, parameters.distalMm, parameters.depthMm)
            self.progress.update(parameters.psr, parameters.unit)
            self._updateButtons()
        finally:
            self._updating = False

    def _store(self, name: str, value: str) -> None:
        if self._parameterNode is not None:
            setattr(self._parameterNode, name, value)

    def _onBundleChosen(self, path: str) -> None:
        parameters = self._parameterNode
        if parameters is None:
            return
        preset, before = parameters.preset, self.sampling.advised  # before the panel hears of the bundle
        parameters.bundle = path
        self.sampling.follow(before, preset)  # the same preset means other numbers for another bundle
        self.sampling.offerSamplers()

    def _fillDevices(self) -> None:
        parameters = self._parameterNode
        items = [(str(key), str(text), str(text)) for key, text in self.logic.devices()]
        if parameters.device not in [key for key, _text, _tip in items]:
            missing = _("{device} (not detected)").format(device=parameters.device)
            items.append((parameters.device, missing, missing))
        self.device.fill(items, parameters.device)

    def _updateButtons(self) -> None:
        parameters = self._parameterNode
        busy = self.logic is not None and (self.logic.isRunning or self.installer.isRunning or self._isBatch)
        chosen = (parameters.t1, parameters.flair) if parameters else (None, None)
        sentence = hint(*chosen) if parameters else ""
        self.ui.inputsHintLabel.text = sentence
        self.ui.inputsHintLabel.visible = bool(sentence)
        for name, ready, tip in readiness(parameters, self.confirmation.isGiven(*chosen)):
            button = getattr(self.ui, name)
            button.enabled = ready and not busy
            button.toolTip = _("Wait for the run to end, or cancel it.") if busy else tip
        self.ui.cancelButton.enabled = busy
        self.environment.enable()
        if hasattr(self, "batch"):
            self.batch.update(busy)

    @property
    def _isBatch(self) -> bool:
        return hasattr(self, "batch") and self.batch.isRunning

    def _useAsInputs(self, t1: vtkMRMLScalarVolumeNode, flair: vtkMRMLScalarVolumeNode) -> None:
        if self._parameterNode is not None:
            with slicer.util.NodeModify(self._parameterNode.parameterNode):
                self._parameterNode.t1, self._parameterNode.flair = t1, flair

    def _releaseEnvironment(self) -> None:
        """The worker ends: its files are about to be replaced."""
        self.logic.shutdown()
        self._asked = False

    # --- what the logic says -------------------------------------------------------------------------------------

    def _connectLogic(self) -> None:
        for name, slot in (
            ("progressChanged", self.progress.show),
            ("logMessage", self.progress.log),
            ("finished", self._onFinished),
            ("failed", self._onFailed),
            ("cancelled", self._onCancelled),
            ("started", self._onStarted),
            ("devicesChanged", self._onDevices),
        ):
            signal = getattr(self.logic, name)
            self._handles.append((signal, signal.connect(slot)))
        installer = self.installer
        for signal, slot in (
            (installer.progress, self.progress.show),
            (installer.line, self.progress.log),
            (installer.finished, self._onInstalled),
            (installer.failed, self._onInstallFailed),
            (installer.cancelled, self._onCancelled),
        ):
            self._handles.append((signal, signal.connect(slot)))

    def _onStarted(self, *_kind: object) -> None:
        self._updateButtons()

    def _onDevices(self, *_devices: object) -> None:
        if self._parameterNode is not None:
            self._fillDevices()
            self.updateFromParameters()

    def _onInstalled(self) -> None:
        found = Place.environment()
        self.environment.update()
        self.progress.log(self.ui.environmentLabel.text)
        self.progress.stopped(_("Ready"))
        if found.note:
            self.progress.say(found.note)
        self._updateButtons()

    def _onInstallFailed(self, message: str, lastLines: str) -> None:
        self.progress.stopped(_("Failed: {message}").format(message=message))
        self.environment.update()
        self._updateButtons()
        self.progress.log(message)
        slicer.util.errorDisplay(message, windowTitle=_("DEMIST"), detailedText=lastLines)

    def _onFinished(self, result: Any) -> None:
        # The user may have left the module meanwhile; the parameters are those of the scene all the same.
        parameters = self._parameterNode or DEMISTParameters(self.logic.getParameterNode())
        kind = result.kind
        made = kind == "synthesis" and not self._isBatch
        how, warnings = (result.how, result.notes) if made else ("", ())
        if kind == "statistics":
            how = _("The report is in {path}").format(path=result.report) if result.report else ""
            warnings = result.warnings
        self.progress.done(result.seconds, how, warnings)
        if made:
            self.progress.tell(result.psr, result.sanity, parameters.unit)
        for note in result.notes:
            self.progress.log(note)
        if kind == "synthesis" and not self._isBatch:
            with slicer.util.NodeModify(parameters.parameterNode):
                parameters.psr, parameters.uncertainty = result.psr, result.uncertainty
            if self._parameterNode is not None:
                self.display.show()
        elif kind == "dicom":
            self.progress.say(_("DICOM files are in {folder}").format(folder=Path(result.files["psr"]).parent))
            self.progress.log(self.ui.stageLabel.text)
        elif kind == "simulate":
            with slicer.util.NodeModify(parameters.parameterNode):
                parameters.t1, parameters.flair = result.t1w, result.flair
            SampleData.show(result.t1w)
        elif kind == "regions":
            parameters.lesions = result.segmentation
        elif kind == "statistics":
            parameters.statisticsTable = result.table
            if parameters.lesions is None and result.suggested:
                parameters.lesions = result.segmentation
        self._updateButtons()
        self.updateFromParameters()

    def _onCompared(self, made: Any) -> None:
        """The differences of two visits are shown in the place of the statistics."""
        self._parameterNode.statisticsTable = made.table
        for note in made.notes:
            self.progress.log(note)

    def _onFailed(self, kind: str, message: str) -> None:
        self.progress.stopped(_("Failed: {message}").format(message=message))
        self._updateButtons()
        if self._isBatch:  # told in its table; a box would hold up the others
            self.progress.log(message)
        else:
            self.actions.failed(kind, message)

    def _onCancelled(self, *_why: object) -> None:
        self.progress.stopped(_("Cancelled"))
        self._updateButtons()
        self.progress.log(_("Cancelled."))

    def _report(self, message: str) -> None:
        """Tell the user in a box, and in the log."""
        self.progress.log(message)
        slicer.util.errorDisplay(message, windowTitle=_("DEMIST"))


def forget() -> None:
    """Forget the submodules, so that the next import reads them again."""
    for name in [name for name in sys.modules if name.split(".")[0] == "DEMISTSlicerLib"]:
        del sys.modules[name]
