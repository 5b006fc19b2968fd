"""The rival's training: L1 between the network's answer and the PSR map, on patches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..baselines.regression import build_regression, load_regression
from ..errors import InputError
from ..losses import known_mean
from ..networks.config import PSR_RANGE
from . import previews
from .autoencoder import read_patch
from .data import Prepared, augment, collate, pick, random, random_patch
from .stage import Stage
from .stages.regression import RegressionSettings

__all__ = ["RegressionObjective", "RegressionStage", "load_regression"]


class RegressionObjective(nn.Module):
    """|f(x) - y|_1."""

    def __init__(self, settings: RegressionSettings) -> None:
        super().__init__()
        self.network = build_regression(settings.channels)

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Loss of a batch: x (B, 2, X, Y, Z), y (B, 1, X, Y, Z) in units of the PSR range; ``known``: where y is."""
        return {"loss": known_mean((self.network(batch["x"]).float() - batch["y"]).abs(), batch.get("known"))}


class RegressionStage(Stage):
    """See :class:`.stage.Stage`."""

    score = "mae"

    def __init__(self, settings: RegressionSettings, train: Sequence[Prepared], held: Sequence[Prepared]) -> None:
        if len(settings.channels) != 6:
            raise InputError("channels needs six widths: five levels and the last decoder block.")
        if any(n % 16 or n < 32 for n in settings.patch):
            raise InputError(f"patch={list(settings.patch)} must be multiples of 16, 32 or more: the U-Net halves it.")
        self.settings, self.train, self.held = settings, train, held
        self.partial = any(entry.is_partial for entry in train)
        self.objective = RegressionObjective(settings)
        self.objectives: dict[str, nn.Module] = {"regression": self.objective}

    def table(self) -> str:
        """Number of parameters."""
        return f"regression: {sum(p.numel() for p in self.objective.parameters()):,} parameters"

    def batch(self, indices: range) -> dict[str, Tensor]:
        """Random patches, flipped and with random contrast: the same as the condition encoder sees."""
        s, samples = self.settings, []
        for i in indices:
            rng = random(s.seed, "regression", i)
            entry = self.train[pick(len(self.train), s.seed, "regression", i)]
            sample = read_patch(entry, s.patch, random_patch(entry, s.patch, rng), s.flip and rng.random() < 0.5,
                                with_known=self.partial)  # fmt: skip
            known = {"known": sample["known"]} if self.partial else {}
            samples.append({"x": augment(sample["x"], s.augment, rng), "y": sample["y"], **known})
        return collate(samples)

    def validate(self, device: torch.device) -> dict[str, float]:
        """Error inside the brain on fixed patches of held-out subjects."""
        s, errors = self.settings, []
        entries = self.held or self.train
        for i in range(s.validation_patches):
            entry = entries[i % len(entries)]
            start = random_patch(entry, s.patch, random(0, "validation", i))
            batch = collate([read_patch(entry, s.patch, start, False)])
            y_hat = self.objective.network(batch["x"].to(device)).float().cpu()
            error = (y_hat - batch["y"])[batch["brain"] > 0]
            errors.append((float(error.square().mean()), float(error.abs().mean())))
        mse, mae = np.mean(errors, axis=0)
        return {"psnr": float(-10 * np.log10(mse)), "mae": float(mae)}

    def preview(self, path: Path, device: torch.device) -> None:
        """One held-out patch: T1w, FLAIR, PSR, the answer, the difference."""
        s = self.settings
        entry = (self.held or self.train)[0]
        batch = collate([read_patch(entry, s.patch, random_patch(entry, s.patch, random(0, "preview")), False)])
        y_hat = self.objective.network(batch["x"].to(device)).float().cpu()[0, 0] * PSR_RANGE
        x, y = batch["x"][0], batch["y"][0, 0] * PSR_RANGE
        rows = [
            ("T1w", x[0], "image"), ("FLAIR", x[1], "image"), ("PSR", y, "psr"), ("regression", y_hat, "psr"),
            ("difference", y_hat - y, "difference"),
        ]  # fmt: skip
        previews.draw(path, rows, title=entry.name)
