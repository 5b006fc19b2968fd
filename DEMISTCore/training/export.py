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
from ..regions.network import TissueModel, build_network, save_network
from .checkpoint import Run, part, step_of
from .foundation import Foundation, foundation_of, load, read_foundation, read_scales
from .mean import read_mean
from .settings import to_dict

log = logging.getLogger(__name__)

#: what a stage's run becomes
_EXPORTED = {"backbone": "foundation", "decoder": "foundation", "demist": "demist"}


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
    found = {}
    for run in map(Run.read, runs):
        if run.stage == "segmentation" and len(runs) == 1:
            common = {"licence": licence, "simulated": simulated, "overwrite": overwrite, "storage": storage}
            return [_export_segmentation(run, out, weights, common, _read_card(card), description)]
        what = _EXPORTED.get(run.stage)
        if what is None or what in found:
            raise InputError(
                f"{run.folder} is a run of {run.stage}; export takes one backbone (or decoder) and one demist run, "
                "or one segmentation run alone."
            )
        found[what] = run
    text = _read_card(card)
    advice = _sampling(sampling)
    common = {"licence": licence, "simulated": simulated, "overwrite": overwrite, "storage": storage}
    saved: list[Bundle] = []
    foundation: Bundle | None = None
    if "foundation" in found:
        # Streams were trained on the last averaged backbone, so with them it is that one, whatever `weights` says.
        alone = "demist" not in found
        foundation = _export_foundation(
            found["foundation"], out if alone else out.with_name(out.name + "-base"), weights if alone else "ema",
            common, text if alone else None, description,
        )  # fmt: skip
        saved.append(foundation)
    if "demist" in found:
        if foundation is None and not base and found["demist"].backbone:
            foundation = _export_published(found["demist"], out.with_name(out.name + "-base"), common, description)
            saved.append(foundation)
        if foundation is None:
            if not base:
                raise InputError("A demist run alone is a delta: name its foundation bundle with --base.")
            try:
                foundation = load_bundle(base)
            except BundleError as error:
                raise InputError(f"--base {base} cannot be used: {error}") from error
        saved.append(_export_demist(found["demist"], out, foundation, weights, common, text, description, advice))
    for bundle in saved:
        _say(bundle)
    return saved


def _say(bundle: Bundle | TissueModel) -> None:
    size = sum(path.stat().st_size for path in bundle.folder.glob("*.safetensors")) / 1e6
    log.info("%s: %s, %.1f MB, %s", bundle.folder, bundle.kind, size, bundle.hash[:16])


def _export_segmentation(
    run: Run, folder: Path, weights: str, common: dict[str, Any], card: str | None, description: str
) -> TissueModel:
    """The tissue network that a segmentation run has trained."""
    tensors = part(run.weights(weights), "network")
    settings = run.settings
    load(build_network(settings.channels), tensors, run.folder)
    with tempfile.TemporaryDirectory() as folder_of_logs:
        model = save_network(
            folder, tensors, channels=settings.channels, patch=settings.patch, training=_provenance([run], weights),
            documents=_logs([run], Path(folder_of_logs)), card=card, description=description, **common,
        )  # fmt: skip
    _say(model)
    return model


def _export_foundation(
    run: Run, folder: Path, weights: str, common: dict[str, Any], card: str | None, description: str
) -> Bundle:
    """The foundation that a backbone run has trained."""
    foundation = read_foundation(run.folder, need_backbone=True, weights=weights)
    chain = [*_earlier(run), run]
    return _save_foundation(folder, foundation, run, chain, _provenance(chain, weights), card=card,
                            description=description, **common)  # fmt: skip


def _export_published(run: Run, folder: Path, common: dict[str, Any], description: str) -> Bundle:
    """The foundation under streams that were trained on a published backbone."""
    scales = read_scales(run.folder)
    foundation = replace(foundation_of(run), **{name: scales[name] for name in ("latent_scale", "condition_scale")})
    chain = _earlier(run)
    training = {**_provenance(chain, "ema"), "backbone": f"published: {Path(run.backbone).name}"}
    return _save_foundation(folder, foundation, run, chain, training, description=description, **common)


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
            weights={"autoencoder_psr": foundation.psr, "autoencoder_condition": foundation.condition,
                     "backbone": foundation.backbone},
            schedule=NoiseSchedule(**foundation.schedule, prediction=foundation.model.backbone.prediction),
            latent_scale=foundation.latent_scale,
            condition_scale=foundation.condition_scale,
            psr_range=foundation.psr_range,
            spacing=run.settings.preprocess.spacing,
            training=training,
            documents=_logs(chain, Path(folder_of_logs)),
            **options,
        )  # fmt: skip


def _export_demist(
    run: Run, folder: Path, base: Bundle, weights: str, common: dict[str, Any], card: str | None, description: str,
    sampling: dict[str, Any],
) -> Bundle:
    model = read_model(run.settings.model)
    _check_base(run, base)
    demist = build_demist(model)
    trained = {name.removeprefix("demist."): value for name, value in run.weights(weights).items()}
    runs = [run]
    if run.mean_source:
        demist.mean.load_state_dict(read_mean(run.mean_source, foundation_of(run), weights)[1].state_dict())
        if (Path(run.mean_source) / "config.yaml").is_file():
            runs.insert(0, Run.read(run.mean_source))
    try:
        demist.load_streams_state_dict({**demist.streams_state_dict(), **trained})
    except ValueError as error:
        raise InputError(f"The weights of {run.folder} do not fit its configuration: {error}") from error
    with tempfile.TemporaryDirectory() as folder_of_logs:
        return save_bundle(
            folder, config=model, weights={"streams": demist}, base=base, training=_provenance(runs, weights),
            documents=_logs(runs, Path(folder_of_logs)), card=card, description=description,
            sampling=sampling or None, **common,
        )  # fmt: skip


def _check_base(run: Run, base: Bundle) -> None:
    """The streams fit only the foundation they were trained on (or its half-precision copy)."""
    trained_on: Foundation = foundation_of(run)
    if run.foundation_hash not in (None, trained_on.hash):
        raise InputError(f"{run.foundation} has changed since {run.folder} was trained on it; train the streams again.")
    scales = read_scales(run.folder)
    ours, theirs = trained_on.backbone.state_dict(), base.backbone.state_dict()
    fits = math.isclose(scales["latent_scale"], base.latent_scale, rel_tol=1e-6) and ours.keys() == theirs.keys()
    fits = fits and math.isclose(trained_on.psr_range, base.psr_range, rel_tol=1e-6)
    # Half precision differs by 2^-8 at most (bf16), other weights by far more.
    if not (fits and all(torch.allclose(ours[k].float(), theirs[k].float(), rtol=1e-2, atol=1e-3) for k in ours)):
        raise InputError(f"{run.folder} was not trained on {base.folder}; give the foundation that it names.")


def _provenance(runs: Sequence[Run], weights: str) -> dict[str, Any]:
    from .. import __version__

    stages = {}
    for run in runs:
        checkpoint = run.latest()
        settings = to_dict(run.settings)
        settings.pop("model"), settings.pop("cache"), _hide_folder(settings)
        stages[run.stage] = {
            "data": Path(run.data).name if run.data else None,
            "steps": step_of(checkpoint),
            "minutes": round(_minutes(run.folder), 1),
            "last_metrics": _last_metrics(run.folder),
            "settings": settings,
        }
    return {"demist": __version__, "weights": f"exponential moving average, {'last' if weights == 'ema' else 'best'}",
            "stages": stages}  # fmt: skip


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


def _logs(runs: Sequence[Run], folder: Path) -> dict[str, Path]:
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
