"""The README's first picture: one axial slice of a patient's T1w, FLAIR, PSR map and its standard deviation.

python benchmarks/readme_picture.py --t1w T1w.nii.gz --flair FLAIR.nii.gz --psr psr.nii.gz --slice 100 --out psr.png

All four lie on the T1w's grid; the standard deviation is looked for beside the map.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np

from DEMISTCore.preview import UNCERTAINTY_LIMITS


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("t1w", "flair", "psr", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--slice", type=int, required=True, help="voxel index from below")
    told = parser.parse_args()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    psr = nib.as_closest_canonical(nib.load(told.psr))
    deviation = nib.load(told.psr.with_name(told.psr.name.replace(".nii", "_uncertainty.nii")))
    images = [nib.as_closest_canonical(image) for image in (nib.load(told.t1w), nib.load(told.flair), deviation)]
    if any(image.shape != psr.shape for image in images):
        raise SystemExit("T1w, FLAIR, map and standard deviation do not lie on one grid.")
    t1w, flair, deviation, psr = (np.asarray(image.dataobj, np.float32) for image in (*images, psr))
    inside = np.argwhere(psr[..., told.slice] > 0)
    low, high = inside.min(0) - 4, inside.max(0) + 5

    def plane(image: np.ndarray) -> np.ndarray:  # front above, the patient's right on the left
        return image[low[0] : high[0], low[1] : high[1], told.slice][::-1, ::-1].T

    deviation[deviation <= 0] = np.nan
    rows = [
        ("T1w", t1w, "gray", (0, np.percentile(t1w[psr > 0], 99.5)), None),
        ("FLAIR", flair, "gray", (0, np.percentile(flair[psr > 0], 99.8)), None),
        ("PSR", psr, "inferno", (0, 0.15), "fraction"),
        ("its standard deviation", deviation, "viridis", UNCERTAINTY_LIMITS, "fraction"),
    ]
    figure, axes = plt.subplots(1, 4, figsize=(12.6, 4.1), facecolor="black", layout="constrained")
    for axis, (title, image, colours, limits, unit) in zip(axes, rows):
        drawn = axis.imshow(plane(image), cmap=colours, vmin=limits[0], vmax=limits[1], interpolation="bilinear")
        axis.set_title(title, color="white")
        axis.set_axis_off()
        if unit:
            bar = figure.colorbar(drawn, ax=axis, shrink=0.8, label=unit)
            bar.ax.tick_params(colors="white")
            bar.set_label(unit, color="white")
    figure.savefig(told.out, dpi=100, facecolor="black")


if __name__ == "__main__":
    main()
