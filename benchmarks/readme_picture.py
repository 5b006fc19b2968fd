"""The README's first picture: T1w, FLAIR, synthesized PSR and the truth of the demo's patient, in two slices.

python -m DEMISTCore.demo --out demo
python benchmarks/readme_picture.py --demo demo --out docs/images/first_look.png

The scans are shown as the model sees them: the FLAIR moved onto the T1w, both without bias field, brain only.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from DEMISTCore import Volume, prepare
from DEMISTCore.evaluation.figures import brain_box, levels

#: PSR (fraction) from black to yellow.
LIMITS = (0.0, 0.16)


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, required=True, help="folder that the demo has written")
    parser.add_argument("--out", type=Path, required=True, help="picture (.png)")
    told = parser.parse_args()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    prepared = prepare(told.demo / "T1w.nii.gz", told.demo / "FLAIR.nii.gz")
    grid, brain = prepared.grid, prepared.mask.array > 0
    psr, truth = (
        Volume.read(told.demo / f"{name}.nii.gz").resampled_to(grid).array * brain for name in ("psr", "true_psr")
    )
    lesions = Volume.read(told.demo / "true_lesions.nii.gz").resampled_to(grid, "nearest").array > 0
    shown = levels(lesions & brain, 2, apart=round(10 / grid.spacing[2]))
    across, along = brain_box(brain)

    def plane(image: np.ndarray, k: int) -> np.ndarray:  # front above, the patient's right on the left
        return image[across, along, k][::-1, ::-1].T

    t1w, flair = (np.where(brain, volume.array, 0) for volume in (prepared.t1w, prepared.flair))
    columns = [
        ("T1w", t1w, "gray", (0, np.percentile(t1w[brain], 99.5))),
        ("FLAIR", flair, "gray", (0, np.percentile(flair[brain], 99.8))),
        ("PSR from the two", psr, "inferno", LIMITS),
        ("true PSR", truth, "inferno", LIMITS),
    ]
    figure, axes = plt.subplots(2, 4, figsize=(10, 6.2), facecolor="black", layout="constrained")
    for row, k in enumerate(shown):
        for axis, (title, image, colors, limits) in zip(axes[row], columns):
            drawn = axis.imshow(plane(image, k), cmap=colors, vmin=limits[0], vmax=limits[1], interpolation="bilinear")
            axis.contour(plane(lesions, k).astype(float), [0.5], colors="#40e0ff", linewidths=0.6)
            axis.set_axis_off()
            if not row:
                axis.set_title(title, color="white", fontsize=14)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.7, aspect=30, ticks=[0, 0.04, 0.08, 0.12, 0.16], extend="max")
    bar.ax.tick_params(colors="white")
    bar.set_label("PSR (fraction); lesions outlined", color="white")
    figure.savefig(told.out, dpi=72, facecolor="black")


if __name__ == "__main__":
    main()
