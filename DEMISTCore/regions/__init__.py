"""Brain tissue, lesions and normal-appearing white matter (NAWM), near lesions and far from them, as masks on one grid.

:func:`build_regions` is the whole of it (:mod:`.build`); each step has a file: :mod:`.masks` (masks as people give
them), :mod:`.network` (the trained tissue network: white matter, grey matter, CSF, lesions) and :mod:`.refine` (borders
from the scan's own :mod:`.brightness`), :mod:`.tissue` and :mod:`.suggest` (the same without training), :mod:`.holes`,
:mod:`.lesions` (numbering, T1 black holes), :mod:`.nawm` (distances), :mod:`.write`. The settings are in
:mod:`.settings`.

Names are loaded where they are used: ``--help`` needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_EXPORTS = {
    "REGIONS": ".settings",
    "Lesions": ".lesions",
    "RegionSettings": ".settings",
    "Regions": ".build",
    "build_regions": ".build",
    "find_tissue": ".network",
    "number_lesions": ".lesions",
    "open_network": ".network",
    "read_mask": ".masks",
    "segment_tissue": ".tissue",
    "suggest_lesions": ".suggest",
    "write_regions": ".write",
}
__all__ = [*_EXPORTS]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
