"""Calibrated intervals, on synthetic errors whose statistics are known: local and correlated, heavy-tailed, one scale
a subject; and what a calibration says of itself on disk."""

from __future__ import annotations

import copy
import json
import math
import weakref
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage, stats

from DEMISTCore.labels import NAMES
from DEMISTCore.uncertainty import Calibration, Case, evaluate_calibration, fit, fit_calibration
from DEMISTCore.uncertainty.case import sample, samples_of
from DEMISTCore.uncertainty.conformal import conformal_quantile, subjects_needed
from DEMISTCore.uncertainty.coverage import evaluate_samples
from DEMISTCore.uncertainty.draw import TISSUES
from DEMISTCore.uncertainty.fit import fit_samples
from DEMISTCore.uncertainty.model import fit_region, region_sd

SHAPE = (40, 44, 36)
#: Voxels of 2 mm, mL.
VOXEL = 0.008
CALIBRATED, JUDGED = 30, 30
SCALE = 0.03
#: True local SD by label (background, CSF, grey, white, -, lesion), and by what the "model" misjudges it.
LOCAL = np.array([0, 0.003, 0.010, 0.008, 0, 0.020])
MISJUDGED = np.array([1, 2.0, 0.5, 2.0, 1, 0.7])


def brain(rng: np.random.Generator) -> np.ndarray:
    """Labels of a fluid core in white matter in grey matter, with lesions."""
    index = np.indices(SHAPE).astype(float)
    radius = np.sqrt(sum(((index[a] - SHAPE[a] / 2) / (SHAPE[a] / 2 - 2)) ** 2 for a in range(3)))
    labels = np.select([radius < 0.4, radius < 0.82, radius < 1], [1, 3, 2], 0).astype(np.uint8)
    for _ in range(14):
        away = sum((index[a] - rng.uniform(0.25, 0.75) * SHAPE[a]) ** 2 for a in range(3))
        labels[(away < rng.uniform(1.2, 2.6) ** 2) & (labels == 3)] = 5
    return labels


def smooth(rng: np.random.Generator, sigma: float) -> np.ndarray:
    """Gaussian noise of variance 1 and correlation exp(-r^2 / (4 sigma^2)), away from the borders."""
    noise = ndimage.gaussian_filter(rng.standard_normal(SHAPE), sigma, mode="wrap")
    return noise / noise.std()


def subject(seed: int, lesions: bool = True) -> Case:
    """Errors of a t distribution (4 degrees of freedom) locally, correlated, and one scale for the whole brain."""
    rng = np.random.default_rng((7, seed))
    labels = brain(rng)
    if not lesions:
        labels[labels == 5] = 3
    mean = ndimage.gaussian_filter(np.array([0, 0.01, 0.06, 0.12, 0, 0.08])[labels], 0.4)
    mean = np.where(labels > 0, np.abs(mean + 0.003 * smooth(rng, 2)), 0)
    local = LOCAL[labels] * np.exp(0.3 * smooth(rng, 2))
    tails = ndimage.gaussian_filter(np.sqrt(2 / rng.chisquare(4, SHAPE)), 0.7)
    error = local * tails * smooth(rng, 1.0) + rng.normal(0, SCALE) * mean
    arrays = mean, local * MISJUDGED[labels], mean - error
    return Case(*(a.astype(np.float32) for a in arrays), labels, labels > 0, VOXEL)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return fit_calibration((subject(k) for k in range(CALIBRATED)), seed=3)


@pytest.fixture(scope="module")
def judged() -> list:
    return samples_of((subject(1000 + k) for k in range(JUDGED)), seed=4)


@pytest.fixture(scope="module")
def coverage(calibration, judged) -> dict:
    return evaluate_samples(calibration, judged)


def rows(table: list[dict], level: float) -> dict[str, dict]:
    return {row["part"]: row for row in table if row["level"] == level}


