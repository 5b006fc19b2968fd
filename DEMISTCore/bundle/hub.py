"""A bundle from the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import BundleError

#: What a download of a bundle needs.
PATTERNS = ("*.json", "*.safetensors", "*.md")
HUB_ID = re.compile(r"(?:hf:)?([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@([\w./-]+))?")


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
