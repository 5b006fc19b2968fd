"""What samplers are made of: their types, one evaluation of the network, and the mark that makes one of a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from ..diffusion import NoiseSchedule

Model = Callable[["Tensor", "Tensor"], "Tensor"]
Noise = Callable[[Sequence[int]], "Tensor"]
Callback = Callable[[int, int, "Tensor"], Any]


class Sampler:
    """A function that samples, with what people call it; its steps need no gradients.

    Args:
        sample: the function, see :mod:`DEMISTCore.samplers`.
        title: for lists that people choose from.
    """

    def __init__(self, sample: Callable[..., Tensor], title: str) -> None:
        update_wrapper(self, sample)
        self._sample, self.name, self.title = sample, sample.__name__, title

    def __call__(
        self,
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
        """Sample from ``z`` (B, ...), noise of the latents' shape; so is what is returned."""
        import torch

        with torch.no_grad():
            return self._sample(model, z, schedule, steps, noise=noise, eta=eta, start=start, callback=callback)


def sampler(title: str) -> Callable[[Callable[..., Tensor]], Sampler]:
    """Mark a function as the sampler that its name says.

    >>> from DEMISTCore.samplers import SAMPLERS
    >>> SAMPLERS["ddim"].title
    'DDIM'
    """
    return lambda sample: Sampler(sample, title)


def estimate(model: Model, z: Tensor, schedule: NoiseSchedule, t: int) -> tuple[Tensor, Tensor]:
    """One network evaluation at ``z`` (B, ...): (x0, eps) of its shape, float32 whatever the network ran in."""
    import torch

    prediction = model(z, torch.full((z.shape[0],), t, device=z.device, dtype=torch.long)).float()
    return schedule.to_x0(prediction, z, t), schedule.to_eps(prediction, z, t)
