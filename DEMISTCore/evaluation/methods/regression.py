"""The regression network of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..cases import Case
from .method import Context, Method, Outcome

if TYPE_CHECKING:
    import torch

REGRESSION = "regression"


def build(context: Context) -> list[Method]:
    """The regression, if a run is given."""
    source = context.regression_from
    return [] if source is None else [regression(source, context.device, context.dtype)]


def regression(source: str | Path, device: torch.device, dtype: torch.dtype) -> Method:
    """The network of the run ``source``."""
    from ...baselines.regression import load_regression

    model = load_regression(source)

    def make(case: Case) -> dict[str, Outcome]:
        psr = model.predict(case.condition, case.prepared.mask.array, device=device, dtype=dtype)
        # PSR is never negative; DEMIST's maps are cut at 0 likewise.
        return {REGRESSION: Outcome(case.to_grid(np.maximum(psr, 0)))}

    return Method((REGRESSION,), {"weights": model.hash, "precision": str(dtype)}, make)
