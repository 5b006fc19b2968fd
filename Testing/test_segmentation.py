"""The tissue network: its training stage, its bundle, and regions made with it."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from scipy.stats import entropy
from test_regions import dice, made_up
from training_data import write_mini_bids

from DEMISTCore import train
from DEMISTCore.bundle import load_bundle
from DEMISTCore.cli import run as run_cli
from DEMISTCore.errors import BundleError, InputError
from DEMISTCore.labels import LESION, TISSUE_LABELS
from DEMISTCore.preprocess import normalize
from DEMISTCore.regions import RegionSettings, build_regions, find_tissue, open_network
from DEMISTCore.regions.lesions import SUGGESTION
from DEMISTCore.regions.network import build_network, save_network
from DEMISTCore.regions.refine import refine
from DEMISTCore.simulate.tissues import CLASSES
from DEMISTCore.training.data import index, split
from DEMISTCore.training.prepare import prepare_cohort
from DEMISTCore.training.segmentation import SegmentationObjective, SegmentationStage, recoloured, thickened, thinned
from DEMISTCore.training.settings import resolve
from DEMISTCore.training.stages.segmentation import SegmentationSettings


def train_cli(*words: object) -> int:
    return run_cli(train.main, [str(word) for word in words])


@pytest.fixture(scope="module")
def bids(tmp_path_factory) -> Path:
    return write_mini_bids(tmp_path_factory.mktemp("bids"), subjects=3)


@pytest.fixture(scope="module")
def trained(bids, tmp_path_factory) -> Path:
    """A run that has learnt what the blobs are made of."""
    folder = tmp_path_factory.mktemp("runs") / "segmentation"
    words = (
        "steps=60",
        "batch=1",
        "lr=0.02",
        "decay=constant",
        "ema=0.8",
        "channels=[8,8,8,8,8,8]",
        "recolour_share=0",
        "augment.probability=0",
        "volume_start=1",
        "validate_every=60",
        "preview_every=60",
    )
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


class Says(torch.nn.Module):
    """A network that says the same logits (7,) in every voxel."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def folded(self, x: torch.Tensor) -> torch.Tensor:
        size = [n // 2 for n in x.shape[2:]]
        return self.logits[None, :, None, None, None, None].expand(x.shape[0], -1, 8, *size)


def objective_that_says(logits: torch.Tensor, lesion_weight: float = 1.0) -> SegmentationObjective:
    objective = SegmentationObjective(SegmentationSettings(channels=(4,) * 6, lesion_weight=lesion_weight))
    objective.network = Says(logits)
    return objective


def voxels(target: np.ndarray, grey: float, white: float) -> dict[str, torch.Tensor]:
    shares = np.stack([np.full(target.shape, round(255 * part), np.uint8) for part in (grey, white)])
    return {
        "x": torch.zeros(1, 2, *target.shape),
        "target": torch.from_numpy(target)[None],
        "shares": torch.from_numpy(shares)[None],
    }


def test_the_loss_is_least_at_the_fractions() -> None:
    """Voxels that are 20 % fluid, 20 % grey and 60 % white matter are called so, whatever their largest part."""
    objective = objective_that_says(torch.zeros(7))
    batch = voxels(np.full((4, 4, 4), 2, np.int16), 0.2, 0.6)
    optimiser = torch.optim.LBFGS(objective.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def step() -> torch.Tensor:
        optimiser.zero_grad()
        loss = objective(batch, 0.0)["fractions"]
        loss.backward()
        return loss

    optimiser.step(step)
    least = float(objective(batch, 0.0)["fractions"].detach())
    said = objective.network.logits.softmax(0).detach().numpy()
    tissues = [said[[i for i, (_, what) in enumerate(TISSUE_LABELS.values()) if what == k]].sum() for k in (1, 2, 3)]
    np.testing.assert_allclose(tissues, [0.2, 0.2, 0.6], atol=1e-3)
    assert least == pytest.approx(entropy([0.2, 0.2, 0.6]), abs=1e-5)


def test_borders_that_are_all_a_little_off_count_as_volume() -> None:
    """All logits alike say 1/7 fluid, 3/7 grey, 3/7 white; the truth 0.2, 0.2, 0.6 has 0.4 of a voxel mixed in each."""
    target = np.full((4, 4, 4), 2, np.int16)
    target[0] = -1
    objective = objective_that_says(torch.zeros(7))

    def huber(surplus: np.ndarray) -> float:
        size = abs(surplus)
        return float(np.where(size <= 0.1, size**2, 0.2 * size - 0.01).sum())

    with torch.no_grad():
        early, late = (objective(voxels(target, 0.2, 0.6), progress) for progress in (0.0, 0.5))
        close = objective(voxels(target, 0.42, 0.45), 0.0)
        hard = objective(voxels(target, 0, 1), 0.0)
    assert float(late["volume"]) == pytest.approx(huber((np.array([1, 3, 3]) / 7 - [0.2, 0.2, 0.6]) / 0.4), rel=1e-4)
    grey, white = round(255 * 0.42) / 255, round(255 * 0.45) / 255
    surplus = (np.array([1, 3, 3]) / 7 - [1 - grey - white, grey, white]) / (1 - white)
    assert abs(surplus).max() < 0.1
    assert float(close["volume"]) == pytest.approx(huber(surplus), rel=1e-3)
    # Of whole voxels a tenth counts as mixed.
    assert float(hard["volume"]) == pytest.approx(huber((np.array([1, 3, 3]) / 7 - [0, 0, 1]) / 0.1), rel=1e-4)
    more = 5 * float(late["volume"]) + float(late["means"])
    assert float(late["loss"] - early["loss"]) == pytest.approx(more, rel=1e-4)


def test_means_over_regions_as_labelled_count() -> None:
    """Against NumPy on random voxels; and calling mixed voxels grey raises grey matter's mean, so that is unlearnt."""
    rng = np.random.default_rng(5)
    true = rng.dirichlet([0.4, 0.4, 0.4], 4000).T.astype(np.float32)
    found = (0.7 * true + 0.3 * rng.dirichlet([0.4, 0.4, 0.4], 4000).T).astype(np.float32)
    inside = rng.random(4000) < 0.8
    objective = objective_that_says(torch.zeros(7))
    asked = torch.from_numpy(found)[None].requires_grad_()
    loss = objective._means(asked, torch.from_numpy(true)[None], torch.from_numpy(inside)[None])
    psr = 0.06 * true[1] + 0.12 * true[2]
    expected = 0.0
    for k in (1, 2):
        made, region = (psr[(part.argmax(0) == k) & inside].mean() for part in (found, true))
        error = abs(made / region - 1)
        expected += error**2 / 0.01 if error <= 0.01 else 2 * error - 0.01
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)
    loss.backward()
    slope = asked.grad[0].numpy()
    assert not slope[:, ~inside].any()
    # Less grey wherever a voxel's content lies on the side on which the mean is off, more on the other.
    grey = (found.argmax(0) == 1) & inside
    off = np.sign(psr[grey].mean() / psr[(true.argmax(0) == 1) & inside].mean() - 1)
    np.testing.assert_array_equal(np.sign(slope[1, inside]), off * np.sign(psr[inside] - psr[grey].mean()))


def test_a_patch_without_white_matter_has_no_mean_of_it() -> None:
    objective = objective_that_says(torch.zeros(7))
    true = torch.zeros(1, 3, 50)
    true[:, 0] = 1
    found = torch.full((1, 3, 50), 1 / 3, requires_grad=True)
    loss = objective._means(found, true, torch.ones(1, 50, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.isfinite(found.grad).all()


def test_whole_voxels_give_plain_cross_entropy_inside_the_brain_only() -> None:
    logits = torch.randn(7, generator=torch.Generator().manual_seed(3))
    target = np.full((4, 4, 4), 5, np.int16)  # cerebellar cortex
    target[:2] = -1
    with torch.no_grad():
        parts = objective_that_says(logits)(voxels(target, 1, 0), 0.0)
    assert float(parts["fractions"] + parts["classes"]) == pytest.approx(float(-logits.log_softmax(0)[5]), abs=1e-5)
    lesions = np.full((4, 4, 4), 4, np.int16)
    once, twice = (objective_that_says(logits, w)(voxels(lesions, 0, 1), 0.0)["classes"].detach() for w in (1.0, 2.0))
    assert float(twice) == pytest.approx(2 * float(once), rel=1e-6)


def test_fractions_come_to_the_model_grid_with_lesions_white(bids, tmp_path) -> None:
    assert stage_on(bids, tmp_path / "hard").train[0].fractions is None
    root = write_mini_bids(tmp_path / "bids", subjects=2)
    for file in root.glob("derivatives/truth/*/anat/*_dseg.nii.gz"):
        labels = nib.load(file)
        white = np.isin(labels.get_fdata(), (3, 5)) * 0.75
        for name, part in (("GM", np.where(labels.get_fdata() == 2, 1.0, white / 3)), ("WM", white)):
            image = nib.Nifti1Image(part.astype(np.float32), labels.affine)
            nib.save(image, str(file).replace("desc-tissue_dseg", f"label-{name}_probseg"))
    stage = stage_on(root, tmp_path / "soft")
    entry = stage.train[0]
    for label, expected in ((2, (255, 0)), (3, (64, 191)), (5, (0, 255)), (1, (0, 0)), (0, (0, 0))):
        here = entry.labels[:] == label
        np.testing.assert_allclose(np.median(entry.fractions[:, here], axis=1), expected, atol=1)
    batch = stage.batch(range(2))
    assert batch["shares"].dtype == torch.uint8
    white = batch["shares"][:, 1][batch["target"] == 2].float()
    assert float(white.median()) == pytest.approx(191, abs=1)


def test_what_a_mask_holds_beyond_the_labels_is_fluid(tmp_path) -> None:
    """Brain masks of real scans reach into the meninges, where there is no label to learn from."""
    root = write_mini_bids(tmp_path / "bids", subjects=2)
    for file in root.glob("derivatives/truth/*/anat/*_dseg.nii.gz"):
        image = nib.load(file)
        labels = image.get_fdata().astype(np.uint8)
        labels[:, :, : labels.shape[2] // 2] = 0
        nib.save(nib.Nifti1Image(labels, image.affine), file)
        lesion = Path(str(file).replace("desc-tissue_dseg", "desc-lesion_mask"))
        nib.save(nib.Nifti1Image((labels == 5).astype(np.uint8), image.affine), lesion)
    stage = stage_on(root, tmp_path / "cache", "thin_mask=0", "thick_mask=0", "augment.probability=0")
    batch = stage.batch(range(1))
    inside = (batch["x"] != 0).any(1)
    assert torch.equal(batch["target"] >= 0, inside)
    assert float((batch["target"][inside] == 0).float().mean()) > 0.4


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
    [
        (("patch=[48,48,48]",), "multiples of 32"),
        (("patch=[32,32,32]",), "64 or more"),
        (("channels=[8,8]",), "six widths"),
        (("thin_mask=0.7", "thick_mask=0.6"), "1 at most"),
    ],
)
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
    assert {tissue.dseg for tissue in CLASSES} | {LESION} == {0, *TISSUE_LABELS}
    assert list(TISSUE_LABELS) == list(range(1, 8))


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


def test_training_goes_on_from_a_bundle(exported: Path, bids, tiny_bundle: Path, tmp_path, capsys) -> None:
    words = ("--data", bids, "--config", "tiny", "channels=[8,8,8,8,8,8]", "steps=1", "lr=1e-9", "warmup=1")
    assert train_cli("segmentation", "--out", tmp_path / "on", "--init", exported, *words) == 0
    assert train_cli("export", tmp_path / "on", "--out", tmp_path / "again") == 0
    old, new = (open_network(folder).network.state_dict() for folder in (exported, tmp_path / "again"))
    for name, tensor in old.items():
        torch.testing.assert_close(new[name], tensor, atol=1e-4, rtol=1e-3)
    assert train_cli("segmentation", "--out", tmp_path / "no", "--init", tiny_bundle, *words) == 2
    assert "not a tissue network" in capsys.readouterr().err.replace("\n", " ")


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
        made["t1w"].with_array(made["t1w"].array * 3 + 7).reoriented("PIL"),
        made["brain"],
        flair=made["flair"],
        model=model,
    )
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


def test_the_same_brain_is_not_looked_at_twice(exported: Path, monkeypatch) -> None:
    made, model = made_up(), open_network(exported)
    t1w = made["t1w"].with_array(made["t1w"].array * np.float32(1.25))  # another than other tests'
    asked = []
    plain = type(model).predict
    monkeypatch.setattr(type(model), "predict", lambda *what: asked.append(1) or plain(*what))
    shifted = t1w.affine.copy()
    shifted[0, 3] += 1.0
    here = {"flair": made["flair"], "model": model}
    first = find_tissue(t1w, made["brain"], **here)
    assert len(asked) == 1
    tissue = first.tissue.array.copy()
    first.tissue.array[:] = 0  # whoever asked may do so
    assert np.array_equal(find_tissue(t1w, made["brain"], **here).tissue.array, tissue)
    assert len(asked) == 1
    elsewhere = type(t1w)(t1w.array, shifted)
    for image, more in (
        (elsewhere, here),
        (t1w.with_array(t1w.array + np.float32(1)), here),
        (t1w, {**here, "flair": None}),
    ):
        before = len(asked)
        find_tissue(image, made["brain"], **more)
        assert len(asked) == before + 1


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
    pair = normalize([made["t1w"].array, made["flair"].array], brain, spacing[0])
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
