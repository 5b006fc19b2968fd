"""What a PSR map says of lesions and of white matter: tables, ROC curves, comparison of two maps.

One file per job: :mod:`.table` (PSR by region and lesion), :mod:`.contrast` (lesion against NAWM) on :mod:`.delong`
(AUC, variance, intervals) and :mod:`.units` (blocks and patches that may count as observations), :mod:`.comparison`
(two maps of one brain), :mod:`.intervals` (error bars of means, of calibrated models), :mod:`.figures`, :mod:`.checks`
(is it a PSR map, who made it), :mod:`.settings`, :mod:`.report` (what was found, as JSON and as text), :mod:`.outputs`
(the files) and :mod:`.analysis` (all of it).
Regions come from :mod:`DEMISTCore.regions`.

Names are loaded where they are used: ``--help`` needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_EXPORTS = {
    "Agreement": ".comparison",
    "Analysis": ".report",
    "Comparison": ".comparison",
    "Contrast": ".contrast",
    "Roc": ".contrast",
    "MeasureSettings": ".settings",
    "agreement": ".comparison",
    "analyse": ".analysis",
    "compare": ".comparison",
    "contrasts": ".contrast",
    "region_table": ".table",
    "roc": ".contrast",
    "write_table": ".table",
}
__all__ = [*_EXPORTS]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
