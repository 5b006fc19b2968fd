"""The default model from nothing, in one command that goes on where it was stopped: data, training, bundle, figures.

python benchmarks/default_model.py --label-maps DIR --lesion-masks DIR --out runs/default --minutes 60

Data sets are simulated from segmentations of people (FreeSurfer-numbered label maps, as the SynthSeg repository has
them) and lesion masks in MNI space. The last two label maps by name are for testing, the three before them for
validation and calibration, all others and the ICBM template for training; of the lesion masks the last quarter and
those of `--test-masks` are for testing. Trained is on scans as if prepared already, which costs a tenth of the time;
calibrated and tested on scans as a scanner gives them, with everything that preparing them does. `--minutes` is shared
by the three trainings, and the regression gets what the mean gets. The bundles come to OUT/bundles, the evaluation to
OUT/evaluation; neither is put into the package.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

#: As after preparation: no skull, hardly any bias field or movement left.
CONDITIONS = (
    "--no-skull",
    "--bias",
    "0.06",
    "--misregistration",
    "0.4",
    "--thick-slices",
    "0.35",
    "--obliquity",
    "2",
    "--surface-sd",
    "0.3",
)
PREPARED = ("preprocess.bias_correct=false", "preprocess.skull_strip=none", "preprocess.brain_mask=none")
#: Shares of the trainings' time.
SHARES = {"mean": 0.6, "backbone": 0.2, "demist": 0.2}
VALIDATION = 9


@dataclass(frozen=True)
class Cohort:
    """One simulated data set: people, scans of each, seed, and what it is drawn from."""

    name: str
    people: int
    scans: int
    seed: int
    side: str  # "train", "val" or "test": whose label maps
    physics: str = "standard"
    raw: bool = False  # as scanned, skull and all; else as if prepared already


COHORTS = (
    Cohort("val", VALIDATION, 1, 200_000, "val"),
    Cohort("train", 100, 2, 300_000, "train"),
    Cohort("cal", 12, 1, 410_000, "val", raw=True),
    Cohort("cal_shifted", 12, 1, 510_000, "val", "shifted", raw=True),
    Cohort("test", 24, 1, 610_000, "test", raw=True),
    Cohort("test_shifted", 24, 1, 710_000, "test", "shifted", raw=True),
)


def sides(folder: Path) -> dict[str, list[Path]]:
    """Label maps by side; the last two test, the three before them validate: one anatomy alone is no sample."""
    maps = sorted(folder.glob("*.nii.gz"))
    if len(maps) < 6:
        sys.exit(f"{folder} holds {len(maps)} label maps (*.nii.gz); at least 6 are needed.")
    return {"train": maps[:-5], "val": maps[-5:-2], "test": maps[-2:]}


def split_masks(folder: Path, test: list[str]) -> dict[str, list[str]]:
    """Names of the lesion masks by side."""
    names = sorted(path.name for path in folder.glob("*.nii.gz"))
    unknown = [name for name in test if name not in names]
    if unknown or len(names) < 2:
        sys.exit(f"{folder} holds {len(names)} lesion masks (*.nii.gz), and no {', '.join(unknown) or 'second one'}.")
    chosen = {*names[len(names) - max(len(names) // 4, 1) :], *test}
    return {"train": [name for name in names if name not in chosen], "test": sorted(chosen)}


def run(log: Path, *arguments: str | Path) -> None:
    """Run ``python -m DEMISTCore.<arguments>``, its output in ``log`` too; stop with its code where it fails."""
    command = [sys.executable, "-m", f"DEMISTCore.{arguments[0]}", *map(str, arguments[1:])]
    print("+", *command, flush=True)
    began = time.monotonic()
    with log.open("ab") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode
    print(f"  {time.monotonic() - began:.0f} s, exit code {code}, {log}", flush=True)
    if code:
        sys.exit(code)


def simulate(
    cohort: Cohort, out: Path, labels: dict[str, list[Path]], masks: dict[str, list[str]], args: argparse.Namespace
) -> None:
    """One data set; subjects that are there stay."""
    left_out = masks["train" if cohort.side == "test" else "test"]
    anatomies: list[str | Path] = list(labels[cohort.side])
    if cohort.side == "train":
        anatomies += ["icbm152"] * max(len(anatomies) // 5, 1)
    people = max(round(cohort.people * args.people), 2)
    run(
        out / "simulate.log",
        "simulate",
        "--out",
        out / "data" / cohort.name,
        "--subjects",
        str(people),
        "--scans",
        str(cohort.scans),
        "--seed",
        str(cohort.seed),
        "--anatomies",
        *anatomies,
        "--lesion-masks",
        args.lesion_masks,
        "--exclude",
        *left_out,
        "--physics",
        cohort.physics,
        "--workers",
        str(args.workers),
        "--resume",
        *(() if cohort.raw else CONDITIONS),
    )


def join(data: Path) -> list[str]:
    """Training and validation people in one data set of links, the latter numbered from 901; their names."""
    names = []
    for side in ("train", "val"):
        for subject in sorted((data / side).glob("sub-*")):
            name = subject.name if side == "train" else f"sub-9{subject.name[-2:]}"
            if side == "val":
                names.append(name)
            for source, target in (
                (subject, data / "all" / name),
                (data / side / "derivatives/truth" / subject.name, data / "all/derivatives/truth" / name),
            ):
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.is_symlink():
                    target.symlink_to(os.path.relpath(source, target.parent), target_is_directory=True)
    return names


def train(out: Path, stage: str, minutes: float, validation: list[str], *further: str | Path) -> None:
    """One stage; a run that has begun goes on, one that is done ends at once."""
    folder = out / stage
    if (folder / "config.yaml").is_file():
        run(out / f"{stage}.log", "train", stage, "--out", folder, "--resume", f"max_minutes={minutes:g}")
        return
    run(
        out / f"{stage}.log",
        "train",
        stage,
        "--data",
        out / "data/all",
        "--out",
        folder,
        *further,
        *PREPARED,
        f"validation_subjects=[{','.join(validation)}]",
        f"max_minutes={minutes:g}",
        f"cache={out / 'cache'}",
    )


def main() -> int:
    """Everything, in order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--label-maps", type=Path, required=True)
    parser.add_argument("--lesion-masks", type=Path, required=True)
    parser.add_argument("--test-masks", nargs="*", default=[], metavar="NAME", help="further masks that only test")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60, help="of the trainings together, but for the regression")
    parser.add_argument("--people", type=float, default=1.0, help="share of the people to simulate")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--name", default="demist-sim")
    parser.add_argument("--until", choices=("data", "mean", "bundle", "calibrated", "evaluated"), default="evaluated")
    args = parser.parse_args()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    labels, masks = sides(args.label_maps), split_masks(args.lesion_masks, args.test_masks)
    minutes = {stage: args.minutes * share for stage, share in SHARES.items()}
    wanted = COHORTS[:2] if args.until in ("data", "mean", "bundle") else COHORTS
    for cohort in wanted[:2]:
        simulate(cohort, out, labels, masks, args)
    if args.until == "data":
        return 0
    validation = join(out / "data")
    base = ("--foundation", "demist-sim-base")
    train(out, "mean", minutes["mean"], validation, *base, f"workers={args.workers}")
    if args.until == "mean":
        return 0
    train(out, "backbone", minutes["backbone"], validation, *base)
    train(out, "demist", minutes["demist"], validation, "--foundation", out / "backbone", "--mean", out / "mean")
    bundle = out / "bundles" / args.name
    if not bundle.is_dir():
        run(
            out / "export.log",
            "train",
            "export",
            out / "backbone",
            out / "demist",
            "--out",
            bundle,
            "--sampling",
            "mode=mean",
            "start=0.4",
            "steps=3",
            "seeds=4",
        )
    if args.until == "bundle":
        return 0
    for cohort in wanted[2:]:
        simulate(cohort, out, labels, masks, args)
    calibrated = out / "calibrated" / args.name
    if not calibrated.is_dir():
        run(
            out / "calibrate.log",
            "train",
            "calibrate",
            bundle,
            "--data",
            out / "data/cal",
            out / "data/cal_shifted",
            "--trained-on",
            out / "cache",
            "--cache",
            out / "calibration",
            "--out",
            calibrated,
            "--workers",
            str(args.workers),
        )
    if args.until == "calibrated":
        return 0
    train(out, "regression", minutes["mean"], validation)
    run(
        out / "evaluate.log",
        "evaluate",
        "--data",
        out / "data/test",
        "--shifted",
        out / "data/test_shifted",
        "--out",
        out / "evaluation",
        "--bundle",
        calibrated,
        "--lookup-from",
        out / "data/train",
        "--linear",
        out / "cache",
        "--regression",
        out / "regression",
        "--preprocess",
        "full",
        "--knock-outs",
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
