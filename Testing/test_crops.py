"""Crops as the mean is trained on: warped, with lesions painted in."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from DEMISTCore.training import paint, warp
from DEMISTCore.training.data import LESION
from DEMISTCore.training.groups import PaintSettings, WarpSettings

SIZE = (32, 32, 32)


@pytest.fixture(scope="module")
def entry():
    """A smooth blob of a brain: x, y and labels are functions of one another, so that what moves apart shows."""
    rng = np.random.default_rng(0)
    field = gaussian_filter(rng.standard_normal((60, 64, 56)), 4)
    field /= field.std()
    brain = np.zeros(field.shape, bool)
    brain[6:-6, 6:-6, 6:-6] = True
    y = np.where(brain, 0.1 + 0.02 * field, 0).astype(np.float16)
    labels = np.where(brain, np.where(field > 0, 3, 2), 0).astype(np.uint8)
    x = np.where(brain, np.stack([0.5 + 0.1 * field, 0.5 - 0.1 * field]), 0).astype(np.float16)
    return SimpleNamespace(x=x, y=y, labels=labels, is_partial=False)


def test_images_and_labels_are_warped_alike(entry):
    settings = WarpSettings(probability=1.0)
    for seed in range(6):
        places = warp.draw(SIZE, settings, np.random.default_rng(seed))
        images = warp.read(entry, (12, 16, 8), places)
        brain = images["labels"] > 0
        assert brain.mean() > 0.5
        core = brain & (gaussian_filter(brain.astype(float), 1, mode="constant") > 0.99)
        y = images["y"][core]
        assert np.abs(images["x"][0][core] - (0.5 + 5 * (y - 0.1))).max() < 5e-3
        assert np.abs(images["x"][1][core] - (0.5 - 5 * (y - 0.1))).max() < 5e-3
        sure = np.abs(y - 0.1) > 0.01
        assert ((images["labels"][core] == 3) == (y > 0.1))[sure].mean() > 0.99


def test_turned_on_the_grid_nothing_is_interpolated(entry):
    seen = set()
    for seed in range(40):
        places = warp.draw(SIZE, WarpSettings(1.0, 1.0, 0.0, 0.0, 0.0), np.random.default_rng(seed))
        images = warp.read(entry, (14, 16, 12), places)
        plain = np.asarray(entry.y[14:46, 16:48, 12:44], np.float32)
        assert np.allclose(np.sort(images["y"].ravel()), np.sort(plain.ravel()), atol=1e-6)
        seen.add(images["y"].tobytes())
    assert len(seen) > 20  # of 48 positions
    assert warp.draw(SIZE, WarpSettings(probability=0.0), np.random.default_rng(0)) is None


def test_what_is_known_goes_where_the_map_goes(entry):
    known = np.ones(entry.labels.shape, np.uint8)
    known[:, :, :28] = 0
    settings = WarpSettings(probability=1.0)
    for seed in range(4):
        places = warp.draw(SIZE, settings, np.random.default_rng(seed))
        whole = warp.read(entry, (12, 16, 12), places)
        assert whole["known"].min() == 1
        part = warp.read(SimpleNamespace(**{**vars(entry), "is_partial": True, "known": known}), (12, 16, 12), places)
        marked = warp.read(SimpleNamespace(**{**vars(entry), "labels": known + np.uint8(1)}), (12, 16, 12), places)
        np.testing.assert_array_equal(part["known"] == 0, marked["labels"] == 1)
        np.testing.assert_array_equal(part["y"], whole["y"])


def test_a_crop_beyond_the_edge_is_empty_there(entry):
    places = warp.draw(SIZE, WarpSettings(probability=1.0), np.random.default_rng(1))
    images = warp.read(entry, (50, 50, 50), places)
    assert images["x"].shape == (2, *SIZE)
    assert (images["labels"] == 0).mean() > 0.5
    far = warp.read(entry, (500, 500, 500), places)
    assert not far["labels"].any()


def test_painted_lesions_lie_in_white_matter_and_change_all_three(entry):
    x, y = np.asarray(entry.x, np.float32), np.asarray(entry.y, np.float32)
    kept = x.copy(), y.copy(), entry.labels.copy()
    changes, settings = [], PaintSettings(1.0, 4, 0.0, 0.0)
    for seed in range(60):
        new_x, new_y, labels = paint.paint(x, y, entry.labels, settings, np.random.default_rng(seed))
        lesion = labels == LESION
        assert np.isin(entry.labels[lesion], (2, 3)).all()
        assert (entry.labels[lesion] == 3).mean() > 0.8 if lesion.any() else True
        assert np.array_equal(labels[~lesion], entry.labels[~lesion])
        core = gaussian_filter(lesion.astype(np.float32), 1) > 0.95
        if core.any():
            ratios = [np.log(np.mean(a[core] / b[core])) for a, b in ((new_x[0], x[0]), (new_x[1], x[1]), (new_y, y))]
            changes.append(ratios)
        far = gaussian_filter(lesion.astype(np.float32), 3) < 1e-4
        assert np.abs(new_y - y)[far & (entry.labels == 2)].max() < 0.02
    assert all(np.array_equal(a, b) for a, b in zip(kept, (x, y, entry.labels)))
    changes = np.array(changes)
    assert len(changes) > 20
    # Cores are what was drawn, but for rims and lesions over one another.
    assert np.abs(changes.mean(0) - paint.CONTRAST_MEAN).max() < 0.15
    assert np.corrcoef(changes.T)[0, 2] > 0.2


def test_no_white_matter_no_lesions(entry):
    x, y = np.asarray(entry.x, np.float32), np.asarray(entry.y, np.float32)
    grey = np.minimum(entry.labels, 2)
    for labels, share in ((grey, 1.0), (entry.labels, 0.0)):
        settings = PaintSettings(share, specks=0.0)
        assert np.array_equal(paint.paint(x, y, labels, settings, np.random.default_rng(0))[1], y)


def test_specks_are_bright_without_myelin_at_the_rim(entry):
    x, y = np.asarray(entry.x, np.float32), np.asarray(entry.y, np.float32)
    settings, deep = PaintSettings(0.0, specks=1.0), np.zeros(y.shape, bool)
    deep[18:-18, 18:-18, 18:-18] = True
    for seed in range(10):
        new_x, new_y, labels = paint.paint(x, y, entry.labels, settings, np.random.default_rng(seed))
        changed = new_y < y - 0.05
        assert changed.any()
        assert np.array_equal(labels, entry.labels)
        assert np.abs(new_y - y)[deep].max() < 1e-3
        assert not new_x[:, entry.labels == 0].any()
        assert new_x[0][changed].mean() > x[0][changed].mean() - 0.05
