"""How a map is synthesized, in one object: from a panel or a script, through the worker's protocol, to the sampler.

Nothing but the standard library is imported, so that a program that computes nothing itself can hold one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from .errors import InputError
from .schema import shown


@dataclass(frozen=True)
class SynthesisOptions:
    """What :func:`DEMISTCore.synthesize` takes besides images and files; None is what the model recommends.

    Attributes:
        bundle: model, by name or folder; None: the default one.
        mode: ``mean`` or ``sample``.
        seeds: which; their number is the number of samples.
        steps, sampler, guidance: of sampling; guidance is a weight by stream, or of all of them.
        protocol: what is known of the scans, by image, as in BIDS sidecars; None: read from those beside the files.
        device, precision: see :mod:`DEMISTCore.devices`.
        register, skull_strip, bias_correct, any_brain_volume: of the preparation.
    """

    bundle: str | None = None
    mode: str | None = None
    seeds: tuple[int, ...] | None = None
    steps: int | None = None
    sampler: str | None = None
    guidance: Mapping[str, float] | float | None = None
    protocol: Mapping[str, Mapping[str, Any]] | None = None
    device: str = "auto"
    precision: str = "auto"
    register: bool = True
    skull_strip: str = "auto"
    bias_correct: bool = True
    any_brain_volume: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.seeds, list):  # as JSON has it
            object.__setattr__(self, "seeds", tuple(self.seeds))

    def request(self) -> dict[str, Any]:
        """What differs from the defaults, as fields of a request to the worker (:mod:`DEMISTCore.worker.protocol`)."""
        told = {field.name: getattr(self, field.name) for field in fields(self)}
        told = {name: value for name, value in told.items() if value != getattr(_DEFAULTS, name)}
        plain = {name: dict(told[name]) for name in ("guidance", "protocol") if isinstance(told.get(name), Mapping)}
        return {**told, **plain, **({"seeds": list(told["seeds"])} if "seeds" in told else {})}

    @classmethod
    def from_request(cls, request: Mapping[str, Any]) -> SynthesisOptions:
        """The way back; fields of a request that are no options are passed over, null is the default."""
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in request.items() if name in names and value is not None})

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for :func:`DEMISTCore.synthesize`; where no model is named, ``bundle`` is left out.

        Raises:
            InputError: guidance that is neither a weight nor weights by stream.
        """
        told = {field.name: getattr(self, field.name) for field in fields(self)}
        told["guidance"] = self._weights()
        if self.bundle is None:
            del told["bundle"]
        return told

    def _weights(self) -> dict[str, float] | None:
        if self.guidance is None:
            return None
        weights = dict(self.guidance) if isinstance(self.guidance, Mapping) else {"all": self.guidance}
        try:
            return {str(name): float(weight) for name, weight in weights.items()}
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"Guidance is a weight, or weights by stream, not {shown(self.guidance)}.") from None


_DEFAULTS = SynthesisOptions()
