"""What is known of a model's errors, stored with it, and the intervals that follow for a new map."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import model, serial

#: Voxels handled at a time: bounds the memory for whole maps.
_CHUNK = 1 << 20
#: Factors of widening end here: an interval eight times as wide says that nothing is known.
_WIDEST = 8.0
KINDS = ("region", "lesion")


@dataclass(frozen=True)
class Quantiles:
    """Conformal quantiles of |error of a region's mean| / predicted SD, by size and mean of the region.

    Attributes:
        volumes_ml: (J,) rising; interpolated in their logarithm.
        means: (I,) rising, fraction.
        values: by level, then by volume, then by mean.
    """

    volumes_ml: tuple[float, ...]
    means: tuple[float, ...]
    values: tuple[tuple[tuple[float, ...], ...], ...]

    def at(self, level: int, volume_ml: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """(N,) quantiles of the level with that index."""
        where = (np.log(np.maximum(volume_ml, 1e-9)), mean)
        return model.interpolate((np.log(self.volumes_ml), self.means), np.array(self.values[level]), where)


@dataclass(frozen=True)
class Calibration:
    """A model's errors on subjects that it was never trained on, boiled down to what predicts them on another.

    PSR, means and SDs are fractions. The local SD that the model predicts becomes a calibrated SD of a voxel's error,

        sd^2 = g(mean, sd_local)^2 sd_local^2 + (scale_sd mean)^2

    with an interval mean -+ q(mean) sd, clipped at 0 from below; a region's mean m over a volume V has the interval
    m -+ q(V, m) s with s as in :func:`DEMISTCore.uncertainty.model.region_sd`. The quantiles q are conformal
    (:mod:`.conformal`). For scans unlike the calibration's, all are wider by :meth:`widening`.

    Attributes:
        subjects: number of subjects that it was made from.
        levels: probabilities that intervals are known for, rising.
        scale_sd: SD (about 0) of the relative error that a whole brain shares.
        mean_nodes, sd_nodes: where g is tabulated: predicted mean, predicted local SD.
        gains: g, by mean, then by SD.
        voxel_quantiles: q of voxels, by level, then by mean.
        region: a, b, c, gamma of the region's SD.
        correlation_ml: volume that local errors correlate over.
        quantiles: q of region means by kind, ``"region"`` and ``"lesion"``.
        ood_limit: 95th percentile of the calibration subjects' distance from the training data; None if unknown.
        ood_power: intervals grow with (distance / limit) to this power beyond the limit.
    """

    subjects: int
    levels: tuple[float, ...]
    scale_sd: float
    mean_nodes: tuple[float, ...]
    sd_nodes: tuple[float, ...]
    gains: tuple[tuple[float, ...], ...]
    voxel_quantiles: tuple[tuple[float, ...], ...]
    region: tuple[float, float, float, float]
    correlation_ml: float
    quantiles: Mapping[str, Quantiles]
    ood_limit: float | None = None
    ood_power: float = 1.0

    def voxel_sd(self, mean: np.ndarray, sd_local: np.ndarray, ood: float | None = None) -> np.ndarray:
        """Calibrated SD of each voxel's error.

        Args:
            mean: (X, Y, Z) predicted PSR, fraction.
            sd_local: (X, Y, Z) local SD as the model predicts it, fraction.
            ood: the scans' distance from the training data; None: unknown, nothing is widened.

        Returns:
            (X, Y, Z) float32, fraction; NaN where one of the maps is, 0 where both are.

        Raises:
            ValueError: the maps differ in shape, or an SD is negative.
        """
        mean, sd_local = _alike(mean, sd_local)
        if (sd_local < 0).any():
            raise ValueError("A predicted SD cannot be negative.")
        factor, table = self.widening(ood), np.array(self.gains)
        out = np.empty(mean.size, np.float32)
        flat_mean, flat_sd = mean.ravel(), sd_local.ravel()
        for start in range(0, out.size, _CHUNK):
            m, s = (np.asarray(flat[start : start + _CHUNK], np.float64) for flat in (flat_mean, flat_sd))
            known = np.isfinite(m) & np.isfinite(s)
            g = model.gain(self.mean_nodes, self.sd_nodes, table, np.where(known, m, 0), np.where(known, s, 0))
            out[start : start + _CHUNK] = np.where(known, factor * np.hypot(g * s, self.scale_sd * m), np.nan)
        return out.reshape(mean.shape)

    def voxel_interval(self, mean: np.ndarray, sd: np.ndarray, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """The interval that holds a voxel's true PSR with probability ``level``, in every range of PSR.

        Args:
            mean: (X, Y, Z) predicted PSR, fraction.
            sd: (X, Y, Z) calibrated SD, of :meth:`voxel_sd`.
            level: one of :attr:`levels`.

        Returns:
            Lower end (not below 0) and upper end, (X, Y, Z) float32.

        Raises:
            ValueError: another level, or maps that differ in shape.
        """
        mean, sd = _alike(mean, sd)
        half = np.interp(mean, self.mean_nodes, self.voxel_quantiles[self._index(level)]) * sd
        return np.maximum(mean - half, 0).astype(np.float32), (mean + half).astype(np.float32)

    def local_variance(self, mean: np.ndarray, sd: np.ndarray, ood: float | None = None) -> np.ndarray:
        """The variance of local errors alone: a calibrated SD without what the whole brain shares; (N,)."""
        sd = np.asarray(sd, np.float64) / self.widening(ood)
        return np.maximum(sd**2 - (self.scale_sd * np.asarray(mean, np.float64)) ** 2, 0)

    def region_interval(
        self,
        mean_map: np.ndarray,
        sd_map: np.ndarray,
        mask: np.ndarray,
        voxel_ml: float,
        level: float = 0.9,
        ood: float | None = None,
        kind: str = "region",
    ) -> tuple[float, float]:
        """The interval that holds the true mean of a region with probability ``level``.

        Needs no more than a synthesis leaves on disk. Neither the size of the voxels nor their order matters: the
        maps may be indexed, (N,) each with a mask that is all True.

        Args:
            mean_map: (X, Y, Z) PSR map, fraction, on any grid.
            sd_map: (X, Y, Z) calibrated SD of :meth:`voxel_sd` with the same ``ood``, on that grid.
            mask: (X, Y, Z) where it is not 0; voxels that are not finite in both maps are left out.
            voxel_ml: volume of a voxel, mL.
            level: one of :attr:`levels`.
            ood: the scans' distance from the training data, None if unknown.
            kind: ``"lesion"`` for lesions, calibrated on lesions; ``"region"`` for all else.

        Returns:
            Lower end (not below 0) and upper end, fraction; NaN for a region without finite values.

        Raises:
            ValueError: another level or kind, maps that differ in shape, an empty mask or a voxel without volume.
        """
        mean_map, sd_map = _alike(mean_map, sd_map)
        inside = np.asarray(mask) != 0
        if inside.shape != mean_map.shape:
            raise ValueError(f"A mask of shape {inside.shape} does not fit maps of {mean_map.shape}.")
        if not inside.any():
            raise ValueError("The mask is empty: there is no mean.")
        if not voxel_ml > 0:
            raise ValueError(f"A voxel's volume must be above 0 mL, not {voxel_ml}.")
        if kind not in self.quantiles:
            raise ValueError(f"There is no calibration of {kind!r}; choose {' or '.join(self.quantiles)}.")
        index = self._index(level)
        values, spread = mean_map[inside].astype(np.float64), sd_map[inside]
        known = np.isfinite(values) & np.isfinite(spread)
        if not known.any():
            return math.nan, math.nan
        values, spread = values[known], spread[known]
        mean, volume = float(values.mean()), inside.sum() * float(voxel_ml)
        variance = float(self.local_variance(values, spread, ood).mean())
        half = float(self.region_half_width(index, mean, variance, volume, ood, kind))
        return max(mean - half, 0.0), mean + half

    def region_half_width(
        self, index: int, mean: Any, variance: Any, volume_ml: Any, ood: float | None = None, kind: str = "region"
    ) -> np.ndarray:
        """Half the width of region intervals of the level with that index, from mean, mean local variance, volume."""
        sd = model.region_sd(self.region, mean, variance, volume_ml, self.correlation_ml)
        return self.quantiles[kind].at(index, np.asarray(volume_ml), np.asarray(mean)) * sd * self.widening(ood)

    def widening(self, ood: float | None) -> float:
        """The factor on every SD and interval for scans at that distance from the training data.

        1 up to the calibration's 95th percentile; beyond, (distance / limit) to the power fitted, at least 1: what a
        model adds beyond its data grows at least in proportion to the distance. 8 at most.
        """
        if ood is None or self.ood_limit is None or ood <= self.ood_limit:
            return 1.0
        if not math.isfinite(ood):
            return _WIDEST
        return float(min((ood / self.ood_limit) ** self.ood_power, _WIDEST))

    def warning(self, ood: float | None) -> str | None:
        """A sentence for scans unlike those that the intervals were calibrated on; None if all is well."""
        factor = self.widening(ood)
        if factor == 1.0:
            return None
        widened = f"intervals are {factor:.2g} times as wide, and may still" if factor >= 1.05 else "intervals may"
        return (
            f"These scans are unlike those that the model was calibrated on (distance {ood:.3g}, 95 % of those are "
            f"within {self.ood_limit:.3g}): {widened} be too narrow."
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it, see :mod:`.serial`."""
        return serial.to_dict(self)

    @classmethod
    def from_dict(cls, told: Any) -> Calibration:
        """The way back from :meth:`to_dict`.

        Raises:
            ValueError: it is no calibration, or holds numbers that cannot be; one sentence says which.
        """
        values = serial.checked(told)
        values["quantiles"] = {kind: Quantiles(*parts) for kind, parts in values["quantiles"].items()}
        return cls(**values)

    def _index(self, level: float) -> int:
        for index, known in enumerate(self.levels):
            if abs(known - level) < 1e-6:
                return index
        there = ", ".join(f"{100 * value:g}" for value in self.levels)
        raise ValueError(f"There is no interval of {100 * level:g} % in this calibration; choose {there} %.")


def _alike(mean: np.ndarray, sd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, sd = np.asarray(mean), np.asarray(sd)
    if mean.shape != sd.shape:
        raise ValueError(f"The SD's shape {sd.shape} is not the mean's, {mean.shape}.")
    return mean, sd
