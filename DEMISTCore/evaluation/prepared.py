"""Prepared scans on disk: a raw pair takes most of a minute to prepare, and every model is judged on the same ones.

One .npz file per scan and way of preparing it. Exact: float32 comes back as float32, so a result does not depend on
whether its scan was prepared anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import atomic_path, sha256
from ..volume import Grid, Volume

if TYPE_CHECKING:
    from ..preprocess import Prepared

_FORMAT = 1


def prepared_once(
    folder: Path | None,
    name: str,
    inputs: Mapping[str, Path | None],
    options: Mapping[str, Any],
    make: Callable[[], Prepared],
) -> tuple[Prepared, bool]:
    """What ``make`` gives, or what it gave before for the same files and options.

    Args:
        folder: of the cache; None: do not keep.
        name: of the scan; begins the file's name.
        inputs: files by what they are; their content decides, not their place.
        options: of :func:`DEMISTCore.prepare`, but for the device.

    Returns:
        The prepared pair, and whether it was there already.
    """
    if folder is None:
        return make(), False
    digests = {what: None if path is None else _digest(path) for what, path in inputs.items()}
    told = {"format": _FORMAT, "code": _code(), "inputs": digests, "options": dict(options)}
    key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
    path = Path(folder) / f"{name}-{key}.npz"
    prepared = _read(path)
    if prepared is not None:
        return prepared, True
    prepared = make()
    _write(path, prepared)
    return prepared, False


def _write(path: Path, prepared: Prepared) -> None:
    with atomic_path(path) as temporary:
        np.savez_compressed(
            temporary,
            t1w=prepared.t1w.array.astype(np.float32, copy=False),
            flair=prepared.flair.array.astype(np.float32, copy=False),
            mask=prepared.mask.array,
            affine=prepared.grid.affine,
            native_mask=np.packbits(prepared.native_mask.array > 0),
            native_shape=np.array(prepared.native.shape),
            native_affine=prepared.native.affine,
            flair_motion=prepared.flair_motion,
            **_grid(prepared.flair_native, "flair_native"),  # type: ignore[arg-type]  # any name might be allow_pickle
            warnings=np.array(prepared.warnings, dtype=str),
        )


def _read(path: Path) -> Prepared | None:
    """The pair, or None if it is not there or damaged: it is made again."""
    from ..preprocess import Prepared

    try:
        with np.load(path, allow_pickle=False) as stored:
            affine, native = stored["affine"], Grid(tuple(stored["native_shape"].tolist()), stored["native_affine"])
            bits = np.unpackbits(stored["native_mask"], count=int(np.prod(native.shape)))
            return Prepared(
                t1w=Volume(stored["t1w"], affine),
                flair=Volume(stored["flair"], affine),
                mask=Volume(stored["mask"], affine),
                native=native,
                native_mask=Volume(bits.reshape(native.shape), native.affine),
                warnings=stored["warnings"].tolist(),
                flair_motion=stored["flair_motion"],
                flair_native=Grid(tuple(stored["flair_native_shape"].tolist()), stored["flair_native_affine"])
                if "flair_native_shape" in stored
                else None,
            )
    except Exception:  # a damaged archive raises whatever it leads numpy to
        return None


def _grid(grid: Grid | None, name: str) -> dict[str, np.ndarray]:
    return {} if grid is None else {f"{name}_shape": np.array(grid.shape), f"{name}_affine": grid.affine}


@cache
def _code() -> str:
    """Hash of the source that prepares: what an older version prepared is not what this one would."""
    package = Path(__file__).parents[1]
    files = sorted(path for folder in ("preprocess", "volume") for path in (package / folder).glob("*.py"))
    return hashlib.sha256(" ".join(sha256(path) for path in files).encode()).hexdigest()


@cache
def _digest(path: Path) -> str:
    return sha256(path)
