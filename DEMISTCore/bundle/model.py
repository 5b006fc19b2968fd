"""A model that makes maps: its settings, and its networks when they are first asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..errors import BundleError
from ..weights import not_finite, read_weights, shapes_only
from .description import CARD_FILE, Described

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from ..diffusion import NoiseSchedule
    from ..networks.config import ModelConfig
    from ..networks.demist import Demist
    from ..uncertainty import Calibration
    from ..uncertainty.typical import Typical

RESEARCH_WARNING = "Synthesized PSR is a research estimate, not a measurement, and not for clinical use."
SIMULATED_WARNING = f"Trained on simulated PSR, never on measured PSR. {RESEARCH_WARNING}"
#: What synthesis does unless told otherwise; a bundle's own "sampling" goes over it.
#: ``mode``: "mean", the posterior mean, where the bundle has a network for it, or "sample". ``start``: where on the
#: schedule sampling starts, 1 from pure noise, below 1 from the noised mean. ``detail``: how much of what sets a sample
#: apart from the mean is added to it.
SAMPLING: dict[str, Any] = {
    "mode": "sample",
    "sampler": "dpmpp_2m",
    "steps": 10,
    "seeds": 4,
    "eta": 0.0,
    "spacing": "karras",
    "start": 1.0,
    "detail": 1.0,
    "guidance": {},
}


@dataclass(eq=False)
class Bundle(Described):
    """A model on disk; networks are built when first asked for, in float32, frozen, on the CPU.

    Attributes:
        folder: where it lies.
        info: the content of ``bundle.json``.
        base: the foundation under a demist bundle; None for a foundation.
    """

    base: Bundle | None = None

    @property
    def simulated(self) -> bool:
        """True if it, or what it builds on, was trained on simulated PSR."""
        return super().simulated or bool(self.base and self.base.simulated)

    @property
    def warning(self) -> str:
        """The sentence that must be seen wherever a person sees this bundle's output."""
        return SIMULATED_WARNING if self.simulated else RESEARCH_WARNING

    @property
    def licence(self) -> str:
        """Licence of the weights (SPDX)."""
        return self.info["licence"]

    @property
    def card(self) -> str:
        """The model card, Markdown; empty if there is none."""
        path = self.folder / CARD_FILE
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    @property
    def sampling(self) -> dict[str, Any]:
        """Recommended sampler, steps, seeds, eta, spacing, guidance (weight by stream; empty: plain)."""
        return {**SAMPLING, **(self.base.info.get("sampling") or {} if self.base else {}), **self._get("sampling", {})}

    @cached_property
    def config(self) -> ModelConfig:
        """Shapes of all networks: the base's, with this bundle's streams."""
        from ..networks.limits import read_model

        model = dict(self._foundation.info["model"])
        model.update(self.info["model"])
        try:
            return read_model(model)
        except ValueError as error:
            raise self._error(f"has a model description that this version does not understand ({error})") from error

    @cached_property
    def schedule(self) -> NoiseSchedule:
        """Noise schedule the backbone was trained with."""
        from ..diffusion import NoiseSchedule

        if self._foundation.info.get("schedule") is None:
            raise self._error("has no noise schedule: it holds autoencoders only; train the backbone first")
        try:
            schedule = NoiseSchedule.from_dict(self._foundation.info["schedule"])
        except (TypeError, ValueError) as error:
            raise self._error(f"has a noise schedule that this version does not understand ({error})") from error
        if schedule.prediction != self.config.backbone.prediction:
            raise self._error("contradicts itself on what the backbone predicts (v or epsilon); save it again")
        return schedule

    @cached_property
    def calibration(self) -> Calibration | None:
        """The model's errors on subjects it was never trained on; None for a bundle that was not calibrated."""
        from ..uncertainty import Calibration

        return self._uncertainty("calibration", Calibration)

    @cached_property
    def typical(self) -> Typical | None:
        """What the training scans are like as a whole; None for a bundle that was not calibrated."""
        from ..uncertainty.typical import Typical

        return self._uncertainty("typical", Typical)

    def _uncertainty(self, part: str, kind: Any) -> Any:
        told = self.info.get("uncertainty")
        if told is None:
            return None
        try:
            return kind.from_dict(told[part])
        except (KeyError, TypeError, ValueError) as error:
            raise self._error(f"has an unusable {part} ({error}); calibrate it again") from error

    @property
    def latent_scale(self) -> float:
        """z = latent_scale * E_y(PSR / psr_range)."""
        return self._scale("latent_scale")

    @property
    def condition_scale(self) -> float:
        """c = condition_scale * E_x(T1w, FLAIR)."""
        return self._scale("condition_scale")

    @property
    def psr_range(self) -> float:
        """PSR (fraction) that the PSR autoencoder sees as 1."""
        return self._scale("psr_range")

    @property
    def spacing(self) -> float:
        """Voxel size of the model grid, mm."""
        found = self._get("spacing", self._foundation.info.get("spacing"))
        return 1.0 if found is None else float(found)

    @cached_property
    def autoencoder_psr(self) -> nn.Module:
        """E_y and its decoder."""
        from ..networks.autoencoder import build_autoencoder

        return self._foundation._load("autoencoder_psr", lambda: build_autoencoder(self.config.psr))

    @cached_property
    def autoencoder_condition(self) -> nn.Module:
        """E_x."""
        from ..networks.autoencoder import build_autoencoder

        return self._foundation._load("autoencoder_condition", lambda: build_autoencoder(self.config.condition))

    @cached_property
    def backbone(self) -> nn.Module:
        """The unconditional diffusion U-Net."""
        from ..networks.backbone import build_backbone

        return self._foundation._load("backbone", lambda: build_backbone(self.config.backbone))

    @cached_property
    def demist(self) -> Demist:
        """The backbone with its streams."""
        from ..networks.demist import build_demist

        if self.kind != "demist":
            raise self._error(
                "is a foundation without conditioning streams; give a demist bundle, or train one on it "
                "(python -m DEMISTCore.train demist)"
            )
        return self._load("streams", lambda: build_demist(self.config, self.backbone))

    def has(self, part: str) -> bool:
        """True if the bundle (or its base) holds that part: ``autoencoder_psr``, ``backbone``, ``streams``, ..."""
        return f"{part}.safetensors" in self.info["files"] or bool(self.base and self.base.has(part))

    @property
    def _foundation(self) -> Bundle:
        return self.base or self

    def _get(self, key: str, default: Any) -> Any:
        value = self.info.get(key)
        return default if value is None else value

    def _scale(self, key: str) -> float:
        value = self._foundation.info.get(key)
        if not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise self._error(f"has no usable {key}; save it again")
        return float(value)

    def _error(self, what: str) -> BundleError:
        return BundleError(f"Bundle {self.folder} {what}.")

    def _load(self, part: str, build: Any) -> Any:
        """Build a network and fill it with the weights of ``part``, frozen."""

        file = self.folder / f"{part}.safetensors"
        if file.name not in self.info["files"]:
            raise self._error(f"holds no {part}")
        stored = read_weights(file)
        self._check_fits(file, part, stored)
        module = build()
        own = module.streams_state_dict() if part == "streams" else module.state_dict()
        stored = {name: tensor.to(own[name].dtype) for name, tensor in stored.items()}
        (module.load_streams_state_dict if part == "streams" else module.load_state_dict)(stored)
        return module.requires_grad_(False).eval()

    def _check_fits(self, file: Path, part: str, stored: Mapping[str, Tensor]) -> None:
        """Weights against a network on the meta device: a description of a giant is noticed before it is built.

        Raises:
            BundleError: it cannot be built as described, or the weights are others than it has.
        """
        try:
            with shapes_only():
                own = _state_of(self, part)
        except (ValueError, TypeError, RuntimeError, ZeroDivisionError, AssertionError, IndexError) as error:
            words = " ".join(str(error).split())[:120]
            raise self._error(f"has a model description that cannot be built ({words})") from error
        for what, names in (("misses", own.keys() - stored.keys()), ("has unknown", stored.keys() - own.keys())):
            if names:
                raise self._error(
                    f"does not fit its own description: {file.name} {what} weights ({sorted(names)[0]} and "
                    f"{len(names) - 1} more); it was saved by another version of DEMIST, or changed"
                )
        for name, tensor in stored.items():
            if tensor.shape != own[name].shape:
                raise self._error(
                    f"does not fit its own description: {file.name}, {name} is {tuple(tensor.shape)} "
                    f"and should be {tuple(own[name].shape)}"
                )
        if broken := not_finite(stored):
            raise self._error(f"has NaN or infinite weights in {file.name} ({broken}); train or download it again")


def _state_of(bundle: Bundle, part: str) -> dict[str, Tensor]:
    """Names and shapes of a part's weights, from the description alone; built on whatever device is in force."""
    from ..networks.autoencoder import build_autoencoder
    from ..networks.backbone import build_backbone
    from ..networks.demist import build_demist

    config = bundle.config
    if part == "streams":
        return build_demist(config).streams_state_dict()
    if part == "backbone":
        return build_backbone(config.backbone).state_dict()
    return build_autoencoder(config.psr if part == "autoencoder_psr" else config.condition).state_dict()
