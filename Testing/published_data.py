"""Published models in small: folders as they are published, with weights given by a formula."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import torch

from DEMISTCore.networks.brain_ldm import BRAIN_LDM_UNET, BRAIN_LDM_VAE, CONDITIONS, UNetConfig
from DEMISTCore.networks.config import PRESETS, AutoencoderConfig
from DEMISTCore.published import keys
from DEMISTCore.published.configuration import inference_config
from DEMISTCore.published.ddim import Scheduler
from DEMISTCore.published.layouts import build_empty

DATA = Path(__file__).parent / "data" / "published"

VAE = replace(BRAIN_LDM_VAE, channels=(8, 8, 16, 16), norm_groups=4)
UNET = replace(BRAIN_LDM_UNET, channels=(8, 16, 24), head_channels=(0, 16, 24), norm_groups=4)
BRATS_VAE = replace(PRESETS["brats"].psr, channels=(8, 16, 16), norm_groups=4)
BRATS_UNET = replace(
    UNetConfig.of_backbone(PRESETS["brats"].backbone), channels=(8, 8, 16), head_channels=(0, 4, 4), norm_groups=4
)
SMALL: dict[str, tuple[AutoencoderConfig, UNetConfig]] = {"brain_ldm": (VAE, UNET), "brats": (BRATS_VAE, BRATS_UNET)}
PUBLISHED_SCHEDULE = Scheduler("scaled_linear", 0.0015, 0.0205, spacing="leading")


def wave(shape: tuple[int, ...], k: float) -> torch.Tensor:
    """An input that any torch makes alike."""
    return torch.sin(k * torch.arange(math.prod(shape), dtype=torch.float64)).reshape(shape).float()


def weight(index: int, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A weight that any torch makes alike; ``index``: its place among the sorted published names."""
    n = math.prod(shape)
    fan = max(n // max(shape[0], 1), 1) if len(shape) > 1 else 1
    values = torch.sin(1.7 * torch.arange(n, dtype=torch.float64) + index).reshape(shape)
    values = values * (0.6 / math.sqrt(fan) if len(shape) > 1 else 0.1)
    return (values + 1 if len(shape) == 1 and name.endswith("weight") else values).float()


def published_state(config: AutoencoderConfig | UNetConfig) -> dict[str, torch.Tensor]:
    """A state dict as GenerativeModels' classes write it, all weights by the formula."""
    empty = keys.published(build_empty(config).state_dict())
    return {name: weight(i, name, tuple(empty[name].shape)) for i, name in enumerate(sorted(empty))}


def write_published(folder: Path, family: str = "brain_ldm", schedule: Scheduler = PUBLISHED_SCHEDULE) -> Path:
    """A MONAI bundle of GenerativeModels' time, small."""
    autoencoder, unet = SMALL[family]
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    conditions = CONDITIONS if family == "brain_ldm" else ()
    config = inference_config(autoencoder, unet, schedule, conditions, (4, 8, 4), old=True)
    config["load_autoencoder_path"] = "$@model_dir + '/autoencoder.pth'"
    config["load_diffusion_path"] = "$@model_dir + '/diffusion_model.pth'"
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    torch.save(published_state(autoencoder), folder / "models" / "autoencoder.pth")
    torch.save(published_state(unet), folder / "models" / "diffusion_model.pth")
    return folder


def edit_config(folder: Path, change) -> None:
    """Change ``inference.json``."""
    file = folder / "configs" / "inference.json"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))
