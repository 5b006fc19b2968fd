"""Losses of both stages. Each is computed in float32 whatever autocast says, and is differentiable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from monai.losses import PatchAdversarialLoss
from monai.networks.nets import PatchDiscriminator
from torch import Tensor, nn

from . import pooling
from .errors import InputError


def _fp32(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.float() for t in tensors)


def _no_autocast(x: Tensor) -> torch.autocast:
    return torch.autocast(x.device.type, enabled=False)


def _weighted_mean(per_sample: Tensor, weight: Tensor | None) -> Tensor:
    """Mean over the batch of w_b l_b; not divided by the sum of weights, which are part of the objective."""
    return (per_sample if weight is None else per_sample * weight.to(per_sample)).mean()


# --------------------------------------------------------------------------------- where PSR is known


def known_mean(values: Tensor, known: Tensor | None) -> Tensor:
    """Mean of ``values`` (B, C, ...) weighted by ``known`` (B, 1, ...), 0 where nothing is; None: the plain mean.

    In training the mean over all samples of the step, see :mod:`DEMISTCore.pooling`.
    """
    if known is None:
        return values.mean()
    known = known.to(values).expand_as(values)
    return (values * known).sum() / pooling.count(known.sum())


def with_neighbours(known: Tensor) -> Tensor:
    """1 where a voxel of ``known`` (B, 1, X, Y, Z) and all its 26 neighbours are 1: where a gradient can be taken."""
    return -F.max_pool3d(-F.pad(known.float(), (1, 1) * 3, mode="replicate"), 3, stride=1)


# ---------------------------------------------------------------------------------------------- KL


def kl_loss(mu: Tensor, sigma: Tensor) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, 1)) in nats, averaged over latent elements (Kingma & Welling 2014, eq. 10).

    The mean, not the sum: the weight beta then means the same for every crop size.
    """
    with _no_autocast(mu):
        mu, sigma = _fp32(mu, sigma)
        variance = sigma.square()
        return 0.5 * (mu.square() + variance - 1 - variance.clamp_min(1e-20).log()).mean()


# -------------------------------------------------------------------------------------------- edges


def _difference(x: Tensor, dim: int) -> Tensor:
    n = x.shape[dim]
    return x.narrow(dim, 2, n - 2) - x.narrow(dim, 0, n - 2)


def _smooth(x: Tensor, dim: int) -> Tensor:
    n = x.shape[dim]
    return x.narrow(dim, 0, n - 2) + 2 * x.narrow(dim, 1, n - 2) + x.narrow(dim, 2, n - 2)


def sobel_gradient(x: Tensor, eps: float = 1e-12) -> Tensor:
    """3-D Sobel gradient magnitude G of (B, C, X, Y, Z), same shape, per voxel: a ramp of slope 1 gives 1.

    Along each axis [-1, 0, 1], across it [1, 2, 1] x [1, 2, 1], divided by 32; the border is replicated. This is
    `sqrt(sum_i scipy.ndimage.sobel(x, i, mode="nearest")**2) / 32`. `eps` keeps the root differentiable in flat
    regions, where it adds 1e-6.
    """
    with _no_autocast(x):
        p = F.pad(x.float(), (1, 1) * 3, mode="replicate")
        smooth_x = _smooth(p, 2)
        gx = _smooth(_smooth(_difference(p, 2), 3), 4)
        gy = _smooth(_difference(smooth_x, 3), 4)
        gz = _difference(_smooth(smooth_x, 3), 4)
        return ((gx.square() + gy.square() + gz.square()) / 32**2 + eps).sqrt()


