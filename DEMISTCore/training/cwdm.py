"""cWDM's training: clean Haar bands of the map from noisy ones and the scans' bands, squared error over all bands.

L = |W(y) - f(alpha_t W(y) + sigma_t eps, W(x), t)|^2,    W: one level of the Haar transform, low bands over 3
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ..baselines import haar
from ..baselines.cwdm import as_velocity, build_cwdm, schedule
from ..diffusion import SeededNoise, ddim
from ..errors import InputError
from ..losses import known_mean
from .data import PreparedSession
from .patches import PatchStage

if TYPE_CHECKING:
    from .stages.cwdm import CwdmSettings


class CwdmObjective(nn.Module):
    """Squared error of the clean bands."""

    def __init__(self, settings: CwdmSettings) -> None:
        super().__init__()
        self.network = build_cwdm(settings.channels, settings.blocks, settings.groups)
        self.schedule = schedule()

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Loss of a batch: x (B, 2, X, Y, Z), y (B, 1, X, Y, Z), noise (B, 8, X/2, Y/2, Z/2), t (B,).

        ``known`` (B, 1, X, Y, Z): a band counts where all eight voxels that it is made of are known.
        """
        clean, given = (haar.shown(haar.transform(batch[name].float())) for name in ("y", "x"))
        noisy = self.schedule.add_noise(clean, batch["noise"], batch["t"])
        error = (self.network(torch.cat([noisy, given], 1), batch["t"]).float() - clean).square()
        return {"loss": known_mean(error, _known_bands(batch))}

    def rehearse(self, batch: dict[str, Tensor], progress: float) -> None:
        """What :meth:`forward` takes from the other samples of a step: how much of the maps is known."""
        known_mean(batch["noise"], _known_bands(batch))


def _known_bands(batch: dict[str, Tensor]) -> Tensor | None:
    """1 where all voxels of a band are known, (B, 1, X/2, Y/2, Z/2); None: everywhere."""
    known = batch.get("known")
    return None if known is None else -nn.functional.max_pool3d(-known.float(), 2)


class CwdmStage(PatchStage):
    """See :class:`.stage.Stage`."""

    name = "cwdm"

    def __init__(
        self, settings: CwdmSettings, train: Sequence[PreparedSession], validation_set: Sequence[PreparedSession]
    ) -> None:
        multiple = 2 ** len(settings.channels)
        if any(n % multiple for n in settings.patch):
            raise InputError(
                f"patch={list(settings.patch)} must be multiples of {multiple}: wavelets and U-Net halve it."
            )
        if any(n % settings.groups for n in settings.channels):
            raise InputError(f"channels={list(settings.channels)} must be multiples of groups={settings.groups}.")
        super().__init__(settings, train, validation_set)
        self.objective = CwdmObjective(settings)
        self.objectives: dict[str, nn.Module] = {"cwdm": self.objective}

    def sample(self, i: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """As any stage on patches, with noise and a time."""
        sample = super().sample(i, rng)
        half = [n // 2 for n in self.settings.patch]
        return {
            **sample,
            "noise": rng.standard_normal((haar.BANDS, *half), np.float32),
            "t": np.array(rng.integers(self.objective.schedule.steps)),
        }

    def answer(self, x: Tensor, seed: int = 0) -> Tensor:
        """A short sample. PSR (B, 1, X, Y, Z) in units of the PSR range of images (B, 2, X, Y, Z)."""
        given, noise = haar.shown(haar.transform(x.float())), SeededNoise([seed] * len(x))

        def clean(z: Tensor, t: Tensor) -> Tensor:
            return self.objective.network(torch.cat([z, given], 1), t)

        start = noise((len(x), haar.BANDS, *given.shape[2:])).to(x.device)
        model = as_velocity(clean, self.objective.schedule)
        bands = ddim(model, start, self.objective.schedule, self.settings.preview_steps, noise=noise)
        return haar.inverse(haar.hidden(bands))
