"""The VAE of a published model, usable by itself: encode, decode, reconstruct."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ..decoding import decode, decode_memory, encode_memory, plan_tiles, reach
from ..devices import available_memory
from ..errors import InputError
from ..networks.autoencoder import sample_latent
from ..volume import Volume

#: Share of the free memory that decoding may take. More than elsewhere (0.7): these networks normalize over the whole
#: volume, and tiles have to be run once for each of their normalizations, which takes five to ten times as long.
MEMORY_SHARE = 0.9


class VAE:
    """A KL autoencoder over images in [0, 1].

    Args:
        network: ``.encode(x) -> (mu, sigma)`` and ``.decode(z)``, see :func:`.networks.autoencoder.build_autoencoder`.

    Attributes:
        network: the torch module, frozen.
        factor: voxels per latent voxel along each axis.
        latent_channels: channels of the latent.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.factor = int(network.factor)
        self.latent_channels = int(network.quant_conv_mu.conv.in_channels)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return next(self.network.parameters()).device

    @torch.no_grad()
    def encode(self, image: Volume | Tensor, *, sample: bool = False, seed: int = 0) -> Tensor:
        """Image (B, C, X, Y, Z) or a volume, intensities in [0, 1], to latents (B, L, X/f, Y/f, Z/f) on the CPU.

        Args:
            sample: draw from the posterior instead of taking its mean.
            seed: of that draw.

        Raises:
            InputError: an extent is no multiple of ``factor``, or there is not enough memory.
        """
        x = (
            torch.from_numpy(np.ascontiguousarray(image.array, np.float32))[None, None]
            if isinstance(image, Volume)
            else image.float()
        )
        check_extents(tuple(x.shape[2:]), self.factor)
        check_memory(encode_memory(self.network, tuple(x.shape[2:]), torch.float32), self.device, "encoding this image")
        x = x.contiguous(memory_format=torch.channels_last_3d).to(self.device)
        mu, sigma = self.network.encode(x)
        return (sample_latent(mu, sigma, torch.Generator().manual_seed(seed)) if sample else mu).cpu()

    @torch.no_grad()
    def decode(self, z: Tensor, progress: Callable[[float], None] | None = None) -> Tensor:
        """Latents (B, L, x, y, z) to images (B, C, X, Y, Z), float32 on the CPU; in tiles where memory is short."""
        memory = int(MEMORY_SHARE * available_memory(self.device))
        return decode(self.network, z.float().to(self.device), memory=memory, progress=progress)

    def decode_memory(self, latent: tuple[int, ...]) -> int:
        """About how many bytes decoding latents of these extents (x, y, z) takes: whole, or in tiles if it must be."""
        share = MEMORY_SHARE * available_memory(self.device)

        def needed(size: tuple[int, ...]) -> int:
            return decode_memory(self.network, size, torch.float32)

        tiles = plan_tiles(latent, reach(self.network), lambda size: needed(size) <= share)
        return max(needed(tuple(side.stop - side.start for side in tile)) for _, tile in tiles)

    def reconstruct(self, volume: Volume) -> Volume:
        """A volume through encoder and decoder, on its own grid; any size, zeros are put around it for the way.

        Raises:
            InputError: there is not enough memory.
        """
        missing = [-n % self.factor for n in volume.shape]
        pads = [(m // 2, m - m // 2) for m in missing]
        padded = np.pad(np.asarray(volume.array, np.float32), pads)
        image = self.decode(self.encode(torch.from_numpy(padded)[None, None]))[0, 0].numpy()
        inside = tuple(slice(a, a + n) for (a, _), n in zip(pads, volume.shape))
        return volume.with_array(np.ascontiguousarray(image[inside]))


def check_extents(shape: tuple[int, ...], factor: int) -> None:
    """Refuse extents that do not divide.

    Raises:
        InputError: not three, not positive, or not multiples of ``factor``.
    """
    if len(shape) != 3 or any(n <= 0 or n % factor for n in shape):
        given = " x ".join(map(str, shape))
        fitting = " x ".join(str(max(factor, round(n / factor) * factor)) for n in shape)
        raise InputError(
            f"A size of {given} voxels cannot be made: each must be a multiple of {factor}; try {fitting}."
        )


def check_memory(needed: int, device: torch.device | None, what: str) -> None:
    """Refuse before starting what would not fit.

    Raises:
        InputError: fewer than ``needed`` bytes are free.
    """
    free = available_memory(device)
    if needed > free:
        raise InputError(
            f"Not enough memory for {what}: about {needed / 2**30:.1f} GiB are needed and {free / 2**30:.1f} GiB are "
            "free; close other programs, choose a smaller size, or use another device."
        )
