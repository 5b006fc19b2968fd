"""The main job on an embedded simulated patient: ``python -m DEMISTCore.demo``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..arguments import add_device, add_words
from ..cli import Bar, hushed, run, set_up_logging

_DESCRIPTION = """\
Simulate a patient (T1w and FLAIR with skull, bias fields, thick slices, movement), synthesize the PSR map with default
settings, and compare it with the known truth: maps, a picture (demo.png) and numbers; then measure it as an MS group
would (folder statistics): table by region and lesion, ROC curves of lesions against normal-appearing white matter.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m DEMISTCore.demo", description=_DESCRIPTION)
    p.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="folder to write (default: demo)")
    p.add_argument(
        "--mode",
        choices=("mean", "sample"),
        help="the map with the lowest error, or samples (default: the bundle's recommendation)",
    )
    p.add_argument("--seeds", type=int, metavar="N", help="samples to average (default: the bundle's recommendation)")
    p.add_argument("--steps", type=int, metavar="N", help="sampling steps (default: the bundle's)")
    p.add_argument("--bundle", metavar="NAME", help="name, folder or Hugging Face id (default: demist-sim)")
    add_device(p)
    p.add_argument("--overwrite", action="store_true", help="replace an earlier demo in the folder")
    add_words(p, quiet=False)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, call, report."""
    args = parser().parse_args(argv)
    set_up_logging(args.verbose)
    from . import demonstrate

    with hushed(args.verbose), Bar() as bar:
        demonstration = demonstrate(
            args.out,
            mode=args.mode,
            seeds=args.seeds,
            steps=args.steps,
            bundle=args.bundle,
            device=args.device,
            precision=args.precision,
            overwrite=args.overwrite,
            progress=bar,
        )
    print(table(demonstration))
    return 0


def table(demonstration: Any) -> str:
    """The numbers of a :class:`.Demonstration` as a compact text."""
    from . import STATISTICS, how_made

    numbers, out = demonstration.numbers, demonstration.out
    brain = numbers["brain"]
    lines = [
        f"{'median PSR':<22}{'true':>8}{'synth.':>8}{'bias':>8}{'ml':>8}",
        *(
            f"{row['region']:<22}{row['true_median']:>8.3f}{row['synthesized_median']:>8.3f}"
            f"{row['synthesized_median'] - row['true_median']:>+8.3f}{row['volume_ml']:>8.0f}"
            for row in numbers["regions"]
        ),
        "",
        f"In the brain ({how_made(numbers)}): PSNR {brain['psnr']:.1f} dB, SSIM {brain['ssim']:.3f}, "
        f"mean absolute error {brain['mae']:.4f}, sharpness {brain['sharpness']:.2f}",
    ]
    contrast = numbers["lesions_against_normal_white_matter"]
    if contrast["true"]:
        lines += [
            f"Lesions have {contrast['synthesized']['loss_percent']:.0f} % less PSR than white matter far from them "
            f"(truth: {contrast['true']['loss_percent']:.0f} %)",
            f"Lesions against that white matter: area under the ROC curve {numbers['lesion_auc']['synthesized']:.3f} "
            f"(truth: {numbers['lesion_auc']['true']:.3f})",
        ]
    curves = numbers["measured"]["auc"]
    for key, name in (("nawm_proximal", "near"), ("nawm_distal", "far")):
        if curve := curves.get(key, {}).get("voxel"):
            lines.append(
                f"Measured as for a patient, lesions against normal-appearing white matter {name}: area "
                f"{curve['auc']:.3f} ({curve['ci'][0]:.3f} to {curve['ci'][1]:.3f})"
            )
    if "uncertainty" in numbers:
        told = numbers["uncertainty"]
        held = "".join(
            f", truth inside the {level} % interval in {told[f'coverage_{level}']:.0%} of the brain"
            for level in (90, 95)
            if f"coverage_{level}" in told
        )
        lines.append(
            f"Uncertainty ({told['kind']}):\nrank correlation with the error {told['rank_correlation']:.2f}{held}"
        )
    stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in numbers["timings_s"].items() if seconds >= 0.05)
    lines += [
        f"Seconds: {stages}",
        f"Synthesis: {numbers['synthesize_s']:.0f} s in all; peak memory {numbers['peak_memory_mb'] / 1024:.1f} GiB",
        "",
        f"Look at {out / 'demo.png'}, {out / 'psr.nii.gz'}, {out / 'true_psr.nii.gz'} and the pictures and tables in "
        f"{out / STATISTICS}.",
        numbers["statement"],
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(run(main))
