"""docs/scaling.md is filled, and with what the benchmark says; the simulation behind it keeps the engine's rules."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("simpy")
ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "scaling.md"


@pytest.fixture(scope="module")
def scaling():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import scaling

        yield scaling
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def test_no_page_waits_to_be_filled():
    """A line or a cell that is one word in capitals was to be replaced; so was what is called so."""
    pages = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    assert len(pages) > 15
    for page in pages:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
        found = re.findall(r"^[A-Z][A-Z_ ]{3,}$|(?<=\| )[A-Z]+_[A-Z_]+(?= \|)|\b(?:TODO|TBD|FIXME|XXX)\b", text, re.M)
        assert not found, f"{page.name}: {found}"


def test_the_pages_constants_are_those_of_the_benchmark(scaling):
    values, origin = scaling.read_constants(None)
    text = PAGE.read_text(encoding="utf-8")
    for name, value in values.items():
        assert f"| `{name}` | {value:g} | {origin[name]} |" in text, name


def test_the_pages_times_are_those_of_the_benchmark(scaling):
    """The sizes that take little to simulate; the others are made by the same command."""
    values, _ = scaling.read_constants(None)
    text = PAGE.read_text(encoding="utf-8")
    small = [size for size in scaling.SIZES if size[0] <= 100]
    assert small
    for line in scaling.table(values, small):
        assert line in text, line
    for scans, workers, gpus in scaling.SIZES:
        assert f"| {scans:,} | {workers:,} | {gpus or '-'} |" in text


def test_more_workers_take_less_time_and_deaths_more(scaling):
    values, _ = scaling.read_constants(None)
    plain = {**values, "spread": 0.0, "deaths_per_hour": 0.0}
    two, four = (scaling.simulate(40, plain, workers=n).worked for n in (2, 4))
    assert two / four == pytest.approx(2, rel=0.05)
    own = sum(values[name] for name in ("prepare_s", "map_cpu_s", "regions_s", "report_s", "convert_s"))
    assert two >= 20 * own
    dying = scaling.simulate(40, {**plain, "deaths_per_hour": 5.0}, workers=2)
    assert dying.repeated > 0
    assert dying.worked > two


def test_storage_gives_what_it_has_and_no_more(scaling):
    """As many as want to: all its megabytes a second, also where one stream's are no whole part of them."""
    values, _ = scaling.read_constants(None)
    still = dict.fromkeys((name for name in values if name.endswith("_s")), 0.0)
    told = {**values, **still, "deaths_per_hour": 0.0, "storage_mb_s": 500.0, "stream_mb_s": 200.0}
    told |= {"input_mb": 60.0, "output_mb": 40.0}
    outcome = scaling.simulate(100, told, workers=20)
    assert outcome.worked == pytest.approx(100 * 100 / 500, rel=0.05)
    assert outcome.bottleneck == "storage"
    alone = scaling.simulate(10, {**told, "storage_mb_s": 5000.0}, workers=1)
    assert alone.worked == pytest.approx(10 * 100 / 200, rel=0.05)


def test_a_file_of_constants_goes_over_them_and_is_checked(scaling, tmp_path):
    given = tmp_path / "mine.json"
    given.write_text(json.dumps({"about": "a machine", "prepare_s": 1.5}), encoding="utf-8")
    values, origin = scaling.read_constants(given)
    assert values["prepare_s"] == 1.5
    assert "mine.json" in origin["prepare_s"]
    given.write_text('{"prepares": 1}', encoding="utf-8")
    with pytest.raises(SystemExit, match="prepares, which is no constant"):
        scaling.read_constants(given)
