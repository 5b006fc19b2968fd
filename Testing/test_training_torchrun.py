"""Training by torchrun: two processes are one with twice the batch, and one that is killed changes nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_data import write_mini_bids

from DEMISTCore import train
from DEMISTCore.cli import run as run_cli
from DEMISTCore.training.checkpoint import Run
from DEMISTCore.training.elastic import arguments

ROOT = Path(__file__).parents[1]
STAGES = ("autoencoder", "backbone", "mean", "demist", "decoder", "regression", "segmentation")
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


@pytest.fixture(scope="module")
def both(request, tmp_path_factory):
    """The chosen stages, each by one process with batch 2 and by two of batch 1."""
    root = tmp_path_factory.mktemp("torchrun")
    bids = write_mini_bids(root / "bids", subjects=3)
    wanted = [
        item.callspec.params["stage"]
        for item in request.session.items
        if item.fspath == request.node.fspath and hasattr(item, "callspec")
    ]
    common = [
        "--data",
        str(bids),
        "--config",
        "tiny",
        f"cache={root / 'cache'}",
        f"steps={_STEPS}",
        f"lr={_LR}",
        "validate_every=100",
        "threads=1",
        "device=cpu",
    ]

    def words(stage: str, out: Path, *more: str) -> list[str]:
        given = [stage, *common, "--out", str(out), *more]
        if stage in ("backbone", "mean", "demist", "decoder"):
            given += ["--foundation", str(root / "one" / ("autoencoder" if stage == "backbone" else "backbone"))]
        return [*given, "model=tiny_mean"] if stage == "mean" else given

    needed = [stage for stage in STAGES if stage in wanted or stage in _below(wanted)]
    for stage in needed:
        assert run_cli(train.main, words(stage, root / "one" / stage, "batch=2")) == 0
    pairs = [words(stage, root / "two" / stage, "batch=1", "devices=2") for stage in wanted]
    done = torchrun(ROOT / "Testing" / "torchrun_driver.py", "stages", json.dumps(pairs))
    assert done.returncode == 0, done.stderr[-3000:]
    return root


def _below(stages: list[str]) -> set[str]:
    """Stages that these build on."""
    below = {"autoencoder"} if set(stages) & {"backbone"} else set()
    return below | ({"autoencoder", "backbone"} if set(stages) & {"mean", "demist", "decoder"} else set())


#: Not the others: what they learn from is no mean over samples (contrast between all positions of a batch, Dice and
#: edges over it), so that two halves of a batch are not the whole, on one machine or two.
@pytest.mark.slow
@pytest.mark.parametrize("stage", ["backbone", "demist", "regression"])
def test_two_processes_are_one_with_twice_the_batch(both, stage):
    one, two = (Run.read(both / which / stage).weights("weights") for which in ("one", "two"))
    assert one.keys() == two.keys()
    off = torch.cat([(value - two[name]).abs().flatten() for name, value in one.items()])
    # AdamW moves a weight by the learning rate even where its gradient is nothing but rounding, of either sign.
    assert (off > 1e-5).float().mean() < 1e-3
    assert off.max() <= 2.1 * _LR * _STEPS


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


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    from DEMISTCore.training import checkpoint

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
