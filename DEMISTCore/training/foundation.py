"""What a stage builds on: the weights of an earlier run, or of a foundation bundle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BundleError, InputError
from ..networks.autoencoder import build_autoencoder
from ..networks.backbone import build_backbone, freeze
from ..networks.config import PSR_RANGE, ModelConfig
from ..networks.limits import read_model
from ..schema import number, read_json, text
from .checkpoint import Run, part
from .loop import frozen_hash

SCALES = "scales.json"


@dataclass
class Foundation:
    """Frozen networks; ``backbone``, scales and schedule are None where only the autoencoders are trained yet."""

    source: str
    model: ModelConfig
    psr: nn.Module
    condition: nn.Module
    backbone: nn.Module | None
    latent_scale: float | None
    condition_scale: float | None
    schedule: dict[str, Any] | None  # without "prediction", which the model's configuration says
    psr_range: float = PSR_RANGE  # PSR (fraction) that the PSR autoencoder sees as 1
    spacing: float | None = None  # voxel size (mm) of the grid that a bundle was trained on; None: not noted
    conditions: tuple[str, ...] = ()  # of a published conditional backbone, in the order in which it takes them

    @property
    def autoencoder_hash(self) -> str:
        """Hash of both autoencoders' weights."""
        return frozen_hash(nn.ModuleDict({"psr": self.psr, "condition": self.condition}))

    @property
    def hash(self) -> str:
        """Hash of all weights."""
        modules = {"psr": self.psr, "condition": self.condition}
        if self.backbone is not None:
            modules["backbone"] = self.backbone
        return frozen_hash(nn.ModuleDict(modules))


def read_foundation(source: str | Path, need_backbone: bool = False, weights: str = "ema") -> Foundation:
    """Read a run of ``autoencoder`` or ``backbone``, or a foundation bundle.

    Raises:
        InputError: it is neither, has no checkpoint yet, or lacks the backbone that is needed.
    """
    if (Path(source) / "config.yaml").is_file():
        foundation = _from_run(Run.read(source), weights)
    else:
        foundation = _from_bundle(source)
    if need_backbone and foundation.backbone is None:
        raise InputError(f"{source} holds autoencoders only; give --foundation a backbone run or a foundation bundle.")
    return foundation


def foundation_of(run: Run) -> Foundation:
    """What a run of ``backbone`` or ``demist`` builds on, with the published backbone that it names, if any.

    Raises:
        InputError: see :func:`read_foundation` and :func:`with_backbone`.
    """
    source = run.backbone_source
    below = read_foundation(run.foundation_source, need_backbone=run.stage == "demist" and not source)
    here = run.settings.preprocess.spacing
    if below.spacing is not None and abs(below.spacing - here) > 1e-3:
        raise InputError(
            f"{run.foundation} works on a grid of {below.spacing:g} mm and this stage on one of {here:g} mm; give "
            f"preprocess.spacing={below.spacing:g}."
        )
    return with_backbone(below, source) if source else below


def with_backbone(foundation: Foundation, source: str) -> Foundation:
    """The autoencoders of a foundation with a published U-Net as the backbone; latent scales are left to the data.

    Raises:
        InputError: it is no published model, is damaged, or does not fit the autoencoders.
    """
    from ..published.store import open_model
    from ..published.transfer import backbone_config

    try:
        published = open_model(source)
        config, unet = backbone_config(published), published.unet
    except BundleError as error:
        raise InputError(f"--backbone {source} cannot be used: {error}") from error
    try:
        model = ModelConfig(foundation.model.psr, foundation.model.condition, config, foundation.model.streams)
    except ValueError as error:
        raise InputError(f"--backbone {source} does not fit {foundation.source}: {error}") from error
    schedule = published.scheduler.noise.to_dict()
    schedule.pop("prediction")
    return replace(
        foundation, model=model, backbone=freeze(unet), schedule=schedule, latent_scale=None, condition_scale=None,
        conditions=published.conditions,
    )  # fmt: skip


