"""Preparation of pairs: a head given by formula, seen on any grid, must always come out the same."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from DEMISTCore.cli import run
from DEMISTCore.errors import Cancelled, InputError
from DEMISTCore.preprocess import Prepared, bias, brainmask, contrast, intensity, model_grid, normalize, prepare
from DEMISTCore.preprocess.__main__ import main
from DEMISTCore.preprocess.registration import register_rigid
from DEMISTCore.volume import Grid, Volume

# --- a head by formula -----------------------------------------------------------------------------------------
# Everything is a smooth function of world coordinates, so that any grid can see it without interpolation.

AXES = np.array([66.0, 82.0, 60.0])  # half axes of the brain, mm
TISSUES = ("csf", "grey", "white", "deep", "lesion", "skull", "scalp")
T1W = dict(zip(TISSUES, (150.0, 600.0, 900.0, 720.0, 500.0, 40.0, 1500.0)))
FLAIR = dict(zip(TISSUES, (60.0, 650.0, 540.0, 600.0, 900.0, 30.0, 500.0)))


def head(grid: Grid, values: dict[str, float], motion: np.ndarray | None = None, skull: bool = False) -> np.ndarray:
    """Brightness (X, Y, Z) of the head on ``grid``; ``motion`` (4, 4) says where the head's points have gone."""
    motion = np.eye(4) if motion is None else motion
    world = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    p = (world - motion[:3, 3]) @ motion[:3, :3]  # inverse of a rotation: its transpose

    def inside(half_axes, centre=(0, 0, 0), folds=0.0):
        q = (p - np.array(centre)) / np.array(half_axes)
        rho = np.linalg.norm(q, axis=-1)
        if folds:
            theta, phi = np.arctan2(q[..., 1], q[..., 0]), np.arcsin(np.clip(q[..., 2] / (rho + 1e-6), -1, 1))
            rho = rho + folds * np.sin(9 * theta + 1) * np.sin(7 * phi + 2)
        return 1 / (1 + np.exp((rho - 1) * np.mean(half_axes) / 0.8))

    layers: list[tuple[str, np.ndarray]] = []
    if skull:
        layers += [("scalp", inside(AXES + 16)), ("skull", inside(AXES + 8)), ("csf", inside(AXES + 2))]
    layers += [
        ("grey", inside(AXES)),
        ("white", inside(AXES - 5, folds=0.05)),
        ("deep", inside((9, 16, 10), (22, 8, -4))),
        ("deep", inside((9, 16, 10), (-20, 6, -4))),
        ("csf", inside((7, 24, 11), (9, -4, 10))),
        ("csf", inside((6, 20, 9), (-9, 2, 12))),
        ("lesion", inside((6, 5, 5), (28, -24, 14))),
        ("lesion", inside((4, 4, 6), (-26, 30, 18))),
    ]
    image = np.zeros(grid.shape)
    for tissue, share in layers:
        image = image * (1 - share) + values[tissue] * share
    if not skull:
        image *= brain_on(grid, motion)
    return image.astype(np.float32)


def brain_on(grid: Grid, motion: np.ndarray | None = None) -> np.ndarray:
    motion = np.eye(4) if motion is None else motion
    world = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    return np.linalg.norm((world - motion[:3, 3]) @ motion[:3, :3] / AXES, axis=-1) < 1


def box(spacing=(3.0, 3.0, 3.0), angles=(0, 0, 0), extent=(156, 190, 150), shift=(0, 0, 0)) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.diag(spacing)
    shape = tuple(int(np.ceil(e / abs(s))) for e, s in zip(extent, spacing))
    affine[:3, 3] = np.array(shift) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def rigid(angles=(0, 0, 0), shift=(0, 0, 0)) -> np.ndarray:
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    motion[:3, 3] = shift
    return motion


@cache
def pair(spacing=(3.0, 3.0, 3.0), skull=False, noise=6.0) -> tuple[Volume, Volume]:
    grid = box(spacing, extent=(190, 220, 190) if skull else (156, 190, 150))
    rng = np.random.default_rng(0)
    background = 1 if skull else brain_on(grid)
    images = (head(grid, values, skull=skull) + noise * rng.normal(size=grid.shape) for values in (T1W, FLAIR))
    t1w, flair = (Volume((i * background).astype(np.float32), grid.affine) for i in images)
    return t1w, flair


