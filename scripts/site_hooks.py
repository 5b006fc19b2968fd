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
