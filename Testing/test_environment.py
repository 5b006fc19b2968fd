"""The worker's own Python environment: made by real pip from small wheels, tried, replaced, stopped, removed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import types
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from DEMISTCore.environment import arguments, check, read_environment, torch_build, variables
from DEMISTCore.environment import build as building
from DEMISTCore.environment.build import Plan, build, distribution, remove, requirements
from DEMISTCore.environment.pip import Progress, reason
from DEMISTCore.environment.place import MANIFEST
from DEMISTCore.errors import Cancelled, InputError

ROOT = Path(__file__).parents[1]


def wheel(folder: Path, name: str, version: str, code: str = "", needs: str = "") -> None:
    """A wheel of one module."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", f"version = {version!r}\n{code}\n")
        told = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        file.writestr(f"{info}/METADATA", told + (f"Requires-Dist: {needs}\n" if needs else ""))
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


@pytest.fixture
def plan(tmp_path):
    """What to install: two packages, from a folder whose name has a space and letters that are no ASCII."""
    wheels = tmp_path / "Räder und mehr"
    wheel(wheels, "demistleaf", "1.5")
    wheel(wheels, "demistroot", "2.0", needs="demistleaf>=1")
    listed = tmp_path / "requirements.txt"
    listed.write_text("# needed\ndemistroot>=2  # and what it needs\n")
    return Plan(tmp_path / "Größe 1" / "env", listed, wheels=wheels, space=0.0)


def made(plan: Plan, cancelled: threading.Event | None = None):
    told, said = [], []
    environment = build(plan, lambda *words: told.append(words), said.append, cancelled or threading.Event())
    return environment, told, said


def freeze() -> str:
    return subprocess.run([sys.executable, "-m", "pip", "freeze", "--all"], capture_output=True, text=True).stdout


def test_packages_are_installed_tried_and_told_of(plan):
    assert read_environment(plan.folder).state == "absent"
    before = freeze()
    environment, told, said = made(plan)
    assert freeze() == before  # this Python is as it was, to the byte
    assert environment == read_environment(plan.folder)
    assert environment.is_ready
    assert environment.versions["demistroot"] == "2.0"
    assert environment.size > 0
    assert [share for _text, share in told] == sorted(share for _text, share in told)
    assert told[-1] == ("The environment is ready", 1.0)
    assert any("demistleaf" in line for line in said)
    assert "demistleaf" in (plan.folder / "install.log").read_text(encoding="utf-8")
    assert not (plan.folder / "tmp").exists()


def test_python_started_in_it_sees_its_packages_and_no_others(plan, tmp_path):
    environment, _told, _said = made(plan)
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "probe.py").write_text(
        "import sys, demistleaf, json\nprint(demistleaf.version, sys.argv[1:], json.__file__)\n"
        "try:\n    import numpy\nexcept ImportError as error:\n    print(error.name)\n"
    )
    (tmp_path / "json.py").write_text("raise SystemExit('the working directory was searched')")
    command = [sys.executable, *arguments("probe", tmp_path / "core", environment.packages, environment.shared), "x"]
    # As Slicer's launcher has it: its own packages come first in PYTHONPATH.
    own = [path for path in sys.path if path.endswith("site-packages")]
    ran = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.pathsep.join(own)}
    )
    assert ran.returncode == 0, ran.stderr
    first, second = ran.stdout.splitlines()
    assert first.startswith("1.5 ['x']")
    assert second == "numpy"


def test_made_again_it_replaces_the_one_before_and_removed_nothing_is_left(plan):
    first, _told, _said = made(plan)
    wheel(plan.wheels, "demistleaf", "1.6")
    second, _told, _said = made(plan)
    assert second.versions["demistleaf"] == "1.6"
    assert not first.packages.exists()
    mine = plan.folder / "notes.txt"
    mine.write_text("not the installer's")
    remove(plan.folder)
    assert [path.name for path in plan.folder.iterdir()] == ["notes.txt"]
    mine.unlink()
    remove(plan.folder)
    assert not plan.folder.exists()
    remove(plan.folder)


