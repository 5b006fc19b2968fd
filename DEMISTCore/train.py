"""Train: ``python -m DEMISTCore.train {autoencoder,backbone,mean,demist,decoder,...,export} ...``.

The stages of DEMIST, each a run folder that the next one takes:

    python -m DEMISTCore.train autoencoder --data BIDS --out runs/autoencoder
    python -m DEMISTCore.train backbone    --data BIDS --out runs/backbone --foundation runs/autoencoder
    python -m DEMISTCore.train mean        --data BIDS --out runs/mean --foundation runs/backbone
    python -m DEMISTCore.train demist      --data BIDS --out runs/demist --foundation runs/backbone --mean runs/mean
    python -m DEMISTCore.train export runs/backbone runs/demist --out bundles/my-model

With measured PSR maps of your own, from a finished bundle:

    python -m DEMISTCore.train check    --data BIDS
    python -m DEMISTCore.train finetune --data BIDS --out runs/mine

Any setting can be given as key=value, for example: max_minutes=40 batch=4 model.streams.tokens=32 seed=1
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from .arguments import add_words
from .cli import EXIT_BAD_INPUT, run, set_up_logging
from .training.stages import STAGES


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m DEMISTCore.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ",".join([*STAGES, "check", "finetune", "calibrate", "export"])
    commands = top.add_subparsers(dest="stage", required=True, metavar="{" + names + "}")
    for kind in STAGES.values():
        p = commands.add_parser(
            kind.name,
            help=kind.help,
            description=kind.help[0].upper() + kind.help[1:] + ".",
            epilog="Settings are given as key=value, for example max_minutes=40 batch=4; --list-keys shows them all.",
        )
        p.add_argument("--out", type=Path, metavar="RUN", help="run folder: all that comes of it")
        p.add_argument("--data", metavar="BIDS", help="BIDS data set with T1w, FLAIR and, in derivatives, PSR maps")
        p.add_argument(
            "--config", metavar="NAME|FILE", help="preset small (default), tiny, brats or brain_ldm, or a YAML file"
        )
        p.add_argument("--resume", action="store_true", help="go on from the run's newest checkpoint")
        p.add_argument("--init", metavar="BUNDLE|RUN", help="start from these weights: fine-tuning" + kind.init_help)
        if kind.foundation:
            p.add_argument(
                "--foundation",
                metavar="BUNDLE|RUN",
                help=f"what this stage builds on: the {kind.foundation} run, or a foundation bundle",
            )
        for source in kind.sources:
            p.add_argument(f"--{source.name}", metavar=source.metavar, help=source.help)
        p.add_argument("--list-keys", action="store_true", help="print every setting with its value, and stop")
        add_words(p, quiet=False)
        p.usage = p.format_usage().removeprefix("usage: ").rstrip() + " [key=value ...]"
    _add_own_maps(commands)
    p = commands.add_parser(
        "calibrate",
        help="measure a bundle's errors on new subjects and store its error bars",
        description="Measure the errors of a bundle's mean on subjects that it was not trained "
        "on, and write the bundle with calibrated error bars to OUT.",
    )
    p.add_argument("bundle", metavar="BUNDLE", help="a demist bundle with a mean network")
    p.add_argument(
        "--data",
        nargs="+",
        required=True,
        metavar="BIDS",
        help="data sets with PSR to calibrate on; with "
        "simulated ones of another physics the error bars hold beyond one simulator",
    )
    p.add_argument("--check", nargs="*", default=[], metavar="BIDS", help="further data sets: do the intervals hold?")
    p.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="the calibrated bundle")
    p.add_argument("--trained-on", metavar="CACHE", help="cache folder of the training, whose scans say what is usual")
    p.add_argument("--cache", type=Path, metavar="FOLDER", help="where prepared scans are kept (default: beside OUT)")
    p.add_argument("--prepared", action="store_true", help="the scans are registered and without skull already")
    p.add_argument("--workers", type=int, default=1, metavar="N", help="processes that prepare scans")
    add_words(p, quiet=False)
    p = commands.add_parser(
        "export",
        help="write bundles from finished runs",
        description="Write the foundation bundle (from a backbone run) and the DEMIST bundle "
        "(from a demist run) to OUT; with both, the foundation goes to OUT-base.",
    )
    p.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="backbone run, demist run, or both")
    p.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="bundle folder; its name is the bundle's")
    p.add_argument("--base", metavar="BUNDLE", help="the foundation bundle that a demist run alone builds on")
    p.add_argument("--weights", choices=("ema", "best"), default="ema", help="averaged weights: last or best validated")
    p.add_argument("--storage", choices=("fp16", "bf16", "fp32"), default="fp16", help="number format of the weights")
    p.add_argument("--card", type=Path, metavar="FILE", help="model card (Markdown) to put in the bundle")
    p.add_argument("--description", default="", metavar="TEXT", help="one sentence for the bundle's description")
    p.add_argument(
        "--sampling",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="recommended sampling: sampler, steps, seeds, eta, spacing, guidance",
    )
    p.add_argument("--measured", action="store_true", help="trained on measured, not on simulated PSR")
    p.add_argument("--licence", default="Apache-2.0", help="licence of the weights (default: %(default)s)")
    p.add_argument("--overwrite", action="store_true", help="replace bundles that exist")
    add_words(p, quiet=False)
    return top


def _add_own_maps(commands: argparse._SubParsersAction) -> None:
    """The two commands for a lab with maps of its own."""
    settings = "Settings of the training are given as key=value, for example exclude_subjects=[sub-07] workers=4."
    p = commands.add_parser(
        "check",
        help="look at a data set before training: files, units, coverage, registration",
        epilog=settings,
        description="Look at every session of a data set with PSR maps, say what "
        "would spoil a model, and write a page with pictures.",
    )
    p.add_argument("--data", required=True, metavar="BIDS", help="BIDS data set with T1w, FLAIR and PSR maps")
    p.add_argument(
        "--out",
        type=Path,
        default=Path("runs/check"),
        metavar="DIR",
        help="folder of check.html and check.json (default: %(default)s)",
    )
    add_words(p, quiet=False)
    p.usage = p.format_usage().removeprefix("usage: ").rstrip() + " [key=value ...]"
    p = commands.add_parser(
        "finetune",
        help="teach a bundle your scanner, from a data set to a new bundle",
        epilog=settings,
        description="Check a data set with PSR maps, fit a bundle to it, judge it "
        "on people held out, and write the new bundle with its card to OUT/bundle.",
    )
    p.add_argument("--data", required=True, metavar="BIDS", help="BIDS data set with T1w, FLAIR and PSR maps")
    p.add_argument("--out", required=True, type=Path, metavar="DIR", help="new folder; its name is the new bundle's")
    p.add_argument("--init", default="demist-sim", metavar="BUNDLE", help="where to begin (default: %(default)s)")
    p.add_argument(
        "--level",
        choices=("scale", "streams", "decoder"),
        default="streams",
        help="minutes: one factor, and error bars; the networks; the PSR decoder too (default: %(default)s)",
    )
    p.add_argument("--licence", default="Apache-2.0", help="licence of the weights (default: %(default)s)")
    p.add_argument("--simulated", action="store_true", help="the maps are simulated, not measured")
    p.add_argument("--salt", metavar="TEXT", help="for the hashes by which the card lists people (default: drawn)")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")
    add_words(p, quiet=False)
    p.usage = p.format_usage().removeprefix("usage: ").rstrip() + " [key=value ...]"


def _check(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    from .training.check import PAGE, check, summary
    from .training.finetune import AS_SYNTHESIS
    from .training.settings import resolve

    settings = resolve("demist", None, [*AS_SYNTHESIS, *overrides])
    cache = Path(settings.cache) if settings.cache else args.out.parent / "cache"
    report = check(args.data, settings, cache, args.out)
    print(summary(report))
    print(f"Page: {args.out / PAGE}")
    return EXIT_BAD_INPUT if report.all_errors else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and hand over."""
    top = parser()
    args, overrides = top.parse_known_args(argv)
    unknown = [word for word in overrides if word.startswith("-") or args.stage in ("export", "calibrate")]
    if unknown:
        top.error(f"unrecognized arguments: {' '.join(unknown)}")
    set_up_logging(args.verbose)
    if args.stage == "export":
        from .training.export import export

        export(
            args.runs,
            args.out,
            base=args.base,
            weights=args.weights,
            storage=args.storage,
            card=args.card,
            description=args.description,
            licence=args.licence,
            simulated=not args.measured,
            sampling=args.sampling,
            overwrite=args.overwrite,
        )
        return 0
    if args.stage == "calibrate":
        from .training.calibrate import PATIENT, calibrate
        from .training.groups import PreprocessSettings

        ready = PreprocessSettings(bias_correct=False, skull_strip="none", brain_mask="none")
        report = calibrate(
            args.bundle,
            args.data,
            args.out,
            trained_on=args.trained_on,
            check=args.check,
            cache=args.cache,
            preprocess=ready if args.prepared else PATIENT,
            workers=args.workers,
        )
        if report:
            import json

            print(json.dumps(report, indent=1))
        return 0
    if args.stage == "check":
        return _check(args, overrides)
    if args.stage == "finetune":
        from .training.finetune import finetune

        finetune(
            args.data,
            args.out,
            init=args.init,
            level=args.level,
            overrides=overrides,
            licence=args.licence,
            measured=not args.simulated,
            salt=args.salt,
            device=args.device,
        )
        return 0
    if args.list_keys:
        import yaml

        from .training.settings import resolve, to_dict

        print(yaml.safe_dump(to_dict(resolve(args.stage, args.config, overrides)), sort_keys=False))
        return 0
    if args.out is None:
        top.error("the following arguments are required: --out")
    from .training.start import start

    return start(
        args.stage,
        out=args.out,
        data=args.data,
        config=args.config,
        overrides=overrides,
        resume=args.resume,
        init=args.init,
        foundation=getattr(args, "foundation", None),
        backbone=getattr(args, "backbone", None),
        mean=getattr(args, "mean", None),
    )


if __name__ == "__main__":
    raise SystemExit(run(main))
