"""What people's files hold: masks through float slopes, notes of the Finder, holes, lost headers, wrong contrasts.

Each case was a silent error or a wrong refusal once. Expected values come from how the case was made.
"""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from DEMISTCore.errors import InputError
from DEMISTCore.preprocess import Prepared, brainmask, normalize, prepare
from DEMISTCore.preprocess.contrast import name_warnings
from DEMISTCore.preprocess.zero import bring_to_zero
from DEMISTCore.regions import build_regions, read_mask
from DEMISTCore.regions.masks import tissue_labels
from DEMISTCore.statistics import analyse
from DEMISTCore.statistics.checks import flair_place
from DEMISTCore.synthesis import provenance
from DEMISTCore.volume import Volume

# --- masks through a float slope, fault 14 -----------------------------------------------------------------------


def scaled_nifti(path: Path, stored: np.ndarray, slope: float, inter: float = 0.0) -> Path:
    """Integers on disk, and the header's float32 slope and intercept that make values of them."""
    image = nib.Nifti1Image(stored, np.diag([2.0, 2.0, 2.0, 1.0]))
    image.header.set_slope_inter(slope, inter)
    nib.save(image, path)
    return path


@pytest.mark.parametrize(
    ("stored", "slope", "inter"),
    [
        (1, 1.0000000591, 0.0),
        (255, 1 / 255, 0.0),
        (32767, 1 / 32767, 0.0),
        (3, 1.0000000591, 0.0),  # labels
        (20000, 1.0000001, 0.0),  # float32's next number after 1
        (1, 1.0, -1e-7),  # a negative nothing
        (1, 1 / 255, 0.0),  # a 0/1 mask whose scale was kept from the 0-255 image it was made of
    ],
)
def test_masks_survive_the_float_slope_of_their_file(tmp_path: Path, stored: int, slope: float, inter: float) -> None:
    inside = np.zeros((6, 7, 8), bool)
    inside[2:4, 3:6, 1:5] = True
    path = scaled_nifti(tmp_path / "mask.nii.gz", (inside * stored).astype(np.int16), slope, inter)
    np.testing.assert_array_equal(read_mask(path, "lesion mask").array, inside)


def test_tissue_labels_survive_the_float_slope_of_their_file(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 4, (6, 7, 8)).astype(np.int16)
    path = scaled_nifti(tmp_path / "tissue.nii.gz", labels, 1.0000000591)
    np.testing.assert_array_equal(tissue_labels(Volume.read(path, dtype=None)).array, labels)


def test_fractions_that_splines_overshot_are_fractions_and_real_values_are_refused(tmp_path: Path) -> None:
    soft = np.linspace(-0.06, 1.05, 6 * 7 * 8).reshape(6, 7, 8).astype(np.float32)
    notes: list[str] = []
    found = read_mask(Volume(soft, np.eye(4)).write(tmp_path / "soft.nii.gz"), "lesion mask", notes)
    np.testing.assert_array_equal(found.array, soft >= 0.5)
    assert "fractions" in notes[0]
    grey = Volume(soft * 700, np.eye(4)).write(tmp_path / "grey.nii.gz")
    with pytest.raises(InputError, match=r"grey\.nii\.gz has negative values"):
        read_mask(grey, "lesion mask")


# --- names with a dot, fault 16 ----------------------------------------------------------------------------------


