"""No command overwrites what it reads: shown for every command by its parser, and for the ways to hide an input."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

import DEMISTCore
from DEMISTCore import cli, guards
from DEMISTCore.errors import InputError
from DEMISTCore.guards import protect_files, protect_folder
from DEMISTCore.volume import Volume

#: Options that are written to; ``uncertainty`` is an output of one command and an input of another.
WRITTEN = {"out", "out_dir", "preview", "synthesize uncertainty"}
#: Options of words and numbers that are no paths. Every other option that takes a value is held to be an input, so that
#: a new one must be protected, or be listed here.
NO_PATHS = {
    "device",
    "precision",
    "sampler",
    "preprocess",
    "grid",
    "description",
    "licence",
    "sampling",
    "exclude",
    "salt",
    "participant_label",
    "session_label",
    "shard",
    "scheduler",
    "group_column",
    "control_label",
    "patient",
    "methods",
    "stratify",
    "minutes",
    "steps",
    "scratch",
    "output_spaces",
}
#: Folders of a command's own making, where entries have the hash of their content as a name; nobody's files.
CACHES = {"evaluate prepared", "calibrate cache"}
CONTENT = b"age\n0.5\n"  # something to keep; a table, because one command reads it before it looks where to write


@dataclass(frozen=True)
class Command:
    """A command that writes: its words, its ``main``, its parser, and the options that are read and written."""

    words: tuple[str, ...]
    main: object
    parser: argparse.ArgumentParser
    reads: tuple[argparse.Action, ...]
    writes: tuple[argparse.Action, ...]

    def __str__(self) -> str:
        return " ".join(self.words)

    def line(self, given: dict[argparse.Action, Path]) -> list[str]:
        """Its arguments, with ``--overwrite`` where there is one."""
        words = [*self.words[1:]]
        if "--overwrite" in self.parser._option_string_actions:
            words.append("--overwrite")
        places = [action for action in self.parser._actions if not action.option_strings and action in given]
        words += [str(given[action]) for action in places]
        words += [next(iter(a.choices)) for a in self.parser._actions if a.choices and not a.option_strings]
        for action, value in given.items():
            if action.option_strings:
                text = f"name={value}" if "=" in str(action.metavar) else str(value)
                words += [action.option_strings[0], text]
        return words

    def groups(self) -> list[set[argparse.Action]]:
        """Nothing, and each group of options: some exclude others, so one is left out at a time."""
        return [set(), *(set(group._group_actions) for group in self.parser._action_groups)]


def commands() -> Iterator[Command]:
    """Every command of every module with a ``parser``."""
    for found in pkgutil.walk_packages(DEMISTCore.__path__, "DEMISTCore."):
        source = Path(found.module_finder.path) / f"{found.name.rpartition('.')[2]}.py"
        if not source.is_file() or "\ndef parser(" not in source.read_text(encoding="utf-8"):
            continue
        module = importlib.import_module(found.name)
        name = found.name.removeprefix("DEMISTCore.").removesuffix(".__main__")
        yield from _leaves((name,), module.main, module.parser())


def _leaves(words: tuple[str, ...], main: object, parser: argparse.ArgumentParser) -> Iterator[Command]:
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if below:
        for name, one in below[0].choices.items():
            yield from _leaves((*words, name), main, one)
        return
    values = [action for action in parser._actions if action.nargs != 0 and not action.choices]
    paths = [action for action in values if action.type in (None, str, Path) and action.dest not in NO_PATHS]
    paths = [a for a in paths if f"{words[-1]} {a.dest}" not in CACHES]
    writes = tuple(a for a in paths if a.dest in WRITTEN or f"{words[-1]} {a.dest}" in WRITTEN)
    reads = tuple(a for a in paths if a not in writes)
    if writes:
        yield Command(words, main, parser, reads, writes)


COMMANDS = {str(command): command for command in commands()}


class Stop(Exception):
    """The guard was called."""


@dataclass
class Seen:
    files: list[Path]
    folders: list[Path]
    inputs: list[Path]
    asked: set[argparse.Action] = field(default_factory=set)

    @property
    def places(self) -> list[Path]:
        """Files where an input would be lost."""
        return [*self.files, *(folder / "something" for folder in self.folders)]


def name_of(action: argparse.Action, folder: Path) -> Path:
    """What an output is called: pictures must end in .png."""
    file = action.dest == "preview" or "FILE" in str(action.metavar)
    return folder / (f"{action.dest}.png" if action.dest == "preview" else "psr.nii.gz" if file else "results")


def reached(command: Command, everything: dict, monkeypatch) -> list[tuple[Seen, dict]]:
    """What the guard is told, with the options that it was called with.

    Some options exclude each other; so each is tried with all others, and with all but one group of them. One that is
    given without its group may go unread: then the guard need not know it.
    """

    def record(files, folders, inputs):
        raise Stop(Seen([*map(Path, files.values())], [*map(Path, folders.values())], [*guards._paths(inputs)]))

    found = {}
    for action in everything:
        for left_out in command.groups():
            given = {a: v for a, v in everything.items() if a is action or a not in left_out}
            if tuple(given) in found:
                continue
            found[tuple(given)] = None
            with monkeypatch.context() as patch:
                patch.setattr(guards, "_refuse", record)
                try:
                    command.main(command.line(given))
                except Stop as stop:
                    seen = stop.args[0]
                    seen.asked = {a for a, v in given.items() if a not in left_out or v in seen.inputs}
                    found[tuple(given)] = (seen, given)
                except (InputError, SystemExit):
                    continue
    return [one for one in found.values() if one is not None]


def test_all_commands_that_write_are_found():
    for name in (
        "synthesize",
        "preprocess",
        "statistics",
        "evaluate",
        "simulate",
        "demo",
        "bundle convert",
        "brain_ldm sample",
        "brain_ldm convert",
        "train demist",
        "train export",
    ):
        assert name in COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_writes_over_an_input(name, tmp_path, monkeypatch, capsys):
    """The guard knows every input and every output of the parser; and an input in the place of an output stays."""
    command = COMMANDS[name]
    monkeypatch.chdir(tmp_path)
    inputs = {action: tmp_path / "inputs" / f"{action.dest}.nii.gz" for action in command.reads}
    (tmp_path / "inputs").mkdir()
    for path in inputs.values():
        path.write_bytes(CONTENT)
    outputs = {action: name_of(action, tmp_path / "outputs") for action in command.writes}
    (tmp_path / "outputs").mkdir()

    told = reached(command, {**inputs, **outputs}, monkeypatch)
    for action, path in inputs.items():
        protected = [path in seen.inputs for seen, _ in told if action in seen.asked]
        assert protected, f"{name} does not call the guard with {action.dest}"
        assert all(protected), f"{name} does not always protect {action.dest}"
    for action, path in outputs.items():
        known = [(*seen.files, *seen.folders, *(file.parent for file in seen.files)) for seen, _ in told]
        assert any(path in places for places in known), f"the guard of {name} does not know {action.dest}"

    for action in inputs:
        for seen, given in told:
            if action not in seen.asked:
                continue
            for place in seen.places:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(CONTENT)
                before = sorted(tmp_path.rglob("*"))
                code = cli.run(command.main, command.line({**given, action: place}))
                said = capsys.readouterr().err
                assert code == 2, f"{name} {action.dest}={place}: {said}"
                assert " input " in said, f"{name} {action.dest}={place}: {said}"
                assert place.read_bytes() == CONTENT
                assert sorted(tmp_path.rglob("*")) == before
                place.unlink()


# What an input is ---------------------------------------------------------------------------------------------------


@pytest.fixture
def image(tmp_path) -> Path:
    return Volume(np.random.default_rng(0).random((9, 9, 9)).astype(np.float32), np.eye(4)).write(tmp_path / "t1w.nii")


def test_an_input_is_known_under_any_name(image, tmp_path, monkeypatch):
    os.symlink(image, tmp_path / "link.nii")
    os.link(image, tmp_path / "hard.nii")
    (tmp_path / "sub").mkdir()
    os.symlink(tmp_path, tmp_path / "sub" / "around")
    monkeypatch.chdir(tmp_path / "sub")
    for name in (image, "../t1w.nii", tmp_path / "link.nii", tmp_path / "hard.nii", "around/t1w.nii"):
        for source in (image, Volume.read(image), [None, str(image)], {"a": tmp_path / "link.nii"}):
            with pytest.raises(InputError, match="is an input already"):
                protect_files({"map": name}, [source])
    protect_files({"map": "t1w.nii", "sidecar": tmp_path / "t1w.json"}, [None, "demist-sim", "a\0b", 3])


def test_what_belongs_to_an_input_is_protected(image, tmp_path):
    (tmp_path / "t1w.json").write_text("{}")
    with pytest.raises(InputError, match=r"t1w\.json is an input already, because it belongs to .*t1w\.nii"):
        protect_files({"sidecar": tmp_path / "t1w.json"}, [image])
    voxels = (np.arange(1000) % 7).astype(np.uint8)
    (tmp_path / "voxels.raw").write_bytes(voxels.tobytes())
    header = tmp_path / "scan.nhdr"
    header.write_text("NRRD0004\ntype: uchar\ndimension: 3\nsizes: 10 10 10\nencoding: raw\ndata file: voxels.raw\n\n")
    assert np.array_equal(Volume.read(header).array.ravel(order="F"), voxels)
    with pytest.raises(InputError, match=r"voxels\.raw is an input already"):
        protect_files({"map": tmp_path / "voxels.raw"}, [header])


def test_folders_are_protected_with_what_is_in_them(image, tmp_path):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "bundle.json").write_text("{}")
    with pytest.raises(InputError, match="because it lies in"):
        protect_files({"sidecar": bundle / "bundle.json"}, [bundle])
    protect_files({"picture": bundle / "new.png"}, [bundle])  # nothing is lost
    with pytest.raises(InputError, match="holds an input"):
        protect_folder(tmp_path, [image])
    with pytest.raises(InputError, match="is an input"):
        protect_folder(bundle, [bundle])
    protect_folder(bundle / "runs" / "a", [bundle])  # a data set may hold what was made of it


# As reported ---------------------------------------------------------------------------------------------------------


def test_preparing_beside_the_scans_keeps_them(head, tmp_path, monkeypatch, capsys):
    """The README's names, ``--out-dir .`` and ``--overwrite``: both raw scans were replaced."""
    from DEMISTCore.preprocess.__main__ import main

    monkeypatch.chdir(tmp_path)
    before = {}
    for name, source in (("t1w", head.t1w), ("flair", head.flair)):
        (tmp_path / f"{name}.nii.gz").write_bytes(source.read_bytes())
        before[name] = source.read_bytes()
    line = ["--t1w", "t1w.nii.gz", "--flair", "flair.nii.gz", "--out-dir", ".", "--overwrite"]
    assert cli.run(main, line) == 2
    assert "t1w.nii.gz is an input already; give the t1w.nii.gz another name or folder" in capsys.readouterr().err
    assert {name: (tmp_path / f"{name}.nii.gz").read_bytes() for name in before} == before
    assert sorted(os.listdir(tmp_path)) == ["flair.nii.gz", "t1w.nii.gz"]


