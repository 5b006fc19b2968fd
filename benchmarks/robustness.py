"""Does a map hang on how the scans were stored? One pair of scans, disturbed in ways that leave the person the same.

python benchmarks/robustness.py --t1w t1w.nii.gz --flair flair.nii.gz --out results
python benchmarks/robustness.py --t1w visit1/t1w.nii.gz --flair visit1/flair.nii.gz \
    --again visit2/t1w.nii.gz visit2/flair.nii.gz --out results

Each disturbed pair goes through everything that a user's pair does: brain, registration, bias field, network, tissue,
lesions. Compared are the means of tissue regions with those of the undisturbed pair:

- mirrored: left and right changed (array turned, header as it was)
- resliced: to slices of 2 mm along every axis that is finer, and back
- noise: white noise of 3 % of white matter's typical value on both scans
- no N4: the bias field left in
- again: another pair of the same person, as from a second visit; nothing is disturbed there

A table is printed and written (robustness.csv), and a picture of every map (PNG). Exit code 1 where a region of normal
white or grey matter differs by more than ``--most`` (percent; ``--most-again`` between visits).
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter

from DEMISTCore import synthesize
from DEMISTCore.bundle import DEFAULT_BUNDLE
from DEMISTCore.statistics import analyse
from DEMISTCore.volume import Volume

FINE_MM, NOISE = 2.0, 0.03
#: Means that are judged; others are in the table.
JUDGED = ("nawm", "grey_matter")


def mirrored(volume: Volume) -> Volume:
    """Left and right changed: the axis that runs most from left to right is turned, the header stays."""
    axis = int(np.argmax(np.abs(volume.affine[0, :3])))
    return volume.with_array(np.flip(volume.array, axis).copy())


def resliced(volume: Volume) -> Volume:
    """Averaged to 2 mm along every axis that is finer, sampled there, and brought back, by cubic splines."""
    array, spacing = volume.array.astype(np.float64), np.asarray(volume.spacing)
    # a Gaussian of the second moment that a box of 2 mm has, less what the voxel averages already
    array = gaussian_filter(array, np.sqrt(np.maximum(FINE_MM**2 - spacing**2, 0) / 12) / spacing)
    for axis, (n, step) in enumerate(zip(array.shape, spacing, strict=True)):
        if step < FINE_MM:
            fine = np.arange(n) * step
            coarse = np.arange(0, fine[-1], FINE_MM)
            sampled = CubicSpline(fine, array, axis)(coarse)
            array = CubicSpline(coarse, sampled, axis)(np.minimum(fine, coarse[-1]))
    return volume.with_array(np.maximum(array, 0).astype(np.float32))


def noisy(volume: Volume, seed: int) -> Volume:
    """With white noise of 3 % of a typical bright voxel (95th percentile), kept at zero and above."""
    rng = np.random.default_rng(seed)
    level = NOISE * float(np.percentile(volume.array[volume.array > 0], 95))
    noise = level * rng.standard_normal(volume.shape, np.float32)
    return volume.with_array(np.where(volume.array > 0, np.maximum(volume.array + noise, 0), 0).astype(np.float32))


def measured(t1w: Volume, flair: Volume, out: Path, args: argparse.Namespace, **how: bool) -> dict[str, float]:
    """Mean PSR by region of one pair, by everything that a user's pair goes through."""
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for name, volume in (("T1w", t1w), ("FLAIR", flair)):
        files.append(out / f"{name}.nii.gz")
        volume.write(files[-1], overwrite=True)
    psr = out / "psr.nii.gz"
    synthesize(*files, out=psr, bundle=args.bundle, uncertainty=True, preview=out / "psr.png", overwrite=True, **how)
    found = analyse(psr, t1w=files[0], flair=files[1], suggest=True, out=out / "statistics", overwrite=True)
    return {str(row["region"]): float(row["mean"]) for row in found.table if row["lesion"] is None}


def main() -> int:
    """Disturb, synthesize, compare."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--t1w", type=Path, required=True)
    p.add_argument("--flair", type=Path, required=True)
    p.add_argument("--again", type=Path, nargs=2, metavar=("T1W", "FLAIR"), help="the same person, scanned again")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--bundle", default=DEFAULT_BUNDLE)
    p.add_argument("--most", type=float, default=2.0, help="percent (default: %(default)s)")
    p.add_argument("--most-again", type=float, default=5.0, help="percent (default: %(default)s)")
    args = p.parse_args()
    t1w, flair = Volume.read(args.t1w), Volume.read(args.flair)
    pairs: dict[str, tuple[Volume, Volume, dict[str, bool]]] = {
        "as it is": (t1w, flair, {}),
        "mirrored": (mirrored(t1w), mirrored(flair), {}),
        "resliced": (resliced(t1w), resliced(flair), {}),
        "noise": (noisy(t1w, 1), noisy(flair, 2), {}),
        "no N4": (t1w, flair, {"bias_correct": False}),
    }
    if args.again:
        pairs["again"] = (Volume.read(args.again[0]), Volume.read(args.again[1]), {})
    rows, reference, failed = [], {}, False
    for name, (one, other, how) in pairs.items():
        means = measured(one, other, args.out / name.replace(" ", "_"), args, **how)
        reference = reference or means
        for region, mean in means.items():
            if region not in reference:
                continue
            change = 100 * (mean / reference[region] - 1)
            rows.append({"pair": name, "region": region, "mean": f"{mean:.5f}", "change_percent": f"{change:+.2f}"})
            if region in JUDGED:
                failed |= abs(change) > (args.most_again if name == "again" else args.most)
                print(f"{name:10s} {region:24s} {mean:.4f} {change:+6.2f} %", flush=True)
    with (args.out / "robustness.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["pair", "region", "mean", "change_percent"])
        writer.writeheader()
        writer.writerows(rows)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