def test_notes_of_the_finder_are_no_scans(tmp_path: Path) -> None:
    from DEMISTCore.simulate.anatomy import list_anatomies
    from DEMISTCore.simulate.cohort import _masks
    from DEMISTCore.training import data

    names = ("sub-01_T1w", "sub-01_FLAIR", "sub-01_PSRmap")
    for name in names:
        folder = tmp_path / ("derivatives/truth/" if "PSR" in name else "") / "sub-01" / "anat"
        folder.mkdir(parents=True, exist_ok=True)
        scan = Volume(np.zeros((4, 4, 4), np.float32), np.eye(4)).write(folder / f"{name}.nii.gz")
        # As an interrupted write of ours leaves it, and as macOS does on foreign disks: both sort before the scan.
        for hidden in (f"._{name}.nii.gz", f".tmp-x-{name}.nii.gz"):
            scan.with_name(hidden).write_bytes(b"\0\5\26\7 Mac OS X")
    found = data.index(tmp_path)[0]
    assert [path.name for path in found.files] == [f"{name}.nii.gz" for name in names]
    anat = tmp_path / "sub-01" / "anat"
    assert [Path(p).name for p in list_anatomies(anat)] == ["sub-01_FLAIR.nii.gz", "sub-01_T1w.nii.gz"]
    assert [Path(p).name for p in _masks(anat, set())] == ["sub-01_FLAIR.nii.gz", "sub-01_T1w.nii.gz"]


# --- heads of a formula ------------------------------------------------------------------------------------------


def brain_pair(spacing: float = 3.0) -> tuple[Volume, Volume, Volume]:
    """T1w, FLAIR and mask of nested ellipsoids with ventricles, stripped: fluid, grey and white as on real images."""
    shape = tuple(round(e / spacing) for e in (150, 180, 140))
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    x, y, z = np.meshgrid(*(spacing * (np.arange(n) - (n - 1) / 2) for n in shape), indexing="ij")
    radius = np.sqrt((x / 66) ** 2 + (y / 80) ** 2 + (z / 60) ** 2)
    inner = np.sqrt((x / 20) ** 2 + (y / 30) ** 2 + (z / 14) ** 2)
    rng = np.random.default_rng(3)
    images = []
    for fluid, white, grey in ((150.0, 900.0, 600.0), (80.0, 540.0, 650.0)):
        image = np.select([inner < 1, radius < 0.88, radius < 0.97, radius < 1], [fluid, white, grey, fluid], 0.0)
        noise = rng.normal(0, 12, shape) * (radius < 1)
        images.append(Volume((image + noise).astype(np.float32), affine))
    return (*images, Volume((radius < 1).astype(np.uint8), affine))


def prepared(t1w: Volume, flair: Volume, mask: Volume | None = None, **options) -> Prepared:
    options = {"register": False, "spacing": 3.0, "bias_correct": False} | options
    return prepare(t1w, flair, brain_mask=mask, **options)


# --- masks with holes, fault 1 -----------------------------------------------------------------------------------


def test_holes_of_a_mask_are_filled_and_no_scale_hangs_on_them() -> None:
    t1w, flair, mask = brain_pair()
    whole = prepared(t1w, flair, mask)
    assert whole.warnings == []
    holed = mask.array.copy()
    rng = np.random.default_rng(0)
    deep = np.argwhere((t1w.array < 300) & (t1w.array > 0) & (np.abs(np.indices(mask.shape)[2] - 23) < 4))
    deep = deep[(np.abs(deep[:, 0] - 25) < 6) & (np.abs(deep[:, 1] - 30) < 9)]  # in the ventricles, not at the rim
    holes = tuple(deep[rng.permutation(len(deep))[:60]].T)
    holed[holes] = 0
    found = prepared(t1w, flair, mask.with_array(holed))
    assert np.array_equal(found.array, whole.array)
    assert np.array_equal(found.native_mask.array, whole.native_mask.array)
    (sentence,) = found.warnings
    assert f"(voxels: {np.count_nonzero(mask.array) - np.count_nonzero(holed)})" in sentence
    assert "filled" in sentence
    # A passage one voxel wide from the ventricles to the outside makes a hole no hole, and must change nothing either.
    holed[25, 30, 23:] = 0
    tunnel = prepared(t1w, flair, mask.with_array(holed))
    inside = whole.mask.array & tunnel.mask.array
    np.testing.assert_allclose(tunnel.array[:, inside > 0], whole.array[:, inside > 0], atol=0.01)
    # The scale itself, for masks that did not come through `prepare`.
    open_ = whole.mask.array.copy()
    middle = tuple(n // 2 for n in open_.shape)
    open_[middle] = 0
    images = (whole.t1w.array, whole.flair.array)
    for one, other in zip(normalize(images, open_, 3.0), normalize(images, whole.mask.array, 3.0)):
        assert np.abs(one - other)[open_ > 0].max() < 0.01


def test_specks_go_and_hemispheres_stay() -> None:
    mask = np.zeros((40, 40, 40), bool)
    mask[4:18, 4:36, 4:36] = mask[22:36, 4:36, 4:36] = True  # hemispheres, 4 voxels apart
    mask[1:3, 1, 1] = True
    found, filled, left_out = brainmask.cleaned(mask, (1.0, 1.0, 1.0))
    assert left_out == 2
    assert not found[1:3, 1, 1].any()
    assert found[4:18, 4:36, 4:36].all()
    assert found[22:36, 4:36, 4:36].all()
    assert filled == np.count_nonzero(found) - (np.count_nonzero(mask) - 2)


# --- labels and masks travel with their image, faults 2 and 13 ---------------------------------------------------


def moved(volume: Volume, shift: tuple[float, float, float]) -> Volume:
    """The same voxels elsewhere in the world."""
    affine = volume.affine.copy()
    affine[:3, 3] += shift
    return Volume(volume.array, affine, volume.path)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))


