"""What a caller gives in one of several forms, in the one form that the worker takes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from ..I18n import _
from ..RunError import RunError
from .Bundles import recommendedSampling

if TYPE_CHECKING:
    from DEMISTCore.options import SynthesisOptions

#: Options whose names on the console are others than the core's.
_NAMES = {"skullStrip": "skull_strip", "biasCorrect": "bias_correct", "anyBrainVolume": "any_brain_volume"}


def options(given: Mapping[str, Any], options: SynthesisOptions | None = None) -> SynthesisOptions:
    """All that says how a map is synthesized, in one object.

    Args:
        given: what a caller gives one by one: ``mode``, ``seeds`` (their number, or which), ``firstSeed`` (where
            counting starts), ``steps``, ``sampler``, ``guidance`` (a weight, or weights by stream), ``protocol``,
            ``bundle``, ``device``, ``precision``, ``register``, ``skullStrip``, ``biasCorrect``, ``anyBrainVolume``;
            None is the default.
        options: what it is put on top of.

    Raises:
        TypeError: there is no such option.
        RunError: seeds that are none, see :func:`seedList`.
    """
    from DEMISTCore.options import SynthesisOptions

    base = options or SynthesisOptions()
    known = {field.name for field in fields(SynthesisOptions)} - set(_NAMES.values()) | set(_NAMES)
    unknown = sorted(set(given) - known - {"firstSeed"})
    if unknown:
        raise TypeError(f"there is no option {unknown[0]!r}; choose one of {', '.join(sorted(known))}, firstSeed")
    told = {_NAMES.get(key, key): value for key, value in given.items() if value is not None}
    first = told.pop("firstSeed", 0)
    bundle = bundleName(told.get("bundle", base.bundle))
    if "seeds" in told or first:
        mode = told.get("mode", base.mode)
        seeds = seedList(told.get("seeds"), first, mode, bundle)
        told["seeds"] = None if seeds is None else tuple(seeds)
    if not told.get("sampler", True):
        told["sampler"] = None  # an empty name is the model's own
    return replace(base, **{**told, "bundle": bundle})


def seedList(
    seeds: int | Sequence[int] | None, first: int, mode: str | None = None, bundle: str | None = None
) -> list[int] | None:
    """The seeds that a number and a first one stand for; the worker checks them.

    Args:
        seeds: number of samples, or which; None: what ``bundle`` recommends, from ``first`` on if that is not 0.
        first: where counting starts.
        mode: ``mean`` has no seeds to count.
        bundle: name or folder; None: the default one.

    Returns:
        None for whatever the model recommends.

    Raises:
        RunError: they are neither a number of samples (1 to 256, from 0 or more on) nor a list.
    """
    if seeds is None and first and mode != "mean":
        seeds = recommendedSampling(bundle)["seeds"]
    if seeds is None:
        return None
    if isinstance(seeds, bool) or not isinstance(seeds, (int, Sequence)) or isinstance(seeds, str):
        raise RunError(
            "input", _("Seeds are a number of samples, or a list of whole numbers, not {seeds!r}.").format(seeds=seeds)
        )
    if not isinstance(seeds, int):
        return [int(seed) for seed in seeds]
    if not 1 <= seeds <= 256:
        raise RunError("input", _("The number of seeds must be 1 to 256, not {seeds}.").format(seeds=seeds))
    if not isinstance(first, int) or first < 0:
        raise RunError("input", _("The first seed is a whole number, 0 or more, not {first!r}.").format(first=first))
    return list(range(first, first + seeds))


def bundleName(bundle: str | os.PathLike[str] | None) -> str | None:
    """A model's name as it is, a folder as a whole path."""
    if not bundle:
        return None
    text = os.fspath(bundle)
    # A plain name means one of the shipped models, even where there is a folder of that name.
    return wholePath(text) if os.path.basename(text) != text and os.path.isdir(os.path.expanduser(text)) else text


def wholePath(path: str | os.PathLike[str]) -> str:
    """The path from the root: the worker may have been started in another working directory."""
    return os.path.abspath(os.path.expanduser(path))
