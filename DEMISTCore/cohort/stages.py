"""What is made of a session: the map, regions and tables, the report. Each from files, each put in place whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ..files import write_json
from ..schema import read_json
from . import handoff, records
from .names import SessionPaths
from .options import Options
from .session import Session
from .spaces.xfm import rigid_text
from .writer import results

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..preprocess import Prepared

#: Tissue is not segmented on a grid coarser than this (mm).
_FINE = 1.1


@dataclass
class Job:
    """A session at work.

    Attributes:
        session, options, places: what, how, and where to.
        keys: by stage.
        protocol: content of the sidecars, by image.
        notes: sentences about the choice of files and their sidecars.
        bundle: gives the model, warm.
        prepared: the images as the map's model saw them, once they are.
    """

    session: Session
    options: Options
    places: SessionPaths
    keys: Mapping[str, str]
    protocol: Mapping[str, Mapping[str, Any]]
    notes: list[str]
    bundle: Callable[[], Bundle]
    prepared: Prepared | None = field(default=None, repr=False)


def make_prepared(job: Job) -> None:
    """The images as the model sees them, for another worker."""
    with results(job.places, "prepare", job.keys["prepare"]) as at:
        handoff.save(images(job), at(job.places.handoff))


def make_map(job: Job) -> None:
    """PSR map, its uncertainty, brain mask, the way from the FLAIR to the T1w, two pictures."""
    from ..preview import save_figure
    from ..synthesis import Reuse, draw, synthesize
    from .pictures import registration

    session, options, places = job.session, job.options, job.places
    t1w, flair = session.pair
    reuse = Reuse()
    if (prepared := _handed_over(job)) is not None:
        reuse.adopt(prepared)
    result = synthesize(
        t1w,
        flair,
        bundle=job.bundle(),
        mode=options.mode,
        seeds=options.seeds,
        steps=options.steps,
        sampler=options.sampler,
        protocol=job.protocol,
        device=options.device,
        precision=options.precision,
        brain_mask=session.brain_mask,
        reuse=reuse,
        **options.preparation(),
    )
    job.prepared = seen = result.prepared
    told = _portable(result.provenance, session)
    told["warnings"] = list(dict.fromkeys([*job.notes, *told["warnings"]]))
    about = f"PSR (fraction) by DEMIST {__version__}; research estimate"
    with results(places, "map", job.keys["map"]) as at:
        at.warnings += told["warnings"]
        maps = {"psr": places.anat("desc-demist_PSRmap.nii.gz")}
        result.psr.write(at(maps["psr"]), description=about)
        if result.uncertainty is not None:
            maps["uncertainty"] = places.anat("desc-demist_PSRuncertainty.nii.gz")
            result.uncertainty.write(at(maps["uncertainty"]), description=f"SD of {about}")
        told["outputs"] = {kind: path.name for kind, path in maps.items()}
        sidecar = {"Description": about, "Units": "fraction", **_origin(session), **told}
        write_json(at(places.anat("desc-demist_PSRmap.json")), sidecar)
        result.mask.write(at(places.anat("desc-brain_mask.nii.gz")), description="Brain")
        brain = {"Description": "Brain mask of the T1w", "Type": "Brain", **_origin(session)}
        write_json(at(places.anat("desc-brain_mask.json")), brain)
        motion = (told.get("flair") or {}).get("motion_ras_mm")
        if motion is not None:
            way = at(places.anat("from-FLAIR_to-T1w_mode-image_xfm.txt"))
            way.write_text(rigid_text(np.asarray(motion)), encoding="ascii")
        save_figure(draw(result), at(places.figure("desc-preview_PSRmap")))
        save_figure(registration(seen.t1w, seen.flair, seen.mask), at(places.figure("desc-registration_T1w")))


def make_regions(job: Job) -> None:
    """Region masks, tables, ROC curves, figures: :func:`DEMISTCore.statistics.analyse` under BIDS names."""
    from ..statistics import MeasureSettings, analyse

    session, options, places = job.session, job.options, job.places
    psr = places.anat("desc-demist_PSRmap.nii.gz")
    uncertainty = places.anat("desc-demist_PSRuncertainty.nii.gz")
    lesions = session.lesions
    with results(places, "regions", job.keys["regions"]) as at:
        raw = at.scratch
        found = analyse(
            psr,
            lesions=lesions,
            t1w=session.t1w,
            flair=session.flair,
            tissue=session.tissue,
            brain=places.anat("desc-brain_mask.nii.gz"),
            prepared=_prepared(job),
            uncertainty=uncertainty if uncertainty.is_file() else None,
            suggest=options.suggest and lesions is None,
            out=raw,
            settings=MeasureSettings(regions=options.settings()),
            any_brain_volume=True,
            tsv=True,
            overwrite=True,
        )
        at.warnings += _placeless(list(found.notes), places.out)
        told = _placeless(_portable(found.summary(), session), places.out)
        outputs = {}
        for kind, name in _REGION_FILES.items():
            if (raw / kind).is_file():
                final = places.figure(name) if kind.endswith(".png") else places.anat(name)
                if kind.endswith(".json"):
                    write_json(raw / kind, _placeless(read_json(raw / kind), places.out))
                shutil.move(raw / kind, at(final))  # scratch may be on another disk
                outputs[kind.split(".")[0]] = final.name
        told["outputs"] = outputs
        write_json(at(places.anat("desc-demist_statistics.json")), told)
        if found.regions.lesions is not None and "lesion" in found.regions.masks:
            mask = found.regions.masks["lesion"]
            binary = mask.with_array((mask.array > 0).astype(np.uint8))
            binary.write(at(places.anat("label-lesion_mask.nii.gz")), description="Lesions")
            note = found.regions.lesions.note
            write_json(
                at(places.anat("label-lesion_mask.json")),
                {
                    "Type": "Lesion",
                    "Description": note,
                    "Suggested": found.regions.lesions.suggested,
                    **_origin(session),
                },
            )


def make_report(job: Job) -> None:
    """The page of the session, made of the files of the stages before."""
    from .page import session_page

    places = job.places
    told = _read(places.anat("desc-demist_PSRmap.json"))
    measured = _read(places.anat("desc-demist_statistics.json")) if job.options.regions else {}
    with results(places, "report", job.keys["report"]) as at:
        page = session_page(job.session, places, told, measured)
        at(places.page).write_text(page, encoding="utf-8", errors="backslashreplace")


def make_spaces(job: Job) -> None:
    """Results in further spaces, and the transforms that lead there and back."""
    from .spaces.outputs import make

    make(job, images)


RUN: dict[str, Callable[[Job], None]] = {
    "prepare": make_prepared,
    "map": make_map,
    "regions": make_regions,
    "spaces": make_spaces,
    "report": make_report,
}

#: What an analysis writes, and what it is called here.
_REGION_FILES = {
    "regions.tsv": "desc-demist_regions.tsv",
    "regions_dseg.nii.gz": "desc-regions_dseg.nii.gz",
    "regions_dseg.tsv": "desc-regions_dseg.tsv",
    "regions_dseg.json": "desc-regions_dseg.json",
    "lesions_dseg.nii.gz": "desc-lesions_dseg.nii.gz",
    "roc.png": "desc-roc_regions",
    "boxes.png": "desc-boxes_regions",
    "overlay.png": "desc-overlay_regions",
}


def _prepared(job: Job) -> Prepared | None:
    """The images as the model saw them, if they are fine enough to find tissue in: kept, or made as they were then.

    So regions are the same whether they follow a map or are made anew after another choice of settings. Where tissue
    is given, the images serve to tell black holes alone, and any grid will do.
    """
    return None if job.bundle().spacing > _FINE and job.session.tissue is None else images(job)


def images(job: Job) -> Prepared:
    """The images as the model sees them: kept, handed over, or made now."""
    if job.prepared is None:
        job.prepared = _handed_over(job)
    if job.prepared is None:
        from ..devices import pick_device
        from ..preprocess import prepare

        bundle = job.bundle()
        t1w, flair = job.session.pair
        job.prepared = prepare(
            t1w,
            flair,
            brain_mask=job.session.brain_mask,
            **job.options.preparation(),
            spacing=bundle.spacing,
            multiple=bundle.config.multiple,
            device=str(pick_device(job.options.device)),
        )
    return job.prepared


def _handed_over(job: Job) -> Prepared | None:
    if not records.is_done(job.places, "prepare", job.keys["prepare"]):
        return None
    return handoff.load(job.places.handoff, job.session.pair[0])


def _portable(told: Mapping[str, Any], session: Session) -> dict[str, Any]:
    """A provenance without what differs from run to run and from place to place: seconds, memory, absolute paths."""
    left_out = ("timings_s", "peak_memory_mb", "output_sha256", "outputs")
    told = {key: value for key, value in told.items() if key not in left_out}
    told["inputs"] = {
        name: {**entry, "file": session.told(Path(entry["file"])) if entry.get("file") else None}
        for name, entry in told["inputs"].items()
    }
    return told


def _placeless(told: Any, out: Path) -> Any:
    """The same with results named by their place in ``out``, wherever that lies: sentences name files."""
    if isinstance(told, str):
        return told.replace(f"{out}{os.sep}", "")
    if isinstance(told, Mapping):
        return {key: _placeless(value, out) for key, value in told.items()}
    return [_placeless(value, out) for value in told] if isinstance(told, (list, tuple)) else told


def _origin(session: Session) -> dict[str, Any]:
    """What an image was made of, and whose space it is in, as BIDS has it."""
    sources = [session.told(path) for path in (session.t1w, session.flair) if path is not None]
    return {"Sources": sources, "SpatialReference": sources[0]}


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except (OSError, ValueError):
        return {}