# --- do the intervals hold? -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
def test_voxels_are_held_in_every_tissue(coverage, level):
    """Nominal within three standard errors of both sets of subjects, in tissues misjudged by factors of 0.5 to 2."""
    found = rows(coverage["voxels"], level)
    assert set(found) == {"all", *TISSUES}
    for part, row in found.items():
        assert row["subjects"] == JUDGED
        both = math.sqrt(2) * row["standard_error"]
        assert row["coverage"] == pytest.approx(level, abs=3 * both + 0.025), part
        if level == 0.9:
            assert 0.85 <= row["coverage"] <= 0.95, part


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
def test_region_means_are_held(coverage, level):
    """Whole tissues, parts of all sizes, lesions: nominal within binomial error of two sets of 30 subjects."""
    found = rows(coverage["regions"], level)
    binomial = math.sqrt(level * (1 - level) * (1 / CALIBRATED + 1 / JUDGED))
    for part, row in found.items():
        assert row["coverage"] == pytest.approx(level, abs=2.5 * binomial), part
    if level == 0.9:
        assert 0.85 <= found["region"]["coverage"] <= 0.95
        assert 0.85 <= found["lesion"]["coverage"] <= 0.97


def test_voxels_summed_up_do_not_hold_regions(calibration, judged):
    """What a region's interval would be from its voxels, independent or moving as one, and why neither will do."""
    independent, ours, widths = [], [], []
    for kept in judged:
        which = (kept.region_kind == "region") & (kept.region_ml > 3)
        mean, sd_local = kept.region_voxels[which, 0], kept.region_voxels[which, 1]
        sd = calibration.voxel_sd(mean, sd_local)
        error, volume = np.abs(kept.region_error[which]), kept.region_ml[which]
        independent.append((error <= 1.645 * np.sqrt((sd**2).mean(1) / (volume / VOXEL))).mean())
        variance = calibration.local_variance(mean, sd).mean(1)
        half = calibration.region_half_width(2, kept.region_mean[which], variance, volume)
        ours.append((error <= half).mean())
        widths.append((1.645 * sd.mean(1) / half).mean())
    assert np.mean(independent) < 0.3
    assert np.mean(widths) > 2
    assert 0.83 <= np.mean(ours) <= 0.97


def test_calibrated_sd_is_the_true_one(calibration):
    """The SD that the errors were made with, whatever the "model" took it for: tails of t(4) have E[tail^2] known."""
    assert calibration.scale_sd == pytest.approx(SCALE, rel=4 / math.sqrt(2 * CALIBRATED))
    case = subject(2000)
    rng = np.random.default_rng(0)
    tails = ndimage.gaussian_filter(np.sqrt(2 / rng.chisquare(4, (60, 60, 60))), 0.7)
    truth = np.hypot(case.sd_local / MISJUDGED[case.labels] * math.sqrt((tails**2).mean()), SCALE * case.mean)
    told = calibration.voxel_sd(case.mean, case.sd_local)
    for label in (1, 2, 3):
        deep = ndimage.binary_erosion(case.labels == label, iterations=2)
        assert np.median(told[deep] / truth[deep]) == pytest.approx(1, abs=0.12), label


def test_normal_errors_have_normal_quantiles():
    """Errors that are what the model says, no scale: g is 1, and the quantiles are those of a normal distribution."""

    def case(seed):
        rng = np.random.default_rng((5, seed))
        mean = np.where(brain(rng) > 0, rng.uniform(0.05, 0.14, SHAPE), 0)
        sd = rng.uniform(0.004, 0.008, SHAPE)
        return Case(mean, sd, mean - sd * rng.standard_normal(SHAPE), np.where(mean > 0, 3, 0), mean > 0, VOXEL)

    found = fit_calibration(case(k) for k in range(20))
    assert found.scale_sd < 2e-3
    np.testing.assert_allclose(found.gains, 1, atol=0.03)
    for level, quantiles in zip(found.levels, found.voxel_quantiles):
        np.testing.assert_allclose(quantiles, stats.norm.ppf(0.5 + level / 2), rtol=0.04)
    assert found.correlation_ml == pytest.approx(VOXEL, rel=0.3)  # white noise: a voxel
    # The mean of n independent voxels moves by sd / sqrt(n).
    for voxels in (10, 100, 1000):
        variance = (np.linspace(0.004, 0.008, 1000) ** 2).mean()
        half = found.region_half_width(2, 0.1, variance, voxels * VOXEL)
        assert half == pytest.approx(stats.norm.ppf(0.95) * math.sqrt(variance / voxels), rel=0.25), voxels


