"""Results of an evaluation on disk: one JSON file (and one slice for the figure) per session and method."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from ..files import atomic_paths, write_json
from ..metrics import json_ready
from .cases import TEST, Case
from .figures import brain_box, levels
from .methods.method import Outcome


def result_paths(out: Path, group: str, session: str, method: str) -> tuple[Path, Path]:
    """Where a method's numbers and its example slice for one session of the data set ``group`` lie."""
    slug = "".join(c if c.isalnum() else "-" for c in method.lower()).strip("-")
    folder = out / ("subjects" if group == TEST else group) / session
    return folder / f"{slug}.json", folder / f"{slug}.npz"


def read_result(out: Path, case: Case, method: str, fingerprint: str) -> dict[str, Any] | None:
    """The numbers, if they are there and made with the same inputs, settings and weights; else None."""
    path, picture = result_paths(out, case.group, case.name, method)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.pop("fingerprint", None) != fingerprint or not picture.is_file():
        return None
    return {key: _with_nan(value) for key, value in content.items()}


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
            **{name: array[across, along, level].astype(np.float16) for name, array in cut.items()},
        )
        write_json(path, json_ready(content))


def _with_nan(value: Any) -> Any:
    """JSON's null as NaN, in lists of rows too."""
    if isinstance(value, list):
        return [{key: _with_nan(cell) for key, cell in row.items()} for row in value]
    return math.nan if value is None else value
