"""What a voxel and its surroundings say of PSR: a small perceptron on measured features, the beginning of the mean.

    y_local = w . q(phi) + M(phi_near, phi_wide; d),   log s_local = S(phi_near, phi_wide, M's features; d)

phi are the features of :mod:`.filters`, q ten of them and their products (the linear baseline's, :mod:`DEMISTCore.
baselines.linear`), d the description of the scan (:func:`.knowledge.describe`). Each stream knows something that the
others do not, and can be switched off: *spatial* the scans near the voxel at their own resolution; *semantic* the whole
volume at low resolution; *adaptive* the scanner, which bends every layer (FiLM, Perez et al., AAAI 2018), for what a
grey value is worth hangs on it.

Voxels drawn from all scans at once are worth far more to a learner than the same number side by side in a crop: this
part is fitted in minutes (:mod:`DEMISTCore.training.local`), before networks learn on crops what it misses.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import filters
from .knowledge import DESCRIPTION_WIDTH

LINEAR = 10
#: Voxels at a time: their hidden layers stay in a core's own cache; other devices are kept busy by more.
_AT_ONCE_CPU, _AT_ONCE = 1 << 13, 1 << 17


def linear_rows(rows: Tensor) -> Tensor:
    """Ten columns (n, 10) of near features (n, >= 6): t, f, how far four Gaussians lie from them, products, one."""
    t, f = rows[:, :1], rows[:, 1:2]
    return torch.cat([rows[:, :6], t * t, f * f, t * f, torch.ones_like(t)], 1)


def factors(spatial: Tensor, semantic: Tensor) -> Tensor:
    """What standard features are multiplied by, (..., 28): where a stream (...) is 0, its own are as usual."""
    parts = zip((spatial, semantic), (filters.NEAR, filters.WIDE))
    return torch.cat([on[..., None].expand(*on.shape, count) for on, count in parts], -1)


class Local(nn.Module):
    """See the module's text. All zero, with a standard deviation of exp(-3), until it is fitted.

    Args:
        width: of the two hidden layers.
        hidden: numbers that the description of the scan becomes.
    """

    def __init__(self, width: int = 128, hidden: int = 32) -> None:
        super().__init__()
        count = filters.NEAR + filters.WIDE
        self.line = nn.Parameter(torch.zeros(LINEAR))
        self.usual, self.spread = nn.Parameter(torch.zeros(count)), nn.Parameter(torch.ones(count))
        self.usual_scan = nn.Parameter(torch.zeros(DESCRIPTION_WIDTH))
        self.spread_scan = nn.Parameter(torch.ones(DESCRIPTION_WIDTH))
        self.first, self.second = nn.Linear(count, width), nn.Linear(width, width)
        self.last = nn.Linear(width, 1)
        self.sure = nn.Sequential(nn.Linear(width + count, width // 2), nn.SiLU(), nn.Linear(width // 2, 1))
        self.told, self.film = nn.Linear(DESCRIPTION_WIDTH, hidden), nn.Linear(hidden, 4 * width)
        for layer in (self.last, self.sure[-1], self.film):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.sure[-1].bias, -3.0)

    def standard_scan(self, known: Tensor) -> Tensor:
        """Descriptions (B, >= 73) less the training scans' mean, in units of their standard deviation, -3 to 3.

        Returns (B, 73), of the first columns.
        """
        return ((known[:, :DESCRIPTION_WIDTH].float() - self.usual_scan) / self.spread_scan).clamp(-3, 3)

    def standard_rows(self, rows: Tensor) -> Tensor:
        """Features (..., 28) likewise, -5 to 5."""
        return ((rows - self.usual) / self.spread).clamp(-5, 5)

    def bends(self, scan: Tensor, keep: Tensor | None = None, dropout: float = 0.0) -> Tensor:
        """FiLM (B, 4, width) of standard descriptions (B, 73); ``keep`` (B,) is 0 where the stream is dropped."""
        told = self.film(F.dropout(F.silu(self.told(scan)), dropout, training=dropout > 0))
        return (told if keep is None else told * keep.to(told)[:, None]).unflatten(1, (4, -1))

    def forward(
        self,
        x: Tensor,
        coarse: Tensor,
        known: Tensor | None,
        semantic: bool = True,
        spatial: bool = True,
        *,
        keep: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation in units of the PSR range, two (B, 1, X, Y, Z) float32, without gradients.

        Outside the brain (x = 0) the mean is 0.

        Args:
            x: T1w and FLAIR, (B, 2, X, Y, Z), extents multiples of 4.
            coarse: :func:`.filters.wide` of the whole volume, at x: (B, 8, X/4 + 2, ...).
            known: (B, >= 73), or None: adaptive stream off.
            semantic, spatial: False: nothing is known of the whole volume, or of the voxel's surroundings.
            keep: by stream, (B,) of 0 and 1.
        """
        keep = keep or {}
        with torch.no_grad(), torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            mean = torch.zeros_like(x[:, :1], dtype=torch.float32)
            sure = torch.full_like(mean, -3.0)
            for i, volume in enumerate(x.float()):
                off = torch.zeros(1, 4, self.first.out_features, device=x.device)
                kept = {name: value[i : i + 1] for name, value in keep.items()}
                bends = off if known is None else self.bends(self.standard_scan(known[i : i + 1]), kept.get("adaptive"))
                whole = semantic and bool(kept.get("semantic", torch.ones(1)) > 0)
                near = spatial and bool(kept.get("spatial", torch.ones(1)) > 0)
                some_voxels = _AT_ONCE_CPU if x.device.type == "cpu" else _AT_ONCE
                for where, rows in filters.slabs(volume, coarse[i].float()):
                    for at, some in zip(where.split(some_voxels), rows.split(some_voxels)):
                        values = self.at(some, bends[0], whole, near)
                        for image, value in zip((mean, sure), values):
                            image[(i, 0, *at.T)] = value
        return mean, sure

    def at(self, rows: Tensor, bends: Tensor, semantic: bool = True, spatial: bool = True) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, (n,) each, of features (n, 28) of one scan and its FiLM (4, width)."""
        on = factors(*(torch.tensor(float(stream), device=rows.device) for stream in (spatial, semantic)))
        beyond, sure = self._beyond_of_one(self.standard_rows(rows) * on, bends)
        return linear_rows(rows if spatial else self.usual.expand_as(rows)) @ self.line + beyond, sure

    def _beyond_of_one(self, standard: Tensor, bends: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`beyond` of voxels (n, 28) of one scan: its FiLM (4, width) goes into the weights, not over voxels."""
        a, b, c, d = bends
        h = F.linear(standard, self.first.weight * (1 + a)[:, None], self.first.bias * (1 + a) + b)
        h = F.linear(F.silu(h, inplace=True), self.second.weight * (1 + c)[:, None], self.second.bias * (1 + c) + d)
        h = F.silu(h, inplace=True)
        inner, _, outer = self.sure
        width = h.shape[1]
        told = F.linear(h, inner.weight[:, :width]) + F.linear(standard, inner.weight[:, width:], inner.bias)
        return self.last(h)[:, 0], outer(F.silu(told, inplace=True))[:, 0]

    def beyond(self, standard: Tensor, bends: Tensor) -> tuple[Tensor, Tensor]:
        """What the line misses, and the log standard deviation, (..., n) each.

        Of standard rows (..., n, 28) and FiLM (..., 4, width).

        How sure the mean is does not move the mean: its features are detached.
        """
        a, b, c, d = (part[..., None, :] for part in bends.unbind(-2))
        h = F.silu(self.first(standard) * (1 + a) + b)
        h = F.silu(self.second(h) * (1 + c) + d)
        return self.last(h)[..., 0], self.sure(torch.cat([h.detach(), standard], -1))[..., 0]

    @staticmethod
    def stream_of(name: str) -> str:
        """Which stream a parameter belongs to."""
        return "adaptive" if name.split(".")[0] in ("told", "film", "usual_scan", "spread_scan") else "spatial"
