"""Save a model that makes maps: a foundation, or a delta over one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .description import CARD_FILE, KINDS
from .model import RESEARCH_WARNING, SIMULATED_WARNING, Bundle
from .write import check_target, header, write_bundle

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..diffusion import NoiseSchedule
    from ..networks.config import ModelConfig


def save_bundle(
    folder: str | os.PathLike[str],
    *,
    config: ModelConfig,
    weights: Mapping[str, Mapping[str, Tensor] | nn.Module],
    name: str | None = None,
    base: Bundle | None = None,
    base_hub: str | None = None,
    schedule: NoiseSchedule | Mapping[str, Any] | None = None,
    latent_scale: float | None = None,
    condition_scale: float | None = None,
    psr_range: float | None = None,
    spacing: float | None = None,
    sampling: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    simulated: bool = True,
    licence: str = "Apache-2.0",
    description: str = "",
    version: str = "1",
    storage: str | Mapping[str, str] = "fp16",
    card: str | None = None,
    documents: Mapping[str, str | os.PathLike[str]] | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Save a bundle, whole or not at all, and load it back.

    Args:
        folder: where to; its name is the bundle's unless ``name`` says otherwise.
        config: shapes of the networks. A demist bundle keeps of it the streams only.
        weights: for a foundation any of ``autoencoder_psr``, ``autoencoder_condition``, ``backbone``; for a demist
            bundle ``streams``. Each a module (a :class:`Demist` for ``streams``) or a state dict.
        base: the foundation that ``streams`` were trained on; makes this a demist bundle.
        base_hub: Hugging Face id of the base, for those who do not have it.
        schedule, latent_scale, condition_scale, psr_range, spacing: of a foundation; a demist bundle has its base's.
        sampling: recommended settings, over :data:`SAMPLING`: sampler, steps, seeds, eta, spacing, guidance.
        training: provenance: data, steps, configuration, versions; anything JSON.
        simulated: trained on simulated PSR. Only a bundle trained on measured PSR may say False.
        storage: ``"fp16"`` (half the size, error 2^-11; refused for weights beyond its range), ``"bf16"`` (error
            2^-8) or ``"fp32"``; for all parts, or by part.
        card: Markdown; by default one is written from the above.
        documents: further files to put in, by name (training log, configuration). Not covered by the hash.
        overwrite: replace a bundle that is there.

    Raises:
        InputError: the folder exists, or cannot be written to.
        ValueError: parts or settings that do not make a bundle.
    """
    folder = Path(folder)
    kind = "foundation" if base is None else "demist"
    if not weights or set(weights) - set(KINDS[kind]):
        raise ValueError(f"a {kind} bundle holds {', '.join(KINDS[kind])}, not {', '.join(weights) or 'nothing'}")
    if base is not None and base.kind != "foundation":
        raise ValueError(f"{base.name} is no foundation to build on")
    check_target(folder, overwrite)
    info = header(
        kind,
        name or folder.name,
        licence=licence,
        simulated=simulated,
        description=description,
        version=version,
        warning=SIMULATED_WARNING if simulated or (base and base.simulated) else RESEARCH_WARNING,
    )
    model = config.to_dict()
    if base is None:
        from ..networks.config import PSR_RANGE

        info["model"] = {key: value for key, value in model.items() if key not in ("streams", "mean")}
        info["schedule"] = schedule if schedule is None or isinstance(schedule, Mapping) else schedule.to_dict()
        info["latent_scale"] = latent_scale
        info["condition_scale"] = condition_scale
        info["psr_range"] = PSR_RANGE if psr_range is None else psr_range
        info["spacing"] = 1.0 if spacing is None else spacing
    else:
        info["model"] = {"streams": model["streams"], **({"mean": model["mean"]} if model["mean"] else {})}
        info["base"] = {"name": base.name, "hash": base.hash, **({"hub": base_hub} if base_hub else {})}
    info["sampling"] = dict(sampling) if sampling else None
    info["training"] = dict(training) if training else {}
    info["documents"] = [CARD_FILE, *(documents or {})]

    info = write_bundle(folder, info, weights, storage, card, documents or {})
    return Bundle(folder, info, base)
