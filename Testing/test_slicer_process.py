"""The child process behind its protocol, as the module sees it; and volume nodes on their way there and back."""

from __future__ import annotations

import itertools
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import slicer_app

slicer_app.install()

import slicer  # noqa: E402
from DEMISTSlicerLib.Nodes import Voxels  # noqa: E402
from DEMISTSlicerLib.Run import Exchange, Process  # noqa: E402
from DEMISTSlicerLib.Run.Process import WorkerProcess  # noqa: E402
from DEMISTSlicerLib.Run.QtChannel import QtChannel  # noqa: E402
from DEMISTSlicerLib.Run.RunInputs import checkVolume  # noqa: E402
from DEMISTSlicerLib.Run.Steps import Steps  # noqa: E402
from DEMISTSlicerLib.RunError import RunError  # noqa: E402
from DEMISTSlicerLib.Signal import Signal  # noqa: E402
from slicer_runs import LONG, drain, is_gone, linear_transform, turn, volume, warp  # noqa: E402


@pytest.fixture(autouse=True)
def scene():
    return slicer_app.fresh_scene()


class Loopback:
    """A channel without a process: what is written can be looked at, what arrives is up to the test."""

    def __init__(self) -> None:
        self.written: list[dict] = []
        self.isRunning = False

    def start(self, program, arguments, environment) -> None:
        self.started = (program, list(arguments), dict(environment))
        self.isRunning = True

    def write(self, data: bytes) -> None:
        self.written += [json.loads(line) for line in data.splitlines()]

    def kill(self) -> None:
        self.isRunning = False
        self.onEnded(9, "killed")

    def wait(self, milliseconds: int) -> bool:
        return False


@pytest.fixture
def loopback():
    channel = Loopback()
    process = WorkerProcess(lambda: channel)
    process.seen, process.said, process.over = [], [], []
    process.messageReceived.connect(process.seen.append)
    process.textReceived.connect(process.said.append)
    process.ended.connect(lambda code, text: process.over.append((code, text)))
    return process, channel


# --- signals and steps ---------------------------------------------------------------------------------------------


def test_one_failing_slot_does_not_silence_the_others(caplog):
    signal, seen = Signal(), []

    def fails(value):
        raise RuntimeError("no")

    signal.connect(fails)
    handle = signal.connect(seen.append)
    signal.emit(1)
    signal.disconnect(handle)
    signal.disconnect(handle)
    signal.emit(2)
    assert seen == [1]
    assert "slot" in caplog.text


def test_a_slot_may_disconnect_others_while_it_is_called():
    signal, seen = Signal(), []
    handles = []
    signal.connect(lambda: signal.disconnect(handles[0]))
    handles.append(signal.connect(lambda: seen.append("late")))
    signal.emit()
    assert seen == []


def test_steps_run_between_other_events_and_stop():
    turns, ended = [], []

    def work():
        try:
            for i in itertools.count():
                turns.append(i)
                yield
        finally:
            ended.append(True)

    steps = Steps(work(), lambda value: ended.append("done"), ended.append)
    assert turns == []  # nothing before the event loop turns
    slicer_app.wait_until(lambda: turns, LONG)
    steps.stop()
    assert ended == [True]
    count = len(turns)
    slicer_app.process_events(0.05)
    assert len(turns) == count


def test_steps_give_their_value_or_their_error():
    seen = []

    def works():
        yield
        return 7

    def breaks():
        yield
        raise ValueError("x")

    steps = [Steps(generator, seen.append, lambda error: seen.append(str(error))) for generator in (works(), breaks())]
    assert slicer_app.wait_until(lambda: len(seen) == 2, LONG)
    assert sorted(map(str, seen)) == ["7", "x"]
    assert steps


# --- messages ------------------------------------------------------------------------------------------------------


def test_messages_may_arrive_in_any_pieces(loopback):
    process, channel = loopback
    process.send({"id": 1, "do": "hello", "text": "é"})
    assert channel.written == [{"id": 1, "do": "hello", "text": "é"}]
    sent = '{"event": "ready", "pid": 42}\n{"id": 1, "event": "done", "text": "Größe"}\n'.encode()
    for i in range(len(sent)):
        channel.onOutput(sent[i : i + 1])
    assert [message["event"] for message in process.seen] == ["ready", "done"]
    assert process.seen[1]["text"] == "Größe"
    assert process.pid == 42
    channel.onOutput(sent)
    assert len(process.seen) == 4


def test_garbage_from_the_child_is_text_not_trouble(loopback):
    process, channel = loopback
    process.start()
    channel.onOutput(b'Warning: something\n\xff\xfe\n[1]\n{"id": 1, "event": "done"}\n')
    channel.onErrorOutput(b"Traceback\n  line\n")
    assert [message["id"] for message in process.seen] == [1]
    assert process.said[0] == "Warning: something"
    assert process.said[-1] == "  line"


