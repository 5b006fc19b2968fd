"""Regions: lesions, tissue and NAWM, against brute force, formulas and a brain whose tissues are known."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation
from skimage.measure import label as skimage_label

from DEMISTCore.errors import InputError
from DEMISTCore.preprocess import Prepared, normalize
from DEMISTCore.regions import (
    REGIONS,
    RegionSettings,
    build_regions,
    number_lesions,
    read_mask,
    segment_tissue,
    suggest_lesions,
    write_regions,
)
from DEMISTCore.regions.holes import drop_islands, fill_white
from DEMISTCore.regions.lesions import SUGGESTION, black_holes
from DEMISTCore.regions.masks import labels_to_grid
from DEMISTCore.regions.nawm import lesion_distance, split
from DEMISTCore.volume import Grid, Volume

few = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**31)
#: Made-up ellipsoids are for the method that was not trained on brains.
UNTRAINED = RegionSettings(method="hmrf")
AXCODES = ["".join(p) for t in permutations(("RL", "AP", "SI")) for p in product(*t)]


def oblique(rng: np.random.Generator, spacing: tuple[float, ...]) -> np.ndarray:
    """An affine with these spacings, turned and flipped at random."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix() * spacing
    affine[:3, 0] *= rng.choice([-1, 1])
    affine[:3, 3] = rng.uniform(-50, 50, 3)
    return affine


