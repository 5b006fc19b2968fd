"""Where a result comes from: what its JSON sidecar says."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ..bundle import Bundle
from ..files import sha256
from ..volume import Volume, data_hashes
from .reuse import Reuse

if TYPE_CHECKING:
    from ..preprocess import Prepared


def identity(volume: Volume, reuse: Reuse) -> dict[str, Any]:
    """What file, with what content."""
    if volume.path is not None and Path(volume.path).is_file():
        return {"file": str(volume.path), "sha256": sha256(volume.path), **data_hashes(volume.path)}
    return {"file": None, "array_sha256": reuse.content(volume)}


def provenance(
    bundle: Bundle,
    inputs: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Any],
    outputs: Mapping[str, Path],
    prepared: Prepared,
    psr: Volume,
    uncertainty: Volume | None,
) -> dict[str, Any]:
    """All that is known before anything is written.

    Args:
        bundle: the model.
        inputs: :func:`identity` of every image.
        settings: as used.
        outputs: what will be written, by kind.
        prepared: the images as the model saw them.
        psr, uncertainty: the maps, on the T1w's own grid.
    """
    import torch

    return {
        "software": {
            "name": "DEMIST",
            "version": __version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
        },
        "statement": bundle.warning,
        "simulated": bundle.simulated,
        "quantity": "pool size ratio (PSR), fraction",
        "bundle": _describe_bundle(bundle),
        "inputs": dict(inputs),
        "settings": dict(settings),
        "outputs": {name: str(path) for name, path in outputs.items()},
        "grid": {"shape": list(psr.shape), "spacing_mm": [round(s, 4) for s in psr.spacing], "axes": psr.axcodes},
        "summary": _summary(psr, uncertainty, prepared.native_mask),
        "preparation": {step.name: step.note for step in prepared.steps},
        "flair": _flair_place(prepared),
        "warnings": list(prepared.warnings),
    }


def _flair_place(prepared: Prepared) -> dict[str, Any] | None:
    """The FLAIR's own grid and where registration took it: labels drawn on it go there, too (statistics)."""
    grid = prepared.flair_native
    if grid is None:
        return None
    motion = prepared.flair_motion.tolist()
    return {"shape": list(grid.shape), "affine": grid.affine.tolist(), "motion_ras_mm": motion}


def _describe_bundle(bundle: Bundle) -> dict[str, Any]:
    described = {
        "name": bundle.name,
        "version": bundle.info.get("version"),
        "hash": bundle.hash,
        "licence": bundle.licence,
    }
    if bundle.base is not None:
        described["base"] = {"name": bundle.base.name, "hash": bundle.base.hash}
    return described


def _summary(psr: Volume, uncertainty: Volume | None, mask: Volume) -> dict[str, float | list[float]]:
    inside = mask.array > 0
    values = psr.array[inside]
    summary: dict[str, float | list[float]] = {
        "brain_volume_ml": round(float(inside.sum()) * mask.grid.voxel_volume_ml, 1),
        "psr_median": round(float(np.median(values)), 4),
        "psr_5_to_95_percentile": [round(float(v), 4) for v in np.percentile(values, (5, 95))],
    }
    if uncertainty is not None:
        summary["uncertainty_median"] = round(float(np.median(uncertainty.array[inside])), 4)
    return summary
