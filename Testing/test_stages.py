"""The registry of training stages: a stage is one file, found by being there."""

from __future__ import annotations

import sys

import pytest
import yaml
from training_data import write_mini_bids

from DEMISTCore import train
from DEMISTCore.cli import run as run_cli
from DEMISTCore.errors import InputError
from DEMISTCore.training import stages
from DEMISTCore.training.checkpoint import Run
from DEMISTCore.training.settings import resolve

#: A whole stage: PSR as a weighted sum of T1w and FLAIR.
FILE = '''"""A weighted sum of the two scans."""

from dataclasses import dataclass, field

from DEMISTCore.training.groups import Settings
from DEMISTCore.training.stages.kind import Kind


@dataclass
class SumSettings(Settings):
    """The sum's."""

    patch: tuple[int, ...] = (16, 16, 16)
    start_at: float = field(default=0.5, metadata={"bounds": (0, 2)})


class Sum(Kind):
    """Two weights and an offset."""

    name = "sum"
    help = "a weighted sum of the two scans"
    settings = SumSettings

    def build(self, task):
        """Built where torch may be imported."""
        import torch

        from DEMISTCore.training import previews
        from DEMISTCore.training.autoencoder import read_patch
        from DEMISTCore.training.data import collate, pick, random, random_patch
        from DEMISTCore.training.stage import Stage

        class Objective(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.sum = torch.nn.Conv3d(2, 1, 1)
                torch.nn.init.constant_(self.sum.weight, task.settings.start_at)

            def forward(self, batch, progress):
                return {"loss": (self.sum(batch["x"]) - batch["y"]).abs().mean()}

        class SumStage(Stage):
            score = "mae"

            def __init__(self):
                self.objectives = {"sum": Objective()}

            def batch(self, indices):
                s, samples = task.settings, []
                for i in indices:
                    entry = task.train[pick(len(task.train), s.seed, "sum", i)]
                    start = random_patch(entry, s.patch, random(s.seed, "sum", i))
                    samples.append(read_patch(entry, s.patch, start, False))
                return collate(samples)

            def validate(self, device):
                return {"mae": float(self.objectives["sum"](self.batch(range(2)), 1.0)["loss"])}

            def preview(self, path, device):
                y = self.batch(range(1))["y"][0, 0]
                previews.draw(path, [("PSR", y, "psr")], title="a patch")

        return SumStage()


STAGE = Sum()
'''


@pytest.fixture
def own_stage(tmp_path, monkeypatch):
    """The registry with one file more."""
    (tmp_path / "sum.py").write_text(FILE)
    monkeypatch.setattr(stages, "__path__", [*stages.__path__, str(tmp_path)])
    before = dict(stages.STAGES)
    stages.STAGES.update(stages._found())
    yield stages.STAGES["sum"]
    stages.STAGES.clear()
    stages.STAGES.update(before)
    sys.modules.pop("DEMISTCore.training.stages.sum", None)


def test_what_a_registered_stage_says():
    assert list(stages.STAGES) == [
        "autoencoder",
        "backbone",
        "mean",
        "demist",
        "decoder",
        "regression",
        "pix2pix",
        "vae",
        "ldm",
        "cwdm",
        "segmentation",
    ]
    for name, kind in stages.STAGES.items():
        assert kind.name == name
        assert kind.help
        assert kind.settings.__doc__
        assert kind.foundation in (None, "autoencoder", "backbone")
        if kind.bundle:
            assert type(kind).export is not stages.Kind.export


def test_a_stage_is_one_file(own_stage, tmp_path, capsys):
    """Found, listed, set, trained, resumed, begun from a run of its own; and said no where it cannot do a thing."""
    with pytest.raises(SystemExit):
        train.main(["--help"])
    assert "a weighted sum of the two scans" in capsys.readouterr().out
    with pytest.raises(InputError, match="start_at"):
        resolve("sum", "tiny", ["start_at=3", "steps=2"])
    preset = tmp_path / "own.yaml"
    preset.write_text(yaml.safe_dump({"base": "tiny", "sum": {"lr": 0.5, "start_at": 1}}))
    data, out = write_mini_bids(tmp_path / "bids", subjects=2), tmp_path / "run"
    common = ["--data", str(data), "--config", str(preset), f"cache={tmp_path / 'cache'}"]
    assert run_cli(train.main, ["sum", *common, "--out", str(out), "steps=2"]) == 0
    assert run_cli(train.main, ["sum", "--out", str(out), "--resume", "steps=40"]) == 0
    run = Run.read(out)
    assert (run.stage, run.settings.lr, run.settings.start_at, run.settings.model) == (
        "sum",
        0.5,
        1.0,
        resolve("sum", "tiny", ["steps=1"]).model,
    )
    assert run.weights()["sum.weight"].flatten().tolist() != [1.0, 1.0]
    assert run_cli(train.main, ["sum", *common, "--out", str(tmp_path / "on"), "--init", str(out), "steps=1"]) == 0
    capsys.readouterr()
    words = ["sum", *common, "--out", str(tmp_path / "no"), "--init", str(tmp_path), "steps=1"]
    assert run_cli(train.main, words) == 2
    assert "is not a sum run" in capsys.readouterr().err
    words = ["backbone", *common, "--out", str(tmp_path / "no"), "--foundation", str(out), "steps=1"]
    assert run_cli(train.main, words) == 2
    assert "takes an autoencoder or backbone run" in capsys.readouterr().err
    assert run_cli(train.main, ["export", str(out), "--out", str(tmp_path / "bundle")]) == 2
    assert "is a run of sum; export takes" in capsys.readouterr().err
