"""What no method exceeds: the truth taken to the model grid and back, and through the PSR autoencoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...measured import filled
from ..cases import Case
from .method import Context, Method, Outcome

if TYPE_CHECKING:
    import torch

    from ...bundle import Bundle

BOUND_RESAMPLED = "resampled truth (bound)"
BOUND_AUTOENCODER = "autoencoder (bound)"


def build(context: Context) -> list[Method]:
    """Both bounds."""
    return bounds(context.model, context.device, context.dtype)


def bounds(bundle: Bundle, device: torch.device, dtype: torch.dtype) -> list[Method]:
    """What is lost by interpolation alone, and by the PSR autoencoder."""

    def on_model_grid(case: Case) -> np.ndarray:
        inside = case.prepared.mask.array > 0
        if not case.measured.known.all():  # the edge of a slab would be no bound of methods that see a brain
            return filled(*case.measured.on_grid(case.prepared.grid, case.motion), case.condition, inside)
        psr = case.true_psr.resampled_to(case.prepared.grid, "bspline").array
        return np.where(inside, psr, 0).astype(np.float32)

    def resample(case: Case) -> dict[str, Outcome]:
        return {BOUND_RESAMPLED: Outcome(case.to_grid(on_model_grid(case)))}

    def reconstruct(case: Case) -> dict[str, Outcome]:
        import torch

        from ...decoding import decode
        from ...devices import autocast

        network = bundle.autoencoder_psr.to(device)
        y = torch.from_numpy(on_model_grid(case) / np.float32(bundle.psr_range))[None, None].to(device)
        with torch.no_grad(), autocast(device, dtype):
            z, _ = network.encode(y)
        image = decode(network, z.float(), dtype=dtype)[0, 0].numpy() * np.float32(bundle.psr_range)
        return {BOUND_AUTOENCODER: Outcome(case.to_grid(np.maximum(image, 0)))}

    return [
        Method((BOUND_RESAMPLED,), {"spacing": bundle.spacing}, resample),
        Method((BOUND_AUTOENCODER,), {"bundle": bundle.hash}, reconstruct),
    ]
