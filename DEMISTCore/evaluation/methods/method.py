"""The words that methods share: what one is, what it gives, what it is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cases import Case

if TYPE_CHECKING:
    import torch

    from ...bundle import Bundle
    from ...training.data import Session


@dataclass(eq=False)
class Outcome:
    """A method's map and, where it says so, how sure it is.

    Attributes:
        psr: (X, Y, Z) on the comparison grid.
        deviation: (X, Y, Z), standard deviation of the error, or over seeds.
        seeds: over how many seeds ``deviation`` is; 1: it is a predicted one.
        half_widths: (X, Y, Z) by level in percent, see :mod:`DEMISTCore.evaluation.calibrated`; None: they follow from
            ``deviation``.
        region_interval: from a mask (X, Y, Z; bool), levels in percent and the kind ("region" or "lesion"), the
            interval (low, high) of the mean over the mask at each level.
    """

    psr: np.ndarray
    deviation: np.ndarray | None = None
    seeds: int = 1
    half_widths: Mapping[int, np.ndarray] | None = None
    region_interval: Callable[[np.ndarray, Sequence[int], str], dict[int, tuple[float, float]]] | None = None


@dataclass(eq=False)
class Method:
    """Something that makes one or several named maps of a case.

    Attributes:
        names: of the maps.
        settings: everything that decides the result besides the case: it goes into the fingerprint.
        make: maps by name.
        beside: the method that this one is with something taken away; None: it stands for itself.
    """

    names: tuple[str, ...]
    settings: dict[str, Any]
    make: Callable[[Case], dict[str, Outcome]]
    beside: str | None = None


@dataclass(eq=False)
class Context:
    """What methods are made from; see :func:`DEMISTCore.evaluation.evaluate` for the options.

    Attributes:
        cohorts: sessions of each data set that is evaluated, by its name in the tables.
        notes: sentences on how methods came about; methods add theirs.
    """

    model: Bundle
    cohorts: Mapping[str, Sequence[Session]]
    device: torch.device
    dtype: torch.dtype
    out: Path
    seeds: int = 4
    steps: int | None = None
    sampler: str | None = None
    ablations: bool = False
    knock_outs: bool = False
    compare: Mapping[str, str | Path] = field(default_factory=dict)
    regression_from: str | Path | None = None
    lookup_from: str | Path | None = None
    linear: str | Path | None = None
    preprocess: str = "masked"
    progress: bool = False
    notes: list[str] = field(default_factory=list)
