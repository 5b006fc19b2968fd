"""The tissue network's training: fractions of tissue, classes and lesions of simulated brains, on patches.

Contrast is random beyond what scanners do, tissue by tissue as well, and a share of the samples has no FLAIR: what the
network then relies on is anatomy (Billot et al., Med Image Anal 86:102789, 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .. import pooling
from ..errors import InputError
from ..labels import CSF, GREY, LESION, TISSUE_LABELS, WHITE
from ..losses import dice_loss
from ..regions.network import FOLD, build_network
from . import previews
from .data import PreparedSession, augment, collate, crop, pick, random, random_patch
from .stage import Stage
from .stages.segmentation import SegmentationSettings

_LESION = list(TISSUE_LABELS).index(LESION)
#: Classes of CSF, grey and white matter, and the place of each class's tissue among the three.
_OF_CLASS = [told.tissue for told in TISSUE_LABELS.values()]
_MEMBERS = [[i for i, what in enumerate(_OF_CLASS) if what == tissue] for tissue in (CSF, GREY, WHITE)]
_TISSUE = torch.tensor(_OF_CLASS) - CSF
#: Share of the voxels that counts as mixed at least: where only hard labels are known, none would be.
_LEAST_MIXED = 0.1
#: Weight of the lesions' Dice loss.
_DICE = 0.25
#: PSR of CSF, grey and white matter, white matter's being 1: means of 0.06 and 0.12.
_CONTENT = torch.tensor([0.0, 0.5, 1.0])
#: Tissues under this share of a patch's brain have no mean to speak of.
_LEAST_REGION = 0.02


class SegmentationObjective(nn.Module):
    """How much of a voxel is which tissue, which class that tissue is there, and where lesions are.

    By the chain rule p(class) = p(tissue) p(class | tissue): cross-entropy of CSF, grey and white matter against their
    fractions, whose minimum is the expected fraction, so that a sum over voxels is an unbiased volume; cross-entropy
    of the class within its tissue; the Dice loss of lesions, which are few; and the Huber loss of each tissue's
    volume in a patch, in units of its mixed voxels: cross-entropy hardly notices borders that are all a twentieth of a
    voxel off, means over regions do. Last, those means themselves: what PSR grey and white matter as labelled would
    have, against that of the true ones. All inside the brain only.
    """

    def __init__(self, settings: SegmentationSettings) -> None:
        super().__init__()
        self.network = build_network(settings.channels)
        weight = torch.ones(len(TISSUE_LABELS))
        weight[_LESION] = settings.lesion_weight
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("content", _CONTENT, persistent=False)
        self.volume_weight, self.volume_start = settings.volume_weight, settings.volume_start
        self.mean_weight = settings.mean_weight

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Loss of a batch.

        x (B, 2, X, Y, Z); target (B, X, Y, Z) classes from 0 on, -1 outside the brain; shares (B, 2, X, Y, Z) of grey
        and white matter in 255ths.
        """
        # Blocks stay folded: unfolding at full resolution costs more than the loss.
        logits, target = self.network.folded(batch["x"]).float(), _folded(batch["target"]).long()
        shares = torch.stack([_folded(part) for part in batch["shares"].unbind(1)], 1).float() / 255
        inside = target >= 0
        count = pooling.count(inside.sum())
        logarithms = logits.log_softmax(1)
        tissues = torch.stack([logarithms[:, members].logsumexp(1) for members in _MEMBERS], 1)
        parts_of = torch.cat([1 - shares.sum(1, keepdim=True), shares], 1)
        fractions = -((parts_of * tissues).sum(1) * inside).sum() / count
        own, tissue = target.clamp_min(0)[:, None], _TISSUE.to(target.device)[target.clamp_min(0)][:, None]
        within = (tissues.gather(1, tissue) - logarithms.gather(1, own))[:, 0]
        classes = (within * self.weight[target.clamp_min(0)] * inside).sum() / count
        lesion = logarithms[:, _LESION : _LESION + 1].exp() * inside[:, None]
        dice = dice_loss(lesion, (target == _LESION)[:, None].float())
        # What a mean over a region hangs on: how much of each tissue there is, over all its borders.
        mixed = ((1 - parts_of.amax(1)) * inside).flatten(1).sum(1)
        mixed = torch.maximum(mixed, _LEAST_MIXED * inside.flatten(1).sum(1)).clamp_min(1)
        surplus = ((tissues.exp() - parts_of) * inside[:, None]).flatten(2).sum(2) / mixed[:, None]
        # Linear beyond a tenth, and late: an error of the whole brain would drown all else at first.
        volume = _squared(surplus, 0.1)
        means = self._means(tissues.exp(), parts_of, inside)
        borders = self.volume_weight * volume + self.mean_weight * means
        loss = fractions + classes + _DICE * dice + (borders if progress >= self.volume_start else 0.0)
        parts = {"fractions": fractions, "classes": classes, "dice": dice, "volume": volume, "means": means}
        return {"loss": loss, **parts}

    def rehearse(self, batch: dict[str, Tensor], progress: float) -> None:
        """What :meth:`forward` takes from the other samples of a step: voxels inside, and the overlap of lesions."""
        self(batch, progress)

    def _means(self, found: Tensor, true: Tensor, inside: Tensor) -> Tensor:
        """Relative error of the mean content of grey and white matter: its square over 0.01, linear beyond 0.01.

        Args:
            found: probabilities of the tissues (B, 3, ...); the labels are the likeliest ones, and gradients go
                straight through to the probabilities.
            true: fractions of the tissues (B, 3, ...).
            inside: bool (B, ...).
        """
        content = (true * self.content.view(1, 3, *[1] * (true.ndim - 2))).sum(1, keepdim=True)
        labels, region = (
            (F.one_hot(part.argmax(1), 3).movedim(-1, 1).float() * inside[:, None])[:, 1:] for part in (found, true)
        )
        soft = (found * inside[:, None])[:, 1:]
        labels = labels + soft - soft.detach()

        def mean(part: Tensor) -> Tensor:
            return (part * content).flatten(2).sum(2) / part.flatten(2).sum(2).clamp_min(1)

        there = region.flatten(2).sum(2) > _LEAST_REGION * inside.flatten(1).sum(1, keepdim=True)
        error = torch.where(there, mean(labels) / mean(region).clamp_min(1e-3) - 1, 0)
        return _squared(error, 0.01) / 0.01


