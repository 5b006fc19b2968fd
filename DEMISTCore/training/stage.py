"""What the training loop needs to know of a stage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ..networks.config import ModelConfig


class Stage:
    """A stage that is about to be trained: networks with their losses, and samples. Subclass and fill in.

    What has a body here is right for most stages.
    """

    #: name -> module whose forward(batch, progress) gives {"loss": scalar, other scalars to report}. All are stepped in
    #: this order with one batch, each with an optimizer of its own. Where the loss takes something from other samples
    #: (:mod:`DEMISTCore.pooling`), ``rehearse(batch, progress)`` asks for the same, in the same order, as cheaply as it
    #: can; it is called without gradients. Frozen parameters are neither trained nor saved.
    #: The first one's weights are averaged (EMA), validated, and handed on.
    objectives: dict[str, nn.Module]
    #: the first of them
    objective: nn.Module
    #: learning rate of each objective as a factor of ``lr``
    lr_factors: Mapping[str, float] = MappingProxyType({})
    #: the scalar of :meth:`validate` that is better when lower
    score: str
    #: the model as it really is: the foundation decides its own part; None: the stage trains a network of another kind
    model: ModelConfig | None = None
    #: of a stage on latents: what scales them, and the autoencoders' hash
    latent_scale: float | None = None
    condition_scale: float | None = None
    autoencoder_hash: str | None = None
    #: seconds that fitting took before the first step; they belong to the training's time as steps do
    fitted_seconds: float = 0.0

    def batch(self, indices: range) -> dict[str, Tensor]:
        """Samples with these indices, on the CPU; a pure function of them."""
        raise NotImplementedError

    def validate(self, device: torch.device) -> dict[str, float]:
        """Scalars on held-out data, always on the same samples with the same noise. Called with averaged weights."""
        raise NotImplementedError

    def preview(self, path: Path, device: torch.device) -> None:
        """Draw a PNG for a person. Called with averaged weights."""
        raise NotImplementedError

    def table(self) -> str:
        """What is trained, for the log; empty: nothing to say."""
        return ""

    def finish(self) -> None:
        """What must hold at the end of a run; DemistError where it does not."""

    def begins_anew(self, name: str) -> bool:
        """Whether weight ``name`` need not be the same here and in the run of ``--init``."""
        return False

    @property
    def scales(self) -> dict[str, Any] | None:
        """What the run remembers beside its weights; None: nothing."""
        if self.autoencoder_hash is None:
            return None
        return {
            "latent_scale": self.latent_scale,
            "condition_scale": self.condition_scale,
            "autoencoder": self.autoencoder_hash,
        }
