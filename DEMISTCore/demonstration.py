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

from . import __version__, metrics
from .clock import Progress
from .commit import staging, sweep
from .errors import InputError
from .files import write_json
from .guards import protect_files
from .labels import LESION, NAMES, WHITE
from .volume import Volume

if TYPE_CHECKING:
    from .bundle import Bundle
    from .simulate.scanner import Scan
    from .simulate.subject import Subject
    from .statistics import Analysis
    from .synthesis import Synthesis

#: The demo's patient: some 90 mostly small lesions, 4 ml in all, and enlarged ventricles.
PATIENT_SEED = 1
#: Normal-appearing white matter is taken this far from any lesion.
GAP_MM = 5.0
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


@dataclass(frozen=True, eq=False)
class Patient:
    """Two scans and, on the T1w's grid, the truth they were made from."""

    t1w: Volume
    flair: Volume
    psr: Volume
    labels: Volume
    lesions: Volume
    brain: Volume
    protocol: dict[str, Any]


@dataclass(eq=False)
class Demonstration:
    """Numbers of the demo, and the synthesis they are about."""

    numbers: dict[str, Any]
    result: Synthesis
    patient: Patient
    out: Path
    analysis: Analysis


def simulate_patient(seed: int = PATIENT_SEED, anatomy: Any = None) -> Patient:
    """Draw and scan a patient; the same seed gives the same patient.

    Args:
        seed: of anatomy, lesions, scanner and noise.
        anatomy: :class:`DEMISTCore.simulate.anatomy.Anatomy`; None takes the ICBM-152 template.

    Raises:
        InputError: nilearn, which holds the template, is not installed.
    """
    from .simulate.subject import simulate_subject

    subject = simulate_subject(seed, anatomy=anatomy)
    scan = _scan(subject, seed)
    grid = scan.t1w.grid

    def mask(array: np.ndarray) -> Volume:
        return Volume(subject.volume(array.astype(np.uint8)).resampled_to(grid, "nearest").array, grid.affine)

    brain, lesions = mask(subject.brain), mask(subject.lesions.mask & subject.brain)
    psr = subject.volume(subject.psr).resampled_to(grid, "bspline").array
    return Patient(
        t1w=scan.t1w,
        flair=scan.flair,
        psr=Volume(np.where(brain.array > 0, psr, np.float32(0)), grid.affine),
        labels=mask(subject.dseg),
        lesions=lesions,
        brain=brain,
        protocol=scan.protocol.to_dict(),
    )


def _scan(subject: Subject, seed: int) -> Scan:
    """Scan with a protocol that most MS clinics know: MPRAGE of 1 mm at 3 T, axial FLAIR with slices of 3 mm.

    The first scanner of the seed's that has this MPRAGE is taken, with its own timing, noise and bias fields.
    """
    from .simulate.artefacts import Processing
    from .simulate.protocol import draw_protocol
    from .simulate.scanner import acquire

    for scanner in range(1000):
        rng = np.random.default_rng([int(seed), 22, scanner])
        protocol = draw_protocol(rng)
        if protocol.t1_sequence == "mprage" and protocol.field_strength == 3 and protocol.t1_spacing == (1, 1, 1):
            break
    # As acquired, without what archives and vendors add.
    plain = replace(protocol, flair_spacing=(0.9, 0.9, 3.0), flair_slice_axis=2, processing=(Processing(),) * 2)
    return acquire(subject, plain, rng)


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
    from .bundle import DEFAULT_BUNDLE, load_bundle
    from .evaluation import require_packages
    from .statistics.outputs import OUTPUTS
    from .synthesis import check_seeds, plan_sampling, synthesize

    require_packages()
    out = Path(out)
    _check_folder(out, overwrite, (bundle,))
    report = progress or (lambda stage, fraction: None)
    # What cannot be is known before the patient is simulated, and so is whether there will be an uncertainty.
    model = load_bundle(DEFAULT_BUNDLE if bundle is None else bundle)
    chosen = {"seeds": None if seeds is None else check_seeds(seeds), "steps": steps, "mode": mode}
    plan = plan_sampling(model, **chosen, sampler=settings.get("sampler"), guidance=settings.get("guidance"))
    spread = model.config.mean is not None or len(plan.seeds) > 1
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
            uncertainty=spread,
            progress=lambda stage, done: report(stage, 0.15 + 0.75 * done),
            **chosen,
            **settings,
        )
        result = _in_place(result, aside, out)
        write_json(aside / "psr.json", result.provenance)
        report("compare", 0.92)
        start = time.perf_counter()
        numbers = compare(result, patient)
        from .preview import save_figure

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


