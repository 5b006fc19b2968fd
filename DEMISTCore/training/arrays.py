"""Arrays on disk, mapped; what their headers say is read once and by one thread at a time.

A training's reader maps some arrays for each sample while the loop maps others. ``numpy.load`` parses each header by
``ast.literal_eval``, which two threads must not do at once before Python 3.11.8 (CPython issue 106905: "AST constructor
recursion depth mismatch").
"""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

_ONE_AT_A_TIME = threading.Lock()


def mapped(path: Path) -> np.ndarray:
    """The array of a ``.npy`` file, shape (...) and type as stored; nothing is read before it is used.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is no ``.npy`` file, or one of objects.
    """
    told = path.stat()
    with _ONE_AT_A_TIME:
        dtype, shape, fortran, offset = _header(str(path), told.st_mtime_ns, told.st_size)
    return np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")


@lru_cache(maxsize=4096)
def _header(path: str, _changed: int, _size: int) -> tuple[np.dtype, tuple[int, ...], bool, int]:
    with open(path, "rb") as stream:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(stream)
        if dtype.hasobject:
            raise ValueError(f"{path} holds objects, not numbers.")
        return dtype, shape, fortran, stream.tell()
