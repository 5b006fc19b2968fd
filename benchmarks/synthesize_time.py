"""How long a default synthesis takes, by stage, and how much memory: ``python benchmarks/synthesize_time.py``.

Each repetition is a fresh process that runs the command line as a user would, imports included. Without --t1w and
--flair the demo's simulated patient is scanned (a 1 mm head with skull and a thick-slice FLAIR).

With --sweep, samplers and numbers of steps are compared in one process, on one prepared pair, interleaved, so that a
busy machine disturbs all of them alike; times are ratios to the bundle's default. For the simulated patient the PSNR of
one seed stands beside them. A bundle with a mean network has a row for the mean, too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

SWEEP = (
    ("dpmpp_2m", 4),
    ("dpmpp_2m", 6),
    ("dpmpp_2m", 8),
    ("dpmpp_2m", 10),
    ("dpmpp_2m", 15),
    ("dpmpp_2m", 20),
    ("ddim", 10),
    ("ddim", 20),
    ("ddpm", 20),
    ("ddpm", 50),
)
#: Stands in the place of sampler and steps.
MEAN = ("mean", 0)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--t1w", type=Path, help="T1w instead of the simulated patient's")
    p.add_argument("--flair", type=Path, help="FLAIR instead of the simulated patient's")
    p.add_argument("--brain-mask", type=Path, help="brain mask instead of brain extraction")
    p.add_argument("--bundle", default="demist-sim", help="model (default: %(default)s)")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: %(default)s)")
    p.add_argument("--mode", choices=("mean", "sample"), help="mean or samples (default: the bundle's recommendation)")
    p.add_argument("--seeds", help="samples (default: the bundle's recommendation)")
    p.add_argument("--repeat", type=int, default=3, help="fresh processes (default: %(default)s)")
    p.add_argument("--sweep", action="store_true", help="compare samplers and numbers of steps instead")
    p.add_argument("--out", type=Path, help="also write the numbers as JSON")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print a Markdown table."""
    args = parser().parse_args(argv)
    if bool(args.t1w) != bool(args.flair):
        parser().error("give both --t1w and --flair, or neither")
    with tempfile.TemporaryDirectory(prefix="demist-benchmark-") as folder:
        patient = None
        if args.t1w is None:
            patient = simulate(Path(folder))
            args.t1w, args.flair = Path(folder) / "t1w.nii.gz", Path(folder) / "flair.nii.gz"
        numbers = sweep(args, patient) if args.sweep else fresh_processes(args, Path(folder))
    numbers["machine"] = {"platform": platform.platform(), "cpus": os.cpu_count(), "python": platform.python_version()}
    if args.out:
        args.out.write_text(json.dumps(numbers, indent=2) + "\n")
    return 0


def simulate(folder: Path):
    """Write the demo's patient; returned with its truth."""
    from DEMISTCore.demo import simulate_patient

    patient = simulate_patient()
    patient.t1w.write(folder / "t1w.nii.gz")
    patient.flair.write(folder / "flair.nii.gz")
    return patient


def fresh_processes(args: argparse.Namespace, folder: Path) -> dict:
    """Wall time by stage and peak memory of whole processes."""
    runs = []
    for i in range(args.repeat):
        out = folder / f"psr-{i}.nii.gz"
        command = [
            sys.executable,
            "-m",
            "DEMISTCore.synthesize",
            "--t1w",
            str(args.t1w),
            "--flair",
            str(args.flair),
            "--out",
            str(out),
            "--bundle",
            args.bundle,
            "--device",
            args.device,
            "--quiet",
        ]
        command += ["--mode", args.mode] if args.mode else []
        command += ["--seeds", args.seeds] if args.seeds else []
        command += ["--brain-mask", str(args.brain_mask)] if args.brain_mask else []
        start = time.perf_counter()
        peak = run_and_watch(command)
        wall = time.perf_counter() - start
        sidecar = json.loads(out.with_name(f"psr-{i}.json").read_text())
        runs.append({"process": wall, "peak_gib": peak, **sidecar["timings_s"]})
    stages = [name for name in runs[0] if name != "peak_gib"]
    settings = sidecar["settings"]
    plan = f"{len(settings['seeds'])} seeds, {settings['steps']} steps of {settings['sampler']}"
    if settings["mode"] == "mean":
        plan = "mean"
    print(f"{plan}, {settings['precision']}, {settings['device']}; {args.repeat} fresh processes\n")
    print("| stage | median s | fastest s |\n|---|---|---|")
    for name in stages:
        values = [run.get(name, 0.0) for run in runs]
        label = {"total": "all of synthesize", "process": "whole process, imports included"}.get(name, name)
        print(f"| {label} | {statistics.median(values):.1f} | {min(values):.1f} |")
    print(f"\npeak memory {max(run['peak_gib'] for run in runs):.2f} GiB")
    return {"settings": settings, "runs": runs}


