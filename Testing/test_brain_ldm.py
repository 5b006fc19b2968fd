"""Brain LDM: from the published files to synthetic brains, alone, by command line and as a cohort."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.schedulers import DDIMScheduler
from published_data import UNET, VAE, edit_config, write_published

import DEMISTCore
from DEMISTCore import BrainLDM
from DEMISTCore.brain_ldm import model as brain_ldm
from DEMISTCore.brain_ldm import vae as vae_module
from DEMISTCore.brain_ldm.__main__ import main
from DEMISTCore.brain_ldm.samples import DESCRIPTION, SampleSettings, read_requests, write_cohort
from DEMISTCore.cli import run
from DEMISTCore.errors import BundleError, InputError
from DEMISTCore.published.ddim import CARD, ddim
from DEMISTCore.volume import Volume

SHAPE = (32, 64, 32)
WHO = {"age": 0.25, "sex": 1, "ventricular_volume": 0.75, "brain_volume": 0.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_published(tmp_path_factory.mktemp("published") / "brain_ldm")


@pytest.fixture(scope="module")
def model(folder) -> BrainLDM:
    return BrainLDM.from_pretrained(folder, device="cpu")


def refused(error: type[Exception], *words: str):
    return pytest.raises(error, match=".*".join(map(re.escape, words)))


# Sampling -------------------------------------------------------------------------------------------------------------


def test_a_sample_is_a_volume_of_1_mm(model):
    volume = model.sample(**WHO, steps=2, shape=SHAPE)
    assert isinstance(volume, DEMISTCore.Volume)
    assert (volume.shape, volume.spacing, volume.axcodes) == (SHAPE, (1.0, 1.0, 1.0), "LAS")
    assert volume.array.dtype == np.float32
    assert np.isfinite(volume.array).all()
    middle = volume.grid.to_world((np.array(SHAPE) - 1) / 2)
    np.testing.assert_allclose(middle, brain_ldm.CENTRE)


def test_full_size_grid_is_that_of_mni_space():
    """160 x 224 x 160 of 1 mm cover the box of the MNI152 brain (x -72..72, y -108..76, z -72..84)."""
    corners = DEMISTCore.Grid(brain_ldm.SHAPE, brain_ldm.affine(brain_ldm.SHAPE)).corners()
    assert (corners.min(0) <= (-72, -108, -72)).all()
    assert (corners.max(0) >= (72, 76, 84)).all()


def test_same_seed_same_bytes_other_seed_other_brain(model):
    a, b, c = (model.sample(**WHO, steps=2, shape=SHAPE, seed=seed).array for seed in (3, 3, 4))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_every_condition_has_an_effect(model):
    neutral = model.sample(steps=2, shape=SHAPE).array
    for name in WHO:
        assert not np.array_equal(model.sample(steps=2, shape=SHAPE, **{name: 1.0}).array, neutral), name


def test_trajectory_is_monais_at_the_cards_settings(model):
    """The published sampling loop (concatenate, attend, step) with MONAI's scheduler, to the bit."""
    scheduler = DDIMScheduler(
        num_train_timesteps=1000,
        schedule="linear_beta",
        beta_start=1e-4,
        beta_end=2e-2,
        set_alpha_to_one=True,
        prediction_type="epsilon",
        clip_sample=False,
    )
    scheduler.set_timesteps(50)
    noise = torch.randn(1, 3, 4, 8, 4, generator=torch.Generator().manual_seed(0))
    conditioning = torch.tensor([[1.0, 0.25, 0.75, 0.5]]).unsqueeze(1)  # sex, age, ventricles, brain
    beside = conditioning.squeeze(1)[..., None, None, None].expand(-1, -1, *noise.shape[2:])
    z, theirs = noise, []
    with torch.no_grad():
        for t in scheduler.timesteps:
            eps = model.unet(torch.cat([z, beside], 1), torch.tensor([int(t)]), conditioning)
            z, x0 = scheduler.step(eps, int(t), z)
            theirs.append(x0)
    mine: list[torch.Tensor] = []
    context = model.context(**WHO)
    got = ddim(
        lambda z, t: model.unet(z, t, context),
        noise,
        CARD,
        50,
        noise=torch.randn,
        callback=lambda i, n, x0: mine.append(x0),
    )
    assert len(mine) == 50
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs))
    assert torch.equal(got, z)


