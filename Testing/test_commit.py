"""Several outputs at once: all or none, whatever ends the process; and leftovers of the dead go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from DEMISTCore import commit
from DEMISTCore.errors import InputError
from DEMISTCore.files import atomic_path, atomic_paths, write_json


def hidden(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def write(folder, *names):
    with atomic_paths([folder / name for name in names]) as paths:
        for path in paths:
            path.write_text("new")


def test_all_are_put_in_place_with_what_lies_beside_them(tmp_path):
    (tmp_path / "b.txt").write_text("old")
    with atomic_paths([tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "new/c.txt"]) as (a, b, c):
        for path in (a, b, c):
            path.write_text("new")
        a.with_name("a.raw").write_text("data of a")  # a two-file format
        assert sorted(p.name for p in tmp_path.iterdir() if p.name[0] != ".") == ["b.txt", "new"]
        assert (tmp_path / "b.txt").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.raw", "a.txt", "b.txt", "new"]
    assert {(tmp_path / n).read_text() for n in ("a.txt", "b.txt", "new/c.txt")} == {"new"}


def test_an_error_puts_everything_back(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("old a")
    (tmp_path / "b.txt").write_text("old b")
    plain = os.replace

    def fails(source, target):
        if str(target).endswith("c.txt"):
            raise PermissionError(13, "Permission denied")
        plain(source, target)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(InputError, match="Permission denied"):
        write(tmp_path, "a.txt", "b.txt", "c.txt")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a.txt": "old a", "b.txt": "old b"}


def test_folders_that_came_for_nothing_go(tmp_path):
    with pytest.raises(RuntimeError), atomic_paths([tmp_path / "one/two/x.txt"]):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_all_are_there(tmp_path, monkeypatch, number):
    plain, moved = os.replace, []

    def then_signal(source, target):
        plain(source, target)
        moved.append(target)
        signal.raise_signal(number)

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(number, interrupt)  # in the background, SIGINT is ignored
    try:
        monkeypatch.setattr(os, "replace", then_signal)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, "a.txt", "b.txt", "c.txt")
    finally:
        signal.signal(number, before)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "b.txt", "c.txt"]


KILLED = textwrap.dedent("""\
    import os, sys
    from pathlib import Path
    from DEMISTCore.files import atomic_paths
    folder, after = Path(sys.argv[1]), int(sys.argv[2])
    plain, calls = os.replace, 0
    def kill(source, target):
        global calls
        if calls == after:
            os.kill(os.getpid(), 9)
        calls += 1
        plain(source, target)
    with atomic_paths([folder / f"{name}.txt" for name in "abcde"]) as paths:
        for path in paths:
            path.write_text("new")
        if after < 0:
            os.kill(os.getpid(), 9)
        os.replace = kill
""")


@pytest.mark.parametrize("old", [False, True])
def test_killed_at_every_rename_the_next_run_has_all_or_none(tmp_path, old):
    for after in range(-1, 5):
        folder = tmp_path / str(after)
        folder.mkdir()
        if old:
            for name in "ace":
                (folder / f"{name}.txt").write_text("old")
        done = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(after)])
        assert done.returncode == -9
        assert hidden(folder)
        write_json(folder / "next.json", {})
        content = {p.name: p.read_text() for p in folder.iterdir() if p.name != "next.json"}
        if after < 0:  # killed before the decision: nothing of it stays
            assert content == ({f"{name}.txt": "old" for name in "ace"} if old else {})
        else:
            assert content == {f"{name}.txt": "new" for name in "abcde"}


def test_a_commit_that_cannot_be_finished_is_let_be(tmp_path):
    (tmp_path / "b.txt").write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), "2"])
    assert done.returncode == -9
    (tmp_path / "a.txt").unlink()  # somebody tidied up by hand
    write_json(tmp_path / "next.json", {})
    assert {p.name: p.read_text() for p in tmp_path.glob("*.txt")} == {"b.txt": "new"}
    assert not hidden(tmp_path)


def test_only_leftovers_of_the_dead_are_removed(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    host, mine = commit._host(), os.getpid()
    alive = [f".tmp-{host}-{child.pid}-x", f".tmp-{host}-{mine}-x", ".tmp-00000000-1-x", ".tmp-abcdefgh", ".tmp-other"]
    for name in alive:
        (tmp_path / name).write_text("")
    (tmp_path / f".tmp-{host}-4194999-x").mkdir()  # beyond the largest process number
    (tmp_path / ".tmp-hgfedcba-y.nii").write_text("")  # an earlier version's
    os.utime(tmp_path / ".tmp-hgfedcba-y.nii", (0, time.time() - 2 * 86400))
    try:
        with atomic_path(tmp_path / "x.txt") as temporary:
            temporary.write_text("x")
        assert sorted(hidden(tmp_path)) == sorted(alive)
    finally:
        child.kill()
        child.wait()
    commit.sweep(tmp_path)
    assert f".tmp-{host}-{child.pid}-x" not in hidden(tmp_path)


def test_names_that_are_not_utf8_are_written(tmp_path):
    import json

    name = os.fsdecode(b"caf\xe9.json")
    write_json(tmp_path / name, {"path": name})
    assert json.loads((tmp_path / name).read_bytes())["path"] == name


def test_a_long_name_has_a_temporary_one(tmp_path):
    name = "x" * 240 + ".json"
    write_json(tmp_path / name, 1)
    assert (tmp_path / name).read_text() == "1\n"


def test_what_is_made_aside_is_hidden_and_goes(tmp_path):
    target = tmp_path / "new" / "model"
    with commit.aside(target) as hidden:
        assert hidden.parent == target.parent
        assert hidden.name.startswith(commit.temporary_prefix())
        (hidden / "weights").write_text("w")
        commit.commit([(hidden, target)])

    def stop_half_way() -> None:
        with commit.aside(target) as hidden:
            (hidden / "weights").write_text("half")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        stop_half_way()
    assert [path.name for path in target.parent.iterdir()] == ["model"]
    assert (target / "weights").read_text() == "w"
