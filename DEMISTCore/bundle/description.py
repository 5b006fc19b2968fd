"""``bundle.json``: what a model on disk is, checked against its own hash and against the files beside it.

It lists the SHA-256 of every weight file, and its own hash covers all of that: one hash stands for the whole model.
Documents (card, training log) are not covered, so that a card can be corrected without making another model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BundleError
from ..files import sha256
from ..schema import read_json, shown
from .schema import find_problem

FORMAT = "demist-bundle"
FORMAT_VERSION = 1
DESCRIPTION_FILE = "bundle.json"
CARD_FILE = "MODEL_CARD.md"
KINDS = {
    "foundation": ("autoencoder_psr", "autoencoder_condition", "backbone"),
    "demist": ("streams",),
    # Published models, see published.store.
    "autoencoder": ("autoencoder",),
    "ldm": ("unet",),
    # Tissue and lesions, see regions.network.
    "segmentation": ("segmentation",),
}
#: Kinds that are a delta over a base.
DELTAS = ("demist", "ldm")


@dataclass(eq=False)
class Described:
    """A folder with a ``bundle.json``, and what every kind of it says of itself."""

    folder: Path
    info: dict[str, Any]

    @property
    def name(self) -> str:
        """What the bundle calls itself."""
        return self.info["name"]

    @property
    def kind(self) -> str:
        """One of :data:`KINDS`."""
        return self.info["kind"]

    @property
    def hash(self) -> str:
        """SHA-256 over everything that matters: configuration, and the hashes of all weights and of the base."""
        return self.info["hash"]

    @property
    def simulated(self) -> bool:
        """True if it was trained on simulated images."""
        return bool(self.info["simulated"])


def read_description(folder: Path) -> dict[str, Any]:
    """``bundle.json``, checked for being one, for its version, and against its own hash."""
    file = folder / DESCRIPTION_FILE
    if not file.is_file():
        hint = " (it looks like a MONAI bundle)" if (folder / "configs" / "metadata.json").is_file() else ""
        raise BundleError(f"{folder} is not a DEMIST bundle{hint}: it has no {DESCRIPTION_FILE}; give another folder.")
    try:
        info = read_json(file)
    except OSError as error:
        raise BundleError(f"{file} cannot be read ({error.strerror or error}); get the bundle again.") from error
    except ValueError as error:
        why = "not JSON" if "not JSON" in str(error) else error
        raise BundleError(f"{file} is damaged ({why}); get the bundle again.") from error
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise BundleError(f"{file} does not describe a DEMIST bundle; give another folder.")
    version = info.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise BundleError(f"{file} is damaged (no format_version); get the bundle again.")
    if version > FORMAT_VERSION:
        raise BundleError(
            f"{file} is of bundle format {shown(version)}, newer than the {FORMAT_VERSION} that this version of DEMIST "
            "knows; update DEMIST."
        )
    if info.get("hash") != description_hash(info):
        raise BundleError(f"{file} was changed or damaged after it was saved (wrong hash); get the bundle again.")
    # The hash is right, so what follows are mistakes of whoever wrote it.
    kind = info.get("kind")
    known = isinstance(kind, str) and kind in KINDS
    problem = find_problem(info, kind in DELTAS) if known else f"its kind must be one of {', '.join(KINDS)}"
    if problem:
        raise BundleError(f"{file} is not valid: {problem}; it was not saved by DEMIST, save it again.")
    return info


def description_hash(info: Mapping[str, Any]) -> str:
    """SHA-256 of a description without its own hash, in canonical JSON."""
    content = {key: value for key, value in info.items() if key != "hash"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def check_files(folder: Path, info: Mapping[str, Any]) -> None:
    """Every weight file is there, whole, and what was saved."""
    _check_names(folder, info)
    for name, entry in info["files"].items():
        file = folder / name
        if not file.is_file():
            raise BundleError(f"Bundle {folder} is incomplete: {name} is missing; get it again.")
        size = file.stat().st_size
        if size < entry["bytes"]:
            raise BundleError(
                f"{file} is truncated ({size:,} of {entry['bytes']:,} bytes); get the bundle again"
                + (" (it is a Git LFS pointer: run git lfs pull)." if _is_lfs_pointer(file) else ".")
            )
        if sha256(file) != entry["sha256"]:
            raise BundleError(f"{file} is damaged or was changed (wrong SHA-256); get the bundle again.")


def _check_names(folder: Path, info: Mapping[str, Any]) -> None:
    for name in info["files"]:
        if Path(name).name != name or not name.endswith(".safetensors") or name[:-12] not in KINDS[info["kind"]]:
            raise BundleError(f"Bundle {folder} lists a file it should not have ({shown(name)}); get it again.")


def _is_lfs_pointer(file: Path) -> bool:
    with open(file, "rb") as stream:
        return stream.read(40).startswith(b"version https://git-lfs")
