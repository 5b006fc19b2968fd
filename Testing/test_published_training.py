"""DEMIST on published foundations: autoencoders started from them, streams on their frozen U-Nets, bundles of that."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from published_data import SMALL, published_state, write_published
from training_data import write_mini_bids

from DEMISTCore import train
from DEMISTCore.bundle import load_bundle
from DEMISTCore.cli import run as run_cli
from DEMISTCore.errors import BundleError, InputError
from DEMISTCore.networks import PRESETS, Demist, build_autoencoder, build_backbone, build_demist
from DEMISTCore.networks.brain_ldm import BRAIN_LDM_UNET, BRAIN_LDM_VAE, UNetConfig
from DEMISTCore.networks.config import BackboneConfig, ModelConfig
from DEMISTCore.published.folder import read_folder
from DEMISTCore.published.store import save_model
from DEMISTCore.published.transfer import autoencoder_weights, backbone_config
from DEMISTCore.training.checkpoint import Run
from DEMISTCore.training.context import read_contexts
from DEMISTCore.training.data import Session
from DEMISTCore.training.demist import DemistObjective
from DEMISTCore.training.foundation import foundation_of, read_foundation

TINY = PRESETS["tiny"]


def train_cli(*words: object) -> int:
    return run_cli(train.main, [str(word) for word in words])


@pytest.fixture(scope="module")
def bids(tmp_path_factory):
    return write_mini_bids(tmp_path_factory.mktemp("bids"), subjects=2, size=32)


@pytest.fixture(params=sorted(SMALL))
def family(request) -> str:
    return request.param


def small_model(family: str) -> ModelConfig:
    """The preset of that family, as small as the published files of these tests."""
    autoencoder, unet = SMALL[family]
    backbone = replace(
        PRESETS[family].backbone, channels=unet.channels, head_channels=unet.head_channels, norm_groups=unet.norm_groups
    )
    return ModelConfig(autoencoder, replace(autoencoder, in_channels=2, out_channels=2), backbone, TINY.streams)


def write_config(path: Path, family: str) -> Path:
    content = {
        "base": "tiny",
        "model": small_model(family).to_dict(),
        "preprocess": {"multiple": 32},
        "autoencoder": {"steps": 2, "patch": [16, 16, 16]},
        "demist": {"steps": 3, "crop": [4, 4, 4]},
    }
    path.write_text(yaml.safe_dump(content))
    return path


def test_presets_are_the_published_models():
    brain, brats = PRESETS["brain_ldm"], PRESETS["brats"]
    assert brain.psr == BRAIN_LDM_VAE
    assert UNetConfig.of_backbone(brain.backbone) == BRAIN_LDM_UNET
    with torch.device("meta"):
        assert sum(p.numel() for p in build_backbone(brain.backbone).parameters()) == 553_168_899
        assert sum(p.numel() for p in build_demist(brain).backbone.parameters()) == 553_168_899
    assert brats.backbone.heads == (0, 64, 64)
    with pytest.raises(ValueError, match="head_channels"):
        BackboneConfig(4, (8, 16), (False, True), head_channels=(8,))


def test_backbone_config_describes_the_published_unet(family, tmp_path):
    model = read_folder(write_published(tmp_path / "m", family))
    config = backbone_config(model)
    assert config.prediction == "epsilon"
    assert UNetConfig.of_backbone(config) == model.unet_config
    again = BackboneConfig.from_dict(config.to_dict())
    assert again == config
    assert build_backbone(config).state_dict().keys() == model.unet.state_dict().keys()


def test_two_channels_start_as_the_published_one(family, tmp_path):
    """The same image twice gives the published latent, and each channel the published reconstruction."""
    model = read_folder(write_published(tmp_path / "m", family))
    cfg = replace(model.autoencoder_config, in_channels=2, out_channels=2)
    network = build_autoencoder(cfg).eval()
    network.load_state_dict(autoencoder_weights(model, network))
    x = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        for ours, theirs in zip(network.encode(x.repeat(1, 2, 1, 1, 1)), model.autoencoder.encode(x)):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        z = model.autoencoder.encode(x)[0]
        expected = model.autoencoder.decode(z).repeat(1, 2, 1, 1, 1)
        torch.testing.assert_close(network.decode(z), expected, rtol=1e-5, atol=1e-5)
        a, b = torch.rand(2, 1, 1, 16, 16, 16)  # different contrasts: neither is left out
        assert not torch.equal(network.encode(torch.cat([a, b], 1))[0], network.encode(torch.cat([a, a], 1))[0])
    with pytest.raises(BundleError, match="--config brats, or --config brain_ldm"):
        autoencoder_weights(model, build_autoencoder(TINY.psr))


def test_demist_equals_the_published_backbone_at_the_start(family, tmp_path):
    model = read_folder(write_published(tmp_path / "m", family))
    channels = model.unet_config.out_channels
    demist = Demist(model.unet, TINY.streams, 4).eval()
    z, t, c = torch.randn(2, channels, 4, 8, 4), torch.tensor([3, 700]), torch.randn(2, 4, 4, 8, 4)
    context = torch.rand(2, 1, 4) if model.conditions else None
    with torch.no_grad():
        for own in (None, context):
            assert torch.equal(demist(z, t, demist.condition(c), context=own), model.unet(z, t, own))
        if context is not None:  # held neutral, or given per subject
            assert not torch.equal(model.unet(z, t), model.unet(z, t, context))
    control = demist.spatial.control.state_dict()
    shared = [name for name in model.unet.state_dict() if name in control]
    assert "conv_in.conv.weight" in shared
    assert all(torch.equal(control[name], model.unet.state_dict()[name]) for name in shared)


def test_demist_trains_end_to_end_on_a_published_model(family, bids, tmp_path, capsys):
    published = write_published(tmp_path / "published", family)
    config = write_config(tmp_path / "config.yaml", family)
    common = ("--data", bids, "--config", config)
    assert train_cli("autoencoder", "--out", tmp_path / "ae", "--init", published, *common, "lr=1e-12") == 0
    started = read_foundation(tmp_path / "ae").psr.state_dict()
    expected = read_folder(published).autoencoder.state_dict()
    assert all(torch.allclose(started[name], expected[name], atol=1e-6) for name in expected)

    demist = ("demist", "--out", tmp_path / "de", "--foundation", tmp_path / "ae")
    assert train_cli(*demist, "--backbone", published, *common) == 0
    run = Run.read(tmp_path / "de")
    foundation = foundation_of(run)
    assert foundation.hash == run.foundation_hash  # bit for bit what it was
    unet = read_folder(published).unet.state_dict()
    assert all(torch.equal(value, unet[name]) for name, value in foundation.backbone.state_dict().items())
    assert not any("backbone" in name for name in run.weights())
    assert "unchanged" in (tmp_path / "de" / "train.log").read_text()
    assert train_cli("demist", "--out", tmp_path / "de", "--data", bids, "--resume", "steps=4") == 0

    assert train_cli("export", tmp_path / "de", "--out", tmp_path / "bundle", "--storage", "fp32") == 0
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.base.folder.name == "bundle-base"
    assert bundle.schedule.kind == "scaled_linear"
    assert bundle.config.backbone == backbone_config(read_folder(published))
    assert all(torch.equal(value, unet[name]) for name, value in bundle.demist.backbone.state_dict().items())
    capsys.readouterr()

    # Our own form serves as well as the published one.
    save_model(tmp_path / "ours", read_folder(published))
    assert train_cli(*demist[:1], "--out", tmp_path / "de2", *demist[3:], "--backbone", tmp_path / "ours", *common) == 0
    assert foundation_of(Run.read(tmp_path / "de2")).hash == foundation.hash


def test_bad_input_is_one_sentence_and_exit_code_2(bids, tmp_path, capsys):
    published = write_published(tmp_path / "published", "brats")
    config = write_config(tmp_path / "config.yaml", "brats")
    common = ("--data", bids, "--config", config)
    assert train_cli("autoencoder", "--out", tmp_path / "ae", "--init", published, *common) == 0
    capsys.readouterr()

    def refused(*words: object, says: str) -> None:
        assert train_cli(*words) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ")
        assert says in error, error

    new = ("--out", tmp_path / "new")
    refused("autoencoder", *new, "--init", published, "--data", bids, "--config", "tiny", says="--config brats")
    refused("backbone", *new, "--foundation", tmp_path / "ae", "--init", published, *common, says="--backbone")
    refused("demist", *new, "--backbone", published, *common, says="give --foundation a autoencoder run")
    refused("demist", *new, "--foundation", tmp_path / "ae", "--backbone", tmp_path / "none", *common, says="no bundle")
    other = write_published(tmp_path / "brain", "brain_ldm")
    refused("demist", *new, "--foundation", tmp_path / "ae", "--backbone", other, *common, says="latent channels")
    torch.save(published_state(SMALL["brain_ldm"][1]), published / "models" / "diffusion_model.pth")
    refused("demist", *new, "--foundation", tmp_path / "ae", "--backbone", published, *common, says="does not fit")
    assert not (tmp_path / "new").exists()


# The backbone's own conditions ----------------------------------------------------------------------------------------


SESSIONS = [Session(s, k, *[Path("x")] * 3) for s, k in (("sub-001", ""), ("sub-002", "ses-01"), ("sub-002", "ses-02"))]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("t.csv", "participant_id,age,sex\nsub-001,0.25,1\n002,n/a,0\n", [(1, 0.25), (0, 0.5), (0, 0.5)]),
        ("participants.tsv", "participant_id\tgroup\tage\nsub-001\tpatient\t0.75\n", [(0.5, 0.75), *[(0.5, 0.5)] * 2]),
        ("t.csv", "\ufeffsubject,session,age\n002,ses-02,1\nsub-002,01,0\n001,,\n", [(0.5, 0.5), (0.5, 0), (0.5, 1)]),
        ("t.csv", "participant_id,session_id,age\n002,ses-02,1\n002,,0.25\n", [(0.5, 0.5), (0.5, 0.25), (0.5, 1)]),
    ],
)
def test_contexts_from_a_table(name, content, expected, tmp_path):
    table = tmp_path / name
    table.write_text(content, encoding="utf-8")
    contexts = read_contexts(table, ("sex", "age"), SESSIONS)
    assert [tuple(contexts[s.name][0].tolist()) for s in SESSIONS] == expected  # in the backbone's order
    assert all(value.shape == (1, 2) for value in contexts.values())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("who,age\nsub-001,0.5\n", "no column participant_id"),
        ("participant_id,group\nsub-001,a\n", "no column sex nor age"),
        ("participant_id,age\nsub-001,61\n", "line 2: age is '61', and must be a number from 0 to 1"),
        ("participant_id,age\nsub-001,old\n", "line 2: age is 'old'"),
        ("participant_id,sex\nsub-001,nan\n", "line 2: sex is 'nan'"),
        ("participant_id,age\nsub-001,0.5\n001,0.6\n", "line 3: 001 is there twice"),
        ("participant_id,age\n,0.5\n", "line 2: participant_id is empty"),
        ("participant_id,age\nsub-100,0.5\n", "none of the subjects"),
    ],
)
def test_bad_tables_are_refused(content, words, tmp_path):
    table = tmp_path / "t.csv"
    if content is not None:
        table.write_text(content)
    with pytest.raises(InputError, match=re.escape(words)):
        read_contexts(table, ("sex", "age"), SESSIONS)


def test_training_with_a_context_per_subject(bids, tmp_path, capsys, monkeypatch):
    published = write_published(tmp_path / "published", "brain_ldm")
    common = ("--data", bids, "--config", write_config(tmp_path / "config.yaml", "brain_ldm"))
    assert train_cli("autoencoder", "--out", tmp_path / "ae", "--init", published, *common) == 0
    table = tmp_path / "people.csv"
    table.write_text("participant_id,sex,age\nsub-001,1,0.9\nsub-002,0,0.1\n")
    demist = ("demist", "--foundation", tmp_path / "ae", "--backbone", published, *common, "validation_subjects=[002]")
    seen: list[torch.Tensor | None] = []
    original = DemistObjective.forward
    monkeypatch.setattr(DemistObjective, "forward", lambda *a: (seen.append(a[1].get("context")), original(*a))[1])

    def weights(name: str, *words: object) -> dict[str, torch.Tensor]:
        seen.clear()
        assert train_cli(*demist, "--out", tmp_path / name, *words) == 0
        return Run.read(tmp_path / name).weights()

    held = weights("neutral")
    assert seen == [None] * 3
    # The subject's row reaches the network, in the checkpoint's order (sex, age, ventricles, brain), and matters.
    given = weights("given", f"context={table}", "dropout_context=0.5")
    assert any(not torch.allclose(given[name], held[name], atol=1e-3) for name in held)
    rows = torch.cat(seen)
    assert rows.shape == (6, 1, 4)
    row, neutral = torch.tensor([1, 0.9, 0.5, 0.5]), torch.full((4,), 0.5)
    as_given = (rows[:, 0] == row).all(1)
    assert 0 < as_given.sum() < 6
    assert (rows[~as_given, 0] == neutral).all()
    run = Run.read(tmp_path / "given")
    assert run.settings.context == str(table)
    assert train_cli("demist", "--out", run.folder, "--data", bids, "--resume", "steps=4") == 0

    # The bundle does not tell where on this machine the table was.
    assert train_cli("export", run.folder, "--out", tmp_path / "bundle") == 0
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in (tmp_path / "bundle").iterdir())
    capsys.readouterr()
    table.write_text("participant_id,age\nsub-001,55\n")
    assert train_cli(*demist, "--out", tmp_path / "new", f"context={table}") == 2
    assert "age is '55'" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_backbone_without_conditions_takes_no_context(bids, tmp_path, capsys):
    published = write_published(tmp_path / "published", "brats")
    common = ("--data", bids, "--config", write_config(tmp_path / "config.yaml", "brats"))
    assert train_cli("autoencoder", "--out", tmp_path / "ae", "--init", published, *common) == 0
    words = ("demist", "--foundation", tmp_path / "ae", "--backbone", published, *common, "context=people.csv")
    assert train_cli(*words, "--out", tmp_path / "new") == 2
    assert "takes no conditions by name" in capsys.readouterr().err
