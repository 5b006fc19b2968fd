"""For mkdocstrings: docstrings as :func:`site_hooks.readable` makes them, before they are parsed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import griffe

sys.path.insert(0, str(Path(__file__).parent))

from site_hooks import readable


class Readable(griffe.Extension):
    """Every docstring, as it is read from the code."""

    def on_object(self, *, obj: griffe.Object, **more: Any) -> None:
        """Griffe calls this with each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = readable(obj.docstring.value)
