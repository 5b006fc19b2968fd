"""A calibration as JSON, and back: every number is checked before it is believed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..schema import finite, shown

if TYPE_CHECKING:
    from .calibration import Calibration

FORMAT = 1
_KEYS = (
    "format",
    "subjects",
    "levels",
    "scale_sd",
    "mean_nodes",
    "sd_nodes",
    "gains",
    "voxel_quantiles",
    "region",
    "ood",
)
_REGION_KEYS = ("a", "b", "c", "gamma", "correlation_ml", "quantiles")
_QUANTILE_KEYS = ("volumes_ml", "means", "values")


def to_dict(calibration: Calibration) -> dict[str, Any]:
    """Lists, numbers and strings only; :func:`checked` reads it."""
    a, b, c, gamma = calibration.region
    limit = calibration.ood_limit
    return {
        "format": FORMAT,
        "subjects": calibration.subjects,
        "levels": list(calibration.levels),
        "scale_sd": calibration.scale_sd,
        "mean_nodes": list(calibration.mean_nodes),
        "sd_nodes": list(calibration.sd_nodes),
        "gains": _lists(calibration.gains),
        "voxel_quantiles": _lists(calibration.voxel_quantiles),
        "region": {
            "a": a,
            "b": b,
            "c": c,
            "gamma": gamma,
            "correlation_ml": calibration.correlation_ml,
            "quantiles": {
                kind: {"volumes_ml": list(q.volumes_ml), "means": list(q.means), "values": _lists(q.values)}
                for kind, q in calibration.quantiles.items()
            },
        },
        "ood": None if limit is None else {"limit": limit, "power": calibration.ood_power},
    }


def checked(told: Any) -> dict[str, Any]:
    """The fields of :class:`.Calibration` by name, tuples for lists, ``quantiles`` as (volumes, means, values).

    Raises:
        ValueError: a key is missing or unknown, or a number is not what it should be; the sentence says which.
    """
    _keys(told, _KEYS, "the calibration")
    if told["format"] != FORMAT or isinstance(told["format"], bool):
        raise ValueError(f"The calibration has format {told['format']!r}, not {FORMAT}; export it again.")
    subjects = told["subjects"]
    if not isinstance(subjects, int) or isinstance(subjects, bool) or subjects < 1:
        raise ValueError(f"The calibration's subjects must be a whole number above 0, not {subjects!r}.")
    levels = _rising(told["levels"], "levels", above=0.0)
    if levels[-1] >= 1:
        raise ValueError(f"The calibration's levels lie between 0 and 1, not at {levels[-1]:g}.")
    means = _rising(told["mean_nodes"], "mean_nodes")
    sds = _rising(told["sd_nodes"], "sd_nodes", above=0.0)
    found = {
        "subjects": subjects,
        "levels": levels,
        "scale_sd": _number(told["scale_sd"], "scale_sd", 0.0),
        "mean_nodes": means,
        "sd_nodes": sds,
        "gains": _table(told["gains"], (len(means), len(sds)), "gains", positive=True),
        "voxel_quantiles": _table(told["voxel_quantiles"], (len(levels), len(means)), "voxel_quantiles"),
    }
    _growing(found["voxel_quantiles"], "voxel_quantiles")
    region = told["region"]
    _keys(region, _REGION_KEYS, "the calibration's region")
    found["region"] = tuple(_number(region[key], f"region {key}", 0.0) for key in ("a", "b", "c", "gamma"))
    found["correlation_ml"] = _number(region["correlation_ml"], "correlation_ml", 0.0, strict=True)
    _keys(region["quantiles"], ("region", "lesion"), "the calibration's region quantiles")
    found["quantiles"] = {
        kind: _quantiles(region["quantiles"][kind], kind, len(levels)) for kind in ("region", "lesion")
    }
    ood = told["ood"]
    if ood is not None:
        _keys(ood, ("limit", "power"), "the calibration's ood")
        found["ood_limit"] = _number(ood["limit"], "ood limit", 0.0, strict=True)
        found["ood_power"] = _number(ood["power"], "ood power", 1.0)
    return found


def _quantiles(told: Any, kind: str, levels: int) -> tuple[Any, ...]:
    name = f"quantiles of {kind}"
    _keys(told, _QUANTILE_KEYS, f"the calibration's {name}")
    volumes = _rising(told["volumes_ml"], f"{name}, volumes_ml", above=0.0)
    means = _rising(told["means"], f"{name}, means")
    values = _table(told["values"], (levels, len(volumes), len(means)), f"{name}, values")
    _growing(values, f"{name}, values")
    return volumes, means, values


def _keys(told: Any, wanted: Sequence[str], name: str) -> None:
    if not isinstance(told, Mapping):
        raise ValueError(f"{name[0].upper()}{name[1:]} must be a mapping, not {type(told).__name__}.")
    missing, unknown = [key for key in wanted if key not in told], [str(key) for key in told if key not in wanted]
    if missing or unknown:
        what = f"lacks {', '.join(missing)}" if missing else f"holds unknown {', '.join(unknown)}"
        raise ValueError(f"{name[0].upper()}{name[1:]} {what}; export it again.")


def _number(value: Any, name: str, least: float, strict: bool = False) -> float:
    if not finite(value) or value < least or (strict and value == least):
        bound = f"{'above' if strict else 'of at least'} {least:g}" if math.isfinite(least) else "that is finite"
        raise ValueError(f"The calibration's {name} must be a number {bound}, not {shown(value)}.")
    return float(value)


def _rising(values: Any, name: str, above: float | None = None) -> tuple[float, ...]:
    if not isinstance(values, (list, tuple)) or not values:
        raise ValueError(f"The calibration's {name} must be a list of numbers.")
    found = tuple(_number(v, name, -math.inf if above is None else above, above is not None) for v in values)
    if any(b <= a for a, b in pairwise(found)):
        raise ValueError(f"The calibration's {name} must rise.")
    return found


def _table(values: Any, shape: tuple[int, ...], name: str, positive: bool = False) -> tuple[Any, ...]:
    """Nested lists of exactly that shape, no number below 0 (or, ``positive``, at 0)."""
    if not isinstance(values, (list, tuple)) or len(values) != shape[0]:
        raise ValueError(f"The calibration's {name} must hold {shape[0]} entries, one for each node or level.")
    if len(shape) == 1:
        return tuple(_number(value, name, 0.0, positive) for value in values)
    return tuple(_table(value, shape[1:], name, positive) for value in values)


def _growing(by_level: Any, name: str) -> None:
    """A higher level cannot have a narrower interval."""
    for lower, upper in pairwise(by_level):
        for a, b in zip(_flat(lower), _flat(upper)):
            if b < a:
                raise ValueError(f"The calibration's {name} must grow with the level.")


def _flat(values: Any) -> list[float]:
    return [v for value in values for v in (_flat(value) if isinstance(value, tuple) else [value])]


def _lists(values: Any) -> Any:
    return [_lists(value) for value in values] if isinstance(values, tuple) else values
