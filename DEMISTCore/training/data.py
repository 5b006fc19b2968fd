"""Training data: a BIDS data set, prepared once per session, on disk as float16 memory maps.

Every random choice is a pure function of (seed, stage, index of the sample), never of a stateful loader: that is what
makes a resumed run equal an uninterrupted one, and accumulated gradients equal those of the large batch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache as remembered
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..acquisition import sidecar_path
from ..errors import InputError
from ..files import sha256
from .cache import is_whole, new_entry
from .groups import AugmentSettings, PreprocessSettings, Settings

if TYPE_CHECKING:
    from torch import Tensor

    from ..measured import MeasuredMap
    from ..measured.alignment import Alignment
    from ..measured.choice import Choice
    from ..preprocess import Prepared as Pair
    from ..volume import Grid

log = logging.getLogger(__name__)

FLAIR = 1  # of the two channels of x
LESION = 5
UNLABELLED = 8  # brain voxels of a data set without a segmentation
TISSUES = (1, 2, 3, 4, 5, 6, 7, UNLABELLED)
_FORMAT = 1  # raise when what the cache holds of a complete truth changes
_MEASURED_FORMAT = 1  # likewise, of a measured map
_PLACES = 8192
#: Settings that concern measured maps alone.
_OF_MEASURED = ("psr_zeros", "already_aligned")
#: Less of the brain's voxels than this with a known PSR teach nothing: the map lies elsewhere.
LEAST_COVERAGE = 0.10


def random(seed: int, *key: int | str) -> np.random.Generator:
    """A generator that depends on nothing but its arguments."""
    words = [int.from_bytes(hashlib.sha256(str(part).encode()).digest()[:4], "little") for part in key]
    return np.random.default_rng([seed, *words])


# --- the data set on disk --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Session:
    """One T1w + FLAIR pair and the truth that belongs to it. Sessions of one subject share the truth."""

    subject: str
    session: str
    t1w: Path
    flair: Path
    psr: Path
    dseg: Path | None = None
    lesion: Path | None = None
    mask: Path | None = None
    grey: Path | None = None
    white: Path | None = None
    reference: Path | None = None  # an anatomical image of the qMT session, in the PSR map's place
    in_t1w_space: bool = False  # the map's name says that it lies where the T1w does

    @property
    def name(self) -> str:
        """Such as ``sub-001_ses-01``."""
        return f"{self.subject}_{self.session}" if self.session else self.subject

    @property
    def files(self) -> list[Path]:
        """Every file that exists, in a fixed order."""
        every = (self.t1w, self.flair, self.psr, self.dseg, self.lesion, self.mask, self.grey, self.white,
                 self.reference)  # fmt: skip
        return [path for path in every if path]


def index(
    bids: str | Path, filters: Mapping[str, Mapping[str, str]] | None = None, exclude: Sequence[str] = ()
) -> list[Session]:
    """All sessions with T1w, FLAIR and a PSR map, sorted by name, see :func:`DEMISTCore.measured.choice.choose`.

    Args:
        bids: folder of the data set.
        filters: which images are meant, see :func:`DEMISTCore.measured.choice.read_filters`.
        exclude: subjects whose files are of no interest.

    Raises:
        InputError: the folder does not exist, holds no subjects, or none has T1w, FLAIR and PSR; a session has two PSR
            maps and nothing says which one is meant; there is no subject of the name that is to be excluded.
    """
    from ..measured.choice import choose

    choices = choose(bids, filters)
    there, left_out = {choice.subject for choice in choices}, {subject_name(name) for name in exclude}
    for name in sorted(left_out - there) if there else ():
        raise InputError(f"The data set has no subject {name!r}; it has {min(there)} to {max(there)}.")
    choices = [choice for choice in choices if choice.subject not in left_out]
    incomplete = [f"{'/'.join(filter(None, (c.subject, c.session)))} lacks {' and '.join(c.missing)}"
                  for c in choices if c.missing]  # fmt: skip
    sessions = [session_of(choice) for choice in choices if not choice.missing]
    if not sessions:
        why = f" ({incomplete[0]})" if incomplete else ": no sub-*/anat folders"
        raise InputError(f"{bids} has no subject to train on{why}; training needs T1w, FLAIR and a PSR map of each.")
    for choice in choices:
        if choice.ambiguous:
            raise InputError(f"{choice.ambiguous}.")
    if incomplete:
        log.warning("Left out: %s%s.", "; ".join(incomplete[:3]), " ..." if len(incomplete) > 3 else "")
    return sessions


def session_of(choice: Choice) -> Session:
    """The files of a session that has T1w, FLAIR and a PSR map."""
    files = choice.files
    return Session(
        choice.subject, choice.session, files["t1w"], files["flair"], files["psr"], files.get("dseg"),
        files.get("lesion"), files.get("mask"), files.get("grey"), files.get("white"), files.get("reference"),
        choice.in_t1w_space,
    )  # fmt: skip


def split(
    sessions: Sequence[Any], settings: Settings, *, excluded_already: bool = False
) -> tuple[list[Any], list[Any]]:
    """Training and validation sessions; a subject is wholly on one side.

    ``excluded_already``: those of ``exclude_subjects`` are not among the sessions any more, see :func:`index`.

    Raises:
        InputError: a subject named in the settings is not there, or nothing is left to train on.
    """
    subjects = sorted({s.subject for s in sessions})
    for name in (*settings.validation_subjects, *(() if excluded_already else settings.exclude_subjects)):
        if subject_name(name) not in subjects:
            raise InputError(f"The data set has no subject {name!r}; it has {subjects[0]} to {subjects[-1]}.")
    excluded = {subject_name(name) for name in settings.exclude_subjects}
    left = [s for s in subjects if s not in excluded]
    held = {subject_name(name) for name in settings.validation_subjects} - excluded
    if not held and settings.validation > 0:
        if len(left) < 2:
            raise InputError("One subject cannot be split into training and validation; add subjects or validation=0.")
        count = min(len(left) - 1, max(1, round(settings.validation * len(left))))
        held = set(random(settings.seed, "split").permutation(left)[:count].tolist())
    train = [s for s in sessions if s.subject in left and s.subject not in held]
    if not train:
        raise InputError("No subject is left to train on; hold out or exclude fewer.")
    return train, [s for s in sessions if s.subject in held]


def subject_name(name: str) -> str:
    """``012`` and ``sub-012`` as ``sub-012``."""
    return name if name.startswith("sub-") else f"sub-{name}"


# --- prepared sessions -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """A session on the model grid, on disk. Arrays are opened when asked for: hundreds would exhaust file handles."""

    subject: str
    session: str
    folder: Path
    key: str

    @property
    def name(self) -> str:
        """Such as ``sub-001_ses-01``."""
        return f"{self.subject}_{self.session}" if self.session else self.subject

    @property
    def x(self) -> np.ndarray:
        """T1w and FLAIR, normalised, 0 outside the brain: float16 (2, X, Y, Z)."""
        return np.load(self.folder / "x.npy", mmap_mode="r")

    @property
    def y(self) -> np.ndarray:
        """PSR as a fraction: float16 (X, Y, Z). Where it is unknown a guess, see :func:`DEMISTCore.measured.filled`."""
        return np.load(self.folder / "y.npy", mmap_mode="r")

    @property
    def is_partial(self) -> bool:
        """Whether PSR is unknown in part of the brain."""
        return (self.folder / "known.npy").is_file()

    @property
    def known(self) -> np.ndarray:
        """1 where PSR is known, and outside the brain, where it is 0 by definition: uint8 (X, Y, Z)."""
        if self.is_partial:
            return np.load(self.folder / "known.npy", mmap_mode="r")
        return np.broadcast_to(np.uint8(1), self.labels.shape)

    @property
    def coverage(self) -> float:
        """Share of the brain's voxels with a known PSR."""
        return float(self.meta["psr"]["coverage"]) if self.is_partial else 1.0

    @property
    def labels(self) -> np.ndarray:
        """Tissue labels, 0 outside the brain: uint8 (X, Y, Z)."""
        return np.load(self.folder / "labels.npy", mmap_mode="r")

    @property
    def shares(self) -> np.ndarray | None:
        """Fractions of grey and of white matter, 255 for a whole voxel, lesions white: uint8 (2, X, Y, Z); or None."""
        file = self.folder / "shares.npy"
        return np.load(file, mmap_mode="r") if file.is_file() else None

    def places(self, kind: str) -> np.ndarray:
        """Up to 8192 voxels (n, 3) drawn from the "brain" or from its "lesion"s, where PSR is known."""
        return np.load(self.folder / f"{kind}.npy", mmap_mode="r")

    @property
    def meta(self) -> dict[str, Any]:
        """Affine of the model grid, inputs, settings."""
        return json.loads((self.folder / "meta.json").read_text())


