"""How good are the maps: beside baselines where the PSR is known (:mod:`.cohort`), on a real patient (:mod:`.patient`).

One file per job: :mod:`.cases` (a session and its truth on the grid of the comparison), :mod:`.prepared` (scans
prepared once), :mod:`.methods` (what is compared, one file each), :mod:`.knockouts` (a case with one input useless),
:mod:`.measure` (all numbers of one map), :mod:`.cohort` (the loop, resumable), :mod:`.store` (results on disk),
:mod:`.tables`, :mod:`.page`, :mod:`.pictures`, :mod:`.figures` (what is seen of them). The numbers themselves: errors
in :mod:`DEMISTCore.metrics`, their causes in :mod:`.split`, error bars in :mod:`.calibrated`, differences between
methods in :mod:`.paired`, real patients in :mod:`.judge`.
"""

from .cohort import evaluate, require_packages
from .patient import evaluate_patient

__all__ = ["evaluate", "evaluate_patient", "require_packages"]
