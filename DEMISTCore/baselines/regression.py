"""The direct rival: a 3-D U-Net from (T1w, FLAIR) straight to PSR, trained with L1.

What diffusion has to beat or match in accuracy, and to beat in sharpness: a regression answers with the median of what
is possible. MONAI's BasicUNet, 8.4 million parameters by default, at full resolution on patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

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
class Regression:
    """A trained network, the patch it was trained on, and the SHA-256 of its weights."""

    network: nn.Module
    patch: tuple[int, int, int]
    hash: str

    def predict(
        self,
        array: np.ndarray,
        mask: np.ndarray | None = None,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        overlap: float = 0.5,
    ) -> np.ndarray:
        """PSR (X, Y, Z), float32, 0 outside ``mask``, from prepared images (2, X, Y, Z).

        Windows of the training patch, blended by a Gaussian: instance norms see what they saw in training.
        """
        import torch
        from monai.inferers import SlidingWindowInferer

        from ..networks.config import PSR_RANGE

        device = torch.device(device)
        network = self.network.to(device).eval()
        infer = SlidingWindowInferer(self.patch, 1, overlap, mode="gaussian", cache_roi_weight_map=True)
        x = torch.from_numpy(np.ascontiguousarray(array, np.float32))[None].to(device)
        x = x.contiguous(memory_format=torch.channels_last_3d)
        half = dtype in (torch.bfloat16, torch.float16)
        with torch.no_grad(), torch.autocast(device.type, dtype if half else torch.bfloat16, enabled=half):
            y = infer(x, lambda patch: network(patch).float())
        psr = y[0, 0].cpu().numpy() * np.float32(PSR_RANGE)
        return psr if mask is None else np.where(np.asarray(mask) > 0, psr, np.float32(0))


def load_regression(source: str | Path) -> Regression:
    """The network of a ``regression`` run, with its averaged weights.

    Raises:
        InputError: no such run, no checkpoint yet, or a run of another stage.
    """
    from ..errors import InputError
    from ..training.checkpoint import Run, part
    from ..training.foundation import load
    from ..training.loop import frozen_hash

    run = Run.read(source)
    if run.stage != "regression":
        raise InputError(f"{source} is a run of {run.stage}; give a run of regression.")
    network = build_regression(run.settings.channels)
    load(network, part(run.weights(), "network"), source)
    return Regression(network.requires_grad_(False).eval(), tuple(run.settings.patch), frozen_hash(network))
