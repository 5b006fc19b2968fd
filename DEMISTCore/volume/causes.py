"""Why a file cannot be read, and what to do about it: the cause found in the file itself, not guessed from an error."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from .detached import pair_of

#: How files of other sorts begin, with what they are and the mend.
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"\x00\x05\x16\x07", "the macOS companion of a file, without its content", "give the file without '._' before it"),
    (b"PK\x03\x04", "a ZIP archive", "unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it first"),
    (b"Rar!", "a RAR archive", "unpack it first"),
    (b"BZh", "compressed by bzip2", "decompress it first (bunzip2)"),
    (b"\xfd7zXZ", "compressed by xz", "decompress it first (unxz)"),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard", "decompress it first (unzstd)"),
    (b"%PDF", "a PDF document", "give the image"),
    (b"\x89PNG", "a PNG picture", "give the 3-D image that it shows"),
    (b"\xff\xd8\xff", "a JPEG picture", "give the 3-D image that it shows"),
)
#: Formats that are read, by how they begin (at an offset), with the suffixes that say so.
_FORMATS: tuple[tuple[int, bytes, str, tuple[str, ...]], ...] = (
    (344, b"n+1\0", "NIfTI", (".nii",)),
    (4, b"n+2\0", "NIfTI", (".nii",)),
    (344, b"ni1\0", "a NIfTI header (half of a pair)", (".hdr",)),
    (4, b"ni2\0", "a NIfTI header (half of a pair)", (".hdr",)),
    (0, b"NRRD0", "NRRD", (".nrrd", ".nhdr")),
    (0, b"ObjectType = Image", "MetaImage", (".mha", ".mhd")),
    (0, b"\x89HDF\r\n\x1a\n", "HDF5 (as MINC 2 is)", (".mnc",)),
    (0, b"CDF\x01", "netCDF (as MINC is)", (".mnc",)),
    (0, b"\x00\x00\x00\x01", "MGH", (".mgh",)),
    (128, b"DICM", "DICOM", (".dcm",)),
)
_GZIP = b"\x1f\x8b"
_HDF5 = b"\x89HDF"


def explain(path: Path, error: Exception) -> str:
    """One sentence with cause and mend for an image that ``error`` kept from being read."""
    try:
        start = _start(path)
    except OSError as reason:
        return f"{path} cannot be opened: {reason.strerror or reason}; check its permissions and the disk."
    return (
        _placeholder(path, start)
        or _foreign(path, start)
        or _missing_half(path)
        or _missing_package(path, start)
        or _wrong_suffix(path, start)
        or _cut_short(path, start)
        or _plain_text(path, start)
        or f"{path} cannot be read as an image: it is damaged, truncated or of another format; copy or convert it "
        "again."
    )


def _start(path: Path) -> bytes:
    with open(path, "rb") as stream:
        return stream.read(512)


def _placeholder(path: Path, start: bytes) -> str | None:
    """Files that stand for the image in a repository or on a web site."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        return f"{path} is a Git LFS pointer and not the image itself; fetch the image (git lfs pull)."
    if text.startswith((b"/annex/objects", b"../.git/annex", b".git/annex")):
        return f"{path} is a git-annex pointer and not the image itself; fetch the image (datalad get, git annex get)."
    if text.startswith((b"<!doctype html", b"<html")) or b"<html" in text:
        return (
            f"{path} is a web page and not an image, as downloads without a login are; download the image itself again."
        )
    if text.startswith((b"<?xml", b"<error")):
        return f"{path} is an XML document and not an image, as failed downloads are; download the image itself again."
    return None


def _foreign(path: Path, start: bytes) -> str | None:
    if path.name.startswith("._") and start[:4] != _SIGNATURES[0][0]:
        return None
    for signature, what, mend in _SIGNATURES:
        if start.startswith(signature):
            return f"{path} cannot be read as an image: it is {what}; {mend}."
    if start[257:262] == b"ustar":
        return f"{path} cannot be read as an image: it is a tar archive; unpack it first."
    return None


def _missing_half(path: Path) -> str | None:
    partner = pair_of(path)
    if partner is None or partner.exists():
        return None
    what = "header" if ".hdr" in partner.name.lower() else "data"
    return f"{path} is one half of an image in two files: its {what} file {partner.name} is missing; copy it beside it."


def _missing_package(path: Path, start: bytes) -> str | None:
    from importlib.util import find_spec

    if start.startswith(_HDF5) and path.name.lower().endswith(".mnc") and find_spec("h5py") is None:
        return (
            f"{path} is a MINC 2 image, which needs the package h5py; install it (pip install h5py), or convert the "
            "image to NIfTI (mnc2nii)."
        )
    return None


