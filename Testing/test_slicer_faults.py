"""What may go wrong during a run in Slicer: a clear message each time, the scene as it was, no process left over."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import slicer_app

slicer_app.install()

import slicer  # noqa: E402
from DEMISTSlicerLib.Run import Process  # noqa: E402
from DEMISTSlicerLib.RunError import RunError  # noqa: E402
from slicer_runs import LONG, QUICK, Recorder, is_gone, linear_transform, load, logic_with, names, warp  # noqa: E402

#: A run that does not end by itself within any test.
ENDLESS = {**QUICK, "seeds": 200}


@pytest.fixture(scope="module")
def logic(tiny_bundle):
    """One logic for all tests here; after each, whatever happened, it must work again."""
    with logic_with(tiny_bundle.parent) as logic:
        yield logic


@pytest.fixture(autouse=True)
def scene():
    return slicer_app.fresh_scene()


@pytest.fixture
def images(scene, head):
    """T1w, FLAIR and brain mask of the small head as volume nodes."""
    return load(head.t1w, "Patient T1w"), load(head.flair, "Patient FLAIR"), load(head.mask, "Mask")


@pytest.fixture
def recorder(logic):
    recorder = Recorder(logic)
    yield recorder
    recorder.close()


def begin(logic, images, **options):
    t1, flair, mask = images
    return logic.synthesize(t1, flair, brainMask=mask, wait=False, **{**ENDLESS, **options})


def until_stage(recorder: Recorder, pattern: str) -> None:
    assert slicer_app.wait_until(lambda: any(re.search(pattern, s) for s in recorder.stages) or recorder.ends, LONG)
    assert not recorder.ends, recorder.ends


def assert_nothing_left(logic, before: list[str]) -> None:
    """No node, no observer, no file of a run."""
    assert not logic.isRunning
    assert names() == before
    scene = slicer.mrmlScene
    job = logic._runs.job
    assert job is None or job._observed == []
    assert job is None or not any(handle in signal._slots for signal, handle in job._handles)
    if logic._worker.folder is not None:
        assert not [path for path in logic._worker.folder.iterdir() if path.is_dir() and any(path.iterdir())]
    assert scene is slicer.mrmlScene


def assert_works(logic, images) -> None:
    """Apply once more, and there is a map."""
    t1, flair, mask = images
    assert logic.synthesize(t1, flair, brainMask=mask, **{**QUICK, "seeds": 1}).psr.GetScene() is not None


def test_a_worker_killed_in_mid_run_is_told_and_started_again(logic, recorder, images):
    before = names()
    begin(logic, images)
    until_stage(recorder, "seed 1")
    pid = logic._worker.process.pid
    os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    end = recorder.wait()
    assert end[:2] == ("failed", "internal")
    assert "ended in the middle of the run" in end[2]
    assert "Apply" in end[2]
    assert len(recorder.ends) == 1
    assert_nothing_left(logic, before)
    assert_works(logic, images)
    assert logic._worker.process.pid != pid


@pytest.mark.parametrize(
    "stage", ["Sending images", "Loading the model", "Encoding|Finding the brain", "seed 1", "Loading results"]
)
def test_cancel_takes_effect_at_every_stage(logic, recorder, images, stage):
    before = names()
    # Every stage but the endless one is passed through quickly: the signal itself cancels, before the next can begin.
    hit = []

    def cancel(words, _done, _left):
        if re.search(stage, words) and not hit:
            hit.append(time.perf_counter())
            logic.cancel()

    handle = logic.progressChanged.connect(cancel)
    try:
        begin(logic, images, **({"seeds": 1} if stage == "Loading results" else {}))
        end = recorder.wait()
        seconds = time.perf_counter() - hit[0]
    finally:
        logic.progressChanged.disconnect(handle)
    assert end == ("cancelled",)
    assert len(recorder.ends) == 1
    # Two seconds on a machine with nothing else to do: the worker is killed after 1.5 s if it has not stopped.
    assert seconds < 20
    assert_nothing_left(logic, before)
    logic.cancel()  # of nothing: no harm
    assert len(recorder.ends) == 1


def test_cancel_does_not_wait_for_a_worker_that_does_not_listen(logic, recorder, images):
    assert_works(logic, images)
    recorder.ends.clear()
    before = names()
    begin(logic, images)
    until_stage(recorder, "seed 1")
    pid = logic._worker.process.pid
    if not hasattr(signal, "SIGSTOP"):
        pytest.skip("this system cannot stop a process")
    os.kill(pid, signal.SIGSTOP)  # hears nothing, says nothing
    start = time.perf_counter()
    logic.cancel()
    assert recorder.wait() == ("cancelled",)
    assert 1.0 < time.perf_counter() - start < 20
    assert slicer_app.wait_until(lambda: is_gone(pid), LONG)
    assert_nothing_left(logic, before)
    assert_works(logic, images)


def test_two_cancels_and_a_blocking_call_that_is_cancelled(logic, recorder, images):
    t1, flair, mask = images
    handle = logic.progressChanged.connect(
        lambda words, *_: [logic.cancel(), logic.cancel()] if "seed 1" in words else None
    )
    try:
        with pytest.raises(RunError, match="cancelled") as caught:
            logic.synthesize(t1, flair, brainMask=mask, **ENDLESS)
    finally:
        logic.progressChanged.disconnect(handle)
    assert caught.value.kind == "cancelled"
    assert recorder.ends == [("cancelled",)]


def test_a_second_apply_while_running_is_refused_and_disturbs_nothing(logic, recorder, images):
    t1, flair, mask = images
    job = begin(logic, images)
    until_stage(recorder, "seed 1")
    for call in (
        lambda: logic.synthesize(t1, flair, wait=False),
        lambda: logic.suggestLesions(t1, flair),
        lambda: logic.computeStatistics(t1),
        lambda: logic.generateT1w(),
        lambda: logic.simulate(),
    ):
        with pytest.raises(RunError, match="in progress"):
            call()
    assert logic.currentJob is job
    assert not recorder.ends
    logic.cancel()
    assert recorder.wait() == ("cancelled",)


def test_a_missing_model_is_named(logic, recorder, images):
    before = names()
    t1, flair, mask = images
    with pytest.raises(RunError, match="no-such-model") as caught:
        logic.synthesize(t1, flair, brainMask=mask, **{**QUICK, "bundle": "no-such-model"})
    assert caught.value.kind == "bundle"
    assert "give a name, a folder" in str(caught.value)
    assert recorder.ends == [("failed", "bundle", str(caught.value))]
    assert_nothing_left(logic, before)


def test_a_damaged_model_is_named(logic, images, tiny_bundle, tmp_path):
    import shutil

    shutil.copytree(tiny_bundle.parent, tmp_path / "models")
    weights = tmp_path / "models" / "tiny" / "streams.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    t1, flair, mask = images
    with pytest.raises(RunError, match="truncated") as caught:
        logic.synthesize(t1, flair, brainMask=mask, **{**QUICK, "bundle": str(weights.parent)})
    assert caught.value.kind == "bundle"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("file", ["t1w.npy", "psr.npy"])  # written by Slicer, and by the worker
def test_a_full_disk_is_said(logic, recorder, images, file):
    before = names()
    assert_works(logic, images)
    slicer_app.fresh_scene()
    t1, flair, mask = images
    for node in images:
        slicer.mrmlScene.AddNode(node)
    before = names()
    recorder.ends.clear()
    number = next(logic._worker.numbers) + 1
    folder = logic._worker.folder / f"job-{number}"
    folder.mkdir()
    (folder / file).symlink_to("/dev/full")  # every write there fails for want of space
    with pytest.raises(RunError, match="no space left"):
        logic.synthesize(t1, flair, brainMask=mask, **QUICK)
    assert [end[:2] for end in recorder.ends] == [("failed", "input")]
    assert_nothing_left(logic, before)
    assert_works(logic, images)


def test_a_temporary_folder_that_cannot_be_made_is_said(tiny_bundle, images, monkeypatch, tmp_path):
    t1, flair, mask = images
    with logic_with(tiny_bundle.parent) as other:
        monkeypatch.setattr(slicer.app, "temporaryPath", str(tmp_path / "none"), raising=False)
        with pytest.raises(RunError, match="temporary folder cannot be written"):
            other.synthesize(t1, flair, brainMask=mask, **QUICK)
        assert not other.isRunning


@pytest.mark.parametrize("which", ["T1w", "FLAIR", "brain mask"])
def test_an_input_deleted_during_the_run_stops_it(logic, recorder, images, which):
    begin(logic, images)
    until_stage(recorder, "seed 1")
    node = images[["T1w", "FLAIR", "brain mask"].index(which)]
    called = node.GetName()
    slicer.mrmlScene.RemoveNode(node)
    before = names()
    end = recorder.wait()
    assert end[:2] == ("failed", "input")
    assert f"The {which} {called} was deleted during the run" in end[2]
    assert_nothing_left(logic, before)


def test_an_input_deleted_while_it_is_being_sent(logic, recorder, images, monkeypatch):
    from DEMISTSlicerLib.Run import Exchange

    monkeypatch.setattr(Exchange, "SLAB", 2000)
    begin(logic, images)
    slicer.mrmlScene.RemoveNode(images[0])
    before = names()
    end = recorder.wait()
    assert "was deleted during the run" in end[2]
    assert_nothing_left(logic, before)


def test_an_output_deleted_during_the_run_is_made_anew(logic, recorder, images):
    t1, flair, mask = images
    output = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Output")
    begin(logic, images, seeds=1, output=output)
    slicer.mrmlScene.RemoveNode(output)
    end = recorder.wait()
    assert end[0] == "finished"
    assert end[1].psr is not output
    assert end[1].psr.GetScene() is not None


def test_an_image_changed_during_the_run_is_told(logic, recorder, images):
    t1, _flair, _mask = images
    before = names()
    handle = logic.progressChanged.connect(lambda words, *_: "Sampling" in words and t1.SetOrigin(1, 2, 3))
    begin(logic, images, seeds=1)
    end = recorder.wait()
    logic.progressChanged.disconnect(handle)
    assert end[:2] == ("failed", "input")
    assert "moved during the run" in end[2]
    assert_nothing_left(logic, before)


def test_a_volume_under_a_non_linear_transform_is_refused(logic, recorder, images):
    t1, flair, mask = images
    bend = warp("Bend")
    for node, called in ((t1, "T1w Patient T1w"), (flair, "FLAIR Patient FLAIR"), (mask, "brain mask Mask")):
        node.SetAndObserveTransformNodeID(bend.GetID())
        before = names()
        with pytest.raises(RunError, match=f"{called} is under the non-linear transform Bend"):
            logic.synthesize(t1, flair, brainMask=mask, wait=False)
        node.SetAndObserveTransformNodeID(linear_transform(np.eye(4)).GetID())
    assert not recorder.ends
    assert not logic.isRunning
    assert set(before) <= set(names())


def test_closing_the_scene_stops_the_run_and_nothing_comes_back(logic, recorder, images):
    begin(logic, images, preview=True)
    until_stage(recorder, "seed 1")
    slicer_app.fresh_scene()
    before = names()
    assert recorder.wait() == ("cancelled",)
    assert any("scene was closed" in text for text in recorder.log)
    slicer_app.process_events(0.2)
    assert_nothing_left(logic, before)


def test_two_scenes_in_a_row(logic, recorder, head):
    """A run in one scene, cut off by its end; another in the next scene, whole, with the same worker."""
    found = []
    for _ in range(2):
        slicer_app.fresh_scene()
        images = load(head.t1w, "T1w"), load(head.flair, "FLAIR"), load(head.mask, "Mask")
        begin(logic, images)
        until_stage(recorder, "seed 1")
        slicer_app.fresh_scene()
        assert recorder.wait() == ("cancelled",)
        images = load(head.t1w, "T1w"), load(head.flair, "FLAIR"), load(head.mask, "Mask")
        t1, flair, mask = images
        result = logic.synthesize(t1, flair, brainMask=mask, **QUICK)
        found.append(slicer.util.arrayFromVolume(result.psr).copy())
        assert [name for name in names() if "PSR" in name and "ScalarVolumeNode" in name] == [
            "vtkMRMLScalarVolumeNode T1w PSR",
            "vtkMRMLScalarVolumeNode T1w PSR uncertainty",
        ]
        recorder.ends.clear()
        recorder.progress.clear()
    assert np.array_equal(*found)


def test_nodes_that_were_made_go_when_making_the_next_one_fails(logic, recorder, images, monkeypatch):
    t1, flair, mask = images
    from DEMISTSlicerLib.Nodes import Volumes

    make = Volumes.createPsrVolume

    def fails(*arguments, **options):
        if options.get("uncertainty"):
            raise RuntimeError("no uncertainty today")
        return make(*arguments, **options)

    before = [name for name in names() if "Volume" in name]
    monkeypatch.setattr(Volumes, "createPsrVolume", fails)
    with pytest.raises(RunError, match="no uncertainty today") as caught:
        logic.synthesize(t1, flair, brainMask=mask, **QUICK)
    assert caught.value.kind == "internal"
    assert [name for name in names() if "Volume" in name] == before
    assert any("Traceback" in text for text in recorder.log)
    monkeypatch.undo()


def test_a_worker_that_cannot_start_is_told(tiny_bundle, images, monkeypatch):
    t1, flair, mask = images
    monkeypatch.setattr(Process, "pythonProgram", lambda: "/nowhere/PythonSlicer")
    with logic_with(tiny_bundle.parent) as other:
        with pytest.raises(RunError, match="could not be started"):
            other.synthesize(t1, flair, brainMask=mask, **QUICK)
        assert not other.isRunning


def test_missing_packages_are_told_as_such(tiny_bundle, images, monkeypatch, tmp_path):
    """A Python without what the worker itself is made of."""
    t1, flair, mask = images
    monkeypatch.setattr(Process, "environment", lambda: {"PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"})
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "The Python package numpy is missing." >&2\nexit {Process.EXIT_MISSING}\n')
    python.chmod(0o755)
    monkeypatch.setattr(Process, "pythonProgram", lambda: str(python))
    with logic_with(tiny_bundle.parent) as other:
        with pytest.raises(RunError, match=r"numpy is missing.*install DEMIST's dependencies") as caught:
            other.synthesize(t1, flair, brainMask=mask, **QUICK)
        assert caught.value.kind == "dependency"


def test_shutting_down_in_mid_run_leaves_no_process_and_no_files(tiny_bundle, images):
    with logic_with(tiny_bundle.parent) as other:
        recorder = Recorder(other)
        job = begin(other, images)
        until_stage(recorder, "seed 1")
        pid, folder = other._worker.process.pid, other._worker.folder
        assert folder.is_dir()
        other.shutdown()
        assert recorder.ends == [("cancelled",)]
        assert not job.isRunning
        assert slicer_app.wait_until(lambda: is_gone(pid), LONG)
        assert not folder.exists()
        recorder.close()
        other.shutdown()  # again: no harm
