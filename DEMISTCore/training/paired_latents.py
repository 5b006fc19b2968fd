"""What stages between two autoencoders share: crops of PSR latents with the condition latents of the same place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..baselines.ldm import build_latent_unet
from ..diffusion import NoiseSchedule
from ..networks.config import ModelConfig
from . import previews
from .data import PreparedSession, collate, random
from .foundation import Foundation
from .latents import Crop, check_crop, draw_crop, encode_cohort, latent_scales
from .stage import Stage


class PairedLatentStage(Stage):
    """A stage whose network sees condition latents; subclasses bring ``objectives``, ``answer``, ``validate``."""

    model: ModelConfig
    #: of the stage: part of every draw
    name: str
    score = "loss"

    def __init__(
        self,
        model: ModelConfig,
        settings: Any,
        foundation: Foundation,
        train: Sequence[PreparedSession],
        validation_set: Sequence[PreparedSession],
        cache: Path,
    ) -> None:
        base = foundation.model
        self.model = ModelConfig(base.psr, base.condition, model.backbone, model.streams, model.mean)
        self.settings, self.decoder, self.psr_range = settings, foundation.psr, foundation.psr_range
        self.schedule = NoiseSchedule(**settings.schedule, prediction=self.model.backbone.prediction)
        latents = encode_cohort([*train, *validation_set], foundation, settings, cache)
        self.train, self.validation_set = latents[: len(train)], latents[len(train) :]
        self.partial = any(entry.is_partial for entry in train)
        check_crop(self.train, settings, self.model.backbone.multiple)
        self.latent_scale, self.condition_scale = foundation.latent_scale, foundation.condition_scale
        if self.latent_scale is None:
            self.latent_scale, self.condition_scale = latent_scales(self.train, self.model.psr.factor)
        self.autoencoder_hash = foundation.autoencoder_hash

    def build(self, with_noisy: bool) -> nn.Module:
        """The U-Net; ``with_noisy``: it sees noisy PSR latents beside the condition's."""
        z, c = self.model.psr.latent_channels, self.model.condition.latent_channels
        return build_latent_unet(self.model.backbone, z + c if with_noisy else c, z)

    def answer(self, c: Tensor, seed: int = 0) -> Tensor:
        """Scaled PSR latents of scaled condition latents (B, Cc, x, y, z)."""
        raise NotImplementedError

    def table(self) -> str:
        """Number of parameters that are trained."""
        return f"{self.name}: {sum(p.numel() for o in self.objectives.values() for p in o.parameters()):,} parameters"

    def batch(self, indices: range) -> dict[str, Tensor]:
        """Random crops of scaled latents z and c and, where maps are partial, how far z is known."""
        return collate([self.sample(i, random(self.settings.seed, self.name, i)) for i in indices])

    def sample(self, i: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """One of them."""
        crop = draw_crop(self.train, self.settings, i, rng, self.name)
        sample = {
            "z": crop.read(crop.latents.z[crop.flip]) * np.float32(self.latent_scale),
            "c": crop.read(crop.latents.c[crop.copy, crop.flip]) * np.float32(self.condition_scale),
        }
        return sample | ({"known": crop.known(self.model.psr.factor)} if self.partial else {})

    def fixed(self, crop: Crop, device: torch.device) -> tuple[Tensor, Tensor]:
        """Scaled z and c of a crop, unflipped and uncopied. (1, C, X, Y, Z) each, the condition's channels in c."""
        z = torch.from_numpy(crop.read(crop.latents.z[0]))[None].to(device) * self.latent_scale
        c = torch.from_numpy(crop.read(crop.latents.c[0, 0]))[None].to(device) * self.condition_scale
        return z, c

    def preview(self, path: Path, device: torch.device) -> None:
        """A held-out subject: T1w, FLAIR, true PSR, the answer, the difference."""
        latents = (self.validation_set or self.train)[0]
        entry = latents.prepared
        _, c = self.fixed(Crop(latents, 0, 0, (0, 0, 0), latents.z.shape[-3:]), device)
        z = self.answer(c, self.settings.seed).float()
        y_hat = (self.decoder.decode(z / self.latent_scale)[0, 0].float() * self.psr_range).cpu().numpy()
        y, y_hat = np.asarray(entry.y, np.float32), y_hat * (np.asarray(entry.labels) > 0)
        t1w, flair = np.asarray(entry.x, np.float32)
        rows = [
            ("T1w", t1w, "image"),
            ("FLAIR", flair, "image"),
            ("PSR", y, "psr"),
            (self.name, y_hat, "psr"),
            ("difference", y_hat - y, "difference"),
        ]
        previews.draw(path, rows, title=entry.name)