def test_labels_drawn_on_a_flair_follow_it() -> None:
    t1w, flair, mask = brain_pair()
    shift = (13.0, -11.0, 8.0)
    away = moved(flair, shift)
    found = prepared(t1w, away, moved(mask, shift), register=True)
    # The brain mask was on the FLAIR's grid, and came with it.
    assert dice(found.native_mask.array > 0, mask.array > 0) > 0.95
    assert any("brain mask lies on the FLAIR's grid and was moved" in sentence for sentence in found.warnings)
    lesions = np.zeros(mask.shape, np.uint8)
    lesions[33:38, 24:30, 20:25] = 1
    truth = mask.with_array(lesions)
    tissue = mask.with_array(np.where(mask.array > 0, 3, 0).astype(np.uint8))
    drawn = moved(truth, shift)
    regions = build_regions(
        t1w, lesion_mask=drawn, tissue=moved(tissue, shift), t1w=t1w, flair=away, prepared=found, suggest=False
    )
    assert dice(regions.masks["lesion"].array > 0, lesions > 0) > 0.9
    assert dice(regions.masks["white_matter"].array > 0, mask.array > 0) > 0.95
    assert any("lesion mask lies on the FLAIR's grid and was moved with the FLAIR" in note for note in regions.notes)
    # The map's sidecar knows the motion, also where the images are not at hand.
    place = flair_place({"flair": provenance._flair_place(found)})
    alone = build_regions(t1w, lesion_mask=drawn, tissue=tissue, flair_place=place)
    assert dice(alone.masks["lesion"].array > 0, lesions > 0) > 0.9
    # On the T1w's grid nothing moves, on a grid of its own the header counts, and that is said.
    stays = build_regions(t1w, lesion_mask=truth, tissue=tissue, t1w=t1w, flair=away, prepared=found, suggest=False)
    np.testing.assert_array_equal(stays.masks["lesion"].array, lesions)
    own = truth.resampled_to(truth.grid.isotropic(2.5), "nearest")
    assert own.array.any()
    third = build_regions(t1w, lesion_mask=own, tissue=tissue, t1w=t1w, flair=away, prepared=found, suggest=False)
    assert any("placed by its header (world coordinates)" in note for note in third.notes)


