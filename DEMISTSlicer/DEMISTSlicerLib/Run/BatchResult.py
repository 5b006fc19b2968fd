"""How one item of a batch went."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode


@dataclass
class BatchResult:
    """One pair of images.

    Attributes:
        name: of the T1w: the node's, or the file's without suffix.
        status: ``done``, ``skipped`` (the result was there already), ``failed`` or ``cancelled``.
        psr, uncertainty: volume nodes, or files; None if there are none.
        message: what went wrong, in one sentence; empty if nothing did.
        seconds: how long it took.
    """

    name: str
    status: str
    psr: vtkMRMLScalarVolumeNode | Path | None = None
    uncertainty: vtkMRMLScalarVolumeNode | Path | None = None
    message: str = ""
    seconds: float = 0.0
