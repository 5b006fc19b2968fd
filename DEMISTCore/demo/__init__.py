"""The main job on a patient that comes with the package: simulated, so that the true PSR is known.

Names are loaded where they are used, so that ``python -m DEMISTCore.demo --help`` answers at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_EXPORTS = {
    "FILES": ".run",
    "STATISTICS": ".run",
    "Demonstration": ".run",
    "demonstrate": ".run",
    "how_made": ".draw",
    "PATIENT_SEED": ".patient",
    "Patient": ".patient",
    "simulate_patient": ".patient",
}
__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
