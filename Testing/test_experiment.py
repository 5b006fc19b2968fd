"""The experiment as a whole, tiny: every baseline trains and makes maps; a killed run goes on to the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from training_data import write_mini_bids

from DEMISTCore import train
from DEMISTCore.baselines.registry import load_baseline
from DEMISTCore.cli import run as run_cli
from DEMISTCore.errors import InputError
from DEMISTCore.evaluation.cv import Options, cross_validate, report, store
from DEMISTCore.evaluation.cv.folds import Fold
from DEMISTCore.evaluation.cv.recipes import DEMIST_MEAN, DEMIST_SAMPLE
from DEMISTCore.evaluation.cv.runs import check_apart_from, check_external
from DEMISTCore.lock import FolderBusy, FolderLock
from DEMISTCore.training import loop

torch.set_num_threads(1)
BASELINES = ("vae", "ldm", "pix2pix", "cwdm")
TINY = ("--config", "tiny", "steps=2", "validate_every=2", "preview_every=2")


@pytest.fixture(scope="module")
def bids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four people, two of either class."""
    root = write_mini_bids(tmp_path_factory.mktemp("bids"), subjects=4, size=32)
    rows = "".join(f"sub-00{i}\t{'MS' if i % 2 else 'HC'}\n" for i in range(1, 5))
    (root / "participants.tsv").write_text(f"participant_id\tdiagnosis\n{rows}")
    return root


