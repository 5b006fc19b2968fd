"""Tables, ROC curves, intervals and agreement against scikit-learn, SciPy, brute force and closed forms."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from DEMISTCore import metrics
from DEMISTCore.errors import Cancelled, InputError
from DEMISTCore.regions import Lesions, Regions, RegionSettings
from DEMISTCore.statistics import (
    MeasureSettings,
    agreement,
    analyse,
    compare,
    contrasts,
    delong,
    region_table,
    roc,
    units,
    write_table,
)
from DEMISTCore.statistics.checks import SYNTHESIZED, origin, read_map, support
from DEMISTCore.statistics.contrast import cohens_d
from DEMISTCore.statistics.outputs import OUTPUTS
from DEMISTCore.volume import Volume

QUICK = settings(max_examples=40, deadline=None)
#: Voxels of 1 x 2 x 1.5 mm, tilted and flipped: 0.003 mL each.
AFFINE = np.array([[-0.8, 0.0, 0.9, 20], [0.0, 2.0, 0.0, -30], [0.6, 0.0, 1.2, 5], [0, 0, 0, 1.0]])
VOXEL_ML = 0.003
SHAPE = (20, 18, 16)


def samples(draw_ties: bool = True, least: int = 2, most: int = 25):
    """Lesion and NAWM values, with ties."""
    value = st.integers(0, 12).map(lambda k: k / 100) if draw_ties else st.floats(0, 0.25, width=32)
    return st.tuples(st.lists(value, min_size=least, max_size=most), st.lists(value, min_size=least, max_size=most))


def kernel(x, y) -> np.ndarray:
    x, y = np.asarray(x)[:, None], np.asarray(y)[None]
    return (x < y) + 0.5 * (x == y)


def volume(array: np.ndarray) -> Volume:
    return Volume(array, AFFINE)


def some_regions(lesion: np.ndarray | None = None, suggested: bool = False, holes: tuple[int, ...] = ()) -> Regions:
    """Two lesions in a slab of NAWM whose near half is proximal; grey matter beside it."""
    nawm = np.zeros(SHAPE, bool)
    nawm[2:18, 2:16, 2:14] = True
    if lesion is None:
        lesion = np.zeros(SHAPE, np.int32)
        lesion[4:8, 4:7, 4:8] = 1
        lesion[12:14, 10:12, 6:8] = 2
    nawm &= lesion == 0
    near = nawm & (np.indices(SHAPE)[1] < 9)
    grey = np.zeros(SHAPE, bool)
    grey[:2] = True
    masks = {
        "lesion": lesion > 0,
        "nawm": nawm,
        "nawm_proximal": near,
        "nawm_distal": nawm & ~near,
        "grey_matter": grey,
    }
    return Regions(
        masks={name: volume(mask.astype(np.uint8)) for name, mask in masks.items()},
        lesions=Lesions(numbers=volume(lesion.astype(np.int32)), suggested=suggested, black_holes=holes),
        distance=None,
        settings=RegionSettings(),
        notes=(),
    )


def some_psr(seed: int = 0) -> Volume:
    """0.06 in lesions, 0.12 in NAWM, 0.08 in grey matter, noise, 0 around."""
    regions, rng = some_regions(), np.random.default_rng(seed)
    psr = np.zeros(SHAPE, np.float32)
    for name, value in {"nawm": 0.12, "grey_matter": 0.08, "lesion": 0.06}.items():
        psr[regions.masks[name].array > 0] = value
    return volume(np.where(psr > 0, psr + 0.02 * rng.standard_normal(SHAPE), 0).astype(np.float32))


# --- AUC and its variance --------------------------------------------------------------------------------------------


@QUICK
@given(samples())
def test_auc_is_that_of_scikit_learn_and_mann_whitney(drawn):
    from sklearn.metrics import roc_auc_score

    low, high = map(np.array, drawn)
    area, v10, v01 = delong.placements(low, high)
    truth = np.r_[np.ones(low.size), np.zeros(high.size)]
    assert area == pytest.approx(roc_auc_score(truth, -np.r_[low, high]), abs=1e-12)
    assert area == pytest.approx(stats.mannwhitneyu(high, low).statistic / (low.size * high.size), abs=1e-12)
    assert area == pytest.approx(metrics.roc_area(low, high), abs=1e-12)
    # Placements: the rows and columns of the matrix of pairs.
    pairs = kernel(low, high)
    np.testing.assert_allclose(v10, pairs.mean(1), atol=1e-12)
    np.testing.assert_allclose(v01, pairs.mean(0), atol=1e-12)


@QUICK
@given(samples())
def test_delong_variance_is_that_of_all_pairs(drawn):
    low, high = map(np.array, drawn)
    area, v10, v01 = delong.placements(low, high)
    pairs = kernel(low, high)
    m, n = pairs.shape
    s10 = sum((pairs[i].mean() - area) ** 2 for i in range(m)) / (m - 1)
    s01 = sum((pairs[:, j].mean() - area) ** 2 for j in range(n)) / (n - 1)
    assert delong.variance(v10, v01).variance == pytest.approx(s10 / m + s01 / n, abs=1e-14)


@QUICK
@given(samples(draw_ties=False, least=3))
def test_delong_variance_and_freedom_are_those_of_brunner_munzel(drawn):
    low, high = map(np.array, drawn)
    area, v10, v01 = delong.placements(low, high)
    spread = delong.variance(v10, v01)
    if not spread.variance:
        return
    with np.errstate(all="ignore"):
        told = stats.brunnermunzel(low, high)
    statistic = (area - 0.5) / math.sqrt(spread.variance)
    assert abs(statistic) == pytest.approx(abs(told.statistic), rel=1e-6, abs=1e-9)
    assert 2 * stats.t.sf(abs(statistic), spread.freedom) == pytest.approx(told.pvalue, rel=1e-5, abs=1e-12)


def test_delong_variance_agrees_with_the_bootstrap():
    rng = np.random.default_rng(4)
    low, high = rng.normal(0.08, 0.02, 60), rng.normal(0.11, 0.02, 90)
    area, v10, v01 = delong.placements(low, high)
    drawn = [delong.placements(rng.choice(low, 60), rng.choice(high, 90))[0] for _ in range(1500)]
    assert math.sqrt(delong.variance(v10, v01).variance) == pytest.approx(np.std(drawn), rel=0.08)
    ci, method = delong.interval(area, delong.variance(v10, v01))
    assert method == "logit"
    np.testing.assert_allclose(ci, np.percentile(drawn, (2.5, 97.5)), atol=0.012)


def test_clustered_variance_is_obuchowskis_formula():
    rng = np.random.default_rng(5)
    low, high = rng.integers(0, 9, 20) / 100, rng.integers(3, 12, 30) / 100
    of_low, of_high = rng.integers(0, 6, 20), rng.integers(3, 10, 30)  # some clusters hold both
    area, v10, v01 = delong.placements(low, high)
    pairs = kernel(low, high)
    names = sorted({*of_low.tolist(), *of_high.tolist()})
    i10, i01, count, m, n = len(set(of_low)), len(set(of_high)), len(names), 20, 30
    x = {k: sum(pairs[i].mean() - area for i in range(m) if of_low[i] == k) for k in names}
    y = {k: sum(pairs[:, j].mean() - area for j in range(n) if of_high[j] == k) for k in names}
    s10 = i10 / ((i10 - 1) * m) * sum(x[k] ** 2 for k in names)
    s01 = i01 / ((i01 - 1) * n) * sum(y[k] ** 2 for k in names)
    s11 = count / (count - 1) * sum(x[k] * y[k] for k in names)
    spread = delong.clustered_variance(v10, v01, of_low, of_high)
    assert spread.variance == pytest.approx(s10 / m + s01 / n + 2 * s11 / (m * n), rel=1e-10)
    assert (spread.low, spread.high) == (i10, i01)


@QUICK
@given(samples(), st.integers(1, 4))
def test_copies_of_an_observation_teach_nothing(drawn, copies):
    """Singleton clusters give DeLong's variance; every value k times, in one cluster each, still does."""
    low, high = map(np.array, drawn)
    plain = delong.variance(*delong.placements(low, high)[1:])
    many = delong.placements(np.repeat(low, copies), np.repeat(high, copies))
    of_low, of_high = np.repeat(np.arange(low.size), copies), np.repeat(np.arange(high.size) + 1000, copies)
    spread = delong.clustered_variance(many[1], many[2], of_low, of_high)
    assert spread.variance == pytest.approx(plain.variance, abs=1e-12)
    if plain.variance > 1e-9:
        assert spread.freedom == pytest.approx(plain.freedom, rel=1e-6)


