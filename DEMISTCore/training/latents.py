"""Latents of a cohort, encoded once by the frozen autoencoders and kept on disk; crops of them as samples."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from ..devices import pick_device
from ..errors import InputError
from ..networks.autoencoder import encode
from ..networks.config import PSR_RANGE
from ..volume.grid import triple
from .arrays import mapped
from .cache import is_whole, new_entry
from .data import PreparedSession, augment, clamp_start, pick, random
from .foundation import Foundation
from .groups import LatentSettings
from .loop import autocast

_FORMAT = 1
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Latents:
    """The latents of one session, on disk, not yet scaled."""

    prepared: PreparedSession
    folder: Path

    @property
    def z(self) -> np.ndarray:
        """Means of E_y(y): float16 (F, Cz, x, y, z); F = 1, and left-right flipped."""
        return mapped(self.folder / "z.npy")

    @property
    def c(self) -> np.ndarray:
        """Means of E_x(x): float16 (A, F, Cc, x, y, z); A = 1, and copies with random contrast."""
        return mapped(self.folder / "c.npy")


@torch.no_grad()
def encode_cohort(
    entries: Sequence[PreparedSession], foundation: Foundation, settings: LatentSettings, cache: Path
) -> list[Latents]:
    """Encode every session, once; what the cache has is not made again. Whole volumes; means, no sampling."""
    from tqdm import tqdm

    augmentations = settings.latent_augmentations
    key = {
        "format": _FORMAT,
        "autoencoders": foundation.autoencoder_hash,
        "flip": settings.flip,
        "copies": augmentations,
        "precision": settings.precision,
        "augment": asdict(settings.augment) if augmentations else None,
        "seed": settings.seed if augmentations else 0,
    }
    if foundation.psr_range != PSR_RANGE:  # only then: entries of the usual range keep their names
        key["psr_range"] = foundation.psr_range
    root = cache / "latents" / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    result = [Latents(entry, root / f"{entry.name}-{entry.key}") for entry in entries]
    todo = [latents for latents in result if not is_whole(latents.folder, "c.npy")]
    device = pick_device(settings.device)
    psr, condition = foundation.psr.to(device), foundation.condition.to(device)
    done: dict[tuple[int, int], Path] = {}  # inode of y -> latents of the same y

    def run(autoencoder: torch.nn.Module, image: np.ndarray) -> np.ndarray:
        batch = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None].to(device)
        batch = batch.contiguous(memory_format=torch.channels_last_3d)
        with autocast(device, settings.precision):
            return encode(autoencoder, batch)[0].float().cpu().numpy().astype(np.float16)

    for latents in tqdm(todo, desc="encode", unit="session", disable=not todo):
        entry = latents.prepared
        flips = (False, True) if settings.flip else (False,)
        with new_entry(latents.folder) as temporary:
            status = (entry.folder / entry.map).stat()
            same = done.get((status.st_dev, status.st_ino))
            if same is not None:
                _link(same, temporary / "z.npy")
            else:
                y = np.asarray(entry.y, np.float32)[None] / foundation.psr_range
                np.save(temporary / "z.npy", np.stack([run(psr, np.flip(y, -3) if f else y) for f in flips]))
            copies = []
            for a in range(1 + augmentations):
                x = np.asarray(entry.x, np.float32)
                if a:
                    x = augment(x, settings.augment, random(settings.seed, "latents", entry.name, a))
                copies.append([run(condition, np.flip(x, -3) if f else x) for f in flips])
            np.save(temporary / "c.npy", np.array(copies))
        done[(status.st_dev, status.st_ino)] = latents.folder / "z.npy"
    return result


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def known_share(entry: PreparedSession, factor: int) -> np.ndarray:
    """Share of each latent position's voxels whose PSR is known, float32 (x, y, z), 0 where that is under a half."""
    known = np.asarray(entry.known)
    shape = [n // factor for n in known.shape]
    blocks = [side for n in shape for side in (n, factor)]
    share = known[tuple(slice(n * factor) for n in shape)].reshape(blocks).mean((1, 3, 5), dtype=np.float32)
    return np.where(share >= 0.5, share, np.float32(0))


def latent_scales(cohort: Sequence[Latents], factor: int) -> tuple[float, float]:
    """1 / standard deviation of z and of c over the brain of all sessions: scaled latents have variance one there.

    Where PSR is unknown, z does not count.
    """
    sums = np.zeros((2, 3))
    for latents in cohort:
        labels = latents.prepared.labels
        blocks = [side for n in labels.shape for side in (n // factor, factor)]
        brain = (np.asarray(labels) > 0).reshape(blocks).mean((1, 3, 5)) > 0.5
        covered = brain & (known_share(latents.prepared, factor) > 0) if latents.prepared.is_partial else brain
        for i, (array, where) in enumerate(((latents.z[0], covered), (latents.c[0, 0], brain))):
            values = np.asarray(array, np.float64)[:, where]
            sums[i] += values.size, values.sum(), np.square(values).sum()
    deviations = [math.sqrt(square / n - (total / n) ** 2) for n, total, square in sums]
    if not all(d > 1e-4 and math.isfinite(d) for d in deviations):
        raise InputError("The autoencoder's latents are constant; train it longer, or with a smaller beta_kl.")
    return 1 / deviations[0], 1 / deviations[1]


def draw_time(index: int, settings: LatentSettings, steps: int) -> int:
    """Time of sample ``index``, evenly spread over any stretch of samples.

    An additive recurrence with the golden ratio instead of independent draws: small batches then have less noise in
    their gradients (Kingma et al. 2021, appendix I.1, do so within one batch). ``focus_share`` of the samples go to the
    times in ``focus``: under the usual schedules half of all times are almost pure noise, where the task is the same
    at all of them, and what decides over a sample's quality is learnt in between.
    """
    u = (random(settings.seed, "time").random() + index * _GOLDEN) % 1.0
    share, (low, high) = settings.focus_share, settings.focus
    if u < share:
        time = low + u / share * (high - low)
    else:
        time = (u - share) / (1 - share)
    return min(int(time * steps), steps - 1)


@dataclass(frozen=True)
class Crop:
    """One sample's place: which session, flipped or not, which copy, where."""

    latents: Latents
    flip: int
    copy: int
    start: tuple[int, int, int]
    size: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Latent extents of the whole volume."""
        return self.latents.z.shape[-3:]

    @property
    def offset(self) -> np.ndarray:
        """Crop's centre minus the volume's centre, latent voxels, float32 (3,)."""
        ends = zip(self.start, self.size, self.shape)
        return np.array([s + n / 2 - extent / 2 for s, n, extent in ends], np.float32)

    def known(self, factor: int) -> np.ndarray:
        """How much of each latent position is known (:func:`known_share`), float32 (1, *size)."""
        share = known_share(self.latents.prepared, factor)[None]
        return self.read(np.flip(share, 1) if self.flip else share)

    def read(self, array: np.ndarray) -> np.ndarray:
        """The crop of (C, x, y, z), float32; beyond the edge the edge goes on (it is background)."""
        at = np.ix_(*[np.clip(np.arange(s, s + n), 0, e - 1) for s, n, e in zip(self.start, self.size, self.shape)])
        return np.stack([np.asarray(channel[at], np.float32) for channel in array])


def draw_crop(
    cohort: Sequence[Latents], settings: LatentSettings, index: int, rng: np.random.Generator, key: str
) -> Crop:
    """Where sample ``index`` comes from."""
    latents = cohort[pick(len(cohort), settings.seed, key, index)]
    z = latents.z
    flip = int(rng.integers(z.shape[0]))
    copy = int(rng.integers(1 + settings.latent_augmentations))
    shape = z.shape[-3:]
    size = tuple(settings.crop) if settings.crop else shape
    # Uniform over the crops that touch the edge at most.
    start = clamp_start([int(rng.integers(max(n - m, 0) + 1)) for n, m in zip(shape, size)], size, shape)
    if latents.prepared.is_partial:
        start = _over_known(latents, size, flip, rng)
    return Crop(latents, flip, copy, triple(start), triple(size))


def _over_known(latents: Latents, size: Sequence[int], flip: int, rng: np.random.Generator) -> list[int]:
    """Start of a crop around a place, drawn with jitter, where PSR is known."""
    shape, entry = latents.z.shape[-3:], latents.prepared
    indices = entry.voxel_indices("brain")
    factor = entry.labels.shape[0] // shape[0]
    centre = np.asarray(indices[rng.integers(len(indices))], int) // factor
    jitter = [int(rng.integers(-(n // 4), n // 4 + 1)) for n in size]
    if flip:
        centre[0] = shape[0] - 1 - centre[0]
    return clamp_start([c + j - n // 2 for c, j, n in zip(centre.tolist(), jitter, size)], size, shape)


def check_crop(cohort: Sequence[Latents], settings: LatentSettings, multiple: int) -> None:
    """InputError where crops do not fit the U-Net, or whole volumes cannot be stacked."""
    if settings.crop:
        if any(n % multiple for n in settings.crop):
            raise InputError(f"crop={list(settings.crop)} must be multiples of {multiple}, as the U-Net halves it.")
    elif settings.batch > 1 and len({latents.z.shape[-3:] for latents in cohort}) > 1:
        raise InputError("Whole volumes of different shapes do not stack; set crop=, batch=1 or preprocess.shape=.")


def noise_like(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    """Standard normal float32. Of ``shape``: any shape."""
    return rng.standard_normal(shape, np.float32)
