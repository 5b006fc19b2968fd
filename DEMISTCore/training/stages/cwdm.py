"""A baseline: conditional wavelet diffusion; see :mod:`DEMISTCore.training.cwdm`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..groups import AugmentSettings, Settings, slight
from .kind import Kind, Task

if TYPE_CHECKING:
    from ..stage import Stage


@dataclass
class CwdmSettings(Settings):
    """cWDM (Friedrich et al., arXiv 2411.17203); widths are the published ones, the rate is set by each preset."""

    lr: float = 1e-4
    patch: tuple[int, ...] = (64, 64, 64)  # voxels; the wavelets have half of them
    flip: bool = True
    augment: AugmentSettings = field(default_factory=slight)  # a baseline learns from the same images
    channels: tuple[int, ...] = (64, 128, 128, 256, 256)
    blocks: int = field(default=2, metadata={"bounds": (1, 16)})  # residual blocks a level
    groups: int = field(default=32, metadata={"bounds": (1, 1024)})  # of the normalization
    validation_patches: int = 4
    preview_steps: int = 12


class Cwdm(Kind):
    """Diffusion of the map's wavelets."""

    name, order = "cwdm", 68
    help = "a baseline: conditional diffusion of the map's 3-D Haar wavelets (cWDM)"
    settings = CwdmSettings

    def build(self, task: Task) -> Stage:
        """See :class:`DEMISTCore.training.cwdm.CwdmStage`."""
        from ..cwdm import CwdmStage

        return CwdmStage(task.settings, task.train, task.validation_set)


STAGE = Cwdm()
