"""Draw the packages and who imports whom, from the code: ``python scripts/architecture.py`` writes the picture.

Only the standard library is needed. A box is a package of DEMISTCore, or several files at its top that have one job. An
arrow is an import, also one within a function; those for type checkers alone do not count. Arrows to what nearly all
know (:data:`EVERYWHERE`), and arrows that a chain of others implies, are left out; one up or sideways never is: red.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "architecture.svg"

#: Files at the top of DEMISTCore by their job; what is not named here is "common".
FILES = {
    "commands": ("__main__", "evaluate", "evaluate_cv", "evaluate_pair", "synthesize", "train"),
    "model math": ("diffusion", "losses", "pooling", "decoding", "weights"),
}
#: Boxes from top to bottom; a box may know those in the rows below it.
ROWS = (
    ("DEMISTSlicer", "commands"),
    ("cohort", "environment"),
    ("worker",),
    ("demo",),
    ("evaluation",),
    ("training", "statistics", "dicom"),
    ("synthesis", "measured", "brain_ldm"),
    ("baselines", "regions"),
    ("simulate", "preprocess"),
    ("bundle",),
    ("published", "uncertainty"),
    ("networks",),
    ("model math",),
    ("samplers", "volume"),
    ("common",),
)
#: Known by nearly all; arrows to them would hide the rest.
EVERYWHERE = ("volume", "common")
#: What a box is for, in a few words.
WORDS = {
    "DEMISTSlicer": "the module of 3D Slicer",
    "commands": "python -m DEMISTCore.…",
    "demo": "the demo's patient",
    "worker": "child process of Slicer",
    "cohort": "BIDS data sets, queues",
    "environment": "a Python for Slicer",
    "evaluation": "methods against truth",
    "training": "stages, loop, checkpoints",
    "statistics": "tables, ROC, reports",
    "dicom": "maps as DICOM",
    "synthesis": "T1w + FLAIR to PSR",
    "baselines": "what DEMIST must beat",
    "measured": "measured PSR maps",
    "brain_ldm": "synthetic T1w brains",
    "regions": "tissue, lesions, NAWM",
    "simulate": "patients with known PSR",
    "preprocess": "scans to model grid",
    "bundle": "a model on disk",
    "uncertainty": "calibrated errors",
    "published": "others' formats",
    "networks": "autoencoder to streams",
    "model math": "diffusion, losses, decoding",
    "samplers": "noise to maps, a file each",
    "volume": "array with affine, files",
    "common": "errors, files, devices, …",
}
_BOX, _TALL, _GAP, _ROW, _WIDE = 190, 46, 60, 86, 780


def box_of(parts: tuple[str, ...]) -> str:
    """The box of a module given by its path below the root: ``("DEMISTCore", "bundle", "find")`` is in "bundle"."""
    if parts[0] == "DEMISTSlicer":
        return "DEMISTSlicer"
    if len(parts) > 1 and (ROOT / "DEMISTCore" / parts[1]).is_dir():
        return parts[1]
    return next((box for box, files in FILES.items() if parts[1:] and parts[1] in files), "common")


def imported(path: Path) -> Iterator[tuple[str, ...]]:
    """Modules of DEMISTCore that a file imports, as paths below the root."""
    package = path.relative_to(ROOT).parent.parts
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing:
            continue
        if isinstance(node, ast.Import):
            named = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            start += tuple((node.module or "").split(".")) if node.module else ()
            named = [(*start, alias.name) for alias in node.names] if len(start) == 1 else [start]
        else:
            continue
        yield from (parts for parts in named if parts[0] == "DEMISTCore" and len(parts) > 1)


def arrows() -> set[tuple[str, str]]:
    """(who, whom) between boxes, as the code has them."""
    found = set()
    for top in ("DEMISTCore", "DEMISTSlicer"):
        for path in (ROOT / top).rglob("*.py"):
            if "Testing" in path.parts:
                continue
            here = box_of(path.relative_to(ROOT).with_suffix("").parts)
            found |= {(here, box_of(parts)) for parts in imported(path)}
    return {(a, b) for a, b in found if a != b}


def row_of(box: str) -> int:
    """Row of a box, 0 at the top."""
    return next(i for i, row in enumerate(ROWS) if box in row)


def upward(found: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Arrows that do not point down."""
    return {(a, b) for a, b in found if row_of(a) >= row_of(b)}


