"""Where borders of tissue lie, by the scan's own brightness, given a prior that knows anatomy."""

from __future__ import annotations

import numpy as np

from .brightness import FLAIR_LIMIT, Channel, likeliest, mean_field_update

#: No tissue is less likely than this to a prior, which may be wrong.
_LEAST_PRIOR = 1e-3
#: The prior's logarithm counts so often, and these are added for CSF, grey and white matter. Chosen on eight simulated
#: raw scans of two anatomies that the last training left out (``docs/regions.md``).
_PRIOR_WEIGHT, _MORE = 4.0, (-0.5, 0.0, 0.15)
#: So often are means learnt anew, and so often each time do neighbours agree.
_REFINEMENTS, _ROUNDS = 3, 2


def refine(
    images: list[np.ndarray],
    mask: np.ndarray,
    hidden: np.ndarray,
    spacing: tuple[float, float, float],
    prior: np.ndarray,
) -> np.ndarray:
    """Labels (uint8) from brightness where a prior says what to expect, such as the tissue network's.

    The prior knows anatomy, this scan's own brightness says where borders lie. Means and deviation of each tissue come
    from voxels that the prior is sure of; an image in which there are too few has no say.

    Args:
        images: normalized T1w, and FLAIR if there is one (X, Y, Z).
        mask: brain.
        hidden: lesions, which teach nothing.
        spacing: mm.
        prior: probabilities (3, X, Y, Z) of CSF, grey and white matter.
    """
    volume = np.where(mask, prior, 0).astype(np.float32)
    expected = _PRIOR_WEIGHT * np.log(volume[:, mask] + _LEAST_PRIOR)
    expected += np.array(_MORE, np.float32)[:, None]
    channels = [
        Channel.from_tissue(image, mask, hidden, spacing, volume, np.inf if i == 0 else FLAIR_LIMIT)
        for i, image in enumerate(images)
    ]
    for round_ in range(_REFINEMENTS):
        if round_:
            for channel in channels:
                channel.learn(volume)
        evidence = expected + sum(channel.evidence() for channel in channels)
        mean_field_update(evidence, volume, mask, _ROUNDS)
    return likeliest(volume, mask)
