"""PSR, R2, proton density and R1 inside white and grey matter, from classes, lesions, tracts and random fields."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..labels import GREY, WHITE
from . import shifted_tissue as shifted
from .fields import smooth_field
from .lesions import LesionMaps


class TissueMaps(NamedTuple):
    """Maps (X, Y, Z) float32; the first three keyed by compartment.

    ``water``: free water in place of lost tissue; ``lesion_r1``: what lesions add to the R1 of free water, 1/s;
    ``r1_factor``: what R1 differs by from the two-pool value.
    """

    psr: dict[int, np.ndarray]
    r2: dict[int, np.ndarray]
    pd: dict[int, np.ndarray]
    water: np.ndarray
    lesion_r1: np.ndarray
    r1_factor: np.ndarray


def tissue_maps(
    maps: dict[str, np.ndarray],
    lesions: LesionMaps,
    ventricle_distance: np.ndarray,
    cortex_distance: np.ndarray,
    rng: np.random.Generator,
    parameters: dict[str, Any],
    *,
    own: np.random.Generator | None = None,
    tracts: tuple[np.ndarray, np.ndarray] | None = None,
    physics: str = "standard",
) -> TissueMaps:
    """The maps that scans are computed from.

    Args:
        maps: warped class maps and tables (X, Y, Z), see subject.
        lesions: shapes and properties of the lesions.
        ventricle_distance, cortex_distance: mm (X, Y, Z).
        rng: source of randomness.
        parameters: what was drawn is noted here.
        own: source of randomness of the texture of R1 in lesions; None: no texture.
        tracts: factors on white matter's PSR and R2 (X, Y, Z); None: no tracts.
        physics: ``"standard"`` or ``"shifted"``.
    """
    from scipy.ndimage import distance_transform_edt

    shape = maps["white"].shape

    def inside(kind: str, compartment: str, fallback: float) -> np.ndarray:
        total = maps[compartment]
        return np.where(total > 0.02, maps[f"{kind} {compartment}"] / np.maximum(total, 0.02), fallback)

    # Smooth regional variation and tract-scale texture, 4-5 % and 3 % (coefficients of variation between white-matter
    # regions of about 8 % in Dortch 2013); deep white matter is denser in myelin than the U-fibre layer.
    regional = 1 + rng.uniform(0.03, 0.06) * smooth_field(shape, 22.0, rng) + 0.03 * smooth_field(shape, 6.0, rng)
    depth = np.clip(cortex_distance / 8.0, 0, 1)
    white = inside("psr", "white", 0.12) * regional * (0.96 + rng.uniform(0.02, 0.1) * depth)
    if tracts is not None:
        white = white * tracts[0]
    grey = inside("psr", "grey", 0.06) * (
        1 + 0.06 * smooth_field(shape, 18.0, rng) + 0.03 * smooth_field(shape, 5.0, rng)
    )

    # Normal-appearing white matter loses myelin near lesions, a loss that decays with distance (Vrenken et al.,
    # AJNR 27:2005, 2006; PSR of normal-appearing white matter in Bagnato et al., Mult Scler J 26:457, 2020).
    loss = np.zeros(shape, np.float32)
    if physics == "shifted":
        distance = distance_transform_edt(~lesions.mask) if lesions.mask.any() else np.full(shape, 1e3)
        loss = shifted.nawm_loss(distance, ventricle_distance, rng, parameters)
    elif lesions.mask.any():
        reach = rng.uniform(2.5, 8.0)
        depth_of_loss = rng.uniform(0.0, 0.12)
        # At full resolution: many lesions are smaller than the 2 mm grid that other distances make do with.
        distance = distance_transform_edt(~lesions.mask).astype(np.float32)
        loss = depth_of_loss * np.exp(-distance / reach)
        parameters["nawm_loss"] = {"at_lesion": round(depth_of_loss, 4), "decay_mm": round(reach, 3)}
    damage = lesions.amount * lesions.severity
    # Core worse than rim: within a lesion the loss still grows inwards.
    white = white * (1 - loss * (1 - lesions.amount)) * (1 - damage)
    grey = grey * (1 - 0.7 * damage)

    r2_white, r2_grey = inside("r2", "white", 13.3), inside("r2", "grey", 10.2)
    pd_white, pd_grey = inside("pd", "white", 0.7), inside("pd", "grey", 0.82)
    if tracts is not None:
        r2_white = r2_white * tracts[1]
    # Lesion T2: mostly 95-160 ms, longer with more damage but also for reasons of its own (oedema, inflammation), so
    # that FLAIR brightness is not a ruler for PSR (Stevenson et al., J Neurol Sci 178:81, 2000). Set so that lesions
    # are as bright as on real FLAIRs: median 1.4 times white matter, quartiles 1.3 and 1.55 (open_ms_data).
    extra_t2 = rng.uniform(0.020, 0.056) * lesions.amount * lesions.t2
    if lesions.mask.any():
        extra_t2 = extra_t2 * np.exp(0.25 * smooth_field(shape, 4.0, rng))
    # Periventricular caps and dirty-appearing white matter: T2 longer with hardly any loss of PSR.
    caps = rng.uniform(0, 0.014) * np.exp(-np.maximum(ventricle_distance - 0.5, 0) / rng.uniform(1.0, 3.0))
    dirty = np.maximum(rng.uniform(0, 0.007) * (smooth_field(shape, 10.0, rng) - 0.8), 0)
    r2_white = 1 / (1 / r2_white + extra_t2 + caps + dirty)
    r2_grey = 1 / (1 / r2_grey + 0.7 * extra_t2)
    # T2 varies smoothly within normal tissue, and R1 is not a ruler for PSR either: iron, water content and fibre
    # orientation move both by a few per cent (Callaghan 2015, residuals of the linear model).
    texture = 1 + rng.uniform(0.02, 0.05) * smooth_field(shape, 12.0, rng) + 0.02 * smooth_field(shape, 3.0, rng)
    r2_white, r2_grey = r2_white * texture, r2_grey * texture
    r1_factor = 1 + rng.uniform(0.01, 0.03) * smooth_field(shape, 14.0, rng)
    white = white * (1 - 2.4 * caps)
    wetter = lesions.amount * lesions.water
    pd_white, pd_grey = pd_white + (1 - pd_white) * wetter, pd_grey + (1 - pd_grey) * 0.6 * wetter
    lesion_r1 = lesions.amount * lesions.r1
    if own is not None and lesions.mask.any():
        lesion_r1 = lesion_r1 * (1 + 0.25 * smooth_field(shape, 5.0, own))
    psr = {WHITE: white.astype(np.float32), GREY: grey.astype(np.float32)}
    r2 = {WHITE: r2_white.astype(np.float32), GREY: r2_grey.astype(np.float32)}
    pd = {WHITE: pd_white.astype(np.float32), GREY: pd_grey.astype(np.float32)}
    rest = (values.astype(np.float32) for values in (damage, lesion_r1, r1_factor))
    return TissueMaps(psr, r2, pd, *rest)