def test_the_end_tells_the_last_words(loopback):
    process, channel = loopback
    process.start()
    channel.onErrorOutput("".join(f"line {i}\n" for i in range(100)).encode())
    channel.isRunning = False
    channel.onEnded(1, "crashed")
    ((code, text),) = process.over
    assert code == 1
    assert text.splitlines()[-2:] == ["line 99", "crashed"]
    assert len(text.splitlines()) < 20
    assert not process.isRunning


def test_a_child_that_was_given_up_does_not_end_its_successor():
    channels = [Loopback(), Loopback()]
    process = WorkerProcess(lambda: channels[len(started)])
    started: list[int] = []
    over = []
    process.ended.connect(lambda code, text: over.append(code))
    process.start()
    first = process._channel
    first.isRunning = False  # it is dying, and has not said so yet
    started.append(1)
    process.start()
    first.onEnded(9, "")
    assert process.isRunning
    assert over == []


def test_the_child_finds_the_core_and_slicers_python(monkeypatch, tmp_path, loopback):
    process, channel = loopback
    launcher = tmp_path / ("PythonSlicer.exe" if os.name == "nt" else "PythonSlicer")
    launcher.write_text("#!/bin/sh\n")
    launcher.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + os.environ["PATH"])
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    process.start()
    program, arguments, environment = channel.started
    assert Path(program) == launcher
    assert arguments == ["-P", "-m", "DEMISTCore.worker"]
    first, *rest = environment["PYTHONPATH"].split(os.pathsep)
    assert (Path(first) / "DEMISTCore" / "__init__.py").is_file()
    assert rest == ["elsewhere"]
    assert environment["PYTHONUNBUFFERED"] == "1"
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert Process.pythonProgram() == sys.executable


def test_a_real_child_answers_and_ends():
    process = WorkerProcess(QtChannel)
    seen, over = [], []
    process.messageReceived.connect(seen.append)
    process.ended.connect(lambda code, text: over.append(code))
    process.send({"id": 5, "do": "hello"})
    assert slicer_app.wait_until(lambda: any(message["event"] == "done" for message in seen), LONG)
    assert [message["event"] for message in seen] == ["ready", "accepted", "done"]
    pid = process.pid
    assert pid == seen[-1]["pid"]
    process.stop()
    assert slicer_app.wait_until(lambda: over, LONG)
    assert slicer_app.wait_until(lambda: is_gone(pid), LONG)
    process.send({"id": 6, "do": "hello"})  # starts another one
    assert slicer_app.wait_until(lambda: seen[-1].get("id") == 6 and seen[-1]["event"] == "done", LONG)
    pid = process.pid
    process.stop(timeoutMs=int(1000 * LONG))
    assert slicer_app.wait_until(lambda: len(over) == 2, LONG)
    assert over[-1] == 0  # politely
    assert is_gone(pid)


def test_a_program_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setattr(Process, "pythonProgram", lambda: "/nowhere/PythonSlicer")
    process, over = WorkerProcess(QtChannel), []
    process.ended.connect(lambda code, text: over.append((code, text)))
    process.start()
    assert slicer_app.wait_until(lambda: over, LONG)
    assert over[0][0] == -1
    assert over[0][1]
    assert not process.isRunning


def test_killing_the_launcher_kills_what_it_launched(monkeypatch, tmp_path):
    """PythonSlicer is a launcher that starts the real Python as its child."""
    launcher = tmp_path / "PythonSlicer"
    launcher.write_text(f'#!/bin/sh\n"{sys.executable}" "$@"\n')
    launcher.chmod(0o755)
    monkeypatch.setattr(Process, "pythonProgram", lambda: str(launcher))
    process, seen = WorkerProcess(QtChannel), []
    process.messageReceived.connect(seen.append)
    process.start()
    assert slicer_app.wait_until(lambda: seen, LONG)
    pid = process.pid
    process.stop()
    process.join(int(1000 * LONG))
    assert slicer_app.wait_until(lambda: is_gone(pid), LONG)


def test_an_idle_worker_ends_and_a_busy_one_does_not(monkeypatch):
    from DEMISTSlicerLib.Run.Worker import Worker

    monkeypatch.setattr(Worker, "IDLE", 0.05)
    channel, busy = Loopback(), [True]
    worker = Worker(lambda: channel, print, lambda: busy[0])
    worker.open().start()
    channel.onOutput(b'{"event": "ready"}\n')
    slicer_app.process_events(0.3)
    assert worker.process is not None
    busy[0] = False
    assert slicer_app.wait_until(lambda: worker.process is None, LONG)
    worker.removeFolder()


