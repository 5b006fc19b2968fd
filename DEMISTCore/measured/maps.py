"""A measured PSR map and where it says something: inside its field of view, finite, and possible as PSR."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..acquisition import read_sidecar
from ..errors import InputError
from ..volume import Grid, Volume
from .units import PERCENT, find_units

#: What PSR (fraction) can be: a little below 0 is noise around nothing; white matter has 0.08 to 0.2, noise included.
PLAUSIBLE = (-0.02, 0.3)
#: A map whose values (not 0) are impossible in more than this share is no PSR map.
_IMPOSSIBLE_LIMIT = 0.3
#: The rim of a brain is this thick (mm); its inside begins at the second depth and needs so many voxels to be judged.
_RIM_MM, _DEEP_MM, _LEAST_DEEP = 3.0, 5.0, 2000
#: What a voxel of another grid needs of known neighbours' weight to be known itself.
_LEAST_WEIGHT = 0.5
#: Known voxels that a scan's own line is fitted to, at least and at most.
_LEAST_FIT, _MOST_FIT = 2000, 50_000
ZEROS = ("auto", "known", "unknown")


@dataclass(frozen=True, eq=False)
class MeasuredMap:
    """A PSR map in fractions, with the voxels that are known.

    Attributes:
        psr: (X, Y, Z) float32 fraction; 0 where unknown, which says nothing.
        known: (X, Y, Z) bool: finite, possible as PSR and, in measured maps, not exactly 0.
        units: of the file: "fraction" or "percent".
        units_by: "sidecar" or "typical value".
        counts: voxels that are not known, by reason: "nan", "low", "high" (outliers), "rim", "zero".
        notes: sentences for the user.
    """

    psr: Volume
    known: np.ndarray
    units: str
    units_by: str
    counts: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def on_grid(self, grid: Grid, motion: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The map (float32, 0 where unknown) and what is known of it (bool) on another grid, each (X, Y, Z).

        Interpolated linearly between known voxels only: the weights of unknown ones go to their neighbours (normalized
        convolution, Knutsson and Westin, CVPR 1993), so that neither holes nor zeros leak into the map.

        Args:
            grid: where to.
            motion: (4, 4) rigid motion, RAS mm, that takes the map to its place; None: it lies there.
        """
        affine = self.psr.affine if motion is None else np.asarray(motion) @ self.psr.affine
        weight = Volume(self.known.astype(np.float32), affine).resampled_to(grid).array
        value = Volume(np.where(self.known, self.psr.array, np.float32(0)), affine).resampled_to(grid).array
        known = weight >= _LEAST_WEIGHT
        if not self.known.all():
            value = value / np.maximum(weight, _LEAST_WEIGHT)
        return np.where(known, value, np.float32(0)), known


def read_measured(path: str | os.PathLike[str] | Volume, zeros: str = "auto") -> MeasuredMap:
    """Read a PSR map in fractions or percent and find where it says something.

    Units are what the sidecar's ``Units`` say, else what the typical value tells (:func:`.units.find_units`).

    Args:
        path: the map, or a volume in memory.
        zeros: what a value of exactly 0 is: "unknown" (fits write it where they failed or were not asked), "known"
            (no myelin, as in a simulated truth), or "auto": known in complete maps (:func:`is_complete`), else unknown.

    Raises:
        InputError: it cannot be read, holds no value above 0, is constant, or is no PSR map.
    """
    volume = path if isinstance(path, Volume) else Volume.read(path)
    label = str(volume.path or "The PSR map")
    array = np.asarray(volume.array, np.float32)
    finite = np.isfinite(array)
    there = finite & (array != 0)
    above = array[finite & (array > 0)]
    if not finite.any():
        raise InputError(f"{label} holds no finite value; export it again.")
    if not above.size:
        raise InputError(f"{label} holds no value above 0; check that the right file was given.")
    if np.ptp(array[there]) == 0:
        raise InputError(f"{label} is constant ({above[0]:.3g} wherever it is not 0); export it again.")
    told = read_sidecar(volume.path)[0] if volume.path is not None else {}
    units, by = find_units(float(np.median(above)), told.get("Units"), label)
    if units == PERCENT:
        array = array / np.float32(100)
    low, high = (there & (array < PLAUSIBLE[0])), (there & (array > PLAUSIBLE[1]))
    share = np.count_nonzero(low | high) / np.count_nonzero(there)
    if share > _IMPOSSIBLE_LIMIT:
        raise InputError(
            f"{label} is no PSR map: {share:.0%} of its values lie outside {PLAUSIBLE[0]:g} to {PLAUSIBLE[1]:g} "
            "(fraction); check that the right file was given."
        )
    known = finite & ~low & ~high
    count = {
        "nan": int(np.count_nonzero(~finite)),
        "low": int(np.count_nonzero(low)),
        "high": int(np.count_nonzero(high)),
        "rim": 0,
        "zero": 0,
    }
    if not is_complete(volume.path):
        rim = known & _bright_rim(array, there, known, volume.spacing)
        count["rim"] = int(np.count_nonzero(rim))
        known &= ~rim
    if zeros == "unknown" or (zeros == "auto" and not is_complete(volume.path)):
        count["zero"] = int(np.count_nonzero(finite & (array == 0)))
        known &= array != 0
    psr = volume.with_array(np.where(known, array, np.float32(0)))
    return MeasuredMap(psr, known, units, by, count, tuple(volume.warnings))


