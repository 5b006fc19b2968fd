"""Maps that are coarser than the model's: what a slab of thick slices teaches, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from DEMISTCore.measured import read_measured
from DEMISTCore.measured.resolution import blur_of
from DEMISTCore.simulate.lab import Scan, measure
from DEMISTCore.training.resolution import as_measured, seen_coarsely, sharp_target, sharp_truth, turned
from DEMISTCore.volume import Grid, Volume

FWHM2 = 8 * np.log(2)


@pytest.fixture(scope="module")
def brain():
    """A folded brain of 1 mm voxels: white matter 0.12 under 3 mm of cortex 0.06, fluid 0 in the middle."""
    axes = np.meshgrid(*[np.arange(n) - n / 2 + 0.5 for n in (72, 80, 64)], indexing="ij")
    radius = np.sqrt(sum(a**2 for a in axes)) + 3 * np.sin(axes[0] / 3) * np.sin(axes[1] / 3) * np.sin(axes[2] / 3)
    labels = np.select([radius < 8, radius < 23, radius < 27], [1, 3, 2], 0)
    psr = np.select([labels == 3, labels == 2], [0.12, 0.06], 0.0).astype(np.float32)
    return Volume(psr, np.diag([1, 1, 1, 1.0])), labels


def test_the_blur_is_that_of_voxel_and_interpolation():
    grid = Grid((40, 40, 40), np.eye(4))
    own = (25 - 1) / FWHM2 + 25 / 6
    np.testing.assert_allclose(blur_of(np.diag([1, 1, 5, 1.0]), None, grid), np.diag([0, 0, own]), atol=1e-12)
    assert blur_of(np.diag([1, 1, 1.4, 1]), None, grid) is None
    assert blur_of(np.diag([2, 2, 2, 1.0]), None, Grid((20, 20, 20), np.diag([2, 2, 2, 1.0]))) is None
    # Whichever way the slab lies, its slices' normal is the direction of the blur.
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", (20, -30, 45), degrees=True).as_matrix()
    normal = turn[:3, 2]
    np.testing.assert_allclose(blur_of(np.diag([1, 1, 5, 1.0]), turn, grid), own * np.outer(normal, normal), atol=1e-9)


def test_maps_are_seen_through_that_gaussian():
    blur = np.array([[2.0, 0.3, 0.0], [0.3, 1.0, -0.5], [0.0, -0.5, 6.0]])
    dot = np.zeros((48, 48, 48), np.float32)
    dot[24, 24, 24] = 1
    seen = as_measured(dot, blur)
    assert seen.sum() == pytest.approx(1, rel=1e-4)
    places = np.argwhere(np.ones_like(dot)) - 24
    np.testing.assert_allclose(np.einsum("n,ni,nj->ij", seen.ravel(), places, places), blur, atol=0.02)
    diagonal = np.diag([2.0, 1.0, 6.0])
    expected = ndimage.gaussian_filter(dot, np.sqrt(np.diag(diagonal)), truncate=6)
    np.testing.assert_allclose(as_measured(dot, diagonal), expected, atol=2e-4)
    # Beyond a crop's faces nothing is known: a constant stays constant. Each map of a batch has its own blur.
    blurs = torch.from_numpy(np.stack([blur, np.zeros((3, 3))]))
    both = torch.full((2, 1, 20, 24, 16), 0.7)
    torch.testing.assert_close(seen_coarsely(both, blurs), both)
    noise = torch.rand(2, 1, 20, 24, 16)
    torch.testing.assert_close(seen_coarsely(noise, blurs)[1], noise[1])


@pytest.mark.parametrize("thickness", [5.0, 2.25])
def test_a_slab_of_the_simulator_is_seen_as_it_was_measured(brain, thickness):
    psr, labels = brain
    scan = Scan(slices=int(60 / thickness), thickness=thickness, nan=0, outliers=0, noise=0, moved_mm=(2, 6))
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", (3, -2, 3), degrees=True).as_matrix()
    turn[:3, 3] = (3, -2, 1)
    mask = psr.with_array((labels > 0).astype(np.float32))
    values, _ = measure(psr, mask, turn, scan, np.random.default_rng(0))
    slab = read_measured(values, "unknown")
    y, known = slab.on_grid(psr.grid, np.linalg.inv(turn))
    seen = as_measured(psr.array, blur_of(slab.psr.affine, np.linalg.inv(turn), psr.grid))
    where = known & (labels > 0)
    assert np.abs(seen - y)[where].mean() < 0.4 * np.abs(psr.array - y)[where].mean()
    white = where & (labels == 3)
    assert seen[white].mean() == pytest.approx(y[white].mean(), rel=0.015)
    if thickness == 5:  # what would be learnt without
        assert y[white].mean() < 0.95 * psr.array[white].mean()


def test_what_is_learnt_of_a_coarse_map_is_sharp(brain):
    psr, labels = brain
    y = torch.from_numpy(psr.array)[None, None]
    x = torch.from_numpy((labels > 0).astype(np.float32))[None, None].expand(1, 2, -1, -1, -1)
    blur = torch.from_numpy(np.diag([0.5, 0.5, 8.5]))[None]
    coarse = torch.where(x[:, :1] > 0, seen_coarsely(y, blur), 0)
    # The model's map is right where the coarse one is its own blur.
    torch.testing.assert_close(sharp_target(y, coarse, x, blur), y, atol=1e-6, rtol=0)
    # A model whose tissues are wrong learns them, and its edges stay where they are.
    white, grey = (torch.from_numpy(labels == value)[None, None] for value in (3, 2))
    values = torch.tensor([0.10, 0.09], requires_grad=True)
    optimizer = torch.optim.Adam([values], lr=2e-3)
    for _ in range(150):
        y_hat = white * values[0] + grey * values[1]
        loss = (y_hat - sharp_target(y_hat, coarse, x, blur))[x[:, :1] > 0].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    np.testing.assert_allclose(values.detach().numpy(), [0.12, 0.06], rtol=0.01)
    naive = [float(coarse[tissue].mean()) for tissue in (white, grey)]
    assert naive[0] < 0.95 * 0.12
    # Sharp maps are their own target.
    none = torch.zeros(1, 3, 3)
    torch.testing.assert_close(sharp_target(torch.rand_like(y), y, x, none), y)


def test_errors_of_regions_do_not_change_by_the_resolution_of_the_truth(brain):
    psr, labels = brain
    inside = labels > 0
    blur = np.diag([0.5, 0.5, 8.5])
    made = np.where(inside, psr.array * np.where(labels == 3, np.float32(1.1), 1) + 0.002, 0).astype(np.float32)
    coarse = np.where(inside, as_measured(psr.array, blur), 0)
    truth = sharp_truth(made, coarse, blur)
    for tissue, error in ((3, 0.1 * 0.12 + 0.002), (2, 0.002)):
        where = ndimage.binary_erosion(labels == tissue, iterations=1 if tissue == 2 else 6)
        assert (made - truth)[where].mean() == pytest.approx(error, abs=0.003)
    white = labels == 3
    assert (made - truth)[white].mean() == pytest.approx(0.014, abs=0.0015)
    assert (made - coarse)[white].mean() > 0.018  # by partial volume
    assert sharp_truth(made, coarse, None) is coarse


def test_the_blur_turns_with_the_crop():
    blur = np.diag([1.0, 2.0, 9.0])
    axes = np.stack(np.meshgrid(*[np.arange(n, dtype=float) for n in (8, 9, 10)], indexing="ij"))
    np.testing.assert_allclose(turned(blur, axes), blur, atol=1e-6)
    swapped = axes[[2, 1, 0]]  # the crop's last axis runs along the volume's first
    np.testing.assert_allclose(turned(blur, swapped), np.diag([9.0, 2.0, 1.0]), atol=1e-5)
    np.testing.assert_allclose(turned(blur, 0.5 * axes), 4 * blur, atol=1e-5)  # half as many voxels a step
    slanted = np.array([[1.0, 0, 0.5], [0, 1, 0], [0.5, 0, 4]])
    mirrored = np.array([[1.0, 0, -0.5], [0, 1, 0], [-0.5, 0, 4]])
    np.testing.assert_allclose(turned(slanted, flip=True), mirrored)
    assert not turned(None).any()
