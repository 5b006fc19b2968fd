"""The module's logic over the real MRML scene and a real child process, without the panel."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
import slicer_app

slicer_app.install()

import slicer  # noqa: E402
from DEMISTSlicerLib.Run import Batch  # noqa: E402
from DEMISTSlicerLib.Run.Timings import Timings  # noqa: E402
from DEMISTSlicerLib.RunError import RunError  # noqa: E402
from slicer_runs import (  # noqa: E402
    QUICK,
    Recorder,
    linear_transform,
    load,
    logic_with,
    names,
    to_world,
    turn,
    volume,
)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def logic(tiny_bundle):
    """One logic for all tests here: its worker stays warm."""
    with logic_with(tiny_bundle.parent) as logic:
        yield logic


@pytest.fixture(autouse=True)
def scene():
    return slicer_app.fresh_scene()


@pytest.fixture
def recorder(logic):
    recorder = Recorder(logic)
    yield recorder
    recorder.close()


@pytest.fixture
def images(scene, head):
    """T1w, FLAIR and brain mask of the small oblique head as volume nodes."""
    return load(head.t1w, "Patient T1w"), load(head.flair, "Patient FLAIR"), load(head.mask, "Mask")


def array_of(node) -> np.ndarray:
    return slicer.util.arrayFromVolume(node).T


def assert_same_place(node, t1, ijk) -> None:
    """The same voxel of both lies at the same world position: 1e-9 mm is the rounding of a matrix product."""
    np.testing.assert_allclose(to_world(node, ijk), to_world(t1, ijk), rtol=0, atol=1e-9)


# --- synthesis -----------------------------------------------------------------------------------------------------


def test_synthesize_makes_maps_exactly_over_the_t1w(logic, recorder, images):
    t1, flair, mask = images
    tilt = linear_transform(turn(25, (10, -20, 30)), "Tilt")
    for node in images:
        node.SetAndObserveTransformNodeID(tilt.GetID())
    result = logic.synthesize(t1, flair, brainMask=mask, **QUICK)
    assert recorder.ends == [("finished", result)]
    assert result.kind == "synthesis"
    shape = array_of(t1).shape
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape])).reshape(3, -1).T
    for node in (result.psr, result.uncertainty):
        assert node.IsA("vtkMRMLScalarVolumeNode")
        assert array_of(node).shape == shape
        assert node.GetParentTransformNode() is tilt
        for ijk in [*corners, (3, 17, 8)]:
            assert_same_place(node, t1, ijk)
    psr, inside = array_of(result.psr), array_of(mask) > 0
    assert psr.dtype == np.float32
    assert 0 < np.median(psr[inside]) < 0.5
    assert not psr[~inside].any()
    assert array_of(result.uncertainty)[inside].max() > 0
    provenance = json.loads(result.psr.GetAttribute("DEMIST.Provenance"))
    assert provenance["settings"]["seeds"] == [0, 1]
    assert provenance["inputs"]["T1w"]["node"] == "Patient T1w"
    assert provenance["bundle"]["name"] == "tiny"
    assert result.psr.GetAttribute("DEMIST.Synthetic") == "1"
    assert not list(logic._worker.folder.iterdir())  # nothing is left in the temporary folder
    assert result.seconds > 0


def test_the_result_does_not_depend_on_slicer(logic, images, head, tiny_bundle):
    import DEMISTCore

    t1, flair, mask = images
    result = logic.synthesize(t1, flair, brainMask=mask, **QUICK)
    direct = DEMISTCore.synthesize(
        head.t1w,
        head.flair,
        brain_mask=head.mask,
        bundle=tiny_bundle,
        seeds=2,
        device="cpu",
        register=False,
        bias_correct=False,
    )
    assert np.allclose(array_of(result.psr), direct.psr.array, atol=1e-5)


def test_a_flair_moved_by_a_transform_is_taken_where_it_is_seen(logic, images):
    t1, flair, mask = images
    straight = array_of(logic.synthesize(t1, flair, brainMask=mask, **QUICK).psr).copy()
    # The same place, told by another matrix under a transform that undoes the difference.
    from DEMISTSlicerLib.Nodes import Voxels

    motion = turn(8, (3, -2, 1))
    flair.SetIJKToRASMatrix(Voxels.matrixFromArray(np.linalg.inv(motion) @ Voxels.affineOf(flair)))
    away = array_of(logic.synthesize(t1, flair, brainMask=mask, **QUICK).psr).copy()
    assert not np.allclose(away, straight, atol=1e-3)  # it matters
    flair.SetAndObserveTransformNodeID(linear_transform(motion).GetID())
    back = array_of(logic.synthesize(t1, flair, brainMask=mask, **QUICK).psr)
    assert np.allclose(back, straight, atol=1e-4)


def test_seeds_outputs_and_second_runs(logic, images):
    t1, flair, mask = images
    first = logic.synthesize(t1, flair, brainMask=mask, **{**QUICK, "seeds": 1}, firstSeed=3)
    assert first.uncertainty is None
    assert first.provenance["settings"]["seeds"] == [3]
    again = logic.synthesize(t1, flair, brainMask=mask, **QUICK, output=first.psr)
    assert again.psr is first.psr
    assert again.provenance["settings"]["seeds"] == [0, 1]
    count = len(names())
    once_more = logic.synthesize(t1, flair, brainMask=mask, **QUICK, output=again.psr, uncertainty=again.uncertainty)
    assert once_more.uncertainty is again.uncertainty
    assert len(names()) == count  # nothing was added
    # The worker had the images: it began to sample at once, without preparing them again.
    assert "normalisation" not in once_more.provenance["timings_s"]


def test_a_run_in_the_background_tells_all_and_leaves_the_main_thread_alone(logic, recorder, images):
    t1, flair, mask = images
    told = []
    longest = [0.0, time.perf_counter()]

    import qt

    def beat():
        now = time.perf_counter()
        longest[0], longest[1] = max(longest[0], now - longest[1]), now

    timer = qt.QTimer()
    timer.setInterval(5)
    timer.connect("timeout()", beat)
    job = logic.synthesize(
        t1,
        flair,
        brainMask=mask,
        **QUICK,
        wait=False,
        onProgress=lambda *what: told.append(("progress", *what)),
        onDone=lambda result: told.append(("done", result)),
        onError=lambda *what: told.append(("error", *what)),
    )
    assert logic.isRunning
    assert job is logic.currentJob
    timer.start()
    longest[1] = time.perf_counter()
    end = recorder.wait()
    timer.stop()
    assert end[0] == "finished"
    assert [what[0] for what in told if what[0] != "progress"] == ["done"]
    assert told[-1] == ("done", end[1])
    assert len(recorder.ends) == 1
    assert not logic.isRunning
    assert logic.currentJob is None
    fractions = [done for _stage, done, _left in recorder.progress[1:]]
    assert fractions == sorted(fractions)
    assert {"Loading the model", "Sampling seed 1 of 2", "Sampling seed 2 of 2"} <= set(recorder.stages)
    assert [what[1:] for what in told if what[0] == "progress"] == recorder.progress
    assert job.result is end[1]
    # Generous: this machine has other work to do. The measurement is benchmarks/slicer_responsiveness.py.
    assert longest[0] < 5.0


def test_the_mean_is_what_its_model_gives_by_default(logic, recorder, images, head, calibrated_bundle, tmp_path):
    """No seeds, nothing to preview, a calibrated uncertainty that is called so; the sidecar beside the T1w is read."""
    t1, flair, mask = images
    quick = {
        "brainMask": mask,
        "bundle": str(calibrated_bundle),
        "device": "cpu",
        "register": False,
        "biasCorrect": False,
    }
    seen = []
    handle = logic.previewUpdated.connect(seen.append)
    plain = logic.synthesize(t1, flair, **quick, preview=True)
    logic.previewUpdated.disconnect(handle)
    assert recorder.ends == [("finished", plain)]
    assert not seen
    assert not [name for name in names() if "review" in name]
    assert plain.how == "mean"
    assert plain.provenance["settings"]["seeds"] == []
    assert "Computing the mean" in recorder.stages
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(plain.uncertainty.GetDisplayNode())
    assert legend.GetTitleText() == "SD of the error (calibrated)"
    first = array_of(plain.psr).copy()

    # Its own time is learnt: the next mean, with the images of the last run, is expected to take that.
    timings = plain.provenance["timings_s"]
    expected = logic.expectedSeconds(bundle=str(calibrated_bundle), device="cpu", prepared=True)
    assert expected == pytest.approx(timings["mean"] + timings["to native grid"])
    assert logic.expectedSeconds(bundle=str(calibrated_bundle), device="cpu", prepared=True, seeds=2) != expected

    storage = t1.CreateDefaultStorageNode()
    slicer.mrmlScene.AddNode(storage)
    storage.SetFileName(str(tmp_path / "t1w.nii.gz"))
    t1.SetAndObserveStorageNodeID(storage.GetID())
    protocol = {"RepetitionTime": 2.3, "InversionTime": 0.9}
    (tmp_path / "t1w.json").write_text(json.dumps(protocol))
    told = array_of(logic.synthesize(t1, flair, **quick).psr)
    given = array_of(logic.synthesize(t1, flair, **quick, protocol={"T1w": protocol}).psr)
    assert not np.array_equal(told, first)
    assert np.array_equal(told, given)
    assert np.array_equal(array_of(logic.synthesize(t1, flair, **quick, protocol={}).psr), first)

    # Samples of the same model, into the node of the mean's uncertainty; and a mean in a file.
    sampled = logic.synthesize(t1, flair, **quick, firstSeed=5, uncertainty=plain.uncertainty)
    assert sampled.how == "2 samples"
    assert sampled.provenance["settings"]["seeds"] == [5, 6]
    options = {**quick, "brainMask": head.mask}
    filed = logic.synthesizeFile(head.t1w, head.flair, tmp_path / "psr.nii.gz", mode="mean", **options)
    assert filed.how == "mean"
    assert (tmp_path / "psr_uncertainty.nii.gz").exists()
    with pytest.raises(TypeError, match="sharpness"):
        logic.synthesizeFile(head.t1w, head.flair, tmp_path / "b.nii.gz", sharpness=1)
    with pytest.raises(RunError, match="no network for the mean"):
        logic.synthesize(t1, flair, **{**quick, "bundle": "tiny"}, mode="mean")


def test_live_preview_comes_and_goes(logic, images):
    t1, flair, mask = images
    before, seen = names(), []
    handle = logic.previewUpdated.connect(
        lambda node: seen.append((node.GetName(), node.GetAttribute("DEMIST.Quantity"), array_of(node).shape))
    )
    result = logic.synthesize(t1, flair, brainMask=mask, **{**QUICK, "steps": 12}, preview=True)
    logic.previewUpdated.disconnect(handle)
    assert seen
    assert seen[0] == ("PSR preview: seed 0, step 1 of 12", "Preview", array_of(t1).shape)
    left = set(names()) - set(before)
    assert not [name for name in left if "review" in name]
    assert result.psr.GetScene() is not None


def test_what_cannot_be_used_is_refused_at_once(logic, images):
    t1, flair, mask = images
    before = names()
    for arguments, options, words in (
        ((None, flair), {}, "No T1w is chosen"),
        ((t1, None), {}, "No FLAIR is chosen"),
        ((t1, t1), {}, "same volume"),
        ((t1, flair), {"seeds": 0}, "1 to 256"),
        ((t1, flair), {"seeds": "four"}, "whole numbers"),
        ((t1, flair), {"firstSeed": -1}, "first seed"),
        ((t1, flair), {"output": t1}, "chosen for something else"),
        ((t1, flair), {"output": mask, "uncertainty": mask}, "chosen for something else"),
    ):
        with pytest.raises(RunError, match=words):
            logic.synthesize(*arguments, wait=False, **options)
        assert not logic.isRunning
    assert names() == before


# --- statistics ----------------------------------------------------------------------------------------------------


@pytest.fixture
def measured(scene):
    """A small PSR map with a lesion, as nodes: map, lesions, and what the tissue is by construction."""
    rng = np.random.default_rng(2)
    shape = (48, 44, 40)
    x, y, z = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij")
    brain = (x / 21) ** 2 + (y / 20) ** 2 + (z / 18) ** 2 < 1
    white = (x / 16) ** 2 + (y / 15) ** 2 + (z / 13) ** 2 < 1
    lesion = (x - 9) ** 2 + y**2 + z**2 < 9
    clean = np.select([lesion, white, brain], [0.06, 0.12, 0.07], 0.0)
    affine = turn(20, (4, 5, 6)) @ np.diag([-1.0, -1.0, 1.0, 1.0])
    psr = np.where(brain, clean + 0.004 * rng.standard_normal(shape), 0).astype(np.float32)
    t1 = np.select([lesion, white, brain], [700.0, 900.0, 600.0], 0.0) + brain * rng.normal(0, 12, shape)
    nodes = volume(psr, affine, "Map"), volume(lesion.astype(np.uint8), affine, "Lesion mask")
    return *nodes, volume(t1.astype(np.float32), affine, "T1w"), volume(brain.astype(np.uint8), affine, "Brain")


def test_statistics_fill_table_segments_and_charts(logic, recorder, measured):
    psr, lesions, t1, brain = measured
    distances = {"lesion_gap_mm": 1.0, "proximal_mm": (1.0, 4.0), "distal_mm": 6.0}
    result = logic.computeStatistics(psr, lesions, t1=t1, brainMask=brain, distances=distances)
    assert recorder.ends == [("finished", result)]
    rows = {row["region"]: row for row in result.rows if row["lesion"] is None}
    assert {"lesion", "nawm", "nawm_proximal", "nawm_distal", "white_matter"} <= set(rows)
    assert rows["lesion"]["mean"] == pytest.approx(0.06, abs=0.005)
    assert rows["nawm_distal"]["mean"] == pytest.approx(0.12, abs=0.01)
    assert result.table.IsA("vtkMRMLTableNode")
    assert result.table.GetNumberOfRows() == len(result.rows)
    assert result.segmentation.GetSegmentation().GetNumberOfSegments() == 3
    assert result.roc.IsA("vtkMRMLPlotChartNode")
    assert result.boxPlot.IsA("vtkMRMLPlotChartNode")
    assert result.summary["settings"]["regions"]["proximal_mm"] == [1.0, 4.0]
    assert not result.suggested
    assert "Research use" in result.statement
    # Once more into the same nodes, with the segmentation (which has NAWM in it, too) as the lesions.
    again = logic.computeStatistics(
        psr,
        result.segmentation,
        t1=t1,
        brainMask=brain,
        distances=distances,
        table=result.table,
        segmentation=result.segmentation,
    )
    assert again.table is result.table
    assert again.segmentation is result.segmentation
    assert [row["voxels"] for row in again.rows] == [row["voxels"] for row in result.rows]


def test_suggested_lesions_are_called_so_until_a_person_has_checked_them(logic, measured):
    from DEMISTSlicerLib.Nodes.Placement import SUGGESTED
    from DEMISTSlicerLib.Nodes.Segmentation import acceptSuggestion, isSuggested

    psr, lesions, t1, brain = measured
    drawn = logic.computeStatistics(psr, lesions, t1=t1, brainMask=brain)
    suggestion = drawn.segmentation
    suggestion.SetAttribute(SUGGESTED, "1")  # as suggestLesions leaves it
    result = logic.computeStatistics(psr, suggestion, t1=t1, brainMask=brain)
    assert result.suggested
    assert isSuggested(result.segmentation)
    assert {row["name"] for row in result.rows if row["region"] == "lesion"} >= {"Lesions (suggested)"}
    assert any("suggestion" in note for note in result.notes)
    assert [row["voxels"] for row in result.rows] == [row["voxels"] for row in drawn.rows]
    acceptSuggestion(suggestion)
    assert not logic.computeStatistics(psr, suggestion, t1=t1, brainMask=brain).suggested


def test_statistics_without_a_t1w_say_what_is_missing(logic, measured):
    psr, lesions, _t1, _brain = measured
    result = logic.computeStatistics(psr, lesions)
    assert result.roc is None
    assert {row["region"] for row in result.rows} == {"lesion"}
    assert any("no T1w" in note for note in result.notes)
    with pytest.raises(RunError, match="not both"):
        logic.computeStatistics(psr, lesions, suggest=True)
    with pytest.raises(RunError, match="distal_m"):
        logic.computeStatistics(psr, lesions, distances={"distal_m": 3})


def test_statistics_of_a_synthesized_map_know_its_origin(logic, images):
    t1, flair, mask = images
    made = logic.synthesize(t1, flair, brainMask=mask, **QUICK)
    lesions = np.zeros(array_of(t1).shape, np.uint8)
    lesions[20:23, 24:27, 18:21] = 1
    from DEMISTSlicerLib.Nodes import Voxels

    node = volume(lesions, Voxels.affineOf(t1), "Lesions")
    slicer.mrmlScene.RemoveNode(t1)  # else tissue would be segmented on it, which takes its time
    result = logic.computeStatistics(made.psr, node)
    assert result.summary["synthesized"]["bundle"]["name"] == "tiny"
    assert result.statement.startswith(made.provenance["statement"])
    (row,) = [row for row in result.rows if row["lesion"] is None and row["region"] == "lesion"]
    assert row["uncertainty"] > 0  # the map made with it was found by itself
    # The worker has the maps of both seeds: how far the region's mean moves is known, not just bounded. The bound is
    # met with equality where all voxels move together, and the two are float32 sums in different orders.
    assert 0 < row["seed_sd"] <= row["uncertainty"] * (1 + 1e-6)
    columns = [result.table.GetTable().GetColumnName(i) for i in range(result.table.GetNumberOfColumns())]
    assert "seed_sd" in columns


def test_a_synthetic_t1w_by_brain_ldm(logic, recorder, tmp_path):
    from published_data import write_published

    folder = write_published(tmp_path / "brain-ldm")
    options = {"bundle": folder, "steps": 2, "shape": (32, 32, 32), "device": "cpu"}
    node = logic.generateT1w(age=0.7, sex=1, seed=3, **options)
    assert array_of(node).shape == (32, 32, 32)
    provenance = json.loads(node.GetAttribute("DEMIST.Provenance"))
    assert provenance["request"]["age"] == 0.7
    assert provenance["synthetic"]
    assert "not a real person" in provenance["statement"] or "nobody" in provenance["statement"].lower()
    assert recorder.ends[-1][1].kind == "brain_ldm"
    again = logic.generateT1w(age=0.7, sex=1, seed=3, **options)
    assert np.array_equal(array_of(again), array_of(node))
    with pytest.raises(RunError, match="age"):
        logic.generateT1w(age=7, **options)


@pytest.mark.slow
def test_a_simulated_patient_comes_through_the_worker(logic, recorder):
    result = logic.simulate()
    assert recorder.ends == [("finished", result)]
    assert result.kind == "simulate"
    assert array_of(result.t1w).shape == array_of(result.psr).shape != array_of(result.flair).shape
    for ijk in ((0, 0, 0), (50, 60, 70)):
        assert_same_place(result.psr, result.t1w, ijk)
    assert result.segmentation.GetSegmentation().GetNumberOfSegments() > 0


# --- what is there -------------------------------------------------------------------------------------------------


def test_bundles_are_described_without_loading_them(logic, tmp_path):
    found = logic.bundles()
    assert found[0]["name"] == "demist-sim"  # the default goes first
    assert {"tiny", "demist-sim"} <= {bundle["name"] for bundle in found}
    for bundle in found:
        assert Path(bundle["path"]).is_dir()
        assert bundle["licence"]
        assert bundle["card"].startswith("#") or bundle["card"].startswith("---")
        assert {"sampler", "steps", "seeds"} <= set(bundle["sampling"])
    assert found[0]["simulated"]
    assert logic.describeBundle(str(tmp_path)) is None
    assert logic.describeBundle("no-such-model") is None
    import sys

    loaded = [name for name in sys.modules if name.startswith("DEMISTSlicerLib")]
    assert loaded


def test_devices_are_asked_of_the_worker(logic):
    first = logic.devices()
    assert first[0][0] == "auto"
    assert "cpu" in dict(first)
    told = []
    handle = logic.devicesChanged.connect(lambda: told.append(True))
    logic.askDevices()
    assert slicer_app.wait_until(lambda: told, 240)
    logic.devicesChanged.disconnect(handle)
    devices = dict(logic.devices())
    assert "threads" in devices["cpu"]
    assert devices["auto"].startswith("Automatic (")


def test_expected_seconds_learn_from_runs():
    timings = Timings()
    timings._known = {}
    guess = timings.seconds("cpu", 4, 8)
    assert timings.seconds("cpu", 8, 8) > guess > timings.seconds("cpu", 4, 8, prepared=True, warm=True) > 0
    assert timings.seconds("cuda:0", 4, 8) < guess
    timings.learn(
        "cpu",
        {
            "timings_s": {
                "read": 1,
                "brain mask": 5,
                "registration": 3,
                "resampling": 1,
                "encode": 2,
                "sample": 16,
                "decode": 6,
                "to native grid": 2,
            },
            "settings": {"seeds": [0, 1], "steps": 4, "guidance": {}},
        },
    )
    assert timings.seconds("cpu", 2, 4, warm=True) == pytest.approx(10 + 2 + 16 + 8)
    assert timings.seconds("cpu", 1, 4, prepared=True, warm=True) == pytest.approx(8 + 4)
    for guidance, evaluations in (
        (1.5, 2),
        ({"all": 1.25}, 2),
        ({"all": 0}, 2),
        ({"all": 1}, 1),
        ({}, 1),
        ({"semantic": 0}, 1),
        ({"semantic": 1.2, "spatial": 1.1}, 3),
    ):
        took = timings.seconds("cpu", 1, 4, guidance=guidance, prepared=True, warm=True)
        assert took == pytest.approx(8 * evaluations + 4)
    timings.learn("cpu", {"timings_s": {"sample": 8, "decode": 6}, "settings": {"seeds": [0], "steps": 4}})
    assert timings.seconds("cpu", 1, 4, warm=True) == pytest.approx(12 + 8 + 6)  # preparation is remembered
    timings.learn("cpu", {"timings_s": {"load": 20, "sample": 8, "decode": 6}, "settings": {"seeds": [0], "steps": 4}})
    assert timings.seconds("cpu", 1, 4) == pytest.approx(20 + 12 + 8 + 6)
    timings.learn("cpu", {})  # nothing to learn: no harm


def test_expected_seconds_of_the_logic(logic):
    assert logic.expectedSeconds(seeds=8, bundle="tiny") > logic.expectedSeconds(seeds=2, bundle="tiny") > 0
    assert logic.expectedSeconds(seeds=[1, 2, 3]) > 0


# --- batch ---------------------------------------------------------------------------------------------------------


def test_a_batch_of_nodes_goes_on_after_a_failure(logic, images, head):
    t1, flair, mask = images
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
    seen = []
    results = logic.batch(
        [(empty, flair), (t1, flair)], brainMask=mask, onItem=lambda result, done, of: seen.append((done, of)), **QUICK
    )
    assert [result.status for result in results] == ["failed", "done"]
    assert "holds no image" in results[0].message
    assert results[1].psr.GetScene() is not None
    assert seen == [(1, 2), (2, 2)]
    for items in ([], [t1], [(t1, head.flair)], [(None, flair)], "no/such/folder"):
        with pytest.raises(RunError):
            logic.batch(items)


def test_a_batch_over_a_folder_writes_files_and_resumes(logic, head, tmp_path):
    from shutil import copy

    source, out = tmp_path / "in", tmp_path / "out"
    for subject in ("sub-01", "sub-02"):
        place = source / subject / "anat"
        place.mkdir(parents=True)
        copy(head.t1w, place / f"{subject}_T1w.nii.gz")
        copy(head.flair, place / f"{subject}_FLAIR.nii.gz")
    (source / "sub-02" / "anat" / "sub-02_FLAIR.nii.gz").write_bytes(b"")  # a broken one
    before = names()
    options = {**QUICK, "brainMask": head.mask}
    results = logic.batch(source, outputFolder=out, **options)
    assert [(result.name, result.status) for result in results] == [("sub-01_T1w", "done"), ("sub-02_T1w", "failed")]
    assert "empty file" in results[1].message
    psr = out / "sub-01" / "anat" / "sub-01_PSR.nii.gz"
    assert results[0].psr == psr
    assert sorted(path.name for path in psr.parent.iterdir()) == [
        "sub-01_PSR.json",
        "sub-01_PSR.nii.gz",
        "sub-01_PSR_uncertainty.nii.gz",
    ]
    assert not (out / "sub-02").exists() or not list((out / "sub-02").rglob("*.*"))
    assert names() == before  # the scene was left alone
    copy(head.flair, source / "sub-02" / "anat" / "sub-02_FLAIR.nii.gz")
    again = logic.batch(source, outputFolder=out, **options)
    assert [result.status for result in again] == ["skipped", "done"]
    with pytest.raises(TypeError, match="colour"):
        logic.synthesizeFile(head.t1w, head.flair, tmp_path / "x.nii.gz", colour=1)


def test_pairs_are_found_by_name(tmp_path):
    for name in (
        "bids/sub-1_ses-1_T1w.nii.gz",
        "bids/sub-1_ses-1_FLAIR.nii.gz",
        "bids/sub-1_ses-2_T1w.nii.gz",
        "bids/sub-1_ses-2_FLAIR.nii.gz",
        "bids/sub-1_ses-2_T1w.json",
        "plain/T1.nii",
        "plain/t2flair.nrrd",
        "half/T1w.nii.gz",
        "odd/mprage.mha",
        "odd/FLAIR_axial.mha",
        "none/bold.nii.gz",
        "odd/._mprage.mha",
        "odd/._FLAIR_axial.mha",
        "bids/._sub-1_ses-1_T1w.nii.gz",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    found = [(t1.relative_to(tmp_path).as_posix(), flair.name) for t1, flair in Batch.findPairs(tmp_path)]
    assert found == [
        ("bids/sub-1_ses-1_T1w.nii.gz", "sub-1_ses-1_FLAIR.nii.gz"),
        ("bids/sub-1_ses-2_T1w.nii.gz", "sub-1_ses-2_FLAIR.nii.gz"),
        ("odd/mprage.mha", "FLAIR_axial.mha"),
        ("plain/T1.nii", "t2flair.nrrd"),
    ]
    assert Batch.outputFile(Path("a/sub-1_T1w.nii.gz"), None, None) == Path("a/sub-1_PSR.nii.gz")
    assert Batch.outputFile(Path("r/a/brain.mha"), Path("r"), "out") == Path("out/a/brain_PSR.nii.gz")


# --- console -------------------------------------------------------------------------------------------------------


def test_the_snippets_of_the_console_page_run(logic, images, head, tmp_path, monkeypatch, capsys):
    """Every snippet of docs/console.md, in order, with the tiny model and small images."""
    page = (ROOT / "docs" / "console.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(snippets) >= 6
    t1, flair, mask = images
    t1.SetName("T1w")
    flair.SetName("FLAIR")
    lesions = np.zeros(array_of(t1).shape, np.uint8)
    lesions[20:23, 24:27, 18:21] = 1
    from DEMISTSlicerLib.Nodes import Voxels

    volume(lesions, Voxels.affineOf(t1), "Lesions")
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    (cohort / "a_T1w.nii.gz").write_bytes(head.t1w.read_bytes())
    (cohort / "a_FLAIR.nii.gz").write_bytes(head.flair.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slicer.util, "getModuleLogic", lambda name: {"DEMISTSlicer": logic}[name], raising=False)
    monkeypatch.setattr("DEMISTCore.bundle.DEFAULT_BUNDLE", "tiny")
    quick = {**QUICK, "brainMask": mask}
    quick.pop("seeds")
    whole, file, measure = logic.synthesize, logic.synthesizeFile, logic.computeStatistics
    monkeypatch.setattr(logic, "synthesize", lambda *a, **k: whole(*a, **{**quick, **k, "bundle": "tiny"}))
    in_file = {**quick, "brainMask": head.mask, "bundle": "tiny"}
    monkeypatch.setattr(logic, "synthesizeFile", lambda *a, **k: file(*a, **{**in_file, **k}))
    # Tissue is not segmented here: that takes longer than all the rest together.
    monkeypatch.setattr("DEMISTSlicerLib.Nodes.Volumes.t1wOf", lambda node: None)
    monkeypatch.setattr(logic, "computeStatistics", lambda psr, lesions=None, **k: measure(psr, lesions))
    namespace: dict = {"slicer": slicer}
    for snippet in snippets:
        exec(compile(snippet, "docs/console.md", "exec"), namespace)
    assert namespace["result"].psr is not None
    assert (cohort / "a_PSR.nii.gz").exists() or list(tmp_path.rglob("a_PSR.nii.gz"))


# --- end to end ----------------------------------------------------------------------------------------------------


def thick_pair() -> tuple:
    """A made-up brain with a lesion as two thick-slice scans on different oblique grids, and where the lesion is."""
    rng = np.random.default_rng(8)

    def scan(shape, spacing, degrees, tilt, values, noise):
        """Sample the brain, which is given in world coordinates, on a grid."""
        lean = np.eye(4)
        c, s = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
        lean[1:3, 1:3] = [[c, -s], [s, c]]
        affine = turn(degrees) @ lean @ np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
        affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2) + [3, -4, 5]
        index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
        x, y, z = np.moveaxis(index @ affine[:3, :3].T + affine[:3, 3] - [3, -4, 5], -1, 0)
        folds = 0.06 * np.sin(x / 3) * np.sin(y / 3 + 1) * np.sin(z / 4)
        radius = np.sqrt((x / 27) ** 2 + (y / 32) ** 2 + (z / 25) ** 2)
        fluid = np.sqrt((x / 6) ** 2 + ((y - 2) / 11) ** 2 + (z / 6) ** 2) < 1
        lesion = np.sqrt((x - 13) ** 2 + (y + 4) ** 2 + (z - 3) ** 2) < 4.5
        image = np.select([lesion, fluid, radius < 0.78 + folds, radius < 1], values, 0.0)
        image = np.where(radius < 1, image + rng.normal(0, noise, shape), 0.0)
        return np.maximum(image, 0).astype(np.int16), affine, lesion

    t1w, place, lesion = scan((60, 70, 22), (1.0, 1.0, 2.8), 12, 9, [620.0, 220.0, 900.0, 640.0], 14)
    flair, other, _ = scan((48, 56, 16), (1.3, 1.3, 4.0), -6, 4, [820.0, 110.0, 430.0, 560.0], 12)
    return (t1w, place), (flair, other), lesion


def check_end_to_end(logic, t1, flair, **options) -> None:
    """Synthesis, then statistics, of two nodes; all that must hold for any pair."""
    assert array_of(t1).shape != array_of(flair).shape
    result = logic.synthesize(t1, flair, **options)
    shape = array_of(t1).shape
    rng = np.random.default_rng(0)
    for node in (result.psr, result.uncertainty):
        assert array_of(node).shape == shape
        for ijk in rng.uniform(0, 1, (50, 3)) * (np.array(shape) - 1):
            assert_same_place(node, t1, ijk)
    psr = array_of(result.psr)
    brain = psr > 0
    assert brain.any()
    assert not brain.all()
    # Over the T1w's brain, not over its background or anywhere else.
    t1w = array_of(t1).astype(float)
    assert t1w[brain].mean() > 2 * t1w[~brain].mean()
    measured = logic.computeStatistics(result.psr, t1=t1, flair=flair)
    assert measured.suggested
    assert measured.table.GetNumberOfRows() == len(measured.rows) > 0
    rows = {row["region"]: row for row in measured.rows if row["lesion"] is None}
    assert rows["white_matter"]["volume_ml"] > rows["white_matter"]["missing"] >= 0
    assert 0 < rows["white_matter"]["mean"] < 0.5
    assert measured.boxPlot is not None
    return result, measured


def test_end_to_end_on_thick_oblique_scans(logic, scene):
    t1w, flair, lesion = thick_pair()
    t1, fl = volume(*t1w, "Thick T1w"), volume(*flair, "Thick FLAIR")
    _result, measured = check_end_to_end(logic, t1, fl, bundle="tiny", device="cpu", seeds=2)
    assert measured.segmentation is not None
    from DEMISTSlicerLib.Nodes.Segmentation import isSuggested, segmentationToLabelmap

    assert isSuggested(logic.suggestLesions(t1, fl, lesions=measured.segmentation))  # nobody has checked them yet
    found = segmentationToLabelmap(measured.segmentation, t1) > 0
    # The lesion is where it was drawn. The head is no anatomy: how good suggestions are is tested with the regions.
    assert (found & lesion).sum() > 0.5 * lesion.sum()
    assert found.sum() < 0.1 * (t1w[0] > 0).sum()


DATA = ROOT.parent / "shared" / "data" / "open_ms_raw" / "patient01"


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the real patient's images (open_ms_raw/patient01) are not here")
def test_end_to_end_on_a_real_patient(logic, scene):
    t1, flair = load(DATA / "T1w.nii.gz", "T1w"), load(DATA / "FLAIR.nii.gz", "FLAIR")
    result, measured = check_end_to_end(logic, t1, flair, bundle="demist-sim", device="cpu", seeds=2, steps=2)
    volume_ml = result.provenance["summary"]["brain_volume_ml"]
    assert 900 < volume_ml < 2000
    rows = {row["region"]: row for row in measured.rows if row["lesion"] is None}
    assert rows["white_matter"]["mean"] > rows["grey_matter"]["mean"] > rows["csf"]["mean"]
