"""A folder of DICOM studies in: pairs found by study, made into images once, under names that are safe."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("pydicom")
from cohort_data import QUICK, results, rows, written
from dicom_archive import FLAIR, MPRAGE, brains, study_of, write_series

from DEMISTCore import cli
from DEMISTCore.cohort.__main__ import main
from DEMISTCore.cohort.archive.headers import is_archive, read_archive
from DEMISTCore.cohort.archive.people import write_people
from DEMISTCore.cohort.archive.series import kind_of
from DEMISTCore.cohort.archive.studies import RAW, sessions_of, years
from DEMISTCore.cohort.group.people import read_people

HOSTILE = "../MS 1<script>alert(1)</script>"
NAME = "sub-MS1scriptalert1script_ses-20200131"


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """A whole study of a patient with a hostile number, and one that lacks its T1w; a text and a broken file."""
    root = tmp_path_factory.mktemp("archive") / "A; rm -rf $HOME"
    t1w, flair = brains(0)
    whole = study_of(HOSTILE)
    write_series(root / "x" / "1", t1w, whole, MPRAGE)
    write_series(root / "x" / "1", flair, whole, FLAIR)  # two series in one folder
    write_series(root / "x" / "2", t1w[:, :, 10:13], whole, {"SeriesDescription": "localizer", "SeriesNumber": 1})
    write_series(root / "x" / "3", t1w, whole, {**MPRAGE, "SeriesDescription": "t1_mprage_post_gd", "SeriesNumber": 9})
    write_series(root / "y", flair, study_of("B", "20210203"), FLAIR)
    (root / "y" / "notes.txt").write_text("no image")
    (root / "y" / "broken").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 64)
    (root / "loop").symlink_to(root)
    return root


@pytest.fixture(scope="module")
def command(archive, tiny_bundle):
    return lambda out, *more: main(
        [str(archive), str(out), "participant", "--bundle", str(tiny_bundle), "--no-regions", *QUICK, *more]
    )


@pytest.fixture(scope="module")
def made(command, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made") / "out"
    assert command(out) == 1, "one study has no T1w"
    return out


def test_images_are_those_of_the_series(made):
    anat = made / RAW / "sub-MS1scriptalert1script/ses-20200131/anat"
    for what, array in zip(("T1w", "FLAIR"), brains(0)):
        image = nib.as_closest_canonical(nib.load(anat / f"{NAME}_{what}.nii.gz"))
        np.testing.assert_array_equal(np.asarray(image.dataobj), array)
        # The first voxel lies where the slices say; canonical axes point to the right, the front and up.
        np.testing.assert_allclose(image.affine, np.diag([6.0, 6.0, 6.0, 1.0]), atol=1e-3)
    told = json.loads((anat / f"{NAME}_FLAIR.json").read_text())
    assert told["InversionTime"] == pytest.approx(1.8)
    assert "PatientName" not in told


def test_results_and_status_of_an_archive(made):
    told = rows(made)
    assert told[NAME]["state"] == "done", told[NAME]
    assert told["sub-B_ses-20210203"]["state"] == "failed"
    assert "has no T1w that its headers tell" in told["sub-B_ses-20210203"]["message"]
    folder = made / "sub-MS1scriptalert1script"
    sidecar = json.loads((folder / f"ses-20200131/anat/{NAME}_desc-demist_PSRmap.json").read_text())
    assert sidecar["Sources"][0] == f"bids:raw:sub-MS1scriptalert1script/ses-20200131/anat/{NAME}_T1w.nii.gz"
    described = json.loads((made / "dataset_description.json").read_text())
    assert described["DatasetLinks"]["raw"] == (made / RAW).as_uri()
    page = (folder / f"{NAME}.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_what_is_converted_is_not_converted_again(made, command):
    before = written(made), results(made)
    assert command(made) == 1
    assert (written(made), results(made)) == before


def test_people_of_the_headers_serve_the_level_group(made, archive):
    known, _ = read_people(made / RAW)
    person = known["sub-MS1scriptalert1script"]
    assert (person.age, person.sex) == (45.0, "F")
    assert person.dates["ses-20200131"].isoformat() == "2020-01-31T10:15:00"
    assert write_people(read_archive(archive), made) == made / RAW
    assert [years(age) for age in ("045Y", "018M", "x")] == ["45", "1.5", "n/a"]


def test_a_folder_is_told_from_a_data_set(archive, tmp_path, capsys, tiny_bundle):
    assert is_archive(archive)
    assert not is_archive(tmp_path)
    (tmp_path / "sub-1").mkdir()
    assert not is_archive(tmp_path)
    arguments = [str(tmp_path), str(tmp_path / "out"), "participant", "--bundle", str(tiny_bundle), *QUICK, "--dicom"]
    assert cli.run(main, arguments) == 2
    assert "holds no DICOM files" in capsys.readouterr().err


def test_series_that_miss_files_are_one_sentence(tmp_path, command, archive, tiny_bundle):
    t1w, flair = brains(1)
    shared = study_of("C")
    write_series(tmp_path / "in" / "a", t1w, shared, MPRAGE)
    for path in write_series(tmp_path / "in" / "b", flair, shared, FLAIR):
        path.write_bytes(path.read_bytes()[:-900])  # the pixels are cut
    arguments = [str(tmp_path / "in"), str(tmp_path / "out"), "participant", "--bundle", str(tiny_bundle), *QUICK]
    assert main([*arguments, "--no-regions"]) == 1
    row = rows(tmp_path / "out")["sub-C_ses-20200131"]
    assert row["state"] == "failed"
    assert "FLAIR" in row["message"] or "series 5" in row["message"], row


# --- which series ----------------------------------------------------------------------------------------------------

ORIGINAL = ("ORIGINAL", "PRIMARY", "M")


@pytest.mark.parametrize(
    ("name", "more", "kind"),
    [
        ("t1_mprage_sag", {}, "T1w"),
        ("SAG 3D BRAVO", {}, "T1w"),
        ("3D_T1_TFE", {}, "T1w"),
        ("T1W_SE_tra", {}, "T1w"),
        ("Sag CUBE FLAIR", {"inversion_ms": 1600.0}, "FLAIR"),
        ("t2_tirm_tra_dark-fluid", {}, "FLAIR"),
        ("STIR tirm", {"inversion_ms": 160.0}, ""),
        ("AX T1 FLAIR", {"inversion_ms": 780.0}, ""),
        ("t2_tse_tra", {}, ""),
        ("T1 map", {}, ""),
        ("t1_mprage MIP", {}, ""),
        ("t1 cervical spine", {}, ""),
        ("t1_mprage_sag", {"contrast": True}, ""),
        ("T1 MPRAGE +C", {}, ""),
        ("t1_mprage_sag", {"images": 3}, ""),
        ("t1_mprage_sag", {"image_type": ("DERIVED", "SECONDARY", "P")}, ""),
        ("series 4", {"sequence": ("GR",), "three_d": True, "echo_ms": 3.0, "repetition_ms": 9.0}, "T1w"),
        ("series 5", {"sequence": ("SE", "IR"), "echo_ms": 120.0, "inversion_ms": 2500.0}, "FLAIR"),
        ("series 6", {"sequence": ("SE",), "echo_ms": 90.0}, ""),
    ],
)
def test_kinds(name, more, kind):
    given = {"names": [name], "image_type": ORIGINAL, "images": 100, **more}
    assert kind_of(**given)[0] == kind


def test_names_of_studies_and_the_better_of_two_series(tmp_path):
    """Two studies on one day, a repeat, a coarser scan, and two patients whose numbers come to one name."""
    t1w, flair = (array[:6, :6, :12] + 1 for array in brains(0))
    one = study_of("P1", time="090000")
    write_series(tmp_path / "a", t1w, one, {**MPRAGE, "SeriesNumber": 2})
    write_series(tmp_path / "a", t1w, one, {**MPRAGE, "SeriesNumber": 8})
    write_series(tmp_path / "a", t1w, one, {**MPRAGE, "SeriesNumber": 9, "MRAcquisitionType": "2D"})
    write_series(tmp_path / "a", flair, one, FLAIR)
    write_series(tmp_path / "b", flair, study_of("P1", time="113000"), FLAIR)
    for number in ("Q-1", "Q1"):
        shared = study_of(number)
        write_series(tmp_path / number, t1w, shared, MPRAGE)
        write_series(tmp_path / number, flair, shared, FLAIR)
    listed = {session.name: session for session in sessions_of(read_archive(tmp_path), tmp_path / "out")}
    first = listed["sub-P1_ses-20200131T090000"]
    assert first.series["T1w"].number == 8
    assert "the last one, 8 (t1_mprage_sag_p2_iso), was taken" in first.notes[0]
    assert "has no T1w" in listed["sub-P1_ses-20200131T113000"].problem
    refused = [one.problem for name, one in listed.items() if name.startswith("sub-Q1")]
    assert len(refused) == 2
    assert all("The patients Q-1 and Q1 come to one name" in why for why in refused)
