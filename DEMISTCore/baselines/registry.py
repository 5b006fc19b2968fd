"""The trained baselines by the stage that trains them, each from its own file."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ..errors import InputError
from .trained import Maker

#: Stage -> module here, function in it, and whether it draws samples (takes sampler and steps).
BASELINES: dict[str, tuple[str, str, bool]] = {
    "regression": ("regression", "load_regression", False),
    "vae": ("vae", "load_vae", False),
    "pix2pix": ("pix2pix", "load_pix2pix", False),
    "ldm": ("ldm", "load_ldm", True),
    "cwdm": ("cwdm", "load_cwdm", True),
}


def load_baseline(source: str | Path, *, sampler: str | None = None, steps: int | None = None) -> tuple[str, Maker]:
    """The stage of a run and what it has trained.

    Args:
        source: run folder of one of :data:`BASELINES`.
        sampler, steps: for those that sample; None: their own.

    Raises:
        InputError: no such run, no checkpoint yet, or a run of another stage.
    """
    from ..training.checkpoint import Run

    stage = Run.read(source).stage
    if stage not in BASELINES:
        raise InputError(f"{source} is a run of {stage}; a baseline is a run of {', '.join(BASELINES)}.")
    module, name, samples = BASELINES[stage]
    load: Callable[..., Maker] = getattr(import_module(f"{__package__}.{module}"), name)
    return stage, load(source, sampler=sampler, steps=steps) if samples else load(source)
