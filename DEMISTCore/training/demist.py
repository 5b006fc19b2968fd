"""Stage 2: the three streams, on the frozen backbone.

    L = |eps - eps_hat|^2 (or v) + lambda_e w(t) |G(y0_hat) - G(y)|_1
        + lambda_a w(t) sum over tissues |mean(y0_hat) - mean(y)|,        w(t) = alpha_bar_t

y0_hat is decoded on a small crop of one sample in ``decode_every``, which counts ``decode_every`` times.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..diffusion import NoiseSchedule, SeededNoise, ddim
from ..errors import DemistError, InputError
from ..losses import edge_loss, known_mean, tissue_mean_loss, with_neighbours
from ..networks.config import MeanConfig, ModelConfig
from ..networks.demist import STREAMS, Condition, Demist
from ..networks.mean import PosteriorMean
from . import previews
from .autoencoder import read_known
from .backbone import by_time, error_by_time, known_of_crop, prediction_error, validation_samples
from .context import NEUTRAL
from .data import TISSUES, PreparedSession, collate, random
from .data import crop as crop_array
from .foundation import Foundation
from .latents import Crop, Latents, check_crop, draw_crop, draw_time, encode_cohort, latent_scales, noise_like
from .local import wide_of
from .loop import frozen_hash
from .mean import collate_whole, known_of, see, without_protocol
from .sharpen import sharpened
from .stage import Stage
from .stages.demist import DemistSettings
from .warp import wide_at

log = logging.getLogger(__name__)


class DemistObjective(nn.Module):
    """The conditioned network and its losses; backbone and decoder are frozen."""

    def __init__(
        self, demist: Demist, decoder: nn.Module, schedule: NoiseSchedule, settings: DemistSettings, scale: float
    ) -> None:
        super().__init__()
        self.demist, self.decoder = demist, decoder
        self.schedule, self.settings, self.scale = schedule, settings, scale
        self.estimates = demist.built.spatial and demist.spatial.estimate is not None

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Losses of a batch: z, noise (B, Cz, x, y, z), c (B, Cc, x, y, z), t (B,), offset (B, 3), keep (B, 3).

        ``context`` (B, 1, D), the backbone's own conditions, where they are given per subject; ``z_known``
        (B, 1, x, y, z), how far z is known.
        """
        z, noise, t, z_known = batch["z"], batch["noise"], batch["t"], batch.get("z_known")
        estimate = self.demist.spatial.estimate if self.estimates else None
        if estimate is not None and progress < self.settings.estimate_first:
            loss = known_mean((estimate(batch["c"]).float() - z).square(), z_known)
            return {"loss": loss, "estimate": loss}
        seen = None
        if self.demist.mean is not None:
            with torch.no_grad():
                seen = see(self.demist.mean, {**batch, "c": batch["c_whole"], "keep": batch["keep"][:, [0, 2]]})
        condition = self.demist.condition(batch["c"], offset=batch["offset"], seen=seen)
        condition = replace(condition, keep={name: batch["keep"][:, i] for i, name in enumerate(STREAMS)})
        z_t = self.schedule.add_noise(z, noise, t)
        prediction = self.demist(z_t, t, condition, context=batch.get("context")).float()
        parts = {"noise": prediction_error(self.schedule, prediction, z, noise, t, self.settings.weighting, z_known)}
        loss = parts["noise"]
        if seen is None and condition.estimate is not None and self.settings.lambda_estimate > 0:
            parts["estimate"] = known_mean((condition.estimate.float() - z).square(), z_known)
            loss = loss + self.settings.lambda_estimate * parts["estimate"]
        if "decode_which" in batch:
            which = batch["decode_which"]
            y_hat = self._decode(self.schedule.to_x0(prediction, z_t, t)[which], batch["decode_start"])
            y, labels = batch["decode_y"], batch["decode_labels"]
            weight = self.schedule.alphas_cumprod[t[which].cpu()].float().to(z.device)
            share = self.settings.decode_every * len(which) / len(z)
            known = batch.get("decode_known")
            where = None if known is None else with_neighbours(known)
            for name, factor, value in (
                ("edge", self.settings.lambda_edge, edge_loss(y_hat, y, where, weight)),
                ("tissue", self.settings.lambda_tissue, tissue_mean_loss(y_hat, y, labels, TISSUES, weight=weight)),
            ):
                parts[name] = value * share
                loss = loss + factor * parts[name]
        return {"loss": loss, **parts}

    def rehearse(self, batch: dict[str, Tensor], progress: float) -> None:
        """What :meth:`forward` takes from the other samples of a step: how much of the maps is known, at most twice."""
        for _ in ("noise", "estimate"):
            known_mean(batch["z"], batch.get("z_known"))

    def _decode(self, z: Tensor, starts: Tensor) -> Tensor:
        """Decode a crop of each sample with a halo, and cut the halo off: the decoder sees beyond its own voxel."""
        size, halo = self.settings.decode, self.settings.decode_halo
        factor = self.decoder.factor
        tiles = []
        for sample, start in zip(z, starts.tolist()):
            x, y, w = (slice(a - halo, a + n + halo) for a, n in zip(start, size))
            tiles.append(sample[:, x, y, w])
        decoded = self.decoder.decode(torch.stack(tiles) / self.scale).float()
        edge = halo * factor
        x, y, w = (slice(edge, edge + n * factor) for n in size)
        return decoded[:, :, x, y, w]


