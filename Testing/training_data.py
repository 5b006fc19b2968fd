"""A miniature BIDS data set: blobs for brains, a PSR map, two contrasts that follow from it."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter


def write_mini_bids(root: Path, subjects: int = 3, sessions: int = 1, size: int = 32, folded: bool = False) -> Path:
    """Write ``subjects`` subjects of ``size``^3 voxels of 1 mm, with truth, as the simulator does.

    ``folded``: cortex and white matter lie in everybody as nowhere else, so that no two people are alike.
    """
    axes = np.stack(np.meshgrid(*[np.linspace(-1, 1, size)] * 3, indexing="ij"))
    for n in range(1, subjects + 1):
        rng = np.random.default_rng(n)
        radius = np.sqrt(((axes / rng.uniform(0.75, 0.9, 3)[:, None, None, None]) ** 2).sum(0))
        brain = radius < 1
        labels = np.where(radius < 0.3, 1, np.where(radius < 0.75, 3, 2)).astype(np.uint8)
        if folded:
            folds = gaussian_filter(np.random.default_rng([n, 1]).standard_normal(brain.shape), 2.5)
            labels = np.where(radius < 0.3, 1, np.where(folds > 0, 3, 2)).astype(np.uint8)
        blob = gaussian_filter(rng.standard_normal(brain.shape), 2)
        lesion = (blob > np.quantile(blob, 0.97)) & (labels == 3)
        labels[lesion] = 5
        labels[~brain] = 0
        psr = np.choose(labels, [0, 0.0, 0.06, 0.12, 0, 0.05]).astype(np.float32)
        psr = gaussian_filter(psr, 0.5) * brain
        subject = f"sub-{n:03d}"
        truth = root / "derivatives/truth" / subject / "anat"
        _save(truth / f"{subject}_desc-truth_PSRmap.nii.gz", psr)
        _save(truth / f"{subject}_desc-tissue_dseg.nii.gz", labels)
        _save(truth / f"{subject}_desc-lesion_mask.nii.gz", lesion.astype(np.uint8))
        _save(truth / f"{subject}_desc-brain_mask.nii.gz", brain.astype(np.uint8))
        for k in range(1, sessions + 1):
            part = f"ses-{k:02d}" if sessions > 1 else ""
            stem = f"{subject}_{part}" if part else subject
            gain = rng.uniform(50, 500)
            t1w = gain * brain * (0.3 + 4 * psr + 0.02 * rng.standard_normal(brain.shape))
            flair = 0.6 - 2 * psr * (labels != 5) + 0.3 * lesion + 0.02 * rng.standard_normal(brain.shape)
            flair *= gain * brain
            flair[labels == 1] *= 0.3
            _save(root / subject / part / "anat" / f"{stem}_T1w.nii.gz", t1w.astype(np.float32))
            _save(root / subject / part / "anat" / f"{stem}_FLAIR.nii.gz", flair.astype(np.float32))
    return root


def _save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, np.diag([1.0, 1.0, 1.0, 1.0]))
    nib.save(image, path)


def as_slabs(root: Path, low: int = 10, high: int = 20, spoilt: bool = True) -> Path:
    """Turn the truth of a miniature data set into measured maps: axial slabs in percent, with NaN and outliers."""
    import json

    for file in sorted(root.glob("derivatives/truth/*/anat/*_desc-truth_PSRmap.nii.gz")):
        psr = nib.load(file).get_fdata().astype(np.float32)[:, :, low:high] * 100
        brain = psr != 0
        if spoilt:
            rng = np.random.default_rng(len(file.name))
            psr[brain & (rng.random(psr.shape) < 0.01)] = np.nan
            psr[brain & (rng.random(psr.shape) < 0.005)] = 130.0
        subject = file.name.split("_")[0]
        target = root / "derivatives/qmt" / subject / "anat" / f"{subject}_PSRmap.nii.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        affine = np.eye(4)
        affine[2, 3] = low
        nib.save(nib.Nifti1Image(psr, affine), target)
        target.with_name(f"{subject}_PSRmap.json").write_text(json.dumps({"Units": "percent"}))
        file.unlink()
    return root
