"""Slicer's own pure-Python files in the place of the stand-ins, from a source tree on this computer.

``DEMIST_SLICER_SOURCE=/path/to/Slicer pytest Testing/test_slicer_*.py`` runs every test of the module over Slicer's
ScriptedLoadableModule.py, parameterNodeWrapper, i18n.py and packaging.py (``slicer.util`` is Slicer's own anyway: it
comes with slicer-core). None of these files is part of this repository.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

VARIABLE = "DEMIST_SLICER_SOURCE"
#: Modules of ``Base/Python/slicer``, in the order in which they need each other.
MODULES = ("i18n", "packaging", "parameterNodeWrapper", "ScriptedLoadableModule")


def folder() -> Path | None:
    """``Base/Python/slicer`` of the source tree; None where none is named.

    Raises:
        FileNotFoundError: the variable names something else.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    found = Path(named) / "Base" / "Python" / "slicer"
    if not (found / "ScriptedLoadableModule.py").is_file():
        raise FileNotFoundError(f"{VARIABLE} must name a source tree of Slicer; {found} is not in it.")
    return found


def use(source: Path) -> None:
    """Put Slicer's own files in place."""
    import slicer

    for name in MODULES:
        path = source / name / "__init__.py" if (source / name).is_dir() else source / f"{name}.py"
        if not path.is_file():  # packaging came with 5.12
            continue
        places = [str(path.parent)] if path.name == "__init__.py" else None
        spec = importlib.util.spec_from_file_location(f"slicer.{name}", path, submodule_search_locations=places)
        module = importlib.util.module_from_spec(spec)
        sys.modules[f"slicer.{name}"] = module
        setattr(slicer, name, module)
        spec.loader.exec_module(module)
