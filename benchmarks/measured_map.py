"""A measured PSR map put to the test: through the PSR autoencoder, and through T1w and FLAIR simulated from it.

python benchmarks/measured_map.py --psr psr_percent.nii.gz --brain-mask brain_mask.nii.gz --out results

A measured map has what simulated ones lack: real tracts, real noise, a real scanner's scale. No T1w or FLAIR of the
person are needed, for they follow from the map: each voxel is a mixture of fluid and grey matter below the map's own
grey-matter PSR, of grey and white matter between that and white matter's, and pure white matter above, which is the
measured PSR again. Scanners are drawn as for every simulated person (two-pool signals), without movement. What
synthesis makes of the pair is compared with the map; nothing of it was ever trained on.

Everything is measured in the brain mask, where the map is known, four slices off the slab's ends.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np

from DEMISTCore import metrics, synthesize
from DEMISTCore.bundle import DEFAULT_BUNDLE, load_bundle
from DEMISTCore.measured import filled, read_measured
from DEMISTCore.simulate.lesions import no_lesions
from DEMISTCore.simulate.protocol import draw_protocol
from DEMISTCore.simulate.scanner import acquire
from DEMISTCore.simulate.subject import Subject
from DEMISTCore.simulate.tissues import CLASS_INDEX, CLASSES, CSF, EXTRA, GREY, WHITE
from DEMISTCore.volume import Grid, Volume

FLUID = 0.015  # below, there is hardly any tissue
END_MM = 9.0  # kept off the slab's ends
MARGIN = 8  # mm around the brain


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--psr", type=Path, required=True, help="measured map, percent or fraction")
    p.add_argument("--brain-mask", type=Path, required=True, help="brain on the map's grid")
    p.add_argument("--out", type=Path, required=True, help="folder of table and picture")
    p.add_argument("--bundle", default=DEFAULT_BUNDLE, help="model (default: %(default)s)")
    p.add_argument("--scanners", type=int, default=4, help="scanners drawn (default: %(default)s)")
    p.add_argument("--seed", type=int, default=900_000, help="of the scanners (default: %(default)s)")
    p.add_argument(
        "--check",
        action="store_true",
        help="write the map as it is, beside the first scanner's T1w and FLAIR, as a data set, have `train check` look "
        "at it (OUT/check), and end",
    )
    return p


def main() -> int:
    """Measure, print and write a table."""
    args = parser().parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    bundle = load_bundle(args.bundle)
    truth, known, slab = on_isotropic_grid(args.psr, args.brain_mask)
    grey, white = tissue_levels(truth.array[known])
    person = person_of(truth, known, grey, white)
    judged = known & slab
    tissues = {
        "CSF": truth.array < FLUID,
        "grey matter": abs(truth.array - grey) < 0.2 * grey,
        "white matter": truth.array > (grey + white) / 2,
        "all": np.ones(known.shape, bool),
    }
    tissues = {name: where & judged for name, where in tissues.items()}
    print(f"grey {grey:.4f}, white {white:.4f}, {np.count_nonzero(judged) / 1000:.0f} ml judged")
    told = {"grey": grey, "white": white, "autoencoder": through_autoencoder(bundle, truth, known, judged)}
    print(f"PSR autoencoder: {told['autoencoder']:.2f} dB")
    told["scanners"] = []
    for k in range(args.scanners):
        rng = np.random.default_rng([args.seed, k])
        drawn = draw_protocol(
            rng, bias=0.1, misregistration_mm=0, misregistration_deg=0, thick_slices=0, obliquity_deg=0
        )
        scan = acquire(person, drawn, rng)
        mask = Volume(known.astype(np.uint8), truth.affine)
        if args.check:
            return check(args, scan, mask)
        made = synthesize(
            scan.t1w,
            scan.flair,
            bundle=bundle,
            mode="mean",
            brain_mask=mask,
            any_brain_volume=True,
            uncertainty=True,
            protocol=None,
        )
        psr = made.psr.resampled_to(truth.grid, "bspline").array
        sd = made.uncertainty.resampled_to(truth.grid, "linear").array
        row = {"sequence": drawn.t1_sequence, "tesla": drawn.field_strength}
        row |= judge(psr, sd, truth.array, tissues, bundle)
        told["scanners"].append(row)
        print(json.dumps(row))
        if k == 0:
            picture(
                args.out / "measured_map.png",
                scan.t1w.resampled_to(truth.grid, "linear").array,
                truth.array,
                psr,
                judged,
            )
    (args.out / "measured_map.json").write_text(json.dumps(told, indent=1) + "\n")
    return 0


def check(args: argparse.Namespace, scan, brain: Volume) -> int:
    """The map as a lab has it (its file, untouched), and what ``train check`` says of it; its exit code."""
    from DEMISTCore import train

    root = args.out / "bids"
    anat, qmt = root / "sub-01" / "anat", root / "derivatives" / "qmt" / "sub-01" / "anat"
    for folder in (anat, qmt):
        folder.mkdir(parents=True, exist_ok=True)
    for name, kind in (("measured", "raw"), ("qmt", "derivative")):
        place = root if kind == "raw" else root / "derivatives" / "qmt"
        told = {"Name": name, "BIDSVersion": "1.9.0", "DatasetType": kind}
        (place / "dataset_description.json").write_text(json.dumps(told) + "\n")
    # To where the map lies by its own header, which may say nothing of it.
    there = Volume.read(args.psr).affine @ np.linalg.inv(Volume.read(args.brain_mask).affine)
    for volume, path in (
        (scan.t1w, anat / "sub-01_T1w.nii.gz"),
        (scan.flair, anat / "sub-01_FLAIR.nii.gz"),
        (brain, qmt / "sub-01_desc-brain_mask.nii.gz"),
    ):
        Volume(volume.array, there @ volume.affine).write(path)
    shutil.copyfile(args.psr, qmt / "sub-01_PSRmap.nii.gz")
    return train.main(["check", "--data", str(root), "--out", str(args.out / "check")])


def on_isotropic_grid(psr: Path, mask: Path) -> tuple[Volume, np.ndarray, np.ndarray]:
    """The map at 1 mm in fractions, where it is known inside the brain, and what is off the slab's ends."""
    brain = Volume.read(mask)
    image = Volume.read(psr)
    if image.shape == brain.shape:  # a map that has lost its orientation lies where its mask does
        image = Volume(image.array, brain.affine, image.path)
    measured = read_measured(image, zeros="unknown")
    corners = np.argwhere(brain.array > 0.5)
    low, high = corners.min(0), corners.max(0) + 1
    spacing = np.array(measured.psr.grid.spacing)
    directions = measured.psr.affine[:3, :3] / spacing
    shape = tuple(int(n) for n in np.ceil((high - low) * spacing) + 2 * MARGIN)
    affine = np.eye(4)
    affine[:3, :3] = directions
    first = measured.psr.affine[:3, :3] @ (low - 0.5) + measured.psr.affine[:3, 3]
    affine[:3, 3] = first - directions @ np.full(3, MARGIN - 0.5)
    grid = Grid(shape, affine)
    values, known = measured.on_grid(grid)
    inside = brain.resampled_to(grid, "nearest").array > 0.5
    axis = int(np.argmax(spacing))
    along = (np.arange(shape[axis]) - MARGIN + 0.5) / 1.0
    slab = (along > END_MM) & (along < (high - low)[axis] * spacing[axis] - END_MM)
    slab = slab.reshape([-1 if k == axis else 1 for k in range(3)])
    known = known & inside
    clean = filled(values, known, np.stack([values, values]), inside)
    return Volume(np.where(inside, np.clip(clean, 0, 0.25), 0).astype(np.float32), affine), known, slab