def test_the_whole_sample_is_the_published_loop(model):
    noise = torch.randn(1, 3, 4, 8, 4, generator=torch.Generator().manual_seed(7))
    context = model.context(**WHO)
    z = ddim(lambda z, t: model.unet(z, t, context), noise, model.scheduler, 3, noise=torch.randn)
    with torch.no_grad():
        expected = model.source.autoencoder.decode(z)[0, 0].numpy()
    got = model.sample(**WHO, steps=3, shape=SHAPE, seed=7).array
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_conditions_go_by_name_in_the_checkpoints_order(folder, tmp_path, model):
    assert model.context(**WHO).flatten().tolist() == [1, 0.25, 0.75, 0.5]
    other = write_published(tmp_path / "m")
    edit_config(
        other, lambda c: c.update(conditioning="$torch.tensor([[@age, @gender, @brain_vol, @ventricular_vol]])")
    )
    assert BrainLDM.from_pretrained(other).context(**WHO).flatten().tolist() == [0.25, 1, 0.5, 0.75]


def test_any_multiple_of_8(model):
    """Latents that the U-Net cannot halve twice are sampled larger and cut."""
    volume = model.sample(steps=1, shape=(40, 24, 56))
    assert volume.shape == (40, 24, 56)
    np.testing.assert_allclose(volume.grid.to_world((np.array(volume.shape) - 1) / 2), brain_ldm.CENTRE)


def test_progress_and_cancelling(model):
    seen = []
    model.sample(steps=3, shape=SHAPE, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.sample(steps=3, shape=SHAPE, progress=stop)


# The VAE alone --------------------------------------------------------------------------------------------------------


def test_vae_encodes_decodes_reconstructs(model):
    rng = np.random.default_rng(0)
    volume = Volume(rng.random((16, 24, 32), np.float32), np.diag([1.0, 2.0, 1.0, 1.0]))
    z = model.vae.encode(volume)
    assert z.shape == (1, 3, 2, 3, 4)
    image = torch.from_numpy(volume.array)[None, None]
    with torch.no_grad():
        mu, _ = model.vae.network.encode(image)
        torch.testing.assert_close(z, mu)
        decoded = model.vae.network.decode(z)
    torch.testing.assert_close(model.vae.decode(z), decoded, rtol=1e-4, atol=1e-5)
    assert not torch.equal(model.vae.encode(image, sample=True), z)
    assert torch.equal(model.vae.encode(image, sample=True, seed=1), model.vae.encode(image, sample=True, seed=1))
    again = model.vae.reconstruct(volume)
    assert again.grid.same_as(volume.grid)
    np.testing.assert_allclose(again.array, decoded[0, 0].numpy(), atol=1e-4)
    odd = Volume(volume.array[:13, :20, :31], volume.affine)
    assert model.vae.reconstruct(odd).shape == (13, 20, 31)
    with refused(InputError, "13 x 20 x 31", "multiple of 8", "16 x 16 x 32"):
        model.vae.encode(odd)


# Saving ---------------------------------------------------------------------------------------------------------------


def test_saved_as_a_delta_and_loaded_back(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "mine")
    assert sorted(p.name for p in folder.iterdir()) == ["MODEL_CARD.md", "bundle.json", "unet.safetensors"]
    again = BrainLDM.from_pretrained(tmp_path / "mine")
    assert (again.scheduler, again.conditions) == (model.scheduler, model.conditions)
    a, b = (m.sample(**WHO, steps=2, shape=SHAPE).array for m in (model, again))
    assert np.array_equal(a, b)
    again.save_pretrained(tmp_path / "second")  # over the same VAE
    assert json.loads((tmp_path / "second" / "bundle.json").read_text())["base"]["name"] == "mine-vae"
    with refused(InputError, "exists already"):
        model.save_pretrained(tmp_path / "mine")


def test_vae_from_elsewhere_and_missing(folder, tmp_path):
    bare = write_published(tmp_path / "bare")
    (bare / "models" / "autoencoder.pth").unlink()
    with refused(BundleError, "has no VAE", "--vae"):
        BrainLDM.from_pretrained(bare)
    assert BrainLDM.from_pretrained(bare, vae=folder).vae.factor == 8
    brats = write_published(tmp_path / "brats", "brats")
    with refused(BundleError, "8 latent channels", "do not belong together"):
        BrainLDM.from_pretrained(bare, vae=brats)
    with refused(BundleError, "takes no conditions", "give a Brain LDM"):
        BrainLDM.from_pretrained(brats)


# Bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WHO)
@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), "old"])
def test_conditions_outside_0_to_1_are_refused(model, name, value):
    with refused(InputError, name, "must be 0 to 1"):
        model.sample(**{name: value}, steps=1, shape=SHAPE)


