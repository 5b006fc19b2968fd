"""How unlike the training data a pair of scans is, from numbers that describe it as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

_COMPONENTS = 12
#: No direction counts as narrower than this share of the widest: what hardly varies in training is no ruler.
_NARROWEST = 0.02


@dataclass(frozen=True, eq=False)
class Typical:
    """Mean and principal directions of descriptions of the training data.

    The distance of a description is the root mean square of its standardised coordinates: along each of the K principal
    directions, and once of all that is left over: about 1 for the training data themselves, less where directions
    hardly vary, which count as if they did more. A Mahalanobis distance (Mahalanobis 1936) with as many directions as
    the data can tell apart, per direction.

    Attributes:
        mean: (D,).
        directions: (K, D), orthonormal.
        deviations: (K + 1,), SD along each, and of the rest.
    """

    mean: np.ndarray
    directions: np.ndarray
    deviations: np.ndarray

    @classmethod
    def fit(cls, descriptions: np.ndarray) -> Typical:
        """From (N, D) descriptions of the training data.

        Raises:
            ValueError: fewer than three, or values that are not finite.
        """
        values = np.asarray(descriptions, np.float64)
        if values.ndim != 2 or len(values) < 3 or not np.isfinite(values).all():
            raise ValueError("What is typical needs three descriptions or more, all of finite numbers.")
        mean = values.mean(0)
        _, singular, directions = np.linalg.svd(values - mean, full_matrices=False)
        count = min(_COMPONENTS, max(1, (len(values) - 1) // 3))
        directions, spread = directions[:count], singular[:count] / np.sqrt(len(values) - 1)
        rest = (values - mean) - (values - mean) @ directions.T @ directions
        left = np.sqrt(np.square(rest).sum(1).mean())
        deviations = np.append(spread, left)
        return cls(mean, directions, np.maximum(deviations, max(_NARROWEST * deviations.max(), 1e-6)))

    def distance(self, description: np.ndarray) -> float:
        """The distance of one description (D,), 0 upwards.

        Raises:
            ValueError: a description of another length.
        """
        offset = np.asarray(description, np.float64) - self.mean
        along = self.directions @ offset
        left = np.linalg.norm(offset - along @ self.directions)
        return float(np.sqrt(np.mean(np.square(np.append(along, left) / self.deviations))))

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        parts = {"mean": self.mean, "directions": self.directions, "deviations": self.deviations}
        return {name: np.round(value, 6).tolist() for name, value in parts.items()}

    @classmethod
    def from_dict(cls, told: Any) -> Typical:
        """The way back from :meth:`to_dict`.

        Raises:
            ValueError: it is no such thing, or holds numbers that cannot be.
        """
        names = ("mean", "directions", "deviations")
        if not isinstance(told, Mapping) or set(told) != set(names):
            raise ValueError(f"what is typical holds {', '.join(names)}")
        try:
            mean, directions, deviations = (np.array(told[name], np.float64) for name in names)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError("what is typical holds something that is no number") from error
        fits = mean.ndim == 1 and directions.ndim == 2 and directions.shape[1:] == mean.shape
        if not fits or deviations.shape != (len(directions) + 1,):
            raise ValueError("what is typical has parts of shapes that do not fit each other")
        if not all(np.isfinite(part).all() for part in (mean, directions, deviations)) or (deviations <= 0).any():
            raise ValueError("what is typical holds numbers that cannot be")
        return cls(mean, directions, deviations)
