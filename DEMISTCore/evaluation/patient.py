"""One real patient, no PSR measured: is the synthesized map what a PSR map looks like?

What can be said without the truth: typical PSR by tissue, and how well lesions (outlined by a person) stand out from
white matter. Tissues come from a simple rule, documented at :func:`tissues`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from .. import metrics
from ..commit import staging
from ..errors import InputError
from ..files import atomic_path, write_json
from ..guards import protect_files
from ..preprocess.placing import Places, place
from ..regions import read_mask
from ..volume import Volume, as_volume
from .judged import judge_patient
from .methods.local import FILE, fitted

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..preprocess import Prepared
    from ..synthesis import Synthesis

GAP_MM = 5.0
#: Values of a map (fraction) that a trustworthy one shows; white matter, cortex: Dortch et al., Magn Reson Med 66:1346
#: (2011) and NeuroImage 64:640 (2013) with room for scanners and disease; CSF holds no macromolecules.
EXPECTED = {"white matter": (0.09, 0.16), "cortex": (0.03, 0.09), "ventricles": (0.0, 0.03)}
_CONFIDENT = 0.9
_VENTRICLE_DEPTH_MM = 20.0
_CORTEX_DEPTH_MM = (2.0, 12.0)


def tissues(prepared: Prepared, lesions: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """White matter, cortex and ventricles by a rule, as masks (X, Y, Z) on the model grid.

    Three Gaussians (starting from Otsu's two thresholds) are fitted to the normalized T1w inside the brain, two voxels
    off its rim: CSF, grey, white from dark to bright. A voxel belongs to a class with at least 90 % probability. Then

    - white matter: the bright class, eroded by one voxel (partial volume);
    - ventricles: the dark class, at least 20 mm inside the brain, eroded by one voxel;
    - cortex: the middle class, 2 to 12 mm inside the brain; not eroded, it is too thin.

    Lesions and their rim of one voxel are left out of all three.

    Raises:
        InputError: a tissue has no voxels.
    """
    from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt
    from skimage.filters import threshold_multiotsu
    from sklearn.mixture import GaussianMixture

    brain = prepared.mask.array > 0
    depth = distance_transform_edt(brain, sampling=prepared.grid.spacing)
    t1w = prepared.t1w.array
    inner = t1w[depth > 2 * prepared.grid.spacing[0]].reshape(-1, 1)
    if len(inner) < 1000:
        raise InputError("The brain is too small to tell its tissues apart; check the brain mask.")
    # 50 000 voxels fix three means and variances; evenly taken, so that the result is the same every time.
    sample = inner[:: max(1, len(inner) // 50_000)].astype(np.float64)
    classes = np.digitize(sample[:, 0], threshold_multiotsu(sample, classes=3))
    start = [sample[classes == k] for k in range(3)]
    mixture = GaussianMixture(
        3,
        weights_init=[len(values) / len(sample) for values in start],
        means_init=[values.mean(0) for values in start],
        precisions_init=[np.atleast_2d(1 / (values.var() + 1e-6)) for values in start],
        random_state=0,
    ).fit(sample)
    order = np.argsort(mixture.means_.ravel())
    probability = np.zeros((3, *brain.shape), np.float32)
    probability[:, brain] = mixture.predict_proba(t1w[brain].reshape(-1, 1))[:, order].T
    # Below the dark mean all is CSF and above the bright one all is white: Gaussian tails say otherwise at times.
    dark, _, bright = np.sort(mixture.means_.ravel())
    csf = brain & ((probability[0] >= _CONFIDENT) | (t1w < dark))
    white = brain & ((probability[2] >= _CONFIDENT) | (t1w > bright))
    grey = (probability[1] >= _CONFIDENT) & ~csf & ~white

    allowed = brain if lesions is None else brain & ~binary_dilation(lesions)
    low, high = _CORTEX_DEPTH_MM
    masks = {
        "white matter": binary_erosion(white) & allowed,
        "cortex": grey & (depth >= low) & (depth <= high) & allowed,
        "ventricles": binary_erosion(csf & (depth >= _VENTRICLE_DEPTH_MM)) & allowed,
    }
    for name, mask in masks.items():
        if not mask.any():
            raise InputError(f"The T1w shows no {name} by the rule for tissues; is it a T1w of a whole brain?")
    return masks


def evaluate_patient(
    t1w: Any,
    flair: Any,
    lesions: Any,
    out: str | Path,
    *,
    bundle: str | Path | Bundle | None = None,
    seeds: int | Sequence[int] | None = None,
    linear: str | Path | None = None,
    lookup_from: str | Path | None = None,
    preprocess: str = "masked",
    overwrite: bool = False,
    progress: Callable[[str, float], Any] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Synthesize a patient's PSR map and describe it by tissue and lesion, beside what baselines make of the images.

    Writes psr.nii.gz, psr.json, psr_uncertainty.nii.gz (several seeds), patient.json, patient_regions.csv, patient.csv
    (DEMIST's, the baselines' and the images' own lesion AUC by the judge, :mod:`.judge`) and patient.png; linear.npz if
    it was fitted.

    Args:
        t1w, flair: as for :func:`DEMISTCore.synthesize`.
        lesions: lesion mask: 0 and 1, labels or fractions, on any grid in the T1w's space, or on the FLAIR's own grid:
            then it goes where registration takes the FLAIR.
        out: folder.
        bundle, seeds, progress: as for :func:`DEMISTCore.synthesize`, which gets ``settings`` as well.
        linear, lookup_from, preprocess: for the linear model and the T1w/FLAIR ratio, see
            :func:`DEMISTCore.evaluation.evaluate`; with neither of the first two, without these baselines.
        overwrite: replace results that are there.

    Returns:
        The content of patient.json.

    Raises:
        InputError: an input cannot be used, the mask holds no lesion in the brain, or results are there already.
    """
    from ..bundle import DEFAULT_BUNDLE, load_bundle
    from ..synthesis import synthesize
    from ..volume import check_writable
    from .cohort import require_packages

    require_packages()
    out = Path(out)
    written = (
        "psr.nii.gz",
        "psr.json",
        "psr_uncertainty.nii.gz",
        "patient.json",
        "patient.csv",
        "patient_regions.csv",
        "patient.png",
    )
    read = (t1w, flair, lesions, bundle, linear, lookup_from, settings.get("brain_mask"))
    protect_files({name: out / name for name in written}, read)
    for name in ("patient.json", "patient.csv", "patient_regions.csv", "patient.png"):
        check_writable(out / name, overwrite=overwrite)
    t1w, flair = as_volume(t1w, "T1w"), as_volume(flair, "FLAIR")
    notes: list[str] = []
    outlined = read_mask(lesions, "lesion mask", notes).aligned_with(t1w)
    label = outlined.path or "The lesion mask"
    if not outlined.array.any():
        raise InputError(f"{label} is empty; give a mask with lesions, above 0.5 inside.")
    places = Places({"T1w": t1w.grid}, flair.grid)
    if not places.follows_flair(outlined.grid) and not outlined.resampled_to(t1w.grid, "nearest").array.any():
        raise InputError(f"{label} does not overlap the T1w; give a mask in the T1w's space.")
    model = load_bundle(bundle or DEFAULT_BUNDLE)
    baseline = None
    if linear is not None or lookup_from is not None:
        baseline = fitted(
            linear,
            lookup_from,
            out / FILE,
            spacing=model.spacing,
            multiple=model.config.multiple,
            preprocess=preprocess,
        )
    several = seeds is None or (len(seeds) if isinstance(seeds, Sequence) else seeds) > 1
    result = synthesize(
        t1w,
        flair,
        out=out / "psr.nii.gz",
        bundle=model,
        seeds=seeds,
        uncertainty=several,
        overwrite=overwrite,
        progress=progress,
        **settings,
    )
    outlined = place(outlined, "lesion mask", replace(places, motion=result.prepared.flair_motion), notes)
    described = describe(result, outlined, label)
    described["judged"] = judge_patient(result, t1w, flair, outlined, baseline)
    described["warnings"] = [*result.provenance["warnings"], *notes]
    from ..preview import save_figure

    with staging(out) as (hidden,):
        write_json(hidden / "patient.json", metrics.json_ready(described))
        _write_csv(described["judged"], hidden / "patient.csv")
        _write_csv([_flat(name, row) for name, row in described["regions"].items()], hidden / "patient_regions.csv")
        save_figure(_draw(result, outlined, described), hidden / "patient.png")
    return described


def describe(result: Synthesis, lesions: Volume, label: Any = "The lesion mask") -> dict[str, Any]:
    """Medians by tissue and lesion contrast, on the T1w's own grid."""
    from scipy.ndimage import label as connected

    prepared, psr = result.prepared, result.psr
    on_model = lesions.resampled_to(prepared.grid, "nearest").array > 0
    masks = {
        name: prepared.to_native(mask.astype(np.uint8), "nearest").array > 0
        for name, mask in tissues(prepared, on_model).items()
    }
    inside = (lesions.resampled_to(psr.grid, "nearest").array > 0) & (result.mask.array > 0)
    if not inside.any():
        raise InputError(f"{label} holds no lesion inside the brain; give a mask in the T1w's space.")
    distant = masks["white matter"] & metrics.far_from(inside, psr.spacing, GAP_MM)
    regions = {name: _quartiles(psr.array[mask], psr.grid.voxel_volume_ml) for name, mask in masks.items()}
    regions["white matter far from lesions"] = _quartiles(psr.array[distant], psr.grid.voxel_volume_ml)
    regions["lesions"] = _quartiles(psr.array[inside], psr.grid.voxel_volume_ml)
    return {
        "statement": result.provenance["statement"],
        "bundle": result.provenance["bundle"],
        "inputs": result.provenance["inputs"],
        "settings": result.provenance["settings"],
        "tissue_rule": " ".join((tissues.__doc__ or "").split("Raises:")[0].split()),
        "regions": regions,
        "expected_median": {name: list(limits) for name, limits in EXPECTED.items()},
        "as_expected": {name: bool(low <= regions[name]["median"] <= high) for name, (low, high) in EXPECTED.items()},
        "lesion_count": int(connected(inside, np.ones((3, 3, 3)))[1]),
        "lesion_auc": metrics.roc_area(psr.array[inside], psr.array[distant]),
        "lesion_auc_against": f"white matter farther than {GAP_MM:g} mm from any lesion",
        "seconds": result.provenance["timings_s"]["total"],
    }


def _flat(name: str, row: dict[str, Any]) -> dict[str, Any]:
    ends = dict(zip(("quartile_low", "quartile_high"), row["quartiles"]))
    return {"region": name, **{key: value for key, value in row.items() if key != "quartiles"}, **ends}


def _write_csv(rows: list[dict[str, Any]], path: Path) -> None:
    import pandas as pd

    with atomic_path(path) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, float_format="%.6g")


