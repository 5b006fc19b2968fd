"""The direct baseline: a 3-D U-Net from (T1w, FLAIR) straight to PSR, trained with L1.

What diffusion has to beat or match in accuracy, and to beat in sharpness: a regression answers with the median of what
is possible. MONAI's BasicUNet, 8.4 million parameters by default, at full resolution on patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..volume.grid import triple
from .trained import Trained, channels_last, counted, in_windows

if TYPE_CHECKING:
    import torch
    from torch import nn


def build_regression(channels: Sequence[int] = (16, 32, 64, 160, 320, 16)) -> nn.Module:
    """The network: (B, 2, X, Y, Z) to (B, 1, X, Y, Z) in units of the PSR range; extents are multiples of 16.

    ``channels``: widths of the five levels, then of the last decoder block.
    """
    import torch
    from monai.networks.nets import BasicUNet

    network = BasicUNet(
        spatial_dims=3, in_channels=2, out_channels=1, features=tuple(channels), norm=("instance", {"affine": True})
    )
    return network.to(memory_format=torch.channels_last_3d)


@dataclass(eq=False)
class Regression(Trained):
    """A trained regression U-Net."""

    passes: int = 0

    def predict(
        self,
        array: np.ndarray,
        mask: np.ndarray | None = None,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        overlap: float = 0.5,
    ) -> np.ndarray:
        """PSR (X, Y, Z), float32, 0 outside ``mask``, from prepared images (2, X, Y, Z).

        Windows of the training patch, blended by a Gaussian: instance norms see what they saw in training.
        """
        import torch

        from ..devices import autocast
        from ..networks.config import PSR_RANGE

        device = torch.device(device)
        network = self.network.to(device).eval()
        with torch.no_grad(), autocast(device, dtype or torch.float32), counted(network) as passes:
            y = in_windows(network, channels_last(array, device), self.patch, overlap)
        self.passes = passes[0]
        psr = y[0, 0].cpu().numpy() * np.float32(PSR_RANGE)
        return psr if mask is None else np.where(np.asarray(mask) > 0, psr, np.float32(0))


def load_regression(source: str | Path) -> Regression:
    """The network of a ``regression`` run, with its averaged weights.

    Raises:
        InputError: no such run, no checkpoint yet, or a run of another stage.
    """
    return load_unet(source, "regression")


def load_unet(source: str | Path, stage: str) -> Regression:
    """As :func:`load_regression`, of any ``stage`` whose network this is."""
    from ..errors import InputError
    from ..training.checkpoint import Run, part
    from ..training.foundation import load
    from ..training.loop import frozen_hash
    from ..training.stages.regression import RegressionSettings

    run = Run.read(source)
    if run.stage != stage:
        raise InputError(f"{source} is a run of {run.stage}; give a run of {stage}.")
    settings = run.settings_as(RegressionSettings)
    network = build_regression(settings.channels)
    load(network, part(run.weights(), "network"), source)
    return Regression(network.requires_grad_(False).eval(), triple(settings.patch), frozen_hash(network))
