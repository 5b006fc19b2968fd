"""Evaluation: look-ups, the comparison on a miniature cohort, the rule for tissues, a patient, bad input."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_data import write_mini_bids

from DEMISTCore import metrics
from DEMISTCore.baselines import lookup
from DEMISTCore.cli import run
from DEMISTCore.errors import InputError
from DEMISTCore.evaluate import main
from DEMISTCore.evaluation import evaluate, evaluate_patient
from DEMISTCore.evaluation.cases import Case
from DEMISTCore.evaluation.figures import levels
from DEMISTCore.evaluation.methods import demist as evaluation_methods
from DEMISTCore.evaluation.patient import tissues
from DEMISTCore.evaluation.store import result_paths
from DEMISTCore.training.data import index
from DEMISTCore.volume import Volume

SEEDS = 2


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mini_bids(tmp_path_factory.mktemp("bids"), subjects=3, size=40)


@pytest.fixture(scope="module")
def evaluated(cohort: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluation") / "out"
    return evaluate(
        cohort,
        out,
        bundle=tiny_bundle,
        seeds=SEEDS,
        ablations=True,
        device="cpu",
        precision="fp32",
        compare={"twin": tiny_bundle},
        preprocess="simulated",
        progress=False,
    )


# --- look-ups ---------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7), st.floats(0, 0.25, width=32)), min_size=1, max_size=60))
def test_tissue_means_equal_pandas(pairs: list[tuple[int, float]]) -> None:
    labels, psr = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    expected = pd.Series(psr).groupby(labels).mean().drop(0, errors="ignore").to_dict()
    assert lookup.tissue_means(psr, labels) == pytest.approx(expected)


def test_population_counts_every_subject_once_and_skips_missing_tissues() -> None:
    assert lookup.population_means([{3: 0.1, 5: 0.05}, {3: 0.14}]) == pytest.approx({3: 0.12, 5: 0.05})
    with pytest.raises(ValueError, match="no subject"):
        lookup.population_means([])


def test_look_up_fills_labels_and_leaves_background_empty() -> None:
    labels = np.array([[0, 3], [2, 9]], np.uint8)
    assert lookup.look_up({0: 7.0, 2: 0.06, 3: 0.12}, labels) == pytest.approx(np.array([[0, 0.12], [0.06, 0]]))


def test_own_means_are_the_best_of_all_maps_constant_in_each_tissue() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(1, 4, (6, 6, 6))
    truth = rng.random(labels.shape)
    own = lookup.tissue_means(truth, labels)
    best = np.mean((lookup.look_up(own, labels) - truth) ** 2)
    for label in own:
        other = {**own, label: own[label] + 0.05}
        assert np.mean((lookup.look_up(other, labels) - truth) ** 2) > best


# --- a cohort ---------------------------------------------------------------------------------------------------------


def test_every_method_has_a_row_for_every_subject(evaluated: Path) -> None:
    results = pd.read_csv(evaluated / "results.csv")
    expected = {
        "population look-up",
        "own tissue means (oracle)",
        "DEMIST, 1 seed",
        "DEMIST, mean of 2",
        "no semantic stream, 1 seed",
        "no spatial stream, 1 seed",
        "no adaptive stream, 1 seed",
        "no stream, 1 seed",
        "twin, 1 seed",
        "resampled truth (bound)",
        "autoencoder (bound)",
    }
    assert set(results["method"]) == expected
    assert (results.groupby("method")["subject"].nunique() == 3).all()
    by = results.pivot(index="subject", columns="method", values="psnr")
    assert (by["own tissue means (oracle)"] >= by["population look-up"]).all()
    assert np.allclose(by["twin, 1 seed"], by["DEMIST, 1 seed"])
    assert (by["no stream, 1 seed"] != by["DEMIST, 1 seed"]).all()
    assert results.query("method == 'DEMIST, mean of 2'")["coverage_95"].between(0, 1).all()


def test_oracle_row_equals_scikit_image_on_the_files(cohort: Path, evaluated: Path) -> None:
    from skimage.metrics import peak_signal_noise_ratio

    row = pd.read_csv(evaluated / "results.csv").query("subject == 'sub-002' and method.str.startswith('own')").iloc[0]
    psr, labels, mask = (
        nib.load(next((cohort / "derivatives/truth/sub-002/anat").glob(f"*{what}.nii.gz"))).get_fdata()
        for what in ("PSRmap", "dseg", "brain_mask")
    )
    oracle = np.zeros_like(psr)
    for label in range(1, 6):
        if (labels == label).any():
            oracle[labels == label] = psr[labels == label].mean()
    inside = mask > 0
    assert row["psnr"] == pytest.approx(peak_signal_noise_ratio(psr[inside], oracle[inside], data_range=0.2), abs=1e-3)


def test_population_look_up_leaves_the_subject_out(cohort: Path, evaluated: Path) -> None:
    means = lookup.cohort_means({s.subject: (s.psr, s.dseg) for s in index(cohort)})
    session = next(s for s in index(cohort) if s.subject == "sub-001")
    case = Case(session, "truth", "simulated", 4.0, 8)
    others = lookup.population_means([means["sub-002"], means["sub-003"]])
    expected = metrics.mse(lookup.look_up(others, case.labels), case.truth, case.mask)
    row = pd.read_csv(evaluated / "results.csv").query("subject == 'sub-001' and method == 'population look-up'")
    assert row["mse"].item() == pytest.approx(expected, rel=1e-4)


def test_demist_rows_are_those_of_synthesize(cohort: Path, evaluated: Path, tiny_bundle: Path) -> None:
    from DEMISTCore.synthesis import synthesize

    session = index(cohort)[0]
    result = synthesize(
        session.t1w,
        session.flair,
        bundle=tiny_bundle,
        seeds=SEEDS,
        device="cpu",
        precision="fp32",
        brain_mask=session.mask,
        register=False,
        bias_correct=False,
        any_brain_volume=True,
    )
    case = Case(session, "truth", "simulated", 4.0, 8)
    psr = case.to_grid(result.model_psr.array)
    row = pd.read_csv(evaluated / "results.csv").query("subject == 'sub-001' and method == 'DEMIST, mean of 2'").iloc[0]
    assert row["mae"] == pytest.approx(metrics.mae(psr, case.truth, case.mask), rel=1e-3)


def test_tables_and_figures(evaluated: Path) -> None:
    summary = pd.read_csv(evaluated / "summary.csv").set_index("method")
    results = pd.read_csv(evaluated / "results.csv")
    mean = results.groupby("method")[["psnr", "ssim"]].agg(["mean", "std"])
    for method, row in summary.iterrows():
        if method != "resampled truth (bound)":
            assert row["psnr_mean"] == pytest.approx(mean.loc[method, ("psnr", "mean")], rel=1e-4)
            assert row["ssim_sd"] == pytest.approx(mean.loc[method, ("ssim", "std")], abs=1e-5)
    page = (evaluated / "summary.md").read_text()
    assert "simulated" in page
    assert "| DEMIST, mean of 2 |" in page
    assert "Bias by region" in page
    regions = pd.read_csv(evaluated / "regions.csv")
    assert set(regions["region"]) == {"CSF", "Cortex", "White matter", "Lesion"}
    own = regions[regions["method"].str.startswith("own")]
    assert own["bias"].abs().max() < 1e-6
    for name in ("boxes.png", "slices.png"):
        assert (evaluated / name).read_bytes().startswith(b"\x89PNG")


def test_what_the_preparation_remarks_on_is_told_once_a_session(cohort: Path, evaluated: Path) -> None:
    told = pd.read_csv(evaluated / "warnings.csv")
    assert not told.duplicated().any()
    case = Case(next(s for s in index(cohort) if s.subject == "sub-002"), "truth", "simulated", 4.0, 8)
    assert case.warnings == []
    assert case.prepared.warnings
    assert list(told.query("subject == 'sub-002'")["warning"]) == case.prepared.warnings
    page = (evaluated / "summary.md").read_text().partition("## Warnings")[2]
    assert all(sentence in page for sentence in told["warning"])


def test_what_is_there_is_not_made_again(
    cohort: Path, evaluated: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "copy"
    shutil.copytree(evaluated, out)
    made = []
    original = evaluation_methods.demist

    def counting(names, *rest, **more):
        method = original(names, *rest, **more)
        make = method.make
        method.make = lambda case: made.append((names, case.name)) or make(case)
        return method

    monkeypatch.setattr(evaluation_methods, "demist", counting)
    arguments = {
        "bundle": tiny_bundle,
        "ablations": True,
        "device": "cpu",
        "precision": "fp32",
        "progress": False,
        "preprocess": "simulated",
    }
    before = (out / "results.csv").read_text()
    evaluate(cohort, out, seeds=SEEDS, compare={"twin": tiny_bundle}, **arguments)
    assert made == []
    assert (out / "results.csv").read_text() == before

    result_paths(out, "test", "sub-002", "DEMIST, 1 seed")[0].unlink()
    result_paths(out, "test", "sub-003", "no stream, 1 seed")[0].write_text("{")
    evaluate(cohort, out, seeds=SEEDS, compare={"twin": tiny_bundle}, **arguments)
    assert made == [(("DEMIST, 1 seed", "DEMIST, mean of 2"), "sub-002"), (("no stream, 1 seed",), "sub-003")]

    made.clear()
    evaluate(cohort, out, seeds=1, subjects=1, **arguments | {"ablations": False})
    assert made == [(("DEMIST, 1 seed",), "sub-001")]


def test_model_grid_compares_without_moving_the_maps(cohort: Path) -> None:
    case = Case(index(cohort)[0], "model", "simulated", 2.0, 8)
    array = np.random.default_rng(0).random(case.prepared.grid.shape).astype(np.float32)
    inside = case.mask & (case.prepared.mask.array > 0)
    assert np.allclose(case.to_grid(array)[inside], array[inside], atol=1e-6)


def test_rim_of_the_brain_is_not_diluted(cohort: Path) -> None:
    case = Case(index(cohort)[0], "truth", "simulated", 2.0, 8)
    constant = case.to_grid(np.full(case.prepared.grid.shape, 0.1, np.float32))
    assert np.allclose(constant[constant > 0], 0.1, atol=1e-5)
    assert (constant[case.mask] > 0).mean() > 0.99


def test_levels_are_those_with_most_lesion_and_apart() -> None:
    mask = np.zeros((4, 4, 40), bool)
    mask[:2, :2, 5] = mask[:3, :2, 6] = mask[:1, :1, 30] = True
    assert levels(mask, 3, apart=10) == [6, 30]
    assert levels(np.zeros((4, 4, 9), bool)) == [4]


def test_regression_run_takes_part(cohort: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    import torch

    from DEMISTCore.baselines.regression import build_regression, load_regression
    from DEMISTCore.training import checkpoint
    from DEMISTCore.training.settings import resolve

    settings_ = resolve("regression", "tiny")
    run_ = checkpoint.Run(tmp_path / "run", "regression", settings_, str(cohort))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = {f"network.{k}": v for k, v in build_regression(settings_.channels).state_dict().items()}
    run_.folder.mkdir()
    run_.write()
    checkpoint.save(run_.folder, 1, weights, weights, {})
    arguments = {
        "bundle": tiny_bundle,
        "regression_from": run_.folder,
        "lookup_from": cohort,
        "subjects": 1,
        "preprocess": "simulated",
    }
    out = evaluate(cohort, tmp_path / "out", seeds=1, device="cpu", precision="fp32", progress=False, **arguments)
    results = pd.read_csv(out / "results.csv").set_index("method")
    case = Case(index(cohort)[0], "truth", "simulated", 4.0, 8)
    psr = load_regression(run_.folder).predict(case.prepared.array, case.prepared.mask.array)
    expected = metrics.mae(case.to_grid(np.maximum(psr, 0)), case.truth, case.mask)
    assert results.loc["regression", "mae"] == pytest.approx(expected, rel=1e-4)
    # A look-up from another cohort pools all of its subjects.
    means = lookup.population_means(lookup.cohort_means({s.subject: (s.psr, s.dseg) for s in index(cohort)}).values())
    expected = metrics.mae(lookup.look_up(means, case.labels), case.truth, case.mask)
    assert results.loc["population look-up", "mae"] == pytest.approx(expected, rel=1e-4)
    assert "3 subjects" in (out / "summary.md").read_text()


def test_cohort_means_are_cached_until_a_file_changes(cohort: Path, tmp_path: Path) -> None:
    truths = {s.subject: (s.psr, s.dseg) for s in index(cohort)}
    cache = tmp_path / "lookup.json"
    means = lookup.cohort_means(truths, cache)
    cache.write_text(cache.read_text().replace(str(means["sub-001"][3]), "0.5"))
    assert lookup.cohort_means(truths, cache)["sub-001"][3] == 0.5
    cache.write_text("{")
    assert lookup.cohort_means(truths, cache) == means


def test_calibration_is_that_of_the_seeds(evaluated: Path) -> None:
    """The tables of error bars agree with each other, and the brain's row with the results'."""
    voxels = pd.read_csv(evaluated / "calibration.csv")
    results = pd.read_csv(evaluated / "results.csv").query("method == 'DEMIST, mean of 2'")
    brain = voxels.query("group == 'brain'").set_index("subject")
    assert set(voxels["group"]) == {"brain", "CSF", "Cortex", "White matter", "Lesion"}
    assert brain["coverage_90"].to_dict() == pytest.approx(results.set_index("subject")["coverage_90"].to_dict())
    intervals = pd.read_csv(evaluated / "intervals.csv")
    truth = pd.read_csv(evaluated / "regions.csv").query("method == 'DEMIST, mean of 2'")
    known = {(r["subject"], r["region"]): (r["true_mean"], r["synthesized_mean"]) for _, r in truth.iterrows()}
    tissue = intervals[intervals["kind"] != "single lesion"]
    assert len(tissue) == len(known)
    for _, row in tissue.iterrows():
        assert (row["truth"], row["estimate"]) == pytest.approx(known[row["subject"], row["region"]], rel=1e-4)
        # One interval lies in the next, and a 90 % one of two seeds is t(1) = 6.31 wide where a 50 % one is 1.
        assert row["low_95"] <= row["low_90"] <= row["low_50"] <= row["high_50"] <= row["high_90"]
        assert (row["high_90"] - row["low_90"]) / (row["high_50"] - row["low_50"]) == pytest.approx(6.3138, rel=1e-3)
    assert (intervals["kind"] == "single lesion").any()
    summary = pd.read_csv(evaluated / "calibration_summary.csv")
    held = ((intervals["low_90"] <= intervals["truth"]) & (intervals["truth"] <= intervals["high_90"])).mean()
    assert summary.query("group == 'all regions'")["coverage_90"].item() == pytest.approx(held)


# --- knock-outs, a second data set, baselines of a few coefficients ---------------------------------------------------


@pytest.fixture(scope="module")
def two_sets(cohort: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("two")
    shifted = write_mini_bids(root / "shifted", subjects=2, size=36)
    return evaluate(
        cohort,
        root / "out",
        shifted=shifted,
        bundle=tiny_bundle,
        seeds=1,
        subjects=2,
        knock_outs=True,
        lookup_from=cohort,
        device="cpu",
        precision="fp32",
        preprocess="simulated",
        progress=False,
    )


def test_two_sets_stand_side_by_side(two_sets: Path) -> None:
    summary = pd.read_csv(two_sets / "summary.csv").set_index(["set", "method"])
    assert set(summary.index.get_level_values(0)) == {"test", "shifted"}
    page = (two_sets / "summary.md").read_text().splitlines()
    header = next(line for line in page if line.startswith("| Method | PSNR"))
    assert header.startswith("| Method | PSNR (dB), test | PSNR (dB), shifted | SSIM, test |")
    (line,) = [line for line in page if line.startswith("| linear model | ")]
    for column, group in ((2, "test"), (3, "shifted")):
        assert line.split(" | ")[column - 1].startswith(f"{summary.loc[(group, 'linear model'), 'psnr_mean']:.2f}")
    assert summary.loc[("test", "linear model"), "psnr_mean"] != summary.loc[("shifted", "linear model"), "psnr_mean"]
    for name in ("slices-shifted.png", "boxes-shifted.png"):
        assert (two_sets / name).is_file()
    # Every method that a table shows is in the CSV, and the other way round.
    results = pd.read_csv(two_sets / "results.csv")
    assert all(any(f"| {name} |" in row for row in page) for name in results["method"].unique())


def test_knock_outs_are_paired_differences(two_sets: Path) -> None:
    from scipy import stats

    losses = pd.read_csv(two_sets / "knock_outs.csv")
    assert set(losses["method"]) == {
        "linear model, T1w flat",
        "linear model, FLAIR flat",
        "T1w flat, 1 seed",
        "FLAIR flat, 1 seed",
        "no semantic stream, 1 seed",
        "no spatial stream, 1 seed",
        "no adaptive stream, 1 seed",
        "no stream, 1 seed",
    }
    results = pd.read_csv(two_sets / "results.csv")
    results["abs_scale_error_percent"] = results["scale_error_percent"].abs()
    for _, row in losses.iterrows():
        own = results[results["set"] == row["set"]].pivot(index="subject", columns="method", values=row["measure"])
        lost = own[row["beside"]] - own[row["method"]]
        lost = -lost if row["measure"] == "abs_scale_error_percent" else lost
        assert row["lost"] == pytest.approx(lost.mean(), abs=2e-3)
        assert row["subjects"] == lost.notna().sum() == 2
        # Of two subjects every bootstrap mean is one, the other, or the middle.
        assert (row["low"], row["high"]) == pytest.approx((lost.min(), lost.max()), abs=2e-3)
        expected = stats.bootstrap((lost,), np.mean, method="percentile", n_resamples=999).confidence_interval
        assert (row["low"], row["high"]) == pytest.approx(tuple(expected), abs=2e-3)
    flat = losses.query("method == 'linear model, T1w flat' and measure == 'psnr' and set == 'test'")
    assert flat["low"].item() > 1  # the T1w carries the blobs' PSR


def test_linear_row_is_that_of_the_fitted_model(cohort: Path, two_sets: Path) -> None:
    from DEMISTCore.baselines.linear import LinearModel

    model = LinearModel.load(two_sets / "linear.npz")
    assert model.scans == ("sub-001", "sub-002", "sub-003")
    case = Case(index(cohort)[0], "truth", "simulated", 4.0, 8)
    results = pd.read_csv(two_sets / "results.csv").query("set == 'test' and subject == 'sub-001'").set_index("method")
    for name, predict in (("linear model", model.predict), ("T1w/FLAIR ratio", model.predict_ratio)):
        psr = case.to_grid(predict(case.prepared.array, case.prepared.mask.array))
        assert results.loc[name, "mae"] == pytest.approx(metrics.mae(psr, case.truth, case.mask), rel=1e-4)
    flat = case.prepared.array.copy()
    inside = case.prepared.mask.array > 0
    flat[1] = np.where(inside, np.median(flat[1][inside]), 0)
    psr = case.to_grid(model.predict(flat, inside))
    expected = metrics.psnr(psr, case.truth, case.mask)
    assert results.loc["linear model, FLAIR flat", "psnr"] == pytest.approx(expected, rel=1e-4)


def test_scans_are_prepared_once_for_all_models(
    cohort: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from DEMISTCore import preprocess
    from DEMISTCore.preprocess import prepare

    arguments = {"preprocess": "simulated", "spacing": 4.0, "multiple": 8, "cache": tmp_path / "prepared"}
    first = Case(index(cohort)[0], "truth", **arguments)
    before = first.prepared
    made = []
    monkeypatch.setattr(preprocess, "prepare", lambda *a, **k: made.append(1) or prepare(*a, **k))
    again = Case(index(cohort)[0], "truth", **arguments)
    for name in ("t1w", "flair", "mask", "native_mask"):
        a, b = getattr(before, name), getattr(again.prepared, name)
        assert a.array.dtype == b.array.dtype or name == "native_mask"
        assert np.array_equal(a.array, b.array)
        assert a.grid.same_as(b.grid)
    assert again.prepared.warnings == before.warnings
    assert np.array_equal(first.to_grid(before.t1w.array), again.to_grid(again.prepared.t1w.array))
    assert made == []
    (kept,) = (tmp_path / "prepared").iterdir()
    kept.write_bytes(kept.read_bytes()[:200])  # damaged: made again
    assert np.array_equal(Case(index(cohort)[0], "truth", **arguments).condition, first.condition)
    assert made == [1]
    # Another grid is another preparation; another subject is, too.
    assert Case(index(cohort)[0], "truth", **arguments | {"spacing": 2.0}).condition.shape != first.condition.shape
    assert not np.array_equal(Case(index(cohort)[1], "truth", **arguments).condition, first.condition)
    assert made == [1, 1, 1]


# --- a real patient ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lesion_file(head, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two blobs in the white matter of the head that the fixture ``head`` makes."""
    image = nib.load(head.t1w)
    lesions = np.zeros(image.shape, np.uint8)
    lesions[30:32, 25:27, 20:22] = lesions[12:14, 25:27, 20:22] = 1
    path = tmp_path_factory.mktemp("lesions") / "lesions.nii.gz"
    nib.save(nib.Nifti1Image(lesions, image.affine), path)
    return path


