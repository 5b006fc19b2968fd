"""A bundle taught another scanner, from the PSR maps that a lab has: one command from a data set to a bundle.

Level by level, each built on the one before: ``scale`` finds one factor for all maps and measures the errors anew, in
minutes and from few people; ``streams`` trains what makes maps of the scans; ``decoder`` the PSR decoder as well.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle import Bundle, check_target, load_bundle
from ..bundle.seen import scan_marks
from ..devices import pick_device, pick_dtype
from ..errors import BundleError, InputError
from ..files import write_json
from ..guards import protect_folder
from ..uncertainty.conformal import subjects_needed
from . import data
from .check import PAGE, check, summary
from .finetune_publish import publish
from .finetune_scale import base_of, best_factor, copy_base, judge, own_factors, predicted, with_scale
from .groups import Settings
from .levels import common_levels
from .settings import resolve, write_yaml

log = logging.getLogger(__name__)

LEVELS = ("scale", "streams", "decoder")
LEVELS_FILE = "levels.json"
#: Scans are prepared as synthesis prepares a patient's, whose maps are what the model is for.
AS_SYNTHESIS = ("preprocess.register=true", "preprocess.brain_mask=none")
#: Errors can be measured on so many people; from twice as many on, so many at least are held out of the training.
_PEOPLE = subjects_needed(0.9)
#: Gentler than training from nothing: the weights are nearly right. Lengths and rates are defaults, not optima.
_DEFAULTS = {
    "mean": {"lr": 1e-4, "warmup": 20, "max_minutes": 30.0, "steps": 2000},
    "demist": {"lr": 1e-4, "warmup": 20, "max_minutes": 15.0, "steps": 1000},
    "decoder": {"lr": 1e-4, "warmup": 20, "max_minutes": 10.0, "steps": 500},
}


def finetune(
    root: str | Path,
    out: Path,
    *,
    init: str = "demist-sim",
    level: str = "streams",
    overrides: Sequence[str] = (),
    licence: str = "Apache-2.0",
    measured: bool = True,
    salt: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Check a data set, fit a bundle to it, measure it on people held out, and write ``out/<name of out>``.

    Args:
        root: BIDS data set with T1w, FLAIR and PSR maps, whole or slabs.
        out: folder of it all: check.html, runs of the stages, finetune.json, and the bundle with its base.
        init: bundle to begin from; foundation and sampling are its own.
        level: the last of :data:`LEVELS` to be done.
        overrides: ``key=value`` of the training's settings; common ones, or ``mean.lr=...``, ``demist.steps=...``.
        licence: of the new weights.
        measured: the maps are measured, not simulated ones.
        salt: for the hashes under which the card lists people; None: drawn and thrown away, so that nobody can find
            a person by trying names.
        device: see :func:`DEMISTCore.synthesize`.

    Returns:
        What finetune.json holds: people, factor, metrics on held-out people before and after.

    Raises:
        InputError: the data set has errors (:mod:`.check`), nobody to train on, or ``out`` has a bundle already; the
            bundle to begin from cannot be used.

    A run that was stopped goes on with the same arguments.
    """
    if level not in LEVELS:
        raise InputError(f"--level takes {', '.join(LEVELS)}, not {level}.")
    out = Path(out)
    protect_folder(out, (root, init), "folder of the fine-tuning")
    try:
        bundle = load_bundle(init)
    except BundleError as error:
        raise InputError(f"--init {init} cannot be used: {error}") from error
    if bundle.base is None:
        raise InputError(f"--init {init} is a foundation and makes no maps; give a demist bundle.")
    target = out / "bundle" / out.name
    check_target(target, overwrite=False)
    common, own = _split_overrides(overrides)
    settings = resolve("demist", None, [f"preprocess.spacing={bundle.spacing:g}", *AS_SYNTHESIS, *common])
    cache = Path(settings.cache) if settings.cache else out.parent / "cache"
    report = check(root, settings, cache, out)
    print(summary(report), flush=True)
    if report.all_errors and not settings.accept_alarms:
        raise InputError(
            f"{root} has {len(report.all_errors)} errors that would spoil the model (see {out / PAGE}); "
            f"the first: {report.all_errors[0].rstrip('.')}; fix it, or leave it out "
            "(exclude_subjects=)."
        )
    entries = [one.entry for one in report.findings if one.entry is not None]
    train, validation_set, to_fit = _people(entries, settings, level)
    where = pick_device(device)
    dtype = pick_dtype(where)

    def predict(model: Bundle, entry: data.PreparedSession) -> np.ndarray:
        return predicted(model, entry, where, dtype)

    before = [(entry, predict(bundle, entry)) for entry in _told(validation_set, "before")]
    at = (
        before
        if {e.name for e in train} == {e.name for e in validation_set}
        else [(entry, predict(bundle, entry)) for entry in _told(train, "scale")]
    )
    factor = best_factor(at)
    log.info("Best factor for the maps of %s: %.3f", bundle.name, factor)
    scaled = with_scale(bundle, factor, out / "scaled" / out.name)
    model = scaled
    if level != "scale":
        if not any(word.startswith("levels=") for word in common):
            levels = common_levels(own_factors([*before, *at]), factor)
            write_json(out / LEVELS_FILE, levels)
            common.append(f"levels={(out / LEVELS_FILE).absolute()}")
        model = _train(root, out, scaled, level, settings, common, own, train, validation_set, cache, licence, measured)
    words = {
        "people": len({e.subject for e in entries}),
        "trained": len({e.subject for e in train}),
        "held_out": len({e.subject for e in validation_set}),
        "factor": round(factor, 4),
        "level": level,
        "metrics_before": judge(before),
        "metrics_scaled": judge([(entry, psr * np.float32(factor)) for entry, psr in before]),
        "calibrated_on": 0,
    }
    words["metrics_after"] = judge([(entry, predict(model, entry)) for entry in _told(validation_set, "after")])
    _compare(words)
    final = model.folder
    if bundle.config.mean is not None and len({e.subject for e in to_fit}) >= _PEOPLE:
        from .calibrate import calibrate

        final = out / "calibrated" / out.name
        copy_base(model, final)
        if not final.exists():
            calibrate(model.folder, [root], final, entries=to_fit, preprocess=settings.preprocess, device=device)
        words["calibrated_on"] = len({e.subject for e in to_fit})
    else:
        why = (
            f"{bundle.name} has no mean network"
            if bundle.config.mean is None
            else f"that takes {_PEOPLE} people who had no part in training, and there are "
            f"{len({e.subject for e in to_fit})}"
        )
        log.warning("No calibrated intervals: %s.", why)
        words["no_intervals"] = why
    learnt = {e.name for e in train} if level != "scale" else set()  # one factor for all learns nobody
    scans = scan_marks(
        *([Path(e.meta["inputs"][0]) for e in entries if (e.name in learnt) == side] for side in (True, False))
    )
    publish(final, target, bundle, model, report, entries, words, licence, measured, salt, level, scans)
    write_json(out / "finetune.json", words)
    log.info("%s", told(words, target))
    return words


