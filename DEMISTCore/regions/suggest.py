"""Lesions suggested from FLAIR hyperintensity in and around white matter, for a person to check."""

from __future__ import annotations

import logging

import numpy as np

from ..labels import CSF, GREY, WHITE
from ..volume import Volume
from .brightness import regional_mean
from .lesions import Lesions, black_holes, number_lesions
from .settings import RegionSettings

log = logging.getLogger(__name__)

#: Brightness is compared with that of white matter around, averaged with this standard deviation (mm).
_AROUND = 8.0
#: Noise of single voxels is averaged with this standard deviation (mm).
_SMOOTH = 0.6
#: Fluid this deep (mm) in the brain is ventricle; openings up to twice this wide (mm) between its walls are bridged:
#: septum and choroid plexus lie there.
_VENTRICLE_DEPTH, _BRIDGED = 15.0, 3.0
_VENTRICLE_ML = 0.2
#: A lesion reaches out this far (mm) from its cores: unlimited growth runs along the cortex.
_GROWTH = 2.0
#: The rim of the brain (mm) is left out: meninges and vessels shine on a FLAIR.
_RIM = 3.0
#: Lesions may look like grey matter on the T1w: voxels count that white matter and ventricles surround by this share,
#: within this distance (mm).
_SHARE, _REACH = 0.5, 2.0
#: White matter of which the surroundings are this share white matter lies too deep for cortex to be mixed in.
_DEEP = 0.9
#: Share of a lesion's surface that borders on white matter or ventricles: bright cortex has less.
_BORDER = 0.4


