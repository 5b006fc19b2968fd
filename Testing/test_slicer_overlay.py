"""PSR over the T1w in Slicer's own slice views, off screen: what is seen, and that nothing of the user's is lost."""

from __future__ import annotations

import numpy as np
import pytest

import slicer_views  # isort: skip  # puts slicer in place

import slicer
import slicer_app
from DEMISTSlicerLib.Nodes import ColorTable, Volumes, Voxels
from DEMISTSlicerLib.Views import Overlay, Preview
from slicer_views import at, grid, picture, rigid, views, volume

from DEMISTCore.errors import InputError

PROVENANCE = {"statement": "Trained on simulated PSR; not for clinical use."}
SHAPE = (40, 48, 36)
#: Blocks of known PSR, by centre voxel.
BLOCKS = {0.06: (10, 14, 18), 0.12: (20, 14, 18), 0.2: (30, 14, 18)}


def affine_of(turn=(0, 0, 0)):
    affine = grid((2.0, 2.0, 2.0), rigid(turn, (0, 0, 0)))
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    return affine


@pytest.fixture
def scene():
    scene = slicer_views.fresh()
    for view in views().values():
        view._logic.GetSliceCompositeNode().SetForegroundOpacity(0)
        slicer_views.resize(view, slicer_views.SIZE)
    return scene


@pytest.fixture
def t1(scene):
    node = volume(np.full(SHAPE, 100, np.int16), affine_of())
    node.GetDisplayNode().AutoWindowLevelOff()
    node.GetDisplayNode().SetWindowLevelMinMax(0, 200)  # the volume is mid-grey
    return node


@pytest.fixture
def psr(t1):
    return make_psr(t1)


def make_psr(t1, **more):
    array = np.zeros(SHAPE, np.float32)
    for value, (i, j, k) in BLOCKS.items():
        array[i - 4 : i + 5, j - 4 : j + 5, k - 4 : k + 5] = value
    return Volumes.createPsrVolume(t1, array, Voxels.affineOf(t1), PROVENANCE, **more)


@pytest.fixture
def overlay():
    shown = Overlay.Overlay()
    yield shown
    shown.hide()


def composites():
    return [view._logic.GetSliceCompositeNode() for view in views().values()]


def settings_of_views():
    """Everything about the views that a user can set."""
    told = {}
    for view in views().values():
        composite, node = view._logic.GetSliceCompositeNode(), view.get_view_node()
        told[view.name] = {
            "volumes": (
                composite.GetBackgroundVolumeID(),
                composite.GetForegroundVolumeID(),
                composite.GetLabelVolumeID(),
            ),
            "opacity": (composite.GetForegroundOpacity(), composite.GetLabelOpacity()),
            "links": (composite.GetLinkedControl(), composite.GetHotLinkedControl()),
            "compositing": composite.GetCompositing(),
            "plane": [node.GetSliceToRAS().GetElement(i, j) for i in range(4) for j in range(4)],
            "field": node.GetFieldOfView(),
            "pan": node.GetXYZOrigin(),
            "size": node.GetDimensions(),
            "orientation": node.GetOrientation(),
        }
    layout = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    told["layout"] = layout.GetViewArrangement()
    for index in range(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeDisplayNode")):
        display = slicer.mrmlScene.GetNthNodeByClass(index, "vtkMRMLScalarVolumeDisplayNode")
        told[display.GetID()] = (
            display.GetWindow(),
            display.GetLevel(),
            display.GetAutoWindowLevel(),
            display.GetColorNodeID(),
            display.GetInterpolate(),
        )
    return told


def point(t1, ijk):
    return tuple((Voxels.worldAffine(t1) @ [*ijk, 1.0])[:3])


def colour(value, limits=ColorTable.PSR_RANGE, uncertainty=False):
    index = np.clip((value - limits[0]) / (limits[1] - limits[0]), 0, 1) * 255
    return 255 * np.array(ColorTable.colors(uncertainty)[round(float(index))])


def seen(view, ras):
    row, column = at(view, ras)
    return picture(view)[row - 1 : row + 2, column - 1 : column + 2].reshape(-1, 3).mean(0)


# --- what is to be seen -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opacity", [1.0, 0.5, 0.0])
def test_the_map_is_blended_over_the_t1w_in_its_colours(t1, psr, overlay, opacity):
    overlay.show(psr, t1, opacity)
    red = views()["Red"]
    for value, ijk in BLOCKS.items():
        slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *point(t1, ijk), 1)
        expected = opacity * colour(value) + (1 - opacity) * 127.5
        np.testing.assert_allclose(seen(red, point(t1, ijk)), expected, atol=3)


