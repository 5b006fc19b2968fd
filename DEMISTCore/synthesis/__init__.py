"""The main job: T1w + FLAIR in, PSR map out.

:func:`synthesize` is the whole of it, files included (:mod:`.pipeline`); :func:`generate` is its core, from images on
the model grid to PSR samples on the model grid (:mod:`.sampling`). Around them: :mod:`.plan` (seeds, sampler, steps,
guidance), :mod:`.memory` (is there enough), :mod:`.reuse` (one preparation for several runs), :mod:`.result` (and
its spread over seeds), :mod:`.provenance`, :mod:`.outputs` (files, and the picture).
"""

from .memory import model_memory
from .outputs import draw
from .pipeline import synthesize
from .plan import SamplingPlan, check_seeds, plan_sampling
from .result import Synthesis
from .reuse import Reuse
from .sampling import Estimate, generate

__all__ = [
    "Estimate",
    "Reuse",
    "SamplingPlan",
    "Synthesis",
    "check_seeds",
    "draw",
    "generate",
    "model_memory",
    "plan_sampling",
    "synthesize",
]
