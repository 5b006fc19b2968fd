"""What an analysis found, as JSON and as text."""

from __future__ import annotations

import math
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__, metrics
from ..volume import Volume
from .comparison import COLUMNS as COMPARISON_COLUMNS
from .comparison import Comparison
from .contrast import Contrast, Roc
from .settings import MeasureSettings
from .table import COLUMNS

if TYPE_CHECKING:
    from ..regions import Regions

#: What a reader has to know of the two intervals.
ROC_NOTE = (
    "A voxel is called lesion if its PSR is at or below the threshold. Voxel level: every voxel is an observation; "
    "neighbouring voxels repeat each other, so ci_delong (DeLong 1988, all voxels independent) is far too narrow, and "
    "ci_clustered (Obuchowski 1997: lesions and blocks of NAWM independent) is the one to believe. Lesion level: one "
    "observation is the mean of a lesion, or of a compact patch of NAWM of its size. Intervals are on the logit scale, "
    "with Student's t and Satterthwaite's degrees of freedom. Sensitivity and specificity are those of the data that "
    "the threshold was chosen from, hence optimistic. One brain says nothing about how patients differ."
)
UNCERTAINTY_NOTES = {
    "none": "No uncertainty was given: nothing is said about how far a mean may be from the truth.",
    "calibrated": "Columns mean_ci90_low and mean_ci90_high hold the true mean of a region with probability 90 %, as "
    "far as these scans are like the subjects that the model was calibrated on. They were calibrated as means of "
    "regions of that size, since errors of voxels are not independent; column uncertainty, the mean of the calibrated "
    "SD of single voxels, says nothing of the mean. Column seed_sd, where there is one, is the spread of the model's "
    "own samples, no error bar.",
    "map": "The uncertainty map holds voxel-wise standard deviations over seeds. How far a region's mean moves from "
    "seed to seed cannot be had from it; it moves by at most the column uncertainty (standard deviation). For the "
    "number itself, give the maps of single seeds.",
    "seeds": "Column seed_sd is the standard deviation of a region's mean from seed to seed, for one seed; the mean of "
    "n seeds moves by about seed_sd / sqrt(n). It is the spread of the model's own samples, no error bar: the error "
    "against the truth may be far larger.",
}


