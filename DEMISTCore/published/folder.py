"""A MONAI bundle's folder: its configuration read, its weights found and loaded; and written again.

Precedence, for the noise schedule and everything else: what the folder's own ``inference.json`` says; then what the
model card says. The folder lies beside the weights and was run with them, the card was written about them.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BundleError
from . import keys
from .checkpoints import SUFFIXES, fill, read_checkpoint
from .configuration import inference_config, read_configuration, usual_conditions
from .ddim import BRATS, CARD, Scheduler
from .layouts import LAYOUTS, TITLES, nearest, shapes

if TYPE_CHECKING:
    from torch import nn

    from ..networks.brain_ldm import UNetConfig
    from ..networks.config import AutoencoderConfig

log = logging.getLogger(__name__)

INFERENCE = Path("configs", "inference.json")
#: What a download needs of a published repository.
PATTERNS = ("*.json", "*.md", "*.safetensors", "*.pt", "*.pth", "LICENSE")
#: File names (without suffix) under which networks are published, the usual ones first.
_STEMS = {
    "autoencoder": ("autoencoder", "model_autoencoder", "vae", "autoencoder_kl"),
    "unet": ("diffusion_model", "unet", "diffusion", "model"),
}


@dataclass(frozen=True)
class Published:
    """A latent diffusion model in the folder it was published in; networks are loaded when first asked for.

    Attributes:
        folder: where it lies.
        family: ``"brain_ldm"``, ``"brats"``, or ``"other"`` for a published model of other sizes.
        autoencoder_config, unet_config: shapes; None for a part that the folder does not describe.
        autoencoder_file, unet_file: weights; None for a part that is not there.
        scheduler: noise schedule and sampler settings.
        conditions: the order of the U-Net's four conditions; empty for an unconditional one.
        latent_shape: extents (x, y, z) of the latent that its configuration samples, if it says so.
        notes: what a person should know about how it was read.
    """

    folder: Path
    family: str
    autoencoder_config: AutoencoderConfig | None
    unet_config: UNetConfig | None
    autoencoder_file: Path | None
    unet_file: Path | None
    scheduler: Scheduler
    conditions: tuple[str, ...] = ()
    latent_shape: tuple[int, int, int] | None = None
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Name for people."""
        return TITLES.get(self.family, "a latent diffusion model")

    @cached_property
    def autoencoder(self) -> nn.Module:
        """The KL autoencoder: float32, frozen, on the CPU.

        Raises:
            BundleError: not there, or it does not fit.
        """
        return self._load("autoencoder", self.autoencoder_file, self.autoencoder_config)

    @cached_property
    def unet(self) -> nn.Module:
        """The diffusion U-Net: float32, frozen, on the CPU.

        Raises:
            BundleError: not there, or it does not fit.
        """
        return self._load("U-Net", self.unet_file, self.unet_config)

    def _load(self, what: str, file: Path | None, config: object) -> nn.Module:
        if file is None or config is None:
            hint = _STEMS["autoencoder" if what == "autoencoder" else "unet"]
            raise BundleError(
                f"{self.folder} holds no weights of the {what}; put them into its folder models as "
                f"{hint[0]}.safetensors (or .pt, .pth)."
            )
        return fill(config, read_checkpoint(file), file, f"the {what} that {self.folder.name} describes")


def is_published(folder: Path) -> bool:
    """True if a folder looks like a published model: a configuration of MONAI's, or its weights."""
    return (folder / INFERENCE).is_file() or any(_find(folder, part, None) for part in _STEMS)


def read_folder(folder: Path) -> Published:
    """Describe a published model's folder; weights are read when asked for.

    Without ``configs/inference.json`` the weights themselves tell which of the published networks they are, and the
    model card's schedule is used.

    Raises:
        BundleError: it is no such folder, or describes networks that are not known here.
    """
    if not folder.is_dir():
        raise BundleError(f"{folder} is not a folder; give that of the published model.")
    file = folder / INFERENCE
    if not file.is_file():
        return _without_configuration(folder)
    told = read_configuration(file)
    notes = []
    if told.scheduler is not None:
        schedule = told.scheduler
        if told.conditions and schedule.noise.to_dict() != CARD.noise.to_dict():
            notes.append(
                f"{file} names the noise schedule {schedule.describe()}, the model card {CARD.describe()}; "
                "the folder's own is used."
            )
    else:
        schedule = CARD if told.conditions else BRATS
        notes.append(f"{file} names no scheduler; {schedule.describe()} is used.")
    for note in notes:
        log.info("%s", note)
    return Published(
        folder,
        _family(told.autoencoder, told.unet),
        told.autoencoder,
        told.unet,
        _find(folder, "autoencoder", told.autoencoder_name),
        _find(folder, "unet", told.unet_name),
        schedule,
        told.conditions,
        told.latent_shape,
        tuple(notes),
    )


