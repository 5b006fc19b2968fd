"""Weights to start from (``--init``), for fine-tuning: a run of the same stage, a bundle, a published model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import BundleError, InputError
from .checkpoint import Run
from .foundation import load
from .loop import trainable
from .stage import Stage
from .stages import Kind


def initialize(stage: Stage, kind: Kind, source: str) -> None:
    """Start a stage from the weights of a run or a bundle.

    Raises:
        InputError: no such run or bundle, or its weights belong to another architecture.
    """
    if not (Path(source) / "config.yaml").is_file():
        kind.initialize(stage, source)
        return
    run = Run.read(source)
    if run.stage != kind.name:
        raise InputError(f"--init {source} is a run of {run.stage}, not of {kind.name}.")
    tensors, own, anew = run.weights(), trainable(next(iter(stage.objectives.values()))), stage.begins_anew
    tensors = {k: v for k, v in tensors.items() if k in own or not anew(k)}
    tensors = {k: v for k, v in tensors.items() if not (anew(k) and own[k].shape != v.shape)}
    wrong = [k for k in sorted(set(own) ^ set(tensors)) if not anew(k)]
    wrong = wrong or [k for k in tensors if own[k].shape != tensors[k].shape]
    if wrong:
        raise InputError(f"The weights in {source} do not fit the model: {wrong[0]} (and {len(wrong) - 1} more).")
    with torch.no_grad():
        for name, value in tensors.items():
            own[name].copy_(value)


def published_model(source: str) -> Any:
    """The published model that ``source`` is; None for anything else.

    Raises:
        InputError: it is one that cannot be read.
    """
    from ..bundle import DESCRIPTION_FILE, find_folder, read_description
    from ..published import folder as published
    from ..published.store import KINDS, open_model

    try:
        folder = find_folder(source, published.PATTERNS)
        ours = (folder / DESCRIPTION_FILE).is_file()
        if not (read_description(folder)["kind"] in KINDS if ours else published.is_published(folder)):
            return None
    except BundleError:
        return None  # who looks for a bundle there says what is wrong
    try:
        return open_model(folder)
    except BundleError as error:
        raise InputError(f"--init {source} cannot be used: {error}") from error


def refuse_published(source: str) -> None:
    """InputError where ``source`` is a published model: of these, stage autoencoder alone can start from."""
    if published_model(source) is not None:
        raise InputError(
            f"--init {source} is a published model, which stage autoencoder starts from; stage demist takes it as "
            "--backbone."
        )


def autoencoders_of(published: Any, networks: Iterable[nn.Module], source: str) -> None:
    """The published autoencoder's weights in each of ``networks``, in place.

    Raises:
        InputError: they do not fit.
    """
    from ..published.transfer import autoencoder_weights

    try:
        for network in networks:
            load(network, autoencoder_weights(published, network), source)
    except BundleError as error:
        raise InputError(f"--init {source} cannot be used: {error}") from error