def blobs(rng: np.random.Generator, shape: tuple[int, ...], share: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(rng.standard_normal(shape), 1.0)
    return (field > np.quantile(field, 1 - share)).astype(np.uint8)


# --- lesions ---------------------------------------------------------------------------------------------------------


@few
@given(seeds, st.sampled_from(AXCODES))
def test_lesions_are_numbered_by_size_whatever_the_orientation(seed: int, axcodes: str) -> None:
    rng = np.random.default_rng(seed)
    mask = Volume(blobs(rng, (9, 11, 8), 0.15), np.diag([1.0, 1.2, 3.0, 1.0]))
    numbers = number_lesions(mask)
    reference = skimage_label(mask.array, connectivity=3)
    assert numbers.array.dtype == np.int32
    assert numbers.array.max() == reference.max()
    pairs = np.unique(np.stack([numbers.array.ravel(), reference.ravel()]), axis=1)
    assert pairs.shape[1] == reference.max() + 1  # one to one
    sizes = np.bincount(numbers.array.ravel())[1:]
    assert (np.diff(sizes) <= 0).all()
    turned = number_lesions(mask.reoriented(axcodes))
    np.testing.assert_array_equal(turned.reoriented("RAS").array, numbers.array)


def test_corners_connect_and_small_lesions_are_left_out() -> None:
    mask = np.zeros((6, 6, 6), np.uint8)
    mask[0, 0, 0] = mask[1, 1, 1] = 1
    mask[4, 4, 4] = 1
    volume = Volume(mask, np.diag([2.0, 2.0, 2.0, 1.0]))  # 0.008 mL each
    assert number_lesions(volume).array.max() == 2
    kept = number_lesions(volume, min_ml=0.016).array
    assert kept.max() == 1
    assert kept[1, 1, 1] == 1
    assert not number_lesions(volume.with_array(np.zeros_like(mask))).array.any()


def test_black_holes_are_darker_than_grey_matter() -> None:
    tissue = np.full((12, 12, 12), 3, np.uint8)
    tissue[:4] = 2
    t1w = np.where(tissue == 3, 900.0, 600.0).astype(np.float32)
    numbers = np.zeros(tissue.shape, np.int32)
    numbers[6:8, 2:4, 2:4], numbers[6:8, 8:10, 8:10] = 1, 2
    t1w[numbers == 1], t1w[numbers == 2] = 560.0, 650.0
    volumes = [Volume(a, np.eye(4)) for a in (numbers, t1w, tissue)]
    assert black_holes(*volumes) == (1,)
    # A dark lesion must not lower what it is compared with; and where white is not the brighter one, it is no T1w.
    inverted = volumes[1].with_array(1500 - t1w)
    assert black_holes(volumes[0], inverted, volumes[2]) == ()
    assert black_holes(volumes[0].with_array(numbers * 0), *volumes[1:]) == ()


# --- distances -------------------------------------------------------------------------------------------------------


@few
@given(seeds, st.tuples(*[st.sampled_from([0.5, 0.9, 1.0, 2.0, 4.5])] * 3))
def test_distances_equal_brute_force_in_world_coordinates(seed: int, spacing: tuple[float, ...]) -> None:
    rng = np.random.default_rng(seed)
    mask = (rng.random((5, 6, 4)) < 0.05).astype(np.uint8)
    mask[tuple(rng.integers(0, mask.shape))] = 1
    volume = Volume(mask, oblique(rng, spacing))
    found = lesion_distance(volume)
    world = volume.grid.to_world(np.argwhere(np.ones_like(mask)))
    inside = volume.grid.to_world(np.argwhere(mask))
    np.testing.assert_allclose(found.array.ravel(), cdist(world, inside).min(1), atol=1e-4)
    assert found.array.dtype == np.float32


def test_no_lesion_no_distance() -> None:
    assert lesion_distance(Volume(np.zeros((3, 3, 3), np.uint8), np.eye(4))) is None


@few
@given(seeds, st.floats(0, 2), st.floats(0, 3), st.floats(0.5, 5), st.floats(0, 6))
def test_parts_make_up_the_nawm(seed: int, gap: float, more: float, width: float, beyond: float) -> None:
    rng = np.random.default_rng(seed)
    low = gap + more
    chosen = RegionSettings(gap, proximal_mm=(low, low + width), distal_mm=low + width + beyond)
    white = rng.random((10, 9, 8)) < 0.7
    lesions = Volume(((rng.random(white.shape) < 0.01) & ~white).astype(np.uint8), np.diag([1.0, 1.5, 3.0, 1.0]))
    distance = lesion_distance(lesions)
    parts = split(white, None if distance is None else distance.array, chosen)
    if distance is None:
        assert list(parts) == ["nawm"]
        return
    total = sum(parts[k].astype(int) for k in ("nawm_proximal", "nawm_middle", "nawm_distal"))
    np.testing.assert_array_equal(total, parts["nawm"])
    assert not (parts["nawm"] & ~white).any()
    assert (distance.array[parts["nawm"]] > gap).all()
    assert (distance.array[parts["nawm_distal"]] > chosen.distal_mm).all()
    near = distance.array[parts["nawm_proximal"]]
    assert ((near > low) & (near <= low + width)).all()


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"proximal_mm": (6.0, 2.0)}, "must rise"),
        ({"proximal_mm": (1.0, 6.0)}, "must rise"),
        ({"distal_mm": 3.0}, "must rise"),
        ({"lesion_gap_mm": -1.0}, "lesion_gap_mm"),
        ({"min_lesion_ml": float("nan")}, "min_lesion_ml"),
        ({"proximal_mm": 4.0}, "two distances"),
        ({"grow_sd": 9.0}, "grow_sd"),
    ],
)
def test_settings_that_make_no_sense(wrong: dict, named: str) -> None:
    with pytest.raises(InputError, match=named):
        RegionSettings(**wrong)


# --- masks as people give them -----------------------------------------------------------------------------------


def saved(tmp_path, array: np.ndarray):
    return Volume(array, np.eye(4)).write(tmp_path / "mask.nii.gz")


def test_binary_masks_are_taken_as_they_are(tmp_path) -> None:
    array = np.zeros((4, 4, 4))
    array[1] = 1
    notes: list[str] = []
    mask = read_mask(saved(tmp_path, array), "lesion mask", notes)
    assert mask.array.dtype == np.uint8
    assert mask.path == tmp_path / "mask.nii.gz"
    np.testing.assert_array_equal(mask.array, array)
    assert not notes
    assert not read_mask(saved(tmp_path, array * 0), "lesion mask").array.any()


