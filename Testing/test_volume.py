"""Volumes: files of every sort in, world positions kept, resampling against scipy and closed forms."""

from __future__ import annotations

import itertools
import types
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from DEMISTCore.errors import InputError
from DEMISTCore.volume import Grid, Volume, as_volume, check_writable, from_sitk, resampling, to_sitk, writing

OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", (10, -20, 35), degrees=True).as_matrix() @ np.diag([1.2, -0.9, 2.5])
OBLIQUE[:3, 3] = (11.0, -7.0, 30.0)
ORIENTATIONS = ["".join(axes) for pick in itertools.product("RL", "AP", "SI") for axes in itertools.permutations(pick)]
quick = settings(max_examples=15, deadline=None, derandomize=True)


def noise(shape=(12, 10, 9), seed=0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def index_of(grid: Grid, other: Grid) -> np.ndarray:
    """Indices (3, X, Y, Z) in ``other`` of the voxels of ``grid``."""
    return np.moveaxis(other.to_index(grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))), -1, 0)


def interior(index: np.ndarray, shape: tuple[int, ...], margin: float = 0.0) -> np.ndarray:
    upper = np.reshape(shape, (3, 1, 1, 1)) - 1 - margin
    return np.all((index >= margin) & (index <= upper), axis=0)


# --- places ----------------------------------------------------------------------------------------------------


def test_grid_says_where_its_voxels_are():
    grid = Grid((12, 10, 9), OBLIQUE)
    assert np.allclose(grid.spacing, (1.2, 0.9, 2.5))
    assert grid.voxel_volume_ml == pytest.approx(1.2 * 0.9 * 2.5 / 1000)
    points = np.random.default_rng(1).uniform(-50, 50, (20, 3))
    assert np.allclose(grid.to_world(grid.to_index(points)), points)
    assert np.allclose(grid.to_world([1, 2, 3]), nib.affines.apply_affine(OBLIQUE, [1, 2, 3]))
    assert grid.axcodes == "".join(nib.aff2axcodes(OBLIQUE))
    assert grid.same_as(Grid((12, 10, 9), OBLIQUE + 1e-6))
    assert not grid.same_as(Grid((12, 10, 8), OBLIQUE))


def test_a_grid_cannot_be_moved_by_accident():
    grid = Grid((2, 2, 2), np.eye(4))
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 2


@pytest.mark.parametrize("shear", [0.0, 0.2])
def test_isotropic_grid_covers_the_box_without_shear(shear):
    affine = OBLIQUE.copy()
    affine[:3, 1] += shear * affine[:3, 0]
    grid = Grid((12, 10, 9), affine)
    cubic = grid.isotropic(1.5)
    assert cubic.axcodes == "RAS"
    assert np.allclose(cubic.affine[:3, :3].T @ cubic.affine[:3, :3], 1.5**2 * np.eye(3))
    index = cubic.to_index(grid.corners())
    assert index.min() >= -0.51
    assert np.all(index <= np.array(cubic.shape) - 0.49)


@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_all_48_orientations_hold_the_same_image(axcodes):
    volume = Volume(noise(), OBLIQUE)
    turned = volume.reoriented(axcodes)
    assert turned.axcodes == axcodes
    # Same values at the same places ...
    assert np.array_equal(turned.resampled_to(volume, "bspline").array, volume.array)
    # ... by nibabel's account, too.
    change = nib.orientations.ornt_transform(nib.io_orientation(OBLIQUE), nib.orientations.axcodes2ornt(axcodes))
    reference = nib.Nifti1Image(volume.array, OBLIQUE).as_reoriented(change)
    assert np.array_equal(reference.get_fdata(dtype=np.float32), turned.array)
    assert np.allclose(reference.affine, turned.affine)


# --- resampling ------------------------------------------------------------------------------------------------


def test_crops_and_pads_copy_exactly():
    volume = Volume(noise(), OBLIQUE)
    shift = np.eye(4)
    shift[:3, 3] = (-2, 3, 5)
    out = volume.resampled_to(Grid((20, 4, 9), OBLIQUE @ shift), "bspline", fill=-1).array
    assert np.array_equal(out[2:14, :, :4], volume.array[:, 3:7, 5:])
    assert np.all(out[:2] == -1)
    assert np.all(out[14:] == -1)
    assert np.all(out[..., 4:] == -1)
    far = volume.resampled_to(Grid((3, 3, 3), OBLIQUE @ np.array([[1, 0, 0, 99], *np.eye(4)[1:]])), fill=7)
    assert np.all(far.array == 7)


