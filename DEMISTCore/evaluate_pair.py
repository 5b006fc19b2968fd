"""``python -m DEMISTCore.evaluate pair``: measured and synthesized PSR maps that are there already, compared.

For labs with qMT: one map of each kind, or two folders whose files are matched by subject and session. No model runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from .cli import set_up_logging

_EXAMPLES = """\
examples:
  python -m DEMISTCore.evaluate pair --measured sub-01_PSRmap.nii.gz --synthesized psr.nii.gz --out compared
  python -m DEMISTCore.evaluate pair --measured BIDS/derivatives/qmt --synthesized BIDS/derivatives/demist \\
      --labels BIDS/derivatives/seg --lesions BIDS/derivatives/lesions --out compared
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m DEMISTCore.evaluate pair",
        description=__doc__.partition("\n\n")[2],
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--measured", required=True, type=Path, metavar="FILE|DIR", help="measured PSR, in fractions or percent"
    )
    p.add_argument(
        "--synthesized", required=True, type=Path, metavar="FILE|DIR", help="synthesized PSR, in the same space"
    )
    p.add_argument(
        "--labels",
        type=Path,
        metavar="FILE|DIR",
        help="tissue labels (1 CSF, 2 grey, 3 white matter, or the simulator's; files named *dseg*)",
    )
    p.add_argument("--lesions", type=Path, metavar="FILE|DIR", help="lesion masks (files named *lesion*)")
    p.add_argument(
        "--mask",
        type=Path,
        metavar="FILE|DIR",
        help="brain masks (files named *brain*); default: where the synthesized map is not empty",
    )
    p.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the results")
    p.add_argument("--overwrite", action="store_true", help="replace results that are there")
    p.add_argument("-v", "--verbose", action="store_true", help="say more")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, call, report."""
    args = parser().parse_args(argv)
    set_up_logging(args.verbose)
    from .evaluation.pair import compare_pairs

    out = compare_pairs(
        args.measured,
        args.synthesized,
        args.out,
        labels=args.labels,
        lesions=args.lesions,
        mask=args.mask,
        overwrite=args.overwrite,
    )
    print((out / "summary.md").read_text(encoding="utf-8"))
    return 0