def test_where_the_map_is_zero_the_t1w_stays_as_bright_as_it_was(t1, psr, overlay):
    overlay.show(psr, t1, 0.7)
    np.testing.assert_allclose(seen(views()["Red"], point(t1, (20, 36, 18))), 127.5, atol=2)


@pytest.mark.parametrize("name", ["Red", "Green", "Yellow"])
def test_the_map_lies_over_the_t1w_in_every_view(t1, psr, overlay, name):
    overlay.show(psr, t1, 1.0)
    ijk = BLOCKS[0.2]
    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *point(t1, ijk), 1)
    view = views()[name]
    # A block of 9 voxels: bright 3 voxels from its centre along the view's axes, grey 6 voxels away.
    plane = view.get_view_node().GetSliceToRAS()
    for axis in range(2):
        way = np.array([plane.GetElement(i, axis) for i in range(3)])
        inside, outside = (np.array(point(t1, ijk)) + 2.0 * n * way for n in (3, -6))
        np.testing.assert_allclose(seen(view, tuple(inside)), colour(0.2), atol=4)
        if name != "Red" or axis == 1:  # along the patient's left and right other blocks follow
            np.testing.assert_allclose(seen(view, tuple(outside)), 127.5, atol=4)


def test_under_a_transform_and_oblique(scene, overlay):
    t1 = volume(np.full(SHAPE, 100, np.int16), affine_of((0.3, 0.2, -0.4)))
    t1.GetDisplayNode().AutoWindowLevelOff()
    t1.GetDisplayNode().SetWindowLevelMinMax(0, 200)
    t1.SetAndObserveTransformNodeID(slicer_views.transform(rigid((0.2, -0.3, 0.1), (12, -7, 5))).GetID())
    psr = make_psr(t1)
    overlay.show(psr, t1, 1.0)
    for value, ijk in BLOCKS.items():
        world = tuple(slicer_views.worldOf(t1, np.array([ijk]))[0])
        slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *world, 0)
        for view in views().values():
            np.testing.assert_allclose(seen(view, world), colour(value), atol=4)


def test_uncertainty_view_and_back(t1, psr, overlay):
    spread = Volumes.createPsrVolume(
        t1, np.full(SHAPE, 0.015, np.float32), None, PROVENANCE, uncertainty=True, psrNode=psr
    )
    overlay.show(psr, t1, 1.0, view="uncertainty")
    here = point(t1, (20, 36, 18))
    expected = colour(0.015, ColorTable.UNCERTAINTY_RANGE, uncertainty=True)
    np.testing.assert_allclose(seen(views()["Red"], here), expected, atol=3)
    assert composites()[0].GetForegroundVolumeID() == spread.GetID()
    overlay.setView("psr")
    np.testing.assert_allclose(seen(views()["Red"], here), 127.5, atol=3)
    slicer.mrmlScene.RemoveNode(spread)
    with pytest.raises(InputError, match="no uncertainty map; synthesize with two seeds"):
        overlay.setView("uncertainty")
    assert overlay.view == "psr"


def test_opacity_slider(t1, psr, overlay):
    overlay.show(psr, t1, 0.2)
    overlay.setOpacity(0.9)
    assert {c.GetForegroundOpacity() for c in composites()} == {0.9}
    overlay.setOpacity(7)
    assert overlay.opacity == 1.0


def test_the_legend_is_seen_while_the_map_is(t1, psr, overlay):
    red = views()["Red"]
    overlay.show(psr, t1, 0.5)
    on = picture(red)
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(psr.GetDisplayNode())
    legend.SetVisibility(False)
    without = picture(red)
    legend.SetVisibility(True)
    changed = np.argwhere(np.abs(on.astype(int) - without).max(2) > 20)
    assert len(changed) > 500
    assert changed[:, 1].min() > 0.5 * on.shape[1]  # at the right border
    bar = on[changed[:, 0].min() : changed[:, 0].max(), changed[:, 1].min() :].reshape(-1, 3).astype(int)
    for value in (0.05, 0.1, 0.15, 0.19):  # the colours of the table are in it
        assert np.abs(bar - colour(value)).max(1).min() <= 6
    overlay.hide()
    slicer.vtkMRMLSliceCompositeNode.SafeDownCast(composites()[0]).SetBackgroundVolumeID(t1.GetID())
    off = picture(red)
    assert np.abs(off.astype(int) - off[:, :, :1]).max() < 60  # no colours any more


