"""Estimates of a run on their way from the worker into the slice views."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..Signal import Signal
from ..Views.Preview import LivePreview
from .Exchange import readReference
from .Steps import Steps

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode


class PreviewFeed:
    """Reads estimates in slices, one at a time, and shows each while a run goes on.

    Signals: ``updated(node)``: the preview shows another estimate.
    """

    def __init__(self, log: Callable[[str], Any]) -> None:
        """Nothing is shown.

        Args:
            log: told why an estimate could not be read.
        """
        self.updated = Signal()
        self._log = log
        self._preview: LivePreview | None = None
        self._steps: Steps | None = None

    def begin(self, t1: vtkMRMLScalarVolumeNode) -> None:
        """Show what comes from now on over this T1w."""
        self.end()
        self._preview = LivePreview()
        self._preview.begin(t1)

    def show(self, message: dict[str, Any]) -> None:
        """Show the estimate of a message, as soon as it is read."""
        reference = message.get("volume")
        if self._preview is None or not reference or self._steps is not None:
            return  # one that comes while another is being read is out of date before it is shown
        self._steps = Steps(readReference(reference), partial(self._onRead, message), self._onUnreadable)

    def end(self) -> None:
        """Show no more, and put the views back; may be called at any time, and again."""
        if self._steps is not None:
            self._steps.stop()
            self._steps = None
        if self._preview is not None:
            preview, self._preview = self._preview, None
            preview.end()

    def _onRead(self, message: dict[str, Any], volume: tuple[Any, Any]) -> None:
        self._steps = None
        Path(message["volume"]["npy"]).unlink(missing_ok=True)
        if self._preview is None:
            return
        node = self._preview.update(*volume, message["seed"], message["step"], message["steps"])
        if node is not None:
            self.updated.emit(node)

    def _onUnreadable(self, error: Exception) -> None:
        self._steps = None
        self._log(str(error))
