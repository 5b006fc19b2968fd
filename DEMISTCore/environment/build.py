"""An environment made, made again, or removed. What was there stays in use until the new one has been tried."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import Cancelled, DemistError, InputError
from ..files import write_json
from ..lock import FolderLock
from . import pip, torch_build
from .place import LOG, MANIFEST, PACKAGES, TEMPORARY, Environment, arguments, manifest, read_environment

#: Free space that a build needs, GB: what is fetched, and what it becomes.
NEEDED = {"cpu": 3.0, "default": 3.0, "shared": 1.5}
NEEDED_CUDA = 9.0


@dataclass(frozen=True)
class Plan:
    """What to build.

    Attributes:
        folder: where.
        requirements: file of requirements, one a line; ``#`` starts a comment.
        torch: ``auto`` or ``cpu``.
        wheels: folder to install from without a network.
        share: use the torch that this Python has already, where it satisfies.
        space: free space to ask for (GB); None: what is usual.
    """

    folder: Path
    requirements: Path
    torch: str = "auto"
    wheels: Path | None = None
    share: bool = True
    space: float | None = None


def build(
    plan: Plan,
    tell: Callable[[str, float], object],
    say: Callable[[str], object],
    cancelled: threading.Event,
) -> Environment:
    """Make the environment; see :class:`.pip.Run` for ``tell``, ``say`` and ``cancelled``.

    Raises:
        InputError: it cannot be made; what was there before is as it was.
        Cancelled: it was stopped; likewise.
    """
    wanted = requirements(plan.requirements)
    if plan.wheels is not None and not any(plan.wheels.glob("*.whl")):
        raise InputError(f"{plan.wheels} holds no wheels (*.whl); choose the folder that does.")
    with FolderLock(plan.folder, "the environment"):
        tidy(plan.folder)
        (plan.folder / LOG).unlink(missing_ok=True)
        temporary = plan.folder / TEMPORARY
        temporary.mkdir(exist_ok=True)
        target = plan.folder / f"{PACKAGES}{time.time_ns() // 1_000_000}"
        try:
            chosen = _torch(plan, wanted, temporary / "wheels")
            _check_space(plan, chosen.name)
            say(f"Installing {', '.join(wanted)} with {chosen.text} into {plan.folder}.")
            expected = pip.EXPECTED.get(chosen.name, pip.EXPECTED_CUDA)
            run = pip.Run(plan.folder, temporary, plan.folder / LOG, expected, tell, say, cancelled)
            chosen = _fetched(run, chosen, wanted, temporary, say)
            options = [*chosen.options]
            if plan.wheels is not None:
                options += ["--no-index", "--find-links", str(plan.wheels)]
            options += _limits(chosen, temporary)
            run.install(_asked(chosen, wanted), target, options)
            tell("Trying the packages", 0.96)
            made = _tried(plan.folder, target, chosen.shared, wanted, cancelled)
            write_json(plan.folder / MANIFEST, manifest(made))
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        tidy(plan.folder, patience=1)  # the one before
    tell("The environment is ready", 1.0)
    return made


def remove(folder: Path) -> None:
    """Delete an environment: what a build makes, and the folder if nothing else is in it.

    Raises:
        InputError: a part cannot be deleted.
    """
    if not folder.is_dir():
        return
    with FolderLock(folder, "the environment"):
        (folder / MANIFEST).unlink(missing_ok=True)  # first: what is half gone is no environment
        (folder / LOG).unlink(missing_ok=True)
        tidy(folder)
        left = [path.name for path in folder.glob(f"{PACKAGES}*")]
        if left:
            raise InputError(f"{folder / left[0]} is in use by another program; close that, and remove it again.")
    with suppress(OSError):
        folder.rmdir()


def tidy(folder: Path, patience: float = 60.0) -> None:
    """Delete what a stopped build has left, and environments that are not in use any more.

    The pip of a killed build ends with it, but not within the same millisecond: what it may still have written is
    looked for again a little later. What cannot be deleted within ``patience`` seconds (Windows keeps files that are
    open) is left to the next build.
    """
    used = read_environment(folder).packages
    until = time.monotonic() + patience
    while left := [
        path for path in [*folder.glob(f"{PACKAGES}*"), folder / TEMPORARY] if path != used and path.is_dir()
    ]:
        for path in left:
            shutil.rmtree(path, ignore_errors=True)
        if time.monotonic() > until:
            break
        time.sleep(0.2)


def requirements(file: Path) -> list[str]:
    """The requirements in a file.

    Raises:
        InputError: there is no such file, or it has none.
    """
    try:
        lines = [line.split("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise InputError(f"Cannot read {file}: {error.strerror or error}; name the file of requirements.") from error
    found = [line for line in lines if line]
    if not found:
        raise InputError(f"{file} names no packages; name the file of requirements.")
    return found


def distribution(requirement: str) -> str:
    """The name at the beginning of a requirement."""
    import re

    return re.split(r"[\s<>=!~;\[(@]", requirement.strip(), maxsplit=1)[0]


def _torch(plan: Plan, wanted: list[str], wheels: Path) -> torch_build.TorchBuild:
    needed = next((line for line in wanted if distribution(line) == "torch"), None)
    if needed is None:
        return torch_build.TorchBuild("default", "the package index")
    own = torch_build.own_torch() if plan.share else None
    if own is not None and _satisfies(own[0], needed):
        return torch_build.share(*own, wheels)
    return torch_build.choose(plan.torch, plan.wheels is not None)


def _fetched(
    run: pip.Run, chosen: torch_build.TorchBuild, wanted: list[str], temporary: Path, say: Callable[[str], object]
) -> torch_build.TorchBuild:
    """The build with its wheel of torch at hand, where that comes from an index of its own.

    From there torch alone is taken: asked for every package, an index that a firewall hides costs minutes for each.
    """
    if not chosen.index:
        return chosen
    needed = next(line for line in wanted if distribution(line) == "torch")
    wheels = temporary / "wheels"
    try:
        run.fetch(needed, chosen.index, wheels, _limits(chosen, temporary))
    except InputError as error:
        say(f"{chosen.index} has no torch for here ({error}) The torch of the usual index is taken.")
        return torch_build.TorchBuild("default", chosen.text)
    return torch_build.fetched(chosen, wheels)


def _asked(chosen: torch_build.TorchBuild, wanted: list[str]) -> list[str]:
    """What pip is asked for: a wheel of torch takes the place of its name, for which pip would ask the index first."""
    if chosen.wheel is None:
        return wanted
    return [str(chosen.wheel), *(line for line in wanted if distribution(line) != "torch")]


def _limits(chosen: torch_build.TorchBuild, temporary: Path) -> list[str]:
    """pip's option for the constraints of a build."""
    if not chosen.constraints:
        return []
    file = temporary / "constraints.txt"
    file.write_text("\n".join(chosen.constraints) + "\n", encoding="utf-8")
    return ["--constraint", str(file)]


