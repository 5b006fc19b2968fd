"""Reports as a browser reads them: whatever a name or a sentence holds is text, and nothing is fetched or run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from cohort_data import QUICK, write_bids

from DEMISTCore.cohort.__main__ import main
from DEMISTCore.cohort.group.page import group_page
from DEMISTCore.cohort.group.tables import Measured
from DEMISTCore.cohort.names import SessionPaths
from DEMISTCore.cohort.page import session_page
from DEMISTCore.cohort.pictures import registration
from DEMISTCore.cohort.session import Session
from DEMISTCore.cohort.status import Status
from DEMISTCore.volume import Volume

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
BROWSER = pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="no Chromium on this machine")


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


def browse(page: Path, profile: Path, *more: str) -> str:
    """What a headless browser prints of a page, after scripts would have run."""
    done = subprocess.run(
        [
            next(name for name in BROWSERS if shutil.which(name)),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={profile}",
            "--virtual-time-budget=2000",
            *more,
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "HOME": str(profile.parent)},
    )
    assert "<body" in done.stdout, done.stderr[-500:]
    return done.stdout


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


@BROWSER
@pytest.mark.parametrize("which", ["session", "group"])
def test_a_browser_shows_them_as_text_too(tmp_path, which):
    """The page after scripts would have run."""
    (tmp_path / "page.html").write_text(pages(tmp_path)[which], encoding="utf-8")
    told = browse(tmp_path / "page.html", tmp_path / "profile")
    seen = Page(told)
    assert "<h1>" in told
    assert "script" not in seen.elements
    assert "<title>run</title>" not in told
    assert HOSTILE in seen.text


@BROWSER
@pytest.mark.slow
def test_a_persons_hostile_name_from_a_table_to_the_browser(tmp_path, tiny_bundle):
    """Five people of a table, one of them called a script: the report of that one and of the group."""
    people = {"sub-01": "<script>document.title=1</script>", "sub-02": "b", "sub-03": "c", "sub-04": "d", "sub-05": "e"}
    bids = write_bids(tmp_path / "bids", people)
    lines = ["subject,t1w,flair,brain_mask,lesions,tissue"]
    for name, person in people.items():
        anat, masks = f"{bids}/{name}/anat/{name}", f"{bids}/derivatives/manual/{name}/anat/{name}"
        given = [f"{anat}_T1w.nii.gz", f"{anat}_FLAIR.nii.gz", f"{masks}_desc-brain_mask.nii.gz"]
        given += [f"{masks}_label-lesion_mask.nii.gz", f"{masks}_desc-tissue_dseg.nii.gz"]
        lines.append(",".join([person, *given]))
    (tmp_path / "people.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    words = [str(tmp_path / "people.csv"), str(tmp_path / "out")]
    assert main([*words, "participant", "--bundle", str(tiny_bundle), *QUICK]) == 0
    assert main([*words, "group", "-q"]) == 0
    subject = "sub-scriptdocumenttitle1script"
    for page in (tmp_path / "out" / subject / f"{subject}.html", tmp_path / "out" / "group" / "index.html"):
        told = browse(page, tmp_path / "profile")
        seen = Page(told)
        assert "script" not in seen.elements
        assert "<title>1</title>" not in told
        assert people["sub-01"] in seen.text


@BROWSER
@pytest.mark.parametrize("which", ["session", "group"])
def test_pages_fit_a_narrow_window(tmp_path, which):
    """A frame as wide as a phone: what is wider (a table) scrolls by itself, and the page does not."""
    (tmp_path / "page.html").write_text(pages(tmp_path)[which], encoding="utf-8")
    (tmp_path / "frame.html").write_text(
        '<iframe src="page.html" style="width:390px;height:800px;border:0" onload="'
        "document.title = this.contentDocument.documentElement.scrollWidth"
        '"></iframe>'
    )
    told = browse(tmp_path / "frame.html", tmp_path / "profile", "--allow-file-access-from-files", "--hide-scrollbars")
    assert re.search(r"<title>(\d+)</title>", told).group(1) == "390"


def test_edges_are_those_of_tissue_and_not_of_noise():
    x, y, z = np.meshgrid(*[np.linspace(-1.3, 1.3, 60)] * 3, indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2)
    noise = np.random.default_rng(0).normal(0, 0.12, radius.shape)
    image = np.select([radius < 0.7, radius < 1], [0.9, 0.6], 0.0) + noise
    t1w = Volume((np.clip(image, 0, 1) * (radius < 1)).astype(np.float32), np.eye(4))
    figure = registration(t1w, t1w, t1w.with_array((radius < 1).astype(np.uint8)))
    for axes in figure.axes:
        edges = [one for one in axes.collections if np.allclose(one.get_edgecolor()[0], [1, 1, 0, 1])]
        assert sum(len(path.to_polygons(closed_only=False)) for one in edges for path in one.get_paths()) < 12
