"""What lesions are made of: kinds that differ in PSR, free-water R1, T2 and water content, each drawn for itself.

T1w, FLAIR and PSR of a lesion say different things: some lesions are not visible on T1w, a few are bright
there (Janardhan et al., J Neurol Sci 260:62, 2007), old ones are black holes or fluid, fresh ones swell with water
(oedema) that costs hardly any myelin. T2 follows the severity only in part (Stevenson et al., J Neurol Sci 178:81,
2000).

That a lesion does not show on T1w does not mean that it kept its myelin: T1-isointense lesions, too, have lost a good
part of their macromolecular pool (Levesque et al., J Magn Reson Imaging 21:103, 2005; York et al., Brain Commun
4:fcac088, 2022). Were they spared here, a model would learn to call every isointense lesion normal.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .lesions import LesionMaps

#: Share of the lesions of each kind.
KINDS: dict[str, float] = {
    "ordinary": 0.66,
    "isointense": 0.13,
    "black hole": 0.13,
    "oedema": 0.04,
    "cavity": 0.02,
    "bright": 0.02,
}
# Lesions above 300 mm^3 are seldom invisible on T1w, bright or all fluid: these kinds are this much rarer among them.
_LARGE_MM3, _RARER = 300, {"isointense": 0.4, "bright": 0.15, "cavity": 0.25}
# R1 that PSR lost in full takes from white matter at 3 T, 1/s: what an isointense lesion's water must make good.
_R1_OF_PSR = 6.8 * 0.12


def draw_properties(kind: str, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Properties of a lesion of ``kind``.

    Returns:
        Severity (share of PSR lost), what is added to the free-water R1 (1/s), T2 lengthening in units of what is
        typical of the person, and the share of the way that proton density goes to water's.
    """
    severity = float(0.22 + 0.46 * rng.beta(2.0, 2.0))
    spread = float(np.clip(np.exp(rng.normal(0, 0.3)), 0.6, 2.5))  # of T2, independent of all else
    water = float(np.clip(0.75 * severity * np.exp(rng.normal(0, 0.3)), 0, 1))
    if kind == "cavity":
        return float(rng.uniform(0.88, 0.99)), float(rng.normal(0.0, 0.02)), float(rng.uniform(8, 24)), 0.9
    if kind == "isointense":
        severity = float(0.2 + 0.4 * rng.beta(2.0, 2.0))
        r1, water = _R1_OF_PSR * severity * float(rng.normal(0.7, 0.15)), 0.3 * severity
    elif kind == "bright":
        r1, water = _R1_OF_PSR * severity * float(rng.normal(1.3, 0.15)) + 0.08, 0.3 * severity
    elif kind == "black hole":
        severity, r1 = float(rng.uniform(0.6, 0.9)), float(rng.normal(0.04, 0.05))
    elif kind == "oedema":
        severity, r1, water = (float(rng.uniform(*r)) for r in ((0.03, 0.15), (-0.34, -0.16), (0.2, 0.4)))
    else:
        r1 = _R1_OF_PSR * severity * float(np.clip(rng.normal(-0.15, 0.4), -0.8, 0.65))
    # Water that has become freer relaxes more slowly both ways. On real FLAIRs (open_ms_data) the darker a lesion is
    # on T1w, the brighter it is, although the inversion takes most from long T1: T2 outweighs that.
    lost = max(_R1_OF_PSR * severity - r1, 0.0)
    return severity, r1, (0.6 + 7.0 * lost**2) * spread, water


def characterise(lesions: LesionMaps, white: np.ndarray, rng: np.random.Generator) -> tuple[LesionMaps, dict[str, int]]:
    """Give every lesion a kind and its properties; oedema gets a wide, soft rim.

    Args:
        lesions: shapes, with the owner of every voxel.
        white: white-matter fraction (X, Y, Z), to which rims are confined.
        rng: source of randomness.

    Returns:
        The lesions with severity, r1, t2 and water filled, and how many there are of each kind.
    """
    count = int(lesions.owner.max())
    names = list(KINDS)
    volume = np.bincount(lesions.numbers.ravel(), minlength=count + 1)[1:]
    share = np.array(list(KINDS.values()))
    large = share * [_RARER.get(name, 1.0) for name in names]
    cumulative = np.stack([share.cumsum() / share.sum(), large.cumsum() / large.sum()])
    drawn = (rng.random(count)[:, None] > cumulative[(volume > _LARGE_MM3).astype(int)]).sum(1)
    table = np.zeros((4, count + 1), np.float32)
    for number, kind in enumerate(drawn, start=1):
        table[:, number] = draw_properties(names[kind], rng)
    swollen = [n for n, kind in enumerate(drawn, start=1) if names[kind] == "oedema"]
    lesions = _with_rims(lesions, white, {n: float(rng.uniform(2.5, 5.0)) for n in swollen})
    present = set(np.unique(lesions.numbers).tolist())
    tally = {name: sum(names[k] == name and n in present for n, k in enumerate(drawn, 1)) for name in names}
    return fill(lesions, table), tally


def fill(lesions: LesionMaps, table: np.ndarray) -> LesionMaps:
    """``lesions`` with the maps severity, r1, t2 and water from ``table`` (4, number of lesions + 1)."""
    where = np.flatnonzero(lesions.owner)
    owner = lesions.owner.flat[where]
    maps = [np.zeros(lesions.amount.shape, np.float32) for _ in table]
    for target, values in zip(maps, table):
        target.flat[where] = values[owner]
    return replace(lesions, severity=maps[0], r1=maps[1], t2=maps[2], water=maps[3])


def _with_rims(lesions: LesionMaps, white: np.ndarray, widths: dict[int, float]) -> LesionMaps:
    """A rim of ``widths`` mm around some lesions, in which their share falls to zero; confined to white matter."""
    from scipy.ndimage import distance_transform_edt, find_objects

    amount, numbers, owner = lesions.amount.copy(), lesions.numbers.copy(), lesions.owner.copy()
    boxes = find_objects(lesions.numbers.astype(np.int32)) if widths else []
    for number, width in widths.items():
        if number > len(boxes) or boxes[number - 1] is None:
            continue
        wide = int(np.ceil(width)) + 1
        box = tuple(
            slice(max(s.start - wide, 0), min(s.stop + wide, n)) for s, n in zip(boxes[number - 1], amount.shape)
        )
        distance = distance_transform_edt(numbers[box] != number)
        rim = np.clip(1 - distance / width, 0, 1) * np.clip(1.5 * white[box], 0, 1)
        grown = rim > amount[box]
        owner[box][grown] = number
        amount[box][grown] = rim[grown]
        numbers[box][grown & (rim > 0.5)] = number
    return replace(lesions, amount=amount, numbers=numbers, owner=owner)
