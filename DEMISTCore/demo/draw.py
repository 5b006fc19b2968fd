"""The demo's picture: scans, true and synthesized PSR, their difference and the uncertainty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .patient import Patient

if TYPE_CHECKING:
    from ..synthesis import Synthesis


def how_made(numbers: dict[str, Any]) -> str:
    """How the map was made: "mean", or "mean of 4 samples"."""
    settings = numbers["settings"]
    count = len(settings["seeds"])
    return "mean" if settings["mode"] == "mean" else f"mean of {count} samples" if count > 1 else "one sample"


def draw(result: Synthesis, patient: Patient, numbers: dict[str, Any]) -> Any:
    """T1w, FLAIR, true and synthesized PSR, their difference and the uncertainty, in slices through lesions."""
    from ..evaluation.figures import Column, brain_box, compare_slices, levels

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
        sd = cut(np.where(brain, result.model_uncertainty.array, np.nan))
        over_seeds = result.provenance["uncertainty"]["kind"] == "standard deviation over seeds"
        columns.append(Column.uncertainty("uncertainty", sd, "SD over seeds" if over_seeds else "SD of the error"))
    measured = numbers["brain"]
    return compare_slices(
        columns,
        contours=cut(lesions),
        title=f"Simulated patient: PSNR {measured['psnr']:.1f} dB, SSIM {measured['ssim']:.3f}; lesions outlined",
        footer=numbers["statement"],
    )