@pytest.mark.parametrize(("order", "degree"), [("nearest", 0), ("linear", 1), ("bspline", 3)])
def test_interpolation_agrees_with_scipy(order, degree):
    source = Volume(noise((20, 24, 18)), np.diag([1.5, -1.5, 2.0, 1.0]))
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", (5, 8, -4), degrees=True).as_matrix()
    turn[:3, 3] = (8, -24, 10)
    grid = Grid((14, 13, 12), turn)  # finer: no smoothing
    index = index_of(grid, source.grid)
    expected = ndimage.map_coordinates(source.array, index, order=degree, mode="mirror")
    inside = interior(index, source.shape)
    assert inside.mean() > 0.5
    if order == "bspline":
        # The documented limit, from its definition: the range of the eight voxels around.
        floor, last = np.floor(index).astype(int), np.reshape(source.shape, (3, 1, 1, 1)) - 1
        around = [
            source.array[tuple(np.clip(floor + np.reshape(step, (3, 1, 1, 1)), 0, last))]
            for step in itertools.product((0, 1), repeat=3)
        ]
        expected = np.clip(expected, np.min(around, axis=0), np.max(around, axis=0))
    result = source.resampled_to(grid, order).array
    assert np.abs(result - expected)[inside].max() < 1e-5


def test_no_ringing_at_an_edge():
    array = np.zeros((24, 24, 24), np.float32)
    array[8:16, 8:16, 8:16] = 100
    grid = Grid((60, 60, 60), np.diag([0.37, 0.37, 0.37, 1.0]))
    out = Volume(array, np.eye(4)).resampled_to(grid, "bspline").array
    assert out.min() == 0
    assert out.max() == 100


def test_coarser_grids_are_smoothed_to_their_voxel_size():
    point = np.zeros((61, 61, 61), np.float32)
    point[30, 30, 30] = 1
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = 10
    stripes = Volume(np.tile(np.float32([0, 1]), (61, 61, 30)), np.eye(4))
    assert stripes.resampled_to(Grid((10, 10, 10), affine)).array == pytest.approx(0.5, abs=0.02)
    # sigma^2 = (4^2 - 1) / (8 ln 2) in source voxels.
    sigma2 = (16 - 1) / (8 * np.log(2))
    smooth = resampling._anti_alias(point, np.diag([4.0, 4.0, 4.0, 1.0]))
    axis = np.arange(61) - 30
    assert np.sum(smooth.sum((1, 2)) * axis**2) == pytest.approx(sigma2, rel=0.05)
    assert smooth.sum() == pytest.approx(1, abs=1e-3)
    # An axis that gets finer is left alone.
    assert np.array_equal(resampling._anti_alias(point, np.diag([0.5, 1.0, 1.0, 1.0])), point)


@quick
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing=st.tuples(*[st.floats(0.8, 3.5)] * 3),
    flips=st.tuples(*[st.sampled_from((-1, 1))] * 3),
    order=st.sampled_from(("linear", "bspline")),
)
def test_things_stay_where_they_are_in_the_world(angles, spacing, flips, order):
    """A blob's centre of mass and mass survive resampling to any grid."""
    centre, width = np.array([3.0, -5.0, 8.0]), 5.0
    source = Grid((50, 50, 50), np.array([[1, 0, 0, -22], [0, 1, 0, -30], [0, 0, 1, -17], [0, 0, 0, 1.0]]))
    points = source.to_world(np.moveaxis(np.indices(source.shape), 0, -1))
    blob = Volume(np.exp(-((points - centre) ** 2).sum(-1) / (2 * width**2)).astype(np.float32), source.affine)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * np.multiply(spacing, flips)
    shape = tuple(int(np.ceil(56 / s)) for s in spacing)
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    out = blob.resampled_to(Grid(shape, affine), order)
    where = out.grid.to_world(np.moveaxis(np.indices(shape), 0, -1))
    mass = out.array.sum(dtype=np.float64)
    assert np.allclose((where * out.array[..., None]).sum((0, 1, 2)) / mass, centre, atol=0.1)
    assert mass * out.grid.voxel_volume_ml * 1000 == pytest.approx((2 * np.pi) ** 1.5 * width**3, rel=0.03)


def test_labels_keep_their_type_and_values():
    labels = np.random.default_rng(0).choice([0, 3, 2**31 - 1], (10, 10, 10)).astype(np.int64)
    grid = Grid((14, 14, 14), np.diag([0.7, 0.7, 0.7, 1]))
    out = Volume(labels, np.eye(4)).resampled_to(grid, "nearest").array
    assert out.dtype == np.int64
    assert set(np.unique(out)) == {0, 3, 2**31 - 1}
    assert Volume(labels > 0, np.eye(4)).resampled_to(grid, "nearest").array.dtype == bool