def prepare_cohort(
    sessions: Sequence[Session], settings: Settings, cache: Path, *, progress: bool = True
) -> list[Prepared]:
    """Bring every session to the model grid, once; what the cache has already is not made again.

    A stopped run leaves whole entries only and goes on where it stopped. Sessions that cannot be prepared stop the
    run with their name: a silently smaller data set is worse.
    """
    from tqdm import tqdm

    result = [_entry(session, settings.preprocess, cache) for session in sessions]
    todo: dict[str, list[tuple[Session, Prepared]]] = {}
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


def _tell(entries: Sequence[Prepared]) -> None:
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
        shares = [share for share, _ in partial] + [1.0] * (len(entries) - len(partial))
        least, name = min(partial)
        log.info("PSR is known in %.0f %% of the brains' voxels, the least in %s (%.0f %%); losses and metrics count "
                 "these alone.", 100 * sum(shares) / len(shares), name, 100 * least)  # fmt: skip


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


def _entry(session: Session, settings: PreprocessSettings, cache: Path) -> Prepared:
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
    return Prepared(session.subject, session.session, folder, key)


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


def _prepare_subject(pairs: list[tuple[Session, Prepared]], settings: PreprocessSettings) -> int:
    for session, entry in pairs:
        try:
            _prepare_session(session, entry, settings)
        except InputError as error:
            raise InputError(f"{session.name}: {error}") from error
    return len(pairs)