def edge_loss(prediction: Tensor, target: Tensor, mask: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
    """Mean |G(prediction) - G(target)| over voxels (of `mask`, if given), then over the batch.

    Shapes (B, C, X, Y, Z), mask (B, 1, X, Y, Z); `weight` (B,) is w(t) in stage 2.
    """
    with _no_autocast(prediction):
        difference = (sobel_gradient(prediction) - sobel_gradient(target)).abs()
        if mask is None:
            per_sample = difference.flatten(1).mean(1)
        else:
            mask = mask.to(difference).expand_as(difference)
            per_sample = (difference * mask).flatten(1).sum(1) / mask.flatten(1).sum(1).clamp_min(1)
        return _weighted_mean(per_sample, weight)


# ------------------------------------------------------------------------------------------ PatchGAN


class PatchGAN(nn.Module):
    """A patch discriminator (Isola et al. 2017, arXiv 1611.07004) with the least-squares objective (Mao et al. 2017).

    Two optimisers: `generator_loss` for the autoencoder, `discriminator_loss` for `parameters()` of this module.
    Volumes (B, C, X, Y, Z), with extents of 2^(layers + 2) or more.

    Args:
        in_channels, channels, layers: of the discriminator.
        patch: extents of the volumes that it will see; None: not known.

    Raises:
        InputError: ``patch`` is too small.
    """

    def __init__(
        self, in_channels: int = 1, channels: int = 32, layers: int = 2, patch: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        least = 2 ** (layers + 2)  # halved by all layers but one, then two kernels of 4
        if patch is not None and min(patch) < least:
            raise InputError(f"patch={list(patch)} must be {least} or more: the discriminator halves it.")
        # Instance normalization: batches of one or two crops are too few for batch statistics.
        self.discriminator = PatchDiscriminator(
            spatial_dims=3, in_channels=in_channels, channels=channels, num_layers_d=layers, norm="INSTANCE"
        ).to(memory_format=torch.channels_last_3d)
        self.criterion = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)

    def _loss(self, x: Tensor, real: bool, for_discriminator: bool) -> Tensor:
        logits = self.discriminator(x)[-1]
        with _no_autocast(logits):
            return self.criterion(logits.float(), target_is_real=real, for_discriminator=for_discriminator)

    def generator_loss(self, fake: Tensor) -> Tensor:
        """How far the discriminator is from taking `fake` for real; leaves no gradient in the discriminator."""
        wanted = [p.requires_grad for p in self.parameters()]
        self.requires_grad_(False)
        try:
            return self._loss(fake, real=True, for_discriminator=False)
        finally:
            for parameter, flag in zip(self.parameters(), wanted):
                parameter.requires_grad_(flag)

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Half the sum of the losses on real and fake volumes; leaves no gradient in what made them."""
        return 0.5 * (self._loss(real.detach(), True, True) + self._loss(fake.detach(), False, True))


# ----------------------------------------------------------------------------------------- alignment


class Align(nn.Module):
    """Contrastive alignment of two latents on one grid: symmetric InfoNCE (van den Oord et al. 2018; CLIP 2021).

    Two 1x1x1 projection heads map z (B, Cz, x, y, z) and c (B, Cc, x, y, z) to unit vectors at `positions` places per
    sample, drawn inside `mask`. The same place in both is the positive pair, every other place (of any sample in the
    batch) a negative. Chance level is log(number of places).
    """

    def __init__(
        self, z_channels: int, c_channels: int, width: int = 32, positions: int = 256, temperature: float = 0.1
    ) -> None:
        super().__init__()
        self.project_z = nn.Conv3d(z_channels, width, 1)
        self.project_c = nn.Conv3d(c_channels, width, 1)
        self.positions = positions
        self.temperature = temperature

    def forward(
        self,
        z: Tensor,
        c: Tensor,
        mask: Tensor | None = None,
        generators: torch.Generator | Sequence[torch.Generator | None] | None = None,
    ) -> Tensor:
        """Return the scalar loss; zero (with gradient zero) where no sample has two places inside the mask.

        `mask` (B, 1, X, Y, Z) may lie on the latent grid or on the finer image grid. `generators` are CPU generators,
        one for each sample or one for all. In training, other places are those of all samples of the step
        (:mod:`DEMISTCore.pooling`).

        Raises:
            ValueError: if the two latents are not on one grid.
        """
        if z.shape[2:] != c.shape[2:] or len(z) != len(c):
            raise ValueError(f"Latents of {tuple(z.shape)} and {tuple(c.shape)} do not share one grid.")
        inside = torch.ones((len(z), z[0, 0].numel()), device="cpu")
        if mask is not None:
            coverage = mask.float()
            if mask.shape[2:] != z.shape[2:]:
                coverage = F.adaptive_avg_pool3d(coverage, z.shape[2:])
            inside = (coverage.flatten(1) > 0.5).float().cpu()
        with _no_autocast(z):
            # Gather first, project after: 1x1x1 convolutions commute with taking positions, and few are taken.
            a, b = [], []
            of_each = generators if isinstance(generators, Sequence) else [generators] * len(z)
            for i, (row, generator) in enumerate(zip(inside, of_each)):
                index = row[:0].long()
                if (count := min(self.positions, int(row.sum()))) > 0:
                    index = torch.multinomial(row, count, replacement=False, generator=generator)
                a.append(z[i].flatten(1)[:, index.to(z.device)].float())
                b.append(c[i].flatten(1)[:, index.to(z.device)].float())
            u = self._head(self.project_z, torch.cat(a, 1))
            v = self._head(self.project_c, torch.cat(b, 1))
            # Also without a place of its own: the other processes wait for this one.
            u, v = pooling.rows(torch.cat([u, v], 1)).chunk(2, 1)
            if len(u) < 2:
                return (u.sum() + v.sum()) * 0
            logits = u @ v.T / self.temperature
            same = torch.arange(len(logits), device=logits.device)
            return 0.5 * (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same))

    @staticmethod
    def _head(head: nn.Conv3d, columns: Tensor) -> Tensor:
        """(C, P) -> (P, width), unit rows."""
        return F.normalize(F.linear(columns.T, head.weight.flatten(1), head.bias), dim=1)


# ---------------------------------------------------------------------------------------------- Dice


def dice_loss(prediction: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth), the sums over the whole batch (Milletari et al. 2016).

    `prediction` and `target` are of one shape. As MONAI's `DiceLoss(batch=True)` of one class; in training the batch is
    all samples of the step, see :mod:`DEMISTCore.pooling`.
    """
    with _no_autocast(prediction):
        p, t = _fp32(prediction, target)
        both, either = pooling.rows(torch.stack([(p * t).sum(), p.sum() + t.sum()])[None]).sum(0)
        return 1 - (2 * both + smooth) / (either + smooth)


# ---------------------------------------------------------------------------------------- tissue means


def tissue_mean_loss(
    prediction: Tensor,
    target: Tensor,
    labels: Tensor,
    tissues: Iterable[int],
    weight: Tensor | None = None,
    minimum: int = 8,
) -> Tensor:
    """Sum over tissues of |mean(prediction) - mean(target)|, per sample, times w(t), averaged over the batch.

    Args:
        prediction: (B, 1, X, Y, Z), on a crop.
        target: as prediction.
        labels: (B, 1, X, Y, Z) integers.
        tissues: the labels that count.
        weight: (B,) w(t) = alpha_bar_t, or None for 1.
        minimum: a tissue with fewer voxels in the crop is skipped: its mean says little.
    """
    with _no_autocast(prediction):
        difference = (prediction.float() - target.float()).flatten(1)
        flat = labels.flatten(1)
        total = difference.new_zeros(len(difference))
        for tissue in tissues:
            inside = (flat == tissue).to(difference)
            count = inside.sum(1)
            # mean(a) - mean(b) = mean(a - b) over the same voxels
            mean = (difference * inside).sum(1) / count.clamp_min(1)
            total = total + torch.where(count >= minimum, mean.abs(), torch.zeros_like(mean))
        return _weighted_mean(total, weight)
