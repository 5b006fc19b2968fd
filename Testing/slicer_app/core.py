"""The real part of the application: scene, application logic, colours, module logics and views of Slicer.

What ``qSlicerCoreApplication`` and the loadable modules do at start; trame-slicer does most of it, with the classes of
slicer-core.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def start(home: str) -> Any:
    """Set up the real application core; ``home`` is the folder of the application.

    Returns trame-slicer's ``SlicerApp``: ``scene``, ``app_logic``, ``view_manager`` ... The logics of the modules that
    trame-slicer has no use for, and DEMIST has, are registered too.
    """
    import slicer
    from trame_slicer.core import SlicerApp

    core = SlicerApp()
    core.app_logic.SetHomeDirectory(home)
    core.app_logic.SetShareDirectory("share")
    (Path(home) / "share" / "ColorFiles").mkdir(parents=True)
    core.scene.AddNode(slicer.vtkMRMLLayoutNode())  # as qSlicerApplication's layout manager does
    for name, kind in (
        ("Tables", slicer.vtkSlicerTablesLogic),
        ("Plots", slicer.vtkSlicerPlotsLogic),
        ("Transforms", slicer.vtkSlicerTransformLogic),
    ):
        core.register_module_logic(kind(), logic_name=name)
    colors = slicer.vtkSlicerColorLogic()  # knows colour legends, which the plain colour logic does not
    colors.SetMRMLApplicationLogic(core.app_logic)
    colors.SetMRMLScene(core.scene)
    core.app_logic.SetModuleLogic("Colors", colors)
    core.app_logic.GetColorLogic().AddDefaultColorNodes()
    return core
