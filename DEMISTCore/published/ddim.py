"""The sampler that published latent diffusion models are configured with: DDIM, exactly as MONAI steps it.

:func:`DEMISTCore.diffusion.ddim` goes from each time to the next one it visits. MONAI's scheduler goes from t to
t - T // n whatever it visits next; with its evenly spread times (0 to T - 1 in n steps) the two are one or two apart.
The difference is small, but a model is published with its scheduler, and here the same numbers come out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..diffusion import NoiseSchedule
from ..errors import BundleError, InputError
from ..samplers.ddim import ddim_step
from ..samplers.parts import Callback, Model, Noise

_KINDS = {"linear_beta": "linear", "scaled_linear_beta": "scaled_linear", "cosine": "cosine"}
_PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}


@dataclass(frozen=True)
class Scheduler:
    """Noise schedule and DDIM settings of a published model.

    Args:
        kind, beta_start, beta_end, steps, prediction: see :class:`DEMISTCore.diffusion.NoiseSchedule`.
        clip: cut the estimate of z_0 to -1 .. 1 at each step.
        final_one: behind the last step there is no noise (``set_alpha_to_one``); else that of time 0.
        offset: added to all times (``steps_offset``).
        spacing: ``"linspace"`` as in MONAI, ``"leading"`` as in GenerativeModels.

    The defaults are those of Brain LDM's model card.
    """

    kind: str = "linear"
    beta_start: float = 1e-4
    beta_end: float = 2e-2
    steps: int = 1000
    prediction: str = "epsilon"
    clip: bool = False
    final_one: bool = True
    offset: int = 0
    spacing: str = "linspace"

    @cached_property
    def noise(self) -> NoiseSchedule:
        """The noise schedule alone."""
        return NoiseSchedule(self.steps, self.kind, self.beta_start, self.beta_end, self.prediction)

    def timesteps(self, n: int) -> list[int]:
        """The ``n`` times visited, from noisy to clean.

        Raises:
            InputError: fewer than one, or more than there are.
        """
        if not 1 <= n <= self.steps:
            raise InputError(f"The number of sampling steps must be 1 to {self.steps}, not {n}.")
        if self.spacing == "leading":
            return [i * (self.steps // n) + self.offset for i in reversed(range(n))]
        # float32 and rounding half to even, as in MONAI: float64 would land beside it now and then.
        times = torch.linspace(self.steps - 1 - self.offset, 0, n).round().long()
        return (times + self.offset).tolist()

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """Abar_t, float32, shape (steps,), as MONAI rounds it: at the noisiest times the rounding shows in samples."""
        if self.kind == "cosine":
            time = torch.linspace(0, self.steps, self.steps + 1) / self.steps
            abar = torch.cos((time + 0.008) / 1.008 * torch.pi * 0.5) ** 2
            abar = abar / abar[0].item()
            betas = torch.clip(1 - abar[1:] / abar[:-1], 0.0, 0.999)
        elif self.kind == "linear":
            betas = torch.linspace(self.beta_start, self.beta_end, self.steps)
        else:
            betas = torch.linspace(self.beta_start**0.5, self.beta_end**0.5, self.steps) ** 2
        return torch.cumprod(1 - betas, 0)

    def abar(self, t: int) -> Tensor:
        """Abar_t, a float32 number; behind the last step 1, or that of time 0. A scalar."""
        if t >= 0:
            return self.alphas_cumprod[t]
        return torch.tensor(1.0) if self.final_one else self.alphas_cumprod[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready settings."""
        return asdict(self)

    def describe(self) -> str:
        """In words, for logs: ``"linear 0.0001 to 0.02"``."""
        return f"{self.kind} {self.beta_start:g} to {self.beta_end:g}"

    @classmethod
    def from_config(cls, config: Mapping[str, Any], source: object) -> Scheduler:
        """Read a MONAI bundle's scheduler entry; what it leaves out is as MONAI's class has it.

        Raises:
            BundleError: a setting that this sampler does not know.
        """
        kind, prediction = config.get("schedule", "linear_beta"), config.get("prediction_type", "epsilon")
        if kind not in _KINDS or prediction not in _PREDICTIONS:
            word = f"schedule {kind!r}" if kind not in _KINDS else f"prediction_type {prediction!r}"
            known = _KINDS if kind not in _KINDS else _PREDICTIONS
            raise BundleError(f"{source} names the {word}, which is not known here; known are {', '.join(known)}.")
        old = str(config.get("_target_", "")).startswith("generative.")
        clip_default = True  # MONAI's own default, unwise for latents; the published files all say false
        try:
            scheduler = cls(
                _KINDS[kind],
                float(config.get("beta_start", 1e-4)),
                float(config.get("beta_end", 2e-2)),
                int(config.get("num_train_timesteps", 1000)),
                _PREDICTIONS[prediction],
                bool(config.get("clip_sample", clip_default)),
                bool(config.get("set_alpha_to_one", True)),
                int(config.get("steps_offset", 0)),
                "leading" if old else "linspace",
            )
            _ = scheduler.noise
        except (TypeError, ValueError, OverflowError) as error:
            raise BundleError(
                f"{source} has a scheduler that cannot be read ({error}); correct its entries."
            ) from error
        return scheduler

    def to_config(self) -> dict[str, Any]:
        """A MONAI bundle's scheduler entry."""
        kind = next(key for key, value in _KINDS.items() if value == self.kind)
        prediction = next(key for key, value in _PREDICTIONS.items() if value == self.prediction)
        # MONAI hands what is left over to the schedule, and the cosine has no ends.
        ends = {} if self.kind == "cosine" else {"beta_start": self.beta_start, "beta_end": self.beta_end}
        return {
            "_target_": "monai.networks.schedulers.DDIMScheduler",
            "num_train_timesteps": self.steps,
            **ends,
            "schedule": kind,
            "prediction_type": prediction,
            "clip_sample": self.clip,
            "set_alpha_to_one": self.final_one,
            "steps_offset": self.offset,
        }


#: Brain LDM's model card.
CARD = Scheduler()
#: The BraTS model's configuration.
BRATS = Scheduler("scaled_linear", 0.0015, 0.0195)


@torch.no_grad()
def ddim(
    model: Model,
    z: Tensor,
    scheduler: Scheduler,
    steps: int,
    *,
    noise: Noise,
    eta: float = 0.0,
    callback: Callback | None = None,
) -> Tensor:
    """DDIM (Song et al. 2021, eq. 12 and 16), from t to t - T // steps as MONAI's ``DDIMScheduler`` does.

    Args:
        model: ``model(z_t, t)`` with t (B,).
        z: noise (B, C, x, y, z).
        noise: draws what ``eta`` > 0 adds, on the CPU.
        callback: ``callback(step, steps, x0)`` after each step; may raise to stop.
    """
    for i, t in enumerate(scheduler.timesteps(steps)):
        prediction = model(z, torch.full((len(z),), t, device=z.device, dtype=torch.long)).float()
        abar_t, abar_s = scheduler.abar(t), scheduler.abar(t - scheduler.steps // steps)
        alpha, sigma = abar_t**0.5, (1 - abar_t) ** 0.5  # numbers on the CPU; they go with tensors on any device
        if scheduler.prediction == "epsilon":
            x0, eps = (z - sigma * prediction) / alpha, prediction
        else:
            x0, eps = alpha * z - sigma * prediction, alpha * prediction + sigma * z
        if scheduler.clip:
            x0 = x0.clamp(-1, 1)
        z = ddim_step(x0, eps, abar_t, abar_s, eta, noise)
        if callback:
            callback(i + 1, steps, x0)
    return z
