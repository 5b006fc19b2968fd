"""Synthesize a PSR map from T1w and FLAIR: ``python -m DEMISTCore.synthesize --t1w A --flair B --out psr.nii.gz``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from .arguments import add_device, add_preparation, add_sampling, add_words, preparation
from .cli import Bar, hushed, run, set_up_logging, terminate_cleanly
from .errors import InputError

_EXAMPLES = """\
examples:
  python -m DEMISTCore.synthesize --t1w t1w.nii.gz --flair flair.nii.gz --out psr.nii.gz
  python -m DEMISTCore.synthesize --t1w t1w.nii.gz --flair flair.nii.gz --out psr.nii.gz \\
      --seeds 8 --uncertainty --preview psr.png

Beside psr.nii.gz goes psr.json: inputs, bundle, seeds, settings, times. The map is a fraction (white matter about
0.12), on the grid of the T1w. It is a research estimate, not a measurement, and not for clinical use.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m DEMISTCore.synthesize",
        description="Synthesize a myelin-sensitive pool size ratio (PSR) map from a T1w and a FLAIR image.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    images = p.add_argument_group("images")
    images.add_argument("--t1w", required=True, metavar="FILE", help="T1-weighted image; the result lies on its grid")
    images.add_argument("--flair", required=True, metavar="FILE", help="FLAIR image of the same session, on any grid")
    images.add_argument("--brain-mask", metavar="FILE", help="brain mask to use instead of brain extraction")
    images.add_argument("--out", required=True, metavar="FILE", help="PSR map to write (.nii.gz, .nrrd, ...)")
    images.add_argument(
        "--uncertainty",
        nargs="?",
        const=True,
        default=False,
        metavar="FILE",
        help="write the standard deviation too, to FILE or beside --out",
    )
    images.add_argument("--samples", action="store_true", help="write the map of every seed too, beside --out")
    images.add_argument("--preview", metavar="FILE", help="draw a picture of the result (.png)")
    images.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    model = p.add_argument_group("model (defaults are the bundle's recommendations)")
    model.add_argument("--bundle", metavar="NAME", default=None, help="name, folder or Hugging Face id of the model")
    add_sampling(model)
    model.add_argument(
        "--guidance",
        type=_weights,
        metavar="STREAM=W,...",
        help="weight by stream (semantic, spatial, adaptive or all): 1 plain, 0 off, above 1 stronger",
    )
    add_device(model)
    add_preparation(p.add_argument_group("preparation"))
    add_words(p)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, call, report."""
    args = parser().parse_args(argv)
    set_up_logging(args.verbose)
    terminate_cleanly()
    from .bundle import DEFAULT_BUNDLE
    from .synthesis import synthesize

    # The bar shows the stages, the report below sums up.
    with hushed(args.verbose), Bar(hidden=args.quiet) as bar:
        result = synthesize(
            args.t1w,
            args.flair,
            out=args.out,
            bundle=args.bundle or DEFAULT_BUNDLE,
            seeds=args.seeds,
            steps=args.steps,
            sampler=args.sampler,
            guidance=args.guidance,
            mode=args.mode,
            device=args.device,
            precision=args.precision,
            brain_mask=args.brain_mask,
            **preparation(args),
            uncertainty=args.uncertainty,
            write_samples=args.samples,
            preview=args.preview,
            overwrite=args.overwrite,
            progress=bar,
        )
    if not args.quiet:
        print(report(result))
    return 0


def report(result: Any) -> str:
    """What a person wants to know after a run."""
    told = result.provenance
    timings = dict(told["timings_s"])
    total = timings.pop("total")
    lines = [f"{'stage':<16}{'seconds':>8}", *(f"{name:<16}{seconds:>8.1f}" for name, seconds in timings.items())]
    lines += [f"{'total':<16}{total:>8.1f}", f"{'peak memory':<16}{told['peak_memory_mb'] / 1024:>7.1f}  GiB", ""]
    summary, settings = told["summary"], told["settings"]
    how = f"{len(settings['seeds'])} seeds, {settings['steps']} steps of {settings['sampler']}"
    if settings["mode"] == "mean":
        how = "mean"
    lines.append(
        f"PSR: median {summary['psr_median']:.3f} in {summary['brain_volume_ml']:.0f} ml of brain "
        f"({how}, {settings['device']})"
    )
    lines += [f"warning: {sentence}" for sentence in told["warnings"]]
    lines += [f"{kind + ':':<13}{path}" for kind, path in result.files.items()]
    lines.append(told["statement"])
    return "\n".join(lines)


def _weights(text: str) -> dict[str, float]:
    try:
        pairs = (word.split("=") for word in text.split(","))
        return {name.strip(): float(weight) for name, weight in pairs}
    except ValueError:
        raise InputError(f"--guidance takes weights as in spatial=1.5,semantic=0, not {text!r}.") from None


class _CallableModule(ModuleType):
    """``import DEMISTCore.synthesize`` puts this module in the place of the function: so it does what that does."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        from .synthesis import synthesize

        return synthesize(*args, **options)


sys.modules[__name__].__class__ = _CallableModule

if __name__ == "__main__":
    raise SystemExit(run(main))