def tissue_levels(values: np.ndarray) -> tuple[float, float]:
    """PSR of grey and of white matter: the two upper means of three Gaussians."""
    from sklearn.mixture import GaussianMixture

    sample = np.random.default_rng(0).choice(values[np.isfinite(values)], 50_000).reshape(-1, 1)
    means = GaussianMixture(3, random_state=0, means_init=[[0.01], [0.06], [0.12]]).fit(sample).means_.ravel()
    return tuple(float(v) for v in np.sort(means)[1:])  # type: ignore[return-value]


def person_of(truth: Volume, known: np.ndarray, grey: float, white: float) -> Subject:
    """The person whose PSR this is: shares of the compartments that add up to it exactly."""
    y = truth.array
    shares = {
        WHITE: np.clip((y - grey) / (white - grey), 0, 1),
        CSF: np.clip(1 - y / grey, 0, 1),
        EXTRA: np.zeros_like(y),
    }
    inside = (y > 0) | known
    shares[GREY] = 1 - shares[WHITE] - shares[CSF]
    shares = {key: np.where(inside, share, 0).astype(np.float32) for key, share in shares.items()}
    kinds = {
        WHITE: CLASSES[CLASS_INDEX["white matter"]],
        GREY: CLASSES[CLASS_INDEX["cortex"]],
        CSF: CLASSES[CLASS_INDEX["outer CSF"]],
    }
    flat = {name: {key: np.full_like(y, getattr(kind, name)) for key, kind in kinds.items()} for name in ("r2", "pd")}
    nothing = np.zeros_like(y)
    labels = np.where(y > (grey + white) / 2, 3, np.where(y > grey / 2, 2, 1)).astype(np.uint8) * inside
    return Subject(
        affine=truth.affine,
        psr=y,
        dseg=labels,
        brain=inside,
        lesions=no_lesions(y.shape),
        fractions=shares,
        compartment_psr={WHITE: np.maximum(y, white), GREY: np.full_like(y, grey)},
        r2=flat["r2"],
        pd=flat["pd"],
        extra=np.zeros(y.shape, np.uint8),
        water=nothing,
        lesion_r1=nothing,
        r1_factor=np.ones_like(y),
        true_fractions={key: shares[key] for key in (WHITE, GREY, CSF)},
    )


