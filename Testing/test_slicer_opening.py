"""What keeps the main thread free as the module opens and images come in: work in pieces, ahead of time, or not at all.

Counted, not timed: a machine with other work has gaps of its own. The times are those of benchmarks/slicer_*.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import slicer_app
import slicer_runs

slicer_app.install()

from DEMISTSlicerLib.Install import Place  # noqa: E402
from DEMISTSlicerLib.Install.Installer import Installer  # noqa: E402
from DEMISTSlicerLib.Nodes import Patient, Segmentation, Voxels  # noqa: E402
from DEMISTSlicerLib.Run import Bundles, Exchange  # noqa: E402


def drain(generator):
    """What a generator returns, and how often it yielded."""
    count = 0
    while True:
        try:
            next(generator)
        except StopIteration as stopped:
            return stopped.value, count
        count += 1


def test_models_are_read_before_the_panel_opens_and_not_again_by_it(monkeypatch):
    monkeypatch.setattr(Bundles, "_KNOWN", {})
    read, described = [], Bundles._described
    monkeypatch.setattr(Bundles, "_described", lambda folder: read.append(folder) or described(folder))
    slicer_app.fresh_scene()
    module = slicer_app.open_module()
    module.code.readAhead()
    assert not read  # in the event loop, not now
    assert slicer_app.wait_until(lambda: not module.code._ahead)
    assert read
    read.clear()
    try:
        widget = module.widgetRepresentation().self()
        assert widget.bundles.found
        assert not read
    finally:
        slicer_app.close_module()


def test_the_models_found_are_those_that_can_be_named(tiny_bundle, tmp_path, monkeypatch):
    """A damaged one and one of another kind are left out, as DEMISTCore.bundle leaves them out."""
    from DEMISTCore.bundle import list_bundles

    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "bundle.json").write_text("{")
    monkeypatch.setenv("DEMIST_BUNDLES", os.pathsep.join([str(tmp_path), str(tiny_bundle.parent)]))
    found, pieces = drain(Bundles.readAhead())
    assert found is None
    assert pieces > 5
    names = [Bundles.describeBundle(name)["path"] for name in list_bundles()]
    assert str(tiny_bundle) in names
    assert {told["path"] for told in Bundles.bundles()} == set(names)
    assert Bundles.bundles()[0]["name"] == "demist-sim"


@pytest.mark.parametrize(
    ("lines", "has"),
    [
        (["numpy>=1", "PyYAML  # its module has another name"], True),
        (["numpy>=99"], False),
        (["no-such-thing", "numpy"], False),
        (["no-such-thing; python_version < '3'", "numpy"], True),
    ],
)
def test_whether_slicers_python_has_all(tmp_path, lines, has):
    file = tmp_path / "requirements.txt"
    file.write_text("\n".join(lines))
    assert Installer(file=file).hasOwn() is has


def test_without_torch_no_version_is_compared(tmp_path, monkeypatch):
    """The usual Slicer: that it lacks torch is told by a look, as the panel opens and as the user is asked."""
    file = tmp_path / "requirements.txt"
    file.write_text("no-such-thing>=2  # a comment\nnumpy>=1\n")
    monkeypatch.setattr("DEMISTSlicerLib.Install.Installer.requirements", lambda *_: pytest.fail("compared"))
    Place.choose(tmp_path)
    try:
        asked = []
        installer = Installer(confirm=lambda _text, names: asked.append(names), file=file)
        assert not installer.hasOwn()
        assert not installer.ensure(lambda: pytest.fail("called"))
        assert asked == [["no-such-thing>=2", "numpy>=1"]]
    finally:
        Place.choose(None)


def test_the_patient_comes_node_by_node():
    scene = slicer_app.fresh_scene()
    rng = np.random.default_rng(3)
    head = rng.normal(400, 80, (40, 44, 36)).astype(np.float32)
    place = np.diag([1.0, 1.0, 1.0, 1.0])
    lesions = np.zeros(head.shape, np.uint8)
    lesions[10:14, 10:14, 10:14] = 1
    steps = Patient.patientNodes(
        {"t1w": (head, place), "flair": (head, place), "psr": (head / 4000, place), "lesions": (lesions, place)}
    )
    counts = []
    while True:
        try:
            next(steps)
        except StopIteration as stopped:
            nodes = stopped.value
            break
        counts.append(scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode"))
    assert counts == [1, 2, 3, 3, 3]  # and the lesions
    np.testing.assert_array_equal(Voxels.arrayFromNode(nodes["t1w"]), np.round(head))
    # The window is about what Slicer works out from all voxels.
    display = nodes["t1w"].GetDisplayNode()
    low, high = display.GetWindowLevelMin(), display.GetWindowLevelMax()
    display.AutoWindowLevelOn()
    slicer_app.process_events()
    assert abs(low - display.GetWindowLevelMin()) < 60
    assert abs(high - display.GetWindowLevelMax()) < 60
    assert 100 < low < 300 < 500 < high < 700


def test_regions_come_in_pieces_and_a_node_is_filled_in_one_of_them():
    slicer_app.fresh_scene()
    head = slicer_runs.volume(np.zeros((20, 22, 18), np.float32), np.eye(4), "T1w")
    masks = {}
    for number, key in enumerate(("lesion", "nawm_proximal", "nawm_distal")):
        masks[key] = np.zeros((20, 22, 18), np.uint8)
        masks[key][3 + 5 * number : 7 + 5 * number, 4:9, 5:8] = 1
    node = Segmentation.regionsToSegmentation(masks, head)
    before = Segmentation.editStamp(node)
    pieces = Segmentation.regionPieces({key: np.roll(mask, 2, 2) for key, mask in masks.items()}, head, node)
    stamps = [before]
    while (stamp := next(pieces, None)) is not None:
        assert stamp
        stamps.append(Segmentation.editStamp(node))
    assert stamps[:4] == [before] * 4  # a piece for each region, and the node as it was: here it may be stopped
    assert stamps[4] != before
    for index, (key, name) in enumerate(Segmentation.regionSegments(node).items()):
        moved = Segmentation.segmentationToLabelmap(node, head, [name])
        np.testing.assert_array_equal(moved, np.roll(masks[key], 2, 2), err_msg=str(index))


def test_scans_become_whole_numbers_slab_by_slab(tmp_path, monkeypatch):
    monkeypatch.setattr(Exchange, "SLAB", 100)
    array = np.asfortranarray(np.random.default_rng(1).normal(0, 900, (7, 5, 6)).astype(np.float32))
    array[0, 0, 0], array[1, 0, 0] = 1e6, -1e6  # beyond what scanners write
    reference, _count = drain(Exchange.writeArray(array, np.eye(4), tmp_path, "t1w"))
    (back, _place), slabs = drain(Exchange.readReference(reference, Patient.asScanned))
    assert slabs == 6
    assert back.dtype == np.int16
    np.testing.assert_array_equal(back, Patient.asScanned(array))
    assert Patient.asScanned(back) is back
    assert (back[0, 0, 0], back[1, 0, 0]) == (32767, -32768)


def test_the_benchmarks_tell_what_blocked():
    """The main thread sleeps within the module's own code, in a process of its own; the watching thread sees where."""
    root = Path(__file__).resolve().parents[1]
    code = (
        "import sys; sys.path[:0] = ['benchmarks', 'Testing']\n"
        "import slicer_app; slicer_app.install()\n"
        "from slicer_heart import Heart\n"
        "import time, DEMISTSlicerLib.Run.Steps as steps\n"
        "from slicer_responsiveness import turn\n"
        "def work():\n    time.sleep(0.4)\n    yield\n"
        "heart = Heart(); turn(0.2); heart.take(); over = []\n"
        "running = steps.Steps(work(), over.append, over.append)\n"
        "turn(until=lambda: over); turn(0.05); gap = heart.take()\n"
        "print(gap.seconds, gap.computed, gap.owners().get('module', [0])[0], gap.words())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seconds, computed, module, *words = done.stdout.split()
    assert float(seconds) >= 0.4
    assert float(computed) < 0.2
    assert float(module) > 0.3
    assert "Steps.py" in " ".join(words)
