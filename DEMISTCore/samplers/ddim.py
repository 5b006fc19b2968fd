"""The sampler that needs no noise on its way: same noise, same map (Song et al. 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .parts import estimate, sampler

if TYPE_CHECKING:
    from torch import Tensor

    from ..diffusion import NoiseSchedule
    from .parts import Callback, Model, Noise


@sampler("DDIM")
def ddim(
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
    """Denoising diffusion implicit model (Song et al. 2021, eq. 12 and 16).

    ``z`` (B, ...) is noise of the latents' shape; so is what is returned.

    ``eta`` = 0 is deterministic, 1 has the noise of ancestral sampling.
    """
    times = schedule.timesteps(steps, start=start)
    for i, (t, s) in enumerate(zip(times, [*times[1:], -1])):
        x0, eps = estimate(model, z, schedule, t)
        abar_t, abar_s = schedule.abar(t), schedule.abar(s)
        z = ddim_step(x0, eps, abar_t, abar_s, eta, noise)
        if callback:
            callback(i + 1, steps, x0)
    return z


def ddim_step(
    x0: Tensor, eps: Tensor, abar_t: float | Tensor, abar_s: float | Tensor, eta: float, noise: Noise
) -> Tensor:
    """From t to s, given what the model makes of z_t (Song et al. 2021, eq. 12 and 16).

    Args:
        x0, eps: estimates of the sample and of the noise in z_t, (B, C, x, y, z).
        abar_t, abar_s: alpha-bar at t and s, numbers or tensors of one.
        eta: 0 deterministic, 1 with the noise of ancestral sampling.
        noise: draws that noise; not called where there is none.
    """
    sigma = eta * ((1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s)) ** 0.5  # eq. 16
    rest = 1 - abar_s - sigma**2
    z = abar_s**0.5 * x0 + max(rest, 0 * rest) ** 0.5 * eps  # eq. 12; rounding may take rest below 0
    return z + sigma * noise(x0.shape).to(x0) if sigma > 0 else z
