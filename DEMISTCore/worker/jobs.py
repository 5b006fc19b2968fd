"""What can be asked of the worker: each job takes a :class:`Context` and gives the content of its ``done``."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..clock import Remaining
from ..errors import Cancelled, DemistError, InputError
from ..options import SynthesisOptions
from ..volume import Volume
from .context import Context

if TYPE_CHECKING:
    from ..regions import Regions, RegionSettings

Job = Callable[[Context], dict[str, Any]]

#: Regions that a parent shows as segments.
SHOWN = ("lesion", "nawm_proximal", "nawm_distal")


def hello(context: Context) -> dict[str, Any]:
    """Version, Python, and with ``"devices": true`` what torch can compute on (loading it takes seconds).

    With ``"bundle"`` (and ``"device"``) the model is brought into memory, so that the first run starts sooner.
    """
    from .. import __version__

    told: dict[str, Any] = {"version": __version__, "python": platform.python_version(), "pid": os.getpid()}
    if context.request.get("devices") or context.request.get("bundle"):
        import torch

        told["torch"] = str(torch.__version__)
        told["devices"] = _devices()
    if context.request.get("bundle"):
        bundle = context.cache.bundle(context.request["bundle"])
        context.check()
        for part in ("demist", "autoencoder_psr", "autoencoder_condition"):
            getattr(bundle, part)
            context.check()
        told["bundle"] = {"name": bundle.name, "hash": bundle.hash}
    return told


def synthesize(context: Context) -> dict[str, Any]:
    """T1w and FLAIR in; PSR, uncertainty and provenance out. See :func:`DEMISTCore.synthesize` for the options.

    With ``out`` the map is written to that file, with sidecar and uncertainty beside it; there is an uncertainty where
    the model has a mean network, or for several seeds. ``protocol`` is the content of the BIDS sidecars of images that
    come without a file. With ``"sanity": true``, ``done`` has means of white and grey matter as well.
    """
    request = context.request
    context.progress("load", 0.0)
    start = time.monotonic()
    from ..bundle import DEFAULT_BUNDLE
    from ..synthesis import check_seeds, plan_sampling
    from ..synthesis import synthesize as run
    from .preview import Preview

    out, options = request.get("out"), SynthesisOptions.from_request(request)
    t1w, flair = context.needed("t1w", "T1w"), context.needed("flair", "FLAIR")
    mask = context.volume("brain_mask", "brain mask")
    bundle = context.cache.bundle(options.bundle or DEFAULT_BUNDLE)
    chosen = options.arguments()
    plan = {name: chosen[name] for name in ("steps", "sampler", "mode", "guidance")}
    seeds = None if options.seeds is None else check_seeds(options.seeds)
    count = len(plan_sampling(bundle, seeds, **plan).seeds)  # none in mode mean
    keep = out is None and context.cache.samples.affordable(count, t1w.shape)
    remaining = Remaining()

    def progress(stage: str, done: float) -> None:
        context.progress(stage, done, remaining(stage, done))

    with context.interruptible():
        result = run(
            t1w,
            flair,
            **{**chosen, "bundle": bundle},
            out=out,
            brain_mask=mask,
            overwrite=bool(request.get("overwrite")),
            uncertainty=bool(out) and (bundle.config.mean is not None or count > 1),
            keep_samples=keep,
            estimate=Preview(context) if request.get("preview") else None,
            reuse=context.cache.reuse,
            progress=progress,
        )
    context.check()
    told = {"provenance": result.provenance, "files": result.files, "seconds": round(time.monotonic() - start, 3)}
    told["timings"] = result.provenance["timings_s"]
    told["sampling_after"] = remaining.sampling_after
    if request.get("sanity") and result.prepared is not None:
        told["sanity"] = _sanity(context, result)
    if keep:
        context.cache.samples.keep(result.psr, result.samples)
    if out is None:
        told["psr"] = context.give(result.psr, "psr")
        told["uncertainty"] = context.give(result.uncertainty, "uncertainty")
    return told


def statistics(context: Context) -> dict[str, Any]:
    """A PSR map measured: table, ROC curves, comparison, and the masks that are shown.

    For a map of one of the last runs, the maps of its seeds are there, too: the table then says how far each region's
    mean moves from seed to seed (``seed_sd``). With ``report``, one page is written to that file, in percent with
    ``percent``.
    """
    request = context.request
    context.progress("load", 0.0)
    from ..statistics import MeasureSettings, analyse
    from ..statistics.analysis import find_backdrop
    from ..statistics.onepage import write_page

    settings = MeasureSettings(regions=_region_settings(request.get("distances")))
    volumes = {
        name: context.volume(key, text)
        for name, key, text in (
            ("lesions", "lesions", "lesion mask"),
            ("t1w", "t1w", "T1w"),
            ("flair", "flair", "FLAIR"),
            ("brain", "brain_mask", "brain mask"),
            ("uncertainty", "uncertainty", "uncertainty map"),
            ("reference", "reference", "reference map"),
            ("tissue", "tissue", "tissue map"),
        )
    }
    psr = context.needed("psr", "PSR map")
    suggest, unchecked = bool(request.get("suggest")), bool(request.get("unchecked"))
    # The last synthesis prepared these very images, brain mask and all: that is the longest part of the work.
    prepared = context.cache.prepared(volumes["t1w"], volumes["flair"])
    samples = context.cache.samples.of(psr)
    with context.interruptible():
        analysis = analyse(
            psr,
            **volumes,
            samples=samples,
            prepared=prepared,
            suggest=suggest,
            unchecked=unchecked,
            provenance=request.get("provenance"),
            settings=settings,
            progress=context.progress,
            any_brain_volume=bool(request.get("any_brain_volume")),
        )
    context.check()
    if request.get("report"):
        scans = (("T1w", volumes["t1w"]), ("FLAIR", volumes["flair"]))
        under = {name: volume for name, volume in scans if volume is not None}
        page = write_page(
            analysis,
            request["report"],
            backdrop=find_backdrop(psr, under, prepared),
            percent=bool(request.get("percent")),
            title=str(request.get("title") or ""),
        )
        context.check()
    # With intervals of the means nobody needs the spread of the samples for an error bar.
    about = [] if analysis.intervals else _about_seeds(request.get("provenance"), samples)
    told = {
        "summary": analysis.summary(),
        "statement": analysis.statement,
        "rows": analysis.table,
        "notes": [*analysis.notes, *about],
        "warnings": list(analysis.warnings),
    }
    from ..statistics.table import COLUMNS

    told["columns"] = dict(COLUMNS)
    if request.get("report"):
        told["report"] = page
    return told | _shown(context, analysis.regions)


def regions(context: Context) -> dict[str, Any]:
    """Lesions (suggested, or given as ``lesions``) and NAWM on the T1w's grid, without a PSR map."""
    context.progress("load", 0.0)
    from ..preprocess import prepare
    from ..regions import build_regions

    t1w, flair = context.needed("t1w", "T1w"), context.needed("flair", "FLAIR")
    mask, lesions = context.volume("brain_mask", "brain mask"), context.volume("lesions", "lesion mask")
    settings = _region_settings(context.request.get("distances"))
    with context.interruptible():
        prepared = context.cache.prepared(t1w, flair, mask) or prepare(
            t1w,
            flair,
            brain_mask=mask,
            multiple=1,
            any_brain_volume=bool(context.request.get("any_brain_volume")),
            progress=lambda stage, done: context.progress(stage, 0.7 * done),
        )
        context.progress("regions", 0.7)
        found = build_regions(
            t1w,
            lesion_mask=lesions,
            t1w=t1w,
            flair=flair,
            brain=prepared.native_mask,
            prepared=prepared,
            unchecked=bool(context.request.get("unchecked")),
            settings=settings,
        )
    context.check()
    return {"notes": list(found.notes)} | _shown(context, found)