def through_autoencoder(bundle, truth: Volume, known: np.ndarray, judged: np.ndarray) -> float:
    """PSNR (dB) of what the PSR autoencoder makes of the map itself, on the model's grid."""
    import torch

    from DEMISTCore.decoding import decode
    from DEMISTCore.preprocess.pipeline import model_grid

    grid = model_grid(truth.with_array(known.astype(np.uint8)), bundle.spacing, multiple=bundle.config.multiple)
    there = truth.resampled_to(grid, "bspline").array
    network = bundle.autoencoder_psr
    with torch.no_grad():
        mu, _ = network.encode(torch.from_numpy(there / bundle.psr_range)[None, None])
        back = decode(network, mu)[0, 0].numpy() * bundle.psr_range
    where = Volume(judged.astype(np.uint8), truth.affine).resampled_to(grid, "nearest").array > 0
    return float(metrics.psnr(np.maximum(back, 0), np.maximum(there, 0), where))


def judge(psr: np.ndarray, sd: np.ndarray, truth: np.ndarray, tissues: dict[str, np.ndarray], bundle) -> dict:
    """PSNR, errors of tissue means (%), contrast within white matter, and how often 90 % intervals hold."""
    from scipy.ndimage import gaussian_filter

    everywhere, white = tissues["all"], tissues["white matter"]
    row = {"psnr": metrics.psnr(psr, truth, everywhere)}
    factor = float((psr[everywhere] * truth[everywhere]).sum() / (psr[everywhere] ** 2).sum())
    row["psnr_scaled"] = metrics.psnr(psr * factor, truth, everywhere)
    row["scale_error_percent"] = 100 * (1 / factor - 1)
    low, high = bundle.calibration.voxel_interval(psr, sd, 0.9)
    for name, where in tissues.items():
        key = name.replace(" ", "_").lower()
        row[f"{key}_truth"], row[f"{key}_mean"] = float(truth[where].mean()), float(psr[where].mean())
        row[f"{key}_coverage_90"] = float(((low <= truth) & (truth <= high))[where].mean())
    # Tracts: what differs over centimetres within white matter, without what a voxel's noise adds.
    weight = gaussian_filter(white.astype(np.float32), 3) + 1e-6
    smooth = [gaussian_filter(np.where(white, image, 0), 3) / weight for image in (truth, psr)]
    row["tract_correlation"] = float(np.corrcoef(smooth[0][white], smooth[1][white])[0, 1])
    row["tract_sd_ratio"] = float(smooth[1][white].std() / smooth[0][white].std())
    return {key: value if isinstance(value, str) else round(float(value), 4) for key, value in row.items()}


def picture(path: Path, t1w: np.ndarray, truth: np.ndarray, psr: np.ndarray, judged: np.ndarray) -> None:
    """The middle slice: T1w, measured and synthesized PSR, their difference."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    k = truth.shape[2] // 2
    figure, axes = pyplot.subplots(1, 4, figsize=(16, 5))
    difference = np.where(judged, psr - truth, 0)
    for ax, image, low, high, title, colors in zip(
        axes,
        (t1w, truth, psr, difference),
        (0, 0, 0, -0.05),
        (np.percentile(t1w, 99.5), 0.2, 0.2, 0.05),
        ("T1w simulated from the map", "measured PSR", "synthesized PSR", "difference"),
        ("gray", "viridis", "viridis", "RdBu_r"),
        strict=True,
    ):
        shown = ax.imshow(image[:, :, k].T, origin="lower", vmin=low, vmax=high, cmap=colors)
        ax.set_title(title)
        ax.axis("off")
        figure.colorbar(shown, ax=ax, fraction=0.04)
    figure.savefig(path, dpi=80, bbox_inches="tight")


if __name__ == "__main__":
    raise SystemExit(main())
