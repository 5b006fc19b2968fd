"""How good are regions? ``python benchmarks/regions_quality.py --data BIDS --out numbers.json``.

On a simulated data set (``python -m DEMISTCore.simulate``), raw scans prepared as for any patient, against its truth:

- Dice of white matter (with brainstem and lesions) and grey matter (cortex, deep, cerebellar), from T1w and FLAIR and
  from the T1w alone; how much of deep grey, cerebellar cortex and brainstem is found as grey or white.
- suggested lesions: voxel Dice, and lesion by lesion: a true lesion of 10 mm^3 and more counts as found if one voxel of
  it is, a suggestion as right if it touches a lesion.
- means of the *true* PSR over regions made from the images and the true lesions, against those over the true tissue.

True labels are brought to the model grid by interpolated shares; what the means over these differ by from those over
each voxel's largest true fraction is a floor that no segmentation can be held below.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from DEMISTCore.labels import GREY, LESION, TISSUE_LABELS, WHITE
from DEMISTCore.regions import RegionSettings, build_regions, find_tissue, open_network, segment_tissue, suggest_lesions
from DEMISTCore.regions.holes import fill_white
from DEMISTCore.regions.lesions import number_lesions
from DEMISTCore.regions.masks import labels_to_grid
from DEMISTCore.volume import Grid, Volume

TISSUE = np.array([0, *(tissue for _, tissue in TISSUE_LABELS.values())], np.uint8)
SMALLEST_MM3 = 10


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="simulated BIDS data set with truth")
    p.add_argument("--out", type=Path, required=True, help="JSON file of all numbers")
    p.add_argument("--cache", type=Path, help="folder that keeps prepared images")
    p.add_argument("--network", default="demist-regions", help="bundle of the tissue network (default: %(default)s)")
    p.add_argument("--hmrf", action="store_true", help="the untrained method as well")
    p.add_argument("--subjects", nargs="*", help="only these, such as sub-001")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Every subject, then the tables."""
    args = parser().parse_args(argv)
    from DEMISTCore.training.data import index

    sessions = [s for s in index(args.data) if not args.subjects or s.subject in args.subjects]
    rows = []
    for session in sessions:
        case = load(session, args.cache)
        for method in ("network", *(("hmrf",) if args.hmrf else ())):
            for flair in (True, False):
                row = {"subject": session.name, "method": method, "images": "T1w and FLAIR" if flair else "T1w alone"}
                rows.append(row | measure(case, method, flair, args.network))
                print(line(rows[-1]), flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(means(rows))
    return 0


def load(session: Any, cache: Path | None) -> dict[str, np.ndarray]:
    """x (2, ...), mask, true PSR y, true labels (1 to 7) and affine on the model grid, from the cache or made anew."""
    from DEMISTCore.preprocess import prepare

    file = None if cache is None else cache / f"{session.name}.npz"
    if file is not None and file.is_file():
        return dict(np.load(file))
    prepared = prepare(session.t1w, session.flair)
    labels = Volume.read(session.dseg)
    array = labels.array.round().astype(np.uint8)
    array[Volume.read(session.lesion).resampled_to(labels, "nearest").array > 0.5] = LESION
    case = {
        "x": prepared.array,
        "mask": prepared.mask.array,
        "affine": prepared.grid.affine,
        "y": Volume.read(session.psr).resampled_to(prepared.grid, "linear").array,
        "soft": labels_to_grid(Volume(array, labels.affine), prepared.grid).array,
    }
    if session.grey and session.white:
        case["largest"] = largest(session, case["soft"], prepared.grid)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **case)
    return case


def largest(session: Any, labels: np.ndarray, grid: Grid) -> np.ndarray:
    """The truth in another way: each voxel's largest tissue by the true fractions, where ``labels`` are labels brought
    to the grid. What these two differ by no segmentation can be held to."""
    grey, white = (Volume.read(file).resampled_to(grid, "linear").array for file in (session.grey, session.white))
    tissue = np.stack([1 - grey - white, grey, white]).argmax(0) + 1
    tissue[labels == LESION] = WHITE
    return np.where(labels > 0, tissue, 0).astype(np.uint8)


def measure(case: dict[str, np.ndarray], method: str, with_flair: bool, network: str) -> dict[str, Any]:
    """All numbers of one subject, one method, with or without the FLAIR."""
    affine, labels = case["affine"], case["soft"]
    t1w, flair = (Volume(image, affine) for image in case["x"])
    mask = Volume(case["mask"], affine)
    truth = TISSUE[labels]
    start = time.perf_counter()
    if method == "network":
        found = find_tissue(t1w, mask, flair=flair if with_flair else None, model=open_network(network))
        tissue, lesions = found.tissue, number_lesions(found.lesions, RegionSettings().min_suggested_ml)
    else:
        tissue = segment_tissue(t1w, mask, flair=flair if with_flair else None)
        lesions = suggest_lesions(t1w, flair, tissue).numbers if with_flair else None
    seconds = time.perf_counter() - start
    a = tissue.array
    row: dict[str, Any] = {
        "seconds": round(seconds, 1),
        "white": dice(a == WHITE, truth == WHITE),
        "grey": dice(a == GREY, truth == GREY),
        "csf": dice(a == 1, truth == 1),
    }
    for label, tissue_of in ((4, GREY), (6, GREY), (7, WHITE)):
        part = labels == label
        row[TISSUE_LABELS[label][0]] = float((a[part] == tissue_of).mean()) if part.any() else None
    if with_flair:
        row |= by_lesion(lesions.array, labels == LESION, mask.grid.voxel_volume_ml)
    row["means"] = recovered(case, tissue)
    if with_flair and "largest" in case:  # the same without
        row["floor"] = recovered(case, Volume(case["largest"], affine))
    return row