def mask_for(volume: Volume) -> Volume:
    return Volume(brain_on(volume.grid).astype(np.uint8), volume.affine)


@cache
def plain() -> Prepared:
    """The pair at 3 mm with everything switched off."""
    t1w, flair = pair()
    return quick(t1w, flair)


def quick(t1w, flair, **options) -> Prepared:
    options = {
        "brain_mask": mask_for(t1w) if isinstance(t1w, Volume) else None,
        "register": False,
        "bias_correct": False,
        "spacing": 3.0,
    } | options
    return prepare(t1w, flair, **options)


# --- normalisation and the model grid --------------------------------------------------------------------------


def ball(radius: float, n: int = 64) -> np.ndarray:
    """Distance from the centre is at most ``radius`` voxels, in a box of n^3."""
    axis = np.arange(n) - (n - 1) / 2
    return np.add.outer(np.add.outer(axis**2, axis**2), axis**2) <= radius**2


def onion(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """T1w and FLAIR of a head of shells: ventricle, white matter, cortex, and fluid up to the box's faces."""
    t1w, flair = np.full((2, 64, 64, 64), 100.0)
    for radius, bright, dim in ((26, 500, 620), (22, 800, 560), (7, 120, 90)):
        t1w[ball(radius)], flair[ball(radius)] = bright, dim
    return t1w + rng.normal(0, 8, t1w.shape), flair + rng.normal(0, 8, t1w.shape)


def test_normalize_is_its_formula_inside_and_zero_outside():
    pair, mask = onion(np.random.default_rng(1)), ball(28)
    deep, tissue = ball(17), ball(26) & ~ball(7)
    for image, result in zip(pair, normalize(pair, mask)):
        dark, middle = np.percentile(image[deep], 1), np.median(image[tissue])
        assert result.dtype == np.float32
        assert np.allclose(result[mask], np.clip(0.5 * (image[mask] - dark) / (middle - dark), -0.5, 2), atol=0.02)
        assert not result[~mask].any()
        assert np.median(result[tissue]) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("spacing", [1.0, 0.8])
def test_normalize_does_not_see_how_generous_the_mask_is(spacing):
    """Fluid left around the brain by one tool and not by the other moved the plain median by a tenth."""
    pair, tight, wide = onion(np.random.default_rng(3)), ball(26), ball(30)
    for close, loose in zip(normalize(pair, tight, spacing), normalize(pair, wide, spacing)):
        assert np.abs(close - loose)[tight].max() < 0.02


def test_normalize_takes_tissue_from_the_t1w_alone():
    t1w, flair = onion(np.random.default_rng(4))
    both = normalize((t1w, flair), ball(27))
    assert np.array_equal(both[0], normalize((t1w,), ball(27))[0])
    tissue = ball(26) & ~ball(7)
    assert np.median(both[1][tissue]) == pytest.approx(0.5, abs=1e-3)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(gain=st.floats(1e-3, 1e4), offset=st.floats(-1e3, 1e3))
def test_normalize_does_not_see_the_scanner_s_scale(gain, offset):
    array = np.random.default_rng(2).random((2, 8, 8, 8))
    mask = np.ones((8, 8, 8), bool)
    assert np.allclose(normalize(array * gain + offset, mask), normalize(array, mask), atol=1e-4)


def test_normalize_survives_what_has_no_contrast():
    for mask in (np.ones((4, 4, 4)), np.zeros((4, 4, 4))):
        assert not np.any(normalize(np.ones((2, 4, 4, 4)), mask))


@pytest.mark.parametrize("grid", [box(), box((1.5, 3, 4), (8, -12, 30)), box((3, -3, 3), (0, 0, 90), (190, 156, 150))])
@pytest.mark.parametrize("multiple", [8, 16])
def test_model_grid_holds_the_brain_in_ras_cubes(grid, multiple):
    mask = Volume(brain_on(grid).astype(np.uint8), grid.affine)
    model = model_grid(mask, spacing=2.0, multiple=multiple, margin=4)
    assert model.axcodes == "RAS"
    assert np.allclose(model.affine[:3, :3].T @ model.affine[:3, :3], 4 * np.eye(3))
    assert all(n % multiple == 0 for n in model.shape)
    index = model.to_index(grid.to_world(np.argwhere(mask.array)))
    # Half a source voxel and 4 mm of margin, less half a voxel of snapping.
    assert index.min() >= 1
    assert np.all(index <= np.array(model.shape) - 2)
    assert all(n - multiple < np.ptp(index[:, a]) + 2 * 2 + 8 for a, n in enumerate(model.shape))
    # Asked-for shapes are centred on the brain.
    asked = model_grid(mask, spacing=2.0, shape=(96, 112, 96))
    assert asked.shape == (96, 112, 96)
    index = asked.to_index(grid.to_world(np.argwhere(mask.array)))
    assert np.allclose((index.max(0) + index.min(0)) / 2, (np.array(asked.shape) - 1) / 2, atol=1)


def test_model_grid_shares_the_voxels_of_a_t1w_of_its_spacing():
    grid = box((3, -3, 3), (4, 9, -6))
    model = model_grid(Volume(brain_on(grid).astype(np.uint8), grid.affine), spacing=3.0)
    index = grid.to_index(model.to_world(np.argwhere(np.ones(model.shape))))
    assert np.abs(index - np.round(index)).max() < 1e-6


def test_model_grid_needs_a_brain():
    with pytest.raises(InputError, match="empty"):
        model_grid(Volume(np.zeros((9, 9, 9), np.uint8), np.eye(4)))


# --- prepare: what comes out -----------------------------------------------------------------------------------


def test_prepared_is_what_the_contract_says():
    t1w, _ = pair()
    p = plain()
    assert p.array.shape == (2, *p.grid.shape)
    assert p.array.dtype == np.float32
    inside = p.mask.array > 0
    assert not p.array[:, ~inside].any()
    assert np.median(p.t1w.array[inside]) == pytest.approx(0.5, abs=1e-3)
    assert p.native.same_as(t1w.grid)
    assert np.array_equal(p.native_mask.array, mask_for(t1w).array)
    assert p.warnings == []
    assert [s.name for s in p.steps] == [
        "read",
        "brain mask",
        "registration",
        "slices",
        "resampling",
        "bias field",
        "normalisation",
    ]
    assert [s.note for s in p.steps if s.note == "off"] == ["off"] * 3
    # Same spacing: nothing is interpolated, forth and back.
    assert np.array_equal(p.to_native(p.t1w.array).array, normalize((t1w.array,), mask_for(t1w).array, 3.0)[0])


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    t1w_axes=st.tuples(st.permutations("xyz"), st.tuples(*[st.booleans()] * 3)),
    flair_axes=st.tuples(st.permutations("xyz"), st.tuples(*[st.booleans()] * 3)),
)
def test_orientation_of_the_files_does_not_matter(t1w_axes, flair_axes):
    """Any of the 48 orientations of either file: same model grid, same bytes; results return to the file's own."""

    def turned(volume: Volume, axes) -> Volume:
        order, flips = axes
        letters = {"x": "LR", "y": "PA", "z": "IS"}
        return volume.reoriented("".join(letters[a][flip] for a, flip in zip(order, flips)))

    t1w, flair = (turned(v, axes) for v, axes in zip(pair(), (t1w_axes, flair_axes)))
    p, expected = quick(t1w, flair, brain_mask=mask_for(pair()[0])), plain()
    assert p.grid.same_as(expected.grid, 1e-6)
    assert np.array_equal(p.array, expected.array)
    back = p.to_native(p.flair.array)
    assert back.grid.same_as(t1w.grid, 1e-9)
    original = expected.to_native(expected.flair.array)
    assert np.array_equal(back.resampled_to(original).array, original.array)