def test_labels_and_fractions_are_made_binary_with_a_note(tmp_path) -> None:
    array = np.zeros((6, 6, 6), np.float32)
    array[1:3], array[4] = 2, 7
    notes: list[str] = []
    np.testing.assert_array_equal(read_mask(saved(tmp_path, array), "lesion mask", notes).array, array > 0)
    assert "2 labels" in notes[0]
    assert "mask.nii.gz" in notes[0]
    assert "value 255" in (read_mask(saved(tmp_path, (array > 0) * 255.0), "lesion mask", notes), notes)[1][1]
    array[:] = 0
    array[1], array[2] = 0.4, 0.6
    np.testing.assert_array_equal(read_mask(saved(tmp_path, array), "lesion mask", notes).array, array >= 0.5)
    assert "fractions" in notes[2]


@pytest.mark.parametrize(
    ("value", "named"),
    [(np.nan, "NaN"), (np.inf, "infinite"), (-1.0, "negative"), (3.7, "not binary")],
)
def test_what_is_no_mask(tmp_path, value: float, named: str) -> None:
    array = np.zeros((4, 4, 4), np.float32)
    array[1], array[2, 2, 2] = 1, value
    with pytest.raises(InputError, match=named) as error:
        read_mask(saved(tmp_path, array), "lesion mask")
    assert "mask.nii.gz" in str(error.value)


def test_an_image_is_no_mask(tmp_path) -> None:
    image = np.random.default_rng(0).integers(0, 900, (12, 12, 12)).astype(np.int16)
    with pytest.raises(InputError, match="grey values"):
        read_mask(saved(tmp_path, image), "lesion mask")
    with pytest.raises(InputError, match="does not exist"):
        read_mask(tmp_path / "none.nii.gz", "lesion mask")


def test_labels_on_a_coarser_grid_follow_the_majority() -> None:
    rng = np.random.default_rng(1)
    fine = np.kron(rng.integers(0, 4, (5, 5, 5)), np.ones((3, 3, 3), int)).astype(np.uint8)
    fine[1::3, 1::3, 1::3] = 0  # one voxel of 27
    volume = Volume(fine, np.eye(4))
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = 1.0
    coarse = labels_to_grid(volume, Grid((5, 5, 5), affine))
    blocks = fine[::3, ::3, ::3]
    assert np.mean(coarse.array == blocks) > 0.9
    assert labels_to_grid(volume, volume.grid).array is fine


# --- build_regions on given tissue -------------------------------------------------------------------------------


def brain(shape: tuple[int, int, int] = (30, 34, 26), affine: np.ndarray | None = None) -> tuple[Volume, Volume]:
    """Tissue labels of nested ellipsoids, and a lesion mask with two lesions."""
    x, y, z = np.meshgrid(*(np.linspace(-1.1, 1.1, n) for n in shape), indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2)
    tissue = np.select([radius < 0.2, radius < 0.75, radius < 0.9, radius < 1], [1, 3, 2, 1], 0).astype(np.uint8)
    lesions = np.zeros(shape, np.uint8)
    lesions[8:11, 16:19, 12:15] = 1
    lesions[21, 17, 13] = 1
    affine = np.diag([1.5, 1.5, 2.0, 1.0]) if affine is None else affine
    return Volume(tissue, affine), Volume(lesions, affine)