def _squared(errors: Tensor, up_to: float) -> Tensor:
    """Squares of errors (B, tissues), linear beyond ``up_to`` (Huber), summed over tissues, averaged over samples."""
    return 2 * F.huber_loss(errors, torch.zeros_like(errors), reduction="none", delta=up_to).sum(1).mean()


def _folded(target: Tensor) -> Tensor:
    """(B, X, Y, Z) to (B, 8, X/2, Y/2, Z/2), in the order of :func:`DEMISTCore.networks.autoencoder.fold_voxels`."""
    return rearrange(target, "b (x i) (y j) (z k) -> b (i j k) x y z", i=FOLD, j=FOLD, k=FOLD)


class SegmentationStage(Stage):
    """See :class:`.stage.Stage`."""

    score = "error"

    def __init__(
        self,
        settings: SegmentationSettings,
        train: Sequence[PreparedSession],
        validation_set: Sequence[PreparedSession],
    ) -> None:
        if len(settings.channels) != 6:
            raise InputError("channels needs six widths: five levels and the last decoder block.")
        if any(n % 32 for n in settings.patch) or max(settings.patch) < 64:
            # A single position at the lowest level would leave an instance norm nothing to average over.
            raise InputError(f"patch={list(settings.patch)} must be multiples of 32, and one of them 64 or more.")
        if settings.thin_mask + settings.thick_mask > 1:
            raise InputError("thin_mask and thick_mask are shares of the samples; together they are 1 at most.")
        self.settings, self.train, self.validation_set = settings, train, validation_set
        self.objective = SegmentationObjective(settings)
        self.objectives: dict[str, nn.Module] = {"segmentation": self.objective}

    def table(self) -> str:
        """Number of parameters."""
        return f"segmentation: {sum(p.numel() for p in self.objective.parameters()):,} parameters"

    def batch(self, indices: range) -> dict[str, Tensor]:
        """Random patches, flipped, with random contrast, some without a FLAIR."""
        s, samples = self.settings, []
        for i in indices:
            rng = random(s.seed, "segmentation", i)
            entry = self.train[pick(len(self.train), s.seed, "segmentation", i)]
            start = random_patch(entry, s.patch, rng, s.lesion_share)
            (x, labels), shares = _read(entry, s.patch, start), _shares(entry, s.patch, start)
            flip, blind = rng.random(2) < (0.5 if s.flip else 0.0, s.flair_dropout)
            mask = rng.random()
            if flip:
                x, labels, shares = (np.flip(array, -3) for array in (x, labels, shares))
            if mask < s.thin_mask:
                x, labels = thinned(x, labels, int(rng.integers(1, 4)))
            x = recoloured(x, labels, s, rng)
            if s.thin_mask <= mask < s.thin_mask + s.thick_mask:
                x, labels = thickened(x, labels, rng)
            x = augment(x, s.augment, rng)
            if blind:
                x[1] = 0
            samples.append({"x": x, "target": _target(labels), "shares": np.ascontiguousarray(shares)})
        return collate(samples)

    def validate(self, device: torch.device) -> dict[str, float]:
        """Dice of white matter (with lesions and brainstem), grey matter and lesions on fixed held-out patches.

        ``error``: one minus the mean of the three.
        """
        s = self.settings
        entries = self.validation_set or self.train
        hits: dict[str, list[np.ndarray]] = {}
        for i in range(s.validation_patches):
            entry = entries[i % len(entries)]
            x, labels = _read(entry, s.patch, random_patch(entry, s.patch, random(0, "validation", i), 0.5))
            for name, flair in (("", 1.0), ("_t1w", 0.0)):
                seen = torch.from_numpy(x * np.array([1.0, flair], np.float32)[:, None, None, None])[None]
                found = self.objective.network(seen.to(device)).float().argmax(1)[0].cpu().numpy()
                for tissue, a, b in _tissues(found, _target(labels)):
                    hits.setdefault(tissue + name, []).append(np.array([2 * (a & b).sum(), a.sum() + b.sum()], float))
        values = {name: float(np.divide(*np.sum(pairs, axis=0).clip(1e-9))) for name, pairs in hits.items()}
        three = [values[name] for name in ("white", "grey", "lesion")]
        return {"error": 1 - float(np.mean(three)), **values}

    def preview(self, path: Path, device: torch.device) -> None:
        """One held-out patch: T1w, FLAIR, true classes, the answer with and without the FLAIR."""
        s = self.settings
        entry = (self.validation_set or self.train)[0]
        x, labels = _read(entry, s.patch, random_patch(entry, s.patch, random(0, "preview"), 1.0))
        rows = [("T1w", x[0], "image"), ("FLAIR", x[1], "image"), ("true", labels.astype(np.float32), "labels")]
        for name, flair in (("T1w and FLAIR", 1.0), ("T1w alone", 0.0)):
            seen = torch.from_numpy(x * np.array([1.0, flair], np.float32)[:, None, None, None])[None]
            found = self.objective.network(seen.to(device)).float().argmax(1)[0].cpu().numpy()
            rows.append((name, np.where(labels > 0, found + 1, 0).astype(np.float32), "labels"))
        previews.draw(path, rows, title=entry.name)


