"""A run folder has one owner, checkpoints are what was written, and every kill is recovered from."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from training_data import write_mini_bids

from DEMISTCore import train
from DEMISTCore.cli import run as run_cli
from DEMISTCore.errors import InputError
from DEMISTCore.lock import LOCK_FILE, FolderLock
from DEMISTCore.training import checkpoint, loop
from DEMISTCore.training.checkpoint import Run

torch.set_num_threads(1)


def train_cli(*words: object) -> int:
    return run_cli(train.main, [str(word) for word in words])


@pytest.fixture(scope="module")
def bids(tmp_path_factory):
    return write_mini_bids(tmp_path_factory.mktemp("bids"), subjects=2, sessions=1)


@pytest.fixture(scope="module")
def cache(bids, tmp_path_factory):
    root = tmp_path_factory.mktemp("cached")
    assert train_cli("regression", "--data", bids, "--config", "tiny", "steps=1", "--out", root / "r") == 0
    return root / "cache"


@pytest.fixture(scope="module")
def whole(words, tmp_path_factory):
    """A run that nothing has disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert train_cli(*words, "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def words(bids, cache):
    return [
        "regression",
        "--data",
        bids,
        "--config",
        "tiny",
        f"cache={cache}",
        "steps=6",
        "save_every=2",
        "validate_every=3",
        "log_every=1",
    ]


class Killed(BaseException):
    pass


def kill_at(monkeypatch, target, name, when=lambda *a: True):
    """The process dies before ``target.name`` runs."""
    plain = getattr(target, name)

    def die(*args, **options):
        if when(*args, **options):
            raise Killed
        return plain(*args, **options)

    monkeypatch.setattr(target, name, die)


def weights_of(folder):
    return Run.read(folder).weights("weights")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- 18: one owner ---------------------------------------------------------------------------------------------------


HOLDER = """
import sys, time
from DEMISTCore.lock import FolderLock
with FolderLock(sys.argv[1], "the run"):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder):
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "held\n"
    return child


def test_a_lock_ends_with_its_process(tmp_path):
    child = holder(tmp_path / "run")
    try:
        with (
            pytest.raises(InputError, match=f"is being written by process {child.pid} on "),
            FolderLock(tmp_path / "run", "the run"),
        ):
            pass
    finally:
        child.kill()
        child.wait()
    assert (tmp_path / "run" / LOCK_FILE).exists()  # the file of a dead process locks nothing
    with FolderLock(tmp_path / "run", "the run"):
        pass
    assert not list((tmp_path / "run").iterdir())


def test_a_lock_that_made_a_folder_for_nothing_removes_it(tmp_path):
    with FolderLock(tmp_path / "a/b", "the run"):
        assert (tmp_path / "a/b" / LOCK_FILE).exists()
    assert not (tmp_path / "a").exists()


def test_two_trainings_do_not_share_a_folder(whole, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    child = holder(out)
    try:
        capsys.readouterr()
        assert train_cli("regression", "--out", out, "--resume", "steps=8") == 2
        assert f"is being written by process {child.pid}" in capsys.readouterr().err
        after = {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != LOCK_FILE}
        assert after == before
    finally:
        child.kill()
        child.wait()
    assert train_cli("regression", "--out", out, "--resume", "steps=8") == 0


def test_two_at_once_really(words, tmp_path):
    """Both begin at the same moment: one trains, the other says that it does."""
    command = [sys.executable, "-m", "DEMISTCore.train", *map(str, words), "--out", str(tmp_path / "run")]
    children = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [(child.communicate(timeout=120)[1], child.returncode) for child in children]
    assert sorted(code for _, code in ends) == [0, 2], ends
    refused = next(text for text, code in ends if code == 2)
    assert "is being written by" in refused or "is in use" in refused
    assert checkpoint.step_of(Run.read(tmp_path / "run").latest()) == 6


# --- 20: checkpoints -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["weights.safetensors", "ema.safetensors", "state.pt", "checksums.json"])
@pytest.mark.parametrize("how", ["flip", "cut", "gone"])
def test_a_damaged_checkpoint_is_passed_over(whole, tmp_path, capsys, file, how):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    victim = Run.read(out).latest() / file
    content = bytearray(victim.read_bytes())
    if how == "gone":
        victim.unlink()
    else:
        content[len(content) // 2] ^= 1
        victim.write_bytes(content if how == "flip" else content[: len(content) // 2])
    if file == "checksums.json" and how == "gone":  # as by an earlier version: everything else is as it was
        assert checkpoint.step_of(Run.read(out).latest()) == 6
        return
    with pytest.raises(InputError, match="damaged"):
        checkpoint.load(victim.parent)
    capsys.readouterr()
    assert train_cli("regression", "--out", out, "--resume") == 0
    told = capsys.readouterr().err
    assert f"{victim.parent} is damaged" in told
    assert "step-00000004 instead" in told
    assert same(weights_of(out), weights_of(whole))
    assert (out / "best.safetensors").read_bytes() == (whole / "best.safetensors").read_bytes()


def test_all_damaged_is_said(whole, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    for path in (out / "checkpoints").glob("*/state.pt"):
        path.write_bytes(b"")
    capsys.readouterr()
    assert train_cli("regression", "--out", out, "--resume") == 2
    assert "Every checkpoint" in capsys.readouterr().err


def test_flipped_weights_are_not_handed_on(whole, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    run = Run.read(out)
    for path in (run.latest() / "ema.safetensors", out / "best.safetensors"):
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
    for which in ("ema", "best"):
        with pytest.raises(InputError, match="damaged"):
            run.weights(which)


def test_the_old_checkpoint_stays_until_the_new_one_is_there(tmp_path, monkeypatch):
    tensors = {"w": torch.ones(3)}
    state = {"step": 1, "elapsed": 0.0, "best": 1.0, "optimizers": {}, "precision": {}}
    folder = checkpoint.save(tmp_path, 1, tensors, tensors, state)
    before = (folder / "weights.safetensors").read_bytes()
    plain, calls = os.replace, []

    def fails(source, target):
        calls.append(str(target))
        if str(target) == str(folder) and ".tmp-" in str(source) and len(calls) == 2:
            raise OSError(5, "Input/output error")
        plain(source, target)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(InputError, match="Input/output"):
        checkpoint.save(tmp_path, 1, {"w": torch.zeros(3)}, tensors, state)
    assert (folder / "weights.safetensors").read_bytes() == before
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


@pytest.mark.parametrize("when", ["before config.yaml", "before the first checkpoint", "before the last validation"])
def test_killed_early_and_late(words, tmp_path, monkeypatch, when):
    whole, out = tmp_path / "whole", tmp_path / "run"
    words = [*words, "validate_every=100"]
    assert train_cli(*words, "--out", whole) == 0
    with monkeypatch.context() as patch:
        if when == "before config.yaml":
            kill_at(patch, Run, "write")
        elif when == "before the first checkpoint":
            kill_at(patch, checkpoint, "save")
        else:
            kill_at(patch, checkpoint, "save_best")
        with pytest.raises(Killed):
            train_cli(*words, "--out", out)
    assert not (out / "best.safetensors").exists()
    if when == "before config.yaml":
        out.mkdir()
        (out / LOCK_FILE).write_text("{}")  # as a real kill leaves it
        (out / ".tmp-00000000-1-config.yaml").write_text("x")
        assert train_cli("regression", "--out", out, "--resume") == 2
        assert train_cli(*words, "--out", out) == 0
        assert not list(out.rglob(".tmp-*"))
    else:
        assert train_cli(*words, "--out", out) == 2
        assert train_cli("regression", "--out", out, "--resume") == 0
    assert same(weights_of(out), weights_of(whole))
    assert (out / "best.safetensors").read_bytes() == (whole / "best.safetensors").read_bytes()
    assert metrics(out) == metrics(whole)


def metrics(folder):
    """Rows of metrics.csv but for the clock."""
    rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()[1:]]
    return [(step, tag, value) for step, _, tag, value in rows if "seconds" not in tag]


def test_a_cut_line_of_the_metrics_is_dropped(whole, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    before = metrics(out)
    with (out / "metrics.csv").open("a") as stream:
        stream.write("6,0.1")
    assert train_cli("regression", "--out", out, "--resume", "steps=7") == 0
    assert metrics(out)[: len(before)] == before


def test_another_data_set_is_refused_on_resume_and_a_moved_one_is_not(whole, bids, tmp_path, capsys):
    out, other = tmp_path / "run", write_mini_bids(tmp_path / "other", subjects=3)
    shutil.copytree(whole, out)
    before = (out / "config.yaml").read_text()
    capsys.readouterr()
    assert train_cli("regression", "--out", out, "--resume", "--data", other, "steps=8") == 2
    assert "does not hold the images" in capsys.readouterr().err
    assert (out / "config.yaml").read_text() == before
    shutil.copytree(bids, tmp_path / "moved")
    assert train_cli("regression", "--out", out, "--resume", "--data", tmp_path / "moved", "steps=8") == 0


def test_damaged_cache_entries_are_made_again(bids, tmp_path, capsys):
    words = ["--data", bids, "--config", "tiny", "steps=2", "validate_every=100"]
    assert train_cli("autoencoder", *words, "--out", tmp_path / "ae") == 0
    bb = ["backbone", *words, "--foundation", tmp_path / "ae"]
    assert train_cli(*bb, "--out", tmp_path / "a") == 0
    entries = {p: p.read_bytes() for p in (tmp_path / "cache").rglob("*.npy")}
    assert {"x.npy", "y.npy", "labels.npy", "z.npy", "c.npy"} <= {p.name for p in entries}
    for path, content in entries.items():
        nan = np.full(1, np.nan, np.float16).tobytes()
        path.write_bytes(content[:-2] + nan)
    capsys.readouterr()
    assert train_cli(*bb, "--out", tmp_path / "b") == 0
    told = capsys.readouterr().err
    assert told.count("is damaged") == 4  # two sessions, their images and their latents
    assert "lr=" not in told
    assert {p: p.read_bytes() for p in entries} == entries
    assert same(weights_of(tmp_path / "a"), weights_of(tmp_path / "b"))


def test_changed_scales_are_noticed(bids, tmp_path, capsys):
    words = ["--data", bids, "--config", "tiny", "steps=2", "validate_every=100"]
    assert train_cli("autoencoder", *words, "--out", tmp_path / "ae") == 0
    assert train_cli("backbone", *words, "--foundation", tmp_path / "ae", "--out", tmp_path / "bb") == 0
    scales = json.loads((tmp_path / "bb/scales.json").read_text())
    (tmp_path / "bb/scales.json").write_text(json.dumps(scales | {"latent_scale": 2 * scales["latent_scale"]}))
    assert train_cli("backbone", "--out", tmp_path / "bb", "--resume", "steps=3") == 2
    assert "scales.json is not what the run began with" in capsys.readouterr().err


# --- 26: signals -----------------------------------------------------------------------------------------------------


def test_nohup_means_what_it_says(words, tmp_path):
    command = ["nohup", sys.executable, "-m", "DEMISTCore.train", *map(str, words), "--out", str(tmp_path / "run")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "run/metrics.csv").exists() and child.poll() is None:
        time.sleep(0.05)
    child.send_signal(signal.SIGHUP)
    _, told = child.communicate(timeout=120)
    assert child.returncode == 0, told


def test_a_second_signal_while_saving_does_not_break_the_checkpoint(words, tmp_path, monkeypatch):
    plain = checkpoint.save

    def save(*args):
        signal.raise_signal(signal.SIGTERM)
        return plain(*args)

    monkeypatch.setattr(loop.checkpoint, "save", save)
    assert train_cli(*words, "--out", tmp_path / "run") == 128 + signal.SIGTERM
    monkeypatch.undo()
    assert checkpoint.load(Run.read(tmp_path / "run").latest())[2]["step"] == 2