@pytest.mark.parametrize("shape", [(33, 64, 32), (0, 64, 32), (32, 32), (-8, 8, 8)])
def test_sizes_that_do_not_divide_are_refused(model, shape):
    with refused(InputError, "multiple of 8"):
        model.sample(steps=1, shape=shape)


def test_impossible_settings_are_refused(model):
    with refused(InputError, "1 to 1000"):
        model.sample(steps=1001, shape=SHAPE)
    with refused(InputError, "eta must be 0 to 1"):
        model.sample(steps=1, eta=2, shape=SHAPE)


def test_too_little_memory_is_said_before_starting(model, folder, monkeypatch):
    monkeypatch.setattr(vae_module, "available_memory", lambda device=None: 1 << 20)
    with refused(InputError, "Not enough memory", "GiB are needed", "are free"):
        model.sample(steps=1, shape=brain_ldm.SHAPE)
    monkeypatch.setattr(vae_module, "available_memory", lambda device=None: 1 << 10)
    with refused(InputError, "Not enough memory for the weights"):
        BrainLDM.from_pretrained(folder)


# Command line ---------------------------------------------------------------------------------------------------------


def test_sample_writes_image_sidecar_and_picture(folder, tmp_path, capsys):
    out, picture = tmp_path / "t1w.nii.gz", tmp_path / "p.png"
    argv = [
        "sample",
        "--model",
        str(folder),
        "--age",
        "0.6",
        "--sex",
        "1",
        "--out",
        str(out),
        "--preview",
        str(picture),
    ]
    argv += ["--steps", "2", "--shape", "32", "32", "32", "--seed", "5", "--device", "cpu"]
    assert run(main, argv) == 0
    assert "synthetic" in capsys.readouterr().out
    volume = Volume.read(out)
    assert volume.shape == (32, 32, 32)
    told = json.loads((tmp_path / "t1w.json").read_text())
    assert told["synthetic"] is True
    assert told["request"] == {
        "name": "brain",
        "age": 0.6,
        "sex": 1.0,
        "ventricular_volume": 0.5,
        "brain_volume": 0.5,
        "seed": 5,
    }
    assert told["model"]["schedule"]["kind"] == "scaled_linear"
    assert set(told["model"]["sha256"]) == {"diffusion_model.pth", "autoencoder.pth"}
    import nibabel as nib

    assert nib.load(out).header["descrip"].item().decode() == DESCRIPTION
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert run(main, argv) == 2
    assert "exists already" in capsys.readouterr().err
    before = out.read_bytes()
    assert run(main, [*argv, "--overwrite", "-q"]) == 0
    assert out.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.png", "t1w.json", "t1w.nii.gz"]


