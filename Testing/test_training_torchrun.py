"""Training by torchrun: two processes are one with twice the batch, and one that is killed changes nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchrun_driver import doubled
from torchrun_driver import line as driver_line
from training_data import as_slabs, write_mini_bids

from DEMISTCore import train
from DEMISTCore.cli import run as run_cli
from DEMISTCore.errors import InputError
from DEMISTCore.training import checkpoint, sharded
from DEMISTCore.training.checkpoint import Run
from DEMISTCore.training.elastic import arguments
from DEMISTCore.training.settings import resolve
from DEMISTCore.training.stages import STAGES, Task

ROOT = Path(__file__).parents[1]
_LR, _STEPS = 1e-3, 2
pytestmark = pytest.mark.skipif(os.name == "nt", reason="gloo and signals of POSIX")


def torchrun(*words: object, processes: int = 2, restarts: int = 0) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
        "--max-restarts",
        str(restarts),
        *map(str, words),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'Testing'}"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


_NARROW = "channels=[2,2,2,2,2,2]"
#: As small as stages take it: convolutions in double precision are slow. With all that a loss takes from other samples.
_OWN = {
    "autoencoder": ["latent_noise=0.3", "discriminator_channels=2"],
    "mean": ["model=tiny_mean"],
    "demist": ["estimate_first=0.4"],
    "decoder": ["discriminator_channels=2"],
    "regression": [_NARROW],
    "pix2pix": [_NARROW, "discriminator_channels=2"],
    "segmentation": [_NARROW, "volume_start=0"],
}


#: By ``strategy=fsdp`` as well: partly frozen, and with a loss over all samples.
_SHARED = ("demist", "segmentation")


class Runs:
    """Every stage of the registry on partly measured maps, in double precision: four samples a step."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bids = as_slabs(write_mini_bids(root / "bids", subjects=3), 6, 26, spoilt=False)
        with doubled():
            for stage in STAGES:
                assert run_cli(train.main, self.words(stage, "one", "batch=4")) == 0

    def words(self, stage: str, which: str, *more: str) -> list[str]:
        """The command line of a stage."""
        given = [stage, "--data", str(self.bids), "--out", str(self.root / which / stage), "--config", "tiny"]
        given += [f"cache={self.root / 'cache'}", "preprocess.already_aligned=true", "threads=1", "device=cpu"]
        given += [f"steps={_STEPS}", f"lr={_LR}", "validate_every=100", *_OWN.get(stage, []), *more]
        below = STAGES[stage].foundation
        return [*given, "--foundation", str(self.root / "one" / below)] if below else given

    def on(self, stage: str, which: str, *more: str) -> list[str]:
        """The command line that goes on with one."""
        return [stage, "--out", str(self.root / which / stage), "--resume", *more]

    def off(self, stage: str, which: str, than: str = "one", weights: str = "weights") -> float:
        """The largest difference of a weight from that of another run: one process with the whole batch."""
        one, other = (Run.read(self.root / name / stage).weights(weights) for name in (than, which))
        assert one.keys() == other.keys()
        return max(float((value - other[name]).abs().max()) for name, value in one.items())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("torchrun"))


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(runs):
    lines = [runs.words(stage, "two", "batch=2", "devices=2") for stage in STAGES]
    # Its discriminator joins between the first and the second step.
    lines.append(runs.words("autoencoder", "both", "batch=1", "accumulate=2", "devices=2"))
    lines += [runs.words(stage, "shared", "batch=2", "devices=2", "strategy=fsdp") for stage in _SHARED]
    done = torchrun(ROOT / "Testing" / "torchrun_driver.py", "stages", json.dumps(lines))
    assert done.returncode == 0, done.stderr[-3000:]
    assert {stage: off for stage in STAGES if not (off := runs.off(stage, "two")) < 1e-5} == {}
    assert runs.off("autoencoder", "both") < 1e-5
    assert {stage: off for stage in _SHARED if not (off := runs.off(stage, "shared")) < 1e-5} == {}


