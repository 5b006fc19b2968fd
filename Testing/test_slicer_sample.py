"""The simulated patient of the Sample Data module: made here, no download. Real MRML, real simulator."""

from __future__ import annotations

import importlib
import sys
import types

import numpy as np
import pytest

import slicer_views  # isort: skip  # puts slicer in place

import slicer
from DEMISTSlicerLib.Nodes import Placement, Segmentation, Volumes, Voxels
from DEMISTSlicerLib.Panel import SampleData
from slicer_views import grid, rigid, worldOf

from DEMISTCore import demo
from DEMISTCore.errors import InputError
from DEMISTCore.volume import Volume


@pytest.fixture
def scene():
    return slicer_views.fresh()


def small_patient(seed=1):
    """What simulate_patient returns, small: a T1w, an oblique FLAIR with thick slices, truth on the T1w's grid."""
    rng = np.random.default_rng(seed)
    here, there = grid((1, 1, 1.2)), grid((0.9, 0.9, 3), rigid((0.1, 0.05, 0), (2, 1, -3)))
    lesions = np.zeros((12, 14, 10), np.uint8)
    lesions[4:6, 5:8, 3:5] = 1
    psr = rng.uniform(0, 0.2, lesions.shape).astype(np.float32)
    return demo.Patient(
        t1w=Volume(rng.uniform(0, 900, lesions.shape).astype(np.float32), here),
        flair=Volume(rng.uniform(0, 900, (13, 15, 5)).astype(np.float32), there),
        psr=Volume(psr, here),
        labels=Volume(lesions, here),
        lesions=Volume(lesions, here),
        brain=Volume(np.ones_like(lesions), here),
        protocol={"field_strength": 3},
    )


@pytest.fixture
def sources(monkeypatch):
    """Slicer's Sample Data module is a Qt module; this takes down what is registered, as its logic does."""
    registered = []
    module = types.ModuleType("SampleData")
    module.SampleDataLogic = types.SimpleNamespace(
        registerCustomSampleDataSource=lambda **source: registered.append(source)
    )
    monkeypatch.setitem(sys.modules, "SampleData", module)
    return registered


def test_registered_with_what_slicer_wants_of_a_source(sources):
    SampleData.register("thumbnail.png")
    (source,) = sources
    # Lists of one length each, or single texts (SampleDataSource.__init__ of Slicer).
    assert all(isinstance(source[key], str) for key in ("uris", "fileNames", "nodeNames", "sampleName", "category"))
    assert "http" not in source["uris"]
    assert source["customDownloader"] is SampleData.download
    assert source["thumbnailFileName"] == "thumbnail.png"


def test_download_puts_the_patient_into_the_scene_and_the_views(scene, monkeypatch):
    monkeypatch.setattr(demo, "simulate_patient", small_patient)
    views = slicer_views.views()
    t1, flair, psr, lesions = SampleData.download(types.SimpleNamespace(sampleName=SampleData.SAMPLE))
    patient = small_patient(demo.PATIENT_SEED)
    np.testing.assert_allclose(Voxels.affineOf(flair), patient.flair.affine, atol=1e-6)
    np.testing.assert_allclose(Voxels.affineOf(t1), patient.t1w.affine, atol=1e-6)
    np.testing.assert_array_equal(Voxels.arrayFromNode(t1), np.round(patient.t1w.array))
    np.testing.assert_array_equal(Voxels.arrayFromNode(psr), patient.psr.array)
    corner = np.array([[0, 0, 0], [11, 13, 9]])
    np.testing.assert_array_equal(worldOf(psr, corner), worldOf(t1, corner))
    np.testing.assert_array_equal(Segmentation.segmentationToLabelmap(lesions, t1), patient.lesions.array)
    for node in (t1, flair, psr):
        assert node.GetAttribute("DEMIST.Synthetic") == "1"
        assert "no person was scanned" in node.GetDescription()
    assert Volumes.provenanceOf(psr)["protocol"] == {"field_strength": 3}
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folders = {hierarchy.GetItemParent(Placement.itemOf(hierarchy, node)) for node in (t1, flair, psr, lesions)}
    assert [hierarchy.GetItemName(folder) for folder in folders] == ["DEMIST simulated patient"]
    assert {v.get_background_volume_id() for v in views.values()} == {t1.GetID()}
    # A second one goes beside the first, not over it.
    again = SampleData.download()
    assert again[0].GetName() != t1.GetName()


def test_what_goes_wrong_is_told_in_a_sentence(scene, monkeypatch):
    def missing(seed):
        raise InputError("The simulation needs nilearn; install it.")

    told = []
    monkeypatch.setattr(demo, "simulate_patient", missing)
    monkeypatch.setattr(slicer.util, "errorDisplay", told.append)
    count = scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    assert SampleData.download() == []
    assert told == ["The simulation needs nilearn; install it."]
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == count


def test_the_modules_child_process_does_it_where_there_is_one(scene, monkeypatch):
    made = types.SimpleNamespace(**SampleData.createPatient(_arrays(small_patient())))
    logic = types.SimpleNamespace(simulate=lambda: made)
    monkeypatch.setattr(slicer.util, "getModuleLogic", lambda name: logic if name == "DEMISTSlicer" else None)
    assert SampleData.download() == [made.t1w, made.flair, made.psr, made.segmentation]


def test_what_goes_wrong_is_told_after_a_reload_too(scene, monkeypatch):
    """Slicer keeps the function of its start; after a reload, the logic raises errors of modules read anew."""
    monkeypatch.delitem(sys.modules, "DEMISTSlicerLib.RunError", raising=False)
    fresh = importlib.import_module("DEMISTSlicerLib.RunError")

    def simulate():
        raise fresh.RunError("memory", "There is not enough memory; close something.")

    told = []
    logic = types.SimpleNamespace(simulate=simulate)
    monkeypatch.setattr(slicer.util, "getModuleLogic", lambda name: logic)
    monkeypatch.setattr(slicer.util, "errorDisplay", told.append)
    assert SampleData.download() == []
    assert told == ["There is not enough memory; close something."]


def _arrays(patient):
    return {
        name: (getattr(patient, name).array, getattr(patient, name).affine)
        for name in ("t1w", "flair", "psr", "lesions")
    }