def test_tissues_of_a_known_head() -> None:
    axes = np.stack(np.meshgrid(*[np.linspace(-75, 75, 76)] * 3, indexing="ij"))
    radius = np.linalg.norm(axes, axis=0)
    truth = {
        "ventricles": radius < 22,
        "white matter": (radius >= 22) & (radius < 58),
        "cortex": (radius >= 58) & (radius < 68),
    }
    t1w = np.select([truth[n] for n in ("ventricles", "white matter", "cortex")], [0.05, 0.7, 0.45], 0.1)
    t1w += np.random.default_rng(0).normal(0, 0.03, t1w.shape)
    brain = radius < 70
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    grid = Volume(brain.astype(np.uint8), affine)
    prepared = SimpleNamespace(mask=grid, grid=grid.grid, t1w=Volume((t1w * brain).astype(np.float32), affine))
    lesions = np.zeros(brain.shape, bool)
    lesions[20:24, 38, 38] = True
    found = tissues(prepared, lesions)
    for name, mask in found.items():
        assert (mask & truth[name]).sum() / mask.sum() > 0.98, name
        assert (mask & truth[name]).sum() / truth[name].sum() > 0.5, name
        assert not (mask & lesions).any()
    assert all(np.array_equal(a, b) for a, b in zip(tissues(prepared, lesions).values(), found.values()))


