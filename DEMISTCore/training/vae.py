"""Latent regression: |f(c) - z|^2, between frozen autoencoders."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..baselines.vae import regress
from ..losses import known_mean
from .backbone import known_of_crop, validation_samples
from .paired_latents import PairedLatentStage


class VaeObjective(nn.Module):
    """Squared error of the latents."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Loss of a batch: z (B, Cz, x, y, z), c (B, Cc, x, y, z), scaled; ``known`` (B, 1, x, y, z): how far z is."""
        error = (regress(self.network, batch["c"]).float() - batch["z"]).square()
        return {"loss": known_mean(error, batch.get("known"))}

    def rehearse(self, batch: dict[str, Tensor], progress: float) -> None:
        """What :meth:`forward` takes from the other samples of a step: how much of the maps is known."""
        known_mean(batch["z"], batch.get("known"))


class VaeStage(PairedLatentStage):
    """See :class:`.stage.Stage`."""

    name = "vae"

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.objective = VaeObjective(self.build(with_noisy=False))
        self.objectives: dict[str, nn.Module] = {"vae": self.objective}

    def answer(self, c: Tensor, seed: int = 0) -> Tensor:
        """The network's. Scaled PSR latents (B, C, X, Y, Z) of scaled condition latents."""
        return regress(self.objective.network, c)

    def validate(self, device: torch.device) -> dict[str, float]:
        """Squared error on fixed crops of held-out subjects."""
        errors = []
        for sample in validation_samples(self.validation_set or self.train, self.settings, self.schedule.steps):
            z, c = self.fixed(sample.crop, device)
            known = known_of_crop(sample.crop, self.model.psr.factor, device)
            errors.append(float(known_mean((self.answer(c).float() - z).square(), known)))
        return {"loss": float(np.mean(errors))}
