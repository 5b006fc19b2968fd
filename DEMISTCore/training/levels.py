"""People's PSR on a common level, for fine-tunings on few of them.

People differ in their PSR by more (7 % in white matter) than T1w and FLAIR tell. Networks that see ten people learn
these ten levels: their mean, which ten people tell poorly, and who has which. So each person's maps are multiplied by
what brings them to the level that the factor of all has found, which is a median; what is left to learn is where in the
brain this scanner's maps differ from the model's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..schema import read_json
from .arrays import kept
from .data import PreparedSession


def common_levels(factors: Mapping[str, float], factor: float) -> dict[str, float]:
    """What each person's maps are multiplied by: ``factor`` of all over the person's own factor, by name."""
    return {name: round(factor / own, 4) for name, own in factors.items()}


def read_levels(path: str | Path) -> dict[str, float]:
    """Factors by person.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    try:
        levels = read_json(Path(path))
    except (OSError, ValueError) as error:
        raise InputError(f"Cannot read {path}: {error}.") from error
    numbers = list(levels.values()) if isinstance(levels, dict) else [None]
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) and 0 < v < 10 for v in numbers):
        raise InputError(f"{path} must hold a factor, 0 to 10, for each person, as finetune's levels.json does.")
    return {name: float(value) for name, value in levels.items()}


def levelled(entries: Sequence[PreparedSession], levels: Mapping[str, float]) -> list[PreparedSession]:
    """The entries with their maps multiplied, kept beside the prepared scans; those of others are left as they are."""
    result = []
    for entry in entries:
        level = levels.get(entry.subject, 1.0)
        if level != 1:
            name = f"level-{level:.4f}.npy"
            kept(entry.folder / name, partial(_times, entry, level))
            entry = replace(entry, key=f"{entry.key}-{level:.4f}", map=name)
        result.append(entry)
    return result


def _times(entry: PreparedSession, level: float) -> np.ndarray:
    """The map (X, Y, Z) times ``level``, float16 fraction."""
    return (np.asarray(entry.y, np.float32) * np.float32(level)).astype(np.float16)
