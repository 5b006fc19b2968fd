"""Published formats: every weight finds its place, outputs are the published classes', bad files are refused."""

from __future__ import annotations

import io
import json
import math
import pickle
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from monai.networks.schedulers import DDIMScheduler
from published_data import (
    BRATS_UNET,
    DATA,
    PUBLISHED_SCHEDULE,
    SMALL,
    UNET,
    VAE,
    edit_config,
    published_state,
    wave,
    write_published,
)
from safetensors.torch import load_file, save_file

from DEMISTCore import bundle as bundles
from DEMISTCore.bundle import load_bundle
from DEMISTCore.bundle.__main__ import main
from DEMISTCore.cli import run
from DEMISTCore.errors import BundleError, InputError
from DEMISTCore.networks.brain_ldm import CONDITIONS
from DEMISTCore.published import keys
from DEMISTCore.published.checkpoints import fill, read_checkpoint
from DEMISTCore.published.ddim import BRATS, CARD, Scheduler, ddim
from DEMISTCore.published.folder import read_folder
from DEMISTCore.published.layouts import LAYOUTS, known_shapes, nearest
from DEMISTCore.published.store import export_model, open_model, read_stored, save_model
from DEMISTCore.published.tools import convert, inspect, verify


def published_shapes(key: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes as the published classes have them."""
    lines = (DATA / f"{key}.txt").read_text().splitlines()
    pairs = (line.split() for line in lines)
    return {name: tuple(int(n) for n in shape.split("x")) for name, shape in pairs}


def refused(error: type[Exception], *words: str):
    """Context: one sentence with these words."""
    return pytest.raises(error, match=".*".join(map(re.escape, words)))


@pytest.fixture(params=sorted(SMALL))
def family(request) -> str:
    return request.param


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_published(tmp_path / "published")


# The published sizes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", LAYOUTS)
def test_full_size_parameter_counts(key):
    network = LAYOUTS[key].build()
    assert all(p.is_meta for p in network.parameters())
    assert sum(p.numel() for p in network.parameters()) == LAYOUTS[key].parameters


def test_the_counts_are_those_of_the_papers_and_model_cards():
    counts = {key: layout.parameters for key, layout in LAYOUTS.items()}
    assert counts == {
        "brain_ldm_unet": 553_168_899,
        "brain_ldm_autoencoder": 13_766_248,
        "brats_unet": 189_325_576,
        "brats_autoencoder": 21_000_353,
    }


@pytest.mark.parametrize("key", LAYOUTS)
def test_every_published_weight_finds_its_place(key):
    listed = published_shapes(key)
    tensors = {name: torch.empty(shape, device="meta") for name, shape in listed.items()}
    placed = {name: tuple(tensor.shape) for name, tensor in keys.current(tensors).items()}
    assert placed == known_shapes(key)  # none left over on either side
    dropped = [name for name in listed if keys.to_current(name) is None]
    assert all("proj_attn" in name for name in dropped)
    assert bool(dropped) == (key == "brats_unet")
    back = keys.published({name: torch.empty(shape, device="meta") for name, shape in known_shapes(key).items()})
    assert {name: tuple(tensor.shape) for name, tensor in back.items()} == listed
    assert keys.is_published(tensors)
    assert not keys.is_published(known_shapes(key))


@pytest.mark.parametrize("key", LAYOUTS)
def test_a_layout_is_recognised_by_its_weights(key):
    assert nearest(known_shapes(key))[0].key == key
    cut = dict(list(known_shapes(key).items())[3:])
    layout, share = nearest(cut)
    assert layout.key == key
    assert 0.9 < share < 1


def test_outputs_are_those_of_the_published_classes(family, tmp_path):
    """The numbers in outputs.json were computed by GenerativeModels' own classes, on the same weights and inputs.

    Outputs are of order one to ten; processors that sum in other orders differ by up to 2e-5.
    """
    expected = json.loads((DATA / "outputs.json").read_text())[family]
    model = read_folder(write_published(tmp_path / "m", family))
    latent = model.autoencoder_config.latent_channels
    context = torch.tensor([[[1.0, 0.25, 0.75, 0.5]], [[0.0, 0.9, 0.1, 0.3]]]) if model.conditions else None
    with torch.no_grad():
        mu, sigma = model.autoencoder.encode(wave((1, 1, 16, 24, 16), 0.31))
        image = model.autoencoder.decode(wave((1, latent, 4, 4, 4), 0.77))
        noise = model.unet(wave((2, latent, 8, 4, 8), 0.43), torch.tensor([7, 640]), context)
    for name, got in (("mu", mu), ("sigma", sigma), ("image", image), ("noise", noise)):
        picked = got.flatten()[:: max(1, got.numel() // 24)][:24]
        torch.testing.assert_close(picked, torch.tensor(expected[name]), rtol=0, atol=5e-5, msg=f"{family} {name}")


def test_the_unet_takes_its_context_concatenated_or_not():
    from DEMISTCore.networks.brain_ldm import build_unet

    torch.manual_seed(0)
    unet = fill(UNET, published_state(UNET), "x", "x")
    z, t, context = torch.randn(2, 3, 4, 8, 4), torch.tensor([5, 900]), torch.rand(2, 1, 4)
    wide = torch.cat([z, context[:, 0, :, None, None, None].expand(-1, -1, 4, 8, 4)], 1)
    with torch.no_grad():
        assert torch.equal(unet(z, t, context), unet(wide, t, context))
        neutral = torch.full((1, 1, 4), 0.5)
        assert torch.equal(unet(z, t), unet(z, t, neutral))
    assert build_unet(UNET).state_dict().keys() == unet.state_dict().keys()


# Folders --------------------------------------------------------------------------------------------------------------


def test_folder_of_the_old_time(folder, caplog):
    with caplog.at_level("INFO"):
        model = read_folder(folder)
    assert (model.autoencoder_config, model.unet_config) == (VAE, UNET)
    assert model.conditions == CONDITIONS == ("sex", "age", "ventricular_volume", "brain_volume")
    assert model.latent_shape == (4, 8, 4)
    assert model.scheduler == PUBLISHED_SCHEDULE  # the folder wins over the card, and the log says so
    assert "scaled_linear 0.0015 to 0.0205" in caplog.text
    assert "linear 0.0001 to 0.02" in caplog.text
    assert not any(p.requires_grad for p in model.unet.parameters())
    assert all(p.dtype == torch.float32 for p in model.unet.parameters())


def test_folder_of_today_refers_and_leaves_out(tmp_path):
    """As the BraTS bundle is written: MONAI's classes, references between entries, defaults left out."""
    folder = write_published(tmp_path / "m", "brats", BRATS)

    def today(config):
        config["latent_channels"], config["latent_shape"] = 8, [8, 36, 44, 28]
        for entry in ("autoencoder_def", "diffusion_def"):
            config[entry]["_target_"] = config[entry]["_target_"].replace("generative", "monai")
            config[entry]["channels"] = config[entry].pop("num_channels")
        config["autoencoder_def"]["latent_channels"] = "@latent_channels"
        for key in ("in_channels", "out_channels"):
            config["diffusion_def"][key] = "@latent_channels"
        config["network_def"] = config.pop("diffusion_def") | {"include_fc": False, "use_combined_linear": False}
        for key in ("with_conditioning", "cross_attention_dim", "resblock_updown", "transformer_num_layers"):
            config["network_def"].pop(key)
        config["noise_scheduler"] = {
            "_target_": "monai.networks.schedulers.ddim.DDIMScheduler",
            "num_train_timesteps": 1000,
            "beta_start": 0.0015,
            "beta_end": 0.0195,
            "schedule": "scaled_linear_beta",
            "clip_sample": False,
        }
        del config["scheduler"]

    edit_config(folder, today)
    model = read_folder(folder)
    assert (model.autoencoder_config, model.unet_config) == SMALL["brats"]
    assert (model.scheduler, model.conditions, model.latent_shape) == (BRATS, (), (36, 44, 28))
    assert model.unet.state_dict().keys() == fill(BRATS_UNET, published_state(BRATS_UNET), "", "").state_dict().keys()


def test_folder_as_on_hugging_face(folder):
    """MONAI's classes over weights of the old names, an entry that only refers to another, file names with .pt."""

    def today(config):
        for entry in ("autoencoder_def", "diffusion_def"):
            config[entry]["_target_"] = config[entry]["_target_"].replace("generative", "monai")
            config[entry]["channels"] = config[entry].pop("num_channels")
        config["diffusion_def"]["use_flash_attention"] = False
        config["network_def"], config["load_old"] = "@autoencoder_def", 1
        config["scheduler"]["_target_"] = "monai.networks.schedulers.DDIMScheduler"
        config["load_autoencoder_path"] = "$@model_dir + '/autoencoder.pt'"
        config["load_diffusion_path"] = "$@model_dir + '/model.pt'"

    expected = read_folder(folder).unet.state_dict()
    edit_config(folder, today)
    (folder / "models" / "autoencoder.pth").rename(folder / "models" / "autoencoder.pt")
    (folder / "models" / "diffusion_model.pth").rename(folder / "models" / "model.pt")
    model = read_folder(folder)
    assert (model.autoencoder_config, model.unet_config) == (VAE, UNET)
    assert model.scheduler == replace(PUBLISHED_SCHEDULE, spacing="linspace")
    assert model.autoencoder.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.unet.state_dict().items())


