"""Intervals of means in the statistics: where they come from, what they say, and why they may be missing."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from DEMISTCore.cli import run
from DEMISTCore.errors import InputError
from DEMISTCore.regions import Lesions, Regions, RegionSettings
from DEMISTCore.statistics import analyse, figures, region_table
from DEMISTCore.statistics.__main__ import main
from DEMISTCore.statistics.intervals import NO_CALIBRATION, NO_MAP, Intervals
from DEMISTCore.uncertainty import Calibration, Quantiles
from DEMISTCore.volume import Volume

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
SHAPE = (24, 24, 20)
#: Relative half width of a region's interval, and of a lesion's.
REGION, LESION = 0.05, 0.2


def some_calibration(**changes) -> Calibration:
    """s = 0.05 m whatever the size, with quantiles of 1 for regions and 4 for lesions at 90 %."""

    def constant(value: float) -> Quantiles:
        return Quantiles((1.0,), (0.1,), (((value / 2,),), ((value,),)))

    made = Calibration(
        subjects=24,
        levels=(0.5, 0.9),
        scale_sd=0.0,
        mean_nodes=(0.0, 0.15),
        sd_nodes=(0.01,),
        gains=((1.0,), (1.0,)),
        voxel_quantiles=((0.7, 0.7), (1.6, 1.6)),
        region=(REGION, 0.0, 0.0, 1.0),
        correlation_ml=0.3,
        quantiles={"region": constant(1.0), "lesion": constant(LESION / REGION)},
        ood_limit=3.0,
        ood_power=1.0,
    )
    return replace(made, **changes)


def provenance(uncertainty) -> dict:
    told = {
        "statement": "Trained on simulated PSR; not for clinical use.",
        "simulated": True,
        "bundle": {"name": "m", "version": "1", "hash": "0"},
        "settings": {"seeds": [0]},
    }
    return told if uncertainty is None else told | {"uncertainty": uncertainty}


def told_by(calibration: Calibration, ood: float | None = 1.0) -> dict:
    return {"calibration": calibration.to_dict(), "ood": ood, "widened": calibration.widening(ood)}


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    """PSR, its SD beside it, lesions and tissue."""
    away = np.sqrt(((np.indices(SHAPE).T - (np.array(SHAPE) - 1) / 2).T ** 2).sum(0))
    tissue = np.select([away < 3, away < 8, away < 10], [1, 3, 2], 0).astype(np.uint8)
    lesions = np.zeros(SHAPE, np.uint8)
    lesions[7:9, 11:13, 9:11] = lesions[15:17, 11:14, 9:11] = 1
    psr = np.array([0, 0.01, 0.06, 0.12], np.float32)[tissue]
    psr = np.where(tissue > 0, psr + 0.004 * np.random.default_rng(0).standard_normal(SHAPE), 0).astype(np.float32)
    psr[lesions > 0] = 0.08
    arrays = {
        "psr": psr,
        "psr_uncertainty": np.where(psr != 0, 0.01, 0).astype(np.float32),
        "lesions": lesions,
        "tissue": tissue,
    }
    return {name: Volume(a, AFFINE).write(tmp_path / f"{name}.nii.gz") for name, a in arrays.items()}


def measure(files, out: Path, *more: str) -> tuple[list[dict[str, str]], dict]:
    words = ["--psr", str(files["psr"]), "--lesions", str(files["lesions"]), "--tissue", str(files["tissue"])]
    assert run(main, [*words, "--out", str(out), *more]) == 0
    with open(out / "regions.csv", newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream)), json.loads((out / "statistics.json").read_text())


def sidecar(files, uncertainty) -> None:
    files["psr"].with_name("psr.json").write_text(json.dumps(provenance(uncertainty)))


def test_every_region_and_lesion_has_an_interval(files, tmp_path, capsys):
    """The uncertainty map is found beside the PSR map; lesions are calibrated as lesions."""
    sidecar(files, told_by(some_calibration()))
    rows, told = measure(files, tmp_path / "out")
    assert {row["region"] for row in rows} >= {"lesion", "white_matter", "grey_matter", "csf"}
    assert sum(bool(row["lesion"]) for row in rows) == 2
    for row in rows:
        mean, half = float(row["mean"]), LESION if row["region"] == "lesion" else REGION
        assert float(row["mean_ci90_low"]) == pytest.approx(mean * (1 - half), rel=2e-4)
        assert float(row["mean_ci90_high"]) == pytest.approx(mean * (1 + half), rel=2e-4)
    assert told["intervals"] == {"level": 0.9, "calibration_subjects": 24, "ood": 1.0, "widened": 1.0}
    assert "calibrated as means of regions" in told["uncertainty"]
    assert "no error bar" in told["columns"]["seed_sd"]
    assert told["inputs"]["uncertainty map"]["file"].endswith("psr_uncertainty.nii.gz")
    assert not any("absent" in note for note in told["notes"])
    shown = capsys.readouterr().out
    line = next(line for line in shown.splitlines() if line.startswith("Grey matter"))
    mean = float(next(row["mean"] for row in rows if row["region"] == "grey_matter"))
    assert line.endswith(f"{mean * 0.95:.4f} to {mean * 1.05:.4f}")


def test_the_map_that_the_sidecar_names(files, tmp_path):
    renamed = files["psr_uncertainty"].rename(tmp_path / "spread.nii.gz")
    told = provenance(told_by(some_calibration())) | {"outputs": {"uncertainty": "/elsewhere/spread.nii.gz"}}
    files["psr"].with_name("psr.json").write_text(json.dumps(told))
    rows, told = measure(files, tmp_path / "out")
    assert told["inputs"]["uncertainty map"]["file"] == str(renamed)
    assert rows[0]["mean_ci90_low"]


@pytest.mark.parametrize(
    ("uncertainty", "note"),
    [
        (None, NO_CALIBRATION),
        ({"calibration": None, "ood": None}, NO_CALIBRATION),
        ("none", NO_CALIBRATION),
        ({"calibration": {"format": 1}}, "cannot be used, so intervals are absent: The calibration lacks"),
        ({"calibration": some_calibration().to_dict(), "ood": "far"}, "must be a number of at least 0, not 'far'"),
        ({"calibration": some_calibration(levels=(0.5, 0.8)).to_dict()}, "no 90 % interval"),
    ],
)
def test_no_calibration_no_intervals_and_a_sentence(files, tmp_path, uncertainty, note):
    sidecar(files, uncertainty)
    rows, told = measure(files, tmp_path / "out", "--uncertainty", str(files["psr_uncertainty"]))
    assert {(row["mean_ci90_low"], row["mean_ci90_high"]) for row in rows} == {("", "")}
    assert all(float(row["uncertainty"]) > 0 for row in rows)
    assert sum(note in sentence for sentence in told["notes"]) == 1
    assert told["intervals"] is None
    assert told["synthesized"]["bundle"]["name"] == "m"


def test_a_calibration_without_the_map(files, tmp_path):
    sidecar(files, told_by(some_calibration()))
    files["psr_uncertainty"].unlink()
    rows, told = measure(files, tmp_path / "out")
    assert {row["mean_ci90_low"] for row in rows} == {""}
    assert told["notes"].count(NO_MAP) == 1


def test_a_measured_map_says_nothing_of_intervals(files, tmp_path):
    rows, told = measure(files, tmp_path / "out")
    assert {row["mean_ci90_low"] for row in rows} == {""}
    assert not any("interval" in note for note in told["notes"])
    assert "uncertainty map" not in told["inputs"]  # nothing vouches for what lies beside it


def test_scans_unlike_the_training_are_said_to_be(files, tmp_path):
    sidecar(files, told_by(some_calibration(), ood=6.0))
    rows, told = measure(files, tmp_path / "out")
    row = next(row for row in rows if row["region"] == "grey_matter")
    assert float(row["mean_ci90_high"]) == pytest.approx(float(row["mean"]) * (1 + 2 * REGION), rel=2e-4)
    assert told["intervals"]["widened"] == 2
    assert sum("unlike those" in note and "2 times as wide" in note for note in told["notes"]) == 1


def test_maps_in_memory(files):
    """Volumes and a provenance, as Slicer's worker has them; seeds beside."""
    psr, sd = (Volume(Volume.read(files[name]).array, AFFINE) for name in ("psr", "psr_uncertainty"))
    seeds = [psr.with_array(psr.array + np.float32(step) * (psr.array != 0)) for step in (-0.001, 0.001)]
    given = {"lesions": files["lesions"], "tissue": files["tissue"], "samples": seeds}
    made = provenance(told_by(some_calibration()))
    analysis = analyse(psr, **given, uncertainty=sd, provenance=made)
    for row in analysis.table:
        assert row["mean_ci90_low"] < row["mean"] < row["mean_ci90_high"]
        assert row["uncertainty"] == pytest.approx(0.01, rel=1e-5)
        assert row["seed_sd"] == pytest.approx(0.001 * math.sqrt(2), rel=1e-3)
    # The spread of seeds is no calibrated SD, and does not stand in for it.
    without = analyse(psr, **given, provenance=made)
    assert {row["mean_ci90_low"] for row in without.table} == {None}
    assert NO_MAP in without.notes


