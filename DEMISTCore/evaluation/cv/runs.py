"""The trainings of a fold: each stage a run folder that is begun, gone on with, or found finished."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError, Terminated
from ...files import write_json
from ...schema import read_json
from .folds import Fold
from .options import Options
from .recipes import Recipe

DONE = "finished.json"


@dataclass(frozen=True)
class Trained:
    """What the stages of a method have cost.

    Attributes:
        folder: run of each stage.
        seconds, steps: of each stage, as the loop counted them.
    """

    folder: Mapping[str, Path]
    seconds: Mapping[str, float]
    steps: Mapping[str, int]


def train(recipe: Recipe, fold: Fold, data: str, out: Path, options: Options) -> Trained:
    """Train what is not trained yet of a method in a fold; stages that several methods stand on are trained once.

    Args:
        recipe: the method.
        fold: whom to leave out.
        data: BIDS data set.
        out: folder of the fold; run folders lie in it, by stage.
        options: of the cross-validation; ``cache`` lies beside the folds and is shared: it holds scans, no weights.

    Raises:
        InputError: a stage cannot be begun or gone on with; the sentence says why.
        Terminated: a signal asked to stop; the same call goes on from there.
    """
    folders: dict[str, Path] = {}
    seconds: dict[str, float] = {}
    steps: dict[str, int] = {}
    for stage, share in recipe.stages(options.foundation, options.backbone).items():
        folder = out / stage
        found = _finished(folder)
        if found is None:
            _run(stage, folder, fold, data, options, share, _links(stage, folders, options))
            found = _finish(folder)
        check_apart_from(folder, fold)
        folders[stage], seconds[stage], steps[stage] = folder, float(found["seconds"]), int(found["steps"])
    return Trained(folders, seconds, steps)


def check_apart_from(folder: Path, fold: Fold) -> None:
    """A run must not have read anybody whom the fold tests.

    Raises:
        InputError: it has, or may have; the sentence says whom.
    """
    from ...training.checkpoint import Run
    from ...training.data import subject_name

    run = Run.read(folder)
    left_out = {subject_name(name) for name in run.settings.exclude_subjects}
    if met := sorted(set(fold.test) - left_out):
        raise InputError(f"{folder} was trained on {met[0]}, whom fold {fold.number} tests; train it again without.")


def check_external(source: str | None, data: str | Path, folds: list[Fold]) -> str | None:
    """A sentence on a foundation from elsewhere; where it is a run on the same data set, it must have left all out.

    Raises:
        InputError: it was trained on somebody who is tested.
    """
    if source is None:
        return None
    if not (Path(source) / "config.yaml").is_file():
        return f"The foundation {source} was trained elsewhere; that it has seen nobody who is tested is declared."
    from ...training.checkpoint import Run
    from ...training.data import index, subject_name

    run: Run | None = Run.read(source)
    while run is not None:
        if run.data and Path(run.data).exists() and Path(run.data).samefile(data):
            left_out = {subject_name(name) for name in run.settings.exclude_subjects}
            seen = sorted({s.subject for s in index(run.data)} - left_out)
            for fold in folds:
                if met := sorted(set(seen) & set(fold.test)):
                    raise InputError(
                        f"The foundation {run.folder} was trained on {met[0]}, whom fold {fold.number} "
                        "tests; leave --foundation out, so that every fold trains its own."
                    )
        below = run.foundation_source if run.foundation else None
        run = Run.read(below) if below and (Path(below) / "config.yaml").is_file() else None
    return f"The foundation {source} was trained on another data set, or without those who are tested."


def _links(stage: str, folders: Mapping[str, Path], options: Options) -> dict[str, Any]:
    """The earlier runs that a stage takes."""
    if stage in ("vae", "ldm", "backbone", "mean"):
        below = folders.get("backbone", folders.get("autoencoder")) if stage == "mean" else folders.get("autoencoder")
        return {"foundation": options.foundation or str(below)}
    if stage == "demist":
        links = {"foundation": options.foundation or str(folders.get("backbone", folders["autoencoder"]))}
        if options.backbone is not None:
            links["backbone"] = options.backbone
        return links | ({"mean": str(folders["mean"])} if "mean" in folders else {})
    return {"init": options.init} if stage == "autoencoder" and options.init is not None else {}


def _run(
    stage: str, folder: Path, fold: Fold, data: str, options: Options, share: float, links: Mapping[str, Any]
) -> None:
    from ...training.start import start

    if (folder / "config.yaml").is_file():
        code = start(stage, out=folder, resume=True)
    else:
        words = [
            *options.length(share),
            f"cache={folder.parent.parent / 'cache'}",
            *options.words(stage),
            f"exclude_subjects={json.dumps(list(fold.test))}",
        ]
        code = start(stage, out=folder, data=data, config=options.config, overrides=words, **links)
    if code > 128:  # by a signal, which the loop has obeyed after a step
        raise Terminated(code - 128)
    if code:
        raise InputError(f"The training {folder} was stopped; the same command goes on from there.")


def _finish(folder: Path) -> dict[str, Any]:
    """Note what a finished run has cost; from here on it is not looked into again."""
    from ...training.checkpoint import Run, newest, step_of

    run = Run.read(folder)
    loaded = newest(folder)
    seconds = float(loaded[2]["elapsed"]) if loaded else 0.0
    told = {"stage": run.stage, "steps": step_of(run.latest()), "seconds": round(seconds, 3)}
    write_json(folder / DONE, told)
    return told


def _finished(folder: Path) -> dict[str, Any] | None:
    try:
        told = read_json(folder / DONE)
        return told if {"steps", "seconds"} <= set(told) else None
    except (OSError, ValueError, TypeError):
        return None