def test_regions_of_a_brain_with_lesions() -> None:
    tissue, mask = brain()
    regions = build_regions(tissue, lesion_mask=mask, tissue=tissue)
    assert list(regions.masks) == [k for k in REGIONS if k in regions.masks]
    masks = {k: m.array > 0 for k, m in regions.masks.items()}
    assert all(m.array.dtype == np.uint8 and m.grid.same_as(tissue.grid) for m in regions.masks.values())
    np.testing.assert_array_equal(masks["lesion"], mask.array > 0)
    np.testing.assert_array_equal(masks["white_matter"], (tissue.array == 3) | (mask.array > 0))
    far = (tissue.array == 3) & (regions.distance.array > 2.0)
    # 1.5 x 1.5 x 2 mm: one voxel is left out along each axis, but none of its diagonals of 2.1 and 2.5 mm.
    np.testing.assert_array_equal(masks["nawm"], far & binary_erosion(masks["white_matter"]))
    # 1.9 mm: within the slice only.
    within = np.zeros((3, 3, 3), bool)
    within[:, 1, 1] = within[1, :, 1] = True
    less = build_regions(tissue, lesion_mask=mask, tissue=tissue, settings=RegionSettings(depth_mm=1.9))
    np.testing.assert_array_equal(less.masks["nawm"].array, far & binary_erosion(masks["white_matter"], within))
    np.testing.assert_array_equal(masks["grey_matter"], (tissue.array == 2) & (mask.array == 0))
    all_of_it = build_regions(tissue, lesion_mask=mask, tissue=tissue, settings=RegionSettings(depth_mm=0))
    np.testing.assert_array_equal(all_of_it.masks["nawm"].array, far)
    assert regions.lesions.count == 2
    assert not regions.lesions.suggested
    assert any("black holes" in n for n in regions.notes)
    assert "black_hole" not in masks


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(AXCODES), seeds)
def test_regions_do_not_hang_on_the_orientation(axcodes: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tissue, mask = brain(affine=oblique(rng, (1.0, 1.3, 3.0)))
    before = build_regions(tissue, lesion_mask=mask, tissue=tissue)
    turned = build_regions(tissue.reoriented(axcodes), lesion_mask=mask, tissue=tissue.reoriented("LPS"))
    assert list(before.masks) == list(turned.masks)
    for key, volume in turned.masks.items():
        back = volume.resampled_to(tissue, "nearest").array
        np.testing.assert_array_equal(back, before.masks[key].array, err_msg=key)


def test_masks_on_other_grids_are_resampled_with_a_note() -> None:
    tissue, mask = brain()
    finer = mask.resampled_to(mask.grid.isotropic(1.0), "nearest")
    regions = build_regions(tissue, lesion_mask=finer, tissue=tissue)
    assert any("lesion mask was resampled" in note for note in regions.notes)
    overlap = (regions.masks["lesion"].array & mask.array).sum()
    assert 2 * overlap / (regions.masks["lesion"].array.sum() + mask.array.sum()) > 0.85


def test_a_brain_without_lesions() -> None:
    tissue, mask = brain()
    for given_mask in (None, mask.with_array(mask.array * 0)):
        regions = build_regions(tissue, lesion_mask=given_mask, tissue=tissue)
        assert regions.distance is None
        assert not {"lesion", "nawm_proximal", "nawm_distal"} & set(regions.masks)
        white = tissue.array == 3
        deep = cdist(np.argwhere(white) * tissue.spacing, np.argwhere(~white) * tissue.spacing).min(1) > 2.0
        np.testing.assert_array_equal(regions.masks["nawm"].array[white] > 0, deep)
        assert any("all white matter counts as NAWM" in note for note in regions.notes)
        assert (regions.lesions is None) == (given_mask is None)


def test_lesions_alone() -> None:
    tissue, mask = brain()
    regions = build_regions(tissue, lesion_mask=mask)
    assert list(regions.masks) == ["lesion"]
    assert any("no T1w and no tissue map" in note for note in regions.notes)


def test_a_lesion_of_one_voxel_and_lesions_too_small() -> None:
    tissue, mask = brain()
    one = mask.with_array(np.where(np.arange(mask.array.size).reshape(mask.shape) == mask.array.argmax(), 1, 0))
    assert build_regions(tissue, lesion_mask=one, tissue=tissue).lesions.count == 1
    regions = build_regions(tissue, lesion_mask=mask, tissue=tissue, settings=RegionSettings(min_lesion_ml=0.05))
    assert regions.lesions.count == 1
    assert any("1 lesions below 0.05 mL" in note for note in regions.notes)
    # What is too small to be measured is no NAWM either.
    assert not regions.masks["nawm"].array[21, 17, 13]
    assert not regions.masks["nawm"].array[20, 17, 13]


def test_lesions_outside_the_brain() -> None:
    tissue, mask = brain()
    outline = tissue.with_array((tissue.array > 0).astype(np.uint8))
    outside = mask.array.copy()
    outside[0, 0, :5] = 1
    regions = build_regions(tissue, lesion_mask=mask.with_array(outside), tissue=tissue, brain=outline)
    assert any("5 of 33 voxels lie outside the brain" in note for note in regions.notes)
    np.testing.assert_array_equal(regions.masks["lesion"].array, mask.array)
    outside[:] = 0
    outside[0, 0, :5] = 1
    with pytest.raises(InputError, match="no lesion inside the brain"):
        build_regions(tissue, lesion_mask=mask.with_array(outside), tissue=tissue, brain=outline)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t, m: {"tissue": t.with_array(t.array * 3)}, "holds the value"),
        (lambda t, m: {"tissue": t.with_array(t.array * 0)}, "empty"),
        (lambda t, m: {"tissue": t.with_array(np.where(t.array == 3, 2, t.array))}, "no white matter"),
        (lambda t, m: {"brain": t.with_array(t.array * 0)}, "empty"),
        (lambda t, m: {"lesion_mask": m.with_array(m.array * -1.0)}, "negative"),
        (lambda t, m: {"lesion_mask": Volume(m.array, m.affine + shift(500))}, "does not overlap"),
        (lambda t, m: {"suggest": True}, "not both"),
        (lambda t, m: {"suggest": True, "lesion_mask": None}, "takes a T1w and a FLAIR"),
    ],
)
def test_bad_input(change, named: str) -> None:
    tissue, mask = brain()
    with pytest.raises(InputError, match=named) as error:
        build_regions(tissue, **{"lesion_mask": mask, "tissue": tissue, **change(tissue, mask)})
    assert str(error.value).endswith(".")
    assert str(error.value).count("\n") == 0


