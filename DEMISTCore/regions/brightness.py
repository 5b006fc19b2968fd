"""What brightness says of a voxel's tissue: Gaussians whose means vary smoothly over the brain, and its neighbours."""

from __future__ import annotations

import logging

import numpy as np

log = logging.getLogger(__name__)

#: Weight of the six neighbours in the Potts field.
_FIELD = 0.5
#: Class means vary over the brain as smoothly as this (standard deviation, mm): bias that N4 left, and cerebellum and
#: thalamus whose grey differs from the cortex's.
_REGIONAL = 8.0
#: Share of the global mean in a regional one where few voxels are sure, and from when on they are.
_GLOBAL_SHARE = 0.02
_SURE = 0.8
#: The FLAIR may speak for one tissue and against another by this much (log likelihood), not more: lesions nobody drew
#: are bright on it, and grey matter rich in iron is dark.
FLAIR_LIMIT = 10.0


class Channel:
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
        self._flat = flat_voxels(image, mask & ~hidden, spacing)
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
        limit: float = FLAIR_LIMIT,
    ) -> Channel:
        """An image of which something else, the T1w or a prior, tells the tissues.

        ``image`` (in its own unit), ``mask``, ``hidden`` are (X, Y, Z); ``volume`` (classes, X, Y, Z) are fractions.
        """
        flat = flat_voxels(image, mask & ~hidden, spacing)
        parts = [image[flat & (volume[k] > _SURE)] for k in range(3)]
        if min(part.size for part in parts) < 100:
            return cls(image, mask, hidden, spacing, np.zeros(3), 1.0, 0.0)
        means = np.array([np.median(part) for part in parts])
        deviations = [1.4826 * np.median(np.abs(part - mean)) for part, mean in zip(parts, means)]
        deviation = float(np.mean(deviations[1:]))
        channel = cls(image, mask, hidden, spacing, means, max(deviation, 1e-3), limit)
        channel.learn(volume)
        log.debug("Tissue means %s, deviation %.3f", np.round(means, 3), deviation)
        return channel

    def learn(self, volume: np.ndarray) -> None:
        """Regional means from the voxels whose tissue is sure.

        ``volume`` (classes, X, Y, Z): fractions of the tissues.
        """
        for k in (1, 2):
            sure = (self._flat & (volume[k] > _SURE)).astype(np.float32)
            mean = regional_mean(self._image, sure, float(self._means[k]), self._spacing, _REGIONAL)
            self._around[k] = mean[self._mask]

    def evidence(self) -> np.ndarray:
        """Log likelihood (3, N) of CSF, grey and white; differences limited for all but the T1w."""
        result = np.stack(
            [
                np.broadcast_to(-0.5 * ((self._values - m) / self._deviation) ** 2, self._values.shape)
                for m in self._around
            ]
        ).astype(np.float32)
        if np.isfinite(self._limit):
            result -= result.max(0)
            np.maximum(result, -self._limit, out=result)
        return result


def flat_voxels(image: np.ndarray, mask: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """The 40 % of the voxels of ``mask`` around which the image is least steep: mostly of a single tissue.

    (X, Y, Z) all, spacing in mm; the result is bool.
    """
    from scipy.ndimage import gaussian_gradient_magnitude

    if not mask.any():
        return mask
    steep = gaussian_gradient_magnitude(image, [0.7 * min(spacing) / s for s in spacing])
    return mask & (steep <= np.percentile(steep[mask], 40))


def regional_mean(
    image: np.ndarray, weight: np.ndarray, overall: float, spacing: tuple[float, float, float], width: float
) -> np.ndarray:
    """The mean of ``image`` under ``weight`` around each voxel, by a Gaussian of ``width`` mm standard deviation.

    ``image``, ``weight`` and the result are (X, Y, Z), in the image's unit; spacing in mm.

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


def mean_field_update(evidence: np.ndarray, volume: np.ndarray, mask: np.ndarray, rounds: int) -> None:
    """Let neighbours agree: ``rounds`` mean-field updates of the Potts field, in place.

    Args:
        evidence: log likelihood of CSF, grey and white matter (3, N) at the voxels of ``mask``.
        volume: their probabilities (3, X, Y, Z), 0 outside; updated.
        mask: brain (X, Y, Z).
        rounds: how often.
    """
    from scipy.special import softmax

    for _ in range(rounds):
        volume[:, mask] = softmax(evidence + _FIELD * _neighbours(volume, mask), axis=0)


def likeliest(volume: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Labels (uint8): 1 CSF, 2 grey, 3 white matter, 0 outside ``mask``.

    ``volume`` (3, X, Y, Z) are their probabilities, ``mask`` (X, Y, Z).
    """
    return np.where(mask, volume.argmax(0) + 1, 0).astype(np.uint8)