@settings(max_examples=4, deadline=None, derandomize=True)
@given(
    angles=st.tuples(*[st.floats(-25, 25)] * 3),
    spacing=st.tuples(*[st.floats(2, 4)] * 3),
    shift=st.tuples(*[st.floats(-30, 30)] * 3),
)
def test_grids_of_the_files_do_not_matter(angles, spacing, shift):
    """Oblique, anisotropic, shifted grids of one head: the prepared images agree at the same places."""
    grid = box(spacing, angles, extent=(230, 250, 230))
    # The head goes with the grid's centre.
    motion = rigid((0, 0, 0), shift)
    grid = Grid(grid.shape, motion @ grid.affine)
    flair_grid = Grid(
        box((2.5, 2.5, 3.5), (-3, 6, 2), extent=(190, 220, 190)).shape,
        motion @ box((2.5, 2.5, 3.5), (-3, 6, 2), extent=(190, 220, 190)).affine,
    )
    t1w = Volume(head(grid, T1W, motion, skull=True), grid.affine)
    flair = Volume(head(flair_grid, FLAIR, motion, skull=True), flair_grid.affine)
    mask = Volume(brain_on(grid, motion).astype(np.uint8), grid.affine)
    p = quick(t1w, flair, brain_mask=mask)
    truth = np.stack(normalize([head(p.grid, v, motion, skull=True) for v in (T1W, FLAIR)], p.mask.array, 3.0))
    deep = ndimage.binary_erosion(p.mask.array > 0, iterations=1)
    error = np.abs(p.array - truth)[:, deep]
    assert error.mean() < 0.03
    assert np.corrcoef(p.array[:, deep].ravel(), truth[:, deep].ravel())[0, 1] > 0.97
    native = p.to_native(p.t1w.array)
    assert native.grid.same_as(t1w.grid, 1e-9)
    assert not native.array[p.native_mask.array == 0].any()
    if max(angles, key=abs) < 5:
        assert p.grid.axcodes == "RAS"


