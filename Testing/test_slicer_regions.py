"""Lesions and NAWM as segmentation, segmentations as labels on any grid, table, CSV, jump to a lesion. Real MRML."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import slicer_views  # isort: skip  # puts slicer in place

import slicer
import vtk
from DEMISTSlicerLib.Nodes import Segmentation, Tables, Voxels
from DEMISTSlicerLib.Views import Jump
from slicer_views import grid, rigid, transform, volume, worldOf

from DEMISTCore.colors import REGION_COLORS
from DEMISTCore.errors import InputError
from DEMISTCore.regions import REGIONS
from DEMISTCore.statistics.table import COLUMNS, write_table

SHAPE = (20, 22, 18)
ANGLE = st.floats(-1.5, 1.5)
SPACING = st.floats(0.5, 4.0)


@pytest.fixture
def scene():
    return slicer_views.fresh()


@pytest.fixture
def psr(scene):
    return volume(np.zeros(SHAPE, np.float32), grid((0.9, 1.1, 3.0), rigid((0.2, -0.1, 0.3), (10, -20, 30))), "PSR")


def masks():
    found = {key: np.zeros(SHAPE, np.uint8) for key in ("lesion", "nawm_proximal", "nawm_distal", "csf")}
    found["lesion"][3:6, 4:7, 5:8] = found["lesion"][12:14, 15:17, 10:11] = 1
    found["nawm_proximal"][7:9, 4:12, 5:9] = 1
    found["nawm_distal"][15:19, 2:9, 2:16] = 1
    found["csf"][0:2] = 1
    return found


def segments(node):
    segmentation = node.GetSegmentation()
    return {
        segmentation.GetNthSegmentID(i): segmentation.GetNthSegment(i)
        for i in range(segmentation.GetNumberOfSegments())
    }


# --- regions to segmentation --------------------------------------------------------------------------------------


def test_regions_become_segments_exactly_where_they_were(psr):
    psr.SetAndObserveTransformNodeID(transform(rigid((0.3, 0.1, 0), (3, 4, 5))).GetID())
    node = Segmentation.regionsToSegmentation(masks(), psr)
    assert list(segments(node)) == ["lesion", "nawm_proximal", "nawm_distal"]
    labels = Segmentation.segmentationToLabelmap(node, psr, list(segments(node)))
    for index, key in enumerate(segments(node), start=1):
        np.testing.assert_array_equal(labels == index, masks()[key] > 0)
    assert node.GetParentTransformNode() is psr.GetParentTransformNode()
    # As Slicer's own function reads them.
    exported = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    slicer.vtkSlicerSegmentationsModuleLogic.ExportSegmentsToLabelmapNode(node, ["lesion"], exported, psr)
    np.testing.assert_array_equal(Voxels.arrayFromNode(exported) > 0, masks()["lesion"] > 0)


def test_names_colours_and_terminology(psr):
    node = Segmentation.regionsToSegmentation(masks(), psr)
    logic = slicer.app.applicationLogic().GetModuleLogic("Terminologies")
    for key, segment in segments(node).items():
        assert segment.GetName() == REGIONS[key]
        hexed = "#" + "".join(f"{round(v * 255):02x}" for v in segment.GetColor())
        assert hexed == REGION_COLORS[key]
        entry = slicer.vtkSlicerTerminologyEntry()
        assert logic.DeserializeTerminologyEntry(segment.GetTerminology(), entry)
        for code in (entry.GetCategoryObject(), entry.GetTypeObject(), entry.GetAnatomicRegionObject()):
            assert code.GetCodingSchemeDesignator() == "SCT"
        assert entry.GetAnatomicRegionObject().GetCodeMeaning() == "Brain"
    # What the lists that Slicer ships say of the same codes.
    category = slicer.vtkSlicerTerminologyCategory()
    assert logic.GetNumberOfCategoriesInTerminology(Segmentation._CONTEXTS[0]) > 3
    known = {}
    for index in range(logic.GetNumberOfCategoriesInTerminology(Segmentation._CONTEXTS[0])):
        logic.GetNthCategoryInTerminology(Segmentation._CONTEXTS[0], index, category)
        known[category.GetCodeValue()] = category.GetCodeMeaning()
    assert known["49755003"] == "Morphologically Altered Structure"
    assert known["123037004"] == "Anatomical Structure"


def test_suggested_lesions_say_so_until_someone_accepts_them(psr):
    node = Segmentation.regionsToSegmentation(masks(), psr, suggested=True)
    assert Segmentation.isSuggested(node)
    assert segments(node)["lesion"].GetName() == "Lesions (suggested)"
    assert "not drawn or checked" in node.GetDescription()
    Segmentation.acceptSuggestion(node)
    assert not Segmentation.isSuggested(node)
    assert segments(node)["lesion"].GetName() == "Lesions"
    assert node.GetDescription() == ""


def test_filling_again_keeps_what_is_the_users(psr):
    node = Segmentation.regionsToSegmentation(masks(), psr)
    own = slicer.vtkSegment()
    own.SetName("Mine")
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[1:3, 1:3, 1:3] = 1
    own.AddRepresentation("Binary labelmap", Voxels.orientedImage(Voxels.imageFromArray(drawn), Voxels.affineOf(psr)))
    node.GetSegmentation().AddSegment(own, "mine")
    segments(node)["lesion"].SetColor(1, 0, 0)
    changed = masks()
    changed["lesion"] = np.roll(changed["lesion"], 2, 0)
    del changed["nawm_distal"]
    assert Segmentation.regionsToSegmentation(changed, psr, node=node) is node
    assert list(segments(node)) == ["lesion", "nawm_proximal", "mine"]
    assert segments(node)["lesion"].GetColor() == (1, 0, 0)
    assert ((changed["lesion"] > 0) & (changed["nawm_proximal"] > 0)).any()  # they may overlap
    for key, mask in (("lesion", changed["lesion"]), ("nawm_proximal", changed["nawm_proximal"]), ("mine", drawn)):
        np.testing.assert_array_equal(Segmentation.segmentationToLabelmap(node, psr, [key]), mask)


def test_edits_of_one_segment_are_seen_and_touch_no_other(psr):
    node = Segmentation.regionsToSegmentation(masks(), psr)
    edited = masks()["lesion"].copy()
    edited[9:11, 18:20, 1:3] = 1
    image = Voxels.orientedImage(Voxels.imageFromArray(edited), Voxels.affineOf(psr))
    assert slicer.vtkSlicerSegmentationsModuleLogic.SetBinaryLabelmapToSegment(image, node, "lesion")
    labels = Segmentation.segmentationToLabelmap(node, psr, list(segments(node)))
    np.testing.assert_array_equal(labels == 1, edited > 0)
    np.testing.assert_array_equal(labels == 3, masks()["nawm_distal"] > 0)


def test_a_mask_of_another_grid_is_refused(psr):
    count = slicer.mrmlScene.GetNumberOfNodes()
    with pytest.raises(InputError, match="mask of Lesions does not lie on the grid of PSR"):
        Segmentation.regionsToSegmentation({"lesion": np.ones((3, 3, 3))}, psr)
    assert slicer.mrmlScene.GetNumberOfNodes() == count


# --- segmentation to labels on any grid ---------------------------------------------------------------------------


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.tuples(ANGLE, ANGLE, ANGLE),
    st.tuples(SPACING, SPACING, SPACING),
    st.tuples(ANGLE, ANGLE, ANGLE),
    st.tuples(SPACING, SPACING, SPACING),
    st.booleans(),
    st.booleans(),
)
def test_every_voxel_gets_the_label_at_its_place_in_the_world(turn, spacing, turned, step, moved, shifted):
    slicer_views.fresh()

    def centred(matrix, shape):
        matrix = matrix.copy()
        matrix[:3, 3] = -matrix[:3, :3] @ ((np.array(shape) - 1) / 2)
        return matrix

    drawn_on = volume(np.zeros(SHAPE, np.float32), centred(grid(spacing, rigid(turn, (0, 0, 0))), SHAPE), "FLAIR")
    shape = (9, 11, 13)
    # Off the lattice by a little, so that voxel centres do not lie on borders when nothing is turned.
    place = rigid((0, 0, 0), (0.137, 0.219, -0.173)) @ centred(grid(step, rigid(turned, (0, 0, 0))), shape)
    reference = volume(np.zeros(shape, np.float32), place, "PSR")
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:14, 5:12, 3:15] = 1
    if moved:
        drawn_on.SetAndObserveTransformNodeID(transform(rigid((0.4, -0.2, 0.1), (2, -3, 1))).GetID())
    if shifted:
        reference.SetAndObserveTransformNodeID(transform(rigid((0, 0.3, 0), (-1, 2, 4))).GetID())
    node = Segmentation.regionsToSegmentation({"lesion": labels}, drawn_on)
    found = Segmentation.segmentationToLabelmap(node, reference)
    assert found.shape == shape
    # By hand: the centre of each voxel, in the world, in the drawing's voxels.
    ijk = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1).reshape(-1, 3)
    world = np.c_[worldOf(reference, ijk), np.ones(len(ijk))]
    inverse = np.linalg.inv(Voxels.worldAffine(drawn_on))
    at = (world @ inverse.T)[:, :3]
    nearest = np.floor(at + 0.5).astype(int)
    inside = ((nearest >= 0) & (nearest < SHAPE)).all(1)
    expected = np.zeros(len(ijk), bool)
    expected[inside] = labels[tuple(nearest[inside].T)] > 0
    sure = (np.abs(at + 0.5 - np.round(at + 0.5)) > 0.01).all(1)  # on a border both neighbours are right
    assert sure.any()
    np.testing.assert_array_equal(found.reshape(-1)[sure] > 0, expected[sure])


def test_only_lesions_are_taken_unless_others_are_named(psr):
    node = Segmentation.regionsToSegmentation(masks(), psr)
    np.testing.assert_array_equal(Segmentation.segmentationToLabelmap(node, psr), masks()["lesion"])
    by_hand = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "By hand")
    for name, mask in (("MS lesion", masks()["lesion"]), ("Ventricle", masks()["csf"])):
        image = Voxels.orientedImage(Voxels.imageFromArray(mask), Voxels.affineOf(psr))
        by_hand.AddSegmentFromBinaryLabelmapRepresentation(image, name)
    np.testing.assert_array_equal(Segmentation.segmentationToLabelmap(by_hand, psr), masks()["lesion"])
    for segment in segments(by_hand).values():
        segment.SetName(segment.GetName()[:2])
    assert set(np.unique(Segmentation.segmentationToLabelmap(by_hand, psr))) == {0, 1, 2}


def test_a_segmentation_made_of_surfaces(psr):
    sphere = vtk.vtkSphereSource()
    centre = worldOf(psr, np.array([[10, 11, 9]]))[0]
    sphere.SetCenter(*centre)
    sphere.SetRadius(6)
    sphere.SetThetaResolution(40)
    sphere.SetPhiResolution(40)
    sphere.Update()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Surface")
    node.SetSourceRepresentationToClosedSurface()
    node.AddSegmentFromClosedSurfaceRepresentation(sphere.GetOutput(), "Lesion", [1, 0, 0])
    found = Segmentation.segmentationToLabelmap(node, psr) > 0
    ijk = np.argwhere(np.ones(SHAPE, bool))
    distance = np.linalg.norm(worldOf(psr, ijk) - centre, axis=1).reshape(SHAPE)
    assert found[distance < 4].all()
    assert not found[distance > 8].any()
    assert not node.GetSegmentation().ContainsRepresentation("Binary labelmap")  # the user's node is as it was


def test_what_cannot_be_read_is_refused(psr):
    node = Segmentation.regionsToSegmentation(masks(), psr)
    with pytest.raises(InputError, match="has no segment nothing"):
        Segmentation.segmentationToLabelmap(node, psr, ["nothing"])
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
    with pytest.raises(InputError, match="Empty holds no image"):
        Segmentation.segmentationToLabelmap(node, empty)
    bent = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "Bent")
    psr.SetAndObserveTransformNodeID(bent.GetID())
    if not bent.IsTransformToWorldLinear():
        with pytest.raises(InputError, match="PSR is under the non-linear transform Bent; harden"):
            Segmentation.segmentationToLabelmap(node, psr)


# --- table and CSV ------------------------------------------------------------------------------------------------


def rows():
    numbers = dict.fromkeys(("mean", "sd", "median", "iqr", "p5", "p25", "p75", "p95", "min", "max"), 0.1)
    whole = {
        "region": "lesion",
        "lesion": None,
        "name": "Lesions",
        "black_hole": None,
        "voxels": 31,
        "missing": 0,
        "volume_ml": 0.0920700001,
        **numbers,
        "median": 0.0612345678,
        "uncertainty": 0.01,
        "seed_sd": None,
    }
    first = {**whole, "lesion": 1, "name": "Lesion 1", "black_hole": True, "voxels": 27}
    second = {**whole, "lesion": 2, "name": "Lesion 2", "black_hole": False, "voxels": 1, "sd": float("nan")}
    return [whole, {**whole, "region": "nawm", "name": "NAWM"}, first, second]


def test_table_has_the_cores_rows_and_units(psr):
    node = Tables.statisticsTable(rows(), COLUMNS, volumeNode=psr)
    back = Tables.rowsOf(node)
    assert [row["lesion"] for row in back] == [None, None, 1, 2]
    assert [row["black_hole"] for row in back] == [None, None, True, False]
    assert back[0]["median"] == 0.0612346
    assert back[3]["sd"] is None
    assert "seed_sd" not in back[0]  # there were no seeds: no empty column
    assert node.GetColumnUnitLabel("volume_ml") == "mL"
    assert node.GetColumnDescription("mean") == COLUMNS["mean"]
    assert node.GetColumnTitle("median") == "median PSR"
    assert node.GetLocked()


def test_csv_is_byte_for_byte_the_one_of_the_command_line(psr, tmp_path):
    kept = [name for name in COLUMNS if name not in ("seed_sd", "mean_ci90_low", "mean_ci90_high")]
    node = Tables.statisticsTable(rows(), COLUMNS)
    for suffix in ("csv", "tsv"):
        ours, core = tmp_path / f"ours.{suffix}", tmp_path / f"core.{suffix}"
        Tables.exportCsv(node, ours)
        write_table(core, rows(), kept)
        assert ours.read_bytes() == core.read_bytes()
    with pytest.raises(InputError, match="compute the statistics first"):
        Tables.exportCsv(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode"), tmp_path / "x.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write"):
        Tables.exportCsv(node, tmp_path / "file" / "x.csv")


# --- jump ---------------------------------------------------------------------------------------------------------


def test_lesion_positions_lie_inside_their_lesion(psr):
    numbers = np.zeros(SHAPE, np.int32)
    numbers[2:18, 3, 4] = numbers[2:18, 12, 4] = numbers[2, 3:13, 4] = 7  # a horseshoe: its centre is outside
    numbers[5, 5, 9] = 2
    affine = Voxels.affineOf(psr)
    found = Jump.lesionPositions(numbers, affine)
    assert set(found) == {2, 7}
    for number, point in found.items():
        ijk = np.round(np.linalg.inv(affine) @ [*point, 1])[:3].astype(int)
        assert numbers[tuple(ijk)] == number
    assert Jump.lesionPositions(np.zeros(SHAPE, int), affine) == {}


def test_a_click_on_a_lesions_row_shows_it_in_every_view(psr):
    numbers = np.zeros(SHAPE, np.int32)
    numbers[3:6, 4:7, 5:8], numbers[12:14, 15:17, 10:11] = 1, 2
    psr.SetAndObserveTransformNodeID(transform(rigid((0.1, 0.2, 0.3), (15, -5, 20))).GetID())
    positions = Jump.lesionPositions(numbers, Voxels.affineOf(psr))
    node = Tables.statisticsTable(rows(), COLUMNS, positions=positions, volumeNode=psr)
    for view in slicer_views.views().values():
        view.set_background_volume_id(psr.GetID())
        view.fit_view_to_content()
    for row, voxel in ((2, (4, 5, 6)), (3, None)):
        world = Jump.jumpToRow(node, row)
        if voxel is not None:
            np.testing.assert_allclose(world, worldOf(psr, np.array([voxel]))[0], atol=1e-3)
        for view in slicer_views.views().values():
            toXy = vtk.vtkMatrix4x4()
            vtk.vtkMatrix4x4.Invert(view.get_view_node().GetXYToRAS(), toXy)
            x, y, z, _ = toXy.MultiplyPoint((*world, 1.0))
            assert (x, y) == pytest.approx((slicer_views.SIZE / 2, slicer_views.SIZE / 2), abs=1.0)
            assert z == pytest.approx(0, abs=0.5)  # the view's plane goes through it
        crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        if crosshair is not None:
            np.testing.assert_allclose(crosshair.GetCrosshairRAS(), world, atol=1e-6)
    offsets = [v.get_slice_value() for v in slicer_views.views().values()]
    assert Jump.jumpToRow(node, 0) is None  # a whole region: nowhere to go
    assert [v.get_slice_value() for v in slicer_views.views().values()] == offsets
    with pytest.raises(InputError, match="has no lesion 9"):
        Jump.jumpToLesion(9, node)
    with pytest.raises(InputError, match="does not say where lesions lie"):
        Jump.jumpToLesion(1, Tables.statisticsTable(rows(), COLUMNS))


# --- save and load ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mrb", "mrml"])
def test_scene_saved_and_loaded(psr, tmp_path, kind):
    node = Segmentation.regionsToSegmentation(masks(), psr, suggested=True, name="Regions")
    numbers = masks()["lesion"].astype(np.int32)
    positions = Jump.lesionPositions(numbers, Voxels.affineOf(psr))
    table = Tables.statisticsTable(rows(), COLUMNS, name="Table", positions=positions, volumeNode=psr)
    before = Tables.rowsOf(table)
    point = Jump.lesionPoint(1, table)
    terminology = {key: s.GetTerminology() for key, s in segments(node).items()}
    slicer_views.saveAndLoad(tmp_path, kind)

    node, table, psr = (slicer.mrmlScene.GetFirstNodeByName(n) for n in ("Regions", "Table", "PSR"))
    assert Segmentation.isSuggested(node)
    assert {key: s.GetTerminology() for key, s in segments(node).items()} == terminology
    labels = Segmentation.segmentationToLabelmap(node, psr, list(terminology))
    for index, key in enumerate(terminology, start=1):
        np.testing.assert_array_equal(labels == index, masks()[key] > 0)
        assert Segmentation.regionOf(segments(node)[key]) == key
    assert Tables.rowsOf(table) == before
    assert table.GetColumnUnitLabel("volume_ml") == "mL"
    np.testing.assert_allclose(Jump.lesionPoint(1, table), point, atol=1e-3)
    path = tmp_path / "out.csv"
    Tables.exportCsv(table, path)
    with open(path, encoding="utf-8") as stream:
        assert len(list(csv.DictReader(stream))) == 4


# --- lesions drawn on the FLAIR ------------------------------------------------------------------------------------


def test_lesions_drawn_on_the_flair_are_written_on_its_grid(scene, tmp_path):
    from DEMISTSlicerLib.Run.Exchange import affineInFrameOf
    from DEMISTSlicerLib.Run.RunInputs import RunInputs

    t1 = volume(np.zeros(SHAPE, np.float32), grid((1, 1, 1), rigid((0, 0, 0), (0, 0, 0))), "T1w")
    flair = volume(np.zeros(SHAPE, np.float32), grid((1, 1, 2.5), rigid((0.1, 0, 0.2), (4, -3, 2))), "FLAIR")
    for drawnOn in (flair, t1):
        mask = masks()["lesion"]
        lesions = Segmentation.regionsToSegmentation({"lesion": mask}, drawnOn)
        writing = RunInputs({"t1w": t1, "flair": flair, "lesions": lesions}, frame=t1).write(tmp_path)
        while True:
            try:
                next(writing)
            except StopIteration as end:
                told = end.value
                break
        # On the grid that it was drawn on, so that it can go where registration takes its image.
        np.testing.assert_allclose(told["lesions"]["affine"], affineInFrameOf(drawnOn, t1))
        np.testing.assert_array_equal(np.load(told["lesions"]["npy"]) > 0, mask > 0)
