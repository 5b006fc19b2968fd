"""The paper's experiment: every method trained in every fold, tested on people it has not seen, and compared.

:func:`.loop.cross_validate` is the whole of it. One file per job: :mod:`.options` (what is asked), :mod:`.folds` (who
is trained on and tested on), :mod:`.recipes` (what is compared, and shares of the budget), :mod:`.runs` (trainings),
:mod:`.maps` (methods that make maps), :mod:`.masks` (where a scan is measured), :mod:`.numbers` (all numbers of a
map), :mod:`.store` (results on disk), :mod:`.significance` (means, Wilcoxon, Holm), :mod:`.pooled` (ROC over all
scans), :mod:`.groups` (diagnoses and repeat scans), :mod:`.report`, :mod:`.page`, :mod:`.figures` (what is seen of
them).
"""

from .loop import cross_validate
from .options import Options

__all__ = ["Options", "cross_validate"]
