"""``python -m DEMISTCore.worker``: serve another program, see :mod:`DEMISTCore.worker.protocol`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ..cli import run
from .protocol import EXIT_MISSING
from .signals import hold


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m DEMISTCore.worker",
        description="Serve another program (3D Slicer): one JSON object a line on standard input and output. Ends when "
        "its standard input does.",
    )
    p.add_argument("--folder", metavar="DIR", help="the parent's private folder (DEMIST-...), removed if it dies")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to stop."""
    args = parser().parse_args(argv)
    hold()
    try:
        from .serve import main as serve
    except ModuleNotFoundError as error:
        print(f"The Python package {error.name} is missing.", file=sys.stderr)
        return EXIT_MISSING
    return serve(args.folder)


if __name__ == "__main__":
    raise SystemExit(run(main))