def test_safetensors_of_todays_names_and_other_file_names(folder):
    model = read_folder(folder)
    expected = model.unet.state_dict()
    for name, part in (("autoencoder", model.autoencoder), ("diffusion_model", model.unet)):
        (folder / "models" / f"{name}.pth").unlink()
        state = {key: value.contiguous() for key, value in part.state_dict().items()}
        save_file(state, folder / "models" / f"{name}.safetensors")
    again = read_folder(folder).unet.state_dict()
    assert all(torch.equal(again[key], expected[key]) for key in expected)


def test_wrapped_and_data_parallel_checkpoints(tmp_path):
    state = published_state(VAE)
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "a.pt")
    assert read_checkpoint(tmp_path / "a.pt").keys() == state.keys()


def test_the_order_of_the_conditions_is_the_folders(folder):
    edit_config(folder, lambda c: c.update(conditioning="$torch.tensor([[@age, @gender, @brain_vol, @vcsf]])"))
    assert read_folder(folder).conditions == ("age", "sex", "brain_volume", "ventricular_volume")
    edit_config(folder, lambda c: c.update(conditioning="$torch.tensor([[@age, @height, @brain_vol, @vcsf]])"))
    with refused(BundleError, "feeds the conditions age, height", "gender"):
        read_folder(folder)
    edit_config(folder, lambda c: c.pop("conditioning"))
    assert read_folder(folder).conditions == CONDITIONS


