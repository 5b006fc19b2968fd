"""The backbone, which later stages freeze; see :mod:`DEMISTCore.training.backbone`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..groups import LatentSettings
from .kind import Kind, Task, Wanted

if TYPE_CHECKING:
    from ...bundle import Bundle
    from ..checkpoint import Run
    from ..foundation import Foundation
    from ..stage import Stage


@dataclass
class BackboneSettings(LatentSettings):
    """Unconditional diffusion on PSR latents."""

    lr: float = 4e-4


class Backbone(Kind):
    """Unconditional diffusion in the autoencoders' latents."""

    name, order = "backbone", 20
    help = "an unconditional diffusion model on PSR latents, to be frozen"
    settings = BackboneSettings
    foundation = "autoencoder"
    bundle = "foundation"

    def build(self, task: Task) -> Stage:
        """See :class:`DEMISTCore.training.backbone.BackboneStage`."""
        from ..backbone import BackboneStage

        return BackboneStage(task.model, task.settings, task.base, task.train, task.validation_set, task.cache)

    def initialize(self, stage: Stage, source: str) -> None:
        """From a bundle's backbone."""
        from ..foundation import bundle_foundation, load
        from ..initial import refuse_published

        refuse_published(source)
        load(stage.objective.backbone, bundle_foundation(source).backbone_network.state_dict(), source)

    def as_foundation(self, run: Run, weights: str) -> Foundation:
        """The autoencoders below with this backbone, in the latents that it was trained on."""
        from dataclasses import replace

        from ...errors import InputError
        from ...networks.backbone import build_backbone, freeze
        from ...networks.limits import read_model
        from ..checkpoint import part
        from ..foundation import load, read_foundation, read_scales

        model, tensors = read_model(run.settings.model), run.weights(weights)
        below = read_foundation(run.foundation_source)
        backbone = build_backbone(model.backbone)
        load(backbone, part(tensors, "backbone"), run.folder)
        scales = read_scales(run.folder)
        if scales["autoencoder"] != below.autoencoder_hash:
            raise InputError(
                f"{run.foundation} has changed since {run.folder} was trained on its latents; train it again."
            )
        return replace(
            below,
            source=str(run.folder),
            model=model,
            backbone=freeze(backbone),
            schedule=dict(run.settings.schedule),
            latent_scale=scales["latent_scale"],
            condition_scale=scales["condition_scale"],
        )

    def export(self, run: Run, folder: Path, wanted: Wanted) -> Bundle:
        """The foundation bundle."""
        from ..export import export_foundation

        return export_foundation(run, folder, wanted)


STAGE = Backbone()