def test_to_native_and_back_keeps_smooth_maps():
    """A smooth map at 2 mm goes to an oblique, finer grid and keeps its values up to the brain's rim."""
    grid = box((1.6, 1.6, 1.6), (6, -4, 11), extent=(160, 190, 150))
    t1w = Volume(head(grid, T1W), grid.affine)
    flair = Volume(head(grid, FLAIR), grid.affine)
    p = quick(t1w, flair, brain_mask=Volume(brain_on(grid).astype(np.uint8), grid.affine), spacing=2.0)

    def psr(where: Grid) -> np.ndarray:
        x, y, z = np.moveaxis(where.to_world(np.moveaxis(np.indices(where.shape), 0, -1)), -1, 0)
        return (0.1 + 0.04 * np.sin(x / 20) * np.cos(y / 25) + z / 2000).astype(np.float32)

    native = p.to_native(np.where(p.mask.array > 0, psr(p.grid), 0))
    inside = p.native_mask.array > 0
    error = np.abs(native.array - psr(grid))[inside]
    assert np.percentile(error, 99) < 0.003
    assert error.max() < 0.02  # at the rim, too: zeros outside do not dilute
    assert not native.array[~inside].any()
    labels = p.to_native(np.where(p.mask.array > 0, 7, 0).astype(np.int16), order="nearest")
    assert labels.array.dtype == np.int16
    assert set(np.unique(labels.array[inside])) <= {0, 7}
    assert np.mean(labels.array[inside] == 7) > 0.97
    with pytest.raises(ValueError, match="does not lie on the model grid"):
        p.to_native(np.zeros((3, 3, 3)))


def test_same_input_same_bytes_whatever_the_threads():
    t1w, flair = pair(skull=True)
    moved = Volume(flair.array, rigid((2, -3, 1), (3, 2, -4)) @ flair.affine)
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    results = []
    try:
        for threads in (1, 3):
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
            p = quick(t1w, moved, register=True, bias_correct=True)
            results.append((p.array.tobytes(), p.flair_motion.tobytes()))
            assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == threads  # left as it was
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    assert results[0] == results[1]


def test_parts_that_the_flair_does_not_show_stay_empty():
    t1w, flair = pair()
    short = Volume(flair.array[:, :, 18:], flair.affine @ rigid(shift=(0, 0, 18)))
    p = quick(t1w, short)
    assert any("does not show" in w and "stays empty" in w for w in p.warnings)
    z = p.grid.to_world(np.argwhere(p.mask.array))[:, 2]
    edge = short.grid.corners()[:, 2].min()
    assert z.min() >= edge - 1e-6
    back = p.to_native(np.ones(p.grid.shape)).array
    assert not back[:, :, :17].any()


