"""The posterior mean (:mod:`DEMISTCore.networks.mean`): guide, tokens, knowledge and the guided decoder, together.

First of all its local part is fitted to voxels of all scans (:mod:`.local`); from then on it stays, and the networks
learn on crops what it misses:

    L = |y_hat - y|^2 / e^2 + lambda_latent |z_hat - z|^2 + lambda_spread (|r| / s + log s)
        + lambda_tissue sum over tissues |mean(y_hat) - mean(y)| / e

e is a typical error; r the mean's error, held fixed in the third term, the negative log likelihood of a Laplace
distribution (after Nix and Weigend 1994): a Gaussian's grows with the square of r and, early in training, drowned all
other gradients under the common clipping. s is the scale that is learnt, and the spread is sqrt(2) s. Crops see the
tokens and the knowledge of their whole volume, as at the time of use. Without tokens they need not lie in it as it is:
they are warped (:mod:`.warp`), lesions are painted in (:mod:`.paint`), and z is encoded from what came of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import pooling
from ..acquisition import KEYS, PROTOCOL_WIDTH, read_protocol
from ..errors import InputError
from ..losses import known_mean, tissue_mean_loss
from ..networks.autoencoder import encode
from ..networks.config import ModelConfig
from ..networks.demist import build_mean
from ..networks.knowledge import describe
from ..networks.mean import PosteriorMean, Seen
from ..volume.grid import triple
from . import previews, warp
from .arrays import kept
from .autoencoder import read_known
from .data import TISSUES, PreparedSession, augment, clamp_start, collate, crop, pick, random, random_patch
from .foundation import Foundation
from .latents import Crop, Latents, check_crop, encode_cohort, latent_scales
from .local import fit_local, wide_of
from .paint import paint
from .resolution import target_of, turned
from .stage import Stage
from .stages.mean import MeanSettings

#: Beside a prepared scan: what :func:`DEMISTCore.networks.knowledge.describe` says of it.
DESCRIPTION = "description.npy"


class MeanObjective(nn.Module):
    """The network and its losses.

    Args:
        mean: the network.
        settings: weights of the losses.
        psr_range: PSR that is 1 to the network.
        latent_of: y (B, 1, X, Y, Z) to the scaled z_0, without gradients.
    """

    def __init__(
        self, mean: PosteriorMean, settings: MeanSettings, psr_range: float, latent_of: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.mean, self.settings, self.psr_range, self.latent_of = mean, settings, psr_range, latent_of

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Losses of a batch: x (B, 2, X, Y, Z), y, labels (B, 1, ...), known, and, for tokens, c, c_shape, offset."""
        s = self.settings
        scale = self.psr_range / s.error_scale
        with torch.set_grad_enabled(torch.is_grad_enabled() and not s.only_spread):
            seen = see(self.mean, batch)
        y_hat, spread = self.mean.decode(seen)
        inner, (inside, labels) = _inner(s.margin), _counted(batch, s.margin)
        whole, z_known = target_of(y_hat, batch), None
        y = whole[inner]
        count = pooling.count(inside.sum())
        if "psr_known" in batch:
            z_known = _of_latents(batch["psr_known"], seen.estimate)
        y_hat, spread = y_hat[inner], spread[inner] + float(np.log(scale / np.sqrt(2)))
        residual = scale * (y_hat - y)

        def average(values: Tensor) -> Tensor:
            return (values * inside).sum() / count

        parts = {
            "mean": average(residual.square()),
            "latent": known_mean((seen.estimate.float() - self.latent_of(whole)).square(), z_known),
            "spread": average(residual.detach().abs() * torch.exp(-spread) + spread),
            "tissue": scale * tissue_mean_loss(y_hat, y, labels, TISSUES),
        }
        weights = {"latent": s.lambda_latent, "spread": s.lambda_spread, "tissue": s.lambda_tissue}
        loss = parts["mean"] + sum(weight * parts[name] for name, weight in weights.items())
        if s.only_spread:
            loss = parts["spread"]  # reaches no other weight, and the optimizer leaves alone what has no gradient
        return {"loss": loss, **parts}

    def rehearse(self, batch: dict[str, Tensor], progress: float) -> None:
        """What :meth:`forward` takes from the other samples of a step: how many voxels count, and latents."""
        pooling.count(_counted(batch, self.settings.margin)[0].sum())
        if "psr_known" in batch:
            z = self.latent_of(batch["y"])
            known_mean(z, _of_latents(batch["psr_known"], z))


