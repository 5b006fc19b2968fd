"""Do Brain LDM's conditions steer? ``python benchmarks/brain_ldm_steering.py --data BIDS --out FOLDER``.

The published weights are not needed: a Brain LDM of the same code and small widths is trained on simulated T1w whose
ventricular and brain volumes are known (``python -m DEMISTCore.simulate``), written in the published format, loaded by
``BrainLDM.from_pretrained``, and asked for brains with small to large ventricles. In its samples the ventricles are
measured in the same way as in the simulated scans: fluid deeper than 18 mm below the brain's surface.

Writes ``steering.json`` (Spearman's rank correlation of measured volume and condition), ``steering.png`` and the model.
With the same ``--out`` again, the U-Net goes on from there, for ``--unet-minutes`` more.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

SHAPE, SPACING = (64, 64, 64), 3.0
PATCH, PATCHES = 32, 0.6  # voxels, and for how much of the VAE's training
DEPTH = 18.0  # mm; what lies deeper is ventricle, not sulcus


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="simulated BIDS data set with truth")
    p.add_argument("--out", type=Path, required=True, help="folder for model, numbers and figure")
    p.add_argument("--scans", type=int, default=2, help="sessions of each subject to use (default: %(default)s)")
    p.add_argument("--vae-minutes", type=float, default=13.0, help="training of the VAE (default: %(default)s)")
    p.add_argument("--unet-minutes", type=float, default=18.0, help="training of the U-Net (default: %(default)s)")
    p.add_argument("--samples", type=int, default=40, help="brains to sample (default: %(default)s)")
    p.add_argument("--steps", type=int, default=30, help="of DDIM (default: %(default)s)")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Train, sample, measure."""
    args = parser().parse_args(argv)
    import torch
    from scipy.stats import spearmanr

    from DEMISTCore import BrainLDM
    from DEMISTCore.networks.autoencoder import build_autoencoder
    from DEMISTCore.networks.brain_ldm import BRAIN_LDM_UNET, BRAIN_LDM_VAE, CONDITIONS, build_unet
    from DEMISTCore.published.ddim import Scheduler
    from DEMISTCore.published.folder import write_folder

    # As in the inference.json that is published with the weights. Under the card's linear schedule noise at time 1000
    # outweighs the image 160 times, and a training of minutes learns too little there: samples drift.
    schedule = Scheduler("scaled_linear", 0.0015, 0.0205)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    images, ventricles, brains = load(args.data, args.scans, args.out / "scans.npz")
    print(f"{len(images)} scans; ventricles {ventricles.min():.0f} to {ventricles.max():.0f} ml", flush=True)
    seen = np.array([measure(image) for image in images[::4]])  # the others are flipped, or of the same brains
    print(f"measured against true in the scans: Spearman {spearmanr(seen, ventricles[::4])[0]:.3f}", flush=True)
    x = torch.from_numpy(images)[:, None]
    ranks = torch.tensor(np.stack([rank(ventricles), rank(brains)], 1), dtype=torch.float32)
    context = torch.full((len(x), 1, 4), 0.5)
    for column, name in enumerate(("ventricular_volume", "brain_volume")):
        context[:, 0, CONDITIONS.index(name)] = ranks[:, column]

    folder = args.out / "model"
    if folder.exists():
        before = BrainLDM.from_pretrained(folder, device="cpu")
        vae_cfg, vae = before.source.autoencoder_config, before.vae.network
        unet_cfg, unet = before.source.unet_config, before.unet.requires_grad_(True)
    else:
        vae_cfg = replace(BRAIN_LDM_VAE, channels=(8, 16, 32, 32), num_res_blocks=1, norm_groups=8)
        vae = build_autoencoder(vae_cfg)
        train_vae(vae, x, 60 * args.vae_minutes)
        unet_cfg = replace(BRAIN_LDM_UNET, channels=(32, 64, 96), head_channels=(0, 64, 96), norm_groups=8)
        unet = build_unet(unet_cfg)
    vae.eval().requires_grad_(False)
    latents = to_unit_variance(vae, torch.cat([vae.encode(part)[0] for part in x.split(4)]))
    unet = train_unet(unet, latents, context, schedule, 60 * args.unet_minutes)

    with tempfile.TemporaryDirectory(dir=args.out) as building:
        write_folder(
            Path(building),
            autoencoder=(vae_cfg, vae),
            unet=(unet_cfg, unet),
            scheduler=schedule,
            conditions=CONDITIONS,
            latent_shape=tuple(n // 8 for n in SHAPE),
            title="Brain LDM, small, simulated",
            names="generative",
        )
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(building, folder)
    model = BrainLDM.from_pretrained(folder, device="cpu")
    asked = np.linspace(0, 1, args.samples)
    drawn = [
        model.sample(ventricular_volume=float(v), seed=i, steps=args.steps, shape=SHAPE).array
        for i, v in enumerate(np.random.default_rng(0).permutation(asked))
    ]
    asked = np.random.default_rng(0).permutation(asked)
    got = np.array([measure(image) for image in drawn])
    correlation, p = spearmanr(asked, got)
    told = {
        "samples": len(got),
        "spearman": float(correlation),
        "p": float(p),
        "scans": len(images),
        "asked": asked.tolist(),
        "measured_ml": got.tolist(),
        "steps": args.steps,
    }
    (args.out / "steering.json").write_text(json.dumps(told, indent=1) + "\n")
    figure(asked, got, drawn, correlation, args.out / "steering.png")
    print(f"Spearman of ventricular volume with its condition over {len(got)} samples: {correlation:.3f}")
    return 0


def load(data: Path, scans: int, cache: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Brains (N, X, Y, Z) with white matter near 0.6, ventricular and brain volumes in ml; kept in ``cache``."""
    if cache.exists():
        stored = np.load(cache)
        return stored["images"], stored["ventricles"], stored["brains"]
    from scipy.ndimage import distance_transform_edt

    from DEMISTCore.volume import Grid, Volume

    images, ventricles, brains = [], [], []
    for truth in sorted((data / "derivatives" / "truth").glob("sub-*")):
        labels = Volume.read(next(truth.rglob("*_desc-tissue_dseg.nii.gz")))
        brain = labels.with_array((Volume.read(next(truth.rglob("*brain_mask.nii.gz"))).array > 0).astype(np.float32))
        inside = np.argwhere(brain.array > 0)
        middle = brain.grid.to_world((inside.min(0) + inside.max(0)) / 2)
        affine = np.diag([SPACING, SPACING, SPACING, 1.0])
        affine[:3, 3] = middle - (np.array(SHAPE) - 1) / 2 * SPACING
        grid = Grid(SHAPE, affine)
        # Every second voxel is enough for a volume, and eight times as fast.
        coarse, sides = np.s_[::2, ::2, ::2], [2 * n for n in brain.spacing]
        depth = distance_transform_edt(brain.array[coarse] > 0, sides)
        volume = float(((labels.array[coarse] == 1) & (depth > DEPTH)).sum()) * 8 * brain.grid.voxel_volume_ml
        mask = brain.resampled_to(grid).array
        for file in sorted((data / truth.name).rglob("*_T1w.nii.gz"))[:scans]:
            t1w = Volume.read(file).resampled_to(grid).array
            image = t1w * mask
            image = (0.6 * image / np.percentile(image[mask > 0.9], 75)).clip(0, 1.2).astype(np.float32)
            for flipped in (image, image[::-1]):
                images.append(flipped)
                ventricles.append(volume)
                brains.append(len(inside) * brain.grid.voxel_volume_ml)
    result = np.ascontiguousarray(images), np.array(ventricles), np.array(brains)
    np.savez(cache, images=result[0], ventricles=result[1], brains=result[2])
    return result


def measure(image: np.ndarray) -> float:
    """Ventricular volume, ml: fluid (under half of the tissue's usual grey) deep below the brain's surface."""
    from scipy.ndimage import binary_closing, binary_fill_holes, distance_transform_edt, gaussian_filter, label

    tissue = np.median(image[image > 0.3]) if (image > 0.3).any() else 1.0
    mask = gaussian_filter(image, 0.7) > 0.4 * tissue
    mask = binary_fill_holes(binary_closing(np.pad(mask, 4), iterations=3))[4:-4, 4:-4, 4:-4]
    parts, _ = label(mask)
    mask = parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1 if parts.any() else mask
    deep = distance_transform_edt(mask, SPACING) > DEPTH
    # How far a voxel lies between tissue and fluid tells how much of it is fluid.
    fluid = ((0.8 * tissue - image) / (0.6 * tissue)).clip(0, 1)
    return float(fluid[deep].sum() * SPACING**3 / 1000)


def rank(values: np.ndarray) -> np.ndarray:
    """Percentiles, 0 to 1."""
    from scipy.stats import rankdata

    return (rankdata(values) - 0.5) / len(values)


def batches(n: int, size: int, seconds: float, name: str) -> Iterator[tuple[float, list[int]]]:
    """(share of the time that is over, indices) until the time is up."""
    rng, start, step = np.random.default_rng(0), time.monotonic(), 0
    while (share := (time.monotonic() - start) / seconds) < 1:
        yield share, rng.choice(n, size, replace=False).tolist()
        step += 1
    print(f"{name}: {step} steps in {seconds / 60:.1f} minutes", flush=True)


def train_vae(vae, x, seconds: float) -> None:
    """L1 and a little KL; first on pairs of patches, where steps are cheap, then on whole volumes, one at a time."""
    import torch

    optimiser = torch.optim.AdamW(vae.parameters(), 2e-3, weight_decay=0)
    for share, which in batches(len(x), 2, seconds, "VAE"):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1.0, 20 * share) * (1 - share)
        image = patches(x[which], PATCH) if share < PATCHES else x[which[:1]]
        mu, sigma = vae.encode(image)
        z = mu + sigma * torch.randn_like(mu)
        loss = (vae.decode(z) - image).abs().mean()
        loss = loss + 1e-5 * 0.5 * (mu**2 + sigma**2 - 2 * sigma.log() - 1).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
    print(f"VAE: last loss {loss.item():.4f}", flush=True)


def patches(x, size: int):
    """A random cube of ``size`` out of each volume of (B, C, X, Y, Z)."""
    import torch

    starts = torch.stack([torch.randint(0, n - size + 1, (len(x),)) for n in x.shape[2:]], 1).tolist()
    return torch.stack([v[:, a : a + size, b : b + size, c : c + size] for v, (a, b, c) in zip(x, starts)])


def to_unit_variance(vae, latents):
    """Brain LDM has no latent scale: put it into the VAE's own outermost layers, exactly."""
    import torch

    scale = 1 / float(latents.std())
    with torch.no_grad():
        vae.quant_conv_mu.conv.weight.mul_(scale)
        vae.quant_conv_mu.conv.bias.mul_(scale)
        vae.quant_conv_log_sigma.conv.bias.add_(2 * np.log(scale))
        vae.post_quant_conv.conv.weight.div_(scale)
    return latents * scale


def train_unet(unet, latents, context, scheduler, seconds: float):
    """Noise prediction, its error counted in z_0 where that is not out of all proportion; averaged weights.

    An error of epsilon is sigma / alpha times as large in z_0. Counted as epsilon's, the noisiest times, where the
    conditions decide, would hardly be learnt in a few minutes.
    """
    import torch

    average = {name: value.clone() for name, value in unet.state_dict().items()}
    optimiser = torch.optim.AdamW(unet.parameters(), 5e-4, weight_decay=0)
    recent = []
    for share, which in batches(len(latents), 16, seconds, "U-Net"):
        for group in optimiser.param_groups:
            group["lr"] = 5e-4 * min(1.0, 20 * share) * (1 - share)
        z0, told = latents[which], context[which]
        # Spread evenly over all times within a batch: less noise in the gradient.
        t = ((torch.arange(len(which)) + torch.rand(1)) / len(which) * scheduler.steps).long()
        noise = torch.randn_like(z0)
        abar = scheduler.alphas_cumprod[t][:, None, None, None, None]
        error = (unet(abar.sqrt() * z0 + (1 - abar).sqrt() * noise, t, told) - noise).square()
        loss = (error / abar.clamp_min(0.01)).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimiser.step()
        recent = [*recent[-49:], loss.item()]
        with torch.no_grad():
            for name, value in unet.state_dict().items():
                average[name].lerp_(value, 0.01)
    print(f"U-Net: last losses {np.mean(recent):.4f}", flush=True)
    unet.load_state_dict(average)
    return unet.eval().requires_grad_(False)


def figure(asked: np.ndarray, got: np.ndarray, drawn: list[np.ndarray], correlation: float, path: Path) -> None:
    """Samples from small to large condition above, all measurements below."""
    from matplotlib.figure import Figure

    from DEMISTCore.preview import save_figure

    chosen = np.argsort(asked)[np.linspace(0, len(asked) - 1, 6).round().astype(int)]
    drawing = Figure(figsize=(9, 5.2), layout="constrained")
    top, bottom = drawing.subfigures(2, 1, height_ratios=(1, 1.6))
    for axes, i in zip(top.subplots(1, 6), chosen):
        axes.imshow(drawn[i][:, :, SHAPE[2] // 2 + 2].T, cmap="gray", vmin=0, vmax=0.9, origin="lower")
        axes.set_title(f"{asked[i]:.2f}", fontsize=9)
        axes.set_axis_off()
    axes = bottom.subplots()
    axes.scatter(asked, got, s=16, color="tab:blue")
    axes.set_xlabel("condition: ventricular volume (rank, 0 to 1)")
    axes.set_ylabel("measured in the sample, ml")
    axes.set_title(f"{len(got)} samples, Spearman {correlation:.2f}", fontsize=10)
    axes.grid(alpha=0.3)
    save_figure(drawing, path)


if __name__ == "__main__":
    sys.exit(main())
