"""Noise schedule, samplers and per-stream guidance.

Time runs over the integers t = 0 .. steps-1, t = 0 the least noisy. With abar_t the cumulative product of (1 - beta),

    z_t = alpha_t z_0 + sigma_t eps,    alpha_t = sqrt(abar_t),  sigma_t = sqrt(1 - abar_t),  eps ~ N(0, I)

and z_{-1} = z_0: behind the last step there is no noise (abar_{-1} = 1). The samplers are in
:mod:`DEMISTCore.samplers`, a file each; those that ship have their names here, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .samplers import SAMPLERS
from .samplers.ddim import ddim
from .samplers.ddpm import ddpm
from .samplers.dpmpp_2m import dpmpp_2m

__all__ = [
    "KINDS",
    "PREDICTIONS",
    "SAMPLERS",
    "SPACINGS",
    "Guided",
    "NoiseSchedule",
    "SeededNoise",
    "ddim",
    "ddpm",
    "dpmpp_2m",
]

KINDS = ("linear", "scaled_linear", "cosine")
PREDICTIONS = ("v", "epsilon")
SPACINGS = ("trailing", "karras", "leading", "linspace")


@dataclass(frozen=True)
class NoiseSchedule:
    """Variance-preserving noise schedule and what follows from it.

    ``linear``: Ho et al. 2020 (DDPM); ``scaled_linear``: Rombach et al. 2022 (latent diffusion), linear in
    sqrt(beta), with the end points of Brain LDM and the BraTS bundle as defaults; ``cosine``: Nichol and Dhariwal
    2021, eq. 17 (``beta_start`` and ``beta_end`` are not used).

    Args:
        steps: number of discrete times.
        kind: how beta grows.
        beta_start: first beta.
        beta_end: last beta.
        prediction: what the network predicts: ``"epsilon"`` (the noise) or ``"v"`` = alpha eps - sigma z_0
            (Salimans and Ho 2022, appendix D).
        zero_snr: rescale so that the last time is pure noise (Lin et al. 2024, algorithm 1); needs ``"v"``.
        spacing: which times the samplers visit, see :meth:`timesteps`.
    """

    steps: int = 1000
    kind: str = "scaled_linear"
    beta_start: float = 0.0015
    beta_end: float = 0.0195
    prediction: str = "v"
    zero_snr: bool = False
    spacing: str = "trailing"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if self.prediction not in PREDICTIONS:
            raise ValueError(f"prediction must be one of {', '.join(PREDICTIONS)}, not {self.prediction!r}")
        if self.spacing not in SPACINGS:
            raise ValueError(f"spacing must be one of {', '.join(SPACINGS)}, not {self.spacing!r}")
        if self.steps < 1 or not 0 < self.beta_start <= self.beta_end < 1:
            raise ValueError("a noise schedule needs steps >= 1 and 0 < beta_start <= beta_end < 1")
        if self.zero_snr and self.prediction == "epsilon":
            raise ValueError("zero_snr needs prediction='v': from pure noise, epsilon says nothing about z_0")

    @cached_property
    def betas(self) -> Tensor:
        """Beta_t, float64, shape (steps,); after the zero terminal SNR rescale if asked for."""
        if self.kind == "linear":
            betas = torch.linspace(self.beta_start, self.beta_end, self.steps, dtype=torch.float64)
        elif self.kind == "scaled_linear":
            betas = torch.linspace(self.beta_start**0.5, self.beta_end**0.5, self.steps, dtype=torch.float64) ** 2
        else:
            time = torch.arange(self.steps + 1, dtype=torch.float64) / self.steps
            abar = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
            betas = (1 - abar[1:] / abar[:-1]).clamp(0, 0.999)
        return 1 - _ratios(_zero_terminal_snr(torch.cumprod(1 - betas, 0))) if self.zero_snr else betas

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """Abar_t, float64, shape (steps,), on the CPU."""
        return torch.cumprod(1 - self.betas, 0)

    def abar(self, t: int) -> float:
        """Abar_t as a float; 1 for t < 0, that is, behind the last step."""
        return float(self.alphas_cumprod[t]) if t >= 0 else 1.0

    def alpha_sigma(self, t: Tensor | int, like: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha_t, sigma_t) as float32 on the device of ``like`` (B, ...), shaped to broadcast over it."""
        index = torch.as_tensor(t).cpu().reshape(-1)
        abar = self.alphas_cumprod[index].reshape(-1, *[1] * (like.ndim - 1))
        return abar.sqrt().float().to(like.device), (1 - abar).sqrt().float().to(like.device)

    def add_noise(self, z0: Tensor, noise: Tensor, t: Tensor | int) -> Tensor:
        """z_t = alpha_t z_0 + sigma_t noise. Shapes (B, C, ...), t (B,)."""
        alpha, sigma = self.alpha_sigma(t, z0)
        return alpha * z0 + sigma * noise

    def target(self, z0: Tensor, noise: Tensor, t: Tensor | int) -> Tensor:
        """What the network should predict at z_t: the noise, or v = alpha_t noise - sigma_t z_0.

        ``z0``, ``noise`` and the result are of one shape (B, ...); ``t`` (B,) or one for all.
        """
        if self.prediction == "epsilon":
            return noise
        alpha, sigma = self.alpha_sigma(t, z0)
        return alpha * noise - sigma * z0

    def to_x0(self, prediction: Tensor, z_t: Tensor, t: Tensor | int) -> Tensor:
        """The estimate of z_0 that a prediction at z_t stands for; shapes as in :meth:`target`."""
        alpha, sigma = self.alpha_sigma(t, z_t)
        if self.prediction == "epsilon":
            return (z_t - sigma * prediction) / alpha
        return alpha * z_t - sigma * prediction

    def to_eps(self, prediction: Tensor, z_t: Tensor, t: Tensor | int) -> Tensor:
        """The estimate of the noise that a prediction at z_t stands for; shapes as in :meth:`target`."""
        if self.prediction == "epsilon":
            return prediction
        alpha, sigma = self.alpha_sigma(t, z_t)
        return alpha * prediction + sigma * z_t

    def begin(self, start: float, n: int = 1) -> int:
        """The first of ``n`` times when sampling starts at the share ``start`` of the schedule: 1 is the very last."""
        if not 0 < start <= 1:
            raise ValueError(f"start must be above 0 and at most 1, not {start}")
        return max(round(start * self.steps), n) - 1

    def timesteps(self, n: int, spacing: str | None = None, start: float = 1.0) -> list[int]:
        """``n`` times from noisy to clean, the first of them ``begin(start)``: a sampler that starts from a noised
        estimate instead of pure noise (SDEdit, Meng et al., ICLR 2022) has ``start`` below 1. ``spacing`` (default: the
        schedule's own) is one of

        - ``trailing``: even, from the very last time, where training saw (almost) pure noise, so that sampling starts
          from what it really is (Lin et al. 2024, table 2);
        - ``karras``: sigma/alpha spaced by its 7th root from the last time to the first (Karras et al. 2022, eq. 5),
          at the nearest integer times. Goes further down before the jump to zero noise, which keeps more of the fine
          variance when steps are few;
        - ``leading``, ``linspace``: to compare with other people's samplers.
        """
        spacing = spacing or self.spacing
        first = self.begin(start, n)
        if not 1 <= n <= self.steps:
            raise ValueError(f"the number of sampling steps must be 1 to {self.steps}, not {n}")
        if spacing == "trailing":
            return [round((first + 1) - i * (first + 1) / n) - 1 for i in range(n)]
        if spacing == "leading":
            return [i * ((first + 1) // n) for i in reversed(range(n))]
        if spacing == "linspace":
            return torch.linspace(first, 0, n, dtype=torch.float64).round().long().tolist()
        if spacing != "karras":
            raise ValueError(f"spacing must be one of {', '.join(SPACINGS)}, not {spacing!r}")
        # The very last time comes first whatever its sigma (infinite at zero SNR). The spacing starts from 20 at most:
        # above it latents of unit variance are drowned, and steps spent there are lost.
        noise = ((1 - self.alphas_cumprod) / self.alphas_cumprod.clamp_min(1e-12)).sqrt()
        top = min(float(noise[first]), 20.0)
        root = torch.linspace(top ** (1 / 7), float(noise[0]) ** (1 / 7), n, dtype=torch.float64)
        times = [first]
        for i, sigma in enumerate(root**7):
            if i:  # strictly decreasing, with room for those that follow
                nearest = int((noise.log() - sigma.log()).abs().argmin())
                times.append(min(times[-1] - 1, max(nearest, n - 1 - i)))
        return times

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready settings."""
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> NoiseSchedule:
        """The schedule that :meth:`to_dict` described; raises TypeError or ValueError on anything else."""
        return cls(**settings)


def _ratios(abar: Tensor) -> Tensor:
    return torch.cat([abar[:1], abar[1:] / abar[:-1]])


def _zero_terminal_snr(abar: Tensor) -> Tensor:
    """Shift and scale sqrt(abar) so that it ends in 0 and starts where it did (Lin et al. 2024, algorithm 1)."""
    root = abar.sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


class SeededNoise:
    """Standard normal noise, one CPU generator per sample of the batch.

    Sample i depends on ``seeds[i]`` and the number of draws before, not on its neighbours: seeds may be run together
    or one after the other, on any device, with the same noise.

    >>> together, alone = SeededNoise([3, 7])((2, 4)), SeededNoise([7])((1, 4))
    >>> bool((together[1] == alone[0]).all())
    True
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [torch.Generator("cpu").manual_seed(int(seed)) for seed in seeds]

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """Noise of the given shape (B, ...), B = number of seeds; float32 on the CPU."""
        if shape[0] != len(self.generators):
            raise ValueError(f"{len(self.generators)} seeds cannot fill a batch of {shape[0]}")
        return torch.stack([torch.randn(tuple(shape[1:]), generator=g) for g in self.generators])


class Guided:
    """Guidance with one weight per stream, as a model for the samplers.

    Let S be the streams with non-zero weight and p(S) the prediction with exactly these switched on. Then

        p = p(S) + sum over s in S of (w_s - 1) (p(S) - p(S without s))  [+ (w_all - 1) (p(S) - p(none))]

    - all weights 1: the plain conditional pass, one network evaluation (NFE) per step;
    - w_s = 0: stream s is off, and costs nothing;
    - w_s > 1 pushes away from what the model would say without that stream; any weight other than 0 and 1 costs one
      NFE more. With one stream this is classifier-free guidance (Ho and Salimans 2022, eq. 6);
    - ``"all"``: classifier-free guidance against the bare backbone, for all streams at once.

    Args:
        model: ``model(z_t, t, streams)`` with ``streams`` the frozenset of names that are on.
        streams: the names of the streams the model has.
        weights: weight by stream name (or ``"all"``); 1 where not given.
    """

    def __init__(
        self,
        model: Callable[[Tensor, Tensor, frozenset[str]], Tensor],
        streams: Sequence[str],
        weights: Mapping[str, float] | None = None,
    ) -> None:
        weights = dict(weights or {})
        unknown = set(weights) - {*streams, "all"}
        if unknown:
            raise ValueError(f"unknown stream {sorted(unknown)[0]!r}; there are {', '.join([*streams, 'all'])}")
        self.model = model
        self.on = frozenset(s for s in streams if weights.get(s, 1.0) != 0)
        # One term (weight - 1, streams that stay on) per extra network evaluation.
        self.terms = [(weights[s] - 1, self.on - {s}) for s in streams if s in self.on and weights.get(s, 1.0) != 1]
        if weights.get("all", 1.0) != 1 and self.on:
            self.terms.append((weights["all"] - 1, frozenset()))
        self.nfe = 1 + len(self.terms)

    def __call__(self, z: Tensor, t: Tensor) -> Tensor:
        """The guided prediction, float32."""
        full = self.model(z, t, self.on).float()
        result = full
        for weight, streams in self.terms:
            result = result + weight * (full - self.model(z, t, streams).float())
        return result


guided = Guided
