"""From finished runs to bundles: averaged weights, configuration, training log."""

from __future__ import annotations

import csv
import logging
import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..bundle import SAMPLING, Bundle, load_bundle, save_bundle
from ..diffusion import NoiseSchedule
from ..errors import BundleError, InputError
from ..guards import protect_folder
from ..networks.demist import build_demist
from ..networks.limits import read_model
from ..regions.network import TissueModel
from .checkpoint import Run, step_of
from .foundation import Foundation, foundation_of, read_foundation, read_scales
from .mean_given import read_mean
from .settings import to_dict
from .stages import STAGES, Wanted

log = logging.getLogger(__name__)

#: kinds of bundles that are written in one go
_TOGETHER = ("foundation", "demist")


def export(
    runs: Sequence[Path],
    out: Path,
    *,
    base: str | None = None,
    weights: str = "ema",
    storage: str = "fp16",
    card: Path | None = None,
    description: str = "",
    licence: str = "Apache-2.0",
    sampling: Sequence[str] = (),
    simulated: bool = True,
    overwrite: bool = False,
) -> list[Bundle | TissueModel]:
    """Write the foundation bundle of a backbone run, the DEMIST bundle of a demist run, or both.

    Or the tissue network of a segmentation run, given alone.

    With both, the foundation goes to ``OUT-base``; a demist run alone needs ``base``, the bundle of the very
    foundation it was trained on; where that is a published backbone (``--backbone``), it is written too.

    Raises:
        InputError: runs of other stages, untrained or not belonging together; a bundle that exists, or an input in
            its place.
    """
    protect_folder(out, (runs, base, card), "bundle")
    if base is None:
        protect_folder(out.with_name(out.name + "-base"), (runs, card), "foundation bundle")
    wanted = Wanted(
        weights,
        base,
        _read_card(card),
        description,
        _sampling(sampling),
        {"licence": licence, "simulated": simulated, "overwrite": overwrite, "storage": storage},
    )
    found: dict[str, Run] = {}
    for run in map(Run.read, runs):
        what = STAGES[run.stage].bundle
        if what is None or what in found or (what not in _TOGETHER and len(runs) > 1):
            alone = " or ".join(kind.name for kind in STAGES.values() if kind.bundle not in (None, *_TOGETHER))
            raise InputError(
                f"{run.folder} is a run of {run.stage}; export takes one backbone (or decoder) and one demist run, "
                f"or one {alone} run alone."
            )
        found[what] = run
    saved: list[Bundle | TissueModel] = []
    demist, beside = found.pop("demist", None), out.with_name(out.name + "-base")
    for run in found.values():  # one at most
        # Streams were trained on the last averaged backbone, so with them it is that one, whatever `weights` says.
        folder, how = (out, wanted) if demist is None else (beside, replace(wanted, weights="ema", card=None))
        saved.append(STAGES[run.stage].export(run, folder, how))
    if demist is not None:
        if not saved and not base and demist.backbone:
            saved.append(_export_published(demist, beside, wanted))
        below = str(saved[0].folder) if saved else base
        saved.append(STAGES[demist.stage].export(demist, out, replace(wanted, base=below)))
    for bundle in saved:
        _say(bundle)
    return saved


def _say(bundle: Bundle | TissueModel) -> None:
    size = sum(path.stat().st_size for path in bundle.folder.glob("*.safetensors")) / 1e6
    log.info("%s: %s, %.1f MB, %s", bundle.folder, bundle.kind, size, bundle.hash[:16])


def export_foundation(run: Run, folder: Path, wanted: Wanted) -> Bundle:
    """Write the foundation bundle of a run that others build on.

    Raises:
        InputError: it has no backbone, or its weights cannot be read.
    """
    foundation = read_foundation(run.folder, need_backbone=True, weights=wanted.weights)
    chain = [*_earlier(run), run]
    return _save_foundation(
        folder,
        foundation,
        run,
        chain,
        provenance(chain, wanted.weights),
        card=wanted.card,
        description=wanted.description,
        **wanted.common,
    )


