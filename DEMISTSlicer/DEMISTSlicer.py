"""DEMIST: a myelin-sensitive PSR map from T1w and FLAIR. What Slicer looks for: module, widget, logic, test."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import slicer
from DEMISTSlicerLib.Core import ensureCore
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleTest

ensureCore()  # DEMISTCore ships with the extension; in a source checkout it lies beside the module's folder

from DEMISTSlicerLib.Logic import DEMISTSlicerLogic as _Logic  # noqa: E402
from DEMISTSlicerLib.Panel.Widget import DEMISTSlicerWidget as _Widget  # noqa: E402

#: OWNER: whoever publishes the repository puts the account's name here, too.
DOCUMENTATION = "https://github.com/OWNER/SlicerDEMIST/blob/main/docs/slicer.md"
#: What is read ahead, while it is.
_ahead: list[Any] = []


class DEMISTSlicer(ScriptedLoadableModule):
    """The module as Slicer lists it."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("DEMIST myelin map")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Quantification")]
        self.parent.dependencies = ["Segmentations", "SubjectHierarchy", "Volumes", "Colors"]
        self.parent.contributors = ["DEMIST for 3D Slicer developers"]
        self.parent.helpText = (
            _(
                "Estimates a myelin map (pool size ratio, PSR) from a routine T1w and a FLAIR and measures it in MS "
                "lesions and in normal-appearing white matter. "
                "<b>Research use only</b>: the model that ships was trained on simulated PSR; its output is an "
                "estimate, not a measurement."
            )
            + f'<p><a href="{DOCUMENTATION}">{_("Tutorial and documentation")}</a></p>'
        )
        self.parent.acknowledgementText = _(
            'The method is that of Wang et al., <a href="https://arxiv.org/abs/2511.12396">arXiv 2511.12396</a>. This '
            "is an independent implementation; Brain LDM is that of Pinaya et al. (2022)."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)
        slicer.app.connect("startupCompleted()", readAhead)


def registerSampleData() -> None:
    """Offer a simulated patient in the Sample Data module, made on this computer; and keep Slicer's *Export to DICOM*
    from writing maps as zeros."""
    from DEMISTSlicerLib.Panel.DicomGuard import guard
    from DEMISTSlicerLib.Panel.SampleData import register

    guard()
    register(str(Path(__file__).parent / "Resources" / "Icons" / "DEMISTSlicerSample.png"))


def readAhead() -> None:
    """Read, once Slicer has started and has nothing else to do, what the panel needs to know when it opens.

    What cannot be read is told by the panel.
    """
    from DEMISTSlicerLib.Run import Bundles
    from DEMISTSlicerLib.Run.Steps import Steps

    _ahead[:] = [Steps(Bundles.readAhead(), lambda _nothing: _ahead.clear(), lambda _error: _ahead.clear())]


class DEMISTSlicerWidget(_Widget):
    """The panel; Slicer looks for the class here, the code is in DEMISTSlicerLib/Panel/Widget.py."""


class DEMISTSlicerLogic(_Logic):
    """The logic; Slicer looks for the class here, the code is in DEMISTSlicerLib/Logic.py."""


class DEMISTSlicerTest(ScriptedLoadableModuleTest):
    """The cases of ``Testing/Python``, in Slicer: Reload and Test, or the command in docs/slicer.md."""

    def runTest(self) -> None:
        """Run all of them; the first one that fails ends it with its traceback."""
        self.setUp()
        folder = str(Path(__file__).parent / "Testing" / "Python")
        if folder not in sys.path:
            sys.path.insert(0, folder)
        from DEMISTSlicerTestCases import run

        run(self.delayDisplay)