def shift(mm: float) -> np.ndarray:
    affine = np.zeros((4, 4))
    affine[0, 3] = mm
    return affine


def test_holes_are_filled_and_large_grey_matter_is_not() -> None:
    tissue = np.full((20, 20, 20), 3, np.uint8)
    tissue[0] = 0
    tissue[4:6, 4:6, 4:6] = 2  # 8 mm^3: a hole
    tissue[10:16, 10:16, 10:16] = 2  # 216 mm^3: a nucleus
    lesions = np.zeros(tissue.shape, bool)
    lesions[8:11, 10:13, 10:13] = True
    lesions[0, 0, 0] = True
    filled = fill_white(Volume(tissue, np.eye(4)), lesions).array
    assert (filled[4:6, 4:6, 4:6] == 3).all()
    assert (filled[12:16, 13:16, 13:16] == 2).all()
    assert (filled[lesions & (tissue > 0)] == 3).all()
    assert filled[0, 0, 0] == 0


def test_small_detached_pieces_of_white_matter_are_none() -> None:
    tissue = np.zeros((40, 40, 40), np.uint8)
    tissue[2:38, 2:38, 2:38] = 1
    tissue[4:30, 4:30, 4:30] = 2
    tissue[6:26, 6:26, 6:26] = 3  # 8000 voxels
    tissue[34:37, 4:30, 4:6] = 3  # 156, beyond fluid
    tissue[27, 27, 27] = 3  # one, in grey matter, a corner away
    tissue[32:36, 10:20, 10:20] = 3  # 400, 5 %: cerebellum that a thin brainstem does not connect
    before = tissue.copy()
    left = drop_islands(tissue)
    assert np.array_equal(tissue, before)
    assert set(np.unique(left[34:37, 4:30, 4:6])) == {1}
    assert left[27, 27, 27] == 1
    assert (left[32:36, 10:20, 10:20] == 3).all()
    assert np.array_equal(left[6:26, 6:26, 6:26], tissue[6:26, 6:26, 6:26])
    assert np.array_equal(left == 2, tissue == 2)
    assert left.dtype == np.uint8
    for same in (np.zeros_like(tissue), np.where(tissue == 3, 2, tissue).astype(np.uint8)):
        assert np.array_equal(drop_islands(same), same)


