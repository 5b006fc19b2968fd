"""Where an image's zero is. Bias fields and slices are factors, and a factor means something about a true zero only.

Magnitude images have one: air is near 0. Others have been offset (unsigned types, CT conventions, z-scores of the whole
image): their background tells where zero was. Images that were standardised inside the brain have lost it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..volume import Volume
from . import brainmask
from .checks import describe

#: Values within this share of the image's range of 0 are 0: noise, and what splines overshoot.
_NEAR = 0.03
#: Darkest content (2nd percentile) over the brightest (95th), from a supposed zero: fluid is 0 to 0.35 of white matter,
#: brains without fluid begin at 0.45 to 0.6. Above, that is not where zero is: the content was offset.
_GAP = 0.7
#: Air of scans without a constant background lies below this share of the range.
_AIR = 0.2
#: From this share of constant voxels on there is a background.
_BACKGROUND = 0.15


@dataclass(frozen=True, eq=False)
class Zeroed:
    """An image with its zero at 0.

    Attributes:
        volume: the image, background at 0.
        true: whether 0 means no signal; if not, it is the dark end of the content, and brightness has no ratios.
        warning: a sentence about what was found, or None.
    """

    volume: Volume
    true: bool = True
    warning: str | None = None


def bring_to_zero(volume: Volume, name: str) -> Zeroed:
    """Shift an image so that 0 means no signal, as far as its background tells; see :class:`Zeroed`.

    Args:
        volume: finite float32, not constant.
        name: what it is, for the sentence.
    """
    array, label = volume.array, describe(volume, name)
    level, empty = brainmask.background(array)
    if empty.mean() < _BACKGROUND or empty.all():
        low, high = (float(v) for v in np.percentile(array, (0.5, 95.0)))
        if -_NEAR <= low / max(high - low, 1e-12) <= _AIR:
            return Zeroed(volume)
        return _shifted(volume, low, f"{label} does not begin at 0: its air, about {low:.4g}, was taken as 0.")
    outside = ~brainmask.largest_filled(~empty, volume.spacing)
    dark, low, high = (float(v) for v in np.percentile(array[~outside], (1.0, 2.0, 95.0)))
    # Zero is the background's level, or the background is a number that marks it (-1) and zero is 0: what the content
    # comes nearest to from above.
    gaps = {zero: (low - zero) / max(high - zero, 1e-12) for zero in (level, 0.0)}
    zero = min((z for z, gap in gaps.items() if -_NEAR <= gap <= _GAP), key=lambda z: gaps[z], default=None)
    if zero is not None:
        if abs(zero) > _NEAR * (high - zero):
            return _shifted(volume, zero, f"{label} does not begin at 0: its background, {level:.4g}, was taken as 0.")
        if level < 0 or abs(level) > _NEAR * (high - zero):
            return Zeroed(volume.with_array(np.where(outside, np.float32(0), array)))
        return Zeroed(volume)
    return Zeroed(
        volume.with_array(np.where(outside, 0, array - dark).astype(np.float32)),
        False,
        f"{label} has no true zero (values from {dark:.4g} to {high:.4g} on a background of {level:.4g}, as after "
        "standardising); its bias field and slices were left as they are: give the image as scanned.",
    )


def _shifted(volume: Volume, level: float, sentence: str) -> Zeroed:
    return Zeroed(volume.with_array((volume.array - level).astype(np.float32)), True, sentence)
