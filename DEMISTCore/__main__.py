"""All commands behind one name: ``demist <command> ...``, or ``python -m DEMISTCore <command> ...``.

Each is a command by itself as well: ``demist train`` is ``python -m DEMISTCore.train``.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from . import __version__
from .cli import run


class Command(NamedTuple):
    """A command: the module whose ``main(argv)`` it is, and a line on it."""

    module: str
    help: str

    def main(self) -> Callable[[Sequence[str] | None], int | None]:
        """The function; nothing of the module is imported before."""
        module = import_module(f"{__package__}.{self.module}")
        if hasattr(module, "main"):
            return module.main
        return import_module(f"{__package__}.{self.module}.__main__").main


#: By heading: what to do with scans, with data sets, with models.
COMMANDS: dict[str, dict[str, Command]] = {
    "one person's scans": {
        "demo": Command("demo", "a simulated patient from scans to statistics: the quickest look at all of it"),
        "synthesize": Command("synthesize", "a PSR map from a T1w and a FLAIR"),
        "statistics": Command("statistics", "measure a PSR map: regions, lesions, ROC curves, comparison"),
        "preprocess": Command("preprocess", "a T1w and a FLAIR as the model sees them, to look at"),
        "dicom": Command("dicom", "a map and its regions as DICOM, for an archive"),
    },
    "data sets": {
        "cohort": Command("cohort", "a whole BIDS data set, as a BIDS App"),
        "simulate": Command("simulate", "write a BIDS data set of simulated people, with their true PSR"),
        "evaluate": Command("evaluate", "how good a model is, and its baselines, where the truth is known"),
    },
    "models": {
        "train": Command("train", "train, fine-tune, calibrate and export; check maps of your own first"),
        "bundle": Command("bundle", "inspect, verify and convert models on disk"),
        "brain_ldm": Command("brain_ldm", "synthetic T1w brains by the published Brain LDM"),
        "environment": Command("environment", "install the packages for another program, as the Slicer module does"),
    },
}


def parser() -> argparse.ArgumentParser:
    """The command line; what follows the command is the command's own to read."""
    lines = []
    for heading, commands in COMMANDS.items():
        lines += [f"{heading}:", *(f"  {name:<13}{command.help}" for name, command in commands.items()), ""]
    as_module = Path(sys.argv[0]).name in ("__main__.py", "-m")
    p = argparse.ArgumentParser(
        prog=f"python -m {__package__}" if as_module else "demist",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="PSR (myelin) maps from T1w and FLAIR. Research software, not for clinical use.",
        epilog="\n".join([*lines, "COMMAND --help tells all about one of them."]),
    )
    p.add_argument("--version", action="version", version=f"demist {__version__}")
    p.add_argument("command", metavar="COMMAND", help="one of those below")
    p.add_argument("rest", metavar="...", nargs=argparse.REMAINDER, help="its own options")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Find the command and hand over."""
    words = list(sys.argv[1:] if argv is None else argv)
    top = parser()
    if not words:
        top.print_help()
        return 0
    known = {name: command for commands in COMMANDS.values() for name, command in commands.items()}
    if words[0].startswith("-"):
        top.parse_args(words)
        return 0
    name = words[0].replace("-", "_")
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        top.error(f"there is no command {words[0]!r}" + (f"; did you mean {near[0]}?" if near else ""))
    return int(known[name].main()(words[1:]) or 0)


def entry() -> int:
    """The console script ``demist``."""
    return run(main)


if __name__ == "__main__":
    raise SystemExit(entry())