def test_progress_rises_to_one_and_can_cancel():
    t1w, flair = pair()
    seen: list[tuple[str, float]] = []
    quick(t1w, flair, register=True, progress=lambda stage, fraction: seen.append((stage, fraction)))
    fractions = [f for _, f in seen]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert {"read", "registration", "normalisation"} <= {s for s, _ in seen}

    def stop(stage: str, fraction: float) -> None:
        if stage == "registration" and fraction > 0.4:
            raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        quick(t1w, flair, register=True, progress=stop)


def test_a_given_shape_that_cuts_the_brain_is_said():
    assert any("larger shape" in w for w in quick(*pair(), shape=(32, 32, 32)).warnings)


# --- registration ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("angles", "shift", "spacing"),
    [
        ((0.5, -0.4, 0.6), (0.8, -1.1, 0.7), (2.0, 2.0, 2.0)),
        ((7, -9, 12), (12, -8, 15), (1.5, 1.5, 4.0)),
        ((-4, 18, 3), (-30, 22, 9), (2.0, 2.0, 2.0)),
    ],
)
def test_known_motions_are_recovered(angles, shift, spacing):
    t1w = pair((2.0, 2.0, 2.0), skull=True)[0]
    motion = rigid(angles, shift)
    grid = box(spacing, extent=(210, 230, 210), shift=shift)
    rng = np.random.default_rng(3)
    flair = head(grid, FLAIR, motion, skull=True) + 10 * rng.normal(size=grid.shape).astype(np.float32)
    found = register_rigid(t1w, Volume(flair.astype(np.float32), grid.affine), mask_for(t1w)).motion
    error = found @ motion
    points = np.argwhere(np.ones((3, 3, 3))) * 50.0 - 50
    assert np.linalg.norm(points @ error[:3, :3].T + error[:3, 3] - points, axis=1).mean() < 0.5
    assert np.degrees(Rotation.from_matrix(error[:3, :3]).magnitude()) < 0.5


def test_aligned_pairs_are_left_alone():
    t1w, flair = pair((2.0, 2.0, 2.0), skull=True)
    found = register_rigid(t1w, flair, mask_for(t1w))
    assert np.array_equal(found.motion, np.eye(4))
    assert "in place" in found.note


def test_noise_is_not_registered_to_anything():
    t1w, flair = pair()
    rng = np.random.default_rng(0)
    found = register_rigid(t1w, flair.with_array(rng.random(flair.shape).astype(np.float32)), mask_for(t1w))
    assert np.isfinite(found.motion).all()
    assert np.allclose(found.motion[:3, :3] @ found.motion[:3, :3].T, np.eye(3), atol=1e-6)


def test_registration_is_part_of_prepare():
    t1w, flair = pair(skull=True)
    motion = rigid((3, -2, 4), (5, -6, 4))
    moved = Volume(flair.array, motion @ flair.affine)
    p = quick(t1w, moved, register=True)
    expected = quick(t1w, flair)
    inside = p.mask.array > 0
    assert np.abs(p.flair_motion @ motion - np.eye(4))[:3, :3].max() < 0.01
    assert np.corrcoef(p.flair.array[inside], expected.flair.array[inside])[0, 1] > 0.97
    assert np.corrcoef(quick(t1w, moved).flair.array[inside], expected.flair.array[inside])[0, 1] < 0.9


# --- brain masks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", [0.0, -1000.0])
def test_stripped_images_are_recognised_heads_are_not(background):
    t1w = pair()[0]
    brain = mask_for(t1w).array > 0
    image = np.where(brain, t1w.array + background, background).astype(np.float32)
    # Traces of interpolation: slightly negative values at the rim, and specks.
    rim = brain & ~ndimage.binary_erosion(brain)
    image[rim] -= np.float32(200) * (np.random.default_rng(0).random(rim.sum()) < 0.2)
    image[0, 0, 0] = background + 50
    found = brainmask.recognise_stripped(t1w.with_array(image))
    assert found is not None
    assert np.mean((found.array > 0) == brain) > 0.999
    assert (found.array[brain] > 0).mean() > 0.99  # ventricles are not holes
    whole = pair(skull=True)[0]
    assert brainmask.recognise_stripped(whole) is None
    # A head whose air was set to zero, and a slab of it with a brain's volume.
    clean = whole.with_array(np.where(whole.array > 20, whole.array, 0))
    assert brainmask.recognise_stripped(clean) is None
    slab = Volume(clean.array[:, :, 20:40], clean.affine)
    assert brainmask.recognise_stripped(slab) is None


