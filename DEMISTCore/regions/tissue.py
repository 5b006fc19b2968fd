"""White matter, grey matter and CSF from a T1w.

Three Gaussians of brightness whose means vary smoothly over the brain, a Potts field that makes neighbours alike
(mean-field updates), and where nilearn is installed an atlas that says what to expect (:mod:`.atlas`). Zhang et al.,
IEEE TMI 20:45 (2001) for the field; Ashburner and Friston, NeuroImage 26:839 (2005) for the union of atlas and
mixture. Why not a ready-made classifier is measured in ``docs/regions.md``.
"""

from __future__ import annotations

import logging

import numpy as np

from ..errors import InputError
from ..volume import Volume
from .masks import describe, labels_to_grid
from .settings import WHITE

log = logging.getLogger(__name__)

#: Voxels of these edges (mm) are worked on as they are; others on an isotropic grid of 1 mm.
_EDGES = (0.8, 1.25)
#: Weight of the six neighbours in the Potts field.
_FIELD = 0.5
_ROUNDS, _PASSES = 3, 4
#: Class means vary over the brain as smoothly as this (standard deviation, mm): bias that N4 left, and cerebellum and
#: thalamus whose grey differs from the cortex's.
_REGIONAL = 8.0
#: Share of the global mean in a regional one where few voxels are sure, and from when on they are.
_GLOBAL_SHARE = 0.02
_SURE = 0.8
#: The FLAIR may speak for one tissue and against another by this much (log likelihood), not more: lesions nobody drew
#: are bright on it, and grey matter rich in iron is dark.
_FLAIR_LIMIT = 10.0
#: No tissue is less likely than this to a prior, which may be wrong; and so often are labels refined with it.
_LEAST_PRIOR, _REFINEMENTS = 1e-3, 3
#: Anything smaller than this (mL) that white matter and lesions enclose is a hole in it.
_HOLE_ML = 0.05


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
    from ..preprocess.intensity import normalise
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
    image = normalise([work.array], mask, float(np.mean(work.spacing)))[0]
    hidden = np.zeros(mask.shape, bool)
    if lesions is not None:
        hidden = (lesions.resampled_to(work.grid, "nearest").array > 0) & mask

    images = [image]
    if flair is not None:
        bright = np.nan_to_num(flair.resampled_to(work.grid).array)
        images.append(normalise([work.array, bright], mask, float(np.mean(work.spacing)))[1])
    labels = _classify(images, mask, hidden, work.spacing, label)
    if lesions is None and flair is not None:
        from .settings import RegionSettings
        from .suggest import suggest_lesions

        pair = (Volume(one, affine) for one in images)
        found = suggest_lesions(*pair, Volume(labels, affine), settings=RegionSettings()).numbers.array
        hidden = (found > 0) & mask
    labels = fill_white(Volume(labels, affine), hidden).array

    if grid is None:
        result = np.zeros(t1w.shape, np.uint8)
        result[box] = labels
        return Volume(result, t1w.affine)
    back = labels_to_grid(Volume(labels, affine), t1w.grid)
    return back.with_array(np.where(inside.array, back.array, 0).astype(np.uint8))


def fill_white(tissue: Volume, lesions: np.ndarray) -> Volume:
    """Lesions, and pockets of other tissue under 0.05 mL that white matter and lesions enclose, become white matter."""
    from scipy.ndimage import label

    white = (tissue.array == WHITE) | (lesions & (tissue.array > 0))
    pieces, count = label(~white)
    if count > 1:
        sizes = np.bincount(pieces.ravel())
        small = sizes * tissue.grid.voxel_volume_ml < _HOLE_ML
        # What touches the border of the image is not enclosed.
        for axis in range(3):
            for end in (0, -1):
                small[np.unique(np.take(pieces, end, axis))] = False
        small[0] = False
        white |= small[pieces] & (tissue.array > 0)
    return tissue.with_array(np.where(white, np.uint8(WHITE), tissue.array).astype(np.uint8))


