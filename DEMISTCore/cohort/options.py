"""What may be chosen for a cohort, and which result each choice touches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

#: Attempts at a session whose process dies in the middle (killed, out of memory) before it counts as failed.
ATTEMPTS = 3


@dataclass(frozen=True)
class Options:
    """Settings of all sessions; they travel to the workers.

    Attributes:
        bundle: name, folder or Hugging Face id of the model.
        mode, seeds, steps, sampler, device, precision, register, skull_strip, bias_correct, any_brain_volume: see
            :func:`DEMISTCore.synthesize`.
        regions: make region masks, tables and figures, not only the map.
        suggest: find lesions on the FLAIR where no mask is given; every output calls them a suggestion.
        region_settings: fields of :class:`DEMISTCore.regions.RegionSettings` that differ from the defaults.
        retry_failed: work again on what has failed for good.
        threads: of each worker; 0: as many as torch takes by itself.
        spaces: further spaces that results are brought to, see :mod:`.spaces`.
        templates: file of a space's template, where it is not the one that is found by itself.
        scratch: folder for what is not kept, on a disk of the worker's own; None: in the folder of the results.
    """

    bundle: str
    mode: str | None = None
    seeds: int | tuple[int, ...] | None = None
    steps: int | None = None
    sampler: str | None = None
    device: str = "auto"
    precision: str = "auto"
    register: bool = True
    skull_strip: str = "auto"
    bias_correct: bool = True
    any_brain_volume: bool = False
    regions: bool = True
    suggest: bool = True
    region_settings: Mapping[str, Any] = field(default_factory=dict)
    retry_failed: bool = False
    threads: int = 0
    spaces: tuple[str, ...] = ()
    templates: Mapping[str, str] = field(default_factory=dict)
    scratch: str | None = None

    @property
    def stages(self) -> tuple[str, ...]:
        """What is made of each session, in order."""
        wanted = {"map": True, "regions": self.regions, "spaces": bool(self.spaces), "report": True}
        return tuple(name for name, there in wanted.items() if there)

    def preparation(self) -> dict[str, Any]:
        """Options of :func:`DEMISTCore.prepare`."""
        return {
            "register": self.register,
            "skull_strip": self.skull_strip,
            "bias_correct": self.bias_correct,
            "any_brain_volume": self.any_brain_volume,
        }

    def of_map(self) -> dict[str, Any]:
        """What the PSR map depends on. Not the device: a cohort goes on elsewhere without being made anew."""
        return {
            "mode": self.mode,
            "seeds": self.seeds,
            "steps": self.steps,
            "sampler": self.sampler,
            "precision": self.precision,
            **self.preparation(),
        }

    def of_regions(self) -> dict[str, Any]:
        """What regions and tables depend on, beside the map; all settings, so that new defaults are seen, too."""
        return {"suggest": self.suggest, "settings": asdict(self.settings())}

    def settings(self) -> Any:
        """The :class:`DEMISTCore.regions.RegionSettings`.

        Raises:
            InputError: a number that makes no sense.
        """
        from ..regions import RegionSettings

        return RegionSettings(**self.region_settings)