def measure(result: Synthesis, patient: Patient, out: Path) -> Analysis:
    """Table, ROC curves and pictures of the map, as for a patient whose lesions a rater has drawn.

    Tissue is segmented on the two images; the true map is the reference, so that every region has its bias.
    """
    from .statistics import analyse

    return analyse(
        result.psr,
        lesions=patient.lesions,
        prepared=result.prepared,
        brain=result.mask,
        uncertainty=result.uncertainty,
        reference=patient.psr,
        provenance=result.provenance,
        out=out,
        overwrite=True,
    )


def measured(analysis: Analysis) -> dict[str, Any]:
    """For ``demo.json``: mean PSR by region, synthesized and true, and areas under the ROC curves."""
    keys = {
        "region": "region",
        "mean": "synthesized_mean",
        "reference_mean": "true_mean",
        "difference": "bias",
        "percent": "bias_percent",
    }
    rows = analysis.comparison.regions if analysis.comparison is not None else []
    return {
        "regions": [{new: row[key] for key, new in keys.items()} for row in rows if row["lesion"] is None],
        "auc": {
            contrast.against: {
                curve.level: {"auc": curve.auc, "ci": list(curve.best_ci)}
                for curve in (contrast.voxel, contrast.lesion)
                if curve is not None
            }
            for contrast in analysis.contrasts
        },
    }


def compare(result: Synthesis, patient: Patient) -> dict[str, Any]:
    """Synthesized against true PSR, on the T1w's grid, inside the true brain mask."""

    truth, psr = patient.psr.array, result.psr.array
    brain = patient.brain.array > 0
    labels = np.where(brain, patient.labels.array, 0)
    lesions = (labels == LESION) & brain
    normal = (labels == WHITE) & metrics.far_from(lesions, patient.psr.spacing, GAP_MM)
    found = result.mask.array > 0
    numbers: dict[str, Any] = {
        "version": __version__,
        "statement": result.provenance["statement"],
        "bundle": result.provenance["bundle"],
        "settings": result.provenance["settings"],
        "protocol": patient.protocol,
        "brain": metrics.compare(psr, truth, brain),
        "brain_mask_dice": float(2 * (brain & found).sum() / (brain.sum() + found.sum())),
        "lesion_auc": {
            "true": metrics.roc_area(truth[lesions], truth[normal]),
            "synthesized": metrics.roc_area(psr[lesions], psr[normal]),
        },
        "lesions_against_normal_white_matter": {
            "true": _ratio(truth, lesions, normal),
            "synthesized": _ratio(psr, lesions, normal),
        },
        "regions": metrics.regions(psr, truth, labels, NAMES, patient.psr.grid.voxel_volume_ml),
    }
    if result.uncertainty is not None:
        numbers["uncertainty"] = _error_bars(result, truth, brain & found)
    return numbers


def _error_bars(result: Synthesis, truth: np.ndarray, brain: np.ndarray) -> dict[str, Any]:
    """Whether the uncertainty map tells where the errors are, and how often its intervals hold the truth."""
    from .evaluation.calibrated import coverage, rank_correlation
    from .uncertainty import Calibration

    told, psr, sd = result.provenance["uncertainty"], result.psr.array, result.uncertainty.array
    if told["kind"] == "standard deviation over seeds":
        seeds = len(result.provenance["settings"]["seeds"])
        return {"kind": told["kind"], **metrics.calibration(psr, sd, truth, brain, seeds)}
    numbers = {"kind": told["kind"], "rank_correlation": rank_correlation(sd[brain], (psr - truth)[brain])}
    if told.get("calibration") is not None:
        low, high = Calibration.from_dict(told["calibration"]).voxel_interval(psr[brain], sd[brain], 0.9)
        numbers["coverage_90"] = coverage(truth[brain], low, high)
    return numbers


