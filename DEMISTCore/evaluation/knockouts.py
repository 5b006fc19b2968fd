"""What a map hangs on: the same case with one input made useless.

A variant is a case like any other, so every method can be run on it. Streams are switched off by the methods
themselves (:data:`.methods.demist.ABLATIONS`): that is a matter of the network, not of the case.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np

from .cases import Case

#: Inputs in the order of the condition's channels.
INPUTS = ("T1w", "FLAIR")
FLAT = {f"{name} flat": channel for channel, name in enumerate(INPUTS)}
WRONG_PROTOCOL = "wrong protocol"

#: Factors that turn a protocol into another that a scanner could have run, but did not.
_WRONG = {"RepetitionTime": 0.65, "EchoTime": 1.5, "InversionTime": 0.75, "FlipAngle": 1.6}


def flattened(condition: np.ndarray, mask: np.ndarray, channel: int) -> np.ndarray:
    """A copy of ``condition`` (2, X, Y, Z) with one channel set to its own median in ``mask``, 0 outside."""
    inside = np.asarray(mask) > 0
    changed = np.array(condition, np.float32)
    changed[channel] = np.where(inside, np.median(changed[channel][inside]), 0)
    return changed


def wrong_protocol(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """The sidecars of another protocol: 1.5 T for 3 T and the reverse, other times and flip angles; the rest as is."""

    def changed(key: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: changed(k, v) for k, v in value.items()}
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return value
        if key == "MagneticFieldStrength":
            return 3.0 if value < 2 else 1.5
        return value * _WRONG.get(key, 1)

    return {key: changed(key, value) for key, value in protocol.items()}


def variant(case: Case, name: str) -> Case:
    """The case with one input made useless: a name of :data:`FLAT`, or :data:`WRONG_PROTOCOL`.

    The truth, the grid and the way back from the model grid stay those of ``case``.

    Raises:
        ValueError: there is no such variant.
    """
    if name not in FLAT and name != WRONG_PROTOCOL:
        raise ValueError(f"There is no variant {name!r} of a case.")
    prepared = case.prepared  # made now, so that the variant shares it
    if case.session.dseg is None:
        case.found  # noqa: B018  tissue is what the real images show
    other = copy(case)  # shares what is computed so far as well: neither changes it
    if name == WRONG_PROTOCOL:
        other.protocol = None if case.protocol is None else wrong_protocol(case.protocol)
        return other
    images = flattened(prepared.array, prepared.mask.array, FLAT[name])
    other.prepared = replace(
        prepared, t1w=prepared.t1w.with_array(images[0]), flair=prepared.flair.with_array(images[1])
    )
    return other
