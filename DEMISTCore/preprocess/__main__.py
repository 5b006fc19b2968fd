"""``python -m DEMISTCore.preprocess``: write the pair as the model sees it, the masks, and a JSON of the steps."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..arguments import add_preparation, preparation
from ..cli import run, set_up_logging


def parser() -> argparse.ArgumentParser:
    """Command-line options."""
    p = argparse.ArgumentParser(
        prog="python -m DEMISTCore.preprocess",
        description="Register, brain-mask, bias-correct and normalise a raw T1w and FLAIR onto the model grid.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.add_argument("--t1w", required=True, help="T1w image (NIfTI, NRRD, ...)")
    p.add_argument("--flair", required=True, help="FLAIR image, on any grid in the same space")
    p.add_argument("--out-dir", required=True, help="folder for t1w, flair, mask, native_mask (.nii.gz), steps.json")
    p.add_argument("--brain-mask", help="brain mask in the T1w's space, or on the FLAIR's grid")
    add_preparation(
        p,
        skull_strip="how the brain is found",
        no_register="trust the positions in the headers",
        no_bias_correct="leave out N4",
    )
    p.add_argument("--spacing", type=float, default=1.0, help="voxel size of the model grid, mm")
    p.add_argument("--shape", type=int, nargs=3, metavar=("X", "Y", "Z"), help="shape of the model grid; default: fits")
    p.add_argument("--device", default="cpu", help="where deepbet runs: cpu, cuda, cuda:1, mps")
    p.add_argument("--overwrite", action="store_true", help="replace files of an earlier run")
    p.add_argument("--verbose", action="store_true", help="log what each step sees")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, prepare, write."""
    args = parser().parse_args(argv)
    set_up_logging(args.verbose)
    from .pipeline import check_target, prepare, write_prepared

    check_target(args.out_dir, overwrite=args.overwrite, inputs=(args.t1w, args.flair, args.brain_mask))
    prepared = prepare(
        args.t1w,
        args.flair,
        brain_mask=args.brain_mask,
        **preparation(args),
        spacing=args.spacing,
        shape=None if args.shape is None else tuple(args.shape),
        device=args.device,
    )
    for path in write_prepared(prepared, args.out_dir, overwrite=args.overwrite):
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