def test_one_that_fails_leaves_the_one_before(plan):
    good, _told, _said = made(plan)
    wheel(plan.wheels, "demistroot", "3.0", code="raise ImportError('DLL load failed')", needs="demistleaf>=1")
    with pytest.raises(InputError, match=r"demistroot is installed but does not load .*DLL load failed.*press Repair"):
        made(plan)
    assert read_environment(plan.folder) == good
    assert [path for path in plan.folder.iterdir() if path.is_dir()] == [good.packages]


def test_what_cannot_be_installed_is_one_sentence(plan, tmp_path):
    plan.requirements.write_text("no-such-thing>=1\n")
    with pytest.raises(InputError, match="There is no no-such-thing>=1 for this Python"):
        made(plan)
    assert not plan.folder.joinpath(MANIFEST).exists()
    with pytest.raises(InputError, match="holds no wheels"):
        made(Plan(plan.folder, plan.requirements, wheels=tmp_path))
    with pytest.raises(InputError, match="need about 999999 GB and the disk"):
        made(Plan(plan.folder, plan.requirements, wheels=plan.wheels, space=999999))
    plan.requirements.write_text("# nothing\n")
    with pytest.raises(InputError, match="names no packages"):
        made(plan)
    blocked = tmp_path / "file"
    blocked.write_text("")
    plan.requirements.write_text("demistroot\n")
    with pytest.raises(InputError, match="Cannot write to"):
        made(Plan(blocked / "env", plan.requirements, wheels=plan.wheels))


def test_a_stopped_one_cleans_up(plan):
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(Cancelled):
        made(plan, cancelled)
    assert [path for path in plan.folder.glob("*") if path.is_dir()] == []


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_killed_one_is_cleaned_up_by_the_next(plan):
    # A wheel that takes its time: many files.
    with zipfile.ZipFile(plan.wheels / "demistbig-1.0-py3-none-any.whl", "w") as file:
        for number in range(20000):
            file.writestr(f"demistbig/f{number}.txt", "")
        file.writestr("demistbig/__init__.py", "")
        file.writestr("demistbig-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: demistbig\nVersion: 1.0\n")
        file.writestr("demistbig-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("demistbig-1.0.dist-info/RECORD", "")
    plan.requirements.write_text("demistroot\ndemistbig\n")
    process = start(plan)
    for line in process.stdout:
        if "Installing collected" in line:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()
    assert (plan.folder / "tmp").exists()
    time.sleep(0.5)
    unpacked = sum(1 for _ in plan.folder.rglob("*"))
    time.sleep(0.5)
    assert sum(1 for _ in plan.folder.rglob("*")) == unpacked  # its pip has ended with it
    plan.requirements.write_text("demistroot\n")
    environment, _told, _said = made(plan)
    assert [path for path in plan.folder.iterdir() if path.is_dir()] == [environment.packages]


def start(plan: Plan, **more) -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        "DEMISTCore.environment",
        "build",
        "--folder",
        str(plan.folder),
        "--requirements",
        str(plan.requirements),
        "--wheels",
        str(plan.wheels),
        "--space",
        "0",
    ]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, **more)


def test_the_command_speaks_lines_and_two_at_once_are_refused(plan):
    process = start(plan)
    events = [json.loads(line) for line in process.stdout]
    assert process.wait() == 0
    process.stdin.close()
    assert {event["event"] for event in events} == {"ready", "line", "progress", "done"}
    assert events[0]["pid"] == process.pid
    assert events[-1]["environment"]["versions"]["demistroot"] == "2.0"
    from DEMISTCore.lock import FolderLock

    with FolderLock(plan.folder, "the environment"):
        second = start(plan)
        last = json.loads(list(second.stdout)[-1])
        assert second.wait() == 2
        second.stdin.close()
    assert last["event"] == "error"
    assert "is being written by process" in last["message"]


def test_it_stops_when_its_parent_is_gone(plan):
    process = start(plan)
    process.stdin.close()
    last = json.loads(list(process.stdout)[-1])
    assert process.wait() == 130
    assert last["event"] == "cancelled"
    assert [path for path in plan.folder.glob("*") if path.is_dir()] == []


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"python": "python2.7-other"}, "foreign"),
        ({"packages": "packages-gone"}, "broken"),
        ({"packages": ".."}, "broken"),
        ({"shared": ["/nowhere/at/all"]}, "broken"),
        ({"versions": 3}, "broken"),
    ],
)
def test_what_does_not_fit_is_not_started(plan, change, state):
    made(plan)
    file = plan.folder / MANIFEST
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    assert read_environment(plan.folder).state == state
    file.write_text("{")
    assert read_environment(plan.folder).state == "broken"


