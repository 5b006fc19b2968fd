"""Reports as a browser reads them: whatever a name or a sentence holds is text, and nothing is fetched or run."""

from __future__ import annotations

import os
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from DEMISTCore.cohort.group.page import group_page
from DEMISTCore.cohort.group.tables import Measured
from DEMISTCore.cohort.names import SessionPaths
from DEMISTCore.cohort.page import session_page
from DEMISTCore.cohort.session import Session
from DEMISTCore.cohort.status import Status

HOSTILE = (
    '"><script>document.title="run"</script><img src=x onerror=document.title="run"> \'" &lt;b&gt; </title></style>'
)
#: All that a report is made of.
ELEMENTS = {
    "html",
    "meta",
    "title",
    "style",
    "h1",
    "h2",
    "p",
    "b",
    "table",
    "tr",
    "th",
    "td",
    "section",
    "img",
    "a",
    "footer",
}
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


class Page(HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: set[str] = set()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.add(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data):
        self.text += data


def pages(folder: Path) -> dict[str, str]:
    """Both kinds of reports, hostile wherever a word comes from outside."""
    session = Session("sub-1", "ses-1", shown=HOSTILE)
    places = SessionPaths(folder, session)
    picture = places.figure("desc-preview_PSRmap")
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"")
    told = {
        "statement": HOSTILE,
        "warnings": [HOSTILE],
        "summary": {"brain_volume_ml": HOSTILE, "psr_median": 0.1},
        "bundle": {"name": HOSTILE, "hash": HOSTILE},
        "inputs": {HOSTILE: {"file": HOSTILE}},
        "preparation": {HOSTILE: HOSTILE},
    }
    measured = {
        "notes": [HOSTILE],
        "regions": [{"name": HOSTILE, "mean": 0.1}],
        "roc": {"declined": HOSTILE},
        "uncertainty": HOSTILE,
    }
    one = Measured("sub-1", "ses-1", {HOSTILE: {"mean": 0.1}}, page="sub-1/sub-1_ses-1.html")
    status = Status("sub-1", "ses-1", "failed", "map", HOSTILE, shown=HOSTILE)
    row = {
        "subject": "sub-1",
        "session": "ses-1",
        "distance": 9.0,
        "by": HOSTILE,
        "value": 1.0,
        "median": 1.0,
        "warnings": 1,
    }
    return {
        "session": session_page(session, places, told, measured),
        "group": group_page([one], [status], [row], [], [], [HOSTILE], HOSTILE),
    }


@pytest.mark.parametrize("which", ["session", "group"])
def test_hostile_words_are_text(tmp_path, which):
    page = Page(pages(tmp_path)[which])
    assert page.elements <= ELEMENTS, page.elements - ELEMENTS
    assert HOSTILE in page.text
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("src", "href"):
            assert ":" not in (value or "").split("/")[0], value
    policy = next(value for _, name, value in page.attributes if name == "content" and "default-src" in (value or ""))
    assert "default-src 'none'" in policy
    assert "script-src" not in policy


@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="no Chromium on this machine")
@pytest.mark.parametrize("which", ["session", "group"])
def test_a_browser_shows_them_as_text_too(tmp_path, which):
    """The page after scripts would have run."""
    browser = next(name for name in BROWSERS if shutil.which(name))
    (tmp_path / "page.html").write_text(pages(tmp_path)[which], encoding="utf-8")
    done = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=2000",
            "--dump-dom",
            (tmp_path / "page.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    seen = Page(done.stdout)
    assert "<h1>" in done.stdout, done.stderr[-500:]
    assert "script" not in seen.elements
    assert "<title>run</title>" not in done.stdout
    assert HOSTILE in seen.text
