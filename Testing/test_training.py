"""The trainer: settings, data, loop, stages, export. Resumption and signals are in test_resume.py."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from training_data import write_mini_bids

from DEMISTCore import train
from DEMISTCore.cli import run as run_cli
from DEMISTCore.diffusion import NoiseSchedule
from DEMISTCore.errors import DemistError, InputError
from DEMISTCore.labels import LESION
from DEMISTCore.networks.wiring import always_recompute
from DEMISTCore.training import arrays, checkpoint, data, latents, loop, prepare
from DEMISTCore.training.checkpoint import Run
from DEMISTCore.training.foundation import read_foundation
from DEMISTCore.training.groups import AugmentSettings
from DEMISTCore.training.previews import draw
from DEMISTCore.training.settings import _tree, build, presets, read_yaml, resolve, to_dict
from DEMISTCore.training.stage import Stage
from DEMISTCore.training.stages import STAGES


def train_cli(*words: object) -> int:
    return run_cli(train.main, [str(word) for word in words])


@pytest.fixture(scope="module")
def bids(tmp_path_factory):
    return write_mini_bids(tmp_path_factory.mktemp("bids"), subjects=3, sessions=2)


@pytest.fixture(scope="module")
def runs(bids, tmp_path_factory):
    """All stages, six steps each."""
    root = tmp_path_factory.mktemp("runs")
    common = ("--data", bids, "--config", "tiny", "preview_every=6")
    assert train_cli("autoencoder", "--out", root / "ae", *common) == 0
    assert train_cli("backbone", "--out", root / "bb", "--foundation", root / "ae", *common) == 0
    assert train_cli("demist", "--out", root / "de", "--foundation", root / "bb", *common) == 0
    assert train_cli("decoder", "--out", root / "dc", "--foundation", root / "bb", *common) == 0
    assert train_cli("regression", "--out", root / "re", *common) == 0
    return root


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("preset", presets())
def test_presets_resolve_and_survive_yaml(stage, preset):
    settings = resolve(stage, preset)
    again = build(stage, yaml.safe_load(yaml.safe_dump(to_dict(settings))))
    assert again == settings
    assert isinstance(settings.lr, float)


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_what_a_stage_sets_within_a_group_is_its_default(stage):
    """The mean's slight augmentation was once replaced by the group's own, wide one: 0.8 dB."""
    own = STAGES[stage].settings()
    assert _tree(STAGES[stage].settings) == to_dict(own)
    if hasattr(own, "augment"):
        assert resolve(stage, "small").augment == own.augment


def test_overrides_are_typed_and_nested():
    words = ["lr=1e-4", "steps=10", "patch=32", "preprocess.register=true", "model.psr.latent_channels=4"]
    s = resolve("autoencoder", "tiny", [*words, "betas=[0,1]", "exclude_subjects=[010]"])
    assert s.exclude_subjects == ("010",)  # and not octal 8
    assert (s.lr, s.steps, s.patch, s.preprocess.register) == (1e-4, 10, (32, 32, 32), True)
    assert s.model["psr"]["latent_channels"] == 4
    assert s.betas == (0.0, 1.0)
    assert resolve("demist", "tiny", ["crop=null", "model=small"]).crop is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["stepz=3"], "steps"),
        (["preprocess.registr=true"], "preprocess.register"),
        (["steps=many"], "whole number"),
        (["steps=2.5"], "whole number"),
        (["flip=3"], "true or false"),
        (["patch=[1,2]"], "three numbers"),
        (["steps=0"], "above 0"),
        (["decay=linear"], "cosine"),
        (["model=huge"], "small"),
        (["model=3"], "keys of its own"),
        (["steps"], "key=value"),
        (["patch=[1,"], "not valid"),
        (["ema=1.5"], "below 1"),
        (["steps=null", "max_minutes=null"], "how long"),
    ],
)
def test_bad_overrides_are_one_sentence(words, says):
    with pytest.raises(InputError, match=r".") as error:
        resolve("autoencoder", "tiny", words)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["model.psr.channels=[12,16,16]"], "multiples of norm_groups 8"),
        (["model.backbone.channels=[8,12]"], "multiples of norm_groups 8"),
        (["model.backbone.head_channels=5"], "no multiple of head_channels 5"),
        (["model.backbone.head_channels=0"], "no multiple of head_channels 0"),
        (["model.streams.token_heads=3"], "multiples of token_heads 3"),
        (["model=tiny_mean", "model.mean.token_width=32"], "the same tokens"),
        (["model=tiny_mean", "model.mean.channels=[8,9]"], "multiples of token_heads 2"),
    ],
)
def test_widths_that_do_not_fit_are_one_sentence(bids, tmp_path, capsys, words, says):
    assert train_cli("autoencoder", "--data", bids, "--out", tmp_path / "r", "--config", "tiny", *words) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
    assert error.count("error:") == 1


def test_config_files(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("base: tiny\nlr: 2e-3\nbackbone: {batch: 7}\n")
    assert resolve("backbone", file).batch == 7
    assert resolve("backbone", file).lr == 2e-3
    assert resolve("demist", file).batch == 2
    for text, says in (("a: [1", "YAML"), ("- 1\n", "key: value"), ("base: mine.yaml\n", "no preset"), ("x: 1", "'x'")):
        file.write_text(text)
        with pytest.raises(InputError, match=says):
            resolve("backbone", file)
    file.write_text(f"base: {file}\n")
    with pytest.raises(InputError, match="itself"):
        resolve("backbone", file)
    with pytest.raises(InputError, match="no preset or file"):
        resolve("backbone", tmp_path / "none.yaml")


def test_default_schedule_is_the_diffusion_modules_own():
    settings = resolve("backbone", "tiny")
    assert NoiseSchedule(**settings.schedule, prediction="v") == NoiseSchedule()


# --- data ------------------------------------------------------------------------------------------------------------


def test_index_finds_sessions_and_shared_truth(bids):
    sessions = data.index(bids)
    assert [s.name for s in sessions][:3] == ["sub-001_ses-01", "sub-001_ses-02", "sub-002_ses-01"]
    assert len(sessions) == 6
    assert sessions[0].psr == sessions[1].psr
    assert all(len(s.files) == 6 for s in sessions)


def test_index_says_what_is_missing(tmp_path, caplog):
    with pytest.raises(InputError, match="no folder"):
        data.index(tmp_path / "none")
    with pytest.raises(InputError, match="no sub-"):
        data.index(tmp_path)
    root = write_mini_bids(tmp_path / "bids", subjects=2, size=16)
    next((root / "derivatives").rglob("sub-001*PSRmap*")).unlink()
    assert [s.name for s in data.index(root)] == ["sub-002"]
    assert "sub-001 lacks PSRmap" in caplog.text
    next((root / "sub-002").rglob("*FLAIR*")).unlink()
    with pytest.raises(InputError, match="lacks PSRmap"):
        data.index(root)


def test_split_is_by_subject(bids):
    sessions = data.index(bids)
    for seed in range(5):
        train_part, held = data.split(sessions, resolve("autoencoder", "tiny", [f"seed={seed}"]))
        assert {s.subject for s in train_part}.isdisjoint(s.subject for s in held)
        assert len(train_part) + len(held) == 6
        assert len(held) == 2
    words = ["validation_subjects=[002]", "exclude_subjects=[sub-001]"]
    train_part, held = data.split(sessions, resolve("autoencoder", "tiny", words))
    assert {s.subject for s in train_part} == {"sub-003"}
    with pytest.raises(InputError, match="no subject 'sub-9'"):
        data.split(sessions, resolve("autoencoder", "tiny", ["validation_subjects=[sub-9]"]))
    with pytest.raises(InputError, match="left to train"):
        data.split(sessions, resolve("autoencoder", "tiny", ["exclude_subjects=[001,002,003]", "validation=0"]))


def test_cohort_is_prepared_once_and_truth_is_shared(bids, tmp_path, monkeypatch):
    settings = resolve("autoencoder", "tiny")
    sessions = data.index(bids)[:2]
    entries = prepare.prepare_cohort(sessions, settings, tmp_path)
    x, y, labels = entries[0].x, entries[0].y, entries[0].labels
    assert x.dtype == y.dtype == np.float16
    assert labels.dtype == np.uint8
    assert x.shape[1:] == y.shape == labels.shape
    assert all(n % 16 == 0 for n in y.shape)
    assert np.array_equal(y > 0, (y > 0) & (labels > 0))
    assert 0.1 < np.median(y[labels == 3]) < 0.13
    assert set(np.unique(labels)) == {0, 1, 2, 3, 5}
    assert np.all(labels[tuple(entries[0].voxel_indices("lesion").T)] == LESION)
    assert (entries[0].folder / "y.npy").stat().st_ino == (entries[1].folder / "y.npy").stat().st_ino
    assert not list(tmp_path.rglob(".tmp-*"))

    monkeypatch.setattr(prepare, "_prepare_session", lambda *a: pytest.fail("prepared again"))
    assert prepare.prepare_cohort(sessions, settings, tmp_path) == entries
    other = resolve("autoencoder", "tiny", ["preprocess.spacing=2"])
    assert prepare._entry(sessions[0], other.preprocess, tmp_path).key != entries[0].key


def test_failed_preparation_names_the_session_and_leaves_nothing(bids, tmp_path, monkeypatch):
    monkeypatch.setattr(np, "argwhere", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(InputError, match=r"sub-001_ses-01: .*No space"):
        prepare.prepare_cohort(data.index(bids)[:1], resolve("autoencoder", "tiny"), tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_percent_is_read_as_it_is_and_what_is_no_psr_is_refused(tmp_path):
    import nibabel as nib

    root = write_mini_bids(tmp_path / "bids", subjects=1, size=16)
    settings = resolve("autoencoder", "tiny")
    [fraction] = prepare.prepare_cohort(data.index(root), settings, tmp_path / "cache")
    file = next(root.rglob("*PSRmap*"))
    image = nib.load(file)
    nib.save(nib.Nifti1Image(100 * image.get_fdata(dtype=np.float32), image.affine), file)
    [percent] = prepare.prepare_cohort(data.index(root), settings, tmp_path / "cache")
    assert percent.meta["psr"]["units"] == "percent"
    np.testing.assert_allclose(percent.y, fraction.y, rtol=1e-3)
    nib.save(nib.Nifti1Image(9000 * image.get_fdata(dtype=np.float32), image.affine), file)
    with pytest.raises(InputError, match="no PSR map"):
        prepare.prepare_cohort(data.index(root), settings, tmp_path / "cache")


def test_crop_pads_with_zeros_and_clamps():
    array = np.arange(2 * 4 * 5 * 6).reshape(2, 4, 5, 6)
    padded = np.pad(array, ((0, 0), (3, 3), (3, 3), (3, 3)))
    for start in ((-2, 0, 3), (1, 1, 1), (3, -3, 5)):
        expected = padded[:, start[0] + 3 :, start[1] + 3 :, start[2] + 3 :][:, :3, :4, :2]
        assert np.array_equal(data.crop(array, start, (3, 4, 2)), expected)
    assert data.clamp_start((-1, 9, 2), (4, 4, 8), (8, 8, 4)) == [0, 4, -2]


def test_every_item_once_per_epoch_and_order_by_seed():
    epochs = [[data.pick(7, 0, "x", 7 * e + i) for i in range(7)] for e in range(3)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert epochs[0] != [data.pick(7, 1, "x", i) for i in range(7)]


def test_augmentation_keeps_background_and_varies_contrast():
    x = np.zeros((2, 16, 16, 16), np.float16)
    x[:, 4:12, 4:12, 4:12] = np.linspace(0.2, 0.8, 8)
    settings = resolve("autoencoder", "small").augment
    first, second = (data.augment(x, settings, data.random(0, "a", i)) for i in (0, 1))
    assert np.all(first[x == 0] == 0)
    assert np.array_equal(first, data.augment(x, settings, data.random(0, "a", 0)))
    assert np.abs(first - second)[x != 0].mean() > 0.02
    assert first.min() >= -0.5
    assert first.max() <= 2


def test_only_what_is_brighter_than_tissue_on_the_flair_is_dimmed():
    x = np.zeros((2, 16, 16, 16), np.float32)
    x[:, 4:12, 4:12, 4:12] = np.linspace(0.3, 1.3, 8)
    settings = AugmentSettings(1.0, gain=0, offset=0, gamma=0, bias=0, noise=0, blur=0, highlights=0.8)
    bright, kept = x[1] > 0.62, []
    for i in range(50):
        t1w, flair = data.augment(x, settings, data.random(0, "a", i))
        assert np.allclose(t1w, x[0], atol=1e-6)
        assert np.allclose(flair[x[1] <= 0.52], x[1][x[1] <= 0.52], atol=1e-6)
        assert (np.diff(np.unique(flair.round(5))) > 0).all()
        kept.append(np.ptp(flair[bright]) / np.ptp(x[1][bright]))
    assert min(kept) < 0.3
    assert max(kept) > 0.9
    assert all(0.2 <= share + 1e-5 <= 1 + 2e-5 for share in kept)
    off = data.augment(x, replace(settings, highlights=0.0), data.random(0, "a", 0))
    assert np.allclose(off, x, atol=1e-6)


def test_times_cover_every_stretch_evenly():
    settings = resolve("backbone", "tiny", ["seed=3"])
    times = np.array([latents.draw_time(i, settings, 1000) for i in range(400)])
    assert times.min() >= 0
    assert times.max() < 1000
    for start in range(0, 400, 40):
        counts = np.histogram(times[start : start + 40], 10, (0, 1000))[0]
        assert counts.min() >= 3  # four would be perfect; independent draws often give none
        assert counts.max() <= 5
    settings.focus, settings.focus_share = (0.1, 0.3), 0.6
    times = np.array([latents.draw_time(i, settings, 1000) for i in range(1000)])
    assert np.mean((times >= 100) & (times < 300)) == pytest.approx(0.6 + 0.4 * 0.2, abs=0.02)
    assert np.mean(times >= 900) == pytest.approx(0.04, abs=0.01)
    for words in ("focus=[0.5,0.1]", "focus_share=2"):
        with pytest.raises(InputError, match="focus"):
            resolve("backbone", "tiny", [words])


@pytest.mark.parametrize("kind", ["v", "epsilon"])
def test_weighting_x0_is_the_error_of_the_estimate(kind):
    from DEMISTCore.training.backbone import prediction_error

    schedule = NoiseSchedule(prediction=kind)
    torch.manual_seed(0)
    z, noise, wrong = torch.randn(3, 3, 2, 4, 4, 4)
    t = torch.tensor([100, 400, 700])
    target, z_t = schedule.target(z, noise, t), schedule.add_noise(z, noise, t)
    plain = prediction_error(schedule, target + wrong, z, noise, t, "prediction")
    torch.testing.assert_close(plain, wrong.square().mean())
    in_x0 = prediction_error(schedule, target + wrong, z, noise, t, "x0")
    expected = (schedule.to_x0(target + wrong, z_t, t) - z).square().mean()
    torch.testing.assert_close(in_x0, expected, rtol=1e-4, atol=1e-6)


# --- loop ------------------------------------------------------------------------------------------------------------


def test_ema_is_its_closed_form():
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(5))
    history, decay = [parameter.detach().clone()], 0.5
    ema = loop.Ema({"w": parameter}, decay)
    for n in range(1, 30):
        with torch.no_grad():
            parameter.copy_(torch.randn(5))
        history.append(parameter.detach().clone())
        ema.update(n)
    d = [min(decay, (1 + n) / (10 + n)) for n in range(1, 30)]
    weights = [math.prod(d)] + [(1 - d[k]) * math.prod(d[k + 1 :]) for k in range(29)]
    assert sum(weights) == pytest.approx(1)
    expected = sum(w * h for w, h in zip(weights, history))
    torch.testing.assert_close(ema.average["w"], expected)
    with ema.applied():
        torch.testing.assert_close(parameter.detach(), expected)
    assert torch.equal(parameter.detach(), history[-1])


def test_learning_rate_warms_up_and_decays():
    s = resolve("autoencoder", "tiny", ["warmup=10", "lr_end=0.1"])
    assert loop.learning_rate_factor(0, 0.0, s) == pytest.approx(0.1)
    assert loop.learning_rate_factor(10, 0.5, s) == pytest.approx(0.1 + 0.9 * 0.5)
    assert loop.learning_rate_factor(10, 1.0, s) == pytest.approx(0.1)
    s.decay = "constant"
    assert loop.learning_rate_factor(100, 0.9, s) == 1


class Line(nn.Module):
    """Fit y = 2 x: the smallest objective."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, batch, progress):
        return {"loss": (self.layer(batch["x"]) - 2 * batch["x"].sum(1, keepdim=True)).square().mean()}


