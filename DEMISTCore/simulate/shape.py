"""Shapes of simulated heads: where each voxel of a new head comes from in the label map it is made of."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..labels import GREY, WHITE
from .fields import coarse_shape, diffeomorphism, pull, random_affine, smooth_field
from .tissues import CLASS_INDEX, CLASSES

#: Voxels: a surface's shift fades with this Gaussian on both sides of it.
_REACH = 1.2
#: No surface moves farther, mm; 0.9 would fold the tissue next to it.
_FARTHEST = 0.8


def coordinates(classes: np.ndarray, rng: np.random.Generator, parameters: dict[str, Any]) -> np.ndarray:
    """Source voxel (3, X, Y, Z) of each voxel of the new head: affine, then diffeomorphism with the ventricles' size.

    Args:
        classes: class indices (X, Y, Z) on a 1 mm grid.
        rng: source of randomness.
        parameters: what was drawn is noted here.
    """
    shape = classes.shape
    matrix = random_affine(rng, rotation=4.0, scale=0.035, shear=0.02)
    swelling = float(np.clip(rng.normal(0.3, 1.6), -2.0, 5.0))
    parameters["ventricle_swelling_mm"] = round(swelling, 3)
    displacement = diffeomorphism(shape, rng, extra=_ventricle_flow(classes, swelling))
    centre = (np.array(shape) - 1) / 2
    index = np.stack(np.meshgrid(*[np.arange(n, dtype=np.float32) for n in shape], indexing="ij"))
    moved = index + displacement - centre.reshape(3, 1, 1, 1).astype(np.float32)
    return np.tensordot(matrix.astype(np.float32), moved, 1) + centre.reshape(3, 1, 1, 1).astype(np.float32)


def _ventricle_flow(classes: np.ndarray, swelling: float, step: int = 4) -> np.ndarray:
    """Velocity that moves the ventricles' walls outwards by up to ``swelling`` mm: central atrophy, common in MS.

    Negative values make them smaller: many label maps are of old people, many patients are young.
    """
    from scipy.ndimage import gaussian_filter, zoom

    ventricle = (classes == CLASS_INDEX["ventricle"]).astype(np.float32)
    size = coarse_shape(classes.shape, step)
    smooth = gaussian_filter(ventricle[::2, ::2, ::2], 2.5)
    coarse = zoom(smooth, [n / m for n, m in zip(size, smooth.shape)], order=1)
    gradient = np.stack(np.gradient(coarse))
    norm = np.linalg.norm(gradient, axis=0).max()
    return (gradient / max(norm, 1e-6) * swelling).astype(np.float32)


def moved_surfaces(
    where: np.ndarray, classes: np.ndarray, sd: float, rng: np.random.Generator, parameters: dict[str, Any]
) -> np.ndarray:
    """``where`` with white matter's and the brain's surface moved along their normals: cortex of another thickness.

    Smooth deformations of centimetres leave cortex as thick as the label map has it, while it is 1 to 4.5 mm thick
    (Fischl and Dale, PNAS 97:11050, 2000) and thins with age and disease. Half of the variance is the person's, half
    varies over the brain.

    Args:
        where: source voxels (3, X, Y, Z) from :func:`coordinates`.
        classes: class indices (X, Y, Z) of the source, 1 mm.
        sd: SD of each surface's movement, mm; outwards is positive.
        rng: source of randomness.
        parameters: the means drawn are noted here.
    """
    compartment = np.array([tissue.compartment for tissue in CLASSES])[classes]
    displacement = np.zeros((3, *classes.shape), np.float32)
    for name, kinds in (("white_surface_mm", (WHITE,)), ("brain_surface_mm", (WHITE, GREY))):
        mean = rng.normal(0, sd / np.sqrt(2))
        shift = mean + sd / np.sqrt(2) * smooth_field(classes.shape, 20.0, rng)
        parameters[name] = round(float(np.clip(mean, -_FARTHEST, _FARTHEST)), 3)
        displacement += surface_shift(np.isin(compartment, kinds), np.clip(shift, -_FARTHEST, _FARTHEST))
    return where + pull(displacement, where)


def surface_shift(inside: np.ndarray, shift: np.ndarray | float) -> np.ndarray:
    """Displacement (3, X, Y, Z) in voxels, to be added to where one samples, that moves the surface of a mask.

    The gradient of the blurred mask is the surface's normal, weighted with a Gaussian of the distance: the whole shift
    at a flat surface, none where two surfaces lie back to back, as in a narrow sulcus.

    Args:
        inside: mask (X, Y, Z).
        shift: voxels outwards, a number or (X, Y, Z), below 0.9 or so: more would fold the tissue beside it.
    """
    from scipy.ndimage import gaussian_filter

    blurred = gaussian_filter(inside.astype(np.float32), _REACH)
    # A central difference blurs like a box two voxels wide, whose variance is 1/3.
    width = np.sqrt(_REACH**2 + 1 / 3)
    scale = (np.asarray(shift) * width * np.sqrt(2 * np.pi)).astype(np.float32)
    return np.stack([scale * np.gradient(blurred, axis=axis) for axis in range(3)])