def test_clusters_agree_with_the_cluster_bootstrap():
    rng = np.random.default_rng(6)
    lesions = [rng.normal(0.08 + 0.015 * rng.standard_normal(), 0.01, rng.integers(3, 12)) for _ in range(40)]
    blocks = [rng.normal(0.11 + 0.01 * rng.standard_normal(), 0.01, 10) for _ in range(50)]

    def number(groups):
        return np.repeat(np.arange(len(groups)), [len(g) for g in groups])

    _, v10, v01 = delong.placements(np.concatenate(lesions), np.concatenate(blocks))
    spread = delong.clustered_variance(v10, v01, number(lesions), number(blocks) + 100)
    drawn = []
    for _ in range(800):
        low = np.concatenate([lesions[i] for i in rng.integers(40, size=40)])
        high = np.concatenate([blocks[i] for i in rng.integers(50, size=50)])
        drawn.append(delong.placements(low, high)[0])
    assert math.sqrt(spread.variance) == pytest.approx(np.std(drawn), rel=0.12)
    assert spread.variance > 3 * delong.variance(v10, v01).variance


# --- intervals -------------------------------------------------------------------------------------------------------


@QUICK
@given(samples(), st.sampled_from([0.8, 0.9, 0.95]))
def test_intervals_hold_the_area_and_widen_with_confidence(drawn, confidence):
    area, v10, v01 = delong.placements(*drawn)
    spread = delong.variance(v10, v01)
    (low, high), method = delong.interval(area, spread, confidence)
    (lower, higher), _ = delong.interval(area, spread, 0.99)
    assert 0 <= lower <= low <= area + 1e-9
    assert area - 1e-9 <= high <= higher <= 1
    assert method in ("logit", "newcombe")


