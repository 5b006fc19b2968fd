"""Stage 1: the PSR autoencoder and the condition autoencoder, trained together on patches.

L1(recon) + beta KL + lambda_adv PatchGAN (after warm-up) + lambda_e |G(y_hat) - G(y)|_1 + lambda_align Align(z, c)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .. import pooling
from ..losses import Align, PatchGAN, edge_loss, kl_loss, known_mean, with_neighbours
from ..networks.autoencoder import build_autoencoder
from ..networks.config import PSR_RANGE, ModelConfig
from . import previews
from .data import PreparedSession, augment, collate, crop, pick, random, random_patch
from .stage import Stage
from .stages.autoencoder import AutoencoderSettings


class AutoencoderObjective(nn.Module):
    """Both autoencoders and their losses; keeps the last reconstructions for the discriminator."""

    def __init__(self, model: ModelConfig, settings: AutoencoderSettings, gan: PatchGAN | None) -> None:
        super().__init__()
        self.settings = settings
        self.psr = build_autoencoder(model.psr)
        self.condition = build_autoencoder(model.condition)
        if settings.lambda_align > 0:
            self.align = Align(
                model.psr.latent_channels,
                model.condition.latent_channels,
                settings.align_width,
                settings.align_positions,
                settings.align_temperature,
            )
        self._gan = [gan]  # in a list: its parameters are not this objective's
        self.reconstructions: dict[int, Tensor] = {}  # by the batch's first index, taken by the discriminator

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Losses of a batch: y (B, 1, X, Y, Z) in units of the PSR range, x (B, 2, X, Y, Z), noise of both latents.

        ``known`` (B, 1, X, Y, Z): where the map is; elsewhere nothing is learnt from it.
        """
        s, y, x, known = self.settings, batch["y"], batch["x"], batch.get("known")
        z_mu, z_sigma = self.psr.encode(y)
        c_mu, c_sigma = self.condition.encode(x)
        z = z_mu + spread_of(z_mu, z_sigma, batch, s.latent_noise) * batch["z_noise"].to(z_mu.dtype)
        y_hat = self.psr.decode(z).float()
        x_hat = self.condition.decode(c_mu + c_sigma * batch["c_noise"].to(c_mu.dtype)).float()
        parts = {
            "psr": known_mean((y_hat - y).abs(), known),
            "condition": (x_hat - x).abs().mean(),
            "kl": kl_loss(z_mu, z_sigma) + kl_loss(c_mu, c_sigma),
        }
        loss = parts["psr"] + s.lambda_condition * parts["condition"] + s.beta_kl * parts["kl"]
        if s.lambda_edge > 0:
            parts["edge"] = edge_loss(y_hat, y, None if known is None else with_neighbours(known))
            loss = loss + s.lambda_edge * parts["edge"]
        if s.lambda_align > 0:
            parts["align"] = self.align(z_mu, c_mu, batch["brain"], _generators(batch))
            loss = loss + s.lambda_align * parts["align"]
        if self._gan[0] is not None and progress >= s.adversarial_start:
            seen = judged(y_hat, y, known)
            parts["adversarial"] = self._gan[0].generator_loss(seen)
            loss = loss + s.lambda_adversarial * parts["adversarial"]
            self.reconstructions[int(batch["index"][0])] = seen.detach()
        return {"loss": loss, **parts}

    def rehearse(self, batch: dict[str, Tensor], progress: float) -> None:
        """What :meth:`forward` takes from the other samples of a step: spread, voxels known, places to tell apart."""
        s, y = self.settings, batch["y"]
        z_mu, z_sigma = self.psr.encode(y)
        spread_of(z_mu, z_sigma, batch, s.latent_noise)
        known_mean(y, batch.get("known"))
        if s.lambda_align > 0:
            self.align(z_mu, self.condition.encode(batch["x"])[0], batch["brain"], _generators(batch))


def _generators(batch: dict[str, Tensor]) -> list[torch.Generator]:
    """Of each sample its own: who computes it, and beside which others, must not matter."""
    return [torch.Generator().manual_seed(seed) for seed in batch["places"].tolist()]


