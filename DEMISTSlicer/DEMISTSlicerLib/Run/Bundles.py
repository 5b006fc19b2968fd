"""The models on this computer, as their descriptions tell of them; none is loaded."""

from __future__ import annotations

import importlib
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from ..Errors import DemistError

#: What was read of a model, by folder, with the files that it was read from and when these were changed.
_KNOWN: dict[str, tuple[dict[Path, int], dict[str, Any] | None]] = {}


def bundles() -> list[dict[str, Any]]:
    """All that are found, described as :func:`describeBundle` does, the default first."""
    return [told for told in map(describeBundle, _names()) if told is not None]


def readAhead() -> Generator[bool, None, None]:
    """Read all models and what it takes to read one, in pieces: then the panel opens without waiting for that."""
    for name in ("errors", "files", "schema", "networks.config", "weights", "bundle.description", "bundle", "options"):
        importlib.import_module(f"DEMISTCore.{name}")
        yield True
    for name in _names():
        describeBundle(name)
        yield True


def _names() -> list[str]:
    """Names of folders that say they are models, the default first; what they are is told by what is in them."""
    from DEMISTCore.bundle import DEFAULT_BUNDLE, DESCRIPTION_FILE
    from DEMISTCore.bundle.find import bundle_folders

    names = {file.parent.name for root in bundle_folders() for file in root.glob(f"*/{DESCRIPTION_FILE}")}
    return sorted(names, key=lambda name: (name != DEFAULT_BUNDLE, name))


def describeBundle(bundle: str) -> dict[str, Any] | None:
    """What there is to know of a model, by name or folder; None if there is none or it cannot be read.

    Read once and again when its files change: the panel asks for it several times as it opens.

    Returns:
        ``name``, ``path``, ``description``, ``simulated`` (trained on simulated PSR, it or its base), ``licence``,
        ``card`` (text), ``mean`` (it has a network for the mean), ``sampling`` (what is recommended, the base's and
        DEMIST's own advice filled in).
    """
    from DEMISTCore.bundle import find_folder

    try:
        folder = find_folder(bundle)
        files, told = _KNOWN.get(str(folder), ({}, None))
        if not files or any(_changed(path) != when for path, when in files.items()):
            files, told = _described(folder)
            _KNOWN[str(folder)] = files, told
    except (DemistError, OSError, KeyError):
        return None
    return None if told is None else {**told, "sampling": dict(told["sampling"])}


def _changed(path: Path) -> int:
    """When a file was changed, ns; 0: there is none."""
    return path.stat().st_mtime_ns if path.is_file() else 0


def _described(folder: Path) -> tuple[dict[Path, int], dict[str, Any] | None]:
    """The files that tell of a model, and what they tell; None for one that is no DEMIST.

    Raises:
        DemistError, OSError, KeyError: they cannot be read.
    """
    from DEMISTCore.bundle import CARD_FILE, SAMPLING, find_base, read_description

    info = read_description(folder)
    files = {folder / name: _changed(folder / name) for name in ("bundle.json", CARD_FILE)}
    if info["kind"] != "demist":
        return files, None
    place = find_base(folder, info["base"])
    base = read_description(place)
    files[place / "bundle.json"] = _changed(place / "bundle.json")
    card = folder / CARD_FILE
    return files, {
        "name": info["name"],
        "path": str(folder),
        "description": info.get("description", ""),
        "simulated": bool(info["simulated"]) or bool(base["simulated"]),
        "licence": info["licence"],
        "card": card.read_text(encoding="utf-8", errors="replace") if card.is_file() else "",
        "mean": bool((info.get("model") or {}).get("mean")),
        "sampling": {**SAMPLING, **(base.get("sampling") or {}), **(info.get("sampling") or {})},
    }


def recommendedSampling(bundle: str | None = None) -> dict[str, Any]:
    """The sampling that a model recommends; None: the default one. Usual numbers where there is no such model."""
    from DEMISTCore.bundle import DEFAULT_BUNDLE

    usual = {"mode": "sample", "seeds": 4, "steps": 10}
    return (describeBundle(bundle or DEFAULT_BUNDLE) or {}).get("sampling", usual)


def usualMode(sampling: Mapping[str, Any], seeds: Any = None, steps: Any = None, sampler: Any = None) -> str:
    """``mean`` or ``sample``, where the caller names none, as DEMISTCore.synthesize understands it: the bundle's own,
    but ``sample`` where seeds, steps or sampler are asked for."""
    asked = seeds is not None or steps is not None or sampler is not None
    return "sample" if asked else str(sampling.get("mode") or "sample")
