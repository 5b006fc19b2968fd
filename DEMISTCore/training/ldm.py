"""Plain conditional latent diffusion: |eps - f(z_t, c, t)|^2 (or v for eps), c concatenated to z_t."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..baselines.ldm import conditioned
from ..diffusion import NoiseSchedule, SeededNoise, ddim
from ..losses import known_mean
from .backbone import by_time, error_by_time, known_of_crop, prediction_error, validation_samples
from .latents import draw_time, noise_like
from .paired_latents import PairedLatentStage


class LdmObjective(nn.Module):
    """The backbone's loss, with the condition beside the noisy latents."""

    def __init__(self, network: nn.Module, schedule: NoiseSchedule, weighting: str) -> None:
        super().__init__()
        self.network, self.schedule, self.weighting = network, schedule, weighting

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Loss of a batch: z, noise (B, Cz, x, y, z), c (B, Cc, x, y, z), t (B,); ``known``: how far z is."""
        z, noise, t = batch["z"], batch["noise"], batch["t"]
        prediction = conditioned(self.network, batch["c"])(self.schedule.add_noise(z, noise, t), t).float()
        return {"loss": prediction_error(self.schedule, prediction, z, noise, t, self.weighting, batch.get("known"))}

    def rehearse(self, batch: dict[str, Tensor], progress: float) -> None:
        """What :meth:`forward` takes from the other samples of a step: how much of the maps is known."""
        known_mean(batch["z"], batch.get("known"))


class LdmStage(PairedLatentStage):
    """See :class:`.stage.Stage`."""

    name = "ldm"

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.objective = LdmObjective(self.build(with_noisy=True), self.schedule, self.settings.weighting)
        self.objectives: dict[str, nn.Module] = {"ldm": self.objective}

    def sample(self, i: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """A crop with noise and a time."""
        sample = super().sample(i, rng)
        return {
            **sample,
            "noise": noise_like(rng, sample["z"].shape),
            "t": np.array(draw_time(i, self.settings, self.schedule.steps)),
        }

    def answer(self, c: Tensor, seed: int = 0) -> Tensor:
        """A short sample. Scaled PSR latents (B, C, X, Y, Z) of scaled condition latents."""
        noise = SeededNoise([seed] * len(c))
        start = noise((len(c), self.model.psr.latent_channels, *c.shape[2:])).to(c.device)
        model = conditioned(self.objective.network, c)
        return ddim(model, start, self.schedule, self.settings.preview_steps, noise=noise)

    def validate(self, device: torch.device) -> dict[str, float]:
        """Loss by time, on fixed crops with fixed noise."""
        losses = []
        for sample in validation_samples(self.validation_set or self.train, self.settings, self.schedule.steps):
            z, c = self.fixed(sample.crop, device)
            noise, t = sample.noise(z), sample.times.to(device)
            z = z.expand_as(noise)
            known = known_of_crop(sample.crop, self.model.psr.factor, device)
            z_t, target = self.schedule.add_noise(z, noise, t), self.schedule.target(z, noise, t)
            losses.append(error_by_time(conditioned(self.objective.network, c), z_t, t, target, known))
        return by_time(losses)