class Quartiles(TypedDict):
    """PSR (fraction) of a region; no median and no quartiles where it has no voxel."""

    voxels: int
    volume_ml: float
    median: float
    quartiles: list[float]


def _quartiles(values: np.ndarray, voxel_ml: float) -> Quartiles:
    if not values.size:
        return {"voxels": 0, "volume_ml": 0.0, "median": float("nan"), "quartiles": []}
    low, middle, high = np.percentile(values.astype(np.float64), (25, 50, 75))
    return {
        "voxels": int(values.size),
        "volume_ml": float(values.size * voxel_ml),
        "median": float(middle),
        "quartiles": [float(low), float(high)],
    }


def report(described: dict[str, Any]) -> str:
    """The result as a few lines of text."""
    lines = [f"{'region':<32}{'volume ml':>10}{'median PSR':>12}{'quartiles':>18}{'expected':>16}"]
    for name, row in described["regions"].items():
        quartiles = " to ".join(f"{q:.3f}" for q in row["quartiles"])
        expected = described["expected_median"].get(name)
        wanted = f"{expected[0]:.2f} to {expected[1]:.2f}" if expected else ""
        lines.append(f"{name:<32}{row['volume_ml']:>10.1f}{row['median']:>12.3f}{quartiles:>18}{wanted:>16}")
    lines.append(
        f"{described['lesion_count']} lesions; area under the ROC curve against {described['lesion_auc_against']}: "
        f"{described['lesion_auc']:.3f}"
    )
    lines += ["", f"{'by the judge':<32}{'lesion AUC':>10}{'white':>8}{'near':>8}{'grey':>8}{'CSF':>8}{'lesion':>8}"]
    for row in described["judged"]:
        medians = "".join(f"{row[key]:>8.3f}" if key in row else "" for key in ("wm", "near", "gm", "csf", "lesion"))
        lines.append(f"{row['image']:<32}{row['auc']:>10.3f}{medians}")
    lines += [f"warning: {sentence}" for sentence in described["warnings"]]
    lines.append(described["statement"])
    return "\n".join(lines)


def _draw(result: Synthesis, lesions: Volume, described: dict[str, Any]) -> Any:
    from .figures import Column, brain_box, compare_slices, levels

    prepared = result.prepared
    brain = prepared.mask.array > 0
    outline = lesions.resampled_to(prepared.grid, "nearest").array > 0
    shown = levels(outline & brain, 3)
    across, along = brain_box(brain)

    def cut(array: np.ndarray) -> list[np.ndarray]:
        return [array[across, along, k] for k in shown]

    columns = [
        Column.image("T1w", cut(prepared.t1w.array)),
        Column.image("FLAIR", cut(prepared.flair.array)),
        Column.psr("synthesized PSR", cut(result.model_psr.array)),
    ]
    if result.model_uncertainty is not None:
        columns.append(Column.uncertainty("uncertainty", cut(np.where(brain, result.model_uncertainty.array, np.nan))))
    medians = ", ".join(f"{name} {described['regions'][name]['median']:.3f}" for name in (*EXPECTED, "lesions"))
    return compare_slices(
        columns,
        contours=cut(outline),
        title=f"Median PSR: {medians}; lesion AUC {described['lesion_auc']:.3f}",
        footer=described["statement"],
    )
