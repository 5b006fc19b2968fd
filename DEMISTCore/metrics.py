"""How far a PSR map is from the truth: errors, similarity, sharpness, regions, lesions, uncertainty.

Arrays are (X, Y, Z) PSR fractions on one grid; ``mask`` is the brain, and nothing outside it counts. Every number is
checked against scikit-image, scikit-learn, SciPy or a closed form in ``Testing/test_metrics.py``.

>>> truth = np.full((12, 12, 12), 0.10)
>>> brain = np.ones(truth.shape, bool)
>>> round(psnr(truth + 0.02, truth, brain), 6)  # 10 log10(0.2^2 / 0.02^2)
20.0
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

#: Peak of PSNR and dynamic range of SSIM: PSR of healthy white matter stays well below it.
DATA_RANGE = 0.2

#: SSIM as published (Wang et al., IEEE Trans Image Process 13:600, 2004): Gaussian window of 1.5 voxels' standard
#: deviation cut at radius 5 (11 voxels), K1 = 0.01, K2 = 0.03, population covariances; here the window is 3-D.
SSIM_SETTINGS = {
    "data_range": DATA_RANGE,
    "gaussian_weights": True,
    "sigma": 1.5,
    "use_sample_covariance": False,
    "K1": 0.01,
    "K2": 0.03,
}
_SSIM_RADIUS = 5


def mse(prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Mean squared error inside ``mask``. Maps (PSR, fraction) and mask are of one shape."""
    return float(np.mean(_difference(prediction, truth, mask) ** 2))


