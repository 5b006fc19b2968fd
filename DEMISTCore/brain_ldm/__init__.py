"""Brain LDM (Pinaya et al. 2022, arXiv 2209.07162): synthetic T1w brains of a given age, sex and brain shape.

>>> from DEMISTCore import BrainLDM
>>> model = BrainLDM.from_pretrained("MONAI/brain_image_synthesis_latent_diffusion_model")  # doctest: +SKIP
>>> model.sample(age=0.6, sex=1, ventricular_volume=0.8, brain_volume=0.4).write("t1w.nii.gz")  # doctest: +SKIP

On the command line: ``python -m DEMISTCore.brain_ldm``.
"""

from __future__ import annotations

from typing import Any

__all__ = ["BrainLDM"]


def __getattr__(name: str) -> Any:
    if name == "BrainLDM":
        from .model import BrainLDM

        return BrainLDM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
