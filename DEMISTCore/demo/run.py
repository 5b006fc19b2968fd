"""The main job on a patient that comes with the package: simulated, so that the true PSR is known.

The patient is drawn afresh from the ICBM-152 anatomy with a fixed seed, lesions included, and scanned as in a clinic:
head with skull, bias fields, the FLAIR with thick slices and moved against the T1w. From then on nothing is known but
the two images: brain extraction, registration, bias correction and synthesis are those of ``synthesize`` with default
settings. The true PSR comes back only to be compared.

What an MS group would measure on the map follows: regions from the two images and the lesions, a table, ROC curves of
lesions against normal-appearing white matter, a picture with outlines; in a folder of their own, ``statistics``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import metrics
from ..clock import Progress
from ..commit import staging, sweep
from ..errors import InputError
from ..files import write_json
from ..guards import protect_files
from .draw import draw
from .measure import compare, measure, measured
from .patient import Patient, simulate_patient

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..statistics import Analysis
    from ..synthesis import Synthesis

FILES = (
    "T1w.nii.gz",
    "FLAIR.nii.gz",
    "true_psr.nii.gz",
    "true_tissues.nii.gz",
    "true_lesions.nii.gz",
    "psr.nii.gz",
    "psr_uncertainty.nii.gz",
    "psr.json",
    "demo.png",
    "demo.json",
)
#: Written when all else is there: a folder that has it holds a demo.
_LAST = FILES[-1]
#: Folder with table, ROC curves and pictures of the regions, see :mod:`DEMISTCore.statistics`.
STATISTICS = "statistics"


@dataclass(eq=False)
class Demonstration:
    """Numbers of the demo, and the synthesis they are about."""

    numbers: dict[str, Any]
    result: Synthesis
    patient: Patient
    out: Path
    analysis: Analysis


def demonstrate(
    out: str | os.PathLike[str] = "demo",
    *,
    seeds: int | Sequence[int] | None = None,
    steps: int | None = None,
    mode: str | None = None,
    bundle: str | Path | Bundle | None = None,
    patient: Patient | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Demonstration:
    """Simulate a patient, synthesize the PSR map, and compare it with the truth.

    Args:
        out: folder for the files named in :data:`FILES` and the folder :data:`STATISTICS`.
        seeds, steps, mode, bundle: as for :func:`DEMISTCore.synthesize`, which gets ``settings`` as well; None: its
            defaults.
        patient: another patient than the package's.
        overwrite: replace the files of an earlier demo, all of them at the end; until then they stay as they are.
        progress: called with a stage and the share of all work done; may raise to stop, which leaves nothing behind.

    Raises:
        InputError: ``out`` is in use or cannot be written to, or a setting cannot be used.
        BundleError: the bundle cannot be used.
    """
    from ..bundle import DEFAULT_BUNDLE, load_bundle
    from ..evaluation import require_packages
    from ..statistics.outputs import OUTPUTS
    from ..synthesis import check_seeds, plan_sampling, synthesize

    require_packages()
    out = Path(out)
    _check_folder(out, overwrite, (bundle,))
    report = progress or (lambda stage, fraction: None)
    # What cannot be is known before the patient is simulated, and so is whether there will be an uncertainty.
    model = load_bundle(DEFAULT_BUNDLE if bundle is None else bundle)
    chosen = None if seeds is None else check_seeds(seeds)
    plan = plan_sampling(model, chosen, steps, settings.get("sampler"), guidance=settings.get("guidance"), mode=mode)
    uncertain = model.config.mean is not None or len(plan.seeds) > 1
    timings: dict[str, float] = {}
    earlier: list[Path] = []
    # Everything is made aside and put in place at the end: what is cancelled, fails or is killed leaves no half demo,
    # and an earlier one in the folder stays until there is a new one.
    with staging(out, out / STATISTICS, remove=earlier) as (aside, aside_statistics):
        start = time.perf_counter()
        report("simulate", 0.0)
        patient = patient or simulate_patient()
        for name, volume in (("T1w", patient.t1w), ("FLAIR", patient.flair)):
            volume.write(aside / f"{name}.nii.gz", dtype=np.int16)
        patient.psr.write(aside / "true_psr.nii.gz", description="true PSR (fraction) of a simulated patient")
        patient.labels.write(aside / "true_tissues.nii.gz", dtype=np.uint8)
        patient.lesions.write(aside / "true_lesions.nii.gz", dtype=np.uint8)
        timings["simulate"] = time.perf_counter() - start

        result = synthesize(
            aside / "T1w.nii.gz",
            aside / "FLAIR.nii.gz",
            out=aside / "psr.nii.gz",
            bundle=model,
            uncertainty=uncertain,
            progress=lambda stage, done: report(stage, 0.15 + 0.75 * done),
            seeds=chosen,
            steps=steps,
            mode=mode,
            **settings,
        )
        result = _in_place(result, aside, out)
        write_json(aside / "psr.json", result.provenance)
        report("compare", 0.92)
        start = time.perf_counter()
        numbers = compare(result, patient)
        from ..preview import save_figure

        save_figure(draw(result, patient, numbers), aside / "demo.png")
        timings |= {name: s for name, s in result.provenance["timings_s"].items() if name != "total"}
        timings["compare"] = time.perf_counter() - start
        report("measure", 0.94)
        start = time.perf_counter()
        analysis = measure(result, patient, aside_statistics)
        analysis.files.update({kind: out / STATISTICS / path.name for kind, path in analysis.files.items()})
        numbers["measured"] = measured(analysis)
        timings["measure"] = time.perf_counter() - start
        numbers["timings_s"] = {name: round(seconds, 2) for name, seconds in timings.items()}
        numbers["synthesize_s"] = result.provenance["timings_s"]["total"]
        numbers["peak_memory_mb"] = result.provenance["peak_memory_mb"]
        write_json(aside / "demo.json", metrics.json_ready(numbers))
        for folder, hidden, names in ((out, aside, FILES), (out / STATISTICS, aside_statistics, OUTPUTS)):
            earlier += [folder / name for name in names if not (hidden / name).exists()]
    report("done", 1.0)
    return Demonstration(numbers, result, patient, out, analysis)


def _in_place(result: Synthesis, aside: Path, out: Path) -> Synthesis:
    """The result as its files will be found: what it says of itself must not name the folder they were made in."""

    def renamed(told: Any) -> Any:
        if isinstance(told, str):
            return told.replace(str(aside), str(out))
        if isinstance(told, dict):
            return {key: renamed(value) for key, value in told.items()}
        return [renamed(value) for value in told] if isinstance(told, (list, tuple)) else told

    prepared = result.prepared
    t1w, flair = (
        replace(volume, path=out / Path(volume.path).name) if volume.path else volume
        for volume in (prepared.t1w, prepared.flair)
    )
    prepared = replace(prepared, t1w=t1w, flair=flair, warnings=renamed(prepared.warnings))
    files = {kind: out / path.name for kind, path in result.files.items()}
    return replace(result, provenance=renamed(result.provenance), prepared=prepared, files=files)


def _check_folder(out: Path, overwrite: bool, inputs: Sequence[Any] = ()) -> None:
    """Refuse a folder in use; with ``overwrite`` only an earlier demo's files make room, none of somebody's own."""
    from ..statistics.outputs import OUTPUTS

    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; give a folder (--out).")
    for folder in (out, out / STATISTICS):  # what a killed demo left is no use of the folder
        sweep(folder)
    names = [*FILES, *(f"{STATISTICS}/{name}" for name in OUTPUTS)]
    protect_files({name: out / name for name in names}, inputs)
    theirs = [name for name in names if (out / name).exists()]
    if overwrite and theirs and not (out / _LAST).is_file():
        raise InputError(f"{out / theirs[0]} is not from an earlier demo; choose another folder (--out).")
    if _in_use(out) and not overwrite:
        raise InputError(f"{out} is in use; choose another folder (--out) or allow overwriting (--overwrite).")


def _in_use(out: Path) -> bool:
    """Whether there is anything but the empty folders that a killed demo had made."""
    return out.is_dir() and any(
        path.name != STATISTICS or not path.is_dir() or any(path.iterdir()) for path in out.iterdir()
    )
