"""The page about one map: whole, alone, true to the table, and harmless whatever names it quotes."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from test_statistics import some_psr, some_regions, tissue_of, volume

from DEMISTCore.errors import InputError
from DEMISTCore.statistics import analyse
from DEMISTCore.statistics.onepage import write_page


class Page(HTMLParser):
    """Text of cells, pictures, and every address that a browser would open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells, self.pictures, self.addresses, self.tags = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href"):
                self.addresses.append(value)
            if tag == "img" and name == "alt":
                self.pictures.append(value)

    def handle_data(self, data):
        if self.tags and self.tags[-1] == "td":
            self.cells.append(data.strip())


def test_the_page_stands_alone_and_says_what_the_table_says(tmp_path):
    regions = some_regions()
    analysis = analyse(some_psr(), lesions=regions.lesions.mask, tissue=tissue_of(regions))
    out = write_page(analysis, tmp_path / "report.html", title="<script>alert(1)</script> $x$")
    text = out.read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.pictures) == 3
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert "script" not in page.tags
    assert analysis.statement in re.sub(r"&#x27;", "'", text)
    row = next(row for row in analysis.table if row["region"] == "nawm")
    assert f"{row['mean']:.3f}" in page.cells
    write_page(analysis, out, percent=True)
    assert f"{100 * row['mean']:.1f}" in Page(out.read_text(encoding="utf-8")).cells
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_map_without_lesions_has_a_page_too_and_another_ending_is_refused(tmp_path):
    regions = some_regions()
    analysis = analyse(volume(np.full(some_psr().shape, 0.12, np.float32)), tissue=tissue_of(regions))
    assert write_page(analysis, tmp_path / "a.HTM").is_file()
    with pytest.raises(InputError, match=r"\.html"):
        write_page(analysis, tmp_path / "a.pdf")
