"""The tissue network: its training stage, its bundle, and regions made with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from test_regions import dice, made_up
from training_data import write_mini_bids

from DEMISTCore import train
from DEMISTCore.bundle import load_bundle
from DEMISTCore.cli import run as run_cli
from DEMISTCore.errors import BundleError, InputError
from DEMISTCore.preprocess import normalise
from DEMISTCore.regions import RegionSettings, build_regions, find_tissue, open_network
from DEMISTCore.regions.lesions import SUGGESTION
from DEMISTCore.regions.network import CLASSES, build_network, save_network
from DEMISTCore.regions.refine import refine
from DEMISTCore.simulate.tissues import DSEG_NAMES
from DEMISTCore.training.data import index, prepare_cohort, split
from DEMISTCore.training.segmentation import SegmentationStage, recoloured, thickened, thinned
from DEMISTCore.training.settings import SegmentationSettings, resolve


def train_cli(*words: object) -> int:
    return run_cli(train.main, [str(word) for word in words])


@pytest.fixture(scope="module")
def bids(tmp_path_factory) -> Path:
    return write_mini_bids(tmp_path_factory.mktemp("bids"), subjects=3)


@pytest.fixture(scope="module")
def trained(bids, tmp_path_factory) -> Path:
    """A run that has learnt what the blobs are made of."""
    folder = tmp_path_factory.mktemp("runs") / "segmentation"
    words = ("steps=60", "batch=1", "lr=0.02", "decay=constant", "ema=0.8", "channels=[8,8,8,8,8,8]",
             "recolour_share=0", "augment.probability=0", "validate_every=60", "preview_every=60")  # fmt: skip
    assert train_cli("segmentation", "--data", bids, "--out", folder, "--config", "tiny", *words) == 0
    return folder


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "tiny-regions"
    assert train_cli("export", trained, "--out", folder) == 0
    return folder


def stage_on(bids: Path, cache: Path, *words: str) -> SegmentationStage:
    settings = resolve("segmentation", "tiny", list(words))
    train_sessions, held = split(index(bids), settings)
    prepared = prepare_cohort([*train_sessions, *held], settings, cache)
    return SegmentationStage(settings, prepared[: len(train_sessions)], prepared[len(train_sessions) :])


# --- training --------------------------------------------------------------------------------------------------------


def test_it_learns(trained: Path) -> None:
    rows = [line.split(",") for line in (trained / "metrics.csv").read_text().splitlines()[1:]]
    last = {tag: float(value) for _, _, tag, value in rows if tag.startswith("validation/")}
    assert last["validation/white"] > 0.85
    assert last["validation/grey"] > 0.8
    assert last["validation/white_t1w"] > 0.7
    assert last["validation/error"] == pytest.approx(
        1 - np.mean([last[f"validation/{name}"] for name in ("white", "grey", "lesion")]), abs=1e-4
    )
    assert len(list((trained / "previews").glob("*.png"))) == 1


def test_batches_are_functions_of_their_index(bids, tmp_path) -> None:
    stage = stage_on(bids, tmp_path, "flair_dropout=0.5")
    once, again = stage.batch(range(8)), stage.batch(range(4, 8))
    assert torch.equal(once["x"][4:], again["x"])
    assert torch.equal(once["target"][4:], again["target"])
    blind = (once["x"][:, 1] == 0).flatten(1).all(1)
    assert 1 <= int(blind.sum()) <= 7
    assert (once["x"][:, 0] != 0).flatten(1).any(1).all()
    assert (once["x"].movedim(1, -1)[once["target"] < 0] == 0).all()
    assert set(once["target"].unique().tolist()) == {-1, 0, 1, 2, 4}


def test_brightness_moves_by_tissue_and_lesions_with_white_matter() -> None:
    labels = np.zeros((24, 24, 24), np.uint8)
    labels[2:22, 2:22, 2:22] = 3
    labels[2:8] = labels[2:8].clip(0, 2)
    labels[16:22] = np.where(labels[16:22] > 0, 1, 0)
    labels[11:14, 11:14, 11:14] = 5
    x = np.where(labels > 0, np.float32(0.5), np.float32(0))[None].repeat(2, 0)
    settings = SegmentationSettings(steps=1, recolour_share=1.0)
    moved = recoloured(x, labels, settings, np.random.default_rng(0)) - x
    assert abs(moved[:, 19, 12, 12]).max() < 1e-6  # CSF
    np.testing.assert_allclose(moved[:, 12, 12, 12], moved[:, 12, 5, 12], atol=1e-5)
    assert (abs(moved[:, 4, 12, 12] - moved[:, 12, 5, 12]) > 1e-3).all()
    assert not moved[:, labels == 0].any()
    off = SegmentationSettings(steps=1, recolour_share=0.0)
    assert recoloured(x, labels, off, np.random.default_rng(0)) is x


def test_thinner_masks_lose_outer_csf_only() -> None:
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[2:18, 2:18, 2:18] = 1
    labels[5:15, 5:15, 5:15] = 3
    labels[9:11, 9:11, 9:11] = 1
    x = np.where(labels > 0, np.float32(0.5), np.float32(0))[None].repeat(2, 0)
    image, kept = thinned(x, labels, 2)
    assert (kept[labels == 3] == 3).all()
    assert (kept[9:11, 9:11, 9:11] == 1).all()
    assert kept[2:4].max() == 0
    assert kept[4, 10, 10] == 1
    assert ((image[0] != 0) == (kept > 0)).all()
    full = np.ones_like(labels)
    assert thinned(x, full, 2)[1] is full


def test_a_thicker_mask_adds_a_rim_that_counts_as_csf() -> None:
    labels = np.zeros((32, 40, 36), np.uint8)
    labels[10:22, 12:28, 12:24] = 2
    x = np.where(labels > 0, np.float32(0.5), np.float32(0))[None].repeat(2, 0)
    widths = []
    for seed in range(5):
        image, more = thickened(x, labels, np.random.default_rng(seed))
        rim = (labels == 0) & (more > 0)
        assert (more[rim] == 1).all()
        assert (more[labels > 0] == 2).all()
        np.testing.assert_array_equal(image[:, labels > 0], x[:, labels > 0])
        assert (image[:, more == 0] == 0).all()
        assert image[:, rim].max() < 1.5
        widths.append(distance_transform_edt(labels == 0)[rim].max())
    assert max(widths) > min(widths) >= 1
    full = np.ones_like(labels)
    assert thickened(x, full, np.random.default_rng(0))[1] is full


@pytest.mark.parametrize(
    ("words", "says"),
    [(("patch=[48,48,48]",), "multiples of 32"), (("patch=[32,32,32]",), "64 or more"),
     (("channels=[8,8]",), "six widths")],
)  # fmt: skip
def test_settings_that_do_not_fit(bids, tmp_path, words, says, capsys) -> None:
    assert train_cli("segmentation", "--data", bids, "--out", tmp_path / "r", "--config", "tiny", *words) == 2
    assert says in capsys.readouterr().err


def test_data_without_tissue_labels(tmp_path, capsys) -> None:
    root = write_mini_bids(tmp_path / "bids", subjects=2)
    for file in root.glob("derivatives/**/*dseg.nii.gz"):
        file.unlink()
    assert train_cli("segmentation", "--data", root, "--out", tmp_path / "r", "--config", "tiny") == 2
    said = capsys.readouterr().err
    assert "no tissue segmentation" in said
    assert "Traceback" not in said


# --- the network and its bundle ----------------------------------------------------------------------------------


def test_classes_are_the_simulators() -> None:
    assert {label: name for label, (name, _) in CLASSES.items()} == {k: v for k, v in DSEG_NAMES.items() if k}


def test_folded_logits_are_the_same_logits() -> None:
    torch.manual_seed(0)
    network = build_network([4, 4, 8, 8, 8, 4]).eval()
    x = torch.randn(1, 2, 64, 64, 64)
    with torch.no_grad():
        plain, folded = network(x), network.folded(x)
    assert plain.shape == (1, 7, 64, 64, 64)
    back = folded.unflatten(2, (2, 2, 2)).permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(plain.shape)
    assert torch.equal(back, plain)


def test_the_bundle_is_checked(exported: Path, tiny_bundle: Path, tmp_path) -> None:
    model = open_network(exported)
    assert model.kind == "segmentation"
    assert model.simulated
    info = json.loads((exported / "bundle.json").read_text())
    assert info["training"]["stages"]["segmentation"]["steps"] == 60
    assert "not for clinical use" in info["warning"]
    assert {"segmentation.csv", "segmentation.yaml", "MODEL_CARD.md"} <= {p.name for p in exported.iterdir()}
    with pytest.raises(BundleError, match="makes no PSR maps"):
        load_bundle(exported)
    with pytest.raises(BundleError, match="not a tissue network"):
        open_network(tiny_bundle)
    with pytest.raises(BundleError, match="no bundle"):
        open_network("nowhere")
    with pytest.raises(InputError, match="exists already"):
        save_network(exported, model.network, channels=[8] * 6, patch=[64, 32, 32])
    broken = tmp_path / "broken"
    save_network(broken, model.network, channels=[8] * 6, patch=[64, 32, 32])
    content = bytearray((broken / "segmentation.safetensors").read_bytes())
    content[-1] ^= 1
    (broken / "segmentation.safetensors").write_bytes(content)
    open_network.__globals__["_open"].cache_clear()
    with pytest.raises(BundleError, match="SHA-256"):
        open_network(broken)
    other = tmp_path / "other"
    with pytest.raises(BundleError, match="does not fit"):
        _ = save_network(other, model.network, channels=[4] * 6, patch=[64, 32, 32]).network


def test_export_takes_one_segmentation_run(trained: Path, tmp_path, capsys) -> None:
    assert train_cli("export", trained, trained, "--out", tmp_path / "b") == 2
    assert "one segmentation run alone" in capsys.readouterr().err.replace("\n", " ")


# --- regions ---------------------------------------------------------------------------------------------------------


def test_a_brain_of_any_orientation(exported: Path) -> None:
    made, model = made_up(), open_network(exported)
    found = find_tissue(made["t1w"], made["brain"], flair=made["flair"], model=model)
    assert found.tissue.grid.same_as(made["t1w"].grid)
    assert found.tissue.array.dtype == np.uint8
    inside = made["brain"].array > 0
    assert not found.tissue.array[~inside].any()
    assert (found.tissue.array[inside] > 0).mean() > 0.98
    turned = find_tissue(
        made["t1w"].with_array(made["t1w"].array * 3 + 7).reoriented("PIL"), made["brain"], flair=made["flair"],
        model=model,
    )  # fmt: skip
    assert np.mean(turned.tissue.reoriented("RAS").array == found.tissue.array) > 0.999
    alone = find_tissue(made["t1w"], made["brain"], model=model)
    assert not alone.lesions.array.any()
    assert (alone.tissue.array[inside] > 0).mean() > 0.98


def test_no_brain(exported: Path) -> None:
    made, model = made_up(), open_network(exported)
    with pytest.raises(InputError, match="empty"):
        find_tissue(made["t1w"], made["brain"].with_array(made["brain"].array * 0), model=model)
    speck = np.zeros(made["brain"].shape, np.uint8)
    speck[30:34, 30:34, 30:34] = 1
    with pytest.raises(InputError, match="too small"):
        find_tissue(made["t1w"], made["brain"].with_array(speck), model=model)


def test_regions_by_the_network(exported: Path) -> None:
    made, model = made_up(), open_network(exported)
    settings = RegionSettings(method="network", network=str(exported))
    images = {"t1w": made["t1w"], "flair": made["flair"], "brain": made["brain"]}
    drawn = build_regions(made["t1w"], lesion_mask=made["lesions"], **images, settings=settings)
    assert not drawn.lesions.suggested
    assert any(model.hash[:12] in note and "trained on simulated images" in note for note in drawn.notes)
    inside = made["lesions"].array > 0
    assert (drawn.masks["white_matter"].array[inside] == 1).all()
    assert not drawn.masks["nawm"].array[inside].any()
    suggested = build_regions(made["t1w"], **images, settings=settings)
    assert suggested.lesions.suggested
    if suggested.lesions.count:
        assert SUGGESTION in suggested.notes
        sizes = np.bincount(suggested.lesions.numbers.array.ravel())[1:] * made["t1w"].grid.voxel_volume_ml
        assert sizes.min() >= 0.01 * 0.5  # on the map's own voxels
    none = RegionSettings(method="network", network=str(exported), min_suggested_ml=10_000.0)
    assert build_regions(made["t1w"], **images, settings=none).lesions.count == 0


def test_suggestions_hang_on_the_threshold(exported: Path, tmp_path) -> None:
    made, model = made_up(), open_network(exported)
    counts = []
    for threshold in (0.0, 0.02, 1.01):
        other = save_network(
            tmp_path / f"at-{threshold}", model.network, channels=[8] * 6, patch=model.patch, lesion_threshold=threshold
        )
        found = find_tissue(made["t1w"], made["brain"], flair=made["flair"], model=other)
        counts.append(int(found.lesions.array.sum()))
        assert (found.tissue.array[found.lesions.array > 0] == 3).all()
    brain = int((made["brain"].array > 0).sum())
    assert counts[0] > 0.95 * brain
    assert counts[0] >= counts[1] >= counts[2] == 0


def test_brightness_moves_the_borders_of_a_prior() -> None:
    """A prior that is a voxel off along one axis: the scan's own brightness puts it right."""
    made = made_up()
    spacing = made["t1w"].spacing
    brain = made["brain"].array > 0
    pair = normalise([made["t1w"].array, made["flair"].array], brain, spacing[0])
    true = np.stack([made["tissue"].array == k for k in (1, 2, 3)])
    prior = np.where(np.roll(true, 1, 1), 0.9, 0.05).astype(np.float32)
    hidden = made["lesions"].array > 0
    rough = np.where(brain, prior.argmax(0) + 1, 0)
    fine = refine(list(pair), brain, hidden, spacing, prior)
    for label, least in ((2, 0.95), (3, 0.97)):
        inside = ~hidden
        before = dice((rough == label) & inside, true[label - 1] & inside)
        after = dice((fine == label) & inside, true[label - 1] & inside)
        assert after > max(before, least)
    # An image that shows nothing has no say.
    flat = refine([np.where(brain, np.float32(0.5), np.float32(0))], brain, hidden, spacing, true * 0.9 + 0.05)
    assert dice(flat == 3, true[2]) > 0.99


def test_a_method_that_is_none() -> None:
    with pytest.raises(InputError, match="network or hmrf"):
        RegionSettings(method="magic")


def test_the_network_of_the_package_is_whole_and_small() -> None:
    model = open_network()
    assert RegionSettings().method == "network"
    assert model.simulated
    assert sum(file.stat().st_size for file in model.folder.iterdir()) < 9e6
    assert sum(p.numel() for p in model.network.parameters()) > 1e6
