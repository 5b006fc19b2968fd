"""What stands in for the Slicer application in tests: Qt by PySide6, its widgets thin; everything of MRML is real.

The MRML classes, the logics and ``slicer.util`` are Slicer's own (slicer-core from PyPI); the scene with its default
nodes and the views are set up by trame-slicer (:mod:`.core`). Stood in for, because no package offers them:

- ``qt``: PySide6 made to look as PythonQt does (:mod:`.flavour`, :mod:`.loader`); ``ctk`` (:mod:`.ctk`); the qMRML
  widgets (:mod:`.qmrml`);
- ``slicer.app`` (:mod:`.application`) and ``slicer.modules`` (:mod:`.modules`);
- ``slicer.ScriptedLoadableModule`` (:mod:`.scripted`), ``slicer.parameterNodeWrapper`` (:mod:`.parameters`),
  ``slicer.i18n``. With the environment variable DEMIST_SLICER_SOURCE naming a source tree of Slicer, its own files
  take the place of these (:mod:`.source`), and of ``slicer.packaging``, which is missing otherwise.

Use: ``slicer_app.install()`` before anything imports ``slicer``, ``qt`` or ``ctk``; ``slicer_app.fresh_scene()`` before
a test.
"""

from __future__ import annotations

from .application import Application, app, application, fresh_scene, install, process_events, wait_until
from .modules import close_module, open_module

__all__ = [
    "Application",
    "app",
    "application",
    "close_module",
    "fresh_scene",
    "install",
    "open_module",
    "process_events",
    "wait_until",
]
