"""The cases that run inside a real Slicer (DEMISTSlicerTest), run here over what stands in for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import slicer_app

slicer_app.install()
FOLDER = Path(__file__).parents[1] / "DEMISTSlicer" / "Testing" / "Python"


@pytest.mark.slow
def test_the_cases_of_the_module_hold_here(tiny_bundle, monkeypatch):
    monkeypatch.setenv("DEMIST_TEST_BUNDLE", str(tiny_bundle))
    slicer_app.fresh_scene()
    slicer_app.open_module()
    said = []
    test = sys.modules["DEMISTSlicer"].DEMISTSlicerTest()
    test.delayDisplay = said.append
    test.runTest()  # as Reload and Test does
    slicer_app.close_module()
    assert said[-1].startswith("DEMIST: 8 cases, 0 failed")


def test_every_case_that_computes_says_what_it_needs(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import DEMISTSlicerTestCases as cases

    source = (FOLDER / "DEMISTSlicerTestCases.py").read_text(encoding="utf-8")
    names = [name for name in vars(cases.DEMISTSlicerTestCases) if name.startswith("test_")]
    assert len(names) == 8
    assert source.count("self.needsPackages()") == 3