def _export_published(run: Run, folder: Path, wanted: Wanted) -> Bundle:
    """The foundation under streams that were trained on a published backbone."""
    if run.backbone is None:
        raise InputError(f"{run.folder} has no published backbone (--backbone).")
    scales = read_scales(run.folder)
    foundation = replace(foundation_of(run), **{name: scales[name] for name in ("latent_scale", "condition_scale")})
    chain = _earlier(run)
    training = {**provenance(chain, "ema"), "backbone": f"published: {Path(run.backbone).name}"}
    return _save_foundation(folder, foundation, run, chain, training, description=wanted.description, **wanted.common)


def _earlier(run: Run) -> list[Run]:
    """The runs that a run builds on, the first one first; none where that is a bundle."""
    if not run.foundation:
        return []
    source = Path(run.foundation_source)
    if not (source / "config.yaml").is_file():
        return []
    below = Run.read(source)
    return [*_earlier(below), below]


def _save_foundation(
    folder: Path, foundation: Foundation, run: Run, chain: list[Run], training: dict[str, Any], **options: Any
) -> Bundle:
    with tempfile.TemporaryDirectory() as folder_of_logs:
        return save_bundle(
            folder,
            config=foundation.model,
            weights={
                "autoencoder_psr": foundation.psr,
                "autoencoder_condition": foundation.condition,
                "backbone": foundation.backbone,
            },
            schedule=NoiseSchedule(**foundation.noise, prediction=foundation.model.backbone.prediction),
            latent_scale=foundation.latent_scale,
            condition_scale=foundation.condition_scale,
            psr_range=foundation.psr_range,
            spacing=run.settings.preprocess.spacing,
            training=training,
            documents=logs_of(chain, Path(folder_of_logs)),
            **options,
        )


def export_demist(run: Run, folder: Path, wanted: Wanted) -> Bundle:
    """Write the bundle of the streams, a delta on the foundation bundle ``wanted.base``.

    Raises:
        InputError: the base is missing or another one than the streams were trained on, or the weights do not fit.
    """
    if not wanted.base:
        raise InputError("A demist run alone is a delta: name its foundation bundle with --base.")
    try:
        base = load_bundle(wanted.base)
    except BundleError as error:
        raise InputError(f"--base {wanted.base} cannot be used: {error}") from error
    weights = wanted.weights
    model = read_model(run.settings.model)
    _check_base(run, base)
    demist = build_demist(model)
    trained = {name.removeprefix("demist."): value for name, value in run.weights(weights).items()}
    runs = [run]
    if run.mean_source:
        demist.mean_network.load_state_dict(read_mean(run.mean_source, foundation_of(run), weights)[1].state_dict())
        if (Path(run.mean_source) / "config.yaml").is_file():
            runs.insert(0, Run.read(run.mean_source))
    try:
        demist.load_streams_state_dict({**demist.streams_state_dict(), **trained})
    except ValueError as error:
        raise InputError(f"The weights of {run.folder} do not fit its configuration: {error}") from error
    with tempfile.TemporaryDirectory() as folder_of_logs:
        return save_bundle(
            folder,
            config=model,
            weights={"streams": demist},
            base=base,
            training=provenance(runs, weights),
            documents=logs_of(runs, Path(folder_of_logs)),
            card=wanted.card,
            description=wanted.description,
            sampling=wanted.sampling or None,
            **wanted.common,
        )


