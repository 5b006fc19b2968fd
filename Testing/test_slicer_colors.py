"""Colors of regions: told apart by everybody, on white, on a map, and the same wherever a region is drawn."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import slicer_app

slicer_app.install()

from DEMISTSlicerLib.Nodes import Charts, ColorTable, Segmentation  # noqa: E402

from DEMISTCore.colors import OUTLINED, REGION_COLORS  # noqa: E402
from DEMISTCore.regions import REGIONS  # noqa: E402

#: Machado, Oliveira, Fernandes (2009), severity 1, on linear red, green, blue.
EYES = {
    "normal": np.eye(3),
    "no red cones": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no green cones": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "no blue cones": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def rgb(color: str) -> np.ndarray:
    return np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def linear(value: np.ndarray) -> np.ndarray:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(value: np.ndarray, eye: str) -> np.ndarray:
    """CIE 1976 L*a*b* (D65) of an sRGB color as that eye sees it."""
    seen = np.clip(EYES[eye] @ linear(value), 0, 1)
    t = TO_XYZ @ seen / TO_XYZ.sum(1)
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def apart(a: np.ndarray, b: np.ndarray, eye: str) -> float:
    return float(np.linalg.norm(lab(a, eye) - lab(b, eye)))


def test_the_measure_knows_red_from_green_and_where_they_are_one():
    red, olive = rgb("#a93226"), rgb("#6b6a20")
    assert apart(red, olive, "normal") > 50
    assert apart(red, olive, "no green cones") < 25


@pytest.mark.parametrize("eye", EYES)
def test_any_two_regions_are_told_apart(eye):
    for (a, first), (b, second) in combinations(REGION_COLORS.items(), 2):
        assert apart(rgb(first), rgb(second), eye) > 18, (a, b)


@pytest.mark.parametrize("eye", EYES)
def test_outlines_stand_out_from_white_matter_of_a_map_and_from_paper(eye):
    table = ColorTable.colors()
    for key in OUTLINED:
        assert apart(rgb(REGION_COLORS[key]), np.ones(3), eye) > 40, key
        for psr in (0.08, 0.10, 0.12, 0.13):
            ground = np.array(table[round(255 * psr / ColorTable.PSR_RANGE[1])])
            assert apart(rgb(REGION_COLORS[key]), ground, eye) > 20, (key, psr)


def test_every_region_has_one_color_and_it_is_the_same_everywhere():
    assert set(REGION_COLORS) == set(REGIONS)
    assert {key: style.color for key, style in Segmentation.STYLES.items()} == {
        key: REGION_COLORS[key] for key in Segmentation.STYLES
    }
    assert Charts.REGION_COLORS is REGION_COLORS
    from DEMISTCore.statistics import figures

    assert figures.REGION_COLORS is REGION_COLORS
