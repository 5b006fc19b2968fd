"""What the user chose: kept in the scene in Slicer's own way, with the defaults of the core."""

from __future__ import annotations

import ast
import json
import os
import types
from pathlib import Path

import numpy as np
import pytest
import slicer_app

slicer_app.install()

import slicer  # noqa: E402
from DEMISTSlicerLib.Panel import Presets  # noqa: E402
from DEMISTSlicerLib.Panel.Parameters import DEMISTParameters  # noqa: E402
from slicer_app import parameters as standin  # noqa: E402

from DEMISTCore.regions import RegionSettings  # noqa: E402

SOURCE = Path(__file__).parents[1] / "DEMISTSlicer" / "DEMISTSlicerLib" / "Panel" / "Parameters.py"


@pytest.fixture
def node():
    slicer_app.fresh_scene()
    yield slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
    slicer_app.fresh_scene()


def volume(name: str, kind: str = "vtkMRMLScalarVolumeNode"):
    return slicer.util.addVolumeFromArray(np.zeros((2, 3, 4), np.uint8), np.eye(4), name, kind)


def write(parameters) -> None:
    """One value of every kind."""
    parameters.t1 = volume("T1w")
    parameters.brainMask = volume("brain", "vtkMRMLLabelMapVolumeNode")
    parameters.lesions = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "lesions")
    parameters.lesions = None
    parameters.bundle, parameters.seeds, parameters.guidance = "/a/folder", 7, 1.25
    parameters.livePreview = False


def content(node) -> tuple[dict, dict]:
    """Parameters and node references as the scene file holds them; markers that only say "None was written" apart."""
    roles: list[str] = []
    node.GetNodeReferenceRoles(roles)
    references = {role: node.GetNodeReference(role).GetName() for role in roles if node.GetNodeReference(role)}
    return {name: node.GetParameter(name) for name in node.GetParameterNames()}, references


def test_defaults_are_those_of_the_core(node):
    parameters, settings = DEMISTParameters(node), RegionSettings()
    assert parameters.gapMm == settings.lesion_gap_mm == settings.proximal_mm[0]
    assert parameters.proximalMm == settings.proximal_mm[1]
    assert parameters.distalMm == settings.distal_mm
    assert parameters.depthMm == settings.depth_mm
    assert parameters.t1 is None
    assert parameters.device == "auto"


def test_values_are_read_back_from_the_node(node):
    write(DEMISTParameters(node))
    again = DEMISTParameters(node)
    assert again.t1.GetName() == "T1w"
    assert again.brainMask.GetName() == "brain"
    assert again.lesions is None
    assert (again.bundle, again.seeds, again.guidance, again.livePreview) == ("/a/folder", 7, 1.25, False)


def test_a_deleted_node_is_nothing_chosen(node):
    parameters = DEMISTParameters(node)
    write(parameters)
    slicer.mrmlScene.RemoveNode(parameters.brainMask)
    slicer.mrmlScene.RemoveNode(parameters.t1)
    assert parameters.brainMask is None
    assert parameters.t1 is None


def test_what_makes_no_sense_is_refused(node):
    parameters = DEMISTParameters(node)
    for name, value in (("seeds", 0), ("opacity", 1.5), ("distalMm", -1.0)):
        with pytest.raises(ValueError, match=r"range|Range|within"):
            setattr(parameters, name, value)
    with pytest.raises((TypeError, ValueError)):
        parameters.lesions = parameters.t1 = volume("T1w")