@given(st.floats(0, 1), st.integers(2, 60), st.integers(2, 60))
@QUICK
def test_newcombes_limits_solve_his_equation(area, m, n):
    low, high = delong.separated_interval(area, m, n)
    assert 0 <= low <= area + 1e-9
    assert area - 1e-9 <= high <= 1
    z = stats.norm.ppf(0.975)
    for limit in (low, high):
        if 1e-6 < limit < 1 - 1e-6:
            half = (m + n) / 2
            v = limit * (1 - limit) / (m * n) * (2 * half - 1 - (3 * half - 3) / ((2 - limit) * (1 + limit)))
            assert abs(limit - area) == pytest.approx(z * math.sqrt(v), abs=1e-6)


def test_complete_separation_has_an_interval():
    curve = roc([0.01, 0.02, 0.03], [0.1, 0.11, 0.12, 0.13])
    assert curve.auc == 1
    assert curve.ci_method == "newcombe"
    assert 0.3 < curve.ci[0] < 0.9
    assert curve.ci[1] == 1


def test_one_observation_has_none():
    curve = roc([0.05], [0.1, 0.11, 0.12], lesion_clusters=[1], nawm_clusters=[2, 3, 4])
    assert math.isnan(curve.ci[0])
    assert math.isnan(curve.ci_clustered[0])
    assert curve.ci_method == ""


# --- the curve -------------------------------------------------------------------------------------------------------


@QUICK
@given(samples())
def test_curve_is_scikit_learns(drawn):
    from sklearn.metrics import roc_curve

    low, high = map(np.array, drawn)
    curve = roc(low, high)
    fpr, tpr, thresholds = roc_curve(
        np.r_[np.ones(low.size), np.zeros(high.size)], -np.r_[low, high], drop_intermediate=False
    )
    np.testing.assert_allclose(curve.fpr, fpr, atol=1e-12)
    np.testing.assert_allclose(curve.tpr, tpr, atol=1e-12)
    np.testing.assert_allclose(curve.thresholds[1:], -thresholds[1:])
    assert np.trapezoid(curve.tpr, curve.fpr) == pytest.approx(curve.auc, abs=1e-12)
    # Youden: no threshold does better than the one chosen.
    best = max((low <= t).mean() - (high <= t).mean() for t in [-1.0, *low, *high])
    assert curve.sensitivity + curve.specificity - 1 == pytest.approx(best, abs=1e-12)
    t = curve.youden_threshold
    assert (curve.sensitivity, curve.specificity) == ((low <= t).mean(), pytest.approx((high > t).mean()))


@QUICK
@given(samples())
def test_effects_change_sign_with_the_sides_and_not_with_the_scale(drawn):
    low, high = map(np.array, drawn)
    there, back = roc(low, high), roc(high, low)
    assert there.auc == pytest.approx(1 - back.auc, abs=1e-12)
    assert roc(np.exp(5 * low), np.exp(5 * high)).auc == pytest.approx(there.auc, abs=1e-12)
    pooled = low.var(ddof=1) * (low.size - 1) + high.var(ddof=1) * (high.size - 1)
    if pooled > 1e-12:
        expected = (high.mean() - low.mean()) / math.sqrt(pooled / (low.size + high.size - 2))
        assert there.cohens_d == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert back.cohens_d == pytest.approx(-expected, rel=1e-9, abs=1e-12)
        # Student's t with equal variances is d with a factor.
        t = stats.ttest_ind(high, low).statistic
        assert t == pytest.approx(expected / math.sqrt(1 / low.size + 1 / high.size), rel=1e-7, abs=1e-9)


def test_missing_values_are_left_out_and_empty_sides_refused():
    curve = roc([0.05, math.nan, 0.06], [0.1, math.inf, 0.12], lesion_clusters=[1, 1, 2], nawm_clusters=[3, 4, 5])
    assert (curve.n_lesion, curve.n_nawm, curve.clusters) == (2, 2, (2, 2))
    with pytest.raises(InputError, match=r"lesions have no finite PSR value.*check the masks"):
        roc([math.nan], [0.1])
    with pytest.raises(InputError, match="NAWM have no finite"):
        roc([0.1], [])
    with pytest.raises(ValueError, match="both sides"):
        roc([0.1], [0.2], lesion_clusters=[1])
    assert math.isnan(cohens_d(np.array([0.1]), np.array([0.2])))
    assert math.isnan(cohens_d(np.array([0.1, 0.1]), np.array([0.2, 0.2])))


# --- blocks and patches ----------------------------------------------------------------------------------------------


