"""The backbone: an unconditional diffusion model on PSR latents, later frozen by the streams' stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..diffusion import NoiseSchedule, SeededNoise, ddim
from ..losses import known_mean
from ..networks.backbone import build_backbone
from ..networks.config import ModelConfig
from . import previews
from .data import PreparedSession, collate, random
from .foundation import Foundation
from .groups import LatentSettings
from .latents import (
    Crop,
    Latents,
    check_crop,
    draw_crop,
    draw_time,
    encode_cohort,
    latent_scales,
    noise_like,
)
from .stage import Stage
from .stages.backbone import BackboneSettings

BINS = 4


class BackboneObjective(nn.Module):
    """|eps - eps_theta(z_t, t)|^2, or with v for eps (Ho et al. 2020, eq. 14; Salimans and Ho 2022)."""

    def __init__(self, model: ModelConfig, schedule: NoiseSchedule, weighting: str = "prediction") -> None:
        super().__init__()
        self.backbone = build_backbone(model.backbone)
        self.schedule, self.weighting = schedule, weighting

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Loss of a batch: z (B, C, x, y, z) scaled, noise like z, t (B,); ``known`` (B, 1, x, y, z): how far z is."""
        z, noise, t = batch["z"], batch["noise"], batch["t"]
        prediction = self.backbone(self.schedule.add_noise(z, noise, t), t).float()
        error = prediction_error(self.schedule, prediction, z, noise, t, self.weighting, batch.get("known"))
        return {"loss": error}

    def rehearse(self, batch: dict[str, Tensor], progress: float) -> None:
        """What :meth:`forward` takes from the other samples of a step: how much of the maps is known."""
        known_mean(batch["z"], batch.get("known"))


def prediction_error(
    schedule: NoiseSchedule,
    prediction: Tensor,
    z: Tensor,
    noise: Tensor,
    t: Tensor,
    weighting: str,
    known: Tensor | None = None,
) -> Tensor:
    """Mean squared error of a prediction at z_t, weighted by ``known``; with ``weighting`` "x0" counted in z_0.

    ``prediction``, ``z`` and ``noise`` are (B, C, X, Y, Z), ``t`` (B,), ``known`` (B, 1, X, Y, Z) from 0 to 1.
    Returns a scalar.

    At given z_t an error of v is 1 / sigma times one of z_0, an error of epsilon alpha / sigma times.
    """
    error = (prediction - schedule.target(z, noise, t)).square()
    if weighting == "x0":
        alpha, sigma = schedule.alpha_sigma(t, z)
        error = error * (sigma if schedule.prediction == "v" else sigma / alpha).square()
    return known_mean(error, known)


