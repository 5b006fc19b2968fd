"""Evaluate: ``python -m DEMISTCore.evaluate --data BIDS --out DIR``, or one real patient with ``--t1w``.

With --data, subjects whose PSR is known: DEMIST beside population tissue means, the subject's own means (an oracle), a
linear model of ten local features, the T1w/FLAIR ratio and a regression network; where the error comes from, what each
input and stream is worth, whether error bars hold; tables (CSV, Markdown) and figures. A stopped evaluation goes on
with the same command.

`cv` is the whole experiment, from training in every fold to significance; `pair` compares measured and synthesized
maps that are there already: `python -m DEMISTCore.evaluate cv --help`, `... pair --help`.

With --t1w, --flair and --lesions, one real patient without measured PSR: median PSR by tissue, and how well lesions
stand out from distant white matter, beside the T1w and the FLAIR themselves and the linear model.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .arguments import add_device, add_words
from .cli import Bar, hushed, run, set_up_logging
from .errors import InputError

_EXAMPLES = """\
examples:
  python -m DEMISTCore.evaluate --data test --shifted shifted --out results --lookup-from train --knock-outs
  python -m DEMISTCore.evaluate --t1w t1w.nii.gz --flair flair.nii.gz --lesions lesions.nii.gz --out patient \\
      --linear results/linear.npz
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m DEMISTCore.evaluate",
        description=__doc__.partition("\n\n")[2],
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the results")
    cohort = p.add_argument_group("subjects with known PSR")
    cohort.add_argument("--data", metavar="BIDS", help="data set with derivatives/truth, as the simulator writes it")
    cohort.add_argument("--shifted", metavar="BIDS", help="a second data set, of another physics, beside the first")
    cohort.add_argument("--regression", metavar="RUN", help="training run of the regression network")
    cohort.add_argument(
        "--baselines",
        "--rivals",  # as it was called
        nargs="+",
        default=[],
        metavar="RUN",
        help="training runs of further baselines: vae, pix2pix, ldm, cwdm",
    )
    cohort.add_argument("--ablations", action="store_true", help="also switch each stream off")
    cohort.add_argument(
        "--knock-outs",
        action="store_true",
        help="that, and each input flat and a wrong protocol, with confidence intervals",
    )
    cohort.add_argument(
        "--prepared", type=Path, metavar="DIR", help="keeps prepared scans for other evaluations (default: in --out)"
    )
    cohort.add_argument("--compare", nargs="+", default=[], metavar="NAME=BUNDLE", help="more bundles, one seed each")
    cohort.add_argument("--subjects", type=int, metavar="N", help="only the first N subjects")
    cohort.add_argument(
        "--preprocess",
        default="masked",
        metavar="MODE",
        help="simulated: true brain mask, no registration, no N4; masked: true brain mask; full: as "
        "synthesize (default: %(default)s)",
    )
    cohort.add_argument("--bids-filter", metavar="FILE", help="JSON file that says which images are meant")
    cohort.add_argument(
        "--already-aligned",
        action="store_true",
        default=None,
        help="measured maps lie on the T1w: do not register them",
    )
    cohort.add_argument(
        "--grid",
        default="truth",
        metavar="truth|model",
        help="where maps are compared (default: the %(default)s's own grid)",
    )
    baselines = p.add_argument_group("baselines that need a training set")
    baselines.add_argument(
        "--lookup-from",
        metavar="BIDS",
        help="training set: population's tissue means (default: the other subjects of --data), linear "
        "model and T1w/FLAIR ratio, kept in linear.npz of --out",
    )
    baselines.add_argument(
        "--linear", metavar="FILE", help="linear.npz of an earlier evaluation, or the cache of a training to fit on"
    )
    patient = p.add_argument_group("one real patient")
    patient.add_argument("--t1w", metavar="FILE", help="T1-weighted image")
    patient.add_argument("--flair", metavar="FILE", help="FLAIR image")
    patient.add_argument("--lesions", metavar="FILE", help="lesion mask in the T1w's space")
    patient.add_argument("--brain-mask", metavar="FILE", help="brain mask instead of brain extraction")
    patient.add_argument("--overwrite", action="store_true", help="replace the patient's results")
    model = p.add_argument_group("model")
    model.add_argument("--bundle", metavar="NAME", help="name, folder or Hugging Face id (default: demist-sim)")
    model.add_argument("--seeds", type=int, default=4, metavar="N", help="samples to average (default: %(default)s)")
    model.add_argument("--steps", type=int, metavar="N", help="sampling steps (default: the bundle's)")
    model.add_argument("--sampler", metavar="NAME", help="name of a sampler, such as ddim (default: the bundle's)")
    add_device(model)
    add_words(p, quiet=False)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, call, report; ``cv`` and ``pair`` are command lines of their own."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] in (["cv"], ["pair"]):
        from importlib import import_module

        return int(import_module(f".evaluate_{words[0]}", __package__).main(words[1:]))
    args = parser().parse_args(words)
    images = [args.t1w, args.flair, args.lesions]
    if bool(args.data) == any(images):
        raise InputError("Give either --data, or --t1w, --flair and --lesions.")
    if any(images) and not all(images):
        raise InputError("One patient takes three images: --t1w, --flair and --lesions.")
    set_up_logging(args.verbose)
    sampling = {"steps": args.steps, "sampler": args.sampler, "device": args.device, "precision": args.precision}
    with hushed(args.verbose):
        return _cohort(args, sampling) if args.data else _patient(args, sampling)


def _cohort(args: argparse.Namespace, sampling: dict) -> int:
    from .evaluation import evaluate

    compare = {}
    for word in args.compare:
        name, equals, source = word.partition("=")
        if not (name and equals and source):
            raise InputError(f"--compare takes NAME=BUNDLE, not {word!r}.")
        if name in compare:
            raise InputError(f"--compare names {name!r} twice; give each bundle a name of its own.")
        compare[name] = source
    out = evaluate(
        args.data,
        args.out,
        shifted=args.shifted,
        bundle=args.bundle,
        regression_from=args.regression,
        baselines=args.baselines,
        compare=compare,
        seeds=args.seeds,
        ablations=args.ablations,
        knock_outs=args.knock_outs,
        subjects=args.subjects,
        lookup_from=args.lookup_from,
        linear=args.linear,
        prepared=args.prepared,
        preprocess=args.preprocess,
        grid=args.grid,
        bids_filter=args.bids_filter,
        already_aligned=args.already_aligned,
        **sampling,
    )
    print((out / "summary.md").read_text(encoding="utf-8"))
    return 0


def _patient(args: argparse.Namespace, sampling: dict) -> int:
    from .evaluation.patient import evaluate_patient, report

    with Bar() as bar:
        described = evaluate_patient(
            args.t1w,
            args.flair,
            args.lesions,
            args.out,
            bundle=args.bundle,
            seeds=args.seeds,
            brain_mask=args.brain_mask,
            linear=args.linear,
            lookup_from=args.lookup_from,
            preprocess=args.preprocess,
            overwrite=args.overwrite,
            progress=bar,
            **sampling,
        )
    print(report(described))
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
