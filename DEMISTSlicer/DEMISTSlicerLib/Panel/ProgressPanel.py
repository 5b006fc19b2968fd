"""How far a run is, and the log."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..I18n import _
from .Presets import duration
from .Units import sanityText

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode


class ProgressPanel:
    """Bar, stage and log.

    Args:
        ui: the panel's widgets: ``progressBar``, ``stageLabel``, ``resultLabel``, ``logTextEdit``.
    """

    def __init__(self, ui: Any) -> None:
        self.ui = ui
        self._told: tuple[Any, Mapping[str, Any]] = (None, {})

    def begin(self) -> None:
        """A run begins."""
        self.ui.progressBar.value = 0

    def show(self, stage: str, fraction: float, remaining: float | None = None) -> None:
        """A run goes on: its stage, the share that is done, and the seconds that are left, if known."""
        self.ui.progressBar.value = round(100 * min(max(fraction, 0.0), 1.0))
        text = stage[:1].upper() + stage[1:]
        left = duration(remaining)
        self.say(_("{stage} · {time} left").format(stage=text, time=left) if left else text)

    def done(self, seconds: float, how: str = "", warnings: Sequence[str] = ()) -> None:
        """A run has made what it should.

        Args:
            seconds: how long it took.
            how: a map was made ("mean", "4 samples"), or where a report lies; empty if there is nothing to tell.
            warnings: shown where nobody can miss them, not in the log alone.
        """
        self.ui.progressBar.value = 100
        text = _("Done in {time}").format(time=_minutes(seconds))
        text = f"{text} · {how}" if how else text
        self.log(text)
        self.say("\n".join([text, *(_("Warning: {text}").format(text=sentence) for sentence in warnings)]))

    def tell(self, psr: vtkMRMLScalarVolumeNode, sanity: Mapping[str, Any], unit: str) -> None:
        """Means of a fresh map in the result line, see :func:`.Units.sanityText`; and in the log."""
        self._told = (psr, sanity)
        self.update(psr, unit)
        if self.ui.resultLabel.text:
            self.log(self.ui.resultLabel.text)

    def update(self, psr: vtkMRMLScalarVolumeNode | None, unit: str) -> None:
        """The result line is that of this map, in this unit; gone for a map that was not measured in this session."""
        text = sanityText(self._told[1], unit) if psr is not None and psr is self._told[0] else ""
        self.ui.resultLabel.text = text
        self.ui.resultLabel.visible = bool(text)

    def stopped(self, text: str) -> None:
        """A run has ended without a result."""
        self.ui.progressBar.value = 0
        self.say(text)

    def say(self, text: str) -> None:
        """Show a text in the place of the stage."""
        self.ui.stageLabel.text = text

    def log(self, text: str) -> None:
        """Add to the log, with the time of day."""
        self.ui.logTextEdit.appendPlainText(f"{time.strftime('%H:%M:%S')}  {text.strip()}")


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return _("{minutes} min {seconds} s").format(minutes=minutes, seconds=rest) if minutes else f"{rest} s"
