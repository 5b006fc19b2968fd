"""Where a measured PSR map lies on the T1w: rigid registration, and how well it fits there.

A qMT scan is another acquisition, minutes away from the T1w, and people move. The map is the fixed image and the T1w
moves: so every voxel of a slab has a partner at all times, and the measure cannot grow by pushing the slab out of the
brain. Where the qMT session has an anatomical image on the map's grid, that is registered in its stead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..baselines.linear import features
from ..volume import Volume
from .maps import MeasuredMap

#: A map that its makers say lies on the T1w, and for which a better place is farther away than this (mm), is told.
OFF_MM = 1.5
#: ... if mutual information grows there by this share.
OFF_GAIN = 0.02
#: Share of a map's variance that a line through the scans must tell, else it is hardly of the same head.
LEAST_FIT = 0.4
#: Mean PSR in fluid over that of tissue from which on map and T1w do not lie on each other.
MOST_FLUID = 0.55
#: A map is not searched for farther away than this, mm: people do not move so far between two scans.
MOST_MM = 30.0
#: Normalized T1w and FLAIR (tissue's median is 0.5) below which a voxel is fluid.
_FLUID = (0.3, 0.35)
_VOXELS = 50_000


@dataclass(frozen=True, eq=False)
class Alignment:
    """Where a map lies and how well it fits there.

    Attributes:
        motion: (4, 4) RAS mm that takes a point of the map to its place in the T1w's world; identity if it lies there.
        moved_mm: mean over the map of how far that is; of a map that is not to be moved, how far it should be.
        gain: share by which mutual information grows by it.
        fit: share of the map's variance (0 to 1) that a line through ten local features of the scans tells.
        fluid: mean PSR in fluid over the mean in tissue; NaN where too little fluid is covered.
        csf_mean: mean PSR in fluid, fraction.
        alarms: sentences, empty if all is well.
    """

    motion: np.ndarray
    moved_mm: float
    gain: float
    fit: float
    fluid: float
    csf_mean: float
    alarms: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "motion_ras_mm": np.round(self.motion, 6).tolist(),
            "moved_mm": round(self.moved_mm, 3),
            "mutual_information_gain": _number(self.gain),
            "fit": _number(self.fit),
            "fluid": _number(self.fluid),
            "csf_mean": _number(self.csf_mean),
            "alarms": list(self.alarms),
        }


def _number(value: float) -> float | None:
    return round(float(value), 5) if np.isfinite(value) else None


def align(
    measured: MeasuredMap,
    condition: np.ndarray,
    brain: Volume,
    *,
    already_aligned: bool = False,
    search: bool = True,
    reference: Volume | None = None,
    tick: Callable[[float], None] = lambda fraction: None,
) -> Alignment:
    """Register a map to prepared scans, or see whether it lies there as its makers say.

    Args:
        measured: the map.
        condition: normalized T1w and FLAIR (2, X, Y, Z), 0 outside the brain.
        brain: their brain mask and with it their grid.
        already_aligned: leave the map where it lies; a better place is told.
        search: look for a better place at all; False: how well the map fits where it lies is measured, no more.
        reference: an anatomical image of the qMT session on the map's grid; others are not used.
        tick: called with the share done, 0 to 1; may raise to cancel.
    """
    from ..preprocess.registration import register_rigid

    if not search:
        fit, fluid, csf = _quality(measured, np.eye(4), np.asarray(condition, np.float32), brain)
        return Alignment(np.eye(4), 0.0, 0.0, fit, fluid, csf, _doubts(measured, fit, fluid, csf))
    head = Volume(np.asarray(condition[0], np.float32), brain.affine)
    fixed = measured.psr.with_array(_whole(measured))
    if reference is not None and reference.grid.same_as(measured.psr.grid) and np.isfinite(reference.array).all():
        fixed = reference.with_array(np.asarray(reference.array, np.float32))
    inside = measured.psr.with_array(_support(measured).astype(np.float32))
    found = register_rigid(fixed, head, inside, tick, name="T1w", anywhere=False)
    motion = np.linalg.inv(found.motion)
    gain = (found.after - found.before) / abs(found.before) if found.before else 0.0
    alarms = []
    label = measured.psr.path or "The PSR map"
    if found.displacement > MOST_MM:
        alarms.append(
            f"{label} seems to lie {found.displacement:.0f} mm off the T1w, farther than people move between "
            "scans; check that both are of one person and session."
        )
        motion = np.eye(4)
    elif already_aligned:
        if found.displacement > OFF_MM and gain > OFF_GAIN:
            alarms.append(
                f"{label} is said to lie on the T1w, but fits it better {found.displacement:.1f} mm away; "
                "set already_aligned=false to have it registered."
            )
        motion = np.eye(4)
    fit, fluid, csf = _quality(measured, motion, np.asarray(condition, np.float32), brain)
    alarms += _doubts(measured, fit, fluid, csf)
    return Alignment(motion, found.displacement, gain, fit, fluid, csf, tuple(alarms))


def off_by(psr: Volume, t1w: Volume, tick: Callable[[float], None] = lambda fraction: None) -> str | None:
    """A sentence if a measured map would fit the T1w clearly better elsewhere; None if it lies well, or has no voxels.

    For a map that stays where it is: masks drawn on the T1w are laid over it as it lies.

    Args:
        psr: a map, NaN where it has no value.
        t1w: an image in the place where the map should lie, with or without skull.
        tick: called with the share done, 0 to 1; may raise to cancel.
    """
    from ..preprocess.registration import register_rigid

    known = np.isfinite(psr.array) & (psr.array != 0)
    if np.count_nonzero(known) < 1000 or not np.isfinite(t1w.array).all() or np.ptp(t1w.array) == 0:
        return None
    measured = MeasuredMap(psr.with_array(np.where(known, psr.array, np.float32(0))), known, "fraction", "")
    inside = psr.with_array(_support(measured).astype(np.float32))
    found = register_rigid(psr.with_array(_whole(measured)), t1w, inside, tick, name="T1w", anywhere=False)
    gain = (found.after - found.before) / abs(found.before) if found.before else 0.0
    if not (found.displacement > OFF_MM and gain > OFF_GAIN):
        return None
    return (
        f"{psr.path or 'The PSR map'} fits the T1w better {found.displacement:.1f} mm away from where it lies; "
        "register it to the T1w before regions drawn on the one are measured on the other."
    )


def _doubts(measured: MeasuredMap, fit: float, fluid: float, csf: float) -> tuple[str, ...]:
    label = measured.psr.path or "The PSR map"
    if np.isfinite(fit) and fit < LEAST_FIT:
        return (
            f"T1w and FLAIR tell only {max(fit, 0):.0%} of what varies in {label} ({LEAST_FIT:.0%} is the least to "
            "expect); it may be another person's, mirrored, or badly registered.",
        )
    if np.isfinite(fluid) and fluid > MOST_FLUID:
        return (
            f"{label} has a mean of {csf:.3f} in fluid, {fluid:.0%} of that in tissue, where it should have next "
            "to none; it may lie off the T1w.",
        )
    return ()


def _support(measured: MeasuredMap) -> np.ndarray:
    """The known voxels and the holes in them, slice by slice along every axis: of a slab all ends are open."""
    from scipy.ndimage import binary_fill_holes

    filled = measured.known.copy()
    if measured.known.all():  # a complete truth: its zeros are known
        filled = measured.psr.array != 0
    for axis in range(3):
        for i in range(filled.shape[axis]):
            cut = tuple(i if a == axis else slice(None) for a in range(3))
            filled[cut] = binary_fill_holes(filled[cut])
    return filled


def _whole(measured: MeasuredMap) -> np.ndarray:
    """The map with holes closed from around them, 0 outside: a hole is no edge to be matched."""
    from scipy.ndimage import gaussian_filter

    known = measured.known.astype(np.float32)
    weight = gaussian_filter(known, 1.0)
    smooth = gaussian_filter(np.where(measured.known, measured.psr.array, np.float32(0)), 1.0)
    around = np.where(weight > 1e-3, smooth / np.maximum(weight, 1e-3), 0)
    values = np.where(measured.known, measured.psr.array, around)
    return np.where(_support(measured), values, 0).astype(np.float32)


def _quality(
    measured: MeasuredMap, motion: np.ndarray, condition: np.ndarray, brain: Volume
) -> tuple[float, float, float]:
    """``fit``, ``fluid`` and ``csf_mean`` of :class:`Alignment`."""
    inside = brain.array > 0
    psr, known = measured.on_grid(brain.grid, motion)
    here = np.flatnonzero(inside & known)
    if here.size < 1000:
        return float("nan"), float("nan"), float("nan")
    some = here if here.size <= _VOXELS else np.random.default_rng(0).choice(here, _VOXELS, replace=False)
    rows = features(condition).reshape(10, -1)[:, some].T.astype(np.float64)
    values = psr.ravel()[some].astype(np.float64)
    weights = np.linalg.lstsq(rows, values, rcond=None)[0]
    variance = float(values.var())
    fit = 1 - float((values - rows @ weights).var()) / variance if variance > 0 else float("nan")
    # Zeros count here: fits end at 0 in fluid, and leaving them out would leave the rest.
    seen = _support(measured).astype(np.float32)
    covered = Volume(seen, motion @ measured.psr.affine).resampled_to(brain.grid).array > 0.99
    fluid = inside & covered & (condition[0] < _FLUID[0]) & (condition[1] < _FLUID[1])
    tissue = inside & known & (condition[0] > 0.4)
    if np.count_nonzero(fluid) < 200 or not tissue.any():
        return fit, float("nan"), float("nan")
    csf, usual = float(psr[fluid].mean()), float(psr[tissue].mean())
    return fit, (csf / usual if usual > 0 else float("nan")), csf