@QUICK
@given(arrays(bool, (7, 6, 5)), st.sampled_from([1.0, 2.5, 4.0]))
def test_blocks_hold_what_lies_in_one_cube(mask, edge):
    where = np.nonzero(mask)
    found = units.blocks(where, (1.0, 0.5, 3.0), edge)
    sides = [max(edge, s) for s in (1.0, 0.5, 3.0)]
    cubes = [tuple(int(i * s / e + 1e-9) for i, s, e in zip(p, (1.0, 0.5, 3.0), sides)) for p in zip(*where)]
    for i in range(len(cubes)):
        for j in range(i):
            assert (found[i] == found[j]) == (cubes[i] == cubes[j])


@QUICK
@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(1, 3), st.integers(0, 5))
def test_patches_have_their_size_lie_inside_and_never_overlap(sizes, each, seed):
    mask = np.zeros((14, 12, 10), bool)
    mask[2:12, 1:11, 1:9] = True
    spacing = (1.0, 1.0, 2.0)
    patches = units.matched_patches(mask, sizes, spacing, per_size=each, seed=seed)
    again = units.matched_patches(mask, sizes, spacing, per_size=each, seed=seed)
    assert all(np.array_equal(a, b) for a, b in zip(patches, again))
    taken = np.concatenate(patches)
    assert np.unique(taken).size == taken.size
    assert mask.ravel()[taken].all()
    left = [p.size for p in patches]
    assert all(left.count(n) <= each * sizes.count(n) for n in set(left))
    for patch in patches:
        points = np.stack(np.unravel_index(patch, mask.shape), 1) * spacing
        across = np.linalg.norm(points[:, None] - points[None], axis=-1).max()
        assert across <= 2 * (2 * (3 * patch.size * 2.0 / (4 * np.pi)) ** (1 / 3) + 2.0) + 1e-9


def test_patches_that_find_no_room_are_left_out():
    assert units.matched_patches(np.zeros((4, 4, 4), bool), [3], (1, 1, 1)) == []
    assert units.matched_patches(np.ones((2, 2, 2), bool), [9], (1, 1, 1)) == []
    assert len(units.matched_patches(np.ones((2, 2, 2), bool), [8], (1, 1, 1), per_size=3)) == 1


# --- the table -------------------------------------------------------------------------------------------------------


def test_table_holds_the_numbers_of_numpy_and_scipy():
    psr, regions = some_psr(), some_regions(holes=(2,))
    rows = region_table(psr, regions)
    assert [row["region"] for row in rows] == [
        "lesion",
        "nawm",
        "nawm_proximal",
        "nawm_distal",
        "grey_matter",
        "lesion",
        "lesion",
    ]
    assert [(row["lesion"], row["black_hole"]) for row in rows[-2:]] == [(1, False), (2, True)]
    pieces = [regions.masks[row["region"]].array > 0 for row in rows[:5]]
    pieces += [regions.lesions.numbers.array == k for k in (1, 2)]
    for row, mask in zip(rows, pieces):
        values = psr.array[mask].astype(np.float64)
        told = stats.describe(values, ddof=1)
        assert row["voxels"] == mask.sum()
        assert row["volume_ml"] == pytest.approx(mask.sum() * VOXEL_ML)
        assert row["mean"] == pytest.approx(told.mean)
        assert row["sd"] == pytest.approx(math.sqrt(told.variance))
        assert (row["min"], row["max"]) == pytest.approx(told.minmax)
        assert row["median"] == pytest.approx(np.median(values))
        assert row["iqr"] == pytest.approx(stats.iqr(values))
        assert (row["p5"], row["p95"]) == pytest.approx(stats.scoreatpercentile(values, [5, 95]))
        assert row["uncertainty"] is None
        assert row["seed_sd"] is None


def test_lesion_rows_add_up_to_the_region():
    rows = region_table(some_psr(), some_regions())
    whole, parts = rows[0], [row for row in rows if row["lesion"]]
    assert sum(row["voxels"] for row in parts) == whole["voxels"]
    assert sum(row["voxels"] * row["mean"] for row in parts) == pytest.approx(whole["voxels"] * whole["mean"])


def test_regions_of_one_voxel_and_of_none_that_is_finite():
    lesion = np.zeros(SHAPE, np.int32)
    lesion[5, 5, 5] = 1
    psr, regions = some_psr(), some_regions(lesion)
    psr.array[regions.masks["grey_matter"].array > 0] = np.nan
    psr.array[10, 5, 5] = np.nan
    rows = {row["region"]: row for row in region_table(psr, regions) if row["lesion"] is None}
    one = rows["lesion"]
    assert one["voxels"] == 1
    assert math.isnan(one["sd"])
    assert one["mean"] == one["median"] == one["p5"] == one["max"] == pytest.approx(float(psr.array[5, 5, 5]))
    assert math.isnan(rows["grey_matter"]["mean"])
    assert rows["grey_matter"]["missing"] == rows["grey_matter"]["voxels"] > 0
    assert rows["nawm"]["missing"] == 1
    assert np.isfinite(rows["nawm"]["mean"])


