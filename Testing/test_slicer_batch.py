"""Pairs found by study, in the scene, in a DICOM database and in a folder; and many of them run from the panel."""

from __future__ import annotations

from pathlib import Path
from shutil import copy

import numpy as np
import pytest
import slicer_app

slicer_app.install()

import slicer  # noqa: E402
from DEMISTSlicerLib.Nodes import Inputs, Studies  # noqa: E402
from DEMISTSlicerLib.Run.Batch import findStudies  # noqa: E402
from PySide6.QtCore import Qt  # noqa: E402
from PySide6.QtTest import QTest  # noqa: E402
from slicer_runs import LONG, volume  # noqa: E402


def image(name: str, slices: int = 20):
    return volume(np.ones((8, 8, slices), np.int16), np.eye(4), name)


def test_studies_of_the_scene_by_the_subject_hierarchy():
    scene = slicer_app.fresh_scene()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    nodes = {}
    for patient, study, names in (
        ("Ana", "2024-01-05", ("MPRAGE", "FLAIR 3D")),
        ("Ana", "2025-01-09", ("MPRAGE sag", "FLAIR ax thick", "FLAIR sag")),
        ("Ben", "2024-03-01", ("MPRAGE", "T2 TSE")),
        ("Cem", "2024-04-01", ("MPRAGE", "FLAIR a", "FLAIR b")),
        ("Dia", "2024-05-01", ("bold", "dwi")),
    ):
        top = hierarchy.GetItemChildWithName(hierarchy.GetSceneItemID(), patient)
        top = top or hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), patient)
        visit = hierarchy.CreateStudyItem(top, study)
        for name in names:
            node = image(name, 12 if "thick" in name else 40)
            nodes[patient, study, name] = node
            hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(visit, node), visit)
    found = {study.name: study for study in Studies.sceneStudies(scene)}
    assert list(found) == ["Ana / 2024-01-05", "Ana / 2025-01-09", "Ben / 2024-03-01", "Cem / 2024-04-01"]
    first, second, ben, cem = found.values()
    assert first.t1 is nodes["Ana", "2024-01-05", "MPRAGE"]
    assert first.flair is nodes["Ana", "2024-01-05", "FLAIR 3D"]
    assert second.flair is nodes["Ana", "2025-01-09", "FLAIR sag"]  # the one with more slices
    assert (first.problem, second.problem) == ("", "")
    assert ben.problem == "There is no FLAIR in this study."
    assert "2 images look like the FLAIR (FLAIR a, FLAIR b)" in cem.problem
    assert cem.flair is None


class Database:
    """Answers as ctkDICOMDatabase does, from DICOM files that pydicom reads."""

    isOpen, databaseFilename = True, "files"

    def __init__(self, folder: Path) -> None:
        from pydicom import dcmread

        self.headers = [dcmread(path, stop_before_pixels=True) for path in sorted(folder.rglob("*.dcm"))]
        self.asked = 0

    def _values(self, name: str, **given: str) -> list[str]:
        kept = [h for h in self.headers if all(str(h.get(key)) == value for key, value in given.items())]
        return list(dict.fromkeys(str(h.get(name)) for h in kept))

    def patients(self) -> list[str]:
        return self._values("PatientID")

    def studiesForPatient(self, patient: str) -> list[str]:
        return self._values("StudyInstanceUID", PatientID=patient)

    def seriesForStudy(self, study: str) -> list[str]:
        return self._values("SeriesInstanceUID", StudyInstanceUID=study)

    def instancesForSeries(self, series: str) -> list[str]:
        return self._values("SOPInstanceUID", SeriesInstanceUID=series)

    def instanceValue(self, instance: str, tag: str) -> str:
        self.asked += 1
        header = next(h for h in self.headers if h.SOPInstanceUID == instance)
        element = header.get(tuple(int(part, 16) for part in tag.split(",")))
        return "" if element is None or element.value is None else str(element.value)


def write_series(folder: Path, patient: str, study: str, number: int, description: str, count: int = 12, **more) -> str:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

    series = f"1.2.3.{study}.{number}"
    folder.mkdir(exist_ok=True)
    for instance in range(1, count + 1):
        header = Dataset()
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.SOPClassUID, header.SOPInstanceUID = MRImageStorage, f"{series}.{instance}"
        header.PatientID, header.PatientName = patient, f"{patient}^Test"
        header.StudyInstanceUID, header.StudyDate = f"1.2.3.{study}", "20240105"
        header.SeriesInstanceUID, header.SeriesDescription, header.Modality = series, description, "MR"
        for name, value in more.items():
            setattr(header, name, value)
        header.save_as(folder / f"{series}.{instance}.dcm", enforce_file_format=True)
    return series


