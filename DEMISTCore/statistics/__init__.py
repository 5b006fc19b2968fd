"""What a PSR map says of lesions and of white matter: tables, ROC curves, comparison of two maps.

One file per job: :mod:`.table` (PSR by region and lesion), :mod:`.contrast` (lesion against NAWM) on :mod:`.delong`
(AUC, variance, intervals) and :mod:`.units` (blocks and patches that may count as observations), :mod:`.comparison`
(two maps of one brain), :mod:`.intervals` (error bars of means, of calibrated models), :mod:`.figures`, :mod:`.checks`
(is it a PSR map, who made it), :mod:`.settings`, :mod:`.report` (what was found, as JSON and as text), :mod:`.outputs`
(the files) and :mod:`.analysis` (all of it).
Regions come from :mod:`DEMISTCore.regions`.
"""

from .analysis import analyse
from .comparison import Agreement, Comparison, agreement, compare
from .contrast import Contrast, Roc, contrasts, roc
from .report import Analysis
from .settings import Settings
from .table import region_table, write_table

__all__ = [
    "Agreement",
    "Analysis",
    "Comparison",
    "Contrast",
    "Roc",
    "Settings",
    "agreement",
    "analyse",
    "compare",
    "contrasts",
    "region_table",
    "roc",
    "write_table",
]
