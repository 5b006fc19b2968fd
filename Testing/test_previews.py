"""Previews of a training: slices where and as they belong, in the colours of what they show."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib import colormaps, image

from DEMISTCore.training import previews


def picture_of(path, rows, title="sub-001") -> np.ndarray:
    previews.draw(path, rows, title=title)
    return (image.imread(path)[..., :3] * 255).round().astype(int)


def cell(picture: np.ndarray, row: int, column: int) -> np.ndarray:
    """A slice's square, without the gap around."""
    step = previews._CELL + previews._GAP
    head = picture.shape[0] - 3 * step - previews._GAP
    top, left = head + previews._GAP + row * step, previews._GAP + column * step
    return picture[top : top + previews._CELL, left : left + previews._CELL]


def test_slices_lie_as_they_are_looked_at(tmp_path):
    volume = np.zeros((10, 20, 30), np.float32)
    volume[7:, 15:, 15] = volume[7:, 10, 22:] = volume[5, 15:, 22:] = 0.16  # seen in the middle; far along both axes
    rows = [("truth", torch.from_numpy(volume), "psr"), ("again", np.full_like(volume, 0.08), "psr")]
    picture = picture_of(tmp_path / "p.png", rows)
    dark, bright = (np.array(colormaps["magma"](value, bytes=True)[:3]) for value in (0.0, 1.0))
    for row, (wide, high) in enumerate(((10, 20), (10, 30), (20, 30))):  # axial, coronal, sagittal
        shown = cell(picture, row, 0)
        width = round(wide * previews._CELL / high)
        left = (previews._CELL - width) // 2
        inside = shown[:, left : left + width]
        assert (shown[:, : left - 1] == 0).all()  # as wide as it is, not stretched
        assert np.abs(inside[3, -3] - bright).max() <= 2  # right and up
        for y, x in ((-3, 3), (3, 3), (-3, -3)):
            assert np.abs(inside[y, x] - dark).max() <= 2
    half = np.array(colormaps["magma"](0.5, bytes=True)[:3])
    assert np.abs(cell(picture, 0, 1)[-3, 60] - half).max() <= 2
    assert picture[:20].max() > 150  # the title is there


@pytest.mark.parametrize("kind", list(previews.KINDS))
def test_every_kind_is_drawn_whatever_it_holds(tmp_path, kind):
    volume = np.random.default_rng(0).normal(0, 0.1 if kind != "labels" else 4, (6, 6, 6)).astype(np.float32)
    volume[3, 3] = np.nan
    first = picture_of(tmp_path / "a.png", [("one", volume, kind)])
    constant = picture_of(tmp_path / "b.png", [("one", np.ones((6, 6, 6), np.float32), kind)])
    assert first.shape == constant.shape
    assert len(np.unique(cell(first, 0, 0).reshape(-1, 3), axis=0)) > 8
    assert len(np.unique(cell(constant, 0, 0).reshape(-1, 3), axis=0)) == 1
