"""Where anatomies come from: the ICBM-152 templates inside nilearn's wheel, or FreeSurfer-numbered label maps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import file_of_package, is_hidden
from ..volume import Grid, Volume
from ..volume.grid import triple
from .tissues import CLASS_INDEX, class_map

TEMPLATE = "icbm152"


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A head as class indices (X, Y, Z) uint8 on a 1 mm RAS grid, with where it came from."""

    classes: np.ndarray
    affine: np.ndarray
    name: str


def list_anatomies(source: str | Path = TEMPLATE) -> list[str]:
    """Names of the anatomies of ``source``: ``"icbm152"``, a label map, or a folder of label maps (sorted).

    Raises:
        InputError: the folder does not exist or holds no NIfTI or MGZ file.
    """
    if str(source) == TEMPLATE:
        return [TEMPLATE]
    path = Path(source)
    if path.is_file():
        return [str(path)]
    if not path.is_dir():
        raise InputError(
            f"No label maps at {path}: give a folder of FreeSurfer-numbered .nii.gz files or '{TEMPLATE}'."
        )
    found = sorted(str(p) for p in path.iterdir() if p.name.endswith((".nii", ".nii.gz", ".mgz")) and not is_hidden(p))
    if not found:
        raise InputError(f"{path} holds no .nii, .nii.gz or .mgz file; give a folder of label maps or '{TEMPLATE}'.")
    return found


def load_anatomy(name: str) -> Anatomy:
    """Load one anatomy by a name from :func:`list_anatomies`; label maps come to 1 mm RAS.

    Raises:
        InputError: the map cannot be read or holds no brain labels.
    """
    if name == TEMPLATE:
        return _template()
    return _label_map(name)


@lru_cache(maxsize=2)
def _label_map(name: str) -> Anatomy:
    volume = Volume.read(name).reoriented("RAS")
    if not np.allclose(volume.spacing, 1.0, atol=0.01):
        volume = volume.resampled_to(_isotropic(volume), order="nearest")
    classes = class_map(np.rint(volume.array))
    if np.count_nonzero(classes == CLASS_INDEX["white matter"]) < 10_000:
        raise InputError(f"{name} has no white matter (FreeSurfer labels 2 and 41); give a whole-brain label map.")
    return Anatomy(classes, volume.affine, Path(name).name)


def _isotropic(volume: Volume) -> Grid:
    spacing = np.asarray(volume.spacing)
    shape = triple(np.ceil(np.asarray(volume.shape) * spacing))
    affine = volume.affine.copy()
    affine[:3, :3] = affine[:3, :3] / spacing
    return Grid(shape, affine)


def _in_nilearn(kind: str) -> Path:
    """A template's file; nilearn itself, which takes seconds to load, is not needed."""
    path = file_of_package("nilearn", "datasets", "data", f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz")
    if path is None:
        raise InputError(
            "The ICBM-152 anatomy needs nilearn: pip install 'demist[simulate]', or give a folder of label maps."
        )
    return path


@lru_cache(maxsize=1)
def _template() -> Anatomy:
    """ICBM-152 2009a symmetric (Fonov et al., NeuroImage 54:313, 2011): tissue maps split by MNI position.

    The templates give grey- and white-matter probabilities only. Deep grey nuclei, cerebellum, brainstem and
    ventricles are told apart by boxes in MNI millimetres (extents from the Talairach and Tournoux atlas), and a
    skull is laid around the brain as shells of typical thickness.
    """
    from scipy.ndimage import binary_closing, binary_fill_holes, distance_transform_edt

    grey, white, t1 = (Volume.read(_in_nilearn(kind)).reoriented("RAS") for kind in ("gm", "wm", "t1"))
    g, w = grey.array / 255.0, white.array / 255.0
    mask = binary_fill_holes(binary_closing((g + w) > 0.3, iterations=4) | (t1.array > 0))
    csf = np.clip(1 - g - w, 0, 1)
    kind = np.argmax(np.stack([csf, g, w]), 0)
    x, y, z = (
        grey.affine[axis, axis] * np.arange(n).reshape([-1 if k == axis else 1 for k in range(3)])
        + grey.affine[axis, 3]
        for axis, n in enumerate(grey.shape)
    )
    ax = np.abs(x)
    depth = distance_transform_edt(mask)
    below_tentorium = (z < -14 - 0.45 * (y + 45)) & (y < -36)
    boxes = [
        ("thalamus", (ax < 22) & (y > -34) & (y < 2) & (z > -2) & (z < 18)),
        ("caudate", (ax < 21) & (y > -2) & (y < 26) & (z > -6) & (z < 24) & (ax > 4)),
        ("pallidum", (ax > 11) & (ax < 23) & (y > -12) & (y < 8) & (z > -6) & (z < 6)),
        ("putamen", (ax > 17) & (ax < 35) & (y > -20) & (y < 20) & (z > -10) & (z < 14)),
        ("hippocampus", (ax > 14) & (ax < 36) & (y > -40) & (y < -6) & (z > -26) & (z < -6)),
        ("amygdala and accumbens", (ax > 12) & (ax < 32) & (y > -8) & (y < 4) & (z > -26) & (z < -12)),
    ]
    classes = np.zeros(grey.shape, np.uint8)
    classes[mask] = CLASS_INDEX["outer CSF"]
    classes[mask & (kind == 2)] = CLASS_INDEX["white matter"]
    classes[mask & (kind == 1)] = CLASS_INDEX["cortex"]
    for name, box in reversed(boxes):
        classes[(classes == CLASS_INDEX["cortex"]) & box & (depth > 18)] = CLASS_INDEX[name]
    classes[(classes == CLASS_INDEX["cortex"]) & below_tentorium] = CLASS_INDEX["cerebellar cortex"]
    classes[(classes == CLASS_INDEX["white matter"]) & below_tentorium] = CLASS_INDEX["cerebellar white matter"]
    stem = (ax < 17) & (y < -8) & (y > -46) & (z < -12) & np.isin(kind, (1, 2)) & mask & (depth > 1)
    classes[stem & (z < -18)] = CLASS_INDEX["brainstem"]
    inner = (depth > 14) & (ax < 38) & (y > -62) & (y < 40) & (z > -22) & (z < 34)
    classes[(classes == CLASS_INDEX["outer CSF"]) & inner] = CLASS_INDEX["ventricle"]
    pad = 20
    classes = np.pad(classes, pad)
    affine = grey.affine.copy()
    affine[:3, 3] = (grey.affine @ np.array([-pad, -pad, -pad, 1.0]))[:3]
    outside = distance_transform_edt(classes == 0).astype(np.float32)
    shells = (("outer CSF", 2.5), ("bone", 8.5), ("soft tissue", 13.0), ("skin", 15.0))
    start = 0.0
    for name, end in shells:
        classes[(outside > start) & (outside <= end)] = CLASS_INDEX[name]
        start = end
    return Anatomy(classes, affine, TEMPLATE)