def test_a_lesion_mask_that_fits_both_images_is_told_and_a_brain_mask_is_the_t1ws() -> None:
    from DEMISTCore.preprocess.placing import Places, place

    _t1w, _flair, mask = brain_pair()
    away = np.eye(4)
    away[0, 3] = 8.5
    places = Places({"T1w": mask.grid}, mask.grid, away)
    notes: list[str] = []
    assert place(mask, "brain mask", places, notes, drawn=False) is mask
    assert notes == []
    assert place(mask, "lesion mask", places, notes) is mask
    assert "if it was drawn on the FLAIR" in notes[0]


def test_a_mask_of_the_image_s_shape_elsewhere_is_told_and_one_with_a_lost_header_refused() -> None:
    t1w, flair, mask = brain_pair()
    found = prepared(t1w, flair, moved(mask, (6.0, 0.0, 0.0)))
    assert any("has the T1w's shape, but its header places it up to 6.0 mm away" in s for s in found.warnings)
    lost = Volume(mask.array, np.eye(4), Path("mask.nii.gz"))
    with pytest.raises(InputError, match=r"mask\.nii\.gz has the T1w's shape, .* save it with that\."):
        prepared(t1w, flair, lost)
    with pytest.raises(InputError, match=r"mask\.nii\.gz has the PSR map's shape, .* save it with that\."):
        build_regions(t1w, lesion_mask=lost, tissue=mask)


@pytest.mark.parametrize("register", [True, False])
def test_a_mask_that_covers_no_brain_is_refused_before_anything_uses_it(register: bool) -> None:
    t1w, flair, mask = brain_pair()
    t1w, flair = (moved(Volume(np.pad(v.array, 30), v.affine), (-90.0,) * 3) for v in (t1w, flair))
    air = moved(mask, (0.0, 115.0, 0.0))
    with pytest.raises(InputError, match=r"is not where the brain is: .* outside the head"):
        prepared(t1w, flair, air, register=register)


@pytest.mark.parametrize("shape", [(-1, 64, 64), (0, 0, 0), (64, 64, 10**6)])
def test_impossible_grids_are_refused_in_a_sentence(shape: tuple[int, int, int]) -> None:
    t1w, flair, mask = brain_pair()
    with pytest.raises(InputError, match="three whole numbers from 8 to 1024"):
        prepared(t1w, flair, mask, shape=shape)
    with pytest.raises(InputError, match="multiples of 1 or more"):
        prepared(t1w, flair, mask, multiple=0)


# --- which images they are, fault 3 ------------------------------------------------------------------------------


def test_other_contrasts_draw_a_warning_and_true_pairs_none() -> None:
    t1w, flair, mask = brain_pair()
    assert prepared(t1w, flair, mask).warnings == []
    inside = mask.array > 0
    fluid = inside & (t1w.array < 350)
    t2w = flair.with_array(np.where(fluid, 1500, flair.array).astype(np.float32))
    density = flair.with_array(np.where(fluid, 545, flair.array).astype(np.float32))
    inverted = t1w.with_array(np.where(inside, 1000 - t1w.array, 0).astype(np.float32))
    cases = (
        (t1w, t2w, "The FLAIR does not look like one: fluid is bright"),
        (t1w, density, "do not agree on where fluid is"),
        (inverted, flair, "The T1w does not look like one: fluid is bright"),
        (t2w, flair, "The T1w does not look like one: fluid is bright"),
        (flair, t1w, "look swapped"),
    )
    for one, other, words in cases:
        found = prepared(one, other, mask).warnings
        assert sum("look" in sentence or "agree" in sentence for sentence in found) == 1
        assert any(words in sentence for sentence in found)
    # Contrast agent: a twentieth of the rim, vessels and dura, brighter than white matter.
    depth = ndimage.distance_transform_edt(inside, sampling=3.0)
    vessels = inside & (depth < 9) & (np.random.default_rng(0).random(inside.shape) < 0.05)
    enhanced = t1w.with_array(np.where(vessels, 1500, t1w.array).astype(np.float32))
    (sentence,) = prepared(enhanced, flair, mask, bias_correct=True).warnings
    assert "after contrast agent" in sentence


