"""A baseline: latent regression between the autoencoders, without diffusion; see :mod:`DEMISTCore.training.vae`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..groups import LatentSettings
from .kind import Kind, Task

if TYPE_CHECKING:
    from ..stage import Stage


@dataclass
class VaeSettings(LatentSettings):
    """Latent regression: the LDM's U-Net, asked once."""

    lr: float = 4e-4


class Vae(Kind):
    """What DEMIST's autoencoders do with a simpler network between them."""

    name, order = "vae", 64
    help = "a baseline: latent regression between the autoencoders, without diffusion"
    settings = VaeSettings
    foundation = "autoencoder"

    def build(self, task: Task) -> Stage:
        """See :class:`DEMISTCore.training.vae.VaeStage`."""
        from ..vae import VaeStage

        return VaeStage(task.model, task.settings, task.foundation, task.train, task.validation_set, task.cache)


STAGE = Vae()