def test_spread_is_ordered(coverage):
    """A known order: SD equal to |error| has AUSE 0 and correlation 1; noise in its place has neither."""
    from DEMISTCore.uncertainty.coverage import _order

    rng = np.random.default_rng(0)
    error = rng.exponential(size=5000)
    assert _order(error, error, np.ones(5000)) == pytest.approx((1, 0), abs=1e-9)
    # Half-normal errors, and an SD that says nothing: E|e| = sqrt(2 / pi) of all that is left, whatever is taken away.
    error = np.abs(rng.standard_normal(200_000))
    correlation, ause = _order(rng.uniform(size=error.size), error, np.ones(error.size))
    assert abs(correlation) < 0.03
    kept = 1 - np.linspace(0, 0.95, 20)
    cut = stats.norm.ppf(0.5 + kept / 2)
    best = 2 * (stats.norm.pdf(0) - stats.norm.pdf(cut)) / kept / math.sqrt(2 / math.pi)
    assert ause == pytest.approx(np.mean(1 - best), abs=0.02)
    assert coverage["spread"]["all"]["rank_correlation"] > 0.1


# --- the parts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "level"), [(24, 0.9), (40, 0.95), (9, 0.9), (19, 0.95), (13, 0.5)])
def test_one_score_a_subject_is_split_conformal(count, level):
    scores = np.random.default_rng(count).exponential(size=count)
    expected = np.sort(scores)[math.ceil((count + 1) * level - 1e-9) - 1]
    assert conformal_quantile(scores, np.arange(count), (level,)) == (expected,)
    # A hundred copies of each subject's score are still that many subjects.
    copies = conformal_quantile(np.repeat(scores, 100), np.repeat(np.arange(count), 100), (level,))
    assert copies == (expected,)


def test_quantiles_need_subjects():
    assert (subjects_needed(0.9), subjects_needed(0.95)) == (9, 19)
    assert conformal_quantile(np.ones(8), np.arange(8), (0.8, 0.9)) == (1.0, math.inf)
    with pytest.raises(ValueError, match="9 subjects or more, not 8"):
        fit_calibration(subject(k) for k in range(8))


def test_every_subject_counts_the_same():
    """One subject with a thousand scores does not outvote twenty others; independent scores need no correction."""
    scores = np.concatenate([np.full(1000, 5.0), np.tile(np.linspace(0, 1, 11), 20)])
    subjects = np.concatenate([np.zeros(1000, int), np.repeat(np.arange(1, 21), 11)])
    assert conformal_quantile(scores, subjects, (0.9,))[0] <= 1
    rng = np.random.default_rng(2)
    scores = rng.standard_normal((24, 5000))
    found = conformal_quantile(np.abs(scores).ravel(), np.repeat(np.arange(24), 5000), (0.9,))
    assert found[0] == pytest.approx(stats.norm.ppf(0.95), rel=0.01)


def test_subjects_of_a_group_are_no_strangers_to_each_other():
    """Subjects that share more than chance (simulated from one anatomy): what holds on new groups takes groups."""
    rng = np.random.default_rng(5)
    groups, members = 6, 10
    subjects = np.arange(groups * members)
    of = np.repeat(np.arange(groups), members)
    held = {"subjects": [], "groups": []}
    for _ in range(400):
        scale = np.exp(0.6 * rng.standard_normal(groups + 1))
        scores = np.abs(rng.standard_normal(len(subjects))) * scale[of]
        new = np.abs(rng.standard_normal(200)) * scale[-1]
        for name, told in (("subjects", None), ("groups", of)):
            (q,) = conformal_quantile(scores, subjects, (0.9,), groups=told)
            held[name].append((new <= q).mean())
    assert np.mean(held["subjects"]) < 0.9
    assert np.mean(held["subjects"]) + 0.005 < np.mean(held["groups"]) <= 0.95
    # Groups of one subject each are no groups.
    alone = conformal_quantile(scores, subjects, (0.5, 0.9), groups=subjects + 100)
    assert alone == conformal_quantile(scores, subjects, (0.5, 0.9))


