"""How wrong a PSR map may be: calibrated spread of voxels, intervals of voxels and of region means.

One file per job: :mod:`.calibration` (what is stored with a model, and the intervals that follow from it),
:mod:`.serial` (its way to JSON and back, checked), :mod:`.fit` (made from subjects with known truth), :mod:`.case`
(such a subject, boiled down to samples), :mod:`.draw` (the regions drawn in it), :mod:`.model` (the formulas of both
spreads, and their fits), :mod:`.conformal` (quantiles that hold on new subjects) and :mod:`.coverage` (whether they
do). numpy and SciPy alone: nothing here knows which model made the map.
"""

from .calibration import Calibration, Quantiles
from .case import Case
from .coverage import evaluate_calibration
from .fit import LEVELS, fit_calibration

__all__ = ["LEVELS", "Calibration", "Case", "Quantiles", "evaluate_calibration", "fit_calibration"]