def test_sheared_source_is_resampled_where_it_lies():
    affine = np.eye(4)
    affine[0, 1] = 0.4
    grid = Grid((30, 20, 10), affine)
    x = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))[..., 0]
    target = Grid((8, 8, 6), np.array([[1, 0, 0, 12.3], [0, 1, 0, 4.1], [0, 0, 1, 2.6], [0, 0, 0, 1.0]]))
    expected = target.to_world(np.moveaxis(np.indices(target.shape), 0, -1))[..., 0]
    assert np.allclose(Volume(x.astype(np.float32), affine).resampled_to(target).array, expected, atol=1e-3)


def test_resampling_does_not_depend_on_threads():
    source, grid = Volume(noise((30, 31, 32)), OBLIQUE), Grid((40, 40, 40), np.diag([1.1, 1.1, 1.1, 1]))
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    results = []
    try:
        for threads in (1, 3):
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
            results.append(source.resampled_to(grid, "bspline").array.tobytes())
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    assert results[0] == results[1]


# --- files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int16])
def test_files_return_what_was_written(tmp_path, suffix, dtype):
    volume = Volume((noise() * 100).astype(dtype), OBLIQUE)
    path = volume.write(tmp_path / "new" / f"image{suffix}", description="a test")
    back = Volume.read(path, dtype=None)
    assert back.array.dtype == dtype
    assert np.array_equal(back.array, volume.array)
    assert np.allclose(back.affine, OBLIQUE, atol=1e-5)
    assert back.path == path
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no temporary left


def test_same_data_same_bytes(tmp_path):
    first = Volume(noise(), OBLIQUE).write(tmp_path / "a.nii.gz").read_bytes()
    assert Volume(noise(), OBLIQUE).write(tmp_path / "b.nii.gz").read_bytes() == first


def test_other_programs_agree_on_place_and_values(tmp_path):
    """nibabel and ITK read the file alike, and to_sitk puts voxels where ITK does."""
    volume = Volume(noise(), OBLIQUE)
    path = volume.write(tmp_path / "a.nii.gz")
    image = sitk.ReadImage(str(path))
    mine = to_sitk(volume)
    for index in ((0, 0, 0), (11, 9, 8), (3, 7, 2)):
        world = volume.grid.to_world(index)
        assert np.allclose(image.TransformIndexToPhysicalPoint(index), world * (-1, -1, 1), atol=1e-4)
        assert np.allclose(mine.TransformIndexToPhysicalPoint(index), world * (-1, -1, 1), atol=1e-9)
        assert mine.GetPixel(index) == image.GetPixel(index) == volume.array[index]
    back = from_sitk(mine)
    assert np.array_equal(back.array, volume.array)
    assert np.allclose(back.affine, OBLIQUE)
    header = nib.load(path).header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)


def test_header_scaling_is_applied(tmp_path):
    image = nib.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.diag([9, 9, 9, 1]))
    image.header.set_slope_inter(0.5, 10)
    nib.save(image, tmp_path / "a.nii")
    loaded = Volume.read(tmp_path / "a.nii").array
    assert np.allclose(loaded, nib.load(tmp_path / "a.nii").get_fdata())
    assert loaded.dtype == np.float32


def test_a_fourth_dimension_of_one_is_dropped(tmp_path):
    nib.save(nib.Nifti1Image(noise()[..., None], OBLIQUE), tmp_path / "a.nii.gz")
    assert np.array_equal(Volume.read(tmp_path / "a.nii.gz").array, noise())


def test_qform_serves_alone_and_where_the_sform_is_broken(tmp_path, caplog):
    image = nib.Nifti1Image(noise(), OBLIQUE)
    image.set_qform(OBLIQUE, code=1)
    image.set_sform(None, code=0)
    nib.save(image, tmp_path / "q.nii")
    assert np.allclose(Volume.read(tmp_path / "q.nii").affine, OBLIQUE, atol=1e-5)
    image.set_sform(np.diag([1, 1, 0, 1]), code=1)
    nib.save(image, tmp_path / "broken.nii")
    assert np.allclose(Volume.read(tmp_path / "broken.nii").affine, OBLIQUE, atol=1e-5)
    assert "sform is singular" in caplog.text


