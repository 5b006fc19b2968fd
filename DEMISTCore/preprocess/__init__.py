"""Raw T1w + FLAIR to what the model sees, and the exact way back to the T1w's own grid.

``prepare`` is the whole of it (:mod:`.pipeline`); each step has a file: :mod:`.checks`, :mod:`.brainmask`,
:mod:`.registration`, :mod:`.bias`, :mod:`.intensity`. On the command line: ``python -m DEMISTCore.preprocess``.
"""

from .intensity import normalize
from .pipeline import Prepared, Step, model_grid, prepare

__all__ = ["Prepared", "Step", "model_grid", "normalise", "normalize", "prepare"]

#: the former name
normalise = normalize
