"""Two processes that Fabric starts itself, with validation and checks at the end; by torchrun all stages are tested.

Parameters that have no part in a step do not stop the others.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from training_data import write_mini_bids

from DEMISTCore import train
from DEMISTCore.cli import run as run_cli
from DEMISTCore.training.checkpoint import Run
from DEMISTCore.training.stages import STAGES

_OWN = {"demist": ["estimate_first=0.5"]}


@pytest.fixture(scope="module")
def below(tmp_path_factory):
    """A data set, and the runs that later stages build on."""
    root = tmp_path_factory.mktemp("two")
    bids = write_mini_bids(root / "bids", subjects=2)
    common = ["--data", str(bids), "--config", "tiny", f"cache={root / 'cache'}", "validate_every=100", "threads=1"]
    for name, foundation in (("autoencoder", []), ("backbone", ["--foundation", str(root / "autoencoder")])):
        assert run_cli(train.main, [name, *common, *foundation, "steps=1", "--out", str(root / name)]) == 0
    return root, common


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["autoencoder", "demist"])
def test_a_stage_in_two_processes(stage, below, tmp_path):
    root, common = below
    kind = STAGES[stage]
    words = [
        stage,
        *common,
        "--out",
        str(tmp_path / "run"),
        "steps=4",
        "batch=1",
        "devices=2",
        "device=cpu",
        *_OWN.get(stage, []),
    ]
    words += ["--foundation", str(root / kind.foundation)] if kind.foundation else []
    done = subprocess.run(
        [sys.executable, "-m", "DEMISTCore.train", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    weights = Run.read(tmp_path / "run").weights()
    assert weights
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
