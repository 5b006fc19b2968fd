"""What a BIDS sidecar tells of a scan's protocol, as numbers that a network can read, each with a flag "missing".

A sidecar (``t1w.json`` beside ``t1w.nii.gz``; BIDS 1.8, units: seconds, degrees, tesla, millimetres) is a help, never a
need: a value that is absent, no number, or absurd counts as missing, and a sentence says so where it was there.

>>> vector, notes = protocol_vector({"RepetitionTime": 2.3, "InversionTime": 0.9}, {})
>>> vector.shape, notes
((24,), [])
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .schema import finite, shown


@dataclass(frozen=True)
class Key:
    """One number of a sidecar: its BIDS name, what is possible at all, and how it is brought to the order of one."""

    name: str
    low: float
    high: float
    unit: str
    centre: float
    log: bool = True

    def scaled(self, value: float) -> float:
        """About zero for the usual, about one for twice as much."""
        return math.log2(value / self.centre) if self.log else (value - self.centre) / self.centre


#: Ranges hold every protocol for brains that is published; beyond them a value is a wrong unit or a slip.
KEYS = (
    Key("RepetitionTime", 0.003, 30.0, "s", 2.0),
    Key("EchoTime", 0.0005, 0.5, "s", 0.01),
    Key("InversionTime", 0.05, 6.0, "s", 1.2),
    Key("FlipAngle", 1.0, 180.0, "degrees", 15.0),
    Key("MagneticFieldStrength", 0.04, 12.0, "T", 2.2),
    Key("SliceThickness", 0.2, 10.0, "mm", 1.5),
)
#: Length of :func:`protocol_vector`: value and flag of each key of T1w and FLAIR.
PROTOCOL_WIDTH = 2 * 2 * len(KEYS)


def sidecar_path(image: str | os.PathLike[str]) -> Path:
    """``a/t1w.nii.gz`` -> ``a/t1w.json``."""
    path = Path(image)
    name = path.name
    for suffix in (".gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".img", ".hdr"):
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
    return path.with_name(f"{name}.json")


def read_sidecar(image: str | os.PathLike[str] | None) -> tuple[dict[str, Any], list[str]]:
    """The JSON sidecar beside an image, and what is wrong with it; empty where there is none.

    A sidecar of DEMIST's own output, of more than a megabyte, or that is no JSON mapping is not read.
    """
    if image is None or not str(image):
        return {}, []
    path = sidecar_path(image)
    try:
        if not path.is_file():
            return {}, []
        if path.stat().st_size > 1 << 20:
            return {}, [f"{path} is too large for a BIDS sidecar and was not read."]
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}, [f"{path} is not a readable JSON sidecar and was not used."]
    if not isinstance(content, dict):
        return {}, [f"{path} is not a BIDS sidecar (no keys) and was not used."]
    return content, []


def protocol_vector(t1w: Mapping[str, Any], flair: Mapping[str, Any]) -> tuple[np.ndarray, list[str]]:
    """Numbers for the network from two sidecars' content, float32 (:data:`PROTOCOL_WIDTH`,), and what was ignored.

    Per image and key (scaled value, 1), or (0, 0) where it is missing. Two scans of one session have one field
    strength: where the sidecars contradict each other, it counts as missing in both.
    """
    notes: list[str] = []
    read = [
        {key.name: _value(content, key, what, notes) for key in KEYS}
        for content, what in ((t1w, "T1w"), (flair, "FLAIR"))
    ]
    fields = [values["MagneticFieldStrength"] for values in read]
    if fields[0] is not None and fields[1] is not None and abs(fields[0] - fields[1]) > 0.2:
        notes.append(
            f"The sidecars contradict each other on the field strength (T1w {fields[0]:g} T, FLAIR {fields[1]:g} T); "
            "it is ignored."
        )
        for values in read:
            values["MagneticFieldStrength"] = None
    pairs = [
        (0.0, 0.0) if (value := values[key.name]) is None else (key.scaled(value), 1.0)
        for values in read
        for key in KEYS
    ]
    return np.array(pairs, np.float32).ravel(), notes


def read_protocol(
    t1w: str | os.PathLike[str] | None, flair: str | os.PathLike[str] | None
) -> tuple[np.ndarray, list[str]]:
    """:func:`protocol_vector` of the sidecars beside two images.

    Shape (:data:`PROTOCOL_WIDTH`,), without units, and what was ignored.
    """
    (first, notes), (second, more) = read_sidecar(t1w), read_sidecar(flair)
    vector, ignored = protocol_vector(first, second)
    return vector, [*notes, *more, *ignored]


def known_keys(vector: np.ndarray) -> dict[str, list[str]]:
    """Which keys of a :func:`protocol_vector` are known, by image.

    ``vector`` has the shape (:data:`PROTOCOL_WIDTH`,).

    >>> known_keys(protocol_vector({"FlipAngle": 9}, {})[0])
    {'T1w': ['FlipAngle'], 'FLAIR': []}
    """
    flags = np.asarray(vector).reshape(2, len(KEYS), 2)[..., 1] > 0
    return {what: [key.name for key, on in zip(KEYS, row) if on] for what, row in zip(("T1w", "FLAIR"), flags)}


def _value(content: Mapping[str, Any], key: Key, what: str, notes: list[str]) -> float | None:
    value = content.get(key.name)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None:
        return None
    if not finite(value):
        notes.append(f"The {what}'s sidecar gives {key.name} as {shown(value)}, which is no number; it is ignored.")
        return None
    if value == 0:  # how converters write "none", as the inversion time of a spin echo
        return None
    if not key.low <= value <= key.high:
        notes.append(
            f"The {what}'s sidecar gives {key.name} as {value:g} {key.unit}, which no brain scan has; it is ignored."
        )
        return None
    return float(value)