# --- segmentation and suggestion on a made-up brain --------------------------------------------------------------


@cache
def made_up(noise: float = 0.02) -> dict[str, Volume]:
    """T1w, FLAIR, labels, lesions of nested ellipsoids with ventricles, nuclei, lesions, caps and a septum; 1.2 mm."""
    shape, spacing = (62, 72, 58), 1.2
    rng = np.random.default_rng(4)
    p = (np.moveaxis(np.indices(shape), 0, -1) - (np.array(shape) - 1) / 2) * spacing

    def inside(axes, centre=(0, 0, 0)):
        return np.linalg.norm((p - centre) / np.array(axes, float), axis=-1) < 1

    folds = 1.0 * np.sin(p[..., 0] / 4) * np.sin(p[..., 1] / 4) * np.sin(p[..., 2] / 4)
    radius = np.linalg.norm(p / np.array([35.0, 41.0, 33.0]), axis=-1)
    tissue = np.select([radius + folds / 50 < 0.82, radius < 0.95, radius < 1], [3, 2, 1], 0)
    for side in (-1, 1):
        tissue[inside((6, 8, 6), (side * 17, 4, -6))] = 2
        tissue[inside((4.5, 13, 8), (side * 5.5, 0, 5))] = 1
    septum = inside((1.3, 12, 6), (0, 0, 5))
    tissue[septum] = 2
    caps = inside((5.7, 14.4, 9.2), (5.5, 0, 5)) & (tissue == 3) & (p[..., 1] > 7)
    lesions = np.zeros(shape, np.uint8)
    black = inside((5, 4, 4), (-14, -17, 12))
    for lesion in (inside((4, 4, 4), (18, -17, 8)), inside((3, 5, 3), (-17, 18, 8)), black):
        lesions[lesion] = 1
    t1w = np.select([black, lesions > 0, tissue == 3, tissue == 2, tissue == 1], [0.3, 0.62, 0.75, 0.55, 0.12], 0.0)
    flair = np.select(
        [lesions > 0, caps | septum, tissue == 3, tissue == 2, tissue == 1], [0.95, 0.55, 0.45, 0.54, 0.05], 0.0
    )
    affine = np.diag([spacing] * 3 + [1.0])
    head = tissue > 0
    images = {"t1w": t1w, "flair": flair}
    made = {
        k: Volume(((v + rng.normal(0, noise, shape)) * head * 1000).astype(np.float32), affine)
        for k, v in images.items()
    }
    true = np.where(lesions > 0, 3, tissue).astype(np.uint8)
    made |= {"tissue": Volume(true, affine), "lesions": Volume(lesions, affine), "caps": Volume(caps, affine)}
    return made | {"brain": Volume(head.astype(np.uint8), affine), "septum": Volume(septum, affine)}


def at_the_dark_one(numbers: Volume) -> int:
    """The number of the lesion that is black on the T1w."""
    middle = numbers.grid.to_world((np.array(numbers.shape) - 1) / 2)
    return int(numbers.array[tuple(np.rint(numbers.grid.to_index(middle + np.array([-14, -17, 12]))).astype(int))])


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_tissue_of_a_made_up_brain() -> None:
    made = made_up()
    alone = segment_tissue(made["t1w"], made["brain"], lesions=made["lesions"])
    both = segment_tissue(made["t1w"], made["brain"], flair=made["flair"], lesions=made["lesions"])
    for found in (alone, both):
        assert found.array.dtype == np.uint8
        assert found.grid.same_as(made["t1w"].grid)
        for label, least in ((1, 0.9), (2, 0.95), (3, 0.97)):
            assert dice(found.array == label, made["tissue"].array == label) > least
        assert (found.array[made["brain"].array == 0] == 0).all()
        assert (found.array[made["lesions"].array > 0] == 3).all()
    # Another scale, another orientation: the same tissue.
    turned = made["t1w"].with_array(made["t1w"].array * 0.37 + 12).reoriented("PIL")
    again = segment_tissue(turned, made["brain"], lesions=made["lesions"])
    assert np.mean(again.reoriented("RAS").array == alone.array) > 0.9999