def test_a_group_is_held_out_as_a_whole(monkeypatch):
    """Parameters that score a subject are never fitted on another of its group."""
    cases = [replace(subject(k), group=f"anatomy {k % 4}") for k in range(12)]
    fitted_on, real = [], fit._parameters
    monkeypatch.setattr(fit, "_parameters", lambda kept, *more: fitted_on.append(kept) or real(kept, *more))
    fit_calibration(cases)
    folds = [{kept.group for kept in others} for others in fitted_on if len(others) < len(cases)]
    assert folds
    for kept, groups in zip([k for k in fitted_on if len(k) < len(cases)], folds):
        assert len(kept) == 3 * len(groups)  # all of a group, or none
    assert len(set.union(*folds)) == 4
    assert all(len(groups) < 4 for groups in folds)


@pytest.mark.parametrize("sigma", [1.0, 1.5])
def test_correlation_volume_has_a_closed_form(sigma):
    """Filtering by a Gaussian of sigma correlates by exp(-r^2 / 4 sigma^2), whose integral is (4 pi sigma^2)^(3/2)."""
    from DEMISTCore.uncertainty.model import correlation_volume

    rng = np.random.default_rng(0)
    mean = np.full(SHAPE, 0.1)
    found = []
    for _ in range(4):
        error = 0.01 * smooth(rng, sigma)
        case = Case(mean, np.full(SHAPE, 0.01), mean - error, np.full(SHAPE, 3), np.ones(SHAPE), VOXEL)
        kept = sample(case, rng)
        found.append(kept.correlation)
    assert kept.lags_mm[:3] == pytest.approx([0, 2, 4])
    volume = correlation_volume(kept.lags_mm, np.mean(found, 0), VOXEL)
    assert volume == pytest.approx((4 * math.pi * (2 * sigma) ** 2) ** 1.5 / 1000, rel=0.2)


def test_parameters_of_regions_are_found_again():
    rng = np.random.default_rng(1)
    count = 6000
    mean, volume = rng.uniform(0.01, 0.14, count), np.exp(rng.uniform(np.log(0.01), np.log(500), count))
    variance = rng.uniform(0.005, 0.02, count) ** 2
    truth = (0.04, 1.3, 0.0005, 0.8)
    error = region_sd(truth, mean, variance, volume, 0.3) * stats.t.rvs(5, size=count, random_state=2)
    found = fit_region(mean, variance, volume, error, np.ones(count), 0.3, 0.05)
    np.testing.assert_allclose(np.delete(found, 2), np.delete(truth, 2), rtol=0.1)  # c is a small part of all
    told, true = (region_sd(p, mean, variance, volume, 0.3) for p in (found, truth))
    np.testing.assert_allclose(told, true, rtol=0.15)


def test_one_case_at_a_time():
    alive: list[weakref.ref] = []

    def cases() -> Iterator[Case]:
        for k in range(3):
            assert all(ref() is None for ref in alive)
            case = subject(k)
            alive.append(weakref.ref(case))
            yield case
            del case

    assert len(samples_of(cases())) == 3


def test_labels_are_those_of_simulated_subjects():
    names = {code: name for name, codes in TISSUES.items() for code in codes}
    assert set(names) == set(NAMES) - {0}
    words = {1: "csf", 2: "grey", 3: "white", 4: "grey", 5: "lesion", 6: "grey", 7: "white"}
    assert names == words


def test_same_seed_same_calibration():
    samples = samples_of((subject(k) for k in range(9)), seed=1)
    again = samples_of((subject(k) for k in range(9)), seed=1)
    assert fit_samples(samples, 1) == fit_samples(again, 1)
    assert fit_samples(samples, 1).levels == (0.5, 0.8, 0.9)  # 95 % takes 19