def test_orientation_left_open_is_said(tmp_path, caplog):
    image = nib.Nifti1Image(noise(), None)
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    nib.save(image, tmp_path / "a.nii")
    Volume.read(tmp_path / "a.nii")
    assert "nothing about its orientation" in caplog.text


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Every sort of file that is no 3-D image, with what the sentence must say."""
    good = folder / "good.nii.gz"
    nib.save(nib.Nifti1Image(noise((30, 30, 30)), np.eye(4)), good)
    cases: dict[str, tuple[Path, str]] = {}

    def case(name: str, words: str, suffix: str = ".nii.gz") -> Path:
        cases[name] = (folder / f"{name}{suffix}", words)
        return cases[name][0]

    case("missing", "does not exist")
    case("folder", "is a folder", "").mkdir()
    case("nothing", "empty file").write_bytes(b"")
    case("truncated", "damaged").write_bytes(good.read_bytes()[:20000])
    nib.save(nib.load(good), folder / "whole.nii")
    case("cut", "damaged", ".nii").write_bytes((folder / "whole.nii").read_bytes()[:5000])
    case("text", "cannot be read", ".nii").write_text("not an image at all")
    case("text_nrrd", "cannot be read", ".nrrd").write_text("NRRD0004\nrubbish")
    case("unknown", "cannot be read", ".xyz").write_bytes(b"\x00\x01" * 500)
    nib.save(
        nib.Nifti1Image(noise((5, 5, 5, 3)[:3])[..., None] * np.ones(3, np.float32), np.eye(4)),
        case("series", "is 4-D (5 x 5 x 5 x 3)"),
    )
    nib.save(nib.Nifti1Image(noise((9, 9, 1)), np.eye(4)), case("slice", "2-D"))
    nib.save(nib.Nifti1Image(noise((9, 9, 9))[..., 0], np.eye(4)), case("plane", "2-D"))
    nib.save(nib.Nifti1Image(np.zeros((0, 4, 4), np.float32), np.eye(4)), case("no_voxels", ""))
    nib.save(nib.Nifti1Image(noise((4, 4, 4)).astype(np.complex64), np.eye(4)), case("complex", "complex64"))
    colour = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colour, np.eye(4)), case("colour", "grey values"))
    sitk.WriteImage(sitk.Image(4, 4, 4, sitk.sitkVectorUInt8), str(case("vector", "colour or vector", ".nrrd")))
    nib.save(nib.Nifti1Image(noise((4, 4, 4)), np.diag([0.001, 0.001, 0.001, 1])), case("metres", "voxels of 0.001"))
    nib.save(nib.Nifti1Image(noise((4, 4, 4)), np.diag([1, 1, 50.0, 1])), case("huge_voxels", "50 mm"))
    for name, matrix in (
        ("zero", np.diag([1, 1, 0, 1.0])),
        ("flat", np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])),
    ):
        image = nib.Nifti1Image(noise((4, 4, 4)), None)
        image.set_qform(None, code=0)
        image.set_sform(matrix, code=1)
        nib.save(image, case(name, "singular"))
    raw = bytearray((folder / "whole.nii").read_bytes())
    raw[280:284] = np.float32(np.nan).tobytes()  # srow_x[0]
    case("nan_affine", "singular", ".nii").write_bytes(raw)
    return cases


def test_bad_files_end_in_one_sentence_that_names_them(tmp_path):
    for name, (path, words) in bad_files(tmp_path).items():
        with pytest.raises(InputError) as caught:
            Volume.read(path)
        message = str(caught.value)
        assert message.startswith(str(path)), name
        assert words in message, (name, message)
        assert message.endswith((".", ").")), name
        assert "\n" not in message, name
        assert message.count(". ") == 0, (name, message)  # one sentence


def test_too_large_for_memory_is_seen_before_loading(tmp_path, monkeypatch):
    path = Volume(noise(), OBLIQUE).write(tmp_path / "a.nii.gz")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=1000))
    with pytest.raises(InputError, match=r"a\.nii\.gz \(12 x 10 x 9 voxels\) needs about .* resample it or crop it"):
        Volume.read(path)


def test_targets_are_refused_early_and_kept_whole(tmp_path, monkeypatch):
    volume = Volume(noise(), OBLIQUE)
    path = volume.write(tmp_path / "a.nii.gz")
    before = path.read_bytes()
    with pytest.raises(InputError, match="exists already"):
        Volume(noise() + 1, OBLIQUE).write(path, overwrite=False)
    with pytest.raises(InputError, match="is a folder"):
        check_writable(tmp_path)
    with pytest.raises(InputError, match="not a folder you can write to"):
        volume.write(path / "below" / "b.nii.gz")
    with pytest.raises(InputError, match="format of its suffix"):
        volume.write(tmp_path / "a.docx")
    monkeypatch.setattr(writing.os, "access", lambda *_: False)
    with pytest.raises(InputError, match="can write to"):
        volume.write(tmp_path / "c.nii.gz")
    monkeypatch.undo()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "_write_nifti", fail)
    with pytest.raises(InputError, match="No space left"):
        volume.write(path)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nii.gz"]


def test_as_volume_takes_paths_and_volumes(tmp_path):
    volume = Volume(noise(), OBLIQUE)
    assert as_volume(volume, "T1w") is volume
    assert np.array_equal(as_volume(str(volume.write(tmp_path / "a.nii")), "T1w").array, volume.array)
    with pytest.raises(InputError, match="The T1w must be a file or a Volume, not ndarray"):
        as_volume(noise(), "T1w")
    with pytest.raises(InputError, match="The T1w has voxels of"):
        as_volume(Volume(noise(), np.diag([99, 1, 1, 1])), "T1w")
