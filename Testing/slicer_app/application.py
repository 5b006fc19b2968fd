"""``slicer.app``, ``slicer.mrmlScene`` and the modules' names put in place."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

_installed: Application | None = None


class Application:
    """Stands in for ``slicer.app`` (qSlicerApplication); the scene and the logics behind it are real."""

    applicationName = "Slicer"
    revision = "0"
    majorVersion, minorVersion = 5, 10

    def __init__(self) -> None:
        from PySide6 import QtCore, QtWidgets

        from .core import start

        self.qt = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["Slicer"])
        self._loop = QtCore.QEventLoop()
        self.temporaryPath = tempfile.mkdtemp(prefix="Slicer-")
        self.core = start(self.temporaryPath)  # the real scene, application logic and module logics
        self._started: list[Callable[[], object]] = []
        self.slicerHome = sys.prefix
        self.slicerUserSettingsFilePath = str(Path(self.temporaryPath) / "Slicer.ini")

    def mrmlScene(self) -> Any:
        return self.core.scene

    def applicationLogic(self) -> Any:
        return self.core.app_logic

    def processEvents(self, *_: object) -> None:
        self._loop.processEvents()

    def testingEnabled(self) -> bool:
        """True: message boxes are not shown but answered at once, as in Slicer's own tests."""
        return True

    def commandOptions(self) -> Any:
        return types.SimpleNamespace(noMainWindow=True, testingEnabled=True)

    def translate(self, context: str, text: str) -> str:
        return text

    def mainWindow(self) -> None:
        return None

    def connect(self, signature: str, slot: Callable[[], object]) -> bool:
        """``startupCompleted()`` is emitted by :meth:`completeStartup`; other signals never are."""
        self._started.append(slot)
        return True

    def completeStartup(self) -> None:
        """What the application does once everything is loaded."""
        for slot in self._started:
            slot()
        self._started.clear()

    def userSettings(self) -> Any:
        """Settings that are forgotten at the end of the process."""
        import qt

        return qt.QSettings(str(Path(self.temporaryPath) / "Slicer.ini"), qt.QSettings.IniFormat)

    settings = userSettings

    def moduleManager(self) -> Any:
        """Modules are loaded by :mod:`.modules`; nobody unloads them while the application runs."""
        nothing = types.SimpleNamespace(connect=lambda *_: True, disconnect=lambda *_: True)
        import slicer

        nothing.module = lambda name: getattr(slicer.modules, name.lower(), None)
        return nothing

    def setOverrideCursor(self, *_: object) -> None: ...

    def restoreOverrideCursor(self) -> None: ...

    def layoutManager(self) -> None:
        """None, as in a Slicer without a main window."""
        return None

    def pauseRender(self) -> None: ...

    def resumeRender(self) -> None: ...


def _keep_none() -> None:
    """Keep Python alive: PySide6 counts on a None that is immortal, as it is from Python 3.12 on.

    Before that, its methods without a result take a reference from None at every call, and after some ten thousand
    Python ends with "deallocating None". So None is given more references than any test can use up.
    """
    import ctypes

    if sys.version_info < (3, 12):
        ctypes.c_ssize_t.from_address(id(None)).value += 1 << 40


def application() -> Application:
    """The application; it is set up at the first call of :func:`install`."""
    install()
    assert _installed is not None
    return _installed


def app() -> Any:
    """trame-slicer's SlicerApp: the real core, with slice views that render off screen."""
    return application().core


def install() -> None:
    """Put ``slicer.app``, ``slicer.mrmlScene``, ``qt``, ``ctk``, ``slicer.i18n`` ... in place. May be called again."""
    global _installed
    if _installed is not None:
        return
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    _keep_none()
    import slicer

    from . import modules, qmrml
    from .ctk import ctk_module
    from .flavour import qt_module
    from .loader import UiLoader
    from .parameters import parameter_module

    _installed = Application()
    sys.modules["qt"] = qt_module()
    sys.modules["qt"].QUiLoader = UiLoader
    sys.modules["ctk"] = ctk_module()
    slicer.qMRMLWidget, slicer.qMRMLNodeComboBox = qmrml.qMRMLWidget, qmrml.qMRMLNodeComboBox
    slicer.qSlicerScriptedLoadableModule = modules.qSlicerScriptedLoadableModule
    slicer.qSlicerScriptedLoadableModuleWidget = modules.qSlicerScriptedLoadableModuleWidget
    for name in qmrml.PLACEHOLDERS:
        setattr(slicer, name, type(name, (), {"__doc__": "Not used by the panel."}))
    i18n = types.ModuleType("slicer.i18n")
    i18n.tr = lambda text: text
    i18n.translate = lambda context, text: text
    sys.modules["slicer.i18n"] = slicer.i18n = i18n
    slicer.app = _installed
    slicer.mrmlScene = _installed.core.scene
    slicer.modules = types.SimpleNamespace()
    from .scripted import scripted_module

    sys.modules["slicer.ScriptedLoadableModule"] = slicer.ScriptedLoadableModule = scripted_module()
    sys.modules["slicer.parameterNodeWrapper"] = slicer.parameterNodeWrapper = parameter_module()
    from . import source

    slicer_source = source.folder()
    if slicer_source is not None:
        source.use(slicer_source)
    module_folder = str(Path(__file__).parents[2] / "DEMISTSlicer")
    if module_folder not in sys.path:
        sys.path.insert(0, module_folder)  # a Slicer finds DEMISTSlicerLib beside the module's file


def fresh_scene() -> Any:
    """Close the scene, as File > Close Scene does (singletons such as views stay), and return it."""
    scene = application().mrmlScene()
    scene.Clear(0)
    if scene.GetNodeByID("vtkMRMLColorTableNodeLabels") is None:
        application().applicationLogic().GetColorLogic().AddDefaultColorNodes()
    return scene


def process_events(seconds: float = 0.0) -> None:
    """Let Qt work for a while."""
    end = time.monotonic() + seconds
    application().processEvents()
    while time.monotonic() < end:
        application().processEvents()
        time.sleep(0.005)


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> bool:
    """Let Qt work until ``condition()`` holds; False when that does not happen in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        application().processEvents()
        time.sleep(0.005)
    return True