def test_expressions_are_never_evaluated(folder, tmp_path):
    trap = tmp_path / "trap"
    edit_config(
        folder,
        lambda c: c.update(
            imports=[f"$open({str(trap)!r}, 'w')"], conditioning=f"$open({str(trap)!r}, 'w') or [[@age]]"
        ),
    )
    with pytest.raises(BundleError):
        read_folder(folder)
    assert not trap.exists()


def test_without_a_scheduler_the_cards_is_taken(folder):
    edit_config(folder, lambda c: c.pop("scheduler"))
    model = read_folder(folder)
    assert model.scheduler == CARD
    assert "names no scheduler" in model.notes[0]


def test_without_a_configuration_only_published_sizes_are_known(folder):
    shutil.rmtree(folder / "configs")
    with refused(BundleError, "none of the published networks", "inference.json"):
        read_folder(folder)


# Schedule and sampler -------------------------------------------------------------------------------------------------


def monai_scheduler(ours: Scheduler, **settings) -> DDIMScheduler:
    config = {k: v for k, v in ours.to_config().items() if not k.startswith("_")}
    return DDIMScheduler(**{**config, **settings})


@pytest.mark.parametrize(
    "ours",
    [
        CARD,
        BRATS,
        replace(CARD, prediction="v", clip=True),
        replace(CARD, offset=1),
        replace(CARD, final_one=False),
        replace(CARD, kind="cosine"),
    ],
)
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_ddim_is_monais_step_for_step(ours, steps):
    scheduler = monai_scheduler(ours)
    scheduler.set_timesteps(steps)
    assert ours.timesteps(steps) == scheduler.timesteps.tolist()
    torch.manual_seed(3)
    start, mix = torch.randn(1, 3, 4, 6, 4), torch.randn(3, 3) / 3

    def model(z, t):
        return torch.einsum("ij,bjxyz->bixyz", mix, z).tanh() * (1 + t.float().view(-1, 1, 1, 1, 1) / 1000)

    z, theirs = start, []
    for t in scheduler.timesteps:
        z, x0 = scheduler.step(model(z, torch.tensor([int(t)])), int(t), z)
        theirs.append(x0)
    seen = []
    got = ddim(model, start, ours, steps, noise=torch.randn, callback=lambda i, n, x0: seen.append(x0))
    assert len(seen) == steps
    assert all(torch.equal(mine, other) for mine, other in zip(seen, theirs))  # to the bit
    assert torch.equal(got, z)


