"""What the demo measures: synthesized against true PSR, and what an MS group would measure on the map."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__, metrics
from ..labels import LESION, NAMES, WHITE
from .patient import Patient

if TYPE_CHECKING:
    from ..statistics import Analysis
    from ..synthesis import Synthesis

#: Normal-appearing white matter is taken this far from any lesion.
GAP_MM = 5.0


def measure(result: Synthesis, patient: Patient, out: Path) -> Analysis:
    """Table, ROC curves and pictures of the map, as for a patient whose lesions a rater has drawn.

    Tissue is segmented on the two images; the true map is the reference, so that every region has its bias.
    """
    from ..statistics import analyse

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
        numbers["uncertainty"] = _error_bars(result, result.uncertainty.array, truth, brain & found)
    return numbers


def _error_bars(result: Synthesis, sd: np.ndarray, truth: np.ndarray, brain: np.ndarray) -> dict[str, Any]:
    """Whether the uncertainty map tells where the errors are, and how often its intervals hold the truth."""
    from ..evaluation.calibrated import coverage, rank_correlation
    from ..uncertainty import Calibration

    told, psr = result.provenance["uncertainty"], result.psr.array
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