def test_a_demo_makes_no_room_among_somebodys_scans(tmp_path):
    from DEMISTCore.demo import FILES, demonstrate

    (tmp_path / "T1w.nii.gz").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"T1w\.nii\.gz is not from an earlier demo; choose another folder"):
        demonstrate(tmp_path, overwrite=True)
    assert (tmp_path / "T1w.nii.gz").read_bytes() == b"mine"
    assert FILES[-1] == "demo.json"  # what tells an earlier demo


def test_converting_a_model_onto_its_parts_is_refused(tmp_path, tiny_bundle):
    """``--out`` is deleted before it is replaced, and so are OUT-vae and OUT-base, which are not named."""
    from DEMISTCore.published.tools import convert
    from DEMISTCore.training.export import export

    before = {path: path.read_bytes() for path in tiny_bundle.parent.rglob("*") if path.is_file()}
    for out in (tiny_bundle, tiny_bundle.with_name("tiny-base")):  # the bundle, and the base that it is read with
        with pytest.raises(InputError, match="is an input"):
            convert(tiny_bundle, out, to="monai", overwrite=True)
    run = tmp_path / "model-base"
    run.mkdir()
    (run / "config.yaml").write_text("stage: backbone\n")
    with pytest.raises(InputError, match="is an input"):
        export([run], tmp_path / "model", overwrite=True)
    assert json.loads((tiny_bundle / "bundle.json").read_text())
    assert {path: path.read_bytes() for path in before} == before
