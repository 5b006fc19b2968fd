"""What is compared: every method as something that turns a case into one or several named maps."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..baselines import lookup
from ..errors import InputError
from .cases import Case

if TYPE_CHECKING:
    import torch

    from ..bundle import Bundle
    from ..training.data import Session

POPULATION = "population look-up"
OWN_MEANS = "own tissue means (oracle)"
REGRESSION = "regression"
ONE_SEED = "DEMIST, 1 seed"
BOUND_RESAMPLED = "resampled truth (bound)"
BOUND_AUTOENCODER = "autoencoder (bound)"
#: Streams switched off at inference, by the weight of guidance 0.
ABLATIONS = {
    "no semantic stream": {"semantic": 0.0},
    "no spatial stream": {"spatial": 0.0},
    "no adaptive stream": {"adaptive": 0.0},
    "no stream": {"semantic": 0.0, "spatial": 0.0, "adaptive": 0.0},
}


@dataclass(eq=False)
class Outcome:
    """A method's map (X, Y, Z) on the comparison grid, and its standard deviation over ``seeds`` samples."""

    psr: np.ndarray
    deviation: np.ndarray | None = None
    seeds: int = 1


@dataclass(eq=False)
class Method:
    """Something that makes one or several named maps of a case.

    ``settings`` is everything that decides the result besides the case: it goes into the fingerprint.
    """

    names: tuple[str, ...]
    settings: dict[str, Any]
    make: Callable[[Case], dict[str, Outcome]]


