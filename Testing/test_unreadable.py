"""Files that are no images, or not whole, or point elsewhere: each is told by its cause, with the fix."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from DEMISTCore.errors import InputError
from DEMISTCore.synthesis.provenance import identity
from DEMISTCore.synthesis.reuse import Reuse
from DEMISTCore.volume import Volume, data_files

VOXELS = np.random.default_rng(0).random((16, 17, 18)).astype(np.float32)


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """One image in many formats: ``good.*``, and ``pair.hdr`` with ``pair.img``."""
    folder = tmp_path_factory.mktemp("good")
    for suffix in (".nii", ".nii.gz"):
        nib.save(nib.Nifti1Image(VOXELS, np.eye(4)), folder / f"good{suffix}")
    for suffix in (".mgh", ".mgz"):
        nib.save(nib.MGHImage(VOXELS, np.eye(4)), folder / f"good{suffix}")
    nib.save(nib.Nifti1Pair(VOXELS, np.eye(4)), folder / "pair.img")
    for suffix in (".nrrd", ".mha", ".nhdr", ".mhd"):
        sitk.WriteImage(sitk.GetImageFromArray(VOXELS.T.copy()), str(folder / f"good{suffix}"))
    return folder


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        Volume.read(path)
    sentence = str(caught.value)
    assert sentence.startswith(str(path))
    assert "\n" not in sentence
    assert sentence.endswith((".", ")."))
    return sentence.removeprefix(str(path))


SAYS = "under a name that says otherwise; rename it to end in"
RENAMED = [  # what it is, what it is called, what to do
    ("good.nii.gz", "a.nii", f"is NIfTI, compressed by gzip, {SAYS} .nii.gz"),
    ("good.nii", "a.nii.gz", f"NIfTI, not compressed, {SAYS} .nii"),
    ("good.nii", "a.nrrd", "rename it to end in .nii"),
    ("good.nii", "a.mha", "rename it to end in .nii"),
    ("good.nii.gz", "a.mgz", "rename it to end in .nii.gz"),
    ("good.nii.gz", "scan", "rename it to end in .nii.gz"),
    ("good.nii", "a.dat", "rename it to end in .nii"),
    ("good.nrrd", "a.nii", f"is NRRD, not compressed, {SAYS} .nrrd"),
    ("good.mha", "a.nii.gz", f"is MetaImage, not compressed, {SAYS} .mha"),
    ("good.mgz", "a.nii.gz", f"is MGH, compressed by gzip, {SAYS} .mgz"),
    ("good.mgh", "a.mgz", f"is MGH, not compressed, {SAYS} .mgh"),
]


@pytest.mark.parametrize(("what", "called", "fix"), RENAMED)
def test_a_wrong_suffix_is_named_with_the_right_one(good, tmp_path, what, called, fix):
    path = Path(shutil.copy(good / what, tmp_path / called))
    assert fix in refusal(path)
    right = path.with_name("right" + fix.rpartition("end in ")[2])
    path.rename(right)
    assert np.array_equal(Volume.read(right).array, VOXELS)  # the fix is one


@pytest.mark.parametrize(
    ("name", "keep"),
    [
        ("good.nii", 5000),
        ("good.nii", 100),
        ("good.nii.gz", 9000),
        ("good.mgh", 5000),
        ("good.mgz", 9000),
        ("good.nrrd", 9000),
        ("good.mha", 9000),
        ("good.nii.gz", -6),
    ],
)
def test_a_cut_file_is_said_to_be_cut(good, tmp_path, name, keep):
    path = tmp_path / name
    path.write_bytes((good / name).read_bytes()[:keep])
    sentence = refusal(path)
    assert "it is damaged (cut short" in sentence
    assert "copy or download it again" in sentence
    if name == "good.nii" and keep == 5000:
        assert f"promises {352 + 4 * VOXELS.size} bytes and 5000 are there" in sentence


def test_flipped_bits_in_compressed_voxels_are_found(tmp_path):
    """Stored blocks unpack whatever is in them: only the check sum at the end tells, which nibabel does not reach."""
    nib.save(nib.Nifti1Image(VOXELS, np.eye(4)), tmp_path / "a.nii")
    whole = gzip.compress((tmp_path / "a.nii").read_bytes(), compresslevel=0)
    path = tmp_path / "a.nii.gz"
    path.write_bytes(whole)
    assert np.array_equal(Volume.read(path).array, VOXELS)
    path.write_bytes(whole[:9000] + bytes([whole[9000] ^ 1]) + whole[9001:])
    assert not np.array_equal(nib.load(path).get_fdata(), VOXELS)
    assert "it is damaged (its compressed data cannot be unpacked)" in refusal(path)
    path.write_bytes(whole + b"\0" * 512)  # padding of tapes and block devices
    assert np.array_equal(Volume.read(path).array, VOXELS)
    plain = (tmp_path / "a.nii").read_bytes()
    path.write_bytes(gzip.compress(plain[:400]) + gzip.compress(plain[400:]))
    assert np.array_equal(Volume.read(path).array, VOXELS)  # members, as bgzip writes them


STAND_INS = [
    (
        "a.nii.gz",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1234\n",
        "a Git LFS pointer",
        "git lfs pull",
    ),
    (
        "a.mha",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1234\n",
        "a Git LFS pointer",
        "git lfs pull",
    ),
    ("a.nii.gz", b"/annex/objects/MD5E-s1234--0123.nii.gz\n", "a git-annex pointer", "datalad get"),
    ("a.nii.gz", b"<!DOCTYPE html>\n<html><head><title>Log in</title>", "a web page", "download"),
    ("a.nrrd", b"\n\n<html>", "a web page", "download"),
    ("a.mhd", b"<!doctype HTML><p>404", "a web page", "download"),
    ("a.nii", b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML document", "download"),
    ("._a.nii.gz", b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X", "the macOS companion", "without '._'"),
    ("a.nii", b"\0" * 128 + b"DICM" + b"\0" * 400, "a DICOM file", "dcm2niix"),
    ("a.nii.gz", b"BZh91AY&SY" + b"\0" * 50, "compressed by bzip2", "bunzip2"),
    ("a.nii", b"not an image at all", "it holds text", "give the image itself"),
]


@pytest.mark.parametrize(("name", "content", "what", "fix"), STAND_INS)
def test_what_stands_for_an_image_is_named(tmp_path, name, content, what, fix):
    (tmp_path / name).write_bytes(content)
    sentence = refusal(tmp_path / name)
    assert what in sentence
    assert fix in sentence


def test_archives_links_halves_and_packages_are_named(good, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.nii.gz", "w") as archive:
        archive.write(good / "good.nii", "a.nii")
    assert "a ZIP archive; unpack it first" in refusal(tmp_path / "a.nii.gz")
    os.symlink(".git/annex/objects/x", tmp_path / "b.nii.gz")
    assert "is a link to .git/annex/objects/x, which is not there; fetch the file" in refusal(tmp_path / "b.nii.gz")
    for half, other in ((".hdr", ".img"), (".img", ".hdr")):
        path = Path(shutil.copy(good / f"pair{half}", tmp_path / f"pair{half}"))
        assert f"file pair{other} is missing; copy it beside it" in refusal(path)
        path.unlink()
    for half in (".hdr", ".img"):
        shutil.copy(good / f"pair{half}", tmp_path)
    assert np.array_equal(Volume.read(tmp_path / "pair.hdr").array, VOXELS)
    assert data_files(tmp_path / "pair.hdr") == [tmp_path / "pair.img"]
    (tmp_path / "a.mnc").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 600)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "MINC 2 image, which needs the package h5py; install it (pip install h5py)" in refusal(tmp_path / "a.mnc")


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha", "a.img"])
def test_pipes_and_devices_are_not_opened(tmp_path, name):
    """Opening a pipe waits for ever: in a process of its own, with a limit."""
    os.mkfifo(tmp_path / name)
    code = (
        "import sys; from DEMISTCore.volume import Volume\n"
        "try: Volume.read(sys.argv[1])\nexcept Exception as error: print(error)"
    )
    for path in (tmp_path / name, "/dev/zero"):
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
        assert f"{path} is a pipe or device, not a file" in done.stdout


# Detached headers --------------------------------------------------------------------------------------------------

NRRD = (
    "NRRD0004\ntype: uchar\ndimension: 3\nspace: left-posterior-superior\nsizes: 10 10 10\n"
    "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\nencoding: raw\n{}\n\n"
)
META = (
    "ObjectType = Image\nNDims = 3\nDimSize = 10 10 10\nElementSpacing = 1 1 1\nElementType = MET_UCHAR\n"
    "Offset = 0 0 0\nElementDataFile = {}\n"
)
BYTES = (np.arange(1000) % 251).astype(np.uint8)


def write_header(folder: Path, kind: str, data: str, called: str | None = None) -> Path:
    path = folder / (called or f"a.{kind}")
    text = NRRD.format(f"data file: {data}") if kind == "nhdr" else META.format(data)
    path.write_text(text.rstrip() + "\n" if "LIST" in data else text, newline="")
    return path


@pytest.fixture
def places(tmp_path) -> Path:
    """A folder for headers with data in it, and data outside."""
    folder = tmp_path / "from a stranger"
    (folder / "below").mkdir(parents=True)
    for place in (tmp_path / "secret", folder / "data.raw", folder / "below" / "data.raw"):
        place.write_bytes(BYTES.tobytes())
    os.symlink(tmp_path / "secret", folder / "link.raw")
    os.mkfifo(folder / "pipe.raw")
    os.symlink("/dev/zero", folder / "zero.raw")
    for i in range(10):
        (folder / f"slice{i:02d}.raw").write_bytes(BYTES[100 * i : 100 * i + 100].tobytes())
    return folder


@pytest.mark.parametrize("kind", ["nhdr", "mhd"])
@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("/etc/passwd", "may only name files beside itself"),
        ("{}/secret", "may only name files beside itself"),
        ("../secret", "may only name files beside itself"),
        ("below/data.raw", "may only name files beside itself"),
        ("..\\secret", "may only name files beside itself"),
        ("C:secret", "may only name files beside itself"),
        ("-", "may only name files beside itself"),
        (".", "may only name files beside itself"),
        ("link.raw", "a link to another folder"),
        ("zero.raw", "a link to another folder"),
        ("pipe.raw", "no regular file"),
        ("gone.raw", "gone.raw is missing; copy it beside the header"),
        ("LIST\nslice00.raw\n../secret", "may only name files beside itself"),
        ("../slice%02d.raw 0 9 1", "may only name files beside itself"),
        ("slice%s.raw 0 9 1", "is none; export it again"),
        ("slice%999999999d.raw 0 9 1", "is none; export it again"),
        ("slice%02d.raw 0 99999999 1", "is none; export it again"),
    ],
)
def test_a_header_reads_no_files_elsewhere(places, kind, data, why):
    text = data.replace("{}", str(places.parent))
    assert why in refusal(write_header(places, kind, text))


@pytest.mark.parametrize("kind", ["nhdr", "mhd"])
@pytest.mark.parametrize("data", ["data.raw", "./data.raw", "slice%02d.raw 0 9 1", "LIST{}\n{names}"])
def test_a_header_reads_files_beside_it(places, kind, data):
    names = "\n".join(f"slice{i:02d}.raw" for i in range(10))
    text = data.replace("{}", " 2" if kind == "nhdr" and "LIST" in data else "").replace("{names}", names)
    if kind == "nhdr" and text.startswith("slice%"):
        text += " 2"
    volume = Volume.read(write_header(places, kind, text))
    assert np.array_equal(volume.array.ravel(order="F"), BYTES)
    if data == "data.raw":  # what an output was made from is told by the hash of the voxels, too
        before = identity(volume, Reuse())
        (places / "data.raw").write_bytes(BYTES[::-1].tobytes())
        after = identity(volume, Reuse())
        assert before["sha256"] == after["sha256"]
        assert before["data_sha256"]["data.raw"] != after["data_sha256"]["data.raw"]


def test_a_header_under_another_name_reads_no_files_elsewhere(places):
    """SimpleITK takes a format by what is in a file: .nrrd, .mha and foreign suffixes are no way round."""
    for called in ("a.nrrd", "a.vtk", "a.xyz", "a.tif"):
        sentence = refusal(write_header(places, "nhdr", str(places.parent / "secret"), called))
        assert "may only name files beside itself" in sentence or "rename it" in sentence
    assert "may only name files" in refusal(write_header(places, "mhd", str(places.parent / "secret"), "a.mha"))
    for line in ("DATA FILE", "datafile", "Data File"):
        path = write_header(places, "nhdr", "x")
        path.write_text(path.read_text().replace("data file", line).replace(": x", ": ../secret"))
        assert "may only name files beside itself" in refusal(path)
    path = write_header(places, "nhdr", "../secret")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    refusal(path)


def test_formats_that_look_elsewhere_by_themselves_are_not_read(tmp_path):
    (tmp_path / "2dseq").write_bytes(b"\0" * 100)
    (tmp_path / "a.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 600)
    assert "another format" in refusal(tmp_path / "2dseq")  # Bruker: reads method, acqp, reco around it
    assert "an HDF5 file, of which only MINC 2 (.mnc) is read" in refusal(tmp_path / "a.hdf5")


def test_metaimages_that_would_make_itk_write_beyond_its_arrays_do_not_reach_it(tmp_path):
    """NDims = 100000 ended the process with a segmentation fault (SimpleITK 2.5); so did counts that do not fit it."""
    good = sitk.GetImageFromArray(np.zeros((4, 5, 6), np.int16))
    good.SetMetaData("0008|0060", "MR")  # what DICOM said
    good.SetMetaData("Comment", "a note: of = any kind")
    sitk.WriteImage(good, str(tmp_path / "good.mha"))
    assert Volume.read(tmp_path / "good.mha").shape == (6, 5, 4)
    text = (tmp_path / "good.mha").read_bytes()
    for old, new, says in (
        (b"NDims = 3", b"NDims = 100000", "NDims must be 1 to 10"),
        (b"NDims = 3", b"NDims = 3 1", "ndims must hold"),
        (b"NDims = 3", b"NDims = 3\nNDims = 3", "it has NDims twice"),
        (b"MET_SHORT", b"MET_STRING", "ElementType"),
        (b"DimSize = 6 5 4", b"DimSize = 6 5", "3 numbers"),
        (b"DimSize = 6 5 4", b"DimSize = 6 5 -4", "above 0"),
        (b"Offset = 0 0 0", b"Offset = 0 nan 0", "3 numbers"),
        (b"Comment = ", b"Comment = " + b"x" * 300, "Comment is too long"),
    ):
        assert old in text
        (tmp_path / "bad.mha").write_bytes(text.replace(old, new))
        sentence = refusal(tmp_path / "bad.mha")
        assert "cannot be read as an image: its header is damaged (" in sentence
        assert says in sentence