def _prepare_session(session: Session, entry: Prepared, settings: PreprocessSettings) -> None:
    from ..preprocess import prepare
    from ..volume import Volume

    # Six lines for each of a hundred sessions help nobody; warnings are kept in meta.json.
    logging.getLogger("DEMISTCore.preprocess").setLevel(logging.ERROR)
    prepared = prepare(
        session.t1w, session.flair, brain_mask=session.mask if settings.brain_mask == "truth" else None,
        register=settings.register, skull_strip=settings.skull_strip, bias_correct=settings.bias_correct,
        spacing=settings.spacing, shape=tuple(settings.shape) if settings.shape else None, multiple=settings.multiple,
        any_brain_volume=settings.brain_mask == "truth",  # the data set's own mask is its word
    )  # fmt: skip
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
    shares = _shares(session, grid, labels) if session.grey and session.white else None

    with new_entry(entry.folder) as temporary:
        np.save(temporary / "x.npy", prepared.array.astype(np.float16))
        arrays = {"y": y, "labels": labels} | ({} if shares is None else {"shares": shares})
        if known is not None:
            arrays["known"] = known
        for name, array in arrays.items():
            _save_shared(temporary / f"{name}.npy", array, entry.folder.parent)
        for kind, where in (("brain", labels > 0), ("lesion", labels == LESION)):
            places = np.argwhere(where if known is None else where & (known > 0)).astype(np.int16)
            if len(places) > _PLACES:
                places = places[np.sort(random(0, "places", kind).choice(len(places), _PLACES, replace=False))]
            np.save(temporary / f"{kind}.npy", places)
        meta = {
            "subject": session.subject, "session": session.session, "affine": grid.affine.tolist(),
            "inputs": [str(path) for path in session.files], "settings": asdict(settings),
            "warnings": [*prepared.warnings, *told.pop("warnings")], "psr": told,
        }  # fmt: skip
        (temporary / "meta.json").write_text(json.dumps(meta, indent=1))


