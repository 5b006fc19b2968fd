"""The networks: two KL autoencoders, the diffusion backbone, and the three streams that steer it.

Names are loaded on first use: reading presets does not need torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_EXPORTS = {
    "PSR_RANGE": ".config",
    "PRESETS": ".config",
    "AutoencoderConfig": ".config",
    "BackboneConfig": ".config",
    "StreamsConfig": ".config",
    "MeanConfig": ".config",
    "ModelConfig": ".config",
    "build_autoencoder": ".autoencoder",
    "encode": ".autoencoder",
    "sample_latent": ".autoencoder",
    "build_backbone": ".backbone",
    "freeze": ".backbone",
    "ALL": ".demist",
    "NONE": ".demist",
    "Condition": ".demist",
    "Demist": ".demist",
    "Streams": ".demist",
    "build_demist": ".demist",
    "build_mean": ".demist",
    "PosteriorMean": ".mean",
    "Seen": ".mean",
}
__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