def run_and_watch(command: list[str]) -> float:
    """Run a command; its peak resident memory in GiB (0 where the system does not tell)."""
    process = subprocess.Popen(command)
    if not hasattr(os, "wait4"):
        process.wait()
        peak, status = 0.0, process.returncode
    else:
        _, code, usage = os.wait4(process.pid, 0)
        status = os.waitstatus_to_exitcode(code)
        process.returncode = status
        peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30
    if status:
        raise SystemExit(f"{' '.join(command)} ended with exit code {status}")
    return peak


def sweep(args: argparse.Namespace, patient) -> dict:
    """Time of sampling and decoding one seed by sampler and steps, relative to the default; PSNR with a truth."""
    import numpy as np

    from DEMISTCore import metrics
    from DEMISTCore.bundle import load_bundle
    from DEMISTCore.devices import pick_device
    from DEMISTCore.preprocess import prepare
    from DEMISTCore.synthesis import generate

    bundle, device = load_bundle(args.bundle), pick_device(args.device)
    prepared = prepare(
        args.t1w, args.flair, brain_mask=args.brain_mask, spacing=bundle.spacing, multiple=bundle.config.multiple
    )
    default = (bundle.sampling["sampler"], bundle.sampling["steps"])
    settings = [default, *(s for s in SWEEP if s != default), *([MEAN] if bundle.config.mean is not None else [])]
    seconds: dict[tuple[str, int], list[float]] = {s: [] for s in settings}
    maps: dict[tuple[str, int], np.ndarray] = {}
    for repetition in range(args.repeat):
        for sampler, steps in settings:
            timings: dict[str, float] = {}
            how = {"mode": "mean"} if (sampler, steps) == MEAN else {"seeds": [0], "sampler": sampler, "steps": steps}
            samples = generate(bundle, prepared.array, prepared.mask.array, **how, device=device, timings=timings)
            maps[sampler, steps] = next(iter(samples))
            seconds[sampler, steps].append(sum(timings.get(name, 0.0) for name in ("sample", "decode", "mean")))
            print(f"\r{repetition + 1}/{args.repeat} {sampler} {steps}    ", end="", file=sys.stderr)
    print(file=sys.stderr)
    base = np.array(seconds[default])
    rows = []
    print(f"default {default[0]}, {default[1]} steps: {np.median(base):.1f} s for one seed (sampling and decoding)\n")
    print("| sampler | steps | time, default = 1 | PSNR of one seed (dB) |\n|---|---|---|---|")
    for sampler, steps in settings:
        ratio = float(np.median(np.array(seconds[sampler, steps]) / base))
        psnr = None
        if patient is not None:
            found = prepared.to_native(maps[sampler, steps]).array
            psnr = metrics.psnr(found, patient.psr.array, patient.brain.array)
        rows.append({"sampler": sampler, "steps": steps, "time_ratio": ratio, "psnr": psnr})
        print(f"| {sampler} | {steps} | {ratio:.2f} | {'' if psnr is None else f'{psnr:.2f}'} |")
    return {"default": list(default), "rows": rows}


if __name__ == "__main__":
    raise SystemExit(main())