def _ratio(psr: np.ndarray, lesions: np.ndarray, normal: np.ndarray) -> dict[str, float]:
    """Median PSR in lesions and in white matter farther than 5 mm from them, and the loss in percent."""
    if not lesions.any() or not normal.any():
        return {}
    inside, outside = float(np.median(psr[lesions])), float(np.median(psr[normal]))
    return {"lesions": inside, "white_matter": outside, "loss_percent": 100 * (1 - inside / max(outside, 1e-6))}


def how_made(numbers: dict[str, Any]) -> str:
    """How the map was made: "mean", or "mean of 4 samples"."""
    settings = numbers["settings"]
    count = len(settings["seeds"])
    return "mean" if settings["mode"] == "mean" else f"mean of {count} samples" if count > 1 else "one sample"


def draw(result: Synthesis, patient: Patient, numbers: dict[str, Any]) -> Any:
    """T1w, FLAIR, true and synthesized PSR, their difference and the uncertainty, in slices through lesions."""
    from .evaluation.figures import Column, brain_box, compare_slices, levels

    # The FLAIR was registered on the model grid; pictures are drawn there, where all voxels are cubes.
    prepared = result.prepared
    grid, brain = prepared.grid, prepared.mask.array > 0
    truth = patient.psr.resampled_to(grid).array
    lesions = patient.lesions.resampled_to(grid, "nearest").array > 0
    shown = levels(lesions & brain, 3, apart=round(10 / grid.spacing[2]))
    across, along = brain_box(brain)

    def cut(array: np.ndarray) -> list[np.ndarray]:
        return [array[across, along, k] for k in shown]

    psr = result.model_psr.array
    columns = [
        Column.image("T1w", cut(prepared.t1w.array)),
        Column.image("FLAIR", cut(prepared.flair.array)),
        Column.psr("true PSR", cut(truth)),
        Column.psr(f"synthesized PSR ({how_made(numbers)})", cut(psr)),
        Column.difference("synthesized - true", cut(np.where(brain, psr - truth, np.nan))),
    ]
    if result.model_uncertainty is not None:
        spread = cut(np.where(brain, result.model_uncertainty.array, np.nan))
        over_seeds = result.provenance["uncertainty"]["kind"] == "standard deviation over seeds"
        columns.append(Column.uncertainty("uncertainty", spread, "SD over seeds" if over_seeds else "SD of the error"))
    measured = numbers["brain"]
    return compare_slices(
        columns,
        contours=cut(lesions),
        title=f"Simulated patient: PSNR {measured['psnr']:.1f} dB, SSIM {measured['ssim']:.3f}; lesions outlined",
        footer=numbers["statement"],
    )


def _in_place(result: Synthesis, aside: Path, out: Path) -> Synthesis:
    """The result as its files will be found: what it says of itself must not name the folder they were made in."""

    def renamed(told: Any) -> Any:
        if isinstance(told, str):
            return told.replace(str(aside), str(out))
        if isinstance(told, dict):
            return {key: renamed(value) for key, value in told.items()}
        return [renamed(value) for value in told] if isinstance(told, (list, tuple)) else told

    prepared = result.prepared
    images = {
        name: replace(volume, path=out / Path(volume.path).name)
        for name, volume in (("t1w", prepared.t1w), ("flair", prepared.flair))
        if volume.path
    }
    prepared = replace(prepared, **images, warnings=renamed(prepared.warnings))
    files = {kind: out / path.name for kind, path in result.files.items()}
    return replace(result, provenance=renamed(result.provenance), prepared=prepared, files=files)


def _check_folder(out: Path, overwrite: bool, inputs: Sequence[Any] = ()) -> None:
    """Refuse a folder in use; with ``overwrite`` only an earlier demo's files make room, none of somebody's own."""
    from .statistics.outputs import OUTPUTS

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