class LineStage(Stage):
    score = "loss"
    lr_factors: dict = {}  # noqa: RUF012

    def __init__(self, poison: int | None = None) -> None:
        torch.manual_seed(0)
        self.objectives = {"line": Line()}
        self.poison = poison
        self.seen: list[int] = []

    def batch(self, indices):
        self.seen += indices
        x = torch.stack([torch.from_numpy(data.random(0, i).standard_normal(3, np.float32)) for i in indices])
        return {"x": x * float("nan") if self.poison in indices else x}

    def validate(self, device):
        return {"loss": float(self.objectives["line"].layer.weight.detach().sub(2).abs().mean())}

    def preview(self, path, device):
        pass


def line_run(folder: Path, *words: str) -> Run:
    folder.mkdir()
    return Run(folder, "regression", resolve("regression", "tiny", ["steps=8", "lr=0.05", *words]), None)


def test_accumulated_gradients_equal_the_large_batch(tmp_path):
    weights = []
    for name, words in (("large", ["batch=6"]), ("small", ["batch=2", "accumulate=3"])):
        stage = LineStage()
        assert loop.fit(stage, line_run(tmp_path / name, *words)) == 0
        assert stage.seen[:48] == list(range(48))
        weights.append(stage.objectives["line"].layer.weight.detach())
    torch.testing.assert_close(*weights)