def test_auto_uses_the_outline_of_stripped_pairs_without_deepbet(monkeypatch):
    monkeypatch.setattr(brainmask, "extract_brain", lambda *_: pytest.fail("deepbet was run"))
    t1w, flair = pair()
    p = quick(t1w, flair, brain_mask=None)
    assert "stripped already" in p.steps[1].note
    assert np.mean((p.native_mask.array > 0) == brain_on(t1w.grid)) > 0.999


def test_deepbet_finds_the_brain_of_a_head_quietly(capfd):
    grid = box((2.0, 2.0, 2.0), (5, 0, 90), extent=(200, 230, 200))  # not in RAS order
    t1w = Volume(head(grid, T1W, skull=True), grid.affine)
    flair = Volume(head(grid, FLAIR, skull=True), grid.affine)
    p = quick(t1w, flair, brain_mask=None)
    assert p.steps[1].note == "deepbet"
    truth = brain_on(grid)
    found = p.native_mask.array > 0
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.85
    assert ndimage.label(found)[1] == 1
    assert capfd.readouterr().out == ""


def test_no_brain_and_no_device_are_said_in_a_sentence(monkeypatch):
    blank = Volume(np.random.default_rng(0).random((20, 20, 20), np.float32), np.diag([9, 9, 9, 1]), Path("noise.nii"))

    class Blind:
        def run_model(self, array):
            assert np.any(array < 0), "Not enough foreground to calculate bounding box"  # as deepbet does

    monkeypatch.setattr(brainmask, "_deepbet", lambda device: Blind())
    with pytest.raises(InputError, match=r"No brain was found in noise.nii; .*give a brain mask"):
        brainmask.extract_brain(blank)
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"Device .* cannot be used .*; choose cpu"):
        brainmask.extract_brain(blank, "nonsense")


def test_none_keeps_everything_but_empty_background():
    t1w, flair = pair()
    p = quick(t1w, flair, brain_mask=None, skull_strip="none")
    assert np.mean((p.native_mask.array > 0) == brain_on(t1w.grid)) > 0.999
    whole = pair(skull=True)
    everything = {"brain_mask": None, "skull_strip": "none"}
    assert quick(*whole, **everything, any_brain_volume=True).native_mask.array.all()
    with pytest.raises(InputError, match="--any-brain-volume"):  # 8 litres
        quick(*whole, **everything)


def test_masks_may_lie_on_other_grids():
    t1w, flair = pair()
    grid = box((2.0, 4.0, 2.5), (10, 20, 5), extent=(200, 230, 210))
    p = quick(t1w, flair, brain_mask=Volume(255 * brain_on(grid).astype(np.uint8), grid.affine))
    assert "resampled" in p.steps[1].note
    found, truth = p.native_mask.array > 0, brain_on(t1w.grid)
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.97


# --- brightness ------------------------------------------------------------------------------------------------


def smooth_field(grid: Grid) -> np.ndarray:
    x, y, z = np.moveaxis(grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1)), -1, 0) / 80
    return 0.25 * x - 0.2 * y * y + 0.15 * z * x + 0.1 * y


def test_n4_takes_away_what_was_put_on():
    t1w = pair()[0]
    mask = mask_for(t1w).array > 0
    field = smooth_field(t1w.grid)
    clean, little = bias.correct_bias(t1w.array, mask, 3.0)
    corrected, much = bias.correct_bias(t1w.array * np.exp(field), mask, 3.0)

    def spread(logarithm):
        return np.std(logarithm[mask])

    left = np.log(np.maximum(corrected, 1) / np.maximum(clean, 1))
    assert spread(left) < 0.4 * spread(field)
    assert little < 0.05 < much