def test_scans_of_one_person_count_as_one():
    samples = samples_of((subject(k) for k in range(9)), seed=1)
    named = [replace(kept, subject=f"person {k}") for k, kept in enumerate(samples)]
    assert fit_samples(named, 1) == fit_samples(samples, 1)
    twice = fit_samples([*named, *named], 1)
    assert (twice.subjects, twice.levels) == (9, (0.5, 0.8, 0.9))
    assert fit_samples([*samples, *samples], 1).subjects == 18
    with pytest.raises(ValueError, match="9 subjects or more, not 8"):
        fit_samples([*named[:8], *named[:8]])
    # Nothing was learned by repeating: the largest of nine errors is still the 90 % quantile of whole tissues.
    told, once = (
        c.quantiles["region"].at(2, np.array([100.0]), np.array([0.12])) for c in (twice, fit_samples(named, 1))
    )
    assert told == pytest.approx(once, rel=0.05)


def test_subjects_without_lesions():
    """Lesions then have the intervals of other regions."""
    found = fit_calibration(subject(k, lesions=False) for k in range(9))
    low, high = (found.quantiles[kind].at(2, np.array([0.5]), np.array([0.08])) for kind in ("region", "lesion"))
    assert low[0] > 0
    assert 0.3 < high[0] / low[0] < 3


# --- intervals on any grid --------------------------------------------------------------------------------------------


def test_region_interval_by_hand(calibration):
    """The formula, the quantile at a node of the table, and the ends."""
    table = calibration.quantiles["region"]
    volume, mean = table.volumes_ml[1], table.means[1]
    sd = 0.01
    count = 512
    a, b, c, gamma = calibration.region
    local = sd**2 - (calibration.scale_sd * mean) ** 2
    s = math.sqrt((a * mean) ** 2 + b**2 * local / (1 + volume / calibration.correlation_ml) ** gamma + c**2)
    shape = (8, 8, 8)
    low, high = calibration.region_interval(
        np.full(shape, mean), np.full(shape, sd), np.ones(shape), volume / count, level=0.8
    )
    assert high - mean == pytest.approx(table.values[1][1][1] * s, rel=1e-6)
    assert low == pytest.approx(max(mean - (high - mean), 0), rel=1e-6)


def test_voxel_size_and_missing_voxels_do_not_matter(calibration):
    case = subject(3000)
    sd = calibration.voxel_sd(case.mean, case.sd_local)
    mask = case.labels == 3
    told = calibration.region_interval(case.mean, sd, mask, VOXEL)
    fine = [np.repeat(a, 2, axis=0) for a in (case.mean, sd, mask)]
    assert calibration.region_interval(*fine, VOXEL / 2) == pytest.approx(told, rel=1e-6)
    assert calibration.region_interval(case.mean[mask], sd[mask], np.ones(mask.sum()), VOXEL) == pytest.approx(told)
    holes = case.mean.copy()
    holes[np.nonzero(mask)[0][0], np.nonzero(mask)[1][0], np.nonzero(mask)[2][0]] = np.nan
    assert calibration.region_interval(holes, sd, mask, VOXEL) == pytest.approx(told, rel=1e-3)
    nothing = calibration.region_interval(np.full_like(holes, np.nan), sd, mask, VOXEL)
    assert all(math.isnan(v) for v in nothing)


def test_larger_regions_are_better_known_until_the_scale_remains(calibration):
    """Widths fall with the volume towards the part that the whole brain shares, never to 0."""
    widths = []
    for volume in (0.05, 0.5, 5, 50, 500):
        shape = (10, 10, 10)
        low, high = calibration.region_interval(
            np.full(shape, 0.12), np.full(shape, 0.012), np.ones(shape), volume / 1000
        )
        widths.append(high - low)
    assert widths[0] > widths[1] > widths[2]
    assert widths[-1] > 2 * 1.645 * 0.12 * SCALE * 0.7


