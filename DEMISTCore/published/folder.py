"""A MONAI bundle's folder: ``configs/inference.json`` read as data, weights found and loaded; and written again.

Expressions in the configuration (``$...``) are never evaluated: of those that matter (file names, the order of the
conditions) the words in them are read, and the rest is known.

Precedence, for the noise schedule and everything else: what the folder's own ``inference.json`` says; then what the
model card says. The folder lies beside the weights and was run with them, the card was written about them.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BundleError
from . import keys
from .checkpoints import SUFFIXES, fill, read_checkpoint
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
#: Words that published configurations use for the four conditions.
_WORDS = {
    "sex": ("gender", "sex"),
    "age": ("age",),
    "ventricular_volume": ("ventricular_vol", "ventricular_volume", "ventricular", "vcsf"),
    "brain_volume": ("brain_vol", "brain_volume", "brain"),
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
    config = _read_json(file)
    nets = {
        part: _resolved(_one(config, target, file), config, file)
        for part, target in (("autoencoder", "AutoencoderKL"), ("unet", "DiffusionModelUNet"))
    }
    if not any(nets.values()):
        raise BundleError(f"{file} describes no latent diffusion model (AutoencoderKL, DiffusionModelUNet).")
    autoencoder = _autoencoder_config(nets["autoencoder"], file) if nets["autoencoder"] else None
    unet = _unet_config(nets["unet"], file) if nets["unet"] else None
    conditions = _conditions(config, unet, file)
    family, notes = _family(autoencoder, unet), []
    scheduler = _one(config, "Scheduler", file)
    if scheduler:
        schedule = Scheduler.from_config(_resolved(scheduler, config, file), file)
        if conditions and schedule.noise.to_dict() != CARD.noise.to_dict():
            notes.append(
                f"{file} names the noise schedule {schedule.describe()}, the model card {CARD.describe()}; "
                "the folder's own is used."
            )
    else:
        schedule = CARD if conditions else BRATS
        notes.append(f"{file} names no scheduler; {schedule.describe()} is used.")
    for note in notes:
        log.info("%s", note)
    return Published(
        folder, family, autoencoder, unet,
        _find(folder, "autoencoder", _named(config, ("load_autoencoder_path", "autoencoder_path"))),
        _find(folder, "unet", _named(config, ("load_diffusion_path", "load_unet_path", "diffusion_path", "ckpt_path"))),
        schedule, conditions, _latent_shape(config), tuple(notes),
    )  # fmt: skip


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
        "version": "1.0.0", "changelog": {"1.0.0": "converted by DEMIST"}, "monai_version": "1.4.0", "name": title,
        "task": "image synthesis", "description": title, "intended_use": "research only, not for clinical use",
        "network_data_format": {"inputs": {}, "outputs": {}},
    }  # fmt: skip
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata, indent=4) + "\n", encoding="utf-8")


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
        "_target_": f"{base}.AutoencoderKL", "spatial_dims": 3, "in_channels": autoencoder.in_channels,
        "out_channels": autoencoder.out_channels, "latent_channels": autoencoder.latent_channels,
        width: list(autoencoder.channels), "num_res_blocks": autoencoder.num_res_blocks,
        "norm_num_groups": autoencoder.norm_groups, "norm_eps": autoencoder.norm_eps, "attention_levels": levels,
        "with_encoder_nonlocal_attn": False, "with_decoder_nonlocal_attn": False,
    }  # fmt: skip
    diffusion_def = {
        "_target_": f"{base}.DiffusionModelUNet", "spatial_dims": 3, "in_channels": unet.in_channels,
        "out_channels": unet.out_channels, width: list(unet.channels), "num_res_blocks": unet.num_res_blocks,
        "attention_levels": list(unet.attention_levels), "norm_num_groups": unet.norm_groups,
        "norm_eps": unet.norm_eps, "resblock_updown": unet.resblock_updown,
        "num_head_channels": list(unet.head_channels), "with_conditioning": unet.cross_attention_dim is not None,
        "transformer_num_layers": unet.transformer_layers, "cross_attention_dim": unet.cross_attention_dim,
        "upcast_attention": unet.upcast_attention,
    }  # fmt: skip
    if not old:
        autoencoder_def["include_fc"] = False
        diffusion_def |= {"include_fc": unet.include_fc, "use_combined_linear": False}
    schedule = scheduler.to_config()
    if old:
        schedule["_target_"] = "generative.networks.schedulers.DDIMScheduler"
    shape = [1, autoencoder.latent_channels, *latent_shape]
    config: dict[str, Any] = {
        "imports": ["$import torch", "$from pathlib import Path"],
        "bundle_root": ".", "model_dir": "$@bundle_root + '/models'", "output_dir": "$@bundle_root + '/output'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    }  # fmt: skip
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
        "inferer": {"_target_": "monai.inferers.DiffusionInferer", "scheduler": "@scheduler",
                    "_requires_": "@set_timesteps"},
    }  # fmt: skip
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
        "saver": {"_target_": "monai.transforms.SaveImage", "output_dir": "@output_dir", "output_postfix": "sample",
                  "separate_folder": False},
        "run": ["$@saver(@image[0])"],
    }  # fmt: skip
    return config


# Reading -------------------------------------------------------------------------------------------------------------


def _read_json(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{file} is not readable JSON; get the model again.") from error
    if not isinstance(config, dict):
        raise BundleError(f"{file} is not a MONAI configuration; get the model again.")
    return config


def _one(config: Mapping[str, Any], target: str, file: Path) -> dict[str, Any] | None:
    """The entry whose class ends with ``target``."""
    found = [
        value for value in config.values()
        if isinstance(value, Mapping) and str(value.get("_target_", "")).rpartition(".")[2].endswith(target)
    ]  # fmt: skip
    if len(found) > 1:
        raise BundleError(f"{file} describes {len(found)} networks of class {target}; leave one.")
    return dict(found[0]) if found else None


def _resolved(entry: dict[str, Any] | None, config: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """References to other entries (``"@latent_channels"``) replaced by what they say."""

    def value(x: Any, depth: int = 0) -> Any:
        if isinstance(x, str) and re.fullmatch(r"@\w+", x):
            if x[1:] not in config or depth > 8:
                raise BundleError(f"{file} refers to {x}, which is not there; get the model again.")
            return value(config[x[1:]], depth + 1)
        return [value(item, depth) for item in x] if isinstance(x, list) else x

    return {k: v if k == "_requires_" else value(v) for k, v in (entry or {}).items()}


def _autoencoder_config(entry: Mapping[str, Any], file: Path) -> AutoencoderConfig:
    from ..networks.config import AutoencoderConfig

    attends = [*entry.get("attention_levels", (True,)), entry.get("with_encoder_nonlocal_attn", True),
               entry.get("with_decoder_nonlocal_attn", True)]  # fmt: skip
    if any(attends):
        raise BundleError(f"{file} describes an autoencoder with attention, which is not known here.")
    _check_dimensions(entry, file)
    try:
        return AutoencoderConfig(
            int(entry["in_channels"]), int(entry["out_channels"]), int(entry["latent_channels"]), _channels(entry),
            _uniform(entry.get("num_res_blocks", 2)), norm="group", norm_groups=int(entry.get("norm_num_groups", 32)),
            norm_eps=float(entry.get("norm_eps", 1e-6)),
        )  # fmt: skip
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
            int(entry["in_channels"]), int(entry["out_channels"]), channels,
            tuple(bool(on) for on in entry["attention_levels"]),
            tuple(int(n) for n in heads) if isinstance(heads, list) else (int(heads),) * len(channels),
            _uniform(entry.get("num_res_blocks", 2)), int(entry.get("norm_num_groups", 32)),
            float(entry.get("norm_eps", 1e-6)), bool(entry.get("resblock_updown", False)),
            int(entry.get("transformer_num_layers", 1)), None if context is None else int(context),
            bool(entry.get("upcast_attention", False)),
            # The old classes' spatial attention had no projection in effect, their cross-attention always one.
            include_fc=context is not None if old else bool(entry.get("include_fc", True)),
        )  # fmt: skip
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


def _family(autoencoder: object, unet: object) -> str:
    families = set()
    for part, config in (("autoencoder", autoencoder), ("unet", unet)):
        fits = [layout for layout in LAYOUTS.values() if layout.part == part and layout.config() == _plain(config)]
        if config is not None:
            families.add(fits[0].family if fits else "other")
    return families.pop() if len(families) == 1 else "other"


def _plain(config: Any) -> Any:
    # How attention is computed does not make another network.
    from dataclasses import replace

    return replace(config, upcast_attention=True) if getattr(config, "cross_attention_dim", None) else config


def _conditions(config: Mapping[str, Any], unet: UNetConfig | None, file: Path) -> tuple[str, ...]:
    """The order of the four conditions on the wire."""
    from ..networks.brain_ldm import CONDITIONS

    if unet is None or unet.cross_attention_dim is None:
        return ()
    match = re.search(r"\[\[(.*?)\]\]", str(config.get("conditioning", "")))
    if not match:
        return CONDITIONS[: unet.cross_attention_dim]
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
        return tuple(listed[1:])  # type: ignore[return-value]
    match = re.search(r"randn\(\(?\[?\s*\d+,\s*\d+,\s*(\d+),\s*(\d+),\s*(\d+)", str(config.get("noise", "")))
    return tuple(int(n) for n in match.groups()) if match else None  # type: ignore[return-value]


def _named(config: Mapping[str, Any], entries: tuple[str, ...]) -> str | None:
    """The file name that an entry's expression ends with."""
    for entry in entries:
        match = re.search(r"([\w.-]+\.(?:pth|pt|safetensors|ckpt|bin))\b", str(config.get(entry, "")))
        if match:
            return match.group(1)
    return None


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
    configs = {part: layout.config() for part, layout in found.items()}
    schedule = BRATS if family == "brats" else CARD
    note = f"{folder} has no {INFERENCE.as_posix()}; the schedule {schedule.describe()} of the model card is used."
    log.info("%s", note)
    return Published(
        folder, family, configs.get("autoencoder"), configs.get("unet"), files["autoencoder"], files["unet"], schedule,
        _conditions({}, configs.get("unet"), folder), None, (note,),
    )  # fmt: skip