def _psr(
    session: Session, prepared: Pair, inside: np.ndarray, settings: PreprocessSettings
) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
    """PSR (float16) and where it is known (uint8; None: in all of the brain) on the model grid; what is told of it."""
    from ..measured import filled, is_complete, read_measured

    measured = read_measured(session.psr, settings.psr_zeros)
    warnings, placed, motion = list(measured.notes), None, None
    if not (is_complete(session.psr) and settings.already_aligned is None):
        placed = place_measured(measured, session, prepared, settings)
        motion = placed.motion
        warnings += placed.alarms
    psr, known = measured.on_grid(prepared.grid, motion)
    covered = known & inside
    coverage = np.count_nonzero(covered) / max(np.count_nonzero(inside), 1)
    if coverage < LEAST_COVERAGE:
        what = "does not overlap the brain" if not coverage else f"covers {coverage:.1%} of the brain"
        raise InputError(f"{session.psr} {what}, and {LEAST_COVERAGE:.0%} is the least to learn from; check that it "
                         "is this session's map and lies in its T1w's space, or leave it out.")  # fmt: skip
    told = {"units": measured.units, "units_by": measured.units_by, "coverage": coverage, **measured.counts,
            "registration": placed and placed.to_dict(), "warnings": warnings}  # fmt: skip
    if np.array_equal(covered, inside):
        return np.where(inside, psr, 0).astype(np.float16), None, told
    y = filled(psr, known, prepared.array, inside).astype(np.float16)
    return y, (covered | ~inside).astype(np.uint8), told


def place_measured(
    measured: MeasuredMap, session: Session, prepared: Pair, settings: PreprocessSettings
) -> Alignment:
    """Where a measured map lies on the prepared T1w, as the settings and its name have it."""
    from ..measured.alignment import align
    from ..volume import Volume

    aligned = session.in_t1w_space if settings.already_aligned is None else settings.already_aligned
    reference = Volume.read(session.reference) if session.reference else None
    search = settings.already_aligned is not True  # who says so in the settings does not want to be asked again
    return align(
        measured, prepared.array, prepared.mask, already_aligned=aligned, search=search, reference=reference
    )  # fmt: skip


