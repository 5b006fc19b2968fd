"""No run of code of twelve lines or more stands twice, comments, docstrings and imports aside."""

from __future__ import annotations

import ast
import io
import keyword
import tokenize
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("DEMISTCore", "DEMISTSlicer", "benchmarks", "docs", "scripts", "containers")
LINES = 12
#: Pairs of files that may have one, each with its reason.
ALLOWED = {
    ("DEMISTCore/evaluate_cv.py", "DEMISTCore/evaluate_cv.py"): "options of a command are a table: one call a line",
    ("DEMISTCore/evaluate_cv.py", "DEMISTCore/statistics/__main__.py"): "options of a command are a table",
}
#: Folders whose files may have one with each other, each with its reason.
ALIKE = {"DEMISTCore/samplers/": "samplers are called alike: one signature, one loop's head"}
_LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def lines_of(text: str) -> list[tuple[int, str]]:
    """Lines that hold code: their numbers, and their tokens with every name alike."""
    aside: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        docstring = isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str)
        if docstring or isinstance(node, (ast.Import, ast.ImportFrom)):
            aside |= set(range(node.lineno, node.end_lineno + 1))
    words: dict[int, list[str]] = defaultdict(list)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _LAYOUT and token.start[0] not in aside:
            name = token.type == tokenize.NAME and not keyword.iskeyword(token.string)
            words[token.start[0]].append("name" if name else token.string)
    return [(number, " ".join(line)) for number, line in sorted(words.items())]


def clones(texts: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Pairs of files with a run of lines in common, and where the first such run begins in each."""
    seen: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for path, text in texts:
        code = lines_of(text)
        for i in range(len(code) - LINES + 1):
            seen[tuple(line for _, line in code[i : i + LINES])].append((path, code[i][0]))
    found: dict[tuple[str, str], str] = {}
    for (path, line), *others in seen.values():
        for other, at in others:
            found.setdefault((path, other), f"{path}:{line} and {other}:{at}")
    return found


def test_a_copy_under_other_names_is_found():
    one = "def f(a):\n" + "".join(f"    x{i} = a * {i}\n" for i in range(LINES))
    other = one.replace("x", "y").replace("f(a)", "g(b)").replace("a *", "b *")
    assert clones([("one.py", one), ("other.py", other)]) == {("one.py", "other.py"): "one.py:1 and other.py:1"}
    assert not clones([("one.py", one), ("other.py", other.replace("* 6", "/ 6"))])


def test_no_run_of_code_stands_twice():
    paths = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    assert len(paths) > 200
    found = clones((path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths)
    alike = {pair for pair in found if any(all(file.startswith(folder) for file in pair) for folder in ALIKE)}
    assert {pair: where for pair, where in found.items() if pair not in {*ALLOWED, *alike}} == {}
    assert set(found) - alike == set(ALLOWED), "an exception that nothing needs any more"
