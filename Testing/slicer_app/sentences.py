"""The sentences that the worker ends a run with, collected from the core for Slicer's translation tools.

``python -m slicer_app.sentences`` with ``Testing`` on PYTHONPATH writes DEMISTSlicerLib/Run/WorkerSentences.py anew.
"""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
OUT = ROOT / "DEMISTSlicer" / "DEMISTSlicerLib" / "Run" / "WorkerSentences.py"
#: Where a run can fail for a reason that the user can fix.
PLACES = (
    "devices.py", "dicom", "files.py", "measured", "options.py", "preprocess", "regions", "statistics", "synthesis",
    "volume", "worker/jobs.py", "worker/context.py", "worker/exchange.py", "bundle",
)  # fmt: skip
ERRORS = {"InputError", "BundleError", "MemoryShortage"}
#: A template with fewer letters of its own could be anything.
LEAST = 15
_HEAD = '''"""Sentences that the worker ends a run with, for translators. Made by Testing/slicer_app/sentences.py.

The worker speaks English; :mod:`.Sentences` finds the sentence and tells it in the language of the application.
"""

from __future__ import annotations

from collections.abc import Callable


def sentences(_: Callable[[str], str]) -> tuple[str, ...]:
    """All of them, each passed through ``_``; numbers in braces are what differs from time to time."""
    return (
'''


def collected() -> list[str]:
    """Templates of the core's sentences, sorted; ``{0}``, ``{1}`` stand for what is filled in."""
    found = set()
    for place in PLACES:
        path = ROOT / "DEMISTCore" / place
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ERRORS and node.args:
                    text = template(node.args[0])
                    if text is not None and len(re.sub(r"\{\d+\}", "", text)) >= LEAST:
                        found.add(text)
    return sorted(found)


def template(node: ast.expr) -> str | None:
    """The template of a string or f-string; None for anything else."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    count, text = 0, ""
    for part in parts:
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            text += part.value.replace("{", "{{").replace("}", "}}")
        elif isinstance(part, ast.FormattedValue):
            text += f"{{{count}}}"
            count += 1
        else:
            return None
    return text


def written(templates: list[str]) -> str:
    """The module's text."""
    lines = []
    for text in templates:
        pieces = textwrap.wrap(text, 104, drop_whitespace=False, break_long_words=False, replace_whitespace=False)
        if len(pieces) == 1:
            lines.append(f"        _({quoted(text)}),")
        else:
            lines += [f"        _({quoted(pieces[0])}", *(f"          {quoted(piece)}" for piece in pieces[1:])]
            lines[-1] += "),"
    return _HEAD + "\n".join(lines) + "\n    )  # fmt: skip\n"


def quoted(text: str) -> str:
    """A literal in double quotes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


if __name__ == "__main__":
    OUT.write_text(written(collected()), encoding="utf-8")
    print(OUT)
