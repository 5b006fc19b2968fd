"""Trained baselines of any kind: regression, latent regression, pix2pix, conditional latent and wavelet diffusion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...baselines.registry import load_baseline
from ..cases import Case
from .method import Context, Method, Outcome

if TYPE_CHECKING:
    import torch

#: What a baseline is called in tables, by the stage of its run.
NAMES = {
    "regression": "U-Net regression",
    "vae": "VAE (latent regression)",
    "pix2pix": "pix2pix",
    "ldm": "conditional LDM",
    "cwdm": "cWDM",
}


def build(context: Context) -> list[Method]:
    """One method for each run that is given."""
    return [
        baseline(source, context.device, context.dtype, sampler=context.sampler, steps=context.steps)
        for source in context.baselines
    ]


def baseline(
    source: str | Path,
    device: torch.device,
    dtype: torch.dtype,
    *,
    sampler: str | None = None,
    steps: int | None = None,
    seed: int = 0,
) -> Method:
    """What the run ``source`` has trained: one map, of ``seed`` where it is drawn.

    Raises:
        InputError: it is no run of a baseline.
    """
    stage, maker = load_baseline(source, sampler=sampler, steps=steps)
    name = NAMES[stage]

    def make(case: Case) -> dict[str, Outcome]:
        mask = case.prepared.mask.array
        psr = maker.predict(case.condition, mask, seed=seed, device=device, dtype=dtype)
        # PSR is never negative; DEMIST's maps are cut at 0 likewise.
        return {name: Outcome(case.to_grid(np.maximum(psr, 0)), passes=maker.passes)}

    settings: dict[str, Any] = {"weights": maker.hash, "precision": str(dtype), "seed": seed}
    settings |= getattr(maker, "settings", {})
    return Method((name,), settings, make, parameters={name: maker.parameters})
