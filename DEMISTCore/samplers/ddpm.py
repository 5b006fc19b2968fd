"""Ancestral sampling, the way back as diffusion models were first sampled (Ho et al. 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .parts import estimate, sampler

if TYPE_CHECKING:
    from torch import Tensor

    from ..diffusion import NoiseSchedule
    from .parts import Callback, Model, Noise


@sampler("DDPM (stochastic)")
def ddpm(
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
    """Ancestral sampling (Ho et al. 2020, algorithm 2, posterior of eq. 6-7, variance beta-tilde).

    ``z`` (B, ...) is noise of the latents' shape; so is what is returned.

    With fewer steps than the schedule has, beta_t becomes 1 - abar_t / abar_s between the times kept (Nichol and
    Dhariwal 2021, eq. 19). ``eta`` is not used: this sampler is always fully stochastic.
    """
    times = schedule.timesteps(steps, start=start)
    for i, (t, s) in enumerate(zip(times, [*times[1:], -1])):
        x0, _ = estimate(model, z, schedule, t)
        abar_t, abar_s = schedule.abar(t), schedule.abar(s)
        alpha = abar_t / abar_s
        mean_x0 = abar_s**0.5 * (1 - alpha) / (1 - abar_t)  # eq. 7
        mean_z = alpha**0.5 * (1 - abar_s) / (1 - abar_t)
        z = mean_x0 * x0 + mean_z * z
        if s >= 0:
            variance = (1 - abar_s) / (1 - abar_t) * (1 - alpha)  # beta-tilde, eq. 7
            z = z + variance**0.5 * noise(z.shape).to(z)
        if callback:
            callback(i + 1, steps, x0)
    return z