class BackboneStage(Stage):
    """See :class:`.stage.Stage`."""

    model: ModelConfig
    score = "loss"

    def __init__(
        self,
        model: ModelConfig,
        settings: BackboneSettings,
        foundation: Foundation,
        train: Sequence[PreparedSession],
        validation_set: Sequence[PreparedSession],
        cache: Path,
    ) -> None:
        # The autoencoders come as they are; the backbone is this stage's to choose.
        self.model = ModelConfig(
            foundation.model.psr, foundation.model.condition, model.backbone, model.streams, model.mean
        )
        self.settings, self.psr, self.psr_range = settings, foundation.psr, foundation.psr_range
        self.schedule = NoiseSchedule(**settings.schedule, prediction=model.backbone.prediction)
        latents = encode_cohort([*train, *validation_set], foundation, settings, cache)
        self.train, self.validation_set = latents[: len(train)], latents[len(train) :]
        self.partial = any(entry.is_partial for entry in train)
        check_crop(self.train, settings, model.backbone.multiple)
        # A foundation that has scales keeps them: other networks may have been trained on the same latents.
        self.latent_scale, self.condition_scale = foundation.latent_scale, foundation.condition_scale
        if self.latent_scale is None:
            self.latent_scale, self.condition_scale = latent_scales(self.train, self.model.psr.factor)
        self.autoencoder_hash = foundation.autoencoder_hash
        self.objective = BackboneObjective(self.model, self.schedule, settings.weighting)
        self.objectives: dict[str, nn.Module] = {"backbone": self.objective}

    def batch(self, indices: range) -> dict[str, Tensor]:
        """Random crops of scaled latents, noise and times."""
        s, samples = self.settings, []
        for i in indices:
            rng = random(s.seed, "backbone", i)
            crop = draw_crop(self.train, s, i, rng, "backbone")
            z = crop.read(crop.latents.z[crop.flip]) * np.float32(self.latent_scale)
            t = draw_time(i, s, self.schedule.steps)
            samples.append({"z": z, "noise": noise_like(rng, z.shape), "t": np.array(t)})
            if self.partial:
                samples[-1]["known"] = crop.known(self.model.psr.factor)
        return collate(samples)

    def validate(self, device: torch.device) -> dict[str, float]:
        """Loss by time, on fixed crops with fixed noise."""
        losses = []
        for sample in validation_samples(self.validation_set or self.train, self.settings, self.schedule.steps):
            z = torch.from_numpy(sample.crop.read(sample.crop.latents.z[0]))[None].to(device) * self.latent_scale
            noise, t = sample.noise(z), sample.times.to(device)
            z = z.expand_as(noise)
            z_t = self.schedule.add_noise(z, noise, t)
            known = known_of_crop(sample.crop, self.model.psr.factor, device)
            losses.append(error_by_time(self.objective.backbone, z_t, t, self.schedule.target(z, noise, t), known))
        return by_time(losses)

    def preview(self, path: Path, device: torch.device) -> None:
        """A PSR map out of nothing but noise, beside a held-out one and its reconstruction."""
        latents = (self.validation_set or self.train)[0]
        truth = torch.from_numpy(np.asarray(latents.z[0], np.float32))[None].to(device)
        noise = SeededNoise([self.settings.seed])
        z = ddim(
            self.objective.backbone,
            noise(truth.shape).to(device),
            self.schedule,
            self.settings.preview_steps,
            noise=noise,
        )
        drawn = self.psr.decode(z / self.latent_scale)[0, 0].float() * self.psr_range
        again = self.psr.decode(truth)[0, 0].float() * self.psr_range
        rows = [
            ("held-out PSR", np.asarray(latents.prepared.y, np.float32), "psr"),
            ("reconstructed", again, "psr"),
            ("drawn from noise", drawn, "psr"),
        ]
        previews.draw(path, rows, title=f"unconditional sample, {self.settings.preview_steps} steps of DDIM")


class ValidationSample:
    """A fixed crop, fixed times (one per bin), fixed noise."""

    def __init__(self, crop: Crop, times: Tensor, seed: int) -> None:
        self.crop, self.times, self.seed = crop, times, seed

    def noise(self, z: Tensor) -> Tensor:
        """Noise for every time, (BINS, C, x, y, z), from z (1, C, x, y, z)."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn((BINS, *z.shape[1:]), generator=generator).to(z.device)


def validation_samples(cohort: Sequence[Latents], settings: LatentSettings, steps: int) -> list[ValidationSample]:
    """The same samples at every validation: unflipped, uncopied crops of held-out sessions."""
    result = []
    for i in range(settings.validation_crops):
        rng = random(0, "validation", i)
        crop = replace(draw_crop(cohort, settings, i, rng, "validation"), flip=0, copy=0)
        times = torch.tensor([int((b + rng.random()) / BINS * steps) for b in range(BINS)])
        result.append(ValidationSample(crop, times, i))
    return result


def known_of_crop(crop: Crop, factor: int, device: torch.device) -> Tensor | None:
    """How far the latents of a crop are known, (1, 1, x, y, z); None: all of them."""
    if not crop.latents.prepared.is_partial:
        return None
    return torch.from_numpy(crop.known(factor))[None].to(device)


def error_by_time(
    model: Callable[[Tensor, Tensor], Tensor], z_t: Tensor, t: Tensor, target: Tensor, known: Tensor | None = None
) -> list[float]:
    """Mean squared error of each sample, one after the other: memory is not for validation to take.

    ``known`` (1, 1, x, y, z) weighs the latent positions.
    """
    samples = zip(z_t.split(1), t.split(1), target.split(1))
    return [float(known_mean((model(z, time).float() - wanted).square(), known)) for z, time, wanted in samples]


def by_time(losses: Sequence[Sequence[float]]) -> dict[str, float]:
    """Means by time, from the least noisy quarter (0) to the noisiest."""
    means = np.mean(losses, axis=0)
    return {"loss": float(means.mean()), **{f"loss_t{b}": float(value) for b, value in enumerate(means)}}
