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
