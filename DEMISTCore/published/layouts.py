"""The published networks by name, and how near a set of weights comes to each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..networks.brain_ldm import UNetConfig
    from ..networks.config import AutoencoderConfig

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Layout:
    """A network as published.

    Attributes:
        key: short name, ``brain_ldm_unet``.
        title: name for people.
        part: ``"autoencoder"`` or ``"unet"``.
        family: the model it belongs to, ``"brain_ldm"`` or ``"brats"``.
        parameters: how many it has.
    """

    key: str
    title: str
    part: str
    family: str
    parameters: int

    def config(self) -> AutoencoderConfig | UNetConfig:
        """Its shape: an ``AutoencoderConfig`` or a ``UNetConfig``."""
        from ..networks.brain_ldm import BRAIN_LDM_UNET, BRAIN_LDM_VAE, UNetConfig
        from ..networks.config import PRESETS

        brats = PRESETS["brats"]
        configs: dict[str, AutoencoderConfig | UNetConfig] = {
            "brain_ldm_autoencoder": BRAIN_LDM_VAE,
            "brain_ldm_unet": BRAIN_LDM_UNET,
            "brats_autoencoder": brats.psr,
            "brats_unet": UNetConfig.of_backbone(brats.backbone),
        }
        return configs[self.key]

    def build(self) -> nn.Module:
        """The network on the meta device: names and shapes, no memory."""
        return build_empty(self.config())


LAYOUTS = {
    layout.key: layout
    for layout in (
        Layout("brain_ldm_autoencoder", "the Brain LDM autoencoder", "autoencoder", "brain_ldm", 13_766_248),
        Layout("brain_ldm_unet", "the Brain LDM U-Net", "unet", "brain_ldm", 553_168_899),
        Layout("brats_autoencoder", "the BraTS autoencoder", "autoencoder", "brats", 21_000_353),
        Layout("brats_unet", "the BraTS U-Net", "unet", "brats", 189_325_576),
    )
}
TITLES = {"brain_ldm": "Brain LDM", "brats": "BraTS latent diffusion"}


def build_empty(config: object) -> nn.Module:
    """The network of an ``AutoencoderConfig`` or a ``UNetConfig`` on the meta device, in evaluation mode."""
    from ..networks.autoencoder import build_autoencoder
    from ..networks.brain_ldm import UNetConfig, build_unet
    from ..weights import shapes_only

    build: Callable[..., nn.Module] = build_unet if isinstance(config, UNetConfig) else build_autoencoder
    with shapes_only():
        return build(config).eval()


def shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    """Name to shape."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


@cache
def known_shapes(key: str) -> Shapes:
    """Names and shapes of a known layout, in today's names."""
    return shapes(LAYOUTS[key].build().state_dict())


def nearest(found: Shapes, part: str | None = None) -> tuple[Layout, float]:
    """The known layout that shares most weights with these (in today's names), and the share that agrees, 0 to 1.

    Agreement is that of names and shapes: common ones over all.
    """
    best = max(
        (layout for layout in LAYOUTS.values() if part in (None, layout.part)),
        key=lambda layout: _agreement(found, known_shapes(layout.key)),
    )
    return best, _agreement(found, known_shapes(best.key))


def _agreement(a: Shapes, b: Shapes) -> float:
    return len(a.items() & b.items()) / max(len(a.items() | b.items()), 1)