def by_lesion(numbers: np.ndarray, true: np.ndarray, millilitres: float) -> dict[str, float]:
    """Voxel Dice, lesions found, suggestions that are right."""
    from scipy.ndimage import label

    pieces, _ = label(true, np.ones((3, 3, 3), bool))
    sizes = np.bincount(pieces.ravel()) * millilitres * 1000
    large = np.flatnonzero(sizes >= SMALLEST_MM3)[1:] if sizes.size else []
    hit = set(np.unique(pieces[numbers > 0]))
    right = set(np.unique(numbers[true])) - {0}
    count = int(numbers.max(initial=0))
    return {
        "lesion_dice": dice(numbers > 0, true),
        "true_ml": float(true.sum() * millilitres),
        "suggested_ml": float((numbers > 0).sum() * millilitres),
        "lesions": len(large),
        "found": sum(1 for k in large if k in hit),
        "suggestions": count,
        "right": len(right),
    }


def recovered(case: dict[str, np.ndarray], tissue: Volume) -> dict[str, list[float]]:
    """Mean true PSR by region: over the true region, over the one made, for all voxels and away from its borders."""
    affine, labels = case["affine"], case["soft"]
    psr = Volume(case["y"], affine)
    lesion_mask = Volume((labels == LESION).astype(np.uint8), affine)
    made = build_regions(
        psr, lesion_mask=lesion_mask, tissue=fill_white(tissue, lesion_mask.array > 0), settings=RegionSettings()
    ).masks
    true = build_regions(
        psr,
        lesion_mask=lesion_mask,
        tissue=fill_white(Volume(TISSUE[labels], affine), lesion_mask.array > 0),
        settings=RegionSettings(),
    ).masks
    result = {}
    for key in true:
        if key in made and key not in ("lesion", "black_hole"):
            a, b = true[key].array > 0, made[key].array > 0
            result[key] = [float(psr.array[m].mean()) for m in (a, b, core(a), core(b))]
            result[key] += [float(np.median(psr.array[m])) for m in (a, b)]
    return result


def core(mask: np.ndarray) -> np.ndarray:
    """Voxels whose six neighbours belong, too; the mask itself if it has none."""
    from scipy.ndimage import binary_erosion

    inner = binary_erosion(mask)
    return inner if inner.any() else mask


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """2 |a and b| / (|a| + |b|); 1 if both are empty."""
    total = int(a.sum()) + int(b.sum())
    return float(2 * (a & b).sum() / total) if total else 1.0


def line(row: dict[str, Any]) -> str:
    """One subject as a line."""
    text = (
        f"{row['subject']:<9}{row['method']:<9}{row['images']:<15}white {row['white']:.3f}  grey {row['grey']:.3f}  "
        f"CSF {row['csf']:.3f}"
    )
    for name in ("Deep grey matter", "Cerebellar cortex", "Brainstem"):
        text += f"  {name.split()[0].lower()} {row[name]:.2f}" if row[name] is not None else ""
    if "lesion_dice" in row:
        text += (
            f"  lesions: {row['true_ml']:.1f}/{row['suggested_ml']:.1f} mL, Dice {row['lesion_dice']:.2f}, found "
            f"{row['found']}/{row['lesions']}, right {row['right']}/{row['suggestions']}"
        )
    moved = "  ".join(
        f"{key.removeprefix('nawm_')} {100 * (v[1] / v[0] - 1):+.1f} ({100 * (v[3] / v[2] - 1):+.1f}, median "
        f"{100 * (v[5] / v[4] - 1):+.1f})"
        if key != "csf"
        else f"csf {v[1] - v[0]:+.4f} of {v[0]:.4f}"
        for key, v in row["means"].items()
    )
    if "floor" in row:
        floor = "  ".join(f"{k} {100 * (v[1] / v[0] - 1):+.1f}" for k, v in row["floor"].items() if k != "csf")
        moved += f"\n    by the largest true fraction: {floor}"
    return f"{text}  {row['seconds']:.0f} s\n    % of true PSR: {moved}"


def means(rows: list[dict[str, Any]]) -> str:
    """Means over subjects."""
    lines = []
    for method, images in dict.fromkeys((row["method"], row["images"]) for row in rows):
        some = [row for row in rows if (row["method"], row["images"]) == (method, images)]
        text = f"{method}, {images}: white {np.mean([r['white'] for r in some]):.3f} (lowest "
        text += f"{min(r['white'] for r in some):.3f}), grey {np.mean([r['grey'] for r in some]):.3f} (lowest "
        text += f"{min(r['grey'] for r in some):.3f})"
        if "lesion_dice" in some[0]:
            total = {k: sum(r[k] for r in some) for k in ("found", "lesions", "right", "suggestions")}
            text += f", lesion Dice {np.mean([r['lesion_dice'] for r in some]):.2f}, found {total['found']} of "
            text += f"{total['lesions']}, right {total['right']} of {total['suggestions']}"
        lines.append(text)
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