@pytest.fixture(scope="module")
def baselines(bids: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two steps of every baseline, and of the autoencoders below two of them."""
    root = tmp_path_factory.mktemp("runs")
    for stage in ("autoencoder", *BASELINES):
        words = [stage, "--data", bids, "--out", root / stage, *TINY]
        words += ["--foundation", root / "autoencoder"] if stage in ("vae", "ldm") else []
        assert run_cli(train.main, [str(word) for word in words]) == 0
    return root


@pytest.mark.parametrize("stage", BASELINES)
def test_every_baseline_trains_and_makes_maps(stage: str, baselines: Path) -> None:
    x = np.random.default_rng(0).random((2, 32, 32, 32), np.float32)
    mask = np.ones((32, 32, 32), np.uint8)
    mask[:4] = 0
    found, maker = load_baseline(baselines / stage, sampler="ddim", steps=3)
    first, again = (maker.predict(x, mask, seed=1) for _ in range(2))
    assert found == stage
    assert first.shape == mask.shape
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert not first[:4].any()
    assert (first == again).all()
    windows = 8 if stage == "pix2pix" else 1
    other = maker.predict(x, mask, seed=2)
    if stage in ("ldm", "cwdm"):
        assert (other != first).any()
        assert maker.passes >= 3
        assert maker.passes % 3 == 0
    else:
        assert (other == first).all()
        assert 1 <= maker.passes <= windows
    assert maker.parameters > 1000
    assert list((baselines / stage / "previews").glob("*.png"))
    values = pd.read_csv(baselines / stage / "metrics.csv")["value"]
    assert np.isfinite(values).all()


def test_a_baseline_is_no_run_of_another_stage(baselines: Path) -> None:
    from DEMISTCore.baselines.ldm import load_ldm

    with pytest.raises(InputError, match="is a run of vae; give a run of ldm"):
        load_ldm(baselines / "vae")
    with pytest.raises(InputError, match="is a run of autoencoder; a baseline is a run of"):
        load_baseline(baselines / "autoencoder")


def test_a_foundation_that_has_seen_a_tested_person_is_refused(bids: Path, baselines: Path) -> None:
    folds = [Fold(1, ("sub-001", "sub-002"), ("sub-003", "sub-004"))]
    with pytest.raises(InputError, match="was trained on sub-003, whom fold 1"):
        check_external(str(baselines / "autoencoder"), bids, folds)
    with pytest.raises(InputError, match="was trained on sub-003, whom fold 1 tests"):
        check_apart_from(baselines / "pix2pix", folds[0])


# --- the whole of it --------------------------------------------------------------------------------------------------

METHODS = ("demist", "linear", "ratio")
OPTIONS = Options(
    config="tiny",
    steps=4,
    preprocess="simulated",
    sampling_steps=2,
    seeds=2,
    device="cpu",
    precision="fp32",
    overrides=(
        "validate_every=100",
        "save_every=1",
        "backbone.validation_crops=1",
        "demist.validation_crops=1",
        "demist.validation_samples=0",
        "demist.preview_steps=1",
        "backbone.preview_steps=1",
    ),
)


def experiment(bids: Path, out: Path) -> Path | None:
    return cross_validate(bids, out, methods=METHODS, folds=2, options=OPTIONS, progress=False)


@pytest.fixture(scope="module")
def whole(bids: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cv") / "whole"
    assert experiment(bids, out) == out
    return out


def test_every_method_is_measured_on_everybody_once(whole: Path) -> None:
    results = pd.read_csv(whole / "results.csv")
    rows = [DEMIST_MEAN, DEMIST_SAMPLE, "linear model", "T1w/FLAIR ratio"]
    assert list(dict.fromkeys(results["method"])) == rows
    assert (results.groupby("method")["subject"].nunique() == 4).all()
    assert not results.duplicated(["session", "method"]).any()
    assert (
        np.isfinite(
            results[
                [
                    f"{key}_{group}"
                    for key in ("psnr", "ssim", "mse", "mae", "nmse")
                    for group in ("brain", "white", "grey", "lesions")
                ]
            ]
        )
        .all()
        .all()
    )
    assert (results["auc_nawm_difference"] - results["auc_nawm"] + results["truth_auc_nawm"]).abs().max() < 1e-5
    subjects = pd.read_csv(whole / "subjects.csv")
    assert subjects.groupby("fold")["class"].apply(lambda c: sorted(c)).tolist() == [["HC", "MS"]] * 2
    costs = pd.read_csv(whole / "costs.csv").set_index("method")
    assert (costs.loc[DEMIST_MEAN, "training_steps"] == 4).all()
    assert (costs.loc[DEMIST_SAMPLE, "passes"] == 2).all()
    assert (costs.loc[DEMIST_MEAN, "passes"] == 4).all()
    assert (costs.loc["linear model", "parameters"] == 10).all()


def test_pages_say_what_the_tables_hold(whole: Path) -> None:
    text, tex = (whole / "summary.md").read_text(), (whole / "table.tex").read_text()
    mean = pd.read_csv(whole / "summary.csv").set_index("method").loc["linear model", "psnr_brain_mean"]
    assert f"{mean:.2f}" in text
    assert f"{mean:.2f}" in tex
    assert tex.count("\\\\") == 5
    assert "stratified by diagnosis" in text
    for name in ("table.png", "scatter.png", "bland_altman.png", "panel.png", "panel_differences.png"):
        assert (whole / name).read_bytes().startswith(b"\x89PNG")
        assert name in text


def test_killed_three_times_and_gone_on_with_it_is_the_same_to_the_byte(
    bids: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    assert killed(bids, out, loop.Reporter, "train", 4)  # while the streams are trained, between two steps
    assert killed(bids, out, store, "write_json", 3)  # between a scan's numbers and their place
    assert killed(bids, out, report, "markdown", 1)  # while tables are written aside
    assert not (out / "summary.md").exists()
    runs = {path: path.stat().st_mtime_ns for path in out.glob("fold-*/*/checkpoints/*/weights.safetensors")}
    stored = {path: path.stat().st_mtime_ns for path in out.glob("fold-*/results/*/*.json")}
    assert len(stored) == 4 * 4
    experiment(bids, out)
    assert {path: path.stat().st_mtime_ns for path in runs} == runs  # nothing was trained again,
    assert {path: path.stat().st_mtime_ns for path in stored} == stored  # nor measured
    clocked = (".lock", "costs.csv", "costs.md")
    names = sorted(path.name for path in whole.iterdir() if path.is_file() and path.name not in clocked)
    assert "results.csv" in names
    for name in names:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


def test_two_processes_share_the_folds_and_the_last_one_writes_the_tables(
    bids: Path, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "shared"
    with FolderLock(out / "fold-1", "the other process"):
        shutil.copyfile(whole / "cv.json", out / "cv.json")
        assert experiment(bids, out) is None
        assert "Others hold fold 1" in caplog.text
        assert not (out / "summary.md").exists()
        assert sorted(path.name for path in (out / "fold-1").iterdir()) == [".lock"]
    stored = {path: path.stat().st_mtime_ns for path in out.glob("fold-2/results/*/*.json")}
    assert stored
    assert experiment(bids, out) == out
    assert {path: path.stat().st_mtime_ns for path in stored} == stored
    for name in ("results.csv", "summary.csv", "significance.csv", "table.tex"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    with (
        FolderLock(out / "fold-1", "the other process"),
        FolderLock(out / "fold-2", "the other process"),
        pytest.raises(FolderBusy, match="is being written by process"),
    ):
        experiment(bids, out)


def killed(bids: Path, out: Path, where: object, name: str, call: int) -> bool:
    """Run the experiment in a forked process that SIGKILL ends at the so manieth call of ``where.name``."""
    child = os.fork()
    if not child:
        try:
            plain: Callable = getattr(where, name)
            seen = [0]

            def call_and_die(*given: object, **named: object) -> object:
                seen[0] += 1
                if seen[0] == call:
                    os.kill(os.getpid(), signal.SIGKILL)
                return plain(*given, **named)

            setattr(where, name, call_and_die)
            experiment(bids, out)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def test_another_question_takes_another_folder_and_another_method_joins(bids: Path, whole: Path) -> None:
    from dataclasses import replace

    for options, words in ((replace(OPTIONS, steps=5), "another steps"), (replace(OPTIONS, seed=1), "another")):
        with pytest.raises(InputError, match=words):
            cross_validate(bids, whole, methods=METHODS, folds=2, options=options, progress=False)
    before = pd.read_csv(whole / "results.csv")
    cross_validate(bids, whole, methods=[*METHODS, "unet"], folds=2, options=OPTIONS, progress=False)
    after = pd.read_csv(whole / "results.csv")
    assert set(after["method"]) - set(before["method"]) == {"U-Net regression"}
    pd.testing.assert_frame_equal(after[after["method"] != "U-Net regression"].reset_index(drop=True), before)
    against = pd.read_csv(whole / "significance.csv")
    assert "U-Net regression" in set(against["against"])
    assert against["p"].isna().all()  # four people are too few