def _counted(batch: dict[str, Tensor], margin: int) -> tuple[Tensor, Tensor]:
    """Inside the margin, (B, 1, ...) each: 1 where a voxel counts, and tissue labels where PSR is known."""
    inner = _inner(margin)
    labels = batch["labels"][inner]
    inside = ((batch["x"][inner] != 0).any(1, keepdim=True) | (labels > 0)).float()
    if "psr_known" in batch:
        known = batch["psr_known"][inner]
        inside, labels = inside * known, labels * (known > 0)
    return inside, labels


def see(mean: PosteriorMean, batch: dict[str, Tensor]) -> Seen:
    """What the network sees of a batch; whole volumes' latents come padded to one shape."""
    whole = []
    if "c" in batch:
        whole = [c[None, :, :x, :y, :z] for c, (x, y, z) in zip(batch["c"], batch["c_shape"].tolist())]
    # Dropout of the spatial stream belongs to the diffusion alone: without the scans there is no mean to learn.
    keep = {name: batch["keep"][:, i] for i, name in enumerate(("semantic", "adaptive"))} if "keep" in batch else {}
    return mean.see(batch["x"], whole, batch["known"], offset=batch.get("offset"), keep=keep, wide=batch.get("wide"))


def _of_latents(known: Tensor, latent: Tensor) -> Tensor:
    """``known`` (B, 1, X, Y, Z) on the latent grid: the share of each position, 0 under a half."""
    share = torch.nn.functional.adaptive_avg_pool3d(known.float(), latent.shape[2:])
    return share * (share >= 0.5)


def _inner(margin: int) -> tuple[Any, ...]:
    inside = slice(margin, -margin or None)
    return (slice(None), slice(None), inside, inside, inside)


