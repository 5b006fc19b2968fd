"""What is sampled and how: seeds, sampler, steps, guidance; checked, a bundle's recommendations filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..errors import BundleError, InputError

MAX_SEEDS = 256


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
    seeds: list[int] | None,
    steps: int | None,
    sampler: str | None,
    guidance: Mapping[str, float] | None,
    eta: float | None = None,
    spacing: str | None = None,
) -> dict[str, Any]:
    """All sampling settings, the bundle's recommendations filled in, checked.

    Raises:
        InputError: a setting that is out of range, or that the model does not know.
        BundleError: a bundle that makes no maps.
    """
    from ..diffusion import SAMPLERS, SPACINGS

    if bundle.kind != "demist":
        raise BundleError(
            f"Bundle {bundle.folder} is a foundation without conditioning streams; give a demist bundle, or train one "
            "on it (python -m DEMISTCore.train demist)."
        )
    advice = bundle.sampling
    plan = {
        "seeds": check_seeds(advice["seeds"]) if seeds is None else check_seeds(seeds),
        "sampler": sampler or advice["sampler"],
        "steps": advice["steps"] if steps is None else steps,
        "eta": float(advice["eta"] if eta is None else eta),
        "spacing": spacing or advice["spacing"],
        "guidance": {
            name: float(weight) for name, weight in (advice["guidance"] if guidance is None else guidance).items()
        },
    }
    if plan["sampler"] not in SAMPLERS:
        raise InputError(f"Unknown sampler {plan['sampler']!r}; choose {', '.join(SAMPLERS)}.")
    if plan["spacing"] not in SPACINGS:
        raise InputError(f"Unknown spacing {plan['spacing']!r}; choose {', '.join(SPACINGS)}.")
    limit = bundle.schedule.steps
    if isinstance(plan["steps"], bool) or not isinstance(plan["steps"], int) or not 1 <= plan["steps"] <= limit:
        raise InputError(f"The number of sampling steps must be 1 to {limit}, not {plan['steps']}.")
    if not 0 <= plan["eta"] <= 1:
        raise InputError(f"eta must be 0 to 1, not {plan['eta']}.")
    names = ("semantic", "spatial", "adaptive", "all")
    for name, weight in plan["guidance"].items():
        if name not in names:
            raise InputError(f"Unknown stream {name!r} in guidance; choose {', '.join(names)}.")
        if not np.isfinite(weight):
            raise InputError(f"The guidance weight of {name} must be a number, not {weight}.")
        if name != "all" and not getattr(bundle.config.streams, name):
            raise InputError(f"Bundle {bundle.name} has no {name} stream to guide.")
    return plan
