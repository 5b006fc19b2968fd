"""DICOM written here, read back by pydicom and highdicom: the same numbers, in the same place, of the same patient."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("highdicom")
import highdicom
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from DEMISTCore.dicom import export, read_series, write_parametric_map, write_report, write_segmentation
from DEMISTCore.dicom.study import made_up
from DEMISTCore.errors import InputError
from DEMISTCore.volume import Volume

ROOT = Path(__file__).parents[1]
SHAPE = (7, 9, 5)


def oblique(flips: tuple[int, int, int] = (1, 1, 1), order: tuple[int, int, int] = (0, 1, 2)) -> np.ndarray:
    """An oblique grid of 0.9 x 1.1 x 2.5 mm whose axes point and follow each other as asked for."""
    a, b = 0.3, -0.2
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    turn = turn @ np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = (turn @ np.diag(np.array(flips) * (0.9, 1.1, 2.5)))[:, order]
    affine[:3, 3] = (12.5, -33.0, 41.7)
    return affine


def a_map(affine: np.ndarray) -> Volume:
    array = np.random.default_rng(0).uniform(0, 0.25, SHAPE).astype(np.float32)
    array[0] = 0
    return Volume(array, affine)


@pytest.fixture
def series(tmp_path):
    """A T1w series as scanners write it, three slices, in a folder with a stray text file."""
    folder, shared = tmp_path / "T1w", {"study": generate_uid(), "series": generate_uid(), "frame": generate_uid()}
    folder.mkdir()
    (folder / "notes.txt").write_text("not an image")
    for number in (3, 1, 2):
        header = pydicom.Dataset()
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = MRImageStorage
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = generate_uid()
        header.StudyInstanceUID, header.SeriesInstanceUID = shared["study"], shared["series"]
        header.FrameOfReferenceUID, header.PositionReferenceIndicator = shared["frame"], ""
        header.PatientName, header.PatientID, header.Modality = "Doe^Jane", "MS-17", "MR"
        header.ImageOrientationPatient, header.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, number]
        header.PixelSpacing = [1, 1]
        header.InstanceNumber, header.Rows, header.Columns = number, 4, 4
        header.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


def values_and_place(path) -> tuple[np.ndarray, np.ndarray]:
    """What highdicom reads: (X, Y, Z) values in world units, and the place of each voxel, RAS mm (X, Y, Z, 3)."""
    volume = highdicom.imread(path).get_volume(apply_real_world_transform=True)
    array = np.moveaxis(volume.array, (0, 1, 2), (2, 1, 0))
    index = np.stack(np.meshgrid(*(np.arange(n) for n in volume.array.shape), indexing="ij"), -1).reshape(-1, 3)
    world = (index @ volume.affine[:3, :3].T + volume.affine[:3, 3]) * (-1, -1, 1)
    return array, np.moveaxis(world.reshape(*volume.array.shape, 3), (0, 1, 2), (2, 1, 0))


def where(volume: Volume) -> np.ndarray:
    index = np.stack(np.meshgrid(*(np.arange(n) for n in volume.shape), indexing="ij"), -1)
    return index @ volume.affine[:3, :3].T + volume.affine[:3, 3]


def sorted_by_place(values: np.ndarray, world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    flat = np.round(world.reshape(-1, 3), 3)
    order = np.lexsort(flat.T)
    return flat[order], values.reshape(-1)[order]


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, -1, 1), (-1, 1, -1), (1, 1, -1)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_a_map_reads_back_to_the_same_numbers_in_the_same_place(tmp_path, series, flips, order):
    psr = a_map(oblique(flips, order))
    path = write_parametric_map(psr, tmp_path / "psr.dcm", read_series(series))
    values, world = values_and_place(path)
    places, numbers = sorted_by_place(values, world)
    expected_places, expected = sorted_by_place(psr.array, where(psr))
    assert np.abs(places - expected_places).max() < 2e-3
    assert np.abs(numbers - expected).max() < 1e-6


def test_what_the_header_says(tmp_path, series):
    psr = a_map(oblique())
    told = {"bundle": {"name": "demist-sim"}, "statement": "Synthesized."}
    header = pydicom.dcmread(write_parametric_map(psr, tmp_path / "psr.dcm", read_series(series), provenance=told))
    scan = pydicom.dcmread(series / "1.dcm")
    assert header.SOPClassUID.name == "Parametric Map Storage"
    for name in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert header[name].value == scan[name].value
    assert header.SeriesInstanceUID != scan.SeriesInstanceUID
    assert "FloatPixelData" in header
    assert "research only" in header.SeriesDescription
    assert "demist-sim" in header.ContentDescription
    (shared,) = header.SharedFunctionalGroupsSequence
    (mapping,) = shared.RealWorldValueMappingSequence
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    quantity = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0]
    assert (quantity.CodeValue, quantity.CodingSchemeDesignator) == ("PSR", "99DEMIST")


def test_regions_read_back_as_they_were_and_overlap_where_they_did(tmp_path, series):
    grid = oblique((-1, -1, 1))
    lesion, white = np.zeros(SHAPE, np.uint8), np.ones(SHAPE, np.uint8)
    lesion[2:4, 3:6, 1:3] = 7
    masks = {
        "lesion": Volume(lesion, grid),
        "nawm": Volume(white, grid),
        "nawm_distal": Volume(lesion * 0, grid),
        "grey_matter": Volume(white, grid),
    }
    for suggested, name in ((False, "MS lesions"), (True, "MS lesions (suggested)")):
        path = write_segmentation(masks, tmp_path / "seg.dcm", read_series(series), suggested=suggested)
        read = highdicom.seg.segread(path)
        assert [read.get_segment_description(number).segment_label for number in read.segment_numbers] == [name, "NAWM"]
        for number, mask in ((1, lesion), (2, white)):
            volume = read.get_volume(segment_numbers=[number])
            array = volume.array[..., 0] if volume.array.ndim == 4 else volume.array
            index = np.argwhere(array > 0)
            world = (index @ volume.affine[:3, :3].T + volume.affine[:3, 3]) * (-1, -1, 1)
            expected = np.argwhere(mask > 0) @ grid[:3, :3].T + grid[:3, 3]
            assert len(world) == len(expected)
            ordered = [np.round(a, 2)[np.lexsort(np.round(a, 2).T)] for a in (world, expected)]
            assert np.abs(ordered[0] - ordered[1]).max() < 0.02
    with pytest.raises(InputError, match="no lesions and no regions"):
        write_segmentation({"lesion": Volume(lesion * 0, grid)}, tmp_path / "x.dcm", read_series(series))
    assert not (tmp_path / "x.dcm").exists()


def test_all_of_a_subject_is_exported_with_and_without_a_series(tmp_path, series):
    psr = a_map(oblique())
    lesion = Volume((psr.array > 0.2).astype(np.uint8), psr.affine)
    written = export(tmp_path / "out", psr=psr, uncertainty=psr, masks={"lesion": lesion}, series=series)
    assert {kind: path.name for kind, path in written.items()} == {
        "psr": "psr.dcm",
        "uncertainty": "psr_uncertainty.dcm",
        "regions": "regions.dcm",
    }
    assert len({pydicom.dcmread(path).SeriesInstanceUID for path in written.values()}) == 3
    alone = export(tmp_path / "alone", psr=psr, masks={"lesion": psr.with_array(np.zeros(SHAPE))}, patient="Sim 1")
    assert list(alone) == ["psr"]
    assert pydicom.dcmread(alone["psr"]).PatientID == "Sim 1"
    assert np.abs(values_and_place(alone["psr"])[0].sum() - psr.array.sum()) < 1e-3
    if shutil.which("dcmdump"):
        shown = subprocess.run(["dcmdump", str(alone["psr"])], capture_output=True, text=True, check=True).stdout
        assert "ParametricMapStorage" in shown


def measured(region: str, mean: float, lesion: int | None = None) -> dict:
    return {
        "region": region,
        "lesion": lesion,
        "volume_ml": 3.25,
        "mean": mean,
        "mean_ci90_low": mean - 0.01,
        "mean_ci90_high": mean + 0.02,
        "sd": float("nan"),
        "median": mean + 0.001,
        "min": 0.01,
        "max": None,
    }


def numbers_of(report) -> dict[str, dict[tuple[str, str], float]]:
    """What a report says, by what it is about: value by name and derivation."""
    found = {}
    for group in highdicom.sr.srread(report).content.get_volumetric_roi_measurement_groups():
        told = found.setdefault(group.tracking_identifier, {})
        for measurement in group.get_measurements():
            derived = measurement.derivation.meaning if measurement.derivation else ""
            told[measurement.name.meaning, derived] = measurement.value
        told["segment"] = group.reference_type and group.referenced_segment
    return found


def test_the_table_is_a_report_about_the_segments(tmp_path, series):
    psr = a_map(oblique())
    lesion = Volume((psr.array > 0.2).astype(np.uint8), psr.affine)
    near = Volume((psr.array < 0.1).astype(np.uint8), psr.affine)
    rows = [measured("lesion", 0.08), measured("nawm_proximal", 0.12), measured("csf", 0.001)]
    rows.append(measured("lesion", 0.07, 1))
    masks = {"lesion": lesion, "nawm_proximal": near}
    written = export(tmp_path / "out", psr=psr, masks=masks, rows=rows, series=series, suggested=True)
    header, scan = pydicom.dcmread(written["report"]), pydicom.dcmread(series / "1.dcm")
    assert header.SOPClassUID.name == "Comprehensive SR Storage"
    assert (header.StudyInstanceUID, header.PatientID) == (scan.StudyInstanceUID, scan.PatientID)
    assert header.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    found = numbers_of(written["report"])
    assert list(found) == ["MS lesions (suggested)", "Proximal NAWM"]
    told = found["MS lesions (suggested)"]
    assert told["Volume", ""] == pytest.approx(3.25)
    assert told["Pool size ratio", "Mean"] == pytest.approx(0.08, abs=1e-6)
    assert told["Pool size ratio", "Median"] == pytest.approx(0.081, abs=1e-6)
    assert ("Pool size ratio", "Standard Deviation") not in told  # it is not known
    regions = pydicom.dcmread(written["regions"])
    assert told["segment"].referenced_sop_instance_uid == regions.SOPInstanceUID
    text = str(header)
    for reach in ("0.01", "0.02"):
        assert f"'{reach}" in text or f" {reach}" in text
    with pytest.raises(InputError, match="no row about a region"):
        write_report([measured("csf", 0.0)], tmp_path / "x.dcm", read_series(series), written["regions"])
    if shutil.which("dsrdump"):
        shown = subprocess.run(["dsrdump", str(written["report"])], capture_output=True, text=True, check=True).stdout
        assert "Imaging Measurement Report" in shown
        assert "Pool size ratio" in shown


def dumped(path, tag: str) -> list[list[str]]:
    """What DCMTK's ``dcmdump`` prints of an attribute, each time that it is there: its values."""
    command = ["dcmdump", "+L", "+P", tag, str(path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line.split("#")[0].split(None, 2)[2].strip() for line in text.splitlines() if line.startswith("(")]
    return [line.strip("[]").split("\\") for line in lines]


def as_dcmtk_sees(path, pixels: str) -> tuple[np.ndarray, np.ndarray]:
    """Values of a multi-frame image in stored order, and where each voxel lies (RAS mm), from ``dcmdump`` alone."""
    (rows,), (columns,) = (dumped(path, tag)[0] for tag in ("0028,0010", "0028,0011"))
    (frames,) = dumped(path, "0028,0008")[0]
    (stored,) = dumped(path, pixels)
    count = int(frames) * int(rows) * int(columns)
    if pixels == "7fe0,0008":
        values = np.array([float(value) for value in stored], np.float32)
    else:  # a bit a voxel, the lowest of each byte first
        octets = np.array([int(value, 16) for value in stored], np.uint8)
        values = np.unpackbits(octets, bitorder="little")[:count]
    turn = np.array(dumped(path, "0020,0037")[0], float).reshape(2, 3)
    down, across = map(float, dumped(path, "0028,0030")[0])  # between rows, between columns
    corners = np.array(dumped(path, "0020,0032"), float)
    assert len(corners) == int(frames)
    row, column = np.mgrid[: int(rows), : int(columns)]
    plane = column[..., None] * across * turn[0] + row[..., None] * down * turn[1]
    world = corners[:, None, None] + plane
    assert values.size == count
    return values, world.reshape(-1, 3) * (-1, -1, 1)


@pytest.mark.skipif(not shutil.which("dcmdump"), reason="dcmtk is not installed")
@pytest.mark.parametrize(
    ("flips", "order"), [((-1, -1, 1), (0, 1, 2)), ((1, 1, 1), (0, 1, 2)), ((1, -1, 1), (2, 0, 1))]
)
def test_dcmtk_reads_the_same_numbers_in_the_same_place(tmp_path, series, flips, order):
    """DCMTK knows nothing of this package or of pydicom. By the command, with a whole-grid map and lesions in it."""
    psr = a_map(oblique(flips, order))
    lesion = Volume((psr.array > 0.2).astype(np.uint8), psr.affine)
    psr.write(tmp_path / "psr.nii.gz")
    lesion.write(tmp_path / "lesions.nii.gz")
    told = ["--psr", "psr.nii.gz", "--lesions", "lesions.nii.gz", "--series", str(series), "--out", "out"]
    command = [sys.executable, "-m", "DEMISTCore.dicom", *told]
    subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    out = tmp_path / "out"
    for file, pixels, volume in (("psr", "7fe0,0008", psr), ("regions", "7fe0,0010", lesion)):
        path = out / f"{file}.dcm"
        places, numbers = sorted_by_place(*as_dcmtk_sees(path, pixels))
        expected_places, expected = sorted_by_place(volume.array, where(volume))
        if file == "regions":  # frames without a lesion may be left out
            there = expected > 0
            expected_places, expected, places = expected_places[there], expected[there], places[numbers > 0]
            numbers = numbers[numbers > 0]
        assert places.shape == expected_places.shape
        assert np.abs(places - expected_places).max() < 2e-3
        assert np.abs(numbers - expected).max() < 1e-6
    assert dumped(out / "psr.dcm", "0040,9225") == [["1"]]  # slope of the real-world value mapping
    assert dumped(out / "psr.dcm", "0040,9224") == [["0"]]  # and its intercept
    assert dumped(out / "regions.dcm", "0062,0005") == [["MS lesions"]]


def test_what_cannot_be_written_is_told(tmp_path, series):
    psr = a_map(oblique())
    sheared = psr.affine.copy()
    sheared[0, 1] += 0.3
    headers = made_up(psr)
    with pytest.raises(InputError, match="sheared"):
        write_parametric_map(Volume(psr.array, sheared), tmp_path / "a.dcm", headers)
    with pytest.raises(InputError, match="not finite"):
        write_parametric_map(Volume(np.full(SHAPE, np.nan, np.float32), psr.affine), tmp_path / "a.dcm", headers)
    with pytest.raises(InputError, match="holds no DICOM"):
        read_series(tmp_path / "nowhere")
    lost = pydicom.dcmread(shutil.copytree(series, tmp_path / "lost") / "2.dcm")
    del lost.FrameOfReferenceUID
    lost.save_as(tmp_path / "lost" / "2.dcm")
    with pytest.raises(InputError, match="where they lie"):
        read_series(tmp_path / "lost")
    other = pydicom.dcmread(series / "1.dcm")
    other.SeriesInstanceUID = generate_uid()
    other.save_as(series / "4.dcm", enforce_file_format=True)
    with pytest.raises(InputError, match="several series"):
        read_series(series)
    assert list(tmp_path.glob("*.dcm")) == []