def test_thick_slices_are_worked_on_at_a_millimetre() -> None:
    made = made_up()
    grid = Grid((62, 72, 19), made["t1w"].affine @ np.diag([1, 1, 3, 1]))
    thick = made["t1w"].resampled_to(grid)
    found = segment_tissue(thick, made["brain"])
    assert found.grid.same_as(grid)
    true = labels_to_grid(made["tissue"], grid).array
    assert dice(found.array == 3, true == 3) > 0.9


def test_what_shows_no_tissue() -> None:
    made = made_up()
    flat = made["t1w"].with_array(np.where(made["brain"].array > 0, np.float32(5), np.float32(0)))
    with pytest.raises(InputError, match=r"no .*tissues"):
        segment_tissue(flat, made["brain"])
    with pytest.raises(InputError, match="empty"):
        segment_tissue(made["t1w"], made["brain"].with_array(made["brain"].array * 0))
    speck = np.zeros(made["brain"].shape, np.uint8)
    speck[30:34, 30:34, 30:34] = 1
    with pytest.raises(InputError, match="too small"):
        segment_tissue(made["t1w"], made["brain"].with_array(speck))


def test_suggested_lesions_of_a_made_up_brain() -> None:
    made = made_up()
    found = suggest_lesions(made["t1w"], made["flair"], made["tissue"])
    assert found.suggested
    assert found.note == SUGGESTION
    assert found.count == 3
    assert dice(found.mask.array > 0, made["lesions"].array > 0) > 0.7
    assert not (found.mask.array[made["caps"].array > 0]).any()
    assert not (found.mask.array[made["septum"].array > 0]).any()
    assert at_the_dark_one(found.numbers) in found.black_holes
    # On a grid of its own, and with a minimum that leaves the largest lesion.
    thick = made["flair"].resampled_to(Grid((62, 72, 29), made["flair"].affine @ np.diag([1, 1, 2, 1])))
    assert suggest_lesions(made["t1w"], thick, made["tissue"]).count >= 2
    sizes = np.bincount(found.numbers.array.ravel())[1:] * made["t1w"].grid.voxel_volume_ml
    largest = RegionSettings(min_suggested_ml=float(sizes[0]))
    assert suggest_lesions(made["t1w"], made["flair"], made["tissue"], settings=largest).count == 1


def test_nothing_to_suggest() -> None:
    made = made_up()
    healthy = np.where(made["lesions"].array > 0, np.float32(450), made["flair"].array)
    found = suggest_lesions(made["t1w"], made["flair"].with_array(healthy), made["tissue"])
    assert found.count == 0
    assert found.suggested
    nothing = made["tissue"].with_array(made["tissue"].array * 0)
    assert suggest_lesions(made["t1w"], made["flair"], nothing).count == 0


