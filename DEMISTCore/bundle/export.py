"""A demist bundle as a MONAI bundle, which ``python -m monai.bundle run`` executes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from .. import __version__
from ..errors import InputError
from ..files import atomic_folder
from .description import CARD_FILE
from .model import Bundle


def export_bundle(bundle: Bundle, out: Path) -> Path:
    """Write a demist bundle, base included, as a MONAI bundle that ``python -m monai.bundle run`` executes.

    The networks are DEMIST's, so it needs DEMIST where it runs; what it adds is MONAI's way of calling:

        python -m monai.bundle run --config_file configs/inference.json --bundle_root . \
            --t1w t1w.nii.gz --flair flair.nii.gz --out psr.nii.gz

    Raises:
        InputError: a foundation (which makes no maps), or a folder that is there or cannot be written to.
    """
    if bundle.base is None:
        raise InputError(f"{bundle.folder} is a foundation and makes no maps; convert a demist bundle.")
    names = bundle.name, bundle.base.name
    with atomic_folder(out) as building:
        for part, name in zip((bundle, bundle.base), names):
            shutil.copytree(part.folder, building / "models" / name)
        for file, content in (("inference", _inference(bundle)), ("metadata", _metadata(bundle))):
            (building / "configs").mkdir(exist_ok=True)
            (building / "configs" / f"{file}.json").write_text(json.dumps(content, indent=4) + "\n", "utf-8")
        (building / "docs").mkdir()
        (building / "docs" / "README.md").write_text(bundle.card or f"# {bundle.name}\n\n{bundle.warning}\n", "utf-8")
    return out


def _inference(bundle: Bundle) -> dict[str, object]:
    samples = bundle.sampling["mode"] == "sample"  # the mean has neither seeds nor steps
    return {
        "imports": ["$import DEMISTCore", "$import DEMISTCore.cli"],
        "bundle_root": ".",
        "model": f"$@bundle_root + '/models/{bundle.name}'",
        "t1w": "t1w.nii.gz",
        "flair": "flair.nii.gz",
        "out": "psr.nii.gz",
        "mode": bundle.sampling["mode"],
        "seeds": bundle.sampling["seeds"] if samples else None,
        "steps": bundle.sampling["steps"] if samples else None,
        "device": "auto",
        "skull_strip": "auto",
        "brain_mask": None,
        "overwrite": True,
        "run": [
            "$DEMISTCore.cli.with_bar(DEMISTCore.synthesize, @t1w, @flair, out=@out, bundle=@model, mode=@mode, "
            "seeds=@seeds, steps=@steps, device=@device, skull_strip=@skull_strip, brain_mask=@brain_mask, "
            "overwrite=@overwrite)"
        ],
    }


def _metadata(bundle: Bundle) -> dict[str, object]:
    def image(channels: dict[str, str], unit: str) -> dict[str, object]:
        return {
            "type": "image",
            "format": "magnitude",
            "modality": "MR",
            "num_channels": len(channels),
            "dtype": "float32",
            "value_range": [],
            "is_patch_data": False,
            "channel_def": channels,
            "unit": unit,
        }

    return {
        "version": "1.0.0",
        "changelog": {"1.0.0": f"exported by DEMIST {__version__}"},
        "monai_version": "1.5.0",
        "required_packages_version": {"demist": __version__},
        "name": bundle.name,
        "task": "synthesis of pool size ratio (PSR) maps from T1w and FLAIR",
        "description": bundle.warning,
        "intended_use": "research only, not for clinical use",
        "hash": bundle.hash,
        "licence": bundle.licence,
        "network_data_format": {
            "inputs": {"image": image({"0": "T1w", "1": "FLAIR"}, "any")},
            "outputs": {"pred": image({"0": "PSR"}, "fraction")},
        },
        "card": f"models/{bundle.name}/{CARD_FILE}",
    }
