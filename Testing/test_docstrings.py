"""Public functions that take or return arrays say in their docstrings which shapes these have."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_ARRAY = re.compile(r"\b(ndarray|NDArray|ArrayLike|Tensor)\b")
#: Tensors by name, as weights and batches are, and functions of tensors: their shapes stand where each is made.
_NAMED = re.compile(r"(dict|Mapping)\[(str|int), [^\[\]]*\]|Callable\[.*\]")
#: "(X, Y, Z)", "(B, C, ...)", "(4, 4)", "(n,)", "affine 4 x 4", "shape (..)", "of any shape", "shaped as x", "scalar".
_SIZE = r"(?:\.\.\.|\*\w+|>= \d+|\d+|[A-Za-z]{1,2}'?|[a-z]{3,9}|[A-Z_]{3,}|:data:`\w+`)"
_SHAPE = re.compile(
    rf"\({_SIZE}(?:,(?: [^,()]{{1,24}})?)*, ?{_SIZE}?[^,();]{{0,20}}[);]|\({_SIZE},\)"
    r"|\b\d ?x ?\d\b|\bshape|\bscalar\b|\bvectors?\b"
)


def _functions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _functions(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield prefix + node.name, node


def silent(text: str) -> list[str]:
    """Public functions of a module whose annotations name arrays and whose docstrings name no shape.

    A method may lean on its class, whose docstring says what all of them work on.
    """
    tree = ast.parse(text)
    classes = {node.name: ast.get_docstring(node) or "" for node in tree.body if isinstance(node, ast.ClassDef)}
    found = []
    for name, node in _functions(tree.body):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        written = [one.annotation for one in arguments if one.annotation] + ([node.returns] if node.returns else [])
        told = (ast.get_docstring(node) or "") + " " + classes.get(name.partition(".")[0], "")
        if any(_ARRAY.search(_NAMED.sub("", ast.unparse(one))) for one in written) and not _SHAPE.search(told):
            found.append(name)
    return found


def test_what_the_check_sees():
    one = 'def f(x: np.ndarray) -> float:\n    """Sum of ``x`` {}"""\n'
    for told in ("(X, Y, Z).", "of any shape.", "(B, C, ...).", "(n,)", "4 x 4"):
        assert silent(one.format(told)) == [], told
    for told in (".", "(see there).", "as above, x times."):
        assert silent(one.format(told)) == ["f"], told
    assert silent(one.format(".").replace("np.ndarray", "int")) == []


def test_public_array_functions_state_their_shapes():
    found = {}
    for path in sorted((ROOT / "DEMISTCore").rglob("*.py")):
        names = silent(path.read_text(encoding="utf-8"))
        if names:
            found[path.relative_to(ROOT).as_posix()] = names
    assert found == {}
