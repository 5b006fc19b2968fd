"""``python -m DEMISTCore.simulate``: write a BIDS data set of simulated subjects."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..cli import run


def parser() -> argparse.ArgumentParser:
    """Command-line options."""
    p = argparse.ArgumentParser(
        prog="python -m DEMISTCore.simulate",
        description="Simulate T1w + FLAIR + PSR subjects with MS lesions and write them as a BIDS data set.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.add_argument("--out", required=True, help="folder of the BIDS data set")
    p.add_argument("--subjects", type=int, default=4, help="number of subjects")
    p.add_argument("--scans", type=int, default=1, help="scanners a subject is scanned on (sessions)")
    p.add_argument("--seed", type=int, default=0, help="seed; subject i uses seed + i")
    p.add_argument(
        "--anatomies",
        nargs="+",
        default=["icbm152"],
        help="'icbm152', FreeSurfer-numbered label maps, or folders of them",
    )
    p.add_argument(
        "--exclude", nargs="*", default=[], help="file names in --anatomies (or --lesion-masks) to leave out"
    )
    p.add_argument("--lesion-masks", help="folder of lesion masks in MNI space; half of the subjects recombine them")
    p.add_argument("--healthy", action="store_true", help="no lesions")
    p.add_argument("--no-skull", action="store_true", help="brain only, as after skull-stripping")
    p.add_argument("--bias", type=float, default=0.25, help="largest log-SD of the bias fields")
    p.add_argument(
        "--misregistration", type=float, default=2.0, help="SD of movement between the scans, mm and degrees"
    )
    p.add_argument("--thick-slices", type=float, default=0.4, help="share of FLAIR scans with 2-5 mm slices")
    p.add_argument("--obliquity", type=float, default=6.0, help="tilt of the image axes, degrees")
    p.add_argument(
        "--surface-sd",
        type=float,
        default=0.0,
        help="SD of how far white matter's and the brain's surface move, mm: cortex thicker or thinner "
        "than in the label map (0.3 to train a tissue network)",
    )
    p.add_argument(
        "--physics",
        choices=("standard", "shifted"),
        default="standard",
        help="'shifted': other lesions, partial volume and laws of relaxation, to test what was trained on 'standard'",
    )
    p.add_argument("--overwrite", action="store_true", help="write into a folder that is not empty")
    p.add_argument("--resume", action="store_true", help="keep subjects that are already complete")
    p.add_argument("--workers", type=int, default=1, help="subjects simulated side by side, one core each")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and run."""
    args = parser().parse_args(argv)
    from .cohort import simulate_cohort

    simulate_cohort(
        args.out,
        subjects=args.subjects,
        scans=args.scans,
        seed=args.seed,
        anatomies=args.anatomies,
        exclude=args.exclude,
        lesion_masks=args.lesion_masks,
        healthy=args.healthy,
        skull=not args.no_skull,
        bias=args.bias,
        misregistration=args.misregistration,
        thick_slices=args.thick_slices,
        obliquity=args.obliquity,
        surface_sd=args.surface_sd,
        physics=args.physics,
        overwrite=args.overwrite,
        resume=args.resume,
        workers=args.workers,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
