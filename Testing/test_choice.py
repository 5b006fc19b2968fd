"""Which files of a data set are taken for a session, and why others are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from DEMISTCore.errors import InputError
from DEMISTCore.measured.choice import choose, read_filters
from DEMISTCore.measured.names import parse
from DEMISTCore.training import data


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


@pytest.fixture
def lab(tmp_path):
    """As it lies on a lab's disk."""
    touch(
        tmp_path,
        "sub-01/anat/sub-01_ce-gadolinium_T1w.nii.gz",
        "sub-01/anat/sub-01_acq-fast_T1w.nii.gz",
        "sub-01/anat/sub-01_run-2_T1w.nii.gz",
        "sub-01/anat/sub-01_run-1_T1w.nii.gz",
        "sub-01/anat/sub-01_FLAIR.nii.gz",
        "sub-01/anat/._sub-01_FLAIR.nii.gz",
        "derivatives/qmt/sub-01/qmt/sub-01_PSRmap.nii.gz",
        "derivatives/qmt/sub-01/qmt/sub-01_R1map.nii.gz",
        "derivatives/qmt/sub-01/qmt/sub-01_desc-brain_mask.nii.gz",
        "derivatives/qmt/sub-01/qmt/sub-01_space-MNI152NLin6Asym_PSRmap.nii.gz",
        "derivatives/fmriprep/sub-01/anat/sub-01_space-MNI152NLin2009cAsym_desc-brain_mask.nii.gz",
        "derivatives/fmriprep/sub-01/anat/sub-01_desc-brain_mask.nii.gz",
        "derivatives/fmriprep/sub-01/anat/sub-01_desc-aparcaseg_dseg.nii.gz",
        "derivatives/fmriprep/sub-01/anat/sub-01_dseg.nii.gz",
        "derivatives/fmriprep/sub-01/anat/sub-01_label-CSF_mask.nii.gz",
        "derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz",
    )
    return tmp_path


def test_names():
    name = parse(Path("sub-01_ses-02_acq-mprage_run-1_T1w.nii.gz"))
    assert dict(name.entities) == {"sub": "01", "ses": "02", "acq": "mprage", "run": "1"}
    assert name.suffix == "T1w"
    for wrong in ("T1w.nii.gz", "sub-01_T1w.json", "._sub-01_T1w.nii.gz", "sub-01_odd_T1w.nii", "sub-01_T1w.mgz"):
        assert parse(Path(wrong)) is None, wrong
    assert parse(Path("sub-01_space-MNI152NLin6Asym_mask.nii")).is_elsewhere
    assert parse(Path("sub-01_space-T1w_mask.nii")).is_in_t1w_space
    assert not parse(Path("sub-01_space-orig_PSRmap.nii")).is_elsewhere


def test_what_a_lab_has_is_understood(lab):
    [choice] = choose(lab)
    taken = {what: path.relative_to(lab).as_posix() for what, path in choice.files.items()}
    assert taken == {
        "t1w": "sub-01/anat/sub-01_run-1_T1w.nii.gz",
        "flair": "sub-01/anat/sub-01_FLAIR.nii.gz",
        "psr": "derivatives/qmt/sub-01/qmt/sub-01_PSRmap.nii.gz",
        "mask": "derivatives/fmriprep/sub-01/anat/sub-01_desc-brain_mask.nii.gz",
        "lesion": "derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz",
        "reference": "derivatives/qmt/sub-01/qmt/sub-01_R1map.nii.gz",
    }
    why = {(r.what, r.path.name): r.why for r in choice.rejected}
    assert "contrast agent" in why["t1w", "sub-01_ce-gadolinium_T1w.nii.gz"]
    assert "comes first" in why["t1w", "sub-01_run-2_T1w.nii.gz"]
    assert "template" in why["psr", "sub-01_space-MNI152NLin6Asym_PSRmap.nii.gz"]
    assert "template" in why["mask", "sub-01_space-MNI152NLin2009cAsym_desc-brain_mask.nii.gz"]
    assert "qMT scan's space" in why["mask", "sub-01_desc-brain_mask.nii.gz"]
    assert "another atlas" in why["dseg", "sub-01_desc-aparcaseg_dseg.nii.gz"]
    assert "another atlas" in why["dseg", "sub-01_dseg.nii.gz"]
    assert not choice.missing
    assert choice.ambiguous is None
    assert not choice.in_t1w_space
    session = data.session_of(choice)
    assert session.reference == choice.files["reference"]
    assert session.files[-1] == session.reference


def test_labels_are_taken_by_their_table(lab):
    table = lab / "derivatives/fmriprep/sub-01/anat/sub-01_dseg.tsv"
    table.write_text("index\tname\n1\tGM\n2\tWM\n3\tCSF\n")  # fMRIPrep's own
    assert "dseg" not in choose(lab)[0].files
    table.write_text("index\tname\n1\tCSF\n2\tGM\n3\tWM\n")
    assert choose(lab)[0].files["dseg"].name == "sub-01_dseg.nii.gz"
    table.unlink()
    touch(lab, "derivatives/own/sub-01/anat/sub-01_desc-tissue_dseg.nii.gz")
    assert choose(lab)[0].files["dseg"].name == "sub-01_desc-tissue_dseg.nii.gz"


def test_filters_say_what_is_meant(lab, tmp_path):
    file = tmp_path / "filter.json"
    file.write_text(json.dumps({"t1w": {"acquisition": "fast", "suffix": "T1w"}, "lesion": {"label": None}}))
    [choice] = choose(lab, read_filters(file))
    assert choice.files["t1w"].name == "sub-01_acq-fast_T1w.nii.gz"
    assert "lesion" not in choice.files
    for text, says in (('{"t2w": {}}', "t2w"), ("[]", "entities by image"), ("{", "cannot be read")):
        file.write_text(text)
        with pytest.raises(InputError, match=says):
            read_filters(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_filters(tmp_path / "none.json")


def test_two_maps_are_a_question_and_a_map_on_the_t1w_is_the_better_one(lab):
    touch(lab, "derivatives/qmt/sub-01/qmt/sub-01_desc-again_PSRmap.nii.gz")
    assert "more than one PSR map" in choose(lab)[0].ambiguous
    with pytest.raises(InputError, match="more than one PSR map"):
        data.index(lab)
    [choice] = choose(lab, {"psr": {"desc": "again"}})
    assert choice.ambiguous is None
    assert choice.files["psr"].name == "sub-01_desc-again_PSRmap.nii.gz"
    (lab / "derivatives/qmt/sub-01/qmt/sub-01_desc-again_PSRmap.nii.gz").unlink()
    touch(lab, "derivatives/qmt/sub-01/qmt/sub-01_space-T1w_PSRmap.nii.gz")
    [choice] = choose(lab)
    assert choice.files["psr"].name == "sub-01_space-T1w_PSRmap.nii.gz"
    assert choice.in_t1w_space
    assert choice.ambiguous is None


def test_sessions_have_their_own_maps(tmp_path):
    for session in ("01", "02"):
        stem = f"sub-01/ses-{session}/anat/sub-01_ses-{session}"
        touch(tmp_path, f"{stem}_T1w.nii.gz", f"{stem}_FLAIR.nii.gz")
    touch(tmp_path, "derivatives/qmt/sub-01/ses-02/qmt/sub-01_ses-02_PSRmap.nii.gz")
    first, second = choose(tmp_path)
    assert first.missing == ["PSRmap"]
    assert second.files["psr"].name == "sub-01_ses-02_PSRmap.nii.gz"
    assert [s.name for s in data.index(tmp_path)] == ["sub-01_ses-02"]
