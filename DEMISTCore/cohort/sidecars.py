"""A scan's protocol in a BIDS data set: JSON files apply to all images below them (BIDS' inheritance principle)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..measured.names import parse
from ..schema import read_json

#: No sidecar of a scan is larger.
_MOST = 1 << 20


def find_sidecars(root: Path, image: Path) -> list[Path]:
    """JSON files that hold for an image, from the data set's root down to the one beside it.

    One holds if it has the image's suffix, and no entity that the image has not.
    """
    name = parse(image)
    if name is None:
        return []
    try:
        depth = image.parent.relative_to(root).parts
    except ValueError:
        return []
    found = []
    for level in range(len(depth) + 1):
        folder = root.joinpath(*depth[:level])
        try:
            here = sorted(folder.glob(f"*{name.suffix}.json"), key=lambda path: len(path.name))
        except OSError:
            continue
        for path in here:
            *parts, suffix = path.name.removesuffix(".json").split("_")
            own = dict(part.partition("-")[::2] for part in parts)
            if suffix == name.suffix and all(name[key] == value for key, value in own.items()):
                found.append(path)
    return found


def read_sidecars(paths: Sequence[Path]) -> tuple[dict[str, Any], list[str]]:
    """The content of :func:`find_sidecars`' files as one, the nearer overriding, and sentences on the unreadable."""
    content: dict[str, Any] = {}
    notes = []
    for path in paths:
        try:
            told = read_json(path, _MOST)
            if not isinstance(told, dict):
                raise ValueError("it has no keys")
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            notes.append(f"{path} is not a readable JSON sidecar ({why}) and was not used.")
            continue
        content |= told
    return content, notes