def test_suggested_lesions_say_so_in_every_row():
    rows = region_table(some_psr(), some_regions(suggested=True))
    assert all("suggested" in row["name"] for row in rows if row["region"] == "lesion")
    assert not any("suggested" in row["name"] for row in rows if row["region"] != "lesion")


@QUICK
@given(arrays(np.float64, (4, 10), elements=st.floats(0, 0.2)))
def test_the_mean_of_deviations_bounds_the_deviation_of_means(values):
    """Four seeds, a region of ten voxels: SD of the region's mean <= mean of the voxels' SDs."""
    mask = np.zeros(SHAPE, np.uint8)
    mask.ravel()[100:110] = 1
    maps = []
    for seed in values:
        array = np.zeros(SHAPE, np.float64)
        array[mask > 0] = seed
        maps.append(volume(array))
    regions = Regions({"white_matter": volume(mask)}, None, None, RegionSettings(), ())
    mean = volume(np.mean([m.array for m in maps], 0))
    row = region_table(mean, regions, seeds=maps)[0]
    assert row["seed_sd"] == pytest.approx(values.mean(1).std(ddof=1), abs=1e-12)
    assert row["uncertainty"] == pytest.approx(values.std(0, ddof=1).mean(), abs=1e-12)
    assert row["seed_sd"] <= row["uncertainty"] + 1e-12


def test_the_bound_is_reached_when_all_voxels_move_as_one():
    psr, regions = some_psr(), some_regions()
    maps = [psr.with_array(psr.array.astype(np.float64) + step) for step in (-0.01, 0.0, 0.02)]
    for row in region_table(psr, regions, seeds=maps):
        assert row["seed_sd"] == pytest.approx(row["uncertainty"], rel=1e-9) == np.std((-0.01, 0, 0.02), ddof=1)


def test_table_refuses_other_grids_and_a_single_seed():
    psr, regions = some_psr(), some_regions()
    elsewhere = Volume(psr.array, AFFINE + np.eye(4)[:, [3, 3, 3, 0]] * 3)
    with pytest.raises(InputError, match="uncertainty map does not lie on the PSR map's grid"):
        region_table(psr, regions, elsewhere)
    with pytest.raises(InputError, match="mask does not lie on the PSR map's grid"):
        region_table(elsewhere, regions)
    with pytest.raises(InputError, match="two seeds or more"):
        region_table(psr, regions, seeds=[psr])


def test_tables_on_disk(tmp_path):
    import pandas as pd

    rows = region_table(some_psr(), some_regions())
    comma, tab = write_table(tmp_path / "a.csv", rows), write_table(tmp_path / "a.tsv", rows)
    read, tabbed = pd.read_csv(comma), pd.read_csv(tab, sep="\t")
    assert read.equals(tabbed)
    assert "n/a" in tab.read_text()
    np.testing.assert_allclose(read["mean"], [row["mean"] for row in rows], rtol=1e-5)
    assert read["lesion"].isna().sum() == 5


# --- lesions against NAWM --------------------------------------------------------------------------------------------


def test_contrasts_at_both_levels():
    psr, regions = some_psr(), some_regions()
    found = contrasts(psr, regions, block_mm=8)
    assert [c.against for c in found] == ["nawm", "nawm_proximal", "nawm_distal"]
    lesion = regions.masks["lesion"].array > 0
    for c in found:
        nawm = regions.masks[c.against].array > 0
        low, high = psr.array[lesion].astype(np.float64), psr.array[nawm].astype(np.float64)
        assert c.voxel.auc == pytest.approx(metrics.roc_area(low, high))
        assert (c.voxel.n_lesion, c.voxel.n_nawm, c.voxel.clusters[0]) == (lesion.sum(), nawm.sum(), 2)
        assert c.lesion.n_lesion == 2
        assert c.lesion.level == "lesion"
        assert c.difference == pytest.approx(low.mean() - high.mean())
        assert c.percent == pytest.approx(100 * (low.mean() / high.mean() - 1))
        assert c.seed_sd is None
    # Means are told apart better than noisy voxels.
    assert found[0].lesion.auc >= found[0].voxel.auc


def test_seeds_tell_how_far_the_difference_moves():
    psr, regions = some_psr(), some_regions()
    lesion = regions.masks["lesion"].array > 0
    maps = [psr.with_array(psr.array + np.float32(0.01 * k) + np.float32(0.002 * k) * lesion) for k in (0, 1, 3)]
    for c in contrasts(psr, regions, samples=maps):
        assert c.seed_sd == pytest.approx(np.std([0, 0.002, 0.006], ddof=1), rel=1e-3)  # what both share cancels


