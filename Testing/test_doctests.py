"""The examples in docstrings are run, and what our own code does that is deprecated is an error in tests."""

from __future__ import annotations

import doctest
import importlib
import re
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: Modules whose docstrings have an example; importing all the others would only take time.
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "DEMISTCore").rglob("*.py")
    if re.search(r"^\s*>>> ", path.read_text(encoding="utf-8"), re.MULTILINE)
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    # A function of the same name may hide a module of its package: importlib gives the module.
    module = importlib.import_module(name)
    found = [test for test in doctest.DocTestFinder().find(module) if test.examples]  # some are all +SKIP
    assert found, f"{name} has an example that doctest does not find"
    assert not doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed


def test_there_are_examples():
    assert len(MODULES) > 20


@pytest.mark.parametrize("module", ["DEMISTCore.metrics", "DEMISTSlicerLib.Logic"])
def test_deprecated_use_by_our_own_code_is_an_error(module):
    with pytest.raises(DeprecationWarning):
        warnings.warn_explicit("goes in the next version", DeprecationWarning, "file.py", 1, module=module)


def test_deprecated_use_by_others_is_not():
    warnings.warn_explicit("goes in the next version", DeprecationWarning, "file.py", 1, module="torch.nn")


def test_examples_of_the_site_s_hooks():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import site_hooks
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    told = doctest.testmod(site_hooks)
    assert told.attempted
    assert not told.failed
