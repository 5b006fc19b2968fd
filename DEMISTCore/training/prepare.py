"""Sessions brought to the model grid, once, into a cache that all stages share."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from functools import cache as remembered
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..acquisition import sidecar_path
from ..errors import InputError
from ..files import sha256
from ..labels import LESION
from ..volume.grid import triple
from .cache import is_whole, new_entry
from .data import UNLABELLED, PreparedSession, Session, random
from .groups import PreprocessSettings, Settings

if TYPE_CHECKING:
    from ..measured import MeasuredMap
    from ..measured.alignment import Alignment
    from ..preprocess import Prepared as Pair
    from ..preprocess.pipeline import SkullStrip
    from ..volume import Grid

log = logging.getLogger(__name__)

_FORMAT = 1  # raise when what the cache holds of a complete truth changes
_MEASURED_FORMAT = 2  # likewise, of a measured map
_PLACES = 8192
#: Settings that concern measured maps alone.
_OF_MEASURED = ("psr_zeros", "already_aligned")
#: Less of the brain's voxels than this with a known PSR teach nothing: the map lies elsewhere.
LEAST_COVERAGE = 0.10


def prepare_cohort(
    sessions: Sequence[Session], settings: Settings, cache: Path, *, progress: bool = True
) -> list[PreparedSession]:
    """Bring every session to the model grid, once; what the cache has already is not made again.

    A stopped run leaves whole entries only and goes on where it stopped. Sessions that cannot be prepared stop the
    run with their name: a silently smaller data set is worse.
    """
    from tqdm import tqdm

    result = [_entry(session, settings.preprocess, cache) for session in sessions]
    todo: dict[str, list[tuple[Session, PreparedSession]]] = {}
    for session, entry in zip(sessions, result):
        if not is_whole(entry.folder, "meta.json"):
            todo.setdefault(session.subject, []).append((session, entry))
    hidden = not (todo and progress)
    with tqdm(total=sum(map(len, todo.values())), desc="prepare", unit="session", disable=hidden) as bar:
        if settings.workers > 1 and len(todo) > 1:
            # Spawned, not forked: a fork of a process whose torch has started its threads can hang.
            with ProcessPoolExecutor(settings.workers, get_context("spawn"), _quiet_worker) as pool:
                jobs = [pool.submit(_prepare_subject, pairs, settings.preprocess) for pairs in todo.values()]
                try:
                    for job in as_completed(jobs):
                        bar.update(job.result())
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        else:
            for pairs in todo.values():
                for pair in pairs:
                    bar.set_postfix_str(pair[0].name)
                    bar.update(_prepare_subject([pair], settings.preprocess))
    _tell(result)
    return result


def _tell(entries: Sequence[PreparedSession]) -> None:
    """Warnings of the preparation, each once with whom it concerns, and how much of the brains PSR is known in."""
    said: dict[str, list[str]] = {}
    for entry in entries:
        for sentence in entry.meta.get("warnings", ()):
            said.setdefault(sentence, []).append(entry.name)
    for sentence, names in said.items():
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        log.warning("%s%s: %s", names[0], others, sentence)
    partial = [(entry.coverage, entry.name) for entry in entries if entry.is_partial]
    if partial:
        covered = [coverage for coverage, _ in partial] + [1.0] * (len(entries) - len(partial))
        least, name = min(partial)
        log.info(
            "PSR is known in %.0f %% of the brains' voxels, the least in %s (%.0f %%); losses and metrics count "
            "these alone.",
            100 * sum(covered) / len(covered),
            name,
            100 * least,
        )


def _quiet_worker() -> None:
    """Workers leave Ctrl-C to the parent, and one thread each."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    try:
        import torch

        torch.set_num_threads(1)
    except ImportError:
        pass


def _entry(session: Session, settings: PreprocessSettings, cache: Path) -> PreparedSession:
    from ..measured import is_complete

    told = asdict(settings)
    what = {"format": _FORMAT, "settings": told, "inputs": [_digest(path) for path in session.files]}
    if is_complete(session.psr):
        # Entries from before there were measured maps keep their names.
        new = PreprocessSettings()
        for name in _OF_MEASURED:
            if told[name] == getattr(new, name):
                del told[name]
    else:
        sidecar = sidecar_path(session.psr)  # its units are part of the map
        what["measured"] = [_MEASURED_FORMAT, _digest(sidecar) if sidecar.is_file() else None]
    key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache / "prepared" / session.subject / f"{session.session or 'only'}-{key}"
    return PreparedSession(session.subject, session.session, folder, key)


def _digest(path: Path) -> str:
    try:
        status = path.stat()
        return _digest_of(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror or error}.") from error


@remembered
def _digest_of(path: Path, size: int, mtime: int) -> str:
    """Sessions of one subject share the truth: it is read once."""
    return sha256(path)


def _prepare_subject(pairs: list[tuple[Session, PreparedSession]], settings: PreprocessSettings) -> int:
    for session, entry in pairs:
        try:
            _prepare_session(session, entry, settings)
        except InputError as error:
            raise InputError(f"{session.name}: {error}") from error
    return len(pairs)