def brain_ldm(context: Context) -> dict[str, Any]:
    """A synthetic T1w of the given age, sex, ventricular and brain volume (0 to 1 each)."""
    request = context.request
    context.progress("load", 0.0)
    from ..brain_ldm.__main__ import PUBLISHED
    from ..brain_ldm.samples import NAMES
    from ..devices import describe_device
    from ..published.store import WARNING

    model = context.cache.brain_ldm(request.get("bundle") or PUBLISHED, request.get("device") or "auto")
    given = {name: request[name] for name in (*NAMES, "steps", "seed", "eta") if request.get(name) is not None}
    if request.get("shape"):
        given["shape"] = tuple(request["shape"])
    start, remaining = time.monotonic(), Remaining()
    with context.interruptible():
        volume = model.sample(
            **given,
            progress=lambda step, steps: context.progress(
                "sampling", 0.95 * step / steps, remaining("sampling", 0.95 * step / steps)
            ),
        )
    context.check()
    provenance = {
        "synthetic": True,
        "statement": WARNING,
        "model": model.provenance,
        "request": given,
        "device": describe_device(model.device),
        "seconds": round(time.monotonic() - start, 1),
    }
    return {"t1w": context.give(volume, "t1w"), "provenance": provenance}


def simulate(context: Context) -> dict[str, Any]:
    """A simulated patient: T1w, FLAIR, and the true PSR, tissue labels and lesions on the T1w's grid."""
    context.progress("simulate", 0.0)
    try:
        from ..demo import PATIENT_SEED, simulate_patient

        seed = PATIENT_SEED if context.request.get("seed") is None else int(context.request["seed"])
        patient = simulate_patient(seed)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"A seed is a whole number, not {context.request.get('seed')!r}.") from error
    told = {"protocol": patient.protocol, "seed": seed}
    for name in ("t1w", "flair", "psr", "labels", "lesions", "brain"):
        context.check()
        told[name] = context.give(getattr(patient, name), name)
    return told


