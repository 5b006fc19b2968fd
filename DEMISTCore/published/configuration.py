"""``configs/inference.json`` of a MONAI bundle: read as data, and written.

Expressions in the configuration (``$...``) are never evaluated: of those that matter (file names, the order of the
conditions) the words in them are read, and the rest is known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BundleError
from ..networks.limits import check_config
from ..schema import read_json
from .ddim import Scheduler

if TYPE_CHECKING:
    from ..networks.brain_ldm import UNetConfig
    from ..networks.config import AutoencoderConfig

#: Words that published configurations use for the four conditions.
_WORDS = {
    "sex": ("gender", "sex"),
    "age": ("age",),
    "ventricular_volume": ("ventricular_vol", "ventricular_volume", "ventricular", "vcsf"),
    "brain_volume": ("brain_vol", "brain_volume", "brain"),
}


@dataclass(frozen=True)
class Configuration:
    """What a configuration says of a latent diffusion model.

    Attributes:
        autoencoder, unet: shapes; None for a network that it does not describe.
        scheduler: noise schedule and sampler settings; None if it names none.
        conditions: the order of the U-Net's conditions; empty for an unconditional one.
        latent_shape: extents (x, y, z) of the latent that it samples, if it says so.
        autoencoder_name, unet_name: file names of the weights, if it names them.
    """

    autoencoder: AutoencoderConfig | None
    unet: UNetConfig | None
    scheduler: Scheduler | None
    conditions: tuple[str, ...]
    latent_shape: tuple[int, int, int] | None
    autoencoder_name: str | None
    unet_name: str | None


def read_configuration(file: Path) -> Configuration:
    """Read ``inference.json``.

    Raises:
        BundleError: it is no such file, or describes networks that are not known here.
    """
    config = _read_json(file)
    try:
        found = _read(config, file)
        for network in (found.autoencoder, found.unet, found.scheduler):
            if network is not None:
                check_config(network)
    except BundleError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise BundleError(f"{file} cannot be read ({' '.join(str(error).split())[:120]}); get it again.") from error
    return found


def _read(config: dict[str, Any], file: Path) -> Configuration:
    nets = {
        part: _resolved(_one(config, target, file), config, file)
        for part, target in (("autoencoder", "AutoencoderKL"), ("unet", "DiffusionModelUNet"))
    }
    if not any(nets.values()):
        raise BundleError(f"{file} describes no latent diffusion model (AutoencoderKL, DiffusionModelUNet).")
    autoencoder = _autoencoder_config(nets["autoencoder"], file) if nets["autoencoder"] else None
    unet = _unet_config(nets["unet"], file) if nets["unet"] else None
    conditions = _conditions(config, unet, file)
    scheduler = _one(config, "Scheduler", file)
    return Configuration(
        autoencoder,
        unet,
        Scheduler.from_config(_resolved(scheduler, config, file), file) if scheduler else None,
        conditions,
        _latent_shape(config),
        _named(config, ("load_autoencoder_path", "autoencoder_path")),
        _named(config, ("load_diffusion_path", "load_unet_path", "diffusion_path", "ckpt_path")),
    )


def usual_conditions(unet: UNetConfig | None) -> tuple[str, ...]:
    """The order of the conditions where nothing is said of it; empty for an unconditional U-Net."""
    from ..networks.brain_ldm import CONDITIONS

    return () if unet is None or unet.cross_attention_dim is None else CONDITIONS[: unet.cross_attention_dim]


def inference_config(
    autoencoder: AutoencoderConfig,
    unet: UNetConfig,
    scheduler: Scheduler,
    conditions: tuple[str, ...],
    latent_shape: tuple[int, int, int],
    old: bool = False,
) -> dict[str, Any]:
    """``inference.json``: networks, scheduler, conditions and a sampling loop of MONAI's own.

    ``python -m monai.bundle run --config_file configs/inference.json --bundle_root .`` samples with it.
    """
    width = "num_channels" if old else "channels"
    base = "generative.networks.nets" if old else "monai.networks.nets"
    levels = [False] * len(autoencoder.channels)
    autoencoder_def = {
        "_target_": f"{base}.AutoencoderKL",
        "spatial_dims": 3,
        "in_channels": autoencoder.in_channels,
        "out_channels": autoencoder.out_channels,
        "latent_channels": autoencoder.latent_channels,
        width: list(autoencoder.channels),
        "num_res_blocks": autoencoder.num_res_blocks,
        "norm_num_groups": autoencoder.norm_groups,
        "norm_eps": autoencoder.norm_eps,
        "attention_levels": levels,
        "with_encoder_nonlocal_attn": False,
        "with_decoder_nonlocal_attn": False,
    }
    diffusion_def = {
        "_target_": f"{base}.DiffusionModelUNet",
        "spatial_dims": 3,
        "in_channels": unet.in_channels,
        "out_channels": unet.out_channels,
        width: list(unet.channels),
        "num_res_blocks": unet.num_res_blocks,
        "attention_levels": list(unet.attention_levels),
        "norm_num_groups": unet.norm_groups,
        "norm_eps": unet.norm_eps,
        "resblock_updown": unet.resblock_updown,
        "num_head_channels": list(unet.head_channels),
        "with_conditioning": unet.cross_attention_dim is not None,
        "transformer_num_layers": unet.transformer_layers,
        "cross_attention_dim": unet.cross_attention_dim,
        "upcast_attention": unet.upcast_attention,
    }
    if not old:
        autoencoder_def["include_fc"] = False
        diffusion_def |= {"include_fc": unet.include_fc, "use_combined_linear": False}
    schedule = scheduler.to_config()
    if old:
        schedule["_target_"] = "generative.networks.schedulers.DDIMScheduler"
    shape = [1, autoencoder.latent_channels, *latent_shape]
    config: dict[str, Any] = {
        "imports": ["$import torch", "$from pathlib import Path"],
        "bundle_root": ".",
        "model_dir": "$@bundle_root + '/models'",
        "output_dir": "$@bundle_root + '/output'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    }
    if conditions:
        words = {name: _WORDS[name][0] for name in conditions}
        config |= {words[name]: 0.5 for name in conditions}
        listed = ", ".join(f"@{words[name]}" for name in conditions)
        config["conditioning"] = f"$torch.tensor([[{listed}]]).to(@device).unsqueeze(1)"
    tensors = "weights_only=True, map_location='cpu'"
    config |= {
        "autoencoder_def": autoencoder_def,
        "load_autoencoder_path": "$@model_dir + '/autoencoder.pt'",
        "load_autoencoder": f"$@autoencoder_def.load_state_dict(torch.load(@load_autoencoder_path, {tensors}))",
        "autoencoder": "$@autoencoder_def.to(@device)",
        "diffusion_def": diffusion_def,
        "load_diffusion_path": "$@model_dir + '/diffusion_model.pt'",
        "load_diffusion": f"$@diffusion_def.load_state_dict(torch.load(@load_diffusion_path, {tensors}))",
        "diffusion": "$@diffusion_def.to(@device)",
        "scheduler": {**schedule, "_requires_": ["@load_diffusion", "@load_autoencoder"]},
        "steps": 50,
        "noise": f"$torch.randn({tuple(shape)}).to(@device)",
        "set_timesteps": "$@scheduler.set_timesteps(num_inference_steps=@steps)",
        "inferer": {
            "_target_": "monai.inferers.DiffusionInferer",
            "scheduler": "@scheduler",
            "_requires_": "@set_timesteps",
        },
    }
    call = "$@inferer.sample(@noise, @diffusion, @scheduler, verbose=False"
    if conditions and unet.in_channels > unet.out_channels:
        # The context goes in twice: MONAI's inferer concatenates or attends, so the channels are attached by hand.
        config["wide"] = "$lambda z: @conditioning.transpose(1, 2)[..., None, None].expand(-1, -1, *z.shape[2:])"
        config["both"] = (
            "$lambda x, timesteps, context=None: @diffusion(torch.cat([x, @wide(x)], 1), timesteps, context)"
        )
        call = call.replace("@diffusion", "@both") + ", conditioning=@conditioning"
    config |= {
        "latent": f"{call})",
        "image": "$torch.no_grad()(@autoencoder.decode_stage_2_outputs)(@latent)",
        "saver": {
            "_target_": "monai.transforms.SaveImage",
            "output_dir": "@output_dir",
            "output_postfix": "sample",
            "separate_folder": False,
        },
        "run": ["$@saver(@image[0])"],
    }
    return config


def _read_json(file: Path) -> dict[str, Any]:
    try:
        config = read_json(file, 1 << 20)
    except (OSError, ValueError) as error:
        raise BundleError(f"{file} is not readable JSON; get the model again.") from error
    if not isinstance(config, dict):
        raise BundleError(f"{file} is not a MONAI configuration; get the model again.")
    return config


def _one(config: Mapping[str, Any], target: str, file: Path) -> dict[str, Any] | None:
    """The entry whose class ends with ``target``."""
    found = [
        value
        for value in config.values()
        if isinstance(value, Mapping) and str(value.get("_target_", "")).rpartition(".")[2].endswith(target)
    ]
    if len(found) > 1:
        raise BundleError(f"{file} describes {len(found)} networks of class {target}; leave one.")
    return dict(found[0]) if found else None


def _resolved(entry: dict[str, Any] | None, config: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """References to other entries (``"@latent_channels"``) replaced by what they say."""

    left = 10_000  # references to lists of references: a few lines could stand for billions of values

    def value(x: Any, depth: int = 0) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise BundleError(f"{file} stands for too many values; get the model again.")
        if isinstance(x, str) and re.fullmatch(r"@\w+", x):
            if x[1:] not in config or depth > 8:
                raise BundleError(f"{file} refers to {x}, which is not there; get the model again.")
            return value(config[x[1:]], depth + 1)
        return [value(item, depth) for item in x] if isinstance(x, list) else x

    return {k: v if k == "_requires_" else value(v) for k, v in (entry or {}).items()}


def _autoencoder_config(entry: Mapping[str, Any], file: Path) -> AutoencoderConfig:
    from ..networks.config import AutoencoderConfig

    attends = [
        *entry.get("attention_levels", (True,)),
        entry.get("with_encoder_nonlocal_attn", True),
        entry.get("with_decoder_nonlocal_attn", True),
    ]
    if any(attends):
        raise BundleError(f"{file} describes an autoencoder with attention, which is not known here.")
    _check_dimensions(entry, file)
    try:
        return AutoencoderConfig(
            int(entry["in_channels"]),
            int(entry["out_channels"]),
            int(entry["latent_channels"]),
            _channels(entry),
            _uniform(entry.get("num_res_blocks", 2)),
            norm="group",
            norm_groups=int(entry.get("norm_num_groups", 32)),
            norm_eps=float(entry.get("norm_eps", 1e-6)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{file} describes an autoencoder that cannot be read ({error}); get it again.") from error


def _unet_config(entry: Mapping[str, Any], file: Path) -> UNetConfig:
    from ..networks.brain_ldm import UNetConfig

    _check_dimensions(entry, file)
    if entry.get("num_class_embeds") is not None or entry.get("use_combined_linear"):
        raise BundleError(f"{file} describes a U-Net with class labels or joined projections, not known here.")
    old = str(entry["_target_"]).startswith("generative.")
    context = entry.get("cross_attention_dim") if entry.get("with_conditioning") else None
    try:
        channels = _channels(entry)
        heads = entry.get("num_head_channels", 8)
        return UNetConfig(
            int(entry["in_channels"]),
            int(entry["out_channels"]),
            channels,
            tuple(bool(on) for on in entry["attention_levels"]),
            tuple(int(n) for n in heads) if isinstance(heads, list) else (int(heads),) * len(channels),
            _uniform(entry.get("num_res_blocks", 2)),
            int(entry.get("norm_num_groups", 32)),
            float(entry.get("norm_eps", 1e-6)),
            bool(entry.get("resblock_updown", False)),
            int(entry.get("transformer_num_layers", 1)),
            None if context is None else int(context),
            bool(entry.get("upcast_attention", False)),
            # The old classes' spatial attention had no projection in effect, their cross-attention always one.
            include_fc=context is not None if old else bool(entry.get("include_fc", True)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{file} describes a U-Net that cannot be read ({error}); get the model again.") from error


def _check_dimensions(entry: Mapping[str, Any], file: Path) -> None:
    if entry.get("spatial_dims", 3) != 3:
        raise BundleError(f"{file} describes a {entry['spatial_dims']}-D network; only 3-D ones are of use here.")


def _channels(entry: Mapping[str, Any]) -> tuple[int, ...]:
    # GenerativeModels says num_channels, MONAI channels.
    return tuple(int(n) for n in (entry["channels"] if "channels" in entry else entry["num_channels"]))


def _uniform(value: Any) -> int:
    values = set(value) if isinstance(value, list) else {value}
    if len(values) != 1:
        raise ValueError("num_res_blocks differs between levels")
    return int(values.pop())


def _conditions(config: Mapping[str, Any], unet: UNetConfig | None, file: Path) -> tuple[str, ...]:
    """The order of the four conditions on the wire."""
    match = re.search(r"\[\[(.*?)\]\]", str(config.get("conditioning", "")))
    if not match or unet is None or unet.cross_attention_dim is None:
        return usual_conditions(unet)
    names = {word: name for name, words in _WORDS.items() for word in words}
    listed = re.findall(r"@(\w+)", match.group(1))
    unknown = [word for word in listed if word not in names]
    if unknown or len(listed) != unet.cross_attention_dim or len(set(listed)) != len(listed):
        raise BundleError(
            f"{file} feeds the conditions {', '.join(listed) or 'none'}; {unet.cross_attention_dim} of "
            f"{', '.join(words[0] for words in _WORDS.values())} are known."
        )
    return tuple(names[word] for word in listed)


def _latent_shape(config: Mapping[str, Any]) -> tuple[int, int, int] | None:
    listed = config.get("latent_shape")
    if isinstance(listed, list) and len(listed) == 4 and all(isinstance(n, int) for n in listed):
        return listed[1], listed[2], listed[3]
    match = re.search(r"randn\(\(?\[?\s*\d+,\s*\d+,\s*(\d+),\s*(\d+),\s*(\d+)", str(config.get("noise", "")))
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def _named(config: Mapping[str, Any], entries: tuple[str, ...]) -> str | None:
    """The file name that an entry's expression ends with."""
    for entry in entries:
        match = re.search(r"([\w.-]+\.(?:pth|pt|safetensors|ckpt|bin))\b", str(config.get(entry, "")))
        if match:
            return match.group(1)
    return None
