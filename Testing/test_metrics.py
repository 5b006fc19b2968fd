"""Metrics against scikit-image, scikit-learn, SciPy and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.metrics import mean_absolute_error, mean_squared_error, roc_auc_score

from DEMISTCore import metrics

SHAPE = (26, 28, 24)


def pair(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A smooth truth, a prediction near it and a brain away from the border."""
    rng = np.random.default_rng(seed)
    truth = (0.1 + 0.04 * ndimage.gaussian_filter(rng.standard_normal(SHAPE), 2) / 0.1).clip(0, 0.2)
    prediction = truth + 0.02 * rng.standard_normal(SHAPE)
    axes = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"))
    mask = (axes**2).sum(0) < 0.3
    return prediction.astype(np.float32), truth.astype(np.float32), mask


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_errors_equal_scikit(seed: int) -> None:
    prediction, truth, mask = pair(seed)
    true, pred = truth[mask].astype(float), prediction[mask].astype(float)
    assert metrics.mse(prediction, truth, mask) == pytest.approx(mean_squared_error(true, pred))
    assert metrics.mae(prediction, truth, mask) == pytest.approx(mean_absolute_error(true, pred))
    assert metrics.psnr(prediction, truth, mask) == pytest.approx(peak_signal_noise_ratio(true, pred, data_range=0.2))


def test_nothing_outside_the_mask_counts() -> None:
    prediction, truth, mask = pair(1)
    elsewhere = np.where(mask, prediction, 7.0)
    for name, value in metrics.compare(prediction, truth, mask).items():
        if name != "sharpness":  # its stencil is kept one voxel inside
            assert getattr(metrics, name)(elsewhere, truth, mask) == pytest.approx(value), name
    assert metrics.sharpness(elsewhere, truth, mask) == pytest.approx(metrics.sharpness(prediction, truth, mask))


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 2**31))
def test_ssim_equals_scikit_image_on_the_whole_volume(seed: int) -> None:
    prediction, truth, mask = pair(seed)
    outside = [np.where(mask, a, 0).astype(float) for a in (prediction, truth)]
    _, image = structural_similarity(
        *outside, data_range=0.2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    assert metrics.ssim(prediction, truth, mask) == pytest.approx(image[mask].mean(), abs=1e-9)


def test_ssim_with_the_brain_at_the_border_of_the_volume() -> None:
    prediction, truth, _ = pair(2)
    full = np.ones(SHAPE, bool)
    padded = [np.pad(a, 9) for a in (prediction, truth, full)]
    assert metrics.ssim(prediction, truth, full) == pytest.approx(metrics.ssim(*padded))


def test_equal_maps_are_perfect() -> None:
    _, truth, mask = pair(3)
    got = metrics.compare(truth, truth, mask)
    assert got == {"psnr": math.inf, "ssim": pytest.approx(1), "mse": 0, "mae": 0, "sharpness": pytest.approx(1)}


def test_gradient_of_a_ramp_is_its_slope() -> None:
    ramp = np.add.outer(np.add.outer(0.3 * np.arange(8), np.zeros(8)), 0.4 * np.arange(8))
    assert np.allclose(metrics.gradient(ramp)[1:-1, 1:-1, 1:-1], 0.5)


def test_gradient_is_that_of_the_edge_loss() -> None:
    torch = pytest.importorskip("torch")
    from DEMISTCore.losses import sobel_gradient

    array = pair(4)[0]
    expected = sobel_gradient(torch.from_numpy(array)[None, None])[0, 0].numpy()
    assert np.allclose(metrics.gradient(array), expected, atol=2e-6)


@given(st.floats(0.1, 3))
@settings(max_examples=10, deadline=None)
def test_sharpness_grows_with_the_square_of_contrast(gain: float) -> None:
    _, truth, mask = pair(5)
    assert metrics.sharpness(gain * truth, truth, mask) == pytest.approx(gain**2, rel=1e-4)


def test_blur_lowers_and_noise_raises_sharpness() -> None:
    prediction, truth, mask = pair(6)
    assert metrics.sharpness(ndimage.gaussian_filter(truth, 1), truth, mask) < 0.9
    assert metrics.sharpness(prediction, truth, mask) > 1.1


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=40),
    st.lists(st.integers(0, 9), min_size=1, max_size=40),
)
def test_roc_area_equals_scikit_learn_with_ties(low: list[int], high: list[int]) -> None:
    scores = np.array(high + low, float)
    truth = np.r_[np.ones(len(high)), np.zeros(len(low))]
    assert metrics.roc_area(np.array(low), np.array(high)) == pytest.approx(roc_auc_score(truth, scores))