def test_views_are_linked_while_the_overlay_is_on(t1, psr, overlay):
    overlay.show(psr, t1)
    assert all(c.GetLinkedControl() for c in composites())


# --- nothing of the user's is lost --------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [None, "slices", "compare", "statistics"])
def test_switched_off_everything_is_as_it_was(t1, psr, overlay, layout):
    other = volume(np.random.default_rng(0).random((20, 30, 25)).astype(np.float32), grid((3, 2, 4)), "FLAIR")
    label = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Labels")
    own = list(views().values())
    for index, view in enumerate(own):
        composite, node = view._logic.GetSliceCompositeNode(), view.get_view_node()
        composite.SetBackgroundVolumeID([other.GetID(), t1.GetID(), None][index])
        composite.SetForegroundVolumeID([None, other.GetID(), t1.GetID()][index])
        composite.SetLabelVolumeID(label.GetID())
        composite.SetForegroundOpacity([0.0, 0.3, 0.8][index])
        composite.SetLabelOpacity(0.25)
        composite.SetLinkedControl(index == 1)
        composite.SetHotLinkedControl(index == 2)
        composite.SetCompositing([0, 1, 2][index])
        node.SetFieldOfView(70 + 10 * index, 70 + 10 * index, 1)
        node.SetXYZOrigin(3, -4, 0)
        node.SetSliceOffset(11.0 + index)
    slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode").SetViewArrangement(6)
    other.GetDisplayNode().AutoWindowLevelOff()
    other.GetDisplayNode().SetWindowLevelMinMax(0.1, 0.6)
    before = settings_of_views()

    overlay.show(psr, t1, 0.4, layout=layout)
    assert overlay.isShown
    assert settings_of_views() != before
    overlay.setOpacity(0.8)
    overlay.show(psr, t1, 0.6)
    overlay.hide()
    assert not overlay.isShown
    assert settings_of_views() == before
    overlay.hide()
    assert settings_of_views() == before


def test_what_the_user_changes_meanwhile_stays_the_users(t1, psr, overlay):
    other = volume(np.ones((20, 30, 25), np.float32), grid((3, 2, 4)), "FLAIR")
    composite, untouched = composites()[:2]
    for c in composites():
        c.SetBackgroundVolumeID(t1.GetID())
        c.SetForegroundVolumeID(None)
        c.SetForegroundOpacity(0.1)
    layout = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    overlay.show(psr, t1, 0.5, layout="slices")
    node = views()["Red"].get_view_node()
    node.SetSliceOffset(17.0)  # scrolled
    composite.SetForegroundVolumeID(other.GetID())  # another volume chosen in one view
    composite.SetForegroundOpacity(0.66)
    layout.SetViewArrangement(7)
    t1.GetDisplayNode().SetWindowLevelMinMax(20, 90)
    overlay.setOpacity(0.9)
    assert composite.GetForegroundOpacity() == 0.66
    overlay.hide()
    assert node.GetSliceOffset() == pytest.approx(17.0)
    assert composite.GetForegroundVolumeID() == other.GetID()
    assert composite.GetForegroundOpacity() == 0.66
    assert untouched.GetForegroundVolumeID() is None
    assert untouched.GetForegroundOpacity() == 0.1
    assert layout.GetViewArrangement() == 7
    assert t1.GetDisplayNode().GetWindowLevelMax() == 90


def test_the_view_is_fitted_only_if_it_showed_something_else(t1, psr, overlay):
    red, green = views()["Red"], views()["Green"]
    red._logic.GetSliceCompositeNode().SetBackgroundVolumeID(t1.GetID())
    green._logic.GetSliceCompositeNode().SetBackgroundVolumeID(None)
    for view in (red, green):
        view.get_view_node().SetFieldOfView(31, 31, 1)
    overlay.show(psr, t1)
    assert red.get_view_node().GetFieldOfView()[0] == 31
    assert green.get_view_node().GetFieldOfView()[0] > 60
    overlay.hide()
    assert green.get_view_node().GetFieldOfView()[0] == 31