def _classify(
    images: list[np.ndarray],
    mask: np.ndarray,
    hidden: np.ndarray,
    spacing: tuple[float, float, float],
    label: str,
) -> np.ndarray:
    """Labels (uint8) of a normalised T1w, and FLAIR if there are two; ``hidden`` voxels (lesions) teach nothing."""
    from scipy.special import softmax

    means, deviation = _global_classes(images[0], mask & ~hidden, spacing, label)
    log.debug("Tissue means %s, deviation %.3f", np.round(means, 3), deviation)
    # Only voxels of the brain are kept; the rest of the box serves the neighbourhoods.
    volume = np.zeros((3, *mask.shape), np.float32)
    t1w = _Channel(images[0], mask, hidden, spacing, means, deviation)
    channels = [t1w]
    q = softmax(t1w.evidence(), axis=0)
    for round_ in range(_PASSES):
        volume[:, mask] = q
        if round_:
            t1w.learn(volume)
            if len(images) > 1:
                channels = [t1w, _Channel.from_tissue(images[1], mask, hidden, spacing, volume)]
        evidence = sum(channel.evidence() for channel in channels)
        for _ in range(_ROUNDS):
            q = softmax(evidence + _FIELD * _neighbours(volume, mask), axis=0)
            volume[:, mask] = q
    result = np.zeros(mask.shape, np.uint8)
    result[mask] = q.argmax(0) + 1
    return result


def refine(
    images: list[np.ndarray], mask: np.ndarray, hidden: np.ndarray, spacing: tuple[float, float, float],
    prior: np.ndarray,
) -> np.ndarray:
    """Labels (uint8) from brightness where a prior says what to expect, such as the tissue network's.

    The prior knows anatomy, this scan's own brightness says where borders lie. Means and deviation of each tissue come
    from voxels that the prior is sure of; an image in which there are too few has no say.

    Args:
        images: normalised T1w, and FLAIR if there is one (X, Y, Z).
        mask: brain.
        hidden: lesions, which teach nothing.
        spacing: mm.
        prior: probabilities (3, X, Y, Z) of CSF, grey and white matter.
    """
    from scipy.special import softmax

    volume = np.where(mask, prior, 0).astype(np.float32)
    expected = np.log(volume[:, mask] + _LEAST_PRIOR)
    channels = [
        _Channel.from_tissue(image, mask, hidden, spacing, volume, np.inf if i == 0 else _FLAIR_LIMIT)
        for i, image in enumerate(images)
    ]
    for round_ in range(_REFINEMENTS):
        if round_:
            for channel in channels:
                channel.learn(volume)
        evidence = expected + sum(channel.evidence() for channel in channels)
        for _ in range(_ROUNDS - 1):
            q = softmax(evidence + _FIELD * _neighbours(volume, mask), axis=0)
            volume[:, mask] = q
    result = np.zeros(mask.shape, np.uint8)
    result[mask] = q.argmax(0) + 1
    return result


