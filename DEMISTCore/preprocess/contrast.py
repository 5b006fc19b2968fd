"""Are the two images what they are called? Seen from where fluid is dark, what is bright, and what files say.

All thresholds stand between what was measured on true pairs (6 of 4 real patients, 14 simulated ones) and on
wrong ones (a real T2w in either place, simulated T2w and proton density, inverted T1w of all true pairs):

==================================================  ===========  =====================
                                                    true pairs   wrong
==================================================  ===========  =====================
T1w deep in the brain: bright tail over dark tail   0.2 to 0.5   2.2 to 4.7 (T2w, inverted)
T1w where the FLAIR is darkest                      0.01 to 0.07 0.55 to 0.99 (6 of 7 PD: 0.56 and more)
FLAIR where the T1w is darkest                      0.01 to 0.15 1.8 and more (T2w)
T1w's rim, 99.5th percentile over white matter      0.97 to 1.09 above 1.15 with contrast agent, see below
FLAIR's signal of fluid over that of tissue         0.05 to 0.49 0.62 and more (PD with dark fluid)
==================================================  ===========  =====================

Values are on the scale of :func:`.intensity.normalize` (fluid 0, tissue 0.5); the last row is about the signal itself,
on 119 simulated pairs.
Not seen: images with dark fluid where zero is lost, or of so short a TR (1 s and less) that their fluid is as dark as
on a FLAIR of bad timing; and contrast agent where no enhancing vessel or dura lies in the mask.
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import numpy as np

from ..volume import Volume
from .intensity import depth

log = logging.getLogger(__name__)

#: Correlation in the brain above which two images are one. Fluid is dark on both, so true pairs correlate, too.
_SAME_IMAGE = 0.98
#: See deep_over_rim: true pairs are above 0, swapped ones below.
_SWAPPED = -0.04
#: See the module's table.
_BRIGHT_FLUID, _OTHER_FLUID, _T2_FLUID, _ENHANCED = 1.0, 0.3, 0.8, 1.15
#: Signal of fluid over that of tissue on the FLAIR, from a true zero, see lit_fluid.
_LIT_FLUID = 0.57
#: Depths (mm): fluid deep in the brain is ventricles; enhancing vessels and dura lie in the rim.
_DEEP, _RIM = 10.0, (2.0, 8.0)
_ENOUGH = 200  # voxels of 2 mm, below which percentiles say little

#: What files of other series are called. A name may hold several words: FLAIR is a T2w by name, too.
_NAMED = {
    "contrast agent": r"(?<![a-z])(gd|gad|gado|km|ce|cm|kontrast|contrast|postcontrast|ceT1w?)(?![a-z])"
    r"|t1c(?![a-z])|t1[-_ ]?(gd|ce|post|\+c)|(?<![a-z])post(?=[-_ ]?(t1|gd|contrast))",
    "FLAIR": r"flair|dark[-_ ]?fluid|tirm",
    "T2w": r"(?<![a-z0-9])t2w?(?![a-z0-9])",
    "PD": r"(?<![a-z])pdw?(?![a-z])|proton[-_ ]?density",
    "T1w": r"(?<![a-z0-9])t1w?(?![a-z0-9])|mp[-_ ]?rage",
}


def contrast_warnings(
    t1w: np.ndarray,
    flair: np.ndarray,
    mask: np.ndarray,
    spacing: float,
    corrected: bool = True,
    signal: np.ndarray | None = None,
) -> list[str]:
    """Sentences if the two look like one image, swapped, or like another contrast than a T1w and a FLAIR.

    Args:
        t1w: normalized (X, Y, Z), see :func:`.intensity.normalize`.
        flair: likewise.
        mask: brain, true inside.
        spacing: voxel size, mm.
        corrected: bias fields were taken out; with them in, the rim says nothing of contrast agent (a real T1w: 1.3).
        signal: the FLAIR before it was normalized, 0 where there is no signal; None: its zero is not known.
    """
    likeness = float(np.corrcoef(np.stack([t1w[mask], flair[mask]]))[0, 1])
    if likeness > _SAME_IMAGE:
        return ["T1w and FLAIR are almost the same image; check that the files are the two they should be."]
    stride = max(1, round(2.0 / spacing))
    t1w, flair, mask = (a[::stride, ::stride, ::stride] for a in (t1w, flair, mask))
    signal = None if signal is None else signal[::stride, ::stride, ::stride]
    below = depth(mask, stride * spacing)
    deep, rim = mask & (below > _DEEP), mask & (below > _RIM[0]) & (below < _RIM[1])
    if min(np.count_nonzero(deep), np.count_nonzero(rim)) < _ENOUGH:
        return []
    tail = _tails(t1w[deep])
    t1w_there = float(np.median(t1w[deep & (flair <= np.percentile(flair[deep], 3.0))]))
    flair_there = float(np.median(flair[deep & (t1w <= np.percentile(t1w[deep], 3.0))]))
    lit = 0.0 if signal is None else lit_fluid(t1w, signal, mask, deep)
    swapped = deep_over_rim(t1w, flair, mask, below)
    rim_over_white = float(np.percentile(t1w[rim], 99.5) / max(float(np.percentile(t1w[deep], 95.0)), 1e-6))
    log.debug(
        "Correlation of T1w and FLAIR %.2f; tails %.2f; T1w in the FLAIR's fluid %.2f, FLAIR in the T1w's %.2f; "
        "fluid over tissue on the FLAIR %.2f; deep over rim %+.3f; rim over white matter %.2f",
        likeness,
        tail,
        t1w_there,
        flair_there,
        lit,
        swapped,
        rim_over_white,
    )
    if tail > _BRIGHT_FLUID:
        return ["The T1w does not look like one: fluid is bright on it, as on a T2w or inverted image; check the file."]
    found = []
    if flair_there > _T2_FLUID:
        found.append("The FLAIR does not look like one: fluid is bright on it, as on a T2w; check the file.")
    elif t1w_there > _OTHER_FLUID:
        found.append(
            "T1w and FLAIR do not agree on where fluid is: what is darkest on the FLAIR is tissue on the T1w; check "
            "that neither is another contrast (proton density, T2w) and that they lie over each other."
        )
    elif lit > _LIT_FLUID:
        found.append(
            f"The FLAIR does not look like one: its fluid has {lit:.0%} of the signal of tissue, as on a "
            "proton-density image, and on a FLAIR it is almost black; check the file."
        )
    elif swapped < _SWAPPED:
        found.append("T1w and FLAIR look swapped (white matter is the brighter one on the FLAIR); check their order.")
    if corrected and not found and rim_over_white > _ENHANCED:
        found.append(
            "The T1w looks as if taken after contrast agent: vessels or dura are brighter than white matter; the model "
            "has seen none, give the T1w from before it."
        )
    return found


def lit_fluid(t1w: np.ndarray, signal: np.ndarray, mask: np.ndarray, deep: np.ndarray) -> float:
    """Signal of fluid over the median of tissue's; an inversion pulse takes it away, and nothing else does.

    Proton density keeps 0.6 to 0.75 (spin echoes of TR 1.5 to 2 s; the longer, the more), however dark its fluid looks:
    the scale of :func:`.intensity.normalize` begins at fluid and cannot tell. Fluid is sought where the T1w is darkest
    deep in the brain, and of that the darkest tenth is taken: thick slices and small ventricles mix it with tissue.

    Args:
        t1w: normalized (X, Y, Z).
        signal: the other image, from a true zero.
        mask: brain, true inside.
        deep: where fluid is sought, true inside.
    """
    tissue = mask & (t1w > 0.25)
    if np.count_nonzero(tissue) < _ENOUGH:
        return 0.0
    fluid = signal[deep & (t1w <= np.percentile(t1w[deep], 3.0))]
    return float(np.percentile(fluid, 10.0) / max(float(np.median(signal[tissue])), 1e-6))


def deep_over_rim(t1w: np.ndarray, flair: np.ndarray, mask: np.ndarray, below: np.ndarray) -> float:
    """log of (deep / rim brightness on the T1w) over (the same on the FLAIR), fluid left out; 0 if undecidable.

    On a T1w white matter is brighter than grey, on a FLAIR darker or alike. Cortex lies near the surface, white
    matter deep, and fluid is dark on both: so the ratio of deep tissue to rim is larger on the T1w.

    Args:
        t1w, flair: normalized (X, Y, Z).
        mask: brain, true inside.
        below: depth (mm) in it.
    """
    tissue = mask & (t1w > 0.25) & (flair > 0.25)
    rim, deep = tissue & (below > 1.5) & (below < 6.0), tissue & (below > 12.0)
    if min(np.count_nonzero(rim), np.count_nonzero(deep)) < _ENOUGH:
        return 0.0
    ratios = [np.median(image[deep]) / np.median(image[rim]) for image in (t1w, flair)]
    return float(np.log(ratios[0] / ratios[1]))


def _tails(values: np.ndarray) -> float:
    """How far the brightest per cent is above the median, over how far the darkest is below."""
    low, middle, high = np.percentile(values, (1.0, 50.0, 99.0))
    return float((high - middle) / max(middle - low, 1e-6))


def name_warnings(t1w: Volume, flair: Volume) -> list[str]:
    """Sentences if the files' names, or the sidecars of dcm2niix and BIDS beside them, speak of other contrasts."""
    found = []
    others: tuple[str, ...]
    for volume, wanted, others in (
        (t1w, "T1w", ("contrast agent", "FLAIR", "T2w", "PD")),
        (flair, "FLAIR", ("T2w", "PD", "T1w")),
    ):
        if volume.path is None:
            continue
        name = Path(volume.path).name
        if re.search(_NAMED[wanted], name, re.IGNORECASE):
            others = tuple(other for other in others if other == "contrast agent")
        called = next((other for other in others if re.search(_NAMED[other], name, re.IGNORECASE)), None)
        agent = _sidecar(Path(volume.path)).get("ContrastBolusAgent") if wanted == "T1w" else None
        if isinstance(agent, str) and agent.strip() and agent.strip().lower() not in ("none", "no", "n/a"):
            found.append(f"{name} was taken after contrast agent, says its sidecar; the model has seen none.")
        elif called == "contrast agent":
            found.append(f"{name} was taken after contrast agent, by its name; the model has seen none.")
        elif called is not None:
            found.append(f"{name} was given as {wanted}, and its name says {called}; check that it is the right file.")
    return found


def _sidecar(path: Path) -> dict:
    """The JSON file beside an image; empty if there is none or it cannot be read."""
    stem = re.sub(r"\.(nii\.gz|nii|nrrd|nhdr|mha|mhd|mgz)$", "", path.name, flags=re.IGNORECASE)
    try:
        told = json.loads(path.with_name(stem + ".json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}
