"""Python packages: checked, installed with consent, nothing of Slicer's own downgraded."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types
import zipfile
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import slicer_app

slicer_app.install()

import slicer  # noqa: E402
from DEMISTSlicerLib import Installer as installer_module  # noqa: E402
from DEMISTSlicerLib.Installer import Installer, InstallError, constraints, installed, requirements  # noqa: E402
from packaging.requirements import Requirement  # noqa: E402

ROOT = Path(__file__).parents[1]


@pytest.fixture
def listed(tmp_path):
    """Writes a requirements file."""

    def write(*lines: str) -> Path:
        file = tmp_path / "requirements.txt"
        file.write_text("# needed\n\n" + "\n".join(lines) + "\n")
        return file

    return write


def test_the_list_is_that_of_the_project():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.findall(r'"([^"]+)"', re.search(r"\ndependencies = \[(.*?)\n\]", project, re.S).group(1))
    assert len(listed) > 5
    assert {str(r) for r in requirements()} == {str(Requirement(line)) for line in listed}


def test_here_all_is_installed_and_nobody_is_asked():
    asked = []
    made = Installer(confirm=lambda *words: asked.append(words) or True, install=lambda *words: asked.append(words))
    assert made.missing() == []
    assert made.ensure()
    assert asked == []


def test_what_is_missing_or_too_old_is_found(listed):
    file = listed("numpy>=1", "numpy>=99", "no-such-thing  # a comment", "no-such-thing; python_version < '3'")
    assert [str(r) for r in Installer(file=file).missing()] == ["numpy>=99", "no-such-thing"]


def test_a_module_without_metadata_counts_as_there(listed, tmp_path, monkeypatch):
    (tmp_path / "built_by_slicer.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert Installer(file=listed("built-by-slicer>=3")).missing() == []


def test_declining_changes_nothing(listed):
    done = []
    made = Installer(confirm=lambda *_: False, install=lambda *words: done.append(words), file=listed("no-such-thing"))
    assert made.ensure() is False
    assert done == []


def test_each_package_is_installed_with_progress_torch_first(listed, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    told, done = [], []

    def install(packages, file):
        done.append((packages, Path(file).read_text()))
        name = packages[0].split(">")[0]
        (tmp_path / f"{name}.py").write_text("")  # what pip would bring

    made = Installer(
        progress=lambda text, share: told.append((text, share)),
        confirm=lambda text, packages: "3 Python packages" in text and packages[2] == "torch>=999",
        install=install,
        file=listed("fake_one>=1", "fake_two", "torch>=999"),
    )
    with pytest.raises(InstallError, match="torch>=999 is still missing"):
        made.ensure()  # pip brought no such torch
    assert [packages for packages, _lines in done] == [["torch>=999"], ["fake_one>=1"], ["fake_two"]]
    assert all("numpy==" in lines for _packages, lines in done)
    assert [round(share, 2) for _text, share in told] == [0, 0.33, 0.67, 1]
    assert "torch" in told[0][0]
    made.file = listed("fake_one>=1", "fake_two")
    assert made.ensure()
    assert made.restartNeeded == []


def test_a_failure_is_one_sentence_that_names_the_package(listed):
    def fail(packages, file):
        raise subprocess.CalledProcessError(1, ["pip"])

    made = Installer(confirm=lambda *_: True, install=fail, file=listed("no-such-thing"))
    with pytest.raises(InstallError, match="no-such-thing could not be installed"):
        made.ensure()


def test_what_pip_did_not_bring_is_named(listed):
    made = Installer(confirm=lambda *_: True, install=lambda *_: None, file=listed("no-such-thing"))
    with pytest.raises(InstallError, match="no-such-thing is still missing"):
        made.ensure()


def test_torch_comes_through_the_pytorch_extension_where_that_is(listed, tmp_path, monkeypatch):
    """The PyTorch extension's own signature: installTorch(askConfirmation, forceComputationBackend, ...)."""
    called = []

    class PyTorchUtilsLogic:
        def installTorch(
            self, askConfirmation=False, forceComputationBackend=None, torchVersionRequirement=None,
            torchvisionVersionRequirement=None,
        ):  # fmt: skip
            called.append((askConfirmation, torchVersionRequirement))
            return types.ModuleType("torch")

    module = types.ModuleType("PyTorchUtils")
    module.PyTorchUtilsLogic = PyTorchUtilsLogic
    module.__spec__ = ModuleSpec("PyTorchUtils", None)
    monkeypatch.setitem(sys.modules, "PyTorchUtils", module)
    pipped = []
    made = Installer(install=lambda *words: pipped.append(words))
    made._one(Requirement("torch>=2.6"), "constraints.txt")
    assert called == [(False, ">=2.6")]
    assert pipped == []
    PyTorchUtilsLogic.installTorch = lambda self, **_: None
    with pytest.raises(InstallError, match="PyTorch extension"):
        made._one(Requirement("torch>=2.6"), "constraints.txt")


