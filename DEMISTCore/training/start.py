"""From a command line to a running stage: settings, data, the earlier stage's weights, the run folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ..commit import sweep
from ..errors import InputError, Terminated
from ..files import write_json
from ..guards import protect_folder
from ..lock import LOCK_FILE, FolderLock
from .checkpoint import Run, checkpoints
from .groups import Settings
from .settings import RESUMABLE, build, resolve, to_dict
from .stage import Stage
from .stages import STAGES, Task

log = logging.getLogger(__name__)


def start(
    stage: str,
    *,
    out: Path,
    data: str | None = None,
    config: str | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    init: str | None = None,
    foundation: str | None = None,
    backbone: str | None = None,
    mean: str | None = None,
) -> int:
    """Begin or resume a run of ``stage`` in the folder ``out``; return the exit code.

    Raises:
        InputError: settings, data set, run folder or the earlier stage's run cannot be used as given.
    """
    out = Path(out)
    tables = [word.partition("=")[2] for word in overrides if word.startswith(("context=", "bids_filter="))]
    protect_folder(out, (data, config, init, foundation, backbone, mean, tables), "run folder")
    if not resume:
        _check_free(out)
    elif not (out / "config.yaml").is_file():
        raise InputError(f"{out} is not a training run: it has no config.yaml; leave out --resume to begin one.")
    with _owned(out):
        if not resume:
            _check_free(out)
        return _start(stage, out, data, config, overrides, resume, init, foundation, backbone, mean)


def _start(
    stage: str,
    out: Path,
    data: str | None,
    config: str | None,
    overrides: Sequence[str],
    resume: bool,
    init: str | None,
    foundation: str | None,
    backbone: str | None,
    mean: str | None,
) -> int:
    """:func:`start` in a folder that is this process's own."""
    if resume:
        run = _resumed(stage, out, data, config, overrides, foundation)
        run.backbone = _absolute(backbone) or run.backbone
        run.mean = _absolute(mean) or run.mean
    else:
        settings = resolve(stage, config, overrides)
        if not data:
            raise InputError("Say what to train on: --data takes a BIDS data set.")
        if (earlier := STAGES[stage].foundation) and not foundation:
            earlier = "autoencoder" if backbone else earlier
            raise InputError(f"{stage} builds on an earlier stage: give --foundation a {earlier} run, or a bundle.")
        run = Run(
            out,
            stage,
            settings,
            _absolute(data),
            _absolute(foundation),
            init=init,
            backbone=_absolute(backbone),
            mean=_absolute(mean),
        )
    with _sigterm_interrupts():
        ready = _assemble(run, resume)
    return _train(run, ready, resume)


def _check_free(out: Path) -> None:
    """InputError unless ``out`` is new, or holds nothing but what a run that never began has left."""
    if not _first_process() or not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out} is a file; choose another --out.")
    found = [path.name for path in out.iterdir() if path.name != LOCK_FILE and not path.name.startswith(".tmp-")]
    if found and (out / "config.yaml").is_file():
        raise InputError(f"{out} is in use; add --resume to go on with it, or choose another --out.")
    if found:
        raise InputError(f"{out} is in use and is no training run ({sorted(found)[0]}); choose another --out.")


@contextlib.contextmanager
def _owned(out: Path) -> Iterator[None]:
    """The run folder as this process's own; the further processes of a run share their first one's."""
    if not _first_process():
        yield
        return
    with FolderLock(out, "the training run"):
        for folder in (out, out / "checkpoints", out / "previews"):
            sweep(folder, sole=True)
        yield


def _first_process() -> bool:
    """False in the further processes of a run on several devices, which Fabric or SLURM start."""
    return not any(int(os.environ.get(name) or 0) for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))


def _absolute(source: str | None) -> str | None:
    """Paths without a question where they start; names of bundles stay names."""
    return str(Path(source).resolve()) if source and Path(source).exists() else source


