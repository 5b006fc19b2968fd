"""From a pair of images on the model grid to PSR samples on the model grid, one per seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bundle import Bundle
from ..devices import pick_device, pick_dtype
from ..errors import DemistError
from ..volume import Volume
from .clock import Clock
from .plan import plan_sampling
from .reuse import Reuse

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Estimate:
    """What sampling believes so far: the running estimate of z_0, decoded on demand.

    Attributes:
        seed: whose sample it is.
        step: steps done, 1 to ``steps``.
        steps: steps in all.
        latent: (1, C, x, y, z), scaled as the network sees it.
    """

    seed: int
    step: int
    steps: int
    latent: torch.Tensor
    decode: Callable[[torch.Tensor], np.ndarray] = field(repr=False)
    to_native: Callable[[np.ndarray], Volume] | None = field(default=None, repr=False)

    def psr(self) -> np.ndarray:
        """The estimate as PSR (fraction) on the model grid, (X, Y, Z); takes as long as decoding a sample."""
        return self.decode(self.latent)

    def volume(self) -> Volume:
        """The estimate as PSR (fraction) on the T1w's own grid.

        Raises:
            ValueError: the estimate comes from :func:`generate`, which knows no T1w.
        """
        if self.to_native is None:
            raise ValueError("This estimate knows the model grid only; take psr().")
        return self.to_native(self.psr())


def generate(
    bundle: Bundle,
    condition: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    seeds: Sequence[int] = (0,),
    steps: int | None = None,
    sampler: str | None = None,
    eta: float | None = None,
    spacing: str | None = None,
    guidance: Mapping[str, float] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    memory: int | None = None,
    progress: Callable[[str, str, float], Any] | None = None,
    estimate: Callable[[Estimate], Any] | None = None,
    timings: dict[str, float] | None = None,
    reuse: Reuse | None = None,
) -> Iterator[np.ndarray]:
    """PSR samples for a prepared pair of images, one per seed, on the model grid.

    What depends on the images alone is computed once. Seeds run one after the other: a sample is the same whatever
    its company, and memory does not grow with their number.

    Args:
        bundle: a demist bundle.
        condition: float32 (2, X, Y, Z), normalised T1w and FLAIR on the model grid: ``Prepared.array``. Extents must
            be multiples of ``bundle.config.multiple``.
        mask: brain on that grid; outside it PSR is 0.
        seeds, steps, sampler, eta, spacing, guidance: see :func:`synthesize`; None takes the bundle's recommendation.
        device: torch device, or a name that :func:`~DEMISTCore.devices.pick_device` knows.
        dtype: precision of the networks; None chooses.
        memory: bytes that decoding may take, see :func:`DEMISTCore.decoding.decode`.
        progress: called with (stage, ``"encode"`` or ``"seeds"``, share of that part done).
        estimate: called after each step with the running :class:`Estimate`.
        timings: seconds by stage are added up in here.
        reuse: of :func:`synthesize`, which knows that these are the images it was made for.

    Yields:
        float32 (X, Y, Z), fraction, 0 or more.
    """
    import torch

    from ..decoding import decode
    from ..devices import autocast
    from ..diffusion import SAMPLERS, Guided, SeededNoise
    from ..networks.demist import Streams

    plan = plan_sampling(bundle, list(seeds), steps, sampler, guidance, eta, spacing)
    device = device if isinstance(device, torch.device) else pick_device(device)
    dtype = pick_dtype(device) if dtype is None else dtype
    clock = Clock(None, timings)
    report = progress or (lambda stage, part, done: None)
    layout = torch.contiguous_format if device.type == "mps" else torch.channels_last_3d
    schedule = replace(bundle.schedule, spacing=plan["spacing"])
    sample = SAMPLERS[plan["sampler"]]
    demist, decoder = bundle.demist.to(device), bundle.autoencoder_psr.to(device)

    def encode() -> Any:
        encoder = bundle.autoencoder_condition.to(device)
        x = torch.from_numpy(np.ascontiguousarray(condition, dtype=np.float32))[None].to(device)
        mu, _ = encoder.encode(x.contiguous(memory_format=layout))
        del x
        return demist.condition((bundle.condition_scale * mu.float()).contiguous(memory_format=layout))

    report("encode", "encode", 0.0)
    with clock.stage("encode"), torch.no_grad(), _deterministic(), autocast(device, dtype):
        given = encode() if reuse is None else reuse.encoded((bundle.hash, str(device), str(dtype)), encode)
    shape = (1, bundle.config.psr.latent_channels, *given.shape)

    def predict(z: torch.Tensor, t: torch.Tensor, on: frozenset[str]) -> torch.Tensor:
        streams = Streams(**{name: name in on for name, _ in demist.built})
        with autocast(device, dtype):
            return demist(z.contiguous(memory_format=layout), t, given, streams)

    def to_psr(z: torch.Tensor, done: Callable[[float], None] | None = None) -> np.ndarray:
        image = decode(decoder, z / bundle.latent_scale, dtype=dtype, memory=memory, progress=done)[0, 0].numpy()
        psr = np.maximum(image * np.float32(bundle.psr_range), 0)
        return psr if mask is None else np.where(mask > 0, psr, np.float32(0))

    guided = Guided(predict, [name for name, built in demist.built if built], plan["guidance"])
    count = len(plan["seeds"])
    for i, seed in enumerate(plan["seeds"]):
        words = f"seed {i + 1} of {count}" if count > 1 else "sampling"
        draw = SeededNoise([seed])

        def step_done(
            step: int, steps: int, x0: torch.Tensor, i: int = i, seed: int = seed, words: str = words
        ) -> None:
            report(words, "seeds", (i + 0.7 * step / steps) / count)
            if estimate is not None:
                estimate(Estimate(seed, step, steps, x0, to_psr))

        report(words, "seeds", i / count)
        with clock.stage("sample"), _deterministic():
            z = sample(guided, draw(shape).to(device), schedule, plan["steps"], noise=draw, eta=plan["eta"],
                       callback=step_done)  # fmt: skip
        with clock.stage("decode"), _deterministic():
            psr = to_psr(z, lambda done, i=i, words=words: report(words, "seeds", (i + 0.7 + 0.3 * done) / count))
        if not np.isfinite(psr).all():
            raise DemistError(
                f"The model gave NaN or infinite values (seed {seed}, {str(dtype).removeprefix('torch.')}); "
                "try --precision fp32, fewer guidance weights, or another bundle."
            )
        yield psr


@contextmanager
def _deterministic() -> Iterator[None]:
    """cuDNN kernels that give the same bytes every time, without touching what the caller has set."""
    import torch

    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