def test_ddim_with_noise_is_monais():
    scheduler = monai_scheduler(CARD)
    scheduler.set_timesteps(10)
    drawn = [torch.randn(1, 2, 4, 4, 4, generator=torch.Generator().manual_seed(i)) for i in range(10)]
    start, z = torch.randn(1, 2, 4, 4, 4), None

    def model(z, t):
        return 0.3 * z

    z = start
    for i, t in enumerate(scheduler.timesteps):
        # MONAI draws inside: its own variance, our noise.
        mean, _ = scheduler.step(model(z, t), int(t), z)
        variance = scheduler._get_variance(int(t), int(t) - 100)
        z0 = (z - (1 - scheduler.alphas_cumprod[t]) ** 0.5 * 0.3 * z) / scheduler.alphas_cumprod[t] ** 0.5
        s = int(t) - 100
        abar = scheduler.alphas_cumprod[s] if s >= 0 else torch.tensor(1.0)
        z = abar**0.5 * z0 + (1 - abar - 0.25 * variance).clamp(0) ** 0.5 * 0.3 * z + 0.5 * variance**0.5 * drawn[i]
    queue = iter(drawn)
    got = ddim(model, start, CARD, 10, noise=lambda shape: next(queue), eta=0.5)
    torch.testing.assert_close(got, z, rtol=1e-4, atol=1e-4)


def test_the_old_schedulers_times():
    assert PUBLISHED_SCHEDULE.timesteps(50) == list(range(980, -1, -20))
    assert Scheduler.from_config({"_target_": "generative.networks.schedulers.DDIMScheduler"}, "x").spacing == "leading"
    assert Scheduler.from_config({"_target_": "monai.networks.schedulers.DDIMScheduler"}, "x").spacing == "linspace"


def test_what_a_configuration_leaves_out_is_as_monais_class_has_it():
    default = DDIMScheduler()
    ours = Scheduler.from_config({"_target_": "monai.networks.schedulers.DDIMScheduler"}, "x")
    torch.testing.assert_close(ours.noise.alphas_cumprod.float(), default.alphas_cumprod)
    assert (ours.clip, ours.offset, ours.final_one) == (default.clip_sample, 0, True)


@pytest.mark.parametrize(
    "change",
    [
        {"schedule": "sigmoid_beta"},
        {"prediction_type": "sample"},
        {"beta_start": "soon"},
        {"beta_start": 0.5, "beta_end": 0.1},
    ],
)
def test_unknown_schedules_are_refused(folder, change):
    edit_config(folder, lambda c: c["scheduler"].update(change))
    with pytest.raises(BundleError, match=r"inference\.json"):
        read_folder(folder)
    with refused(InputError, "1 to 1000"):
        CARD.timesteps(0)