def dicom(context: Context) -> dict[str, Any]:
    """Maps and lesions written as DICOM into the folder ``out``, see :func:`DEMISTCore.dicom.export`.

    ``series``: files of the T1w's DICOM series; without them a study of its own is made, of ``patient``. ``rows``: of
    the statistics table, for a report about the regions that are given (:data:`SHOWN`, each by its own key).
    """
    request = context.request
    context.progress("load", 0.0)
    from ..dicom import export

    psr = context.needed("psr", "PSR map")
    uncertainty, lesions = context.volume("uncertainty", "uncertainty map"), context.volume("lesions", "lesion mask")
    masks = {"lesion": lesions, **{key: context.volume(key, f"mask {key}") for key in SHOWN[1:]}}
    if not request.get("out"):
        raise InputError("Say where the DICOM files go: a folder as out.")
    context.progress("dicom", 0.3)
    with context.interruptible():
        written = export(
            request["out"],
            psr=psr,
            uncertainty=uncertainty,
            rows=request.get("rows"),
            masks={key: mask for key, mask in masks.items() if mask is not None},
            series=request.get("series"),
            suggested=bool(request.get("unchecked")),
            provenance=request.get("provenance"),
            patient=str(request.get("patient") or "Anonymous"),
        )
    return {"files": written}


RUN: Mapping[str, Job] = {
    "hello": hello,
    "synthesize": synthesize,
    "statistics": statistics,
    "regions": regions,
    "brain_ldm": brain_ldm,
    "simulate": simulate,
    "dicom": dicom,
}


def _about_seeds(provenance: Any, samples: list[Volume]) -> list[str]:
    """Why there is no seed_sd for a map of several seeds, in one sentence."""
    settings = provenance.get("settings") if isinstance(provenance, Mapping) else None
    seeds = settings.get("seeds") if isinstance(settings, Mapping) else None
    if samples or not isinstance(seeds, list) or len(seeds) < 2:
        return []
    return [
        "The table does not say how far means move from seed to seed (SD over seeds): the maps of single seeds are "
        "kept for the last runs of this session only, as they were made; synthesize the map again for it."
    ]


def _devices() -> list[tuple[str, str]]:
    """Name and description of what torch can compute on, the best first."""
    import torch

    found = []
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            memory = torch.cuda.get_device_properties(i).total_memory / 2**30
            found.append((f"cuda:{i}", f"{torch.cuda.get_device_name(i)} ({memory:.0f} GiB)"))
    if torch.backends.mps.is_available():
        found.append(("mps", "Apple GPU"))
    found.append(("cpu", f"CPU ({torch.get_num_threads()} threads)"))
    return found


def _sanity(context: Context, result: Any) -> dict[str, Any]:
    """Means that tell whether a map is plausible; empty where the images show no tissue, which is no reason to fail."""
    from ..statistics.sanity import sanity

    context.progress("sanity", 1.0)
    try:
        with context.interruptible():
            return sanity(result.psr, result.uncertainty, result.prepared, result.provenance)
    except Cancelled:
        raise
    except DemistError as error:
        context.send("log", level="info", text=f"No means of white and grey matter: {error}")
        return {}


def _region_settings(given: Any) -> RegionSettings:
    """Settings from a mapping of their names, lists for pairs.

    Raises:
        InputError: an unknown name, or a number that makes no sense.
    """
    from dataclasses import fields

    from ..regions import RegionSettings

    given = dict(given or {})
    known = {field.name for field in fields(RegionSettings)}
    for name in given:
        if name not in known:
            raise InputError(f"There is no setting {name!r} of regions; choose {', '.join(sorted(known))}.")
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    try:
        return replace(RegionSettings(), **given)
    except TypeError as error:
        raise InputError(f"The settings of regions must be numbers ({error}).") from error


def _shown(context: Context, found: Regions) -> dict[str, Any]:
    """References to the masks that become segments, and where the lesions lie."""
    masks = {key: found.masks[key] for key in SHOWN if key in found.masks}
    told: dict[str, Any] = {"masks": {key: context.give(mask, key) for key, mask in masks.items()}}
    lesions = found.lesions
    told["suggested"] = lesions is not None and lesions.suggested
    told["lesions"] = 0 if lesions is None else lesions.count
    told["positions"] = {} if lesions is None else _positions(lesions.numbers)
    return told


def _positions(numbers: Volume) -> dict[int, list[float]]:
    """Where each lesion lies, RAS mm: its voxel nearest to its centre, so that the point is inside it."""
    found = {}
    where = np.argwhere(numbers.array > 0)
    of, world = numbers.array[tuple(where.T)], numbers.grid.to_world(where)
    for number in np.unique(of):
        points = world[of == number]
        found[int(number)] = points[((points - points.mean(0)) ** 2).sum(1).argmin()].tolist()
    return found
