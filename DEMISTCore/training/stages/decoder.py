"""The PSR decoder once more, all else frozen; see :mod:`DEMISTCore.training.decoder`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..groups import Settings
from .kind import Kind, Task, Wanted

if TYPE_CHECKING:
    from ...bundle import Bundle
    from ..checkpoint import Run
    from ..foundation import Foundation
    from ..stage import Stage


@dataclass
class DecoderSettings(Settings):
    """The PSR decoder once more, all else frozen."""

    lr: float = 5e-4
    patch: tuple[int, ...] = (64, 64, 64)
    flip: bool = True
    lambda_edge: float = 0.3
    lambda_adversarial: float = 0.003
    adversarial_start: float = 0.2
    discriminator_lr: float = 3e-4
    discriminator_channels: int = 16
    latent_noise: float = 0.3
    validation_patches: int = 8


class Decoder(Kind):
    """Sharper maps from the same latents."""

    name, order = "decoder", 50
    help = "the PSR decoder once more, all else frozen: sharper maps from the same latents"
    settings = DecoderSettings
    foundation = "backbone"
    bundle = "foundation"

    def build(self, task: Task) -> Stage:
        """See :class:`DEMISTCore.training.decoder.DecoderStage`."""
        from ..decoder import DecoderStage

        return DecoderStage(task.settings, task.base, task.train, task.validation_set)

    def as_foundation(self, run: Run, weights: str) -> Foundation:
        """What the run was trained on, with its decoder instead."""
        from dataclasses import replace

        from ...errors import InputError
        from ..checkpoint import part
        from ..foundation import load, read_foundation

        below = read_foundation(run.foundation_source)
        if run.foundation_hash not in (None, below.hash):
            raise InputError(f"{run.foundation} has changed since {run.folder} was trained on it; train it again.")
        load(below.psr, {**below.psr.state_dict(), **part(run.weights(weights), "psr")}, run.folder)
        return replace(below, source=str(run.folder))

    def export(self, run: Run, folder: Path, wanted: Wanted) -> Bundle:
        """The foundation bundle, with this decoder."""
        from ..export import export_foundation

        return export_foundation(run, folder, wanted)


STAGE = Decoder()
