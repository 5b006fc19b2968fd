"""Images from strangers, of every format that is read: each is read or refused in a sentence, in 10 s and 1 GiB.

Readers written in C can die of one, and then the process that reads (:mod:`image_reader`) does, and the test says of
what.
"""

from __future__ import annotations

import shutil

import pytest
from hostile import damaged, fuzz
from hypothesis import given, settings
from hypothesis import strategies as st
from image_reader import Reader
from test_placement import FORMATS, make

#: What a field of a text header may be made to say.
WORDS = st.sampled_from(
    [
        "",
        "0",
        "-1",
        "nan",
        "inf",
        "1e400",
        "9" * 400,
        "0 0 0",
        "1 1 1",
        "99999 99999 99999",
        "-5 6 7",
        "4294967296 1 1",
        "3 nan 1",
        "1e308 1e308 1e308",
        "LOCAL",
        "LIST",
        "/etc/passwd",
        "../x",
        "x%d.raw 1 3 1",
        "MET_STRING",
        "MET_DOUBLE",
        "double",
        "block",
        "gzip",
        "bzip2",
        "hex",
        "ascii",
        "raw",
        "(1,0,0) (0,1,0) (0,0,1)",
        "(nan,0,0) none (0,0,0)",
        "none",
        "left-posterior-superior",
        "scanner-xyz-time",
        "a\x1b[2J",
        "True",
        "True False True",
        "4",
        "100000",
    ]
)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Every format that is read: by a name for each, its files' content by name, the one to read first."""
    found = {}
    for number, kind in enumerate(FORMATS):
        folder = tmp_path_factory.mktemp(f"scan{number}")
        main = make(kind, folder)
        files = [main, *sorted(set(folder.iterdir()) - {main})]
        found[kind] = {path.name: path.read_bytes() for path in files}
    return found


@st.composite
def reworded(draw, content):
    """A text header with fields changed, left out or doubled; of what lies behind it, nothing."""
    head, gap, voxels = content.partition(b"\n\n")
    lines = head.split(b"\n")
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        name, sign, _value = lines[at].partition(b":" if b":" in lines[at] else b"=")
        how = draw(st.integers(0, 5))
        if how == 0 and len(lines) > 1:
            del lines[at]
        elif how == 1:
            lines.insert(at, lines[at])
        else:
            lines[at] = name + sign + b" " + draw(WORDS).encode()
    return b"\n".join(lines) + gap + voxels


@pytest.fixture(scope="module")
def reader():
    own = Reader()
    yield own
    own.close()


@settings(fuzz, deadline=None)  # the reader has its own, which does not count its start
@given(st.data())
def test_images(scans, reader, tmp_path_factory, data):
    kind = data.draw(st.sampled_from(sorted(scans)))
    folder = tmp_path_factory.getbasetemp() / "hostile-image"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    files = dict(scans[kind])
    name = data.draw(st.sampled_from(sorted(files)))
    text = files[name].startswith((b"NRRD", b"ObjectType"))
    files[name] = data.draw(reworded(files[name]) if text and data.draw(st.booleans()) else damaged(files[name]))
    for other, content in files.items():
        (folder / other).write_bytes(content)
    assert reader(folder / next(iter(files)), 9.0).isprintable()
