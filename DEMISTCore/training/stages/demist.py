"""Stage 2: the three streams on the frozen backbone; see :mod:`DEMISTCore.training.demist`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..groups import LatentSettings
from .kind import Kind, Source, Task, Wanted

if TYPE_CHECKING:
    from ...bundle import Bundle
    from ..checkpoint import Run
    from ..stage import Stage


@dataclass
class DemistSettings(LatentSettings):
    """Stage 2: the three streams on the frozen backbone. Ablation: model.streams.semantic=false and so on."""

    lr: float = 4e-4
    dropout_semantic: float = 0.1
    dropout_spatial: float = 0.1
    dropout_adaptive: float = 0.1
    dropout_all: float = 0.0
    context: str | None = None  # CSV or TSV: the backbone's own conditions per subject (Brain LDM); None: neutral
    dropout_protocol: float = 0.5  # with a mean network: share of the samples without any sidecar
    dropout_context: float = 0.1  # share of the samples held neutral all the same, as synthesis holds them
    lambda_edge: float = 0.1
    lambda_tissue: float = 0.5
    lambda_estimate: float = 0.5  # the spatial stream's direct estimate of z_0, where it has one
    estimate_first: float = 0.0  # share of the training that the estimate gets alone, before the backbone takes part
    decode: tuple[int, ...] = (12, 12, 12)  # latent positions decoded for the losses in image space
    decode_halo: int = 2
    decode_every: int = 4  # one sample in so many is decoded, and counts so much more; 0: none
    validation_samples: int = 2  # crops sampled with preview_steps steps of DDIM and compared with the truth


class Demist(Kind):
    """Semantic, spatial and adaptive stream, which steer the backbone by T1w and FLAIR."""

    name, order = "demist", 40
    help = "stage 2: the three streams on the frozen backbone"
    settings = DemistSettings
    foundation = "backbone"
    needs_backbone = True
    contexts = True
    bundle = "demist"
    sources = (
        Source(
            "backbone",
            "FOLDER|ID",
            "a published diffusion model (Brain LDM, BraTS) to freeze; --foundation is then the autoencoder run",
        ),
        Source(
            "mean",
            "RUN|BUNDLE",
            "the run of mean, whose network the streams share; without it they have their own tokens and estimate",
        ),
    )

    def build(self, task: Task) -> Stage:
        """See :class:`DEMISTCore.training.demist.DemistStage`."""
        from ..demist import DemistStage
        from ..mean_given import read_mean

        source = task.run.mean_source
        mean = read_mean(source, task.base) if source is not None else None
        return DemistStage(
            task.model, task.settings, task.base, task.train, task.validation_set, task.cache, task.contexts, mean
        )

    def initialize(self, stage: Stage, source: str) -> None:
        """From a bundle's streams; a mean network that was trained for these streams stays."""
        from ...bundle import load_bundle
        from ...errors import BundleError, InputError
        from ..initial import refuse_published

        refuse_published(source)
        demist = stage.objective.demist
        mean = {k: v for k, v in demist.streams_state_dict().items() if k.startswith("mean.")}
        try:
            theirs = load_bundle(source).demist.streams_state_dict()
            demist.load_streams_state_dict({**theirs, **{k: v for k, v in mean.items() if k in theirs}})
        except (BundleError, ValueError) as error:
            raise InputError(f"--init {source} cannot be used: {error}") from error

    def export(self, run: Run, folder: Path, wanted: Wanted) -> Bundle:
        """The DEMIST bundle, a delta on ``wanted.base``."""
        from ..export import export_demist

        return export_demist(run, folder, wanted)


STAGE = Demist()
