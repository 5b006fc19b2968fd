"""One law: what is written on an image's grid lies where nibabel and SimpleITK put that image's voxels.

Headers are drawn (both forms, codes, shear, units, storage order, scaling, type, byte order, NIfTI 1 and 2), and an
image is taken through every format that is read. The two readers are asked themselves, about source and output alike.
"""

from __future__ import annotations

import importlib
import itertools
import json
import math
import shutil
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import netcdf_file
from scipy.spatial.transform import Rotation

import DEMISTCore
from DEMISTCore import cli
from DEMISTCore.errors import InputError
from DEMISTCore.volume import Grid, Volume, check_holds

SHAPE = (5, 6, 7)
NEAR_MM = 0.01
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", (10, -20, 35), degrees=True).as_matrix() @ np.diag([1.2, -0.9, 2.5])
OBLIQUE[:3, 3] = (11.0, -7.0, 30.0)
VOXELS = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)


def corners(affine: np.ndarray, shape=SHAPE) -> np.ndarray:
    ends = np.array([*itertools.product(*[(0, n - 1) for n in shape])])
    return nib.affines.apply_affine(affine, ends)


def apart(a: np.ndarray, b: np.ndarray, shape=SHAPE) -> float:
    """The farthest that two affines put a corner voxel apart, mm."""
    return float(np.abs(corners(a, shape) - corners(b, shape)).max())


def in_nibabel(path: Path) -> np.ndarray | None:
    """Where nibabel puts the voxels; None if it does not read the file."""
    try:
        return nib.load(path).affine
    except (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError, ValueError):
        return None


def in_itk(path: Path) -> np.ndarray | None:
    """Where SimpleITK puts the voxels, in RAS; None if it does not read the file."""
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:
        return None
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return LPS @ affine


def check_law(source: Path, out: Path) -> list[str]:
    """Write an image on the grid of ``source``; both readers must put it there. Returns the warnings."""
    volume = Volume.read(source)
    marked = np.random.default_rng(0).random(volume.shape).astype(np.float32)
    volume.with_array(marked).write(out)
    for reader in (in_nibabel, in_itk):
        before, after = reader(source), reader(out)
        # Headers in micron: lengths are a thousand times as large, and stored in float32.
        near = NEAR_MM if before is None else NEAR_MM * max(1.0, float(np.abs(before[:3, :3]).max()) / 20)
        if before is not None and np.isfinite(before).all() and abs(np.linalg.det(before[:3, :3])) > 1e-12:
            assert after is not None, f"{reader.__name__} reads the source and not the output"
            assert apart(before, after, volume.shape) <= near, reader.__name__
        elif reader is in_nibabel:  # a format or quaternion that nibabel refuses: the other account, or our own
            assert apart(volume.affine, after, volume.shape) <= NEAR_MM
    assert np.array_equal(nib.load(out).get_fdata(dtype=np.float32), marked)
    check_law_elsewhere(volume, source, out.with_name("other.nrrd"))
    return list(volume.warnings)


def check_law_elsewhere(volume: Volume, source: Path, out: Path) -> None:
    """A format with one place: it lies where both readers put the source, or it is refused, early as well."""
    before = in_itk(source)
    try:
        volume.write(out)
    except InputError:
        axes = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
        sheared = np.abs(axes.T @ axes - np.eye(3)).max() > 1e-4
        refused = sheared or (before is not None and apart(before, volume.affine) > NEAR_MM)
        assert refused
        with pytest.raises(InputError, match=r"use \.nii\.gz"):
            check_holds(out, volume.grid)
        return
    check_holds(out, volume.grid)
    after = in_itk(out)
    assert apart(after, volume.affine if before is None else before, volume.shape) <= NEAR_MM
    # Two accounts may differ by rounding, in quaternions above all, and by no more.
    assert apart(after, volume.affine, volume.shape) <= 0.1 + NEAR_MM


# Drawn headers -------------------------------------------------------------------------------------------------------