@pytest.mark.slow
def test_accumulated_batches_are_one_large_batch(runs):
    with doubled():
        for stage in STAGES:
            assert run_cli(train.main, runs.words(stage, "accumulated", "batch=2", "accumulate=2")) == 0
    assert {stage: off for stage in STAGES if not (off := runs.off(stage, "accumulated")) < 1e-5} == {}


@pytest.mark.slow
def test_a_killed_rank_changes_nothing(tmp_path):
    """Rank 1 dies in the middle; torchrun starts all anew, and they go on from the checkpoint."""
    driver = ROOT / "Testing" / "torchrun_driver.py"
    words = ("batch=2", "accumulate=2", "devices=2")
    whole = torchrun(driver, "line", tmp_path / "whole", 0, *words)
    assert whole.returncode == 0, whole.stderr[-3000:]
    parts = torchrun(driver, "line", tmp_path / "parts", 30, *words, restarts=1)
    assert parts.returncode == 0, parts.stderr[-3000:]
    ends = [torch.cat([value.flatten() for value in _weights(tmp_path / name).values()]) for name in ("whole", "parts")]
    torch.testing.assert_close(*ends, rtol=0, atol=0)
    # What a loss takes from the other samples, it takes from those of the other process and of both its micro-batches.
    driver_line(tmp_path / "alone", 0, ["batch=8"])
    torch.testing.assert_close(ends[0], torch.cat([value.flatten() for value in _weights(tmp_path / "alone").values()]))
    assert {line[0] for line in _seen(tmp_path / "parts")} == {0, 1}, "there was a second start"
    # 8 steps of 2 processes with 2 times 2 samples: each index once, and of 12 items each once an epoch of 12.
    last = {
        index: item
        for _, indices, items in sorted(_seen(tmp_path / "parts"), key=lambda line: line[0])
        for index, item in zip(indices, items)
    }
    assert set(range(64)) <= set(last)
    for epoch in range(5):
        assert sorted(last[i] for i in range(12 * epoch, 12 * epoch + 12)) == list(range(12))
    first = [index for start, indices, _ in _seen(tmp_path / "whole") for index in indices]
    assert len(first) == len(set(first)), "no sample goes to two processes"


@pytest.mark.slow
def test_shared_out_weights_are_those_of_one_process(tmp_path):
    """strategy=fsdp, a rank killed, resumed from whole tensors; then it goes on with one process alone."""
    words = ["batch=2", "accumulate=2", "devices=2", "strategy=fsdp", "validate_every=3"]
    parts = torchrun(ROOT / "Testing" / "torchrun_driver.py", "line", tmp_path / "parts", 30, *words, restarts=1)
    assert parts.returncode == 0, parts.stderr[-3000:]
    assert {line[0] for line in _seen(tmp_path / "parts")} == {0, 1}, "there was a second start"
    driver_line(tmp_path / "alone", 0, ["batch=8", "validate_every=3"])
    _same(tmp_path / "parts", tmp_path / "alone")
    for name in ("parts", "alone"):
        driver_line(tmp_path / name, 0, ["batch=8", "validate_every=3", "steps=12"])
    _same(tmp_path / "parts", tmp_path / "alone")


@pytest.mark.slow
def test_a_run_goes_on_with_the_other_strategy_and_with_one_process(runs):
    """Two steps with either, two with the other: as one process with twice the batch that stops there."""
    ways = {"to_ddp": ("fsdp", "ddp"), "to_fsdp": ("ddp", "fsdp")}
    lines = []
    for stage in _SHARED:
        shutil.copytree(runs.root / "one" / stage, runs.root / "went_on" / stage)
        with doubled():
            assert run_cli(train.main, runs.on(stage, "went_on", "steps=4")) == 0
        for name, (first, then) in ways.items():
            lines.append(runs.words(stage, name, "batch=2", "devices=2", f"strategy={first}"))
            lines.append(runs.on(stage, name, "steps=4", f"strategy={then}"))
    done = torchrun(ROOT / "Testing" / "torchrun_driver.py", "stages", json.dumps(lines))
    assert done.returncode == 0, done.stderr[-3000:]
    for which in ("weights", "ema"):
        off = {(s, name): runs.off(s, name, "went_on", which) for s in _SHARED for name in ways}
        assert {key: value for key, value in off.items() if not value < 1e-5} == {}, which
    for stage in _SHARED:  # its batches are half as large from here on; whose checkpoint it was is nothing to it
        for name in ways:
            with doubled():
                assert run_cli(train.main, runs.on(stage, name, "steps=5", "devices=1")) == 0
        assert runs.off(stage, "to_ddp", "to_fsdp") < 1e-5
        assert runs.off(stage, "to_ddp", "went_on") > 1e-5, "there was a further step"
    strategies = [Run.read(runs.root / name / _SHARED[0]).settings.strategy for name in ways]
    assert strategies == ["ddp", "fsdp"]