def test_n4_leaves_what_it_cannot_work_on():
    array = np.zeros((20, 20, 20), np.float32)
    mask = np.zeros((20, 20, 20), bool)
    mask[5:8, 5:8, 5:8] = True
    result, amount = bias.correct_bias(array, mask, 1.0)
    assert np.array_equal(result, array)
    assert amount == 0


@pytest.mark.parametrize("axis", [0, 2])
def test_alternating_slices_are_evened_out(axis):
    spacing = [1.6, 1.6, 1.6]
    spacing[axis] = 4.0
    grid = box(tuple(spacing))
    clean = Volume(head(grid, T1W), grid.affine)
    shape = [1, 1, 1]
    shape[axis] = grid.shape[axis]
    gain = np.where(np.arange(grid.shape[axis]) % 2, 1.06, 1.0).reshape(shape).astype(np.float32)
    even, amount = bias.correct_interleave(clean.with_array(clean.array * gain), mask_for(clean))
    assert amount == pytest.approx(0.06, abs=0.01)
    ratio = (even.array / np.maximum(clean.array, 1))[clean.array > 300]
    assert np.std(ratio) / np.mean(ratio) < 0.005
    # Even slices, and thin ones, are left as they are.
    assert bias.correct_interleave(clean, mask_for(clean))[1] == 0
    thin = pair()[0]
    assert bias.correct_interleave(thin, mask_for(thin))[0] is thin


def test_swapped_and_doubled_images_draw_a_warning():
    t1w, flair = pair()
    assert plain().warnings == []
    assert any("look swapped" in w for w in quick(flair, t1w).warnings)
    assert any("almost the same image" in w for w in quick(t1w, t1w).warnings)
    inside = plain().mask.array > 0
    apart = contrast.deep_over_rim(*plain().array, inside, intensity.depth(inside, 3.0))
    assert apart > 0.1
    assert contrast.deep_over_rim(*plain().array[::-1], inside, intensity.depth(inside, 3.0)) == pytest.approx(-apart)


# --- bad input -------------------------------------------------------------------------------------------------


def broken(name: str, folder: Path) -> tuple[dict, str]:
    """Arguments of prepare with one thing wrong, and the words that must come."""
    t1w, flair = pair()
    t1w, flair = (Volume(v.array, v.affine, folder / f"{n}.nii.gz") for v, n in ((t1w, "t1"), (flair, "fl")))
    rng = np.random.default_rng(0)
    nan = np.where(rng.random(flair.shape) < 0.05, np.nan, flair.array)
    far = Volume(flair.array, rigid(shift=(900, 0, 0)) @ flair.affine, flair.path)
    mask = mask_for(t1w)
    cases: dict[str, tuple[dict, str]] = {
        "missing": ({"t1w": folder / "none.nii.gz"}, "none.nii.gz does not exist"),
        "constant": ({"flair": flair.with_array(np.full(flair.shape, 3.0))}, "fl.nii.gz is constant"),
        "nan": ({"flair": flair.with_array(nan)}, "fl.nii.gz has 5% NaN"),
        "far": ({"flair": far}, "do not overlap in space"),
        "thin": ({"t1w": Volume(t1w.array[:, :, :4], t1w.affine, t1w.path)}, "t1.nii.gz spans"),
        "metres": ({"t1w": Volume(t1w.array, np.diag([1e-3, 1e-3, 1e-3, 1]), t1w.path)}, "t1.nii.gz has voxels of"),
        "wide": ({"t1w": Volume(t1w.array, np.diag([19.0, 19, 19, 1]), t1w.path)}, "t1.nii.gz spans"),
        "mask_empty": ({"brain_mask": Volume(0 * mask.array, mask.affine, folder / "m.nii")}, "m.nii is empty"),
        "mask_far": (
            {"brain_mask": Volume(mask.array, rigid(shift=(500, 0, 0)) @ mask.affine, folder / "m.nii")},
            "m.nii does not overlap",
        ),
        "mask_missing": ({"brain_mask": folder / "m.nii"}, "m.nii does not exist"),
        "type": ({"t1w": 3}, "must be a file or a Volume"),
        "strip": ({"skull_strip": "bet"}, "choose auto, deepbet or none"),
        "spacing": ({"spacing": 0.0}, "makes no sense"),
        "flair_elsewhere": (
            {"flair": Volume(flair.array, rigid(shift=(140, 0, 0)) @ flair.affine, flair.path)},
            "less than a tenth",
        ),
        "flat_inside": (
            {"flair": flair.with_array(np.where(mask.array > 0, 0, rng.random(flair.shape)).astype(np.float32))},
            "constant inside the brain",
        ),
    }
    arguments, words = cases[name]
    return {"t1w": t1w, "flair": flair, "brain_mask": mask} | arguments, words