def test_roc_area_without_one_side_is_nan() -> None:
    assert math.isnan(metrics.roc_area(np.array([]), np.array([1.0])))


def test_lesion_auc_leaves_out_white_matter_near_lesions_in_mm() -> None:
    psr = np.full((40, 9, 9), 0.12)
    lesions = np.zeros(psr.shape, bool)
    lesions[20, 4, 4] = True
    psr[lesions] = 0.06
    near = ndimage.distance_transform_edt(~lesions, sampling=(2.0, 1.0, 1.0)) <= 5
    psr[near & ~lesions] = 0.01  # would spoil the result if it counted
    white = ~lesions
    assert metrics.lesion_auc(psr, lesions, white, (2.0, 1.0, 1.0)) == 1.0
    assert metrics.lesion_auc(psr, lesions, white, (3.0, 3.0, 3.0)) < 1.0
    assert math.isnan(metrics.lesion_auc(psr, np.zeros_like(lesions), white, (1.0, 1.0, 1.0)))


def test_lesion_auc_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    psr = rng.normal(0.12, 0.02, (30, 30, 30))
    lesions = np.zeros(psr.shape, bool)
    lesions[4:8, 4:8, 4:8] = True
    psr[lesions] -= 0.03
    white = rng.random(psr.shape) < 0.6
    distant = white & (ndimage.distance_transform_edt(~lesions) > 5)
    scores, truth = np.r_[psr[distant], psr[lesions]], np.r_[np.ones(distant.sum()), np.zeros(lesions.sum())]
    assert metrics.lesion_auc(psr, lesions, white, (1.0, 1.0, 1.0)) == pytest.approx(roc_auc_score(truth, scores))


def test_regions_by_hand() -> None:
    labels = np.repeat([0, 1, 3, 3], 5).reshape(20, 1, 1)
    truth = np.where(labels == 3, 0.12, 0.0)
    rows = metrics.regions(truth + 0.006, truth, labels, {0: "Background", 1: "CSF", 3: "White matter", 5: "Lesion"}, 2)
    assert [row["region"] for row in rows] == ["CSF", "White matter"]
    white = rows[1]
    assert (white["voxels"], white["volume_ml"]) == (10, 20)
    assert white["bias"] == pytest.approx(0.006)
    assert white["bias_percent"] == pytest.approx(5.0)
    assert math.isnan(rows[0]["bias_percent"])


def test_calibration_of_a_perfect_posterior() -> None:
    """Truth and samples drawn from one normal distribution per voxel: coverage as promised."""
    rng = np.random.default_rng(0)
    shape, seeds = (40, 40, 40), 4
    sigma = rng.uniform(0.005, 0.02, shape)
    draws = 0.1 + sigma * rng.standard_normal((seeds + 1, *shape))
    mean, deviation = draws[1:].mean(0), draws[1:].std(0, ddof=1)
    got = metrics.calibration(mean, deviation, draws[0], np.ones(shape, bool), seeds)
    assert got["coverage_68"] == pytest.approx(0.6827, abs=0.01)
    assert got["coverage_95"] == pytest.approx(0.95, abs=0.005)
    assert got["spread_skill"] == pytest.approx(1, abs=0.02)
    assert 0.1 < got["correlation"] < 0.6
    overconfident = metrics.calibration(mean, deviation / 2, draws[0], np.ones(shape, bool), seeds)
    assert overconfident["coverage_95"] < 0.9
    assert overconfident["spread_skill"] == pytest.approx(0.5, abs=0.02)


def test_calibration_where_spread_is_error() -> None:
    truth = np.zeros((5, 5, 5))
    error = np.linspace(0.001, 0.02, 125).reshape(truth.shape)
    got = metrics.calibration(truth + error, error, truth, np.ones(truth.shape), 4)
    assert got["correlation"] == pytest.approx(1)
    assert got["rank_correlation"] == pytest.approx(1)


def test_impossible_questions_are_refused() -> None:
    prediction, truth, mask = pair(7)
    with pytest.raises(ValueError, match="empty"):
        metrics.mse(prediction, truth, np.zeros(SHAPE))
    with pytest.raises(ValueError, match="two seeds"):
        metrics.calibration(prediction, truth, truth, mask, 1)


def test_json_ready_has_no_nan() -> None:
    content = {"a": math.nan, "b": [1.5, -math.inf, "x"], "c": {"d": (2, None)}}
    assert metrics.json_ready(content) == {"a": None, "b": [1.5, None, "x"], "c": {"d": [2, None]}}