# --- nodes to files and back ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32", "float64"])
def test_nodes_cross_unchanged(tmp_path, monkeypatch, dtype):
    from DEMISTCore.worker.exchange import read_reference

    monkeypatch.setattr(Exchange, "SLAB", 100)  # many slabs
    array = (100 * np.random.default_rng(1).random((7, 5, 3))).astype(dtype)
    affine = turn(20, (1 / 3, -2, 5)) @ np.diag([-0.7, -0.7, 3.1, 1])
    node = volume(array, affine, "T1w")
    reference = json.loads(json.dumps(drain(Exchange.writeNode(node, tmp_path, "t1w"))))
    read = read_reference(reference, "T1w", dtype=None)
    assert read.array.dtype == dtype
    assert np.array_equal(read.array, array)
    assert np.array_equal(read.affine, Voxels.affineOf(node))  # to the last bit
    assert np.allclose(read.affine, affine, atol=1e-12)
    back, place = drain(Exchange.readReference(reference))
    assert np.array_equal(back, array)
    assert np.array_equal(place, read.affine)
    assert back.flags.f_contiguous


def test_a_volume_under_another_transform_is_told_in_the_t1ws_space(tmp_path):
    array = np.zeros((4, 4, 4), np.float32)
    t1, flair = volume(array, np.eye(4), "T1w"), volume(array, turn(10), "FLAIR")
    outer, inner = linear_transform(turn(30, (1, 2, 3))), linear_transform(turn(-12, (0, 0, 4)))
    inner.SetAndObserveTransformNodeID(outer.GetID())
    t1.SetAndObserveTransformNodeID(outer.GetID())
    flair.SetAndObserveTransformNodeID(inner.GetID())
    assert np.array_equal(Exchange.affineInFrameOf(t1, t1), np.eye(4))
    assert np.allclose(Exchange.affineInFrameOf(flair, t1), turn(-12, (0, 0, 4)) @ turn(10), atol=1e-12)
    assert np.allclose(Exchange.affineInFrameOf(flair), turn(10), atol=1e-12)
    t1.SetAndObserveTransformNodeID(None)
    wanted = turn(30, (1, 2, 3)) @ turn(-12, (0, 0, 4)) @ turn(10)
    assert np.allclose(Exchange.affineInFrameOf(flair, t1), wanted, atol=1e-12)


def test_a_segmentation_crosses_as_a_mask_on_the_reference_grid(tmp_path):
    from DEMISTSlicerLib.Nodes.Segmentation import regionsToSegmentation

    mask = np.zeros((9, 8, 7), np.uint8)
    mask[2:5, 3:6, 1:4] = 1
    affine = turn(15) @ np.diag([-1.0, -1.0, 2.0, 1.0])
    t1 = volume(np.zeros(mask.shape, np.float32), affine, "T1w")
    segmentation = regionsToSegmentation({"lesion": mask}, t1)
    array, place = drain(Exchange.readReference(drain(Exchange.writeNode(segmentation, tmp_path, "lesions", t1))))
    assert np.array_equal(array > 0, mask > 0)
    assert np.allclose(place, affine, atol=1e-12)


def test_what_is_no_volume_for_a_run_is_named():
    colour = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "Colour")
    import vtk

    image = vtk.vtkImageData()
    image.SetDimensions(4, 4, 4)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
    colour.SetAndObserveImageData(image)
    warped = volume(np.zeros((4, 4, 4), np.float32), np.eye(4), "Warped")
    warped.SetAndObserveTransformNodeID(warp("Bend").GetID())
    nested = volume(np.zeros((4, 4, 4), np.float32), np.eye(4), "Nested")
    linear = linear_transform(np.eye(4))
    linear.SetAndObserveTransformNodeID(warped.GetTransformNodeID())
    nested.SetAndObserveTransformNodeID(linear.GetID())
    removed = volume(np.zeros((4, 4, 4), np.float32), np.eye(4), "Removed")
    slicer.mrmlScene.RemoveNode(removed)
    for node, words in (
        (None, "No T1w is chosen"),
        (slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty"), "T1w Empty holds no image"),
        (volume(np.zeros((4, 4, 1), np.float32), np.eye(4), "Flat"), "single slice"),
        (slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Nothing"), "no segment"),
        (slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", "Bone"), "is no volume"),
        (slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "Numbers"), "is no volume"),
        (colour, "colour"),
        (warped, "non-linear transform Bend"),
        (nested, "non-linear"),
        (removed, "not in the scene any more"),
    ):
        with pytest.raises(RunError, match=words):
            checkVolume(node, "T1w")
    checkVolume(volume(np.zeros((4, 4, 2), np.int16), np.eye(4), "Good"), "T1w")


def test_a_result_that_is_gone_is_told(tmp_path):
    with pytest.raises(RunError, match="could not be read"):
        drain(Exchange.readReference({"npy": str(tmp_path / "none.npy"), "affine": np.eye(4).tolist()}))