def test_a_view_as_slicer_fits_it_gets_room_for_the_legend_and_keeps_its_slice(t1, psr, overlay):
    """After *Load sample patient* the views show the T1w already, up to their edges: the legend would lie over it."""
    red = views()["Red"]
    node, logic = red.get_view_node(), red._logic
    logic.GetSliceCompositeNode().SetBackgroundVolumeID(t1.GetID())
    logic.FitSliceToBackground()
    logic.SetSliceOffset(logic.GetSliceOffset() + 3.0)
    before, field = logic.GetSliceOffset(), node.GetFieldOfView()
    overlay.show(psr, t1, 0.5)
    assert node.GetFieldOfView()[0] == pytest.approx(Overlay.MARGIN * field[0])
    assert logic.GetSliceOffset() == pytest.approx(before)
    overlay.setOpacity(0.8)
    overlay.show(psr, t1, 0.8)
    assert node.GetFieldOfView()[0] == pytest.approx(Overlay.MARGIN * field[0])  # once
    overlay.hide()
    assert node.GetFieldOfView() == pytest.approx(field)


def test_a_window_resized_meanwhile_keeps_the_users_scale(t1, psr, overlay):
    red = views()["Red"]
    node = red.get_view_node()
    red._logic.GetSliceCompositeNode().SetBackgroundVolumeID(None)
    node.SetFieldOfView(30, 30, 1)
    overlay.show(psr, t1)
    slicer_views.resize(red, 2 * slicer_views.SIZE)
    overlay.hide()
    assert node.GetFieldOfView()[0] / node.GetDimensions()[0] == pytest.approx(30 / slicer_views.SIZE)


def test_volumes_removed_meanwhile(t1, psr, overlay):
    other = volume(np.ones((5, 6, 7), np.float32), name="FLAIR")
    for composite in composites():
        composite.SetBackgroundVolumeID(other.GetID())
    overlay.show(psr, t1)
    slicer.mrmlScene.RemoveNode(other)
    overlay.hide()
    assert {c.GetBackgroundVolumeID() for c in composites()} == {None}
    overlay.show(psr, t1)
    slicer.mrmlScene.RemoveNode(psr)  # switches the overlay off by itself
    assert not overlay.isShown
    assert {c.GetForegroundVolumeID() for c in composites()} == {None}
    for view in views().values():
        picture(view)
    with pytest.raises(InputError, match="Choose a PSR volume and a T1w"):
        overlay.show(psr, t1)


def test_scene_closed_while_the_overlay_is_on(t1, psr, overlay):
    overlay.show(psr, t1)
    observers = len(overlay._observed)
    slicer_views.fresh()
    assert observers
    assert not overlay.isShown
    assert not overlay._observed
    overlay.hide()


def test_a_view_that_appears_meanwhile_shows_the_map(t1, psr, overlay):
    overlay.show(psr, t1, 0.3)
    composite = slicer.vtkMRMLSliceCompositeNode()
    composite.SetLayoutName("Slice4")
    composite = slicer.mrmlScene.AddNode(composite)
    try:
        assert composite.GetForegroundVolumeID() == psr.GetID()
        assert composite.GetForegroundOpacity() == 0.3
        overlay.hide()
        assert composite.GetForegroundVolumeID() is None
    finally:
        slicer.mrmlScene.RemoveNode(composite)


def test_a_view_whose_window_comes_later_is_fitted_then(t1, psr, overlay):
    from trame_slicer.views import ViewLayoutDefinition, ViewProps, ViewType

    manager = slicer_app.app().view_manager
    scene = slicer.mrmlScene
    overlay.show(psr, t1)
    composite = slicer.vtkMRMLSliceCompositeNode()
    composite.SetLayoutName("Slice5")
    composite = scene.AddNode(composite)  # as Slicer's layout does: nodes first
    view = manager.create_view(ViewLayoutDefinition("Slice5", ViewType.SLICE_VIEW, ViewProps(orientation="Axial")))
    try:
        node = view.get_view_node()
        slicer_views.resize(view, 200)
        node.SetFieldOfView(1000, 1000, 1)
        overlay.arrange("slices")
        assert 60 < node.GetFieldOfView()[0] < 200
        node.SetFieldOfView(33, 33, 1)
        overlay.arrange("slices")
        assert node.GetFieldOfView()[0] == 33  # once is enough: now it is the user's
    finally:
        overlay.hide()
        slicer_app.app().app_logic.GetSliceLogics().RemoveItem(view._logic)
        manager.remove_view("Slice5")
        scene.RemoveNode(composite)
        scene.RemoveNode(node)