@pytest.mark.parametrize("version", ["2.7.1+cu118", "2.7.1"])
def test_a_torch_that_is_there_is_shared_and_never_installed_again(plan, tmp_path, monkeypatch, version):
    """The index has a newer torch, and the very version, made for this system: the one that is there is taken."""
    theirs = tmp_path / "theirs" / "site-packages"
    (theirs / "torch").mkdir(parents=True)
    (theirs / "torch" / "__init__.py").write_text(f"__version__ = {version!r}\n")
    wheel(plan.wheels, "torch", "2.7.1")
    made_here = f"torch-2.7.1-cp{sys.version_info.major}{sys.version_info.minor}-none-any.whl"
    (plan.wheels / "torch-2.7.1-py3-none-any.whl").rename(plan.wheels / made_here)
    wheel(plan.wheels, "torch", "2.14.0")
    wheel(plan.wheels, "demistmonai", "1.0", needs="torch>=2")
    plan.requirements.write_text("torch>=2.2\ndemistmonai\n")
    needs = ["demistleaf>=1", "nvidia-cublas-cu11==1; platform_system == 'Linux'", "triton==3", "x; extra == 'y'"]
    monkeypatch.setattr(torch_build, "own_torch", lambda: (version, theirs, needs))
    monkeypatch.setattr(building.torch_build, "own_torch", torch_build.own_torch)
    monkeypatch.setattr(building, "_is_for_here", lambda line: not line.startswith("torch"))  # no kernel in this one
    environment, _told, said = made(plan)
    assert environment.versions["torch"] == version
    assert environment.versions["demistleaf"] == "1.5"
    assert not (environment.packages / "torch").exists()
    assert not (environment.packages / "torch.py").exists()
    assert environment.shared == (str(theirs),)
    assert f"torch {version} that is installed already" in said[0]
    probe = tmp_path / "core"
    probe.mkdir()
    (probe / "probe.py").write_text("import torch; print(torch.__version__)")
    command = [sys.executable, *arguments("probe", probe, environment.packages, environment.shared)]
    assert subprocess.run(command, capture_output=True, text=True).stdout.strip() == version
    plan.requirements.write_text("torch>=2.10\ndemistmonai\n")  # theirs is too old: another goes beside it
    environment, _told, _said = made(plan)
    assert environment.versions["torch"] == "2.14.0"
    assert environment.shared == ()


@pytest.mark.parametrize(
    ("driver", "wanted", "platform", "name"),
    [
        ((13, 1), "auto", "linux", "cu130"),
        ((12, 9), "auto", "linux", "cu128"),
        ((12, 4), "auto", "win32", "cu124"),
        ((11, 8), "auto", "linux", "cu118"),
        ((11, 4), "auto", "linux", "cpu"),
        (None, "auto", "linux", "cpu"),
        ((13, 0), "cpu", "linux", "cpu"),
        ((13, 0), "auto", "darwin", "default"),
    ],
)
def test_the_build_follows_driver_and_wish(driver, wanted, platform, name, monkeypatch):
    monkeypatch.setattr(torch_build, "cuda_of_driver", lambda: driver)
    monkeypatch.setattr(sys, "platform", platform)
    chosen = torch_build.choose(wanted)
    assert chosen.name == name
    assert (chosen.index == "") == (name == "default" or (name == "cpu" and platform == "win32"))
    if name == "cu118":
        assert chosen.constraints == ("torch<2.8",)  # newer ones on the general index are for newer drivers


def test_torch_alone_comes_from_its_own_index_and_from_the_usual_one_where_that_is_hidden(tmp_path):
    class Run:
        def fetch(self, requirement, index, wheels, options):
            assert requirement == "torch>=2.2"
            assert options[0] == "--constraint"
            if index == "hidden":
                raise InputError("The package index cannot be reached.")
            wheel(wheels, "torch", "2.7.1+cu118")

    said, wanted = [], ["torch>=2.2", "monai"]
    chosen = torch_build.TorchBuild("cu118", "torch for NVIDIA GPUs", "index", constraints=("torch<2.8",))
    taken = building._fetched(Run(), chosen, wanted, tmp_path, said.append)
    assert taken.options == ("--find-links", str(tmp_path / "wheels"))
    assert taken.constraints == ("torch<2.8", "torch==2.7.1+cu118")
    assert said == []
    taken = building._fetched(Run(), replace(chosen, index="hidden"), wanted, tmp_path, said.append)
    assert (taken.name, taken.options, taken.constraints) == ("default", (), ())
    assert "cannot be reached" in said[0]
    assert "usual index is taken" in said[0]


