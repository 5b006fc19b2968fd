"""Where the worker's environment is: a folder of the user's choice, or one in Slicer's settings folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer

from ..Core import ensureCore

if TYPE_CHECKING:
    from DEMISTCore.environment import Environment

_SETTING = "DEMIST/EnvironmentFolder"


def chosenFolder() -> Path:
    """The folder that environments are made in, one for each version of Python."""
    settings = _settings()
    chosen = str((settings.value(_SETTING) if settings is not None else "") or "")
    return Path(chosen) if chosen else defaultFolder()


def defaultFolder() -> Path:
    """``DEMIST`` beside Slicer's settings file."""
    file = str(getattr(slicer.app, "slicerUserSettingsFilePath", "") or "")
    return (Path(file).parent if file else Path.home() / ".demist") / "DEMIST"


def choose(folder: Path | None) -> None:
    """Keep the user's choice; None: the default."""
    settings = _settings()
    if settings is not None:
        settings.setValue(_SETTING, "" if folder is None else str(folder))


def environmentFolder() -> Path:
    """The environment's own folder: Slicers with another Python have theirs beside it."""
    ensureCore()
    from DEMISTCore.environment.place import python_tag

    return chosenFolder() / python_tag()


def environment() -> Environment:
    """What there is."""
    folder = environmentFolder()
    from DEMISTCore.environment import read_environment

    return read_environment(folder)


def usable() -> Environment | None:
    """The environment that the worker is started in; None where there is none that works."""
    found = environment()
    return found if found.is_ready else None


def _settings() -> Any:
    find = getattr(getattr(slicer, "app", None), "userSettings", None)
    return find() if callable(find) else None
