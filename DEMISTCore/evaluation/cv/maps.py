"""From a fold's trainings to the methods that make maps of its test subjects."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...baselines.linear import LinearModel, fit
from ...errors import InputError
from ..cases import Case
from ..methods.baselines import baseline
from ..methods.demist import demist, sampling_plan
from ..methods.method import Method, Outcome
from .folds import Fold
from .options import Options
from .recipes import DEMIST_MEAN, DEMIST_SAMPLE, LINEAR, RATIO, Recipe
from .runs import Trained

if TYPE_CHECKING:
    import torch

    from ...bundle import Bundle
    from ...training.data import Session

#: More scans do not move the coefficients of what is fitted by least squares.
SCANS = 16


@dataclass(frozen=True, eq=False)
class Machine:
    """Where maps are made."""

    device: torch.device
    dtype: torch.dtype


def methods_of(
    recipe: Recipe,
    trained: Trained,
    fold: Fold,
    sessions: Sequence[Session],
    out: Path,
    options: Options,
    machine: Machine,
) -> list[Method]:
    """The maps of a recipe as methods, ready to be asked.

    Args:
        recipe, trained: the method and its runs.
        fold, sessions: whom it may know, and their files.
        out: folder of the fold.
        options, machine: of the cross-validation.
    """
    if recipe.name == "demist":
        return _demist(_bundle(trained, out, options), options, machine)
    if recipe.name in ("linear", "ratio"):
        return [_fitted(recipe.name, _linear(fold, sessions, out, options))]
    run = list(trained.folder.values())[-1]
    return [
        baseline(
            run, machine.device, machine.dtype, sampler=options.sampler, steps=options.sampling_steps, seed=options.seed
        )
    ]


def _bundle(trained: Trained, out: Path, options: Options) -> Bundle:
    """The bundle of a fold's runs: written once, whole or not at all."""
    from ...bundle import load_bundle
    from ...training.export import export

    folder = out / "bundle" / "demist"
    base = options.foundation
    external_run = base is not None and (Path(base) / "config.yaml").is_file()
    runs = [trained.folder["demist"]]
    if base is None and options.backbone is None:
        runs.insert(0, trained.folder["backbone"])
    elif base is not None and external_run:
        runs.insert(0, Path(base))
    if not folder.exists():
        # What a stopped export has left (the base without the rest) is replaced.
        export(runs, folder, base=None if base is None or external_run else base, storage="fp32", overwrite=True)
    return load_bundle(folder)


def _demist(bundle: Bundle, options: Options, machine: Machine) -> list[Method]:
    """The mean and one sample; without a mean network, the mean over seeds."""
    from ...baselines.trained import count_parameters

    known = bundle.demist
    whole = count_parameters(known, bundle.autoencoder_condition.encoder, bundle.autoencoder_psr.decoder)
    one = sampling_plan(bundle, [options.seed], options.sampling_steps, options.sampler)
    if bundle.config.mean is None:
        seeds = list(range(options.seed, options.seed + options.seeds))
        plan = sampling_plan(bundle, seeds, options.sampling_steps, options.sampler)
        both = demist((DEMIST_SAMPLE, DEMIST_MEAN), bundle, plan, machine.device, machine.dtype)
        return [_counting(both, known, {DEMIST_SAMPLE: 1, DEMIST_MEAN: len(seeds)}, whole)]
    of_mean = count_parameters(known.mean, bundle.autoencoder_condition.encoder, bundle.autoencoder_psr.decoder)
    one |= {"start": options.start, "detail": options.detail}
    mean = demist((DEMIST_MEAN,), bundle, {"mode": "mean", "guidance": {}}, machine.device, machine.dtype)
    sample = demist((DEMIST_SAMPLE,), bundle, one, machine.device, machine.dtype)
    return [_counting(mean, None, {}, of_mean), _counting(sample, known, {DEMIST_SAMPLE: 1}, whole)]


def _counting(method: Method, network: Any, seeds: dict[str, int], parameters: int) -> Method:
    """The method with passes counted: of the conditioned backbone, for so many of the samples; else one."""
    from ...baselines.trained import counted

    def make(case: Case) -> dict[str, Outcome]:
        if network is None:
            outcomes = method.make(case)
            for outcome in outcomes.values():
                outcome.passes = 1
            return outcomes
        with counted(network) as passes:
            outcomes = method.make(case)
        most = max(seeds.values())
        for name, outcome in outcomes.items():
            outcome.passes = passes[0] * seeds[name] // most
        return outcomes

    return Method(method.names, method.settings, make, method.beside, dict.fromkeys(method.names, parameters))


def _fitted(name: str, model: LinearModel) -> Method:
    row, predict, size = (
        (LINEAR, model.predict, len(model.weights)) if name == "linear" else (RATIO, model.predict_ratio, 1)
    )

    def make(case: Case) -> dict[str, Outcome]:
        return {row: Outcome(case.to_grid(predict(case.condition, case.prepared.mask.array)), passes=0)}

    settings = {"weights": model.weights.tolist(), "ratio_scale": model.ratio_scale}
    return Method((row,), settings, make, parameters={row: size})


def _linear(fold: Fold, sessions: Sequence[Session], out: Path, options: Options) -> LinearModel:
    """Both least-squares fits on the first scan of the fold's first training subjects, kept in the fold's folder."""
    from ...training.prepare import prepare_cohort
    from ...training.settings import resolve

    settings = resolve("regression", options.config, ["steps=1", *options.words("regression")])
    first = {s.subject: s for s in reversed(sessions) if s.subject in fold.train}
    chosen = [first[name] for name in fold.train if name in first][:SCANS]
    if not chosen:
        raise InputError(f"Fold {fold.number} has nobody to fit the linear model on.")
    cache = Path(settings.cache) if settings.cache else out.parent / "cache"
    entries = prepare_cohort(chosen, settings, cache, progress=False)
    key = hashlib.sha256(" ".join(entry.key for entry in entries).encode()).hexdigest()
    kept = out / "linear.npz"
    if kept.is_file():
        try:
            model = LinearModel.load(kept)
            if model.key == key:
                return model
        except InputError:  # damaged: fitted again
            pass
    scans = (
        (e.name, np.asarray(e.x, np.float32), np.asarray(e.y, np.float32), e.labels * (e.known > 0)) for e in entries
    )
    model = fit(scans, spacing=settings.preprocess.spacing, source=f"fold {fold.number}", key=key)
    model.save(kept)
    return model
