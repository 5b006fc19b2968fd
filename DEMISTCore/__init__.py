"""DEMIST: myelin (PSR) maps from routine T1w and FLAIR, by decoupled multi-stream latent diffusion.

Names are loaded where they are used, so that ``import DEMISTCore`` stays instant:

>>> import DEMISTCore
>>> psr = DEMISTCore.synthesize("t1w.nii.gz", "flair.nii.gz").psr  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "Volume": ".volume",
    "Grid": ".volume",
    "prepare": ".preprocess",
    "synthesize": ".synthesis",
    "load_bundle": ".bundle",
    "simulate_subject": ".simulate.subject",
    "BrainLDM": ".brain_ldm",
    "DemistError": ".errors",
    "InputError": ".errors",
    "BundleError": ".errors",
}
__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
