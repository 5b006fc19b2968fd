"""The registry of training stages: every module here with a ``STAGE`` is one. No torch until a stage is built."""

from __future__ import annotations

import importlib
import pkgutil

from .kind import Kind, Source, Task, Wanted

__all__ = ["STAGES", "Kind", "Source", "Task", "Wanted"]


def _found() -> dict[str, Kind]:
    modules = [importlib.import_module(f"{__name__}.{each.name}") for each in pkgutil.iter_modules(__path__)]
    kinds = [module.STAGE for module in modules if hasattr(module, "STAGE")]
    return {kind.name: kind for kind in sorted(kinds, key=lambda kind: (kind.order, kind.name))}


#: name -> stage, in the order in which they are listed
STAGES: dict[str, Kind] = _found()
