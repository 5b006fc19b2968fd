"""Losses against scipy, torch.distributions and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence

from DEMISTCore.errors import InputError
from DEMISTCore.losses import (
    Align,
    PatchGAN,
    edge_loss,
    kl_loss,
    sobel_gradient,
    tissue_mean_loss,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_kl_equals_torch_distributions():
    mu, sigma = torch.randn(2, 3, 4, 4, 4), torch.rand(2, 3, 4, 4, 4) + 0.1
    expected = kl_divergence(Normal(mu, sigma), Normal(0.0, 1.0)).mean()
    assert kl_loss(mu, sigma).item() == pytest.approx(expected.item(), rel=1e-5)
    assert kl_loss(torch.zeros(1, 1, 2, 2, 2), torch.ones(1, 1, 2, 2, 2)).item() == 0
    assert torch.isfinite(kl_loss(mu, torch.zeros_like(sigma)))


def _scipy_magnitude(array: np.ndarray, **kwargs) -> np.ndarray:
    return np.sqrt(sum(scipy.ndimage.sobel(array, axis, **kwargs) ** 2 for axis in range(3))) / 32


def test_sobel_equals_scipy():
    x = torch.randn(2, 2, 7, 9, 6)
    ours = sobel_gradient(x).numpy()
    assert ours.shape == x.shape
    for b in range(2):
        for c in range(2):
            array = x[b, c].numpy().astype(np.float64)
            np.testing.assert_allclose(ours[b, c], _scipy_magnitude(array, mode="nearest"), atol=1e-5)
            # With scipy's default border only the interior can agree.
            interior = (slice(1, -1),) * 3
            np.testing.assert_allclose(ours[b, c][interior], _scipy_magnitude(array)[interior], atol=1e-5)


def test_sobel_of_a_ramp_is_its_slope():
    grid = torch.stack(torch.meshgrid(*[torch.arange(8.0)] * 3, indexing="ij"))
    slope = torch.tensor([0.3, -1.2, 0.4])
    ramp = (grid * slope[:, None, None, None]).sum(0)[None, None]
    assert torch.allclose(sobel_gradient(ramp)[..., 1:-1, 1:-1, 1:-1], slope.norm(), atol=1e-5)


def test_sobel_is_differentiable_where_flat_and_in_float32_under_autocast():
    x = torch.zeros(1, 1, 6, 6, 6, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gradient = sobel_gradient(x.bfloat16())
    assert gradient.dtype == torch.float32
    gradient.sum().backward()
    assert torch.isfinite(x.grad).all()


def test_edge_loss():
    a, b = torch.rand(2, 1, 6, 6, 6, requires_grad=True), torch.rand(2, 1, 6, 6, 6)
    difference = (sobel_gradient(a) - sobel_gradient(b)).abs()
    assert edge_loss(b, b).item() == 0
    assert edge_loss(a, b).item() == pytest.approx(difference.mean().item(), rel=1e-5)
    mask = torch.zeros(2, 1, 6, 6, 6, dtype=torch.bool)
    mask[:, :, 2:4] = True
    weight = torch.tensor([0.25, 1.0])
    expected = (difference[mask].view(2, -1).mean(1) * weight).mean()
    assert edge_loss(a, b, mask, weight).item() == pytest.approx(expected.item(), rel=1e-5)
    edge_loss(a, b, torch.zeros_like(mask)).backward()  # an empty mask is no division by zero
    assert torch.isfinite(a.grad).all()


def test_edge_loss_descends_to_the_target():
    target = torch.zeros(1, 1, 8, 8, 8)
    target[..., 3:6, 3:6, 3:6] = 1
    x = (0.8 * target + 0.01 * torch.randn_like(target)).requires_grad_()
    optimiser = torch.optim.Adam([x], 0.01)
    start = edge_loss(x, target).item()
    for _ in range(60):
        optimiser.zero_grad()
        loss = edge_loss(x, target)
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.3 * start


def test_patch_gan_least_squares_and_gradients():
    gan = PatchGAN(1, channels=4)
    real, fake = torch.rand(2, 1, 16, 16, 16), torch.rand(2, 1, 16, 16, 16, requires_grad=True)
    on_real, on_fake = gan.discriminator(real)[-1], gan.discriminator(fake)[-1]
    assert gan.generator_loss(fake).item() == pytest.approx(((on_fake - 1) ** 2).mean().item(), rel=1e-5)
    expected = 0.5 * (((on_real - 1) ** 2).mean() + (on_fake**2).mean())
    assert gan.discriminator_loss(real, fake).item() == pytest.approx(expected.item(), rel=1e-5)

    gan.generator_loss(fake).backward()
    assert fake.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in gan.parameters())
    fake.grad = None
    gan.discriminator_loss(real, fake).backward()
    assert fake.grad is None
    assert all(p.grad is not None for p in gan.parameters())


def test_patch_gan_learns_to_tell():
    gan = PatchGAN(1, channels=4)
    optimiser = torch.optim.Adam(gan.parameters(), 5e-3)
    fake = torch.rand(2, 1, 16, 16, 16)
    real = F.interpolate(torch.rand(2, 1, 4, 4, 4), scale_factor=4, mode="trilinear")
    for _ in range(40):
        optimiser.zero_grad()
        loss = gan.discriminator_loss(real, fake)
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.15  # 0.25 is guessing


def test_align_equals_cross_entropy():
    align = Align(4, 5, width=8, positions=1000, temperature=0.5)
    z, c = torch.randn(1, 4, 3, 4, 2), torch.randn(1, 5, 3, 4, 2)
    u = F.normalize(align.project_z(z).flatten(2)[0].T, dim=1)
    v = F.normalize(align.project_c(c).flatten(2)[0].T, dim=1)
    logits = u @ v.T / 0.5
    same = torch.arange(24)
    expected = (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same)) / 2
    assert align(z, c).item() == pytest.approx(expected.item(), rel=1e-5)


def test_align_chance_level_and_learning():
    z = torch.randn(2, 4, 6, 6, 6)
    c = torch.cat([z.flip(1), torch.randn(2, 2, 6, 6, 6)], 1)  # tells z, in other words
    align = Align(4, 6, positions=64, temperature=1e6)
    assert align(z, c).item() == pytest.approx(math.log(128), rel=1e-3)
    align.temperature = 0.1
    optimiser = torch.optim.Adam(align.parameters(), 0.02)
    for _ in range(80):
        optimiser.zero_grad()
        loss = align(z, c)
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.6 * math.log(128)


def test_align_draws_inside_the_mask_only():
    align = Align(3, 3, positions=16)
    z, c = torch.randn(2, 3, 4, 4, 4, requires_grad=True), torch.randn(2, 3, 4, 4, 4)
    mask = torch.zeros(2, 1, 16, 16, 16)  # on the image grid
    mask[:, :, :8, 4:12] = 1
    align(z, c, mask).backward()
    touched = z.grad.abs().sum(1, keepdim=True) > 0
    assert touched.any()
    assert not touched[F.avg_pool3d(mask, 4) <= 0.5].any()


def test_align_is_repeatable_and_survives_an_empty_mask():
    align = Align(3, 3, positions=8)
    z, c = torch.randn(1, 3, 4, 4, 4, requires_grad=True), torch.randn(1, 3, 4, 4, 4)
    first, second = (align(z, c, generators=torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.item() == second.item()
    empty = align(z, c, torch.zeros(1, 1, 4, 4, 4))
    empty.backward()
    assert empty.item() == 0
    assert (z.grad == 0).all()
    with pytest.raises(ValueError, match="one grid"):
        align(z, c[..., :2])


def test_tissue_means_equal_scipy():
    prediction, target = torch.rand(2, 1, 6, 6, 6, requires_grad=True), torch.rand(2, 1, 6, 6, 6)
    labels = torch.randint(0, 4, (2, 1, 6, 6, 6))
    labels[1][labels[1] == 3] = 0  # the second sample lacks tissue 3
    labels[1, 0, 0, 0, :5] = 3  # but for five voxels: too few
    weight = torch.tensor([0.5, 0.2])
    expected = 0.0
    for b in range(2):
        a, y, tissue = (x[b, 0].detach().numpy() for x in (prediction, target, labels))
        for k in (1, 2, 3):
            if (tissue == k).sum() >= 8:
                means = scipy.ndimage.mean(a, tissue, k), scipy.ndimage.mean(y, tissue, k)
                expected += weight[b].item() * abs(means[0] - means[1]) / 2
    loss = tissue_mean_loss(prediction, target, labels, (1, 2, 3), weight)
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    loss.backward()
    assert (prediction.grad[labels == 0] == 0).all()
    assert (prediction.grad[1][labels[1] == 3] == 0).all()
    assert prediction.grad[0][labels[0] == 3].abs().min() > 0
    assert tissue_mean_loss(prediction, target, torch.zeros_like(labels), (1, 2)).item() == 0


def test_losses_take_bf16_under_autocast():
    a, b = torch.rand(1, 1, 16, 16, 16), torch.rand(1, 1, 16, 16, 16)
    labels = (b > 0.5).long()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = [
            kl_loss(a.bfloat16(), b.bfloat16() + 0.1),
            edge_loss(a.bfloat16(), b),
            tissue_mean_loss(a.bfloat16(), b, labels, (0, 1)),
            Align(1, 1)(a.bfloat16(), b.bfloat16()),
            PatchGAN(1, 4).generator_loss(a.bfloat16()),
        ]
    assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_patches_that_a_discriminator_cannot_halve_are_refused_and_the_least_one_works(layers):
    least = 2 ** (layers + 2)
    gan = PatchGAN(1, 4, layers, patch=(least, least, least))
    x = torch.randn(1, 1, least, least, least)
    assert torch.isfinite(gan.discriminator_loss(x, x + 0.1))
    with pytest.raises(InputError, match=f"must be {least} or more"):
        PatchGAN(1, 4, layers, patch=(64, least - 4, 64))
