"""What is not brain and still in the picture: dura, sinuses and vessels that extraction leaves, and what it cuts away.

A skull-stripped scan has a patchy rim of bright tissue that is not myelinated, and lacks a millimetre of cortex
elsewhere; extraction tools are off by 1-3 mm (Isensee et al., Hum Brain Mapp 40:4952, 2019). Vessels run through the
sulci with or without the skull. All of it has PSR 0 in the truth, whose brain mask and tissues stay the person's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..labels import CSF, GREY, WHITE
from .fields import smooth_field


@dataclass(frozen=True, eq=False)
class Residue:
    """Material without PSR, (X, Y, Z) float32: ``fraction`` of the voxel; its ``r1`` and ``r2`` in 1/s and ``pd``.

    A number stands for one value everywhere.
    """

    fraction: np.ndarray
    r1: np.ndarray | np.float32
    r2: np.ndarray | np.float32
    pd: np.ndarray | np.float32


def vessels(fluid: np.ndarray, brain: np.ndarray, rng: np.random.Generator, parameters: dict[str, Any]) -> Residue:
    """Vessels of 0.4-1.6 mm in the fluid of sulci, cisterns and ventricles (there: strands of choroid plexus).

    Tubes around the curves on which two random fields are both zero. Blood is between flow void and inflow
    enhancement, so rates are drawn from a wide range for each person.

    Args:
        fluid: fraction of CSF (X, Y, Z).
        brain: brain mask (bool).
        rng: source of randomness.
        parameters: what was drawn is noted here.
    """
    scale = 5.0
    radius = float(rng.uniform(0.2, 0.8))
    one, two = smooth_field(fluid.shape, scale, rng), smooth_field(fluid.shape, scale, rng)
    # |gradient| of a unit field with Gaussian correlation exp(-d^2 / 4 scale^2) is about 1 / (sqrt(2) scale) an axis.
    inside = radius - np.sqrt(one**2 + two**2) * np.float32(scale * np.sqrt(2))
    fraction = np.clip(inside + 0.5, 0, 1) * fluid * brain
    r1, r2, pd = float(rng.uniform(0.45, 1.6)), float(rng.uniform(5, 35)), float(rng.uniform(0.6, 0.95))
    parameters["vessels"] = {"radius_mm": round(radius, 3), "r1": round(r1, 3), "r2": round(r2, 3)}
    full = np.float32(1)
    return Residue(fraction.astype(np.float32), full * np.float32(r1), full * np.float32(r2), full * np.float32(pd))


def rim(
    outside: np.ndarray, sinus: np.ndarray, left: float, rng: np.random.Generator, parameters: dict[str, Any]
) -> Residue:
    """Patches of dura 0-3 mm thick around the brain, and pieces of the sinuses the label map has.

    Args:
        outside: distance from the brain in mm (X, Y, Z), 0 inside.
        sinus: share of dura and sinuses in the label map (X, Y, Z), zeros where it has none.
        left: mm around the brain that extraction left.
        rng: source of randomness.
        parameters: what was drawn is noted here.
    """
    shape = outside.shape
    patch = smooth_field(shape, 13.0, rng)
    fine = smooth_field(shape, 4.0, rng)
    rarity = float(rng.uniform(0.6, 2.4))
    gap = float(rng.uniform(0.0, 1.8)) + 0.4 * fine
    thick = np.clip(1.6 * (patch - rarity) + 0.4 * fine, 0, 3)
    fraction = np.clip(outside - gap, 0, 1) * np.clip(gap + thick - outside + 0.5, 0, 1) * (thick > 0.1)
    reach = left + float(rng.uniform(0, 3))
    pieces = np.clip(sinus * 1.3, 0, 1) * ((outside > 0) & (outside <= reach) & (patch > float(rng.uniform(-1.5, 1))))
    dura = {"r1": float(rng.uniform(0.6, 1.5)), "r2": float(rng.uniform(8, 26)), "pd": float(rng.uniform(0.6, 0.95))}
    blood = {"r1": float(rng.uniform(0.5, 1.6)), "r2": float(rng.uniform(6, 30)), "pd": float(rng.uniform(0.6, 0.95))}
    texture = np.exp(0.2 * fine)
    is_sinus = pieces > fraction
    maps = {k: (np.where(is_sinus, blood[k], dura[k]) * (texture if k == "r1" else 1)).astype(np.float32) for k in dura}
    fraction = np.maximum(fraction, pieces)
    parameters["residue"] = {"dura_rarity": round(rarity, 3), "volume_ml": round(float(fraction.sum()) / 1000, 3)}
    return Residue(fraction.astype(np.float32), maps["r1"], maps["r2"], maps["pd"])


def bitten(brain: np.ndarray, rng: np.random.Generator, parameters: dict[str, Any]) -> np.ndarray | None:
    """Voxels (bool) that the extraction took from the brain's surface, 1-2 mm deep in patches; None in half the people.

    ``brain`` (X, Y, Z).

    Outside the brain the patches reach on: where cortex is cut, the fluid before it is gone.
    """
    from scipy.ndimage import binary_erosion

    if rng.random() < 0.5:
        return None
    patch = smooth_field(brain.shape, 16.0, rng)
    threshold = float(rng.uniform(1.1, 2.2))
    first = binary_erosion(brain)
    cut = ((patch > threshold) & ~first) | ((patch > threshold + 0.4) & ~binary_erosion(first))
    parameters["bitten_ml"] = round(float((cut & brain).sum()) / 1000, 3)
    return cut


def mix_in(
    residue: Residue,
    fractions: dict[int, np.ndarray],
    psr: dict[int, np.ndarray],
    r2: dict[int, np.ndarray],
    pd: dict[int, np.ndarray],
    lesion_r1: np.ndarray,
    r1_water: float = 0.36,
) -> None:
    """Put ``residue`` into the grey compartment of the maps a scan is computed from, in place.

    All maps are (X, Y, Z): fractions and PSR as fractions, R2 and R1 in 1/s.

    It displaces fluid and air, never tissue. The compartment's PSR, R2, PD and R1 become means weighted with what
    fills it, so that PSR times fraction stays what it was.

    Args:
        residue: what to add.
        fractions, psr, r2, pd: maps by compartment.
        lesion_r1: what is added to the water's R1, 1/s.
        r1_water: mean R1 of free water, 1/s, to which ``lesion_r1`` adds.
    """
    where = np.flatnonzero(residue.fraction > 0.01)
    if not where.size:
        return
    grey, white = fractions[GREY].flat[where], fractions[WHITE].flat[where]
    added = np.minimum(residue.fraction.flat[where], np.maximum(1 - grey - white, 0))
    total = np.maximum(grey + added, 1e-6)

    def at(values: np.ndarray | np.float32) -> np.ndarray | np.float32:
        return values.flat[where] if isinstance(values, np.ndarray) else values

    fractions[GREY].flat[where] = grey + added
    fractions[CSF].flat[where] = np.minimum(fractions[CSF].flat[where], np.maximum(1 - grey - white - added, 0))
    psr[GREY].flat[where] *= grey / total
    for maps, values in ((r2[GREY], residue.r2), (pd[GREY], residue.pd)):
        maps.flat[where] = (grey * maps.flat[where] + added * at(values)) / total
    tissue = grey + white
    lesion_r1.flat[where] = (tissue * lesion_r1.flat[where] + added * (at(residue.r1) - r1_water)) / np.maximum(
        tissue + added, 1e-6
    )