class MeanStage(Stage):
    """See :class:`.stage.Stage`. ``given``: weights will come from another run, a checkpoint or a bundle."""

    model: ModelConfig

    def __init__(
        self,
        model: ModelConfig,
        settings: MeanSettings,
        foundation: Foundation,
        train: Sequence[PreparedSession],
        validation_set: Sequence[PreparedSession],
        cache: Path,
        given: bool = False,
    ) -> None:
        base = foundation.model
        try:
            self.model = ModelConfig(base.psr, base.condition, base.backbone, model.streams, model.mean)
            mean = build_mean(self.model)
        except ValueError as error:
            raise InputError(str(error)) from error
        if mean is None:
            raise InputError("The model has no mean network; give its sizes, for example model.mean.channels=[64,128].")
        self.mean = mean
        if settings.flip or settings.latent_augmentations or not settings.crop:
            raise InputError("Stage mean takes crops of scans: flip=false latent_augmentations=0 crop=...")
        self.crop = triple(settings.crop)
        self.whole = mean.cfg.semantic  # tokens need each crop's whole volume, as it is
        if self.whole and (settings.warp.probability or settings.paint.probability or settings.paint.specks):
            raise InputError(
                "Tokens know their whole volume as it is: with the semantic stream in the mean set "
                "warp.probability=0 paint.probability=0 paint.specks=0."
            )
        self.settings = settings
        self.score = "surprise" if settings.only_spread else "mse"
        self.train, self.validation_set = list(train), list(validation_set)
        self.partial = any(entry.is_partial for entry in [*train, *validation_set])
        self.blur = {entry.key: entry.blur for entry in [*train, *validation_set]}
        self.coarse = any(blur is not None for blur in self.blur.values())
        self.latent_scale, self.condition_scale = foundation.latent_scale, foundation.condition_scale
        self.latents: dict[str, Latents] = {}
        if self.whole or self.latent_scale is None:
            latents = encode_cohort([*train, *validation_set], foundation, settings, cache)
            check_crop(latents, settings, 1)
            if self.latent_scale is None:
                self.latent_scale, self.condition_scale = latent_scales(latents[: len(train)], self.model.psr.factor)
            self.latents = {one.prepared.key: one for one in latents} if self.whole else {}
        self.autoencoder_hash = foundation.autoencoder_hash
        self.psr_range = foundation.psr_range
        self._psr = [foundation.psr]  # in a list: frozen, and no part of what is trained
        self.objective = MeanObjective(self.mean, settings, self.psr_range, self._latent_of)
        self.objectives: dict[str, nn.Module] = {"mean": self.objective}
        self._known = {entry.key: known_of(entry) for entry in [*train, *validation_set]}
        self._wide = {entry.key: wide_of(entry) for entry in [*train, *validation_set]}
        if not given:
            began = time.monotonic()
            # Not warped: the volume around a crop would have to be, too, and voxels gain nothing by it.
            fit_local(
                self.mean.decoder.local,
                lambda i: self._drawn(i, "local", warped=False),
                len(self.train),
                settings.local,
                settings.seed,
            )
            self.fitted_seconds = time.monotonic() - began

    @torch.no_grad()
    def _latent_of(self, y: Tensor) -> Tensor:
        psr = self._psr[0].to(y.device)
        return encode(psr, y.contiguous(memory_format=torch.channels_last_3d)).float() * self.latent_scale

    def begins_anew(self, name: str) -> bool:
        """Whether a weight need not be the same here and in the run of ``--init``.

        That is a left-out stream's, and, where nothing else is trained, the spread's.
        """
        name = name.removeprefix("mean.")
        left_out = self.mean.stream_of(name) == "semantic" and not self.mean.cfg.semantic
        return left_out or (self.settings.only_spread and name.startswith("decoder.spread."))

    def table(self) -> str:
        """Parameters by stream."""
        counts: dict[str, int] = {}
        for name, parameter in self.mean.named_parameters():
            stream = self.mean.stream_of(name)
            counts[stream] = counts.get(stream, 0) + parameter.numel()
        return "\n".join(f"{name:<12}{count:>14,}" for name, count in {**counts, "total": sum(counts.values())}.items())

    def batch(self, indices: range) -> dict[str, Tensor]:
        """Random crops with their whole volume's latents, half of them without a sidecar."""
        return collate_whole([self._drawn(i, "mean") for i in indices])

    def _drawn(self, i: int, what: str, warped: bool = True) -> dict[str, np.ndarray]:
        """Sample ``i`` of the training, or of another draw of the same kind."""
        s, rng = self.settings, random(self.settings.seed, what, i)
        entry = self.train[pick(len(self.train), s.seed, what, i)]
        start = self._start(entry, rng)
        size = [n * self.model.psr.factor for n in self.crop]
        sample = self._sample(entry, start, warp.draw(size, s.warp, rng) if warped else None)
        sample["x"], y, labels = paint(sample["x"], sample["y"][0], sample["labels"][0], s.paint, rng)
        sample |= {"y": y[None], "labels": labels[None], "x": augment(sample["x"], s.augment, rng)}
        sample["keep"] = (rng.random(2) >= (s.dropout_semantic, s.dropout_adaptive)).astype(np.float32)
        sample["known"] = without_protocol(sample["known"], s.dropout_protocol, rng)
        return sample

    def _start(self, entry: PreparedSession, rng: np.random.Generator) -> list[int]:
        """First voxel of a crop, aligned with the latent's grid."""
        factor, crop_size = self.model.psr.factor, self.crop
        start = random_patch(entry, [n * factor for n in crop_size], rng, self.settings.lesion_share)
        extents = [n // factor for n in entry.labels.shape]
        return [a * factor for a in clamp_start([a // factor for a in start], crop_size, extents)]

    def _sample(
        self, entry: PreparedSession, start: list[int], places: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """The crop that begins at ``start``, or warped about its centre, without anything else random."""
        size = [n * self.model.psr.factor for n in self.crop]
        if places is None:
            images = {name: crop(getattr(entry, name), start, size) for name in ("x", "y", "labels")}
            images["known"] = read_known(entry, start, size)
        else:
            images = warp.read(entry, start, places)
        sample = {
            "x": images["x"].astype(np.float32),
            "y": images["y"][None].astype(np.float32) / self.psr_range,
            "labels": images["labels"][None],
            "known": self._known[entry.key],
            "wide": warp.wide_at(self._wide[entry.key], start, size, places),
        }
        if self.partial:
            sample["psr_known"] = images["known"][None]
        if self.coarse:
            sample["blur"] = turned(self.blur[entry.key], places)
        if self.whole:
            latents = self.latents[entry.key]
            at = triple(a // self.model.psr.factor for a in start)
            sample["c"] = np.asarray(latents.c[0, 0], np.float32) * np.float32(self.condition_scale)
            sample["offset"] = Crop(latents, 0, 0, at, self.crop).offset
        return sample

    def validate(self, device: torch.device) -> dict[str, float]:
        """Error of the mean on fixed crops; how well the spread tells the error (``surprise``: -log likelihood)."""
        from scipy.stats import spearmanr

        rows = []
        for i in range(self.settings.validation_crops):
            batch, y_hat, spread = self._fixed(i, device)
            inner = _inner(self.settings.margin)
            inside = (batch["labels"][inner] > 0).cpu().numpy()
            if self.partial:
                inside &= batch["psr_known"][inner].cpu().numpy() > 0
            y = target_of(y_hat, batch)
            y, y_hat, spread = (v[inner].float().cpu().numpy()[inside] for v in (y, y_hat, spread.exp()))
            error = np.abs(y_hat - y)
            some = slice(None, None, 17)
            rows.append(
                (
                    np.square(error).mean(),
                    (error < 1.645 * spread).mean(),
                    spearmanr(error[some], spread[some]).statistic,
                    (error / spread * np.sqrt(2) + np.log(spread * np.sqrt(2))).mean(),
                )
            )
        mse, coverage, rank, surprise = map(float, np.mean(rows, axis=0))
        return {
            "mse": mse,
            "psnr": -10 * math.log10(mse),
            "coverage_90": coverage,
            "rank": rank,
            "surprise": surprise,
        }

    def _fixed(self, i: int, device: torch.device) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Validation crop ``i``, its mean and log spread."""
        entries = self.validation_set or self.train
        entry = entries[i % len(entries)]
        sample = self._sample(entry, self._start(entry, random(self.settings.seed, "validation", i)))
        batch = {name: value.to(device) for name, value in collate_whole([sample]).items()}
        return batch, *self.mean.decode(see(self.mean, batch))

    def preview(self, path: Path, device: torch.device) -> None:
        """One held-out crop: T1w, FLAIR, PSR, the mean, its spread, the difference."""
        batch, y_hat, spread = self._fixed(0, device)
        y_hat, spread = y_hat.cpu(), spread.cpu()
        x, y = batch["x"][0].cpu(), batch["y"][0, 0].cpu() * self.psr_range
        mean = y_hat[0, 0].float() * self.psr_range
        rows = [
            ("T1w", x[0], "image"),
            ("FLAIR", x[1], "image"),
            ("PSR", y, "psr"),
            ("mean", mean, "psr"),
            ("spread", spread[0, 0].exp(), "image"),
            ("difference", mean - y, "difference"),
        ]
        previews.draw(path, rows, title=(self.validation_set or self.train)[0].name)


def known_of(entry: PreparedSession) -> np.ndarray:
    """Description of the images and the sidecars' protocol, (KNOWN_WIDTH,); the first is kept beside the images."""

    def make() -> np.ndarray:
        x = np.asarray(entry.x, np.float32)
        return describe(x, (x != 0).any(0), entry.spacing)

    described = kept(entry.folder / DESCRIPTION, make)
    t1w, flair = entry.meta["inputs"][:2]
    return np.concatenate([described, read_protocol(t1w, flair)[0]])


def without_protocol(known: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Forget the protocol in ``share`` of the samples, and of the others some keys.

    ``known`` and the result are (KNOWN_WIDTH,).
    """
    known = known.copy()
    everything, some = rng.random() < share, rng.random(2 * len(KEYS)) < 0.2
    protocol = known[-PROTOCOL_WIDTH:].reshape(-1, 2)
    protocol[some | everything] = 0
    return known


def collate_whole(samples: Sequence[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """Stack; latents ``c`` of whole volumes are padded at the end to one shape, ``c_shape`` is theirs."""
    if "c" not in samples[0]:
        return collate(samples)
    shapes = np.array([sample["c"].shape[1:] for sample in samples])
    largest = shapes.max(0)
    padded = []
    for sample, shape in zip(samples, shapes):
        whole = np.pad(sample["c"], [(0, 0), *((0, n - m) for m, n in zip(shape, largest))])
        padded.append({**sample, "c": whole, "c_shape": shape})
    return collate(padded)
