"""The files of one stage, put in place together with the record that says they are done; or none of them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..commit import staging, sweep, temporary_prefix
from ..errors import InputError
from ..files import write_json
from .names import SessionPaths
from .records import content, read

#: Folders that a stage writes to, beside that of the records; others: images and figures.
_FOLDERS = {
    "report": lambda at: [at.page.parent],
    "prepare": lambda at: [],
    "convert": lambda at: [at.session.pair[0].parent],
}


class Writer:
    """Hands out a temporary path for each result.

    Attributes:
        files: the temporary path of each result, by where it goes.
        scratch: an empty folder for what is not kept.
        warnings: sentences for the record.
    """

    def __init__(self, hidden: dict[Path, Path], scratch: Path) -> None:
        self._hidden = hidden
        self.files: dict[Path, Path] = {}
        self.scratch = scratch
        self.warnings: list[str] = []

    def __call__(self, final: Path) -> Path:
        """Where to write what goes to ``final``; the name is the same, so that writers choose formats by it."""
        self.files[final] = self._hidden[final.parent] / final.name
        return self.files[final]


@contextmanager
def results(places: SessionPaths, stage: str, key: str) -> Iterator[Writer]:
    """Yield a :class:`Writer`; what it handed out is put in place at the end, and the record with it.

    Results of an earlier run of the stage that are not made this time go at the same moment.

    Raises:
        InputError: a folder cannot be written to, or the disk is full.
    """
    folders = [*_FOLDERS.get(stage, lambda at: [at.folder, at.figures])(places), places.records]
    earlier = [places.out / name for name in read(places.record(stage)).get("files") or () if isinstance(name, str)]
    gone: list[Path] = []
    scratch = _scratch(places.scratch)
    try:
        with staging(*folders, remove=gone) as hidden:
            writer = Writer(dict(zip(folders, hidden)), scratch)
            yield writer
            write_json(hidden[-1] / places.record(stage).name, content(places, key, writer.files, writer.warnings))
            inside = places.out.resolve()
            gone += [path for path in earlier if path not in writer.files and inside in path.resolve().parents]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def clean(places: SessionPaths) -> None:
    """Finish or remove what a process that died left half done in the session's folders."""
    for folder in (places.folder, places.figures, places.page.parent, places.records, places.scratch):
        sweep(folder)


def _scratch(root: Path) -> Path:
    try:
        root.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=temporary_prefix(), dir=root))
    except OSError as error:
        raise InputError(f"Cannot write {root}: {error.strerror or error}; choose another folder.") from error