def test_voxels_that_repeat_each_other_are_not_counted_as_many():
    """The same map on voxels half as wide: eight times the voxels, nothing more known."""
    rng = np.random.default_rng(2)
    coarse_lesion = np.zeros((10, 10, 10), np.int32)
    for k, (x, y, z) in enumerate([(1, 1, 1), (7, 2, 6), (3, 7, 4), (7, 7, 8)]):
        coarse_lesion[x : x + 2, y : y + 2, z : z + 1] = k + 1
    coarse_psr = (0.12 - 0.03 * (coarse_lesion > 0) + 0.02 * rng.standard_normal((10, 10, 10))).astype(np.float32)

    def intervals(factor):
        fine = [np.kron(a, np.ones((factor,) * 3, a.dtype)) for a in (coarse_psr, coarse_lesion)]
        affine = np.diag([2 / factor, 2 / factor, 2 / factor, 1.0])
        at = Volume(fine[0], affine)
        masks = {"nawm": at.with_array((fine[1] == 0).astype(np.uint8)), "lesion": at.with_array((fine[1] > 0) * 1)}
        made = Lesions(numbers=at.with_array(fine[1]), suggested=False, black_holes=())
        found = contrasts(at, Regions(masks, made, None, RegionSettings(), ()), block_mm=4)[0].voxel
        return found.auc, np.ptp(found.ci), np.ptp(found.ci_clustered)

    auc, naive, clustered = intervals(1)
    auc_fine, naive_fine, clustered_fine = intervals(2)
    assert auc_fine == pytest.approx(auc)
    assert clustered_fine == pytest.approx(clustered, rel=1e-6)
    assert naive_fine < 0.4 * naive  # more sure of itself, without reason


def test_what_stands_in_the_way_of_a_curve_is_said():
    psr, regions = some_psr(), some_regions()
    overlapping = Regions(
        {**regions.masks, "nawm": volume(np.ones(SHAPE, np.uint8))}, regions.lesions, None, RegionSettings(), ()
    )
    with pytest.raises(InputError, match=r"Lesions and NAWM overlap in 56 voxels; take the lesions out"):
        contrasts(psr, overlapping)
    holes = psr.with_array(np.where(regions.masks["lesion"].array > 0, np.nan, psr.array))
    for c in contrasts(holes, regions):
        assert c.voxel is None
        assert "No lesion has a finite PSR value" in c.notes[0]
    one = np.zeros(SHAPE, np.int32)
    one[5, 5, 5] = 1
    for c in contrasts(psr, some_regions(one)):
        assert c.lesion is None
        assert "one lesion only" in " ".join(c.notes)
        assert math.isnan(c.voxel.ci[0])
        assert c.voxel.n_lesion == 1
    assert contrasts(psr, Regions(regions.masks, None, None, RegionSettings(), ())) == []


# --- two maps --------------------------------------------------------------------------------------------------------

pairs = arrays(np.float64, (12, 2), elements=st.integers(0, 40).map(lambda k: k / 200))


@QUICK
@given(pairs)
def test_agreement_is_that_of_closed_forms(values):
    a, b = values.T
    told, d, n = agreement(a, b), a - b, len(a)
    assert told.bias == pytest.approx(d.mean(), abs=1e-15)
    low, high = (d.mean() + s * stats.t.ppf(0.975, n - 1) * stats.sem(d) for s in (-1, 1))
    np.testing.assert_allclose(told.bias_ci, (low, high), atol=1e-12)
    assert told.upper - told.lower == pytest.approx(2 * 1.959964 * d.std(ddof=1), abs=1e-6)
    half = stats.t.ppf(0.975, n - 1) * d.std(ddof=1) * math.sqrt(1 / n + 1.959964**2 / (2 * (n - 1)))
    np.testing.assert_allclose(told.upper_ci, (told.upper - half, told.upper + half), atol=1e-7)
    if a.std() > 0 and b.std() > 0:
        assert told.pearson == pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-9)
        assert told.spearman == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-9)
        # Lin: precision times accuracy.
        scale, shift = a.std() / b.std(), (a.mean() - b.mean()) / math.sqrt(a.std() * b.std())
        assert told.concordance == pytest.approx(told.pearson * 2 / (scale + 1 / scale + shift**2), abs=1e-9)
        assert abs(told.concordance) <= abs(told.pearson) + 1e-12


@QUICK
@given(pairs)
def test_icc_is_that_of_the_analysis_of_variance(values):
    n, k = values.shape
    grand, rows, columns = values.mean(), values.mean(1), values.mean(0)
    between = k * ((rows - grand) ** 2).sum() / (n - 1)
    maps = n * ((columns - grand) ** 2).sum() / (k - 1)
    left = ((values - rows[:, None] - columns[None] + grand) ** 2).sum() / ((n - 1) * (k - 1))
    below = between + (k - 1) * left + k * (maps - left) / n
    if abs(below) > 1e-9:
        assert agreement(*values.T).icc == pytest.approx((between - left) / below, abs=1e-9)


def test_agreement_of_equal_and_of_constant_maps():
    a = np.linspace(0, 0.2, 30)
    same = agreement(a, a)
    assert (same.bias, same.sd, same.lower, same.upper) == (0, 0, 0, 0)
    assert (same.pearson, same.concordance, same.icc) == pytest.approx((1, 1, 1))
    shifted = agreement(a + 0.01, a)
    assert shifted.pearson == pytest.approx(1)
    assert shifted.concordance < 0.99
    assert math.isnan(agreement(np.full(5, 0.1), np.full(5, 0.1)).pearson)
    with pytest.raises(ValueError, match="two pairs"):
        agreement([1.0], [2.0])


