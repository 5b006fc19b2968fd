"""Load a bundle: find it, check every hash, and put a delta onto its base."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import BundleError
from .description import check_files, read_description
from .find import DEFAULT_BUNDLE, find_base, find_folder
from .model import Bundle


def load_bundle(source: str | os.PathLike[str] | Bundle = DEFAULT_BUNDLE) -> Bundle:
    """Find a bundle, check every hash, and describe it; networks are built on first use.

    Args:
        source: a name among the shipped bundles (or in the folders of ``$DEMIST_BUNDLES``), a folder, or a Hugging
            Face id (``owner/name``, ``owner/name@revision``; needs the extra ``hub``). The base of a demist bundle is
            looked for beside it, in these places, and on the hub if the bundle names an id.

    Raises:
        BundleError: not found, damaged, foreign, of a newer format, or its base is missing or another one.
    """
    if isinstance(source, Bundle):
        return source
    return _open(find_folder(source), depth=0)


def _open(folder: Path, depth: int) -> Bundle:
    info = read_description(folder)
    check_files(folder, info)
    if info["kind"] == "foundation":
        return Bundle(folder, info)
    if info["kind"] == "segmentation":
        raise BundleError(f"{folder} is a tissue network for regions and makes no PSR maps; give a demist bundle.")
    if info["kind"] != "demist":
        raise BundleError(
            f"{folder} holds a published model ({info['kind']}), which makes no PSR maps by itself; train on it "
            "(python -m DEMISTCore.train demist --backbone), or give a demist bundle."
        )
    if depth:
        raise BundleError(f"Bundle {folder} serves as a base, but is a {info['kind']} bundle, not a foundation.")
    wanted = info["base"]
    base = _open(find_base(folder, wanted), depth=1)
    if base.hash != wanted["hash"]:
        raise BundleError(
            f"Bundle {folder} was trained on {wanted['name']} with hash {wanted['hash'][:12]}, and {base.folder} has "
            f"{base.hash[:12]}; get the {wanted['name']} that belongs to it."
        )
    return Bundle(folder, info, base)