def test_cohort_from_a_table_and_again(folder, tmp_path, capsys, monkeypatch):
    table = tmp_path / "people.csv"
    table.write_text("name,age,ventricular_volume\nyoung,0.1,0.2\nold,0.9,0.8\n")
    argv = ["sample", "--model", str(folder), "--conditions", str(table), "--out-dir", str(tmp_path / "out")]
    argv += ["--steps", "1", "--shape", "32", "32", "32", "--device", "cpu", "-q"]
    assert run(main, argv) == 0
    rows = list(csv.DictReader((tmp_path / "out" / "cohort.csv").open()))
    assert [(row["name"], row["seed"], row["file"]) for row in rows] == [
        ("young", "0", "young_T1w.nii.gz"),
        ("old", "1", "old_T1w.nii.gz"),
    ]
    assert rows[0]["sex"] == "0.5"  # neutral where the table says nothing
    # It goes on where it was: what is there is not made again, what is missing is.
    (tmp_path / "out" / "old_T1w.nii.gz").unlink()
    (tmp_path / "out" / "old_T1w.json").unlink()
    made = []
    sample = BrainLDM.sample
    monkeypatch.setattr(BrainLDM, "sample", lambda self, **k: made.append(k["age"]) or sample(self, **k))
    assert run(main, argv) == 0
    assert made == [0.9]
    # Whoever watches sees all of it, what was there already included.
    heard = []
    model, settings = BrainLDM.from_pretrained(folder, device="cpu"), SampleSettings(1, 0.0, (32, 32, 32))
    (tmp_path / "out" / "old_T1w.nii.gz").unlink()
    (tmp_path / "out" / "old_T1w.json").unlink()
    write_cohort(model, read_requests(table), tmp_path / "out", settings, progress=lambda *told: heard.append(told))
    assert [(request.name, done, total) for request, done, total in heard] == [("young", 1, 1), ("old", 1, 1)]
    table.write_text("name,age,ventricular_volume\nyoung,0.3,0.2\n")
    assert run(main, argv) == 2  # another brain of that name
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds no conditions"),
        ("name\nx\n", "holds no conditions"),
        ("age,height\n0.1,3\n", "unknown column 'height'"),
        ("age\n1.5\n", "line 2: age is '1.5'"),
        ("age\n0.5\nold\n", "line 3: age is 'old'"),
        ("name,age\nx,0\nx,1\n", "names 'x' twice"),
        ("name,age\na/b,0\n", "is no file name"),
        ("age,seed\n0.5,-1\n", "seed is '-1'"),
    ],
)
def test_bad_tables_are_refused(content, words, tmp_path):
    (tmp_path / "t.csv").write_text(content)
    with refused(InputError, words):
        read_requests(tmp_path / "t.csv")
    with refused(InputError, "cannot be read"):
        read_requests(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["sample", "--age", "1.2", "--out", "x.nii.gz"], "--age: '1.2' is no condition"),
        (["sample"], "Say what to make"),
        (["sample", "--out", "x.nii.gz", "--out-dir", "y"], "Say what to make"),
        (["sample", "--model", "./nowhere", "--out", "x.nii.gz"], "There is no bundle './nowhere'"),
        (["sample", "--model", "{folder}", "--shape", "30", "32", "32", "--out", "x.nii.gz"], "multiple of 8"),
        (["sample", "--model", "{folder}", "--out", "x.nii.gz", "--preview", "x.doc"], "no name for a picture"),
        (["sample", "--model", "{folder}", "--steps", "0", "--out", "x.nii.gz"], "1 to 1000"),
        (["info", "./nowhere"], "There is no bundle './nowhere'"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(argv, words, folder, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(main, [word.format(folder=folder) for word in argv]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert words in error
    assert not list(tmp_path.iterdir())


def test_info_and_convert(folder, tmp_path, capsys):
    assert run(main, ["info", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "scaled_linear 0.0015 to 0.0205" in text
    assert "sex, age, ventricular_volume, brain_volume" in text
    assert run(main, ["convert", str(folder), str(tmp_path / "ours")]) == 0
    assert BrainLDM.from_pretrained(tmp_path / "ours").source.unet_config == UNET
    assert BrainLDM.from_pretrained(tmp_path / "ours").source.autoencoder_config == VAE
