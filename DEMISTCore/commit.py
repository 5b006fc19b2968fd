"""Several files or folders put in place together: all of them or none, whatever ends the process.

No file system renames several names at once. So everything is written aside first; then a journal is written that says
what goes where; then names are changed, with signals held back, and the journal goes. An error on the way puts back
what was there. A process killed in between leaves its journal: from it the next one that writes into that folder
finishes the work (:func:`sweep`), and what a dead process left without a journal it removes.

Temporary names say whose they are, ``.tmp-HOST-PID-...``: nobody takes a living process's files for leftovers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

from .errors import InputError

log = logging.getLogger(__name__)

_JOURNAL = "-commit.json"
_OWNED = re.compile(r"\.tmp-([0-9a-f]{8})-(\d+)-")
#: Names of earlier versions, which do not say whose they are: removed once they are a day old.
_NAMELESS = re.compile(r"\.tmp-[a-z0-9_]{8}(-.*)?$")
_DAY = 86400.0


def temporary_prefix() -> str:
    """What the name of a temporary file or folder of this process begins with."""
    return f".tmp-{_host()}-{os.getpid()}-"


@cache
def _host() -> str:
    """This machine (or container: process numbers mean something within one only), 8 hex digits."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        space = 0
    return hashlib.sha256(f"{platform.node()} {space}".encode("utf-8", "replace")).hexdigest()[:8]


def abandoned(name: str, path: Path | None = None) -> bool:
    """Whether a temporary name is that of a process that is no more.

    Args:
        name: of the file or folder.
        path: where it is; another machine's, and those of earlier versions, which do not tell, are judged by its age.
    """
    owner = _OWNED.match(name)
    if owner is not None and owner[1] == _host():
        return not _alive(int(owner[2]))
    if path is None or not (owner or _NAMELESS.match(name)):
        return False
    with contextlib.suppress(OSError):
        return time.time() - path.lstat().st_mtime > _DAY
    return False


def _alive(process: int) -> bool:
    if process == os.getpid():
        return True
    if os.name == "nt":
        import psutil

        return psutil.pid_exists(process)
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # there, and somebody else's
        return True
    return not _zombie(process)


def _zombie(process: int) -> bool:
    """Killed, and its parent has not looked yet (Linux; elsewhere it counts as alive for that while)."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return False


def sweep(folder: str | os.PathLike[str], *, sole: bool = False) -> None:
    """Finish or remove what dead processes left half done in ``folder``; never raises for a file system's sake.

    Args:
        folder: need not be there.
        sole: nobody but this process writes there (it holds the folder's lock), so that all others are dead.
    """
    folder = Path(folder)
    left = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        left = [e.name for e in entries if e.name.startswith(".tmp-")]
    mine = temporary_prefix()
    left = [name for name in left if (not name.startswith(mine) if sole else abandoned(name, folder / name))]
    for name in sorted(left, key=lambda name: not name.endswith(_JOURNAL)):
        with contextlib.suppress(OSError):
            if name.endswith(_JOURNAL):
                _finish(folder / name)
            else:
                _remove(folder / name)


def commit(moves: Sequence[tuple[Path, Path]], remove: Sequence[Path] = ()) -> None:
    """Put each new file or folder in the place of the other, replacing what is there; all of it, or none.

    Args:
        moves: (new, target); each pair on one file system.
        remove: what goes at the same time, if it is there.

    Raises:
        OSError: something could not be put in place; everything is as it was, and the new ones are still aside.
    """
    if not moves:
        return
    home = moves[0][1].parent
    plan: list[dict[str, Any]] = [
        {
            "new": _relative(new, home),
            "to": _relative(to, home),
            "inode": new.lstat().st_ino,
            "old": _relative(to.with_name(_name("old")), home),
        }
        for new, to in moves
    ]
    plan += [{"to": _relative(to, home), "old": _relative(to.with_name(_name("old")), home)} for to in remove]
    for new, _ in moves:
        _flush(new)
    journal = home / _name("")[:-1]
    journal = journal.with_name(journal.name + _JOURNAL)
    with signals_held():
        try:
            with open(journal, "w", encoding="ascii") as stream:
                json.dump(plan, stream)
                stream.flush()
                os.fsync(stream.fileno())
            for step in plan:
                _put(step, home)
        except BaseException:
            for step in reversed(plan):
                _put_back(step, home)
            journal.unlink(missing_ok=True)
            raise
        journal.unlink()
        for step in plan:
            with contextlib.suppress(OSError):
                _remove(home / step["old"])


@contextlib.contextmanager
def staging(*folders: Path, remove: Sequence[Path] = ()) -> Iterator[list[Path]]:
    """Yield an empty folder inside each of ``folders``; what is written there moves up into them, all or nothing.

    Files have their final names from the start, so that one which names another (a header its data) stays right.

    Args:
        folders: made if they are not there, and removed again if nothing comes of it.
        remove: files that go when the new ones are put in place; looked at then, so that a list can still be filled.

    Raises:
        InputError: a folder cannot be made or written to, or the disk is full.
    """
    aside: list[Path] = []
    made: list[Path] = []
    at: Path = folders[0]
    try:
        for at in folders:
            made += _make(at)
            sweep(at)
            aside.append(Path(tempfile.mkdtemp(prefix=temporary_prefix(), dir=at)))
            aside[-1].chmod(0o755)
        yield aside
        moves = []
        for hidden, at in zip(aside, folders):
            for new in sorted(hidden.iterdir()):
                make_readable(new)
                moves.append((new, at / new.name))
        commit(moves, remove)
        made.clear()
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"Cannot write to {at}: {reason}; choose a folder you can write to.") from error
    finally:
        for hidden in aside:
            shutil.rmtree(hidden, ignore_errors=True)
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def aside(target: Path, mode: int = 0o755) -> Iterator[Path]:
    """Yield an empty hidden folder beside ``target`` to make that in; what the block leaves of it goes.

    Args:
        target: what it is for; the folder that it is in is made if it is not there.
        mode: permissions of the hidden folder.

    Raises:
        OSError: it cannot be made.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target.parent)
    hidden = Path(tempfile.mkdtemp(prefix=f"{temporary_prefix()}{short(target.name)}-", dir=target.parent))
    try:
        hidden.chmod(mode)
        yield hidden
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Keep Ctrl-C, SIGTERM and SIGHUP until the block is over. Outside the main thread they come elsewhere anyway."""
    came: list[int] = []
    before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            if (number := getattr(signal, name, None)) is not None and signal.getsignal(number) is not None:
                before[number] = signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


def short(name: str) -> str:
    """A name, or its end where a temporary one with it would be too long: suffixes are what counts."""
    return name if len(os.fsencode(name)) <= 200 else name[-20:]


def make_readable(path: str | os.PathLike[str]) -> None:
    """Give a file the permissions of any other new file here: mkstemp and safetensors make private ones."""
    if os.path.isdir(path):
        return
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(path, 0o666 & ~umask)


# --- from here on: how it is done -----------------------------------------------------------------------------------


def _name(what: str) -> str:
    return f"{temporary_prefix()}{os.urandom(4).hex()}-{what}"


def _relative(path: Path, home: Path) -> str:
    """Relative, so that a folder which was moved in the meantime still finds its own."""
    try:
        return os.path.relpath(path, home)
    except ValueError:  # another drive
        return str(path.absolute())


def _make(folder: Path) -> list[Path]:
    """Make a folder; the ones that were not there before, outermost first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
    return missing[::-1]