def test_everything_from_a_prepared_pair(tmp_path) -> None:
    made = made_up()
    psr_grid = made["t1w"].resampled_to(made["t1w"].grid.isotropic(2.0))
    pair = normalize([made["t1w"].array, made["flair"].array], made["brain"].array, 1.2)
    t1w, flair = (made["t1w"].with_array(image) for image in pair)
    prepared = Prepared(t1w, flair, made["brain"], made["t1w"].grid, made["brain"])
    regions = build_regions(psr_grid, prepared=prepared, brain=made["brain"], settings=UNTRAINED)
    assert regions.lesions.suggested
    assert SUGGESTION in regions.notes
    assert (regions.lesions.mask.array & labels_to_grid(made["lesions"], psr_grid.grid).array).any()
    true = labels_to_grid(made["tissue"], psr_grid.grid).array
    assert dice(regions.masks["white_matter"].array > 0, true == 3) > 0.85
    masks = {k: m.array > 0 for k, m in regions.masks.items()}
    assert (masks["nawm"] == masks["nawm_proximal"] | masks["nawm_middle"] | masks["nawm_distal"]).all()
    assert not (masks["nawm"] & masks["lesion"]).any()
    assert not (masks["grey_matter"] & masks["white_matter"]).any()

    paths = write_regions(regions, tmp_path)
    assert [p.name for p in paths] == [
        "regions_dseg.nii.gz",
        "regions_dseg.tsv",
        "regions_dseg.json",
        "lesions_dseg.nii.gz",
    ]
    dseg = Volume.read(paths[0], dtype=None)
    np.testing.assert_array_equal(np.isin(dseg.array, (8, 9)), masks["lesion"])
    np.testing.assert_array_equal(dseg.array == 7, masks["nawm_proximal"])
    table = [line.split("\t") for line in paths[1].read_text().splitlines()]
    assert table[0] == ["index", "name", "key"]
    assert {int(row[0]) for row in table[1:]} >= set(np.unique(dseg.array)) - {0}
    assert "suggested" in paths[1].read_text()
    content = json.loads(paths[2].read_text())
    assert content["lesions"]["suggested"] is True
    assert content["settings"]["proximal_mm"] == [2.0, 6.0]
    np.testing.assert_array_equal(Volume.read(paths[3], dtype=None).array, regions.lesions.numbers.array)
    assert write_regions(build_regions(psr_grid, lesion_mask=regions.lesions.mask.with_array(true * 0)), tmp_path) == []


def test_a_t1w_of_thick_slices_is_told() -> None:
    made = made_up()
    pair = normalize([made["t1w"].array, made["flair"].array], made["brain"].array, 1.2)
    t1w, flair = (made["t1w"].with_array(image) for image in pair)
    told = []
    for edge in (2.0, 3.5):
        native = Grid((62, 72, 20), made["t1w"].affine @ np.diag([1, 1, edge / 1.2, 1]))
        prepared = Prepared(t1w, flair, made["brain"], native, made["brain"])
        notes = build_regions(made["t1w"], prepared=prepared, suggest=False, settings=UNTRAINED).notes
        told.append([note for note in notes if "3.5 mm long" in note])
        assert not any("2.0 mm long" in note for note in notes)
        # A tissue map says for itself where borders are.
        mapped = build_regions(made["t1w"], prepared=prepared, tissue=made["tissue"], suggest=False, settings=UNTRAINED)
        assert not any("mm long" in note for note in mapped.notes)
    assert [len(notes) for notes in told] == [0, 1]


def test_black_holes_of_a_drawn_mask_and_a_t1w_alone() -> None:
    made = made_up()
    regions = build_regions(
        made["t1w"], lesion_mask=made["lesions"], t1w=made["t1w"], brain=made["brain"], settings=UNTRAINED
    )
    assert not any("mm long" in note for note in regions.notes)
    dark = at_the_dark_one(regions.lesions.numbers)
    assert dark > 0
    assert dark in regions.lesions.black_holes
    assert regions.masks["black_hole"].array.any()


def test_a_t1w_somewhere_else() -> None:
    made = made_up()
    away = Volume(made["t1w"].array, made["t1w"].affine + shift(900.0))
    brain_away = Volume(made["brain"].array, away.affine)
    with pytest.raises(InputError, match="overlap"):
        build_regions(made["t1w"], t1w=away, brain=brain_away)


def test_importing_is_instant() -> None:
    heavy = "('torch', 'scipy', 'sklearn', 'SimpleITK', 'nibabel')"
    code = f"import sys, DEMISTCore.regions; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