def test_a_restart_is_asked_for_only_if_something_loaded_was_replaced():
    before = {"numpy": "1.0", "never-loaded-thing": "1.0", "vtk": "9"}
    assert installer_module.replaced_while_loaded(before, {**before, "never-loaded-thing": "2"}) == []
    assert installer_module.replaced_while_loaded(before, {**before, "numpy": "2.0", "brand-new": "1"}) == ["numpy"]


def test_what_slicer_ships_stays():
    lines = constraints({"numpy": "2.1.3", "simpleitk": "2.5.0", "idna": "3.7", "odd": "not a version"})
    assert lines == ["idna>=3.7", "numpy==2.1.3", "simpleitk==2.5.0"]


def wheel(folder: Path, name: str, version: str, needs: str) -> None:
    """A wheel with nothing in it but a requirement."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", "")
        file.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: {needs}\n"
        )
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


def test_pip_itself_keeps_what_is_installed(tmp_path):
    """Real pip, dry run, our constraints: a package that would downgrade numpy is refused, a harmless one is not."""
    wheel(tmp_path, "demistharmless", "1.0", "numpy>=1")
    wheel(tmp_path, "demistgreedy", "1.0", "numpy<1.5")
    wheel(tmp_path, "numpy", "1.4.0", "")
    file = tmp_path / "constraints.txt"
    file.write_text("\n".join(constraints(installed())) + "\n")

    def pip(package: str, *more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--find-links", str(tmp_path)]
        environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        return subprocess.run([*command, *more, package], capture_output=True, text=True, env=environment)

    good = pip("demistharmless", "--constraint", str(file))
    assert "Would install demistharmless-1.0" in good.stdout, good.stderr
    assert "numpy-" not in good.stdout
    free = pip("demistgreedy")
    assert "numpy-1.4.0" in free.stdout  # without constraints it would have happened
    kept = pip("demistgreedy", "--constraint", str(file))
    assert kept.returncode != 0
    assert "conflicting dependencies" in kept.stderr
    assert "numpy<1.5" in kept.stdout + kept.stderr


def test_slicer_5_10_is_given_pips_own_words(monkeypatch):
    """Before slicer.packaging there is slicer.util.pip_install, which takes a list of arguments."""
    if installer_module.importlib.util.find_spec("slicer.packaging") is not None:
        pytest.skip("slicer.packaging is there (DEMIST_SLICER_SOURCE)")
    called = []
    monkeypatch.setattr(slicer.util, "pip_install", called.append)
    installer_module._pip_install(["monai>=1.5"], "file.txt")
    assert called == [["--constraint", "file.txt", "monai>=1.5"]]


def test_slicer_packaging_is_used_where_there_is_one(monkeypatch):
    called = []
    module = types.ModuleType("slicer.packaging")
    module.__spec__ = ModuleSpec("slicer.packaging", None)
    module.pip_install = lambda packages, **options: called.append((packages, options))
    monkeypatch.setitem(sys.modules, "slicer.packaging", module)
    monkeypatch.setattr(slicer, "packaging", module, raising=False)
    installer_module._pip_install(["monai>=1.5"], "file.txt")
    assert called == [(["monai>=1.5"], {"constraints": "file.txt", "requester": "DEMIST"})]
