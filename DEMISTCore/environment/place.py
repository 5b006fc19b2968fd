"""Where an environment's parts lie, what is known of it, and how Python is started in it.

A folder of packages (``pip --target``) and no virtual environment: 3D Slicer's Python is started by a launcher that
sets its paths, which a ``venv`` made from it would lose. ``environment.json`` names the folder of packages in use and
is replaced last, so that a build which is stopped leaves the one before it as it was.
"""

from __future__ import annotations

import json
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MANIFEST = "environment.json"
LOG = "install.log"
#: Folders of packages begin so; whatever else lies in the folder is nobody's business here.
PACKAGES = "packages-"
TEMPORARY = "tmp"


@dataclass(frozen=True)
class Environment:
    """What is known of an environment.

    Attributes:
        folder: where it is, or would be.
        state: ``ready``; ``absent``; ``broken`` (its parts are gone, or what tells of it cannot be read); ``foreign``
            (made by a Python whose compiled packages this one cannot load).
        packages: folder of packages; None unless ready.
        shared: folders searched after it, for a torch that is the caller's.
        versions: installed version by distribution.
        size: bytes on disk.
        device: what torch computes on there, as it was tried: ``cuda``, ``mps`` or ``cpu``.
        note: a sentence about that; empty if there is nothing to say.
    """

    folder: Path
    state: str = "absent"
    packages: Path | None = None
    shared: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    size: int = 0
    device: str = "cpu"
    note: str = ""

    @property
    def is_ready(self) -> bool:
        """True if Python can be started in it."""
        return self.state == "ready"


def python_tag() -> str:
    """What compiled packages depend on: Python's version and the platform, as ``python3.12-linux-x86_64``."""
    return f"python{sys.version_info.major}.{sys.version_info.minor}-{sysconfig.get_platform()}"


def read_environment(folder: Path) -> Environment:
    """What there is in ``folder``; takes no longer than reading a small file."""
    folder = Path(folder)
    try:
        told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Environment(folder)
    except (OSError, ValueError):
        return Environment(folder, "broken")
    try:
        packages, shared = folder / str(told["packages"]), tuple(map(str, told["shared"]))
        versions = {str(name): str(version) for name, version in told["versions"].items()}
        size, device, note = int(told["size"]), str(told["device"]), str(told["note"])
        tag = str(told["python"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return Environment(folder, "broken")
    if tag != python_tag():
        return Environment(folder, "foreign", note=tag)
    # The name is one in the folder, whatever was written there: it is about to be imported from, or removed.
    inside = packages.parent == folder and packages.name.startswith(PACKAGES)
    if not inside or not packages.is_dir() or not all(Path(path).is_dir() for path in shared):
        return Environment(folder, "broken")
    return Environment(folder, "ready", packages, shared, versions, size, device, note)


def arguments(module: str, core: Path, packages: Path, shared: Sequence[str] = ()) -> list[str]:
    """Arguments for Python to run ``module`` with the packages of an environment, and no others but ``shared``.

    The search path is set in the new process: Slicer's launcher puts Slicer's own packages before whatever
    ``PYTHONPATH`` says. The working directory, where anybody's ``json.py`` may lie, is no part of it.

    Args:
        module: to be run as a program.
        core: folder that DEMISTCore is imported from.
        packages: of the environment.
        shared: folders searched last.
    """
    first, last = ascii([str(core), str(packages)]), ascii([str(path) for path in shared])
    start = (
        "import sys, runpy; "
        f"first, last = {first}, {last}; "
        "sys.path[:] = first + [p for p in sys.path if p and p not in first "
        "and not p.rstrip('/\\\\').endswith(('site-packages', 'dist-packages'))] + last; "
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )
    return ["-c", start]


def variables(environment: Environment) -> dict[str, str]:
    """Environment variables that a process in it needs: a GPU that was tried in vain is not tried again."""
    told = {"PYTHONNOUSERSITE": "1"}
    if environment.device == "cpu" and environment.note:
        told["CUDA_VISIBLE_DEVICES"] = ""
    return told


def manifest(environment: Environment) -> dict[str, Any]:
    """The content of ``environment.json``."""
    return {
        "python": python_tag(),
        "packages": environment.packages.name if environment.packages else "",
        "shared": list(environment.shared),
        "versions": environment.versions,
        "size": environment.size,
        "device": environment.device,
        "note": environment.note,
    }