def test_a_union_of_nodes_must_name_none():
    """Slicer's wrapper cannot store None in a union that does not name it; neither does the stand-in let it pass."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    unions = [
        node.annotation
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation).startswith("Union[")
    ]
    assert len(unions) == 2
    assert all(ast.unparse(union).endswith("None]") for union in unions)


@pytest.mark.skipif(not os.environ.get("DEMIST_SLICER_SOURCE"), reason="needs DEMIST_SLICER_SOURCE: Slicer's sources")
def test_the_stand_in_writes_what_slicers_own_wrapper_writes(node):
    code = SOURCE.read_text(encoding="utf-8").replace("from slicer.parameterNodeWrapper import", "from standin import")
    module = types.ModuleType("standin_parameters")
    import sys

    sys.modules["standin"] = standin.parameter_module()
    exec(compile(code, "standin_parameters.py", "exec", dont_inherit=True), module.__dict__)
    sys.modules["standin_parameters"] = module
    module.DEMISTParameters.__module__ = "standin_parameters"
    assert module.DEMISTParameters.__mro__[1] is standin._Base
    assert DEMISTParameters.__mro__[1] is object  # Slicer's
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
    write(DEMISTParameters(node))
    write(module.DEMISTParameters(other))
    assert content(node) == content(other)
    assert DEMISTParameters(other).lesions is None
    assert module.DEMISTParameters(node).brainMask.GetName() == "brain"


# --- presets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("advice", "numbers", "guidance"),
    [
        ({"seeds": 4, "steps": 8, "guidance": {"all": 1.2}}, [(1, 8), (4, 8), (16, 8)], 1.2),
        ({"seeds": 4, "steps": 4, "guidance": {"all": 1.25}, "sampler": "dpmpp_2m"}, [(1, 4), (4, 4), (16, 4)], 1.25),
        ({"seeds": 1, "steps": 50, "guidance": {}}, [(1, 25), (1, 50), (4, 50)], 1.0),
        ({"seeds": 20, "steps": 600}, [(1, 600), (20, 600), (64, 600)], 1.0),
        ({"seeds": 1, "steps": 1}, [(1, 1), (1, 1), (4, 1)], 1.0),
    ],
)
def test_presets_follow_the_bundles_recommendation(advice, numbers, guidance):
    choices = Presets.presets(advice)
    assert [(preset.seeds, preset.steps) for preset in choices] == numbers
    assert {preset.guidance for preset in choices} == {guidance}
    assert Presets.matching(choices, *numbers[1], "", guidance) == "balanced"


def test_the_mean_comes_first_where_there_is_one():
    advice = {"mode": "mean", "seeds": 4, "steps": 3, "guidance": {"all": 1.2}}
    choices = Presets.presets(advice)
    assert [preset.id for preset in choices] == ["mean", "fast", "balanced", "best"]
    assert choices[0].text == "Mean (lowest error)"
    assert all("Sample" in preset.text for preset in choices[1:])
    assert Presets.recommended(advice) == "mean"
    # The mean has none of the numbers: whatever they are, it is the mean.
    assert Presets.matching(choices, 7, 9, "ddpm", 2.0, "mean") == "mean"
    assert Presets.matching(choices, 4, 3, "", 1.2, "sample") == "balanced"
    assert Presets.matching(choices, 7, 3, "", 1.2, "sample") == Presets.CUSTOM
    # A model with a mean that recommends samples offers both; one without offers none.
    both = Presets.presets({"mode": "sample", "seeds": 4, "steps": 3}, mean=True)
    assert [preset.id for preset in both] == [preset.id for preset in choices]
    assert Presets.recommended({"mode": "sample"}) == Presets.recommended({}) == "balanced"
    none = Presets.presets({"seeds": 4, "steps": 3})
    assert [preset.text for preset in none] == ["Fast", "Balanced", "Best"]
    assert Presets.matching(none, 4, 3, "", 1.0, "mean") == "balanced"


@pytest.mark.parametrize(
    ("given", "mode"),
    [({}, "mean"), ({"seeds": [0]}, "sample"), ({"steps": 3}, "sample"), ({"sampler": "ddim"}, "sample")],
)
def test_the_usual_mode_is_that_of_the_core(tiny_mean_bundle, given, mode):
    from DEMISTSlicerLib.Run.Bundles import describeBundle, usualMode

    from DEMISTCore.bundle import load_bundle
    from DEMISTCore.synthesis import plan_sampling

    told = describeBundle(str(tiny_mean_bundle))
    assert told["mean"]
    assert usualMode(told["sampling"], **given) == mode
    core = plan_sampling(
        load_bundle(tiny_mean_bundle), **({"seeds": None, "steps": None, "sampler": None} | given), guidance=None
    )
    assert core.mode == mode


def test_time_of_the_mean_is_learnt_by_itself():
    from DEMISTSlicerLib.Run.Timings import GUESSES, Timings

    timings = Timings()
    timings._known.clear()
    before = timings.seconds("cpu", 4, 10, prepared=True, warm=True)
    assert timings.seconds("cpu", 4, 10, mode="mean", prepared=True, warm=True) == GUESSES["cpu"]["mean"]
    settings = {"mode": "mean", "seeds": [], "steps": 0}
    timings.learn(
        "cpu",
        {
            "settings": settings,
            "timings_s": {"mean": 2.0, "to native grid": 0.5, "registration": 3.0, "encode": 1.0, "load": 4.0},
        },
    )
    assert timings.seconds("cpu", 4, 10, mode="mean", prepared=True, warm=True) == 2.5
    assert timings.seconds("cpu", 4, 10, mode="mean") == 2.5 + 3.0 + 1.0 + 4.0
    assert timings.seconds("cpu", 4, 10, prepared=True, warm=True) == before
    # Samples of such a model have its mean beside them.
    settings = {"mode": "sample", "seeds": [0, 1], "steps": 5}
    timings.learn("cpu", {"settings": settings, "timings_s": {"mean": 2.0, "sample": 20.0, "decode": 4.0}})
    assert timings.seconds("cpu", 2, 5, prepared=True, warm=True) == pytest.approx(20 + 4 + 2)
    assert timings.seconds("cpu", 2, 5, mode="mean", prepared=True, warm=True) == 2.5


@pytest.mark.parametrize(
    ("provenance", "how"),
    [
        ({"settings": {"mode": "mean", "seeds": []}}, "mean"),
        ({"settings": {"mode": "sample", "seeds": [3]}}, "1 sample"),
        ({"settings": {"seeds": [0, 1, 2, 3]}}, "4 samples"),
        ({}, ""),
        ({"settings": None}, ""),
    ],
)
def test_how_a_map_was_made(provenance, how):
    from DEMISTSlicerLib.Run.Result import Result

    assert Result("synthesis", provenance=provenance).how == how


def test_one_number_stands_for_guidance():
    assert Presets.recommendedGuidance({"guidance": {}}) == 1.0
    assert Presets.recommendedGuidance(None) == 1.0
    assert Presets.recommendedGuidance({"guidance": {"semantic": 1.5, "spatial": 1.25}}) == 1.5
    assert Presets.recommendedGuidance({"guidance": {"all": 1.126}}) == 1.13  # as the panel shows it


def test_numbers_tell_the_preset():
    choices = Presets.presets({"seeds": 4, "steps": 8})
    assert Presets.matching(choices, 4, 8, "", 1.0) == "balanced"
    assert Presets.matching(choices, 4, 8, "ddpm", 1.0) == Presets.CUSTOM
    assert Presets.matching(choices, 4, 8, "", 1.5) == Presets.CUSTOM


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (3, "a few seconds"), (42, "about 40 s"), (200, "about 3 min"), (7300, "about 2 h")],
)
def test_durations_are_said_as_people_say_them(seconds, text):
    assert Presets.duration(seconds) == text


# --- inputs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sub-01_T1w", "t1"),
        ("MPRAGE", "t1"),
        ("t1_mprage_sag_p2_iso", "t1"),
        ("AX 3D T1 BRAVO", "t1"),
        ("sub-01_FLAIR", "flair"),
        ("t2_tirm_tra_dark-fluid", "flair"),
        ("3D SAG T2 SPACE FLAIR", "flair"),
        ("T1 FLAIR", "flair"),
        ("T2w", None),
        ("psr_t1", None),
        ("FLAIR lesion mask", None),
        ("ADC", None),
    ],
)
def test_series_are_told_by_name(name, kind):
    from DEMISTSlicerLib.Nodes.Inputs import scores

    t1, flair = scores(name)
    assert (t1 > 0, flair > 0) == (kind == "t1", kind == "flair")


def test_times_tell_where_names_do_not():
    from DEMISTSlicerLib.Nodes.Inputs import scores

    assert scores("series 4", inversion=900, echo=3) == (0.5, 0.0)
    assert scores("series 7", inversion=2500, echo=110) == (0.0, 0.5)


def test_a_t1w_without_contrast_agent_is_preferred_and_label_maps_are_not_images(node):
    from DEMISTSlicerLib.Nodes.Inputs import guess, hint

    post, plain = volume("T1 post Gd"), volume("T1 MPRAGE")
    flair = volume("FLAIR")
    volume("FLAIR2", "vtkMRMLLabelMapVolumeNode")
    assert guess(slicer.mrmlScene) == (plain, flair)
    assert "contrast agent" in hint(post, flair)
    assert hint(plain, flair) == ""


def test_the_protocol_comes_from_sidecars_or_dicom(node, tmp_path, monkeypatch):
    from DEMISTSlicerLib.Run import Sidecars

    from DEMISTCore.acquisition import KEYS, protocol_vector

    assert set(Sidecars._KEYS) == {key.name for key in KEYS}
    t1, flair = volume("T1w"), volume("FLAIR")
    assert Sidecars.protocolOf(t1, flair) == {}
    for one, name in ((t1, "a.b_T1w.nii.gz"), (flair, "FLAIR.nrrd")):
        storage = one.CreateDefaultStorageNode()
        slicer.mrmlScene.AddNode(storage)
        storage.SetFileName(str(tmp_path / name))
        one.SetAndObserveStorageNodeID(storage.GetID())
    assert Sidecars.protocolOf(t1, flair) == {}
    told = {
        "RepetitionTime": 2.3,
        "EchoTime": [0.003],
        "FlipAngle": "nine",
        "PatientName": "A",
        "SliceThickness": None,
        "InversionTime": float("nan"),
        "MagneticFieldStrength": 10**400,
    }
    (tmp_path / "a.b_T1w.json").write_text(json.dumps(told))
    wanted = {"RepetitionTime": 2.3, "EchoTime": [0.003], "FlipAngle": "nine"}
    assert Sidecars.protocolOf(t1, flair) == {"T1w": wanted}
    for broken in ("[1, 2]", "{", "\xff", " " * (1 << 21), "[" * 100_000):
        (tmp_path / "FLAIR.json").write_text(broken, encoding="latin-1")
        assert Sidecars.protocolOf(t1, flair) == {"T1w": wanted}
    (tmp_path / "FLAIR.json").unlink()
    # From DICOM: milliseconds, and empty texts for what the series does not tell.
    tags = {"0018,0080": "9000", "0018,0082": "2500.0", "0018,0087": "3", "0018,1314": "n/a"}
    series = {"1.2": tags}
    database = types.SimpleNamespace(isOpen=True, instanceValue=lambda uid, tag: series.get(uid, {}).get(tag, ""))
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    flair.SetAttribute("DICOM.instanceUIDs", "1.2 1.3")
    protocol = Sidecars.protocolOf(t1, flair)
    assert protocol["FLAIR"] == {"RepetitionTime": 9.0, "InversionTime": 2.5, "MagneticFieldStrength": 3.0}
    vector, notes = protocol_vector(protocol["T1w"], protocol["FLAIR"])
    assert len(notes) == 1  # of the flip angle, which is no number
    assert vector.any()


def test_dicom_tags_are_asked_for(node, monkeypatch):
    from DEMISTSlicerLib.Nodes import Inputs
    from DEMISTSlicerLib.Nodes.Inputs import describe, guess

    monkeypatch.setattr(Inputs, "_KNOWN", {})  # another database, and instances of the same names
    tags = {("1.2", "0008,103E"): "MPRAGE", ("3.4", "0008,103E"): "FLAIR 3D", ("1.2", "0018,0082"): "900"}
    database = types.SimpleNamespace(isOpen=True, instanceValue=lambda uid, tag: tags.get((uid, tag), ""))
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    first, second = volume("301: series"), volume("302: series")
    first.SetAttribute("DICOM.instanceUIDs", "1.2 1.3")
    second.SetAttribute("DICOM.instanceUIDs", "3.4")
    assert describe(first) == ("301: series MPRAGE", 900.0, None)
    assert guess(slicer.mrmlScene) == (first, second)
