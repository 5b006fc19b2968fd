"""What the worker needs: looked for, installed with consent into an environment of its own, Slicer's left alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import slicer_app

slicer_app.install()

from DEMISTSlicerLib.Install import Place  # noqa: E402
from DEMISTSlicerLib.Install.Installation import Installation  # noqa: E402
from DEMISTSlicerLib.Install.Installer import Installer, requirements  # noqa: E402
from DEMISTSlicerLib.Run import Process  # noqa: E402
from DEMISTSlicerLib.Run.Process import WorkerProcess  # noqa: E402
from packaging.requirements import Requirement  # noqa: E402
from test_environment import wheel  # noqa: E402

ROOT = Path(__file__).parents[1]
LONG = 240.0


@pytest.fixture
def listed(tmp_path):
    """Writes a requirements file."""

    def write(*lines: str) -> Path:
        file = tmp_path / "requirements.txt"
        file.write_text("# needed\n\n" + "\n".join(lines) + "\n")
        return file

    return write


@pytest.fixture
def place(tmp_path):
    """Environments go into a folder of the test."""
    Place.choose(tmp_path / "settings")
    yield tmp_path / "settings"
    Place.choose(None)


def test_the_list_is_that_of_the_project_with_what_the_sample_needs():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    core = re.search(r"\ndependencies = \[(.*?)\n\]", project, re.S).group(1)
    extras = (re.search(rf"\n{name} = \[(.*?)\]", project, re.S).group(1) for name in ("simulate", "dicom"))
    listed = re.findall(r'"([^"]+)"', core + "".join(extras))
    assert len(listed) > 5
    assert {str(r) for r in requirements()} == {str(Requirement(line)) for line in listed}


def test_here_all_is_installed_and_nobody_is_asked(place):
    asked, called = [], []
    made = Installer(confirm=lambda *words: asked.append(words) or True)
    assert made.missing() == []
    assert made.ensure(lambda: called.append(1))
    assert called == [1]
    assert asked == []
    assert made.ensureNow()


def test_what_is_missing_or_too_old_is_found(listed):
    file = listed("numpy>=1", "numpy>=99", "no-such-thing  # a comment", "no-such-thing; python_version < '3'")
    assert [str(r) for r in Installer(file=file).missing()] == ["numpy>=99", "no-such-thing"]


def test_a_module_without_metadata_counts_as_there(listed, tmp_path, monkeypatch):
    (tmp_path / "built_by_slicer.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert Installer(file=listed("built-by-slicer>=3")).missing() == []


def test_declining_changes_nothing(listed, place):
    made = Installer(confirm=lambda *_: False, file=listed("no-such-thing"))
    assert made.ensure(lambda: pytest.fail("called")) is False
    assert not made.ensureNow()
    assert not made.isRunning
    assert not place.exists()


def test_the_folder_is_the_users_or_beside_slicers_settings(tmp_path):
    import slicer

    Place.choose(None)
    assert Place.chosenFolder() == Path(slicer.app.slicerUserSettingsFilePath).parent / "DEMIST"
    Place.choose(tmp_path)
    assert Place.environmentFolder().parent == tmp_path
    assert f"python{sys.version_info.major}.{sys.version_info.minor}" in Place.environmentFolder().name
    Place.choose(None)


def test_the_worker_runs_in_its_own_environment_and_slicers_python_stays_as_it_is(listed, place, tmp_path):
    """Real pip, real child processes; the environment has what Slicer's Python lacks."""
    wheels = tmp_path / "wheels"
    wheel(wheels, "demistonly", "1.0")
    before = freeze()
    installation, ends = Installation(), []
    made = Installer(installation=installation, file=listed("demistonly"))
    made.finished.connect(lambda: ends.append("finished"))
    made.failed.connect(lambda *told: ends.append(told))
    assert not made.isReady()
    assert made.install(wheels=wheels)
    assert not made.install(wheels=wheels)  # a second click
    assert slicer_app.wait_until(lambda: ends, LONG)
    assert ends == ["finished"]
    assert made.isReady()
    assert freeze() == before
    found = Place.environment()
    process, said, over = WorkerProcess(environment=lambda: found), [], []
    process.textReceived.connect(said.append)
    process.ended.connect(lambda *told: over.append(told))
    process.send({"id": 1, "do": "hello"})
    # Slicer's Python has numpy; the environment has not, and sees none but its own.
    assert slicer_app.wait_until(lambda: over, LONG)
    assert said[-1] == "The Python package numpy is missing."
    assert made.remove()
    assert slicer_app.wait_until(lambda: len(ends) == 2, LONG)
    assert not found.folder.exists()


def test_an_installation_that_ends_by_itself_is_told(monkeypatch, place, listed):
    # Not by the module's name: a test of Reload has made another module of that name.
    monkeypatch.setitem(Installation._start.__globals__, "pythonProgram", lambda: "/nowhere/PythonSlicer")
    made, told = Installer(file=listed("x")), []
    made.failed.connect(lambda *words: told.append(words))
    made.install()
    assert slicer_app.wait_until(lambda: told, LONG)
    assert "ended by itself" in told[0][0]
    assert not made.isRunning


def test_the_arguments_are_those_of_the_environment(place):
    found = type("Found", (), {"packages": place / "packages-1", "shared": ("/theirs",)})()
    (option, code) = Process.environmentArguments(found)
    assert option == "-c"
    assert "DEMISTCore.worker" in code
    assert "/theirs" in code
    path = Process.environment(found.packages)["PYTHONPATH"].split(os.pathsep)
    assert path[1] == str(found.packages)


def freeze() -> str:
    return subprocess.run([sys.executable, "-m", "pip", "freeze", "--all"], capture_output=True, text=True).stdout


def test_what_another_system_resolves_to_is_told_by_pip(tmp_path, monkeypatch):
    """Real pip, offline: conditions are the other system's, and so are the installer's constraints."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import slicer_platforms

    wheels = tmp_path / "wheels"
    for version in ("1.26.4", "2.1.0"):
        wheel(wheels, "numpy", version)
    wheel(wheels, "demistmac", "1.0")
    wheel(wheels, "demistroot", "2.0", needs='demistmac; sys_platform == "darwin" and python_version >= "3.12"')
    file = tmp_path / "requirements.txt"
    file.write_text("demistroot\nnumpy\n")
    monkeypatch.setattr(slicer_platforms, "REQUIREMENTS", file)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", wheels.as_uri())
    monkeypatch.delenv("PIP_CONSTRAINT", raising=False)
    plain = {"demistroot": "2.0", "numpy": "2.1.0"}
    assert slicer_platforms.resolve("Linux", "3.12", tmp_path) == plain
    assert slicer_platforms.resolve("macOS, Apple silicon", "3.11", tmp_path) == plain
    assert slicer_platforms.resolve("macOS, Apple silicon", "3.12", tmp_path) == {**plain, "demistmac": "1.0"}
    # torch for an Intel Mac was made for numpy 1.
    assert slicer_platforms.resolve("macOS, Intel", "3.12", tmp_path)["numpy"] == "1.26.4"
    file.write_text("no-such-thing\n")
    assert "no-such-thing" in slicer_platforms.resolve("Windows", "3.12", tmp_path)
