"""The main job on an embedded simulated patient: ``python -m DEMISTCore.demo``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .cli import run, set_up_logging

_DESCRIPTION = """\
Simulate a patient (T1w and FLAIR with skull, bias fields, thick slices, movement), synthesize the PSR map with default
settings, and compare it with the known truth: maps, a picture (demo.png) and numbers; then measure it as an MS group
would (folder statistics): table by region and lesion, ROC curves of lesions against normal-appearing white matter.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m DEMISTCore.demo", description=_DESCRIPTION)
    p.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="folder to write (default: demo)")
    p.add_argument("--seeds", type=int, metavar="N", help="samples to average (default: the bundle's recommendation)")
    p.add_argument("--steps", type=int, metavar="N", help="sampling steps (default: the bundle's)")
    p.add_argument("--bundle", metavar="NAME", help="name, folder or Hugging Face id (default: demist-sim)")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: %(default)s)")
    p.add_argument("--precision", default="auto", help="auto, fp32, bf16 or fp16 (default: %(default)s)")
    p.add_argument("--overwrite", action="store_true", help="replace an earlier demo in the folder")
    p.add_argument("-v", "--verbose", action="store_true", help="say more")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, call, report."""
    args = parser().parse_args(argv)
    set_up_logging(args.verbose)
    if not args.verbose:
        logging.getLogger("DEMISTCore").setLevel(logging.ERROR)
    from .demonstration import demonstrate, table

    with Bar() as bar:
        demonstration = demonstrate(
            args.out, seeds=args.seeds, steps=args.steps, bundle=args.bundle, device=args.device,
            precision=args.precision, overwrite=args.overwrite, progress=bar,
        )  # fmt: skip
    print(table(demonstration))
    return 0


class Bar:
    """A progress bar on stderr that names the stage; call it with a stage and the share of all work done."""

    def __enter__(self) -> Bar:
        from tqdm import tqdm

        form = "{desc:<16}{percentage:3.0f}%|{bar}| {elapsed}"
        self._bar = tqdm(total=100, bar_format=form, file=sys.stderr, disable=None, leave=False)
        return self

    def __exit__(self, *exception: Any) -> None:
        self._bar.close()

    def __call__(self, stage: str, fraction: float) -> None:
        """Show ``stage`` and move on to ``fraction``."""
        self._bar.set_description_str(stage, refresh=False)
        self._bar.update(max(0.0, 100 * fraction - self._bar.n))


if __name__ == "__main__":
    raise SystemExit(run(main))