def suggest_lesions(t1w: Volume, flair: Volume, tissue: Volume, *, settings: RegionSettings | None = None) -> Lesions:
    """Bright spots of the FLAIR in and around white matter; every output must say that they are a suggestion.

    A voxel is a core if its FLAIR exceeds the mean of white matter around it by ``seed_sd`` robust standard deviations
    and by the share ``contrast``, and, unless it lies deep in white matter, the ``grey_percentile`` of grey matter.
    From cores a lesion grows through voxels above ``grow_sd``, at least halfway up to what a core needs, and above the
    usual brightness of grey matter unless deep in white. Within ``cap_mm`` of the ventricles twice the contrast is
    needed, falling to once at twice that distance: moderately bright caps and bands are common there without lesions.
    Left out: the rim of the brain, ventricles with septum and choroid plexus, what borders on little white matter, and
    what is smaller than ``min_suggested_ml``.

    Args:
        t1w: on the grid of ``tissue``; says which suggestions are T1 black holes.
        flair: registered to the T1w, free of bias, any brightness; on another grid it is interpolated.
        tissue: labels (1 CSF, 2 grey, 3 white) in which lesions may look like grey matter.
        settings: thresholds; default :class:`RegionSettings`.
    """
    from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter

    settings = settings or RegionSettings()
    spacing = tissue.spacing
    bright = (flair if flair.grid.same_as(tissue.grid) else flair.resampled_to(tissue)).array
    bright = np.nan_to_num(bright).astype(np.float32)
    brain, white = tissue.array > 0, tissue.array == WHITE
    none = Lesions(tissue.with_array(np.zeros(tissue.shape, np.int32)), suggested=True)
    core = _eroded(white, spacing)
    if np.count_nonzero(core) < 50 or not (tissue.array == GREY).any():
        log.info("There is too little white or grey matter to suggest lesions from.")
        return none

    # Averaged inside the brain only: the dark outside must not reach in.
    sigma = [_SMOOTH / s for s in spacing]
    bright = gaussian_filter(bright * brain, sigma) / np.maximum(gaussian_filter(brain.astype(np.float32), sigma), 0.1)
    local, deviation = _white_level(bright, core, spacing)
    usual, grey = np.percentile(bright[tissue.array == GREY], (84.0, max(settings.grey_percentile, 84.0)))
    dark = float(np.percentile(bright[brain], 1))
    log.debug("FLAIR: white %.3f, SD %.3f; grey %.3f", float(np.median(local[core])), deviation, grey)

    depth = distance_transform_edt(np.pad(brain, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    ventricles = _ventricles(tissue.array == CSF, depth, tissue)
    inner = _closed(ventricles, _BRIDGED, spacing)
    # Deep in white matter nothing else is bright; where grey matter is near, a lesion must outshine it; and along the
    # ventricles it must outshine the caps.
    base = white | inner
    near = distance_transform_edt(~ventricles, sampling=spacing) if ventricles.any() else np.full(brain.shape, np.inf)
    factor = 1 + np.clip(2 - near / settings.cap_mm, 0, 1) if settings.cap_mm else 1.0
    above = local + np.maximum(settings.seed_sd * deviation, settings.contrast * (local - dark)) * factor
    reach = [_REACH / s for s in spacing]
    deep = white & (gaussian_filter(base.astype(np.float32), reach) >= _DEEP)
    needed = np.where(deep, above, np.maximum(above, grey)).astype(np.float32)
    rim = np.maximum(local + settings.grow_sd * deviation, (local + needed) / 2)
    rim = np.where(deep, rim, np.maximum(rim, usual)).astype(np.float32)
    likely = base | (brain & (bright > needed))  # black holes look like CSF on the T1w
    around = gaussian_filter(likely.astype(np.float32), reach)
    allowed = (white | (brain & (around >= _SHARE))) & ~inner & (depth > _RIM)

    seeds = allowed & (bright > needed)
    found = binary_dilation(seeds, np.ones((3, 3, 3), bool), iterations=_steps(spacing), mask=allowed & (bright > rim))
    smallest = max(settings.min_suggested_ml, settings.min_lesion_ml)
    numbers = number_lesions(tissue.with_array(found), smallest)
    numbers = number_lesions(_in_white_matter(numbers, base))
    return Lesions(numbers, suggested=True, black_holes=black_holes(numbers, t1w, tissue))


def _white_level(bright: np.ndarray, core: np.ndarray, spacing: tuple[float, float, float]) -> tuple[np.ndarray, float]:
    """Mean brightness of white matter around each voxel, and its robust standard deviation, lesions not counted."""
    middle = float(np.median(bright[core]))
    deviation = float(1.4826 * np.median(np.abs(bright[core] - middle)))
    local = np.full(bright.shape, middle, np.float32)
    for _ in range(2):
        usual = core & (bright - local < 2.0 * deviation)
        local = regional_mean(bright, usual.astype(np.float32), middle, spacing, _AROUND)
        rest = (bright - local)[core]
        deviation = float(1.4826 * np.median(np.abs(rest - np.median(rest))))
    return local, max(deviation, 1e-6)


def _ventricles(csf: np.ndarray, depth: np.ndarray, tissue: Volume) -> np.ndarray:
    """Fluid deep in the brain, in pieces worth the name."""
    from scipy.ndimage import label

    pieces, _ = label(csf & (depth > _VENTRICLE_DEPTH))
    large = np.bincount(pieces.ravel()) * tissue.grid.voxel_volume_ml >= _VENTRICLE_ML
    large[0] = False
    return large[pieces]


def _steps(spacing: tuple[float, float, float]) -> int:
    """Voxels that a lesion may reach out from its core."""
    return max(1, round(_GROWTH / min(spacing)))


def _in_white_matter(numbers: Volume, white: np.ndarray) -> Volume:
    """The mask of lesions of whose surface enough borders on white matter or ventricles."""
    from scipy.ndimage import maximum_filter, mean

    count = int(numbers.array.max(initial=0))
    if not count:
        return numbers.with_array(numbers.array > 0)
    shell = np.where(numbers.array > 0, 0, maximum_filter(numbers.array, 3))
    share = np.asarray(mean(white.astype(np.float32), shell, np.arange(1, count + 1)))
    return numbers.with_array(np.isin(numbers.array, np.flatnonzero(share >= _BORDER) + 1))


def _eroded(mask: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Without the outer millimetre and a bit: at least one voxel along fine axes."""
    from scipy.ndimage import distance_transform_edt

    eroded = distance_transform_edt(mask, sampling=spacing) > max(1.0, min(spacing))
    return eroded if np.count_nonzero(eroded) >= 50 else mask


def _closed(mask: np.ndarray, radius: float, spacing: tuple[float, float, float]) -> np.ndarray:
    """Closing by a ball of ``radius`` mm, and the mask itself."""
    from scipy.ndimage import distance_transform_edt

    if not mask.any():
        return mask
    margin = [int(np.ceil(radius / s)) + 1 for s in spacing]
    padded = np.pad(mask, [(m, m) for m in margin])
    grown = distance_transform_edt(~padded, sampling=spacing) <= radius
    closed = distance_transform_edt(grown, sampling=spacing) > radius
    return closed[tuple(slice(m, -m) for m in margin)] | mask
