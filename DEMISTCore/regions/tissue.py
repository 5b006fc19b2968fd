"""White matter, grey matter and CSF from a T1w without any training (method "hmrf").

Gaussians of brightness (:mod:`.brightness`) and a Potts field that makes neighbours alike, by mean-field updates (Zhang
et al., IEEE TMI 20:45, 2001). Why not a ready-made classifier is measured in ``docs/regions.md``.
"""

from __future__ import annotations

import logging

import numpy as np

from ..errors import InputError
from ..volume import Volume
from .brightness import Channel, flat_voxels, likeliest, mean_field_update
from .holes import fill_white
from .masks import describe, labels_to_grid
from .suggest import suggest_lesions

log = logging.getLogger(__name__)

#: Voxels of these edges (mm) are worked on as they are; others on an isotropic grid of 1 mm.
_EDGES = (0.8, 1.25)
#: So often are means learnt, and so often each time do neighbours agree.
_PASSES, _ROUNDS = 4, 3


def segment_tissue(
    t1w: Volume,
    brain: Volume,
    *,
    flair: Volume | None = None,
    lesions: Volume | None = None,
) -> Volume:
    """Label the brain: 0 background, 1 CSF, 2 grey matter (cortex, deep, cerebellar), 3 white matter with brainstem.

    White matter comes with its holes and lesions filled.

    Args:
        t1w: T1w of any brightness, free of bias as far as possible.
        brain: > 0 inside, on any grid in the T1w's space.
        flair: registered to the T1w. Without ``lesions``, what it suggests as lesions is filled as white matter.
        lesions: > 0 inside, on any grid in the T1w's space.

    Returns:
        uint8 labels on the grid of ``t1w``.

    Raises:
        InputError: the brain is empty or too small, or the image shows no three tissues in it.
    """
    from ..preprocess.intensity import normalize
    from ..preprocess.pipeline import model_grid

    inside = brain if brain.grid.same_as(t1w.grid) else brain.resampled_to(t1w, "nearest")
    inside = inside.with_array((inside.array > 0) & np.isfinite(t1w.array))
    label = describe(t1w, "T1w")
    if not inside.array.any():
        raise InputError(f"The brain mask is empty or does not overlap {label}; give a mask that covers the brain.")
    uint8 = inside.with_array(inside.array.astype(np.uint8))
    if all(_EDGES[0] <= edge <= _EDGES[1] for edge in t1w.spacing):
        box = _box(inside.array)
        grid = None
        image, mask = np.nan_to_num(t1w.array[box]).astype(np.float32), inside.array[box]
        affine = t1w.affine.copy()
        affine[:3, 3] = t1w.grid.to_world(np.array([b.start for b in box]))
        work = Volume(image, affine)
    else:
        grid = model_grid(uint8, 1.0, multiple=1)
        work = t1w.with_array(np.nan_to_num(t1w.array).astype(np.float32)).resampled_to(grid, "bspline")
        mask = uint8.resampled_to(grid).array >= 0.5
        affine = work.affine
    if np.count_nonzero(mask) * work.grid.voxel_volume_ml < 1:
        raise InputError("The brain is too small to tell its tissues apart; check the brain mask.")
    image = normalize([work.array], mask, float(np.mean(work.spacing)))[0]
    hidden = np.zeros(mask.shape, bool)
    if lesions is not None:
        hidden = (lesions.resampled_to(work.grid, "nearest").array > 0) & mask

    images = [image]
    if flair is not None:
        bright = np.nan_to_num(flair.resampled_to(work.grid).array)
        images.append(normalize([work.array, bright], mask, float(np.mean(work.spacing)))[1])
    labels = _classify(images, mask, hidden, work.spacing, label)
    if lesions is None and flair is not None:
        pair = [Volume(one, affine) for one in images]
        found = suggest_lesions(pair[0], pair[1], Volume(labels, affine)).numbers.array
        hidden = (found > 0) & mask
    labels = fill_white(Volume(labels, affine), hidden).array

    if grid is None:
        result = np.zeros(t1w.shape, np.uint8)
        result[box] = labels
        return Volume(result, t1w.affine)
    back = labels_to_grid(Volume(labels, affine), t1w.grid)
    return back.with_array(np.where(inside.array, back.array, 0).astype(np.uint8))


def _classify(
    images: list[np.ndarray],
    mask: np.ndarray,
    hidden: np.ndarray,
    spacing: tuple[float, float, float],
    label: str,
) -> np.ndarray:
    """Labels (uint8) of a normalized T1w, and FLAIR if there are two; ``hidden`` voxels (lesions) teach nothing."""
    from scipy.special import softmax

    means, deviation = _global_classes(images[0], mask & ~hidden, spacing, label)
    log.debug("Tissue means %s, deviation %.3f", np.round(means, 3), deviation)
    # Only voxels of the brain are kept; the rest of the box serves the neighbourhoods.
    volume = np.zeros((3, *mask.shape), np.float32)
    t1w = Channel(images[0], mask, hidden, spacing, means, deviation)
    channels = [t1w]
    volume[:, mask] = softmax(t1w.evidence(), axis=0)
    for round_ in range(_PASSES):
        if round_:
            t1w.learn(volume)
            if len(images) > 1:
                channels = [t1w, Channel.from_tissue(images[1], mask, hidden, spacing, volume)]
        evidence = sum((channel.evidence() for channel in channels), np.zeros((), np.float32))
        mean_field_update(evidence, volume, mask, _ROUNDS)
    return likeliest(volume, mask)


def _global_classes(
    image: np.ndarray, mask: np.ndarray, spacing: tuple[float, float, float], label: str
) -> tuple[np.ndarray, float]:
    """Means of CSF, grey and white, and one standard deviation for all, from voxels of a single tissue.

    Voxels where the image is steep are mixtures and would draw the means together: the flatter half is used. One
    deviation for all puts the borders between tissues halfway between their means, where a voxel is half and half.
    """
    try:
        from sklearn.mixture import GaussianMixture
    except ImportError as error:
        raise InputError("Segmenting tissue needs scikit-learn; run: pip install 'demist[evaluate]'.") from error
    flat = image[flat_voxels(image, mask, spacing)]
    sample = flat[:: max(1, flat.size // 30_000)].reshape(-1, 1).astype(np.float64)
    start = np.array([0.05, 0.43, 0.58])  # normalize puts ventricles at 0 and the middle of tissue at 0.5
    if sample.size < 100 or np.unique(sample).size < 10:
        raise InputError(f"{label} shows no tissues in the brain mask; is it a T1w of a whole brain?")
    mixture = GaussianMixture(
        3,
        means_init=start.reshape(-1, 1),
        weights_init=[0.2, 0.4, 0.4],
        precisions_init=[[[400.0]]] * 3,
        reg_covar=1e-5,
        random_state=0,
    ).fit(sample)
    order = np.argsort(mixture.means_.ravel())
    means, deviations = mixture.means_.ravel()[order], np.sqrt(mixture.covariances_.ravel()[order])
    deviation = float(np.clip(np.mean(deviations[1:]), 0.01, 0.15))
    if means[2] - means[1] < 0.5 * deviation or means[1] - means[0] < 0.5 * deviation:
        raise InputError(f"{label} shows no three tissues in the brain mask; is it a T1w of a whole brain?")
    return means, deviation


def _box(inside: np.ndarray) -> tuple[slice, slice, slice]:
    """The bounding box of a mask."""
    from scipy.ndimage import find_objects

    return find_objects(inside.astype(np.uint8))[0]
