"""Coarse maps of a cohort made as sharp as a trained mean would have them, for stages that learn from latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from ..devices import pick_device
from ..networks.autoencoder import encode
from ..networks.mean import PosteriorMean
from .arrays import kept
from .data import SHARP, PreparedSession
from .foundation import Foundation
from .groups import LatentSettings
from .loop import autocast, frozen_hash
from .mean import known_of
from .resolution import sharp_target


def sharpened(
    entries: Sequence[PreparedSession], mean: PosteriorMean, foundation: Foundation, settings: LatentSettings
) -> list[PreparedSession]:
    """The entries, those with a coarse map with :func:`.resolution.sharp_target` of it and of the network's own map.

    An encoder makes other latents of a coarse map than of a sharp one, and cannot be told what its scan did not see.
    Made once for each network, a volume each, and kept beside the prepared scans. Left as they are where tokens would
    need latents whose scale is not known yet (a published backbone's).
    """
    from tqdm import tqdm

    coarse = [entry for entry in entries if entry.blur is not None]
    if not coarse or (mean.cfg.semantic and foundation.condition_scale is None):
        return list(entries)
    mark = frozen_hash(mean)[:12]
    device, training = pick_device(settings.device), mean.training
    mean.to(device).eval()
    result = {entry.key: entry for entry in entries}
    for entry in tqdm(coarse, desc="sharpen", unit="session"):
        name = f"{SHARP}{mark}-{entry.map}"
        kept(entry.folder / name, partial(_sharp, entry, mean, foundation, settings, device))
        result[entry.key] = replace(entry, key=f"{entry.key}-{mark}", map=name)
    mean.train(training)
    return [result[entry.key] for entry in entries]


@torch.no_grad()
def _sharp(
    entry: PreparedSession,
    mean: PosteriorMean,
    foundation: Foundation,
    settings: LatentSettings,
    device: torch.device,
) -> np.ndarray:
    """The map (X, Y, Z), float16 fraction."""
    x = torch.from_numpy(np.array(entry.x, np.float32))[None].to(device)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    known = torch.from_numpy(known_of(entry))[None].to(device)
    with autocast(device, settings.precision):
        c = None
        if mean.cfg.semantic:  # only tokens read it
            c = encode(foundation.condition.to(device), x).float() * foundation.condition_scale
        y_hat, _ = mean.decode(mean.see(x, c, known))
    y = torch.from_numpy(np.array(entry.y, np.float32))[None, None].to(device) / foundation.psr_range
    blur = torch.from_numpy(np.array(entry.blur))[None].to(device)
    sharp = sharp_target(y_hat.float(), y, x, blur) * foundation.psr_range
    return sharp[0, 0].cpu().numpy().astype(np.float16)
