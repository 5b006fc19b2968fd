"""Compare methods on subjects whose PSR is known, and keep every result.

Every method ends as a map on one grid and is measured there against the truth, inside the true brain mask:

- ``grid="truth"`` (default): the truth's own grid, so the truth is not interpolated at all. Maps made on the model grid
  are brought there once, by cubic B-splines; that costs every synthesized map the same, and look-ups nothing.
- ``grid="model"``: the model grid; the truth is brought there once, by cubic B-splines.

What no method can exceed is measured beside them: the truth itself taken to the model grid and back ("resampled
truth"), and through the PSR autoencoder ("autoencoder").

A result that is there, made with the same inputs, settings and weights, is not made again; a scan that was prepared
for one model is not prepared again for the next (:mod:`.prepared`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__, metrics
from ..errors import InputError
from ..files import write_json
from ..guards import protect_folder
from ..lock import LOCK_FILE, FolderLock
from ..measured import is_complete
from ..measured.choice import read_filters
from .cases import GAP_MM, GRIDS, SHIFTED, TEST, Case, check_preprocess
from .measure import measure
from .methods import Context, Method, choose_methods
from .pictures import draw_figures
from .store import read_result, write_result
from .tables import write_tables

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..training.data import Session

log = logging.getLogger(__name__)

_FORMAT = 3  # raise when what a stored result holds changes
_MARK = "evaluation.json"


def evaluate(
    data: str | Path,
    out: str | Path,
    *,
    shifted: str | Path | None = None,
    bundle: str | Path | Bundle | None = None,
    regression_from: str | Path | None = None,
    baselines: Sequence[str | Path] = (),
    compare: Mapping[str, str | Path] | None = None,
    seeds: int = 4,
    steps: int | None = None,
    sampler: str | None = None,
    ablations: bool = False,
    knock_outs: bool = False,
    subjects: int | None = None,
    lookup_from: str | Path | None = None,
    linear: str | Path | None = None,
    prepared: str | Path | None = None,
    preprocess: str = "masked",
    grid: str = "truth",
    bids_filter: str | Path | None = None,
    already_aligned: bool | None = None,
    device: str = "auto",
    precision: str = "auto",
    progress: bool = True,
) -> Path:
    """Compare DEMIST with its baselines on a data set with truth; return the folder of tables and figures.

    Args:
        data: BIDS data set with ``derivatives/truth`` (PSR map, segmentation, brain mask).
        out: summary.md, all its tables as CSV (:mod:`.tables`), boxes.png, slices.png; per-subject results in
            ``subjects`` and ``shifted``, from where a stopped evaluation goes on.
        shifted: a second data set, made by another physics, measured beside the first.
        bundle: DEMIST bundle; None takes the default one.
        regression_from: training run of the regression network.
        baselines: runs of further baselines (stages vae, pix2pix, ldm, cwdm), one map each.
        compare: further bundles by name, one seed each: what other trainings give.
        seeds: samples per subject, 0 to seeds - 1.
        steps, sampler: None takes the bundle's recommendation.
        ablations: also switch each stream off.
        knock_outs: that, and each input made useless (:mod:`.knockouts`).
        subjects: only so many of each data set.
        lookup_from: training set, whose truth gives the population's tissue means, and on which the linear model and
            the T1w/FLAIR ratio are fitted (kept in ``linear.npz``). None: the means are those of the other subjects of
            ``data``, and the two take ``linear``.
        linear: a ``linear.npz``, or the folder of a prepared cohort (``cache`` of a training) to fit on.
        prepared: folder that keeps prepared scans; None: ``prepared`` in ``out``.
        preprocess: see :data:`PREPROCESS`.
        grid: see :data:`GRIDS`.
        bids_filter: file that says which images are meant, see :func:`DEMISTCore.measured.choice.read_filters`.
        already_aligned: measured maps lie on the T1w and are not registered; None: those whose names say so.
        device, precision: see :func:`DEMISTCore.synthesize`.
        progress: draw a progress bar.

    Raises:
        InputError, BundleError: what was given cannot be used.
    """
    _check_options(seeds, subjects, preprocess, grid)
    require_packages()
    from ..bundle import DEFAULT_BUNDLE, load_bundle
    from ..bundle.seen import check_unseen
    from ..devices import check_device_name, pick_device, pick_dtype
    from ..training.data import index

    check_device_name(device)
    out = Path(out)
    protect_folder(
        out,
        (data, shifted, bundle, regression_from, baselines, compare, lookup_from, linear, bids_filter),
        "folder of the results",
    )
    _check_folder(out)
    filters = read_filters(bids_filter)
    cohorts = {TEST: index(data, filters)} | ({SHIFTED: index(shifted, filters)} if shifted is not None else {})
    sessions = {group: _first(everyone, subjects) for group, everyone in cohorts.items()}
    model = load_bundle(bundle or DEFAULT_BUNDLE)
    seen = check_unseen(model, {f"{group} {s.name}": s.t1w for group, own in sessions.items() for s in own})
    torch_device = pick_device(device)
    dtype = pick_dtype(torch_device, precision)

    context = Context(
        model,
        cohorts,
        torch_device,
        dtype,
        out,
        seeds=seeds,
        steps=steps,
        sampler=sampler,
        ablations=ablations,
        knock_outs=knock_outs,
        compare=compare or {},
        regression_from=regression_from,
        baselines=baselines,
        lookup_from=lookup_from,
        linear=linear,
        preprocess=preprocess,
        already_aligned=already_aligned,
        progress=progress,
    )
    methods = choose_methods(context)
    if seen:
        context.notes.append(seen)
        log.warning("%s", seen)
    settings = {
        "version": __version__,
        "data": str(data),
        "shifted": None if shifted is None else str(shifted),
        "bundle": model.name,
        "bundle_hash": model.hash,
        "warning": model.warning,
        "preprocess": preprocess,
        "truth": "simulated" if all(is_complete(s.psr) for own in sessions.values() for s in own) else "measured",
        "grid": grid,
        "seeds": seeds,
        "device": str(torch_device),
        "precision": str(dtype),
        "data_range": metrics.DATA_RANGE,
        "ssim": metrics.SSIM_SETTINGS,
        "lesion_gap_mm": GAP_MM,
        "notes": context.notes,
        "methods": {name: method.settings for method in methods for name in method.names},
    }
    from tqdm import tqdm

    with FolderLock(out, "the evaluation"):
        write_json(out / _MARK, settings)
        rows = []
        total = sum(map(len, sessions.values())) * len(methods)
        with tqdm(total=total, desc="evaluate", unit="map", disable=not progress) as bar:
            for group, those in sessions.items():
                for session in those:
                    case = Case(
                        session,
                        grid,
                        preprocess,
                        model.spacing,
                        model.config.multiple,
                        str(torch_device),
                        Path(prepared or out / "prepared"),
                        group,
                        already_aligned,
                    )
                    for method in methods:
                        bar.set_postfix_str(f"{group} {case.name}: {method.names[0]}")
                        rows += _measured(case, method, out)
                        bar.update()
        write_tables(rows, methods, settings, out)
        draw_figures(rows, methods, settings, out)
    return out


def _first(sessions: list[Session], subjects: int | None) -> list[Session]:
    """The sessions of the first so many subjects."""
    chosen = sorted({s.subject for s in sessions})[:subjects]
    return [s for s in sessions if s.subject in chosen]


def _measured(case: Case, method: Method, out: Path) -> list[dict[str, Any]]:
    """Results of one method for one case: read if they are there, else made, measured and stored."""
    keys = {
        "format": _FORMAT,
        "version": __version__,
        "inputs": case.digest,
        "grid": case.grid_name,
        "preprocess": case.preprocess,
        "spacing": case.spacing,
        "multiple": case.multiple,
        "method": method.settings,
    }
    if case.already_aligned is not None:  # only then: results of complete truths stay valid
        keys["already_aligned"] = case.already_aligned
    if case.session.dseg is None:
        from ..regions.network import open_network

        keys["tissue"] = open_network().hash
    fingerprint = hashlib.sha256(json.dumps(keys, sort_keys=True, default=str).encode()).hexdigest()
    kept = [read_result(out, case, name, fingerprint) for name in method.names]
    stored = [result for result in kept if result]
    if len(stored) == len(kept):
        return stored
    try:
        start = time.perf_counter()
        outcomes = method.make(case)
        seconds = time.perf_counter() - start
        rows = []
        for name, outcome in outcomes.items():
            row = measure(case, outcome)
            row = {
                "set": case.group,
                "session": case.name,
                "subject": case.session.subject,
                "method": name,
                "seconds": seconds,
                "warnings": case.warnings,
                **row,
            }
            write_result(out, case, name, outcome, {"fingerprint": fingerprint, **row})
            rows.append(row)
        return rows
    except InputError as error:
        raise InputError(f"{case.name}: {error}") from error


def _check_options(seeds: int, subjects: int | None, preprocess: str, grid: str) -> None:
    if seeds < 1:
        raise InputError(f"The number of seeds must be at least 1, not {seeds}.")
    if subjects is not None and subjects < 1:
        raise InputError(f"The number of subjects must be at least 1, not {subjects}.")
    check_preprocess(preprocess)
    if grid not in GRIDS:
        raise InputError(f"Unknown grid {grid!r}; choose {' or '.join(GRIDS)}.")


def _check_folder(out: Path) -> None:
    """A new folder, an empty one, or that of an evaluation to go on with."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; give a folder.")
    begun = {LOCK_FILE, "prepared", "linear.npz", *(f"lookup{end}.json" for end in ("", f"-{TEST}", f"-{SHIFTED}"))}
    there = [path.name for path in out.iterdir()] if out.is_dir() else []
    strange = any(name not in begun and not name.startswith(".tmp-") for name in there)
    if strange and not (out / _MARK).is_file():
        raise InputError(f"{out} is in use and holds no evaluation to go on with; give another folder.")


def require_packages() -> None:
    """The packages of the ``evaluate`` extra.

    Raises:
        InputError: one is missing.
    """
    from importlib.util import find_spec

    missing = [name for name in ("pandas", "skimage", "sklearn") if find_spec(name) is None]
    if missing:
        raise InputError(f"Evaluation needs {', '.join(missing)}; run: pip install 'demist[evaluate]'.")
