"""DEMIST itself: the mean, samples; without a stream, with a useless input; other bundles.

Everything that knows how a bundle makes a map is in :func:`demist`, and which of its maps others are compared with in
:func:`reference`. What takes something away from the model is made in its own mode, and stands beside the whole model
in that mode: the mean where the bundle has one, else the first seed's sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...acquisition import protocol_vector
from ...errors import InputError
from ..calibrated import student_intervals
from ..cases import Case
from ..knockouts import FLAT, WRONG_PROTOCOL, variant
from .method import Context, Method, Outcome

if TYPE_CHECKING:
    import torch

    from ...bundle import Bundle
    from ...synthesis.given import Mean

MEAN = "DEMIST, mean"
ONE_SEED = "DEMIST, 1 seed"
MEAN_OF = "DEMIST, mean of"
#: Streams switched off at inference, by the weight of guidance 0.
ABLATIONS = {
    "no semantic stream": {"semantic": 0.0},
    "no spatial stream": {"spatial": 0.0},
    "no adaptive stream": {"adaptive": 0.0},
    "no stream": {"semantic": 0.0, "spatial": 0.0, "adaptive": 0.0},
}


def build(context: Context) -> list[Method]:
    """The bundle's own maps, its knock-outs, and one map of each further bundle."""
    from ...bundle import load_bundle

    model, device, dtype = context.model, context.device, context.dtype

    def plan(bundle: Bundle, seeds: list[int], guidance: Mapping[str, float] | None = None) -> dict[str, Any]:
        return sampling_plan(bundle, seeds, context.steps, context.sampler, guidance)

    def alone(bundle: Bundle, guidance: Mapping[str, float] | None = None) -> tuple[str, dict[str, Any]]:
        """What one map of a bundle is called, and its plan."""
        if bundle.config.mean is not None:
            return "mean", {"mode": "mean", "guidance": dict(guidance or {})}
        return "1 seed", plan(bundle, [0], guidance)

    methods = []
    how, own = alone(model)
    whole = f"DEMIST, {how}"
    if how == "mean":
        methods.append(demist((MEAN,), model, own, device, dtype))
    names = (ONE_SEED, f"{MEAN_OF} {context.seeds}")[: 1 + (context.seeds > 1)]
    methods.append(demist(names, model, plan(model, list(range(context.seeds))), device, dtype))
    if context.ablations or context.knock_outs:
        for name, guidance in ABLATIONS.items():
            if how == "mean" or all(getattr(model.config.streams, stream) for stream in guidance):
                _, without = alone(model, guidance)
                methods.append(demist((f"{name}, {how}",), model, without, device, dtype, beside=whole))
    if context.knock_outs:
        useless = [*FLAT, *([WRONG_PROTOCOL] if model.config.mean is not None else [])]
        if WRONG_PROTOCOL not in useless:
            context.notes.append("No wrong protocol among the knock-outs: this model reads none.")
        for what in useless:
            methods.append(demist((f"{what}, {how}",), model, own, device, dtype, beside=whole, knocked=what))
    for name, source in context.compare.items():
        other = load_bundle(source)
        if (other.spacing, other.config.multiple) != (model.spacing, model.config.multiple):
            raise InputError(f"Bundle {source} works on another model grid than {model.name}; evaluate it by itself.")
        words, theirs = alone(other)
        methods.append(demist((f"{name}, {words}",), other, theirs, device, dtype))
    return methods


def reference(methods: Sequence[str]) -> str | None:
    """The method that the others are compared with: DEMIST's mean, else that over seeds, else its one seed."""
    means = [name for name in methods if name == MEAN or name.startswith(MEAN_OF)]
    return means[0] if means else ONE_SEED if ONE_SEED in methods else None


def demist(
    names: tuple[str, ...],
    bundle: Bundle,
    plan: Mapping[str, Any],
    device: torch.device,
    dtype: torch.dtype,
    *,
    beside: str | None = None,
    knocked: str | None = None,
) -> Method:
    """Maps of a bundle: ``names[0]`` is the mean or the first seed's map, ``names[1]`` the mean over all seeds.

    ``knocked``: make one input useless first, see :func:`..knockouts.variant`.
    """

    def make(case: Case) -> dict[str, Outcome]:
        from ...synthesis import generate

        case = case if knocked is None else variant(case, knocked)
        told = case.protocol or {}
        protocol, _ = protocol_vector(told.get("T1w", {}), told.get("FLAIR", {}))
        means: list[Mean] = []
        samples = np.stack(
            list(
                generate(
                    bundle,
                    case.condition,
                    case.prepared.mask.array,
                    **plan,
                    protocol=protocol,
                    device=device,
                    dtype=dtype,
                    timings=case.timings,
                    told=means.append if plan.get("mode") == "mean" else None,
                )
            )
        )
        if means:
            return {names[0]: _predicted(case, bundle, means[0])}
        on_grid = [case.to_grid(sample) for sample in samples]
        outcomes = {names[0]: Outcome(on_grid[0])}
        if len(names) > 1:
            # Not the mean of the maps there: interpolation clips overshoot, so the two differ.
            mean = case.to_grid(samples.mean(0, dtype=np.float64))
            deviation = case.to_grid(samples.std(0, ddof=1, dtype=np.float64))
            outcomes[names[1]] = Outcome(mean, deviation, len(samples), None, _region_interval(on_grid))
        return outcomes

    settings = {"bundle": bundle.hash, "precision": str(dtype), **plan} | ({"variant": knocked} if knocked else {})
    return Method(names, settings, make, beside)


def _predicted(case: Case, bundle: Bundle, mean: Mean) -> Outcome:
    """The mean with its calibrated error bars; with the predicted ones as they are, where nothing is calibrated."""
    psr, calibration = case.to_grid(mean.psr), bundle.calibration
    if calibration is None:
        return Outcome(psr, case.to_grid(mean.sd))
    ood = None if bundle.typical is None else bundle.typical.distance(mean.described)
    deviation = case.to_grid(calibration.voxel_sd(mean.psr, mean.sd, ood))
    return Outcome.calibrated(psr, deviation, calibration, case.grid.voxel_volume_ml, ood)


def sampling_plan(
    bundle: Bundle,
    seeds: list[int],
    steps: int | None,
    sampler: str | None,
    guidance: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """All arguments of sampling, the bundle's recommendations filled in: they decide the result, and are recorded."""
    plan = {**bundle.sampling, "seeds": seeds, "mode": "sample"}
    plan["guidance"] = {**plan["guidance"], **(guidance or {})}
    return plan | {key: value for key, value in (("steps", steps), ("sampler", sampler)) if value is not None}


def _region_interval(
    samples: Sequence[np.ndarray],
) -> Callable[[np.ndarray, Sequence[int], str], dict[int, tuple[float, float]]]:
    """What samples (X, Y, Z) on the comparison grid say of the mean of a region."""

    def interval(region: np.ndarray, levels: Sequence[int], kind: str) -> dict[int, tuple[float, float]]:
        means = np.array([float(sample[region].mean(dtype=np.float64)) for sample in samples])
        ends = student_intervals(means.mean(), means.std(ddof=1), len(samples), levels)
        return {level: (float(low), float(high)) for level, (low, high) in ends.items()}

    return interval
