"""What stages on patches share: samples, validation and preview of a network that makes PSR of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..networks.config import PSR_RANGE
from . import previews
from .autoencoder import read_patch
from .data import PreparedSession, augment, collate, pick, random, random_patch
from .resolution import target_of, turned
from .stage import Stage


class PatchStage(Stage):
    """A stage on pairs of patches; subclasses bring ``objectives`` and :meth:`answer`."""

    #: of the stage: part of every draw
    name: str
    score = "mae"

    def __init__(
        self, settings: Any, train: Sequence[PreparedSession], validation_set: Sequence[PreparedSession]
    ) -> None:
        self.settings, self.train, self.validation_set = settings, train, validation_set
        self.partial = any(entry.is_partial for entry in train)
        self.blur = {entry.key: entry.blur for entry in [*train, *validation_set]}
        self.coarse = any(blur is not None for blur in self.blur.values())

    def answer(self, x: Tensor, seed: int = 0) -> Tensor:
        """PSR (B, 1, X, Y, Z) in units of the PSR range of images (B, 2, X, Y, Z)."""
        raise NotImplementedError

    def table(self) -> str:
        """Number of parameters."""
        counts = (f"{name} {sum(p.numel() for p in o.parameters()):,}" for name, o in self.objectives.items())
        return f"parameters: {', '.join(counts)}"

    def batch(self, indices: range) -> dict[str, Tensor]:
        """Random patches, flipped and with random contrast: the same as the condition encoder sees."""
        return collate([self.sample(i, random(self.settings.seed, self.name, i)) for i in indices])

    def sample(self, i: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Sample ``i``: x (2, ...), y (1, ...); of partial maps known (1, ...), of coarse ones blur (3, 3), too."""
        s = self.settings
        entry = self.train[pick(len(self.train), s.seed, self.name, i)]
        start = random_patch(entry, s.patch, rng)
        flip = bool(s.flip and rng.random() < 0.5)
        sample = read_patch(entry, s.patch, start, flip, with_known=self.partial)
        known = {"known": sample["known"]} if self.partial else {}
        blur = {"blur": turned(self.blur[entry.key], flip=flip)} if self.coarse else {}
        return {"x": augment(sample["x"], s.augment, rng), "y": sample["y"], **known, **blur}

    def fixed_patches(self) -> list[dict[str, Tensor]]:
        """The same patches of held-out subjects at every validation, one a batch."""
        s, entries = self.settings, self.validation_set or self.train
        patches = []
        for i in range(s.validation_patches):
            entry = entries[i % len(entries)]
            start = random_patch(entry, s.patch, random(0, "validation", i))
            blur = {"blur": turned(self.blur[entry.key])} if self.coarse else {}
            patches.append(collate([read_patch(entry, s.patch, start, False) | blur]))
        return patches

    def validate(self, device: torch.device) -> dict[str, float]:
        """Error inside the brain on fixed patches of held-out subjects."""
        errors = []
        for i, batch in enumerate(self.fixed_patches()):
            y_hat = self.answer(batch["x"].to(device), i).float().cpu()
            error = (y_hat - target_of(y_hat, batch))[batch["brain"] > 0]
            errors.append((float(error.square().mean()), float(error.abs().mean())))
        mse, mae = np.mean(errors, axis=0)
        return {"psnr": float(-10 * np.log10(mse)), "mae": float(mae)}

    def preview(self, path: Path, device: torch.device) -> None:
        """One held-out patch: T1w, FLAIR, PSR, the answer, the difference."""
        s = self.settings
        entry = (self.validation_set or self.train)[0]
        batch = collate([read_patch(entry, s.patch, random_patch(entry, s.patch, random(0, "preview")), False)])
        y_hat = self.answer(batch["x"].to(device)).float().cpu()[0, 0] * PSR_RANGE
        x, y = batch["x"][0], batch["y"][0, 0] * PSR_RANGE
        rows = [
            ("T1w", x[0], "image"),
            ("FLAIR", x[1], "image"),
            ("PSR", y, "psr"),
            (self.name, y_hat, "psr"),
            ("difference", y_hat - y, "difference"),
        ]
        previews.draw(path, rows, title=entry.name)
