"""What is done: a small file a session and stage, put in place together with the results that it lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..files import sha256
from ..schema import read_json
from .names import SessionPaths


def is_done(places: SessionPaths, stage: str, key: str) -> bool:
    """Whether a stage's results are there, made from the same inputs, with the same settings and model."""
    record = read(places.record(stage))
    if record.get("key") != key or not isinstance(record.get("files"), dict):
        return False
    return all(_fits(places.out / name, told) for name, told in record["files"].items())


def content(places: SessionPaths, key: str, files: dict[Path, Path], warnings: list[str]) -> dict[str, Any]:
    """What a record says.

    Args:
        places: of the session.
        key: see :func:`DEMISTCore.cohort.keys.stage_keys`.
        files: where each result lies now, by where it goes.
        warnings: sentences for people.
    """
    listed = {
        final.relative_to(places.out).as_posix(): {"size": now.stat().st_size, "sha256": sha256(now)}
        for final, now in sorted(files.items())
    }
    return {"key": key, "files": listed, "warnings": warnings}


def read(path: Path) -> dict[str, Any]:
    """A record; empty where there is none to be read."""
    try:
        told = read_json(path)
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _fits(path: Path, told: Any) -> bool:
    try:
        return isinstance(told, dict) and path.is_file() and path.stat().st_size == told.get("size")
    except (OSError, ValueError):
        return False
