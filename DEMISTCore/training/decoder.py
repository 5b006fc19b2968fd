"""The PSR decoder once more, with everything else frozen: sharper maps from the very same latents.

    L1(recon) + lambda_e |G(y_hat) - G(y)|_1 + lambda_adv PatchGAN (after warm-up)

The encoder does not move, so latents, backbone and streams stay valid; half of the latents get noise first, as in stage
1, because what sampling hands over is never exact. Latent diffusion models are often finished this way (the fine-tuned
decoders of Rombach et al. 2022's public models).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..losses import PatchGAN, edge_loss, known_mean, with_neighbours
from ..metrics import sharpness
from ..networks.backbone import freeze
from ..networks.config import ModelConfig
from . import previews
from .autoencoder import DiscriminatorObjective, judged, read_patch, spread_of
from .data import PreparedSession, collate, pick, random, random_patch
from .foundation import Foundation
from .stage import Stage
from .stages.decoder import DecoderSettings

#: what is trained of the PSR autoencoder: everything between the latent and the map
DECODER_PARTS = ("post_quant_conv.", "decoder.", "shortcut.to_image.")


class DecoderObjective(nn.Module):
    """The PSR autoencoder with a frozen encoder; keeps its last maps for the discriminator."""

    def __init__(self, psr: nn.Module, settings: DecoderSettings, gan: PatchGAN | None) -> None:
        super().__init__()
        self.settings = settings
        self.psr = freeze(psr)
        for name, parameter in psr.named_parameters():
            parameter.requires_grad_(name.startswith(DECODER_PARTS))
        self._gan = [gan]  # in a list: its parameters are not this objective's
        self.reconstructions: dict[int, Tensor] = {}

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Losses of a batch: y (B, 1, X, Y, Z) in units of the PSR range, noise of its latent and how much of it."""
        s, y, known = self.settings, batch["y"], batch.get("known")
        with torch.no_grad():
            mu, sigma = self.psr.encode(y)
            z = mu + spread_of(mu, sigma, batch, s.latent_noise) * batch["z_noise"].to(mu.dtype)
        y_hat = self.psr.decode(z).float()
        parts = {"psr": known_mean((y_hat - y).abs(), known)}
        loss = parts["psr"]
        if s.lambda_edge > 0:
            parts["edge"] = edge_loss(y_hat, y, None if known is None else with_neighbours(known))
            loss = loss + s.lambda_edge * parts["edge"]
        if self._gan[0] is not None and progress >= s.adversarial_start:
            seen = judged(y_hat, y, known)
            parts["adversarial"] = self._gan[0].generator_loss(seen)
            loss = loss + s.lambda_adversarial * parts["adversarial"]
            self.reconstructions[int(batch["index"][0])] = seen.detach()
        return {"loss": loss, **parts}

    def rehearse(self, batch: dict[str, Tensor], progress: float) -> None:
        """What :meth:`forward` takes from the other samples of a step: the latents' spread, voxels known."""
        if self.settings.latent_noise > 0:
            mu, sigma = self.psr.encode(batch["y"])
            spread_of(mu, sigma, batch, self.settings.latent_noise)
        known_mean(batch["y"], batch.get("known"))


class DecoderStage(Stage):
    """See :class:`.stage.Stage`."""

    score = "psr_mae"

    def __init__(
        self,
        settings: DecoderSettings,
        foundation: Foundation,
        train: Sequence[PreparedSession],
        validation_set: Sequence[PreparedSession],
    ) -> None:
        self.model: ModelConfig = foundation.model
        self.psr_range = foundation.psr_range
        self.settings, self.train, self.validation_set = settings, train, validation_set
        self.partial = any(entry.is_partial for entry in train)
        gan = None
        if settings.lambda_adversarial > 0:
            gan = PatchGAN(self.model.psr.out_channels, settings.discriminator_channels, patch=settings.patch)
        self.objective = DecoderObjective(foundation.psr, settings, gan)
        self.objectives: dict[str, nn.Module] = {"decoder": self.objective}
        self.lr_factors: dict[str, float] = {}
        if gan is not None:
            self.objectives["discriminator"] = DiscriminatorObjective(gan, self.objective)
            self.lr_factors["discriminator"] = settings.discriminator_lr / settings.lr

    def table(self) -> str:
        """Frozen and trainable parameters."""
        total = sum(p.numel() for p in self.objective.parameters())
        ours = sum(p.numel() for p in self.objective.parameters() if p.requires_grad)
        return f"PSR decoder: {ours:,} parameters trained; its encoder: {total - ours:,} frozen"

    def batch(self, indices: range) -> dict[str, Tensor]:
        """Random patches of PSR maps, flipped, with noise for their latents."""
        s, samples = self.settings, []
        grid = [n // self.model.psr.factor for n in s.patch]
        for i in indices:
            rng = random(s.seed, "decoder", i)
            entry = self.train[pick(len(self.train), s.seed, "decoder", i)]
            sample = read_patch(
                entry,
                s.patch,
                random_patch(entry, s.patch, rng),
                s.flip and rng.random() < 0.5,
                self.psr_range,
                self.partial,
            )
            samples.append(
                {
                    **({"known": sample["known"]} if self.partial else {}),
                    "y": sample["y"],
                    "index": np.array(i),
                    "z_noise": rng.standard_normal((self.model.psr.latent_channels, *grid), np.float32),
                    "z_spread": np.array(max(0.0, rng.uniform(-1, 1)), np.float32),
                }
            )
        return collate(samples)

    def validate(self, device: torch.device) -> dict[str, float]:
        """Reconstruction of fixed patches of held-out subjects inside the brain: error and sharpness (Sobel energy)."""
        s, rows = self.settings, []
        for i in range(s.validation_patches):
            y, brain, y_hat = self._reconstruct(i, device)
            error = (y_hat - y)[brain]
            rows.append((np.square(error).mean(), np.abs(error).mean(), sharpness(y_hat, y, brain)))
        mse, mae, sharp = np.mean(rows, axis=0)
        return {"psr_psnr": float(-10 * np.log10(mse)), "psr_mae": float(mae), "psr_sharpness": float(sharp)}

    def _reconstruct(self, i: int, device: torch.device) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(y, brain, y_hat), each (X, Y, Z), of validation patch ``i``."""
        s, entries = self.settings, self.validation_set or self.train
        rng, entry = random(s.seed, "validation", i), entries[i % len(entries)]
        sample = read_patch(entry, s.patch, random_patch(entry, s.patch, rng), False, self.psr_range)
        y = collate([{"y": sample["y"]}])["y"].to(device)
        y_hat = self.objective.psr.decode(self.objective.psr.encode(y)[0])[0, 0].float().cpu().numpy()
        return sample["y"][0], sample["brain"][0] > 0, y_hat

    def preview(self, path: Path, device: torch.device) -> None:
        """One held-out patch: PSR, its reconstruction, the difference."""
        y, _, y_hat = self._reconstruct(0, device)
        rows = [
            ("PSR", y * self.psr_range, "psr"),
            ("PSR again", y_hat * self.psr_range, "psr"),
            ("difference", (y_hat - y) * self.psr_range, "difference"),
        ]
        previews.draw(path, rows, title=f"{(self.validation_set or self.train)[0].name}, reconstruction")