@pytest.mark.parametrize(("repetition", "bright"), [(1.5, 0.65), (2.0, 0.75)])
def test_proton_density_with_dark_fluid_is_no_flair(repetition: float, bright: float) -> None:
    """A spin echo of short TR: fluid is the darkest there is, as on a FLAIR, but not black."""
    t1w, flair, mask = brain_pair()

    def echo(density: float, t1: float, t2: float) -> float:
        return 1000 * density * (1 - np.exp(-repetition / t1)) * np.exp(-0.015 / t2)

    fluid, white, grey = echo(1.0, 4.2, 1.5), echo(0.70, 0.85, 0.07), echo(0.82, 1.35, 0.09)
    assert fluid / white == pytest.approx(bright, abs=0.03)
    levels = np.select([t1w.array < 350, t1w.array > 750], [fluid, white], grey)
    noise = np.random.default_rng(1).normal(0, 8, mask.shape)
    density = flair.with_array(np.where(mask.array > 0, levels + noise, 0).astype(np.float32))
    for factor in (1.0, 0.01):
        (sentence,) = prepared(t1w, density.with_array(density.array * np.float32(factor)), mask).warnings
        assert "as on a proton-density image" in sentence
    # Offset, it has its zero in its background; standardised in the brain, it has none, and nothing is said of it.
    offset = density.with_array(density.array + np.float32(1000))
    assert any("as on a proton-density image" in sentence for sentence in prepared(t1w, offset, mask).warnings)
    inside = mask.array > 0
    scored = (density.array - density.array[inside].mean()) / density.array[inside].std()
    lost = density.with_array(np.where(inside, scored, 0).astype(np.float32))
    assert not any("proton" in sentence for sentence in prepared(t1w, lost, mask).warnings)


@pytest.mark.parametrize(
    ("t1w", "flair", "words"),
    [
        ("sub-1_T1w.nii.gz", "sub-1_FLAIR.nii.gz", []),
        ("t1.nii", "T2_FLAIR.nii", []),
        ("mprage.nii", "dark-fluid.nii", []),
        ("a.nii", "b.nii", []),
        ("sub-1_T1w.nii.gz", "sub-1_T2w.nii.gz", ["T2w.nii.gz was given as FLAIR, and its name says T2w"]),
        ("sub-1_PD.nii.gz", "sub-1_FLAIR.nii.gz", ["PD.nii.gz was given as T1w, and its name says PD"]),
        ("FLAIR.nii", "T1w.nii", ["name says FLAIR", "name says T1w"]),
        ("sub-1_ce-gd_T1w.nii.gz", "sub-1_FLAIR.nii.gz", ["after contrast agent, by its name"]),
        ("T1_post_contrast.nii", "FLAIR.nii", ["after contrast agent, by its name"]),
    ],
)
def test_names_that_speak_of_other_contrasts(t1w: str, flair: str, words: list[str]) -> None:
    volumes = [Volume(np.zeros((2, 2, 2)), np.eye(4), Path("/x") / name) for name in (t1w, flair)]
    found = name_warnings(*volumes)
    assert len(found) == len(words)
    assert all(said in sentence for said, sentence in zip(words, found))


def test_sidecars_that_tell_of_contrast_agent(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"ContrastBolusAgent": "Gadovist"}')
    image, other = (Volume(np.zeros((2, 2, 2)), np.eye(4), tmp_path / name) for name in ("a.nii.gz", "b.nii.gz"))
    assert "says its sidecar" in name_warnings(image, other)[0]
    (tmp_path / "a.json").write_text("[1, 2")
    assert name_warnings(image, other) == []


# --- images without a true zero, fault 4 -------------------------------------------------------------------------