@pytest.mark.parametrize(
    "name",
    [
        "missing",
        "constant",
        "nan",
        "far",
        "thin",
        "metres",
        "wide",
        "mask_empty",
        "mask_far",
        "mask_missing",
        "type",
        "strip",
        "spacing",
        "flair_elsewhere",
        "flat_inside",
    ],
)
def test_bad_input_ends_in_one_sentence(name, tmp_path):
    arguments, words = broken(name, tmp_path)
    with pytest.raises(InputError) as caught:
        quick(arguments.pop("t1w"), arguments.pop("flair"), **arguments)
    message = str(caught.value)
    assert words in message
    assert message.endswith(".")
    assert "\n" not in message


def test_few_nan_voxels_are_replaced_with_a_warning():
    t1w, flair = pair()
    array = t1w.array.copy()
    array[26, 30, 25:27] = np.nan, np.inf
    p = quick(t1w.with_array(array), flair)
    assert np.isfinite(p.array).all()
    assert any("2 NaN or infinite" in w for w in p.warnings)


# --- command line ----------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    t1w, flair = pair()
    return {
        "t1w": t1w.reoriented("LPS").write(tmp_path / "t1w.nii.gz"),
        "flair": flair.write(tmp_path / "flair.nrrd"),
        "mask": mask_for(t1w).write(tmp_path / "mask.nii.gz"),
    }


def test_command_line_writes_the_pair_and_its_steps(files, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [
        "--t1w",
        str(files["t1w"]),
        "--flair",
        str(files["flair"]),
        "--brain-mask",
        str(files["mask"]),
        "--out-dir",
        str(out),
        "--spacing",
        "3",
        "--no-register",
        "--no-bias-correct",
    ]
    assert run(main, arguments) == 0
    assert sorted(p.name for p in out.iterdir()) == [
        "flair.nii.gz",
        "mask.nii.gz",
        "native_mask.nii.gz",
        "steps.json",
        "t1w.nii.gz",
    ]
    assert np.array_equal(Volume.read(out / "t1w.nii.gz").array, plain().t1w.array)
    assert Volume.read(out / "native_mask.nii.gz").grid.same_as(Volume.read(files["t1w"]).grid)
    report = json.loads((out / "steps.json").read_text())
    assert [s["name"] for s in report["steps"]][:2] == ["read", "brain mask"]
    assert report["model_grid"]["shape"] == list(plain().grid.shape)
    capsys.readouterr()
    before = (out / "steps.json").read_bytes()
    assert run(main, arguments) == 2
    assert "exists already" in capsys.readouterr().err
    assert (out / "steps.json").read_bytes() == before
    assert run(main, [*arguments, "--overwrite"]) == 0


def test_command_line_ends_bad_input_with_code_2_and_one_line(files, tmp_path, capsys):
    out = tmp_path / "out"
    files["flair"].write_bytes(files["flair"].read_bytes()[:4000])
    code = run(main, ["--t1w", str(files["t1w"]), "--flair", str(files["flair"]), "--out-dir", str(out)])
    error = capsys.readouterr().err.strip()
    assert code == 2
    assert error.startswith(f"error: {files['flair']} cannot be read")
    assert "Traceback" not in error
    assert not out.exists()
    assert run(main, ["--t1w", "a", "--flair", "b", "--out-dir", str(files["t1w"])]) == 2
    assert "is a file; give a folder" in capsys.readouterr().err


def test_help_and_import_stay_light():
    """Nothing heavy is loaded before work begins."""
    code = (
        "import sys, DEMISTCore.preprocess, DEMISTCore.preprocess.__main__;"
        "print([m for m in ('torch', 'SimpleITK', 'scipy', 'nibabel', 'monai', 'deepbet') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
