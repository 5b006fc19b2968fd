"""The extension as Slicer builds, lists and shows it: CMake lists, catalog entry, icon, texts."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import types
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULE = ROOT / "DEMISTSlicer"
LIB = sorted((MODULE / "DEMISTSlicerLib").rglob("*.py"))


def listed(variable: str) -> list[str]:
    text = (MODULE / "CMakeLists.txt").read_text(encoding="utf-8")
    inside = re.search(rf"set\({variable}\s(.*?)\n  \)", text, re.S).group(1)
    return [line.strip().replace("${MODULE_NAME}", "DEMISTSlicer") for line in inside.splitlines() if line.strip()]


def in_tree(*patterns: str) -> set[str]:
    return {p.relative_to(MODULE).as_posix() for pattern in patterns for p in MODULE.glob(pattern) if p.is_file()}


def test_every_address_of_the_repository_leads_to_a_file():
    """The help text's, the catalog's, the documents': branch main, where all of this is published."""
    sources = [MODULE / "DEMISTSlicer.py", ROOT / "CMakeLists.txt", *ROOT.glob("*.json"), *ROOT.glob("*.md")]
    sources += ROOT.glob("docs/*.md")
    hosts = r"(?:github\.com/[^/\s]+/SlicerDEMIST/blob|raw\.githubusercontent\.com/[^/\s]+/SlicerDEMIST)"
    pattern = rf"https://{hosts}/main/([^\s\"')>#]+)"
    found = {path: re.findall(pattern, path.read_text(encoding="utf-8")) for path in sources}
    assert found[MODULE / "DEMISTSlicer.py"] == ["docs/slicer.md"]
    for path, targets in found.items():
        for target in targets:
            assert (ROOT / target).is_file(), f"{path.name}: {target}"


def test_every_script_and_resource_is_listed():
    scripts, resources = listed("MODULE_PYTHON_SCRIPTS"), listed("MODULE_PYTHON_RESOURCES")
    assert len(scripts) == len(set(scripts))
    assert set(scripts) == in_tree("*.py", "DEMISTSlicerLib/**/*.py", "Testing/**/*.py")
    assert set(resources) == in_tree("Resources/**/*")


