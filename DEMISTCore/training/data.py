"""Training data: a BIDS data set on disk, its prepared sessions as float16 memory maps, and samples of them.

Every random choice is a pure function of (seed, stage, index of the sample), never of a stateful loader: that is what
makes a resumed run equal an uninterrupted one, and accumulated gradients equal those of the large batch.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..labels import TISSUE_LABELS
from .arrays import mapped
from .groups import AugmentSettings, Settings

if TYPE_CHECKING:
    from torch import Tensor

    from ..measured.choice import Choice

log = logging.getLogger(__name__)

FLAIR = 1  # of the two channels of x
UNLABELLED = 8  # brain voxels of a data set without a segmentation
TISSUES = (*TISSUE_LABELS, UNLABELLED)


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
        every = (
            self.t1w,
            self.flair,
            self.psr,
            self.dseg,
            self.lesion,
            self.mask,
            self.grey,
            self.white,
            self.reference,
        )
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
    incomplete = [
        f"{'/'.join(filter(None, (c.subject, c.session)))} lacks {' and '.join(c.missing)}"
        for c in choices
        if c.missing
    ]
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
        choice.subject,
        choice.session,
        files["t1w"],
        files["flair"],
        files["psr"],
        files.get("dseg"),
        files.get("lesion"),
        files.get("mask"),
        files.get("grey"),
        files.get("white"),
        files.get("reference"),
        choice.in_t1w_space,
    )


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
    validation_set = {subject_name(name) for name in settings.validation_subjects} - excluded
    if not validation_set and settings.validation > 0:
        if len(left) < 2:
            raise InputError("One subject cannot be split into training and validation; add subjects or validation=0.")
        count = min(len(left) - 1, max(1, round(settings.validation * len(left))))
        validation_set = set(random(settings.seed, "split").permutation(left)[:count].tolist())
    train = [s for s in sessions if s.subject in left and s.subject not in validation_set]
    if not train:
        raise InputError("No subject is left to train on; hold out or exclude fewer.")
    return train, [s for s in sessions if s.subject in validation_set]


def subject_name(name: str) -> str:
    """``012`` and ``sub-012`` as ``sub-012``."""
    return name if name.startswith("sub-") else f"sub-{name}"


#: How files with sharpened maps are called.
SHARP = "sharp-"


# --- prepared sessions -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PreparedSession:
    """A session on the model grid, on disk. Arrays are opened when asked for: hundreds would exhaust file handles."""

    subject: str
    session: str
    folder: Path
    key: str
    map: str = "y.npy"  # or another file in the folder: on a common level (:mod:`.levels`), sharpened (:mod:`.sharpen`)

    @property
    def name(self) -> str:
        """Such as ``sub-001_ses-01``."""
        return f"{self.subject}_{self.session}" if self.session else self.subject

    @property
    def x(self) -> np.ndarray:
        """T1w and FLAIR, normalized, 0 outside the brain: float16 (2, X, Y, Z)."""
        return mapped(self.folder / "x.npy")

    @property
    def y(self) -> np.ndarray:
        """PSR as a fraction: float16 (X, Y, Z). Where it is unknown a guess, see :func:`DEMISTCore.measured.filled`."""
        return mapped(self.folder / self.map)

    @property
    def is_partial(self) -> bool:
        """Whether PSR is unknown in part of the brain."""
        return (self.folder / "known.npy").is_file()

    @property
    def known(self) -> np.ndarray:
        """1 where PSR is known, and outside the brain, where it is 0 by definition: uint8 (X, Y, Z)."""
        if self.is_partial:
            return mapped(self.folder / "known.npy")
        return np.broadcast_to(np.uint8(1), self.labels.shape)

    @property
    def coverage(self) -> float:
        """Share of the brain's voxels with a known PSR."""
        return float(self.meta["psr"]["coverage"]) if self.is_partial else 1.0

    @property
    def spacing(self) -> float:
        """Voxel size, mm."""
        return float(np.linalg.norm(np.asarray(self.meta["affine"])[:3, 0]))

    @property
    def blur(self) -> np.ndarray | None:
        """How much coarser than this grid the PSR map is (:mod:`.resolution`): a covariance (3, 3), voxels, or None."""
        if self.map.startswith(SHARP):
            return None
        blur = self.meta.get("psr", {}).get("blur")
        return None if blur is None else np.asarray(blur, np.float64)

    @property
    def labels(self) -> np.ndarray:
        """Tissue labels, 0 outside the brain: uint8 (X, Y, Z)."""
        return mapped(self.folder / "labels.npy")

    @property
    def fractions(self) -> np.ndarray | None:
        """Fractions of grey and of white matter, 255 for a whole voxel, lesions white: uint8 (2, X, Y, Z); or None."""
        file = self.folder / "shares.npy"
        return mapped(file) if file.is_file() else None

    def voxel_indices(self, kind: str) -> np.ndarray:
        """Up to 8192 voxels (n, 3) drawn from the "brain" or from its "lesion"s, where PSR is known."""
        return mapped(self.folder / f"{kind}.npy")

    @property
    def meta(self) -> dict[str, Any]:
        """Affine of the model grid, inputs, settings."""
        return json.loads((self.folder / "meta.json").read_text())


