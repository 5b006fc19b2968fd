"""Convert, inspect, verify: ``python -m DEMISTCore.bundle ...``, for our bundles and for published models.

python -m DEMISTCore.bundle inspect FOLDER                    what it is
python -m DEMISTCore.bundle verify  FOLDER                    every hash, every weight
python -m DEMISTCore.bundle convert FOLDER OUT                a published model to our form
python -m DEMISTCore.bundle convert FOLDER OUT --to monai     ours (a DEMIST bundle as well) to a MONAI bundle
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..cli import run, set_up_logging


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m DEMISTCore.bundle", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="{convert,inspect,verify}")
    source = "a DEMIST bundle, a MONAI bundle, a folder of weights, a bundle's name, or a Hugging Face id"
    p = commands.add_parser("convert", help="write a model in another form", description="Write a model otherwise.")
    p.add_argument("source", metavar="FOLDER", help=source)
    p.add_argument("out", metavar="OUT", type=Path, help="new folder; a published model's autoencoder goes to OUT-vae")
    p.add_argument(
        "--to",
        choices=("demist", "monai", "generative"),
        default="demist",
        help="our form; a MONAI bundle; one with the weight names of GenerativeModels (default: %(default)s)",
    )
    p.add_argument("--base", type=Path, metavar="FOLDER", help="the autoencoder's bundle, if it is there already")
    p.add_argument("--storage", choices=("fp32", "bf16", "fp16"), default="fp32", help="number format of the weights")
    p.add_argument("--overwrite", action="store_true", help="replace a bundle that is there")
    for name, what in (("inspect", "say what a folder holds"), ("verify", "check every hash and every weight")):
        p = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        p.add_argument("source", metavar="FOLDER", help=source)
    top.epilog = "\n".join(p.format_usage().strip() for p in commands.choices.values())
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, call, report."""
    args = parser().parse_args(argv)
    set_up_logging()
    from ..published import tools

    if args.command == "inspect":
        print(tools.inspect(args.source))
    elif args.command == "verify":
        print(tools.verify(args.source))
    else:
        for folder in tools.convert(
            args.source, args.out, to=args.to, base=args.base, storage=args.storage, overwrite=args.overwrite
        ):
            print(folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