def test_pairs_of_the_dicom_database_by_study(tmp_path, monkeypatch):
    monkeypatch.setattr(Inputs, "_KNOWN", {})
    t1 = write_series(tmp_path, "A", "1", 1, "t1_mprage_sag")
    flair = write_series(tmp_path, "A", "1", 2, "t2_spc_dark-fluid_sag", InversionTime=1800, EchoTime=390)
    write_series(tmp_path, "A", "1", 3, "t2_spc_dark-fluid_tra", count=6)  # a reformat of it
    write_series(tmp_path, "A", "1", 4, "localizer", count=3)
    write_series(tmp_path, "A", "2", 1, "t1_mprage_sag")
    write_series(tmp_path, "B", "3", 1, "MPRAGE")
    write_series(tmp_path, "B", "3", 2, "FLAIR one")
    write_series(tmp_path, "B", "3", 3, "FLAIR two")
    write_series(tmp_path, "B", "4", 1, "CT head", Modality="CT")
    database = Database(tmp_path)
    found = list(Studies.databaseStudies(database))
    assert [(study.name, bool(study.problem), study.isDicom) for study in found] == [
        ("A Test 2024-01-05", False, True),
        ("A Test 2024-01-05", True, True),
        ("B Test 2024-01-05", True, True),
    ]
    assert (found[0].t1, found[0].flair) == (t1, flair)
    assert found[0].images == "t1_mprage_sag + t2_spc_dark-fluid_sag"
    assert found[1].problem == "There is no FLAIR in this study."
    assert "FLAIR one, FLAIR two" in found[2].problem
    asked = database.asked
    assert list(Studies.databaseStudies(database)) == found
    assert database.asked == asked  # the disk is left alone


def test_an_image_without_its_other_is_told(tmp_path):
    for name in ("a/sub-1_T1w.nii.gz", "a/sub-1_FLAIR.nii.gz", "a/sub-2_T1w.nii.gz", "b/FLAIR.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = findStudies(tmp_path)
    assert [(study.name, study.problem) for study in found] == [
        ("a/sub-1_T1w", ""),
        ("a/sub-2_T1w", "sub-2_T1w.nii.gz has no FLAIR beside it that is named alike."),
        ("b/FLAIR", "FLAIR.nii.gz has no T1w beside it that is named alike."),
    ]


@pytest.fixture
def panel(tiny_bundle):
    """The module in a window, the tiny model chosen."""
    slicer_app.fresh_scene()
    parent = slicer_app.open_module().widgetRepresentation()
    widget = parent.self()
    widget._asked = True
    parent.resize(420, 2000)
    widget.ui.batchCollapsibleButton.collapsed = False
    parent.show()
    parent.enter()
    widget.bundles.refresh(str(tiny_bundle))
    widget._onBundleChosen(str(tiny_bundle))
    slicer_app.process_events()
    yield widget
    slicer_app.close_module()
    slicer_app.fresh_scene()


def states(panel) -> list[str]:
    table = panel.ui.batchTable
    return [table.item(row, 1).text() for row in range(table.rowCount)]


def click(button) -> None:
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)
    slicer_app.process_events(0.02)


def test_a_folder_from_the_panel(panel, head, tmp_path, monkeypatch):
    ui, out = panel.ui, tmp_path / "maps"
    for subject in ("sub-1", "sub-2", "sub-3"):
        place = tmp_path / "in" / subject
        place.mkdir(parents=True)
        copy(head.t1w, place / f"{subject}_T1w.nii.gz")
        if subject != "sub-2":
            copy(head.flair, place / f"{subject}_FLAIR.nii.gz")
    (tmp_path / "in" / "sub-3" / "sub-3_FLAIR.nii.gz").write_bytes(b"")
    boxes = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda *told, **more: boxes.append(told))
    from dataclasses import replace

    usual = panel.sampling.options
    # The small head has no skull to be taken away.
    quick = {
        "register": False,
        "bias_correct": False,
        "skull_strip": "none",
        "any_brain_volume": True,
        "mode": "sample",
        "seeds": (0,),
    }
    monkeypatch.setattr(panel.batch, "_options", lambda: replace(usual(), **quick))
    assert not ui.batchButton.enabled
    ui.batchFolderEdit.text, ui.batchOutputEdit.text = str(tmp_path / "in"), str(out)
    panel.batch.update()
    click(ui.findBatchButton)
    assert ui.batchLabel.text == "Pairs: 2. Without a pair: 1."
    click(ui.batchButton)
    assert not ui.applyButton.enabled
    assert ui.cancelButton.enabled
    assert slicer_app.wait_until(lambda: not panel.batch.isRunning, LONG)
    slicer_app.process_events(0.05)
    first, second, third = states(panel)
    assert first.startswith("done in"), states(panel)
    assert "has no FLAIR beside it" in second
    assert third.startswith("failed:")
    assert "empty file" in third
    assert ui.batchLabel.text == "1 done, 0 there already, 2 failed, 0 not begun."
    assert (out / "sub-1" / "sub-1_PSR.nii.gz").is_file()
    assert boxes == []  # a box would have held up the others
    assert panel._parameterNode.psr is None  # the scene is as it was
    click(ui.batchButton)
    assert slicer_app.wait_until(lambda: not panel.batch.isRunning, LONG)
    assert states(panel)[0] == "there already"
    assert ui.batchButton.enabled


def test_a_pair_is_taken_as_inputs(panel):
    t1, flair = image("Ana MPRAGE"), image("Ana FLAIR")
    image("bold")
    box = panel.ui.batchSourceComboBox
    box.setFocus()
    QTest.keyClick(box, Qt.Key.Key_Down)
    assert box.currentText == "Studies in the scene"
    assert not panel.ui.batchFolderEdit.isVisible()
    click(panel.ui.findBatchButton)
    assert panel.ui.batchTable.rowCount == 1
    assert not panel.ui.useBatchButton.enabled
    panel.ui.batchTable.selectRow(0)
    panel._parameterNode.t1 = panel._parameterNode.flair = None
    click(panel.ui.useBatchButton)
    assert (panel._parameterNode.t1, panel._parameterNode.flair) == (t1, flair)
