"""Simulate many subjects into one data set."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import is_hidden
from ..guards import protect_folder
from ..lock import FolderLock
from .anatomy import TEMPLATE, list_anatomies, load_anatomy
from .bids import check_free, subject_done, write_description, write_subject
from .protocol import draw_protocol
from .scanner import Scan, acquire
from .subject import PHYSICS, Subject, simulate_subject

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
        physics=subject.physics,
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
    surface_sd: float = 0.0,
    physics: str = "standard",
    overwrite: bool = False,
    resume: bool = False,
    workers: int = 1,
) -> Path:
    """Simulate ``subjects`` people on ``scans`` scanners each; returns the data set's folder.

    Subject i has seed ``seed + i`` and anatomy i modulo the number of anatomies, so every anatomy is used. With
    ``workers`` above 1 as many subjects are made side by side, one thread each; the images are the same. ``physics``:
    ``"standard"``, or ``"shifted"`` for a test set that follows other laws.

    Raises:
        InputError: impossible numbers, unreadable sources, or a folder already in use.
    """
    from tqdm import tqdm

    _check(subjects, scans, seed, bias, misregistration, thick_slices, obliquity, surface_sd)
    if workers < 1:
        raise InputError(f"Give --workers of at least 1, not {workers}.")
    if physics not in PHYSICS:
        raise InputError(f"Give --physics {' or '.join(PHYSICS)}, not {physics}.")
    root = Path(out)
    protect_folder(root, (anatomies, lesion_masks), "data set")
    left_out = set(exclude)
    sources = [anatomies] if isinstance(anatomies, (str, Path)) else anatomies
    names = [name for source in sources for name in list_anatomies(source) if Path(name).name not in left_out]
    if not names:
        raise InputError(f"--exclude leaves no anatomy of {anatomies}; exclude fewer.")
    masks = _masks(lesion_masks, left_out)
    check_free(root, overwrite=overwrite or resume)
    digits = max(3, len(str(subjects)))
    one = partial(
        _write_one,
        root,
        seed=seed,
        masks=masks,
        healthy=healthy,
        skull=skull,
        scans=scans,
        bias=bias,
        misregistration=misregistration,
        thick_slices=thick_slices,
        obliquity=obliquity,
        surface_sd=surface_sd,
        physics=physics,
    )
    people = [(f"sub-{i + 1:0{digits}d}", i, names[i % len(names)]) for i in range(subjects)]
    todo = [person for person in people if not (resume and subject_done(root, person[0]))]
    with (
        FolderLock(root, "the data set"),
        tqdm(total=subjects, initial=subjects - len(todo), desc="simulate", unit="subject") as bar,
    ):
        for _ in _each(one, todo, min(workers, max(len(todo), 1))):
            bar.update()
    return root


def _write_one(
    root: Path,
    person: tuple[str, int, str | Path],
    *,
    seed: int,
    masks: list[Path] | None,
    healthy: bool,
    skull: bool,
    scans: int,
    surface_sd: float,
    physics: str,
    **scanner: float,
) -> None:
    """Simulate one subject with all scans and write it."""
    name, index, anatomy = person
    subject = simulate_subject(
        seed + index,
        anatomy=load_anatomy(str(anatomy)),
        lesion_masks=masks,
        skull=skull,
        healthy=healthy,
        surface_sd=surface_sd,
        physics=physics,
    )
    taken = [scan_subject(subject, seed + index, scan, **scanner) for scan in range(scans)]
    # Only now, so that a source that cannot be read leaves no folder behind.
    write_description(root)
    write_subject(root, name, subject, taken)


def _each(function: Callable, items: list, workers: int) -> Iterator[None]:
    """``function`` of every item, in this process or in ``workers`` others; the first error ends it."""
    if workers == 1:
        for item in items:
            yield function(item)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            for done in as_completed(futures):
                yield done.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _one_thread() -> None:
    """Each worker has its core to itself; threads of its own would only fight over the others'."""
    import torch

    torch.set_num_threads(1)


def _check(
    subjects: int,
    scans: int,
    seed: int,
    bias: float,
    misregistration: float,
    thick_slices: float,
    obliquity: float,
    surface_sd: float,
) -> None:
    """Refuse numbers that no scanner has."""
    if subjects < 1 or scans < 1:
        raise InputError("Give --subjects and --scans of at least 1.")
    if seed < 0:
        raise InputError(f"Give --seed of at least 0, not {seed}.")
    for option, value, most in (
        ("--bias", bias, 2.0),
        ("--misregistration", misregistration, 50.0),
        ("--thick-slices", thick_slices, 1.0),
        ("--obliquity", obliquity, 45.0),
        ("--surface-sd", surface_sd, 0.5),
    ):
        if not 0.0 <= value <= most:
            raise InputError(f"Give {option} from 0 to {most:g}, not {value:g}.")


def _masks(folder: str | Path | None, left_out: set[str]) -> list[Path] | None:
    if folder is None:
        return None
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"No lesion-mask folder at {path}; give a folder of .nii.gz masks.")
    found = sorted(p for p in path.glob("*.nii*") if p.name not in left_out and not is_hidden(p))
    if not found:
        raise InputError(f"{path} holds no lesion mask to use; give a folder of .nii.gz masks.")
    return found