def test_voxel_intervals_do_not_go_below_nothing(calibration):
    mean = np.array([[[0.001, 0.12]]])
    sd = np.full(mean.shape, 0.01)
    low, high = calibration.voxel_interval(mean, sd, 0.9)
    assert low[0, 0, 0] == 0
    assert low.dtype == high.dtype == np.float32
    assert (low[0, 0, 1] + high[0, 0, 1]) / 2 == pytest.approx(0.12, rel=1e-6)
    outside = calibration.voxel_sd(np.array([[[0.0, np.nan]]]), np.array([[[0.0, 0.01]]]))
    assert outside[0, 0, 0] == 0
    assert math.isnan(outside[0, 0, 1])


def test_what_cannot_be_asked(calibration):
    maps = np.full((2, 2, 2), 0.1), np.full((2, 2, 2), 0.01)
    with pytest.raises(ValueError, match=r"no interval of 99 %.*50, 80, 90, 95 %"):
        calibration.voxel_interval(*maps, 0.99)
    with pytest.raises(ValueError, match="mask is empty"):
        calibration.region_interval(*maps, np.zeros((2, 2, 2)), VOXEL)
    with pytest.raises(ValueError, match="does not fit"):
        calibration.region_interval(*maps, np.ones((2, 2)), VOXEL)
    with pytest.raises(ValueError, match="volume must be above 0"):
        calibration.region_interval(*maps, np.ones((2, 2, 2)), 0)
    with pytest.raises(ValueError, match="calibration of 'tract'; choose region or lesion"):
        calibration.region_interval(*maps, np.ones((2, 2, 2)), VOXEL, kind="tract")
    with pytest.raises(ValueError, match="shape"):
        calibration.voxel_sd(maps[0], maps[1][:1])
    with pytest.raises(ValueError, match="cannot be negative"):
        calibration.voxel_sd(maps[0], -maps[1])
    with pytest.raises(ValueError, match="no case"):
        evaluate_calibration(calibration, [])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sd_local": np.ones((2, 2, 3))}, "sd_local has shape"),
        ({"voxel_ml": 0.0}, "above 0 mL"),
        ({"ood": -1.0}, "at least 0"),
        ({"ood": math.nan}, "at least 0"),
        ({"mask": np.zeros((2, 2, 2))}, "no voxel"),
        ({"mean": np.zeros((2, 2, 2))}, "0 throughout"),
        ({"sd_local": -np.ones((2, 2, 2))}, "negative"),
    ],
)
def test_cases_that_cannot_be_used(change, words):
    given = dict.fromkeys(("mean", "sd_local", "truth", "labels", "mask"), np.ones((2, 2, 2))) | {"voxel_ml": 1.0}
    with pytest.raises(ValueError, match=words):
        sample(Case(**(given | change)), np.random.default_rng(0))


# --- unlike the training ----------------------------------------------------------------------------------------------


def test_scans_unlike_the_training_widen_intervals():
    """The limit is the 95th percentile; errors here grow as the distance squared, and the law follows them."""
    rng = np.random.default_rng(0)
    distances = rng.uniform(1, 4, 20)

    def case(seed: int, distance: float) -> Case:
        made = subject(seed)
        error = 0.008 * smooth(np.random.default_rng(seed), 1) * (distance / 2) ** 2
        return Case(made.mean, np.full(SHAPE, 0.008), made.mean - error, made.labels, made.mask, VOXEL, distance)

    found = fit_calibration(case(k, d) for k, d in enumerate(distances))
    limit = np.quantile(distances, 0.95)
    assert found.ood_limit == pytest.approx(limit)
    assert found.ood_power == pytest.approx(2, abs=0.3)
    assert found.widening(limit) == found.widening(None) == 1
    assert found.widening(1.5 * limit) == pytest.approx(1.5**found.ood_power)
    assert found.widening(1e9) == found.widening(math.nan) == 8
    assert found.warning(limit) is None
    assert ": intervals may be too narrow." in found.warning(1.0001 * limit)  # not: "1 times as wide"
    assert "unlike those" in found.warning(1.5 * limit)
    mean, sd_local = np.full((4, 4, 4), 0.1), np.full((4, 4, 4), 0.01)
    far = 1.5 * limit
    near_sd, far_sd = found.voxel_sd(mean, sd_local, limit), found.voxel_sd(mean, sd_local, far)
    np.testing.assert_allclose(far_sd, near_sd * found.widening(far), rtol=1e-5)
    near = found.region_interval(mean, near_sd, np.ones(mean.shape), VOXEL, ood=limit)
    wide = found.region_interval(mean, far_sd, np.ones(mean.shape), VOXEL, ood=far)
    assert wide[1] - 0.1 == pytest.approx((near[1] - 0.1) * found.widening(far), rel=1e-4)
    assert Calibration.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_no_distance_no_widening(calibration):
    assert calibration.ood_limit is None
    assert calibration.widening(1e6) == 1
    assert calibration.warning(1e6) is None