def test_the_zero_of_an_image_is_found_where_there_is_one() -> None:
    plain, _, mask = brain_pair()
    brain, rng = mask.array > 0, np.random.default_rng(1)
    plain = plain.with_array(np.where(brain, np.abs(plain.array), 0))
    noise = plain.with_array(np.where(brain, plain.array, np.abs(rng.normal(0, 15, brain.shape))).astype(np.float32))
    for image in (plain, noise):
        assert bring_to_zero(image, "T1w").volume is image
        for offset in (1000.0, -1000.0, 32768.0):
            found = bring_to_zero(image.with_array(image.array + np.float32(offset)), "T1w")
            assert found.true
            assert np.abs(found.volume.array - image.array).max() < 5
            assert "was taken as 0" in found.warning
        scores = (image.array - image.array.mean()) / image.array.std()  # of the whole image: an offset and a factor
        found = bring_to_zero(image.with_array(scores.astype(np.float32)), "T1w")
        assert found.true
        assert np.abs(found.volume.array * image.array.std() - image.array).max() < 5
    # -1 as a mark of the background, in an image from 0 to 1 and in one from 0 to 900.
    for scale in (900.0, 1.0):
        marked = np.where(brain, plain.array / scale, -1).astype(np.float32)
        found = bring_to_zero(plain.with_array(marked), "T1w")
        assert found.true
        assert np.abs(found.volume.array - plain.array / scale).max() < 1.5 * scale / 900
    # Standardised inside the brain: the zero is gone.
    scores = np.where(brain, (plain.array - plain.array[brain].mean()) / plain.array[brain].std(), 0)
    found = bring_to_zero(plain.with_array(scores.astype(np.float32)), "T1w")
    assert not found.true
    assert "no true zero" in found.warning
    assert np.percentile(found.volume.array[brain], 2) > -0.01
    assert not found.volume.array[~brain].any()


def test_offset_images_are_prepared_as_those_without() -> None:
    t1w, flair, mask = brain_pair()
    field = np.exp(np.linspace(-0.2, 0.2, t1w.shape[1]))[None, :, None]
    t1w, flair = (v.with_array((np.abs(v.array) * field).astype(np.float32)) for v in (t1w, flair))
    plain = prepared(t1w, flair, mask, bias_correct=True)
    offset = prepared(*(v.with_array(v.array - np.float32(1000)) for v in (t1w, flair)), mask, bias_correct=True)
    assert np.abs(offset.array - plain.array).max() < 0.02
    assert len(offset.warnings) == 2
    scores = [
        v.with_array(np.where(mask.array > 0, (v.array - v.array[mask.array > 0].mean()) / 200, 0).astype(np.float32))
        for v in (t1w, flair)
    ]
    left = prepared(*scores, mask, bias_correct=True)
    assert sum("bias field and slices were left as they are" in sentence for sentence in left.warnings) == 2
    untouched = prepared(t1w, flair, mask, bias_correct=False)
    inside = left.mask.array > 0
    assert np.abs(left.array - untouched.array)[:, inside].max() < 0.02


# --- how much of the brain, faults 5 and 6 -----------------------------------------------------------------------


def test_a_slab_is_told_and_a_whole_brain_is_not() -> None:
    t1w, flair, mask = brain_pair()
    low, high = 17, 29  # 36 mm
    slab = [moved(Volume(v.array[:, :, low:high], v.affine), (0, 0, 3.0 * low)) for v in (t1w, flair, mask)]
    (sentence,) = prepared(*slab).warnings
    assert "Only 36 mm of the brain" in sentence
    assert prepared(t1w, flair, mask).warnings == []


def test_a_brain_of_impossible_volume_needs_a_person_s_word() -> None:
    t1w, flair, mask = brain_pair()
    tiny = np.zeros_like(mask.array)
    tiny[30:36, 26:34, 20:26] = 1
    with pytest.raises(InputError, match=r"The brain mask holds 8 ml, .*--any-brain-volume"):
        prepared(t1w, flair, mask.with_array(tiny))
    found = prepared(t1w, flair, mask.with_array(tiny), any_brain_volume=True)
    assert any("8 ml, which is unusual" in sentence for sentence in found.warnings)


