"""Presets of sampling: quality against time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .I18n import _


@dataclass(frozen=True)
class Preset:
    """A named choice of how to sample.

    Attributes:
        id: what is stored: ``fast``, ``balanced``, ``best``.
        text: its name for people.
        seeds: number of samples.
        steps: denoising steps per sample.
        sampler: name of the sampler; empty for the bundle's own.
        guidance: weight of the condition; 1 is none.
    """

    id: str
    text: str
    seeds: int
    steps: int
    sampler: str = ""
    guidance: float = 1.0


#: What is stored when the user chose numbers of their own.
CUSTOM = "custom"


def recommendedGuidance(sampling: Mapping[str, Any] | None) -> float:
    """The weight of all streams that a bundle recommends, for one number on the panel; 1 where it recommends none.

    Rounded to the two digits that the panel shows, so that showing it does not change it.
    """
    weights = dict((sampling or {}).get("guidance") or {})
    return round(float(weights.get("all", max(weights.values(), default=1.0))), 2)


def presets(sampling: Mapping[str, Any] | None = None) -> list[Preset]:
    """The presets for a bundle with the recommendation ``sampling`` (keys ``seeds``, ``steps``, ``guidance``).

    Balanced is the recommendation itself. Fast is one seed of it, without an uncertainty map; where one seed is the
    recommendation, half the steps. Best is four times as many seeds; more steps than recommended are no better: with
    the default model, twice as many cost 0.35 dB on validation scans.
    """
    given = dict(sampling or {})
    seeds, steps = int(given.get("seeds") or 4), int(given.get("steps") or 10)
    guidance = recommendedGuidance(given)
    return [
        Preset("fast", _("Fast"), 1, steps if seeds > 1 else max(1, steps // 2), "", guidance),
        Preset("balanced", _("Balanced"), min(64, seeds), min(1000, steps), "", guidance),
        Preset("best", _("Best"), min(64, 4 * seeds), min(1000, steps), "", guidance),
    ]


def matching(choices: list[Preset], seeds: int, steps: int, sampler: str, guidance: float) -> str:
    """Id of the preset that these numbers are, or :data:`CUSTOM`; of two that are the same, the recommendation."""
    for preset in sorted(choices, key=lambda preset: preset.id != "balanced"):
        same = (preset.seeds, preset.steps, preset.sampler) == (seeds, steps, sampler)
        if same and abs(preset.guidance - guidance) < 1e-6:
            return preset.id
    return CUSTOM


def duration(seconds: float | None) -> str:
    """``seconds`` as people say it: "about 40 s", "about 3 min"; empty when it is not known."""
    if seconds is None or seconds < 0:
        return ""
    if seconds < 10:
        return _("a few seconds")
    if seconds < 90:
        return _("about {count} s").format(count=int(round(seconds / 10) * 10))
    if seconds < 90 * 60:
        return _("about {count} min").format(count=round(seconds / 60))
    return _("about {count} h").format(count=round(seconds / 3600))