def drawn(found: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Arrows down that are no consequence of others, without those to what nearly all know."""
    down = {(a, b) for a, b in found - upward(found)}
    beyond: dict[str, set[str]] = {}
    for row in reversed(ROWS):
        for box in row:
            beyond[box] = {c for a, b in down if a == box for c in {b, *beyond[b]}}
    kept = {(a, b) for a, b in down if not any(b in beyond[c] for x, c in down if x == a)}
    return {(a, b) for a, b in kept if b not in EVERYWHERE or row_of(a) == row_of(b) - 1}


def svg(found: set[tuple[str, str]]) -> str:
    """The picture of :data:`ROWS` with these arrows."""
    middle, top = {}, {}
    for i, row in enumerate(ROWS):
        left = (_WIDE - len(row) * _BOX - (len(row) - 1) * _GAP) / 2
        for k, box in enumerate(row):
            middle[box], top[box] = left + k * (_BOX + _GAP) + _BOX / 2, 20 + i * _ROW
    tall = 20 + (len(ROWS) - 1) * _ROW + _TALL + 20
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {tall}" font-family="sans-serif">',
        '<defs><marker id="down" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#7a8794"/></marker>'
        '<marker id="up" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#c62828"/></marker></defs>',
        f'<rect width="{_WIDE}" height="{tall}" fill="#ffffff"/>',
    ]
    ups = upward(found)
    for kind, color, some in (("down", "#7a8794", drawn(found)), ("up", "#c62828", ups)):
        for a, b in sorted(some):
            x1, x2 = middle[a], middle[b]
            y1, y2 = (top[a] + _TALL, top[b]) if kind == "down" else (top[a], top[b] + _TALL)
            if row_of(a) == row_of(b):
                side = _BOX / 2 if x2 > x1 else -_BOX / 2
                x1, x2, y1, y2 = x1 + side, x2 - side, top[a] + _TALL / 2, top[b] + _TALL / 2
                curve = f"M{x1:g} {y1:g} L{x2:g} {y2:g}"
                if abs(x2 - x1) > _GAP:  # over the boxes between
                    curve = f"M{x1:g} {y1:g} C{x1:g} {y1 - 60:g} {x2:g} {y2 - 60:g} {x2:g} {y2:g}"
            else:
                bend = (y2 - y1) * 0.45
                x1, x2 = x1 + (x2 - x1) * 0.08, x2 - (x2 - x1) * 0.08
                x1, x2 = (x1, x2) if kind == "down" else (x1 + 24, x2 + 24)  # beside the way down, if there is one
                curve = f"M{x1:g} {y1:g} C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}"
            dashed = "" if kind == "down" else ' stroke-dasharray="5 4"'
            lines.append(
                f'<path d="{curve}" fill="none" stroke="{color}" stroke-width="1.4"{dashed} marker-end="url(#{kind})"/>'
            )
    for row in ROWS:
        for box in row:
            x, y = middle[box], top[box]
            fill = "#e8f1fb" if box not in ("DEMISTSlicer", "commands") else "#fdf1dc"
            lines.append(
                f'<rect x="{x - _BOX / 2:g}" y="{y:g}" width="{_BOX}" height="{_TALL}" rx="6" fill="{fill}" '
                'stroke="#4a6078"/>'
                f'<text x="{x:g}" y="{y + 19:g}" text-anchor="middle" font-size="15" font-weight="bold">{escape(box)}'
                f'</text><text x="{x:g}" y="{y + 36:g}" text-anchor="middle" font-size="12" fill="#333333">'
                f"{escape(WORDS[box])}</text>"
            )
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(svg(arrows()), encoding="utf-8", newline="\n")
    for who, whom in sorted(upward(arrows())):
        print(f"up: {who} -> {whom}")
