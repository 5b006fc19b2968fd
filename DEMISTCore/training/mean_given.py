"""A mean network that was trained before: of a run of ``mean``, or of a bundle."""

from __future__ import annotations

import math
from pathlib import Path

from ..errors import BundleError, InputError
from ..networks.config import MeanConfig
from ..networks.limits import read_model
from ..networks.mean import PosteriorMean
from .checkpoint import Run, part
from .foundation import Foundation, load, read_scales


def read_mean(source: str | Path, foundation: Foundation, weights: str = "ema") -> tuple[MeanConfig, PosteriorMean]:
    """The mean network of a run of ``mean``, or of a demist bundle, and its sizes.

    Raises:
        InputError: it is neither, or was trained on other latents than ``foundation``'s.
    """
    if (Path(source) / "config.yaml").is_file():
        run = Run.read(source)
        if run.stage != "mean":
            raise InputError(f"{source} is a run of {run.stage}; --mean takes a run of mean, or a bundle that has one.")
        config = read_model(run.settings.model).mean
        scale, of = read_scales(run.folder)["latent_scale"], read_scales(run.folder)["autoencoder"]
        if of != foundation.autoencoder_hash:
            raise InputError(f"{source} was trained on the latents of other autoencoders than {foundation.source}'s.")
        tensors = part(run.weights(weights), "mean")
    else:
        from ..bundle import load_bundle

        try:
            bundle = load_bundle(str(source))
            config, scale = bundle.config.mean, bundle.latent_scale
            tensors = {} if config is None else bundle.demist.mean_network.state_dict()
        except BundleError as error:
            raise InputError(f"--mean {source} is neither a training run nor a bundle: {error}") from error
    if config is None:
        raise InputError(f"--mean {source} has no mean network; give a run of mean.")
    if foundation.latent_scale is not None and not math.isclose(scale, foundation.latent_scale, rel_tol=1e-5):
        raise InputError(f"{source} counts latents in other units than {foundation.source}; train it on that one.")
    base = foundation.model
    network = PosteriorMean(config, base.psr.latent_channels, base.condition.latent_channels, base.psr.factor)
    load(network, tensors, source)
    return config, network
