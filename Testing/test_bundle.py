"""Bundles: what is saved comes back, and whatever is wrong with one is said in a sentence."""

from __future__ import annotations

import json
import shutil
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from DEMISTCore import bundle as bundles
from DEMISTCore.bundle import Bundle, description_hash, list_bundles, load_bundle, save_bundle
from DEMISTCore.diffusion import NoiseSchedule
from DEMISTCore.errors import BundleError, InputError
from DEMISTCore.files import sha256
from DEMISTCore.networks import PRESETS, build_autoencoder

CONFIG = PRESETS["tiny"]


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy to damage, base beside it."""
    for name in ("tiny", "tiny-base"):
        shutil.copytree(tiny_bundle.parent / name, tmp_path / name)
    return tmp_path / "tiny"


def edit(folder: Path, change, rehash: bool = True) -> None:
    """Change ``bundle.json``, and by default make its hash right again."""
    file = folder / "bundle.json"
    info = json.loads(file.read_text())
    change(info)
    if rehash:
        info["hash"] = description_hash(info)
    file.write_text(json.dumps(info))


def rewrite_weights(folder: Path, file: str, change) -> None:
    """Change tensors and make all hashes right again: what a careless hand would do."""
    tensors = load_file(folder / file)
    change(tensors)
    save_file(tensors, folder / file)
    entry = {"sha256": sha256(folder / file), "bytes": (folder / file).stat().st_size}
    edit(folder, lambda info: info["files"].update({file: entry}))


def load_everything(source) -> None:
    bundle = load_bundle(source)
    _ = bundle.config, bundle.schedule, bundle.latent_scale, bundle.condition_scale
    _ = bundle.autoencoder_psr, bundle.autoencoder_condition, bundle.demist


def refused(source, *words: str) -> str:
    """Loading and building everything ends in one BundleError sentence that has these words."""
    with pytest.raises(BundleError) as caught:
        load_everything(source)
    message = str(caught.value)
    for word in words:
        assert word in message, message
    assert "\n" not in message
    assert message.endswith((".", "huggingface_hub"))
    return message


# Round trip -----------------------------------------------------------------------------------------------------------


def test_what_is_saved_comes_back(tiny_bundle):
    bundle = load_bundle(tiny_bundle)
    assert (bundle.kind, bundle.name, bundle.base.kind, bundle.base.name) == (
        "demist",
        "tiny",
        "foundation",
        "tiny-base",
    )
    assert bundle.config == CONFIG
    assert bundle.schedule == NoiseSchedule(zero_snr=True)
    assert (bundle.latent_scale, bundle.condition_scale, bundle.psr_range, bundle.spacing) == (1.5, 0.8, 0.2, 4.0)
    assert bundle.sampling == {**bundles.SAMPLING, "steps": 3, "seeds": 2}
    assert bundle.simulated
    assert "simulated PSR" in bundle.warning
    assert bundle.warning in bundle.card
    assert bundle.info["base"]["hash"] == bundle.base.hash
    stored = load_file(tiny_bundle / "streams.safetensors")
    loaded = bundle.demist.streams_state_dict()
    assert stored.keys() == loaded.keys()
    assert all(torch.equal(stored[key], loaded[key]) for key in stored)
    backbone = load_file(tiny_bundle.parent / "tiny-base" / "backbone.safetensors")
    assert all(torch.equal(value, bundle.demist.backbone.state_dict()[key]) for key, value in backbone.items())
    assert not any(p.requires_grad for p in bundle.demist.parameters())
    assert not bundle.demist.training
    assert bundle.demist is bundle.demist  # built once
    assert not (tiny_bundle / "backbone.safetensors").exists()  # a delta: the base is not copied


def test_hash_stands_for_weights_and_configuration_not_for_documents(copy):
    before = load_bundle(copy).hash
    (copy / "MODEL_CARD.md").write_text("corrected")
    assert load_bundle(copy).hash == before
    rewrite_weights(copy, "streams.safetensors", lambda t: next(iter(t.values())).add_(1))
    assert load_bundle(copy).hash != before


@pytest.mark.parametrize(("storage", "error"), [("fp32", 0.0), ("fp16", 2**-11), ("bf16", 2**-8)])
def test_storage_precision(tmp_path, storage, error):
    network = build_autoencoder(CONFIG.psr)
    bundle = save_bundle(
        tmp_path / "b", config=CONFIG, weights={"autoencoder_psr": network}, storage=storage, latent_scale=1.0
    )
    for (name, saved), loaded in zip(
        network.state_dict().items(), load_bundle(bundle.folder).autoencoder_psr.parameters()
    ):
        assert loaded.dtype == torch.float32
        torch.testing.assert_close(loaded.detach(), saved, rtol=error, atol=1e-7, msg=name)


def test_same_weights_same_hash(tmp_path):
    network = build_autoencoder(CONFIG.psr)
    first, second = (
        save_bundle(tmp_path / folder, name="same", config=CONFIG, weights={"autoencoder_psr": network})
        for folder in ("a", "b")
    )
    assert first.hash == second.hash
    assert (tmp_path / "a/autoencoder_psr.safetensors").read_bytes() == (
        tmp_path / "b/autoencoder_psr.safetensors"
    ).read_bytes()


def test_autoencoders_alone_are_a_foundation_that_says_what_it_lacks(tmp_path):
    bundle = save_bundle(tmp_path / "ae", config=CONFIG, weights={"autoencoder_psr": build_autoencoder(CONFIG.psr)})
    assert bundle.has("autoencoder_psr")
    assert not bundle.has("backbone")
    lacking = {
        "backbone": "holds no backbone",
        "schedule": "no noise schedule",
        "latent_scale": "no usable latent_scale",
        "demist": "without conditioning streams",
    }
    for attribute, words in lacking.items():
        with pytest.raises(BundleError, match=words):
            getattr(bundle, attribute)


# Saving ---------------------------------------------------------------------------------------------------------------


def test_saving_is_whole_or_not_at_all(tmp_path):
    network = build_autoencoder(CONFIG.psr)
    with torch.no_grad():
        next(network.parameters())[0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        save_bundle(tmp_path / "b", config=CONFIG, weights={"autoencoder_psr": network})
    with torch.no_grad():
        next(network.parameters())[0] = 1e6
    with pytest.raises(ValueError, match="range of fp16"):
        save_bundle(tmp_path / "b", config=CONFIG, weights={"autoencoder_psr": network}, storage="fp16")
    assert list(tmp_path.iterdir()) == []
    save_bundle(tmp_path / "b", config=CONFIG, weights={"autoencoder_psr": network}, storage="bf16")
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_saving_over_something(tmp_path):
    weights = {"autoencoder_psr": build_autoencoder(CONFIG.psr)}
    log = tmp_path / "log.csv"
    log.write_text("step,loss\n")
    first = save_bundle(tmp_path / "b", config=CONFIG, weights=weights, documents={"log.csv": log})
    assert (tmp_path / "b" / "log.csv").read_text() == "step,loss\n"
    with pytest.raises(InputError, match="exists already"):
        save_bundle(tmp_path / "b", config=CONFIG, weights=weights)
    save_bundle(tmp_path / "b", config=CONFIG, weights=weights, description="new", overwrite=True)
    assert load_bundle(tmp_path / "b").hash != first.hash
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "log.csv"]
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not a bundle and will not be overwritten"):
        save_bundle(tmp_path / "precious", config=CONFIG, weights=weights, overwrite=True)
    with pytest.raises(InputError, match="Cannot write"):
        save_bundle(log / "b", config=CONFIG, weights=weights)


def test_saving_refuses_parts_that_do_not_belong(tmp_path, tiny_bundle):
    with pytest.raises(ValueError, match="holds"):
        save_bundle(tmp_path / "b", config=CONFIG, weights={"streams": {}})
    with pytest.raises(ValueError, match="nothing"):
        save_bundle(tmp_path / "b", config=CONFIG, weights={})
    with pytest.raises(ValueError, match="no foundation"):
        save_bundle(tmp_path / "b", config=CONFIG, weights={"streams": {}}, base=load_bundle(tiny_bundle))


# Finding --------------------------------------------------------------------------------------------------------------


def test_found_by_folder_file_name_and_search_path(tiny_bundle, monkeypatch, tmp_path):
    wanted = load_bundle(tiny_bundle).hash
    assert load_bundle(str(tiny_bundle / "bundle.json")).hash == wanted
    assert load_bundle(load_bundle(tiny_bundle)).hash == wanted
    monkeypatch.setenv(bundles.SEARCH_VARIABLE, str(tiny_bundle.parent))
    monkeypatch.chdir(tmp_path)
    assert load_bundle("tiny").hash == wanted
    assert "tiny" in list_bundles()
    assert "tiny-base" not in list_bundles()


def test_base_is_found_beside_and_on_the_search_path(copy, monkeypatch, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "tiny-base", tmp_path / "elsewhere")
    refused(copy, "builds on the foundation tiny-base, which is not there", "DEMIST_BUNDLES")
    monkeypatch.setenv(bundles.SEARCH_VARIABLE, str(tmp_path / "elsewhere"))
    assert load_bundle(copy).base.folder == tmp_path / "elsewhere" / "tiny-base"


def test_a_base_of_the_right_name_but_another_hash_is_refused(copy):
    edit(copy.parent / "tiny-base", lambda info: info.update(latent_scale=2.0))
    refused(copy, "was trained on tiny-base with hash", "get the tiny-base that belongs to it")


def test_of_two_bases_the_one_that_fits_is_taken(copy, tiny_bundle, monkeypatch):
    edit(copy.parent / "tiny-base", lambda info: info.update(latent_scale=2.0))
    monkeypatch.setenv(bundles.SEARCH_VARIABLE, str(tiny_bundle.parent))
    assert load_bundle(copy).base.folder == tiny_bundle.parent / "tiny-base"


def test_a_delta_is_no_base(copy):
    shutil.rmtree(copy.parent / "tiny-base")
    shutil.copytree(copy, copy.parent / "tiny-base")
    refused(copy, "serves as a base, but is a demist bundle")


# Refusing -------------------------------------------------------------------------------------------------------------


def test_nothing_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused("no-such-model", "There is no bundle 'no-such-model'", "give a name, a folder or a Hugging Face id")
    refused(tmp_path / "nowhere", "There is no bundle")
    refused(tmp_path, "has no bundle.json")
    (tmp_path / "weights.pt").write_bytes(b"x")
    refused(tmp_path / "weights.pt", "is a file, not a bundle")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text("{}")
    refused(tmp_path, "looks like a MONAI bundle")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "other"}', "\x00\x01", '"text"', "null"])
def test_damaged_or_foreign_description(copy, content):
    (copy / "bundle.json").write_text(content)
    refused(copy, "bundle.json")


def test_tampered_description(copy):
    edit(copy, lambda info: info.update(simulated=False), rehash=False)
    refused(copy, "changed or damaged", "wrong hash")


def test_newer_format(copy):
    edit(copy, lambda info: info.update(format_version=99))
    refused(copy, "bundle format 99", "update DEMIST")


@pytest.mark.parametrize("key", ["name", "kind", "files", "model", "licence", "simulated", "base", "format_version"])
def test_description_without_a_key(copy, key):
    edit(copy, lambda info: info.pop(key))
    refused(copy, "bundle.json", key)


def test_unknown_settings(copy):
    edit(copy, lambda info: info["model"]["streams"].update(telepathy=True))
    refused(copy, "model description that this version does not understand", "telepathy")


def test_unknown_schedule(copy):
    base = copy.parent / "tiny-base"
    edit(base, lambda info: info["schedule"].update(kind="quadratic"))
    edit(copy, lambda info: info["base"].update(hash=json.loads((base / "bundle.json").read_text())["hash"]))
    refused(copy, "schedule.kind must be one of linear, scaled_linear, cosine, not 'quadratic'")


def test_contradicting_prediction(copy):
    base = copy.parent / "tiny-base"
    edit(base, lambda info: info["schedule"].update(prediction="epsilon", zero_snr=False))
    edit(copy, lambda info: info["base"].update(hash=json.loads((base / "bundle.json").read_text())["hash"]))
    refused(copy, "contradicts itself")


def test_missing_weights(copy):
    (copy / "streams.safetensors").unlink()
    refused(copy, "incomplete: streams.safetensors is missing")


def test_truncated_weights(copy):
    file = copy / "streams.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    refused(copy, "truncated", "streams.safetensors")


def test_lfs_pointer(copy):
    (copy / "streams.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    refused(copy, "truncated", "git lfs pull")


def test_flipped_bit(copy):
    file = copy.parent / "tiny-base" / "backbone.safetensors"
    content = bytearray(file.read_bytes())
    content[-50] ^= 1
    file.write_bytes(content)
    refused(copy, "backbone.safetensors is damaged", "SHA-256")


def test_weights_that_are_no_safetensors(copy):
    file = copy / "streams.safetensors"
    file.write_bytes(b"\x80\x04pickle" * 100)
    entry = {"sha256": sha256(file), "bytes": file.stat().st_size}
    edit(copy, lambda info: info["files"].update({file.name: entry}))
    refused(copy, "not a readable safetensors file")


@pytest.mark.parametrize("name", ["evil.pt", "backbone.safetensors"])
def test_files_that_do_not_belong(copy, name):
    edit(copy, lambda info: info["files"].update({name: {"sha256": "0" * 64, "bytes": 0}}))
    refused(copy, "lists a file it should not have")


@pytest.mark.parametrize("name", ["../streams.safetensors", "/etc/passwd", "a\\b.safetensors"])
def test_files_elsewhere(copy, name):
    edit(copy, lambda info: info["files"].update({name: {"sha256": "0" * 64, "bytes": 0}}))
    refused(copy, "a file must be a plain name")


def test_missing_unknown_misshapen_and_nan_weights(copy, tiny_bundle):
    file = "streams.safetensors"
    key = sorted(load_file(copy / file))[0]

    def attempt(change, *words):
        shutil.copy(tiny_bundle / file, copy / file)
        rewrite_weights(copy, file, change)
        refused(copy, file, key if words[0] != "unknown" else "extra", *words)

    attempt(lambda t: t.pop(key), "misses weights")
    attempt(lambda t: t.update(extra=torch.zeros(1)), "unknown", "has unknown weights")
    attempt(lambda t: t.update({key: torch.zeros(3, 1, 2)}), "is (3, 1, 2) and should be")
    attempt(lambda t: t.update({key: torch.full_like(t[key], torch.nan)}), "NaN or infinite")


def test_a_foundation_cannot_synthesize(tiny_bundle):
    refused(tiny_bundle.parent / "tiny-base", "foundation without conditioning streams")


# Hugging Face ---------------------------------------------------------------------------------------------------------


def test_hub_out_of_reach(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    refused("someone/some-model", "Hugging Face hub is out of reach", "give its folder")
    refused("hf:someone/some-model@v2", "out of reach")


def test_hub_extra_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused("someone/some-model", "needs huggingface_hub", "pip install huggingface_hub")


def fake_hub(monkeypatch, answer):
    from huggingface_hub import errors

    module = types.ModuleType("huggingface_hub")
    module.snapshot_download = answer
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)


def test_hub_download_with_revision(monkeypatch, tiny_bundle):
    asked = []

    def download(repository, revision, allow_patterns):
        asked.append((repository, revision))
        assert not any("pt" in pattern.split(".")[-1] or "py" in pattern for pattern in allow_patterns)
        return str(tiny_bundle)

    fake_hub(monkeypatch, download)
    assert load_bundle("someone/tiny@v2").name == "tiny"
    assert load_bundle("hf:someone/tiny").name == "tiny"
    assert asked == [("someone/tiny", "v2"), ("someone/tiny", None)]


def test_base_from_the_hub(monkeypatch, copy, tiny_bundle):
    shutil.rmtree(copy.parent / "tiny-base")
    edit(copy, lambda info: info["base"].update(hub="someone/tiny-base"))
    fake_hub(monkeypatch, lambda repository, **_: str(tiny_bundle.parent / "tiny-base"))
    assert load_bundle(copy).base.name == "tiny-base"


def test_no_such_model_on_the_hub(monkeypatch):
    from huggingface_hub.errors import RevisionNotFoundError

    class Missing(RevisionNotFoundError):
        def __init__(self):
            Exception.__init__(self, "404")

    def download(*_, **__):
        raise Missing

    fake_hub(monkeypatch, download)
    refused("someone/nothing", "no model someone/nothing on the Hugging Face hub")


def test_pickle_is_never_touched(monkeypatch, tiny_bundle):
    import pickle

    def refuse(*_, **__):
        raise AssertionError("a pickle was read")

    for target in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, target, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    assert isinstance(load_bundle(tiny_bundle), Bundle)
    assert load_bundle(tiny_bundle).demist is not None
