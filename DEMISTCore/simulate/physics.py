"""Relaxation from PSR, and the signal equations of MPRAGE and FLAIR.

Arrays broadcast; rates are in 1/s, times in s, flip angles in degrees.
"""

from __future__ import annotations

import numpy as np


def r1_from_psr(psr: np.ndarray, r1_water: np.ndarray | float, r1_macro: float) -> np.ndarray:
    """Observed R1 of two pools in fast exchange, R1 = (R1w + PSR R1m) / (1 + PSR).

    Of any shape; rates in 1/s, PSR as fraction.

    The pool-size-weighted mean of the two rates (Zimmerman and Brittin 1957), the form behind the linear
    relaxometry model of Callaghan et al., Magn Reson Med 73:1309 (2015) and the two-pool field-dependence study
    of Wang et al., NeuroImage 213:116700 (2020).
    """
    return (r1_water + psr * r1_macro) / (1.0 + psr)


def mprage_signal(
    r1: np.ndarray,
    pd: np.ndarray | float,
    *,
    tr: float,
    ti: float,
    echo_spacing: float,
    flip: np.ndarray | float,
    echoes: int,
    inversion_efficiency: float = 0.96,
    center: float = 0.5,
) -> np.ndarray:
    """Steady-state MPRAGE signal at the k-space centre, in closed form.

    ``r1`` (1/s) and ``pd`` are of any shape, as is the signal; times in s.

    One cycle of length ``tr``: inversion, recovery, a train of ``echoes`` pulses of ``flip`` degrees every
    ``echo_spacing``, recovery. ``ti`` runs from the inversion to the pulse at the fraction ``center`` of the
    train. During the train Mz relaxes towards M0* = M0 (1 - E) / (1 - E cos a) with the factor (E cos a) a pulse
    (Deichmann et al., NeuroImage 12:112, 2000; Wang et al., PLoS ONE 9:e96899, 2014). T2* decay is left out:
    at TE of 2-4 ms it is a few per cent and nearly the same for every tissue.

    Raises:
        ValueError: the train does not fit between inversion and end of the cycle.
    """
    before = round(center * echoes)
    recovery = ti - before * echo_spacing
    rest = tr - ti - (echoes - before) * echo_spacing
    if recovery <= 0 or rest < 0:
        raise ValueError(f"the echo train ({echoes} x {echo_spacing} s) does not fit TI {ti} s and TR {tr} s")
    cosine, sine = np.cos(np.radians(flip)), np.sin(np.radians(flip))
    e = np.exp(-echo_spacing * r1)
    factor = e * cosine
    driven = (1 - e) / (1 - factor)

    # Every piece of the cycle is affine in Mz (in units of M0): Mz -> a + b Mz. Compose them and solve for the fixed
    # point just before the inversion.
    def relax(duration: float) -> tuple[np.ndarray, np.ndarray]:
        decay = np.exp(-duration * r1)
        return 1 - decay, decay

    def train(count: int) -> tuple[np.ndarray, np.ndarray]:
        decay = factor**count
        return driven * (1 - decay), decay

    offset, slope = np.zeros_like(r1), np.full_like(r1, -inversion_efficiency)
    for add, multiply in (relax(recovery), train(before)):
        offset, slope = add + multiply * offset, multiply * slope
    offset_centre, slope_centre = offset, slope
    for add, multiply in (train(echoes - before), relax(rest)):
        offset, slope = add + multiply * offset, multiply * slope
    steady = offset / (1 - slope)
    return pd * sine * np.abs(offset_centre + slope_centre * steady)


def flair_signal(
    r1: np.ndarray,
    r2: np.ndarray,
    pd: np.ndarray | float,
    *,
    tr: float,
    ti: float,
    te: float,
    inversion_efficiency: float = 1.0,
) -> np.ndarray:
    """Inversion-recovery turbo-spin-echo signal, S = PD |1 - (1 + k) exp(-TI R1) + k exp(-TR R1)| exp(-TE R2).

    Arrays of any shape, as is the signal; rates in 1/s, times in s.

    Bydder and Young, J Comput Assist Tomogr 9:659 (1985), with inversion efficiency k and long ``tr``; ``te`` is the
    effective (contrast-equivalent) echo time.
    """
    k = inversion_efficiency
    longitudinal = 1 - (1 + k) * np.exp(-ti * r1) + k * np.exp(-tr * r1)
    return pd * np.abs(longitudinal) * np.exp(-te * r2)


def csf_null_ti(r1: float, tr: float) -> float:
    """Inversion time that nulls a tissue of rate ``r1`` at repetition time ``tr``.

    ln(2 / (1 + exp(-TR R1))) / R1, the root of :func:`flair_signal` at k = 1.
    """
    return float(np.log(2.0 / (1.0 + np.exp(-tr * r1))) / r1)
