"""Results of an evaluation on disk: one JSON file (and one slice for the figure) per session and method."""

from __future__ import annotations

import hashlib
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..files import atomic_paths, write_json
from ..metrics import json_ready
from ..schema import read_json
from .cases import TEST, Case
from .figures import brain_box, levels
from .methods.method import Outcome

#: Arrays of an example slice.
PICTURE = ("psr", "truth", "mask", "lesions")


def result_paths(out: Path, group: str, session: str, method: str) -> tuple[Path, Path]:
    """Where a method's numbers and its example slice for one session of the data set ``group`` lie.

    Part of a hash tells names apart of which the readable part is the same: a person may call models "A+" and "A-".
    """
    slug = "".join(c if c.isascii() and c.isalnum() else "-" for c in method.lower()).strip("-")[:60]
    slug += f"-{hashlib.sha256(method.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}"
    folder = out / ("subjects" if group == TEST else group) / session
    return folder / f"{slug}.json", folder / f"{slug}.npz"


def read_result(out: Path, case: Case, method: str, fingerprint: str) -> dict[str, Any] | None:
    """The numbers, if they are there and made with the same inputs, settings and weights; else None."""
    path, picture = result_paths(out, case.group, case.name, method)
    try:
        content = read_json(path)
        if content.pop("fingerprint") != fingerprint or content["method"] != method:
            return None
        with np.load(picture, allow_pickle=False) as cut:
            _ = [cut[name] for name in PICTURE]
        return {key: _with_nan(value) for key, value in content.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error):
        return None  # not there, of other settings, or damaged: made again


def write_result(out: Path, case: Case, method: str, outcome: Outcome, content: dict[str, Any]) -> None:
    """Write the numbers and, for the figure, the slice with most lesion; both, or none."""
    path, picture = result_paths(out, case.group, case.name, method)
    lesions = case.lesions
    level = levels(lesions if lesions.any() else case.mask, 1)[0]
    across, along = brain_box(case.mask)
    cut = {"psr": outcome.psr, "truth": case.truth, "mask": case.mask, "lesions": lesions}
    with atomic_paths([picture, path]) as (picture, path):
        np.savez_compressed(
            picture,
            aspect=case.grid.spacing[1] / case.grid.spacing[0],
            # As numpy's stub has it, any of the names might be allow_pickle.
            **{name: array[across, along, level].astype(np.float16) for name, array in cut.items()},  # type: ignore[arg-type]
        )
        write_json(path, json_ready(content))


def _with_nan(value: Any) -> Any:
    """JSON's null as NaN, in lists of rows too."""
    if isinstance(value, list):
        return [{key: _with_nan(cell) for key, cell in row.items()} for row in value]
    return math.nan if value is None else value
