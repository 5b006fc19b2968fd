"""DICOM from the module: a map is written by the worker, and Slicer's own export refuses to write zeros."""

from __future__ import annotations

import types

import numpy as np
import pytest
import slicer_app

slicer_app.install()

import slicer  # noqa: E402
from DEMISTSlicerLib.Nodes.Volumes import createPsrVolume  # noqa: E402
from DEMISTSlicerLib.Panel import DicomGuard  # noqa: E402

pytest.importorskip("highdicom")

AFFINE = np.array([[-1.0, 0, 0, 20], [0, -1.2, 0, 30], [0, 0, 2.0, -10], [0, 0, 0, 1]])


@pytest.fixture
def psr():
    slicer_app.fresh_scene()
    t1 = slicer.util.addVolumeFromArray(np.ones((6, 8, 10), np.int16), AFFINE, "T1w")
    array = np.random.default_rng(1).uniform(0, 0.2, (10, 8, 6)).astype(np.float32)
    yield createPsrVolume(t1, array, AFFINE, {"statement": "Synthesized.", "bundle": {"name": "tiny"}})
    slicer_app.fresh_scene()


def test_a_map_and_drawn_lesions_are_written_by_the_worker(psr, tmp_path):
    import highdicom
    from slicer_runs import logic_with

    lesions = np.zeros((6, 8, 10), np.uint8)  # K, J, I
    lesions[2:4, 3:5, 4:7] = 1
    mask = slicer.util.addVolumeFromArray(lesions, AFFINE, "lesions", "vtkMRMLLabelMapVolumeNode")
    before = slicer.mrmlScene.GetNumberOfNodes()
    with logic_with(tmp_path) as logic:
        result = logic.exportDicom(psr, tmp_path / "out", lesions=mask)
    assert set(result.files) == {"psr", "regions"}
    assert slicer.mrmlScene.GetNumberOfNodes() == before
    volume = highdicom.imread(result.files["psr"]).get_volume(apply_real_world_transform=True)
    assert np.abs(np.sort(volume.array.ravel()) - np.sort(slicer.util.arrayFromVolume(psr).ravel())).max() < 1e-6
    assert highdicom.seg.segread(result.files["regions"]).number_of_segments == 1


def test_a_measured_map_comes_with_its_regions_and_a_report(psr, tmp_path):
    import highdicom
    from DEMISTSlicerLib.Nodes import Placement, Segmentation, Tables
    from slicer_runs import logic_with

    masks = {key: np.zeros((10, 8, 6), np.uint8) for key in Segmentation.STYLES}  # I, J, K
    masks["lesion"][4:7, 3:5, 2:4] = masks["nawm_proximal"][4:7, 5:7, 2:4] = masks["nawm_distal"][0:2, 0:3, 1:3] = 1
    regions = Segmentation.regionsToSegmentation(masks, psr)
    rows = [
        {"region": key, "lesion": None, "name": key, "volume_ml": 1.5, "mean": 0.1 + 0.01 * i}
        for i, key in enumerate(masks)
    ]
    table = Tables.statisticsTable(rows, list(rows[0]), volumeNode=psr)
    table.SetNodeReferenceID(Placement.SEGMENTATION_REFERENCE, regions.GetID())
    with logic_with(tmp_path) as logic:
        result = logic.exportDicom(psr, tmp_path / "out", table=table)
        assert set(result.files) == {"psr", "regions", "report"}
        logic._statistics._stamps[regions.GetID()] = ()  # as if somebody had drawn in it since it was measured
        assert "report" not in logic.exportDicom(psr, tmp_path / "edited", table=table).files
    segments = highdicom.seg.segread(result.files["regions"])
    assert segments.number_of_segments == 3
    for number, key in enumerate(masks, start=1):
        array = segments.get_volume(segment_numbers=[number]).array
        assert (array > 0).sum() == masks[key].sum()
    groups = highdicom.sr.srread(result.files["report"]).content.get_volumetric_roi_measurement_groups()
    told = [m.value for group in groups for m in group.get_measurements() if m.derivation is not None]
    assert told == pytest.approx([0.10, 0.11, 0.12])


def test_slicers_own_export_refuses_maps_and_nothing_else(psr, monkeypatch):
    exported = []

    class DICOMScalarVolumePluginClass:
        def export(self, exportables):
            exported.append(exportables)
            return ""

        def examineForExport(self, item):
            return [item]

    plugins = {DicomGuard.PLUGIN: DICOMScalarVolumePluginClass}
    monkeypatch.setattr(slicer.modules, "dicomPlugins", plugins, raising=False)
    assert DicomGuard.guard()
    guarded = plugins[DicomGuard.PLUGIN]
    assert DicomGuard.guard()
    assert plugins[DicomGuard.PLUGIN] is guarded  # once
    assert guarded.__name__ == "DICOMScalarVolumePluginClass"
    plugin = guarded()
    assert plugin.examineForExport(3) == [3]
    t1 = slicer.util.getNode("T1w")
    scan, result = (types.SimpleNamespace(nodeID=node.GetID()) for node in (t1, psr))
    assert plugin.export([scan]) == ""
    told = plugin.export([scan, result])
    assert psr.GetName() in told
    assert "Parametric Map" in told
    assert exported == [[scan]]
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    by_item = types.SimpleNamespace(subjectHierarchyItemID=hierarchy.GetItemByDataNode(psr))
    assert "Parametric Map" in plugin.export([by_item])  # as newer versions of Slicer name them
    monkeypatch.setattr(slicer.modules, "dicomPlugins", {}, raising=False)
    assert not DicomGuard.guard()