def _from_run(run: Run, weights: str) -> Foundation:
    if run.stage not in ("autoencoder", "backbone", "decoder"):
        raise InputError(f"{run.folder} is a run of {run.stage}; --foundation takes an autoencoder or backbone run.")
    if run.stage == "decoder":
        return _with_decoder(run, weights)
    model = read_model(run.settings.model)
    tensors = run.weights(weights)
    if run.stage == "autoencoder":
        psr, condition = build_autoencoder(model.psr), build_autoencoder(model.condition)
        load(psr, part(tensors, "psr"), run.folder)
        load(condition, part(tensors, "condition"), run.folder)
        return Foundation(str(run.folder), model, freeze(psr), freeze(condition), None, None, None, None,
                          spacing=run.settings.preprocess.spacing)  # fmt: skip
    below = read_foundation(run.foundation_source)
    backbone = build_backbone(model.backbone)
    load(backbone, part(tensors, "backbone"), run.folder)
    scales = read_scales(run.folder)
    if scales["autoencoder"] != below.autoencoder_hash:
        raise InputError(f"{run.foundation} has changed since {run.folder} was trained on its latents; train it again.")
    return replace(
        below, source=str(run.folder), model=model, backbone=freeze(backbone), schedule=dict(run.settings.schedule),
        latent_scale=scales["latent_scale"], condition_scale=scales["condition_scale"],
    )  # fmt: skip


def _with_decoder(run: Run, weights: str) -> Foundation:
    """What the decoder run was trained on, with its decoder instead."""
    below = read_foundation(run.foundation_source)
    if run.foundation_hash not in (None, below.hash):
        raise InputError(f"{run.foundation} has changed since {run.folder} was trained on it; train it again.")
    load(below.psr, {**below.psr.state_dict(), **part(run.weights(weights), "psr")}, run.folder)
    return replace(below, source=str(run.folder))


def _from_bundle(source: str | Path) -> Foundation:
    from ..bundle import load_bundle

    try:
        bundle = load_bundle(str(source))
    except BundleError as error:
        raise InputError(f"{source} is neither a training run nor a bundle: {error}") from error
    schedule = bundle.schedule.to_dict()
    schedule.pop("prediction")
    return Foundation(
        str(source), bundle.config, freeze(bundle.autoencoder_psr), freeze(bundle.autoencoder_condition),
        freeze(bundle.backbone), bundle.latent_scale, bundle.condition_scale, schedule, bundle.psr_range,
        bundle.spacing,
    )  # fmt: skip


def read_scales(folder: Path) -> dict[str, Any]:
    """The latent scales of a diffusion run."""
    try:
        scales = read_json(folder / SCALES, 1 << 16)
        for name in ("latent_scale", "condition_scale"):
            number(scales[name], name, 1e-9, 1e9)
        text(scales["autoencoder"], "autoencoder")
        return scales
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder} has no readable {SCALES}; train that stage again.") from error


@torch.no_grad()
def load(module: nn.Module, tensors: dict[str, Tensor], source: Any) -> None:
    """Load weights by name, in place.

    Raises:
        InputError: they belong to another architecture.
    """
    own = module.state_dict()
    wrong = sorted(set(own) ^ set(tensors)) or [k for k in own if own[k].shape != tensors[k].shape]
    if wrong:
        raise InputError(f"The weights in {source} do not fit the model: {wrong[0]} (and {len(wrong) - 1} more).")
    module.load_state_dict(tensors)


