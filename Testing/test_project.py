"""The project itself: instant imports, one version, two README commands, complete packages, clean text."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
import yaml

import DEMISTCore

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__main__")
    for path in (ROOT / "DEMISTCore").rglob("*.py")
    if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
    and path.stem != "elastic"  # hands everything on to train
)
#: Loading any of these takes seconds.
HEAVY = ("torch", "monai", "SimpleITK", "scipy", "matplotlib", "pandas", "lightning", "nilearn", "sklearn", "skimage")
_REPORT = f"import sys; print(*(m for m in {HEAVY!r} if m in sys.modules))"


def files() -> list[Path]:
    """Everything that is or would be committed."""
    git = shutil.which("git")
    if not git or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def text_files() -> list[tuple[Path, str]]:
    found = []
    for path in files():
        data = path.read_bytes()
        if b"\0" not in data[:8192] and path.suffix not in (".safetensors", ".png"):
            found.append((path, data.decode("utf-8")))
    return found


# --- instant -----------------------------------------------------------------------------------------------------


def cpu_seconds(*argv: str) -> tuple[float, str]:
    """Median processor time of three runs of this Python, and the last one's output.

    Processor time, not wall time: the suite runs beside other work, and on an idle machine the two are the same.
    """
    taken = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run([sys.executable, *argv], capture_output=True, text=True, check=False, cwd=ROOT)
        after = os.times()
        taken.append(after.children_user + after.children_system - before.children_user - before.children_system)
        assert done.returncode == 0, done.stderr
    return sorted(taken)[1], done.stdout


def test_import_is_instant():
    taken, loaded = cpu_seconds("-c", f"import DEMISTCore; {_REPORT}")
    assert loaded.split() == []
    assert taken < 0.5


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_instant(command):
    taken, text = cpu_seconds("-m", command, "--help")
    assert text.startswith(f"usage: python -m {command}")
    assert taken < 0.5
    # Once more within one process, to see what was loaded.
    show = f"import runpy, sys; sys.argv = ['x', '--help']\ntry: runpy.run_module({command!r}, run_name='__main__')\n"
    code = show + f"except SystemExit: pass\nprint('LOADED')\n{_REPORT}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.partition("LOADED\n")[2].split() == []


def test_every_command_is_known():
    assert {"DEMISTCore.simulate", "DEMISTCore.train", "DEMISTCore.synthesize"} <= set(COMMANDS)


def test_every_exported_name_resolves():
    for name in DEMISTCore.__all__:
        assert getattr(DEMISTCore, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = DEMISTCore.nonsense


# --- one version, one licence --------------------------------------------------------------------------------------


def test_version_is_the_same_everywhere():
    from importlib.metadata import version

    assert re.fullmatch(r"\d+\.\d+\.\d+([.-]?(a|b|rc|dev)\d+)?", DEMISTCore.__version__)
    assert version("demist") == DEMISTCore.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == DEMISTCore.__version__


def test_citation_names_software_and_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == "Apache-2.0"
    assert citation["authors"] == [{"name": "DEMIST for 3D Slicer developers"}]
    titles = " ".join(reference["title"] for reference in citation["references"])
    for word in ("DEMIST", "Brain Imaging Generation with Latent Diffusion", "MONAI"):
        assert word in titles
    for reference in citation["references"]:
        assert {"type", "title", "authors", "year"} <= set(reference)


def test_licence_is_apache_2():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


# --- the two commands ----------------------------------------------------------------------------------------------


def readme_commands() -> list[str]:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", readme, flags=re.DOTALL)
    return [block.strip() for block in blocks if "-m venv" in block]


def test_readme_has_two_commands_of_one_line_each():
    job, tests = readme_commands()
    for command, extras, ending in (
        (job, "[simulate,evaluate]", "-m DEMISTCore.demo"),
        (tests, "[test]", "-m pytest -n 2"),
    ):
        assert "\n" not in command
        steps = command.split(" && ")
        assert steps[0] == "python3 -m venv .venv"
        assert steps[1] == f'.venv/bin/python -m pip install -c constraints.txt -e ".{extras}"'
        assert steps[2] == f".venv/bin/python {ending}"
        assert subprocess.run(["bash", "-n", "-c", command], check=False).returncode == 0


def test_readme_opens_with_a_picture_and_its_links_lead_somewhere():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("![")
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
def test_ci_runs_exactly_the_readmes_test_command(tmp_path):
    """Run .ci/run on a copy of the README with stand-ins for python: they record what they are asked."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    (tmp_path / ".ci").mkdir()
    shutil.copy2(script, tmp_path / ".ci" / "run")
    shutil.copy2(ROOT / "README.md", tmp_path / "README.md")
    stand_in = f'#!/bin/sh\nprintf "%s" "$(basename "$0")" >> "{tmp_path}/asked"\n'
    stand_in += f'for a; do printf " <%s>" "$a" >> "{tmp_path}/asked"; done\necho >> "{tmp_path}/asked"\n'
    for folder in ("bin", ".venv/bin"):
        (tmp_path / folder).mkdir(parents=True)
        for name in ("python", "python3"):
            (tmp_path / folder / name).write_text(stand_in)
            (tmp_path / folder / name).chmod(0o755)
    search = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [str(tmp_path / ".ci" / "run")],
        cwd=tempfile.gettempdir(),
        env={**os.environ, "PATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert readme_commands()[1] in done.stdout
    assert (tmp_path / "asked").read_text().splitlines() == [
        "python3 <-m> <venv> <.venv>",
        "python <-m> <pip> <install> <-c> <constraints.txt> <-e> <.[test]>",
        "python <-m> <pytest> <-n> <2>",
    ]
    # A failing step ends it with that step's exit code.
    (tmp_path / ".venv" / "bin" / "python").write_text("#!/bin/sh\nexit 3\n")
    done = subprocess.run(
        [str(tmp_path / ".ci" / "run")], env={**os.environ, "PATH": search}, capture_output=True, check=False
    )
    assert done.returncode == 3


def test_constraints_pin_every_dependency():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^\s+@]+", pin) for pin in pins), "exact, and no local versions"

    def canonical(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    pinned = {canonical(pin.split("==")[0]): pin.split("==")[1] for pin in pins}
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    wanted = set(re.findall(r'"([A-Za-z][\w.-]*?)(?:\[[\w,]+\])?>=', project)) - {"setuptools"}
    assert len(wanted) > 15
    assert {canonical(name) for name in wanted} <= set(pinned)


def test_documented_options_exist():
    """Long options in the README's and the docs' commands are options of those commands."""
    helps = {}
    for command in COMMANDS:
        stages = ("",)
        if command.endswith(".train"):
            stages = (
                "autoencoder",
                "backbone",
                "mean",
                "demist",
                "decoder",
                "segmentation",
                "regression",
                "pix2pix",
                "vae",
                "ldm",
                "cwdm",
                "calibrate",
                "export",
                "check",
                "finetune",
            )
        elif command.endswith(".evaluate"):
            stages = ("", "cv", "pair")
        for stage in stages:
            argv = [sys.executable, "-m", command, *([stage] if stage else []), "--help"]
            helps[f"{command} {stage}".strip()] = subprocess.run(
                argv, capture_output=True, text=True, check=True, cwd=ROOT
            ).stdout
    checked = 0
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for module, rest in re.findall(r"python -m (DEMISTCore(?:\.\w+)+)([^\n`|]*)", text):
            module = module.replace("DEMISTCore.training.elastic", "DEMISTCore.train")  # which has all its words
            words = rest.split()
            of_several = module.endswith((".train", ".evaluate")) and words and words[0].isalnum()
            name = f"{module} {words[0]}" if of_several else module
            assert name in helps or rest.strip() in ("", "..."), f"{page.name}: {module}{rest}"
            for option in (word for word in words if word.startswith("--")):
                assert re.search(re.escape(option) + r"(?![\w-])", helps[name]), f"{page.name}: {name} {option}"
                checked += 1
    assert checked > 15


# --- clean ---------------------------------------------------------------------------------------------------------


def test_ruff_is_clean():
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "DEMISTCore", "DEMISTSlicer", "Testing", "benchmarks"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_types_are_right(tmp_path):
    """mypy as pyproject.toml sets it: every module, every function annotated."""
    pytest.importorskip("mypy")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr


def test_no_file_of_code_is_long():
    """One file, one job: what grows past this is split by job."""
    rooms = ("DEMISTCore", "DEMISTSlicer", "benchmarks")
    code = [path for path in files() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in rooms]
    assert len(code) > 200
    long = {path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in code}
    assert {name: lines for name, lines in long.items() if lines > 400} == {}


def test_no_path_of_a_machine_in_the_files():
    places = {str(ROOT), str(Path.home()), sys.prefix} - {"/"}
    # Absolute paths into somebody's home or a mounted disk, wherever the files were written.
    private = re.compile(r"(?<![\w.}\])/:-])/(?:home|Users|root|mnt|work)/[\w.-]+")
    for path, text in text_files():
        for place in places:
            assert not re.search(re.escape(place) + r"(?![\w-])", text), f"{path.name}: {place}"
        found = private.search(text)
        assert not found, f"{path.name}: {found and found.group()}"


def test_no_large_or_generated_files():
    for path in files():
        if path.suffix != ".safetensors":
            assert path.stat().st_size < 6_000_000, path
        assert path.suffix not in (".pyc", ".pt", ".ckpt", ".gz", ".log"), path


# --- packages ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> set[str]:
    """Names in a wheel built from a copy of the tree, without a network; bundle weights are left empty to be quick."""
    pytest.importorskip("setuptools", "77")
    source = tmp_path_factory.mktemp("source")
    for path in files():
        name = path.relative_to(ROOT)
        if name.parts[0] not in ("Testing", "docs", "runs"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(b"" if path.suffix == ".safetensors" else path.read_bytes())
    (source / "DEMISTCore" / "bundles" / "probe").mkdir(parents=True)
    (source / "DEMISTCore" / "bundles" / "probe" / "bundle.json").write_text("{}")
    out = tmp_path_factory.mktemp("wheel")
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(out)!r})"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (built,) = out.glob("demist-*.whl")
    assert DEMISTCore.__version__ in built.name
    return set(zipfile.ZipFile(built).namelist())


def test_the_wheel_holds_every_file_of_the_package(wheel):
    for path in files():
        name = path.relative_to(ROOT).as_posix()
        if name.startswith("DEMISTCore/") and not name.endswith(".gitkeep"):
            assert name in wheel, name
    assert "DEMISTCore/bundles/probe/bundle.json" in wheel
    assert any(name.startswith("DEMISTCore/training/presets/") for name in wheel)


def test_the_wheel_holds_nothing_else_but_the_licence(wheel):
    others = {name for name in wheel if not name.startswith("DEMISTCore/")}
    assert all(".dist-info/" in name for name in others)
    assert any(name.endswith("licenses/LICENSE") for name in others)
