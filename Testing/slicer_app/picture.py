"""The picture of the panel in docs: a simulated patient, the default model, a run and its statistics, as a person does.

Run as ``python -m slicer_app.picture docs/images/slicer_panel.png`` with ``Testing`` on PYTHONPATH; takes minutes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import slicer_app


def main(out: Path) -> None:
    """Make the picture."""
    slicer_app.install()
    import numpy as np
    import slicer

    from DEMISTCore.demo import PATIENT_SEED, simulate_patient

    parent = slicer_app.open_module().widgetRepresentation()
    panel = parent.self()
    panel._asked = True
    patient = simulate_patient(PATIENT_SEED)
    label = "vtkMRMLLabelMapVolumeNode"
    for volume, name, kind in (
        (patient.t1w, "sim_T1w", "vtkMRMLScalarVolumeNode"),
        (patient.flair, "sim_FLAIR", "vtkMRMLScalarVolumeNode"),
        (patient.brain, "sim_brain", label),
        (patient.lesions, "sim_lesions", label),
    ):
        array = np.asarray(volume.array)
        array = array.astype(np.uint8 if kind == label else np.float32)
        slicer.util.addVolumeFromArray(np.ascontiguousarray(array.T), volume.affine, name, kind)
    parent.isEntered = True
    panel.initializeParameterNode()
    parameters = panel._parameterNode
    parameters.brainMask, parameters.lesions = slicer.util.getNode("sim_brain"), slicer.util.getNode("sim_lesions")
    panel.sampling.choose("fast")
    parameters.seeds = 2
    for start in (panel.actions.apply, panel.actions.measure):
        start()
        if not slicer_app.wait_until(lambda: not panel.logic.isRunning, 3600):
            raise SystemExit("The run did not end in an hour.")
        slicer_app.process_events(0.1)
    print(panel.ui.logTextEdit.plainText)
    parent.resize(440, 1340)
    parent.show()
    slicer_app.process_events(0.3)
    parent.grab().save(str(out))
    slicer_app.close_module()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