def _train(run: Run, stage: Stage, resume: bool) -> int:
    from .loop import fit

    if _first_process():
        try:
            run.folder.mkdir(parents=True, exist_ok=True)
            if stage.scales is not None:
                _note_scales(run, stage.scales)
            run.write()  # last: a folder with a configuration is a run
        except OSError as error:
            raise InputError(f"Cannot write {run.folder}: {error.strerror or error}.") from error
    if not _first_process():
        logging.getLogger().setLevel(logging.WARNING)
        return fit(stage, run, resume=resume)
    handler = logging.FileHandler(run.folder / "train.log", encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logging.getLogger().addHandler(handler)
    try:
        log.info("%s -> %s", run.stage, run.folder)
        if told := stage.table():
            log.info("%s", told)
        code = fit(stage, run, resume=resume)
        stage.finish()
        return code
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def _resumed(
    stage: str, out: Path, data: str | None, config: str | None, overrides: Sequence[str], foundation: str | None
) -> Run:
    run = Run.read(out)
    if run.stage != stage:
        raise InputError(f"{out} is a run of {run.stage}, not of {stage}.")
    if config:
        raise InputError("--resume goes on with the run's own configuration; leave out --config.")
    before = to_dict(run.settings)
    after = to_dict(_overridden(stage, before, overrides))
    changed = [key for key in after if after[key] != before[key] and key not in RESUMABLE]
    if changed:
        raise InputError(
            f"A resumed run goes on as it began: {changed[0]} cannot change; start a new run with --init {out}."
        )
    run.settings = build(stage, after)
    run.data, run.foundation = _absolute(data) or run.data, _absolute(foundation) or run.foundation
    return run


def _note_scales(run: Run, scales: dict[str, Any]) -> None:
    """Write the latent scales; those of a run that goes on must be what they were."""
    from .foundation import SCALES, read_scales

    if (run.folder / SCALES).exists() and checkpoints(run.folder):
        before = read_scales(run.folder)
        if any(not _same(before.get(key), value) for key, value in scales.items()):
            raise InputError(f"{run.folder / SCALES} is not what the run began with; put it back, or start a new run.")
        return
    write_json(run.folder / SCALES, scales)


def _same(a: Any, b: Any) -> bool:
    numbers = isinstance(a, (int, float)) and isinstance(b, (int, float))
    return math.isclose(a, b, rel_tol=1e-6) if numbers else a == b


def _data_hash(train: Sequence[Any], validation_set: Sequence[Any], contexts: Any) -> str:
    """What a run is trained on: names and content of its sessions, on either side, and their conditions."""
    sides = [[(entry.name, entry.key) for entry in side] for side in (train, validation_set)]
    table = {name: values.tolist() for name, values in (contexts or {}).items()}
    return hashlib.sha256(json.dumps([sides, table], sort_keys=True).encode()).hexdigest()


def _overridden(stage: str, tree: dict[str, Any], overrides: Sequence[str]) -> Settings:
    from .settings import override

    return build(stage, override(tree, overrides))


@runtime_checkable
class _WithContext(Protocol):
    """Settings of a stage with ``contexts``."""

    context: str | None


def _assemble(run: Run, resume: bool) -> Stage:
    """Data and networks: everything up to the first step."""
    from ..networks.limits import read_model
    from . import data

    s, kind = run.settings, STAGES[run.stage]
    from ..measured.choice import read_filters
    from .check import stop_at_alarms

    s.bids_filter, s.levels = _absolute(s.bids_filter), _absolute(s.levels)
    if run.data is None:
        raise InputError(f"{run.folder} names no data set; give --data.")
    sessions = data.index(run.data, read_filters(s.bids_filter), s.exclude_subjects)
    train, validation_set = data.split(sessions, s, excluded_already=True)
    try:
        model = read_model(s.model)
    except ValueError as error:
        raise InputError(f"The model's settings do not fit together: {error}") from error

    # What needs torch comes after what can fail quickly.
    import torch

    from ..devices import pick_precision
    from .levels import levelled, read_levels
    from .loop import check_machine
    from .prepare import prepare_cohort

    device = check_machine(s)
    if s.precision == "auto":
        s.precision = pick_precision(torch.device(device))
        log.info("Precision %s: what this machine computes in.", s.precision)
    torch.manual_seed(s.seed)
    if s.threads:
        torch.set_num_threads(s.threads)
    cache = Path(s.cache) if s.cache else run.folder.parent / "cache"
    foundation = None
    if kind.foundation:
        from .foundation import foundation_of

        foundation = foundation_of(run)
        if resume and run.foundation_hash not in (None, foundation.hash):
            raise InputError(f"{run.foundation} has changed since {run.folder} began; start a new run on it.")
        run.foundation_hash = foundation.hash
    contexts = None
    if kind.contexts and isinstance(s, _WithContext) and s.context and foundation is not None:
        from .context import read_contexts

        s.context = table = _absolute(s.context) or s.context
        contexts = read_contexts(table, foundation.conditions, [*train, *validation_set])
    prepared = prepare_cohort([*train, *validation_set], s, cache)
    stop_at_alarms(prepared, s.accept_alarms)
    if s.levels:
        prepared = levelled(prepared, read_levels(s.levels))
    train, validation_set = prepared[: len(train)], prepared[len(train) :]
    content = _data_hash(train, validation_set, contexts)
    if resume and run.data_hash not in (None, content):
        raise InputError(
            f"{run.data} does not hold the images that {run.folder} began with; give it those, or start a new run "
            f"with --init {run.folder}."
        )
    run.data_hash = content
    log.info("%d training and %d validation sessions; cache %s", len(train), len(validation_set), cache)

    begun = bool(checkpoints(run.folder))
    stage = kind.build(
        Task(run, s, model, train, validation_set, cache, foundation, contexts, given=begun or bool(run.init))
    )
    # The model as it really is (the foundation decides its own part), so that config.yaml alone says it.
    if stage.model is not None:
        run.settings.model = stage.model.to_dict()
    if run.init and not begun:
        from .initial import initialize

        initialize(stage, kind, run.init)
    return stage


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """While data are prepared, SIGTERM is as Ctrl-C: temporary files are removed on the way out."""

    def interrupt(number: int, frame: Any) -> None:
        raise Terminated(number)

    try:
        previous = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread: signals are the host application's
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
