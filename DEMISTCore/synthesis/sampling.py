"""From a pair of images on the model grid to PSR samples on the model grid, one per seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bundle import Bundle
from ..clock import SYNTHESIS, Clock
from ..devices import pick_device, pick_dtype
from ..errors import DemistError
from ..volume import Volume
from .given import Given, Mean, decode_latent, encode, layout, predict_mean
from .plan import SamplingPlan, plan_sampling
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
    plan: SamplingPlan | None = None,
    seeds: Sequence[int] | None = None,
    steps: int | None = None,
    sampler: str | None = None,
    eta: float | None = None,
    spacing: str | None = None,
    guidance: Mapping[str, float] | None = None,
    mode: str | None = None,
    start: float | None = None,
    detail: float | None = None,
    protocol: np.ndarray | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    memory: int | None = None,
    progress: Callable[[str, str, float], Any] | None = None,
    estimate: Callable[[Estimate], Any] | None = None,
    timings: dict[str, float] | None = None,
    reuse: Reuse | None = None,
    told: Callable[[Mean], Any] | None = None,
) -> Iterator[np.ndarray]:
    """PSR maps for a prepared pair of images on the model grid: the posterior mean, or samples, one per seed.

    What depends on the images alone is computed once. Seeds run one after the other: a sample is the same whatever
    its company, and memory does not grow with their number.

    Args:
        bundle: a demist bundle.
        condition: float32 (2, X, Y, Z), normalized T1w and FLAIR on the model grid: ``Prepared.array``. Extents must
            be multiples of ``bundle.config.multiple``.
        mask: brain on that grid; outside it PSR is 0.
        plan: what to sample, checked; None: of the arguments that follow, to ``detail``.
        seeds, steps, sampler, eta, spacing, guidance, mode: see :func:`synthesize`; None takes the bundle's
            recommendation.
        start: where on the schedule sampling starts: 1 from pure noise, below 1 from the noised mean.
        detail: share of what sets a sample apart from the mean that is added to it, 0 to 1.
        protocol: of :func:`DEMISTCore.acquisition.read_protocol`; None: nothing is known of it.
        device: torch device, or a name that :func:`~DEMISTCore.devices.pick_device` knows.
        dtype: precision of the networks; None chooses.
        memory: bytes that decoding may take, see :func:`DEMISTCore.decoding.decode`.
        progress: called with (stage, ``"encode"`` or ``"seeds"``, share of that part done).
        estimate: called after each step with the running :class:`Estimate`.
        timings: seconds by stage are added up in here.
        reuse: of :func:`synthesize`, which knows that these are the images it was made for.
        told: called with the :class:`Mean` of a model that has a network for it, in either mode.

    Yields:
        float32 (X, Y, Z), fraction, 0 or more.
    """
    import torch

    from ..devices import autocast
    from ..diffusion import SAMPLERS, Guided, SeededNoise
    from ..networks.demist import Streams

    if plan is None:
        chosen = None if seeds is None or not len(seeds) else list(seeds)
        plan = plan_sampling(bundle, chosen, steps or None, sampler, guidance, eta, spacing, mode, start, detail)
    device = device if isinstance(device, torch.device) else pick_device(device)
    dtype = pick_dtype(device) if dtype is None else dtype
    clock = Clock(None, SYNTHESIS, timings)
    report = progress or (lambda stage, part, done: None)
    demist = bundle.demist.to(device)
    off = frozenset(name for name, weight in plan.guidance.items() if weight == 0)

    def read() -> Given:
        return encode(bundle, condition, protocol, device, dtype, plan.guidance)

    report("encode", "encode", 0.0)
    with clock.stage("encode"), torch.no_grad(), _deterministic():
        told_apart = (bundle.hash, str(device), str(dtype), off, None if protocol is None else protocol.tobytes())
        given = read() if reuse is None else reuse.encoded(told_apart, read)
    if given.seen is not None and (plan.mode == "mean" or told is not None):
        report("mean", "encode", 0.5)
        with clock.stage("mean"), _deterministic():
            mean = predict_mean(bundle, given, mask, dtype)
        _require_finite(mean.psr, "the mean", dtype)
        if told is not None:
            told(mean)
        if plan.mode == "mean":
            report("mean", "seeds", 1.0)
            yield mean.psr
            return

    start, detail, seen = plan.start, plan.detail, given.seen
    if plan.sampler is None or plan.spacing is None or start is None or detail is None:
        raise ValueError("A plan of samples needs sampler, spacing, start and detail; plan_sampling fills them in.")
    schedule = replace(bundle.schedule, spacing=plan.spacing)
    sample = SAMPLERS[plan.sampler]
    with clock.stage("encode"), torch.no_grad(), _deterministic(), autocast(device, dtype):
        conditioned = demist.condition(given.c, seen=given.seen)
    shape = (1, bundle.config.psr.latent_channels, *conditioned.shape)

    def predict(z: torch.Tensor, t: torch.Tensor, on: frozenset[str]) -> torch.Tensor:
        streams = Streams(**{name: name in on for name, _ in demist.built})
        with autocast(device, dtype):
            return demist(z.contiguous(memory_format=layout(device)), t, conditioned, streams)

    def to_psr(z: torch.Tensor, done: Callable[[float], None] | None = None) -> np.ndarray:
        return decode_latent(bundle, given, z, mask, dtype, memory, done, detail)

    def begin(noise: torch.Tensor) -> torch.Tensor:
        if start >= 1 or seen is None:
            return noise
        return schedule.add_noise(seen.estimate.float(), noise, schedule.begin(start, plan.steps))

    def decoding(done: float, i: int, words: str) -> None:
        report(words, "seeds", (i + 0.7 + 0.3 * done) / count)

    guided = Guided(predict, [name for name, built in demist.built if built], plan.guidance)
    count = len(plan.seeds)
    for i, seed in enumerate(plan.seeds):
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
            z = sample(
                guided,
                begin(draw(shape).to(device)),
                schedule,
                plan.steps,
                noise=draw,
                eta=plan.eta,
                start=start,
                callback=step_done,
            )
        with clock.stage("decode"), _deterministic():
            psr = to_psr(z, partial(decoding, i=i, words=words))
        _require_finite(psr, f"seed {seed}", dtype)
        yield psr


def _require_finite(psr: np.ndarray, what: str, dtype: torch.dtype) -> None:
    if not np.isfinite(psr).all():
        raise DemistError(
            f"The model gave NaN or infinite values ({what}, {str(dtype).removeprefix('torch.')}); "
            "try --precision fp32, fewer guidance weights, or another bundle."
        )


@contextmanager
def _deterministic() -> Iterator[None]:
    """cuDNN kernels that give the same bytes every time, without touching what the caller has set."""
    import torch

    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