def test_cmake_is_as_in_slicers_template():
    top = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    for line in (
        "project(DEMIST)",
        "find_package(Slicer REQUIRED)",
        "include(${Slicer_USE_FILE})",
        "add_subdirectory(DEMISTSlicer)",
        "include(${Slicer_EXTENSION_GENERATE_CONFIG})",
        "include(${Slicer_EXTENSION_CPACK})",
    ):
        assert top.count(line) == 1, line
    for name in ("HOMEPAGE", "CATEGORY", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS"):
        assert re.search(rf'set\(EXTENSION_{name} "[^"]+"\)', top), name
    module = (MODULE / "CMakeLists.txt").read_text(encoding="utf-8")
    assert "slicerMacroBuildScriptedModule(" in module
    assert "slicer_add_python_unittest(SCRIPT ${MODULE_NAME}.py)" in module
    assert "add_subdirectory(Testing)" in module


STAND_INS = """
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR lib/Slicer-5.10/qt-scripted-modules)
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR ${Slicer_QTSCRIPTEDMODULES_LIB_DIR})
set(BUILD_TESTING ON)
set(Slicer_USE_FILE ${CMAKE_CURRENT_LIST_DIR}/use.cmake)
set(Slicer_EXTENSION_GENERATE_CONFIG ${CMAKE_CURRENT_LIST_DIR}/nothing.cmake)
set(Slicer_EXTENSION_CPACK ${CMAKE_CURRENT_LIST_DIR}/nothing.cmake)
"""
USE = """
include(CMakeParseArguments)
function(ctkMacroCompilePythonScript)
  cmake_parse_arguments(MY "NO_INSTALL_SUBDIR;GLOBAL_TARGET" "TARGET_NAME;SOURCE_DIR;DESTINATION_DIR;INSTALL_DIR"
    "SCRIPTS;RESOURCES" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "unknown: ${MY_UNPARSED_ARGUMENTS}")
  endif()
  foreach(file ${MY_SCRIPTS} ${MY_RESOURCES})
    get_filename_component(folder ${file} DIRECTORY)
    file(COPY ${MY_SOURCE_DIR}/${file} DESTINATION ${MY_DESTINATION_DIR}/${folder})
  endforeach()
endfunction()
function(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY "WITH_GENERIC_TESTS;WITH_SUBDIR" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "unknown: ${MY_UNPARSED_ARGUMENTS}")
  endif()
  ctkMacroCompilePythonScript(TARGET_NAME ${MY_NAME} SCRIPTS ${MY_SCRIPTS} RESOURCES ${MY_RESOURCES}
    SOURCE_DIR ${CMAKE_CURRENT_SOURCE_DIR} DESTINATION_DIR ${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR})
endfunction()
function(slicer_add_python_unittest)
  cmake_parse_arguments(MY "" "SCRIPT;TESTNAME_PREFIX" "SLICER_ARGS" ${ARGN})
  if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${MY_SCRIPT})
    message(FATAL_ERROR "no such test: ${MY_SCRIPT}")
  endif()
endfunction()
"""


@pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake")
def test_cmake_lays_out_the_extension_with_the_core_beside_the_module(tmp_path):
    """Real CMake over our lists; Slicer's macros reduced to copying. The layout is that of an installed extension."""
    slicer = tmp_path / "slicer"
    slicer.mkdir()
    (slicer / "SlicerConfig.cmake").write_text(STAND_INS)
    (slicer / "use.cmake").write_text(USE)
    (slicer / "nothing.cmake").write_text("")
    build = tmp_path / "build"
    command = ["cmake", "-S", str(ROOT), "-B", str(build), f"-DSlicer_DIR={slicer}"]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    folder = build / "lib" / "Slicer-5.10" / "qt-scripted-modules"
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {"DEMISTSlicer.py", "DEMISTSlicerLib/Panel/Widget.py", "Resources/UI/DEMISTSlicer.ui"} <= there
    core = {p.relative_to(ROOT).as_posix() for p in (ROOT / "DEMISTCore").rglob("*") if p.is_file()}
    core = {p for p in core if "__pycache__" not in p}
    assert {p for p in there if p.startswith("DEMISTCore/")} == core
    # The module finds this very core, before any other.
    code = (
        "import sys, types; sys.path.insert(0, sys.argv[1]);"
        "package = types.ModuleType('DEMISTSlicerLib'); package.__path__ = [sys.argv[1] + '/DEMISTSlicerLib'];"
        "sys.modules['DEMISTSlicerLib'] = package;"
        "from DEMISTSlicerLib.Core import ensureCore; print(ensureCore());"
        "from DEMISTCore.bundle import list_bundles; import DEMISTCore; print(DEMISTCore.__file__, list_bundles())"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert str(folder / "DEMISTCore" / "__init__.py") in ran.stdout
    assert "demist-sim" in ran.stdout


def test_the_catalog_entry_fits_its_schema():
    """The rules of slicer-extension-catalog-entry-schema-v1.0.1.json, and of the index's own checks."""
    entry = json.loads((ROOT / "DEMIST.json").read_text(encoding="utf-8"))
    kinds = {
        "$schema": str,
        "build_dependencies": list,
        "build_subdirectory": str,
        "category": str,
        "enabled": bool,
        "scm_revision": str,
        "scm_type": str,
        "scm_url": str,
        "tier": int,
    }
    assert {"$schema", "category", "scm_url"} <= set(entry) <= set(kinds)
    assert all(isinstance(value, kinds[key]) for key, value in entry.items())
    assert re.fullmatch(r"https://.+/slicer-extension-catalog-entry-schema-v\d+\.\d+\.\d+\.json#", entry["$schema"])
    assert 1 <= entry["tier"] <= 5
    assert entry["scm_type"] in ("git", "local")
    assert list(entry) == sorted(entry)
    top = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert f'set(EXTENSION_CATEGORY "{entry["category"]}")' in top
    depends = re.search(r'EXTENSION_DEPENDS "([^"]+)"', top).group(1).split()
    assert depends == entry["build_dependencies"]
    repository = entry["scm_url"].removesuffix(".git")
    assert repository.rsplit("/", 1)[1] == "SlicerDEMIST"  # Slicer + name of the extension
    assert repository in re.search(r'EXTENSION_HOMEPAGE "([^"]+)"', top).group(1)


def png_size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:24])


def test_icons_have_the_sizes_that_slicer_wants():
    assert png_size(MODULE / "Resources" / "Icons" / "DEMISTSlicer.png") == (128, 128)
    assert png_size(MODULE / "Resources" / "Icons" / "DEMISTSlicerSample.png") == (260, 280)


