"""What sidecars tell, and what is not believed of them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from DEMISTCore.acquisition import KEYS, PROTOCOL_WIDTH, protocol_vector, read_protocol, sidecar_path

NAMES = [key.name for key in KEYS]


def pairs(vector: np.ndarray) -> np.ndarray:
    """(image, key, value and flag)."""
    return vector.reshape(2, len(KEYS), 2)


def test_a_value_is_counted_in_doublings_of_the_usual_and_flagged():
    vector, notes = protocol_vector({"RepetitionTime": 4.0, "MagneticFieldStrength": 1.1}, {"EchoTime": 0.01})
    assert vector.shape == (PROTOCOL_WIDTH,)
    assert vector.dtype == np.float32
    assert notes == []
    told = pairs(vector)
    assert told[0, NAMES.index("RepetitionTime")].tolist() == [1.0, 1.0]  # twice the 2 s of the table
    assert told[0, NAMES.index("MagneticFieldStrength")].tolist() == [-1.0, 1.0]  # half of 2.2 T
    assert told[1, NAMES.index("EchoTime")].tolist() == [0.0, 1.0]
    assert told[..., 1].sum() == 3
    assert np.count_nonzero(told[told[..., 1] == 0]) == 0


def test_nothing_known_is_all_zero():
    vector, notes = protocol_vector({}, {})
    assert not vector.any()
    assert notes == []


@pytest.mark.parametrize("value", [2300.0, -1.0, math.nan, math.inf, "2.3", True, [2.3, 2.4], {"a": 1}])
def test_what_cannot_be_is_ignored_with_a_line(value):
    vector, notes = protocol_vector({"RepetitionTime": value}, {"RepetitionTime": 9.0})
    assert pairs(vector)[0].any() == False  # noqa: E712
    assert pairs(vector)[1, 0, 1] == 1
    (note,) = notes
    assert "T1w" in note
    assert "RepetitionTime" in note
    assert "ignored" in note


def test_a_list_of_one_is_its_value_and_zero_is_none():
    vector, notes = protocol_vector({"FlipAngle": [9], "InversionTime": 0}, {})
    assert pairs(vector)[0, NAMES.index("FlipAngle"), 1] == 1
    assert pairs(vector)[0, NAMES.index("InversionTime"), 1] == 0
    assert notes == []


def test_one_session_has_one_field():
    vector, notes = protocol_vector({"MagneticFieldStrength": 3}, {"MagneticFieldStrength": 1.5})
    assert not vector.any()
    assert "contradict" in notes[0]
    assert "3 T" in notes[0]
    assert "1.5 T" in notes[0]
    same, notes = protocol_vector({"MagneticFieldStrength": 3}, {"MagneticFieldStrength": 2.89})
    assert np.count_nonzero(pairs(same)[..., 1]) == 2
    assert notes == []


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.nrrd", "a.mha", "a.NII.GZ"])
def test_the_sidecar_has_the_images_name(tmp_path, name):
    assert sidecar_path(tmp_path / name) == tmp_path / "a.json"
    assert sidecar_path(tmp_path / "sub-1.2_T1w.nii.gz").name == "sub-1.2_T1w.json"


def test_read_beside_the_images(tmp_path):
    (tmp_path / "t1w.json").write_text(json.dumps({"RepetitionTime": 2.0}))
    (tmp_path / "flair.json").write_text("no json")
    vector, notes = read_protocol(tmp_path / "t1w.nii.gz", tmp_path / "flair.nii.gz")
    assert pairs(vector)[0, 0].tolist() == [0.0, 1.0]
    assert vector.sum() == 1
    assert len(notes) == 1
    assert "flair.json" in notes[0]
    assert read_protocol(None, None)[0].sum() == 0
    assert read_protocol(tmp_path / "none.nii", None)[1] == []
    (tmp_path / "t1w.json").write_text(json.dumps([1, 2]))
    assert "not a BIDS sidecar" in read_protocol(tmp_path / "t1w.nii.gz", None)[1][0]
    (tmp_path / "t1w.json").write_text("[" * 100000)
    assert "not a readable" in read_protocol(tmp_path / "t1w.nii.gz", None)[1][0]
