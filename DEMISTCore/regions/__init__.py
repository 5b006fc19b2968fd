"""Brain tissue, lesions and normal-appearing white matter (NAWM), near lesions and far from them, as masks on one grid.

:func:`build_regions` is the whole of it (:mod:`.build`); each step has a file: :mod:`.masks` (masks as people give
them), :mod:`.network` (the trained tissue network: white matter, grey matter, CSF, lesions) and :mod:`.refine` (borders
from the scan's own :mod:`.brightness`), :mod:`.tissue` and :mod:`.suggest` (the same without training), :mod:`.holes`,
:mod:`.lesions` (numbering, T1 black holes), :mod:`.nawm` (distances), :mod:`.write`. The settings are in
:mod:`.settings`.
"""

from .build import Regions, build_regions
from .lesions import Lesions, number_lesions
from .masks import read_mask
from .network import find_tissue, open_network
from .settings import REGIONS, RegionSettings
from .suggest import suggest_lesions
from .tissue import segment_tissue
from .write import write_regions

__all__ = [
    "REGIONS",
    "Lesions",
    "RegionSettings",
    "Regions",
    "build_regions",
    "find_tissue",
    "number_lesions",
    "open_network",
    "read_mask",
    "segment_tissue",
    "suggest_lesions",
    "write_regions",
]
