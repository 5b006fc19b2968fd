"""Write a folder of any kind of bundle: weights, description, card and documents, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..commit import aside, commit
from ..errors import InputError
from ..files import sha256
from ..weights import write_weights
from .description import CARD_FILE, DELTAS, DESCRIPTION_FILE, FORMAT, FORMAT_VERSION, description_hash
from .schema import find_problem

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


def header(
    kind: str, name: str, *, licence: str, simulated: bool, warning: str, description: str = "", version: str = "1"
) -> dict[str, Any]:
    """What the description of every kind of bundle begins with; the rest is the kind's own."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "name": name,
        "version": version,
        "description": description,
        "licence": licence,
        "simulated": bool(simulated),
        "warning": warning,
    }


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
        with aside(folder) as building:
            info["files"] = {}
            for part, content in weights.items():
                file = building / f"{part}.safetensors"
                write_weights(file, content, storage if isinstance(storage, str) else storage.get(part, "fp16"))
                info["files"][file.name] = {"sha256": sha256(file), "bytes": file.stat().st_size}
            info = json.loads(json.dumps(info))  # tuples become lists now, so that the hash is that of what is read
            info["hash"] = description_hash(info)
            (building / DESCRIPTION_FILE).write_text(json.dumps(info, indent=2, ensure_ascii=False) + "\n", "utf-8")
            (building / CARD_FILE).write_text(default_card(info) if card is None else card, "utf-8")
            for document, path in documents.items():
                shutil.copyfile(path, building / Path(document).name)
            commit([(building, folder)])
    except OSError as error:
        raise InputError(f"Cannot write {folder}: {error.strerror or error}; choose another folder.") from error
    return info


def default_card(info: Mapping[str, Any]) -> str:
    """A model card, Markdown, from the description alone."""
    files = "\n".join(f"| {name} | {entry['bytes'] / 1e6:.1f} MB |" for name, entry in info["files"].items())
    base = f"Delta over `{info['base']['name']}` ({info['base']['hash'][:12]}).\n\n" if "base" in info else ""
    training = json.dumps(info["training"], indent=2, ensure_ascii=False)
    return textwrap.dedent("""\
        # {name}

        **{warning}**

        {description}

        {base}Licence of the weights: {licence}.

        | file | size |
        |---|---|
        {files}

        ## Training

        ```json
        {training}
        ```
        """).format(
        name=info["name"],
        warning=info["warning"],
        description=info["description"] or "Model for DEMIST: PSR maps from T1w and FLAIR.",
        base=base,
        licence=info["licence"],
        files=files,
        training=training,
    )
