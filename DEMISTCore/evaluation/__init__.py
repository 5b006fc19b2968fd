"""How good are the maps: beside rivals where the PSR is known (:mod:`.cohort`), on a real patient (:mod:`.patient`).

One file per job: :mod:`.cases` (a session and its truth on the grid of the comparison), :mod:`.methods` (what is
compared), :mod:`.cohort` (the loop, resumable), :mod:`.store` (results on disk), :mod:`.tables` (tables and figures),
:mod:`.figures` (drawing). The numbers themselves are in :mod:`DEMISTCore.metrics`.
"""

from .cohort import evaluate, require_packages
from .patient import evaluate_patient

__all__ = ["evaluate", "evaluate_patient", "require_packages"]
