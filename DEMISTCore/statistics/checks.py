"""Is this a PSR map, in fractions, which file is it, and who made it?"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import sha256
from ..measured.units import FRACTION_LIMIT, PERCENT_LIMIT
from ..schema import read_json
from ..volume import Grid, Volume, as_volume, data_hashes
from ..volume.grid import triple

#: What is said below every figure and table.
RESEARCH_USE = "Research use only, not for clinical use."
#: What is said of a map known to be synthesized whose own statement is lost.
SYNTHESIZED = "Synthesized PSR is a research estimate, not a measurement, and not for clinical use."


def read_map(source: Volume | str | os.PathLike[str], name: str) -> Volume:
    """A PSR or uncertainty map as a float32 volume with a fraction in it; infinite values become NaN.

    Raises:
        InputError: it cannot be read, has no finite value above 0, or is not in fractions.
    """
    volume = as_volume(source, name)
    array = np.asarray(volume.array, np.float32)
    if not np.isfinite(array).all():
        array = np.where(np.isfinite(array), array, np.float32(np.nan))
    volume = volume.with_array(array)
    label = str(volume.path or f"The {name}")
    known = array[np.isfinite(array) & (array != 0)]
    if not np.isfinite(array).any():
        raise InputError(f"{label} holds no finite value; export it again.")
    if not known.size or known.max() <= 0:
        raise InputError(f"{label} holds no value above 0; check that the right file was given.")
    check_fraction(float(np.median(known)), label)
    return volume


def check_fraction(typical: float, label: str) -> None:
    """Refuse a map whose ``typical`` value is no fraction; ``label`` names it.

    Raises:
        InputError: percent, or no PSR at all.
    """
    if typical > PERCENT_LIMIT:
        raise InputError(
            f"{label} is no PSR map: its typical value is {typical:.4g}, where a fraction is about 0.1; "
            "check that the right file was given."
        )
    if typical > FRACTION_LIMIT:
        raise InputError(
            f"{label} seems to be in percent: its typical value is {typical:.3g}, where a fraction is about 0.1; "
            "divide it by 100."
        )


def support(psr: Volume) -> np.ndarray:
    """Where a PSR map has anything to say, (X, Y, Z) bool: not NaN, and not the constant 0 around a brain.

    Zeros that the brain encloses (CSF, or a lesion clipped at 0) belong to it.
    """
    from scipy.ndimage import binary_fill_holes

    return binary_fill_holes(np.isfinite(psr.array) & (psr.array != 0))


def identity(volume: Volume) -> dict[str, Any]:
    """Which file, with what content."""
    if volume.path is not None and Path(volume.path).is_file():
        return {"file": str(volume.path), "sha256": sha256(volume.path), **data_hashes(volume.path)}
    return {"file": None, "shape": list(volume.shape)}


def origin(psr: Volume, provenance: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """What is known of a synthesized map's making, else None: a measured map, or one without a trace.

    Taken from ``provenance``, or from the JSON file beside the map that synthesis writes; if that is lost, from the
    description in a NIfTI header.

    Returns:
        ``statement`` (the sentence for readers), ``simulated`` (trained on simulated PSR, None if unknown), and
        ``bundle``, ``seeds``, ``flair`` (see :func:`flair_place`) and ``warnings`` (sentences of the synthesis) as far
        as they are known.
    """
    made = synthesis(psr, provenance)
    if made is not None:
        return _told(made)
    if provenance is None and psr.path is not None and "DEMIST" in _description(Path(psr.path)):
        return {"statement": SYNTHESIZED, "simulated": None}
    return None


def synthesis(psr: Volume, provenance: Mapping[str, Any] | None = None) -> Mapping[str, Any] | None:
    """A synthesized map's whole provenance: the one given, else that of the sidecar; None if there is none."""
    told = provenance if provenance is not None else None if psr.path is None else _sidecar(Path(psr.path))
    if not isinstance(told, Mapping) or not isinstance(told.get("statement"), str) or "bundle" not in told:
        return None  # a sidecar, but not one of a synthesis: BIDS puts them beside measured maps, too
    return told


def flair_place(origin: Mapping[str, Any] | None) -> tuple[Grid, np.ndarray] | None:
    """The own grid of the FLAIR that a map was synthesized from, and the motion (4, 4; RAS mm) of its registration.

    None if the map's maker did not say, or what is said makes no sense.
    """
    told = (origin or {}).get("flair")
    if not isinstance(told, Mapping):
        return None
    try:
        grid = Grid(triple(told["shape"]), np.asarray(told["affine"], np.float64))
        motion = np.asarray(told["motion_ras_mm"], np.float64)
    except (TypeError, KeyError, ValueError, OverflowError):
        return None
    usable = motion.shape == (4, 4) and np.isfinite(motion).all() and np.isfinite(grid.affine).all()
    return (grid, motion) if usable and abs(np.linalg.det(grid.affine[:3, :3])) > 0 else None


def statement(origin: dict[str, Any] | None) -> str:
    """The sentence below every output: the model's own for a synthesized map, research use for any."""
    if origin is None:
        return RESEARCH_USE
    said = origin["statement"]
    return f"{said} Research use only." if "clinical use" in said else f"{said} {RESEARCH_USE}"


def _sidecar(path: Path) -> Any:
    """What the sidecar of synthesis says: ``psr.json`` beside ``psr.nii.gz``; None if there is none to be read."""
    name = path.name
    for suffix in (".nii.gz", path.suffix):
        if suffix and name.lower().endswith(suffix.lower()):
            name = name[: -len(suffix)]
            break
    try:
        return read_json(path.with_name(name + ".json"))
    except (OSError, ValueError):
        return None


def _told(told: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a synthesis' provenance that belongs to results made from it."""
    bundle, settings = told["bundle"], told.get("settings")
    return {
        "statement": told["statement"],
        "simulated": told.get("simulated"),
        "bundle": {key: bundle.get(key) for key in ("name", "version", "hash")}
        if isinstance(bundle, Mapping)
        else None,
        "seeds": settings.get("seeds") if isinstance(settings, Mapping) else None,
        "flair": told.get("flair"),
        "warnings": [sentence for sentence in told.get("warnings") or () if isinstance(sentence, str)],
    }


def _description(path: Path) -> str:
    """NIfTI's ``descrip``, empty for other formats."""
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return ""
    import nibabel as nib

    try:
        return bytes(nib.load(path).header["descrip"]).decode("utf-8", "replace")
    except (OSError, KeyError, ValueError, nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError):
        return ""
