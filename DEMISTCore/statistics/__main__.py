"""``python -m DEMISTCore.statistics``: PSR by region and lesion, ROC curves, comparison with another map."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..arguments import add_any_brain_volume, add_words
from ..cli import hushed, run, set_up_logging, terminate_cleanly
from ..regions.settings import METHODS

_DESCRIPTION = """\
Measure a PSR map in lesions and normal-appearing white matter (NAWM): a table by region and lesion, with 90 % intervals
of the means where the model that made the map is calibrated; ROC curves of lesion against NAWM (all, near and far from
lesions), box plots, a picture with outlines; all on the map's own grid.
"""
_EXAMPLES = """\
examples:
  python -m DEMISTCore.statistics --psr psr.nii.gz --lesions lesions.nii.gz --t1w t1w.nii.gz --out statistics
  python -m DEMISTCore.statistics --psr psr.nii.gz --t1w t1w.nii.gz --flair flair.nii.gz --suggest-lesions --out stats
  python -m DEMISTCore.statistics --psr psr.nii.gz --lesions lesions.nii.gz --tissue dseg.nii.gz \\
      --reference measured_psr.nii.gz --out comparison

Writes regions.csv, statistics.json, roc.png, boxes.png, overlay.png, regions_dseg.nii.gz and lesions_dseg.nii.gz; with
--reference also comparison.csv and bland_altman.png. PSR is a fraction (white matter about 0.12). Research use only.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m DEMISTCore.statistics",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the results")
    p.add_argument("--overwrite", action="store_true", help="replace the results of an earlier analysis there")
    p.add_argument("--tsv", action="store_true", help="write the tables as TSV, too")
    maps = p.add_argument_group("maps")
    maps.add_argument("--psr", required=True, metavar="FILE", help="PSR map (fraction), synthesized or measured")
    maps.add_argument(
        "--uncertainty",
        metavar="FILE",
        help="SD per voxel, as synthesize writes it (default: the one beside the map, where the model is calibrated)",
    )
    maps.add_argument(
        "--samples",
        nargs="+",
        default=[],
        metavar="FILE",
        help="maps of single seeds (two or more): how far a region's mean moves from seed to seed",
    )
    maps.add_argument("--reference", metavar="FILE", help="another PSR map of this brain to compare with")
    masks = p.add_argument_group("regions (other grids are resampled to the PSR map's)")
    masks.add_argument("--lesions", metavar="FILE", help="lesion mask; of a segmentation, all labels above 0")
    masks.add_argument(
        "--suggest-lesions",
        action="store_true",
        help="find lesions on the FLAIR; marked as a suggestion in every output",
    )
    masks.add_argument(
        "--unchecked",
        action="store_true",
        help="the lesions given are themselves a suggestion that no person has checked; every output says so",
    )
    masks.add_argument("--t1w", metavar="FILE", help="T1-weighted image in the map's space: tissues, T1 black holes")
    masks.add_argument(
        "--already-aligned", action="store_true", help="a measured map lies on the T1w: do not look whether it does"
    )
    masks.add_argument("--flair", metavar="FILE", help="FLAIR image of the same session; registered to the T1w")
    masks.add_argument("--tissue", metavar="FILE", help="tissue labels instead: 1 CSF, 2 grey, 3 white matter")
    masks.add_argument("--brain-mask", metavar="FILE", help="brain mask (default: where the PSR map is not 0)")
    add_any_brain_volume(masks)
    masks.add_argument(
        "--proximal",
        nargs=2,
        type=float,
        metavar=("LO", "HI"),
        help="proximal NAWM lies between these distances from a lesion, mm",
    )
    masks.add_argument("--distal", type=float, metavar="MM", help="distal NAWM lies farther than this from lesions")
    masks.add_argument("--gap", type=float, metavar="MM", help="NAWM keeps this distance from lesions (partial volume)")
    masks.add_argument("--depth", type=float, metavar="MM", help="NAWM keeps this off grey matter and fluid")
    masks.add_argument("--min-lesion", type=float, metavar="ML", help="smaller lesions are left out, mL")
    masks.add_argument(
        "--method",
        choices=METHODS,
        help="how to find tissue and suggested lesions: the trained network, or a Markov random field and rules",
    )
    add_words(p)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, call, report."""
    args = parser().parse_args(argv)
    set_up_logging(args.verbose)
    terminate_cleanly()
    from ..regions import RegionSettings
    from .analysis import analyse

    chosen = {
        "proximal_mm": args.proximal and tuple(args.proximal),
        "distal_mm": args.distal,
        "lesion_gap_mm": args.gap,
        "depth_mm": args.depth,
        "min_lesion_ml": args.min_lesion,
        "method": args.method,
    }
    settings = RegionSettings(**{name: value for name, value in chosen.items() if value is not None})
    with hushed(verbose=not args.quiet):
        analysis = analyse(
            args.psr,
            lesions=args.lesions,
            t1w=args.t1w,
            flair=args.flair,
            tissue=args.tissue,
            brain=args.brain_mask,
            uncertainty=args.uncertainty,
            samples=args.samples,
            reference=args.reference,
            suggest=args.suggest_lesions,
            unchecked=args.unchecked,
            already_aligned=args.already_aligned,
            out=args.out,
            settings=settings,
            tsv=args.tsv,
            overwrite=args.overwrite,
            any_brain_volume=args.any_brain_volume,
        )
    if not args.quiet:
        print(analysis.text())
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