def same_up_to_rounding(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    """AdamW moves a weight by the learning rate even where its gradient is nothing but rounding, of either sign."""
    off = torch.cat([(value - two[name]).abs().flatten() for name, value in one.items()])
    assert (off > 2e-5).float().mean() < 1e-3
    assert off.max() < 2e-4


def test_accumulation_on_the_real_backbone(runs, bids, tmp_path):
    weights = []
    for words in (("batch=4",), ("batch=2", "accumulate=2")):
        out = tmp_path / words[0]
        assert (
            train_cli(
                "backbone",
                "--data",
                bids,
                "--out",
                out,
                "--config",
                "tiny",
                "--foundation",
                runs / "ae",
                f"cache={runs / 'cache'}",
                "steps=3",
                "validate_every=100",
                *words,
            )
            == 0
        )
        weights.append(Run.read(out).weights("weights"))
    same_up_to_rounding(*weights)


@pytest.mark.slow
def test_two_processes_equal_one(runs, bids, tmp_path):
    """Data-parallel training shares out the same samples: two processes of batch 1 are one of batch 2."""
    words = [
        str(word)
        for word in (
            "backbone",
            "--data",
            bids,
            "--config",
            "tiny",
            "--foundation",
            runs / "ae",
            f"cache={runs / 'cache'}",
            "steps=2",
            "device=cpu",
            "validate_every=100",
        )
    ]
    assert train_cli(*words, "--out", tmp_path / "one", "batch=2") == 0
    two = [sys.executable, "-m", "DEMISTCore.train", *words, "--out", str(tmp_path / "two"), "batch=1", "devices=2"]
    done = subprocess.run(two, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    one, two = (Run.read(tmp_path / name).weights("weights") for name in ("one", "two"))
    same_up_to_rounding(one, two)


def test_nan_stops_with_the_last_good_checkpoint(tmp_path):
    run = line_run(tmp_path / "run", "batch=2", "save_every=2", "steps=20")
    with pytest.raises(DemistError, match=r"step 5: loss is nan; the last good checkpoint is .*step-00000004"):
        loop.fit(LineStage(poison=11), run)
    weights, _, state = checkpoint.load(run.latest())
    assert state["step"] == 4
    assert all(torch.isfinite(w).all() for w in weights.values())


def test_nan_gradient_stops_too(tmp_path):
    stage = LineStage()
    stage.objectives["line"].layer.weight.register_hook(lambda g: g * float("inf"))
    with pytest.raises(DemistError, match=r"gradient of line.*no checkpoint yet"):
        loop.fit(stage, line_run(tmp_path / "run"))


def test_nan_is_exit_code_2(bids, tmp_path, monkeypatch, capsys):
    from DEMISTCore.training.regression import RegressionStage

    plain = RegressionStage.batch
    monkeypatch.setattr(
        RegressionStage, "batch", lambda self, i: {k: v * float("nan") for k, v in plain(self, i).items()}
    )
    assert train_cli("regression", "--data", bids, "--out", tmp_path / "r", "--config", "tiny") == 2
    assert "error: Training stopped at step 0: loss is nan" in capsys.readouterr().err


def test_time_budget_ends_the_run_and_drives_the_cosine(tmp_path):
    run = line_run(
        tmp_path / "run",
        "steps=null",
        "max_minutes=0.03",
        "log_every=1",
        "validate_every=1000000",
        "preview_every=1000000",
    )
    assert loop.fit(LineStage(), run) == 0
    rates = [float(value) for _, _, tag, value in read_metrics(run.folder) if tag == "train/lr"]
    assert len(rates) > 5
    assert rates[-1] < 0.2 * max(rates)


def test_what_follows_the_last_step_is_part_of_the_time(tmp_path, monkeypatch):
    monkeypatch.setattr(LineStage, "validate", lambda self, device: time.sleep(0.5) or {"loss": 1.0})
    run = line_run(tmp_path / "run", "steps=null", "max_minutes=0.05", "validate_every=3", "preview_every=1000000")
    began = time.monotonic()
    assert loop.fit(LineStage(), run) == 0
    assert time.monotonic() - began < 3.3  # 3 s, and what a machine may dawdle


def test_what_was_fitted_before_the_first_step_is_part_of_the_time(tmp_path):
    stage = LineStage()
    stage.fitted_seconds = 600.0
    run = line_run(tmp_path / "run", "steps=null", "max_minutes=10.02", "validate_every=1000000")
    began = time.monotonic()
    assert loop.fit(stage, run) == 0
    assert time.monotonic() - began < 5  # of the ten minutes a second is left
    assert 600 < checkpoint.newest(run.folder)[2]["elapsed"] < 610
    assert loop.fit(stage, run, resume=True) == 0  # remembered, and not counted twice
    assert checkpoint.newest(run.folder)[2]["elapsed"] < 615


def test_previews_are_images_of_the_board(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def preview(self, path, device):
        draw(path, [("psr", np.full((8, 8, 8), 0.1), "psr")])

    monkeypatch.setattr(LineStage, "preview", preview)
    run = line_run(tmp_path / "run", "preview_every=4", "validate_every=100")
    assert loop.fit(LineStage(), run) == 0
    board = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    assert [image.step for image in board.Images("preview")] == [4, 8]


def test_metrics_checkpoints_and_best(tmp_path):
    run = line_run(tmp_path / "run", "save_every=2", "validate_every=2", "log_every=2")
    assert loop.fit(LineStage(), run) == 0
    assert [p.name for p in checkpoint.checkpoints(run.folder)] == ["step-00000006", "step-00000008"]
    rows = read_metrics(run.folder)
    assert [int(r[0]) for r in rows if r[2] == "validation/loss"] == [2, 4, 6, 8]
    assert [int(r[0]) for r in rows if r[2] == "train/line/loss"] == [2, 4, 6, 8]
    assert list((run.folder / "tensorboard").glob("events*"))
    best = checkpoint.read_tensors(run.folder / "best.safetensors")
    assert best.keys() == run.weights().keys()
    assert torch.equal(best["layer.weight"], run.weights()["layer.weight"])  # it kept getting better


def read_metrics(folder: Path) -> list[list[str]]:
    with (folder / "metrics.csv").open() as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["step", "minutes", "tag", "value"]
    return rows[1:]


def test_failed_save_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    tensors = {"w": torch.ones(3)}
    checkpoint.save(tmp_path, 1, tensors, tensors, {"step": 1})
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(InputError, match="No space"):
        checkpoint.save(tmp_path, 2, tensors, tensors, {"step": 2})
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


def test_damaged_checkpoint_is_one_sentence(tmp_path):
    tensors = {"w": torch.ones(3)}
    folder = checkpoint.save(tmp_path, 1, tensors, tensors, {"step": 1})
    (folder / "state.pt").write_bytes(b"garbage")
    with pytest.raises(InputError, match="damaged"):
        checkpoint.load(folder)
    checkpoint.save(tmp_path, 1, tensors, tensors, {"step": 1})
    (folder / "weights.safetensors").write_bytes(b"garbage")
    with pytest.raises(InputError, match="damaged"):
        checkpoint.load(folder)


def test_recomputed_activations_give_the_same_gradients():
    from DEMISTCore.networks.autoencoder import build_autoencoder
    from DEMISTCore.networks.config import PRESETS

    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        network = build_autoencoder(PRESETS["tiny"].psr)
        if recompute:
            assert always_recompute(network, loop.RECOMPUTED) > 3
        network(torch.ones(1, 1, 16, 16, 16).cumsum(2))[0].square().mean().backward()
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


# --- stages ----------------------------------------------------------------------------------------------------------


def test_run_folders_are_complete(runs):
    for name in ("ae", "bb", "de", "re"):
        run = Run.read(runs / name)
        assert checkpoint.step_of(run.latest()) == 6
        assert (run.folder / "previews/step-00000006.png").stat().st_size > 1000
        assert (run.folder / "best.safetensors").is_file()
        assert "Done: 6 steps" in (run.folder / "train.log").read_text()
        tags = {row[2] for row in read_metrics(run.folder)}
        assert {"train/lr", "train/seconds"} <= tags
        assert any(tag.startswith("validation/") for tag in tags)
    assert not list(runs.rglob(".tmp-*"))


def test_autoencoder_terms_and_warm_up_of_the_adversary(runs):
    rows = read_metrics(runs / "ae")
    tags = {row[2] for row in rows}
    for part in ("psr", "condition", "kl", "edge", "align", "adversarial"):
        assert f"train/autoencoder/{part}" in tags
    discriminator = [float(r[3]) for r in rows if r[2] == "train/discriminator/loss"]
    assert discriminator[0] == 0  # steps 1 and 2 come before adversarial_start=0.3
    assert discriminator[-1] > 0
    assert {"psr_psnr", "condition_rmse"} <= {t.removeprefix("validation/") for t in tags}


def test_frozen_backbone_and_trained_streams(runs):
    before = read_foundation(runs / "bb", need_backbone=True)
    assert "The frozen backbone is unchanged" in (runs / "de/train.log").read_text()
    assert "semantic" in (runs / "de/train.log").read_text()  # the parameter table
    weights = Run.read(runs / "de").weights("weights")
    assert weights
    assert not any("backbone" in name for name in weights)
    moved = [name for name, value in weights.items() if ("lora" in name or "zero" in name) and value.abs().max() > 0]
    assert moved or any(value.abs().max() > 0 for value in weights.values())
    assert json.loads((runs / "de/scales.json").read_text())["latent_scale"] == before.latent_scale


def test_a_changed_backbone_would_be_noticed(runs, bids):
    from DEMISTCore.training.demist import DemistStage

    stage = make_demist_stage(runs, bids)
    assert isinstance(stage, DemistStage)
    stage.finish()
    with torch.no_grad():
        next(stage.demist.backbone.parameters()).mul_(1 + 1e-6)
    with pytest.raises(DemistError, match="frozen backbone has changed"):
        stage.finish()


def make_demist_stage(runs, bids, *words):
    from DEMISTCore.networks.config import ModelConfig
    from DEMISTCore.training.demist import DemistStage

    s = resolve("demist", "tiny", words)
    train_part, held = data.split(data.index(bids), s)
    entries = prepare.prepare_cohort([*train_part, *held], s, runs / "cache")
    foundation = read_foundation(runs / "bb", need_backbone=True)
    cut = len(train_part)
    return DemistStage(ModelConfig.from_dict(s.model), s, foundation, entries[:cut], entries[cut:], runs / "cache")


def test_latents_of_brain_have_variance_one_and_are_cached(runs, bids, monkeypatch):
    stage = make_demist_stage(runs, bids)
    values = []
    for item in stage.train:
        brain = np.asarray(item.prepared.labels)[::1] > 0
        blocks = [side for n in brain.shape for side in (n // 4, 4)]
        inside = brain.reshape(blocks).mean((1, 3, 5)) > 0.5
        values.append(np.asarray(item.z[0], np.float64)[:, inside].ravel() * stage.latent_scale)
    assert np.concatenate(values).std() == pytest.approx(1, abs=1e-3)
    assert not np.array_equal(stage.train[0].z[0], stage.train[0].z[1])  # the second is the flipped copy
    monkeypatch.setattr(latents, "encode", lambda *a: pytest.fail("encoded again"))
    make_demist_stage(runs, bids)


def test_decoded_box_lies_where_its_truth_does(runs, bids, tmp_path, monkeypatch):
    """Latents replaced by block means of y: at the box, they must be the block means of the box's y, flipped or not."""
    stage = make_demist_stage(runs, bids, "decode_every=1", "crop=[4,8,4]", "batch=1")
    blocks = {}
    for item in stage.train:
        for flip in (0, 1):
            y = np.asarray(item.prepared.y, np.float32)
            y = np.flip(y, 0) if flip else y
            shape = [side for n in y.shape for side in (n // 4, 4)]
            blocks[item.folder, flip] = y.reshape(shape).mean((1, 3, 5))
    monkeypatch.setattr(
        latents.Latents, "z", property(lambda self: np.stack([blocks[self.folder, f][None] for f in (0, 1)]))
    )
    stage.latent_scale = 1.0
    seen = set()
    for i in range(24):
        batch = stage.batch(range(i, i + 1))
        start, size = batch["decode_start"][0].tolist(), stage.settings.decode
        z = batch["z"][0, 0][tuple(slice(a, a + n) for a, n in zip(start, size))]
        y = batch["decode_y"][0, 0].numpy() * 0.2
        shape = [side for n in y.shape for side in (n // 4, 4)]
        np.testing.assert_allclose(z, y.reshape(shape).mean((1, 3, 5)), atol=1e-3)
        assert ((batch["decode_labels"][0, 0].numpy() > 0) | (y == 0)).all()
        seen.add(float(z.sum()) > 0)
    assert True in seen


def test_offset_is_zero_in_the_middle(runs, bids):
    stage = make_demist_stage(runs, bids)
    crop = latents.draw_crop(stage.train, stage.settings, 0, data.random(0, "x"), "k")
    shape = np.array(crop.shape)
    middle = latents.Crop(crop.latents, 0, 0, tuple((shape - 4) // 2), (4, 4, 4))
    corner = latents.Crop(crop.latents, 0, 0, (0, 0, 0), (4, 4, 4))
    assert np.array_equal(middle.offset, [0, 0, 0])
    assert np.array_equal(corner.offset, 2 - shape / 2)
    beyond = latents.Crop(crop.latents, 0, 0, (-2, 0, 0), (4, 4, 4)).read(crop.latents.z[0])
    assert np.array_equal(beyond[:, 0], beyond[:, 2])  # beyond the edge the edge goes on


def test_gradients_reach_every_stream_and_only_them(runs, bids):
    stage = make_demist_stage(
        runs, bids, "decode_every=1", "dropout_semantic=0", "dropout_spatial=0", "dropout_adaptive=0"
    )
    losses = stage.objective(stage.batch(range(4)), 0.0)
    assert losses.keys() >= {"loss", "noise", "edge", "tissue"}
    weights = {name: getattr(stage.settings, f"lambda_{name}", 1.0) for name in losses if name != "loss"}
    assert (weights["noise"], weights["edge"], weights["tissue"]) == (1.0, 0.1, 0.5)
    torch.testing.assert_close(losses["loss"], sum(weight * losses[name] for name, weight in weights.items()))
    losses["loss"].backward()
    assert all(p.grad is None for p in stage.demist.backbone.parameters())
    assert all(p.grad is None for p in stage.objective.decoder.parameters())
    for name, parameters in stage.demist.stream_parameters().items():
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in parameters), name


def test_the_estimate_trains_alone_at_first(runs, bids):
    stage = make_demist_stage(runs, bids, "estimate_first=0.5")
    batch = stage.batch(range(2))
    losses = stage.objective(batch, 0.49)
    losses["loss"].backward()
    given = {name for name, p in stage.demist.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert given
    assert all(name.startswith("spatial.estimate.") for name in given)
    error = (stage.demist.spatial.estimate(batch["c"]) - batch["z"]).square().mean()
    torch.testing.assert_close(losses["loss"], error)
    assert "noise" in stage.objective(batch, 0.5)


def test_noise_on_the_latent_before_decoding(runs, bids, tmp_path):
    """Half of the samples get it, up to the asked share of the latent's own spread, added to the encoder's own."""
    from DEMISTCore.networks.config import PRESETS
    from DEMISTCore.training.autoencoder import AutoencoderStage, spread_of

    s = resolve("autoencoder", "tiny", ["steps=1", "latent_noise=0.5", "patch=16", f"cache={runs / 'cache'}"])
    prepared = prepare.prepare_cohort(data.index(bids), s, runs / "cache")
    stage = AutoencoderStage(PRESETS["tiny"], s, prepared, [])
    spread = torch.cat([stage.batch(range(i, i + 20))["z_spread"] for i in range(0, 100, 20)])
    assert 0.35 < (spread == 0).float().mean() < 0.65
    assert 0.6 < spread.max() <= 1
    mu = torch.randn(2, 4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    sigma = torch.full_like(mu, 0.1)
    got = spread_of(mu, sigma, {"z_spread": torch.tensor([0.0, 0.8])}, s.latent_noise)
    torch.testing.assert_close(got[0], sigma[0])
    torch.testing.assert_close(got[1], (sigma[1] ** 2 + (0.4 * mu.std()) ** 2).sqrt())


def test_dropout_follows_the_samples_not_the_batch(runs, bids):
    stage = make_demist_stage(runs, bids, "dropout_semantic=0.5", "dropout_all=0.2")
    keep = torch.cat([stage.batch(range(i, i + 4))["keep"] for i in range(0, 80, 4)])
    assert torch.equal(keep, torch.cat([stage.batch(range(i, i + 1))["keep"] for i in range(80)]))
    share = keep.mean(0)
    assert 0.25 < share[0] < 0.55  # 0.5 * 0.8
    assert 0.55 < share[1] < 0.9  # 0.9 * 0.8


def test_what_training_drops_adds_nothing(runs, bids):
    """Of a batch without streams the loss is the frozen backbone's; without one, that of the model without it."""
    from DEMISTCore.networks.demist import ALL
    from DEMISTCore.training.backbone import prediction_error

    stage = make_demist_stage(runs, bids, "decode_every=0", "lambda_estimate=0")
    objective, demist = stage.objective.eval(), stage.demist
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in filter(lambda p: p.requires_grad, demist.parameters()):
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        batch = stage.batch(range(2))
        z, noise, t = batch["z"], batch["noise"], batch["t"]
        z_t, condition = stage.schedule.add_noise(z, noise, t), demist.condition(batch["c"], offset=batch["offset"])

        def loss(*keep: float) -> float:
            return float(objective({**batch, "keep": torch.tensor([keep, keep])}, 1.0)["noise"])

        def error(prediction: torch.Tensor) -> float:
            return float(prediction_error(stage.schedule, prediction, z, noise, t, stage.settings.weighting))

        bare = error(demist.backbone(z_t, t))
        assert loss(0, 0, 0) == pytest.approx(bare, rel=1e-4)
        assert loss(1, 1, 1) == pytest.approx(error(demist(z_t, t, condition)), rel=1e-4)
        assert loss(1, 1, 1) != pytest.approx(bare, rel=1e-3)  # ten times what counts as the same
        for i, (name, _) in enumerate(ALL):
            without = error(demist(z_t, t, condition, ALL.without(name)))
            assert loss(*(float(k != i) for k in range(3))) == pytest.approx(without, rel=1e-4)


def test_switched_off_stream_is_not_trained(runs, bids, tmp_path):
    assert (
        train_cli(
            "demist",
            "--data",
            bids,
            "--out",
            tmp_path / "run",
            "--config",
            "tiny",
            "--foundation",
            runs / "bb",
            f"cache={runs / 'cache'}",
            "steps=1",
            "model.streams.spatial=false",
            "lambda_edge=0",
            "lambda_tissue=0",
            "validate_every=100",
        )
        == 0
    )
    run = Run.read(tmp_path / "run")
    assert run.settings.model["streams"]["spatial"] is False
    assert not any("spatial" in name for name in run.weights())
    tags = {row[2] for row in read_metrics(run.folder)}
    assert "train/demist/edge" not in tags


def test_init_starts_from_given_weights(runs, bids, tmp_path):
    assert (
        train_cli(
            "autoencoder",
            "--data",
            bids,
            "--out",
            tmp_path / "run",
            "--config",
            "tiny",
            "--init",
            runs / "ae",
            f"cache={runs / 'cache'}",
            "steps=1",
            "lr=1e-12",
            "weight_decay=0",
        )
        == 0
    )
    old, new = Run.read(runs / "ae").weights(), Run.read(tmp_path / "run").weights("weights")
    for name, value in old.items():
        torch.testing.assert_close(new[f"autoencoder/{name}"], value, atol=1e-6, rtol=1e-5)


def test_a_decoder_run_moves_the_decoder_alone(runs, tmp_path):
    from DEMISTCore.bundle import load_bundle

    before, after = read_foundation(runs / "bb"), read_foundation(runs / "dc")
    old, new = before.psr.state_dict(), after.psr.state_dict()
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert all(n.startswith(("decoder.", "post_quant_conv.", "shortcut.to_image.")) for n in moved)
    assert any(name.startswith("decoder.") for name in moved)
    for part in ("condition", "backbone"):
        assert loop.frozen_hash(getattr(before, part)) == loop.frozen_hash(getattr(after, part))
    assert (after.latent_scale, after.schedule) == (before.latent_scale, before.schedule)
    scores = (runs / "dc" / "metrics.csv").read_text()
    assert "validation/psr_sharpness" in scores
    assert "decoder/adversarial" in scores

    # Streams that were trained on the backbone run fit: their latents are the same.
    assert (
        train_cli(
            "export",
            runs / "dc",
            runs / "de",
            "--out",
            tmp_path / "sharp",
            "--storage",
            "fp32",
            "--sampling",
            "steps=3",
            "guidance=1.2",
            "guidance.spatial=1.1",
        )
        == 0
    )
    bundle = load_bundle(tmp_path / "sharp")
    assert (bundle.sampling["steps"], bundle.sampling["guidance"]) == (3, {"all": 1.2, "spatial": 1.1})
    assert set(bundle.base.info["training"]["stages"]) == {"autoencoder", "backbone", "decoder"}
    z = torch.randn(1, 4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(bundle.autoencoder_psr.decode(z), after.psr.decode(z), atol=1e-5, rtol=1e-4)
    assert train_cli("export", runs / "bb", runs / "dc", "--out", tmp_path / "two") == 2


def test_export_round_trip(runs, bids, tmp_path):
    from DEMISTCore.bundle import load_bundle

    assert (
        train_cli(
            "export",
            runs / "bb",
            runs / "de",
            "--out",
            tmp_path / "mini",
            "--storage",
            "fp32",
            "--description",
            "A test.",
        )
        == 0
    )
    bundle = load_bundle(tmp_path / "mini")
    assert bundle.base.name == "mini-base"
    stage = make_demist_stage(runs, bids)
    weights = Run.read(runs / "de").weights()
    with torch.no_grad():
        for name, parameter in stage.objective.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(weights[name])
    torch.manual_seed(0)
    z, c, t = torch.randn(1, 4, 4, 4, 4), torch.randn(1, 4, 4, 4, 4), torch.tensor([500])
    stage.demist.eval()
    with torch.no_grad():
        expected = stage.demist(z, t, stage.demist.condition(c))
        torch.testing.assert_close(bundle.demist(z, t, bundle.demist.condition(c)), expected, atol=1e-5, rtol=1e-4)
    assert bundle.latent_scale == pytest.approx(stage.latent_scale)
    assert bundle.schedule == stage.schedule
    assert (tmp_path / "mini/demist.csv").is_file()
    assert (tmp_path / "mini-base/autoencoder.yaml").is_file()
    text = "".join(p.read_text() for p in tmp_path.rglob("*.json")) + "".join(
        p.read_text() for p in tmp_path.rglob("*.yaml")
    )
    assert str(runs) not in text  # no path of the machine
    assert str(bids.parent) not in text
    stages = bundle.base.info["training"]["stages"]
    assert stages["autoencoder"]["steps"] == stages["backbone"]["steps"] == 6
    # A foundation bundle serves as --foundation, and a demist run alone as a delta over it.
    assert (
        train_cli(
            "demist",
            "--data",
            bids,
            "--out",
            tmp_path / "run",
            "--config",
            "tiny",
            "--foundation",
            tmp_path / "mini-base",
            f"cache={runs / 'cache'}",
            "steps=1",
        )
        == 0
    )
    assert train_cli("export", tmp_path / "run", "--out", tmp_path / "delta", "--base", tmp_path / "mini-base") == 0
    assert load_bundle(tmp_path / "delta").base.hash == bundle.base.hash


def test_regression_predicts_whole_volumes(runs):
    from DEMISTCore.training.regression import load_regression

    model = load_regression(runs / "re")
    x = np.random.default_rng(0).standard_normal((2, 32, 48, 32)).astype(np.float32)
    mask = np.zeros((32, 48, 32), np.uint8)
    mask[8:24, 8:40, 8:24] = 1
    psr = model.predict(x, mask)
    assert psr.shape == mask.shape
    assert psr.dtype == np.float32
    assert np.all(psr[mask == 0] == 0)
    assert np.array_equal(psr, model.predict(x, mask))
    with torch.no_grad():  # where a single window covers the volume, blending changes nothing
        direct = model.network(torch.from_numpy(x[:, :, :32])[None])[0, 0].numpy() * 0.2
    np.testing.assert_allclose(model.predict(x[:, :, :32]), direct, atol=1e-6)
    with pytest.raises(InputError, match="run of regression"):
        load_regression(runs / "ae")


def test_default_regression_is_of_like_size():
    from DEMISTCore.baselines.regression import build_regression

    count = sum(p.numel() for p in build_regression(resolve("regression").channels).parameters())
    assert 8e6 < count < 12e6


# --- bad input -------------------------------------------------------------------------------------------------------


def test_bad_input_is_one_sentence_and_exit_code_2(runs, bids, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    out = tmp_path / "out"
    common = ["--out", out, "--config", "tiny"]
    cases = [
        (["autoencoder", "--data", bids, "--out", runs / "ae"], "in use"),
        (["autoencoder", *common], "--data"),
        (["autoencoder", "--data", empty, *common], "no subject to train on"),
        (["autoencoder", "--data", tmp_path / "none", *common], "no folder"),
        (["autoencoder", "--data", bids, *common, "lrr=1"], "did you mean lr?"),
        (["autoencoder", "--data", bids, *common, "model.psr.norm=batch"], "do not fit together"),
        (["autoencoder", "--data", bids, *common, "precision=fp16", f"cache={runs / 'cache'}"], "fp16"),
        (["backbone", "--data", bids, *common], "autoencoder run"),
        (["backbone", "--data", bids, *common, "--foundation", tmp_path / "none"], "neither a training run nor"),
        (["backbone", "--data", bids, *common, "--foundation", runs / "de"], "autoencoder or backbone run"),
        (["demist", "--data", bids, *common, "--foundation", runs / "ae"], "autoencoders only"),
        (
            [
                "backbone",
                "--data",
                bids,
                *common,
                "--foundation",
                runs / "ae",
                "crop=[3,4,4]",
                f"cache={runs / 'cache'}",
            ],
            "multiples of 2",
        ),
        (
            [
                "demist",
                "--data",
                bids,
                *common,
                "--foundation",
                runs / "bb",
                "decode=[4,4,4]",
                f"cache={runs / 'cache'}",
            ],
            "must fit into crop",
        ),
        (["regression", "--data", bids, *common, "patch=[20,20,20]", f"cache={runs / 'cache'}"], "multiples of 16"),
        (["autoencoder", "--out", empty, "--resume"], "not a training run"),
        (["backbone", "--out", runs / "ae", "--resume"], "a run of autoencoder"),
        (["autoencoder", "--out", runs / "ae", "--resume", "lr=1"], "lr cannot change"),
        (["autoencoder", "--out", runs / "ae", "--resume", "--config", "tiny"], "own configuration"),
        (["autoencoder", "--data", bids, *common, "--init", runs / "bb", f"cache={runs / 'cache'}"], "not of auto"),
        (["export", runs / "ae", "--out", out], "one backbone"),
        (["export", runs / "de", "--out", out], "--base"),
        (["export", empty, "--out", out], "not a training run"),
    ]
    for words, says in cases:
        capsys.readouterr()
        assert train_cli(*words) == 2, words
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert says in errors[0], errors
        assert not out.exists(), words


def test_damaged_run_configuration(runs, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for text, says in (("stage: [", "YAML"), ("stage: autoencoder\n", "damaged"), ("a: 1", "damaged")):
        (run / "config.yaml").write_text(text)
        with pytest.raises(InputError, match=says):
            Run.read(run)
    content = read_yaml(runs / "ae/config.yaml")
    content["settings"]["nonsense"] = 1
    (run / "config.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match="nonsense"):
        Run.read(run)


def test_help_and_keys(capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(["demist", "--help"])
    assert stop.value.code == 0
    assert "--foundation" in capsys.readouterr().out
    assert train_cli("demist", "--list-keys", "steps=7") == 0
    assert yaml.safe_load(capsys.readouterr().out)["steps"] == 7
    with pytest.raises(SystemExit) as stop:
        train.main(["demist", "--out", "x", "--bogus"])
    assert stop.value.code == 2


os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)


def test_arrays_are_mapped_as_numpy_does_and_headers_are_read_once(tmp_path, monkeypatch):
    from DEMISTCore.training import arrays

    rng = np.random.default_rng(0)
    for array in (
        rng.random((2, 3, 4)).astype(np.float16),
        np.asfortranarray(rng.random((5, 4))),
        np.arange(6, dtype=np.uint8),
    ):
        np.save(tmp_path / "a.npy", array)
        found = arrays.mapped(tmp_path / "a.npy")
        assert isinstance(found, np.memmap)
        assert found.dtype == array.dtype
        assert found.flags.f_contiguous == array.flags.f_contiguous
        np.testing.assert_array_equal(found, np.load(tmp_path / "a.npy"))
    monkeypatch.setattr(arrays.npy, "read_magic", lambda _: pytest.fail("read again"))  # what two threads must not do
    np.testing.assert_array_equal(arrays.mapped(tmp_path / "a.npy"), array)
    monkeypatch.undo()
    np.save(tmp_path / "o.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="objects"):
        arrays.mapped(tmp_path / "o.npy")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-3])
    with pytest.raises(ValueError, match="greater than file size"):
        arrays.mapped(tmp_path / "cut.npy")


def test_what_is_kept_beside_a_scan_is_never_half_there(tmp_path, monkeypatch):
    file, array = tmp_path / "wide.npy", np.arange(6, dtype=np.float16).reshape(2, 3)
    plain = np.save

    def stopped(path, array):
        plain(path, array[:1])
        assert not file.exists()  # another process would read it now
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", stopped)
    with pytest.raises(KeyboardInterrupt):
        arrays.kept(file, lambda: array)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(np, "save", plain)
    np.testing.assert_array_equal(arrays.kept(file, lambda: array), array)
    again = arrays.kept(file, lambda: pytest.fail("made again"))
    np.testing.assert_array_equal(again, array)
    assert again.dtype == np.float16
