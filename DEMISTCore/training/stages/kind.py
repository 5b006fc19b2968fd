"""A kind of training stage: all that is known of it before it runs. No torch here, nor when a stage's file is imported.

To add one, write ``stages/<name>.py`` with its settings, a subclass of :class:`Kind` and ``STAGE``, an instance of
that; and, where the defaults do not suit it, a section ``<name>:`` in the presets. The registry finds the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import InputError
from ..groups import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from ...bundle import Bundle
    from ...networks.config import ModelConfig
    from ...regions.network import TissueModel
    from ..checkpoint import Run
    from ..data import PreparedSession
    from ..foundation import Foundation
    from ..stage import Stage


class Source(NamedTuple):
    """A further input of a stage that a :class:`DEMISTCore.training.checkpoint.Run` keeps: "backbone" or "mean"."""

    name: str
    metavar: str
    help: str


@dataclass
class Task:
    """What a stage is built from."""

    run: Run
    settings: Any  # the stage's own
    model: ModelConfig
    train: Sequence[PreparedSession]
    validation_set: Sequence[PreparedSession]
    cache: Path
    foundation: Foundation | None = None  # None: the stage builds on nothing
    contexts: Mapping[str, np.ndarray] | None = None  # the backbone's own conditions by session; None: neutral
    given: bool = False  # weights will come from another run, a checkpoint or a bundle

    @property
    def base(self) -> Foundation:
        """The foundation of a stage that builds on one.

        Raises:
            InputError: none was given.
        """
        if self.foundation is None:
            raise InputError(f"Stage {self.run.stage} builds on another; give its run or a bundle as --foundation.")
        return self.foundation


@dataclass
class Wanted:
    """How a bundle is to be written."""

    weights: str = "ema"  # or "best"
    base: str | None = None  # the foundation bundle that it builds on
    card: str | None = None  # Markdown
    description: str = ""
    sampling: dict[str, Any] = field(default_factory=dict)  # recommended
    common: dict[str, Any] = field(default_factory=dict)  # licence, simulated, overwrite, storage


class Kind:
    """One stage. A subclass fills in the attributes and :meth:`build`; the other methods say no until they are."""

    #: as on the command line, in run folders and presets
    name: str
    #: a line for ``--help``
    help: str
    #: dataclass of all that can be set
    settings: type[Settings]
    #: place in lists; equal ones by name
    order: int = 100
    #: the stage whose run --foundation takes; None: it builds on no other
    foundation: str | None = None
    #: a foundation must have a backbone, its own or --backbone's
    needs_backbone: bool = False
    #: the settings have ``context``, a table of the backbone's own conditions
    contexts: bool = False
    #: further inputs
    sources: Sequence[Source] = ()
    #: what else --init takes, for ``--help``
    init_help: str = ""
    #: the bundle that a run becomes: "foundation" and "demist" go together, others stand alone; None: none
    bundle: str | None = None

    def build(self, task: Task) -> Stage:
        """Networks, losses and data, up to the first step; imports of torch belong in here."""
        raise NotImplementedError

    def initialize(self, stage: Stage, source: str) -> None:
        """Start from the weights of a bundle or a published model (``--init``), in place.

        Raises:
            InputError: the stage cannot start from it. Runs of the stage itself are read elsewhere.
        """
        raise InputError(f"--init {source} is not a {self.name} run.")

    def as_foundation(self, run: Run, weights: str) -> Foundation:
        """What a run gives the stages that build on it.

        Raises:
            InputError: it is no foundation, or its weights cannot be read.
        """
        raise InputError(f"{run.folder} is a run of {run.stage}; --foundation takes an autoencoder or backbone run.")

    def export(self, run: Run, folder: Path, wanted: Wanted) -> Bundle | TissueModel:
        """Write the bundle that a run becomes; only of stages with :attr:`bundle`.

        Raises:
            InputError: the run is untrained, or what it builds on has changed.
        """
        raise NotImplementedError
