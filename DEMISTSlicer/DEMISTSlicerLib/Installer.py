"""The Python packages that DEMISTCore needs: checked on Apply, installed with consent, Slicer's own left alone."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .I18n import _

if TYPE_CHECKING:
    from packaging.requirements import Requirement

#: Distributions whose module is called otherwise.
MODULES = {"simpleitk": "SimpleITK", "pyyaml": "yaml", "pillow": "PIL"}

#: Shipped with Slicer and loaded in its process: to be kept at the very version that is there.
KEPT = ("numpy", "simpleitk", "scipy", "requests", "vtk", "pydicom", "packaging", "pip", "setuptools")

REQUIREMENTS = Path(__file__).parents[1] / "Resources" / "requirements.txt"


class InstallError(RuntimeError):
    """Installation failed; the text is one sentence for people."""


def normalised(name: str) -> str:
    """The name of a distribution as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(file: Path = REQUIREMENTS) -> list[Requirement]:
    """The requirements listed in a file, one a line; ``#`` starts a comment."""
    from packaging.requirements import Requirement

    lines = (line.split("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


def satisfied(requirement: Requirement) -> bool:
    """Whether a requirement is met by what is installed; one for another system counts as met.

    A module that can be imported but has no metadata (as some that Slicer builds itself) counts as met too: pip would
    put another one over it.
    """
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    try:
        return requirement.specifier.contains(metadata.version(requirement.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return importlib.util.find_spec(module_name(requirement.name)) is not None


def module_name(distribution: str) -> str:
    """What to import of a distribution."""
    return MODULES.get(normalised(distribution), normalised(distribution).replace("-", "_"))


def installed() -> dict[str, str]:
    """Normalised name and version of every distribution that is installed."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name and distribution.version:
            found.setdefault(normalised(name), distribution.version)
    return found


def constraints(versions: dict[str, str]) -> list[str]:
    """Lines of a pip constraints file that forbid to downgrade anything, and to touch what Slicer has loaded.

    Args:
        versions: normalised name to version of what is installed.
    """
    from packaging.version import InvalidVersion, Version

    lines = []
    for name, version in sorted(versions.items()):
        try:
            public = Version(version).public
        except InvalidVersion:
            continue  # pip could not read it either
        lines.append(f"{name}=={version}" if name in KEPT else f"{name}>={public}")
    return lines


def replaced_while_loaded(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Distributions that were loaded in this process and now have another version: these need a restart."""
    return sorted(
        name
        for name, version in before.items()
        if after.get(name, version) != version and module_name(name) in sys.modules
    )


class Installer:
    """Checks and installs what is missing.

    Args:
        progress: called with a text and the share that is done (0 to 1).
        confirm: asked with a text and a list of packages; False declines. Default: a message box.
        install: called with requirements and a constraints file. Default: Slicer's own pip.
        file: the requirements.
    """

    def __init__(
        self,
        progress: Callable[[str, float], object] | None = None,
        confirm: Callable[[str, list[str]], bool] | None = None,
        install: Callable[[list[str], str], object] | None = None,
        file: Path = REQUIREMENTS,
    ) -> None:
        self.file = file
        self._progress = progress or (lambda text, done: None)
        self._confirm = confirm or _ask
        self._install = install or _pip_install
        #: Names of packages that were replaced while loaded; Slicer must be restarted then.
        self.restartNeeded: list[str] = []

    def missing(self) -> list[Requirement]:
        """Requirements that are not met; takes milliseconds and imports none of them."""
        importlib.invalidate_caches()
        return [requirement for requirement in requirements(self.file) if not satisfied(requirement)]

    def ensure(self) -> bool:
        """Install what is missing, with consent. True: all is there; False: the user declined.

        Raises:
            InstallError: it failed, or something is still missing afterwards.
        """
        missing = self.missing()
        if not missing:
            return True
        names = [str(requirement) for requirement in missing]
        text = _(
            "DEMIST needs {count} Python packages that are not installed yet. They will be downloaded and added to "
            "Slicer's Python; what Slicer ships stays as it is. This can take several minutes."
        ).format(count=len(names))
        if not self._confirm(text, names):
            return False
        before = installed()
        with _ConstraintsFile(constraints(before)) as file:
            for index, requirement in enumerate(sorted(missing, key=lambda r: normalised(r.name) != "torch")):
                self._progress(_("Installing {package}").format(package=requirement.name), index / len(missing))
                if satisfied(requirement):
                    continue  # came with another one
                self._one(requirement, file)
                importlib.invalidate_caches()
        self._progress(_("Packages are installed"), 1.0)
        still = [str(requirement) for requirement in self.missing()]
        if still:
            raise InstallError(
                _("After installing, {packages} is still missing; see the Python console for what pip said.").format(
                    packages=", ".join(still)
                )
            )
        self.restartNeeded = replaced_while_loaded(before, installed())
        return True

    def _one(self, requirement: Requirement, file: str) -> None:
        """Install one requirement; torch through the PyTorch extension where that is installed.

        Raises:
            InstallError: it failed.
        """
        try:
            if normalised(requirement.name) == "torch" and importlib.util.find_spec("PyTorchUtils") is not None:
                import PyTorchUtils

                logic = PyTorchUtils.PyTorchUtilsLogic()
                wanted = str(requirement.specifier)
                if logic.installTorch(askConfirmation=False, torchVersionRequirement=wanted) is None:
                    raise InstallError(_("The PyTorch extension could not install torch; try its module PyTorch Util."))
                return
            self._install([str(requirement)], file)
        except InstallError:
            raise
        except Exception as error:  # whatever pip's wrapper raises: CalledProcessError, RuntimeError, OSError
            raise InstallError(
                _("{package} could not be installed ({reason}); check the network, and see the Python console.").format(
                    package=requirement.name, reason=error
                )
            ) from error


class _ConstraintsFile:
    """A temporary pip constraints file."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = list(lines)

    def __enter__(self) -> str:
        handle, self.path = tempfile.mkstemp(prefix="demist-", suffix="-constraints.txt")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write("\n".join(self.lines) + "\n")
        return self.path

    def __exit__(self, *_: object) -> None:
        Path(self.path).unlink(missing_ok=True)


def _ask(text: str, packages: list[str]) -> bool:
    """Ask in a message box, the packages under Details."""
    import slicer

    title = _("DEMIST - install Python packages")
    return bool(slicer.util.confirmOkCancelDisplay(text, title, detailedText="\n".join(packages)))


def _pip_install(packages: list[str], file: str) -> Any:
    """Slicer's pip: with a progress dialog where Slicer has one (``slicer.packaging``, since 5.11)."""
    import slicer

    if importlib.util.find_spec("slicer.packaging") is not None:
        from slicer import packaging

        return packaging.pip_install(packages, constraints=file, requester="DEMIST")
    return slicer.util.pip_install(["--constraint", file, *packages])