def _prepare_session(session: Session, entry: PreparedSession, settings: PreprocessSettings) -> None:
    from ..preprocess import prepare
    from ..volume import Volume

    # Six lines for each of a hundred sessions help nobody; warnings are kept in meta.json.
    logging.getLogger("DEMISTCore.preprocess").setLevel(logging.ERROR)
    prepared = prepare(
        session.t1w,
        session.flair,
        brain_mask=session.mask if settings.brain_mask == "truth" else None,
        register=settings.register,
        skull_strip=cast("SkullStrip", settings.skull_strip),  # checked there
        bias_correct=settings.bias_correct,
        spacing=settings.spacing,
        shape=triple(settings.shape) if settings.shape else None,
        multiple=settings.multiple,
        any_brain_volume=settings.brain_mask == "truth",  # the data set's own mask is its word
    )
    grid = prepared.t1w.grid
    inside = prepared.mask.array > 0
    y, known, told = _psr(session, prepared, inside, settings)
    labels = np.full(y.shape, UNLABELLED, np.uint8)
    if session.dseg:
        labels = Volume.read(session.dseg).resampled_to(grid, order="nearest").array.round().astype(np.uint8)
    if session.lesion:
        lesion = Volume.read(session.lesion).resampled_to(grid, order="nearest").array > 0.5
        labels[lesion & inside] = LESION
    labels[~inside] = 0
    fractions = _fractions(session.grey, session.white, grid, labels) if session.grey and session.white else None

    with new_entry(entry.folder) as temporary:
        np.save(temporary / "x.npy", prepared.array.astype(np.float16))
        arrays = {"y": y, "labels": labels} | ({} if fractions is None else {"shares": fractions})
        if known is not None:
            arrays["known"] = known
        for name, array in arrays.items():
            _save_shared(temporary / f"{name}.npy", array, entry.folder.parent)
        for kind, where in (("brain", labels > 0), ("lesion", labels == LESION)):
            indices = np.argwhere(where if known is None else where & (known > 0)).astype(np.int16)
            if len(indices) > _PLACES:
                indices = indices[np.sort(random(0, "places", kind).choice(len(indices), _PLACES, replace=False))]
            np.save(temporary / f"{kind}.npy", indices)
        meta = {
            "subject": session.subject,
            "session": session.session,
            "affine": grid.affine.tolist(),
            "inputs": [str(path) for path in session.files],
            "settings": asdict(settings),
            "warnings": [*prepared.warnings, *told.pop("warnings")],
            "psr": told,
        }
        (temporary / "meta.json").write_text(json.dumps(meta, indent=1))


def _psr(
    session: Session, prepared: Pair, inside: np.ndarray, settings: PreprocessSettings
) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
    """PSR (float16) and where it is known (uint8; None: in all of the brain) on the model grid; what is told of it."""
    from ..measured import filled, is_complete, read_measured
    from ..measured.resolution import blur_of

    measured = read_measured(session.psr, settings.psr_zeros)
    warnings, placed, motion = list(measured.notes), None, None
    if not (is_complete(session.psr) and settings.already_aligned is None):
        placed = place_measured(measured, session, prepared, settings)
        motion = placed.motion
        warnings += placed.alarms
    psr, known = measured.on_grid(prepared.grid, motion)
    covered = known & inside
    coverage = np.count_nonzero(covered) / max(int(np.count_nonzero(inside)), 1)
    if coverage < LEAST_COVERAGE:
        what = "does not overlap the brain" if not coverage else f"covers {coverage:.1%} of the brain"
        raise InputError(
            f"{session.psr} {what}, and {LEAST_COVERAGE:.0%} is the least to learn from; check that it "
            "is this session's map and lies in its T1w's space, or leave it out."
        )
    blur = None if is_complete(session.psr) else blur_of(measured.psr.affine, motion, prepared.grid)
    told = {
        "units": measured.units,
        "units_by": measured.units_by,
        "coverage": coverage,
        **measured.counts,
        "registration": placed and placed.to_dict(),
        "blur": blur if blur is None else np.round(blur, 4).tolist(),
        "warnings": warnings,
    }
    if np.array_equal(covered, inside):
        return np.where(inside, psr, 0).astype(np.float16), None, told
    y = filled(psr, known, prepared.array, inside).astype(np.float16)
    return y, (covered | ~inside).astype(np.uint8), told


def place_measured(measured: MeasuredMap, session: Session, prepared: Pair, settings: PreprocessSettings) -> Alignment:
    """Where a measured map lies on the prepared T1w, as the settings and its name have it."""
    from ..measured.alignment import align
    from ..volume import Volume

    aligned = session.in_t1w_space if settings.already_aligned is None else settings.already_aligned
    reference = Volume.read(session.reference) if session.reference else None
    search = settings.already_aligned is not True  # who says so in the settings does not want to be asked again
    return align(measured, prepared.array, prepared.mask, already_aligned=aligned, search=search, reference=reference)


def _fractions(grey_file: Path, white_file: Path, grid: Grid, labels: np.ndarray) -> np.ndarray:
    """Fractions of grey and white matter on ``grid``, see :attr:`PreparedSession.fractions`."""
    from ..volume import Volume

    grey, white = (
        np.nan_to_num(Volume.read(path).resampled_to(grid, order="linear").array).clip(0, 1)
        for path in (grey_file, white_file)
    )
    lesion = labels == LESION
    parts = np.stack([np.where(lesion, 0, grey), np.where(lesion, grey + white, white)])
    return np.where(labels > 0, np.rint(255 * parts.clip(0, 1)), 0).astype(np.uint8)


def _save_shared(path: Path, array: np.ndarray, siblings: Path) -> None:
    """Save; where another session of the subject holds the very same array, link to it instead."""
    for other in sorted(siblings.glob(f"[!.]*/{path.name}")):
        try:
            same = np.array_equal(np.load(other, mmap_mode="r"), array)
        except (OSError, ValueError):  # damaged: it is noticed when its own session is asked for
            continue
        if same:
            try:
                os.link(other, path)
                return
            except OSError:  # a file system without hard links
                break
    np.save(path, array)