def write_folder(
    folder: Path,
    *,
    autoencoder: tuple[AutoencoderConfig, nn.Module],
    unet: tuple[UNetConfig, nn.Module],
    scheduler: Scheduler,
    conditions: tuple[str, ...] = (),
    latent_shape: tuple[int, int, int],
    title: str,
    names: str = "monai",
) -> None:
    """Write a MONAI bundle into an existing, empty folder: configurations and ``models/*.pt``.

    Args:
        names: names of the weights: ``"monai"`` (today's) or ``"generative"`` (GenerativeModels', for its classes).

    Raises:
        OSError: the folder cannot be written to.
    """
    import torch

    (folder / "configs").mkdir()
    (folder / "models").mkdir()
    rename = keys.published if names == "generative" else dict
    for name, (_, network) in (("autoencoder", autoencoder), ("diffusion_model", unet)):
        state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
        torch.save(rename(state), folder / "models" / f"{name}.pt")
    config = inference_config(autoencoder[0], unet[0], scheduler, conditions, latent_shape, old=names == "generative")
    (folder / INFERENCE).write_text(json.dumps(config, indent=4) + "\n", encoding="utf-8")
    metadata = {
        "version": "1.0.0",
        "changelog": {"1.0.0": "converted by DEMIST"},
        "monai_version": "1.4.0",
        "name": title,
        "task": "image synthesis",
        "description": title,
        "intended_use": "research only, not for clinical use",
        "network_data_format": {"inputs": {}, "outputs": {}},
    }
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata, indent=4) + "\n", encoding="utf-8")


def _family(autoencoder: object, unet: object) -> str:
    families = set()
    for part, config in (("autoencoder", autoencoder), ("unet", unet)):
        fits = [layout for layout in LAYOUTS.values() if layout.part == part and layout.config() == _plain(config)]
        if config is not None:
            families.add(fits[0].family if fits else "other")
    return families.pop() if len(families) == 1 else "other"


def _plain(config: Any) -> Any:
    # How attention is computed does not make another network.
    return replace(config, upcast_attention=True) if getattr(config, "cross_attention_dim", None) else config


def _find(folder: Path, part: str, named: str | None) -> Path | None:
    """The weights of a part: the named file, or one of the usual names; safetensors first."""
    stems = ([Path(named).stem] if named else []) + list(_STEMS[part])
    names = ([named] if named else []) + [stem + suffix for stem in stems for suffix in SUFFIXES]
    for root in (folder / "models", folder):
        for name in names:
            if (root / name).is_file():
                return root / name
    return None


def _without_configuration(folder: Path) -> Published:
    """The weights tell what they are."""
    from ..networks.brain_ldm import UNetConfig
    from ..networks.config import AutoencoderConfig

    files = {part: _find(folder, part, None) for part in _STEMS}
    if not any(files.values()):
        raise BundleError(
            f"{folder} is no published model: it has neither {INFERENCE.as_posix()} nor weights "
            f"({', '.join(f'{stems[0]}.safetensors' for stems in _STEMS.values())})."
        )
    found = {}
    for part, file in files.items():
        if file is None:
            continue
        layout, share = nearest(shapes(keys.current(read_checkpoint(file))), part)
        if share < 1:
            raise BundleError(
                f"{file} is none of the published networks (nearest: {layout.title}, {share:.0%} of whose weights "
                f"fit), and there is no {INFERENCE.as_posix()} to describe it; add that."
            )
        found[part] = layout
    families = {layout.family for layout in found.values()}
    if len(families) > 1:
        raise BundleError(f"{folder} mixes {' and '.join(layout.title for layout in found.values())}; keep one model.")
    family = families.pop()
    configs = [layout.config() for layout in found.values()]
    vae = next((config for config in configs if isinstance(config, AutoencoderConfig)), None)
    unet = next((config for config in configs if isinstance(config, UNetConfig)), None)
    schedule = BRATS if family == "brats" else CARD
    note = f"{folder} has no {INFERENCE.as_posix()}; the schedule {schedule.describe()} of the model card is used."
    log.info("%s", note)
    return Published(
        folder,
        family,
        vae,
        unet,
        files["autoencoder"],
        files["unet"],
        schedule,
        usual_conditions(unet),
        None,
        (note,),
    )
