"""Results as volume nodes: place, units, origin, colours, subject hierarchy, scene save and load. Real MRML."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import slicer_views  # isort: skip  # puts slicer in place

import slicer
from DEMISTSlicerLib.Nodes import ColorTable, Placement, Volumes, Voxels
from slicer_views import grid, rigid, transform, volume, worldOf

from DEMISTCore import preview
from DEMISTCore.errors import InputError
from DEMISTCore.statistics import figures

PROVENANCE = {
    "statement": "Trained on simulated PSR; not for clinical use.",
    "bundle": {"name": "demist-sim", "sha256": "ab" * 32},
    "settings": {"seeds": [0, 1], "sampler": "heun", "steps": 12},
    "inputs": {"t1w": 'C:\\Daten\\Größe "1"; <a&b>: 50%,\n.nii.gz'},
}
ANGLE = st.floats(-3.0, 3.0)
SHIFT = st.floats(-200.0, 200.0)
SPACING = st.floats(0.4, 5.0)


@pytest.fixture
def scene():
    return slicer_views.fresh()


@pytest.fixture
def t1(scene):
    rng = np.random.default_rng(0)
    return volume(rng.random((7, 8, 9), np.float32), grid((0.9, 1.1, 3.0), rigid((0.2, -0.1, 0.3), (10, -20, 30))))


def psr_of(t1, **more):
    array = np.linspace(0, 0.2, 7 * 8 * 9, dtype=np.float32).reshape(7, 8, 9)
    return Volumes.createPsrVolume(t1, array, Voxels.affineOf(t1), PROVENANCE, **more), array


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.tuples(ANGLE, ANGLE, ANGLE),
    st.tuples(SHIFT, SHIFT, SHIFT),
    st.tuples(SPACING, SPACING, SPACING),
    st.booleans(),
    st.tuples(ANGLE, ANGLE, ANGLE),
    st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_every_voxel_of_the_map_is_where_the_same_voxel_of_the_t1w_is(turn, shift, spacing, moved, turned, flips):
    slicer_views.fresh()
    affine = grid(spacing, rigid(turn, shift)) @ np.diag([*(-1.0 if f else 1.0 for f in flips), 1.0])
    t1 = volume(np.zeros((4, 5, 6), np.int16), affine)
    if moved:
        t1.SetAndObserveTransformNodeID(transform(rigid(turned, (5, 6, 7))).GetID())
    array = np.random.default_rng(1).random((4, 5, 6)).astype(np.float32)
    node = Volumes.createPsrVolume(t1, array, affine, None)
    corners = np.array([[0, 0, 0], [3, 0, 0], [0, 4, 0], [0, 0, 5], [3, 4, 5]])
    np.testing.assert_allclose(worldOf(node, corners), worldOf(t1, corners), rtol=1e-12, atol=1e-12)
    expected = (affine @ np.c_[corners, np.ones(5)].T)[:3].T
    if not moved:
        np.testing.assert_allclose(worldOf(node, corners), expected, atol=1e-6 * max(1, np.abs(expected).max()))
    np.testing.assert_array_equal(Voxels.arrayFromNode(node), array)
    i, j, k = 3, 1, 4
    assert node.GetImageData().GetScalarComponentAsDouble(i, j, k, 0) == array[i, j, k]


def test_the_map_follows_the_t1w_when_its_transform_moves(t1):
    moved = transform(rigid((0, 0, 0), (1, 2, 3)))
    t1.SetAndObserveTransformNodeID(moved.GetID())
    node, _ = psr_of(t1)
    moved.SetMatrixTransformToParent(Voxels.matrixFromArray(rigid((0.3, 0, 0), (40, 0, 0))))
    voxels = np.array([[0, 0, 0], [6, 7, 8]])
    np.testing.assert_array_equal(worldOf(node, voxels), worldOf(t1, voxels))


def test_slicers_own_array_function_sees_the_same_voxels(t1):
    node, array = psr_of(t1)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), array.transpose(2, 1, 0))
    assert node.GetImageData().GetScalarTypeAsString() == "float"


def test_units_quantity_and_origin(t1):
    node, _ = psr_of(t1)
    assert node.GetVoxelValueQuantity().GetCodeMeaning() == "Pool size ratio"
    assert node.GetVoxelValueQuantity().GetCodingSchemeDesignator().startswith("99")
    units = node.GetVoxelValueUnits()
    assert (units.GetCodeValue(), units.GetCodingSchemeDesignator()) == ("1", "UCUM")
    assert node.GetAttribute("DEMIST.Quantity") == "PSR"
    assert node.GetAttribute("DEMIST.Synthetic") == "1"
    assert json.loads(node.GetAttribute("DEMIST.Provenance")) == PROVENANCE
    assert node.GetDescription() == PROVENANCE["statement"]
    assert Volumes.t1wOf(node) is t1


def test_window_and_colours_are_those_of_the_figures(t1):
    node, _ = psr_of(t1)
    spread, _ = psr_of(t1, uncertainty=True, psrNode=node)
    for of, limits in ((node, preview.PSR_LIMITS), (spread, preview.UNCERTAINTY_LIMITS)):
        display = of.GetDisplayNode()
        assert not display.GetAutoWindowLevel()
        assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == pytest.approx(limits)
    assert Volumes.uncertaintyOf(node) is spread
    from matplotlib import colormaps

    for uncertainty, name in ((False, preview.PSR_COLORS), (True, preview.UNCERTAINTY_COLORS)):
        expected = np.round(colormaps[name](np.arange(256))[:, :3] * 255)
        np.testing.assert_array_equal(np.round(np.array(ColorTable.colors(uncertainty)) * 255), expected)
    table = node.GetDisplayNode().GetColorNode()
    assert table.GetNumberOfColors() == 256
    assert (ColorTable.PSR_RANGE, ColorTable.UNCERTAINTY_RANGE) == (preview.PSR_LIMITS, preview.UNCERTAINTY_LIMITS)
    assert figures.PSR_LIMITS == ColorTable.PSR_RANGE


def lightness(rgb):
    """CIE L* of sRGB colours (n, 3), 0 to 1."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    y = linear @ (0.2126, 0.7152, 0.0722)
    return np.where(y > 216 / 24389, 116 * np.cbrt(y) - 16, y * 24389 / 27)


