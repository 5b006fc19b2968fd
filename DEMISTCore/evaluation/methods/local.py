"""The linear model of ten local features, and the scaled T1w/FLAIR ratio: fitted on a training set in seconds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...baselines.linear import LinearModel, fit
from ...errors import InputError
from ...files import sha256
from ...training.data import PreparedSession, Session, index
from ..cases import Case, check_preprocess
from ..knockouts import FLAT, variant
from .method import Context, Method, Outcome

LINEAR = "linear model"
RATIO = "T1w/FLAIR ratio"
SCANS = 16  # more do not move ten coefficients
FILE = "linear.npz"


def build(context: Context) -> list[Method]:
    """The linear model and the ratio, if there is something to fit them on; knock-outs of the linear model."""
    spacing, multiple = context.model.spacing, context.model.config.multiple
    if context.linear is None and context.lookup_from is None:
        context.notes.append("No linear model and no T1w/FLAIR ratio: they take --lookup-from or --linear.")
        return []
    model = fitted(
        context.linear,
        context.lookup_from,
        context.out / FILE,
        spacing=spacing,
        multiple=multiple,
        preprocess=context.preprocess,
        device=str(context.device),
        progress=context.progress,
        already_aligned=context.already_aligned,
    )
    context.notes.append(f"Linear model and ratio: fitted on {len(model.scans)} scans of `{model.source}`.")
    settings = {"weights": model.weights.tolist(), "ratio_scale": model.ratio_scale}
    methods = [
        Method((LINEAR,), settings, lambda case: {LINEAR: linear(model, case)}),
        Method((RATIO,), settings, lambda case: {RATIO: _outcome(case, model.predict_ratio)}),
    ]
    if context.knock_outs:
        for what in FLAT:
            name = f"{LINEAR}, {what}"

            def make(case: Case, name: str = name, what: str = what) -> dict[str, Outcome]:
                return {name: linear(model, variant(case, what))}

            methods.append(Method((name,), {**settings, "variant": what}, make, beside=LINEAR))
    return methods


def linear(model: LinearModel, case: Case) -> Outcome:
    """The linear model's map of a case."""
    return _outcome(case, model.predict)


def _outcome(case: Case, predict: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Outcome:
    return Outcome(case.to_grid(predict(case.condition, case.prepared.mask.array)))


def fitted(
    linear: str | Path | None,
    lookup_from: str | Path | None,
    keep: Path,
    *,
    spacing: float,
    multiple: int,
    preprocess: str = "masked",
    device: str = "cpu",
    progress: bool = False,
    already_aligned: bool | None = None,
) -> LinearModel:
    """The fitted model: read, or fitted on a prepared cohort or a data set and kept.

    Args:
        linear: a file that an earlier fit left, or the folder of a prepared cohort (``cache`` of a training).
        lookup_from: BIDS data set to fit on, 16 scans of it, where ``linear`` is not given.
        keep: where to write what was fitted. A fit that is there, of the same scans prepared the same way, is used.
        spacing, multiple: of the model grid (mm, voxels).
        preprocess: how scans of ``lookup_from`` are prepared, see :data:`DEMISTCore.evaluation.cases.PREPROCESS`.
        device: where brain extraction runs.
        progress: draw a progress bar.
        already_aligned: of :class:`..cases.Case`.

    Raises:
        InputError: nothing to fit on, an unknown way to prepare, or a model of another spacing.
    """
    check_preprocess(preprocess)
    if linear is not None and not Path(linear).is_dir():
        model = LinearModel.load(linear)
        if not np.isclose(model.spacing, spacing, rtol=1e-3):
            raise InputError(
                f"The linear model {linear} was fitted on scans of {model.spacing:g} mm and the bundle's are of "
                f"{spacing:g} mm; fit it anew with --lookup-from."
            )
        return model
    scans: Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]
    if linear is not None:
        entries = _prepared_cohort(Path(linear), spacing)
        key = _key([entry.key for entry in entries], spacing)
        scans = (
            (e.name, np.asarray(e.x, np.float32), np.asarray(e.y, np.float32), e.labels * (e.known > 0))
            for e in entries
        )
        source = Path(linear).name
    elif lookup_from is None:
        raise InputError("The linear model takes --linear or --lookup-from.")
    else:
        sessions = _one_each(index(lookup_from))
        files = [[sha256(p) for p in (s.t1w, s.flair, s.psr, s.mask) if p] for s in sessions]
        key = _key(files, spacing, multiple, preprocess, *([] if already_aligned is None else [already_aligned]))
        cases = (
            Case(s, "model", preprocess, spacing, multiple, device, already_aligned=already_aligned) for s in sessions
        )
        scans = _scans(cases, len(sessions), progress)
        source = Path(lookup_from).name
    if keep.is_file():
        try:
            known = LinearModel.load(keep)
        except InputError:  # damaged: made again
            known = None
        if known is not None and known.key == key:
            return known
    model = fit(scans, spacing=spacing, source=source, key=key)
    model.save(keep)
    return model


def _key(*what: Any) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def _one_each(sessions: Sequence[Session]) -> list[Session]:
    """The first session of each of the first subjects."""
    first: dict[str, Session] = {}
    for session in sessions:
        first.setdefault(session.subject, session)
    return list(first.values())[:SCANS]


def _scans(
    cases: Iterable[Case], count: int, progress: bool
) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    from tqdm import tqdm

    for case in tqdm(cases, total=count, desc="fit linear model", unit="scan", disable=not progress):
        try:
            psr, known = case.measured.on_grid(case.prepared.grid, case.motion)
            yield case.name, case.condition, psr, case.prepared.mask.array * known
        except InputError as error:
            raise InputError(f"{case.name}: {error}") from error


def _prepared_cohort(folder: Path, spacing: float) -> list[PreparedSession]:
    """Scans that a training has prepared, the first of each subject."""
    root = folder / "prepared" if (folder / "prepared").is_dir() else folder
    first: dict[str, PreparedSession] = {}
    for meta in sorted(root.glob("sub-*/[!.]*/meta.json")):
        session, _, key = meta.parent.name.rpartition("-")
        entry = PreparedSession(meta.parts[-3], "" if session == "only" else session, meta.parent, key)
        if np.isclose(float(entry.meta["settings"]["spacing"]), spacing, rtol=1e-3):
            first.setdefault(entry.subject, entry)
    if not first:
        raise InputError(
            f"{folder} holds no scans prepared at {spacing:g} mm; --linear takes a linear.npz, or the cache of a "
            "training."
        )
    return list(first.values())[:SCANS]
