"""Image data and the place it occupies in the world; the two never travel apart.

World coordinates are millimetres in RAS+ (x to the patient's right, y anterior, z superior), as in NIfTI and
nibabel. :class:`Grid` is a place (shape and affine), :class:`Volume` is data on one, :class:`Forms` is how a file says
its place, which what is written on that grid repeats.

>>> import numpy as np
>>> volume = Volume(np.zeros((4, 5, 6), np.float32), np.diag([-2.0, 1.0, 1.0, 1.0]))
>>> volume.axcodes, volume.spacing
('LAS', (2.0, 1.0, 1.0))
>>> volume.reoriented("RAS").axcodes
'RAS'
"""

from .checks import SPACING_RANGE
from .detached import data_files, data_hashes
from .forms import Forms
from .grid import Grid
from .image import Volume, as_volume, check_writable
from .itk import from_sitk, to_sitk
from .resampling import Order, resample
from .writing import check_holds

__all__ = [
    "SPACING_RANGE",
    "Forms",
    "Grid",
    "Order",
    "Volume",
    "as_volume",
    "check_holds",
    "check_writable",
    "data_files",
    "data_hashes",
    "from_sitk",
    "resample",
    "to_sitk",
]