@pytest.mark.slow
def test_another_number_of_processes_takes_the_samples_that_are_next(tmp_path):
    """Two processes, one, two again: still each of 12 items once an epoch."""
    driver = ROOT / "Testing" / "torchrun_driver.py"
    for steps, devices in ((3, 2), (6, 1), (9, 2)):
        words = (tmp_path / "run", 0, "batch=2", f"devices={devices}", f"steps={steps}", "save_every=100")
        done = torchrun(driver, "line", *words, processes=devices)
        assert done.returncode == 0, done.stderr[-3000:]
    assert checkpoint.newest(tmp_path / "run")[2]["samples"] == 3 * 4 + 3 * 2 + 3 * 4
    seen = _seen(tmp_path / "run")
    items: dict[int, set[int]] = {}
    for _, indices, picked in seen:
        for index, item in zip(indices, picked):
            items.setdefault(index, set()).add(item)
    assert set(range(30)) <= set(items)
    assert all(len(found) == 1 for found in items.values())
    assert (
        {items[i].copy().pop() for i in range(12)} == {items[i].copy().pop() for i in range(12, 24)} == set(range(12))
    )


def _same(one: Path, other: Path) -> None:
    for which in ("weights", "ema", "best"):
        found = (Run(folder, "regression", None, None).weights(which) for folder in (one, other))
        torch.testing.assert_close(*found)


def test_two_networks_are_not_shared_out():
    settings = resolve("pix2pix", "tiny", ["strategy=fsdp"])
    stage = STAGES["pix2pix"].build(Task(None, settings, None, [], [], None))
    with pytest.raises(InputError, match=r"shares out one network, and here there are pix2pix and discriminator"):
        sharded.check(stage, settings)
    settings = resolve("regression", "tiny", ["strategy=fsdp", "precision=fp16"])
    with pytest.raises(InputError, match="no fp16"):
        sharded.check(STAGES["regression"].build(Task(None, settings, None, [], [], None)), settings)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.newest(folder)[0]


def _seen(folder: Path) -> list[tuple[int, list[int], list[int]]]:
    """Start, indices and items of each micro-batch, of both ranks."""
    found = []
    for path in folder.glob("seen-*.txt"):
        for line in path.read_text().splitlines():
            start, indices, items = re.fullmatch(r"(\d+) (\[.*\]) (\[.*\])", line).groups()
            found.append((int(start), json.loads(indices), json.loads(items)))
    return found


def test_the_same_command_begins_and_goes_on(tmp_path):
    """All processes decide alike, whenever each of them looks."""
    words = ["mean", "--data", "bids", "--out", str(tmp_path), "--config", "small", "devices=2"]
    on = ["mean", "--data", "bids", "--out", str(tmp_path), "devices=2", "--resume"]
    first, other = {"RANK": "0", "LOCAL_RANK": "0"}, {"RANK": "1", "LOCAL_RANK": "1"}
    assert arguments(words, first) == arguments(words, other) == words
    (tmp_path / "config.yaml").write_text("stage: mean\n")
    assert arguments(words, first) == on, "begun, but without a checkpoint: both begin anew"
    assert arguments(words, other) == words
    (tmp_path / "checkpoints" / "step-00000002").mkdir(parents=True)
    assert arguments(words, first) == arguments(words, other) == on
    assert arguments([*words, "--resume"], first) == [*words, "--resume"]
    assert arguments(["export", "a", "b"], first) == ["export", "a", "b"]
