"""Results as DICOM: PSR and its uncertainty as Parametric Maps, lesions and NAWM as a Segmentation, their numbers as a
Structured Report.

An ordinary MR image holds whole numbers, and a PSR of 0.12 as a whole number is 0. A Parametric Map holds the numbers
themselves, says what they measure and in which unit, and belongs to the patient and study of the scans.

highdicom does the encoding (extra ``dicom``). :mod:`.study` reads the series that a result belongs to, :mod:`.place`
is where voxels lie; :mod:`.parametric`, :mod:`.segmentation` and :mod:`.report` write one file each, :mod:`.export` all
that there is.
"""

from .export import export
from .parametric import write_parametric_map
from .report import write_report
from .segmentation import write_segmentation
from .study import read_series

__all__ = ["export", "read_series", "write_parametric_map", "write_report", "write_segmentation"]