def _read(entry: PreparedSession, size: Sequence[int], start: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """x (2, ...) float32 and labels (...) of a patch; a data set without tissue labels has nothing to learn from."""
    labels = crop(entry.labels, start, size)
    if labels.max() > max(TISSUE_LABELS):
        raise InputError(f"{entry.name} has no tissue segmentation (*_dseg with labels 1 to 7); it is needed here.")
    x = crop(entry.x, start, size).astype(np.float32)
    # What a brain mask holds beyond the segmentation is meninges and vessels: for regions, it is outer CSF.
    return x, np.where((labels == 0) & x.any(0), np.uint8(1), labels)


def _shares(entry: PreparedSession, size: Sequence[int], start: Sequence[int]) -> np.ndarray:
    """Fractions of grey and white matter in 255ths (2, ...) of a patch; all or nothing where only labels are known."""
    shares = entry.fractions
    if shares is not None:
        return crop(shares, start, size)
    labels = crop(entry.labels, start, size)
    what = np.array([0, *_OF_CLASS])[labels]
    return np.stack([what == GREY, what == WHITE]).astype(np.uint8) * np.uint8(255)


def _target(labels: np.ndarray) -> np.ndarray:
    """Labels 1 to 7 as classes 0 to 6, -1 outside."""
    return labels.astype(np.int16) - 1


def _tissues(found: np.ndarray, true: np.ndarray) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """White, grey and lesion masks of the answer and the truth, inside the brain."""
    inside, tissue = true >= 0, np.array(_OF_CLASS)
    a, b = tissue[found], tissue[true.clip(0)]
    pairs = [("white", a == WHITE, b == WHITE), ("grey", a == GREY, b == GREY)]
    pairs.append(("lesion", found == _LESION, true == _LESION))
    return [(name, p & inside, q & inside) for name, p, q in pairs]


def recoloured(
    x: np.ndarray, labels: np.ndarray, settings: SegmentationSettings, rng: np.random.Generator
) -> np.ndarray:
    """Shift the brightness of each tissue class by itself, softly at the borders; lesions and CSF stay.

    Scanners differ in how bright brainstem, cerebellum and iron-rich nuclei are against cortex and white matter.

    Args:
        x: T1w and FLAIR (2, X, Y, Z).
        labels: (X, Y, Z), 0 outside the brain.
        settings: standard deviations ``recolour`` of the two images and ``recolour_share`` of the samples.
        rng: source of randomness.
    """
    from scipy.ndimage import gaussian_filter

    on = rng.random() < settings.recolour_share
    shifts = rng.normal(0, 1, (2, max(TISSUE_LABELS) + 1)).astype(np.float32)
    if not on or not any(settings.recolour):
        return x
    shifts[:, [0, 1, LESION]] = 0
    # A lesion lies in white matter and keeps its contrast to it.
    shifts[:, LESION] = shifts[:, 3]
    result = np.empty_like(x)
    for channel, deviation in enumerate(settings.recolour):
        soft = gaussian_filter((deviation * shifts[channel])[labels], 0.8, truncate=2.5)
        result[channel] = np.where(labels > 0, x[channel] + soft, 0)
    return result


def thinned(x: np.ndarray, labels: np.ndarray, voxels: int) -> tuple[np.ndarray, np.ndarray]:
    """Without the outer CSF: brain masks of different tools differ in how much of it they hold.

    ``x`` (C, X, Y, Z) are prepared images, ``labels`` (X, Y, Z).
    """
    from scipy.ndimage import binary_dilation

    outside = labels == 0
    if not outside.any():
        return x, labels
    reached = binary_dilation(outside, iterations=voxels, mask=outside | (labels == 1))
    return np.where(reached, np.float32(0), x), np.where(reached, np.uint8(0), labels)


def thickened(x: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """With a rim of up to seven voxels, dark with brighter spots, that counts as CSF.

    Brain masks of real scans reach into the subarachnoid space, meninges and vessels; simulated brains end at the CSF.

    Args:
        x: T1w and FLAIR (2, X, Y, Z), 0 outside.
        labels: (X, Y, Z), 0 outside the brain.
        rng: source of randomness.
    """
    from scipy.ndimage import distance_transform_edt

    outside = labels == 0
    if not outside.any() or outside.all():
        return x, labels
    width = rng.uniform(1, 5) + rng.uniform(0, 2) * _smooth_noise(labels.shape, 24, rng)
    rim = outside & (distance_transform_edt(outside) <= width)
    # Meninges and vessels lie at the same place in both images, bright or dark in each.
    spots = (_smooth_noise(labels.shape, 5, rng) - 0.5).clip(0)
    result = x.copy()
    for image in result:
        fluid = rng.uniform(-0.1, 0.12) + rng.uniform(0, 0.05) * _smooth_noise(labels.shape, 8, rng)
        image[rim] = (fluid + rng.uniform(-0.1, 0.5) * spots)[rim]
    return result, np.where(rim, labels.dtype.type(1), labels)


def _smooth_noise(shape: Sequence[int], spacing: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of about unit variance whose values are drawn every ``spacing`` voxels and interpolated between."""
    from scipy.ndimage import zoom

    coarse = rng.standard_normal([-(-n // spacing) + 1 for n in shape]).astype(np.float32)
    fine = zoom(coarse, spacing, order=1, grid_mode=True, mode="nearest")
    return fine[tuple(slice(n) for n in shape)]