def _wrong_suffix(path: Path, start: bytes) -> str | None:
    """A good file under a name that says another format."""
    name = path.name.lower()
    zipped = start.startswith(_GZIP)
    inside = _unzipped_start(path) if zipped else start
    found = next(((what, suffixes) for at, magic, what, suffixes in _FORMATS if inside[at : at + len(magic)] == magic),
                 None)  # fmt: skip
    if found is None:
        if not zipped and name.endswith((".gz", ".mgz")) and not _looks_like_text(start):
            return (
                f"{path} cannot be read as an image: its name says that it is compressed, and it is not; rename it or "
                "copy it again."
            )
        if inside[257:262] == b"ustar":
            return f"{path} cannot be read as an image: it is a compressed tar archive; unpack it first."
        return None
    what, suffixes = found
    if what == "DICOM":
        return f"{path} is a DICOM file under another name; convert the series to NIfTI first (dcm2niix)."
    wanted = tuple(_zipped(suffix) for suffix in suffixes) if zipped else suffixes
    if what == "NIfTI" and name.endswith((".img", ".img.gz")):  # pairs may hold whole files
        return None
    if name.endswith(wanted) and not (not zipped and name.endswith(tuple(_zipped(s) for s in suffixes))):
        return None
    state = f"{what}, compressed by gzip," if zipped else f"{what}, not compressed,"
    return f"{path} is {state} under a name that says otherwise; rename it to end in {wanted[0]}."


def _zipped(suffix: str) -> str:
    return ".mgz" if suffix == ".mgh" else f"{suffix}.gz"


def _unzipped_start(path: Path) -> bytes:
    """The first bytes behind gzip, as far as they can be had."""
    try:
        with open(path, "rb") as stream:
            return zlib.decompressobj(wbits=31).decompress(stream.read(1 << 16), 512)
    except (OSError, zlib.error):
        return b""


def _cut_short(path: Path, start: bytes) -> str | None:
    """Compressed data that end early or do not unpack, and NIfTI files shorter than their header says."""
    there = None
    if start.startswith(_GZIP):
        there = 0
        try:
            with gzip.open(path) as stream:
                while block := stream.read(1 << 20):
                    there += len(block)
        except EOFError:
            return f"{path} is damaged: it is cut short, its compressed data end too early; copy or download it again."
        except (OSError, zlib.error):
            return f"{path} is damaged: its compressed data cannot be unpacked; copy or download it again."
    try:
        needed = _promised(path)
        there = path.stat().st_size if there is None else there
    except Exception:  # a header that makes no sense has no size either
        return None
    if needed is not None and there < needed:
        return (
            f"{path} is damaged: it is cut short, its header promises {needed} bytes and {there} are there; copy or "
            "download it again."
        )
    data = _raw_data(path)
    if data is not None:
        return f"{path} is damaged: {data.name} is shorter than its header promises; copy or download it again."
    return None


def _promised(path: Path) -> int | None:
    """Bytes that a single NIfTI file must have by its header; None for other formats."""
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return None
    from nibabel import Nifti1Header, Nifti2Header
    from nibabel.openers import ImageOpener

    with ImageOpener(str(path)) as stream:
        raw = stream.read(540)
    kind = Nifti2Header if raw[4:7] == b"n+2" else Nifti1Header
    header = kind(raw[: kind.sizeof_hdr], check=False)
    voxels = np.prod(np.array(header.get_data_shape(), dtype=np.float64))
    return int(header["vox_offset"]) + int(voxels) * header.get_data_dtype().itemsize


def _raw_data(path: Path) -> Path | None:
    """A MetaImage's or NRRD's uncompressed data file, or the image itself, that is shorter than the header promises."""
    import SimpleITK

    from .detached import data_files

    if not path.name.lower().endswith((".mha", ".mhd", ".nrrd", ".nhdr")):
        return None
    reader = SimpleITK.ImageFileReader()
    try:
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        files = data_files(path)
    except (RuntimeError, ValueError, OSError):
        return None
    # The header is whole, and the data cannot be read: the data are what is wrong.
    return files[0] if files else path


def _looks_like_text(start: bytes) -> bool:
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\r\n\t" for character in text)


def _plain_text(path: Path, start: bytes) -> str | None:
    if not _looks_like_text(start):
        return None
    return f"{path} cannot be read as an image: it holds text; give the image itself, or copy it again."