def test_intervals_take_the_map():
    mask = Volume(np.ones((3, 3, 3), np.uint8), AFFINE)
    regions = Regions({"nawm": mask}, None, None, RegionSettings(), ())
    psr = Volume(np.full((3, 3, 3), 0.1, np.float32), AFFINE)
    with pytest.raises(InputError, match="take the uncertainty map"):
        region_table(psr, regions, intervals=Intervals(some_calibration()))
    empty = psr.with_array(np.full((3, 3, 3), np.nan, np.float32))
    row = region_table(empty, regions, psr, intervals=Intervals(some_calibration()))[0]
    assert math.isnan(row["mean_ci90_low"])
    assert math.isnan(row["mean_ci90_high"])


def test_error_bars_are_the_intervals():
    numbers = np.zeros((12, 12, 12), np.int32)
    numbers[1:3, 1:3, 1:3], numbers[6:8, 6:8, 6:8] = 1, 2
    masks = {"lesion": numbers > 0, "nawm": numbers == 0}
    psr = Volume(np.where(numbers > 0, 0.08, 0.12).astype(np.float32), AFFINE)
    lesions = Lesions(psr.with_array(numbers))
    regions = Regions(
        {key: psr.with_array(mask.astype(np.uint8)) for key, mask in masks.items()}, lesions, None, RegionSettings(), ()
    )
    sd = psr.with_array(np.full(psr.shape, 0.01, np.float32))
    table = region_table(psr, regions, sd, intervals=Intervals(some_calibration()))
    axes = figures.box_figure(table).axes[0]
    bars = [segment for container in axes.containers for bar in container.lines[2] for segment in bar.get_segments()]
    drawn = sorted((round(float(x), 3), float(low), float(high)) for (x, low), (_, high) in bars)
    expected = [(0.08 * 0.8, 0.08 * 1.2)] * 3 + [(0.12 * 0.95, 0.12 * 1.05)]
    np.testing.assert_allclose([ends for _, *ends in drawn], expected, rtol=1e-5)
    assert (drawn[0][0], drawn[-1][0]) == (0, 1)
    assert "90 % intervals" in axes.get_title()
    plain = figures.box_figure(region_table(psr, regions, sd)).axes[0]
    assert not plain.containers
    assert "intervals" not in plain.get_title()
