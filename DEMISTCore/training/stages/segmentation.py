"""The tissue network; see :mod:`DEMISTCore.training.segmentation`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..groups import AugmentSettings, Settings
from .kind import Kind, Task, Wanted

if TYPE_CHECKING:
    from ...regions.network import TissueModel
    from ..checkpoint import Run
    from ..stage import Stage


@dataclass
class SegmentationSettings(Settings):
    """The tissue network of :mod:`DEMISTCore.regions`."""

    lr: float = 1e-3
    patch: tuple[int, ...] = (96, 96, 96)
    flip: bool = True
    augment: AugmentSettings = field(default_factory=lambda: AugmentSettings(gain=0.2, offset=0.1, bias=0.2))
    recolour: tuple[float, ...] = (0.03, 0.06)  # SD of each tissue's own shift on T1w and FLAIR; tissue's median is 0.5
    recolour_share: float = 0.5  # share of the samples that get it
    thin_mask: float = 0.3  # share of the samples that lose outer CSF
    thick_mask: float = 0.4  # share of the samples that get a rim of what lies around the brain
    flair_dropout: float = 0.3  # share of the samples without a FLAIR
    lesion_share: float = 0.5  # share of the patches around a lesion
    lesion_weight: float = 2.0
    volume_weight: float = 5.0  # weight of the error of the tissues' volumes
    mean_weight: float = 1.0  # weight of the error of mean PSR over grey and white matter
    volume_start: float = 0.5  # share of the training after which both count
    channels: tuple[int, ...] = (48, 64, 96, 112, 112, 48)
    validation_patches: int = 8


class Segmentation(Kind):
    """Regions hang on it; it knows no PSR."""

    name, order = "segmentation", 70
    help = "the tissue network that finds white matter, grey matter, CSF and lesions for regions"
    settings = SegmentationSettings
    bundle = "segmentation"

    def build(self, task: Task) -> Stage:
        """See :class:`DEMISTCore.training.segmentation.SegmentationStage`."""
        from ..segmentation import SegmentationStage

        return SegmentationStage(task.settings, task.train, task.validation_set)

    def initialize(self, stage: Stage, source: str) -> None:
        """From a bundle of this kind."""
        from ...errors import BundleError, InputError
        from ...regions.network import open_network
        from ..foundation import load

        try:
            load(stage.objective.network, open_network(source).network.state_dict(), source)
        except BundleError as error:
            raise InputError(f"--init {source} is no segmentation run, and no bundle to use: {error}") from error

    def export(self, run: Run, folder: Path, wanted: Wanted) -> TissueModel:
        """The tissue network as a bundle."""
        import tempfile

        from ...regions.network import build_network, save_network
        from ..checkpoint import part
        from ..export import logs_of, provenance
        from ..foundation import load

        tensors, settings = part(run.weights(wanted.weights), "network"), run.settings_as(SegmentationSettings)
        load(build_network(settings.channels), tensors, run.folder)
        with tempfile.TemporaryDirectory() as logs:
            return save_network(
                folder,
                tensors,
                channels=settings.channels,
                patch=settings.patch,
                training=provenance([run], wanted.weights),
                documents=logs_of([run], Path(logs)),
                card=wanted.card,
                description=wanted.description,
                **wanted.common,
            )


STAGE = Segmentation()
