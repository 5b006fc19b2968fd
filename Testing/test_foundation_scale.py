"""What a bundle says of its scales counts in training: the PSR that its autoencoder sees as 1, and its grid."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from training_data import write_mini_bids

from DEMISTCore import train
from DEMISTCore.bundle import description_hash, load_bundle
from DEMISTCore.cli import run as run_cli
from DEMISTCore.errors import InputError
from DEMISTCore.training import data, prepare, ranks
from DEMISTCore.training.checkpoint import Run
from DEMISTCore.training.foundation import read_foundation
from DEMISTCore.training.latents import encode_cohort
from DEMISTCore.training.settings import resolve

torch.set_num_threads(1)
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def bids(tmp_path_factory):
    return write_mini_bids(tmp_path_factory.mktemp("bids"), subjects=2)


@pytest.fixture
def base(tiny_bundle, tmp_path):
    """A foundation bundle whose autoencoder sees PSR 0.4 as 1, on a grid of 1 mm."""
    folder = tmp_path / "tiny-base"
    shutil.copytree(tiny_bundle.parent / "tiny-base", folder)
    info = json.loads((folder / "bundle.json").read_text())
    info |= {"psr_range": 0.4, "spacing": 1.0}
    info["hash"] = description_hash(info)
    (folder / "bundle.json").write_text(json.dumps(info))
    return folder


def test_latents_are_those_of_the_bundles_own_range(base, bids, tmp_path):
    foundation = read_foundation(base)
    assert foundation.psr_range == 0.4
    settings = resolve("demist", "tiny", ["flip=false"])
    prepared = prepare.prepare_cohort(data.index(bids), settings, tmp_path / "cache")
    (latents, _) = encode_cohort(prepared, foundation, settings, tmp_path / "cache")
    y = torch.from_numpy(np.asarray(prepared[0].y, np.float32))[None, None] / 0.4
    with torch.no_grad():
        expected = foundation.psr.encode(y)[0][0].numpy()
    assert np.allclose(latents.z[0], expected, atol=1e-2 * np.abs(expected).max())
    # ... and kept apart from those of another range.
    other = encode_cohort(prepared, read_foundation_with(foundation, 0.2), settings, tmp_path / "cache")
    assert other[0].folder != latents.folder
    assert not np.allclose(other[0].z[0], expected, atol=1e-2 * np.abs(expected).max())


def read_foundation_with(foundation, psr_range):
    from dataclasses import replace

    return replace(foundation, psr_range=psr_range)


def test_a_run_on_it_and_its_export_keep_the_range(base, bids, tmp_path, monkeypatch):
    from DEMISTCore.training.demist import DemistStage

    seen = []
    plain = DemistStage.batch
    monkeypatch.setattr(DemistStage, "batch", lambda self, i: seen.append(plain(self, i)) or seen[-1])
    code = run_cli(
        train.main,
        [
            "demist",
            "--data",
            str(bids),
            "--config",
            "tiny",
            "--foundation",
            str(base),
            "--out",
            str(tmp_path / "de"),
            "steps=2",
            "decode_every=1",
        ],
    )
    assert code == 0
    truth = max(float(batch["decode_y"].max()) for batch in seen)
    assert 0.2 < truth < 0.35  # white matter: 0.12 / 0.4 = 0.3, and not 0.6
    assert run_cli(train.main, ["export", str(tmp_path / "de"), "--base", str(base), "--out", str(tmp_path / "b")]) == 0
    assert load_bundle(tmp_path / "b").psr_range == 0.4
    assert (
        run_cli(
            train.main,
            [
                "decoder",
                "--data",
                str(bids),
                "--config",
                "tiny",
                "--foundation",
                str(base),
                "--out",
                str(tmp_path / "dec"),
                "steps=1",
            ],
        )
        == 0
    )
    assert read_foundation(tmp_path / "dec").psr_range == 0.4


def test_another_range_or_grid_is_refused_where_it_cannot_be_taken_over(base, tiny_bundle, bids, tmp_path, capsys):
    common = ["--data", str(bids), "--config", "tiny", "--out", str(tmp_path / "run"), f"cache={tmp_path / 'cache'}"]
    assert run_cli(train.main, ["autoencoder", *common, "--init", str(base)]) == 2
    assert "takes a PSR of 0.4 as 1" in capsys.readouterr().err
    assert run_cli(train.main, ["demist", *common, "--foundation", str(tiny_bundle.parent / "tiny-base")]) == 2
    assert "give preprocess.spacing=4" in capsys.readouterr().err


# --- 13 and 26: several processes ------------------------------------------------------------------------------------


def test_two_processes_train_the_estimate_alone_at_first(base, bids, tmp_path):
    """Parameters without a part in a step are no error, and the weights are those of one process."""
    words = [
        "demist",
        "--data",
        bids,
        "--config",
        "tiny",
        "--foundation",
        base,
        f"cache={tmp_path / 'cache'}",
        "steps=4",
        "estimate_first=0.5",
        "validate_every=100",
        "threads=1",
    ]
    assert run_cli(train.main, [str(w) for w in [*words, "--out", tmp_path / "one", "batch=4"]]) == 0
    command = [
        sys.executable,
        "-m",
        "DEMISTCore.train",
        *map(str, words),
        "--out",
        str(tmp_path / "two"),
        "batch=2",
        "devices=2",
        "device=cpu",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    one, two = Run.read(tmp_path / "one").weights("weights"), Run.read(tmp_path / "two").weights("weights")
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.allclose(value, two[name], atol=5e-4), name


def test_nodes_without_a_launcher_are_refused(monkeypatch):
    for name in ranks._LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="srun or torchrun"):
        ranks.check_launcher(2)
    ranks.check_launcher(1)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    ranks.check_launcher(2)


def test_a_process_that_waits_in_vain_says_so():
    code = "from DEMISTCore.training.ranks import starting; import time\nwith starting(2): time.sleep(60)"
    environment = {**os.environ, "DEMIST_START_SECONDS": "0.5"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, timeout=50)
    assert done.returncode == 2
    assert b"Not all 2 processes" in done.stderr
