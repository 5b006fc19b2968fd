"""Starting DEMIST's networks from published ones: autoencoders of another number of channels, the frozen backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import BundleError
from ..weights import misfits
from .store import Model

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..networks.config import BackboneConfig

_FIRST, _LAST = "encoder.blocks.0.conv", "decoder.blocks.{last}.conv"


def autoencoder_weights(model: Model, network: nn.Module) -> dict[str, Tensor]:
    """Weights of a published autoencoder for ``network``, which may see and make more image channels.

    The published autoencoders see one contrast. For n channels, the first layer's kernel is shared out, 1/n of it to
    each, so that the same image in all channels gives the published latent exactly, and different ones the latent of
    their mean to first order. The last layer is repeated: every channel starts as the published reconstruction.

    Args:
        model: the published model.
        network: built by :func:`.networks.autoencoder.build_autoencoder`.

    Raises:
        BundleError: the published one is of another architecture.
    """
    given = {name: tensor.clone() for name, tensor in model.autoencoder.state_dict().items()}
    wanted = network.state_dict()
    last = max(int(name.split(".")[2]) for name in given if name.startswith("decoder.blocks."))
    _widen(given, wanted, f"{_FIRST}.weight", 1, shared=True)
    _widen(given, wanted, f"{_LAST.format(last=last)}.weight", 0, shared=False)
    _widen(given, wanted, f"{_LAST.format(last=last)}.bias", 0, shared=False)
    if wrong := misfits(wanted, given):
        raise BundleError(
            f"The autoencoder in {model.folder} does not fit this model ({wrong[0]} and {len(wrong) - 1} more); train "
            "with the configuration of its kind: --config brats, or --config brain_ldm."
        )
    return given


def _widen(given: dict[str, Tensor], wanted: Mapping[str, Tensor], name: str, axis: int, shared: bool) -> None:
    """Repeat one channel along ``axis`` as often as is wanted; ``shared``: divided by that number."""
    if name not in given or name not in wanted or given[name].shape[axis] != 1:
        return
    n = wanted[name].shape[axis]
    repeated = given[name].repeat_interleave(n, axis)
    given[name] = repeated / n if shared else repeated


def backbone_config(model: Model) -> BackboneConfig:
    """The shape of a published U-Net, as DEMIST's configuration has it.

    Raises:
        BundleError: the model has no U-Net.
    """
    from ..networks.config import BackboneConfig

    cfg = model.unet_config
    if cfg is None:
        raise BundleError(f"{model.folder} holds no diffusion U-Net; give a published model that has one.")
    concatenated = cfg.in_channels - cfg.out_channels
    return BackboneConfig(
        cfg.out_channels,
        cfg.channels,
        cfg.attention_levels,
        cfg.head_channels,
        cfg.num_res_blocks,
        cfg.norm_groups,
        cfg.norm_eps,
        cfg.include_fc,
        cfg.cross_attention_dim,
        model.scheduler.prediction,
        resblock_updown=cfg.resblock_updown,
        upcast_attention=cfg.upcast_attention,
        context_channels=concatenated,
    )