# --- samples ---------------------------------------------------------------------------------------------------------


def pick(count: int, seed: int, key: str, index: int) -> int:
    """Which of ``count`` items sample ``index`` uses: every item once per epoch, each epoch in its own order."""
    epoch, place = divmod(index, count)
    return int(random(seed, key, "order", epoch).permutation(count)[place])


def crop(array: np.ndarray, start: Sequence[int], size: Sequence[int]) -> np.ndarray:
    """A copy of ``array[..., start:start+size]``; beyond the edge it is filled with zeros. Last three axes.

    The shape is (..., *size).
    """
    lead = array.shape[:-3]
    result = np.zeros((*lead, *size), array.dtype)
    # Typed by hand: an ellipsis before slices is more than numpy's stubs can tell from an index by arrays.
    source: list[EllipsisType | slice] = [...]
    target: list[EllipsisType | slice] = [...]
    for s, n, extent in zip(start, size, array.shape[-3:]):
        low, high = max(s, 0), min(s + n, extent)
        source.append(slice(low, max(high, low)))
        target.append(slice(low - s, max(high, low) - s))
    result[tuple(target)] = array[tuple(source)]
    return result


def clamp_start(start: Sequence[int], size: Sequence[int], shape: Sequence[int]) -> list[int]:
    """Move a crop inside the volume; along an axis where it does not fit, centre the volume in it."""
    return [min(max(s, 0), n - m) if n >= m else -((m - n) // 2) for s, m, n in zip(start, size, shape)]


def random_patch(
    entry: PreparedSession, size: Sequence[int], rng: np.random.Generator, lesions: float = 0.3
) -> list[int]:
    """Start of a patch centred (with jitter) on a lesion or, else, on any brain voxel."""
    indices = entry.voxel_indices("lesion")
    if not len(indices) or rng.random() >= lesions:
        indices = entry.voxel_indices("brain")
    if not len(indices):
        raise InputError(f"{entry.name} has an empty brain mask; fix or exclude it (exclude_subjects=).")
    centre = np.asarray(indices[rng.integers(len(indices))], int)
    jitter = [int(rng.integers(-(n // 4), n // 4 + 1)) for n in size]
    return clamp_start([c + j - n // 2 for c, j, n in zip(centre, jitter, size)], size, entry.labels.shape)


def augment(x: np.ndarray, settings: AugmentSettings, rng: np.random.Generator) -> np.ndarray:
    """Random contrast of (2, X, Y, Z) inside the brain, each modality by itself; 0 outside stays 0.

    Wide on purpose: networks trained over many contrasts work on scanners they have never seen (Billot et al. 2023,
    SynthSeg). The tissue's median sits at 0.5 (see :func:`DEMISTCore.preprocess.normalize`) and is the fixed point of
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
