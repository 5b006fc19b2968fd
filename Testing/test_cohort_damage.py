"""Damaged subjects among whole ones: each is told of in one sentence, and all others are done."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cohort_data import QUICK, add_session, head, rows, write_bids

ROOT = Path(__file__).parents[1]
WHOLE = ("sub-whole1", "sub-whole2")


def _cut(anat: Path, name: str) -> None:
    path = anat / f"{name}_T1w.nii.gz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _two_dimensional(anat: Path, name: str) -> None:
    _put(anat / f"{name}_T1w.nii.gz", head(0)["T1w"][:, :, 12])


def _without_flair(anat: Path, name: str) -> None:
    (anat / f"{name}_FLAIR.nii.gz").unlink()


def _not_a_number(anat: Path, name: str) -> None:
    _put(anat / f"{name}_T1w.nii.gz", np.full_like(head(0)["T1w"], np.nan))


def _link_in_a_circle(anat: Path, name: str) -> None:
    (anat / f"{name}_FLAIR.nii.gz").unlink()
    (anat / f"{name}_FLAIR.nii.gz").symlink_to(f"{name}_FLAIR.nii.gz")


def _without_permission(anat: Path, name: str) -> None:
    (anat / f"{name}_T1w.nii.gz").chmod(0)


def _empty(anat: Path, name: str) -> None:
    (anat / f"{name}_FLAIR.nii.gz").write_bytes(b"")


def _twice(anat: Path, name: str) -> None:
    """The first session under another name, as a double export makes it."""
    shutil.copytree(anat.parent, anat.parents[1] / "ses-2")
    for path in (anat.parents[1] / "ses-2" / "anat").iterdir():
        path.rename(path.with_name(path.name.replace("ses-1", "ses-2")))


def _terabytes(anat: Path, name: str) -> None:
    """A header that promises 20,000 voxels a side, and a few bytes behind it."""
    path = anat / f"{name}_T1w.nii"
    (anat / f"{name}_T1w.nii.gz").unlink()
    header = bytearray(nib.Nifti1Image(np.zeros((2, 2, 2), np.float32), np.eye(4)).header.binaryblock)
    header[40:56] = struct.pack("<8h", 3, 20000, 20000, 20000, 1, 1, 1, 1)
    path.write_bytes(bytes(header) + b"\0" * 400)


def _no_brain(anat: Path, name: str) -> None:
    for what in ("T1w", "FLAIR"):
        _put(anat / f"{name}_{what}.nii.gz", np.full_like(head(0)["T1w"], 7.0))


def _unreadable_json(anat: Path, name: str) -> None:
    (anat / f"{name}_T1w.json").write_text('{"RepetitionTime": 2.3,')


def _t2w_as_flair(anat: Path, name: str) -> None:
    """Fluid bright, tissue dark; and the converter's sidecar says what it was."""
    images = head(3)
    _put(anat / f"{name}_FLAIR.nii.gz", 1000 - images["T1w"] * (images["T1w"] > 150))
    (anat / f"{name}_FLAIR.json").write_text(json.dumps({"SeriesDescription": "t2_tse_tra"}))


def _put(path: Path, array: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(array.astype(np.float32), np.diag([6.0, 6.0, 6.0, 1.0])), path)


#: Damage, the state that it ends in, and words of its sentence.
DAMAGE: dict[str, tuple[Callable[[Path, str], None], str, str]] = {
    "truncated": (_cut, "failed", "truncated|incomplete|cut|damaged"),
    "wrongshape": (_two_dimensional, "failed", "2-D|dimension|3-D"),
    "flairmissing": (_without_flair, "failed", "has no FLAIR"),
    "nan": (_not_a_number, "failed", "finite"),
    "linkloop": (_link_in_a_circle, "failed", "symbolic links|link"),
    "nopermission": (_without_permission, "failed", "ermission"),
    "zerobytes": (_empty, "failed", "empty"),
    "duplicate": (_twice, "failed", "is the same file as that of"),
    "terabytes": (_terabytes, "failed", "memory|too large|shorter|GiB|TiB|incomplete|truncated"),
    "nobrain": (_no_brain, "failed", "constant|brain"),
    "badjson": (_unreadable_json, "done", "is not a readable JSON sidecar"),
    "t2w": (_t2w_as_flair, "done", "T2w"),
}


def _as_a_plain_user() -> None:
    """Root reads what nobody may: give that right away before the program starts (Linux, prctl PR_CAPBSET_DROP)."""
    library = ctypes.CDLL(None, use_errno=True)
    for right in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        library.prctl(24, right, 0, 0, 0)


@pytest.fixture(scope="module")
def told(tiny_bundle, tmp_path_factory) -> dict[str, dict[str, str]]:
    """status.tsv of one run over all of them, and its exit code and summary."""
    root = write_bids(tmp_path_factory.mktemp("damaged") / "bids", WHOLE)
    for number, (name, (damage, _, _)) in enumerate(DAMAGE.items(), 10):
        session = f"sub-{name}/ses-1" if name == "duplicate" else f"sub-{name}"
        damage(add_session(root, session, number), session.replace("/", "_"))
    out = root.parent / "out"
    command = [
        sys.executable,
        "-m",
        "DEMISTCore.cohort",
        str(root),
        str(out),
        "participant",
        "--bundle",
        str(tiny_bundle),
        "--derivatives",
        str(root / "derivatives" / "manual"),
        "--no-regions",
        *QUICK,
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=_as_a_plain_user if sys.platform == "linux" and os.geteuid() == 0 else None,
    )
    return {**rows(out), "exit": {"code": str(done.returncode), "said": done.stderr}}


def test_the_run_ends_with_a_summary_and_exit_code_1(told):
    assert told["exit"]["code"] == "1", told["exit"]["said"]
    said = told["exit"]["said"]
    assert f"{len(WHOLE) + len(DAMAGE) + 1} sessions: 5 done, 10 failed." in said
    assert "Traceback" not in said


@pytest.mark.parametrize("name", DAMAGE)
def test_every_damage_has_its_sentence(told, name):
    _, state, words = DAMAGE[name]
    row = told[f"sub-{name}_ses-2" if name == "duplicate" else f"sub-{name}"]
    assert row["state"] == state, row
    assert any(word in row["message"] for word in words.split("|")), row["message"]
    assert "unexpectedly" not in row["message"]
    assert "Traceback" not in row["message"]


def test_all_others_are_done(told):
    for name in (*WHOLE, "sub-duplicate_ses-1"):
        assert told[name]["state"] == "done", told[name]
        assert told[name]["message"] in ("n/a", ""), told[name]