def judged(y_hat: Tensor, y: Tensor, known: Tensor | None) -> Tensor:
    """What a discriminator sees of ``y_hat``: where the truth is unknown what stands in ``y``, which it sees as well.

    So neither of the two can be told from the other there, and no gradient reaches the network. All (B, 1, X, Y, Z).
    """
    return y_hat if known is None else torch.where(known > 0, y_hat, y)


def spread_of(mu: Tensor, sigma: Tensor, batch: dict[str, Tensor], latent_noise: float) -> Tensor:
    """Standard deviation of the noise on the PSR latent: the encoder's own and, for some samples, more.

    ``mu``, ``sigma`` and the result are (B, C, X, Y, Z). The latent's own deviation is that of all samples of a step.
    """
    if latent_noise <= 0:
        return sigma
    share = batch["z_spread"][:, None, None, None, None] * latent_noise
    return (sigma.square() + (share * pooling.deviation(mu.detach().float())).square().to(sigma.dtype)).sqrt()


class DiscriminatorObjective(nn.Module):
    """The PatchGAN's own loss, zero before it joins; ``generator`` leaves its ``reconstructions`` by batch."""

    def __init__(self, gan: PatchGAN, generator: nn.Module) -> None:
        super().__init__()
        self.gan = gan
        self._generator = [generator]

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Loss on the batch's true patches and the reconstructions that the generator's pass has left."""
        y_hat = self._generator[0].reconstructions.pop(int(batch["index"][0]), None)
        if y_hat is None:
            return {"loss": batch["y"].new_zeros(())}
        return {"loss": self.gan.discriminator_loss(batch["y"], y_hat)}


class AutoencoderStage(Stage):
    """See :class:`.stage.Stage`."""

    model: ModelConfig
    score = "psr_mae"

    def __init__(
        self,
        model: ModelConfig,
        settings: AutoencoderSettings,
        train: Sequence[PreparedSession],
        validation_set: Sequence[PreparedSession],
    ) -> None:
        self.model, self.settings, self.train, self.validation_set = model, settings, train, validation_set
        self.partial = any(entry.is_partial for entry in train)
        gan = None
        if settings.lambda_adversarial > 0:
            gan = PatchGAN(model.psr.out_channels, settings.discriminator_channels, patch=settings.patch)
        self.objective = AutoencoderObjective(model, settings, gan)
        self.objectives: dict[str, nn.Module] = {"autoencoder": self.objective}
        self.lr_factors = {}
        if gan is not None:
            self.objectives["discriminator"] = DiscriminatorObjective(gan, self.objective)
            self.lr_factors["discriminator"] = settings.discriminator_lr / settings.lr

    def batch(self, indices: range) -> dict[str, Tensor]:
        """Random patches, flipped and with random contrast."""
        s, samples = self.settings, []
        for i in indices:
            rng = random(s.seed, "autoencoder", i)
            entry = self.train[pick(len(self.train), s.seed, "autoencoder", i)]
            sample = read_patch(
                entry,
                s.patch,
                random_patch(entry, s.patch, rng),
                s.flip and rng.random() < 0.5,
                with_known=self.partial,
            )
            sample["x"] = augment(sample["x"], s.augment, rng)
            sample |= self._noise(rng)
            if s.latent_noise > 0:
                sample["z_spread"] = np.array(max(0.0, rng.uniform(-1, 1)), np.float32)
            # Last, so that all else is drawn as without it.
            samples.append({**sample, "index": np.array(i), "places": np.array(rng.integers(2**62))})
        return collate(samples)

    def _noise(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        grid = [n // self.model.psr.factor for n in self.settings.patch]
        return {
            name: rng.standard_normal((channels, *grid), np.float32)
            for name, channels in (
                ("z_noise", self.model.psr.latent_channels),
                ("c_noise", self.model.condition.latent_channels),
            )
        }

    def validate(self, device: torch.device) -> dict[str, float]:
        """Reconstruction of fixed patches of held-out subjects, from the latents' means, inside the brain."""
        s, errors = self.settings, []
        entries = self.validation_set or self.train
        for i in range(s.validation_patches):
            rng = random(s.seed, "validation", i)
            entry = entries[i % len(entries)]
            batch = collate([read_patch(entry, s.patch, random_patch(entry, s.patch, rng), False)])
            y, x, brain = (batch[k].to(device) for k in ("y", "x", "brain"))
            z, c = self.objective.psr.encode(y)[0], self.objective.condition.encode(x)[0]
            dy = (self.objective.psr.decode(z).float() - y)[brain > 0]
            dx = (self.objective.condition.decode(c).float() - x)[(brain > 0).expand_as(x)]
            align = self.objective.align(z, c, brain, torch.Generator().manual_seed(i)) if s.lambda_align > 0 else 0.0
            errors.append([float(v) for v in (dy.square().mean(), dy.abs().mean(), dx.square().mean(), z.std(), align)])
        psr_mse, psr_mae, condition_mse, spread, align = np.mean(errors, axis=0)
        return {
            "psr_psnr": float(-10 * np.log10(psr_mse)),  # in units of the PSR range, the peak is 1
            "psr_mae": float(psr_mae),
            "condition_rmse": float(condition_mse**0.5),
            "latent_std": float(spread),
            "align": float(align),
        }

    def preview(self, path: Path, device: torch.device) -> None:
        """Slices of one held-out patch: images, their reconstructions, PSR, its reconstruction, the difference."""
        s = self.settings
        entry = (self.validation_set or self.train)[0]
        start = random_patch(entry, s.patch, random(s.seed, "preview"))
        batch = collate([read_patch(entry, s.patch, start, False)])
        y, x = batch["y"].to(device), batch["x"].to(device)
        y_hat = self.objective.psr.decode(self.objective.psr.encode(y)[0]).float()
        x_hat = self.objective.condition.decode(self.objective.condition.encode(x)[0]).float()
        rows = [
            ("T1w", x[0, 0], "image"),
            ("T1w again", x_hat[0, 0], "image"),
            ("FLAIR", x[0, 1], "image"),
            ("FLAIR again", x_hat[0, 1], "image"),
            ("PSR", y[0, 0] * PSR_RANGE, "psr"),
            ("PSR again", y_hat[0, 0] * PSR_RANGE, "psr"),
            ("difference", (y_hat - y)[0, 0] * PSR_RANGE, "difference"),
        ]
        previews.draw(path, rows, title=f"{entry.name}, reconstruction")