def _satisfies(version: str, requirement: str) -> bool:
    try:
        from packaging.requirements import Requirement
    except ImportError:  # then pip's own copy; without either, torch is installed anew
        try:
            from pip._vendor.packaging.requirements import Requirement  # type: ignore[no-redef]
        except ImportError:
            return False
    return Requirement(requirement).specifier.contains(version, prereleases=True)


def _check_space(plan: Plan, build_name: str) -> None:
    needed = NEEDED.get(build_name, NEEDED_CUDA) if plan.space is None else plan.space
    free = shutil.disk_usage(plan.folder).free / 1e9
    if free < needed:
        raise InputError(
            f"The packages need about {needed:.0f} GB and the disk of {plan.folder} has {free:.1f} GB "
            "free; free some, or choose another folder."
        )


def _tried(
    folder: Path, target: Path, shared: tuple[str, ...], wanted: list[str], cancelled: threading.Event
) -> Environment:
    """The environment, after its packages were loaded in a process of their own and torch has computed something."""
    core = Path(__file__).resolve().parents[2]
    names = [distribution(line) for line in wanted if _is_for_here(line)]
    command = [sys.executable, *arguments("DEMISTCore.environment.check", core, target, shared), *names]
    variables = {**os.environ, "PYTHONNOUSERSITE": "1", "ITK_AUTOLOAD_PATH": "", "PYTHONPATH": ""}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env=variables,
        cwd=folder,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    while True:
        try:
            out, err = process.communicate(timeout=0.3)
            break
        except subprocess.TimeoutExpired:
            if cancelled.is_set():
                process.kill()
                process.communicate()
                raise Cancelled("The installation was cancelled.") from None
    try:
        told = json.loads(out.strip().splitlines()[-1])
    except (ValueError, IndexError):
        words = (err.strip().splitlines() or [f"exit code {process.returncode}"])[-1][:200]
        raise InputError(f"The packages are installed but do not run ({words}); press Repair.") from None
    if told["error"]:
        raise InputError(told["error"])
    size = sum(path.lstat().st_size for path in target.rglob("*") if not path.is_dir())
    return Environment(folder, "ready", target, shared, told["versions"], size, told["device"], told["note"])


def _is_for_here(requirement: str) -> bool:
    if ";" not in requirement:
        return True
    try:
        from pip._vendor.packaging.requirements import Requirement
    except ImportError:
        return True
    marker = Requirement(requirement).marker
    return marker is None or marker.evaluate()


__all__ = ["Cancelled", "DemistError", "Plan", "build", "remove"]
