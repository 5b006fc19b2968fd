"""The demo on a small simulated patient with the tiny model: files, numbers, bad input, cancelling."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from DEMISTCore import commit, metrics
from DEMISTCore.cli import run
from DEMISTCore.demo import FILES, STATISTICS, Demonstration, Patient, demonstrate, simulate_patient
from DEMISTCore.demo.__main__ import main, table
from DEMISTCore.errors import Cancelled, InputError
from DEMISTCore.files import sha256
from DEMISTCore.simulate.anatomy import Anatomy
from DEMISTCore.simulate.tissues import CLASS_INDEX


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    """A head of nested ellipsoids."""
    shape = (78, 90, 74)
    axes = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in shape], indexing="ij"))
    radius = np.sqrt((axes[0] / 30) ** 2 + (axes[1] / 36) ** 2 + (axes[2] / 28) ** 2)
    ventricle = np.sqrt((axes[0] / 6) ** 2 + (axes[1] / 11) ** 2 + (axes[2] / 6) ** 2) < 1
    classes = np.zeros(shape, np.uint8)
    for name, edge in (("skin", 1.22), ("bone", 1.12), ("outer CSF", 1.05), ("cortex", 1.0), ("white matter", 0.86)):
        classes[radius < edge] = CLASS_INDEX[name]
    classes[ventricle] = CLASS_INDEX["ventricle"]
    affine = np.eye(4)
    affine[:3, 3] = -(np.array(shape) - 1) / 2
    return Anatomy(classes, affine, "ellipsoids")


@pytest.fixture(scope="module")
def patient(anatomy: Anatomy) -> Patient:
    """The head deformed, with lesions, scanned."""
    return simulate_patient(4, anatomy=anatomy)


@pytest.fixture(scope="module")
def quick(patient: Patient, tiny_bundle: Path) -> dict:
    """What makes the demo quick: the tiny model, no brain extraction, registration or N4."""
    return {
        "patient": patient,
        "bundle": tiny_bundle,
        "brain_mask": patient.brain,
        "register": False,
        "bias_correct": False,
        "device": "cpu",
    }


@pytest.fixture(scope="module")
def shown(quick: dict, tmp_path_factory: pytest.TempPathFactory) -> Demonstration:
    return demonstrate(tmp_path_factory.mktemp("demo") / "out", **quick)


def test_all_files_are_there_on_one_grid(shown: Demonstration) -> None:
    assert {path.name for path in shown.out.iterdir()} == {*FILES, STATISTICS}
    t1w = nib.load(shown.out / "T1w.nii.gz")
    for name in ("psr", "psr_uncertainty", "true_psr", "true_tissues", "true_lesions"):
        image = nib.load(shown.out / f"{name}.nii.gz")
        assert image.shape == t1w.shape
        assert np.allclose(image.affine, t1w.affine, atol=1e-5)
    assert (shown.out / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_numbers_are_those_of_the_files(shown: Demonstration, patient: Patient) -> None:
    numbers = json.loads((shown.out / "demo.json").read_text())
    psr, truth, labels = (nib.load(shown.out / f"{n}.nii.gz").get_fdata() for n in ("psr", "true_psr", "true_tissues"))
    brain = patient.brain.array > 0
    assert numbers["brain"]["psnr"] == pytest.approx(metrics.psnr(psr, truth, brain), abs=1e-3)
    rows = {row["region"]: row for row in numbers["regions"]}
    white = (labels == 3) & brain
    assert float(rows["White matter"]["true_mean"]) == pytest.approx(truth[white].mean(), rel=1e-4)
    assert float(rows["White matter"]["bias"]) == pytest.approx(psr[white].mean() - truth[white].mean(), abs=1e-5)
    assert float(rows["White matter"]["volume_ml"]) == pytest.approx(white.sum() * 1e-3, rel=0.3)
    assert {"Lesion", "Cortex", "CSF"} <= set(rows)


def test_truth_behaves_like_a_patients(patient: Patient) -> None:
    labels, psr = patient.labels.array, patient.psr.array
    assert np.median(psr[labels == 5]) < 0.9 * np.median(psr[labels == 3])
    assert 0.08 < np.median(psr[labels == 3]) < 0.16
    assert patient.t1w.array[patient.brain.array == 0].max() > 0, "a head, not a brain"


def test_table_says_what_a_person_wants_to_know(shown: Demonstration) -> None:
    text = table(shown)
    for words in ("White matter", "PSNR", "Lesions have", "Uncertainty", "Seconds:", "research estimate"):
        assert words in text
    assert max(map(len, text.splitlines()[:-5])) <= 110


def test_it_is_measured_as_a_patient(shown: Demonstration, patient: Patient) -> None:
    folder = shown.out / STATISTICS
    assert [path.parent for path in shown.out.rglob("regions.csv")] == [folder], "one table of that name"
    assert {"regions.csv", "roc.png", "overlay.png", "comparison.csv", "statistics.json"} <= {
        path.name for path in folder.iterdir()
    }
    with open(folder / "regions.csv", encoding="utf-8") as stream:
        rows = {row["region"]: row for row in csv.DictReader(stream) if not row["lesion"]}
    assert {"lesion", "nawm", "nawm_proximal", "grey_matter"} <= set(rows)
    assert int(rows["lesion"]["voxels"]) == (patient.lesions.array > 0).sum()
    told = shown.numbers["measured"]
    lesion = next(row for row in told["regions"] if row["region"] == "lesion")
    inside = patient.lesions.array > 0
    assert lesion["true_mean"] == pytest.approx(patient.psr.array[inside].mean(), rel=1e-4)
    assert lesion["bias"] == pytest.approx(lesion["synthesized_mean"] - lesion["true_mean"], abs=1e-9)
    assert 0 <= told["auc"]["nawm"]["voxel"]["auc"] <= 1
    assert "simulated PSR" in json.loads((folder / "statistics.json").read_text())["statement"]


def test_uncertainty_needs_seeds(quick: dict, tmp_path: Path) -> None:
    single = demonstrate(tmp_path / "out", seeds=1, **quick)
    assert "uncertainty" not in single.numbers
    assert not (single.out / "psr_uncertainty.nii.gz").exists()


def test_mean_and_its_intervals(quick: dict, calibrated_bundle: Path, tmp_path: Path, patient: Patient) -> None:
    """The bundle recommends its mean: one map, a calibrated SD, and how often its intervals hold the truth."""
    shown = demonstrate(tmp_path / "out", **{**quick, "bundle": calibrated_bundle})
    numbers = json.loads((shown.out / "demo.json").read_text())
    assert numbers["settings"]["mode"] == "mean"
    psr, sd = (nib.load(shown.out / f"{name}.nii.gz").get_fdata() for name in ("psr", "psr_uncertainty"))
    inside = (patient.brain.array > 0) & (shown.result.mask.array > 0)
    away = np.abs(psr - patient.psr.array)[inside]
    # The calibration's intervals reach 2 SD to either side, cut at 0, where no truth is below.
    assert numbers["uncertainty"]["coverage_90"] == pytest.approx(np.mean(away <= 2 * sd[inside]), abs=1e-3)
    assert 0 < numbers["uncertainty"]["coverage_90"] < 1
    assert 0 <= numbers["lesion_auc"]["synthesized"] <= 1
    text = table(shown)
    for words in ("In the brain (mean): PSNR", "SSIM", "area under the ROC curve", "calibrated", "90 % interval in"):
        assert words in text
    assert (shown.out / "demo.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="mode sample"):
        demonstrate(tmp_path / "guided", **{**quick, "bundle": calibrated_bundle}, guidance={"semantic": 2.0})
    assert not (tmp_path / "guided").exists()


def test_folder_in_use_is_left_alone(quick: dict, tmp_path: Path, tiny_bundle: Path, capsys) -> None:
    mine = tmp_path / "notes.txt"
    mine.write_text("mine")
    (tmp_path / "psr.nii.gz").write_text("an earlier result")
    (tmp_path / "demo.json").write_text("{}")  # what tells an earlier demo from somebody's own files
    assert run(main, ["--out", str(tmp_path), "--bundle", str(tiny_bundle)]) == 2
    said = capsys.readouterr().err
    assert "in use" in said
    assert "--overwrite" in said
    assert (tmp_path / "psr.nii.gz").read_text() == "an earlier result"
    demonstrate(tmp_path, overwrite=True, seeds=1, **quick)
    assert mine.read_text() == "mine"
    assert nib.load(tmp_path / "psr.nii.gz").shape == quick["patient"].t1w.shape


def test_cancelling_leaves_nothing(quick: dict, tmp_path: Path) -> None:
    def stop(stage: str, fraction: float) -> None:
        if fraction > 0.5:
            raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        demonstrate(tmp_path / "out", progress=stop, **quick)
    assert not (tmp_path / "out").exists()


def test_what_is_written_names_where_it_lies(shown: Demonstration) -> None:
    """Nothing tells of the hidden folder that the files were made in."""
    for path in shown.out.rglob("*"):
        if path.suffix in (".json", ".csv", ".tsv"):
            assert ".tmp-" not in path.read_text(encoding="utf-8"), path
    told = json.loads((shown.out / "psr.json").read_text())
    assert told["inputs"]["T1w"]["file"] == str(shown.out / "T1w.nii.gz")
    assert told["inputs"]["T1w"]["sha256"] == sha256(shown.out / "T1w.nii.gz")
    assert told["outputs"]["psr"] == str(shown.out / "psr.nii.gz")
    assert told["output_sha256"]["psr"] == sha256(shown.out / "psr.nii.gz")
    for path in (*shown.result.files.values(), *shown.analysis.files.values()):
        assert path.is_file()


def test_an_earlier_demo_stays_until_there_is_a_new_one(quick: dict, tmp_path: Path) -> None:
    demonstrate(tmp_path, **quick)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def stop(stage: str, fraction: float) -> None:
        if stage == "measure":
            raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        demonstrate(tmp_path, overwrite=True, progress=stop, **quick)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    demonstrate(tmp_path, overwrite=True, seeds=1, **quick)
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, STATISTICS} - {"psr_uncertainty.nii.gz"}


def killed_demo(out: Path, rename: int | None, quick: dict) -> None:
    """In a process of its own: die while the demo measures, or before that rename of those into ``out``."""

    def progress(stage: str, fraction: float) -> None:
        if stage == "measure" and rename is None:
            os.kill(os.getpid(), signal.SIGKILL)

    plain, moved = commit._put, []

    def put(step: dict, home: Path) -> None:
        if home == out:
            if len(moved) == rename:
                os.kill(os.getpid(), signal.SIGKILL)
            moved.append(step)
        plain(step, home)

    commit._put = put
    demonstrate(out, progress=progress, **quick)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
@pytest.mark.parametrize("rename", [None, 0, 14])
def test_a_killed_demo_is_whole_or_not_there(quick: dict, tmp_path: Path, rename: int | None) -> None:
    out = tmp_path / "out"
    child = multiprocessing.get_context("spawn").Process(target=killed_demo, args=(out, rename, quick))
    child.start()
    child.join(600)
    assert child.exitcode == -signal.SIGKILL
    assert list(out.rglob(".tmp-*"))
    if rename is None:  # nothing was decided: the folder is free for the next one
        demonstrate(out, seeds=1, **quick)
    else:
        with pytest.raises(InputError, match="in use"):
            demonstrate(out, **quick)
        assert {path.name for path in out.iterdir()} == {*FILES, STATISTICS}
        assert (out / STATISTICS / "statistics.json").is_file()
    assert not list(out.rglob(".tmp-*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds", "0"], "seeds"),
        (["--bundle", "no-such-bundle"], "no-such-bundle"),
        (["--device", "toaster"], "toaster"),
        (["--out", "FILE"], "is a file"),
        (["--steps", "0"], "steps"),
    ],
)
def test_bad_input_is_refused_before_the_work(arguments, words, patient, tiny_bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("DEMISTCore.demo.run.simulate_patient", lambda: patient)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    given = [str(tmp_path / "file") if a == "FILE" else a for a in arguments]
    given = given if "--bundle" in given else ["--bundle", str(tiny_bundle), *given]
    assert run(main, given) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    assert not (tmp_path / "demo").exists()


def test_same_seed_same_patient(patient: Patient, anatomy: Anatomy) -> None:
    again = simulate_patient(4, anatomy=anatomy)
    for name in ("t1w", "flair", "psr", "labels", "lesions", "brain"):
        assert np.array_equal(getattr(again, name).array, getattr(patient, name).array), name


@pytest.mark.parametrize(("mode", "model"), [([], "tiny_bundle"), (["--sweep"], "tiny_mean_bundle")])
def test_benchmark_runs(mode: list[str], model: str, head, request, tmp_path: Path, capfd) -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "synthesize_time.py"
    subprocess.run(
        [
            sys.executable,
            str(script),
            "--t1w",
            str(head.t1w),
            "--flair",
            str(head.flair),
            "--brain-mask",
            str(head.mask),
            "--bundle",
            str(request.getfixturevalue(model)),
            "--device",
            "cpu",
            "--repeat",
            "1",
            "--out",
            str(tmp_path / "numbers.json"),
            *mode,
        ],
        check=True,
        cwd=Path(__file__).parents[1],
    )
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    if mode:
        assert numbers["rows"][0]["time_ratio"] == 1
        assert len(numbers["rows"]) > 5
        assert numbers["rows"][-1]["sampler"] == "mean"
        assert 0 < numbers["rows"][-1]["time_ratio"] < 10
    else:
        assert numbers["runs"][0]["process"] > numbers["runs"][0]["total"] > 0
        assert numbers["runs"][0]["peak_gib"] > 0.1
    assert "| " in capfd.readouterr().out
