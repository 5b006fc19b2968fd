"""``demist``: every command behind one name."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = None

from DEMISTCore import __main__ as front
from DEMISTCore import __version__
from DEMISTCore.cli import run

ROOT = Path(__file__).resolve().parents[1]
#: For other programs, and part of another command.
NOT_LISTED = {"worker", "environment.check", "simulate.lab"}


def listed() -> dict[str, front.Command]:
    return {name: command for commands in front.COMMANDS.values() for name, command in commands.items()}


def test_every_command_is_listed_with_a_line():
    there = {
        path.relative_to(ROOT / "DEMISTCore").with_suffix("").as_posix().replace("/", ".").removesuffix(".__main__")
        for path in (ROOT / "DEMISTCore").rglob("*.py")
        if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
    } - {"__main__", "training.elastic"}  # that one hands everything on to train
    assert {command.module for command in listed().values()} == there - NOT_LISTED
    text = front.parser().format_help()
    for name, command in listed().items():
        assert f"\n  {name:<13}{command.help}\n" in text
        assert command.main().__module__.startswith(f"DEMISTCore.{command.module}")


def test_the_front_door(capsys):
    assert run(front.main, []) == 0
    assert "synthesize" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        run(front.main, ["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.split() == ["demist", __version__]
    with pytest.raises(SystemExit) as end:
        run(front.main, ["syntesize", "--t1w", "a"])
    assert end.value.code == 2
    assert "did you mean synthesize?" in capsys.readouterr().err


def test_a_command_gets_its_words_and_its_exit_code(capsys, tmp_path):
    missing = str(tmp_path / "none.nii.gz")
    words = ["--t1w", missing, "--flair", missing, "--out", str(tmp_path / "psr.nii.gz")]
    assert run(front.main, ["synthesize", *words]) == 2
    assert f"{missing} does not exist" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        run(front.main, ["brain-ldm", "--help"])
    assert end.value.code == 0
    assert "usage: python -m DEMISTCore.brain_ldm" in capsys.readouterr().out


@pytest.mark.skipif(tomllib is None, reason="tomllib came with Python 3.11")
def test_the_console_script_is_this():
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    module, _, function = told["project"]["scripts"]["demist"].partition(":")
    assert getattr(import_module(module), function) is front.entry
