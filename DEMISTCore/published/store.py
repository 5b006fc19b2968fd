"""Published models in our own form: safetensors under today's names, hashes, the U-Net as a delta over its autoencoder.

An ``autoencoder`` bundle holds the KL autoencoder and its shape. An ``ldm`` bundle holds the diffusion U-Net and the
scheduler, and names the autoencoder by name and hash; a base whose hash differs is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bundle import (
    CARD_FILE,
    DESCRIPTION_FILE,
    check_files,
    check_target,
    find_base,
    find_folder,
    header,
    read_description,
    write_bundle,
)
from ..errors import BundleError, InputError
from ..files import atomic_folder
from ..networks.limits import check_config
from .checkpoints import fill, read_checkpoint
from .ddim import Scheduler
from .folder import PATTERNS, Published, read_folder, write_folder
from .layouts import TITLES

if TYPE_CHECKING:
    from torch import nn

    from ..networks.brain_ldm import UNetConfig
    from ..networks.config import AutoencoderConfig

KINDS = ("autoencoder", "ldm")
WARNING = "Images from this model are synthetic: they show nobody, and are not for clinical use."


@dataclass(frozen=True)
class Stored:
    """A published model in our own form, hashes checked; networks are loaded when first asked for.

    It has what :class:`.folder.Published` has. An ``autoencoder`` bundle alone has no U-Net.
    """

    folder: Path
    info: dict[str, Any]
    base: Stored | None = None
    notes: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """SHA-256 over configuration, weights and the base's hash."""
        return self.info["hash"]

    @property
    def family(self) -> str:
        """``"brain_ldm"``, ``"brats"`` or ``"other"``."""
        return str(self.info["model"].get("family", "other"))

    @property
    def title(self) -> str:
        """Name for people."""
        return TITLES.get(self.family, "a latent diffusion model")

    @cached_property
    def autoencoder_config(self) -> AutoencoderConfig:
        """Shape of the KL autoencoder."""
        from ..networks.config import AutoencoderConfig

        if self.base is not None:
            return self.base.autoencoder_config
        return self._read("autoencoder", AutoencoderConfig.from_dict)

    @cached_property
    def unet_config(self) -> UNetConfig | None:
        """Shape of the diffusion U-Net."""
        from ..networks.brain_ldm import UNetConfig

        return None if self.base is None else self._read("unet", UNetConfig.from_dict)

    @cached_property
    def scheduler(self) -> Scheduler:
        """Noise schedule and sampler settings."""
        return self._read("scheduler", lambda settings: Scheduler(**settings))

    @property
    def conditions(self) -> tuple[str, ...]:
        """Order of the U-Net's conditions."""
        return tuple(self.info["model"].get("conditions") or ())

    @property
    def latent_shape(self) -> tuple[int, int, int] | None:
        """Extents of the latent that it was published to sample."""
        shape = self.info["model"].get("latent_shape")
        return tuple(shape) if shape else None

    @cached_property
    def autoencoder(self) -> nn.Module:
        """The KL autoencoder: float32, frozen, on the CPU."""
        if self.base is not None:
            return self.base.autoencoder
        return self._load("autoencoder", self.autoencoder_config)

    @cached_property
    def unet(self) -> nn.Module:
        """The diffusion U-Net: float32, frozen, on the CPU.

        Raises:
            BundleError: this is an autoencoder alone.
        """
        if self.base is None:
            raise BundleError(f"{self.folder} holds an autoencoder alone; give the bundle of the U-Net over it.")
        return self._load("unet", self.unet_config)

    @property
    def autoencoder_file(self) -> Path:
        """Weights of the autoencoder."""
        return (self.base or self).folder / "autoencoder.safetensors"

    @property
    def unet_file(self) -> Path | None:
        """Weights of the U-Net."""
        return None if self.base is None else self.folder / "unet.safetensors"

    def _load(self, part: str, config: object) -> nn.Module:
        file = self.folder / f"{part}.safetensors"
        return fill(config, read_checkpoint(file), file, "its own description")

    def _read(self, part: str, build: Callable[[dict[str, Any]], Any]) -> Any:
        try:
            built = build(dict(self.info["model"][part]))
            check_config(built)
            if part == "scheduler":
                _ = built.noise
            return built
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            file = self.folder / DESCRIPTION_FILE
            raise BundleError(f"{file} describes its {part} in a way this version does not understand.") from error


Model = Published | Stored


def open_model(source: str | Path) -> Model:
    """Find a published model in whatever form, and describe it; networks are loaded when asked for.

    Args:
        source: a folder (a MONAI bundle, plain weights, or ours), a bundle's name, or a Hugging Face id.

    Raises:
        BundleError: not found, damaged, or no published model.
    """
    folder = find_folder(source, PATTERNS)
    return read_stored(folder) if (folder / DESCRIPTION_FILE).is_file() else read_folder(folder)


