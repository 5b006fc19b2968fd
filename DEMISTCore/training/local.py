"""The first part of the mean (:mod:`DEMISTCore.networks.local`), fitted before its networks: a few minutes.

Crops are drawn as for training, and a few hundred voxels from each. All of them stay in memory, and every step sees
voxels of many scans. Descriptions of scans get noise of one standard deviation, and half of what becomes of them is
dropped: of a few hundred scans each has its own, and would be known by it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..networks import filters
from ..networks.local import Local, factors, linear_rows
from .arrays import kept
from .data import PreparedSession, random
from .groups import LocalSettings

Sample = dict[str, np.ndarray]
_MOST_CROPS = 40_000  # 2.5 GB of features


def wide_of(entry: PreparedSession) -> np.ndarray:
    """Wide features of a prepared scan, float32 (8, X/4 + 2, ...); kept beside the images."""

    def make() -> np.ndarray:
        return filters.wide(torch.from_numpy(np.asarray(entry.x, np.float32))[None])[0].numpy().astype(np.float16)

    return kept(entry.folder / "wide.npy", make).astype(np.float32)


def fit_local(local: Local, draw: Callable[[int], Sample], scans: int, settings: LocalSettings, seed: int) -> None:
    """Fit to voxels of crops.

    Args:
        local: the part; overwritten.
        draw: sample of a number: "x" (2, X, Y, Z), "y" and "labels" (1, X, Y, Z), "wide", "known" and, where PSR is not
            known everywhere, "psr_known".
        scans: in the data set.
        settings: how many crops, voxels, rounds.
        seed: of all that is random.

    Raises:
        InputError: the scans do not determine the line.
    """
    count = min(scans * settings.crops, _MOST_CROPS)
    rows, values, known = _voxels(draw, count, settings, seed)
    with torch.no_grad():
        _standardise(local, rows, known)
        _fit_line(local, rows, values)
        rest = values - linear_rows(rows.flatten(0, 1)).matmul(local.line).view_as(values)
        standard = local.standard_rows(rows)
    _learn(local, standard, rest, local.standard_scan(known).detach(), settings, seed)


def _voxels(draw: Callable[[int], Sample], count: int, s: LocalSettings, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features (crops, voxels, 28), PSR (crops, voxels) and descriptions (crops, KNOWN_WIDTH)."""
    from tqdm import tqdm

    rows, values, known = [], [], []
    for i in tqdm(range(count), desc="local: voxels", unit="crop"):
        sample, rng = draw(i), random(seed, "local", i)
        inside = (sample["labels"][0] > 0) & (sample["x"] != 0).any(0)
        if "psr_known" in sample:
            inside &= sample["psr_known"][0] > 0
        margin = min(filters.REACH, min(inside.shape) // 4)  # beyond the crop's faces features see nothing
        inner = np.zeros_like(inside)
        inner[(slice(margin, -margin or None),) * 3] = True
        there = np.argwhere(inside & inner)
        if not len(there):
            continue
        where = torch.from_numpy(there[rng.integers(len(there), size=s.voxels)])
        with torch.no_grad():
            rows.append(filters.rows(torch.from_numpy(sample["x"]), torch.from_numpy(sample["wide"]), where))
        values.append(torch.from_numpy(sample["y"][0].astype(np.float32))[tuple(where.T)])
        known.append(torch.from_numpy(sample["known"]))
    if not rows:
        raise InputError("The training scans cannot be used: no crop has brain voxels with a known PSR inside.")
    return torch.stack(rows), torch.stack(values), torch.stack(known).float()


def _standardise(local: Local, rows: Tensor, known: Tensor) -> None:
    flat = rows.flatten(0, 1)
    local.usual.copy_(flat.mean(0))
    local.spread.copy_(flat.std(0, correction=0) + 1e-4)
    described = known[:, : local.usual_scan.numel()]
    local.usual_scan.copy_(described.mean(0))
    local.spread_scan.copy_(described.std(0, correction=0) + 1e-3)


def _fit_line(local: Local, rows: Tensor, values: Tensor) -> None:
    """Least squares, in double precision."""
    x, y = linear_rows(rows.flatten(0, 1)).double(), values.flatten().double()
    gram = x.T @ x
    if not torch.isfinite(gram).all() or int(torch.linalg.matrix_rank(gram, hermitian=True)) < len(gram):
        raise InputError("The training scans cannot be used: T1w or FLAIR hardly vary, and tell nothing of PSR.")
    local.line.copy_(torch.linalg.solve(gram, x.T @ y))


def _learn(local: Local, rows: Tensor, rest: Tensor, scans: Tensor, s: LocalSettings, seed: int) -> None:
    """What the line misses, and how sure that is, by AdamW with a cosine to zero."""
    from tqdm import tqdm

    names = ("first", "second", "last", "sure", "told", "film")
    parameters = [p for name in names for p in getattr(local, name).parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=s.lr, weight_decay=s.weight_decay)
    generator = torch.Generator().manual_seed(seed)
    batch = min(s.batch, len(rows))
    steps = s.rounds * (len(rows) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    with torch.random.fork_rng(devices=[]), tqdm(total=steps, desc="local: fit", unit="step") as bar:
        torch.manual_seed(seed)  # of dropout
        for _ in range(s.rounds):
            order = torch.randperm(len(rows), generator=generator)
            for chosen in order[: len(order) // batch * batch].split(batch):
                noise = torch.randn(batch, scans.shape[1], generator=generator)
                semantic, adaptive = (torch.rand(2, batch, generator=generator) >= s.dropout).float()
                bends = local.bends(scans[chosen] + s.noise * noise, adaptive, s.dropout_scan)
                standard = rows[chosen] * factors(torch.ones(batch), semantic)[:, None]
                beyond, sure = local.beyond(standard, bends)
                residual = (rest[chosen] - beyond) / s.error_scale
                sure = sure - float(np.log(s.error_scale * np.sqrt(2)))
                surprise = residual.detach().abs() * torch.exp(-sure) + sure
                (F.mse_loss(residual, torch.zeros_like(residual)) + 0.1 * surprise.mean()).backward()
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
                bar.update()
