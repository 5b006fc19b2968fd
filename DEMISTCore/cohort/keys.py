"""What a result depends on, as one hash a stage: content of the inputs, settings, model."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files import sha256
from ..volume import data_hashes
from .options import Options
from .session import Session

#: Of the files that a stage makes: a new number has them made again, because they are others now.
LAYOUT = {"prepare": 1, "map": 2, "regions": 1, "spaces": 2, "report": 2}


class Contents:
    """Hashes of files; a file that has neither changed in size nor in time since the last look is not read again.

    Attributes:
        known: by path: size, time of change (ns), hash; kept from run to run.
    """

    def __init__(self, known: Mapping[str, list] | None = None) -> None:
        self.known: dict[str, list] = dict(known or {})

    def of(self, path: Path) -> str:
        """SHA-256 of a file, and of the data files that it names.

        Raises:
            OSError: it cannot be read.
        """
        status = os.stat(path)
        seen = self.known.get(str(path))
        if isinstance(seen, list) and len(seen) == 3 and seen[:2] == [status.st_size, status.st_mtime_ns]:
            return str(seen[2])
        parts = data_hashes(path)
        digest = sha256(path) if not parts else _digest([sha256(path), parts])
        if not parts:  # the data of a detached header may change alone
            self.known[str(path)] = [status.st_size, status.st_mtime_ns, digest]
        return digest


def stage_keys(
    session: Session,
    options: Options,
    bundle: str,
    network: str,
    protocol: Mapping[str, Any],
    contents: Contents,
    templates: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """One key a stage; each holds the one before, so that what is touched is what comes after.

    Args:
        session: with its images.
        options: settings.
        bundle: hash of the model (:attr:`DEMISTCore.bundle.Bundle.hash`), which covers that of its base.
        network: hash of the tissue network; "" where none is used.
        protocol: content of the sidecars, by image.
        contents: hashes of files.
        templates: hash of the template by space, of those that have one.

    Raises:
        OSError: an image cannot be read.
    """
    images = {what: contents.of(path) for what, path in session.images.items()}
    first = {what: images.get(what) for what in ("T1w", "FLAIR", "brain mask")}
    keys = {
        "prepare": _digest(
            {"layout": LAYOUT["prepare"], "inputs": first, "options": options.preparation(), "bundle": bundle}
        )
    }
    told = {
        "layout": LAYOUT["map"],
        "inputs": first,
        "protocol": protocol,
        "options": options.of_map(),
        "bundle": bundle,
    }
    keys["map"] = _digest(told)
    if options.regions:
        more = {what: images.get(what) for what in ("lesion mask", "tissue map")}
        keys["regions"] = _digest(
            {
                "layout": LAYOUT["regions"],
                "map": keys["map"],
                "inputs": more,
                "options": options.of_regions(),
                "network": network,
            }
        )
    last = keys.get("regions", keys["map"])
    if options.spaces:
        keys["spaces"] = _digest(
            {"layout": LAYOUT["spaces"], "before": last, "spaces": sorted(options.spaces), "templates": templates}
        )
        last = keys["spaces"]
    keys["report"] = _digest({"layout": LAYOUT["report"], "before": last, "shown": session.shown})
    return keys


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
