"""Why a file cannot be read, and what to do about it: the cause found in the file itself, not guessed from an error."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .detached import pair_of

#: How files of other sorts begin, with what they are and the fix.
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
    """One sentence with cause and fix for an image that ``error`` kept from being read."""
    try:
        start = _start(path)
    except OSError as reason:
        return f"{path} cannot be opened: {reason.strerror or reason}; check its permissions and the disk."
    return (
        _placeholder(path, start)
        or _foreign(path, start)
        or _missing_half(path)
        or _missing_package(path, start)
        or _minc2(path, start)
        or _wrong_suffix(path, start)
        or _bad_header(path, start)
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
    for signature, what, fix in _SIGNATURES:
        if start.startswith(signature):
            return f"{path} cannot be read as an image: it is {what}; {fix}."
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


def _minc2(path: Path, start: bytes) -> str | None:
    """What keeps HDF5 under a name of MINC from being an image."""
    if not start.startswith(_HDF5) or not path.name.lower().endswith(".mnc"):
        return None
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if file.get("minc-2.0/image/0/image") is None:
                return (
                    f"{path} is HDF5 and no MINC 2 image (it has no minc-2.0/image/0/image); give the image itself, as "
                    "NIfTI for instance."
                )
            axes = [axis.attrs.get("spacing") for axis in file["minc-2.0/dimensions"].values()]
    except Exception:  # damaged HDF5 draws errors of a dozen kinds
        return _damaged(path, "its HDF5 structure cannot be read")
    if any(isinstance(spacing, (str, bytes)) and spacing[:9] in ("irregular", b"irregular") for spacing in axes):
        return f"{path} has slices at irregular distances; resample it to even ones (mincresample) or convert it."
    return None


def _wrong_suffix(path: Path, start: bytes) -> str | None:
    """A good file under a name that says another format."""
    name = path.name.lower()
    zipped = start.startswith(_GZIP)
    inside = _unzipped_start(path) if zipped else start
    found = next(
        ((what, suffixes) for at, magic, what, suffixes in _FORMATS if inside[at : at + len(magic)] == magic), None
    )
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
    if what.startswith("HDF5") and not name.endswith(".mnc"):
        return f"{path} is an HDF5 file, of which only MINC 2 (.mnc) is read; convert the image to NIfTI."
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


def _bad_header(path: Path, start: bytes) -> str | None:
    """A text header that is not let through to ITK."""
    from .detached import check_text_header

    if not _looks_like_text(start[:12]):
        return None
    try:
        check_text_header(path)
    except (ValueError, OSError) as reason:
        if start.startswith((b"ObjectType", b"NDims", b"NRRD0")):
            return f"{path} cannot be read as an image: its header is damaged ({reason}); copy or export it again."
    return None


def _cut_short(path: Path, start: bytes) -> str | None:
    """Compressed data that end early or do not unpack, and files shorter than their header says."""
    if start.startswith(_GZIP):
        return damaged_gzip(path)
    if start[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c") and path.stat().st_size < 348:
        return _damaged(path, "cut short: not even its header is whole")
    try:
        image = _opened(path)
        proxy, file = image.dataobj, Path(image.file_map["image"].filename)
        needed = int(proxy.offset) + int(np.prod(np.array(proxy.shape, np.float64))) * proxy.dtype.itemsize
        there = file.stat().st_size
    except Exception:  # a header that makes no sense has no size either
        needed = there = 0
    if there < needed:
        return _damaged(path, f"cut short: its header promises {needed} bytes and {there} are there")
    data = _raw_data(path)
    return None if data is None else _damaged(path, f"cut short: {data.name} does not hold what the header promises")


def _opened(path: Path) -> Any:
    import nibabel as nib

    return nib.load(path)


def damaged_gzip(path: Path) -> str | None:
    """The sentence on a file compressed by gzip that is cut short or fails its check sum (RFC 1952); None: it is whole.

    Whoever reads as many bytes as an image needs does not get to the check sum, and takes flipped bits for voxels.
    """
    decoder, members, fresh = zlib.decompressobj(wbits=31), 0, True
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            while block:
                try:
                    decoder.decompress(block, 1 << 24)  # in pieces: a small file may hold much
                except zlib.error:
                    if members and fresh:  # padding behind the image
                        return None
                    return _damaged(path, "its compressed data cannot be unpacked")
                if decoder.eof:
                    block = decoder.unused_data.lstrip(b"\0")
                    decoder, members, fresh = zlib.decompressobj(wbits=31), members + 1, True
                else:
                    block, fresh = decoder.unconsumed_tail, False
    if members and fresh:
        return None
    return _damaged(path, "cut short: its compressed data end too early")


def _damaged(path: Path, how: str) -> str:
    return f"{path} cannot be read as an image: it is damaged ({how}); copy or download it again."


def _raw_data(path: Path) -> Path | None:
    """A MetaImage's or NRRD's uncompressed data file, or the image itself, that is shorter than the header promises."""
    import SimpleITK

    from .detached import check_data_files, data_files

    if not path.name.lower().endswith((".mha", ".mhd", ".nrrd", ".nhdr")):
        return None
    reader = SimpleITK.ImageFileReader()
    try:
        check_data_files(path)
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        files = data_files(path)
    except (RuntimeError, ValueError, OSError, InputError):
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
    if start.startswith((b"NRRD", b"ObjectType", b"NDims")):
        return f"{path} cannot be read as an image: its header is damaged or incomplete; copy or export it again."
    return f"{path} cannot be read as an image: it holds text; give the image itself, or copy it again."
