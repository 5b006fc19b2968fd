"""No command overwrites what it reads: one guard, which everything that writes files calls before its work.

An input is protected with all that belongs to it: the data file of a detached header, the JSON beside an image, and
everything in a folder (a bundle, a run, a data set). Files are told by what they are and not by their names, so that
links, other spellings of a path and file systems that take ``a`` for ``A`` make no difference.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import InputError

#: Suffixes of images, the longest first, for the JSON beside them.
_IMAGES = (
    ".nii.gz",
    ".img.gz",
    ".hdr.gz",
    ".nii",
    ".nrrd",
    ".nhdr",
    ".mha",
    ".mhd",
    ".mgz",
    ".mgh",
    ".img",
    ".hdr",
    ".mnc",
)


def protect_files(outputs: Mapping[str, str | os.PathLike[str]], inputs: Iterable[Any]) -> None:
    """Refuse to write over an input.

    Args:
        outputs: every file to be written, by what it is ("sidecar").
        inputs: files, folders, or what has been read from them (a ``path`` or ``folder`` attribute); nested sequences
            and mappings; None, and names that are no paths here, are passed over.

    Raises:
        InputError: an output is an input or belongs to one.
    """
    _refuse(outputs, {}, inputs)


def protect_folder(folder: str | os.PathLike[str], inputs: Iterable[Any], what: str = "output folder") -> None:
    """Refuse to write a whole folder, or to replace it, where it is or holds an input.

    Args:
        folder: what is written, with all that is in it.
        inputs: as for :func:`protect_files`.
        what: what the folder is, for the sentence.

    Raises:
        InputError: ``folder`` is an input, or an input lies in it.
    """
    _refuse({}, {what: folder}, inputs)


def _refuse(
    files: Mapping[str, str | os.PathLike[str]], folders: Mapping[str, str | os.PathLike[str]], inputs: Iterable[Any]
) -> None:
    given = list(dict.fromkeys(_paths(inputs)))
    belonging = [(part, source) for source in given for part in _parts(source)]
    for kind, name in files.items():
        target = Path(name)
        for part, source in belonging:
            if _same(target, part):
                belongs = "" if part == source else f", because it belongs to {source}"
                raise InputError(f"{target} is an input already{belongs}; give the {kind} another name or folder.")
        for source in given:
            if source.is_dir() and os.path.lexists(target) and _within(target, source):
                raise InputError(
                    f"{target} is an input already, because it lies in {source}; give the {kind} another name or "
                    "folder."
                )
    for kind, name in folders.items():
        target = Path(name)
        for source in given:
            if _same(target, source) or _within(source, target):
                where = "is" if _same(target, source) else "holds"
                raise InputError(f"{target} {where} an input ({source}) already; give the {kind} another name.")


def _paths(inputs: Any) -> Iterator[Path]:
    """Paths that are there, of whatever stands for them."""
    if isinstance(inputs, (str, os.PathLike)):
        path = Path(inputs)
        try:
            if str(inputs) and os.path.lexists(path):
                yield path
        except ValueError:  # a zero byte: no path
            return
    elif isinstance(inputs, Mapping):
        yield from _paths(list(inputs.values()))
    elif isinstance(inputs, Iterable) and not isinstance(inputs, (bytes, bytearray)) and not hasattr(inputs, "shape"):
        for one in inputs:
            yield from _paths(one)
    elif inputs is not None:
        for attribute in ("path", "folder"):
            yield from _paths(getattr(inputs, attribute, None))
        yield from _paths(getattr(inputs, "base", None) if hasattr(inputs, "folder") else None)


def _parts(source: Path) -> list[Path]:
    """The file itself, and what belongs to it; nothing of a folder."""
    if not source.is_file():
        return [source]
    from .volume import data_files

    parts = [source, *data_files(source)]
    for suffix in _IMAGES:
        if source.name.lower().endswith(suffix):
            parts.append(source.with_name(source.name[: -len(suffix)] + ".json"))
            break
    return parts


def _same(a: Path, b: Path) -> bool:
    """True for one file or folder under two names; a link that leads nowhere is the place that it leads to."""
    try:
        if os.path.samefile(a, b):
            return True
    except (OSError, ValueError):
        pass
    return _real(a) == _real(b)


def _within(path: Path, folder: Path) -> bool:
    """True if ``path`` lies below ``folder``, by its name or by the file behind it."""
    return any(_same(parent, folder) for parent in (*_real(path).parents, *Path(os.path.abspath(path)).parents))


def _real(path: Path) -> Path:
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError):
        return Path(os.path.abspath(path))