def test_what_the_urls_name_is_in_the_repository():
    top = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    urls = re.findall(r"https://raw\.githubusercontent\.com/[^/]+/SlicerDEMIST/main/(\S+?)[\"\s]", top)
    assert len(urls) >= 2
    for path in urls:
        assert (ROOT / path).is_file(), path


def test_no_word_to_people_is_left_untranslatable():
    """In the panel's files, what goes to a label, a tooltip or a message box passes through _()."""
    shown = {"text", "toolTip", "windowTitle"}
    for path in LIB:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and node.value.value:
                names = {t.attr for t in node.targets if isinstance(t, ast.Attribute)}
                assert not names & shown, f"{path.name}: {ast.unparse(node)}"


def test_the_library_loads_no_heavy_package_and_no_qt_widget_at_import():
    for path in LIB:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {n.split(".")[0] for n in names} & {"torch", "monai", "PySide6", "nibabel"}, path.name


def test_the_ui_uses_only_widgets_that_slicer_has():
    tree = ElementTree.parse(MODULE / "Resources" / "UI" / "DEMISTSlicer.ui")
    custom = {c.findtext("class") for c in tree.iter("customwidget")}
    used = {w.get("class") for w in tree.iter("widget")}
    assert custom == {c for c in used if not c.startswith("Q")}
    assert custom == {"ctkCollapsibleButton", "ctkSliderWidget", "qMRMLNodeComboBox", "qMRMLWidget"}


#: What the Extensions Index allows (its scripts/check_description_files.py, check_repository_size), in MiB: every file
#: of a clone, those of .git included, so that whatever does not compress counts twice.
INDEX_LIMIT_MB = 100.0
#: What the weights may take of that (MiB): twice 40 leaves 20 for everything else.
WEIGHTS_MB = 40.0


def megabytes(folder: Path) -> float:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink()) / 2**20


@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="needs a git checkout")
def test_a_clone_of_one_commit_is_small_enough_for_the_index(tmp_path):
    """As it is published: one commit, without the history of weights that came before (docs/slicer.md tells how)."""
    clone = tmp_path / "SlicerDEMIST"
    command = ["git", "clone", "--quiet", "--depth", "1", "--single-branch", f"file://{ROOT}", str(clone)]
    subprocess.run(command, check=True, capture_output=True)
    count = subprocess.run(["git", "-C", str(clone), "rev-list", "--count", "HEAD"], capture_output=True, text=True)
    assert count.stdout.strip() == "1"
    weights, total = megabytes(clone / "DEMISTCore" / "bundles"), megabytes(clone)
    assert weights < WEIGHTS_MB
    assert total < INDEX_LIMIT_MB


@pytest.mark.skipif(not os.environ.get("DEMIST_INDEX_SOURCE"), reason="DEMIST_INDEX_SOURCE names no Extensions Index")
def test_the_indexs_own_checks_pass(tmp_path, monkeypatch):
    """``scripts/check_description_files.py`` of a checkout of Slicer/ExtensionsIndex, over a clone of one commit.

    Left out is what asks the network: the repository's topics, the schema (see above), and whether pictures answer;
    that these are in the repository is looked at instead.
    """
    script = Path(os.environ["DEMIST_INDEX_SOURCE"]) / "scripts" / "check_description_files.py"
    index = types.ModuleType("check_description_files")
    text = script.read_text(encoding="utf-8")
    # A helper that is not used here is written for Python 3.12; the checks themselves run on any.
    text = re.sub(r"(?m)^def print_categories\(.*?(?=^def )", "", text, flags=re.S | re.M)
    exec(compile(text, str(script), "exec"), index.__dict__)
    clone = tmp_path / "SlicerDEMIST"
    entry = json.loads((ROOT / "DEMIST.json").read_text(encoding="utf-8"))
    index.check_clone_repository("DEMIST", {"scm_url": f"file://{ROOT}"}, str(clone))
    seen = []

    def in_repository(url: str, *_about: str) -> None:
        seen.append(url)
        assert (clone / url.split("/main/", 1)[1]).is_file(), url

    monkeypatch.setattr(index, "validate_image_url", in_repository)
    index.check_json_file_format("DEMIST", entry, str(ROOT / "DEMIST.json"))
    index.check_category("DEMIST", entry)
    index.check_scm_url_syntax("DEMIST", entry)
    index.check_extension_name("DEMIST", entry)
    index.check_git_repository_name("DEMIST", entry)
    index.check_cmakelists_content("DEMIST", entry, str(clone))
    index.check_repository_size("DEMIST", entry, str(clone))
    index.check_license_file("DEMIST", entry, str(clone))
    assert seen