def test_compare_shows_the_t1w_alone_above(t1, psr, overlay):
    below = slicer.vtkMRMLSliceCompositeNode()
    below.SetLayoutName("Slice4")
    below = slicer.mrmlScene.AddNode(below)
    try:
        overlay.show(psr, t1, 0.7, layout="compare")
        assert {c.GetForegroundVolumeID() for c in composites()} == {None}
        assert {c.GetBackgroundVolumeID() for c in composites()} == {t1.GetID()}
        assert (below.GetForegroundVolumeID(), below.GetForegroundOpacity()) == (psr.GetID(), 0.7)
        overlay.arrange("slices")
        assert {c.GetForegroundVolumeID() for c in composites()} == {psr.GetID()}
        with pytest.raises(InputError, match="no arrangement"):
            overlay.arrange("nonsense")
    finally:
        overlay.hide()
        slicer.mrmlScene.RemoveNode(below)


# --- live preview -------------------------------------------------------------------------------------------------


def test_preview_follows_the_estimate_and_leaves_no_trace(t1, psr, overlay):
    for composite in composites():
        composite.SetBackgroundVolumeID(t1.GetID())
    overlay.show(psr, t1, 0.5)
    before = settings_of_views()
    nodes = {slicer.mrmlScene.GetNthNode(i).GetID() for i in range(slicer.mrmlScene.GetNumberOfNodes())}
    preview = Preview.LivePreview()
    preview.begin(t1, opacity=1.0)
    assert settings_of_views() == before  # nothing to be seen yet
    coarse = affine_of() @ np.diag([2, 2, 2, 1.0])
    here = point(t1, (20, 36, 18))
    images = []
    for step, value in enumerate((0.05, 0.12)):
        node = preview.update(np.full((20, 24, 18), value, np.float32), coarse, 0, step, 20)
        images.append(node.GetImageData())
        np.testing.assert_allclose(seen(views()["Red"], here), colour(value), atol=3)
    assert images[0] is images[1]
    assert "step 1 of 20" in node.GetName()
    assert not node.GetSaveWithScene()
    assert node.GetHideFromEditors()
    assert node.GetAttribute("DEMIST.Quantity") == "Preview"
    preview.end()
    assert settings_of_views() == before
    assert {slicer.mrmlScene.GetNthNode(i).GetID() for i in range(slicer.mrmlScene.GetNumberOfNodes())} == nodes
    preview.end()


def test_preview_survives_deletions_and_the_scene_closing(t1):
    preview = Preview.LivePreview()
    preview.begin(t1)
    array = np.full(SHAPE, 0.1, np.float32)
    first = preview.update(array, affine_of(), 0, 1, 5)
    slicer.mrmlScene.RemoveNode(first)
    second = preview.update(array, affine_of(), 0, 2, 5)
    assert second.GetScene() is not None
    slicer.mrmlScene.RemoveNode(t1)
    assert preview.update(array, affine_of(), 0, 3, 5) is None
    assert second.GetScene() is None
    other = volume(np.ones(SHAPE, np.float32), affine_of())
    preview.begin(other)
    preview.update(array, affine_of(), 0, 1, 5)
    slicer_views.fresh()
    assert preview.update(array, affine_of(), 0, 2, 5) is None
    preview.end()


def test_a_preview_is_not_saved_with_the_scene(t1, tmp_path):
    preview = Preview.LivePreview()
    preview.begin(t1)
    preview.update(np.full(SHAPE, 0.1, np.float32), affine_of(), 0, 1, 5)
    slicer_views.saveAndLoad(tmp_path, "mrb")
    assert slicer.mrmlScene.GetFirstNodeByName("T1w") is not None
    count = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    assert count == 1
    preview.end()