def mae(prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Mean absolute error inside ``mask``. Maps (PSR, fraction) and mask are of one shape."""
    return float(np.mean(np.abs(_difference(prediction, truth, mask))))


def nmse(prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Squared error over the truth's sum of squares inside ``mask``: 0 is perfect, 1 a map of zeros; NaN for none.

    Maps (PSR, fraction) and mask are of one shape.
    """
    power = float(np.sum(np.asarray(truth, np.float64)[_inside(mask)] ** 2))
    return float(np.sum(_difference(prediction, truth, mask) ** 2)) / power if power > 0 else math.nan


def psnr(prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Peak signal-to-noise ratio inside ``mask`` in dB, peak :data:`DATA_RANGE`; infinite for equal maps.

    Maps (PSR, fraction) and mask are of one shape.
    """
    error = mse(prediction, truth, mask)
    return 10 * math.log10(DATA_RANGE**2 / error) if error > 0 else math.inf


def ssim(prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Structural similarity (:data:`SSIM_SETTINGS`), its map averaged inside ``mask``.

    Maps (PSR, fraction) and mask are (X, Y, Z).

    Both maps are set to 0 outside the mask first: no method gains or loses by what it draws out there.
    """
    inside = _inside(mask)
    return float(ssim_map(prediction, truth, inside)[inside].mean())


def ssim_map(prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Structural similarity of each voxel, float64 (X, Y, Z), see :func:`ssim`; NaN outside ``mask``'s box."""
    from skimage.metrics import structural_similarity

    inside = _inside(mask)
    # Windows centered in the mask reach 5 voxels beyond its box, where all is 0. The same result as on the whole image.
    box = _box(inside)
    maps = [np.pad(np.where(inside, a, 0)[box].astype(np.float64), _SSIM_RADIUS) for a in (prediction, truth)]
    _, image = structural_similarity(*maps, full=True, **SSIM_SETTINGS)
    result = np.full(inside.shape, np.nan)
    result[box] = image[(slice(_SSIM_RADIUS, -_SSIM_RADIUS),) * 3]
    return result


def gradient(array: np.ndarray) -> np.ndarray:
    """3-D Sobel gradient magnitude, per voxel: a ramp of slope 1 gives 1.

    (X, Y, Z) both, in units of ``array`` a voxel.
    """
    from scipy import ndimage

    array = np.asarray(array, np.float32)
    parts = (ndimage.sobel(array, axis, mode="nearest") for axis in range(3))
    return np.sqrt(sum(part * part for part in parts)) / 32


def sharpness(prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Sobel energy of the prediction over that of the truth; 1 is as sharp as the truth, below 1 smoother.

    Maps and mask are (X, Y, Z).

    Energy is the sum of squared Sobel magnitudes, one voxel inside ``mask``, so that the brain's cut rim does not
    count. Noise raises it too: closeness to 1 is what is wanted, not height.
    """
    from scipy import ndimage

    inside = ndimage.binary_erosion(_inside(mask), np.ones((3, 3, 3)))
    inside = inside if inside.any() else _inside(mask)
    box = _box(inside, 1)
    pred, true = (float(np.sum(gradient(a[box])[inside[box]].astype(np.float64) ** 2)) for a in (prediction, truth))
    return pred / true if true > 0 else math.nan


def compare(prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """PSNR (dB), SSIM, MSE, MAE and sharpness of ``prediction`` inside ``mask``.

    Maps (PSR, fraction) and mask are (X, Y, Z).
    """
    measures = {"psnr": psnr, "ssim": ssim, "mse": mse, "mae": mae, "sharpness": sharpness}
    return {name: measure(prediction, truth, mask) for name, measure in measures.items()}


def regions(
    prediction: np.ndarray,
    truth: np.ndarray,
    labels: np.ndarray,
    names: Mapping[int, str],
    voxel_volume_ml: float = 0.001,
) -> list[dict[str, float | int | str]]:
    """One row per region of ``labels`` that has voxels: size, true and synthesized mean and median, bias.

    Maps (PSR, fraction) and labels are of one shape.

    ``bias`` is the difference of the means (fraction), ``bias_percent`` that difference in percent of the true mean
    (NaN where the true mean is below 0.005: a percentage of almost nothing says nothing).
    """
    rows: list[dict[str, float | int | str]] = []
    for label, name in names.items():
        here = np.asarray(labels) == label
        if label == 0 or not here.any():
            continue
        pred, true = np.asarray(prediction[here], np.float64), np.asarray(truth[here], np.float64)
        bias = float(pred.mean() - true.mean())
        rows.append(
            {
                "region": name,
                "label": int(label),
                "voxels": int(here.sum()),
                "volume_ml": float(here.sum() * voxel_volume_ml),
                "true_mean": float(true.mean()),
                "synthesized_mean": float(pred.mean()),
                "bias": bias,
                "bias_percent": 100 * bias / float(true.mean()) if true.mean() >= 0.005 else math.nan,
                "true_median": float(np.median(true)),
                "synthesized_median": float(np.median(pred)),
            }
        )
    return rows


def roc_area(low: np.ndarray, high: np.ndarray) -> float:
    """Area under the ROC curve for telling ``low`` from ``high``: P(low < high) + P(low = high) / 2; NaN if empty.

    (n,) and (m,), in any unit.

    The Mann-Whitney statistic from mid-ranks (Hanley and McNeil, Radiology 143:29, 1982).
    """
    from scipy.stats import rankdata

    low, high = np.ravel(low), np.ravel(high)
    if not low.size or not high.size:
        return math.nan
    ranks = rankdata(np.concatenate([high, low]))[: high.size]
    return float((ranks.sum() - high.size * (high.size + 1) / 2) / (float(high.size) * low.size))


def far_from(lesions: np.ndarray, spacing: tuple[float, float, float], gap_mm: float) -> np.ndarray:
    """Voxels farther than ``gap_mm`` from every lesion (Euclidean, between voxel centres); all without lesions.

    ``lesions`` (X, Y, Z), ``spacing`` in mm; the result is bool of the same shape.
    """
    from scipy.ndimage import distance_transform_edt

    lesions = np.asarray(lesions) > 0
    if not lesions.any():
        return np.ones(lesions.shape, bool)
    return distance_transform_edt(~lesions, sampling=spacing) > gap_mm


def lesion_auc(
    psr: np.ndarray,
    lesions: np.ndarray,
    white_matter: np.ndarray,
    spacing: tuple[float, float, float],
    gap_mm: float = 5.0,
) -> float:
    """How well low PSR tells lesion voxels from white matter farther than ``gap_mm`` from any lesion.

    All arrays are (X, Y, Z); ``psr`` in any unit, ``spacing`` in mm.

    1: every lesion voxel lies below all that white matter; 0.5: chance; NaN without lesions or such white matter.
    """
    lesions = np.asarray(lesions) > 0
    distant = (np.asarray(white_matter) > 0) & far_from(lesions, spacing, gap_mm)
    return roc_area(psr[lesions], psr[distant])


def calibration(
    mean: np.ndarray, deviation: np.ndarray, truth: np.ndarray, mask: np.ndarray, seeds: int
) -> dict[str, float]:
    """How far the uncertainty map (standard deviation over ``seeds`` samples, n - 1) tells where the errors are.

    All arrays are of one shape; PSR as fraction.

    ``correlation`` and ``rank_correlation`` (Pearson, Spearman) of deviation and absolute error; ``coverage_68`` and
    ``coverage_95``: share of voxels with the truth inside the prediction interval that seeds give, mean +-
    t(n - 1) SD sqrt(1 + 1/n), which is 0.68 and 0.95 if truth and samples are exchangeable and normal;
    ``spread_skill``: expected root mean square error by the spread over the actual one (1: calibrated, below 1:
    overconfident).

    Raises:
        ValueError: fewer than two seeds have no deviation.
    """
    from scipy import stats

    if seeds < 2:
        raise ValueError("An uncertainty map needs two seeds or more.")
    error = np.abs(_difference(mean, truth, mask))
    sd = np.asarray(deviation, np.float64)[_inside(mask)]
    interval = sd * math.sqrt(1 + 1 / seeds)
    varies = sd.std() > 0 and error.std() > 0
    rmse = math.sqrt(float(np.mean(error**2)))
    quantiles = {68: stats.t.ppf(0.5 + 0.6827 / 2, seeds - 1), 95: stats.t.ppf(0.975, seeds - 1)}
    return {
        "correlation": float(np.corrcoef(sd, error)[0, 1]) if varies else math.nan,
        "rank_correlation": float(stats.spearmanr(sd, error).statistic) if varies else math.nan,
        **{f"coverage_{level}": float(np.mean(error <= q * interval)) for level, q in quantiles.items()},
        "spread_skill": math.sqrt(float(np.mean(interval**2))) / rmse if rmse > 0 else math.nan,
    }


def json_ready(content: Any) -> Any:
    """``content`` with None for NaN and infinity, which JSON does not know; dicts, lists and tuples followed."""
    if isinstance(content, Mapping):
        return {key: json_ready(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [json_ready(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


# --- helpers ---------------------------------------------------------------------------------------------------------


def _inside(mask: np.ndarray) -> np.ndarray:
    inside = np.asarray(mask) > 0
    if not inside.any():
        raise ValueError("The mask is empty: there is nothing to measure.")
    return inside


def _difference(prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> np.ndarray:
    inside = _inside(mask)
    return np.asarray(prediction, np.float64)[inside] - np.asarray(truth, np.float64)[inside]


def _box(inside: np.ndarray, margin: int = 0) -> tuple[slice, slice, slice]:
    """The bounding box of ``inside``, wider by ``margin`` voxels where there is room."""
    box = []
    for axis, n in enumerate(inside.shape):
        there = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append(slice(max(0, int(there[0]) - margin), min(n, int(there[-1]) + 1 + margin)))
    return box[0], box[1], box[2]