# --- on disk ----------------------------------------------------------------------------------------------------------


def test_round_trip(calibration):
    told = json.loads(json.dumps(calibration.to_dict()))
    assert Calibration.from_dict(told) == calibration
    assert len(json.dumps(told)) < 20_000


def _set(*path, value):
    def change(told):
        for key in path[:-1]:
            told = told[key]
        if value is KeyError:
            del told[path[-1]]
        else:
            told[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set("scale_sd", value=KeyError), "lacks scale_sd"),
        (_set("more", value=1), "unknown more"),
        (_set("format", value=2), "format 2, not 1"),
        (_set("subjects", value=0), "whole number above 0"),
        (_set("subjects", value=True), "whole number above 0"),
        (_set("levels", value=[0.9, 0.5]), "levels must rise"),
        (_set("levels", value=[0.5, 0.8, 0.9, 1.0]), "between 0 and 1"),
        (_set("levels", value=[]), "list of numbers"),
        (_set("scale_sd", value=-0.1), "scale_sd must be a number"),
        (_set("scale_sd", value="a"), "scale_sd must be a number"),
        (_set("scale_sd", value=math.nan), "scale_sd must be a number"),
        (_set("mean_nodes", 0, value=1.0), "mean_nodes must rise"),
        (_set("sd_nodes", 0, value=0.0), "sd_nodes must be a number above 0"),
        (_set("gains", 0, 0, value=0.0), "gains must be a number above 0"),
        (_set("gains", 0, value=[1.0]), "gains must hold"),
        (_set("voxel_quantiles", 0, 0, value=99.0), "voxel_quantiles must grow"),
        (_set("region", value=None), "must be a mapping"),
        (_set("region", "gamma", value=-1), "region gamma"),
        (_set("region", "correlation_ml", value=0), "correlation_ml must be a number above 0"),
        (_set("region", "quantiles", "lesion", value=KeyError), "lacks lesion"),
        (_set("region", "quantiles", "region", "values", 0, value=[]), "values must hold"),
        (_set("region", "quantiles", "region", "volumes_ml", 0, value=1e9), "volumes_ml must rise"),
        (_set("ood", value={"limit": 0.0, "power": 1.0}), "ood limit must be a number above 0"),
        (_set("ood", value={"limit": 1.0, "power": 0.0}), "ood power must be a number of at least 1"),
    ],
)
def test_bad_dictionaries_are_refused(calibration, change, words):
    told = copy.deepcopy(calibration.to_dict())
    change(told)
    with pytest.raises(ValueError, match=words):
        Calibration.from_dict(told)


@pytest.mark.parametrize("told", [None, 3, [], {}, "calibration"])
def test_what_is_no_calibration(told):
    with pytest.raises(ValueError, match="calibration"):
        Calibration.from_dict(told)


def test_the_anatomy_of_a_simulated_subject_is_its_group(tmp_path):
    from DEMISTCore.training.calibrate import _anatomy

    psr = tmp_path / "sub-001_desc-truth_PSRmap.nii.gz"
    assert _anatomy(psr) is None  # a measured map has none
    told = tmp_path / "sub-001_desc-truth_parameters.json"
    for content, expected in (('{"anatomy": "seg_13.nii.gz"}', "seg_13.nii.gz"), ('{"anatomy": 3}', None), ("{", None)):
        told.write_text(content)
        assert _anatomy(psr) == expected
