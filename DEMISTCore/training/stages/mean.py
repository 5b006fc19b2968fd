"""The posterior mean, which the streams share; see :mod:`DEMISTCore.training.mean`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..groups import AugmentSettings, LatentSettings, LocalSettings, PaintSettings, WarpSettings, slight
from .kind import Kind, Task

if TYPE_CHECKING:
    from ..stage import Stage


@dataclass
class MeanSettings(LatentSettings):
    """The posterior mean, which the streams then share."""

    lr: float = 2.5e-4
    crop: tuple[int, ...] | None = (20, 24, 20)
    flip: bool = False
    augment: AugmentSettings = field(default_factory=slight)
    warp: WarpSettings = field(default_factory=WarpSettings)  # without tokens only: they know the whole volume
    paint: PaintSettings = field(default_factory=PaintSettings)
    local: LocalSettings = field(default_factory=LocalSettings)
    margin: int = 6  # voxels along a crop's faces that do not count: the network there has not seen what lies beyond
    dropout_semantic: float = 0.1
    dropout_adaptive: float = 0.1
    dropout_protocol: float = 0.5  # share of the samples without any sidecar; of the others each key misses at times
    lesion_share: float = 0.3  # share of the crops around a lesion
    error_scale: float = 0.02  # PSR; errors are counted in these
    lambda_latent: float = 0.1
    lambda_spread: float = 0.1
    lambda_tissue: float = 0.1
    only_spread: bool = False  # with --init: the mean stays as it is, what says how sure it is is trained anew


class Mean(Kind):
    """Tokens, knowledge, guide and guided decoder: the best single map."""

    name, order = "mean", 30
    help = "the posterior mean: tokens, knowledge, guide and guided decoder, which the streams share"
    settings = MeanSettings
    foundation = "autoencoder"

    def build(self, task: Task) -> Stage:
        """See :class:`DEMISTCore.training.mean.MeanStage`."""
        from ..mean import MeanStage

        return MeanStage(
            task.model, task.settings, task.base, task.train, task.validation_set, task.cache, given=task.given
        )

    def initialize(self, stage: Stage, source: str) -> None:
        """From a bundle's mean network."""
        from ...errors import BundleError, InputError
        from ..foundation import load
        from ..initial import refuse_published

        refuse_published(source)
        from ...bundle import load_bundle

        try:
            bundle = load_bundle(source)
            if bundle.config.mean is None:
                raise InputError(f"--init {source} has no mean network; give a bundle or a run that has one.")
            load(stage.objective.mean, bundle.demist.mean_network.state_dict(), source)
        except BundleError as error:
            raise InputError(f"--init {source} cannot be used: {error}") from error


STAGE = Mean()
