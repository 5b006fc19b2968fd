"""What every trained baseline shares: how large it is, how often its network runs, windows over a volume."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Maker(Protocol):
    """A trained network that makes PSR maps of prepared images."""

    #: SHA-256 of its weights
    hash: str
    #: parameters of all that runs at inference
    parameters: int
    #: forward passes of its network in the last prediction
    passes: int

    def predict(
        self,
        array: np.ndarray,
        mask: np.ndarray | None = None,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> np.ndarray:
        """PSR (X, Y, Z), fraction, 0 outside ``mask``, of prepared images (2, X, Y, Z)."""


def count_parameters(*modules: nn.Module) -> int:
    """Parameters of all modules together."""
    return sum(p.numel() for module in modules for p in module.parameters())


@dataclass(eq=False)
class Trained:
    """One trained network, the patch (voxels) it was trained on, and the SHA-256 of its weights."""

    network: nn.Module
    patch: tuple[int, int, int]
    hash: str

    @property
    def parameters(self) -> int:
        """How many there are."""
        return count_parameters(self.network)


@contextmanager
def counted(network: nn.Module) -> Iterator[list[int]]:
    """Yield a list of one number: the forward passes of ``network``, each image of a batch for itself."""
    passes = [0]

    def count(module: nn.Module, given: tuple[Tensor, ...], result: object) -> None:
        passes[0] += len(given[0])

    handle = network.register_forward_hook(count)
    try:
        yield passes
    finally:
        handle.remove()


#: Windows that a network sees at once. For one alone torch takes its plain convolution of float32 instead of oneDNN's
#: where images are small, which is five times slower.
_AT_ONCE = 4


def in_windows(network: Callable[[Tensor], Tensor], x: Tensor, size: Sequence[int], overlap: float = 0.5) -> Tensor:
    """``network`` over windows of ``size`` of a volume (1, C, X, Y, Z), blended by a Gaussian.

    Instance and group norms see what they saw in training, whatever the volume's extents.
    """
    from monai.inferers import SlidingWindowInferer

    infer = SlidingWindowInferer(tuple(size), _AT_ONCE, overlap, mode="gaussian", cache_roi_weight_map=True)
    return infer(x, lambda window: network(window).float())


def channels_last(x: np.ndarray, device: torch.device) -> Tensor:
    """Images (C, X, Y, Z) as a batch of one, float32, in the order that 3-D convolutions are fastest in."""
    import torch

    batch = torch.from_numpy(np.ascontiguousarray(x, np.float32))[None].to(device)
    return batch.contiguous(memory_format=torch.channels_last_3d)


def finished(psr: Tensor, psr_range: float, mask: np.ndarray | None) -> np.ndarray:
    """A map (X, Y, Z) in units of the PSR range as PSR: float32 fraction, 0 or more, 0 outside ``mask``."""
    array = np.maximum(psr.float().cpu().numpy() * np.float32(psr_range), 0)
    return array if mask is None else np.where(np.asarray(mask) > 0, array, np.float32(0))
