"""``python -m DEMISTCore.statistics``: files in, files out, and one sentence for whatever cannot be used."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from DEMISTCore.cli import run
from DEMISTCore.statistics.__main__ import main
from DEMISTCore.volume import Volume

#: Radiological storage, voxels of 1.5 x 1.5 x 2 mm.
AFFINE = np.array([[-1.5, 0, 0, 30], [0, 1.5, 0, -28], [0, 0, 2.0, -20], [0, 0, 0, 1.0]])
SHAPE = (32, 30, 20)
LESIONS = ((10, 12, 8, 3), (20, 18, 10, 2), (14, 20, 12, 1.5))


@pytest.fixture(scope="module")
def truth() -> dict[str, np.ndarray]:
    """A ball of grey matter around white matter, three lesions in it, a drop of CSF; and the PSR of all that."""
    i, j, k = (np.indices(SHAPE).T - (np.array(SHAPE) - 1) / 2).T * np.array([1.5, 1.5, 2.0]).reshape(3, 1, 1, 1)
    away = np.sqrt(i**2 + j**2 + k**2)
    tissue = np.zeros(SHAPE, np.uint8)
    for label, radius in ((2, 19), (3, 15), (1, 3)):
        tissue[away < radius] = label
    lesions = np.zeros(SHAPE, np.uint8)
    for x, y, z, radius in LESIONS:
        at = np.sqrt(((np.indices(SHAPE).T - (x, y, z)).T ** 2).sum(0))
        lesions[at <= radius] = 1
    rng = np.random.default_rng(3)
    psr = np.choose(tissue, [0, 0.01, 0.06, 0.12]).astype(np.float32)
    psr[lesions > 0] = 0.07
    psr = np.where(tissue > 0, np.abs(psr + 0.012 * rng.standard_normal(SHAPE)), 0).astype(np.float32)
    return {"tissue": tissue, "lesions": lesions, "psr": psr, "brain": (tissue > 0).astype(np.uint8)}


@pytest.fixture
def files(truth, tmp_path) -> dict[str, Path]:
    return {name: Volume(array, AFFINE).write(tmp_path / f"{name}.nii.gz") for name, array in truth.items()}


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> str:
    return str(Volume(array, affine).write(path))


def command(files: dict[str, Path], out: Path, *more: str, lesions: bool = True) -> list[str]:
    words = ["--psr", str(files["psr"]), "--tissue", str(files["tissue"]), "--out", str(out)]
    return [*words, *(["--lesions", str(files["lesions"])] if lesions else []), *more]


def refused(argv: list[str], capsys) -> str:
    """Exit code 2, one line on stderr, no traceback; the sentence."""
    capsys.readouterr()
    assert run(main, argv) == 2
    shown = capsys.readouterr()
    sentences = [line for line in shown.err.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1
    assert "Traceback" not in shown.err
    assert shown.out == ""
    assert sentences[0].endswith((".", ")"))
    return sentences[0]


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t" if path.suffix == ".tsv" else ","))


# --- what it gives ---------------------------------------------------------------------------------------------------


def test_a_brain_of_impossible_volume_needs_a_word(tmp_path, capsys):
    """A map without a background says nothing of the brain, which is then found on the T1w: here one of 14 ml."""
    rng = np.random.default_rng(5)
    i, j, k = (np.indices(SHAPE).T - (np.array(SHAPE) - 1) / 2).T * np.array([1.5, 1.5, 2.0]).reshape(3, 1, 1, 1)
    away = np.sqrt(i**2 + j**2 + k**2)
    t1w = np.select([away < 4, away < 11, away < 15], [200.0, 900.0, 600.0], 0.0)
    t1w = np.where(t1w > 0, t1w + rng.normal(0, 12, SHAPE), 0).astype(np.float32)
    psr = np.select([away < 4, away < 11], [0.01, 0.12], 0.06) + 0.004 * rng.standard_normal(SHAPE)
    argv = [
        "--psr",
        write(tmp_path / "psr.nii.gz", psr.astype(np.float32)),
        "--t1w",
        write(tmp_path / "t1w.nii.gz", t1w),
        "--method",
        "hmrf",
        "--out",
        str(tmp_path / "out"),
    ]
    sentence = refused(argv, capsys)
    assert "t1w.nii.gz holds 14 ml" in sentence
    assert "--any-brain-volume" in sentence
    assert not (tmp_path / "out").exists()
    assert run(main, [*argv, "--any-brain-volume"]) == 0
    notes = json.loads((tmp_path / "out" / "statistics.json").read_text())["notes"]
    assert any("holds 14 ml, which is unusual" in note for note in notes)


def test_a_patient(files, truth, tmp_path, capsys):
    out = tmp_path / "out"
    reference = write(tmp_path / "reference.nii.gz", truth["psr"] * np.float32(1.1))
    uncertainty = write(tmp_path / "sd.nii.gz", np.where(truth["psr"] > 0, 0.004, 0).astype(np.float32))
    more = ("--reference", reference, "--uncertainty", uncertainty, "--brain-mask", str(files["brain"]), "--tsv")
    assert run(main, command(files, out, *more)) == 0
    shown = capsys.readouterr()
    for words in ("Proximal NAWM", "AUC", "95 % CI", "limits of agreement", "Research use only", "regions.csv"):
        assert words in shown.out
    assert "table: " in shown.err  # log lines
    for name in (
        "regions.csv",
        "regions.tsv",
        "statistics.json",
        "roc.png",
        "boxes.png",
        "overlay.png",
        "comparison.csv",
        "comparison.tsv",
        "bland_altman.png",
    ):
        assert (out / name).stat().st_size > 100, name
    assert not [path for path in out.iterdir() if path.name.startswith(".")]

    rows = rows_of(out / "regions.csv")
    lesion = truth["lesions"] > 0
    assert rows[0]["region"] == "lesion"
    assert int(rows[0]["voxels"]) == lesion.sum()
    assert float(rows[0]["volume_ml"]) == pytest.approx(lesion.sum() * 0.0045)
    assert float(rows[0]["mean"]) == pytest.approx(truth["psr"][lesion].mean(), rel=1e-4)
    assert [row["lesion"] for row in rows if row["lesion"]] == ["1", "2", "3"]
    assert all(float(row["uncertainty"]) == pytest.approx(0.004, rel=1e-3) for row in rows)
    assert rows_of(out / "regions.tsv")[0]["lesion"] == "n/a"

    told = json.loads((out / "statistics.json").read_text())
    assert set(told["roc"]["against"]) == {"nawm", "nawm_proximal", "nawm_distal"}
    against = told["roc"]["against"]["nawm"]
    assert against["voxel"]["auc"] > 0.9
    low, high = against["voxel"]["ci_clustered"]
    assert low <= against["voxel"]["auc"] <= high
    assert against["lesion"]["n_lesion"] == 3
    assert against["difference_percent"] == pytest.approx(-42, abs=5)
    assert told["lesions"]["count"] == 3
    assert told["lesions"]["suggested"] is False
    assert "cannot be had from it" in told["uncertainty"]
    assert told["comparison"]["voxel"]["bias"] < 0
    assert len(told["comparison"]["lesion"]["bias_ci"]) == 2
    for name in ("PSR map", "lesion mask", "tissue map", "brain mask", "reference map", "uncertainty map"):
        assert len(told["inputs"][name]["sha256"]) == 64
    assert told["software"]["name"] == "DEMIST"
    assert told["settings"]["regions"]["lesion_gap_mm"] > 0
    assert told["synthesized"] is None
    assert told["statement"] == "Research use only, not for clinical use."


def test_a_suggestion_given_as_a_mask_stays_one(files, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(main, command(files, out, "--unchecked", "--depth", "0")) == 0
    told = json.loads((out / "statistics.json").read_text())
    assert told["lesions"]["suggested"] is True
    assert told["settings"]["regions"]["depth_mm"] == 0
    assert {row["name"] for row in rows_of(out / "regions.csv") if row["lesion"]} == {
        f"Lesion {number} (suggested)" for number in (1, 2, 3)
    }
    assert any("not drawn or checked" in note for note in told["notes"])


def test_single_seeds_tell_how_far_a_mean_moves(files, truth, tmp_path, capsys):
    steps = (-0.004, 0.0, 0.007)
    seeds = [
        write(tmp_path / f"seed{k}.nii.gz", np.where(truth["psr"] > 0, truth["psr"] + np.float32(s), 0))
        for k, s in enumerate(steps)
    ]
    assert run(main, command(files, tmp_path / "out", "--samples", *seeds)) == 0
    for row in rows_of(tmp_path / "out" / "regions.csv"):
        assert float(row["seed_sd"]) == pytest.approx(np.std(steps, ddof=1), rel=1e-3)
    assert "seed SD" in capsys.readouterr().out
    assert "two seeds or more" in refused(command(files, tmp_path / "no", "--samples", seeds[0]), capsys)


def test_a_synthesized_map_says_so_everywhere(files, tmp_path, capsys):
    sentence = "Trained on simulated PSR, never on measured PSR. Not for clinical use."
    sidecar = {"statement": sentence, "simulated": True, "bundle": {"name": "demist-sim", "hash": "0ab"}}
    (tmp_path / "psr.json").write_text(json.dumps(sidecar))
    assert run(main, command(files, tmp_path / "out")) == 0
    assert sentence in capsys.readouterr().out
    told = json.loads((tmp_path / "out" / "statistics.json").read_text())
    assert sentence in told["statement"]
    assert told["synthesized"]["bundle"]["name"] == "demist-sim"


def test_distances_can_be_chosen(files, tmp_path):
    more = ("--gap", "1.6", "--proximal", "1.6", "4", "--distal", "9", "--min-lesion", "0.02")
    assert run(main, command(files, tmp_path / "out", *more)) == 0
    told = json.loads((tmp_path / "out" / "statistics.json").read_text())
    chosen = told["settings"]["regions"]
    assert (chosen["lesion_gap_mm"], chosen["proximal_mm"], chosen["distal_mm"]) == (1.6, [1.6, 4.0], 9.0)
    assert chosen["min_lesion_ml"] == 0.02


def test_masks_on_another_grid_are_resampled_with_a_note(files, truth, tmp_path, capsys):
    fine = np.kron(truth["lesions"], np.ones((2, 2, 2), np.uint8))
    affine = AFFINE @ np.diag([0.5, 0.5, 0.5, 1])
    affine[:3, 3] = AFFINE[:3, 3] + AFFINE[:3, :3] @ [-0.25, -0.25, -0.25]
    files = {**files, "lesions": Path(write(tmp_path / "fine.nii.gz", fine, affine))}
    reference = Volume(truth["psr"], AFFINE).resampled_to(Volume(fine, affine)).write(tmp_path / "reference.nii.gz")
    assert run(main, command(files, tmp_path / "out", "--reference", str(reference))) == 0
    shown = capsys.readouterr()
    for text in (shown.err, shown.out):
        assert "fine.nii.gz was resampled to the PSR map's grid" in text
        assert "reference.nii.gz was resampled to the PSR map's grid" in text
    assert int(rows_of(tmp_path / "out" / "regions.csv")[0]["voxels"]) == truth["lesions"].sum()


def test_quiet_prints_nothing(files, tmp_path, capsys):
    assert run(main, command(files, tmp_path / "out", "--quiet")) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "")


# --- healthy and odd brains ------------------------------------------------------------------------------------------


def test_a_healthy_brain_has_a_table_and_no_curve(files, truth, tmp_path, capsys):
    files = {**files, "lesions": Path(write(tmp_path / "none.nii.gz", np.zeros(SHAPE, np.uint8)))}
    out = tmp_path / "out"
    assert run(main, command(files, out)) == 0
    assert "none.nii.gz holds no lesion, so there is no ROC curve" in capsys.readouterr().out
    rows = rows_of(out / "regions.csv")
    assert rows
    assert not [row for row in rows if row["region"] in ("lesion", "black_hole")]
    assert "nawm" in {row["region"] for row in rows}
    assert not (out / "roc.png").exists()
    assert (out / "overlay.png").exists()
    told = json.loads((out / "statistics.json").read_text())
    assert told["roc"]["against"] == {}
    assert "no ROC curve" in told["roc"]["declined"]


def test_lesions_partly_outside_the_brain_lose_that_part(files, truth, tmp_path, capsys):
    lesions = truth["lesions"].copy()
    lesions[0:2, 0:2, 0] = 1
    files = {**files, "lesions": Path(write(tmp_path / "some.nii.gz", lesions))}
    assert run(main, command(files, tmp_path / "out")) == 0
    total = truth["lesions"].sum()
    assert f"some.nii.gz: 4 of {total + 4} voxels lie outside the brain and were left out" in capsys.readouterr().out
    assert int(rows_of(tmp_path / "out" / "regions.csv")[0]["voxels"]) == total


def test_lesions_that_overlap_grey_matter_count_once(files, truth, tmp_path):
    lesions = truth["lesions"].copy()
    grey = np.argwhere(truth["tissue"] == 2)[:40]
    lesions[tuple(grey.T)] = 1
    files = {**files, "lesions": Path(write(tmp_path / "wide.nii.gz", lesions))}
    assert run(main, command(files, tmp_path / "out")) == 0
    rows = {row["region"]: int(row["voxels"]) for row in rows_of(tmp_path / "out" / "regions.csv") if not row["lesion"]}
    assert rows["lesion"] == lesions.sum()
    assert rows["grey_matter"] <= (truth["tissue"] == 2).sum() - 40


def test_one_voxel_of_lesion(files, tmp_path, capsys):
    lesions = np.zeros(SHAPE, np.uint8)
    lesions[10, 12, 8] = 1
    files = {**files, "lesions": Path(write(tmp_path / "one.nii.gz", lesions))}
    assert run(main, command(files, tmp_path / "out")) == 0
    out = capsys.readouterr().out
    assert "Lesions: one voxel only, so there is no standard deviation" in out
    assert "one lesion only" in out
    assert rows_of(tmp_path / "out" / "regions.csv")[0]["sd"] == ""
    told = json.loads((tmp_path / "out" / "statistics.json").read_text())
    assert told["roc"]["against"]["nawm"]["voxel"]["ci_delong"] == [None, None]
    assert told["roc"]["against"]["nawm"]["lesion"] is None


def test_lesions_that_are_all_too_small(files, tmp_path, capsys):
    assert run(main, command(files, tmp_path / "out", "--min-lesion", "50")) == 0
    assert "smaller than the smallest volume chosen, so there is no ROC curve" in capsys.readouterr().out
    assert not [row for row in rows_of(tmp_path / "out" / "regions.csv") if row["region"] == "lesion"]


def test_regions_without_a_finite_value(files, truth, tmp_path, capsys):
    psr = np.where(truth["lesions"] > 0, np.nan, truth["psr"]).astype(np.float32)
    files = {**files, "psr": Path(write(tmp_path / "holes.nii.gz", psr))}
    assert run(main, command(files, tmp_path / "out", "--brain-mask", str(files["brain"]))) == 0
    out = capsys.readouterr().out
    assert "Lesions: no voxel has a finite PSR value" in out
    assert "No lesion has a finite PSR value, so there is no ROC curve" in out
    row = rows_of(tmp_path / "out" / "regions.csv")[0]
    assert row["mean"] == ""
    assert row["missing"] == row["voxels"]


# --- what is refused -------------------------------------------------------------------------------------------------


def test_lesions_outside_the_brain(files, truth, tmp_path, capsys):
    lesions = np.zeros(SHAPE, np.uint8)
    lesions[0:2, 0:2, 0:2] = 1
    files = {**files, "lesions": Path(write(tmp_path / "away.nii.gz", lesions))}
    assert "away.nii.gz has no lesion inside the brain" in refused(command(files, tmp_path / "out"), capsys)
    elsewhere = AFFINE + 400 * np.eye(4)[:, [3, 3, 3, 0]]
    files["lesions"] = Path(write(tmp_path / "far.nii.gz", truth["lesions"], elsewhere))
    assert "far.nii.gz does not overlap the PSR map" in refused(command(files, tmp_path / "out"), capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("factor", "words"), [(100, "in percent"), (1e4, "no PSR map")])
def test_maps_that_are_no_fraction(files, truth, tmp_path, capsys, factor, words):
    files = {**files, "psr": Path(write(tmp_path / "scaled.nii.gz", truth["psr"] * np.float32(factor)))}
    sentence = refused(command(files, tmp_path / "out"), capsys)
    assert "scaled.nii.gz" in sentence
    assert words in sentence
    assert ("divide it by 100" in sentence) == (factor == 100)


def test_a_map_in_percent_with_a_sea_of_noise_around_it_is_recognised(files, truth, tmp_path, capsys):
    """Background noise hides the percentage from a first look; white matter shows it."""
    noise = np.random.default_rng(0).uniform(0.01, 0.2, SHAPE)
    psr = np.where(truth["psr"] > 0, truth["psr"] * 100, noise).astype(np.float32)
    files = {**files, "psr": Path(write(tmp_path / "noisy.nii.gz", psr))}
    assert "seems to be in percent" in refused(command(files, tmp_path / "out"), capsys)


@pytest.mark.parametrize(
    ("value", "words"), [(math.nan, "no finite value"), (0.0, "no value above 0"), (-1.0, "no value above 0")]
)
def test_empty_maps(files, tmp_path, capsys, value, words):
    files = {**files, "psr": Path(write(tmp_path / "empty.nii.gz", np.full(SHAPE, value, np.float32)))}
    sentence = refused(command(files, tmp_path / "out"), capsys)
    assert "empty.nii.gz" in sentence
    assert words in sentence


def test_masks_that_are_none(files, truth, tmp_path, capsys):
    grey = np.random.default_rng(0).uniform(0, 900, SHAPE).astype(np.float32)
    for array in (grey, np.where(truth["lesions"] > 0, np.nan, 0).astype(np.float32)):
        wrong = {**files, "lesions": Path(write(tmp_path / "wrong.nii.gz", array))}
        assert "wrong.nii.gz" in refused(command(wrong, tmp_path / "out"), capsys)
    wrong = {**files, "tissue": Path(write(tmp_path / "dseg.nii.gz", truth["tissue"] * 7))}
    assert "dseg.nii.gz" in refused(command(wrong, tmp_path / "out"), capsys)
    empty = write(tmp_path / "empty.nii.gz", np.zeros(SHAPE, np.uint8))
    assert "empty" in refused(command(files, tmp_path / "out", "--brain-mask", empty), capsys)


@pytest.mark.parametrize("option", ["--psr", "--lesions", "--tissue", "--uncertainty", "--reference", "--t1w"])
def test_files_that_are_missing(files, tmp_path, capsys, option):
    argv = command(files, tmp_path / "out", option, str(tmp_path / "gone.nii.gz"))
    assert f"{tmp_path / 'gone.nii.gz'} does not exist" in refused(argv, capsys)


def test_options_that_contradict_each_other(files, tmp_path, capsys):
    out = tmp_path / "out"
    assert "not both" in refused(command(files, out, "--suggest-lesions"), capsys)
    assert "--flair" in refused(command(files, out, "--suggest-lesions", lesions=False), capsys)
    refused(command(files, out, "--proximal", "6", "2"), capsys)
    refused(command(files, out, "--gap", "-1"), capsys)
    assert not out.exists()


def test_results_are_replaced_only_if_asked(files, truth, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(main, command(files, out, "--reference", str(files["psr"]))) == 0
    (out / "mine.txt").write_text("keep")
    sentence = refused(command(files, out), capsys)
    assert "exists already" in sentence
    assert "--overwrite" in sentence
    assert run(main, command(files, out, "--overwrite", lesions=False)) == 0
    # What the earlier analysis wrote and this one does not is gone; what others wrote is not.
    assert not (out / "comparison.csv").exists()
    assert not (out / "roc.png").exists()
    assert (out / "mine.txt").read_text() == "keep"
    file = tmp_path / "file"
    file.write_text("")
    assert "is a file; give a folder" in refused(command(files, file), capsys)


def test_a_reference_of_another_brain(files, truth, tmp_path, capsys):
    elsewhere = AFFINE + 400 * np.eye(4)[:, [3, 3, 3, 0]]
    reference = write(tmp_path / "other.nii.gz", truth["psr"], elsewhere)
    assert "other.nii.gz does not overlap the PSR map" in refused(
        command(files, tmp_path / "out", "--reference", reference), capsys
    )
    percent = write(tmp_path / "percent.nii.gz", truth["psr"] * 100)
    sentence = refused(command(files, tmp_path / "out", "--reference", percent), capsys)
    assert "percent.nii.gz seems to be in percent" in sentence
