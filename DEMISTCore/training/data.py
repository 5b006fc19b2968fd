"""Training data: a BIDS data set, prepared once per session, on disk as float16 memory maps.

Every random choice is a pure function of (seed, stage, index of the sample), never of a stateful loader: that is what
makes a resumed run equal an uninterrupted one, and accumulated gradients equal those of the large batch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache as remembered
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..files import is_hidden, sha256
from .cache import is_whole, new_entry
from .settings import AugmentSettings, PreprocessSettings, Settings

if TYPE_CHECKING:
    from torch import Tensor

    from ..volume import Grid

log = logging.getLogger(__name__)

FLAIR = 1  # of the two channels of x
LESION = 5
UNLABELLED = 8  # brain voxels of a data set without a segmentation
TISSUES = (1, 2, 3, 4, 5, 6, 7, UNLABELLED)
_FORMAT = 1  # raise when what the cache holds changes
_PLACES = 8192


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

    @property
    def name(self) -> str:
        """Such as ``sub-001_ses-01``."""
        return f"{self.subject}_{self.session}" if self.session else self.subject

    @property
    def files(self) -> list[Path]:
        """Every file that exists, in a fixed order."""
        every = (self.t1w, self.flair, self.psr, self.dseg, self.lesion, self.mask, self.grey, self.white)
        return [path for path in every if path]


def index(bids: str | Path) -> list[Session]:
    """All sessions with T1w, FLAIR and a PSR map, sorted by name.

    Layout: ``sub-*/[ses-*/]anat/*_{T1w,FLAIR}.nii.gz`` and, for the truth, ``derivatives/*/sub-*/[ses-*/]anat/
    *_PSRmap.nii.gz`` with, where there are any, ``*_dseg``, ``*_desc-lesion_mask``, ``*_desc-brain_mask`` and tissue
    fractions ``*_label-{GM,WM}_probseg``.

    Raises:
        InputError: the folder does not exist, holds no subjects, or none has T1w, FLAIR and PSR.
    """
    root = Path(bids)
    if not root.is_dir():
        raise InputError(f"There is no folder {root}; --data takes a BIDS data set.")
    sessions, incomplete = [], []
    for anat in sorted([*root.glob("sub-*/anat"), *root.glob("sub-*/ses-*/anat")]):
        parts = anat.relative_to(root).parts[:-1]
        subject, session = parts[0], parts[1] if len(parts) > 1 else ""
        t1w, flair = _image(anat, "T1w"), _image(anat, "FLAIR")
        truth = [
            folder
            for own in dict.fromkeys([f"{subject}/{session}".rstrip("/"), subject])
            for folder in sorted(root.glob(f"derivatives/*/{own}/anat"), key=lambda p: ("truth" not in p.parts, p))
        ]
        found = {what: _first(truth, what) for what in _TRUTH}
        if not (t1w and flair and found["PSRmap"]):
            missing = [n for n, p in (("T1w", t1w), ("FLAIR", flair), ("PSRmap", found["PSRmap"])) if not p]
            incomplete.append(f"{'/'.join(parts)} lacks {' and '.join(missing)}")
            continue
        sessions.append(Session(subject, session, t1w, flair, *found.values()))
    if not sessions:
        why = f" ({incomplete[0]})" if incomplete else ": no sub-*/anat folders"
        raise InputError(f"{root} has no subject to train on{why}; training needs T1w, FLAIR and a PSR map of each.")
    if incomplete:
        log.warning("Left out: %s%s.", "; ".join(incomplete[:3]), " ..." if len(incomplete) > 3 else "")
    return sorted(sessions, key=lambda s: s.name)


#: Suffixes of the truth's files, in the order of :class:`Session`'s fields.
_TRUTH = ("PSRmap", "dseg", "desc-lesion_mask", "desc-brain_mask", "label-GM_probseg", "label-WM_probseg")


def _image(folder: Path, suffix: str) -> Path | None:
    named = [p for end in (".nii.gz", ".nii") for p in sorted(folder.glob(f"*_{suffix}{end}"))]
    found = [p for p in named if not is_hidden(p)]
    return found[0] if found else None


def _first(folders: Iterable[Path], suffix: str) -> Path | None:
    return next((image for folder in folders if (image := _image(folder, suffix))), None)


def split(sessions: Sequence[Any], settings: Settings) -> tuple[list[Any], list[Any]]:
    """Training and validation sessions; a subject is wholly on one side.

    Raises:
        InputError: a subject named in the settings is not there, or nothing is left to train on.
    """
    subjects = sorted({s.subject for s in sessions})
    for name in (*settings.validation_subjects, *settings.exclude_subjects):
        if _subject(name) not in subjects:
            raise InputError(f"The data set has no subject {name!r}; it has {subjects[0]} to {subjects[-1]}.")
    excluded = {_subject(name) for name in settings.exclude_subjects}
    left = [s for s in subjects if s not in excluded]
    held = {_subject(name) for name in settings.validation_subjects} - excluded
    if not held and settings.validation > 0:
        if len(left) < 2:
            raise InputError("One subject cannot be split into training and validation; add subjects or validation=0.")
        count = min(len(left) - 1, max(1, round(settings.validation * len(left))))
        held = set(random(settings.seed, "split").permutation(left)[:count].tolist())
    train = [s for s in sessions if s.subject in left and s.subject not in held]
    if not train:
        raise InputError("No subject is left to train on; hold out or exclude fewer.")
    return train, [s for s in sessions if s.subject in held]


def _subject(name: str) -> str:
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
        """PSR as a fraction: float16 (X, Y, Z)."""
        return np.load(self.folder / "y.npy", mmap_mode="r")

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
        """Up to 8192 voxels (n, 3) drawn from the "brain" or from its "lesion"s."""
        return np.load(self.folder / f"{kind}.npy", mmap_mode="r")

    @property
    def meta(self) -> dict[str, Any]:
        """Affine of the model grid, inputs, settings."""
        return json.loads((self.folder / "meta.json").read_text())


def prepare_cohort(sessions: Sequence[Session], settings: Settings, cache: Path) -> list[Prepared]:
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
    with tqdm(total=sum(map(len, todo.values())), desc="prepare", unit="session", disable=not todo) as bar:
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
    return result


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
    what = {"format": _FORMAT, "settings": asdict(settings), "inputs": [_digest(path) for path in session.files]}
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
    psr = Volume.read(session.psr).resampled_to(grid, order="linear").array
    y = np.where(inside, np.nan_to_num(psr, nan=0.0, posinf=0.0, neginf=0.0), 0).astype(np.float16)
    if y.max() > 1:
        raise InputError(f"{session.psr} should hold fractions (white matter about 0.12), not {y.max():.0f}; divide.")
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
        for name, array in arrays.items():
            _save_shared(temporary / f"{name}.npy", array, entry.folder.parent)
        for kind, where in (("brain", labels > 0), ("lesion", labels == LESION)):
            places = np.argwhere(where).astype(np.int16)
            if len(places) > _PLACES:
                places = places[np.sort(random(0, "places", kind).choice(len(places), _PLACES, replace=False))]
            np.save(temporary / f"{kind}.npy", places)
        meta = {
            "subject": session.subject, "session": session.session, "affine": grid.affine.tolist(),
            "inputs": [str(path) for path in session.files], "settings": asdict(settings),
            "warnings": list(prepared.warnings),
        }  # fmt: skip
        (temporary / "meta.json").write_text(json.dumps(meta, indent=1))


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
