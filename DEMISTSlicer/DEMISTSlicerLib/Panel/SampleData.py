"""A patient to try the module on: simulated on this computer, registered with Slicer's Sample Data module, no download.

The module here is DEMIST's own; Slicer's, ``import SampleData``, is imported where it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import slicer

from ..Errors import DemistError
from ..I18n import _
from ..Nodes.Patient import createPatient

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode

CATEGORY = "DEMIST"
SAMPLE = "DEMISTSimulatedPatient"


def register(thumbnailFileName: str | None = None) -> None:
    """Offer the patient in Slicer's Sample Data module; may be called again."""
    import SampleData as slicerSampleData

    logic = slicerSampleData.SampleDataLogic
    logic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=SAMPLE,
        # Not fetched from anywhere; Slicer wants an address and a file name for each node.
        uris="demist:simulated-patient",
        fileNames="DEMISTSimulatedPatient.nrrd",
        nodeNames=_("Simulated patient (T1w, FLAIR, true PSR)"),
        thumbnailFileName=thumbnailFileName,
        customDownloader=download,
    )


def download(source: Any = None) -> list[Any]:
    """What the button in Sample Data does: simulate the patient and put it into the scene.

    The work is done in the module's child process where there is one, in its environment, which is offered to be
    installed if it is missing; else here (half a minute without response).

    Returns:
        The nodes: T1w, FLAIR, true PSR, true lesions. Empty after a problem, which the user is told.
    """
    # Slicer keeps this function from its start on; the logic, and what it raises, is that of the last reload.
    from ..RunError import RunError

    try:
        logic = _moduleLogic()
        if logic is not None and hasattr(logic, "simulate"):
            if not _canCompute():
                return []
            made = logic.simulate()
            nodes = [made.t1w, made.flair, made.psr, made.segmentation]
        else:
            nodes = list(simulateHere().values())
    except (DemistError, RunError) as error:
        slicer.util.errorDisplay(str(error))
        return []
    show(nodes[0])
    return nodes


def simulateHere(seed: int | None = None) -> dict[str, Any]:
    """Simulate the patient in this process; returns what :func:`createPatient` does.

    Raises:
        DEMISTCore.errors.InputError: a package is missing that the simulation needs.
    """
    from DEMISTCore.demo import PATIENT_SEED, simulate_patient

    seed = PATIENT_SEED if seed is None else seed
    patient = simulate_patient(seed)
    volumes = {name: getattr(patient, name) for name in ("t1w", "flair", "psr", "lesions")}
    return createPatient({name: (v.array, v.affine) for name, v in volumes.items()}, patient.protocol, seed)


def show(t1Node: vtkMRMLScalarVolumeNode) -> None:
    """Show the new T1w in all slice views, as Slicer does with data that was just loaded."""
    app = getattr(slicer, "app", None)
    logic = app.applicationLogic() if app is not None else None
    if logic is not None and t1Node is not None:
        logic.GetSelectionNode().SetActiveVolumeID(t1Node.GetID())
        logic.PropagateVolumeSelection(1)


def _canCompute() -> bool:
    """Whether there is what the child process needs, installed now if the user agrees; told if that fails."""
    from ..Install.Installer import Installer

    installer, failures = Installer(), []
    installer.failed.connect(lambda message, lastLines: failures.append((message, lastLines)))
    ready = installer.ensureNow()
    for message, lastLines in failures:
        slicer.util.errorDisplay(message, detailedText=lastLines)
    return ready


def _moduleLogic() -> Any:
    try:
        return slicer.util.getModuleLogic("DEMISTSlicer")
    except (AttributeError, RuntimeError):  # no such module: a test, or a script without the application
        return None
