"""A baseline: plain conditional latent diffusion, the condition concatenated; see :mod:`DEMISTCore.training.ldm`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..groups import LatentSettings
from .kind import Kind, Task

if TYPE_CHECKING:
    from ..stage import Stage


@dataclass
class LdmSettings(LatentSettings):
    """Conditional diffusion on PSR latents, all weights from the start."""

    lr: float = 4e-4


class Ldm(Kind):
    """What DEMIST's autoencoders do with a simpler network between them."""

    name, order = "ldm", 66
    help = "a baseline: a plain conditional latent diffusion model, the condition concatenated"
    settings = LdmSettings
    foundation = "autoencoder"

    def build(self, task: Task) -> Stage:
        """See :class:`DEMISTCore.training.ldm.LdmStage`."""
        from ..ldm import LdmStage

        return LdmStage(task.model, task.settings, task.foundation, task.train, task.validation_set, task.cache)


STAGE = Ldm()
