"""Soft atlas of white-matter tracts from the position of nuclei and ventricles: PSR and R2 are not the same in all.

Label maps name no tracts, so each is found by its neighbours (the internal capsule between thalamus or caudate and
putamen or pallidum) or by its place relative to the thalami, in units of the cerebrum's size. Order of PSR: Dortch et
al., NeuroImage 64:640 (2013): callosum and internal capsule above frontal white matter. R2: the corticospinal tract is
brighter than its surroundings on T2-weighted images of healthy people (Yagishita et al., Radiology 191:455, 1994).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from .tissues import CLASS_INDEX

#: Name: (mean, SD) of what PSR gains as a share, and of what R2 gains; drawn once a person.
TRACTS: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "genu": ((0.10, 0.03), (0.03, 0.02)),
    "body of callosum": ((0.07, 0.03), (0.02, 0.02)),
    "splenium": ((0.12, 0.03), (0.02, 0.02)),
    "internal capsule": ((0.09, 0.03), (0.00, 0.02)),
    "corticospinal tract": ((0.05, 0.025), (-0.06, 0.03)),
    "optic radiation": ((0.06, 0.025), (-0.03, 0.02)),
    "frontal": ((-0.05, 0.02), (0.00, 0.01)),
}
STEP = 2  # voxels of 1 mm between the points of the atlas

# Course of the corticospinal tract: distance from the midline, then offsets from the thalami's centre forwards and
# upwards, in mm of a cerebrum 140 mm wide, 172 mm long and reaching 68 mm above the thalami (ICBM-152 coordinates:
# hand area, corona radiata, posterior limb, cerebral peduncle, pons, medulla).
_COURSE = np.array(
    [(26, -10, 60), (29, -6, 42), (25, 0, 20), (22, 5, 0), (14, 0, -24), (7, -4, -42), (4, -14, -60)], np.float32
)


def _soft(value: np.ndarray, at: float, width: float) -> np.ndarray:
    """Rises from 0 to 1 around ``at``, about ``width`` mm wide."""
    return 1 / (1 + np.exp(np.clip(-(value - at) / (0.25 * width), -40, 40)))


def tract_atlas(classes: np.ndarray) -> dict[str, np.ndarray]:
    """Membership (float32, 0 to 1) of the white matter in each tract of :data:`TRACTS`.

    Args:
        classes: class indices (x, y, z) on a 2 mm RAS grid.

    Returns:
        A map (x, y, z) for every tract whose landmarks are there; none without thalami.
    """
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    def distance(*names: str) -> np.ndarray | None:
        inside = np.isin(classes, [CLASS_INDEX[n] for n in names])
        return distance_transform_edt(~inside, sampling=STEP)[white] if inside.any() else None

    stem_like = ("white matter", "brainstem", "ventral diencephalon")
    white = np.isin(classes, [CLASS_INDEX[n] for n in stem_like])
    cerebral = np.argwhere(np.isin(classes, [CLASS_INDEX["white matter"], CLASS_INDEX["cortex"]])) * float(STEP)
    thalamus = np.argwhere(classes == CLASS_INDEX["thalamus"]) * float(STEP)
    if not len(thalamus) or not white.any():
        return {}
    # The midline leans with the head: the plane of mean x over the symmetric cerebrum.
    design = np.column_stack([cerebral[:, 1:], np.ones(len(cerebral))])[::7]
    plane = np.linalg.lstsq(design, cerebral[::7, 0], rcond=None)[0]
    low, high = np.percentile(cerebral, (0.5, 99.5), axis=0)
    centre = thalamus.mean(0)
    front, back = np.percentile(thalamus[:, 1], (98, 2)) - centre[1]
    points = np.argwhere(white) * float(STEP)
    side = np.abs(points[:, 0] - points[:, 1:] @ plane[:2] - plane[2])
    unit = np.array([(high[0] - low[0]) / 140, (high[1] - low[1]) / 172, max(high[2] - centre[2], 1.0) / 68])
    across, forward, up = side / unit[0], (points[:, 1] - centre[1]) / unit[1], (points[:, 2] - centre[2]) / unit[2]
    front, back = front / unit[1], back / unit[1]
    found: dict[str, np.ndarray] = {}
    to_ventricle = distance("ventricle", "choroid plexus")
    if to_ventricle is not None:
        middle = np.exp(-((across / 13) ** 2)) * np.exp(-((to_ventricle / 8) ** 2))
        ahead, behind = _soft(forward, front + 14, 8), _soft(-forward, -back + 2, 8)
        found |= {"genu": middle * ahead * _soft(up, -6, 6), "splenium": middle * behind * _soft(up, 0, 6)}
        found["body of callosum"] = middle * (1 - ahead) * (1 - behind) * _soft(up, 5, 6)
        beside = np.exp(-(((to_ventricle - 4) / 4) ** 2)) * _soft(across, 17, 6) * np.exp(-((up / 16) ** 2))
        found["optic radiation"] = beside * _soft(-forward, -back + 2, 8)
    inner, outer = distance("thalamus", "caudate"), distance("putamen", "pallidum")
    if inner is not None and outer is not None:
        found["internal capsule"] = np.exp(-((np.maximum(inner + outer - 7, 0) / 5) ** 2))
    here = np.stack([across, forward, up], 1).astype(np.float32)
    nearest = np.full(len(here), np.inf, np.float32)
    for start, end in pairwise(_COURSE):
        along = end - start
        share = np.clip((here - start) @ along / (along @ along), 0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(here - start - share[:, None] * along, axis=1))
    found["corticospinal tract"] = np.exp(-((nearest / 5.5) ** 2))
    found["frontal"] = _soft(forward, front + 32, 20) * (1 - found.get("genu", 0.0))
    maps = {}
    for name, values in found.items():
        full = np.zeros(classes.shape, np.float32)
        full[white] = values
        # Normalized by the blurred white matter: the border to grey matter does not dilute a tract.
        maps[name] = full
    weight = gaussian_filter(white.astype(np.float32), 0.8, truncate=3) + 1e-3
    return {name: gaussian_filter(full, 0.8, truncate=3) / weight for name, full in maps.items()}


def tract_factors(
    classes: np.ndarray, where: np.ndarray, rng: np.random.Generator, parameters: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Factors (X, Y, Z) on white matter's PSR and R2, with a strength of its own for each tract and person.

    Both are 1 on the average over the white matter, so that class means stay what they are.

    Args:
        classes: class indices of the source label map, 1 mm.
        where: source voxel (3, X, Y, Z) of each voxel of the head.
        rng: source of randomness.
        parameters: the strengths are noted here.
    """
    import torch

    coarse = where[:, ::STEP, ::STEP, ::STEP]
    limit = np.array(classes.shape).reshape(3, 1, 1, 1) - 1
    index = np.clip(np.rint(coarse), 0, limit).astype(np.intp)
    seen = classes[tuple(index)]
    atlas = tract_atlas(seen)
    white = seen == CLASS_INDEX["white matter"]
    factors = np.ones((2, *seen.shape), np.float32)
    drawn = {}
    for name, laws in TRACTS.items():
        strengths = [float(rng.normal(*law)) for law in laws]
        if name in atlas:
            drawn[name] = [round(value, 4) for value in strengths]
            for factor, value in zip(factors, strengths):
                factor += value * atlas[name]
    if white.any():
        factors /= factors[:, white].mean(1).reshape(2, 1, 1, 1)
    parameters["tracts"] = drawn
    # Points of the coarse grid lie at even voxels: interpolate over their extent, then cut to size.
    size = tuple(STEP * (n - 1) + 1 for n in seen.shape)
    fine = torch.nn.functional.interpolate(
        torch.from_numpy(factors)[None], size=size, mode="trilinear", align_corners=True
    )[0].numpy()
    pad = [(0, 0)] + [(0, max(n - m, 0)) for n, m in zip(where.shape[1:], size)]
    fine = np.pad(fine, pad, mode="edge")
    return fine[0], fine[1]
