"""The whole experiment: folds, trainings, maps, numbers, tables and figures; a killed one goes on where it was.

What is on disk is the state: run folders of the stages, one result for each scan and row, and ``cv.json``, which says
what was asked. Nothing that is there is computed again, and tables are made of results alone: those of a run that was
killed and went on are those of one that was not, byte for byte. What hangs on a clock (seconds) stands in
``costs.csv``.

Several processes on one folder share the folds: each takes those that nobody holds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ... import __version__
from ...errors import InputError
from ...files import write_json
from ...guards import protect_folder
from ...lock import LOCK_FILE, FolderBusy, FolderLock, waiting
from ...measured.choice import read_filters
from ...schema import read_json
from ..cases import Case
from ..cohort import require_packages
from ..methods.method import Method
from . import folds as of_folds
from .folds import Fold
from .maps import Machine, methods_of
from .masks import ScanMasks
from .options import Options
from .recipes import Recipe, choose, without_mean
from .runs import Trained, check_external, train
from .store import fingerprint, read_result, write_result, write_scan

log = logging.getLogger(__name__)

MARK = "cv.json"


def cross_validate(
    data: str | Path,
    out: str | Path,
    *,
    methods: Sequence[str],
    folds: int | str | Path = 5,
    stratify: str | None = None,
    options: Options | None = None,
    progress: bool = True,
) -> Path | None:
    """Train every method in every fold, test it on people it has not seen, and write what came of it.

    The same call in a second process (another GPU or node) on the same ``out`` takes the folds that the first does not
    hold. Who ends last writes the tables.

    Args:
        data: BIDS data set with T1w, FLAIR, and in derivatives PSR maps, tissue labels and brain masks.
        out: folder of all of it: ``summary.md``, tables (CSV, Markdown, LaTeX), figures, run folders of each fold.
        methods: names of :data:`.recipes.RECIPES`.
        folds: how many, or a table of subjects and folds (:func:`.folds.read_folds`).
        stratify: column of ``participants.tsv`` of which every fold has its share, see :func:`.folds.find_strata`.
        options: everything else.
        progress: draw a progress bar.

    Returns:
        ``out``; None where other processes were at work on the last folds, and write the tables.

    Raises:
        InputError, BundleError: what was given cannot be used; somebody would be trained on and tested on.
        FolderBusy: others hold all folds.
    """
    options = options or Options()
    recipes = choose(methods)
    options.check()
    _require()
    from ...training.data import index

    out = Path(out)
    table = folds if not isinstance(folds, int) else None
    given = (data, table, options.foundation, options.backbone, options.init, options.bids_filter)
    protect_folder(out, given, "folder of the results")
    sessions = index(data, read_filters(options.bids_filter))
    if isinstance(folds, int):
        strata, column, notes = of_folds.find_strata(data, sessions, folds, stratify)
        split = of_folds.make_folds(sessions, folds, strata, options.seed)
    else:
        split = of_folds.read_folds(folds, sessions)
        strata, column, notes = of_folds.find_strata(data, sessions, 2, stratify)
    of_folds.check_apart(split, sessions)
    _check_truth(sessions)
    told = check_external(options.foundation, data, split)
    notes += [told] if told else []
    recipes, shape = _fitting(recipes, options)
    settings = {
        "version": __version__,
        "data": Path(data).name,
        "folds": of_folds.digest(split),
        "stratify": column,
        "methods": [recipe.name for recipe in recipes],
        "options": options.told(),
        "notes": notes,
        **shape,
    }
    _check_folder(out, settings)
    with waiting(FolderLock(out, "the cross-validation")):
        _check_folder(out, settings)  # again: somebody may have begun another one while this process waited
        write_json(out / MARK, settings)
        _prepare(sessions, out, options, progress)
    results, busy = _all_folds(split, recipes, sessions, str(data), out, options, shape, progress)
    if busy:
        log.warning(
            "Others hold fold %s; who ends last writes the tables. If none are there then, give the same command.",
            ", ".join(str(fold.number) for fold in busy),
        )
        return None
    with waiting(FolderLock(out, "the cross-validation")):
        from .report import report

        report([row for fold in split for row in results[fold.number]], recipes, split, sessions, strata, settings, out)
    return out


def _all_folds(
    split: Sequence[Fold], recipes: Sequence[Recipe], sessions: Sequence[Any], data: str, out: Path, *rest: Any
) -> tuple[dict[int, list[dict[str, Any]]], list[Fold]]:
    """Results by fold's number, and the folds that other processes hold still when the others are done.

    Raises:
        FolderBusy: there is none that nobody holds.
    """
    results: dict[int, list[dict[str, Any]]] = {}
    left = list(split)
    for last in (False, True):  # what others held the first time is read, or computed, the second time
        held: list[Fold] = []
        for fold in left:
            try:
                with FolderLock(out / fold.folder, "the cross-validation"):
                    results[fold.number] = _one_fold(fold, recipes, sessions, data, out, *rest)
            except FolderBusy:
                if last and not results:
                    raise
                held.append(fold)
        left = held
    return results, left


def _check_truth(sessions: Sequence[Any]) -> None:
    """Tissue labels and brain masks are needed of everybody, and are asked for before hours of training.

    Raises:
        InputError: one is missing.
    """
    for session in sessions:
        for path, what in ((session.dseg, "tissue segmentation (*_dseg)"), (session.mask, "brain mask (*_brain_mask)")):
            if path is None:
                raise InputError(f"{session.psr} has no {what} beside it; the experiment needs one of everybody.")


def _prepare(sessions: Sequence[Any], out: Path, options: Options, progress: bool) -> None:
    """All scans, once for all folds: what is wrong with one, such as a map that lies elsewhere, is said at once.

    Raises:
        InputError: a scan cannot be prepared; the sentence names it.
    """
    from ...training.prepare import prepare_cohort
    from ...training.settings import resolve

    settings = resolve("regression", options.config, ["steps=1", *options.words("regression")])
    prepare_cohort(sessions, settings, Path(settings.cache) if settings.cache else out / "cache", progress=progress)


def _one_fold(
    fold: Fold,
    recipes: Sequence[Recipe],
    sessions: Sequence[Any],
    data: str,
    out: Path,
    options: Options,
    shape: dict[str, Any],
    progress: bool,
) -> list[dict[str, Any]]:
    """Results of a fold: all trainings first, then scan by scan, so that each is prepared and read once."""
    home = out / fold.folder
    trained = {}
    for recipe in recipes:
        log.info("Fold %d of %d subjects tested: %s", fold.number, len(fold.test), recipe.name)
        trained[recipe.name] = train(recipe, fold, data, home, options)
    ready: list[tuple[Recipe, Method]] = []
    machine = _machine(options)
    for recipe in recipes:
        made = methods_of(recipe, trained[recipe.name], fold, sessions, home, options, machine)
        ready += [(recipe, method) for method in made]
    from tqdm import tqdm

    tested = [s for s in sessions if s.subject in fold.test]
    results = []
    with tqdm(total=len(tested) * len(ready), desc=f"fold {fold.number}", unit="map", disable=not progress) as bar:
        for session in tested:
            case = Case(
                session,
                options.grid,
                options.preprocess,
                shape["spacing"],
                shape["multiple"],
                str(machine.device),
                out / "prepared",
                already_aligned=options.already_aligned,
            )
            masks: list[ScanMasks] = []
            for recipe, method in ready:
                bar.set_postfix_str(f"{case.name}: {method.names[0]}")
                results += _measured(case, masks, method, recipe, trained[recipe.name], fold, home / "results")
                bar.update()
    return results


def _measured(
    case: Case, masks: list[ScanMasks], method: Method, recipe: Recipe, trained: Trained, fold: Fold, folder: Path
) -> list[dict[str, Any]]:
    """Results of one method for one scan: read if they are there, else made, measured and stored."""
    key = fingerprint(case, method.settings)
    kept = [read_result(folder, case.name, row, key) for row in method.names]
    stored = [result for result in kept if result]
    if len(stored) == len(kept):
        return stored
    try:
        if not masks:  # once a scan, and only if something is missing
            masks.append(ScanMasks.of(case))
            write_scan(folder, case, masks[0])
        case.prepared  # noqa: B018  its time is not the method's
        start = time.perf_counter()
        outcomes = method.make(case)
        seconds = time.perf_counter() - start
        who = {"fold": fold.number, "subject": case.session.subject, "session": case.name}
        results = []
        for row, outcome in outcomes.items():
            cost = {
                "map_seconds": round(seconds, 3),
                "passes": outcome.passes,
                "parameters": method.parameters.get(row),
                "recipe": recipe.name,
                "training_seconds": dict(trained.seconds),
                "training_steps": dict(trained.steps),
            }
            results.append(write_result(folder, case, masks[0], row, outcome, key, who, cost))
        return results
    except InputError as error:
        raise InputError(f"{case.name}: {error}") from error


def _fitting(recipes: list[Recipe], options: Options) -> tuple[list[Recipe], dict[str, Any]]:
    """The recipes for the model that is trained, and the grid that scans are brought to for all methods.

    Raises:
        InputError: the preset or the foundation cannot be read.
    """
    import math

    from ...networks.limits import read_model
    from ...training.settings import resolve

    settings = resolve("demist", options.config, ["steps=1", *options.words("demist")])
    model, spacing = read_model(settings.model), settings.preprocess.spacing
    if options.foundation is not None:
        from ...training.foundation import read_foundation

        below = read_foundation(options.foundation)
        if below.spacing is not None and not math.isclose(below.spacing, spacing, rel_tol=1e-3):
            raise InputError(
                f"The foundation {options.foundation} works on a grid of {below.spacing:g} mm and these trainings on "
                f"one of {spacing:g} mm; give preprocess.spacing={below.spacing:g}."
            )
        if below.backbone is None and any(recipe.name == "demist" for recipe in recipes):
            raise InputError(f"{options.foundation} holds autoencoders only; DEMIST needs a backbone, too.")
        multiple = below.model.multiple
    else:
        multiple = model.multiple
    if model.mean is None:
        recipes = [without_mean(recipe) for recipe in recipes]
    return recipes, {"spacing": spacing, "multiple": math.lcm(multiple, settings.preprocess.multiple)}


def _machine(options: Options) -> Machine:
    from ...devices import pick_device, pick_dtype

    device = pick_device(options.device)
    return Machine(device, pick_dtype(device, options.precision))


def _check_folder(out: Path, settings: dict[str, Any]) -> None:
    """A new folder, an empty one, or that of the same cross-validation.

    More methods may join one that is there; what else was asked must be the same.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; give a folder.")
    if not out.is_dir():
        return
    if not (out / MARK).is_file():
        left = [path.name for path in out.iterdir() if path.name != LOCK_FILE and not path.name.startswith(".tmp-")]
        if left:
            raise InputError(f"{out} is in use and holds no cross-validation to go on with; give another folder.")
        return
    try:
        before = read_json(out / MARK)
    except (OSError, ValueError) as error:
        raise InputError(f"{out / MARK} cannot be read; fix it, or give another folder.") from error
    for key in ("version", "data", "folds", "options", "spacing", "multiple"):
        was, now = before.get(key), settings[key]
        if was != now and not (key == "options" and _same_options(was, now)):
            what = key
            if isinstance(was, dict) and isinstance(now, dict):
                what = ", ".join(sorted(k for k in {*was, *now} if _plain(was.get(k)) != _plain(now.get(k))))
            raise InputError(f"{out} was begun with another {what}; give the same, or another folder.")


def _same_options(was: Any, now: dict[str, Any]) -> bool:
    return isinstance(was, dict) and all(_plain(was.get(key)) == _plain(value) for key, value in now.items())


def _plain(value: Any) -> Any:
    """As JSON has it."""
    return list(value) if isinstance(value, tuple) else value


def _require() -> None:
    """The packages of the extras ``evaluate`` and ``train``.

    Raises:
        InputError: one is missing.
    """
    require_packages()
    missing = [name for name in ("statsmodels", "lightning", "tensorboard") if find_spec(name) is None]
    if missing:
        raise InputError(f"Cross-validation needs {', '.join(missing)}; run: pip install 'demist[train,evaluate]'.")