def test_empty_margins_are_cropped_before_brain_extraction() -> None:
    t1w = brain_pair()[0]
    padded = moved(Volume(np.pad(t1w.array, 30), t1w.affine), (-90.0,) * 3)
    cropped = brainmask.cropped_to_head(padded)
    brain = np.argwhere(padded.array != 0)
    inner = cropped.grid.to_index(padded.grid.to_world(brain))
    assert inner.min() >= 0
    assert (inner <= np.array(cropped.shape) - 1).all()
    margins = np.array(cropped.grid.extent) - 3.0 * (np.ptp(brain, axis=0) + 1)
    assert (margins <= 2 * (20 + 8)).all()
    np.testing.assert_array_equal(cropped.resampled_to(t1w, "nearest").array, t1w.array)


# --- real scans --------------------------------------------------------------------------------------------------

RAW = Path(__file__).parents[2] / "shared" / "data" / "open_ms_raw" / "patient01"


@pytest.mark.skipif(not RAW.is_dir(), reason="needs the real scans of shared/data")
def test_a_real_t2w_in_place_of_the_flair_and_real_padding() -> None:
    t1w = Volume.read(RAW / "T1w.nii.gz")
    quick = {"register": False, "bias_correct": False, "spacing": 3.0}
    brain = brainmask.extract_brain(Volume(t1w.array, t1w.affine))
    assert prepare(t1w, RAW / "FLAIR.nii.gz", brain_mask=brain, **quick).warnings == [
        "The brain mask lies on the grid of neither T1w nor FLAIR; it was placed by its header (world coordinates)."
    ]
    wrong = prepare(t1w, RAW / "T2w.nii.gz", brain_mask=brain, **quick).warnings
    assert any("The FLAIR does not look like one" in sentence for sentence in wrong)
    assert any("T2w.nii.gz was given as FLAIR, and its name says T2w" in sentence for sentence in wrong)
    wide = [round(90 / s) for s in t1w.spacing]
    affine = t1w.affine.copy()
    affine[:3, 3] = t1w.grid.to_world(-np.array(wide))
    padded = brainmask.extract_brain(Volume(np.pad(t1w.array, [(w, w) for w in wide]), affine))
    same = padded.resampled_to(brain, "nearest").array > 0
    assert dice(same, brain.array > 0) > 0.98


# --- one channel for warnings, fault 12 --------------------------------------------------------------------------


def without_codes(source: Path, target: Path) -> Path:
    """The same file with neither form set: nobody can say what is left and right."""
    image = nib.load(source)
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    nib.save(image, target)
    return target


def test_a_warning_reaches_screen_sidecar_and_the_statistics_of_the_map(head, tiny_bundle, tmp_path, capsys) -> None:
    from DEMISTCore.cli import run
    from DEMISTCore.statistics import checks
    from DEMISTCore.synthesize import main

    files = [without_codes(path, tmp_path / path.name) for path in (head.t1w, head.flair, head.mask)]
    out = tmp_path / "psr.nii.gz"
    arguments = ["--t1w", files[0], "--flair", files[1], "--brain-mask", files[2], "--out", out]
    arguments += ["--bundle", tiny_bundle]
    quick = ["--seeds", "1", "--steps", "1", "--device", "cpu", "--no-register", "--no-bias-correct"]
    assert run(main, [str(word) for word in arguments] + quick) == 0
    printed = capsys.readouterr().out
    told = json.loads((tmp_path / "psr.json").read_text())["warnings"]
    for path in files:
        sentences = [sentence for sentence in told if str(path) in sentence and "orientation" in sentence]
        assert sentences, path
        assert f"warning: {sentences[0]}" in printed
    assert checks.origin(Volume.read(out))["warnings"] == told
    analysis = analyse(out, brain=files[2])
    assert set(told) <= set(analysis.notes)
    assert set(told) <= set(analysis.summary()["notes"])
