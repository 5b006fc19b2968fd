"""A small cohort as a BIDS data set, with masks in a derivative data set, so that a session takes a second or two."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import nibabel as nib
import numpy as np

#: What makes a run quick: nothing is registered, corrected, or suggested.
QUICK = ("--no-register", "--no-bias-correct", "--skip-bids-validator", "-q")
_SHAPE, _MM = (26, 30, 24), 6.0


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_bids(root: Path, names: Iterable[str]) -> Path:
    """Sessions such as ``sub-01/ses-1`` or ``sub-01``, each a head of its own noise; brains, tissues and lesions as
    derivatives in ``derivatives/manual``."""
    write_json(root / "dataset_description.json", {"Name": "Small heads", "BIDSVersion": "1.9.0"})
    (root / "README").write_text("Made-up heads: nested ellipsoids, for tests.\n", encoding="utf-8")
    manual = {"Name": "By hand", "BIDSVersion": "1.9.0", "DatasetType": "derivative", "GeneratedBy": [{"Name": "hand"}]}
    write_json(root / "derivatives" / "manual" / "dataset_description.json", manual)
    for number, name in enumerate(names):
        add_session(root, name, number)
    return root


def add_session(root: Path, name: str, seed: int) -> Path:
    """One more session; its ``anat`` folder."""
    prefix = name.replace("/", "_")
    anat, manual = root / name / "anat", root / "derivatives" / "manual" / name / "anat"
    for folder in (anat, manual):
        folder.mkdir(parents=True)
    for what, array in head(seed).items():
        folder = anat if what in ("T1w", "FLAIR") else manual
        image = nib.Nifti1Image(array, np.diag([_MM, _MM, _MM, 1.0]))
        image.header.set_xyzt_units("mm")
        nib.save(image, folder / f"{prefix}_{what}.nii.gz")
    return anat


def head(seed: int) -> dict[str, np.ndarray]:
    """Nested ellipsoids, two lesions: arrays (X, Y, Z) by the end of their file's name."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in _SHAPE), indexing="ij")
    radius = np.sqrt((x / 10.5) ** 2 + (y / 12.3) ** 2 + (z / 9.4) ** 2)
    brain, white, fluid = radius < 1, radius < 0.8, np.sqrt((x / 3) ** 2 + (y / 4.6) ** 2 + (z / 2.4) ** 2) < 1
    lesions = np.zeros(_SHAPE, bool)
    lesions[17:19, 14:16, 12:14] = lesions[7:9, 12:14, 10:12] = True
    lesions &= white & ~fluid
    t1w = np.select([fluid, lesions, white, brain], [200.0, 650.0, 900.0, 600.0], 60.0) + rng.normal(0, 15, _SHAPE)
    flair = np.select([fluid, lesions, white, brain], [100.0, 900.0, 500.0, 650.0], 40.0) + rng.normal(0, 15, _SHAPE)
    tissue = np.select([fluid, white, brain], [1, 3, 2], 0)
    return {
        "T1w": t1w.astype(np.float32),
        "FLAIR": flair.astype(np.float32),
        "desc-brain_mask": brain.astype(np.uint8),
        "desc-tissue_dseg": tissue.astype(np.uint8),
        "label-lesion_mask": lesions.astype(np.uint8),
    }


def results(out: Path) -> dict[str, str]:
    """Hash of every result by its path: all but what tells of the run (status.tsv, hidden folders)."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_file() and not name.startswith(".demist/") and name != "status.tsv":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def written(out: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every image: what is made again gets others."""
    return {
        path.relative_to(out).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in out.rglob("*.nii.gz")
        if ".tmp-" not in str(path)
    }


def rows(out: Path) -> dict[str, dict[str, str]]:
    """status.tsv by session name."""
    header, *lines = (out / "status.tsv").read_text(encoding="utf-8").splitlines()
    listed = [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]
    return {"_".join(part for part in (one["subject"], one["session"]) if part != "n/a"): one for one in listed}


def copy(source: Path, to: Path) -> Path:
    return Path(shutil.copytree(source, to, symlinks=True))