_NOTHING = np.zeros(0)


class DemistStage(Stage):
    """See :class:`.stage.Stage`."""

    model: ModelConfig
    score = "loss"

    def __init__(
        self,
        model: ModelConfig,
        settings: DemistSettings,
        foundation: Foundation,
        train: Sequence[PreparedSession],
        validation_set: Sequence[PreparedSession],
        cache: Path,
        contexts: Mapping[str, np.ndarray] | None = None,
        mean: tuple[MeanConfig, PosteriorMean] | None = None,
    ) -> None:
        base = foundation.model
        self.model = ModelConfig(base.psr, base.condition, base.backbone, model.streams, mean and mean[0])
        settings.schedule = dict(foundation.noise)  # the noise the backbone knows
        self.settings, self.contexts = settings, contexts
        self.schedule = NoiseSchedule(**settings.schedule, prediction=self.model.backbone.prediction)
        self.latent_scale, self.condition_scale = foundation.latent_scale, foundation.condition_scale
        self.autoencoder_hash, self.psr_range = foundation.autoencoder_hash, foundation.psr_range
        if mean is not None:
            train, validation_set = (sharpened(some, mean[1], foundation, settings) for some in (train, validation_set))
        latents = encode_cohort([*train, *validation_set], foundation, settings, cache)
        self.train, self.validation_set = latents[: len(train)], latents[len(train) :]
        self.partial = any(entry.is_partial for entry in train)
        if self.latent_scale is None:  # a published backbone: to unit variance, as its own latents were
            self.latent_scale, self.condition_scale = latent_scales(self.train, self.model.psr.factor)
        check_crop(self.train, settings, self.model.backbone.multiple)
        if settings.crop and settings.decode_every:
            for n, m in zip(settings.crop, settings.decode):
                if m + 2 * settings.decode_halo > n:
                    raise InputError("decode + 2 decode_halo must fit into crop; make decode smaller or crop larger.")
        try:
            self.demist = Demist(
                foundation.backbone, self.model.streams, self.model.condition.latent_channels, mean and mean[1]
            )
        except ValueError as error:
            raise InputError(str(error)) from error
        if mean and (settings.flip or settings.latent_augmentations):
            raise InputError(
                "With a mean network the streams see scans as they are: set flip=false latent_augmentations=0."
            )
        self._known = {latent.prepared.key: known_of(latent.prepared) for latent in latents} if mean else {}
        if not any(on for _, on in self.demist.built):
            raise InputError("All three streams are switched off; there is nothing to train.")
        self.objective = DemistObjective(self.demist, foundation.psr, self.schedule, settings, self.latent_scale)
        self.objectives: dict[str, nn.Module] = {"demist": self.objective}
        self.frozen = frozen_hash(self.demist.backbone)

    def table(self) -> str:
        """Frozen and trainable parameters."""
        return self.demist.parameter_table()

    def finish(self) -> None:
        """The backbone must be what it was, bit for bit."""
        if frozen_hash(self.demist.backbone) != self.frozen:
            raise DemistError("The frozen backbone has changed during training; this is a fault of the program.")
        log.info("The frozen backbone is unchanged (SHA-256 %s...).", self.frozen[:16])

    def batch(self, indices: range) -> dict[str, Tensor]:
        """Random crops of scaled latents with their condition, noise, times, dropout and what is to be decoded."""
        s, samples, decoded = self.settings, [], []
        drop = np.array([s.dropout_semantic, s.dropout_spatial, s.dropout_adaptive])
        for place, i in enumerate(indices):
            rng = random(s.seed, "demist", i)
            crop = draw_crop(self.train, s, i, rng, "demist")
            z = crop.read(crop.latents.z[crop.flip]) * np.float32(self.latent_scale)
            draw = rng.random(4)
            samples.append(
                {
                    "z": z,
                    "c": crop.read(crop.latents.c[crop.copy, crop.flip]) * np.float32(self.condition_scale),
                    "noise": noise_like(rng, z.shape),
                    "t": np.array(draw_time(i, s, self.schedule.steps)),
                    "offset": crop.offset,
                    "keep": ((draw[:3] >= drop) & (draw[3] >= s.dropout_all)).astype(np.float32),
                }
            )
            if self.partial:
                samples[-1]["z_known"] = crop.known(self.model.psr.factor)
            if self._known:
                # A generator of its own, as below.
                samples[-1] |= self._scan(crop)
                known = without_protocol(samples[-1]["known"], s.dropout_protocol, random(s.seed, "protocol", i))
                samples[-1]["known"] = known
            if self.contexts:
                # A generator of its own: with and without a table, all else is drawn alike.
                neutral = random(s.seed, "context", i).random() < s.dropout_context
                context = self.contexts[crop.latents.prepared.name]
                samples[-1]["context"] = np.full_like(context, NEUTRAL) if neutral else context
            if s.decode_every and i % s.decode_every == 0 and (s.lambda_edge > 0 or s.lambda_tissue > 0):
                decoded.append({"decode_which": np.array(place), **self._to_decode(crop, rng)})
        return {**self._collate(samples), **(collate(decoded) if decoded else {})}

    def _scan(self, crop: Crop) -> dict[str, np.ndarray]:
        """What the mean network needs besides: the crop's images, what is known of the whole volume."""
        factor, entry = self.model.psr.factor, crop.latents.prepared
        start, size = [a * factor for a in crop.start], [n * factor for n in crop.size]
        return {
            "x": crop_array(entry.x, start, size).astype(np.float32),
            "c_whole": np.asarray(crop.latents.c[0, 0], np.float32) * np.float32(self.condition_scale),
            "known": self._known[entry.key],
            "wide": wide_at(wide_of(entry), start, size),
        }

    def _collate(self, samples: list[dict[str, np.ndarray]]) -> dict[str, Tensor]:
        if not self._known:
            return collate(samples)
        whole = collate_whole([{"c": sample.pop("c_whole")} for sample in samples])
        return {**collate(samples), "c_whole": whole["c"], "c_shape": whole["c_shape"]}

    def _condition(self, crop: Crop, device: torch.device) -> Condition:
        """Everything given for one crop, nothing dropped."""
        c = torch.from_numpy(crop.read(crop.latents.c[0, 0]))[None].to(device) * self.condition_scale
        offset = torch.from_numpy(crop.offset)[None].to(device)
        seen = None
        if self._known:
            scan = self._collate([self._scan(crop)])
            batch = {name: value.to(device) for name, value in scan.items()}
            seen = see(self.demist.mean_network, {**batch, "c": batch["c_whole"], "offset": offset})
        return self.demist.condition(c, offset=offset, seen=seen)

    def _to_decode(self, crop: Crop, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """A small box inside the crop, the best of a few by the brain it holds, with its PSR and labels."""
        s, factor = self.settings, self.model.psr.factor
        best: tuple[float, list[int], np.ndarray, list[int], np.ndarray] = (-1.0, [], _NOTHING, [], _NOTHING)
        voxels = [n * factor for n in s.decode]
        for _ in range(4):
            start = [int(rng.integers(s.decode_halo, n - m - s.decode_halo + 1)) for n, m in zip(crop.size, s.decode)]
            origin = [(a + b) * factor for a, b in zip(crop.start, start)]
            if crop.flip:  # the flipped copy's box lies mirrored in the stored arrays
                origin[0] = crop.shape[0] * factor - origin[0] - voxels[0]
            labels = crop_array(crop.latents.prepared.labels, origin, voxels)
            known = read_known(crop.latents.prepared, origin, voxels)
            labels = np.where(known > 0, labels, labels.dtype.type(0))
            share = float((labels > 0).mean())
            if share > best[0]:
                best = share, start, labels, origin, known
        _, start, labels, origin, known = best
        y = crop_array(crop.latents.prepared.y, origin, voxels).astype(np.float32) / self.psr_range
        if crop.flip:
            y, labels, known = np.flip(y, 0), np.flip(labels, 0), np.flip(known, 0)
        box = {"decode_start": np.array(start), "decode_y": y[None], "decode_labels": labels[None]}
        return box | ({"decode_known": known[None]} if self.partial else {})

    def validate(self, device: torch.device) -> dict[str, float]:
        """Loss by time on fixed crops with fixed noise; PSNR of short samples against the truth."""
        losses, psnr, estimates = [], [], []
        for i, sample in enumerate(
            validation_samples(self.validation_set or self.train, self.settings, self.schedule.steps)
        ):
            crop = sample.crop
            z = torch.from_numpy(crop.read(crop.latents.z[0]))[None].to(device) * self.latent_scale
            condition, known = self._condition(crop, device), known_of_crop(crop, self.model.psr.factor, device)
            if condition.estimate is not None:
                estimates.append(float(known_mean((condition.estimate.float() - z).square(), known)))
            noise, t = sample.noise(z), sample.times.to(device)
            target = self.schedule.target(z.expand_as(noise), noise, t)
            z_t = self.schedule.add_noise(z.expand_as(noise), noise, t)
            own = self._context(crop.latents, device)

            def answer(z_t: Tensor, t: Tensor, condition: Condition = condition, own: Tensor | None = own) -> Tensor:
                return self.demist(z_t, t, condition, context=own)

            losses.append(error_by_time(answer, z_t, t, target, known))
            if i < self.settings.validation_samples:
                psnr.append(self._sample_psnr(crop, condition, own, device, seed=i))
        result = by_time(losses) | ({"estimate": float(np.mean(estimates))} if estimates else {})
        return result if not psnr else {**result, "sample_psnr": float(np.mean(psnr))}

    def _context(self, latents: Latents, device: torch.device) -> Tensor | None:
        """The backbone's own conditions of a session, (1, 1, D); None: neutral."""
        if not self.contexts:
            return None
        return torch.from_numpy(self.contexts[latents.prepared.name])[None].to(device)

    def _sample_psnr(
        self, crop: Crop, condition: object, context: Tensor | None, device: torch.device, seed: int
    ) -> float:
        factor = self.model.psr.factor
        origin, voxels = [a * factor for a in crop.start], [n * factor for n in crop.size]
        y = crop_array(crop.latents.prepared.y, origin, voxels).astype(np.float32)
        brain = crop_array(crop.latents.prepared.labels, origin, voxels) > 0
        brain &= read_known(crop.latents.prepared, origin, voxels) > 0
        y_hat = self._sample((1, self.model.psr.latent_channels, *crop.size), condition, context, device, seed)
        error = np.square(y_hat - y)[brain].mean() if brain.any() else np.nan
        return float(-10 * np.log10(error / self.psr_range**2))

    def _sample(
        self, shape: Sequence[int], condition: object, context: Tensor | None, device: torch.device, seed: int
    ) -> np.ndarray:
        noise = SeededNoise([seed])
        z = ddim(
            lambda a, b: self.demist(a, b, condition, context=context),
            noise(shape).to(device),
            self.schedule,
            self.settings.preview_steps,
            noise=noise,
        )
        return (self.objective.decoder.decode(z / self.latent_scale)[0, 0].float() * self.psr_range).cpu().numpy()

    def preview(self, path: Path, device: torch.device) -> None:
        """A held-out subject: T1w, FLAIR, true PSR, a short sample, the difference."""
        latents = (self.validation_set or self.train)[0]
        entry = latents.prepared
        y = np.asarray(entry.y, np.float32)
        own = self._context(latents, device)
        whole = Crop(latents, 0, 0, (0, 0, 0), latents.z.shape[-3:])
        given = self._condition(whole, device)
        y_hat = self._sample((1, *latents.z.shape[1:]), given, own, device, self.settings.seed)
        y_hat = y_hat * (np.asarray(entry.labels) > 0)
        t1w, flair = np.asarray(entry.x, np.float32)
        rows = [
            ("T1w", t1w, "image"),
            ("FLAIR", flair, "image"),
            ("PSR", y, "psr"),
            ("DEMIST", y_hat, "psr"),
            ("difference", y_hat - y, "difference"),
        ]
        previews.draw(path, rows, title=f"{entry.name}, {self.settings.preview_steps} steps of DDIM")
