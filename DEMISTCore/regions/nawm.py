"""Normal-appearing white matter by its distance from lesions."""

from __future__ import annotations

import numpy as np

from ..volume import Volume
from .settings import RegionSettings


def lesion_distance(lesions: Volume) -> Volume | None:
    """Euclidean distance (mm, float32) from every voxel's centre to that of the nearest lesion voxel; None without.

    Exact on anisotropic and oblique grids. A sheared grid, which no scanner makes, is taken as if it had right angles.
    """
    from scipy.ndimage import distance_transform_edt

    outside = lesions.array == 0
    if outside.all():
        return None
    return lesions.with_array(distance_transform_edt(outside, sampling=lesions.spacing).astype(np.float32))


def split(white: np.ndarray, distance: np.ndarray | None, settings: RegionSettings) -> dict[str, np.ndarray]:
    """NAWM and its parts, which do not overlap and together are the NAWM.

    Args:
        white: white matter without lesions, bool (X, Y, Z).
        distance: mm to the nearest lesion, or None: then all white matter is NAWM, and there are no parts.
        settings: the distances.
    """
    if distance is None:
        return {"nawm": white}
    nawm = white & (distance > settings.lesion_gap_mm)
    low, high = settings.proximal_mm
    proximal = nawm & (distance > low) & (distance <= high)
    distal = nawm & (distance > settings.distal_mm)
    return {
        "nawm": nawm,
        "nawm_proximal": proximal,
        "nawm_middle": nawm & ~proximal & ~distal,
        "nawm_distal": distal,
    }
