"""A patient's maps before the judge: DEMIST's beside the linear model's, the ratio's, and the images themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..baselines.linear import LinearModel
from ..errors import InputError
from ..volume import Volume
from .judge import Judge
from .methods.local import LINEAR, RATIO

if TYPE_CHECKING:
    from ..preprocess import Prepared
    from ..synthesis import Synthesis

DEMIST = "DEMIST"


def judge_patient(
    result: Synthesis, t1w: Volume, flair: Volume, lesions: Volume, linear: LinearModel | None = None
) -> list[dict[str, Any]]:
    """One row per map or image: ``image`` and what :meth:`.judge.Judge.report` says of it; of images, the AUC alone.

    The judge sees the T1w as it is where it is skull-stripped, else inside the brain mask, and the FLAIR as it is where
    it lies on the T1w's grid, else moved onto it as preprocessing found.

    Args:
        result: DEMIST's map of these images.
        t1w, flair: as they were given.
        lesions: 1 inside, on any grid in the T1w's space.
        linear: the fitted linear model, on the bundle's spacing; None: without it.

    Raises:
        InputError: the T1w shows no three tissues.
    """
    from ..preprocess.brainmask import recognise_stripped

    stripped = recognise_stripped(t1w) is not None
    brain = t1w.array if stripped else np.where(result.mask.array > 0, t1w.array, 0)
    outlined = lesions.resampled_to(t1w.grid, "nearest").array
    try:
        judge = Judge.of(brain, outlined, t1w.grid.spacing)
    except (ValueError, IndexError) as error:
        raise InputError(f"{t1w.path or 'The T1w'} shows no three tissues; is it a T1w of a whole brain?") from error
    rows = [{"image": DEMIST, **judge.report(result.psr.array)}]
    for name, psr in baseline_maps(result.prepared, linear).items():
        rows.append({"image": name, **judge.report(psr.array)})
    rows.append({"image": "T1w", "auc": judge.auc(brain)})
    rows.append({"image": "FLAIR", "auc": judge.auc(_on_grid(flair, result.prepared, t1w), lesions_dark=False)})
    return rows


def baseline_maps(prepared: Prepared, linear: LinearModel | None) -> dict[str, Volume]:
    """The linear model's map and the scaled ratio on the T1w's own grid; none without a fitted model."""
    if linear is None:
        return {}
    mask = prepared.mask.array
    maps = {LINEAR: linear.predict(prepared.array, mask), RATIO: linear.predict_ratio(prepared.array, mask)}
    return {name: prepared.to_native(psr) for name, psr in maps.items()}


def _on_grid(flair: Volume, prepared: Prepared, t1w: Volume) -> np.ndarray:
    if flair.grid.same_as(t1w.grid):
        return flair.array
    return Volume(flair.array, prepared.flair_motion @ flair.affine).resampled_to(t1w.grid, "linear").array