def test_an_intel_mac_gets_numpy_1_for_its_last_torch(monkeypatch):
    monkeypatch.setattr(torch_build, "intel_mac", lambda: True)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert torch_build.choose("auto").constraints == ("numpy<2",)


def test_the_driver_is_asked(monkeypatch):
    def smi(*_arguments, **_options):
        return types.SimpleNamespace(returncode=0, stdout="| NVIDIA-SMI 550.54  Driver 550.54  CUDA Version: 12.4 |")

    monkeypatch.setattr(subprocess, "run", smi)
    assert torch_build.cuda_of_driver() == (12, 4)

    def none(*_arguments, **_options):
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", none)
    assert torch_build.cuda_of_driver() is None


def test_a_gpu_that_computes_nothing_is_given_up_with_a_sentence(monkeypatch):
    import torch

    before = torch.ones

    def ones(*shape, device="cpu"):
        if device == "cuda":
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device")
        return before(*shape, device=device)

    assert check.try_torch()[1] == ""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", ones)
    device, note = check.try_torch()
    assert device == "cpu"
    assert "no kernel image" in note
    assert note.endswith("the CPU is used instead.")
    environment = types.SimpleNamespace(device=device, note=note)
    assert variables(environment)["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in variables(types.SimpleNamespace(device="cuda", note=""))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "no space left"),
        ("WARNING: Retrying ... NewConnectionError: Temporary failure in name resolution", "check the network"),
        ("WARNING: ... ProxyError('Cannot connect to proxy.', OSError('407 Proxy Authentication'))", "password"),
        ("WARNING: ... ProxyError('Cannot connect to proxy.')", "HTTPS_PROXY"),
        ("ssl.SSLCertVerificationError: CERTIFICATE_VERIFY_FAILED", "PIP_CERT"),
        ("ERROR: [Errno 13] Permission denied: 'x'", "cannot be written to"),
        ("ERROR: ResolutionImpossible", "fit together"),
        ("ERROR: No matching distribution found for torch>=9", "There is no torch>=9"),
        ("ERROR: something else", "pip failed (something else)"),
    ],
)
def test_pips_reasons_become_one_sentence(line, words):
    told = reason(["Collecting torch", line], Path("env"))
    assert words in told
    assert told.count("\n") == 0


def test_progress_is_what_pip_has_done():
    progress, shares = Progress(200e6), []
    for line in (
        "Collecting torch>=2.2",
        "  Downloading torch-2.13.0-cp312.whl (190.5 MB)",
        "Progress 95250000 of 190500000",
        "Progress 190500000 of 190500000",
        "Collecting numpy",
        "  Using cached numpy-2.whl (16.0 MB)",
        "Installing collected packages: numpy, torch",
    ):
        heard = progress.hear(line)
        assert heard != line.startswith("Progress")
        shares.append(progress.done)
        if line.startswith("Progress 95"):
            assert progress.text == "Downloading torch (95 of 190 MB)"
            assert 0.3 < progress.done < 0.4
    progress.count(1)
    assert progress.done == pytest.approx(0.85)
    assert shares == sorted(shares)


def test_names_of_requirements(tmp_path):
    lines = ("torch>=2.2", "a[b]==1", "c ; python_version<'3'", "d")
    assert [distribution(line) for line in lines] == ["torch", "a", "c", "d"]
    with pytest.raises(InputError, match="Cannot read"):
        requirements(tmp_path / "none.txt")


def test_what_the_installer_lists_loads_and_computes_here():
    """The last step of a build, in this Python, for the very list that the Slicer module hands over."""
    names = [distribution(line) for line in requirements(ROOT / "DEMISTSlicer" / "Resources" / "requirements.txt")]
    assert {"torch", "nilearn"} <= set(names)
    told = check.check(names)
    assert told["error"] == ""
    assert told["device"] in ("cpu", "cuda", "mps")
