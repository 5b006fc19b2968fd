"""Headers whose voxels lie in other files: NRRD (``.nhdr``), MetaImage (``.mhd``) and the pairs of Analyze and NIfTI.

Such a header names the files to read, and it may come from a stranger: it gets the files beside itself and no others,
no absolute names, no ``..``, no links that lead away, no pipes or devices.
Formats: https://teem.sourceforge.net/nrrd/format.html (section 6); https://itk.org/Wiki/MetaIO/Documentation.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import InputError
from ..files import sha256
from .metaimage import check_header

#: A header longer than this is none.
_LONGEST = 1 << 20
#: More numbered files than this are no head scan.
_MOST_FILES = 10_000
_META = (".mhd", ".mha")
_NUMBER = re.compile(r"^[^%]*%0?\d{0,2}d[^%]*$")
_PAIR = re.compile(r"\.(hdr|img)(\.gz)?$", re.IGNORECASE)


def data_files(path: str | os.PathLike[str]) -> list[Path]:
    """The further files that an image consists of, those that are there; [] for an image in one file."""
    path = Path(path)
    partner = pair_of(path)
    try:
        names = [partner.name] if partner is not None else _names(path) or []
    except (InputError, ValueError):  # reading it says why
        return []
    return [path.with_name(name) for name in names if _plain(name) and path.with_name(name).is_file()]


def data_hashes(path: str | os.PathLike[str]) -> dict[str, dict[str, str]]:
    """``{"data_sha256": {name: hash}}`` of :func:`data_files`, of which the header's own hash says nothing; or {}."""
    files = data_files(path)
    return {"data_sha256": {file.name: sha256(file) for file in files}} if files else {}


def pair_of(path: Path) -> Path | None:
    """The other half of an Analyze or NIfTI pair, there or not: ``.hdr`` to ``.img`` and back; None: no such name."""
    found = _PAIR.search(path.name)
    if found is None:
        return None
    other = {"hdr": "img", "img": "hdr"}[found[1].lower()]
    other = other.upper() if found[1].isupper() else other
    name = f"{path.name[: found.start()]}.{other}"
    # Either half may be compressed.
    candidates = [path.with_name(name + end) for end in (found[2] or "", "", ".gz")]
    return next((candidate for candidate in candidates if candidate.exists()), candidates[0])


def check_data_files(path: Path) -> None:
    """Refuse a header that points anywhere but to whole files beside it.

    Raises:
        InputError: it names an absolute path, another folder, a link that leads away, a pipe or device, or a file that
            is not there.
        ValueError: it is no such header, though its name says so.
    """
    check_text_header(path)
    for name in _names(path) or []:
        if not _plain(name):
            raise InputError(
                f"{path} takes its voxels from {name!r}, and a header may only name files beside itself; put the data "
                "file into the same folder and name it without a folder."
            )
        file = path.with_name(name)
        if not file.exists():
            raise InputError(f"{path} is a header without its data: {file.name} is missing; copy it beside the header.")
        if file.resolve().parent not in (path.parent.resolve(), path.resolve().parent):
            raise InputError(
                f"{path} takes its voxels from {name!r}, which is a link to another folder; copy the data file itself "
                "beside the header."
            )
        if not file.is_file():
            raise InputError(f"{path} takes its voxels from {name!r}, which is no regular file; give the data file.")


def check_text_header(path: Path) -> None:
    """Check the header of a MetaImage, by its name; others pass.

    Raises:
        ValueError: ITK must not see it; in a few words, why.
    """
    if path.name.lower().endswith(_META) and not _is_nrrd(path):
        check_header(_header_lines(path))


def says_orientation(path: Path) -> bool:
    """False for an NRRD without a ``space`` and a MetaImage without a matrix: nobody knows left from right."""
    fields = _fields(path)
    if fields is None:
        return True
    if _is_nrrd(path):
        return "space" in fields
    return bool({"transformmatrix", "rotation", "orientation", "position", "offset", "origin"} & set(fields))


def _plain(name: str) -> bool:
    """True for the name of a file in the same folder."""
    name = name.removeprefix("./")
    return name not in ("", ".", "..", "-") and re.search(r"[/\\\0]|^\w:", name) is None


def _is_nrrd(path: Path) -> bool:
    with open(path, "rb") as stream:
        return stream.read(5) == b"NRRD0"


def _names(path: Path) -> list[str] | None:
    """Files that an NRRD or MetaImage header names; [] if voxels follow in the same file, None for other formats."""
    try:
        nrrd = _is_nrrd(path)
        if not nrrd and not path.name.lower().endswith(_META):
            return None
        lines = _header_lines(path)
    except OSError:
        return None
    return _names_of_nrrd(path, lines) if nrrd else _names_of_meta(path, lines)


def _header_lines(path: Path) -> list[str]:
    with open(path, "rb") as stream:
        text = stream.read(_LONGEST)
    return re.split(r"\r\n|\n|\r", text.decode("utf-8", "surrogateescape"))


def _names_of_nrrd(path: Path, lines: list[str]) -> list[str]:
    names: list[str] = []
    for i, line in enumerate(lines):
        if not line:
            return names
        key, colon, value = line.partition(":")
        if line.startswith("#") or value.startswith("=") or not colon:
            continue
        if re.sub(r"\s", "", key).lower() == "datafile":
            if re.match(r"list\b", value.strip(), re.IGNORECASE):
                return names + [name for name in lines[i + 1 :] if name.strip()]
            names += _expanded(path, value.strip())
    if sum(map(len, lines)) + len(lines) >= _LONGEST:
        raise ValueError("an NRRD header that does not end")
    return names


def _names_of_meta(path: Path, lines: list[str]) -> list[str]:
    for i, line in enumerate(lines):
        found = re.match(r"\s*ElementDataFile\s*[=:]\s*(.*?)\s*$", line, re.IGNORECASE)
        if found is None:
            continue
        if found[1].lower() == "local":
            return []
        if re.match(r"list\b", found[1], re.IGNORECASE):
            return [name.strip() for name in lines[i + 1 :] if name.strip()]
        return _expanded(path, found[1])
    raise ValueError("no MetaImage: its header names no data")


def _expanded(path: Path, value: str) -> list[str]:
    """The names behind ``slice%03d.raw 1 160 1``, or the one name."""
    words = value.split()
    if "%" not in value or len(words) < 3:
        return [value]
    try:
        first, last, *rest = (int(word) for word in words[1:4])
        numbers = range(first, last + 1, rest[0] if rest else 1)
    except ValueError:
        return [value]
    if not _NUMBER.match(words[0]) or len(numbers) > _MOST_FILES:
        raise InputError(f"{path} names its data files by the pattern {value!r}, which is none; export it again.")
    return [words[0] % n for n in numbers]


def _fields(path: Path) -> set[str] | None:
    """Names of the header's fields, lower case; None for formats without such a header."""
    if _names(path) is None:
        return None
    fields = set()
    for line in _header_lines(path):
        key = re.match(r"\s*([A-Za-z][A-Za-z ]*?)\s*[=:]", line)
        if key is not None:
            fields.add(key[1].lower())
        if not line or (key is not None and key[1].lower() == "elementdatafile"):
            break
    return fields
