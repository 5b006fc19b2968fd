"""``python -m DEMISTCore.worker``: serve another program, see :mod:`DEMISTCore.worker.protocol`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..cli import run


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
    from .serve import main as serve

    return serve(args.folder)


if __name__ == "__main__":
    raise SystemExit(run(main))