def read_patch(
    entry: PreparedSession,
    size: Sequence[int],
    start: Sequence[int],
    flip: bool,
    psr_range: float = PSR_RANGE,
    with_known: bool = False,
) -> dict[str, np.ndarray]:
    """x (2, ...), y (1, ...) in units of the PSR range, brain (1, ...), labels (1, ...) of a patch, float32.

    ``brain`` and ``labels`` are 0 where PSR is unknown; ``with_known`` adds ``known`` (1, ...) itself.
    """
    labels = crop(entry.labels, start, size)[None]
    known = read_known(entry, start, size)[None] if entry.is_partial or with_known else None
    if known is not None:
        labels = np.where(known > 0, labels, labels.dtype.type(0))
    sample = {
        "x": crop(entry.x, start, size).astype(np.float32),
        "y": crop(entry.y, start, size)[None].astype(np.float32) / psr_range,
        "labels": labels,
        "brain": (labels > 0).astype(np.float32),
    }
    if with_known and known is not None:
        sample["known"] = known
    return {name: np.flip(value, -3) if flip else value for name, value in sample.items()}


def read_known(entry: PreparedSession, start: Sequence[int], size: Sequence[int]) -> np.ndarray:
    """1 where PSR is known, float32 ``size``; beyond the volume's edge it is known to be 0. The shape is ``size``."""
    return 1 - crop(1 - np.asarray(entry.known), start, size).astype(np.float32)