def _check_base(run: Run, base: Bundle) -> None:
    """The streams fit only the foundation they were trained on (or its half-precision copy)."""
    trained_on: Foundation = foundation_of(run)
    if run.foundation_hash not in (None, trained_on.hash):
        raise InputError(f"{run.foundation} has changed since {run.folder} was trained on it; train the streams again.")
    scales = read_scales(run.folder)
    ours, theirs = trained_on.backbone_network.state_dict(), base.backbone.state_dict()
    fits = math.isclose(scales["latent_scale"], base.latent_scale, rel_tol=1e-6) and ours.keys() == theirs.keys()
    fits = fits and math.isclose(trained_on.psr_range, base.psr_range, rel_tol=1e-6)
    # Half precision differs by 2^-8 at most (bf16), other weights by far more.
    if not (fits and all(torch.allclose(ours[k].float(), theirs[k].float(), rtol=1e-2, atol=1e-3) for k in ours)):
        raise InputError(f"{run.folder} was not trained on {base.folder}; give the foundation that it names.")


def provenance(runs: Sequence[Run], weights: str) -> dict[str, Any]:
    """Data, length, last metrics and settings of each run, for a bundle's description."""
    from .. import __version__

    stages = {}
    for run in runs:
        checkpoint = run.latest()
        settings = to_dict(run.settings)
        settings.pop("model")
        settings.pop("cache")
        _hide_folder(settings)
        stages[run.stage] = {
            "data": Path(run.data).name if run.data else None,
            "steps": step_of(checkpoint),
            "minutes": round(_minutes(run.folder), 1),
            "last_metrics": _last_metrics(run.folder),
            "settings": settings,
        }
    return {
        "demist": __version__,
        "weights": f"exponential moving average, {'last' if weights == 'ema' else 'best'}",
        "stages": stages,
    }


def _rows(folder: Path) -> list[list[str]]:
    try:
        with (folder / "metrics.csv").open(newline="") as stream:
            return [row for row in csv.reader(stream) if len(row) == 4][1:]
    except OSError:
        return []


def _minutes(folder: Path) -> float:
    rows = _rows(folder)
    return float(rows[-1][1]) if rows else 0.0


def _last_metrics(folder: Path) -> dict[str, float]:
    return {tag: float(value) for _, _, tag, value in _rows(folder) if tag.startswith("validation/")}


def logs_of(runs: Sequence[Run], folder: Path) -> dict[str, Path]:
    """Training log (scalars as CSV) and configuration of each stage. Paths of the machine are left out."""
    from .settings import write_yaml

    documents = {}
    for run in runs:
        settings = to_dict(run.settings)
        settings["cache"] = None
        _hide_folder(settings)
        config = folder / f"{run.stage}.yaml"
        write_yaml(config, {"stage": run.stage, "settings": settings})
        documents[config.name] = config
        if (run.folder / "metrics.csv").is_file():
            documents[f"{run.stage}.csv"] = run.folder / "metrics.csv"
    return documents


def _hide_folder(settings: dict[str, Any]) -> None:
    """Leave of the context's table and of the filters their names, in place."""
    for key in ("context", "bids_filter"):
        if settings.get(key):
            settings[key] = Path(settings[key]).name


def _sampling(overrides: Sequence[str]) -> dict[str, Any]:
    """Recommended sampling settings from ``key=value`` words.

    Raises:
        InputError: a key that is no sampling setting, or a value of the wrong type.
    """
    advice: dict[str, Any] = {}
    for text in overrides:
        key, _, value = text.partition("=")
        key, _, stream = key.partition(".")
        if key not in SAMPLING or (stream and key != "guidance"):
            raise InputError(f"--sampling {text}: there are {', '.join(SAMPLING)}; write for example steps=10.")
        try:
            if key == "guidance":  # guidance=1.2 is guidance.all=1.2
                advice.setdefault(key, {})[stream or "all"] = float(value)
            else:
                advice[key] = type(SAMPLING[key])(value)
        except ValueError as error:
            raise InputError(f"--sampling {text}: {key} needs a number.") from error
    return advice


def _read_card(card: Path | None) -> str | None:
    try:
        return card.read_text(encoding="utf-8") if card else None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Cannot read the model card {card}: {error}.") from error
