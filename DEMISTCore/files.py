"""Writing files so that nothing is ever half there, hashing them, and finding those of other packages."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .commit import aside, make_readable, short, staging, sweep, temporary_prefix
from .errors import InputError

__all__ = ["atomic_folder", "atomic_path", "atomic_paths", "file_of_package", "make_readable", "sha256", "write_json"]


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it over ``path`` on success, delete it on failure.

    The temporary name keeps the suffixes (``.nii.gz``), because writers choose the format by them.

    Raises:
        InputError: the folder cannot be created or written to, or the disk is full.
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent)
        handle, name = tempfile.mkstemp(prefix=temporary_prefix(), suffix="-" + short(target.name), dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        make_readable(temporary)
        os.replace(temporary, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"Cannot write {target}: {reason}; choose a folder you can write to.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_paths(paths: Sequence[str | os.PathLike[str]]) -> Iterator[list[Path]]:
    """Yield a temporary path for each of ``paths``; put all of them in place on success, none on failure.

    What a writer leaves beside a temporary path (the data of a two-file format) goes along. A process that is killed
    while the files are put in place has them all there after the next run, see :mod:`DEMISTCore.commit`.

    Raises:
        InputError: a folder cannot be created or written to, or the disk is full.
    """
    targets = [Path(path) for path in paths]
    folders = list(dict.fromkeys(target.parent for target in targets))
    if not folders:
        yield []
        return
    with staging(*folders) as hidden:
        yield [hidden[folders.index(target.parent)] / target.name for target in targets]


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; rename it to ``path`` on success, delete it on failure.

    Raises:
        InputError: ``path`` is there already, or cannot be written.
    """
    target = Path(path)
    if target.exists():
        raise InputError(f"{target} exists already; choose another name.")
    try:
        with aside(target) as building:
            yield building
            building.rename(target)
    except OSError as error:
        raise InputError(f"Cannot write {target}: {error.strerror or error}; choose another folder.") from error


def is_hidden(path: str | os.PathLike[str]) -> bool:
    """True for names that begin with a dot: macOS's ``._scan.nii.gz`` (a Finder note, no scan), and what was being
    written here when the power went (``.tmp-``); folders are searched without them."""
    return os.path.basename(os.fspath(path)).startswith(".")


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write ``content`` as indented JSON, atomically, with keys in the order given.

    A path whose bytes are no UTF-8 holds lone surrogates in Python; they become JSON's escapes (backslash, u, four
    digits), which every reader turns back into the same text.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def sha256(path: str | os.PathLike[str]) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def file_of_package(package: str, *parts: str) -> Path | None:
    """A file that comes with an installed package, found without loading that; None: it is not there."""
    found = find_spec(package)
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = Path(folder, *parts)
        if path.is_file():
            return path
    return None
