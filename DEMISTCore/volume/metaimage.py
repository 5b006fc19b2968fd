"""MetaImage headers, checked before ITK reads them: its reader trusts counts and lengths, and writes beyond its arrays.

A header may come from a stranger. What is let through has as many numbers as its dimensions ask for, known types and
short texts. Format: https://itk.org/Wiki/MetaIO/Documentation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

#: ITK's reader has room for so many dimensions, and for texts of so many letters in fields that it knows and others
#: (SimpleITK writes what DICOM said, as in ``0008|0060 = MR``).
_DIMENSIONS, _LETTERS, _LONGEST = 10, 250, 4000
#: Nobody has more voxels along an axis, or more of them in all.
_SIDE, _VOXELS = 1 << 24, 1 << 40
_TYPES = frozenset(
    f"met_{name}"
    for name in (
        "char",
        "uchar",
        "short",
        "ushort",
        "int",
        "uint",
        "long",
        "ulong",
        "long_long",
        "ulong_long",
        "float",
        "double",
        "ascii_char",
    )
)
#: How many numbers a field holds: of the dimensions, of their square.
_VECTORS = frozenset(("dimsize", "elementspacing", "elementsize", "offset", "position", "origin", "centerofrotation"))
_MATRICES = frozenset(("transformmatrix", "rotation", "orientation"))
_WHOLE = frozenset(
    (
        "ndims",
        "dimsize",
        "headersize",
        "elementnumberofchannels",
        "compresseddatasize",
        "id",
        "parentid",
        "compressionlevel",
    )
)
_TEXTS = frozenset(
    (
        "objecttype",
        "objectsubtype",
        "transformtype",
        "name",
        "comment",
        "acquisitiondate",
        "modality",
        "anatomicalorientation",
        "elementtype",
        "distanceunits",
        "color",
        "elementdatafile",
    )
)
_FLAGS = frozenset(("binarydata", "binarydatabyteordermsb", "elementbyteordermsb", "compresseddata"))


def check_header(lines: Sequence[str]) -> None:
    """Check the header of a MetaImage, line by line up to the name of its data.

    Args:
        lines: of the file, as text; those of the voxels behind it are not looked at.

    Raises:
        ValueError: what is wrong with it, in a few words.
    """
    fields: dict[str, str] = {}
    for line in lines:
        name, sign, value = line.partition("=")
        if not sign:
            name, sign, value = line.partition(":")
        name, value = name.strip(), value.strip()
        if not name and not value:
            continue
        if not sign or not 0 < len(name) <= _LETTERS or len(value) > _LONGEST:
            raise ValueError("a line of it is no name with a value, or too long")
        key = name.lower()
        if key in fields:
            raise ValueError(f"it has {name} twice")
        if key in _TEXTS and len(value) > _LETTERS:
            raise ValueError(f"{name} is too long")
        fields[key] = value
        if key == "elementdatafile":
            break
    count = _numbers(fields, "ndims", 1)
    dimensions = int(count[0])
    if not 1 <= dimensions <= _DIMENSIONS:
        raise ValueError(f"NDims must be 1 to {_DIMENSIONS}")
    for key in sorted(_VECTORS & set(fields)):
        _numbers(fields, key, dimensions)
    for key in sorted(_MATRICES & set(fields)):
        _numbers(fields, key, dimensions * dimensions)
    sizes = _numbers(fields, "dimsize", dimensions)
    if min(sizes) < 1 or max(sizes) > _SIDE or math.prod(sizes) > _VOXELS:
        raise ValueError("DimSize must be whole numbers above 0, and voxels that there can be")
    for key in sorted(_WHOLE & set(fields) - {"ndims", "dimsize"}):
        _numbers(fields, key, 1)
    channels = int(_numbers(fields, "elementnumberofchannels", 1)[0]) if "elementnumberofchannels" in fields else 1
    if not 1 <= channels <= 1024:
        raise ValueError("ElementNumberOfChannels must be 1 to 1024")
    if fields.get("elementtype", "").lower() not in _TYPES:
        raise ValueError("ElementType is none that is known")
    if len(fields.get("anatomicalorientation", "")) > _DIMENSIONS:
        raise ValueError("AnatomicalOrientation is too long")
    for key in sorted(_FLAGS & set(fields)):
        if not re.fullmatch("true|false|0|1|t|f|yes|no", fields[key].lower()):
            raise ValueError(f"{key} must be True or False")


def _numbers(fields: dict[str, str], key: str, count: int) -> list[float]:
    """As many finite numbers as there must be.

    Raises:
        ValueError: there are others.
    """
    kind = int if key in _WHOLE else float
    try:
        found = [kind(word) for word in fields.get(key, "").split()]
    except ValueError:
        found = []
    if len(found) != count or not all(abs(number) < 1e18 for number in found):
        raise ValueError(f"{key} must hold {count} number{'s' if count > 1 else ''}")
    return found