# Refusing -------------------------------------------------------------------------------------------------------------


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_pickled_code_is_refused(folder, capsys):
    file = folder / "models" / "diffusion_model.pth"
    torch.save({"conv_in.conv.weight": torch.zeros(3), "x": Evil()}, file)
    with refused(BundleError, "diffusion_model.pth holds pickled code", "safetensors"):
        _ = read_folder(folder).unet
    file.write_bytes(pickle.dumps(Evil()))
    with refused(BundleError, "is refused"):
        _ = read_folder(folder).unet
    assert "executed" not in capsys.readouterr().out
    module = torch.nn.Linear(2, 2)
    torch.save(module, file)
    with refused(BundleError, "is refused"):
        _ = read_folder(folder).unet


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.98])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_files_are_refused(folder, share, suffix):
    file = folder / "models" / "diffusion_model.pth"
    if suffix == ".safetensors":
        save_file(published_state(UNET), file.with_suffix(suffix))
        file.unlink()
        file = file.with_suffix(suffix)
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    with refused(BundleError, file.name, "get it again"):
        _ = read_folder(folder).unet


def test_lfs_pointers_and_other_things_are_refused(folder):
    file = folder / "models" / "diffusion_model.pth"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with refused(BundleError, "Git LFS pointer"):
        _ = read_folder(folder).unet
    torch.save([torch.zeros(3)], file)
    with refused(BundleError, "not a state dict"):
        _ = read_folder(folder).unet


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("conv_in.conv.bias"), ("conv_in.conv.bias is missing",)),
        (lambda s: s.update(extra=torch.zeros(2)), ("extra is a weight too many",)),
        (lambda s: s.update({"conv_in.conv.bias": torch.zeros(5)}), ("conv_in.conv.bias is 5 and should be 8",)),
        (lambda s: s.update({"conv_in.conv.bias": torch.full((8,), math.nan)}), ("NaN", "conv_in.conv.bias")),
    ],
)
def test_weights_that_do_not_fit_are_named(folder, change, words):
    file = folder / "models" / "diffusion_model.pth"
    state = torch.load(file, weights_only=True)
    change(state)
    torch.save(state, file)
    with refused(BundleError, "diffusion_model.pth", *words):
        _ = read_folder(folder).unet


def test_the_nearest_known_layout_is_named(folder):
    brats = {name: torch.zeros(1).expand(shape) for name, shape in known_shapes("brats_unet").items()}
    with refused(BundleError, "does not fit", "nearest to the BraTS U-Net, 100%"):
        fill(UNET, brats, "x.pt", "the U-Net")


def test_folders_that_are_none(tmp_path, folder):
    with refused(BundleError, "no published model"):
        (tmp_path / "empty").mkdir()
        read_folder(tmp_path / "empty")
    (folder / "models" / "autoencoder.pth").unlink()
    with refused(BundleError, "holds no weights of the autoencoder", "autoencoder.safetensors"):
        _ = read_folder(folder).autoencoder
    edit_config(folder, lambda c: c["autoencoder_def"].update(attention_levels=[False, False, True, True]))
    with refused(BundleError, "autoencoder with attention"):
        read_folder(folder)
    edit_config(folder, lambda c: (c.pop("autoencoder_def"), c["diffusion_def"].update(spatial_dims=2)))
    with refused(BundleError, "2-D network"):
        read_folder(folder)
    (folder / "configs" / "inference.json").write_text("{")
    with refused(BundleError, "not readable JSON"):
        read_folder(folder)


# Our form, and back ---------------------------------------------------------------------------------------------------


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


def test_round_trip_through_our_form(family, tmp_path):
    model = read_folder(write_published(tmp_path / "m", family))
    saved = save_model(tmp_path / "ours", model)
    assert sorted(p.name for p in saved.folder.glob("*.safetensors")) == ["unet.safetensors"]
    assert saved.base.folder.name == "ours-vae"
    again = open_model(tmp_path / "ours")
    assert same(again.unet, model.unet)
    assert same(again.autoencoder, model.autoencoder)
    assert (again.scheduler, again.conditions, again.latent_shape) == (
        model.scheduler,
        model.conditions,
        model.latent_shape,
    )
    for names in ("monai", "generative"):
        export_model(tmp_path / names, again, names)
        back = read_folder(tmp_path / names)
        assert same(back.unet, model.unet)
        assert same(back.autoencoder, model.autoencoder)
        assert back.scheduler.noise == model.scheduler.noise
    old = torch.load(tmp_path / "generative" / "models" / "diffusion_model.pt", weights_only=True)
    assert old.keys() == published_state(SMALL[family][1]).keys()


