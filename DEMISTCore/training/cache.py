"""Entries of the training cache: folders of arrays that are as they were written, or made again."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..commit import aside
from ..errors import InputError
from ..files import sha256

log = logging.getLogger(__name__)

CHECKSUMS = "checksums.json"


@contextlib.contextmanager
def new_entry(folder: Path) -> Iterator[Path]:
    """Yield a folder aside; on success it becomes ``folder``, with SHA-256 of all its files noted.

    Where another process was faster, its entry stays.

    Raises:
        InputError: the cache cannot be written to.
    """
    try:
        with aside(folder, mode=0o700) as temporary:
            yield temporary
            sums = {path.name: sha256(path) for path in sorted(temporary.iterdir())}
            (temporary / CHECKSUMS).write_text(json.dumps(sums, indent=1), encoding="utf-8")
            if not folder.exists():
                os.replace(temporary, folder)
    except OSError as error:
        raise InputError(f"Cannot write the cache {folder}: {error.strerror or error}; set cache=.") from error


def is_whole(folder: Path, needed: str) -> bool:
    """Whether an entry can be used; a damaged one is removed, so that it is made again.

    Args:
        folder: the entry.
        needed: the file without which there is none.
    """
    if not folder.exists():
        return False
    why = _damage(folder, needed)
    if why is None:
        return True
    log.warning("The cache entry %s is damaged (%s); it is made again.", folder, why)
    shutil.rmtree(folder, ignore_errors=True)
    return False


def _damage(folder: Path, needed: str) -> str | None:
    try:
        if not (folder / needed).is_file():
            return f"{needed} is missing"
        if (folder / CHECKSUMS).is_file():
            sums = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
            changed = [name for name, digest in sums.items() if sha256(folder / Path(name).name) != digest]
            return f"{changed[0]} has changed" if changed else None
        for path in folder.glob("*.npy"):  # by an earlier version, without checksums: that it opens, at least
            np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return f"it cannot be read: {error}"
    return None