def _compare(words: dict[str, Any]) -> None:
    """A warning where people held out say that the training has lost against the factor alone."""
    scaled, after = words["metrics_scaled"]["psnr"], words["metrics_after"]["psnr"]
    if words["level"] != "scale" and words["trained"] < words["people"] and after < scaled:
        log.warning(
            "On %d people held out the factor alone does better (PSNR %.2f dB, after training %.2f dB): use --level "
            "scale, or train longer or on more people.",
            words["held_out"],
            scaled,
            after,
        )


def told(words: dict[str, Any], target: Path) -> str:
    """The result in a few lines."""
    steps = ("before", "after") if words["level"] == "scale" else ("before", "scaled", "after")
    return "\n".join(
        [
            f"{'on people held out' if words['trained'] < words['people'] else 'on all people':<24}"
            + "".join(f"{s:>10}" for s in steps),
            *(
                f"{name:<24}" + "".join(f"{words[f'metrics_{s}'][key]:>10.{digits}f}" for s in steps)
                for key, name, digits in (
                    ("psnr", "PSNR (dB)", 2),
                    ("mae", "MAE", 4),
                    ("scale_error_percent", "scale error (%)", 1),
                )
            ),
            f"Bundle: {target}",
        ]
    )


def _split_overrides(overrides: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Settings of all stages, and those of one: ``mean.lr=1e-5``."""
    common: list[str] = []
    own: dict[str, list[str]] = {stage: [] for stage in _DEFAULTS}
    for word in overrides:
        stage, dot, rest = word.partition(".")
        if dot and stage in own and "=" in rest:
            own[stage].append(rest)
        else:
            common.append(word)
    return common, own


def _people(
    entries: Sequence[data.PreparedSession], settings: Settings, level: str
) -> tuple[list[data.PreparedSession], list[data.PreparedSession], list[data.PreparedSession]]:
    """Who is trained on, on whom it is judged, and whose errors may be measured: nobody's whom a network has learnt.

    Fewer than three people cannot be split; then all are in all, and a warning says so.
    """
    names = sorted({entry.subject for entry in entries})
    if not names:
        raise InputError("There is nobody to train on.")
    if len(names) < 3:
        log.warning("With %d people nobody is held out: the metrics are of the training itself.", len(names))
        return list(entries), list(entries), []
    if settings.validation_subjects or len(names) < 2 * _PEOPLE:
        wanted = settings
    else:
        wanted = replace(settings, validation=max(settings.validation, 1 / 3, _PEOPLE / len(names)))
    train, validation_set = data.split(entries, wanted, excluded_already=True)
    # One factor for all learns nothing of any single person: then everybody's errors may be measured.
    return train, validation_set, list(entries) if level == "scale" else validation_set


def _told(entries: Sequence[data.PreparedSession], what: str) -> Any:
    from tqdm import tqdm

    return tqdm(entries, desc=what, unit="scan")


def _train(
    root: str | Path,
    out: Path,
    scaled: Bundle,
    level: str,
    settings: Settings,
    common: Sequence[str],
    own: dict[str, list[str]],
    train: Sequence[data.PreparedSession],
    validation_set: Sequence[data.PreparedSession],
    cache: Path,
    licence: str,
    measured: bool,
) -> Bundle:
    """The stages on this data set, from the scaled bundle; the bundle that comes of them."""
    from .export import export
    from .start import start

    base = str(base_of(scaled).folder)
    names = (
        []
        if {e.name for e in train} == {e.name for e in validation_set}
        else sorted({e.subject for e in validation_set})
    )
    shared = [
        f"preprocess.spacing={scaled.spacing:g}",
        *AS_SYNTHESIS,
        *common,
        f"cache={cache}",
        f"validation_subjects={json.dumps(names)}",
    ]
    shared += [] if names else ["validation=0"]
    shared += ["accept_alarms=true"]  # told, and stopped at, by the check
    config = out / "model.yaml"
    write_yaml(config, {"model": {name: part for name, part in scaled.config.to_dict().items() if part is not None}})

    def stage(name: str, **options: Any) -> Path:
        words = [*(f"{key}={value}" for key, value in _DEFAULTS[name].items()), *shared, *own[name]]
        folder = out / name
        if (folder / "config.yaml").is_file():
            code = start(name, out=folder, resume=True)
        else:
            code = start(name, out=folder, data=str(root), config=str(config), overrides=words, **options)
        if code:
            raise InputError(f"{folder} was stopped; the same command goes on from there.")
        return folder

    runs, foundation = [], base
    if level == "decoder":
        foundation = str(stage("decoder", foundation=base))
        runs.append(Path(foundation))
    with_mean = {}
    if scaled.config.mean is not None:
        # Nothing but what was measured: painted lesions have a simulator's contrasts. Tokens know the volume as it is.
        still = ["paint.specks=0", "warp.probability=0"] if scaled.config.mean.semantic else []
        own["mean"][:0] = ["paint.probability=0", *still]
        own["demist"][:0] = ["flip=false", "latent_augmentations=0"]
        with_mean["mean"] = str(stage("mean", foundation=foundation, init=str(scaled.folder)))
    runs.append(stage("demist", foundation=foundation, init=str(scaled.folder), **with_mean))
    advice = [f"{key}={value}" for key, value in (scaled.info.get("sampling") or {}).items() if key != "guidance"]
    advice += [f"guidance.{key}={value}" for key, value in scaled.sampling["guidance"].items()]
    folder = out / "trained" / out.name
    if folder.exists():
        return load_bundle(folder)
    saved = export(
        runs,
        folder,
        base=None if level == "decoder" else base,
        sampling=advice,
        simulated=not measured,
        licence=licence,
        storage="fp32",
    )
    if level != "decoder":
        copy_base(scaled, folder)
    return load_bundle(saved[-1].folder)
