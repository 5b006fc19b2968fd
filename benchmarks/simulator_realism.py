"""Simulated scans beside real ones: ``python benchmarks/simulator_realism.py --real A B --simulated S --out PNG``.

A folder of --real holds ``T1w.nii.gz``, ``FLAIR.nii.gz`` and, if known, ``lesions.nii.gz`` on one grid, skull-stripped.
A folder of --simulated is a data set of ``DEMISTCore.simulate`` made with ``--no-skull --bias 0.05 --misregistration 0
--obliquity 0``; several are compared side by side (before and after a change). Both kinds go through the same code:
resampled to 1 mm where they are not, tissues by three-class k-means on the T1w alone.

Printed: for each statistic the real values, and of each simulated set the 5th, 50th and 95th percentile with the
share of real values between the smallest and the largest.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from DEMISTCore.errors import InputError
from DEMISTCore.volume import Volume

FREQUENCIES = np.linspace(0.02, 0.48, 24)  # cycles per mm
GRADIENTS = np.linspace(0, 0.6, 61)  # per mm, as a share of white matter's signal


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--real", type=Path, nargs="+", required=True, help="folders of real patients")
    p.add_argument("--simulated", type=Path, nargs="+", required=True, help="data sets of DEMISTCore.simulate")
    p.add_argument("--out", type=Path, required=True, help="picture to write")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, draw."""
    args = parser().parse_args(argv)
    groups = {"real": [measured(*read_real(folder)) for folder in args.real]}
    slices = {"real": [middle(*read_real(folder)[:2]) for folder in args.real]}
    for root in args.simulated:
        pairs = list(read_simulated(root))
        if not pairs:
            raise InputError(f"{root} holds no simulated scans; give a data set of DEMISTCore.simulate.")
        groups[root.name] = [measured(*pair) for pair in pairs]
        slices[root.name] = [middle(*pair[:2]) for pair in pairs[:: max(1, len(pairs) // 4)][:4]]
    print(table(groups))
    draw(groups, slices, args.out)
    return 0


def read_real(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """T1w, FLAIR and lesions (bool) of a patient.

    Raises:
        InputError: a file is missing or unreadable.
    """
    t1w, flair = Volume.read(folder / "T1w.nii.gz"), Volume.read(folder / "FLAIR.nii.gz")
    lesions = folder / "lesions.nii.gz"
    mask = Volume.read(lesions).array > 0.5 if lesions.exists() else None
    return t1w.array, flair.array, mask


def read_simulated(root: Path) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """T1w, FLAIR and lesions of every scan, on the truth's 1 mm grid."""
    for path in sorted(root.glob("sub-*/**/*_T1w.nii.gz")):
        name = path.name.split("_")[0]
        truth = root / "derivatives" / "truth" / name / "anat" / f"{name}_desc-lesion_mask.nii.gz"
        lesions = Volume.read(truth)
        images = [Volume.read(p) for p in (path, path.with_name(path.name.replace("_T1w", "_FLAIR")))]
        t1w, flair = (image.resampled_to(lesions.grid).array for image in images)
        yield t1w, flair, lesions.array > 0.5


def measured(t1w: np.ndarray, flair: np.ndarray, lesions: np.ndarray | None) -> dict:
    """Statistics of one pair; numbers for the table, ``*_gradients`` and ``*_power`` as curves for the picture."""
    lesions = np.zeros(t1w.shape, bool) if lesions is None else lesions
    box = ndimage.find_objects((t1w > 0.02 * t1w.max()).astype(np.uint8))[0]
    t1w, flair, lesions = t1w[box], flair[box], lesions[box]
    brain = ndimage.binary_opening(t1w > 0.02 * np.percentile(t1w[t1w > 0], 99), iterations=2)
    brain = ndimage.binary_fill_holes(brain)
    away = ndimage.distance_transform_edt(~lesions) > 5 if lesions.any() else np.ones(t1w.shape, bool)
    tissue = _tissue(t1w, brain)
    inner = ndimage.binary_erosion(brain, iterations=3)
    white = ndimage.binary_erosion(tissue == 3) & inner & away
    grey = (tissue == 2) & inner & away
    fluid = ndimage.binary_erosion(tissue == 1) & ndimage.binary_erosion(brain, iterations=12) & away
    result: dict = {}
    for name, image in (("T1w", t1w), ("FLAIR", flair)):
        level = float(np.median(image[white]))
        scaled = np.where(brain, image / level, 0).astype(np.float32)
        result[f"{name} grey / white"] = float(np.median(scaled[grey]))
        result[f"{name} CSF / white"] = float(np.median(scaled[fluid])) if fluid.sum() > 50 else np.nan
        result[f"{name} lesion / white"] = float(np.median(scaled[lesions])) if lesions.sum() > 50 else np.nan
        result[f"{name} 95th lesion / white"] = (
            float(np.percentile(scaled[lesions], 95)) if lesions.sum() > 50 else np.nan
        )
        result[f"{name} spread of white"] = float(np.subtract(*np.percentile(scaled[white], (75, 25))))
        slope = np.sqrt(sum(g**2 for g in np.gradient(scaled)))[inner]
        result[f"{name} median gradient"] = float(np.median(slope))
        result[f"{name} 95th gradient"] = float(np.percentile(slope, 95))
        result[f"{name}_gradients"] = np.histogram(slope, GRADIENTS, density=True)[0]
        power = _power(scaled, inner)
        fine, middle_band = (FREQUENCIES > 0.33), (FREQUENCIES > 0.08) & (FREQUENCIES < 0.18)
        result[f"{name} fine / middle power"] = float(power[fine].mean() / power[middle_band].mean())
        result[f"{name}_power"] = power
    return result


def _tissue(t1w: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """1 CSF, 2 grey, 3 white: k-means on the T1w from the 1st to the 99th percentile, 0 outside ``brain``."""
    from sklearn.cluster import KMeans

    values = np.clip(t1w[brain], *np.percentile(t1w[brain], (1, 99)))
    model = KMeans(3, n_init=3, random_state=0).fit(values[::17, None])
    rank = np.argsort(np.argsort(model.cluster_centers_[:, 0]))
    tissue = np.zeros(t1w.shape, np.uint8)
    tissue[brain] = 1 + rank[model.predict(values[:, None])]
    return tissue


def _power(image: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Power (|F|^2 per voxel) by spatial frequency, in 64 mm Hann-windowed cubes inside the brain.

    The windows lie inside the brain, so that its border, which depends on the extraction tool, says nothing.
    """
    centre = np.array(ndimage.center_of_mass(inner)).astype(int)
    side = 64
    window = np.hanning(side)
    window = window[:, None, None] * window[None, :, None] * window[None, None, :]
    frequency = np.fft.fftfreq(side)
    radius = np.sqrt(frequency[:, None, None] ** 2 + frequency[None, :, None] ** 2 + frequency[None, None, :] ** 2)
    width = (FREQUENCIES[1] - FREQUENCIES[0]) / 2
    total = np.zeros(FREQUENCIES.size)
    for left in (-26, 26):
        low = np.clip(centre + np.array([left, 0, 8]) - side // 2, 0, np.array(image.shape) - side)
        cube = image[tuple(slice(a, a + side) for a in low)]
        spectrum = np.abs(np.fft.fftn((cube - cube.mean()) * window)) ** 2
        total += [spectrum[np.abs(radius - f) <= width].mean() for f in FREQUENCIES]
    return total / 2 / side**3


def middle(t1w: np.ndarray, flair: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An axial slice through the ventricles of both images."""
    height = int(ndimage.center_of_mass(t1w > 0)[2] + 6)
    return t1w[:, :, height].T[::-1], flair[:, :, height].T[::-1]


def table(groups: dict[str, list[dict]]) -> str:
    """The numbers as text."""
    names = [name for name in groups["real"][0] if "_" not in name]
    lines = ["| statistic | " + " | ".join(groups) + " |", "|---|" + "---|" * len(groups)]
    for name in names:
        real = np.array([m[name] for m in groups["real"]])
        cells = [", ".join(f"{v:.3f}" for v in real)]
        for group, values in groups.items():
            if group == "real":
                continue
            column = np.array([m[name] for m in values])
            column = column[np.isfinite(column)]
            if not column.size:
                cells.append("-")
                continue
            low, mid, high = np.percentile(column, (5, 50, 95))
            inside = np.mean((real >= column.min()) & (real <= column.max()))
            cells.append(f"{low:.3f} {mid:.3f} {high:.3f} ({100 * inside:.0f} %)")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(groups: dict[str, list[dict]], slices: dict[str, list], out: Path) -> None:
    """Save the picture: slices of each group, then gradient histograms and power spectra."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = max(2 * len(s) for s in slices.values())
    figure = Figure(figsize=(2.0 * columns, 2.3 * len(slices) + 4), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subfigures(2, 1, height_ratios=(2.3 * len(slices), 4))
    axes = upper.subplots(len(slices), columns, squeeze=False)
    for row, (name, pairs) in zip(axes, slices.items()):
        for axis in row:
            axis.axis("off")
        for index, image in enumerate(image for pair in pairs for image in pair):
            row[index].imshow(image, cmap="gray", vmin=0, vmax=np.percentile(image[image > 0], 99.7))
            row[index].set_title(f"{name} {'FLAIR' if index % 2 else 'T1w'}", fontsize=8)
    curves = lower.subplots(1, 4)
    colors = dict(zip(groups, ("black", "tab:orange", "tab:blue", "tab:green", "tab:red")))
    for position, (kind, contrast) in enumerate((k, c) for k in ("gradients", "power") for c in ("T1w", "FLAIR")):
        axis = curves[position]
        x = (GRADIENTS[1:] + GRADIENTS[:-1]) / 2 if kind == "gradients" else FREQUENCIES
        for name, values in groups.items():
            stack = np.stack([m[f"{contrast}_{kind}"] for m in values])
            if name == "real":
                for curve in stack:
                    axis.plot(x, curve, color="black", lw=1.2)
            else:
                axis.fill_between(x, *np.percentile(stack, (5, 95), axis=0), color=colors[name], alpha=0.2)
                axis.plot(x, np.median(stack, 0), color=colors[name], label=name)
        axis.set_yscale("log")
        unit = "gradient, share of white / mm" if kind == "gradients" else "power, cycles / mm"
        axis.set_title(f"{contrast}: {unit}", fontsize=9)
        axis.legend(fontsize=7)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=80)


if __name__ == "__main__":
    from DEMISTCore.cli import run

    raise SystemExit(run(main))
