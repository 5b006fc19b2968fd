"""A picture of the regions of one patient: ``python benchmarks/regions_picture.py --t1w T1W --flair FLAIR --out PNG``.

Rows are axial slices; columns the FLAIR, the same with lesions outlined (suggested ones red, a rater's green), the T1w,
and the regions in colour.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from DEMISTCore.preprocess import prepare
from DEMISTCore.regions import REGIONS, RegionSettings, build_regions, read_mask
from DEMISTCore.regions.write import LABELS, label_map
from DEMISTCore.volume import Volume

COLORS = {
    "csf": "#355c9c",
    "grey_matter": "#8d8d8d",
    "white_matter": "#e8e2d0",
    "nawm": "#f2f2f2",
    "nawm_distal": "#f2f2f2",
    "nawm_middle": "#d9ecc9",
    "nawm_proximal": "#a3d27a",
    "lesion": "#e03c31",
    "black_hole": "#7d0f0f",
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--t1w", type=Path, required=True)
    p.add_argument("--flair", type=Path, required=True)
    p.add_argument("--lesions", type=Path, help="a rater's lesions, outlined green beside the suggested ones")
    p.add_argument("--method", default=RegionSettings().method, help="network or hmrf (default: %(default)s)")
    p.add_argument("--heights", type=int, nargs="+", help="slices as percent of the brain's height")
    p.add_argument("--out", type=Path, required=True)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare, find regions, draw."""
    args = parser().parse_args(argv)
    prepared = prepare(args.t1w, args.flair)
    regions = build_regions(prepared.t1w, prepared=prepared, settings=RegionSettings(method=args.method))
    print("\n".join(regions.notes))
    suggested = regions.lesions.mask.array > 0
    drawn = None
    if args.lesions:
        drawn = read_mask(args.lesions, "lesion mask").resampled_to(prepared.grid, "nearest").array > 0
        both = 2 * (drawn & suggested).sum() / max(drawn.sum() + suggested.sum(), 1)
        print(f"Suggested {suggested.sum() / 1000:.1f} mL, drawn {drawn.sum() / 1000:.1f} mL, Dice {both:.2f}")
    draw(prepared.t1w, prepared.flair, label_map(regions), suggested, drawn, args.heights or [30, 45, 55, 65], args.out)
    return 0


def draw(
    t1w: Volume,
    flair: Volume,
    labels: Volume,
    suggested: np.ndarray,
    drawn: np.ndarray | None,
    heights: Sequence[int],
    out: Path,
) -> None:
    """Save the picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero(t1w.array))
    images = [a[box] for a in (t1w.array, flair.array, labels.array, suggested)]
    truth = None if drawn is None else drawn[box]
    colors = ListedColormap(["black", *(COLORS[key] for key, _ in LABELS.values())])
    figure = Figure(figsize=(9.2, 2.75 * len(heights)), facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(heights), 4, squeeze=False)
    for row, height in zip(axes, heights):
        k = round(height / 100 * (images[0].shape[2] - 1))
        t, f, c, s = (image[:, :, k].T for image in images)
        for axis, image, name in zip(row, (f, f, t, c), ("FLAIR", "lesions", "T1w", "regions")):
            kind = {"cmap": "gray", "vmin": 0, "vmax": 1}
            if name == "regions":
                kind = {"cmap": colors, "vmin": 0, "vmax": len(LABELS), "interpolation": "nearest"}
            axis.imshow(image, origin="lower", **kind)
            axis.set_axis_off()
            if axis in axes[0]:
                axis.set_title(name, color="white", fontsize=9)
        for mask, color in ((s, "#ff4a3d"), (None if truth is None else truth[:, :, k].T, "#49d24f")):
            if mask is not None and mask.any():
                row[1].contour(mask.astype(float), [0.5], colors=[color], linewidths=0.7)
    present = [key for index, (key, _) in LABELS.items() if (images[2] == index).any()]
    handles = [Patch(color=COLORS[key], label=REGIONS[key]) for key in present]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=7, labelcolor="white", frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110, facecolor="black")


if __name__ == "__main__":
    raise SystemExit(main())