def test_a_delta_finds_its_base_by_hash_and_refuses_another(folder, tmp_path):
    model = read_folder(folder)
    saved = save_model(tmp_path / "ours", model)
    (tmp_path / "ours-vae").rename(tmp_path / "kept")
    with refused(BundleError, "builds on the autoencoder ours-vae, which is not there"):
        read_stored(tmp_path / "ours")
    other = read_folder(folder)
    with torch.no_grad():
        next(other.autoencoder.parameters()).add_(1)
    save_model(tmp_path / "other" / "ours", other)
    shutil.move(tmp_path / "other" / "ours-vae", tmp_path / "ours-vae")
    with refused(BundleError, "was made on ours-vae with hash", "get the ours-vae that belongs to it"):
        read_stored(tmp_path / "ours")
    with refused(BundleError, "another autoencoder"):
        save_model(tmp_path / "third", model, base=tmp_path / "ours-vae")
    assert not (tmp_path / "third").exists()
    shutil.rmtree(tmp_path / "ours-vae")
    (tmp_path / "kept").rename(tmp_path / "ours-vae")
    assert read_stored(tmp_path / "ours").hash == saved.hash
    second = save_model(tmp_path / "second", read_stored(tmp_path / "ours"))  # the base it came with
    assert second.base.folder == tmp_path / "ours-vae"
    assert not (tmp_path / "second-vae").exists()


def test_our_form_is_checked_like_every_bundle(folder, tmp_path):
    save_model(tmp_path / "ours", read_folder(folder))
    file = tmp_path / "ours" / "unet.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-100])
    with refused(BundleError, "truncated"):
        open_model(tmp_path / "ours")
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with refused(BundleError, "damaged or was changed"):
        open_model(tmp_path / "ours")
    with refused(BundleError, "published model (autoencoder)", "demist bundle"):
        load_bundle(tmp_path / "ours-vae")
    with refused(InputError, "exists already"):
        save_model(tmp_path / "ours", read_folder(folder))


def test_half_precision_storage(folder, tmp_path):
    model = read_folder(folder)
    save_model(tmp_path / "ours", model, storage="bf16")
    assert all(t.dtype == torch.bfloat16 for t in load_file(tmp_path / "ours" / "unet.safetensors").values())
    for a, b in zip(open_model(tmp_path / "ours").unet.parameters(), model.unet.parameters()):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=2**-8, atol=1e-7)


# The command line -----------------------------------------------------------------------------------------------------


def test_convert_inspect_verify(folder, tmp_path, capsys):
    assert main(["convert", str(folder), str(tmp_path / "ours")]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "ours"), str(tmp_path / "ours-vae")]
    for source in (folder, tmp_path / "ours", tmp_path / "ours-vae"):
        text = inspect(source)
        assert "parameters" in text
        assert "whole" in verify(source)
    assert "sex, age, ventricular_volume, brain_volume" in inspect(folder)
    assert main(["convert", str(tmp_path / "ours"), str(tmp_path / "back"), "--to", "generative"]) == 0
    assert same(read_folder(tmp_path / "back").unet, read_folder(folder).unet)


def test_inspect_says_what_a_bundle_makes(tiny_bundle, calibrated_bundle):
    plain, calibrated = (inspect(folder).splitlines() for folder in (tiny_bundle, calibrated_bundle))
    for lines, told in (
        (
            plain,
            {
                "mean network": "no",
                "recommends": "sample",
                "samples": "2 seeds, 3 steps of dpmpp_2m",
                "calibrated": "no",
            },
        ),
        (
            calibrated,
            {
                "mean network": "yes",
                "recommends": "mean",
                "samples": "2 seeds, 2 steps of dpmpp_2m",
                "calibrated": "on 24 subjects",
            },
        ),
    ):
        for name, value in told.items():
            assert [line for line in lines if line.startswith(name) and line.endswith(value)], (name, lines)


