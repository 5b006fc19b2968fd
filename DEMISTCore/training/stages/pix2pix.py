"""A baseline: pix2pix in 3-D; see :mod:`DEMISTCore.training.pix2pix`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .kind import Kind, Task
from .regression import RegressionSettings

if TYPE_CHECKING:
    from ..stage import Stage


@dataclass
class Pix2pixSettings(RegressionSettings):
    """The regression's generator with a discriminator."""

    # A hundredth beside L1's weight of 1: L1 counts a hundred times as much (Isola et al. 2017, section 3.1).
    lambda_adversarial: float = 0.01
    adversarial_start: float = 0.0  # share of the training after which the discriminator joins
    discriminator_lr: float = 2e-4
    discriminator_channels: int = 32
    discriminator_layers: int = 2


class Pix2pix(Kind):
    """What an adversary makes of the regression."""

    name, order = "pix2pix", 62
    help = "a baseline: pix2pix in 3-D, a U-Net against a discriminator of (scans, map)"
    settings = Pix2pixSettings

    def build(self, task: Task) -> Stage:
        """See :class:`DEMISTCore.training.pix2pix.Pix2pixStage`."""
        from ..pix2pix import Pix2pixStage

        return Pix2pixStage(task.settings, task.train, task.validation_set)


STAGE = Pix2pix()
