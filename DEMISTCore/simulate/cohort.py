"""Simulate many subjects into one data set."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from .anatomy import TEMPLATE, list_anatomies, load_anatomy
from .bids import check_free, subject_done, write_description, write_subject
from .protocol import draw_protocol
from .scanner import Scan, acquire
from .subject import Subject, simulate_subject

logger = logging.getLogger(__name__)


def scan_subject(
    subject: Subject,
    seed: int,
    scan: int = 0,
    *,
    bias: float = 0.25,
    misregistration: float = 2.0,
    thick_slices: float = 0.4,
    obliquity: float = 6.0,
) -> Scan:
    """Scan ``subject`` on the scanner that (``seed``, ``scan``) draws; same arguments, same images."""
    rng = np.random.default_rng([int(seed), 21, int(scan)])
    protocol = draw_protocol(
        rng,
        bias=bias,
        misregistration_mm=misregistration,
        misregistration_deg=misregistration,
        thick_slices=thick_slices,
        obliquity_deg=obliquity,
    )
    return acquire(subject, protocol, rng)


def simulate_cohort(
    out: str | Path,
    *,
    subjects: int,
    scans: int = 1,
    seed: int = 0,
    anatomies: str | Path | Sequence[str | Path] = TEMPLATE,
    exclude: Sequence[str] = (),
    lesion_masks: str | Path | None = None,
    healthy: bool = False,
    skull: bool = True,
    bias: float = 0.25,
    misregistration: float = 2.0,
    thick_slices: float = 0.4,
    obliquity: float = 6.0,
    overwrite: bool = False,
    resume: bool = False,
) -> Path:
    """Simulate ``subjects`` people on ``scans`` scanners each; returns the data set's folder.

    Subject i has seed ``seed + i`` and anatomy i modulo the number of anatomies, so every anatomy is used.

    Raises:
        InputError: impossible numbers, unreadable sources, or a folder already in use.
    """
    from tqdm import tqdm

    _check(subjects, scans, seed, bias, misregistration, thick_slices, obliquity)
    root = Path(out)
    left_out = set(exclude)
    sources = [anatomies] if isinstance(anatomies, (str, Path)) else anatomies
    names = [name for source in sources for name in list_anatomies(source) if Path(name).name not in left_out]
    if not names:
        raise InputError(f"--exclude leaves no anatomy of {anatomies}; exclude fewer.")
    masks = _masks(lesion_masks, left_out)
    check_free(root, overwrite=overwrite or resume)
    digits = max(3, len(str(subjects)))
    with tqdm(total=subjects, desc="simulate", unit="subject") as bar:
        for index in range(subjects):
            name = f"sub-{index + 1:0{digits}d}"
            if not (resume and subject_done(root, name)):
                subject = simulate_subject(
                    seed + index, anatomy=load_anatomy(names[index % len(names)]), lesion_masks=masks, skull=skull,
                    healthy=healthy,
                )  # fmt: skip
                taken = [
                    scan_subject(subject, seed + index, scan, bias=bias, misregistration=misregistration,
                                 thick_slices=thick_slices, obliquity=obliquity)
                    for scan in range(scans)
                ]  # fmt: skip
                # Only now, so that a source that cannot be read leaves no folder behind.
                write_description(root)
                write_subject(root, name, subject, taken)
            bar.update()
    return root


def _check(subjects, scans, seed, bias, misregistration, thick_slices, obliquity) -> None:
    """Refuse numbers that no scanner has."""
    if subjects < 1 or scans < 1:
        raise InputError("Give --subjects and --scans of at least 1.")
    if seed < 0:
        raise InputError(f"Give --seed of at least 0, not {seed}.")
    for option, value, most in (
        ("--bias", bias, 2.0), ("--misregistration", misregistration, 50.0),
        ("--thick-slices", thick_slices, 1.0), ("--obliquity", obliquity, 45.0),
    ):  # fmt: skip
        if not 0.0 <= value <= most:
            raise InputError(f"Give {option} from 0 to {most:g}, not {value:g}.")


def _masks(folder: str | Path | None, left_out: set[str]) -> list[Path] | None:
    if folder is None:
        return None
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"No lesion-mask folder at {path}; give a folder of .nii.gz masks.")
    found = sorted(p for p in path.glob("*.nii*") if p.name not in left_out)
    if not found:
        raise InputError(f"{path} holds no lesion mask to use; give a folder of .nii.gz masks.")
    return found
