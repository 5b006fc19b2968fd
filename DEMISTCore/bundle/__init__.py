"""A trained model on disk: ``bundle.json`` (what it is), safetensors files (the weights), ``MODEL_CARD.md``.

Two kinds make maps. A *foundation* bundle holds the two autoencoders and the frozen backbone, with noise schedule and
latent scales. A *demist* bundle holds the trained streams alone and names the foundation it was trained on by name and
hash: it is a delta over its base, as the Brain LDM bundle is over its autoencoder. Published models that DEMIST builds
on lie in the same form: an *autoencoder*, and an *ldm* over it (:mod:`DEMISTCore.published.store`); so does the
*segmentation* network of :mod:`DEMISTCore.regions.network`. Nothing in a bundle is code and nothing is unpickled.

>>> bundle = load_bundle("demist-sim")       # doctest: +SKIP
>>> bundle.hash, bundle.base.name            # doctest: +SKIP
>>> bundle.demist, bundle.autoencoder_psr    # doctest: +SKIP
"""

from .description import (
    CARD_FILE,
    DESCRIPTION_FILE,
    Described,
    check_files,
    description_hash,
    read_description,
)
from .find import DEFAULT_BUNDLE, PATTERNS, SEARCH_VARIABLE, find_base, find_folder, list_bundles
from .load import load_bundle
from .model import SAMPLING, SIMULATED_WARNING, Bundle
from .save import save_bundle
from .write import check_target, header, write_bundle

__all__ = [
    "CARD_FILE",
    "DEFAULT_BUNDLE",
    "DESCRIPTION_FILE",
    "PATTERNS",
    "SAMPLING",
    "SEARCH_VARIABLE",
    "SIMULATED_WARNING",
    "Bundle",
    "Described",
    "check_files",
    "check_target",
    "description_hash",
    "find_base",
    "find_folder",
    "header",
    "list_bundles",
    "load_bundle",
    "read_description",
    "save_bundle",
    "write_bundle",
]