def _shares(session: Session, grid: Grid, labels: np.ndarray) -> np.ndarray:
    """Fractions of grey and white matter on ``grid``, see :attr:`Prepared.shares`."""
    from ..volume import Volume

    grey, white = (
        np.nan_to_num(Volume.read(path).resampled_to(grid, order="linear").array).clip(0, 1)
        for path in (session.grey, session.white)
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


# --- samples ---------------------------------------------------------------------------------------------------------


def pick(count: int, seed: int, key: str, index: int) -> int:
    """Which of ``count`` items sample ``index`` uses: every item once per epoch, each epoch in its own order."""
    epoch, place = divmod(index, count)
    return int(random(seed, key, "order", epoch).permutation(count)[place])


def crop(array: np.ndarray, start: Sequence[int], size: Sequence[int]) -> np.ndarray:
    """A copy of ``array[..., start:start+size]``; beyond the edge it is filled with zeros. Last three axes."""
    lead = array.shape[:-3]
    result = np.zeros((*lead, *size), array.dtype)
    source, target = [], []
    for s, n, extent in zip(start, size, array.shape[-3:]):
        low, high = max(s, 0), min(s + n, extent)
        source.append(slice(low, max(high, low)))
        target.append(slice(low - s, max(high, low) - s))
    result[(..., *target)] = array[(..., *source)]
    return result


def clamp_start(start: Sequence[int], size: Sequence[int], shape: Sequence[int]) -> list[int]:
    """Move a crop inside the volume; along an axis where it does not fit, centre the volume in it."""
    return [min(max(s, 0), n - m) if n >= m else -((m - n) // 2) for s, m, n in zip(start, size, shape)]


def random_patch(entry: Prepared, size: Sequence[int], rng: np.random.Generator, lesions: float = 0.3) -> list[int]:
    """Start of a patch centred (with jitter) on a lesion or, else, on any brain voxel."""
    places = entry.places("lesion")
    if not len(places) or rng.random() >= lesions:
        places = entry.places("brain")
    if not len(places):
        raise InputError(f"{entry.name} has an empty brain mask; mend or exclude it (exclude_subjects=).")
    centre = np.asarray(places[rng.integers(len(places))], int)
    jitter = [int(rng.integers(-(n // 4), n // 4 + 1)) for n in size]
    return clamp_start([c + j - n // 2 for c, j, n in zip(centre, jitter, size)], size, entry.labels.shape)


def augment(x: np.ndarray, settings: AugmentSettings, rng: np.random.Generator) -> np.ndarray:
    """Random contrast of (2, X, Y, Z) inside the brain, each modality by itself; 0 outside stays 0.

    Wide on purpose: networks trained over many contrasts work on scanners they have never seen (Billot et al. 2023,
    SynthSeg). The tissue's median sits at 0.5 (see :func:`DEMISTCore.preprocess.normalise`) and is the fixed point of
    gain and gamma.
    """
    from scipy.ndimage import gaussian_filter

    result = np.empty(x.shape, np.float32)
    for channel, image in enumerate(np.asarray(x, np.float32)):
        # Every number is drawn whether used or not: one switch must not change the others' draws.
        on = rng.random(5) < settings.probability
        gain, offset, gamma = rng.normal(0, (settings.gain, settings.offset, settings.gamma))
        slope, noise = rng.normal(0, settings.bias, 3), abs(rng.normal(0, settings.noise))
        blur, noise_seed = rng.uniform(0, settings.blur), int(rng.integers(2**62))
        inside = image != 0
        if on[0]:
            positive = np.clip(image, 1e-3, None) / 0.5
            image = np.where(image > 1e-3, 0.5 * positive ** np.exp(np.clip(gamma, -0.7, 0.7)), image)
        if on[1]:
            image = 0.5 + (image - 0.5) * np.exp(gain) + offset
        if channel == FLAIR and settings.highlights:
            image = _dim(image, settings.highlights, settings.probability, np.random.default_rng(noise_seed + 1))
        if on[2]:
            axes = [np.linspace(-1, 1, n, dtype=np.float32) for n in image.shape]
            ramp = np.add.outer(np.add.outer(slope[0] * axes[0], slope[1] * axes[1]), slope[2] * axes[2])
            image = image * np.exp(ramp.astype(np.float32))
        if on[3] and blur > 0.3:
            image = gaussian_filter(image, blur, truncate=2.5)
        if on[4] and noise > 1e-3:
            fast = np.random.default_rng(noise_seed)
            image = image + np.float32(noise) * fast.standard_normal(image.shape, dtype=np.float32)
        result[channel] = np.where(inside, np.clip(image, -0.5, 2.0), 0)
    return result


def _dim(image: np.ndarray, most: float, probability: float, rng: np.random.Generator) -> np.ndarray:
    """Take contrast from what is brighter than tissue: how bright lesions are hangs on TE, TI and the vendor's filters.

    Above a knee between 0.52 and 0.62 (grey matter has some 0.55) contrast is multiplied by 1 - ``most`` to 1.
    """
    on, knee, kept = rng.random(), rng.uniform(0.52, 0.62), 1 - rng.uniform(0, most)
    return np.where(image > knee, knee + (image - knee) * np.float32(kept), image) if on < probability else image


def collate(samples: Sequence[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """Stack samples into a batch of tensors."""
    import torch

    return {name: torch.from_numpy(np.stack([sample[name] for sample in samples])) for name in samples[0]}