@QUICK
@given(pairs, st.integers(1, 4))
def test_copies_of_a_pair_teach_nothing(values, copies):
    a, b = values.T
    plain = agreement(a, b, clusters=np.arange(len(a)))
    repeated = agreement(np.repeat(a, copies), np.repeat(b, copies), clusters=np.repeat(np.arange(len(a)), copies))
    assert repeated.clusters == len(a)
    np.testing.assert_allclose(repeated.bias_ci, plain.bias_ci, atol=1e-12)
    d = a - b  # singleton clusters: Student's interval for the bias
    low, high = stats.t.interval(0.95, len(d) - 1, d.mean(), stats.sem(d)) if d.std() > 0 else (d.mean(), d.mean())
    np.testing.assert_allclose(plain.bias_ci, (low, high), atol=1e-12)


def test_limits_by_clusters_agree_with_bland_and_altman_where_all_is_normal():
    rng = np.random.default_rng(0)
    a, d = rng.normal(0.1, 0.02, 4000), rng.normal(0.005, 0.01, 4000)
    plain, clustered = agreement(a + d, a), agreement(a + d, a, clusters=np.arange(4000))
    assert np.ptp(clustered.upper_ci) == pytest.approx(np.ptp(plain.upper_ci), rel=0.05)
    assert plain.bias == pytest.approx(0.005, abs=5 * 0.01 / math.sqrt(4000))


def test_compare_region_by_region():
    a, regions = some_psr(0), some_regions()
    b = a.with_array(np.where(a.array != 0, a.array + np.float32(0.01), 0))
    found = compare(a, b, regions)
    assert found.voxel.bias == pytest.approx(-0.01, abs=1e-7)
    assert found.lesion is None
    assert "Fewer than three lesions" in found.notes[0]
    for row in found.regions:
        assert row["difference"] == pytest.approx(-0.01, abs=1e-7)
        assert row["difference"] == pytest.approx(row["mean"] - row["reference_mean"])
        assert row["percent"] == pytest.approx(100 * row["difference"] / row["reference_mean"])
        assert row["pearson"] == pytest.approx(1)
    elsewhere = Volume(b.array, AFFINE + 500 * np.eye(4)[:, [3, 3, 3, 0]])
    with pytest.raises(InputError, match="no values where the PSR map's regions are"):
        compare(a, elsewhere, regions)


# --- is it a PSR map -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "sentence"),
    [(100, r"seems to be in percent.*divide it by 100"), (10_000, "is no PSR map.*right file")],
)
def test_maps_that_are_no_fraction_are_refused(factor, sentence):
    with pytest.raises(InputError, match=sentence):
        read_map(volume(some_psr().array * factor), "PSR map")


def test_maps_without_a_value_are_refused():
    for value, sentence in ((math.nan, "no finite value"), (0, "no value above 0"), (-0.1, "no value above 0")):
        with pytest.raises(InputError, match=sentence):
            read_map(volume(np.full(SHAPE, value, np.float32)), "PSR map")
    array = some_psr().array.copy()
    array[3, 3, 3] = np.inf
    assert np.isnan(read_map(volume(array), "PSR map").array[3, 3, 3])


def test_the_brain_holds_the_zeros_it_encloses():
    array = np.zeros(SHAPE, np.float32)
    array[4:12, 4:12, 4:12] = 0.1
    array[7:9, 7:9, 7:9] = 0
    assert support(volume(array)).sum() == 8**3


def test_a_synthesized_map_is_known_by_its_sidecar_or_its_header(tmp_path):
    path = some_psr().write(tmp_path / "psr.nii.gz", description="PSR (fraction) by DEMIST 0.1.0; research estimate")
    assert origin(Volume.read(path)) == {"statement": SYNTHESIZED, "simulated": None}
    told = {
        "statement": "Trained on simulated PSR.",
        "simulated": True,
        "settings": {"seeds": [0, 1]},
        "bundle": {"name": "demist-sim", "version": "1", "hash": "ab", "licence": "x"},
    }
    (tmp_path / "psr.json").write_text(json.dumps(told))
    found = origin(Volume.read(path))
    assert (found["statement"], found["simulated"], found["seeds"]) == ("Trained on simulated PSR.", True, [0, 1])
    # A BIDS sidecar beside a measured map says nothing of a synthesis, a damaged one nothing at all.
    measured = some_psr().write(tmp_path / "measured.nii.gz")
    for text in ('{"EchoTime": 0.003}', "{", "[1]"):
        (tmp_path / "measured.json").write_text(text)
        assert origin(Volume.read(measured)) is None
    assert origin(some_psr()) is None
    assert origin(some_psr(), told) == found


# --- all of it -------------------------------------------------------------------------------------------------------


def tissue_of(regions: Regions) -> Volume:
    labels = np.zeros(SHAPE, np.uint8)
    labels[regions.masks["grey_matter"].array > 0] = 2
    labels[(regions.masks["nawm"].array > 0) | (regions.masks["lesion"].array > 0)] = 3
    return volume(labels)


