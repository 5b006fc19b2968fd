"""What the networks make of the scans alone, once per volume; and from there to the mean, or from a latent to a map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from ..acquisition import PROTOCOL_WIDTH
from ..bundle import Bundle
from ..devices import autocast

if TYPE_CHECKING:
    import torch

    from ..networks.mean import Seen


@dataclass(frozen=True)
class Given:
    """What depends on the scans alone. ``seen`` and ``described`` are None for models without a mean network.

    ``encode_condition`` encodes once, when first called: most means do without, and it takes seconds.
    ``offset`` is kept from one sample to the next, see :func:`decode_latent`.
    """

    encode_condition: Callable[[], torch.Tensor]
    seen: Seen | None = None
    described: np.ndarray | None = None
    offset: list[np.ndarray] = field(default_factory=list)

    @property
    def c(self) -> torch.Tensor:
        """Scaled condition latents (1, C, x, y, z)."""
        return self.encode_condition()


@dataclass(frozen=True)
class Mean:
    """The posterior mean on the model grid.

    Attributes:
        psr: fraction, float32 (X, Y, Z).
        sd: predicted standard deviation of its local error, fraction, not yet calibrated.
        described: the numbers that describe the input as a whole, see :func:`DEMISTCore.networks.knowledge.describe`.
    """

    psr: np.ndarray
    sd: np.ndarray
    described: np.ndarray

    @property
    def spread(self) -> np.ndarray:
        """The former name of :attr:`sd`, (X, Y, Z)."""
        return self.sd


def layout(device: torch.device) -> torch.memory_format:
    """The faster order for 3-D convolutions where it is supported."""
    import torch

    return torch.contiguous_format if device.type == "mps" else torch.channels_last_3d


def encode(
    bundle: Bundle,
    condition: np.ndarray,
    protocol: np.ndarray | None,
    device: torch.device,
    dtype: torch.dtype,
    guidance: Mapping[str, float] | None = None,
) -> Given:
    """Condition latents, when they are asked for, and what a mean network sees.

    Args:
        bundle: a demist bundle.
        condition: float32 (2, X, Y, Z), ``Prepared.array``.
        protocol: of :func:`DEMISTCore.acquisition.protocol_vector`; None: nothing is known.
        device, dtype: where and in which precision.
        guidance: weight 0 switches a stream off in the mean network, too.
    """
    import torch

    encoder = bundle.autoencoder_condition.to(device)
    x = torch.from_numpy(np.ascontiguousarray(condition, dtype=np.float32))[None].to(device)
    x = x.contiguous(memory_format=layout(device))

    @cache
    def condition_latents() -> torch.Tensor:
        with torch.no_grad(), autocast(device, dtype):
            mu, _ = encoder.encode(x)
            return (bundle.condition_scale * mu.float()).contiguous(memory_format=layout(device))

    if bundle.config.mean is None:
        return Given(condition_latents)
    from ..networks.knowledge import describe

    described = describe(condition, (condition != 0).any(0), bundle.spacing)
    known = np.concatenate([described, np.zeros(PROTOCOL_WIDTH, np.float32) if protocol is None else protocol])
    on = {name: (guidance or {}).get(name, 1.0) != 0 for name in ("semantic", "spatial", "adaptive")}
    mean = bundle.demist.mean_network.to(device)
    with torch.no_grad(), autocast(device, dtype):
        c = condition_latents() if bundle.config.mean.semantic else None  # only tokens read it
        seen = mean.see(x, c, torch.from_numpy(known)[None].to(device), **on)
    return Given(condition_latents, seen, described)


def predict_mean(bundle: Bundle, given: Given, mask: np.ndarray | None, dtype: torch.dtype) -> Mean:
    """The posterior mean and its predicted standard deviation.

    ``mask`` is (X, Y, Z).

    Args:
        bundle: one with a mean network.
        given: of :func:`encode`.
        mask: brain on the model grid; outside it PSR and deviation are 0.
        dtype: precision of the network.

    Raises:
        ValueError: a model without a mean network.
    """
    import torch

    if given.seen is None or given.described is None:
        raise ValueError(f"Bundle {bundle.name} has no network for the mean.")
    with torch.no_grad(), autocast(given.seen.estimate.device, dtype):
        image, log_sd = bundle.demist.mean_network.decode(given.seen)
    psr = np.maximum(image[0, 0].cpu().numpy() * np.float32(bundle.psr_range), 0)
    deviation = log_sd[0, 0].exp().cpu().numpy() * np.float32(bundle.psr_range)
    if mask is not None:
        psr, deviation = (np.where(mask > 0, a, np.float32(0)) for a in (psr, deviation))
    return Mean(psr, deviation, given.described)


def decode_latent(
    bundle: Bundle,
    given: Given,
    z: torch.Tensor,
    mask: np.ndarray | None,
    dtype: torch.dtype,
    memory: int | None = None,
    progress: Callable[[float], None] | None = None,
    detail: float = 1.0,
) -> np.ndarray:
    """Scaled latents (1, C, x, y, z) to PSR (X, Y, Z), fraction.

    With a mean network y_hat + ``detail`` (D(z) - D(z_hat)): the mean with the scans' own detail, and what sets this
    latent apart from the mean's. Between the estimate of least error and one that looks like a real map the best
    compromises lie on the straight line (Freirich et al., NeurIPS 2021). What is the same for every sample, y_hat -
    ``detail`` D(z_hat), is computed once.
    """
    from ..decoding import decode

    decoder = bundle.autoencoder_psr.to(z.device)

    def plain(latent: torch.Tensor, report: Callable[[float], None] | None) -> np.ndarray:
        scaled = latent.float() / bundle.latent_scale
        return decode(decoder, scaled, dtype=dtype, memory=memory, progress=report)[0, 0].numpy()

    image = plain(z, progress)
    if given.seen is not None:
        if not given.offset:
            import torch

            with torch.no_grad(), autocast(z.device, dtype):
                mean = bundle.demist.mean_network.decode(given.seen)[0][0, 0].cpu().numpy()
            given.offset.append(mean - detail * plain(given.seen.estimate, None))
        image = detail * image + given.offset[0]
    psr = np.maximum(image * np.float32(bundle.psr_range), 0)
    return psr if mask is None else np.where(mask > 0, psr, np.float32(0))