@st.composite
def rotations(draw) -> np.ndarray:
    """Any, none, or half a turn: there a quaternion has no real part, and rounding makes it longer than 1."""
    kind = draw(st.sampled_from(("any", "none", "half a turn", "slight")))
    if kind == "none":
        return np.eye(3)
    if kind == "half a turn":
        axis = np.array([draw(st.floats(-1, 1)) + shift for shift in (0.1, 0.2, 0.3)])
        return Rotation.from_rotvec(math.pi * axis / max(np.linalg.norm(axis), 1e-3)).as_matrix()
    limit = 180 if kind == "any" else 5
    return Rotation.from_euler("xyz", draw(st.tuples(*[st.floats(-limit, limit)] * 3)), degrees=True).as_matrix()


@st.composite
def places(draw) -> np.ndarray:
    """A rotation in any storage order, with voxel sizes and offset, mm."""
    order = list(draw(st.permutations(range(3))))
    signs = draw(st.tuples(*[st.sampled_from((-1, 1))] * 3))
    affine = np.eye(4)
    affine[:3, :3] = draw(rotations()) @ (np.eye(3)[:, order] * signs) * draw(st.tuples(*[st.floats(0.4, 4)] * 3))
    affine[:3, 3] = draw(st.tuples(*[st.floats(-300, 300)] * 3))
    return affine


@st.composite
def headers(draw) -> tuple[str, object]:
    """A suffix, and a nibabel image with a header as people's programs write them."""
    sform = draw(places())
    relation = draw(st.sampled_from(("same", "same", "other place", "moved", "scaled")))
    qform = {"same": sform, "other place": draw(places()), "moved": sform + 0, "scaled": sform + 0}[relation]
    if relation == "moved":
        qform[:3, 3] += draw(st.tuples(*[st.floats(-60, 60)] * 3))
    if relation == "scaled":
        qform[:3, :3] *= draw(st.floats(0.8, 1.25))
    shear = draw(st.sampled_from((0.0, 0.0, 0.0, 1e-5, 0.05, 0.3)))
    sform = sform.copy()
    sform[:3, 1] += shear * sform[:3, 0]
    unit = draw(st.sampled_from((0, 1, 2, 2, 2, 3)))
    scale = {0: 1.0, 1: 1e-3, 2: 1.0, 3: 1e3}[unit]
    second = draw(st.booleans())
    kind = draw(st.sampled_from((".nii", ".nii.gz", ".img")))
    single, pair = (nib.Nifti2Image, nib.Nifti2Pair) if second else (nib.Nifti1Image, nib.Nifti1Pair)
    image_kind = pair if kind == ".img" else single
    header = image_kind.header_class(endianness=draw(st.sampled_from("<>")))
    header.set_data_shape(SHAPE)
    dtype = np.dtype(draw(st.sampled_from(("u1", "i2", "u2", "i4", "f4", "f8"))))
    header.set_data_dtype(dtype)
    to_file = np.diag([scale, scale, scale, 1.0])
    header.set_sform(to_file @ sform, code=1)
    header.set_qform(to_file @ qform, code=1, strip_shears=True)
    header["sform_code"], header["qform_code"] = draw(st.tuples(*[st.sampled_from((0, 1, 1, 2, 3, 4))] * 2))
    longer = draw(st.sampled_from((1.0, 1.0, 1.0, 1.0 + 1e-6, 1.001)))
    for name in ("quatern_b", "quatern_c", "quatern_d"):
        header[name] = header[name] * longer
    header["xyzt_units"] = unit
    header.set_slope_inter(*draw(st.sampled_from(((None, None), (1.0, 0.0), (0.5, -10.0), (2.0, 3.0)))))
    data = (VOXELS % 100).astype(dtype)
    return kind, image_kind(data, None, header)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(headers())
def test_maps_lie_over_images_with_any_header(drawn):
    suffix, image = drawn
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / f"t1w{suffix}"
        nib.save(image, source)
        header = image.header
        warnings = check_law(source, Path(folder) / "psr.nii.gz")
        codes = [int(header[f"{form}_code"]) for form in ("sform", "qform")]
        if codes == [0, 0]:
            assert "says nothing about its orientation" in warnings[0]
        place, itk = Volume.read(source).affine, in_itk(source)
        if any(codes) and itk is not None and apart(place, itk) > 0.2:
            assert any("disagree by up to" in sentence for sentence in warnings)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(places(), st.sampled_from((0.0, 0.0, 0.2)), st.sampled_from((".nrrd", ".nhdr", ".mha", ".mhd")))