@pytest.mark.parametrize("uncertainty", [False, True])
def test_colours_are_perceptually_uniform(uncertainty):
    steps = np.diff(lightness(np.array(ColorTable.colors(uncertainty)))[::8])
    assert steps.min() > 0  # brighter is more, everywhere
    assert steps.max() < 2.0 * np.median(steps)


def test_the_colour_tables_are_made_once(t1):
    first, second = psr_of(t1)[0], psr_of(t1)[0]
    assert first.GetDisplayNode().GetColorNodeID() == second.GetDisplayNode().GetColorNodeID()
    assert first.GetDisplayNode().GetColorNodeID() == ColorTable.psrColorNode(slicer.mrmlScene).GetID()
    assert first.GetName() != second.GetName()


def test_legend_names_quantity_and_unit(t1):
    node, _ = psr_of(t1)
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node.GetDisplayNode())
    assert legend.GetTitleText() == "PSR (fraction)"
    assert legend.GetLabelFormat() % 0.2 == "0.20"
    assert legend.GetPrimaryDisplayNode() is node.GetDisplayNode()


def test_beside_the_t1w_in_the_subject_hierarchy(t1):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    subject = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Patient")
    study = hierarchy.CreateStudyItem(subject, "Visit 1")
    hierarchy.SetItemParent(Placement.itemOf(hierarchy, t1), study)
    node, _ = psr_of(t1)
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study
    assert hierarchy.GetItemByPositionUnderParent(study, 1) == hierarchy.GetItemByDataNode(node)


def test_filling_a_node_again_keeps_the_users_display(t1):
    node, array = psr_of(t1)
    node.GetDisplayNode().SetWindowLevelMinMax(0.05, 0.15)
    node.GetDisplayNode().SetInterpolate(0)
    image = node.GetImageData()
    again = Volumes.createPsrVolume(t1, array * 0.5, None, PROVENANCE, node=node)
    assert again is node
    assert node.GetImageData() is image  # same memory: views that look at it need not be rebuilt
    np.testing.assert_array_equal(Voxels.arrayFromNode(node), array * 0.5)
    assert node.GetDisplayNode().GetWindowLevelMax() == pytest.approx(0.15)
    assert node.GetDisplayNode().GetInterpolate() == 0


