"""What the site does to the pages on the way, so that the same files read well on GitHub.

Links from a page to a file outside docs/ (code, README, LICENSE) become links to the repository.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"\]\((\.\./[^)#\s]*)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """mkdocs calls this with each page's text; a link out of docs/ that leads nowhere is left as it is, and told."""

    def outside(match: re.Match[str]) -> str:
        target = (ROOT / "docs" / page.file.src_uri).parent.joinpath(match[1]).resolve()
        if not target.is_relative_to(ROOT) or not target.exists():
            return match[0]
        kind = "tree" if target.is_dir() else "blob"
        return f"]({config.repo_url}/{kind}/main/{target.relative_to(ROOT).as_posix()}{match[2] or ''})"

    return _LINK.sub(outside, markdown)


_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc|obj):`~?\.*([^`]+)`")


def readable(docstring: str) -> str:
    """A docstring as Markdown: references by their last name, examples as code.

    >>> readable("See :class:`~DEMISTCore.volume.Volume`.")
    'See `Volume`.'
    >>> readable(">>> 1 + 1\\n2").splitlines()
    ['```pycon', '>>> 1 + 1', '2', '```']
    """
    text = _ROLE.sub(lambda match: f"`{match[1].rsplit('.', 1)[-1]}`", docstring)
    lines: list[str] = []
    margin: str | None = None  # of the example that is being read
    for line in [*text.split("\n"), ""]:
        if margin is None and line.lstrip().startswith(">>>"):
            margin = line[: len(line) - len(line.lstrip())]
            lines.append(f"{margin}```pycon")
        elif margin is not None and not line.strip():
            lines.append(f"{margin}```")
            margin = None
        lines.append(re.sub(r"\s+# doctest: \+\w+$", "", line))
    return "\n".join(lines[:-1])
