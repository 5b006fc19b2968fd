"""Synthetic T1w brains by Brain LDM: ``python -m DEMISTCore.brain_ldm {sample,info,convert} ...``.

    python -m DEMISTCore.brain_ldm sample --model FOLDER --age 0.6 --sex 1 --out t1w.nii.gz --preview t1w.png
    python -m DEMISTCore.brain_ldm sample --model FOLDER --conditions people.csv --out-dir brains
    python -m DEMISTCore.brain_ldm info FOLDER
    python -m DEMISTCore.brain_ldm convert FOLDER OUT

The four conditions are numbers from 0 to 1; 0.5 is neutral.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..cli import run, set_up_logging
from ..errors import InputError
from ..guards import protect_files

PUBLISHED = "MONAI/brain_image_synthesis_latent_diffusion_model"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m DEMISTCore.brain_ldm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="{sample,info,convert}")
    p = commands.add_parser("sample", help="make synthetic brains", description="Make one synthetic brain, or many.")
    p.add_argument("--model", default=PUBLISHED, metavar="FOLDER|ID", help="folder or Hugging Face id (%(default)s)")
    p.add_argument("--vae", metavar="FOLDER", help="folder of the VAE, where the model is published without one")
    p.add_argument("--out", type=Path, metavar="FILE", help="T1w to write (NIfTI, NRRD, ...); a JSON goes beside it")
    p.add_argument("--preview", type=Path, metavar="PNG", help="picture of three slices")
    who = p.add_argument_group("who")
    for option, text in (
        ("--age", "youngest to oldest"),
        ("--sex", "0 female, 1 male"),
        ("--ventricular-volume", "smallest to largest"),
        ("--brain-volume", "smallest to largest for the head"),
    ):
        check = partial(_unit, option)
        who.add_argument(option, type=check, default=0.5, metavar="0..1", help=f"{text} (%(default)s)")
    many = p.add_argument_group("many")
    many.add_argument("--conditions", type=Path, metavar="CSV", help="table of brains: name, conditions, seed")
    many.add_argument("--out-dir", type=Path, metavar="FOLDER", help="where a cohort goes; one that stopped goes on")
    how = p.add_argument_group("how")
    how.add_argument("--seed", type=_whole, default=0, metavar="N", help="the same on every device (%(default)s)")
    how.add_argument("--steps", type=_whole, default=50, metavar="N", help="of DDIM (%(default)s)")
    how.add_argument("--eta", type=float, default=0.0, help="0 deterministic, 1 as noisy as can be (%(default)s)")
    how.add_argument(
        "--shape",
        type=_whole,
        nargs=3,
        default=(160, 224, 160),
        metavar=("X", "Y", "Z"),
        help="voxels of 1 mm, multiples of 8 (160 224 160)",
    )
    how.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (%(default)s)")
    how.add_argument("--overwrite", action="store_true", help="replace files that are there")
    how.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    p = commands.add_parser("info", help="say what a folder holds", description="Say what a folder holds.")
    p.add_argument("source", metavar="FOLDER|ID")
    p = commands.add_parser(
        "convert",
        help="write a published model in our form",
        description="Write a published model as safetensors with hashes, the U-Net as a delta over "
        "its VAE, which goes to OUT-vae.",
    )
    p.add_argument("source", metavar="FOLDER|ID")
    p.add_argument("out", type=Path, metavar="OUT")
    p.add_argument("--base", type=Path, metavar="FOLDER", help="bundle of the VAE, if it is there already")
    p.add_argument("--storage", choices=("fp32", "bf16", "fp16"), default="fp32", help="number format of the weights")
    p.add_argument("--overwrite", action="store_true", help="replace bundles that are there")
    top.epilog = "\n".join(p.format_usage().strip() for p in commands.choices.values())
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, call, report."""
    args = parser().parse_args(argv)
    set_up_logging()
    if args.command == "sample":
        return _sample(args)
    from ..published.tools import convert, inspect

    if args.command == "info":
        print(inspect(args.source))
        return 0
    for folder in convert(args.source, args.out, base=args.base, storage=args.storage, overwrite=args.overwrite):
        print(folder)
    return 0


def _sample(args: argparse.Namespace) -> int:
    if bool(args.conditions) == bool(args.out) or bool(args.conditions) != bool(args.out_dir):
        raise InputError("Say what to make: --out FILE for one brain, or --conditions CSV with --out-dir FOLDER.")
    from .samples import Request, SampleSettings, cohort_outputs, outputs, read_requests, write_cohort, write_sample

    requests = read_requests(args.conditions) if args.conditions else []  # before the model: it fails quickly
    files = outputs(args.out, args.preview) if args.out else cohort_outputs(requests, args.out_dir)
    protect_files(files, (args.model, args.vae, args.conditions))
    from tqdm import tqdm

    from .model import WARNING, BrainLDM

    settings = SampleSettings(args.steps, args.eta, tuple(args.shape))
    model = BrainLDM.from_pretrained(args.model, vae=args.vae, device=args.device)
    total = args.steps * max(len(requests), 1)
    with tqdm(total=total, unit="step", disable=args.quiet or None, file=sys.stderr, leave=False) as bar:
        if args.conditions:
            place = {request.name: i for i, request in enumerate(requests)}

            def told(request: Request, done: int, steps: int) -> None:
                bar.set_postfix_str(f"{request.name}, {place[request.name] + 1} of {len(place)}", refresh=False)
                bar.update(place[request.name] * steps + done - bar.n)

            paths = write_cohort(model, requests, args.out_dir, settings, overwrite=args.overwrite, progress=told)
        else:
            request = Request("brain", args.age, args.sex, args.ventricular_volume, args.brain_volume, args.seed)
            write_sample(
                model,
                request,
                args.out,
                settings,
                preview=args.preview,
                overwrite=args.overwrite,
                progress=lambda *_: bar.update(),
            )
            paths = [args.out]
    if not args.quiet:
        print("\n".join(map(str, paths)))
        print(WARNING)
    return 0


def _unit(option: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise InputError(f"{option}: {text!r} is no condition; conditions are numbers from 0 to 1.")
    return value


def _whole(text: str) -> int:
    if not text.isdigit():
        raise InputError(f"{text!r} is not a whole number of at least 0.")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(run(main))
