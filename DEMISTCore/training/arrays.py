"""Arrays on disk, mapped; what their headers say is read once and by one thread at a time.

A training's reader maps some arrays for each sample while the loop maps others. ``numpy.load`` parses each header by
``ast.literal_eval``, which two threads must not do at once before Python 3.11.8 (CPython issue 106905: "AST constructor
recursion depth mismatch").
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from ..files import atomic_path

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


def kept(file: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """What is kept in ``file`` (.npy) beside a prepared scan; made and written whole where it is not there yet.

    It may be of any shape and type. Several processes may ask for the same at once: none ever reads what another has
    half written.
    """
    if file.is_file():
        return np.array(mapped(file))
    array = make()
    with atomic_path(file) as temporary:
        np.save(temporary, array)
    return array
