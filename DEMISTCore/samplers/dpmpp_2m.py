"""A solver of second order, good in few steps (Lu et al. 2022); what bundles recommend by default."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .parts import estimate, sampler

if TYPE_CHECKING:
    from torch import Tensor

    from ..diffusion import NoiseSchedule
    from .parts import Callback, Model, Noise


@sampler("DPM-Solver++ 2M")
def dpmpp_2m(
    model: Model,
    z: Tensor,
    schedule: NoiseSchedule,
    steps: int,
    *,
    noise: Noise,
    eta: float = 0.0,
    start: float = 1.0,
    callback: Callback | None = None,
) -> Tensor:
    """DPM-Solver++(2M), deterministic (Lu et al. 2022, arXiv 2211.01095, algorithm 2).

    ``z`` (B, ...) is noise of the latents' shape; so is what is returned.

    The first step has no history, and the last goes to zero noise, where the half log-SNR is infinite: both are of
    first order, as in the authors' code. ``noise`` and ``eta`` are not used.
    """
    times, last, lam_r = schedule.timesteps(steps, start=start), None, math.nan
    for i, (t, s) in enumerate(zip(times, [*times[1:], -1])):
        x0, _ = estimate(model, z, schedule, t)
        abar_t, abar_s = schedule.abar(t), schedule.abar(s)
        lam_t, lam_s = _half_log_snr(abar_t), _half_log_snr(abar_s)
        h = lam_s - lam_t
        direction = x0
        if last is not None and s >= 0:
            r = (lam_t - lam_r) / h  # infinite after a start from zero SNR: then the history has no weight
            direction = x0 + (x0 - last) / (2 * r)
        sigma_ratio = ((1 - abar_s) / (1 - abar_t)) ** 0.5
        z = sigma_ratio * z - abar_s**0.5 * math.expm1(-h) * direction
        last, lam_r = x0, lam_t
        if callback:
            callback(i + 1, steps, x0)
    return z


def _half_log_snr(abar: float) -> float:
    """Lambda = log(alpha / sigma); -inf for pure noise, +inf for none."""
    if abar <= 0 or abar >= 1:
        return -math.inf if abar <= 0 else math.inf
    return 0.5 * math.log(abar / (1 - abar))
