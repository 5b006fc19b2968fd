"""The judge of real patients: how well lesions stand out, by a rule that shares nothing with this package's regions.

Tissues are three k-means classes of the T1w. The judge is given a map and the images on the T1w's own grid, and knows
nothing of how the map was made, so any map can be put before it: a model's, a baseline's, the T1w itself. Its numbers
are those of the project's first judge of patients, with whose code a test compares it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..labels import CSF as _CSF
from ..labels import GREY as _GREY
from ..labels import WHITE as _WHITE
from ..metrics import roc_area

GAP_MM = 5.0


@dataclass(frozen=True, eq=False)
class Judge:
    """Regions of one patient, as masks (X, Y, Z) on the T1w's grid.

    Attributes:
        brain: of a T1w whose background is empty.
        lesions: as outlined.
        distant_white: white matter one voxel off its borders and farther than 5 mm from any lesion.
        near_white: likewise, 1 to 5 mm from a lesion.
        grey, csf: farther than 5 mm from any lesion.
    """

    brain: np.ndarray
    lesions: np.ndarray
    distant_white: np.ndarray
    near_white: np.ndarray
    grey: np.ndarray
    csf: np.ndarray

    @classmethod
    def of(cls, t1w: np.ndarray, lesions: np.ndarray, spacing: tuple[float, float, float]) -> Judge:
        """Find the regions.

        Args:
            t1w: (X, Y, Z), skull-stripped: nothing or next to nothing outside the brain.
            lesions: (X, Y, Z), above 0.5 inside.
            spacing: voxel size, mm.

        Raises:
            ValueError: the T1w has fewer than three brightnesses.
        """
        from scipy import ndimage

        t1w, lesions = np.asarray(t1w, np.float32), np.asarray(lesions) > 0.5
        brain = t1w > 0.02 * np.percentile(t1w[t1w > 0], 99)
        brain = ndimage.binary_fill_holes(ndimage.binary_opening(brain, iterations=2))
        classes = _classes(t1w, brain)
        distance = (
            ndimage.distance_transform_edt(~lesions, sampling=spacing) if lesions.any() else np.full(t1w.shape, np.inf)
        )
        far = distance > GAP_MM
        white = ndimage.binary_erosion(classes == _WHITE) & ndimage.binary_erosion(brain, iterations=3) & ~lesions
        return cls(
            brain=brain,
            lesions=lesions,
            distant_white=white & far,
            near_white=white & (distance > 1) & ~far,
            grey=(classes == _GREY) & ndimage.binary_erosion(brain, iterations=3) & far,
            csf=ndimage.binary_erosion(classes == _CSF) & ndimage.binary_erosion(brain, iterations=12) & far,
        )

    def auc(self, image: np.ndarray, *, lesions_dark: bool = True) -> float:
        """Area under the ROC curve for telling lesions from distant white matter by ``image``; NaN if one is empty."""
        lesions, white = image[self.lesions], image[self.distant_white]
        return roc_area(lesions, white) if lesions_dark else roc_area(white, lesions)

    def report(self, psr: np.ndarray) -> dict[str, Any]:
        """Medians of a map (fractions; NaN where a region is empty), its lesion AUC, and what it shows outside."""

        def median(mask: np.ndarray) -> float:
            return float(np.median(psr[mask])) if mask.any() else math.nan

        white = psr[self.distant_white]
        outside = psr[~self.brain]
        return {
            "auc": self.auc(psr),
            "wm": median(self.distant_white),
            "near": median(self.near_white),
            "gm": median(self.grey),
            "csf": median(self.csf),
            "lesion": median(self.lesions),
            "n_lesion": int(np.count_nonzero(self.lesions)),
            "wm_iqr": float(np.subtract(*np.percentile(white, (75, 25)))) if white.size else math.nan,
            "outside": float(np.abs(outside).max()) if outside.size else 0.0,
        }


def _classes(t1w: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """CSF, grey, white: three k-means classes of brightness, from dark to bright; 0 outside the brain."""
    from sklearn.cluster import KMeans

    values = t1w[brain]
    classes = np.zeros(t1w.shape, np.uint8)
    if np.unique(values).size < 3:
        raise ValueError("The T1w has fewer than three brightnesses in the brain.")
    values = np.clip(values, *np.percentile(values, (1, 99)))[:, None]
    clusters = KMeans(3, n_init=3, random_state=0).fit(values[::17])  # a seventeenth fixes three centres
    order = np.argsort(clusters.cluster_centers_[:, 0])
    classes[brain] = 1 + np.argsort(order)[clusters.predict(values)]
    return classes
