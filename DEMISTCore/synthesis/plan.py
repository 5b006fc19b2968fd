"""What is sampled and how: seeds, sampler, steps, guidance; checked, a bundle's recommendations filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..errors import BundleError, InputError

MAX_SEEDS = 256
MODES = ("mean", "sample")


@dataclass(frozen=True)
class SamplingPlan:
    """Everything that decides what is sampled from a bundle, checked; :func:`plan_sampling` makes it.

    The mean has no seeds, no steps and no sampler.
    """

    mode: str
    seeds: tuple[int, ...] = ()
    sampler: str | None = None
    steps: int = 0
    eta: float = 0.0
    spacing: str | None = None  # of the times, see :data:`DEMISTCore.diffusion.SPACINGS`
    start: float | None = None  # where on the schedule: 1 from pure noise, below 1 from the noised mean
    detail: float | None = None  # share of what sets a sample apart from the mean
    guidance: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a result's provenance."""
        return asdict(self) | {"seeds": list(self.seeds), "guidance": dict(self.guidance)}


def check_seeds(seeds: int | Sequence[int]) -> list[int]:
    """The list of seeds that a number of samples, or a list, stands for.

    Raises:
        InputError: none, too many, negative, or twice the same.
    """
    if isinstance(seeds, (int, np.integer)) and not isinstance(seeds, bool):
        if not 1 <= seeds <= MAX_SEEDS:
            raise InputError(f"The number of seeds must be 1 to {MAX_SEEDS}, not {seeds}.")
        return list(range(int(seeds)))
    if isinstance(seeds, (str, bytes)) or not isinstance(seeds, Sequence | np.ndarray):
        raise InputError(f"Seeds are a number of samples, or a list of whole numbers, not {seeds!r}.")
    listed = list(seeds)
    if not listed or len(listed) > MAX_SEEDS:
        raise InputError(f"The number of seeds must be 1 to {MAX_SEEDS}, not {len(listed)}.")
    for seed in listed:
        if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or not 0 <= seed < 2**63:
            raise InputError(f"A seed is a whole number, 0 or more, not {seed!r}.")
    if len(set(listed)) < len(listed):
        raise InputError("The same seed is given twice; a sample must not count double.")
    return [int(seed) for seed in listed]


def plan_sampling(
    bundle: Bundle,
    seeds: Sequence[int] | None = None,
    steps: int | None = None,
    sampler: str | None = None,
    guidance: Mapping[str, float] | None = None,
    eta: float | None = None,
    spacing: str | None = None,
    mode: str | None = None,
    start: float | None = None,
    detail: float | None = None,
) -> SamplingPlan:
    """All sampling settings, the bundle's recommendations filled in, checked.

    ``mode`` is "mean" or "sample"; None is the bundle's, but "sample" where seeds, steps or sampler are asked for. The
    mean has no seeds and no steps.

    Raises:
        InputError: a setting that is out of range, or that the model does not know.
        BundleError: a bundle that makes no maps.
    """
    if bundle.kind != "demist":
        raise BundleError(
            f"Bundle {bundle.folder} is a foundation without conditioning streams; give a demist bundle, or train one "
            "on it (python -m DEMISTCore.train demist)."
        )
    advice = bundle.sampling
    if mode is None:
        mode = advice["mode"] if seeds is None and steps is None and sampler is None else "sample"
    if mode not in MODES:
        raise InputError(f"Unknown mode {mode!r}; choose {' or '.join(MODES)}.")
    if mode == "mean":
        return _plan_mean(bundle, guidance)
    weights = advice["guidance"] if guidance is None else guidance
    begin = float(advice["start"] if start is None else start)
    own = float(advice["detail"] if detail is None else detail)
    plan = SamplingPlan(
        mode,
        tuple(check_seeds(advice["seeds"] if seeds is None else seeds)),
        sampler or advice["sampler"],
        advice["steps"] if steps is None else steps,
        float(advice["eta"] if eta is None else eta),
        spacing or advice["spacing"],
        begin,
        own,
        {name: float(weight) for name, weight in weights.items()},
    )
    _check(plan, begin, own, bundle)
    return plan


def _check(plan: SamplingPlan, start: float, detail: float, bundle: Bundle) -> None:
    from ..diffusion import SAMPLERS, SPACINGS

    if plan.sampler not in SAMPLERS:
        raise InputError(f"Unknown sampler {plan.sampler!r}; choose {', '.join(SAMPLERS)}.")
    if plan.spacing not in SPACINGS:
        raise InputError(f"Unknown spacing {plan.spacing!r}; choose {', '.join(SPACINGS)}.")
    limit = bundle.schedule.steps
    if isinstance(plan.steps, bool) or not isinstance(plan.steps, int) or not 1 <= plan.steps <= limit:
        raise InputError(f"The number of sampling steps must be 1 to {limit}, not {plan.steps}.")
    if not 0 <= plan.eta <= 1:
        raise InputError(f"eta must be 0 to 1, not {plan.eta}.")
    if not 0 < start <= 1:
        raise InputError(f"start must be above 0 and at most 1, not {start}.")
    if not 0 <= detail <= 1:
        raise InputError(f"detail must be 0 to 1, not {detail}.")
    if start < 1 and bundle.config.mean is None:
        raise InputError(f"Bundle {bundle.name} has no mean network to start from; leave start at 1.")
    _check_guidance(bundle, plan.guidance)


def _plan_mean(bundle: Bundle, guidance: Mapping[str, float] | None) -> SamplingPlan:
    """The plan of the posterior mean: nothing but which streams are on."""
    if bundle.config.mean is None:
        raise InputError(f"Bundle {bundle.name} has no network for the mean; use mode sample, or another bundle.")
    weights = {name: float(weight) for name, weight in (guidance or {}).items()}
    _check_guidance(bundle, weights, of_the_mean=True)
    if any(weight not in (0.0, 1.0) for weight in weights.values()):
        raise InputError("The mean has no guidance; give weights 0 (stream off) or 1, or use mode sample.")
    if "all" in weights:
        raise InputError("In mode mean streams are switched off one by one, as in semantic=0.")
    return SamplingPlan("mean", guidance=weights)


def _check_guidance(bundle: Bundle, guidance: Mapping[str, float], of_the_mean: bool = False) -> None:
    names = ("semantic", "spatial", "adaptive", "all")
    for name, weight in guidance.items():
        if name not in names:
            raise InputError(f"Unknown stream {name!r} in guidance; choose {', '.join(names)}.")
        if not np.isfinite(weight):
            raise InputError(f"The guidance weight of {name} must be a number, not {weight}.")
        # The mean has all three, whatever the streams of the samples are.
        if name != "all" and not (of_the_mean or getattr(bundle.config.streams, name)):
            raise InputError(f"Bundle {bundle.name} has no {name} stream to guide.")
