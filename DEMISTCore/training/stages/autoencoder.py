"""Stage 1: the PSR and the condition autoencoder; see :mod:`DEMISTCore.training.autoencoder`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..groups import AugmentSettings, Settings
from .kind import Kind, Task

if TYPE_CHECKING:
    from ..checkpoint import Run
    from ..foundation import Foundation
    from ..stage import Stage


@dataclass
class AutoencoderSettings(Settings):
    """Stage 1: both autoencoders in one loop on patches."""

    lr: float = 1e-3
    patch: tuple[int, ...] = (64, 64, 64)
    flip: bool = True
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    beta_kl: float = 1e-6
    lambda_condition: float = 0.5  # weight of the condition's reconstruction
    lambda_edge: float = 0.1
    lambda_adversarial: float = 0.01
    lambda_align: float = 0.01
    adversarial_start: float = 0.3  # share of the training after which PatchGAN joins
    discriminator_lr: float = 3e-4
    discriminator_channels: int = 16
    align_width: int = 32
    align_positions: int = 256
    align_temperature: float = 0.1
    # Half of the PSR latents get Gaussian noise before they are decoded, of up to this share of their own standard
    # deviation: what the diffusion model hands the decoder is never exact, and a decoder that has only seen exact
    # latents turns every error into a block of latent size.
    latent_noise: float = 0.0
    validation_patches: int = 8


class Autoencoder(Kind):
    """Both autoencoders, on patches; latents of all later stages are theirs."""

    name, order = "autoencoder", 10
    help = "stage 1: the PSR and the condition autoencoder"
    settings = AutoencoderSettings
    init_help = "; or a published model, for its autoencoder"

    def build(self, task: Task) -> Stage:
        """See :class:`DEMISTCore.training.autoencoder.AutoencoderStage`."""
        from ..autoencoder import AutoencoderStage

        return AutoencoderStage(task.model, task.settings, task.train, task.validation_set)

    def initialize(self, stage: Stage, source: str) -> None:
        """Both from a bundle's two, or both from a published model's one."""
        from ...errors import InputError
        from ...networks.config import PSR_RANGE
        from ..foundation import bundle_foundation, load
        from ..initial import autoencoders_of, published_model

        networks = stage.objective.psr, stage.objective.condition
        if (published := published_model(source)) is not None:
            autoencoders_of(published, networks, source)
            return
        foundation = bundle_foundation(source)
        if foundation.psr_range != PSR_RANGE:
            raise InputError(
                f"--init {source}: its PSR autoencoder takes a PSR of {foundation.psr_range:g} as 1, and this stage "
                f"{PSR_RANGE:g}; begin from another bundle."
            )
        for network, theirs in zip(networks, (foundation.psr, foundation.condition)):
            load(network, theirs.state_dict(), source)

    def as_foundation(self, run: Run, weights: str) -> Foundation:
        """Autoencoders alone: backbone, scales and schedule are for the next stage to find."""
        from ...networks.autoencoder import build_autoencoder
        from ...networks.backbone import freeze
        from ...networks.limits import read_model
        from ..checkpoint import part
        from ..foundation import Foundation, load

        model, tensors = read_model(run.settings.model), run.weights(weights)
        psr, condition = build_autoencoder(model.psr), build_autoencoder(model.condition)
        load(psr, part(tensors, "psr"), run.folder)
        load(condition, part(tensors, "condition"), run.folder)
        return Foundation(
            str(run.folder),
            model,
            freeze(psr),
            freeze(condition),
            None,
            None,
            None,
            None,
            spacing=run.settings.preprocess.spacing,
        )


STAGE = Autoencoder()
