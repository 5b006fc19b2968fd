"""pix2pix in 3-D: the generator against a discriminator that sees scans and map together.

L_G = |f(x) - y|_1 + lambda_adv adversarial(D(x, f(x))),    L_D = (D(x, y) - 1)^2 / 2 + D(x, f(x))^2 / 2
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..baselines.pix2pix import build_generator
from ..losses import PatchGAN, known_mean
from .autoencoder import judged
from .data import PreparedSession
from .patches import PatchStage
from .regression import check_unet
from .resolution import target_of

if TYPE_CHECKING:
    from .stages.pix2pix import Pix2pixSettings


class GeneratorObjective(nn.Module):
    """The generator's losses; keeps its last answers for the discriminator."""

    def __init__(self, settings: Pix2pixSettings, gan: PatchGAN) -> None:
        super().__init__()
        self.network = build_generator(settings.channels)
        self.weight, self.begin = settings.lambda_adversarial, settings.adversarial_start
        self._gan = [gan]  # in a list: its parameters are not this objective's
        self.answers: dict[int, Tensor] = {}  # by the batch's first index, taken by the discriminator

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Losses of a batch: x (B, 2, X, Y, Z), y (B, 1, X, Y, Z) in units of the PSR range; ``known``: where y is."""
        x, y, known = batch["x"], batch["y"], batch.get("known")
        y_hat = self.network(x).float()
        parts = {"l1": known_mean((y_hat - target_of(y_hat, batch)).abs(), known)}
        loss = parts["l1"]
        if progress >= self.begin:
            pair = torch.cat([x, judged(y_hat, y, known)], 1)
            parts["adversarial"] = self._gan[0].generator_loss(pair)
            loss = loss + self.weight * parts["adversarial"]
            self.answers[int(batch["index"][0])] = pair.detach()
        return {"loss": loss, **parts}

    def rehearse(self, batch: dict[str, Tensor], progress: float) -> None:
        """What :meth:`forward` takes from the other samples of a step: how much of the maps is known."""
        known_mean(batch["y"], batch.get("known"))


class PairDiscriminatorObjective(nn.Module):
    """The discriminator's loss on (scans, map) and (scans, answer)."""

    def __init__(self, gan: PatchGAN, generator: GeneratorObjective) -> None:
        super().__init__()
        self.gan = gan
        self._generator = [generator]

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Loss on the batch's pairs and those that the generator's pass has left; zero before it joins."""
        fake = self._generator[0].answers.pop(int(batch["index"][0]), None)
        if fake is None:
            return {"loss": batch["y"].new_zeros(())}
        return {"loss": self.gan.discriminator_loss(torch.cat([batch["x"], batch["y"]], 1), fake)}


class Pix2pixStage(PatchStage):
    """See :class:`.stage.Stage`."""

    name = "pix2pix"

    def __init__(
        self, settings: Pix2pixSettings, train: Sequence[PreparedSession], validation_set: Sequence[PreparedSession]
    ) -> None:
        check_unet(settings)
        super().__init__(settings, train, validation_set)
        gan = PatchGAN(3, settings.discriminator_channels, settings.discriminator_layers, patch=settings.patch)
        self.objective = GeneratorObjective(settings, gan)
        self.objectives: dict[str, nn.Module] = {
            "pix2pix": self.objective,
            "discriminator": PairDiscriminatorObjective(gan, self.objective),
        }
        self.lr_factors = {"discriminator": settings.discriminator_lr / settings.lr}

    def answer(self, x: Tensor, seed: int = 0) -> Tensor:
        """The generator's. PSR (B, 1, X, Y, Z) in units of the PSR range of images (B, 2, X, Y, Z)."""
        return self.objective.network(x)

    def batch(self, indices: range) -> dict[str, Tensor]:
        """As any stage on patches, with each sample's index."""
        return {**super().batch(indices), "index": torch.tensor(list(indices))}