def test_maps_lie_over_images_of_itk(affine, shear, suffix):
    """NRRD and MetaImage, in one file and in two, sheared too: ITK's formats can say that, and say it to ITK."""
    affine[:3, 1] += shear * affine[:3, 0]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / f"t1w{suffix}"
        write_by_itk(source, affine)
        volume = Volume.read(source)
        assert apart(volume.affine, affine) <= NEAR_MM
        for out in ("psr.nrrd", "psr.mha"):
            volume.write(Path(folder) / out)
            assert apart(in_itk(Path(folder) / out), affine) <= NEAR_MM
        volume.write(Path(folder) / "psr.nii.gz")
        assert apart(in_nibabel(Path(folder) / "psr.nii.gz"), affine) <= NEAR_MM
        there = in_itk(Path(folder) / "psr.nii.gz")
        assert there is None if shear else apart(there, affine) <= NEAR_MM  # refused is better than misplaced


# Formats -------------------------------------------------------------------------------------------------------------


def write_by_itk(path: Path, affine: np.ndarray) -> None:
    image = sitk.GetImageFromArray(np.ascontiguousarray(VOXELS.T))
    matrix = (LPS @ affine)[:3]
    size = np.linalg.norm(matrix[:, :3], axis=0)
    image.SetSpacing(size.tolist())
    image.SetDirection((matrix[:, :3] / size).ravel().tolist())
    image.SetOrigin(matrix[:, 3].tolist())
    sitk.WriteImage(image, str(path))


def write_minc(path: Path) -> None:
    """MINC 1, which is netCDF: axes z, y, x, an even range for all slices."""
    with netcdf_file(path, "w") as file:
        for name, length, step, start in zip(("zspace", "yspace", "xspace"), SHAPE, (2.5, 0.9, 1.2), (3.0, 4.0, 5.0)):
            file.createDimension(name, length)
            axis = file.createVariable(name, "i4", ())
            axis.step, axis.start, axis.spacing = step, start, b"regular__"
        image = file.createVariable("image", "i2", ("zspace", "yspace", "xspace"))
        image[:] = VOXELS
        image.signtype, image.valid_range = b"signed__", np.array([0.0, 209.0])
        for name, value in (("image-max", 209.0), ("image-min", 0.0)):
            limit = file.createVariable(name, "f8", ("zspace",))
            limit[:] = value


#: Axes of a MINC 2 file, oblique: direction cosines, step, start along each; in the file their order is z, y, x.
COSINES = np.linalg.qr(np.array([[1.0, 0.2, -0.1], [-0.2, 1.0, 0.15], [0.1, -0.15, 1.0]]))[0]
STEPS, STARTS = np.array([1.2, 0.9, -2.5]), np.array([5.0, 4.0, 3.0])


def write_minc2(path: Path, dtype: str = "i2", spacing: str = "regular__") -> np.ndarray:
    """MINC 2, which is HDF5: voxels (z, y, x) with a range of real values for each slice; the real values."""
    h5py = pytest.importorskip("h5py")
    low, high = np.arange(SHAPE[0]) * 10.0, 100.0 + np.arange(SHAPE[0])
    stored = VOXELS.astype(dtype)
    with h5py.File(path, "w") as file:
        dimensions = file.create_group("minc-2.0/dimensions")
        for i, (name, length) in enumerate(zip(("xspace", "yspace", "zspace"), SHAPE[::-1])):
            axis = dimensions.create_dataset(name, data=np.int32(0))
            axis.attrs["direction_cosines"] = COSINES[:, i]
            axis.attrs["step"], axis.attrs["start"], axis.attrs["length"] = STEPS[i], STARTS[i], np.int32(length)
            axis.attrs["spacing"] = np.bytes_(spacing)
        image = file.create_group("minc-2.0/image/0")
        data = image.create_dataset("image", data=stored)
        data.attrs["dimorder"], data.attrs["valid_range"] = np.bytes_("zspace,yspace,xspace"), np.array([0.0, 209.0])
        for name, values in (("image-min", low), ("image-max", high)):
            image.create_dataset(name, data=values).attrs["dimorder"] = np.bytes_("zspace")
    return low[:, None, None] + stored * ((high - low) / 209.0)[:, None, None]


