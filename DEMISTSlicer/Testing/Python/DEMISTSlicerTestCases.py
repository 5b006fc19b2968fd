"""Cases that hold inside a real Slicer and, the same, over what stands in for it (Testing/test_slicer_cases.py).

In Slicer: Reload and Test in developer mode, or the command in docs/slicer.md. They need no data and no network; those
that compute are left out, and say so, where the Python packages are not installed.

Environment: DEMIST_TEST_BUNDLE, folder of a small model to use instead of the default one.
"""

# Slicer has no pytest: plain unittest.
# ruff: noqa: PT009, PT027

from __future__ import annotations

import math
import os
import time
import unittest
from typing import Any

import numpy as np
import slicer
import vtk


def madeUpHead(shape: tuple[int, int, int] = (40, 44, 36), spacing: float = 4.0) -> dict[str, Any]:
    """T1w, FLAIR, brain and lesions of nested ellipsoids on an oblique grid, as nodes of the scene."""
    random = np.random.default_rng(3)
    x, y, z = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij")

    def ellipsoid(a: float, b: float, c: float) -> np.ndarray:
        return (x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 < 1

    brain, white, ventricle = ellipsoid(16, 18, 14), ellipsoid(13, 15, 11), ellipsoid(4, 6, 3)
    lesions = ((x - 8) ** 2 + y**2 + z**2 < 6) | ((x + 8) ** 2 + (y - 5) ** 2 + z**2 < 6)
    t1 = np.select([lesions, ventricle, white, brain], [600.0, 200, 900, 600], 60) + random.normal(0, 15, shape)
    flair = np.select([lesions, ventricle, white, brain], [900.0, 100, 500, 650], 40) + random.normal(0, 15, shape)
    turn, matrix = math.radians(8), np.eye(4)
    matrix[:2, :2] = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
    matrix[:3, :3] *= spacing
    matrix[:3, 3] = -matrix[:3, :3] @ ((np.array(shape) - 1) / 2)
    volume, label = "vtkMRMLScalarVolumeNode", "vtkMRMLLabelMapVolumeNode"
    return {
        name: slicer.util.addVolumeFromArray(np.ascontiguousarray(array.T), matrix, called, kind)
        for name, array, called, kind in (
            ("t1", t1.astype(np.float32), "sub-01_T1w", volume),
            ("flair", flair.astype(np.float32), "sub-01_FLAIR", volume),
            ("brain", brain.astype(np.uint8), "sub-01_brain", label),
            ("lesions", lesions.astype(np.uint8), "sub-01_lesions", label),
        )
    }


class DEMISTSlicerTestCases(unittest.TestCase):
    """One logic for all cases, so that the model is loaded once."""

    logic: Any = None

    @classmethod
    def setUpClass(cls) -> None:
        """Make the logic, and see what can be run."""
        from DEMISTSlicerLib.Install.Installer import Installer
        from DEMISTSlicerLib.Logic import DEMISTSlicerLogic

        cls.logic = DEMISTSlicerLogic()
        installer = Installer()
        cls.missing = [] if installer.isReady() else [str(requirement) for requirement in installer.missing()]
        cls.bundle = os.environ.get("DEMIST_TEST_BUNDLE") or None

    @classmethod
    def tearDownClass(cls) -> None:
        """End the child process."""
        cls.logic.shutdown()

    def setUp(self) -> None:
        """Every case has an empty scene."""
        slicer.mrmlScene.Clear(0)

    def tearDown(self) -> None:
        """Leave nothing behind."""
        slicer.mrmlScene.Clear(0)

    def needsPackages(self) -> None:
        """Leave out a case that computes where packages are missing."""
        if self.missing:
            self.skipTest(f"Python packages are missing: {', '.join(self.missing)}; press Apply once to install them.")

    def synthesize(self, nodes: dict[str, Any], **options: Any) -> Any:
        """A short run."""
        options = {"seeds": 2, "steps": 1, "brainMask": nodes["brain"], "bundle": self.bundle} | options
        return self.logic.synthesize(nodes["t1"], nodes["flair"], **options)

    def test_likely_images_are_found(self) -> None:
        """By name, whatever else is in the scene."""
        from DEMISTSlicerLib.Nodes.Inputs import guess, hint

        nodes = madeUpHead()
        self.assertEqual(guess(slicer.mrmlScene), (nodes["t1"], nodes["flair"]))
        self.assertEqual(hint(nodes["t1"], nodes["flair"]), "")

    def test_parameters_live_in_the_scene(self) -> None:
        """What was chosen is read again from the node."""
        from DEMISTSlicerLib.Panel.Parameters import DEMISTParameters

        nodes = madeUpHead()
        parameters = DEMISTParameters(self.logic.getParameterNode())
        parameters.t1, parameters.seeds, parameters.distalMm = nodes["t1"], 3, 12.5
        again = DEMISTParameters(self.logic.getParameterNode())
        self.assertEqual((again.t1, again.seeds, again.distalMm), (nodes["t1"], 3, 12.5))

    def test_a_default_model_is_found(self) -> None:
        """DEMISTCore and its weights came with the extension."""
        first = self.logic.bundles()[0]
        self.assertEqual(first["name"], "demist-sim")
        self.assertTrue(first["simulated"])

    def test_the_map_lies_on_the_t1w(self) -> None:
        """Same grid, plausible values, provenance, uncertainty, subject hierarchy."""
        self.needsPackages()
        nodes = madeUpHead()
        result = self.synthesize(nodes)
        matrices = []
        for node in (nodes["t1"], result.psr, result.uncertainty):
            matrix = vtk.vtkMatrix4x4()
            node.GetIJKToRASMatrix(matrix)
            matrices.append(slicer.util.arrayFromVTKMatrix(matrix))
        for matrix in matrices[1:]:
            np.testing.assert_allclose(matrix, matrices[0], atol=1e-9)
        psr = slicer.util.arrayFromVolume(result.psr)
        self.assertEqual(psr.shape, slicer.util.arrayFromVolume(nodes["t1"]).shape)
        self.assertTrue(np.isfinite(psr).all())
        self.assertTrue(0 <= psr.min() < psr.max() < 0.5)
        self.assertEqual(result.psr.GetAttribute("DEMIST.Quantity"), "PSR")
        self.assertIn("seeds", result.psr.GetAttribute("DEMIST.Provenance"))

    def test_statistics_fill_a_table(self) -> None:
        """Lesions given as a label map; charts and segmentation come with it."""
        self.needsPackages()
        nodes = madeUpHead()
        psr = self.synthesize(nodes, seeds=1).psr
        result = self.logic.computeStatistics(
            psr, lesions=nodes["lesions"], t1=nodes["t1"], flair=nodes["flair"], brainMask=nodes["brain"]
        )
        self.assertGreater(result.table.GetNumberOfRows(), 2)
        self.assertIsNotNone(result.segmentation)
        self.assertEqual(result.rows[0]["name"], "Lesions")

    def test_a_run_can_be_cancelled(self) -> None:
        """Within two seconds, with the scene as it was."""
        self.needsPackages()
        nodes = madeUpHead()
        before = slicer.mrmlScene.GetNumberOfNodes()
        job = self.synthesize(nodes, steps=500, wait=False)
        until = time.monotonic() + 3
        while time.monotonic() < until and job.isRunning:
            slicer.app.processEvents()
            time.sleep(0.01)
        start = time.monotonic()
        job.cancel()
        while job.isRunning and time.monotonic() < start + 30:
            slicer.app.processEvents()
            time.sleep(0.01)
        self.assertFalse(job.isRunning)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before)

    def test_what_cannot_be_is_said_at_once(self) -> None:
        """One sentence, and nothing was started."""
        from DEMISTSlicerLib.RunError import RunError

        nodes = madeUpHead()
        with self.assertRaises(RunError) as caught:
            self.logic.synthesize(None, nodes["flair"])
        self.assertIn("T1w", str(caught.exception))
        self.assertFalse(self.logic.isRunning)

    def test_the_overlay_gives_the_views_back(self) -> None:
        """Every composite node is as it was."""
        from DEMISTSlicerLib.Nodes.Volumes import createPsrVolume
        from DEMISTSlicerLib.Views.Overlay import Overlay

        nodes = madeUpHead()
        scene = slicer.mrmlScene
        if scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode") == 0:
            self.skipTest("There are no slice views.")
        composite = scene.GetNthNodeByClass(0, "vtkMRMLSliceCompositeNode")
        composite.SetBackgroundVolumeID(nodes["flair"].GetID())
        array = np.zeros(slicer.util.arrayFromVolume(nodes["t1"]).T.shape, np.float32)
        psr = createPsrVolume(nodes["t1"], array, None, {})
        before = (composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID(), composite.GetLinkedControl())
        overlay = Overlay()
        overlay.show(psr, nodes["t1"])
        self.assertEqual(composite.GetForegroundVolumeID(), psr.GetID())
        overlay.hide()
        after = (composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID(), composite.GetLinkedControl())
        self.assertEqual(after, before)


def run(say: Any = print) -> unittest.TestResult:
    """Run all cases; raises AssertionError with the tracebacks of those that failed.

    Args:
        say: told the name of each case and the outcome.
    """
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(DEMISTSlicerTestCases).run(result)
    for test, why in result.skipped:
        say(f"Left out: {test.id().split('.')[-1]} ({why})")
    wrong = [*result.failures, *result.errors]
    say(f"DEMIST: {result.testsRun} cases, {len(wrong)} failed, {len(result.skipped)} left out")
    if wrong:
        raise AssertionError("\n".join(text for _test, text in wrong))
    return result
