"""How far a run is, and the log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ..I18n import _
from .Presets import duration


class ProgressPanel:
    """Bar, stage and log.

    Args:
        ui: the panel's widgets: ``progressBar``, ``stageLabel``, ``logTextEdit``.
    """

    def __init__(self, ui: Any) -> None:
        self.ui = ui

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
            how: a map was made: "mean", or "4 samples".
            warnings: shown where nobody can miss them, not in the log alone.
        """
        self.ui.progressBar.value = 100
        text = _("Done in {time}").format(time=_minutes(seconds))
        text = f"{text} · {how}" if how else text
        self.log(text)
        self.say("\n".join([text, *(_("Warning: {text}").format(text=sentence) for sentence in warnings)]))

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