def _bright_rim(
    array: np.ndarray, there: np.ndarray, known: np.ndarray, spacing: tuple[float, float, float]
) -> np.ndarray:
    """Voxels at the brain's edge with more PSR than its inside has: cortex has half of white matter's, so skull,
    vessels, or ringing are in them. None where the inside is too small to tell."""
    from scipy.ndimage import binary_fill_holes, distance_transform_edt

    # A slab's upper and lower ends are the array's, and no edges of the brain.
    depth = distance_transform_edt(binary_fill_holes(there), sampling=spacing)
    inner = array[known & (depth > _DEEP_MM)]
    if inner.size < _LEAST_DEEP:
        return np.zeros(array.shape, bool)
    with np.errstate(invalid="ignore"):
        return (depth > 0) & (depth <= _RIM_MM) & (array > np.percentile(inner, 99.5))


def is_complete(path: str | os.PathLike[str] | None) -> bool:
    """Whether a map says of itself (entity ``desc-truth``) that it is a truth, whose zeros are myelin-free tissue."""
    return path is not None and "_desc-truth_" in Path(path).name


def filled(psr: np.ndarray, known: np.ndarray, condition: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The map with a guess in the brain where it is unknown, float32 (X, Y, Z); known voxels stay as they are.

    The guess is a line through ten local features of the scans (:func:`DEMISTCore.baselines.linear.features`), fitted
    to this scan's own known voxels; the median of these where they are few. No loss counts it. It stands there so that
    an encoder with a view beyond the known voxels sees a brain and not the edge of a slab.

    Args:
        psr: (X, Y, Z) fraction.
        known: (X, Y, Z) bool.
        condition: normalized T1w and FLAIR (2, X, Y, Z).
        inside: (X, Y, Z) bool, the brain.

    Raises:
        ValueError: nothing is known inside the brain.
    """
    here = np.flatnonzero(known & inside)
    if not here.size:
        raise ValueError("Nothing is known of PSR inside the brain.")
    result = np.where(inside & known, psr, np.float32(0)).astype(np.float32)
    unknown = inside & ~known
    if not unknown.any():
        return result
    values = psr.ravel()[here]
    guess: np.ndarray | float = float(np.median(values))
    if here.size >= _LEAST_FIT:
        from ..baselines.linear import features

        rows = features(condition).reshape(10, -1)
        some = here if here.size <= _MOST_FIT else np.random.default_rng(0).choice(here, _MOST_FIT, replace=False)
        weights, _, rank, _ = np.linalg.lstsq(rows[:, some].T.astype(np.float64), psr.ravel()[some], rcond=None)
        if rank == len(rows) and np.isfinite(weights).all():
            # No farther than what was measured: a line that leaves its data knows no bounds.
            low, high = np.percentile(values, (1, 99))
            guess = np.clip(weights.astype(np.float32) @ rows[:, unknown.ravel()], min(low, 0), high)
    result[unknown] = guess
    return result
