"""Write a folder of any kind of bundle: weights, description, card and documents, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..commit import commit, sweep, temporary_prefix
from ..errors import InputError
from ..files import sha256
from .card import default_card
from .description import CARD_FILE, DELTAS, DESCRIPTION_FILE, description_hash
from .schema import find_problem
from .weights import write_weights

if TYPE_CHECKING:
    from torch import Tensor, nn


def check_target(folder: Path, overwrite: bool) -> None:
    """Refuse to write over something, unless it is a bundle and may be replaced.

    Raises:
        InputError: it is there.
    """
    if folder.exists() and not overwrite:
        raise InputError(f"{folder} exists already; choose another name or allow overwriting (--overwrite).")
    if folder.exists() and not (folder / DESCRIPTION_FILE).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not a bundle and will not be overwritten; choose another name.")


def write_bundle(
    folder: Path,
    info: dict[str, Any],
    weights: Mapping[str, Mapping[str, Tensor] | nn.Module],
    storage: str | Mapping[str, str],
    card: str | None,
    documents: Mapping[str, str | os.PathLike[str]],
) -> dict[str, Any]:
    """Write weights, description, card and documents, whole or not at all; return the description with its hashes.

    Raises:
        InputError: the folder cannot be written to, or the description says what none may.
        ValueError: weights that cannot be stored as asked.
    """
    if problem := find_problem({**info, "files": {}}, info["kind"] in DELTAS):
        raise InputError(f"{folder} cannot be saved: {problem}.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder.parent)
        building = Path(tempfile.mkdtemp(prefix=f"{temporary_prefix()}{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise InputError(f"Cannot write {folder}: {error.strerror}; choose a folder you can write to.") from error
    try:
        building.chmod(0o755)
        info["files"] = {}
        for part, content in weights.items():
            file = building / f"{part}.safetensors"
            write_weights(file, content, storage if isinstance(storage, str) else storage.get(part, "fp16"))
            info["files"][file.name] = {"sha256": sha256(file), "bytes": file.stat().st_size}
        info = json.loads(json.dumps(info))  # tuples become lists now, so that the hash is that of what is read back
        info["hash"] = description_hash(info)
        (building / DESCRIPTION_FILE).write_text(json.dumps(info, indent=2, ensure_ascii=False) + "\n", "utf-8")
        (building / CARD_FILE).write_text(default_card(info) if card is None else card, "utf-8")
        for document, path in documents.items():
            shutil.copyfile(path, building / Path(document).name)
        commit([(building, folder)])
    except OSError as error:
        raise InputError(f"Cannot write {folder}: {error.strerror or error}; choose another folder.") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return info
