"""Prepared images in a file, from the worker that made them to those that use them."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from ..errors import InputError
from ..preprocess import Prepared
from ..preprocess.recorder import Step
from ..volume import Grid, Volume

_IMAGES = ("t1w", "flair", "mask")


def save(prepared: Prepared, path: Path) -> None:
    """Write prepared images, all of them and exactly (``.npz``, not compressed: it is read once and removed).

    Raises:
        OSError: it cannot be written.
        ValueError: the FLAIR's own grid is unknown; :func:`DEMISTCore.prepare` knows it.
    """
    scanned = prepared.flair_native
    if scanned is None:
        raise ValueError("Images are handed over with the FLAIR's own grid, which these do not know.")
    told = [[step.name, step.note] for step in prepared.steps]  # seconds differ from run to run
    content = {name: getattr(prepared, name).array for name in _IMAGES}
    content |= {
        "affine": prepared.mask.affine,
        "native": prepared.native_mask.array,
        "native_affine": prepared.native.affine,
        "motion": prepared.flair_motion,
        "steps": np.array(told, str).reshape(len(told), 2),
        "warnings": np.array(prepared.warnings, str),
        "flair_affine": scanned.affine,
        "flair_shape": np.array(scanned.shape),
    }
    with open(path, "wb") as stream:
        np.savez(stream, **content)


def load(path: Path, t1w: Path) -> Prepared:
    """What :func:`save` wrote.

    Args:
        path: the file.
        t1w: the scan, whose file says in its own way where its voxels lie.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            told = {name: content[name] for name in content.files}
        volumes = {name: Volume(told[name], told["affine"]) for name in _IMAGES}
        native = Grid(told["native"].shape, told["native_affine"])
        scan = Volume.read(t1w).grid
        if scan.shape == native.shape and np.array_equal(scan.affine, native.affine):
            native = scan
        return Prepared(
            **volumes,
            native=native,
            native_mask=native.volume(told["native"]),
            steps=[Step(str(name), 0.0, str(note)) for name, note in told["steps"]],
            warnings=[str(sentence) for sentence in told["warnings"]],
            flair_motion=told["motion"],
            flair_native=Grid(tuple(told["flair_shape"]), told["flair_affine"]),
        )
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputError(f"{path} cannot be read ({error}); run again, so that it is made anew.") from error