def test_patient_end_to_end(head, lesion_file: Path, tiny_bundle: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "patient"
    code = run(
        main,
        [
            "--t1w",
            str(head.t1w),
            "--flair",
            str(head.flair),
            "--lesions",
            str(lesion_file),
            "--brain-mask",
            str(head.mask),
            "--bundle",
            str(tiny_bundle),
            "--seeds",
            "2",
            "--steps",
            "2",
            "--device",
            "cpu",
            "--out",
            str(out),
        ],
    )
    told = capsys.readouterr()
    assert code == 0, told.err
    assert "white matter" in told.out
    assert {p.name for p in out.iterdir()} == {
        "psr.nii.gz",
        "psr.json",
        "psr_uncertainty.nii.gz",
        "patient.json",
        "patient.csv",
        "patient_regions.csv",
        "patient.png",
    }
    described = json.loads((out / "patient.json").read_text())
    psr, lesions = (nib.load(p).get_fdata() for p in (out / "psr.nii.gz", lesion_file))
    assert described["regions"]["lesions"]["median"] == pytest.approx(np.median(psr[lesions > 0]), abs=1e-6)
    regions = pd.read_csv(out / "patient_regions.csv").set_index("region")
    assert regions.loc["lesions", "median"] == pytest.approx(np.median(psr[lesions > 0]), rel=1e-5)
    assert regions.loc["lesions", "quartile_high"] == pytest.approx(np.quantile(psr[lesions > 0], 0.75), rel=1e-5)
    assert described["lesion_count"] == 2
    assert 0 <= described["lesion_auc"] <= 1
    # The judge's table: the map, and the images themselves. Without a fitted model no baseline.
    judged = pd.read_csv(out / "patient.csv").set_index("image")
    assert list(judged.index) == ["DEMIST", "T1w", "FLAIR"]
    for name, row in judged.iterrows():
        assert re.search(rf"(?m)^{name} +{row['auc']:.3f}", told.out)
    assert (
        run(
            main, ["--t1w", str(head.t1w), "--flair", str(head.flair), "--lesions", str(lesion_file), "--out", str(out)]
        )
        == 2
    )
    assert "--overwrite" in capsys.readouterr().err


def test_patient_beside_the_linear_model(head, lesion_file: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    from DEMISTCore.baselines.linear import LinearModel
    from DEMISTCore.evaluation.judge import Judge
    from DEMISTCore.preprocess import prepare

    model = LinearModel(np.array([0.1, -0.02, *[0.01] * 8]), 0.08, 4.0)
    model.save(tmp_path / "linear.npz")
    described = evaluate_patient(
        head.t1w,
        head.flair,
        lesion_file,
        tmp_path / "out",
        bundle=tiny_bundle,
        brain_mask=head.mask,
        seeds=1,
        steps=1,
        device="cpu",
        linear=tmp_path / "linear.npz",
    )
    judged = {row["image"]: row for row in described["judged"]}
    assert list(judged) == ["DEMIST", "linear model", "T1w/FLAIR ratio", "T1w", "FLAIR"]
    prepared = prepare(head.t1w, head.flair, brain_mask=head.mask, spacing=4.0, multiple=8)
    psr = prepared.to_native(model.predict(prepared.array, prepared.mask.array)).array
    t1w, flair, lesions, mask = (
        nib.load(path).get_fdata(dtype=np.float32) for path in (head.t1w, head.flair, lesion_file, head.mask)
    )
    judge = Judge.of(np.where(mask > 0, t1w, 0), lesions, (3.5, 3.5, 3.5))
    assert judged["linear model"]["auc"] == pytest.approx(judge.auc(psr))
    assert judged["linear model"]["wm"] == pytest.approx(np.median(psr[judge.distant_white]))
    assert judged["FLAIR"]["auc"] == pytest.approx(judge.auc(flair, lesions_dark=False))
    assert not (tmp_path / "out/linear.npz").exists()


@pytest.mark.parametrize(("what", "words"), [("empty", "is empty"), ("elsewhere", "does not overlap")])
def test_lesion_masks_that_cannot_be_used(head, lesion_file, tiny_bundle, tmp_path, what: str, words: str) -> None:
    image = nib.load(lesion_file)
    affine = image.affine.copy()
    affine[:3, 3] += 5000 * (what == "elsewhere")
    path = tmp_path / "mask.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * np.uint8(what != "empty"), affine), path)
    with pytest.raises(InputError, match=words):
        evaluate_patient(head.t1w, head.flair, path, tmp_path / "out", bundle=tiny_bundle)
    assert not (tmp_path / "out").exists()


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Give either --data"),
        (["--data", "x", "--t1w", "y"], "Give either --data"),
        (["--t1w", "y"], "three images"),
        (["--data", "no-such-folder"], "There is no folder no-such-folder"),
        (["--data", "DATA", "--grid", "moon"], "choose truth or model"),
        (["--data", "DATA", "--preprocess", "none"], "choose simulated or masked or full"),
        (["--data", "DATA", "--seeds", "0"], "at least 1"),
        (["--data", "DATA", "--subjects", "0"], "at least 1"),
        (["--data", "DATA", "--compare", "x"], "NAME=BUNDLE"),
        (["--data", "DATA", "--bundle", "no-such-bundle"], "no-such-bundle"),
        (["--data", "DATA", "--device", "toaster"], "toaster"),
        (["--data", "DATA", "--out", "USED"], "in use"),
        (["--data", "DATA", "--linear", "no-such-file.npz"], "no-such-file.npz cannot be read"),
        (["--data", "DATA", "--linear", "DATA"], "holds no scans prepared"),
        (["--data", "DATA", "--shifted", "no-such-folder"], "There is no folder no-such-folder"),
    ],
)
def test_bad_input_is_one_sentence(arguments, words, cohort, tiny_bundle, tmp_path, capsys) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "thesis.txt").write_text("mine")
    out = tmp_path / "out"
    names = {"DATA": str(cohort), "USED": str(used)}
    given_ = [names.get(a, a) for a in arguments]
    if "--bundle" not in given_:
        given_ += ["--bundle", str(tiny_bundle)]
    assert run(main, ["--out", str(out), *given_]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert "Traceback" not in said
    assert not out.exists()


def test_truth_without_segmentation_names_the_file(cohort: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    data = tmp_path / "bids"
    shutil.copytree(cohort, data)
    for path in data.glob("derivatives/truth/sub-002/anat/*dseg*"):
        path.unlink()
    with pytest.raises(InputError, match=r"sub-002.*PSRmap.*segmentation"):
        evaluate(data, tmp_path / "out", bundle=tiny_bundle, progress=False)


@pytest.mark.parametrize("module", ["evaluate", "demo.__main__"])
def test_help_loads_nothing_heavy(module: str) -> None:
    code = (
        f"import sys; import DEMISTCore.{module} as m; assert 'usage' in m.parser().format_help();"
        "heavy = {'torch', 'monai', 'scipy', 'matplotlib', 'nibabel', 'pandas', 'sklearn', 'numpy'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