@pytest.mark.parametrize("dtype", ["i2", "u1", "u2", "i4"])
def test_minc_2_is_read_by_its_axes_and_slice_ranges(tmp_path, dtype):
    real = write_minc2(tmp_path / "t1w.mnc", dtype)
    volume = Volume.read(tmp_path / "t1w.mnc")
    np.testing.assert_allclose(volume.array, real, atol=1e-4)
    for index in [(0, 0, 0), (4, 0, 0), (0, 5, 0), (0, 0, 6), (4, 5, 6)]:
        world = sum(COSINES[:, i] * (STARTS[i] + STEPS[i] * index[2 - i]) for i in range(3))
        np.testing.assert_allclose(volume.affine[:3] @ [*index, 1], world, atol=1e-6)
    assert not volume.warnings
    check_law(tmp_path / "t1w.mnc", tmp_path / "psr.nii.gz")


def test_minc_2_that_cannot_be_read_is_one_sentence(tmp_path):
    write_minc2(tmp_path / "irregular.mnc", spacing="irregular")
    import h5py

    write_minc2(tmp_path / "elsewhere.mnc")
    with h5py.File(tmp_path / "elsewhere.mnc", "a") as file:
        del file["minc-2.0/image/0/image"]
        file["minc-2.0/image/0/image"] = h5py.ExternalLink("other.mnc", "/minc-2.0/image/0/image")
    write_minc2(tmp_path / "unnamed.mnc")
    with h5py.File(tmp_path / "unnamed.mnc", "a") as file:
        del file["minc-2.0/image/0/image-max"].attrs["dimorder"]
    with h5py.File(tmp_path / "other.mnc", "w") as file:  # HDF5, and nothing of MINC in it
        file["a"] = np.arange(3)
    whole = (tmp_path / "elsewhere.mnc").read_bytes()
    (tmp_path / "cut.mnc").write_bytes(whole[: len(whole) // 2])
    for name, says in (
        ("irregular", "has slices at irregular distances"),
        ("elsewhere", "takes its voxels from other files"),
        ("unnamed", "does not say along which axis"),
        ("other", "is HDF5 and no MINC 2 image"),
        ("cut", "is damaged"),
    ):
        with pytest.raises(InputError, match=rf"{name}\.mnc .*{says}") as error:
            Volume.read(tmp_path / f"{name}.mnc")
        assert "\n" not in str(error.value)


def make(kind: str, folder: Path) -> Path:
    """An image in a format; oblique if the format can say so."""
    path = folder / f"t1w{kind.split()[0]}"
    if kind in (".nii", ".nii.gz"):
        nib.save(nib.Nifti1Image(VOXELS, OBLIQUE), path)
    elif kind == ".nii NIfTI-2":
        nib.save(nib.Nifti2Image(VOXELS, OBLIQUE), path)
    elif kind in (".img", ".hdr"):
        nib.save(nib.Nifti1Pair(VOXELS, OBLIQUE), path.with_suffix(".img"))
    elif kind == ".img Analyze":
        nib.save(nib.AnalyzeImage(VOXELS, np.diag([-1.2, 0.9, 2.5, 1.0])), path)
    elif kind == ".img SPM":
        nib.save(
            nib.Spm99AnalyzeImage(VOXELS, np.array([[-1.2, 0, 0, 9], [0, 0.9, 0, -4], [0, 0, 2.5, 3], [0, 0, 0, 1.0]])),
            path,
        )
    elif kind in (".mgh", ".mgz"):
        nib.save(nib.MGHImage(VOXELS, OBLIQUE), path)
    elif kind == ".mnc":
        write_minc(path)
    else:
        write_by_itk(path, OBLIQUE)
    return path


FORMATS = (
    ".nii",
    ".nii.gz",
    ".nii NIfTI-2",
    ".img",
    ".hdr",
    ".img Analyze",
    ".img SPM",
    ".mgh",
    ".mgz",
    ".mnc",
    ".nrrd",
    ".nhdr",
    ".mha",
    ".mhd",
)


@pytest.mark.parametrize("kind", FORMATS)
def test_maps_lie_over_images_of_every_format(kind, tmp_path):
    source = make(kind, tmp_path)
    volume = Volume.read(source)
    assert np.array_equal(volume.array, VOXELS)
    if kind not in (".img Analyze", ".img SPM", ".mnc"):
        assert apart(volume.affine, OBLIQUE) <= 1e-4
    warnings = check_law(source, tmp_path / "psr.nii.gz")
    assert any("says nothing about its orientation" in sentence for sentence in warnings) == kind.startswith(
        (".img Analyze", ".img SPM")
    )


def test_formats_without_left_and_right_say_so(tmp_path):
    header = "NRRD0004\ntype: short\ndimension: 3\nsizes: 5 6 7\nspacings: 1 1 1\nencoding: raw\nendian: little\n\n"
    (tmp_path / "a.nrrd").write_bytes(header.encode() + VOXELS.T.tobytes())
    header = "ObjectType = Image\nNDims = 3\nDimSize = 5 6 7\nElementSpacing = 1 1 1\nElementType = MET_SHORT\n"
    (tmp_path / "a.mha").write_bytes((header + "ElementDataFile = LOCAL\n").encode() + VOXELS.T.tobytes())
    image = nib.MGHImage(VOXELS, np.eye(4))
    image.to_filename(tmp_path / "a.mgh")
    raw = bytearray((tmp_path / "a.mgh").read_bytes())
    raw[28:30] = b"\0\0"
    (tmp_path / "a.mgh").write_bytes(raw)
    for name in ("a.nrrd", "a.mha", "a.mgh"):
        volume = Volume.read(tmp_path / name)
        assert np.array_equal(volume.array, VOXELS)
        assert "says nothing about its orientation" in volume.warnings[0], name


# As reported ---------------------------------------------------------------------------------------------------------


def save(path: Path, array, sform, qform, codes=(1, 1), unit=2) -> Path:
    header = nib.Nifti1Header()
    header.set_data_shape(array.shape)
    header.set_data_dtype(array.dtype)
    header.set_sform(sform)
    header.set_qform(qform)
    header["sform_code"], header["qform_code"] = codes
    header["xyzt_units"] = unit
    nib.save(nib.Nifti1Image(array, None, header), path)
    return path


def test_disagreeing_forms_are_told_by_their_distance(tmp_path):
    """The sform is the qform moved by 29 mm: what a coregistration with a program of one form leaves."""
    moved = OBLIQUE.copy()
    moved[:3, 3] += (29, 0, 0)
    volume = Volume.read(save(tmp_path / "a.nii", VOXELS, moved, OBLIQUE, (2, 1)))
    (sentence,) = volume.warnings
    assert "its qform and sform disagree by up to 29 mm; DEMIST goes by the sform and ITK (3D Slicer) by" in sentence
    assert apart(volume.affine, moved) < 1e-4
    scaled = OBLIQUE.copy()
    scaled[:3, :3] *= 1.1
    volume = Volume.read(save(tmp_path / "b.nii", VOXELS, scaled, OBLIQUE, (2, 0)))
    assert "its sform and its voxel size (pixdim) disagree by up to" in volume.warnings[0]
    assert not Volume.read(save(tmp_path / "c.nii", VOXELS, OBLIQUE, OBLIQUE)).warnings
    turned = volume.reoriented("RAS")
    assert turned.forms is None  # the header spoke of another voxel order


def test_maps_of_a_scan_with_two_places_lie_over_it_in_both_readers(head, tiny_bundle, tmp_path, capsys):
    """Case 8 from end to end: map, uncertainty and sidecar by the command line; masks and statistics of them."""
    scan = nib.load(head.t1w)
    qform = scan.affine.copy()
    qform[:3, 3] += (0, 20, -21)  # 29 mm
    t1w = save(tmp_path / "t1w.nii.gz", np.asanyarray(scan.dataobj), scan.affine, qform, (2, 1))
    main = importlib.import_module("DEMISTCore.synthesize").main
    out = tmp_path / "psr.nii.gz"
    line = [
        "--t1w",
        str(t1w),
        "--flair",
        str(head.flair),
        "--brain-mask",
        str(head.mask),
        "--bundle",
        str(tiny_bundle),
        "--no-register",
        "--no-bias-correct",
        "--steps",
        "1",
        "--uncertainty",
    ]
    assert cli.run(main, [*line, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    told = json.loads((tmp_path / "psr.json").read_text())
    assert any("disagree by up to 29 mm" in sentence for sentence in told["warnings"])
    assert "warning: " in said
    assert "disagree by up to 29 mm" in said
    for written in (out, tmp_path / "psr_uncertainty.nii.gz"):
        for reader in (in_nibabel, in_itk):
            assert apart(reader(t1w), reader(written), scan.shape) <= NEAR_MM
    assert apart(in_nibabel(out), in_itk(out)) == pytest.approx(21, abs=0.01)  # along one axis: they do differ
    assert np.count_nonzero(nib.load(out).get_fdata()) > 1000

    assert cli.run(main, [*line, "--out", str(tmp_path / "other.nrrd")]) == 2
    assert "names two places, up to 29 mm apart, and this format holds one; use .nii.gz" in capsys.readouterr().err

    # A mask that was drawn over it in 3D Slicer lies where the qform says: voxel by voxel it is the T1w's all the same.
    drawn = save(tmp_path / "mask.nii.gz", np.asanyarray(nib.load(head.mask).dataobj), qform, qform, (1, 1))
    plain = {"register": False, "bias_correct": False, "spacing": 4.0, "multiple": 8}
    masks = [DEMISTCore.prepare(t1w, head.flair, brain_mask=mask, **plain).native_mask for mask in (head.mask, drawn)]
    assert np.array_equal(masks[0].array, masks[1].array)
    for reader in (in_nibabel, in_itk):
        assert apart(reader(masks[0].write(tmp_path / "native.nii.gz")), reader(t1w), scan.shape) <= NEAR_MM


def test_what_is_prepared_once_is_prepared_again_for_another_place(tmp_path):
    """The same voxels where nibabel sees them in one place, but ITK in two: a result of one is none of the other."""
    from DEMISTCore.synthesis.reuse import Reuse

    moved = OBLIQUE.copy()
    moved[:3, 3] += (29, 0, 0)
    names = {"a": (OBLIQUE, moved, (2, 1)), "b": (OBLIQUE, OBLIQUE, (2, 1)), "c": (OBLIQUE, OBLIQUE, (2, 1))}
    a, b, c = (Volume.read(save(tmp_path / f"{name}.nii", VOXELS, *place)) for name, place in names.items())
    reuse = Reuse()
    assert np.array_equal(a.affine, b.affine)
    assert reuse.content(a) != reuse.content(b)
    assert reuse.content(b) == reuse.content(c)


def test_sheared_axes_are_refused_where_they_cannot_be_said(tmp_path):
    """Case 11: corners were 15 mm off in .nrrd and .mha."""
    affine = OBLIQUE.copy()
    affine[:3, 1] += 0.3 * affine[:3, 0]
    volume = Volume.read(save(tmp_path / "a.nii", VOXELS, affine, OBLIQUE, (1, 0)))
    assert "axes are sheared" in volume.warnings[0]
    for name in ("a.nrrd", "a.mha", "a.nhdr", "a.mhd"):
        with pytest.raises(InputError, match=r"axes are sheared, by up to .* mm, and this format holds right angles"):
            volume.write(tmp_path / name)
        assert not (tmp_path / name).exists()
    for suffix in (".vtk", ".gipl", ".tif", ".img"):  # lose rotation, or make two files
        with pytest.raises(InputError, match="format of its suffix"):
            volume.write(tmp_path / f"a{suffix}")
    out = volume.write(tmp_path / "b.nii.gz")
    assert apart(in_nibabel(out), affine) < 1e-4


@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
def test_formats_of_two_files_are_written_in_one(suffix, tmp_path):
    """Case 10: the data lay in a hidden file of another name, and the hash covered the header only."""
    for _ in range(3):
        out = Volume(VOXELS.astype(np.float32), OBLIQUE).write(tmp_path / f"psr{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    (tmp_path / "elsewhere").mkdir()
    copy = Path(shutil.copy(out, tmp_path / "elsewhere" / f"copy{suffix}"))
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(copy))).T, VOXELS)
    assert apart(in_itk(copy), OBLIQUE) <= NEAR_MM
    assert np.array_equal(Volume.read(copy).array, VOXELS)


def test_units_of_metre_and_micron_are_read(tmp_path):
    for unit, scale in ((1, 1e-3), (3, 1e3)):
        there = np.diag([scale, scale, scale, 1.0]) @ OBLIQUE
        volume = Volume.read(save(tmp_path / f"{unit}.nii", VOXELS, there, there, unit=unit))
        assert apart(volume.affine, OBLIQUE) < 1e-4
        assert not volume.warnings
        # ... and the words for lengths are kept, so that readers that go by them and others see what they saw.
        out = volume.write(tmp_path / f"{unit}_out.nii")
        assert np.allclose(nib.load(out).affine, there)
        assert apart(in_itk(out), OBLIQUE) <= NEAR_MM
    wrong = Volume.read(save(tmp_path / "wrong.nii", VOXELS, OBLIQUE, OBLIQUE, unit=3))
    assert apart(wrong.affine, OBLIQUE) < 1e-4
    assert "its header gives lengths in micron, which would make voxels of 0.0012 mm; they are" in wrong.warnings[0]


def test_quaternions_longer_than_one_are_read_as_niftis_own_library_does(tmp_path):
    """Case 15: nifti1_io.c normalises (b, c, d) where b^2 + c^2 + d^2 > 1 and takes the real part as 0."""
    turn = Rotation.from_rotvec(np.pi * np.array([1, 2, 2]) / 3).as_matrix()
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn @ np.diag([1.2, 0.9, 2.5]), (11, -7, 30)
    path = save(tmp_path / "a.nii", VOXELS, affine, affine, (0, 1))
    for longer in (1 + 1e-6, 1.0005):
        raw = bytearray(path.read_bytes())
        raw[256:268] = (np.float32([1, 2, 2]) / np.float32(3) * np.float32(longer)).tobytes()
        (tmp_path / "b.nii").write_bytes(raw)
        assert in_nibabel(tmp_path / "b.nii") is None
        volume = Volume.read(tmp_path / "b.nii")
        assert apart(volume.affine, affine) < 1e-3
        assert not volume.warnings
        out = volume.write(tmp_path / "c.nii")
        assert apart(in_nibabel(out), affine) <= NEAR_MM
        assert apart(in_itk(out), in_itk(tmp_path / "b.nii")) <= NEAR_MM


def test_a_moved_image_forgets_what_its_file_said():
    volume = Volume(VOXELS, OBLIQUE)
    assert volume.grid.volume(VOXELS).forms is None
    with pytest.raises(ValueError, match="do not fit a grid"):
        Grid(SHAPE, OBLIQUE).volume(np.zeros((2, 2, 2)))


def test_regions_of_a_map_with_two_places_lie_over_it_in_both_readers(tmp_path):
    """What is measured on a map is written on its grid: labels and lesion numbers, which are drawn in 3D Slicer too."""
    from DEMISTCore.statistics import analyse

    shape = (24, 24, 24)
    sform = np.diag([2.0, 2.0, 2.0, 1.0])
    qform = sform.copy()
    qform[:3, 3] += (0, 20, -21)
    tissue = np.full(shape, 3, np.uint8)
    lesions = np.zeros(shape, np.uint8)
    lesions[10:14, 10:14, 10:14] = 1
    psr = np.where(lesions > 0, 0.06, 0.12).astype(np.float32)
    psr += np.random.default_rng(0).normal(0, 0.005, shape).astype(np.float32)
    files = {}
    for name, array in (("psr", psr), ("tissue", tissue)):
        files[name] = save(tmp_path / f"{name}.nii.gz", array, sform, qform, (2, 1))
    files["lesions"] = save(tmp_path / "lesions.nii.gz", lesions, qform, qform)  # drawn and saved in 3D Slicer
    analysis = analyse(files.pop("psr"), **files, out=tmp_path / "statistics")
    assert any("disagree by up to 29 mm" in sentence for sentence in analysis.notes)
    assert not any("resampled" in sentence for sentence in analysis.notes)
    numbers = nib.load(tmp_path / "statistics" / "lesions_dseg.nii.gz")
    assert np.array_equal(np.asanyarray(numbers.dataobj) > 0, lesions > 0)
    for name in ("regions_dseg.nii.gz", "lesions_dseg.nii.gz"):
        for reader in (in_nibabel, in_itk):
            written = reader(tmp_path / "statistics" / name)
            assert apart(written, reader(tmp_path / "psr.nii.gz"), shape) <= NEAR_MM