def _put(step: dict, home: Path) -> None:
    """One name changed; what was there is kept aside until all are."""
    to, old = home / step["to"], home / step["old"]
    if to.is_dir() and not to.is_symlink():
        os.replace(to, old)
    elif to.exists():
        try:
            os.link(to, old)
        except OSError:  # a file system without hard links
            os.replace(to, old)
    if "new" in step:
        os.replace(home / step["new"], to)
    else:
        with contextlib.suppress(FileNotFoundError):
            to.unlink()


def _put_back(step: dict, home: Path) -> None:
    to, old = home / step["to"], home / step["old"]
    with contextlib.suppress(OSError):
        if _is(to, step):
            os.replace(to, home / step["new"])
        if _there(old):
            os.replace(old, to)
            with contextlib.suppress(FileNotFoundError):  # rename does nothing where both are one file
                old.unlink()


def _finish(journal: Path) -> None:
    """Do what a dead process had decided on, if all of it is still there.

    Where it is not, somebody has tidied up by hand since: then what is in place stays, and what is missing is put back.
    """
    home = journal.parent
    try:
        plan = json.loads(journal.read_text(encoding="ascii"))
        new = [step for step in plan if "new" in step]
        whole = all(_there(home / step["new"]) or _is(home / step["to"], step) for step in new)
        places = [(home / step["to"], home / step["old"]) for step in plan]
    except (ValueError, TypeError, KeyError):  # killed while it wrote the journal: nothing had been moved
        journal.unlink(missing_ok=True)
        return
    for step, (to, old) in zip(plan, places):
        if not whole:
            if _there(old) and not _there(to):
                os.replace(old, to)
        elif "new" not in step:
            to.unlink(missing_ok=True)
        elif _there(home / step["new"]):
            _put(step, home)
    journal.unlink(missing_ok=True)
    for _, old in places:
        _remove(old)
    for step in new:  # staging folders inside the others that were written to: nobody else may ever look there
        if abandoned((folder := (home / step["new"]).parent).name, folder):
            _remove(folder)
    if whole:
        names = ", ".join(str(to) for to, _ in places)
        log.info("Finished what an earlier, interrupted run was about to write: %s.", names)


def _there(path: Path) -> bool:
    return os.path.lexists(path)


def _is(path: Path, step: dict) -> bool:
    """Whether the new one is in place already."""
    with contextlib.suppress(OSError, KeyError):
        return path.lstat().st_ino == step["inode"]
    return False


def _flush(path: Path) -> None:
    """To the disk: a name must not survive a power cut that its content does not."""
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            with contextlib.suppress(OSError), open(file, "rb") as stream:
                os.fsync(stream.fileno())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