def test_an_empty_node_made_by_a_selector_gets_everything(t1):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Mine")
    Volumes.createPsrVolume(t1, np.zeros((7, 8, 9)), None, PROVENANCE, node=node)
    assert node.GetName() == "Mine"
    assert node.GetDisplayNode().GetColorNode() is ColorTable.psrColorNode(slicer.mrmlScene)


@pytest.mark.parametrize(
    ("shape", "move", "words"), [((7, 8, 10), 0.0, "7 x 8 x 10 voxels"), ((7, 8, 9), 1.0, "was moved during the run")]
)
def test_a_result_that_does_not_lie_on_the_t1w_is_refused(t1, shape, move, words):
    affine = Voxels.affineOf(t1)
    affine[0, 3] += move
    count = slicer.mrmlScene.GetNumberOfNodes()
    with pytest.raises(InputError, match=words):
        Volumes.createPsrVolume(t1, np.zeros(shape, np.float32), affine, None)
    assert slicer.mrmlScene.GetNumberOfNodes() == count


def test_synthetic_t1w(scene):
    affine = grid((1, 2, 3), rigid((0.1, 0.2, 0.3), (1, 2, 3)))
    array = np.random.default_rng(2).random((3, 4, 5)).astype(np.float32)
    node = Volumes.createSyntheticT1w(array, affine, PROVENANCE)
    np.testing.assert_allclose(Voxels.affineOf(node), affine, atol=1e-12)
    np.testing.assert_array_equal(Voxels.arrayFromNode(node), array)
    assert node.GetAttribute("DEMIST.Synthetic") == "1"
    assert node.GetAttribute("DEMIST.Quantity") == "T1w"


@pytest.mark.parametrize("kind", ["mrb", "mrml"])
def test_scene_saved_and_loaded_has_everything_again(t1, tmp_path, kind):
    moved = transform(rigid((0.1, 0, 0.2), (4, 5, 6)))
    t1.SetAndObserveTransformNodeID(moved.GetID())
    node, array = psr_of(t1)
    spread, _ = psr_of(t1, uncertainty=True, psrNode=node)
    node.GetDisplayNode().SetWindowLevelMinMax(0.02, 0.16)
    place = worldOf(node, np.array([[0, 0, 0], [6, 7, 8]]))
    names = node.GetName(), spread.GetName()
    slicer_views.saveAndLoad(tmp_path, kind)

    node, spread = (slicer.mrmlScene.GetFirstNodeByName(n) for n in names)
    np.testing.assert_allclose(worldOf(node, np.array([[0, 0, 0], [6, 7, 8]])), place, atol=1e-4)
    np.testing.assert_array_equal(Voxels.arrayFromNode(node), array)
    assert Volumes.provenanceOf(node) == PROVENANCE
    assert node.GetVoxelValueUnits().GetCodingSchemeDesignator() == "UCUM"
    assert node.GetVoxelValueQuantity().GetCodeMeaning() == "Pool size ratio"
    assert node.GetDescription() == PROVENANCE["statement"]
    assert Volumes.uncertaintyOf(node) is spread
    assert Volumes.t1wOf(node).GetName() == "T1w"
    display = node.GetDisplayNode()
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == pytest.approx((0.02, 0.16))
    assert not display.GetAutoWindowLevel()
    assert display.GetApplyThreshold()
    for of, uncertainty in ((node, False), (spread, True)):
        table = of.GetDisplayNode().GetColorNode()
        colour = [0.0] * 4
        for index in (0, 77, 255):
            table.GetColor(index, colour)
            assert np.round(np.array(colour[:3]) * 255).tolist() == [
                round(v * 255) for v in ColorTable.colors(uncertainty)[index]
            ]
    # Not a second table beside the one that was loaded.
    assert ColorTable.psrColorNode(slicer.mrmlScene) is node.GetDisplayNode().GetColorNode()
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node.GetDisplayNode())
    assert legend.GetTitleText() == "PSR (fraction)"
