"""A stopped run goes on exactly; signals save first."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
import torch
from training_data import write_mini_bids

from DEMISTCore import train
from DEMISTCore.cli import run as run_cli
from DEMISTCore.training import checkpoint, loop
from DEMISTCore.training.checkpoint import Run

torch.set_num_threads(1)


def train_cli(*words: object) -> int:
    return run_cli(train.main, [str(word) for word in words])


@pytest.fixture(scope="module")
def bids(tmp_path_factory):
    return write_mini_bids(tmp_path_factory.mktemp("bids"), subjects=2, sessions=1)


@pytest.fixture(scope="module")
def foundation(bids, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    common = ("--data", bids, "--config", "tiny", "steps=2", "validate_every=100")
    assert train_cli("autoencoder", "--out", root / "ae", *common) == 0
    assert train_cli("backbone", "--out", root / "bb", "--foundation", root / "ae", *common) == 0
    return root


def stop_after(monkeypatch, step: int, number: int = signal.SIGTERM) -> None:
    plain = loop.Reporter.train

    def train_then_stop(self, at, *rest):
        plain(self, at, *rest)
        if at == step:
            signal.raise_signal(number)

    monkeypatch.setattr(loop.Reporter, "train", train_then_stop)


@pytest.mark.parametrize("stage", ["autoencoder", "backbone", "mean", "demist", "decoder", "regression"])
def test_resumed_run_equals_an_uninterrupted_one(stage, bids, foundation, tmp_path, monkeypatch):
    words = [
        "--data",
        bids,
        "--config",
        "tiny",
        f"cache={foundation / 'cache'}",
        "steps=5",
        "decay=cosine",
        "validate_every=2",
        "save_every=100",
    ]
    if stage in ("backbone", "mean", "demist", "decoder"):
        words += ["--foundation", foundation / ("ae" if stage == "backbone" else "bb")]
    if stage == "mean":
        words += ["model=tiny_mean"]
    assert train_cli(stage, "--out", tmp_path / "whole", *words) == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        assert train_cli(stage, "--out", tmp_path / "parts", *words) == 128 + signal.SIGTERM
    assert checkpoint.step_of(Run.read(tmp_path / "parts").latest()) == 3
    assert train_cli(stage, "--out", tmp_path / "parts", "--resume") == 0

    whole, parts = Run.read(tmp_path / "whole"), Run.read(tmp_path / "parts")
    assert checkpoint.step_of(parts.latest()) == 5
    for which in ("weights", "ema"):
        a, b = whole.weights(which), parts.weights(which)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)
    state_a, state_b = checkpoint.load(whole.latest())[2], checkpoint.load(parts.latest())[2]
    for name, optimizer in state_a["optimizers"].items():
        for key, moments in optimizer["state"].items():
            for what, value in moments.items():
                assert torch.equal(value, state_b["optimizers"][name]["state"][key][what])
    assert state_a["best"] == state_b["best"]
    assert rows(whole) == rows(parts)


def rows(run: Run) -> list[tuple[str, ...]]:
    """Validation metrics without the clock; every one exactly once."""
    lines = (run.folder / "metrics.csv").read_text().splitlines()
    return [(s, tag, value) for s, _, tag, value in (line.split(",") for line in lines) if "validation" in tag]


def test_rows_after_the_checkpoint_are_not_doubled(bids, foundation, tmp_path, monkeypatch):
    """A run that was killed (not asked to stop) has metrics newer than its checkpoint."""
    words = [
        "--data",
        bids,
        "--config",
        "tiny",
        f"cache={foundation / 'cache'}",
        "log_every=1",
        "save_every=2",
        "validate_every=100",
        "steps=5",
    ]

    class Killed(BaseException):
        pass

    plain = loop.Reporter.train
    with monkeypatch.context() as patch:

        def kill(self, at, *rest):
            plain(self, at, *rest)
            if at == 3:
                raise Killed

        patch.setattr(loop.Reporter, "train", kill)
        with pytest.raises(Killed):
            train_cli("regression", "--out", tmp_path / "run", *words)
    assert train_cli("regression", "--out", tmp_path / "run", "--resume") == 0
    lines = [line.split(",") for line in (tmp_path / "run/metrics.csv").read_text().splitlines()]
    assert [int(row[0]) for row in lines[1:] if row[2] == "train/lr"] == [1, 2, 3, 4, 5]


def test_resume_can_train_longer_and_finished_runs_stay(bids, foundation, tmp_path):
    out = tmp_path / "run"
    assert (
        train_cli(
            "regression", "--data", bids, "--config", "tiny", f"cache={foundation / 'cache'}", "steps=2", "--out", out
        )
        == 0
    )
    assert train_cli("regression", "--out", out, "--resume") == 0
    assert checkpoint.step_of(Run.read(out).latest()) == 2
    assert train_cli("regression", "--out", out, "--resume", "steps=4") == 0
    assert checkpoint.step_of(Run.read(out).latest()) == 4
    assert Run.read(out).settings.steps == 4


def test_a_changed_foundation_is_noticed(bids, foundation, tmp_path, capsys):
    import shutil

    for name in ("ae", "cache"):
        shutil.copytree(foundation / name, tmp_path / name)
    words = ["--data", bids, "--config", "tiny", "validate_every=100"]
    assert train_cli("backbone", "--out", tmp_path / "bb", "--foundation", tmp_path / "ae", *words, "steps=1") == 0
    assert train_cli("autoencoder", "--out", tmp_path / "ae", "--resume", "steps=3") == 0
    capsys.readouterr()
    assert train_cli("backbone", "--out", tmp_path / "bb", "--resume", "steps=2") == 2
    assert "has changed since" in capsys.readouterr().err
    assert train_cli("demist", "--out", tmp_path / "de", "--foundation", tmp_path / "bb", *words) == 2
    assert "has changed since" in capsys.readouterr().err


def test_moved_runs_find_each_other(bids, foundation, tmp_path):
    import shutil

    from DEMISTCore.training.foundation import read_foundation

    home = tmp_path / "home"
    home.mkdir()
    shutil.copytree(foundation / "ae", home / "ae")
    assert (
        train_cli(
            "backbone",
            "--out",
            home / "bb",
            "--foundation",
            home / "ae",
            "--data",
            bids,
            "--config",
            "tiny",
            f"cache={foundation / 'cache'}",
            "steps=1",
        )
        == 0
    )
    home.rename(tmp_path / "elsewhere")
    assert read_foundation(tmp_path / "elsewhere/bb", need_backbone=True).backbone is not None


def test_signals_save_and_exit(bids, foundation, tmp_path):
    """The real thing: child processes, SIGTERM, Ctrl-C, and a terminal that is closed."""
    children = {}
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        out = tmp_path / number.name
        words = [
            "regression",
            "--data",
            bids,
            "--out",
            out,
            "--config",
            "tiny",
            f"cache={foundation / 'cache'}",
            "steps=100000",
            "log_every=1",
            "save_every=100000",
            "validate_every=100000",
        ]
        before = signal.signal(number, signal.SIG_DFL)  # in the background of a shell children inherit deaf ears
        child = subprocess.Popen(
            [sys.executable, "-m", "DEMISTCore.train", *map(str, words)], stderr=subprocess.PIPE, text=True
        )
        signal.signal(number, before)
        children[number] = (out, child)
    for number, (out, child) in children.items():
        deadline = time.monotonic() + 90
        while not (out / "metrics.csv").exists() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        child.send_signal(number)
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 128 + number, errors
        name = "Ctrl-C" if number == signal.SIGINT else number.name
        assert f"Stopped by {name} after step" in errors
        assert "--resume" in errors
        assert "Traceback" not in errors
        run = Run.read(out)
        weights, _, state = checkpoint.load(run.latest())
        assert state["step"] == checkpoint.step_of(run.latest()) > 0
        assert not list(out.rglob(".tmp-*"))
