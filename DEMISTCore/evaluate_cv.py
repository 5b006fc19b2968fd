"""``python -m DEMISTCore.evaluate cv``: the paper's experiment in one command.

Every method is trained in every fold, within one budget, and tested on people it has not seen; tables (CSV, Markdown,
LaTeX), significance and figures. A killed run goes on with the same command, and nothing is computed twice. The same
command again while it runs, on another GPU or node, shares the folds with it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from .cli import set_up_logging
from .errors import InputError
from .guards import protect_folder

METHODS = "demist,vae,pix2pix,unet,ldm,cwdm,linear,ratio"
_EXAMPLES = f"""\
examples:
  python -m DEMISTCore.evaluate cv --data BIDS --out cv --minutes 60
  python -m DEMISTCore.evaluate cv --data BIDS --out cv --folds 5 --methods {METHODS} \\
      --stratify diagnosis --config brats --steps 200000 ldm.lr=1e-4
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m DEMISTCore.evaluate cv",
        description=__doc__.partition("\n\n")[2],
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="python -m DEMISTCore.evaluate cv --data BIDS --out DIR [options] [key=value ...]",
    )
    p.add_argument(
        "--data",
        required=True,
        metavar="BIDS",
        help="T1w, FLAIR, and in derivatives PSR maps, tissue labels and brain masks",
    )
    p.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of trainings and results")
    p.add_argument("--methods", default=METHODS, metavar="A,B,...", help="default: %(default)s")
    p.add_argument(
        "--folds",
        default="5",
        metavar="N|FILE",
        help="how many, or a table with the columns participant_id and fold (default: %(default)s)",
    )
    p.add_argument(
        "--stratify",
        metavar="COLUMN",
        help="column of participants.tsv of which each fold has its share "
        "(default: that of groups or diagnoses, if there is one)",
    )
    p.add_argument(
        "--foundation",
        metavar="BUNDLE|RUN",
        help="autoencoders and backbone trained elsewhere, on nobody who is tested (default: trained inside each fold)",
    )
    p.add_argument(
        "--backbone",
        metavar="FOLDER|ID",
        help="published diffusion model that DEMIST freezes (preset "
        "brats or brain_ldm); the autoencoders are trained inside each fold",
    )
    p.add_argument("--init", metavar="BUNDLE|FOLDER|ID", help="what these autoencoders start from")
    budget = p.add_argument_group("budget of each method and fold (default: the preset's own lengths)")
    budget.add_argument("--minutes", type=float, metavar="M", help="minutes of training")
    budget.add_argument("--steps", type=int, metavar="N", help="steps of training")
    train = p.add_argument_group("training")
    train.add_argument(
        "--config", default="small", metavar="NAME|FILE", help="preset or YAML file (default: %(default)s)"
    )
    train.add_argument("--seed", type=int, default=0, metavar="N", help="of folds, trainings and samples")
    maps = p.add_argument_group("maps")
    maps.add_argument(
        "--sampler",
        default="ddim",
        metavar="NAME",
        help="of all that sample, by name (default: %(default)s)",
    )
    maps.add_argument("--sampling-steps", type=int, default=50, metavar="N", help="default: %(default)s")
    maps.add_argument(
        "--start",
        type=float,
        default=0.05,
        metavar="S",
        help="where on the schedule DEMIST's sample starts: from the noised mean, or (1) from pure noise; for models "
        "with a mean network (default: %(default)s, the shipped model's)",
    )
    maps.add_argument(
        "--detail",
        type=float,
        default=0.4,
        metavar="D",
        help="how much of what sets DEMIST's sample apart from its mean is kept (default: %(default)s)",
    )
    maps.add_argument(
        "--seeds",
        type=int,
        default=4,
        metavar="N",
        help="samples that DEMIST's mean is taken over where the model has no mean network (default: %(default)s)",
    )
    scans = p.add_argument_group("scans")
    scans.add_argument(
        "--preprocess",
        default="masked",
        metavar="MODE",
        help="simulated: true brain mask, no "
        "registration, no N4; masked: true brain mask; full: as synthesize (default: %(default)s)",
    )
    scans.add_argument(
        "--grid",
        default="truth",
        metavar="truth|model",
        help="where maps are compared (default: the %(default)s's own grid)",
    )
    scans.add_argument("--bids-filter", metavar="FILE", help="JSON file that says which images are meant")
    scans.add_argument("--already-aligned", action="store_true", default=None, help="measured maps lie on the T1w")
    machine = p.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")
    machine.add_argument("--precision", default="auto", help="auto, fp32, bf16 or fp16 (default: %(default)s)")
    p.add_argument("-v", "--verbose", action="store_true", help="say more")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, call, report."""
    top = parser()
    args, overrides = top.parse_known_args(argv)
    given = (args.data, args.folds, args.foundation, args.backbone, args.init, args.config, args.bids_filter)
    protect_folder(args.out, [word for word in given if isinstance(word, (str, Path))], "folder of the results")
    strange = [word for word in overrides if word.startswith("-") or "=" not in word]
    if strange:
        top.error(f"unrecognized arguments: {' '.join(strange)}")
    set_up_logging(args.verbose)
    folds: int | str = args.folds
    if not Path(args.folds).is_file():
        try:
            folds = int(args.folds)
        except ValueError as error:
            raise InputError(f"--folds takes a number or a table that is there, not {args.folds!r}.") from error
    from .evaluation.cv import Options, cross_validate

    options = Options(
        config=args.config,
        overrides=tuple(overrides),
        foundation=args.foundation,
        backbone=args.backbone,
        init=args.init,
        minutes=args.minutes,
        steps=args.steps,
        seed=args.seed,
        seeds=args.seeds,
        sampler=args.sampler,
        sampling_steps=args.sampling_steps,
        start=args.start,
        detail=args.detail,
        preprocess=args.preprocess,
        grid=args.grid,
        bids_filter=args.bids_filter,
        already_aligned=args.already_aligned,
        device=args.device,
        precision=args.precision,
    )
    methods = [name.strip() for name in args.methods.split(",") if name.strip()]
    out = cross_validate(args.data, args.out, methods=methods, folds=folds, stratify=args.stratify, options=options)
    if out is not None:
        print((out / "summary.md").read_text(encoding="utf-8"))
    return 0
