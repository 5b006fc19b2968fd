"""From an anatomy's classes to what is warped, and from the warped maps to compartments, brain mask and labels."""

from __future__ import annotations

import numpy as np

from ..labels import CSF, GREY, WHITE
from . import shifted_tissue as shifted
from .anatomy import Anatomy
from .tissues import CLASS_INDEX, CLASSES, EXTRA

MARGIN = 12  # mm of background kept around the head or brain


def crop(anatomy: Anatomy, skull: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Crop to head or brain with a margin; without skull, drop extra-cerebral classes.

    Both (X, Y, Z); the affine (4, 4) in mm.

    Returns:
        Classes, where dura and sinuses were (bool), and the affine.
    """
    classes = anatomy.classes
    compartments = np.array([tissue.compartment for tissue in CLASSES])
    inside = compartments[classes] != EXTRA
    cerebral = inside & (classes > 0) & (classes != CLASS_INDEX["outer CSF"])
    where = np.argwhere(classes > 0) if skull else np.argwhere(cerebral)
    low = np.maximum(where.min(0) - MARGIN, 0)
    high = np.minimum(where.max(0) + 1 + MARGIN, classes.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high))
    cropped = classes[box].copy()
    sinus = cropped == CLASS_INDEX["dura and sinuses"]
    if not skull:
        cropped[~inside[box]] = 0
    affine = anatomy.affine.copy()
    affine[:3, 3] = (anatomy.affine @ np.append(low, 1.0))[:3]
    return cropped, sinus, affine


def channels(
    classes: np.ndarray, rng: np.random.Generator, parameters: dict, physics: str = "standard"
) -> tuple[np.ndarray, dict[str, int]]:
    """Everything that has to be warped, one channel each; tissue means are drawn here, per subject.

    ``classes`` (X, Y, Z), indices into CLASSES. Returns (C, X, Y, Z) float32 (PSR as fraction, R2 in 1/s), and the
    place of each channel by its name.
    """
    # Between-subject spread: SD 1.2/11.4 in white and 0.7/7.5 in grey matter (Dortch 2011), the larger part of it
    # shared by all tissues (myelination and B1/calibration scale together).
    (psr_sd, psr_own), (r2_sd, r2_own), mean = (0.055, 0.045), (0.04, 0.015), {WHITE: 1.0, GREY: 1.0}
    if physics == "shifted":
        psr_sd, psr_own, r2_sd, r2_own = *shifted.PSR_SPREAD, *shifted.R2_SPREAD
        mean = dict(zip((WHITE, GREY), shifted.PSR_SHIFT))
    shared = rng.normal(1.0, psr_sd)
    solid = [t for t in CLASSES if t.compartment in mean]
    drawn = {t.name: float(t.psr * mean[t.compartment] * shared * rng.normal(1.0, psr_own)) for t in solid}
    # R2 differs between people mostly as a whole; were classes independent, cortices would differ visibly in FLAIR.
    r2_shared = rng.normal(1.0, r2_sd)
    rate = {t.name: float(t.r2 * r2_shared * rng.normal(1.0, r2_own)) for t in solid}
    density = {t.name: float(t.pd * rng.normal(1.0, 0.02)) for t in solid}
    parameters["psr_means"] = {name: round(value, 5) for name, value in drawn.items()}

    def table(values: dict[str, float], compartment: int) -> np.ndarray:
        return np.array([values.get(t.name, 0.0) if t.compartment == compartment else 0.0 for t in CLASSES], np.float32)

    def share(*names: str) -> np.ndarray:
        return np.array([t.name in names for t in CLASSES], np.float32)

    compartment = np.array([t.compartment for t in CLASSES])
    tables = {
        "white": (compartment == WHITE).astype(np.float32),
        "grey": (compartment == GREY).astype(np.float32),
        "csf": (compartment == CSF).astype(np.float32),
        "ventricle": share("ventricle", "choroid plexus"),
        "choroid": share("choroid plexus"),
        "cortex": share("cortex"),
        "cerebrum": share("white matter"),
        "psr white": table(drawn, WHITE),
        "psr grey": table(drawn, GREY),
        "r2 white": table(rate, WHITE),
        "r2 grey": table(rate, GREY),
        "pd white": table(density, WHITE),
        "pd grey": table(density, GREY),
        "deep grey": np.array([t.dseg == 4 for t in CLASSES], np.float32),
        "cerebellar grey": share("cerebellar cortex"),
        "cerebellar white": share("cerebellar white matter"),
        "brainstem": np.array([t.dseg == 7 for t in CLASSES], np.float32),
    }
    present = [i for i in np.unique(classes) if CLASSES[i].compartment == EXTRA]
    for index in present:
        tables[f"extra {index}"] = (np.arange(len(CLASSES)) == index).astype(np.float32)
    layout = {name: position for position, name in enumerate(tables)}
    channels = np.empty((len(tables), *classes.shape), np.float32)
    for target, values in zip(channels, tables.values()):
        np.take(values, classes, out=target, mode="clip")  # "clip" spares a copy; every class is in the table
    return channels, layout


def fractions(
    maps: dict[str, np.ndarray], rng: np.random.Generator, physics: str = "standard"
) -> dict[int, np.ndarray]:
    """Partial volumes: the warped one-hot maps, blurred a little, because real borders do not follow voxel faces."""
    from scipy.ndimage import gaussian_filter

    sigma = rng.uniform(0.35, 0.6)

    def blur(values: np.ndarray) -> np.ndarray:
        if physics == "shifted":
            return shifted.box_blur(values, 1 + 2 * sigma)
        return gaussian_filter(values, sigma, truncate=3)

    extras = [name for name in maps if name.startswith("extra ")]
    result = {key: blur(maps[name]) for key, name in ((WHITE, "white"), (GREY, "grey"), (CSF, "csf"))}
    if extras:
        stack = np.stack([maps[name] for name in extras])
        winner = np.array([int(name.split()[1]) for name in extras], np.uint8)[stack.argmax(0)]
        total = stack.sum(0)
        maps["extra class"] = np.where(total > 0.05, winner, 0).astype(np.uint8)
        result[EXTRA] = blur(total)
        for name in extras:
            del maps[name]
    else:
        maps["extra class"] = np.zeros(maps["white"].shape, np.uint8)
        result[EXTRA] = np.zeros(maps["white"].shape, np.float32)
    return result


def brain_mask(tissue: np.ndarray, ventricle: np.ndarray) -> np.ndarray:
    """Brain as extraction tools cut it: tissue, ventricles and the sulcal CSF between them (bool).

    (X, Y, Z), fractions.
    """
    from scipy.ndimage import binary_closing, binary_fill_holes, label

    solid = (tissue + ventricle) > 0.4
    components, count = label(solid)
    if count > 1:
        solid = components == (np.bincount(components.ravel())[1:].argmax() + 1)
    padded = np.pad(solid, 6)
    closed = binary_closing(padded, iterations=4)[6:-6, 6:-6, 6:-6]
    return binary_fill_holes(closed | solid)


def distance_outside(mask: np.ndarray) -> np.ndarray:
    """Distance to ``mask`` in mm, float32 (1 mm voxels). (X, Y, Z)."""
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(~mask).astype(np.float32)


def distances(ventricle: np.ndarray, cortex: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances in mm to ventricles and cortex, from a 2 mm grid (they only weigh probabilities and gradients).

    (X, Y, Z) all.
    """
    from scipy.ndimage import distance_transform_edt

    def distance(mask: np.ndarray) -> np.ndarray:
        coarse = distance_transform_edt(~mask[::2, ::2, ::2], sampling=2.0).astype(np.float32)
        import torch

        tensor = torch.from_numpy(coarse)[None, None]
        size = mask.shape
        return torch.nn.functional.interpolate(tensor, size=size, mode="trilinear", align_corners=True)[0, 0].numpy()

    return distance(ventricle > 0.5), distance(cortex > 0.5)


def labels(fractions: dict, maps: dict, brain: np.ndarray) -> np.ndarray:
    """Hard labels without lesions: the largest compartment, split by where it is; 0 outside the brain mask.

    (X, Y, Z), uint8 (:mod:`DEMISTCore.labels`).
    """
    parts = np.stack([fractions[CSF], fractions[GREY], fractions[WHITE]])
    dseg = np.array([1, 2, 3], np.uint8)[parts.argmax(0)]
    dseg[(dseg == 2) & (maps["deep grey"] > 0.3)] = 4
    dseg[(dseg == 2) & (maps["cerebellar grey"] > 0.3)] = 6
    dseg[(dseg == 2) & (maps["choroid"] > 0.3)] = 1
    dseg[(dseg == 3) & (maps["brainstem"] > 0.5)] = 7
    return np.where(brain, dseg, 0).astype(np.uint8)
