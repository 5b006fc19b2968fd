"""Measured PSR maps: units, what is known of them, and training on slabs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage
from training_data import as_slabs, write_mini_bids

from DEMISTCore import train
from DEMISTCore.cli import run as run_cli
from DEMISTCore.errors import InputError
from DEMISTCore.losses import known_mean, with_neighbours
from DEMISTCore.measured import filled, read_measured
from DEMISTCore.measured.units import find_units
from DEMISTCore.training import data, prepare
from DEMISTCore.training.autoencoder import judged, read_patch
from DEMISTCore.training.latents import encode_cohort, known_share
from DEMISTCore.training.settings import resolve
from DEMISTCore.volume import Grid, Volume

ALIGNED = "preprocess.already_aligned=true"  # a brain of 30 voxels is nothing to register


def psr_like(shape=(20, 20, 20), seed=0):
    """A ball of PSR between 0.02 and 0.2 with 0 around it."""
    rng = np.random.default_rng(seed)
    axes = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    ball = np.sqrt((axes**2).sum(0)) < 0.9
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), 2)
    return np.where(ball, np.clip(0.1 + 0.3 * smooth, 0.02, 0.2), 0).astype(np.float32)


# --- units -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typical", "told", "units", "by"),
    [
        (0.08, None, "fraction", "typical value"),
        (10.5, None, "percent", "typical value"),
        (10.5, "percent", "percent", "sidecar"),
        (10.5, "%", "percent", "sidecar"),
        (0.08, "fraction", "fraction", "sidecar"),
        (10.5, "arbitrary", "percent", "typical value"),
        (0.08, 1, "fraction", "typical value"),
    ],
)
def test_units(typical, told, units, by):
    assert find_units(typical, told, "map") == (units, by)


@pytest.mark.parametrize(
    ("typical", "told", "says"),
    [
        (0.08, "percent", "has about 10"),
        (10.5, "fraction", "has about 0.1"),
        (10.5, "ms", "fix it"),
        (900.0, None, "no PSR map"),
        (0.45, None, "no PSR map"),
        (0.001, None, "no PSR map"),
        (45.0, None, "no PSR map"),
    ],
)
def test_units_that_cannot_be(typical, told, says):
    with pytest.raises(InputError, match=says):
        find_units(typical, told, "map")


# --- reading ---------------------------------------------------------------------------------------------------------


def test_holes_outliers_and_zeros_are_unknown_and_one_outlier_does_not_change_the_units(tmp_path):
    psr = psr_like()
    psr[10, 10, 10], psr[10, 10, 11], psr[10, 11, 10] = np.nan, 1.3, -0.5
    file = tmp_path / "sub-1_PSRmap.nii.gz"
    nib.save(nib.Nifti1Image(psr, np.eye(4)), file)
    found = read_measured(file)
    assert (found.units, found.units_by) == ("fraction", "typical value")
    assert found.counts == {"nan": 1, "low": 1, "high": 1, "rim": 0, "zero": int((psr == 0).sum())}
    np.testing.assert_array_equal(found.known, (psr > 0) & (psr < 0.3))
    assert found.psr.array[~found.known].max() == 0
    percent = tmp_path / "sub-2_PSRmap.nii.gz"
    nib.save(nib.Nifti1Image(psr * 100, np.eye(4)), percent)
    again = read_measured(percent)
    assert again.units == "percent"
    np.testing.assert_allclose(again.psr.array, found.psr.array, rtol=1e-5)
    np.testing.assert_array_equal(again.known, found.known)
    # A simulated truth knows its zeros.
    truth = tmp_path / "sub-1_desc-truth_PSRmap.nii.gz"
    nib.save(nib.Nifti1Image(psr_like(), np.eye(4)), truth)
    assert read_measured(truth).known.all()
    assert not read_measured(truth, zeros="unknown").known.all()


def test_a_slab_on_a_finer_grid_is_interpolated_between_known_voxels_alone():
    psr = psr_like((12, 12, 8))
    psr[6, 6, 4] = np.nan
    measured = read_measured(Volume(psr, np.diag([2.0, 2.0, 2.0, 1.0])))
    grid = Grid((24, 24, 24), np.eye(4))
    values, known = measured.on_grid(grid)
    # The same by SciPy, in the interior of the slab's box.
    where = np.stack(np.meshgrid(*[np.arange(24) / 2] * 3, indexing="ij"))
    weight = ndimage.map_coordinates(measured.known.astype(float), where, order=1)
    value = ndimage.map_coordinates(measured.psr.array.astype(float), where, order=1)
    inner = (slice(0, 23), slice(0, 23), slice(0, 15))
    np.testing.assert_array_equal(known[inner], (weight >= 0.5 - 1e-6)[inner])
    here = known[inner]
    np.testing.assert_allclose(values[inner][here], (value / np.maximum(weight, 0.5))[inner][here], rtol=1e-4)
    assert not known[:, :, 16:].any()
    assert values[~known].max() == 0
    assert values[known].min() >= 0.02 - 1e-6  # no zero has leaked in
    # A motion of whole voxels moves both.
    moved = np.eye(4)
    moved[0, 3] = 2
    there, known_there = measured.on_grid(grid, moved)
    np.testing.assert_allclose(there[2:], values[:-2], atol=1e-6)
    np.testing.assert_array_equal(known_there[2:], known[:-2])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda a: np.full_like(a, np.nan), "no finite value"),
        (lambda a: a * 0, "no value above 0"),
        (lambda a: np.where(a > 0, 0.1, 0), "constant"),
        (lambda a: a * 8000, "no PSR map"),
        (lambda a: np.where(a > 0, a * 2.6, 0), "no PSR map"),
    ],
)
def test_what_is_no_psr_map_is_refused(tmp_path, spoil, says):
    file = tmp_path / "x_PSRmap.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(spoil(psr_like()), np.float32), np.eye(4)), file)
    with pytest.raises(InputError, match=says) as error:
        read_measured(file)
    assert str(file) in str(error.value)


def test_a_bright_rim_is_unknown():
    condition, mask, psr = folded_head(3)
    depth = ndimage.distance_transform_edt(mask.array, sampling=mask.spacing)
    array = np.where((depth > 0) & (depth < 2.5), 0.22, psr.array).astype(np.float32)
    found = read_measured(psr.with_array(array))
    assert not found.known[(depth > 0) & (depth < 2.5)].any()
    inner = (depth > 5) & (array > 0)
    assert found.known[inner].all()
    assert found.counts["rim"] == ((depth > 0) & (depth < 2.5)).sum()


MEASURED = Path(__file__).parents[2] / "shared" / "data" / "measured_psr"


@pytest.mark.skipif(not MEASURED.is_dir(), reason="needs the measured map of shared/data")
def test_a_really_measured_map():
    """Selective inversion recovery, a slab in percent without orientation codes, zeros inside, a bright rim."""
    found = read_measured(MEASURED / "psr_percent.nii.gz")
    assert (found.units, found.units_by) == ("percent", "typical value")
    assert any("orientation" in note for note in found.notes)
    brain = nib.load(MEASURED / "brain_mask.nii.gz").get_fdata() > 0
    depth = ndimage.distance_transform_edt(brain, sampling=found.psr.spacing)
    values = found.psr.array
    assert 0.85 < found.known[brain].mean() < 0.9
    assert not found.known[values == 0].any()
    for low, high in ((0, 1), (1, 2), (2, 3)):  # no shell of the rim has more than the inside
        shell = found.known & (depth > low) & (depth <= high)
        assert np.percentile(values[shell], 99) < 0.18
    deep = found.known & (depth > 10)
    assert 0.07 < np.median(values[deep]) < 0.09
    assert found.counts["high"] > 1000
    assert found.counts["rim"] > 1000


def test_the_guess_outside_comes_from_what_is_known():
    rng = np.random.default_rng(1)
    shape = (24, 24, 24)
    x = np.stack([ndimage.gaussian_filter(rng.standard_normal(shape), 1.5) * 3 + 0.5 for _ in range(2)])
    x = x.astype(np.float32)
    truth = (0.1 + 0.03 * x[0] - 0.02 * x[1]).astype(np.float32)
    known = np.zeros(shape, bool)
    known[:, :, 6:18] = True
    inside = np.ones(shape, bool)
    guess = filled(np.where(known, truth, 0), known, x, inside)
    np.testing.assert_array_equal(guess[known], truth[known])
    within = (truth > np.percentile(truth[known], 2)) & (truth < np.percentile(truth[known], 98))
    np.testing.assert_allclose(guess[within], truth[within], atol=1e-4)
    with pytest.raises(ValueError, match="Nothing is known"):
        filled(truth, np.zeros(shape, bool), x, inside)


# --- losses ----------------------------------------------------------------------------------------------------------


def test_losses_count_what_is_known():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 3, 6, 6, 6, generator=generator)
    known = (torch.rand(2, 1, 6, 6, 6, generator=generator) > 0.4).float()
    expected = np.concatenate([values[:, c][known[:, 0] > 0].numpy() for c in range(3)]).mean()
    assert float(known_mean(values, known)) == pytest.approx(expected, rel=1e-5)
    assert float(known_mean(values, None)) == pytest.approx(float(values.mean()))
    assert float(known_mean(values, torch.zeros_like(known))) == 0
    eroded = ndimage.binary_erosion(known[0, 0].numpy() > 0, np.ones((3, 3, 3)), border_value=1)
    np.testing.assert_array_equal(with_neighbours(known)[0, 0].numpy() > 0, eroded)
    y_hat = torch.randn(2, 1, 6, 6, 6, requires_grad=True)
    judged(y_hat, torch.zeros(2, 1, 6, 6, 6), known).sum().backward()
    np.testing.assert_array_equal(y_hat.grad.numpy(), known.numpy())


# --- training --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slabs(tmp_path_factory):
    return as_slabs(write_mini_bids(tmp_path_factory.mktemp("slabs"), subjects=3))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_mini_bids(tmp_path_factory.mktemp("whole"), subjects=3)


@pytest.fixture(scope="module")
def prepared(slabs, whole, tmp_path_factory):
    """The same three people, as slabs and whole."""
    cache, settings = tmp_path_factory.mktemp("cache"), resolve("autoencoder", "tiny", [ALIGNED])
    return [prepare.prepare_cohort(data.index(root), settings, cache) for root in (slabs, whole)]


def test_a_slab_is_the_whole_map_where_it_is_known_and_says_where(prepared):
    for slab, full in zip(*prepared):
        known, inside = np.asarray(slab.known) > 0, np.asarray(full.labels) > 0
        assert slab.is_partial
        assert not full.is_partial
        assert np.asarray(full.known).all()
        assert known[~(np.asarray(slab.x) != 0).any(0)].all()  # outside the brain it is 0, and that is known
        assert slab.coverage == pytest.approx((known & inside).sum() / inside.sum(), abs=0.02)
        assert 0.4 < slab.coverage < 0.8
        here = known & (np.asarray(full.y) > 0)
        np.testing.assert_allclose(np.asarray(slab.y)[here], np.asarray(full.y)[here], atol=0.03)
        assert np.abs(np.asarray(slab.y, np.float32) - full.y)[here].mean() < 1e-3
        assert np.asarray(slab.y).max() < 0.2  # no outlier is left
        for kind in ("brain", "lesion"):
            assert known[tuple(slab.voxel_indices(kind).T)].all()
        told = slab.meta["psr"]
        assert told["units"] == "percent"
        assert told["nan"] > 0
        assert told["high"] > 0
        # What stands in the unknown part is a brain, not a void.
        unknown = ~known & inside
        assert np.corrcoef(np.asarray(slab.y, float)[unknown], np.asarray(full.y, float)[unknown])[0, 1] > 0.5


def test_what_is_unknown_is_in_no_batch(prepared):
    slab = prepared[0][0]
    patch = read_patch(slab, (32, 32, 32), (0, 0, 0), False, with_known=True)
    assert patch["known"].shape == (1, 32, 32, 32)
    assert patch["brain"][patch["known"] == 0].max() == 0
    assert patch["labels"][patch["known"] == 0].max() == 0
    far = read_patch(slab, (16, 16, 16), (-20, 0, 0), False, with_known=True)
    assert far["known"].min() == 1  # beyond the volume there is no brain, and no PSR


def test_entries_of_complete_truths_keep_their_names(whole, slabs, tmp_path):
    """A cache of hours must not be made anew because measured maps can be read now."""
    settings = resolve("autoencoder", "tiny").preprocess
    session = data.index(whole)[0]
    told = {name: value for name, value in asdict(settings).items() if name not in prepare._OF_MEASURED}
    what = {"format": 1, "settings": told, "inputs": [prepare._digest(path) for path in session.files]}
    key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
    assert prepare._entry(session, settings, tmp_path).key == key
    # The units that a sidecar gives are part of a measured map.
    session = data.index(slabs)[0]
    before = prepare._entry(session, settings, tmp_path).key
    sidecar = session.psr.with_name(session.psr.name.replace(".nii.gz", ".json"))
    text = sidecar.read_text()
    try:
        sidecar.write_text(json.dumps({"Units": "%"}))
        assert prepare._entry(session, settings, tmp_path).key != before
    finally:
        sidecar.write_text(text)


def test_too_little_and_nothing_covered_are_refused(tmp_path):
    root = as_slabs(write_mini_bids(tmp_path / "thin", subjects=2), 3, 5, spoilt=False)
    with pytest.raises(InputError, match=r"covers .* of the brain"):
        prepare.prepare_cohort(data.index(root), resolve("autoencoder", "tiny", [ALIGNED]), tmp_path / "cache")
    file = next(root.rglob("sub-001_PSRmap.nii.gz"))
    image = nib.load(file)
    affine = np.eye(4)
    affine[2, 3] = 300
    nib.save(nib.Nifti1Image(image.get_fdata().astype(np.float32), affine), file)
    with pytest.raises(InputError, match="does not overlap the brain"):
        prepare.prepare_cohort(data.index(root), resolve("autoencoder", "tiny", [ALIGNED]), tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("y.npy"))


def test_coverage_and_warnings_reach_the_screen(prepared, slabs, tmp_path, caplog):
    caplog.set_level("INFO")
    entry = prepared[0][0]
    prepare._tell(prepared[0])
    assert "PSR is known in" in caplog.text
    meta = entry.meta
    (entry.folder / "meta.json").write_text(json.dumps({**meta, "warnings": ["The mask holds 9.4 L."]}))
    try:
        prepare._tell([entry])
    finally:
        (entry.folder / "meta.json").write_text(json.dumps(meta, indent=1))
    assert f"{entry.name}: The mask holds 9.4 L." in caplog.text


@pytest.fixture(scope="module")
def runs(slabs, tmp_path_factory):
    """Every stage on slabs, six steps each."""
    root = tmp_path_factory.mktemp("runs")

    def cli(*words: object) -> int:
        return run_cli(train.main, [str(word) for word in words])

    common = ("--data", slabs, "--config", "tiny", ALIGNED)
    mean = ("model=tiny_mean",)
    assert cli("autoencoder", "--out", root / "ae", *common, *mean) == 0
    assert cli("backbone", "--out", root / "bb", "--foundation", root / "ae", *common, *mean) == 0
    below = ("--foundation", root / "bb", *common, *mean)
    bent = ("warp.probability=1", "paint.probability=1", "model.mean.semantic=false", "model.streams.semantic=false")
    assert cli("mean", "--out", root / "me", *below, *bent) == 0
    assert cli("mean", "--out", root / "mw", *below) == 0
    assert cli("demist", "--out", root / "de", *below, "decode_every=1") == 0
    assert cli("decoder", "--out", root / "dc", *below) == 0
    assert cli("regression", "--out", root / "re", *common) == 0
    return root


def test_every_stage_learns_from_slabs(runs):
    for name in ("ae", "bb", "me", "mw", "de", "dc", "re"):
        rows = [line.split(",") for line in (runs / name / "metrics.csv").read_text().splitlines()[1:]]
        values = [float(row[3]) for row in rows]
        assert values, name
        assert np.isfinite(values).all(), name


def test_latents_are_weighted_by_what_is_known_of_them(prepared, runs):
    from DEMISTCore.training.foundation import read_foundation
    from DEMISTCore.training.latents import draw_crop, latent_scales

    settings = resolve("backbone", "tiny")
    foundation = read_foundation(runs / "bb")
    slab = prepared[0][0]
    share = known_share(slab, 4)
    known = np.asarray(slab.known, np.float32)
    blocks = ndimage.uniform_filter(known, 4, origin=-2, mode="constant")[::4, ::4, ::4]
    np.testing.assert_allclose(share, np.where(blocks >= 0.5, blocks, 0), atol=1e-5)
    cohort = encode_cohort(prepared[0], foundation, settings, runs / "cache-of-test")
    assert np.isfinite(latent_scales(cohort, 4)).all()
    for i in range(20):
        crop = draw_crop(cohort, settings, i, data.random(0, "test", i), "test")
        assert crop.known(4).max() > 0.5
        assert crop.known(4).shape == (1, *settings.crop)


# --- where a map lies -------------------------------------------------------------------------------------------------


def folded_head(seed, shape=(72, 84, 72), spacing=2.0):
    """Normalised T1w and FLAIR (2, ...), brain mask and PSR of a made-up head of 2 mm voxels, folded in its own way."""
    rng = np.random.default_rng(seed)
    axes = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    radius = np.sqrt(((axes / np.array([0.85, 0.9, 0.8])[:, None, None, None]) ** 2).sum(0))
    brain, fluid = radius < 1, np.sqrt(((axes / np.array([0.2, 0.35, 0.2])[:, None, None, None]) ** 2).sum(0)) < 1
    folds = ndimage.gaussian_filter(rng.standard_normal(shape), 2.5)
    white = folds / folds.std() + 0.5 * (0.6 - radius) > 0
    labels = np.where(brain, np.where(fluid, 1, np.where(white, 3, 2)), 0)
    soft = {k: ndimage.gaussian_filter((labels == k).astype(np.float32), 0.6) for k in (1, 2, 3)}
    psr = (0.12 * soft[3] + 0.06 * soft[2]) * brain
    t1w = (0.65 * soft[3] + 0.45 * soft[2] + 0.1 * soft[1] + rng.normal(0, 0.02, shape)) * brain
    flair = (0.45 * soft[3] + 0.58 * soft[2] + 0.1 * soft[1] + rng.normal(0, 0.02, shape)) * brain
    affine = np.diag([spacing] * 3 + [1.0])
    affine[:3, 3] = -spacing * (np.array(shape) - 1) / 2
    mask = Volume(brain.astype(np.uint8), affine)
    return np.stack([t1w, flair]).astype(np.float32), mask, Volume(psr.astype(np.float32), affine)


@pytest.fixture(scope="module")
def moved():
    """A head, a slab of it measured after it has moved, and the motion."""
    from DEMISTCore.simulate.lab import Scan, _motion, measure

    condition, mask, psr = folded_head(1)
    rng = np.random.default_rng(5)
    scan = Scan(slices=12, thickness=5.0, in_plane=2.0, moved_mm=(5.0, 5.0))
    motion = _motion(mask, scan, rng)
    slab, _ = measure(psr, mask, motion, scan, rng)
    return condition, mask, read_measured(slab), motion


def test_a_moved_slab_is_put_where_it_belongs(moved):
    from DEMISTCore.measured.alignment import align

    condition, mask, measured, motion = moved
    found = align(measured, condition, mask)
    points = measured.psr.grid.to_world(np.argwhere(measured.known)[::20])
    true, back = np.linalg.inv(motion), found.motion
    error = points @ (back - true)[:3, :3].T + (back - true)[:3, 3]
    assert np.linalg.norm(error, axis=1).mean() < 0.5
    off = points @ true[:3, :3].T + true[:3, 3] - points
    assert found.moved_mm == pytest.approx(np.linalg.norm(off, axis=1).mean(), abs=0.5)
    assert not found.alarms
    assert found.gain > 0.2
    assert found.fit > 0.8
    as_it_lies = align(measured, condition, mask, search=False)
    assert as_it_lies.moved_mm == 0
    assert as_it_lies.fit < found.fit - 0.2
    assert as_it_lies.fluid > found.fluid
    # Who says that it lies there is told that it does not, and it stays.
    said = align(measured, condition, mask, already_aligned=True)
    np.testing.assert_array_equal(said.motion, np.eye(4))
    assert any("better" in alarm for alarm in said.alarms)
    json.dumps(said.to_dict(), allow_nan=False)


def test_a_map_in_its_place_stays_there_and_an_image_beside_it_is_used(moved):
    from DEMISTCore.measured.alignment import align
    from DEMISTCore.simulate.lab import Scan, measure

    condition, mask, _, motion = moved
    _, _, psr = folded_head(1)
    scan = Scan(noise=0.002)
    still, _ = measure(psr, mask, np.eye(4), scan, np.random.default_rng(6))
    found = align(read_measured(still), condition, mask, already_aligned=True)
    assert found.moved_mm < 0.5
    assert not found.alarms
    # A map of noise on its own could not be placed; the qMT session's R1 map can.
    slab, _ = measure(psr, mask, motion, Scan(noise=0.0, nan=0, outliers=0), np.random.default_rng(7))
    noisy = np.where(slab.array > 0, np.random.default_rng(8).uniform(5, 15, slab.shape), 0).astype(np.float32)
    found = align(read_measured(slab.with_array(noisy)), condition, mask, reference=slab)
    points = slab.grid.to_world(np.argwhere(noisy > 0)[::20])
    error = points @ (found.motion - np.linalg.inv(motion))[:3, :3].T + (found.motion - np.linalg.inv(motion))[:3, 3]
    assert np.linalg.norm(error, axis=1).mean() < 0.5
    assert any("another person" in alarm for alarm in found.alarms)  # noise has nothing to do with the scans


def test_another_persons_map_raises_the_alarm(moved):
    from DEMISTCore.measured.alignment import align

    _, mask, measured, _ = moved
    condition, _, _ = folded_head(2)
    assert any("another person" in alarm for alarm in align(measured, condition, mask).alarms)


def test_statistics_tell_where_a_measured_map_lies_off(moved):
    from DEMISTCore.measured.alignment import off_by

    condition, mask, measured, motion = moved
    t1w = mask.with_array(condition[0])
    array = np.where(measured.known, measured.psr.array, np.nan).astype(np.float32)
    psr = measured.psr.with_array(array)
    assert "register it" in off_by(psr, t1w)
    there = Volume(array, np.linalg.inv(motion) @ psr.affine)
    assert off_by(there, t1w) is None
    assert off_by(psr.with_array(np.full_like(array, np.nan)), t1w) is None


# --- evaluation -------------------------------------------------------------------------------------------------------


def test_a_measured_truth_is_judged_where_it_is_known(tmp_path):
    from DEMISTCore.evaluation.cases import Case
    from DEMISTCore.evaluation.measure import measure
    from DEMISTCore.evaluation.methods.method import Outcome

    root = write_mini_bids(tmp_path / "whole", subjects=1, size=40)
    full = Case(data.index(root)[0], "model", "simulated", 1.0, 8)
    whole, brain, coverage = full.truth, full.mask, full.coverage
    assert coverage == 1
    slabs = as_slabs(root, 14, 26)
    case = Case(data.index(slabs)[0], "model", "simulated", 1.0, 8, already_aligned=True)
    assert case.coverage == pytest.approx((brain[:, :, case.known.any((0, 1))]).sum() / brain.sum(), abs=0.05)
    assert 0.2 < case.coverage < 0.7
    np.testing.assert_allclose(case.truth[case.mask], whole[case.mask], atol=0.02)
    # What a map holds outside changes nothing.
    good = measure(case, Outcome(whole))
    wrong = measure(case, Outcome(np.where(case.mask, whole, 0.5)))
    for key in ("psnr", "mae", "lesion_auc", "share_border", "coverage"):
        assert wrong[key] == pytest.approx(good[key], nan_ok=True), key
    own = Case(data.index(slabs)[0], "truth", "simulated", 1.0, 8, already_aligned=True)
    assert own.truth.shape[2] == 12
    assert measure(own, Outcome(own.truth))["mae"] == 0
