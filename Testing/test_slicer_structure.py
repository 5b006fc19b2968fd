"""The rooms of the module's library: which may know which, how long a file is, and what goes from panel to sampler."""

from __future__ import annotations

import ast
import inspect
import sys
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest
import slicer_app

from DEMISTCore.options import SynthesisOptions

slicer_app.install()

LIB = Path(__file__).parents[1] / "DEMISTSlicer" / "DEMISTSlicerLib"
#: Rooms, each knowing only itself and those behind it. "" is the hall: errors, signals, translation, where the core is.
ROOMS = ("Panel", "Logic", "Install", "Run", "Views", "Nodes", "")
FILES = sorted(LIB.rglob("*.py"))


def room(path: Path) -> str:
    return path.stem if path.parent == LIB and path.stem == "Logic" else path.parent.name if path.parent != LIB else ""


def imported(path: Path) -> set[str]:
    """Rooms that a file imports from, at its top or within functions."""
    found = set()
    here = "" if path.parent == LIB else path.parent.name
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        first = (node.module or "").split(".")[0]
        inside = here if node.level == 1 and here else ""
        if inside:
            found.add(inside)
        elif first in ROOMS:
            found.add(first)
        elif not first:
            found |= {name.name if name.name in ROOMS else "" for name in node.names}
        else:
            found.add("")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(LIB).as_posix())
def test_arrows_point_one_way_and_files_are_short(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 400
    if path.name == "__init__.py":
        return
    mine = ROOMS.index(room(path))
    assert not {name for name in imported(path) if ROOMS.index(name) < mine}


def test_options_are_those_of_the_core_and_come_through_the_protocol_unchanged():
    from DEMISTCore.synthesis import synthesize

    signature = inspect.signature(synthesize).parameters
    for field in fields(SynthesisOptions):
        assert field.name in signature
        if field.name != "bundle":
            assert signature[field.name].default == field.default, field.name
    some = SynthesisOptions(
        "tiny", "sample", (3, 4), 5, "ddim", {"all": 1.5}, {"T1w": {}}, "cpu", "fp32", False, "none", False, True
    )
    assert SynthesisOptions.from_request(some.request()) == some
    assert SynthesisOptions.from_request({"do": "synthesize", "id": 1, "steps": None}) == SynthesisOptions()
    assert SynthesisOptions().request() == {}
    assert SynthesisOptions(protocol={}).request() == {"protocol": {}}  # nothing known is not the same as not told
    assert set(some.arguments()) <= set(signature)
    assert "bundle" not in SynthesisOptions().arguments()
    assert SynthesisOptions(guidance=2).arguments()["guidance"] == {"all": 2.0}
    with pytest.raises(FrozenInstanceError):
        some.steps = 4


def test_the_console_may_give_options_one_by_one(tiny_bundle):
    from DEMISTSlicerLib.Run.Arguments import options

    given = {"seeds": 2, "firstSeed": 7, "skullStrip": "none", "biasCorrect": False, "steps": None}
    assert options(given) == SynthesisOptions(seeds=(7, 8), skull_strip="none", bias_correct=False)
    base = SynthesisOptions(steps=9, seeds=(1,), bundle=str(tiny_bundle))
    assert options({}, base) == base
    assert options({"seeds": [4, 2]}, base).seeds == (4, 2)
    assert options({"firstSeed": 5}, SynthesisOptions(bundle=str(tiny_bundle))).seeds == (5, 6)  # two are recommended
    assert options({"firstSeed": 5, "mode": "mean"}).seeds is None
    with pytest.raises(TypeError, match=r"no option 'skull_strip'.*skullStrip"):
        options({"skull_strip": "none"})


#: Arguments and fields that are nodes wherever they occur, whatever else may be left open.
NODES = {
    "t1",
    "t1Node",
    "flair",
    "psr",
    "psrNode",
    "uncertaintyNode",
    "segmentation",
    "segmentationNode",
    "tableNode",
    "volumeNode",
    "referenceNode",
    "lesions",
    "brainMask",
    "scene",
    "composite",
    "chart",
}


def test_nodes_are_annotated_with_classes_that_slicer_has():
    import slicer

    seen = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = node.arg if isinstance(node, ast.arg) else getattr(getattr(node, "target", None), "id", "")
            written = getattr(node, "annotation", None)
            if written is None:
                continue
            words = {part.id for part in ast.walk(written) if isinstance(part, ast.Name)}
            assert named not in NODES or words != {"Any"}, f"{path.name}: {named}"
            seen |= {word for word in words if word.startswith("vtk") and word != "vtk"}
    assert {name for name in seen if not hasattr(slicer, name)} == set()
    assert len(seen) > 10


def test_codes_agree_with_the_workers():
    from DEMISTSlicerLib.Run import Process

    from DEMISTCore.worker import protocol

    assert Process.EXIT_MISSING == protocol.EXIT_MISSING


def test_options_cost_slicers_process_nothing():
    import subprocess

    code = "import sys, DEMISTCore.options; print([n for n in ('numpy', 'torch', 'nibabel') if n in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=LIB.parents[1])
    assert ran.stdout.strip() == "[]"
