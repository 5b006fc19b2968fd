"""Where DEMISTCore is: in Slicer's Python, inside the extension, or in a source checkout."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from .I18n import _
from .RunError import RunError


def coreFolder() -> Path:
    """The folder to import DEMISTCore from.

    The one that ships with the module goes before an installed one: the two are made for each other.

    Raises:
        RunError: it is nowhere.
    """
    here = Path(__file__).resolve()
    # The extension installs it beside DEMISTSlicerLib; in a source checkout it is beside the module's folder.
    for folder in (here.parents[1], here.parents[2]):
        if (folder / "DEMISTCore" / "__init__.py").is_file():
            return folder
    spec = importlib.util.find_spec("DEMISTCore")
    if spec is not None and spec.origin:
        return Path(spec.origin).parents[1]
    raise RunError("dependency", _("DEMISTCore is not installed; install the DEMIST extension again."))


def ensureCore() -> Path:
    """Make ``import DEMISTCore`` work here; returns :func:`coreFolder`."""
    folder = coreFolder()
    if "DEMISTCore" not in sys.modules and str(folder) not in sys.path:
        sys.path.append(str(folder))
    return folder
