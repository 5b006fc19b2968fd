"""A data set in, a derivative data set out: files, names, what is made anew and what is not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cohort_data import QUICK, add_session, copy, head, results, rows, write_bids, write_json, written

from DEMISTCore import cli
from DEMISTCore.cohort import stages, status
from DEMISTCore.cohort.__main__ import main
from DEMISTCore.cohort.engine import shard
from DEMISTCore.cohort.index import index_bids
from DEMISTCore.cohort.session import Session
from DEMISTCore.cohort.sidecars import find_sidecars, read_sidecars
from DEMISTCore.cohort.spaces.xfm import rigid_text
from DEMISTCore.cohort.table import read_table
from DEMISTCore.cohort.validate import find_validator, validate
from DEMISTCore.errors import InputError

SESSIONS = ("sub-01/ses-1", "sub-01/ses-2", "sub-02")


@pytest.fixture(scope="module")
def bids(tmp_path_factory) -> Path:
    root = write_bids(tmp_path_factory.mktemp("cohort") / "bids", SESSIONS)
    (root / "sub-01/ses-1/anat/._sub-01_ses-1_T1w.nii.gz").write_bytes(b"a Finder note")
    write_json(root / "T1w.json", {"MagneticFieldStrength": 3.0, "RepetitionTime": 2.3})
    write_json(root / "sub-02/anat/sub-02_T1w.json", {"RepetitionTime": 1.9})
    return root


@pytest.fixture(scope="module")
def command(bids, tiny_bundle):
    """``main`` on a folder of results."""

    def call(out: Path, *more: str, data: Path = bids) -> int:
        given = ("--derivatives", str(bids / "derivatives" / "manual")) if data.is_dir() else ()
        return main([str(data), str(out), "participant", "--bundle", str(tiny_bundle), *QUICK, *given, *more])

    return call


@pytest.fixture(scope="module")
def made(command, tmp_path_factory) -> Path:
    """Results of an undisturbed run."""
    out = tmp_path_factory.mktemp("made") / "out"
    assert command(out) == 0
    return out


def test_results_have_bids_names_and_lie_on_the_t1w(made, bids):
    anat = made / "sub-01/ses-1/anat"
    names = sorted(path.name.removeprefix("sub-01_ses-1_") for path in anat.iterdir())
    assert names == [
        "desc-brain_mask.json",
        "desc-brain_mask.nii.gz",
        "desc-demist_PSRmap.json",
        "desc-demist_PSRmap.nii.gz",
        "desc-demist_PSRuncertainty.nii.gz",
        "desc-demist_regions.tsv",
        "desc-demist_statistics.json",
        "desc-lesions_dseg.nii.gz",
        "desc-regions_dseg.json",
        "desc-regions_dseg.nii.gz",
        "desc-regions_dseg.tsv",
        "from-FLAIR_to-T1w_mode-image_xfm.txt",
        "label-lesion_mask.json",
        "label-lesion_mask.nii.gz",
    ]
    t1w = nib.load(bids / "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz")
    for path in anat.glob("*.nii.gz"):
        image = nib.load(path)
        assert image.shape == t1w.shape, path
        np.testing.assert_allclose(image.affine, t1w.affine, atol=1e-5)
    lesions = np.asarray(nib.load(anat / "sub-01_ses-1_label-lesion_mask.nii.gz").dataobj)
    np.testing.assert_array_equal(lesions, head(0)["label-lesion_mask"])
    assert (made / "sub-02/anat/sub-02_desc-demist_PSRmap.nii.gz").is_file()
    assert not list(made.rglob(".tmp-*"))


def test_sidecar_says_where_it_comes_from(made, bids):
    told = json.loads((made / "sub-02/anat/sub-02_desc-demist_PSRmap.json").read_text())
    assert told["Sources"] == ["bids:raw:sub-02/anat/sub-02_T1w.nii.gz", "bids:raw:sub-02/anat/sub-02_FLAIR.nii.gz"]
    mask = "bids:raw:derivatives/manual/sub-02/anat/sub-02_desc-brain_mask.nii.gz"
    assert told["inputs"]["brain mask"]["file"] == mask
    assert told["Units"] == "fraction"
    assert told["bundle"]["name"] == "tiny"
    assert not {"timings_s", "peak_memory_mb"} & set(told), "seconds differ from run to run"
    described = json.loads((made / "dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative"
    assert described["GeneratedBy"][0]["Name"] == "DEMIST"
    assert described["SourceDatasets"] == [{"URL": bids.as_uri()}]


def test_status_says_how_each_went(made):
    told = rows(made)
    assert sorted(told) == ["sub-01_ses-1", "sub-01_ses-2", "sub-02"]
    assert all(one["state"] == "done" for one in told.values())
    assert all(float(one["seconds"]) > 0 and float(one["peak_memory_mb"]) > 50 for one in told.values())


def test_reports_link_pictures_that_are_there(made):
    page = (made / "sub-01/sub-01_ses-2.html").read_text(encoding="utf-8")
    assert "Research use only" in page or "research" in page.lower()
    pictures = [part.split('"')[0] for part in page.split('src="')[1:]]
    assert len(pictures) == 5
    assert all((made / "sub-01" / name).is_file() for name in pictures)
    assert "Proximal NAWM" in page


def test_the_validator_passes_what_comes_out(made, bids):
    assert validate(made) == []
    assert validate(bids) == []
    done = subprocess.run([find_validator(), str(made)], capture_output=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0


def test_what_is_done_is_not_done_again(made, command, tmp_path):
    out = copy(made, tmp_path / "out")
    before = written(out), results(out), (out / "status.tsv").read_bytes()
    assert command(out) == 0
    assert (written(out), results(out), (out / "status.tsv").read_bytes()) == before


def test_a_changed_option_makes_anew_only_what_it_touches(made, command, tmp_path):
    out = copy(made, tmp_path / "out")
    before = written(out)
    assert command(out, "--gap", "1", "--participant-label", "02") == 0
    changed = {name for name, now in written(out).items() if before[name] != now}
    assert changed == {
        f"sub-02/anat/sub-02_{name}.nii.gz" for name in ("desc-regions_dseg", "desc-lesions_dseg", "label-lesion_mask")
    }
    assert command(out, "--participant-label", "02") == 0
    assert results(out) == results(made), "and back: regions from files are those made right after the map"


def test_a_changed_input_or_lost_file_makes_its_session_anew(bids, made, command, tmp_path, tiny_bundle):
    data, out = copy(bids, tmp_path / "bids"), copy(made, tmp_path / "out")
    lost = out / "sub-02/anat/sub-02_desc-demist_PSRmap.nii.gz"
    lost.unlink()
    flair = data / "sub-01/ses-2/anat/sub-01_ses-2_FLAIR.nii.gz"
    nib.save(nib.Nifti1Image(head(9)["FLAIR"], nib.load(flair).affine), flair)
    before = written(out)
    manual = ("--derivatives", str(data / "derivatives" / "manual"))
    quick = ("--bundle", str(tiny_bundle), *QUICK, "--no-regions")
    assert main([str(data), str(out), "participant", *quick, *manual]) == 0
    changed = {
        name.split("/")[-3] + "/" + name.split("/")[-2] for name, now in written(out).items() if before.get(name) != now
    }
    assert changed == {"ses-2/anat", "sub-02/anat"}
    assert lost.is_file()
    same = [name for name in results(made) if name.startswith("sub-02/anat/")]
    assert all(results(out)[name] == results(made)[name] for name in same)


# --- which scans -----------------------------------------------------------------------------------------------------


def test_dot_files_and_links_in_circles_are_never_taken(bids, tmp_path):
    data = copy(bids, tmp_path / "bids")
    (data / "sub-01" / "loop").symlink_to("..")
    (data / "sub-01" / "ses-3").symlink_to("../..")
    (data / ".git").mkdir()
    found = index_bids(data)
    assert [one.name for one in found] == ["sub-01_ses-1", "sub-01_ses-2", "sub-02"]
    assert all(not one.problem and not one.t1w.name.startswith(".") for one in found)


def test_labels_and_filters_choose(bids, tmp_path):
    assert [s.name for s in index_bids(bids, participants=["sub-01"], sessions=["2"])] == ["sub-01_ses-2"]
    with pytest.raises(InputError, match="no participant 07"):
        index_bids(bids, participants=["07"])
    data = copy(bids, tmp_path / "bids")
    anat = data / "sub-02/anat"
    for name in ("acq-a_T1w", "ce-gd_T1w"):
        shutil.copy(anat / "sub-02_T1w.nii.gz", anat / f"sub-02_{name}.nii.gz")
    (anat / "sub-02_T1w.nii.gz").rename(anat / "sub-02_acq-b_T1w.nii.gz")
    [one] = index_bids(data, participants=["02"])
    assert "more than one T1w (sub-02_acq-a_T1w.nii.gz and sub-02_acq-b_T1w.nii.gz)" in one.problem
    [one] = index_bids(data, participants=["02"], filters={"t1w": {"acq": "b"}})
    assert one.t1w.name == "sub-02_acq-b_T1w.nii.gz"
    assert not one.problem
    assert any("contrast agent" in note or "filter" in note for note in one.notes)


def test_the_same_scan_in_two_sessions_is_refused(bids, tmp_path):
    data = copy(bids, tmp_path / "bids")
    twin = add_session(data, "sub-01/ses-3", 5)
    shutil.copy(data / "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz", twin / "sub-01_ses-3_T1w.nii.gz")
    problems = {one.name: one.problem for one in index_bids(data)}
    assert "is the same file as that of sub-01_ses-1" in problems.pop("sub-01_ses-3")
    assert not any(problems.values())


def test_sidecars_are_inherited(bids):
    image = bids / "sub-02/anat/sub-02_T1w.nii.gz"
    assert [path.name for path in find_sidecars(bids, image)] == ["T1w.json", "sub-02_T1w.json"]
    assert read_sidecars(find_sidecars(bids, image)) == ({"MagneticFieldStrength": 3.0, "RepetitionTime": 1.9}, [])


def test_a_table_of_paths(bids, command, tmp_path):
    """Any text may be a name; what is shown of it cannot run."""
    hostile = "<script>alert(1)</script>"
    folder = bids / "sub-02/anat"
    masks = bids / "derivatives/manual/sub-02/anat"
    table = tmp_path / "list.csv"
    table.write_text(
        "Subject,session,t1w,flair,brain_mask\n"
        f"{hostile},1,{folder}/sub-02_T1w.nii.gz,{folder}/sub-02_FLAIR.nii.gz,{masks}/sub-02_desc-brain_mask.nii.gz\n"
        f"../../etc,,{folder}/sub-02_T1w.nii.gz,,\n"
        f"MS_1,,a.nii,b.nii,\nMS-1,,c.nii,d.nii,\n",
        encoding="utf-8",
    )
    out = tmp_path / "out"
    assert command(out, "--no-regions", data=table) == 1
    told = rows(out)
    assert told["sub-scriptalert1script_ses-1"]["state"] == "done"
    assert "gives no flair" in told["sub-etc"]["message"]
    assert "2 rows of the table come to sub-MS1" in told["sub-MS1"]["message"]
    page = (out / "sub-scriptalert1script/sub-scriptalert1script_ses-1.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    (tmp_path / "bad.csv").write_text("name,t1w\na,b\n")
    with pytest.raises(InputError, match="no column subject"):
        read_table(tmp_path / "bad.csv")


# --- the command -----------------------------------------------------------------------------------------------------


def test_shards_are_the_whole_and_no_more():
    listed = [Session(f"sub-{i}") for i in range(10)]
    parts = [shard(listed, f"{i}/3") for i in (1, 2, 3)]
    assert sorted(one.name for part in parts for one in part) == [one.name for one in listed]
    for wrong in ("0/3", "4/3", "x/3", "2"):
        with pytest.raises(InputError, match="--shard takes"):
            shard(listed, wrong)


def test_refusals_are_one_sentence(bids, made, tmp_path, capsys, tiny_bundle):
    def ends(*argv: str) -> str:
        assert cli.run(main, argv) == 2
        return capsys.readouterr().err

    (tmp_path / "other").mkdir()
    write_json(tmp_path / "other" / "dataset_description.json", {"GeneratedBy": [{"Name": "fMRIPrep"}]})
    quick = ("--bundle", str(tiny_bundle), *QUICK)
    assert "There is no folder" in ends(str(tmp_path / "none"), str(tmp_path / "out"), "participant", *quick)
    assert "another program" in ends(str(bids), str(tmp_path / "other"), "participant", *quick)
    assert "holds an input" in ends(str(bids), str(bids.parent), "participant", *quick)
    assert "There is no bundle" in ends(str(bids), str(tmp_path / "out"), "participant", "--bundle", "nope")
    assert "at least 1" in ends(str(bids), str(tmp_path / "out"), "participant", "--workers", "0", *quick)
    assert not (tmp_path / "out").exists()


def test_the_console_script_is_there():
    from importlib.metadata import entry_points

    names = {one.name: one.value for one in entry_points(group="console_scripts")}
    assert names["demist-bids"] == "DEMISTCore.cohort.__main__:entry"
    done = subprocess.run([Path(sys.executable).with_name("demist-bids"), "--help"], capture_output=True, check=False)
    assert done.returncode == 0


def test_status_cells_hold_no_tabs_and_summary_names_failures(tmp_path):
    bad = status.Status("sub-1", "", "failed", "map", "two\tlines\nand \x1b[31m", shown="x")
    status.save(tmp_path, bad)
    listed = status.write_table(tmp_path, [status.Status("sub-2", "")])
    assert [one.state for one in listed] == ["failed", "waiting"]
    assert rows(tmp_path)["sub-1"]["message"] == "two\\tlines\\nand \\x1b[31m"
    assert "sub-1 (map)" in status.summary(listed)


def test_the_transform_is_the_one_that_itk_applies(tmp_path):
    """A FLAIR point moved onto the T1w and taken back by the file is where it was."""
    import SimpleITK as sitk

    angle = 0.2
    motion = np.eye(4)
    motion[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    motion[:3, 3] = 3, -5, 7
    (tmp_path / "xfm.txt").write_text(rigid_text(motion))
    transform = sitk.ReadTransform(str(tmp_path / "xfm.txt"))
    flair = np.array([10.0, 20.0, 30.0])
    t1w = (motion @ [*flair, 1])[:3]
    lps = np.array([-1, -1, 1])
    np.testing.assert_allclose(np.array(transform.TransformPoint((t1w * lps).tolist())) * lps, flair, atol=1e-6)


def test_nothing_that_comes_out_says_where_it_lies(made):
    """Two runs into two folders are the same to the byte; the records beside them are a run's own."""
    said = [path for path in made.rglob("*") if path.suffix in (".json", ".tsv", ".html", ".txt")]
    said = [path for path in said if ".demist" not in path.parts]
    assert len(said) > 20
    assert [path.name for path in said if str(made) in path.read_text(encoding="utf-8")] == []
    sentence = f"{made / 'sub-01' / 'anat' / 'x.nii.gz'} had gaps."
    assert stages._placeless({"notes": [sentence, 3]}, made) == {
        "notes": [str(Path("sub-01/anat/x.nii.gz had gaps.")), 3]
    }
