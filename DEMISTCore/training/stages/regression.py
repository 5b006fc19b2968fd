"""The baseline: a 3-D U-Net; see :mod:`DEMISTCore.training.regression`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..groups import AugmentSettings, Settings, slight
from .kind import Kind, Task

if TYPE_CHECKING:
    from ..stage import Stage


@dataclass
class RegressionSettings(Settings):
    """The baseline: a 3-D U-Net from (T1w, FLAIR) straight to PSR."""

    lr: float = 1e-3
    patch: tuple[int, ...] = (64, 64, 64)
    flip: bool = True
    augment: AugmentSettings = field(default_factory=slight)  # the mean's: a baseline learns from the same images
    channels: tuple[int, ...] = (16, 32, 64, 160, 320, 16)
    validation_patches: int = 8


class Regression(Kind):
    """What one network of the same data does without diffusion."""

    name, order = "regression", 60
    help = "the baseline: a 3-D U-Net from (T1w, FLAIR) straight to PSR"
    settings = RegressionSettings

    def build(self, task: Task) -> Stage:
        """See :class:`DEMISTCore.training.regression.RegressionStage`."""
        from ..regression import RegressionStage

        return RegressionStage(task.settings, task.train, task.validation_set)


STAGE = Regression()
