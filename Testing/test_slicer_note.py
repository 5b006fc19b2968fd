"""The note in the corner of the slice views: there while a synthesized map is shown, and gone with it."""

from __future__ import annotations

import numpy as np
import slicer_views
from DEMISTSlicerLib.Nodes.Volumes import createPsrVolume
from DEMISTSlicerLib.Views.Note import Note, noteText, sides
from DEMISTSlicerLib.Views.Overlay import Overlay


def test_a_corner_says_what_is_shown():
    slicer_views.fresh()
    view = slicer_views.views()["Red"]
    t1 = slicer_views.volume(np.full((60, 60, 60), 100, np.int16))
    view.render()
    renderers = view.render_window().GetRenderers()
    overlay = Overlay()
    overlay._note = note = Note(lambda: [(renderers.GetItemAsObject(0), view.get_view_node())])
    corner = (slice(-40, None), slice(-190, None))
    plain = slicer_views.picture(view)[corner].astype(int)
    array = np.zeros((60, 60, 60), np.float32)
    told = {"statement": "Synthesized.", "bundle": {"name": "tiny"}}
    overlay.show(createPsrVolume(t1, array, None, told), t1)
    (shown,) = note._shown
    assert [mark.GetInput() for mark in shown.marks] == ["R", "L"]
    node = view.get_view_node()
    node.SetOrientation("Sagittal")  # the letters follow a view that is turned
    assert [mark.GetInput() for mark in shown.marks] == ["A", "P"]
    node.SetOrientation("Axial")
    assert shown.note.GetInput() == "synthesized, research only"
    marked = slicer_views.picture(view)[corner].astype(int)
    assert (np.abs(marked - plain).max(2) > 60).sum() > 60
    overlay.hide()
    assert not note._shown
    overlay.show(createPsrVolume(t1, array, None, None), t1)  # measured: nothing to say
    assert not note._shown
    overlay.hide()


def test_what_it_says():
    assert noteText({}) == ""
    assert noteText({"source": "DEMISTCore.simulate"}) == "simulated, research only"
    assert noteText({"bundle": "x"}) == "synthesized, research only"


def test_the_letters_are_those_of_the_edges():
    """The letter at an edge is that of the direction in which the world's coordinate grows towards that edge."""
    slicer_views.fresh()
    ends = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    for view in slicer_views.views().values():
        node = view.get_view_node()
        toRas, width = node.GetXYToRAS(), node.GetDimensions()[0]
        first, last = (toRas.MultiplyPoint((x, 0, 0, 1)) for x in (0, width - 1))
        for letter, way in zip(sides(node), (-1, 1)):
            axis, sign = ends[letter]
            assert (last[axis] - first[axis]) * way * sign > 0, (view.name, letter)
