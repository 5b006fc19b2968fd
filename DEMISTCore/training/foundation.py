"""What a stage builds on: the weights of an earlier run, or of a foundation bundle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BundleError, InputError
from ..networks.backbone import freeze
from ..networks.config import PSR_RANGE, ModelConfig
from ..schema import number, read_json, text
from ..weights import misfits
from .checkpoint import Run
from .loop import frozen_hash
from .stages import STAGES

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
    def backbone_network(self) -> nn.Module:
        """The backbone, where there must be one.

        Raises:
            InputError: only the autoencoders are trained yet.
        """
        if self.backbone is None:
            raise InputError(f"{self.source} has no backbone yet; train one on it, or give --backbone.")
        return self.backbone

    @property
    def noise(self) -> dict[str, Any]:
        """Keyword arguments of :class:`DEMISTCore.diffusion.NoiseSchedule` that the backbone knows.

        Raises:
            InputError: only the autoencoders are trained yet.
        """
        if self.schedule is None:
            raise InputError(f"{self.source} has no noise schedule yet; train a backbone on it, or give --backbone.")
        return self.schedule

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
        run = Run.read(source)
        foundation = STAGES[run.stage].as_foundation(run, weights)
    else:
        foundation = bundle_foundation(source)
    if need_backbone and foundation.backbone is None:
        raise InputError(f"{source} holds autoencoders only; give --foundation a backbone run or a foundation bundle.")
    return foundation


def foundation_of(run: Run) -> Foundation:
    """What a run builds on, with the published backbone that it names, if any.

    Raises:
        InputError: see :func:`read_foundation` and :func:`with_backbone`.
    """
    source = run.backbone_source
    below = read_foundation(run.foundation_source, need_backbone=STAGES[run.stage].needs_backbone and not source)
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
        foundation,
        model=model,
        backbone=freeze(unet),
        schedule=schedule,
        latent_scale=None,
        condition_scale=None,
        conditions=published.conditions,
    )


def bundle_foundation(source: str | Path) -> Foundation:
    """What a bundle gives the stages that build on it.

    Raises:
        InputError: it is no bundle, or is damaged.
    """
    from ..bundle import load_bundle

    try:
        bundle = load_bundle(str(source))
    except BundleError as error:
        raise InputError(f"{source} is neither a training run nor a bundle: {error}") from error
    schedule = bundle.schedule.to_dict()
    schedule.pop("prediction")
    return Foundation(
        str(source),
        bundle.config,
        freeze(bundle.autoencoder_psr),
        freeze(bundle.autoencoder_condition),
        freeze(bundle.backbone),
        bundle.latent_scale,
        bundle.condition_scale,
        schedule,
        bundle.psr_range,
        bundle.spacing,
    )


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
    if wrong := misfits(module.state_dict(), tensors):
        raise InputError(f"The weights in {source} do not fit the model: {wrong[0]} (and {len(wrong) - 1} more).")
    module.load_state_dict(tensors)
