"""Where a bundle lies: by name, by folder, on the Hugging Face hub; and the base that belongs to it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import BundleError
from .description import DESCRIPTION_FILE, read_description

DEFAULT_BUNDLE = "demist-sim"
#: Folders of bundles to search besides the package's own, separated as in PATH.
SEARCH_VARIABLE = "DEMIST_BUNDLES"
#: What a download of a bundle needs.
PATTERNS = ("*.json", "*.safetensors", "*.md")
HUB_ID = re.compile(r"(?:hf:)?([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@([\w./-]+))?")


def bundle_folders() -> list[Path]:
    """Where bundles are looked up by name: ``$DEMIST_BUNDLES``, then the package's own."""
    listed = os.environ.get(SEARCH_VARIABLE, "").split(os.pathsep)
    return [Path(entry).expanduser() for entry in listed if entry] + [Path(__file__).parents[1] / "bundles"]


def list_bundles() -> list[str]:
    """Names of the demist bundles that can be given as ``--bundle``; damaged ones are left out."""
    names = []
    for root in bundle_folders():
        for file in sorted(root.glob(f"*/{DESCRIPTION_FILE}")):
            try:
                if read_description(file.parent)["kind"] == "demist":
                    names.append(file.parent.name)
            except BundleError:
                continue
    return list(dict.fromkeys(names))


def find_folder(source: str | os.PathLike[str], patterns: Sequence[str] = PATTERNS) -> Path:
    """The folder that a name, a path or a Hugging Face id means; ``patterns`` are the files that a download gets.

    Raises:
        BundleError: there is none, or the hub is out of reach.
    """
    text = os.fspath(source)
    path = Path(text).expanduser()
    if path.name == DESCRIPTION_FILE and path.is_file():
        return path.parent
    # A name goes before a folder of that name in the working directory; "./name" is always a folder.
    if path.name == text:
        for root in bundle_folders():
            if (root / text / DESCRIPTION_FILE).is_file():
                return root / text
    if path.is_dir():
        return path
    if path.exists():
        raise BundleError(f"{path} is a file, not a bundle; give the folder that holds its {DESCRIPTION_FILE}.")
    hub = HUB_ID.fullmatch(text)
    if hub and not text.startswith((".", "/", "~")):
        return download(hub[1], hub[2], there_is_no=text, patterns=patterns)
    known = ", ".join(list_bundles()) or "none"
    raise BundleError(
        f"There is no bundle {text!r}: no folder, and no shipped bundle of that name (there are: {known}); "
        "give a name, a folder or a Hugging Face id (owner/name)."
    )


def find_base(folder: Path, wanted: Mapping[str, str]) -> Path:
    """The folder of the base that a bundle names: one whose hash fits if there is any, else one of that name."""
    candidates = [root / wanted["name"] for root in (folder.parent, folder, *bundle_folders())]
    there = [c for c in candidates if (c / DESCRIPTION_FILE).is_file()]
    for candidate in there:
        try:
            if read_description(candidate)["hash"] == wanted["hash"]:
                return candidate
        except BundleError:
            continue
    if there:
        return there[0]
    if wanted.get("hub"):
        return download(wanted["hub"], None, there_is_no=wanted["name"])
    raise BundleError(
        f"Bundle {folder} builds on the {wanted.get('kind', 'foundation')} {wanted['name']}, which is not there; "
        f"put its folder beside {folder}, or into a folder named in ${SEARCH_VARIABLE}."
    )


def download(repository: str, revision: str | None, there_is_no: str, patterns: Sequence[str] = PATTERNS) -> Path:
    """Get a bundle from the Hugging Face hub, or from its local cache where the hub is out of reach."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
    except ImportError as error:
        raise BundleError(
            f"There is no folder {there_is_no!r}, and looking it up as a Hugging Face id needs huggingface_hub; "
            "run: pip install huggingface_hub"
        ) from error
    wanted = {"revision": revision, "allow_patterns": list(patterns)}
    try:
        return Path(snapshot_download(repository, **wanted))
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        at = f" at revision {revision}" if revision else ""
        raise BundleError(
            f"There is no folder {there_is_no!r}, and no model {repository}{at} on the Hugging Face hub "
            "(a private one needs HF_TOKEN); check the name."
        ) from error
    except Exception as error:  # what a missing network raises depends on the version and on its transport
        raise BundleError(
            f"There is no folder {there_is_no!r}, and the Hugging Face hub is out of reach; download the bundle "
            "where there is a network and give its folder."
        ) from error
