"""A simulated cohort of the paper's shape: 99 people, 163 scans, patients and controls, a third of the maps slabs.

    python benchmarks/paper_cohort.py --out cohort [--anatomies LABEL_MAPS icbm152] [--lesion-masks MASKS] [--workers 2]

64 people are scanned twice (on two scanners, the same brain), 35 once. A third are controls without lesions. A third of
the people have what qMT gives: an axial slab around the ventricles in percent, with noise, instead of the whole truth;
their tissue labels and brain masks stay. ``participants.tsv`` has diagnosis, age and sex. The same seed gives the same
cohort, and a stopped run goes on.
"""

from __future__ import annotations

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import numpy as np

from DEMISTCore.commit import staging
from DEMISTCore.files import atomic_path, write_json
from DEMISTCore.simulate.anatomy import TEMPLATE, list_anatomies, load_anatomy
from DEMISTCore.simulate.bids import write_description, write_subject
from DEMISTCore.simulate.cohort import scan_subject
from DEMISTCore.simulate.subject import simulate_subject
from DEMISTCore.volume import Volume

PEOPLE, TWICE = 99, 64
#: Height of a slab, mm, and the noise of a measured map (SD, fraction): white matter has 0.12.
SLAB_MM, NOISE = 60.0, 0.005


def person(index: int, seed: int) -> dict[str, object]:
    """Who somebody is: every third a control, every third (another one) with a slab; 64 of 99 scanned twice."""
    rng = np.random.default_rng([seed, 99, index])
    return {
        "participant_id": f"sub-{index + 1:03d}",
        "diagnosis": "HC" if index % 3 == 0 else "MS",
        "age": int(rng.integers(22, 66)),
        "sex": str(rng.choice(["F", "F", "M"])),
        "scans": 2 if (index * TWICE) % PEOPLE < TWICE else 1,
        "slab": (index // 3) % 3 == 0,
    }


def make(index: int, root: Path, anatomies: list[str], masks: list[Path] | None, seed: int, scanner: dict) -> None:
    """Simulate one person and write scans and truth; those that are there already stay."""
    who = person(index, seed)
    name = str(who["participant_id"])
    truth = root / "derivatives" / "truth" / name / "anat"
    slab = root / "derivatives" / "qmt" / name / "anat" / f"{name}_PSRmap.nii.gz"
    if not (truth / f"{name}_desc-truth_parameters.json").is_file() or not (root / name).is_dir():
        subject = simulate_subject(
            seed + index,
            anatomy=load_anatomy(anatomies[index % len(anatomies)]),
            lesion_masks=masks,
            skull=False,
            healthy=who["diagnosis"] == "HC",
        )
        scans = [scan_subject(subject, seed + index, k, **scanner) for k in range(int(str(who["scans"])))]
        write_subject(root, name, subject, scans)
    whole = truth / f"{name}_desc-truth_PSRmap.nii.gz"
    if who["slab"] and whole.is_file():
        write_slab(Volume.read(whole), Volume.read(truth / f"{name}_desc-brain_mask.nii.gz"), slab, seed + index)
        whole.unlink()
        whole.with_name(whole.name.replace(".nii.gz", ".json")).unlink(missing_ok=True)


def write_slab(psr: Volume, brain: Volume, path: Path, seed: int) -> None:
    """What a qMT scan of the middle of the brain would give: percent, noise, NaN where the fit failed."""
    rng = np.random.default_rng([seed, 7])
    there = np.flatnonzero((brain.array > 0).any(axis=(0, 1)))
    half = round(SLAB_MM / 2 / psr.spacing[2])
    middle = int(there[0] + 0.55 * (there[-1] - there[0]))
    low, high = max(middle - half, 0), min(middle + half, psr.shape[2])
    array = psr.array[:, :, low:high].astype(np.float32)
    inside = brain.array[:, :, low:high] > 0
    array = np.where(inside, 100 * (array + NOISE * rng.standard_normal(array.shape, np.float32)), 0)
    array[inside & (rng.random(array.shape) < 0.003)] = np.nan
    affine = psr.affine.copy()
    affine[:3, 3] += affine[:3, 2] * low
    Volume(array.astype(np.float32), affine).write(path)
    write_json(path.with_name(path.name.replace(".nii.gz", ".json")), {"Units": "percent"})


def one_thread() -> None:
    """Each worker has its core to itself."""
    import torch

    torch.set_num_threads(1)


def main() -> None:
    """Parse and simulate."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", required=True, type=Path)
    p.add_argument("--people", type=int, default=PEOPLE, help="only the first so many (default: %(default)s)")
    p.add_argument("--anatomies", nargs="+", default=[TEMPLATE])
    p.add_argument("--lesion-masks", type=Path)
    p.add_argument("--seed", type=int, default=20_000)
    p.add_argument("--workers", type=int, default=1)
    p.add_argument("--bias", type=float, default=0.06)
    p.add_argument("--misregistration", type=float, default=0.4)
    p.add_argument("--thick-slices", type=float, default=0.35)
    p.add_argument("--obliquity", type=float, default=2.0)
    args = p.parse_args()
    anatomies = [name for source in args.anatomies for name in list_anatomies(source)]
    masks = sorted(args.lesion_masks.glob("*.nii*")) if args.lesion_masks else None
    scanner = {
        "bias": args.bias,
        "misregistration": args.misregistration,
        "thick_slices": args.thick_slices,
        "obliquity": args.obliquity,
    }
    write_description(args.out)
    with staging(args.out / "derivatives" / "qmt") as (hidden,):
        write_json(
            hidden / "dataset_description.json",
            {"Name": "Slabs as qMT gives them", "BIDSVersion": "1.9.0", "DatasetType": "derivative"},
        )
    people = [person(i, args.seed) for i in range(args.people)]
    columns = ("participant_id", "diagnosis", "age", "sex")
    with atomic_path(args.out / "participants.tsv") as temporary:
        rows = ["\t".join(columns), *("\t".join(str(who[c]) for c in columns) for who in people)]
        temporary.write_text("\n".join(rows) + "\n")
    print(
        f"{len(people)} people, {sum(who['scans'] for who in people)} scans, "
        f"{sum(who['diagnosis'] == 'HC' for who in people)} controls, {sum(who['slab'] for who in people)} slabs"
    )
    work = partial(make, root=args.out, anatomies=anatomies, masks=masks, seed=args.seed, scanner=scanner)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.workers, mp_context=context, initializer=one_thread) as pool:
        jobs = [pool.submit(work, i) for i in range(args.people)]
        for done, job in enumerate(as_completed(jobs), 1):
            job.result()
            print(f"{done} of {args.people}", flush=True)


if __name__ == "__main__":
    main()
