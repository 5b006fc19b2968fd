"""The picture of a result."""

from __future__ import annotations

from typing import Any

from .. import __version__
from .result import Synthesis


def draw(result: Synthesis) -> Any:
    """The preview of a result, a matplotlib figure."""
    from ..preview import mosaic

    settings, bundle = result.provenance["settings"], result.provenance["bundle"]
    n = len(settings["seeds"])
    kind = "simulated-trained research estimate" if result.provenance["simulated"] else "research estimate"
    return mosaic(
        result.prepared.t1w.array,
        result.prepared.flair.array,
        result.model_psr.array,
        result.prepared.mask.array,
        None if result.model_uncertainty is None else result.model_uncertainty.array,
        title=f"PSR synthesized from T1w and FLAIR ({kind})",
        footer=(
            f"{result.provenance['statement']} DEMIST {__version__}, bundle {bundle['name']} {bundle['hash'][:12]}, "
            + (f"{n} seed{'s' * (n > 1)}, {settings['steps']} steps of {settings['sampler']}." if n else "mean.")
        ),
    )
