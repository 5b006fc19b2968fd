"""What a synthesis gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..volume import Volume

if TYPE_CHECKING:
    from ..preprocess import Prepared


@dataclass(eq=False)
class Synthesis:
    """A synthesized PSR map and where it came from.

    Attributes:
        psr: the posterior mean, or the mean over the seeds; fraction, float32, on the T1w's own grid, 0 outside the
            brain.
        uncertainty: standard deviation, fraction, same grid: predicted by a model with a mean network, else over the
            seeds (ddof 1), as ``provenance["uncertainty"]["kind"]`` says; None for one seed of a model without.
        samples: the map of each seed, if asked for.
        mask: brain on the T1w's own grid, uint8.
        provenance: what the JSON sidecar holds.
        prepared: the images as the model saw them.
        model_psr: the mean on the model grid.
        model_uncertainty: the standard deviation on the model grid.
        files: what was written, by kind.
    """

    psr: Volume
    uncertainty: Volume | None
    samples: list[Volume]
    mask: Volume
    provenance: dict[str, Any]
    prepared: Prepared
    model_psr: Volume
    model_uncertainty: Volume | None
    files: dict[str, Path] = field(default_factory=dict)