def choose_methods(
    model: Bundle,
    sessions: Sequence[Session],
    *,
    seeds: int,
    steps: int | None,
    sampler: str | None,
    ablations: bool,
    compare: Mapping[str, str | Path],
    regression_from: str | Path | None,
    lookup_from: str | Path | None,
    lookup_cache: Path | None,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[list[Method], list[str]]:
    """All methods in the order of the tables, and sentences on how they came about."""
    from ..bundle import load_bundle

    notes = []
    methods = []
    look_up, note = _population(sessions, lookup_from, lookup_cache)
    notes.append(note)
    methods += [look_up] if look_up else []
    methods.append(own_means())
    if regression_from is not None:
        methods.append(regression(regression_from, device, dtype))
    plan = _sampling(model, list(range(seeds)), steps, sampler)
    names = (ONE_SEED, f"DEMIST, mean of {seeds}")[: 1 + (seeds > 1)]
    methods.append(demist(names, model, plan, device, dtype))
    if ablations:
        for name, guidance in ABLATIONS.items():
            if all(getattr(model.config.streams, stream) for stream in guidance):
                alone = _sampling(model, [0], steps, sampler, guidance)
                methods.append(demist((f"{name}, 1 seed",), model, alone, device, dtype))
    for name, source in compare.items():
        other = load_bundle(source)
        if (other.spacing, other.config.multiple) != (model.spacing, model.config.multiple):
            raise InputError(f"Bundle {source} works on another model grid than {model.name}; evaluate it by itself.")
        alone = _sampling(other, [0], steps, sampler)
        methods.append(demist((f"{name}, 1 seed",), other, alone, device, dtype))
    taken = [name for method in methods for name in method.names]
    if len(set(taken)) < len(taken):
        raise InputError("Two methods have one name; choose other names in --compare.")
    return methods + bounds(model, device, dtype), notes


def _population(
    sessions: Sequence[Session], lookup_from: str | Path | None, cache: Path | None
) -> tuple[Method | None, str]:
    """The population look-up from another data set, or from all other subjects of this one."""
    from ..training.data import index

    source = sessions if lookup_from is None else index(lookup_from)
    truths = {s.subject: (s.psr, s.dseg) for s in source}
    if lookup_from is None and len(truths) < 2:
        return None, "No population look-up: that takes a second subject or --lookup-from."
    means = lookup.cohort_means(truths, cache)
    if lookup_from is not None:
        pooled = lookup.population_means(means.values())
        words = f"Population look-up: tissue means of {len(means)} subjects of `{Path(lookup_from).name}`."
        return population(lambda subject: pooled, json.dumps(pooled)), words
    words = f"Population look-up: tissue means of the {len(means) - 1} other subjects of the same data set."

    def others(subject: str) -> lookup.Means:
        return lookup.population_means(m for name, m in means.items() if name != subject)

    return population(others, json.dumps(means)), words


def own_means() -> Method:
    """The subject's own true tissue means."""

    def make(case: Case) -> dict[str, Outcome]:
        means = lookup.tissue_means(case.truth[case.mask], case.labels[case.mask])
        return {OWN_MEANS: Outcome(lookup.look_up(means, case.labels))}

    return Method((OWN_MEANS,), {}, make)


def population(means_for: Callable[[str], lookup.Means], source: str) -> Method:
    """Tissue means of a cohort; ``means_for(subject)`` gives those that the subject has no part in."""

    def make(case: Case) -> dict[str, Outcome]:
        return {POPULATION: Outcome(lookup.look_up(means_for(case.session.subject), case.labels))}

    return Method((POPULATION,), {"source": source}, make)


def bounds(bundle: Bundle, device: torch.device, dtype: torch.dtype) -> list[Method]:
    """What is lost by interpolation alone, and by the PSR autoencoder."""

    def on_model_grid(case: Case) -> np.ndarray:
        psr = case.true_psr.resampled_to(case.prepared.grid, "bspline").array
        return np.where(case.prepared.mask.array > 0, psr, 0).astype(np.float32)

    def resample(case: Case) -> dict[str, Outcome]:
        return {BOUND_RESAMPLED: Outcome(case.to_grid(on_model_grid(case)))}

    def reconstruct(case: Case) -> dict[str, Outcome]:
        import torch

        from ..decoding import decode
        from ..devices import autocast

        network = bundle.autoencoder_psr.to(device)
        y = torch.from_numpy(on_model_grid(case) / np.float32(bundle.psr_range))[None, None].to(device)
        with torch.no_grad(), autocast(device, dtype):
            z, _ = network.encode(y)
        image = decode(network, z.float(), dtype=dtype)[0, 0].numpy() * np.float32(bundle.psr_range)
        return {BOUND_AUTOENCODER: Outcome(case.to_grid(np.maximum(image, 0)))}

    return [
        Method((BOUND_RESAMPLED,), {"spacing": bundle.spacing}, resample),
        Method((BOUND_AUTOENCODER,), {"bundle": bundle.hash}, reconstruct),
    ]


def demist(
    names: tuple[str, ...],
    bundle: Bundle,
    plan: Mapping[str, Any],
    device: torch.device,
    dtype: torch.dtype,
) -> Method:
    """Samples of a bundle: ``names[0]`` is the first seed's map, ``names[1]``, if given, the mean over all seeds."""

    def make(case: Case) -> dict[str, Outcome]:
        from ..synthesis import generate

        samples = np.stack(list(generate(
            bundle, case.prepared.array, case.prepared.mask.array, **plan, device=device, dtype=dtype,
            timings=case.timings,
        )))  # fmt: skip
        outcomes = {names[0]: Outcome(case.to_grid(samples[0]))}
        if len(names) > 1:
            deviation = samples.std(0, ddof=1, dtype=np.float64)
            mean = samples.mean(0, dtype=np.float64)
            outcomes[names[1]] = Outcome(case.to_grid(mean), case.to_grid(deviation), len(samples))
        return outcomes

    return Method(names, {"bundle": bundle.hash, "precision": str(dtype), **plan}, make)


def _sampling(
    bundle: Bundle,
    seeds: list[int],
    steps: int | None,
    sampler: str | None,
    guidance: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """All arguments of sampling, the bundle's recommendations filled in: they decide the result, and are recorded."""
    plan = {**bundle.sampling, "seeds": seeds}
    plan["guidance"] = {**plan["guidance"], **(guidance or {})}
    return plan | {key: value for key, value in (("steps", steps), ("sampler", sampler)) if value is not None}


def regression(source: str | Path, device: torch.device, dtype: torch.dtype) -> Method:
    """The regression network of a training run."""
    from ..baselines.regression import load_regression

    model = load_regression(source)

    def make(case: Case) -> dict[str, Outcome]:
        psr = model.predict(case.prepared.array, case.prepared.mask.array, device=device, dtype=dtype)
        # PSR is never negative; DEMIST's maps are cut at 0 likewise.
        return {REGRESSION: Outcome(case.to_grid(np.maximum(psr, 0)))}

    return Method((REGRESSION,), {"weights": model.hash, "precision": str(dtype)}, make)
