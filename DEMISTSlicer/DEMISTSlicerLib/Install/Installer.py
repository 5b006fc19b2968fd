"""What the worker needs to run: looked for before a run, installed with consent into an environment of its own."""

from __future__ import annotations

import importlib
import importlib.util
import re
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from ..I18n import _
from ..Signal import Signal
from . import Place
from .Installation import Installation

if TYPE_CHECKING:
    from packaging.requirements import Requirement

REQUIREMENTS = Path(__file__).parents[2] / "Resources" / "requirements.txt"


def requirements(file: Path = REQUIREMENTS) -> list[Requirement]:
    """The requirements listed in a file, one a line; ``#`` starts a comment."""
    from packaging.requirements import Requirement

    return [Requirement(line) for line in _lines(file)]


def _lines(file: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def _isThere(requirement: str) -> bool:
    """Whether there is a module or a package of that name, of whatever version; unless it is for some systems only."""
    from DEMISTCore.environment.check import module_name

    name = re.match(r"[\w.-]*", requirement)[0]
    return ";" in requirement or importlib.util.find_spec(module_name(name)) is not None or _isListed(name)


def _isListed(name: str) -> bool:
    return next(iter(metadata.distributions(name=name)), None) is not None


def satisfied(requirement: Requirement) -> bool:
    """Whether Slicer's own Python meets a requirement; one for another system counts as met.

    A module that can be imported but has no metadata (as some that Slicer builds itself) counts as met too.
    """
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    try:
        return requirement.specifier.contains(metadata.version(requirement.name), prereleases=True)
    except metadata.PackageNotFoundError:
        from DEMISTCore.environment.check import module_name

        return importlib.util.find_spec(module_name(requirement.name)) is not None


class Installer:
    """Sees to it that the worker can run.

    Signals: ``progress(text, fraction)``, ``line(text)``, ``finished()``, ``failed(message, lastLines)``,
    ``cancelled()`` of the installation that runs.

    Attributes:
        file: the requirements.
        torch: which torch is installed, ``auto`` or ``cpu``.
    """

    def __init__(
        self,
        confirm: Callable[[str, list[str]], bool] | None = None,
        installation: Installation | None = None,
        file: Path = REQUIREMENTS,
    ) -> None:
        """Nothing is started.

        Args:
            confirm: asked with a text and a list of packages; False declines. Default: a message box.
            installation: does it. Default: a child process of Slicer's Python.
            file: the requirements.
        """
        self.file, self.torch = file, "auto"
        self._confirm = confirm or _ask
        self._installation = installation or Installation()
        self.progress, self.line = self._installation.progress, self._installation.line
        self.finished, self.failed, self.cancelled = Signal(), Signal(), Signal()
        self._then: Callable[[], object] | None = None
        self._installation.finished.connect(self._onFinished)
        self._installation.failed.connect(self._onFailed)
        self._installation.cancelled.connect(self._onCancelled)

    @property
    def isRunning(self) -> bool:
        """True while something is installed or removed."""
        return self._installation.isRunning

    def missing(self) -> list[Requirement]:
        """Requirements that Slicer's own Python does not meet; imports none of them, see also :meth:`hasOwn`."""
        importlib.invalidate_caches()
        return [requirement for requirement in requirements(self.file) if not satisfied(requirement)]

    def isReady(self) -> bool:
        """Whether the worker can run: in its environment, or because Slicer's own Python has all."""
        return Place.environment().is_ready or self.hasOwn()

    def hasOwn(self) -> bool:
        """Whether Slicer's own Python has all of the packages.

        Mostly it has no torch, which is seen at a glance; versions are compared, which takes 0.1 s the first time, only
        if there is something of each name.
        """
        importlib.invalidate_caches()
        return all(map(_isThere, _lines(self.file))) and not self.missing()

    def ensure(self, then: Callable[[], object]) -> bool:
        """Call ``then`` as soon as the worker can run: now, or after an installation that the user agreed to.

        Returns:
            False: the user declined, or something is installed already; ``then`` will not be called.
        """
        if self.isRunning:
            return False
        if self.isReady():
            then()
            return True
        names = _lines(self.file)
        text = _(
            "DEMIST computes in a Python environment of its own, which is not installed yet. {count} packages and what "
            "they need will be downloaded into {folder}; Slicer's own packages are not touched. This takes several "
            "minutes and one to six gigabytes."
        ).format(count=len(names), folder=Place.environmentFolder())
        if not self._confirm(text, names):
            return False
        self.install(then)
        return True

    def ensureNow(self) -> bool:
        """The same, waiting with the application alive; whether the worker can run."""
        import slicer

        if not self.ensure(lambda: None):
            return False
        while self.isRunning:
            slicer.app.processEvents()
            time.sleep(0.005)
        return self.isReady()

    def install(self, then: Callable[[], object] | None = None, wheels: Path | None = None) -> bool:
        """Make the environment, or make it again; ``wheels``: from this folder, without a network.

        Returns:
            False: something is installed already.
        """
        if self.isRunning:
            return False
        self._then = then
        return self._installation.build(Place.environmentFolder(), self.file, self.torch, wheels)

    def remove(self) -> bool:
        """Delete the environment. False: something is installed just now."""
        self._then = None
        return not self.isRunning and self._installation.remove(Place.environmentFolder())

    def cancel(self) -> None:
        """Stop what runs."""
        self._then = None
        self._installation.cancel()

    def shutdown(self) -> None:
        """Stop what runs, and wait for it."""
        self._then = None
        self._installation.shutdown()

    def _onFinished(self) -> None:
        then, self._then = self._then, None
        self.finished.emit()
        if then is not None:
            then()

    def _onFailed(self, message: str) -> None:
        self._then = None
        last = self._installation.lastLines
        self.failed.emit(message, "\n".join(last))

    def _onCancelled(self) -> None:
        self._then = None
        self.cancelled.emit()


def _ask(text: str, packages: list[str]) -> bool:
    """Ask in a message box, the packages under Details."""
    import slicer

    title = _("DEMIST - install Python packages")
    return bool(slicer.util.confirmOkCancelDisplay(text, title, detailedText="\n".join(packages)))
