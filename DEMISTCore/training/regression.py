"""The baseline's training: L1 between the network's answer and the PSR map, on patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ..baselines.regression import build_regression, load_regression
from ..errors import InputError
from ..losses import known_mean
from .data import PreparedSession
from .patches import PatchStage
from .resolution import target_of

if TYPE_CHECKING:
    from .stages.regression import RegressionSettings

__all__ = ["RegressionObjective", "RegressionStage", "check_unet", "load_regression"]


class RegressionObjective(nn.Module):
    """|f(x) - y|_1."""

    def __init__(self, settings: RegressionSettings) -> None:
        super().__init__()
        self.network = build_regression(settings.channels)

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Loss of a batch: x (B, 2, X, Y, Z), y (B, 1, X, Y, Z) in units of the PSR range; ``known``: where y is."""
        y_hat = self.network(batch["x"]).float()
        return {"loss": known_mean((y_hat - target_of(y_hat, batch)).abs(), batch.get("known"))}

    def rehearse(self, batch: dict[str, Tensor], progress: float) -> None:
        """What :meth:`forward` takes from the other samples of a step: how much of the maps is known."""
        known_mean(batch["y"], batch.get("known"))


class RegressionStage(PatchStage):
    """See :class:`.stage.Stage`."""

    name = "regression"

    def __init__(
        self, settings: RegressionSettings, train: Sequence[PreparedSession], validation_set: Sequence[PreparedSession]
    ) -> None:
        check_unet(settings)
        super().__init__(settings, train, validation_set)
        self.objective = RegressionObjective(settings)
        self.objectives: dict[str, nn.Module] = {"regression": self.objective}

    def answer(self, x: Tensor, seed: int = 0) -> Tensor:
        """The network's. PSR (B, 1, X, Y, Z) in units of the PSR range of images (B, 2, X, Y, Z)."""
        return self.objective.network(x)


def check_unet(settings: RegressionSettings) -> None:
    """Refuse widths and patches that the U-Net does not take.

    Raises:
        InputError: the sentence says what it takes.
    """
    if len(settings.channels) != 6:
        raise InputError("channels needs six widths: five levels and the last decoder block.")
    if any(n % 16 or n < 32 for n in settings.patch):
        raise InputError(f"patch={list(settings.patch)} must be multiples of 16, 32 or more: the U-Net halves it.")