@dataclass(eq=False)
class Analysis:
    """What was found, and where it came from.

    Attributes:
        psr: the map.
        regions: masks on its grid.
        table: one row per region and lesion, see :data:`DEMISTCore.statistics.table.COLUMNS`.
        contrasts: lesions against NAWM; empty if ``roc_declined``.
        roc_declined: why there is no ROC curve, else None.
        comparison: with the reference, if there is one.
        uncertainty_kind: ``"none"``, ``"map"`` (SD over seeds), ``"seeds"`` (spread of means) or ``"calibrated"``
            (intervals of means).
        notes: plain sentences: masks resampled, lesions suggested, what was left out and why.
        warnings: those of the notes that say that numbers may be wrong: a measured map that lies off the T1w, images
            unlike those of the training, what synthesis warned of. They stand where nobody can miss them.
        statement: the sentence that belongs below every output.
        origin: who synthesized the map, see :func:`DEMISTCore.statistics.checks.origin`; None if measured or unknown.
        inputs: file and hash of everything that was read.
        settings: as used.
        timings: seconds by stage.
        files: what was written, by kind.
        intervals: level of the intervals of means, what they were calibrated on, whether they are widened; None
            without intervals.
    """

    psr: Volume
    regions: Regions
    table: list[dict[str, Any]]
    contrasts: list[Contrast]
    roc_declined: str | None
    comparison: Comparison | None
    uncertainty_kind: str
    notes: tuple[str, ...]
    statement: str
    origin: dict[str, Any] | None
    inputs: dict[str, Any]
    settings: MeasureSettings
    timings: dict[str, float] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    intervals: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()

    @property
    def remarks(self) -> list[str]:
        """The notes that are no warnings."""
        return [sentence for sentence in self.notes if sentence not in self.warnings]

    def summary(self) -> dict[str, Any]:
        """The content of statistics.json."""
        lesions = self.regions.lesions
        told = {
            "software": {"name": "DEMIST", "version": __version__, "python": platform.python_version()},
            "statement": self.statement,
            "quantity": "pool size ratio (PSR), fraction",
            "synthesized": self.origin,
            "inputs": self.inputs,
            "settings": asdict(self.settings),
            "grid": {
                "shape": list(self.psr.shape),
                "spacing_mm": [round(s, 4) for s in self.psr.spacing],
                "axes": self.psr.axcodes,
            },
            "lesions": None
            if lesions is None
            else {
                "count": lesions.count,
                "volume_ml": float((lesions.numbers.array > 0).sum() * lesions.numbers.grid.voxel_volume_ml),
                "suggested": lesions.suggested,
                "black_holes": list(lesions.black_holes),
                "note": lesions.note,
            },
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "uncertainty": UNCERTAINTY_NOTES[self.uncertainty_kind],
            "intervals": self.intervals,
            "columns": COLUMNS,
            "regions": self.table,
            "roc": {
                "note": ROC_NOTE,
                "declined": self.roc_declined,
                "against": {contrast.against: _contrast(contrast) for contrast in self.contrasts},
            },
            "comparison": None,
            "outputs": {kind: path.name for kind, path in self.files.items()},
            "timings_s": {name: round(seconds, 3) for name, seconds in self.timings.items()},
        }
        if self.comparison is not None:
            found = self.comparison
            told["comparison"] = {
                "note": "Differences are map minus reference. At the voxel level, intervals count blocks of space as "
                "independent; at the lesion level, lesions.",
                "voxel": None if found.voxel is None else asdict(found.voxel),
                "lesion": None if found.lesion is None else asdict(found.lesion),
                "columns": COMPARISON_COLUMNS,
                "regions": found.regions,
            }
        return metrics.json_ready(told)

    def text(self) -> str:
        """The result for a person at a terminal."""
        from ..regions import REGIONS

        kind = self.uncertainty_kind
        last = {"none": "", "map": "<= seed SD", "seeds": "seed SD", "calibrated": "90 % interval"}[kind]
        wide = 20 if kind == "calibrated" else 12
        lines = [f"{'PSR by region':<30}{'mL':>9}{'mean':>9}{'SD':>8}{'median':>9}{'5 to 95 %':>18}{last:>{wide}}"]
        for row in self.table:
            if row["lesion"] is not None:
                continue
            moved = _number({"map": row["uncertainty"], "seeds": row["seed_sd"]}.get(kind), 4)
            if kind == "calibrated":
                moved = f"{_number(row['mean_ci90_low'], 4)} to {_number(row['mean_ci90_high'], 4)}"
            span = f"{_number(row['p5'])} to {_number(row['p95'])}"
            lines.append(
                f"{row['name']:<30}{row['volume_ml']:>9.2f}{_number(row['mean'], 4):>9}{_number(row['sd'], 4):>8}"
                f"{_number(row['median'], 4):>9}{span:>18}{moved:>{wide}}"
            )
        if self.contrasts:
            lines += [
                "",
                f"{'Lesions against':<18}{'level':<8}{'AUC':>7}{'95 % CI':>18}{'threshold':>11}"
                f"{'sens.':>7}{'spec.':>7}{'d':>7}{'n':>16}",
            ]
        for contrast in self.contrasts:
            for curve in (contrast.voxel, contrast.lesion):
                if curve is None:
                    continue
                ci = "none" if math.isnan(curve.best_ci[0]) else f"{curve.best_ci[0]:.3f} to {curve.best_ci[1]:.3f}"
                lines.append(
                    f"{REGIONS[contrast.against]:<18}{curve.level:<8}{curve.auc:>7.3f}{ci:>18}"
                    f"{curve.youden_threshold:>11.4f}{curve.sensitivity:>7.2f}{curve.specificity:>7.2f}"
                    f"{_number(curve.cohens_d, 2):>7}{f'{curve.n_lesion}/{curve.n_nawm}':>16}"
                )
        if self.roc_declined:
            lines += ["", self.roc_declined]
        if self.comparison is not None and self.comparison.voxel is not None:
            told = self.comparison.voxel
            lines += [
                "",
                f"Map minus reference: bias {told.bias:+.4f} ({told.bias_ci[0]:+.4f} to {told.bias_ci[1]:+.4f}), "
                f"limits of agreement {told.lower:+.4f} to {told.upper:+.4f}, Pearson {told.pearson:.3f}, Spearman "
                f"{told.spearman:.3f}, concordance {told.concordance:.3f}, ICC {told.icc:.3f}",
            ]
        lines.append("")
        lines += [f"warning: {sentence}" for sentence in self.warnings]
        lines += [f"note: {sentence}" for sentence in self.remarks]
        lines += [f"{kind + ':':<15}{path}" for kind, path in self.files.items()]
        lines.append(self.statement)
        return "\n".join(lines)


def _contrast(contrast: Contrast) -> dict[str, Any]:
    return {
        "voxel": None if contrast.voxel is None else _roc(contrast.voxel),
        "lesion": None if contrast.lesion is None else _roc(contrast.lesion),
        "difference_of_means": contrast.difference,
        "difference_percent": contrast.percent,
        "difference_seed_sd": contrast.seed_sd,
        "notes": list(contrast.notes),
    }


def _roc(curve: Roc) -> dict[str, Any]:
    keep = np.unique(np.linspace(0, curve.fpr.size - 1, 101).round().astype(int))
    return {
        "auc": curve.auc,
        "ci_delong": list(curve.ci),
        "ci_method": curve.ci_method,
        "ci_clustered": None if curve.ci_clustered is None else list(curve.ci_clustered),
        "clusters": None if curve.clusters is None else dict(zip(("lesion", "nawm"), curve.clusters)),
        "n_lesion": curve.n_lesion,
        "n_nawm": curve.n_nawm,
        "youden": {
            "threshold": curve.youden_threshold,
            "sensitivity": curve.sensitivity,
            "specificity": curve.specificity,
        },
        "cohens_d": curve.cohens_d,
        "curve": {
            "false_positive_rate": [round(float(v), 6) for v in curve.fpr[keep]],
            "true_positive_rate": [round(float(v), 6) for v in curve.tpr[keep]],
            "threshold": [round(float(v), 6) if math.isfinite(v) else None for v in curve.thresholds[keep]],
        },
    }


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"
