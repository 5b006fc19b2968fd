"""Presets: the mean, or samples of some quality in some time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..I18n import _


@dataclass(frozen=True)
class Preset:
    """A named choice of what is made, and how.

    Attributes:
        id: what is stored: ``mean``, ``fast``, ``balanced``, ``best``.
        text: its name for people.
        seeds: number of samples; of the mean, which has none, those that are recommended otherwise.
        steps: denoising steps per sample.
        sampler: name of the sampler; empty for the bundle's own.
        guidance: weight of the condition; 1 is none.
        mode: ``mean`` or ``sample``.
    """

    id: str
    text: str
    seeds: int
    steps: int
    sampler: str = ""
    guidance: float = 1.0
    mode: str = "sample"


MEAN, SAMPLE = "mean", "sample"
#: What is stored when the user chose numbers of their own.
CUSTOM = "custom"


def recommended(sampling: Mapping[str, Any] | None) -> str:
    """Id of the preset that a bundle recommends."""
    return "mean" if (sampling or {}).get("mode") == MEAN else "balanced"


def recommendedGuidance(sampling: Mapping[str, Any] | None) -> float:
    """The weight of all streams that a bundle recommends, for one number on the panel; 1 where it recommends none.

    Rounded to the two digits that the panel shows, so that showing it does not change it.
    """
    weights = dict((sampling or {}).get("guidance") or {})
    return round(float(weights.get("all", max(weights.values(), default=1.0))), 2)


def presets(sampling: Mapping[str, Any] | None = None, mean: bool = False) -> list[Preset]:
    """The presets for a bundle that recommends ``sampling`` (keys ``mode``, ``seeds``, ``steps``, ``guidance``).

    The mean comes first where there is a network for it (``mean``, or the bundle recommends it). Of samples, Balanced
    is the recommendation itself. Fast is one seed of it; where one seed is the recommendation, half the steps. Best is
    four times as many seeds; more steps than recommended are no better by themselves.
    """
    given = dict(sampling or {})
    mean = mean or recommended(given) == "mean"
    seeds, steps = int(given.get("seeds") or 4), int(given.get("steps") or 10)
    guidance = recommendedGuidance(given)
    fast, balanced, best = (
        (_("Sample, fast"), _("Sample, balanced"), _("Sample, best")) if mean else (_("Fast"), _("Balanced"), _("Best"))
    )
    usual = (min(64, seeds), min(1000, steps), "", guidance)
    first = [Preset("mean", _("Mean (lowest error)"), *usual, MEAN)] if mean else []
    return [
        *first,
        Preset("fast", fast, 1, steps if seeds > 1 else max(1, steps // 2), "", guidance),
        Preset("balanced", balanced, *usual),
        Preset("best", best, min(64, 4 * seeds), min(1000, steps), "", guidance),
    ]


def matching(choices: list[Preset], seeds: int, steps: int, sampler: str, guidance: float, mode: str = SAMPLE) -> str:
    """Id of the preset that these are, or :data:`CUSTOM`; of two that are the same, the recommendation."""
    if mode == MEAN and any(preset.mode == MEAN for preset in choices):
        return "mean"  # which has none of these numbers
    for preset in sorted(choices, key=lambda preset: preset.id != "balanced"):
        same = (preset.mode, preset.seeds, preset.steps, preset.sampler) == (SAMPLE, seeds, steps, sampler)
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