class _Channel:
    """Brightness of the tissues in one image: a mean for each, of grey and white matter around each voxel."""

    def __init__(
        self,
        image: np.ndarray,
        mask: np.ndarray,
        hidden: np.ndarray,
        spacing: tuple[float, float, float],
        means: np.ndarray,
        deviation: float,
        limit: float = np.inf,
    ) -> None:
        self._image, self._mask, self._hidden, self._spacing = image, mask, hidden, spacing
        self._values = image[mask]
        self._flat = _flat(image, mask & ~hidden, spacing)
        self._means, self._deviation, self._limit = means, deviation, limit
        self._around = [np.float32(mean) for mean in means]

    @classmethod
    def from_tissue(
        cls,
        image: np.ndarray,
        mask: np.ndarray,
        hidden: np.ndarray,
        spacing: tuple[float, float, float],
        volume: np.ndarray,
        limit: float = _FLAIR_LIMIT,
    ) -> _Channel:
        """An image of which something else, the T1w or a prior, tells the tissues."""
        flat = _flat(image, mask & ~hidden, spacing)
        parts = [image[flat & (volume[k] > _SURE)] for k in range(3)]
        if min(part.size for part in parts) < 100:
            return cls(image, mask, hidden, spacing, np.zeros(3), 1.0, 0.0)
        means = np.array([np.median(part) for part in parts])
        spread = [1.4826 * np.median(np.abs(part - mean)) for part, mean in zip(parts, means)]
        deviation = float(np.mean(spread[1:]))
        channel = cls(image, mask, hidden, spacing, means, max(deviation, 1e-3), limit)
        channel.learn(volume)
        log.debug("FLAIR means %s, deviation %.3f", np.round(means, 3), deviation)
        return channel

    def learn(self, volume: np.ndarray) -> None:
        """Regional means from the voxels whose tissue is sure."""
        for k in (1, 2):
            sure = (self._flat & (volume[k] > _SURE)).astype(np.float32)
            mean = regional_mean(self._image, sure, float(self._means[k]), self._spacing, _REGIONAL)
            self._around[k] = mean[self._mask]

    def evidence(self) -> np.ndarray:
        """Log likelihood (3, N) of CSF, grey and white; differences limited for all but the T1w."""
        result = np.stack([
            np.broadcast_to(-0.5 * ((self._values - m) / self._deviation) ** 2, self._values.shape)
            for m in self._around
        ]).astype(np.float32)  # fmt: skip
        if np.isfinite(self._limit):
            result -= result.max(0)
            np.maximum(result, -self._limit, out=result)
        return result


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
    flat = image[_flat(image, mask, spacing)]
    sample = flat[:: max(1, flat.size // 30_000)].reshape(-1, 1).astype(np.float64)
    start = np.array([0.05, 0.43, 0.58])  # normalise puts ventricles at 0 and the middle of tissue at 0.5
    if sample.size < 100 or np.unique(sample).size < 10:
        raise InputError(f"{label} shows no tissues in the brain mask; is it a T1w of a whole brain?")
    mixture = GaussianMixture(
        3, means_init=start.reshape(-1, 1), weights_init=[0.2, 0.4, 0.4], precisions_init=[[[400.0]]] * 3,
        reg_covar=1e-5, random_state=0,
    ).fit(sample)  # fmt: skip
    order = np.argsort(mixture.means_.ravel())
    means, deviations = mixture.means_.ravel()[order], np.sqrt(mixture.covariances_.ravel()[order])
    deviation = float(np.clip(np.mean(deviations[1:]), 0.01, 0.15))
    if means[2] - means[1] < 0.5 * deviation or means[1] - means[0] < 0.5 * deviation:
        raise InputError(f"{label} shows no three tissues in the brain mask; is it a T1w of a whole brain?")
    return means, deviation


def _flat(image: np.ndarray, mask: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """The 40 % of the voxels of ``mask`` around which the image is least steep: mostly of a single tissue."""
    from scipy.ndimage import gaussian_gradient_magnitude

    if not mask.any():
        return mask
    steep = gaussian_gradient_magnitude(image, [0.7 * min(spacing) / s for s in spacing])
    return mask & (steep <= np.percentile(steep[mask], 40))


def regional_mean(
    image: np.ndarray, weight: np.ndarray, overall: float, spacing: tuple[float, float, float], width: float
) -> np.ndarray:
    """The mean of ``image`` under ``weight`` around each voxel, by a Gaussian of ``width`` mm standard deviation.

    Where there is little weight, ``overall`` takes its place. Computed on every second voxel: it is that smooth.
    """
    from scipy.ndimage import gaussian_filter, zoom

    halved = [_halve(a) for a in (weight * image, weight)]
    sigma = [width / (2 * s) for s in spacing]
    total, share = (gaussian_filter(a, sigma, truncate=2.5, mode="constant") for a in halved)
    smooth = (total + _GLOBAL_SHARE * overall) / (share + _GLOBAL_SHARE)
    fine = zoom(smooth, 2, order=1, grid_mode=True, mode="nearest")
    return fine[tuple(slice(n) for n in image.shape)].astype(np.float32)


def _halve(array: np.ndarray) -> np.ndarray:
    padded = np.pad(array, [(0, n % 2) for n in array.shape])
    x, y, z = (n // 2 for n in padded.shape)
    return padded.reshape(x, 2, y, 2, z, 2).mean((1, 3, 5))


def _neighbours(volume: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Sum over the six neighbours, (3, N) at the voxels of ``mask``."""
    result = np.empty((volume.shape[0], np.count_nonzero(mask)), np.float32)
    for k, one in enumerate(volume):
        total = np.zeros(one.shape, np.float32)
        for axis in range(3):
            a, b = (np.moveaxis(x, axis, 0) for x in (total, one))
            a[1:] += b[:-1]
            a[:-1] += b[1:]
        result[k] = total[mask]
    return result


def _box(inside: np.ndarray) -> tuple[slice, slice, slice]:
    """The bounding box of a mask."""
    from scipy.ndimage import find_objects

    return find_objects(inside.astype(np.uint8))[0]
