"""What each button starts, with what the parameters say."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import qt
import slicer

from ..I18n import _
from ..Install.Installer import Installer
from ..Logic import DEMISTSlicerLogic
from ..Nodes.Placement import VOLUME_REFERENCE
from ..Nodes.Segmentation import acceptSuggestion
from ..Nodes.Volumes import t1wOf
from ..Run.Visits import STATISTICS
from ..RunError import RunError
from .ProgressPanel import ProgressPanel
from .SamplingPanel import SamplingPanel
from .Units import PERCENT

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode

#: Boxes of numbers with a fraction. They take over what is typed at the end only: Slicer's parameter wrapper writes
#: every value back into its box, which in the middle of "0.7" makes "0.00" of the first digit.
FRACTIONS = (
    "guidanceSpinBox",
    "gapSpinBox",
    "proximalSpinBox",
    "distalSpinBox",
    "ageSpinBox",
    "sexSpinBox",
    "ventricularVolumeSpinBox",
    "brainVolumeSpinBox",
)


class Actions:
    """The buttons that start runs, and Cancel. A run begins as soon as there is something that can compute.

    Args:
        ui: the panel's widgets.
        logic, installer: what runs and what installs.
        parameters: gives the parameter node wrapper, or None.
        sampling: knows how a map is to be made.
        progress: is told how it goes.
        report: shows a sentence about what went wrong.
        onChanged: called when what can be pressed may have changed.

    Attributes:
        onCancel: called by Cancel before it stops what runs.
    """

    def __init__(
        self,
        ui: Any,
        logic: DEMISTSlicerLogic,
        installer: Installer,
        parameters: Callable[[], Any],
        sampling: SamplingPanel,
        progress: ProgressPanel,
        report: Callable[[str], object],
        onChanged: Callable[[], object],
    ) -> None:
        self.ui, self.logic, self.installer = ui, logic, installer
        self.sampling, self.progress = sampling, progress
        self._parameters, self._report, self._onChanged = parameters, report, onChanged
        self.onCancel: Callable[[], object] = lambda: None
        self._again: Callable[[], object] | None = None
        self._buttons = tuple(
            (getattr(ui, name), slot)
            for name, slot in (
                ("applyButton", self.apply),
                ("cancelButton", self.cancel),
                ("sampleButton", self.loadSample),
                ("suggestButton", self.suggest),
                ("checkedButton", self.check),
                ("statisticsButton", self.measure),
                ("reportButton", self.report),
                ("dicomButton", self.exportDicom),
                ("generateButton", self.generate),
                ("browseGenerateButton", self.browseGenerate),
            )
        )
        for button, slot in self._buttons:
            button.connect("clicked()", slot)

    def disconnect(self) -> None:
        """Hear no more of the widgets."""
        for button, slot in self._buttons:
            button.disconnect("clicked()", slot)

    def apply(self) -> None:
        """Synthesize."""
        parameters = self._parameters()
        if parameters is None:
            return
        # What belongs to another patient's T1w is not overwritten: new volumes are made.
        for name in ("psr", "uncertainty"):
            node = getattr(parameters, name)
            if node is not None and (node in (parameters.t1, parameters.flair) or _ofAnother(node, parameters.t1)):
                setattr(parameters, name, None)
        self.run(
            lambda: self.logic.synthesize(
                parameters.t1,
                parameters.flair,
                self.sampling.options(),
                brainMask=parameters.brainMask,
                preview=self.sampling.preview,
                sanity=True,
                output=parameters.psr,
                uncertainty=parameters.uncertainty,
                wait=False,
            ),
            again=self.apply,
        )

    def cancel(self) -> None:
        """Stop what is running."""
        self.progress.say(_("Stopping ..."))
        self.installer.cancel()
        self.onCancel()
        self.logic.cancel()

    def loadSample(self) -> None:
        """A simulated patient as T1w and FLAIR."""
        self.run(lambda: self.logic.simulate(wait=False))

    def suggest(self) -> None:
        """Suggest lesions."""
        parameters = self._parameters()
        if parameters is None:
            return
        self.run(
            lambda: self.logic.suggestLesions(
                parameters.t1,
                parameters.flair,
                brainMask=parameters.brainMask,
                anyBrainVolume=parameters.anyBrainVolume,
                distances=self._distances(),
                wait=False,
            )
        )

    def check(self) -> None:
        """The user answers for the suggested lesions from now on."""
        acceptSuggestion(self._parameters().lesions)
        self._onChanged()

    def report(self) -> None:
        """Measure the PSR map, and write one page about it where the user says."""
        parameters = self._parameters()
        if parameters is None or parameters.psr is None:
            return
        path = qt.QFileDialog.getSaveFileName(
            None, _("Save the report"), f"{parameters.psr.GetName()}.html", _("Web page (*.html)")
        )
        if path:
            self.measure(path if path.lower().endswith((".html", ".htm")) else f"{path}.html")

    def exportDicom(self) -> None:
        """Write map, uncertainty and lesions as DICOM into a folder that the user chooses."""
        parameters = self._parameters()
        if parameters is None or parameters.psr is None:
            return
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder for the DICOM files"), "")
        if folder:
            self.run(
                lambda: self.logic.exportDicom(
                    parameters.psr,
                    folder,
                    parameters.lesions,
                    parameters.uncertainty,
                    parameters.statisticsTable,
                    wait=False,
                )
            )

    def measure(self, report: str | None = None) -> None:
        """Measure the PSR map; ``report``: page to write about it."""
        parameters = self._parameters()
        if parameters is None:
            return
        # Measured again, a map's table is made anew; that of another map stays.
        table = parameters.statisticsTable
        if table is not None and (
            table.GetAttribute("DEMIST.Table") != STATISTICS
            or table.GetNodeReference(VOLUME_REFERENCE) is not parameters.psr
        ):
            table = None
        self.run(
            lambda: self.logic.computeStatistics(
                parameters.psr,
                lesions=parameters.lesions,
                t1=parameters.t1,
                flair=parameters.flair,
                brainMask=parameters.brainMask,
                uncertainty=parameters.uncertainty,
                distances=self._distances(),
                table=table,
                anyBrainVolume=parameters.anyBrainVolume,
                report=report,
                percent=parameters.unit == PERCENT,
                wait=False,
            )
        )

    def generate(self) -> None:
        """Make a synthetic T1w."""
        parameters = self._parameters()
        if parameters is None:
            return
        self.run(
            lambda: self.logic.generateT1w(
                age=parameters.age,
                sex=parameters.sex,
                ventricularVolume=parameters.ventricularVolume,
                brainVolume=parameters.brainVolume,
                steps=parameters.generateSteps,
                seed=parameters.generateSeed,
                bundle=parameters.generateBundle or None,
                device=parameters.device,
                wait=False,
            ),
            again=self.generate,
        )

    def browseGenerate(self) -> None:
        """Choose the folder of the Brain LDM weights."""
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder of the Brain LDM weights"), "")
        parameters = self._parameters()
        if folder and parameters is not None:
            parameters.generateBundle = folder

    def _distances(self) -> dict[str, Any]:
        """Settings of regions as DEMISTCore.regions.RegionSettings names them; mm."""
        parameters = self._parameters()
        return {
            "lesion_gap_mm": parameters.gapMm,
            "proximal_mm": (parameters.gapMm, parameters.proximalMm),
            "distal_mm": parameters.distalMm,
            "depth_mm": parameters.depthMm,
        }

    def run(self, start: Callable[[], object], again: Callable[[], object] | None = None) -> None:
        """Start a run as soon as there is something that can compute, installed first if the user agrees.

        Args:
            start: starts it.
            again: starts the same with what the parameters say by then, on another device; None if it has none.
        """
        if self.installer.isRunning:
            return
        self._again = again
        if not self.installer.ensure(lambda: self._start(start)):
            self.progress.log(_("Not started: the Python packages are needed."))
            self.progress.say(_("Ready"))
        self._onChanged()

    def failed(self, kind: str, message: str) -> None:
        """A run has failed: say so, and offer the CPU where a GPU has too little memory, in one click.

        Args:
            kind, message: see :class:`.RunError.RunError`.
        """
        parameters = self._parameters()
        gpu = parameters is not None and self.logic.resolvedDevice(parameters.device).startswith(("cuda", "mps"))
        if kind != "memory" or self._again is None or not gpu:
            self._report(message)
            return
        self.progress.log(message)
        text = _("{message}\n\nCompute on the CPU now? It takes longer, and stays chosen (Advanced > Model > Device).")
        if slicer.util.confirmOkCancelDisplay(text.format(message=message), _("DEMIST")):
            parameters.device = "cpu"
            qt.QTimer.singleShot(0, self._repeat)  # when whoever told of the failure is done with it

    def _repeat(self) -> None:
        if self._again is not None and not self.logic.isRunning:
            self._again()

    def _start(self, start: Callable[[], object]) -> None:
        """Start a run; what is wrong with the input is told at once."""
        if self._parameters() is None:
            return  # the user has left the module while packages were installed
        for name in FRACTIONS:  # what was typed last counts, though on macOS a click leaves the focus where it is
            getattr(self.ui, name).interpretText()
        self.progress.begin()
        try:
            start()
        except RunError as error:
            self._report(str(error))
        self._onChanged()


def _ofAnother(node: vtkMRMLScalarVolumeNode, t1: vtkMRMLScalarVolumeNode) -> bool:
    """Whether a map was made for another T1w."""
    own = t1wOf(node)
    return own is not None and own is not t1