def test_known_means_are_recovered():
    """A map that is one value per tissue: every mean is that value."""
    regions = some_regions()
    psr = np.zeros(SHAPE, np.float32)
    for name, value in {"nawm": 0.125, "grey_matter": 0.0625, "lesion": 0.03125}.items():
        psr[regions.masks[name].array > 0] = value
    analysis = analyse(volume(psr), lesions=regions.lesions.mask, tissue=tissue_of(regions))
    means = {row["region"]: row["mean"] for row in analysis.table}
    assert (means["nawm"], means["grey_matter"], means["lesion"]) == (0.125, 0.0625, 0.03125)
    assert {c.voxel.auc for c in analysis.contrasts} == {1.0}
    assert analysis.roc_declined is None
    assert analysis.files == {}
    json.dumps(analysis.summary(), allow_nan=False)


def test_analysis_needs_no_lesions_and_no_tissue():
    psr, regions = some_psr(), some_regions()
    healthy = analyse(psr, tissue=tissue_of(regions))
    assert "No lesions were given" in healthy.roc_declined
    assert {row["region"] for row in healthy.table} >= {"grey_matter", "white_matter"}
    bare = analyse(psr, lesions=regions.lesions.mask)
    assert "There is no NAWM" in bare.roc_declined
    assert [row["region"] for row in bare.table].count("lesion") == 3


def test_same_input_same_bytes_and_nothing_else_left(tmp_path):
    psr, regions = some_psr(), some_regions()
    seen = []
    for name in "ab":
        analyse(
            psr,
            lesions=regions.lesions.mask,
            tissue=tissue_of(regions),
            out=tmp_path / name,
            tsv=True,
            reference=some_psr(1),
            samples=[some_psr(2), some_psr(3)],
            progress=lambda stage, done: seen.append(done),
        )
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert (
        {
            "regions.csv",
            "regions.tsv",
            "statistics.json",
            "roc.png",
            "boxes.png",
            "overlay.png",
            "comparison.csv",
            "bland_altman.png",
        }
        <= names
        <= set(OUTPUTS)
    )
    for name in names - {"statistics.json"}:  # which tells times
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert seen[: len(seen) // 2] == sorted(seen[: len(seen) // 2])
    assert seen[-1] == 1


@pytest.mark.parametrize("stage", ["table", "write"])
def test_a_stopped_analysis_leaves_nothing(tmp_path, stage, monkeypatch):
    psr, regions = some_psr(), some_regions()

    def stop(now, done):
        if now == stage:
            raise Cancelled("stop")

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    with pytest.raises(Cancelled):
        analyse(psr, lesions=regions.lesions.mask, out=tmp_path / "new", progress=stop)
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr("DEMISTCore.statistics.figures.overlay_figure", fail)
    with pytest.raises(InputError, match="No space left"):
        analyse(psr, lesions=regions.lesions.mask, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def words_of(figure) -> str:
    from matplotlib.text import Text

    return " ".join(text.get_text() for text in figure.findobj(Text)).replace("\n", " ")


@pytest.mark.parametrize("suggested", [True, False])
def test_every_output_says_whether_lesions_were_suggested(tmp_path, monkeypatch, suggested):
    """A person looks at one file only: each of them has to say it."""
    regions, drawn = some_regions(suggested=suggested), {}
    monkeypatch.setattr("DEMISTCore.regions.build_regions", lambda *_, **__: regions)

    def keep(figure, path):
        drawn[path.name] = words_of(figure)
        path.write_text(".")
        return path

    monkeypatch.setattr("DEMISTCore.preview.save_figure", keep)
    images = {"t1w": some_psr(1), "flair": some_psr(2)} if suggested else {"lesions": regions.lesions.mask}
    analysis = analyse(some_psr(), **images, suggest=suggested, out=tmp_path / "out")
    assert set(drawn) == {"roc.png", "boxes.png", "overlay.png"}
    table = (tmp_path / "out" / "regions.csv").read_text()
    for text in (*drawn.values(), table, json.dumps(analysis.summary()["lesions"]["note"]), analysis.text()):
        assert ("suggest" in text.lower()) == suggested
    for text in (*drawn.values(), analysis.text(), analysis.summary()["statement"]):
        assert "Research use only" in text
    for curve in (analysis.contrasts[0].voxel, analysis.contrasts[0].lesion):
        assert f"All NAWM: {curve.auc:.3f} [{curve.best_ci[0]:.3f}, {curve.best_ci[1]:.3f}]" in drawn["roc.png"]
    assert all(name in drawn["boxes.png"] for name in ("Proximal NAWM", "Distal NAWM", "Grey matter"))


def test_settings_are_checked():
    for wrong in ({"block_mm": 0}, {"patches_per_lesion": 0}):
        with pytest.raises(InputError):
            MeasureSettings(**wrong)
    assert MeasureSettings(block_mm=5).block_mm == 5
