"""Images of DICOM series, by dcm2niix: each series alone, under a name of ours."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from ...errors import InputError, printable
from ..names import SessionPaths
from ..records import is_done
from ..session import Session
from ..writer import results
from .series import Series

#: What dcm2niix makes beside the image itself.
_BESIDE = ("_ph", "_real", "_imaginary", "_ROI", "_Tilt", "_MoCo")
_SECONDS = 900
#: Of the way that images are made: a new number has them made again.
_LAYOUT = 1


def convert(session: Session, places: SessionPaths) -> Session:
    """The session with images, which are made if they are not there yet.

    Args:
        session: with its series.
        places: of its results.

    Raises:
        InputError: dcm2niix is missing, or makes no image of a series.
        OSError: a file cannot be read or written.
    """
    told = json.dumps([_LAYOUT, {what: one.digest for what, one in sorted(session.series.items())}])
    key = hashlib.sha256(told.encode()).hexdigest()
    targets = dict(zip(("T1w", "FLAIR"), session.pair))
    if not is_done(places, "convert", key):
        with results(places, "convert", key) as at:
            for what, series in session.series.items():
                image, sidecar = run_dcm2niix(series, at.scratch / what)
                shutil.move(image, at(targets[what]))
                shutil.move(sidecar, at(_beside(targets[what])))
    return replace(session, series={}, sidecars={what: [_beside(path)] for what, path in targets.items()})


def _beside(image: Path) -> Path:
    return image.with_name(image.name.replace(".nii.gz", ".json"))


def run_dcm2niix(series: Series, folder: Path) -> tuple[Path, Path]:
    """Image and sidecar of one series, in ``folder``.

    dcm2niix gets a folder of links with names of ours: what files and folders of an archive are called, and what else
    lies in them, makes no difference.

    Raises:
        InputError: see :func:`convert`.
    """
    program = find_dcm2niix()
    given, made = folder / "in", folder / "out"
    for place in (given, made):
        place.mkdir(parents=True)
    for number, file in enumerate(series.files):
        link = given / f"{number:06d}.dcm"
        try:
            link.symlink_to(Path(file).absolute())
        except (OSError, NotImplementedError):  # a system without links
            shutil.copyfile(file, link)
    command = [program, "-b", "y", "-ba", "y", "-z", "i", "-f", "image", "-o", str(made), str(given)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"dcm2niix did not end within {_SECONDS} s on series {series.name}; look at its files."
        ) from error
    images = [
        path
        for path in sorted(made.glob("*.nii.gz"))
        if not any(path.name.removesuffix(".nii.gz").endswith(end) for end in _BESIDE)
    ]
    even = [path for path in images if "_Eq" in path.name]  # slices were not evenly spaced, here they are
    images = even or images
    if not images:
        said = (done.stdout + done.stderr).decode("utf-8", "replace").strip().splitlines()
        words = printable(said[-1].replace(str(given), series.description))[:200] if said else str(done.returncode)
        raise InputError(
            f"dcm2niix made no image of series {series.name} ({words}); check that all its files are there."
        )
    largest = max(images, key=lambda path: path.stat().st_size)
    sidecar = largest.with_name(largest.name.replace(".nii.gz", ".json"))
    if not sidecar.is_file():
        sidecar.write_text("{}\n", encoding="ascii")
    return largest, sidecar


def find_dcm2niix() -> str:
    """The program (PyPI: dcm2niix), beside this Python or on the path.

    Raises:
        InputError: it is not installed.
    """
    beside = Path(sys.executable).with_name("dcm2niix")
    program = str(beside) if beside.is_file() else shutil.which("dcm2niix")
    if program is None:
        raise InputError(
            'DICOM series are made into images by dcm2niix, which is not installed; pip install "demist[cohort]".'
        )
    return program
