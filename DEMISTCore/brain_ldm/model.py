"""Brain LDM: from four numbers to a synthetic T1w brain."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..bundle import DESCRIPTION_FILE
from ..devices import pick_device
from ..diffusion import SeededNoise
from ..errors import BundleError, InputError
from ..published.ddim import Scheduler, ddim
from ..published.layouts import build_empty
from ..published.store import WARNING, Model, Stored, open_model, save_model
from ..volume import Volume
from ..volume.grid import triple
from .vae import VAE, check_extents, check_memory

#: Size it was trained at, voxels of 1 mm.
SHAPE = (160, 224, 160)
#: Where the middle of the volume lies, RAS mm: that of the MNI space it was trained in, so that brains fit templates.
CENTRE = (0.0, -17.5, 7.5)
MEANING = {
    "age": "0 youngest to 1 oldest of UK Biobank (about 44 to 82 years)",
    "sex": "0 female, 1 male",
    "ventricular_volume": "0 smallest to 1 largest ventricles, by UK Biobank percentiles",
    "brain_volume": "0 smallest to 1 largest brain for the head's size, by UK Biobank percentiles",
}
#: U-Net activations at once, in tensors of the first level's width (measured at (160, 224, 160): 32).
_ALIVE = 40


class BrainLDM:
    """Conditional generator of T1w brains; see :meth:`from_pretrained` and :meth:`sample`.

    Attributes:
        vae: the autoencoder, usable by itself.
        unet: the diffusion U-Net, eps(z (B, 3, x, y, z), t (B,), context (B, 1, 4)).
        scheduler: noise schedule and sampler settings.
        conditions: the order in which the U-Net takes the four conditions.
        source: the model on disk; its ``notes`` say how it was read.
    """

    def __init__(self, source: Model, device: str | torch.device = "cpu") -> None:
        self.source = source
        self.device = pick_device(device) if isinstance(device, str) else device
        self.scheduler: Scheduler = source.scheduler
        self.conditions = source.conditions
        self.unet: nn.Module = source.unet.to(self.device)
        self.vae = VAE(source.autoencoder.to(self.device))

    @classmethod
    def from_pretrained(
        cls, source: str | os.PathLike[str], *, vae: str | os.PathLike[str] | None = None, device: str = "auto"
    ) -> BrainLDM:
        """Load a model.

        Args:
            source: a folder (the published MONAI bundle, bare weights, or what :meth:`save_pretrained` wrote), or a
                Hugging Face id as ``"MONAI/brain_image_synthesis_latent_diffusion_model"``.
            vae: folder of the VAE, where ``source`` is published without one.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

        Raises:
            BundleError: not found, damaged, its VAE is missing or another one, or not a conditional model.
            InputError: the device does not exist, or there is not enough memory.
        """
        model = open_model(os.fspath(source))
        if vae is not None:
            model = _with_vae(model, open_model(os.fspath(vae)))
        if model.unet_config is None or len(model.conditions) != 4:
            raise BundleError(f"{model.folder} is {model.title} and takes no conditions; give a Brain LDM.")
        if model.autoencoder_config is None or model.autoencoder_file is None:
            raise BundleError(
                f"{model.folder} has no VAE (models/autoencoder.pt); put it there, or name its folder (vae=, --vae)."
            )
        if model.autoencoder_config.latent_channels != model.unet_config.out_channels:
            raise BundleError(
                f"{model.folder}: the VAE has {model.autoencoder_config.latent_channels} latent channels and the U-Net "
                f"{model.unet_config.out_channels}; they do not belong together."
            )
        chosen = pick_device(device)
        configs = (model.unet_config, model.autoencoder_config)
        # Twice while they are read: as the file has them, and as the networks hold them (measured: 1.9 times).
        weights = 2 * 4 * sum(p.numel() for config in configs for p in build_empty(config).parameters())
        check_memory(weights, chosen, f"the weights of {model.folder.name}")
        return cls(model, chosen)

    @torch.no_grad()
    def sample(
        self,
        *,
        age: float = 0.5,
        sex: float = 0.5,
        ventricular_volume: float = 0.5,
        brain_volume: float = 0.5,
        steps: int = 50,
        eta: float = 0.0,
        seed: int = 0,
        shape: tuple[int, int, int] = SHAPE,
        progress: Callable[[int, int], Any] | None = None,
    ) -> Volume:
        """Draw one brain.

        Args:
            age, sex, ventricular_volume, brain_volume: in [0, 1], see :data:`MEANING`; 0.5 is neutral.
            steps: of DDIM.
            eta: 0 deterministic, 1 as noisy as ancestral sampling.
            seed: the same on every device.
            shape: voxels of 1 mm, each a multiple of 8; the model knows (160, 224, 160).
            progress: called with (steps done, steps) after each; may raise to stop.

        Returns:
            T1w, float32, intensities around [0, 1], on a 1 mm grid that runs left, anterior, superior.

        Raises:
            InputError: a condition outside [0, 1], an impossible size or number of steps, or too little memory.
        """
        context = self.context(age=age, sex=sex, ventricular_volume=ventricular_volume, brain_volume=brain_volume)
        check_extents(tuple(int(n) for n in shape), self.vae.factor)
        shape = triple(shape)
        if not 0 <= eta <= 1:
            raise InputError(f"eta must be 0 to 1, not {eta:g}.")
        self.scheduler.timesteps(steps)
        latent = tuple(n // self.vae.factor for n in shape)
        # The U-Net halves its input; odd latents are sampled a little larger and cut.
        multiple = 2 ** (len(self.unet.block_out_channels) - 1)
        whole = tuple(math.ceil(n / multiple) * multiple for n in latent)
        # First the U-Net, then the decoder: never both at once.
        what = f"a volume of {' x '.join(map(str, shape))}"
        check_memory(self.memory(whole), self.device, what)
        check_memory(self.vae.decode_memory(latent), self.device, what)

        noise = SeededNoise([seed])
        z = noise((1, self.vae.latent_channels, *whole)).to(self.device)
        z = ddim(
            lambda z_t, t: self.unet(z_t, t, context),
            z,
            self.scheduler,
            steps,
            noise=noise,
            eta=eta,
            callback=None if progress is None else lambda done, total, _: progress(done, total),
        )
        starts = [(n - m) // 2 for n, m in zip(whole, latent)]
        z = z[(..., *(slice(a, a + m) for a, m in zip(starts, latent)))]
        image = self.vae.decode(z)[0, 0].numpy()
        return Volume(np.ascontiguousarray(image, np.float32), affine(shape))

    def context(self, **conditions: float) -> Tensor:
        """The four conditions by name as the U-Net takes them, (1, 1, 4), in its own order.

        Raises:
            InputError: one is missing or outside [0, 1].
        """
        for name, value in conditions.items():
            if not isinstance(value, Real) or not 0 <= value <= 1:  # NaN is not either
                raise InputError(f"{name} is {value!r}, and must be 0 to 1 ({MEANING.get(name, 'unknown')}).")
        missing = [name for name in self.conditions if name not in conditions]
        if missing:
            raise InputError(f"The condition {missing[0]} is missing; give {', '.join(self.conditions)}.")
        values = [float(conditions[name]) for name in self.conditions]
        return torch.tensor(values, device=self.device)[None, None]

    def memory(self, latent: tuple[int, ...]) -> int:
        """About how many bytes denoising latents of these extents (x, y, z) takes besides the weights."""
        return int(math.prod(latent) * 4 * self.unet.block_out_channels[0] * _ALIVE)

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        base: str | os.PathLike[str] | None = None,
        storage: str = "fp32",
        overwrite: bool = False,
    ) -> Path:
        """Save the U-Net and the scheduler, as a delta over the VAE, which is named by hash.

        Args:
            folder: where to.
            base: bundle of the VAE; by default the one this model came with, else it is written to ``<folder>-vae``.
            storage: ``fp32``, ``bf16`` or ``fp16``.
            overwrite: replace a bundle that is there.

        Raises:
            InputError: the folder exists or cannot be written to.
            BundleError: ``base`` holds another VAE.
        """
        under = None if base is None else Path(base)
        return save_model(Path(folder), self.source, base=under, storage=storage, overwrite=overwrite).folder

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What the sidecar of a sample says about the model."""
        told: dict[str, Any] = {
            "name": self.source.title,
            "folder": self.source.folder.name,
            "schedule": self.scheduler.to_dict(),
            "conditions": list(self.conditions),
        }
        if isinstance(self.source, Stored):
            return {**told, "hash": self.source.hash}
        from ..files import sha256

        files = [f for f in (self.source.unet_file, self.source.autoencoder_file) if f]
        return {**told, "sha256": {file.name: sha256(file) for file in files}}


def affine(shape: tuple[int, int, int]) -> np.ndarray:
    """Voxel index to RAS mm: 1 mm, axes left, anterior, superior as published, the middle at :data:`CENTRE`.

    (4, 4), for a volume of ``shape`` voxels.
    """
    matrix = np.diag([-1.0, 1.0, 1.0, 1.0])
    matrix[:3, 3] = np.array(CENTRE) - matrix[:3, :3] @ ((np.array(shape) - 1) / 2)
    return matrix


def _with_vae(model: Model, base: Model) -> Model:
    """The model over another folder's VAE."""
    from dataclasses import replace

    if isinstance(model, Stored):
        raise BundleError(f"{model.folder / DESCRIPTION_FILE} names its VAE by hash; put that bundle beside it.")
    return replace(model, autoencoder_config=base.autoencoder_config, autoencoder_file=base.autoencoder_file)


__all__ = ["CENTRE", "MEANING", "SHAPE", "WARNING", "BrainLDM", "affine"]