def test_demist_bundles_too(tiny_bundle, tmp_path):
    assert "demist" in inspect(tiny_bundle)
    assert "streams" in verify(tiny_bundle)
    (out,) = convert(tiny_bundle, tmp_path / "monai", to="monai")
    assert json.loads((out / "configs" / "metadata.json").read_text())["intended_use"].startswith("research only")
    assert load_bundle(out / "models" / "tiny").hash == load_bundle(tiny_bundle).hash
    with refused(InputError, "is a foundation"):
        convert(tiny_bundle.parent / "tiny-base", tmp_path / "no", to="monai")
    with refused(InputError, "DEMIST bundle already"):
        convert(tiny_bundle, tmp_path / "no")
    with refused(InputError, "exists already"):
        convert(tiny_bundle, out, to="monai")


def test_an_exported_demist_bundle_runs_by_monai(tiny_bundle, head, tmp_path, monkeypatch):
    from monai.bundle import run as monai_run

    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    (out,) = convert(tiny_bundle, tmp_path / "monai", to="monai")
    monai_run(
        config_file=str(out / "configs" / "inference.json"),
        bundle_root=str(out),
        t1w=str(head.t1w),
        flair=str(head.flair),
        out=str(tmp_path / "psr.nii.gz"),
        brain_mask=str(head.mask),
        device="cpu",
        seeds=1,
    )
    told = json.loads((tmp_path / "psr.json").read_text())
    assert load_bundle(tiny_bundle).hash in json.dumps(told)
    assert re.search(r"\d+%\|", screen.getvalue()), "no progress was shown"


def test_an_exported_published_model_samples_by_monai(family, tmp_path):
    """MONAI's own inferer on the exported folder gives what our sampler gives from the same noise."""
    from monai.bundle import ConfigParser

    model = read_folder(write_published(tmp_path / "m", family, replace(PUBLISHED_SCHEDULE, spacing="linspace")))
    export_model(tmp_path / "out", model)
    parser = ConfigParser()
    parser.read_config(tmp_path / "out" / "configs" / "inference.json")
    parser["bundle_root"] = str(tmp_path / "out")
    parser["device"] = "$torch.device('cpu')"
    parser["steps"] = 4
    noise = torch.randn(1, model.autoencoder_config.latent_channels, 4, 8, 4)
    parser["noise"] = noise
    with torch.no_grad():
        theirs = parser.get_parsed_content("image")
        context = torch.full((1, 1, 4), 0.5) if model.conditions else None
        z = ddim(lambda z, t: model.unet(z, t, context), noise, read_folder(tmp_path / "out").scheduler, 4, noise=None)
        ours = model.autoencoder.decode(z)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["inspect", "nowhere"], "There is no bundle 'nowhere'"),
        (["verify", "{folder}"], "diffusion_model.pth"),
        (["convert", "{folder}", "{folder}"], "is an input"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(argv, words, folder, capsys):
    (folder / "models" / "diffusion_model.pth").write_bytes(b"\x80\x02garbage")
    assert run(main, [word.format(folder=folder) for word in argv]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert words in error
    assert "Traceback" not in error


def test_a_published_repository_is_downloaded_with_its_weights(monkeypatch, folder):
    seen = {}

    def download(repository, revision, allow_patterns):
        seen.update(repository=repository, patterns=allow_patterns)
        return str(folder)

    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert open_model("MONAI/brain_image_synthesis_latent_diffusion_model").unet_config == UNET
    assert seen["repository"] == "MONAI/brain_image_synthesis_latent_diffusion_model"
    assert {"*.pt", "*.pth", "*.json", "*.safetensors"} <= set(seen["patterns"])
    assert not any("py" in pattern.split(".")[-1] for pattern in seen["patterns"])
    assert "*.pt" not in bundles.PATTERNS  # DEMIST's own bundles are safetensors only
