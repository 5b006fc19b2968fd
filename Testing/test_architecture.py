"""docs/architecture.md against the code: its picture, its list of arrows that point up, and every step of its walks."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
STEP = re.compile(r"`((?:DEMISTCore|DEMISTSlicer)/[\w/]+\.py):([\w.]+)`")


@pytest.fixture(scope="module")
def architecture():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import architecture

        return architecture
    finally:
        sys.path.remove(str(ROOT / "scripts"))


def source(file: str, name: str) -> str:
    """The text of a function, class, method, inner function or constant; KeyError if the file has no such thing."""
    text = (ROOT / file).read_text(encoding="utf-8")
    found: ast.AST = ast.parse(text)
    for word in name.split("."):
        named = {}
        for node in ast.iter_child_nodes(found):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                named[node.name] = node
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                named[node.target.id] = node
        found = named[word]
    return ast.get_source_segment(text, found) or ""


def walks() -> list[list[tuple[str, str]]]:
    """Each numbered list of the page: its steps as (file, name)."""
    lists = re.findall(r"(?:^\d+\. .*\n)+", PAGE, flags=re.MULTILINE)
    return [[step for line in text.splitlines() for step in STEP.findall(line)] for text in lists]


def test_four_walks_of_several_steps():
    assert len(re.findall(r"^### ", PAGE, flags=re.MULTILINE)) == 4
    assert len(walks()) == 7
    assert sum(map(len, walks())) == len(STEP.findall(PAGE)) > 50


@pytest.mark.parametrize("walk", walks(), ids=lambda walk: walk[0][1])
def test_each_step_exists_and_an_earlier_one_names_it(walk):
    texts: list[str] = []
    for file, name in walk:
        text = source(file, name)
        last = name.split(".")[-1]
        # Calls through a registry or a handle count: the name must stand in the code of an earlier step.
        assert not texts or any(re.search(rf"\b{last}\b", each) for each in texts), f"{file}:{name}: nobody calls it"
        texts.append(text)


def test_the_picture_is_as_the_code_is(architecture):
    drawn = architecture.svg(architecture.arrows())
    ElementTree.fromstring(drawn)
    assert architecture.PICTURE.read_text(encoding="utf-8") == drawn, "run python scripts/architecture.py"


def test_the_page_lists_every_arrow_up_and_no_other(architecture):
    listed = set(re.findall(r"^\| ([\w ]+) -> ([\w ]+) \|", PAGE, flags=re.MULTILINE))
    assert listed == architecture.upward(architecture.arrows())


def test_every_package_has_a_box_and_every_box_is_there(architecture):
    boxes = {box for row in architecture.ROWS for box in row}
    packages = {path.parent.name for path in (ROOT / "DEMISTCore").glob("*/__init__.py")}
    assert boxes == packages | set(architecture.FILES) | {"common", "DEMISTSlicer"}
    assert set(architecture.WORDS) == boxes
    for files in architecture.FILES.values():
        for name in files:
            assert (ROOT / "DEMISTCore" / f"{name}.py").is_file() or (ROOT / "DEMISTCore" / name).is_dir(), name


def test_a_new_import_changes_the_picture(architecture):
    found = architecture.arrows()
    assert architecture.svg(found | {("networks", "training")}) != architecture.svg(found)
    assert ("networks", "training") in architecture.upward(found | {("networks", "training")})