def read_stored(folder: Path) -> Stored:
    """Read our own form and check every hash.

    Raises:
        BundleError: damaged, of another kind, or its base is missing or another one.
    """
    info = read_description(folder)
    if info["kind"] not in KINDS:
        raise BundleError(f"{folder} is a {info['kind']} bundle, not a published model; give one of these.")
    check_files(folder, info)
    if info["kind"] == "autoencoder":
        return Stored(folder, info)
    base = read_stored(find_base(folder, info["base"]))
    if base.info["kind"] != "autoencoder":
        raise BundleError(f"{base.folder} serves as the autoencoder of {folder}, but is an {base.info['kind']} bundle.")
    if base.hash != info["base"]["hash"]:
        raise BundleError(
            f"{folder} was made on {info['base']['name']} with hash {info['base']['hash'][:12]}, and {base.folder} has "
            f"{base.hash[:12]}; get the {info['base']['name']} that belongs to it."
        )
    return Stored(folder, info, base)


def save_model(
    folder: Path,
    model: Model,
    *,
    base: Path | None = None,
    storage: str = "fp32",
    licence: str = "Apache-2.0",
    overwrite: bool = False,
) -> Stored:
    """Save a model in our own form: the U-Net and the scheduler in ``folder``, a delta over its autoencoder.

    Args:
        folder: where to; its name is the bundle's.
        model: what to save.
        base: the autoencoder's bundle. By default the one the model came with; where there is none, one is written
            beside, as ``<folder>-vae``.
        storage: number format of the weights: ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        InputError: a folder is there or cannot be written to, or weights do not fit the number format.
        BundleError: the model or the base is not whole, or the base holds another autoencoder.
    """
    if model.unet_config is None:
        raise InputError(f"{model.folder} holds no U-Net; save its autoencoder with save_autoencoder.")
    check_target(folder, overwrite)
    if base is None and isinstance(model, Stored) and model.base is not None:
        under = model.base
    elif base is not None:
        under = read_stored(base)
        _same(under.autoencoder, model.autoencoder, under.folder)
    else:
        under = save_autoencoder(folder.with_name(folder.name + "-vae"), model, storage, licence, overwrite)
    content = {
        "family": model.family,
        "unet": model.unet_config.to_dict(),
        "scheduler": model.scheduler.to_dict(),
        "conditions": list(model.conditions),
        "latent_shape": list(model.latent_shape or ()) or None,
    }
    info = _description(folder.name, "ldm", content, licence)
    info["base"] = {"name": under.info["name"], "hash": under.hash, "kind": "autoencoder"}
    return Stored(folder, _write(folder, info, "unet", model.unet, storage), under)


def save_autoencoder(
    folder: Path, model: Model, storage: str = "fp32", licence: str = "Apache-2.0", overwrite: bool = False
) -> Stored:
    """Save a model's autoencoder as a bundle of its own; see :func:`save_model`."""
    if model.autoencoder_config is None:
        raise InputError(f"{model.folder} holds no autoencoder.")
    check_target(folder, overwrite)
    content = {"family": model.family, "autoencoder": model.autoencoder_config.to_dict()}
    info = _description(folder.name, "autoencoder", content, licence)
    return Stored(folder, _write(folder, info, "autoencoder", model.autoencoder, storage))


def export_model(folder: Path, model: Model, names: str = "monai") -> None:
    """Write a model as a MONAI bundle, whole or not at all.

    Args:
        names: ``"monai"`` (today's weight names) or ``"generative"`` (those of GenerativeModels).

    Raises:
        InputError: the folder is there already, or cannot be written to.
    """
    if model.unet_config is None or model.autoencoder_config is None:
        raise InputError(f"{model.folder} holds one network of two; a MONAI bundle needs both.")
    with atomic_folder(folder) as building:
        write_folder(
            building,
            autoencoder=(model.autoencoder_config, model.autoencoder),
            unet=(model.unet_config, model.unet),
            scheduler=model.scheduler,
            conditions=model.conditions,
            latent_shape=model.latent_shape or (20, 28, 20),
            title=model.title,
            names=names,
        )


def _description(name: str, kind: str, model: dict[str, Any], licence: str) -> dict[str, Any]:
    what = f"{TITLES.get(model['family'], 'A latent diffusion model')}, converted from its published form."
    own = {"model": model, "training": {}, "documents": [CARD_FILE]}
    return header(kind, name, licence=licence, simulated=False, warning=WARNING, description=what) | own


def _write(folder: Path, info: dict[str, Any], part: str, network: nn.Module, storage: str) -> dict[str, Any]:
    try:
        return write_bundle(folder, info, {part: network}, storage, None, {})
    except ValueError as error:
        raise InputError(f"{folder} cannot be written: {error}.") from error


def _same(a: nn.Module, b: nn.Module, folder: Path) -> None:
    import torch

    ours, theirs = a.state_dict(), b.state_dict()
    if ours.keys() != theirs.keys() or any(not torch.equal(ours[k].cpu(), theirs[k].cpu()) for k in ours):
        raise BundleError(f"{folder} holds another autoencoder than the model's; give the one it belongs to.")
