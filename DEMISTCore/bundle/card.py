"""The model card of a bundle that was given none."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from typing import Any


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