def initialise(stage: Any, kind: str, source: str) -> None:
    """Start a stage from the weights of a run or a bundle, for fine-tuning (``--init``).

    Raises:
        InputError: no such run or bundle, or its weights belong to another architecture.
    """
    objective = next(iter(stage.objectives.values()))
    if (Path(source) / "config.yaml").is_file():
        run = Run.read(source)
        if run.stage != kind:
            raise InputError(f"--init {source} is a run of {run.stage}, not of {kind}.")
        tensors, own = run.weights(), {k: p for k, p in objective.named_parameters() if p.requires_grad}
        anew = getattr(stage, "begins_anew", lambda name: False)
        tensors = {k: v for k, v in tensors.items() if k in own or not anew(k)}
        tensors = {k: v for k, v in tensors.items() if not (anew(k) and own[k].shape != v.shape)}
        wrong = [k for k in sorted(set(own) ^ set(tensors)) if not anew(k)]
        wrong = wrong or [k for k in tensors if own[k].shape != tensors[k].shape]
        if wrong:
            raise InputError(f"The weights in {source} do not fit the model: {wrong[0]} (and {len(wrong) - 1} more).")
        with torch.no_grad():
            for name, value in tensors.items():
                own[name].copy_(value)
        return
    if kind == "segmentation":
        from ..regions.network import open_network

        try:
            load(objective.network, open_network(source).network.state_dict(), source)
        except BundleError as error:
            raise InputError(f"--init {source} is no segmentation run, and no bundle to use: {error}") from error
        return
    if kind in ("regression", "decoder"):
        raise InputError(f"--init {source} is not a {kind} run.")
    if (published := _published(source)) is not None:
        _initialise_published(objective, kind, source, published)
        return
    if kind == "demist":
        from ..bundle import load_bundle

        # A mean network that was trained for these streams stays: the bundle's is the one before.
        mean = {k: v for k, v in objective.demist.streams_state_dict().items() if k.startswith("mean.")}
        try:
            theirs = load_bundle(source).demist.streams_state_dict()
            objective.demist.load_streams_state_dict({**theirs, **{k: v for k, v in mean.items() if k in theirs}})
        except (BundleError, ValueError) as error:
            raise InputError(f"--init {source} cannot be used: {error}") from error
        return
    if kind == "mean":
        from ..bundle import load_bundle

        try:
            bundle = load_bundle(source)
            if bundle.config.mean is None:
                raise InputError(f"--init {source} has no mean network; give a bundle or a run that has one.")
            load(objective.mean, bundle.demist.mean.state_dict(), source)
        except BundleError as error:
            raise InputError(f"--init {source} cannot be used: {error}") from error
        return
    foundation = _from_bundle(source)
    if kind == "autoencoder":
        if foundation.psr_range != PSR_RANGE:
            raise InputError(
                f"--init {source}: its PSR autoencoder takes a PSR of {foundation.psr_range:g} as 1, and this stage "
                f"{PSR_RANGE:g}; begin from another bundle."
            )
        load(objective.psr, foundation.psr.state_dict(), source)
        load(objective.condition, foundation.condition.state_dict(), source)
    else:
        load(objective.backbone, foundation.backbone.state_dict(), source)


def _published(source: str) -> Any:
    """The published model that ``source`` is; None for anything else."""
    from ..bundle import DESCRIPTION_FILE, find_folder, read_description
    from ..published import folder as published
    from ..published.store import KINDS, open_model

    try:
        folder = find_folder(source, published.PATTERNS)
        ours = (folder / DESCRIPTION_FILE).is_file()
        if not (read_description(folder)["kind"] in KINDS if ours else published.is_published(folder)):
            return None
    except BundleError:
        return None  # who looks for a bundle there says what is wrong
    try:
        return open_model(folder)
    except BundleError as error:
        raise InputError(f"--init {source} cannot be used: {error}") from error


def _initialise_published(objective: nn.Module, kind: str, source: str, published: Any) -> None:
    """Both autoencoders from the published one."""
    from ..published.transfer import autoencoder_weights

    if kind != "autoencoder":
        raise InputError(
            f"--init {source} is a published model, which stage autoencoder starts from; stage demist takes it as "
            "--backbone."
        )
    try:
        for network in (objective.psr, objective.condition):
            load(network, autoencoder_weights(published, network), source)
    except BundleError as error:
        raise InputError(f"--init {source} cannot be used: {error}") from error
