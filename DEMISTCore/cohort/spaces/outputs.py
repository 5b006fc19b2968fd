"""What is written of a session in another space: map, uncertainty, masks, transforms, and a picture to judge by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...files import write_json
from ...preview import save_figure
from ...volume import Grid, Order, Volume, from_sitk
from ...volume.itk import image_at, to_sitk
from .. import records
from ..pictures import registration
from ..writer import Writer, results
from .registration import match
from .templates import FLAIR, load_template
from .xfm import rigid_text, write_h5

if TYPE_CHECKING:
    from ...preprocess import Prepared
    from ..stages import Job

#: What goes there: name, and how values between voxels are had.
_IMAGES = {
    "desc-demist_PSRmap": "map",
    "desc-demist_PSRuncertainty": "map",
    "desc-brain_mask": "mask",
    "desc-regions_dseg": "labels",
    "desc-lesions_dseg": "labels",
    "label-lesion_mask": "labels",
}
#: A linear interpolation of ones below this is no brain.
_SEEN = 0.5

Carry = Callable[[Volume, Order], np.ndarray]


def make(job: Job, images: Callable[[Job], Prepared]) -> None:
    """Write what the session has in each of ``job.options.spaces``.

    Args:
        job: with map (and regions) made.
        images: gives the images as the model saw them.

    Raises:
        InputError: a template cannot be had, or a result cannot be written.
    """
    with results(job.places, "spaces", job.keys["spaces"]) as at:
        for space in job.options.spaces:
            if space == FLAIR:
                _to_flair(job, at)
            else:
                _to_template(job, images(job), space, at)


def _to_flair(job: Job, at: Writer) -> None:
    """On the FLAIR's own grid: the map's voxels are moved to where the FLAIR was scanned, and resampled once."""
    told = records.read(job.places.anat("desc-demist_PSRmap.json")).get("flair") or {}
    motion = np.asarray(told.get("motion_ras_mm", np.eye(4)), float)
    back = np.linalg.inv(motion)
    _, flair = job.session.pair
    grid = Volume.read(flair).grid

    def carry(volume: Volume, order: Order) -> np.ndarray:
        return Volume(volume.array, back @ volume.affine).resampled_to(grid, order).array

    reference = job.session.told(flair)
    _carried(job, FLAIR, grid, carry, at, {"SpatialReference": reference})
    way = at(job.places.anat("from-T1w_to-FLAIR_mode-image_xfm.txt"))
    way.write_text(rigid_text(back), encoding="ascii")


def _to_template(job: Job, prepared: Prepared, space: str, at: Writer) -> None:
    import SimpleITK

    template = load_template(space, job.options.templates)
    grid = template.image.grid
    found = match(prepared.t1w, prepared.mask, template)
    at.warnings += [sentence.replace("the template", space) for sentence in found.warnings]
    forward = found.forward()
    reference = to_sitk(template.image)

    def carry(volume: Volume, order: Order) -> np.ndarray:
        kind = SimpleITK.sitkNearestNeighbor if order == "nearest" else SimpleITK.sitkLinear
        image = image_at(volume, volume.affine)
        return from_sitk(SimpleITK.Resample(image, reference, forward, kind, 0.0)).resampled_to(grid, "nearest").array

    told = {
        "Overlap": round(found.overlap, 4),
        "Correlation": round(found.correlation, 4),
        "SmallestJacobian": round(found.smallest, 4),
    }
    _carried(job, space, grid, carry, at, {"SpatialReference": template.named, "Registration": told})
    for name, way in ((f"from-T1w_to-{space}", forward), (f"from-{space}_to-T1w", found.backward())):
        write_h5(way, at(job.places.anat(f"{name}_mode-image_xfm.h5")))
        about = {"Description": "ITK: takes points of the target to points of the source (LPS mm).", **told}
        write_json(at(job.places.anat(f"{name}_mode-image_xfm.json")), about)
    warped = carry(prepared.t1w, "linear")
    shown = [Volume(_to_one(array), grid.affine) for array in (template.image.array, warped)]
    figure = registration(shown[0], shown[1], template.mask, (space, "T1w"))
    save_figure(figure, at(job.places.figure(f"space-{space}_desc-registration_T1w")))


def _carried(job: Job, space: str, grid: Grid, carry: Carry, at: Writer, told: Mapping[str, Any]) -> None:
    """Every image of the session in another space, with its sidecar."""
    places = job.places
    brain = Volume.read(places.anat("desc-brain_mask.nii.gz"))
    weight = carry(brain.with_array((brain.array > 0).astype(np.float32)), "linear")
    inside = weight >= _SEEN
    for name, kind in _IMAGES.items():
        path = places.anat(f"{name}.nii.gz")
        if not path.is_file():
            continue
        volume = Volume.read(path, dtype=None if kind == "labels" else np.float32)
        if kind == "mask":
            array = inside.astype(np.uint8)
        elif kind == "labels":
            array = carry(volume, "nearest")
        else:  # a mean over the brain's voxels alone: zeros outside must not dilute its rim
            values = carry(volume.with_array(volume.array * (brain.array > 0)), "linear")
            array = np.where(inside, values / np.maximum(weight, _SEEN), 0).astype(np.float32)
        final = places.anat(f"space-{space}_{name}.nii.gz")
        grid.volume(array).write(at(final), description=f"{name} in {space}")
        about = {"Description": f"{name} in the space {space}", "Sources": [_uri(places.out, path)], **told}
        if kind == "map":
            about["Units"] = "fraction"
        if kind == "mask" or name == "label-lesion_mask":
            about["Type"] = "Brain" if kind == "mask" else "Lesion"
        write_json(at(final.with_name(final.name.replace(".nii.gz", ".json"))), about)


def _to_one(array: np.ndarray) -> np.ndarray:
    top = np.percentile(array[array > 0], 99) if (array > 0).any() else 1.0
    return np.clip(array / top, 0, 1).astype(np.float32)


def _uri(out: Path, path: Path) -> str:
    return f"bids::{path.relative_to(out).as_posix()}"
