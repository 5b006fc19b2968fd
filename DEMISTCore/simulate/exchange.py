"""Two-pool Bloch-McConnell signals: free water and macromolecules that exchange magnetisation.

A pulse and a stretch of free relaxation are both affine in the longitudinal magnetisation (zf, zm) of the free and the
macromolecular pool, each in units of its own equilibrium. They are kept as 3x3 matrices on (zf, zm, 1), so that a
sequence is a product of matrices and its steady state a linear solve. Arrays broadcast; rates are in 1/s, times in s,
flip angles in degrees.

R1 is everywhere the slow rate of the pair, which is what a T1 measurement sees (Gochberg and Gore, Magn Reson Med
57:437, 2007): the published T1 stay as they are, whatever the exchange.
"""

from __future__ import annotations

import numpy as np

# Sm = 0.83 after a hard inversion pulse of 1 ms (Dortch et al., Magn Reson Med 66:1346, 2011). The saturation rate is
# proportional to the pulse's power: -ln Sm = c flip^2 / duration.
_POWER = -np.log(0.83) * 0.001 / np.pi**2


def free_r1(r1: np.ndarray, psr: np.ndarray, *, kmf: float, r1_bound: float) -> np.ndarray:
    """R1 of the free pool that makes ``r1`` the slow rate of the coupled pair.

    Of any shape; rates in 1/s, PSR as fraction.

    From the characteristic equation (R1f + kfm - R1)(R1m + kmf - R1) = kfm kmf with kfm = kmf PSR (Henkelman et al.,
    Magn Reson Med 29:759, 1993). Where both pools relax alike (``r1_bound`` = ``r1``) it is ``r1`` itself.
    """
    return r1 - kmf * psr * (r1_bound - r1) / (r1_bound + kmf - r1)


def bound_saturation(flip: np.ndarray | float, duration: float) -> np.ndarray:
    """Share of the macromolecular magnetisation left by an on-resonance pulse of ``flip`` degrees and ``duration`` s.

    Of any shape.

    Power law through Sm = 0.83 at 180 degrees in 1 ms (Dortch 2011).
    """
    return np.exp(-_POWER * np.radians(flip) ** 2 / duration)


def relaxation(duration: float, psr: np.ndarray, r1: np.ndarray, *, kmf: float, r1_bound: float) -> np.ndarray:
    """Free relaxation and exchange over ``duration``: (..., 3, 3) on (zf, zm, 1).

    The 2x2 matrix exponential in closed form: with A the rate matrix, m half its trace and
    d = sqrt(m^2 - det A), exp(-A t) = exp(-m t) (cosh(d t) I - sinh(d t) / d (A - m I)). d is real, as exchange makes
    the off-diagonal product positive.
    """
    psr, r1 = np.broadcast_arrays(np.asarray(psr, float), np.asarray(r1, float))
    free = free_r1(r1, psr, kmf=kmf, r1_bound=r1_bound)
    a, b, c, e = free + kmf * psr, -kmf * psr, -kmf, r1_bound + kmf
    mean = (a + e) / 2
    gap = np.sqrt(((a - e) / 2) ** 2 + b * c)
    slow, fast = np.exp(-(mean - gap) * duration), np.exp(-(mean + gap) * duration)
    even, odd = (slow + fast) / 2, (slow - fast) / (2 * gap)
    result = np.zeros((*psr.shape, 3, 3))
    result[..., 0, 0] = even - odd * (a - mean)
    result[..., 0, 1] = -odd * b
    result[..., 1, 0] = -odd * c
    result[..., 1, 1] = even - odd * (e - mean)
    # Towards equilibrium (1, 1): z -> 1 + E (z - 1).
    result[..., :2, 2] = 1 - result[..., :2, 0] - result[..., :2, 1]
    result[..., 2, 2] = 1
    return result


def pulse(free: np.ndarray | float, bound: np.ndarray | float, shape: tuple[int, ...] = ()) -> np.ndarray:
    """A pulse that leaves the shares ``free`` and ``bound`` of the two pools' longitudinal magnetisation.

    Returns (..., 3, 3) on (zf, zm, 1), ``...`` being the shape of all three together.
    """
    shape = np.broadcast_shapes(np.shape(free), np.shape(bound), shape)
    result = np.zeros((*shape, 3, 3))
    result[..., 0, 0], result[..., 1, 1], result[..., 2, 2] = free, bound, 1
    return result


def _steady(cycle: np.ndarray) -> np.ndarray:
    """The (..., 3) state that the affine ``cycle`` maps to itself."""
    state = np.ones(cycle.shape[:-1])
    state[..., :2] = np.linalg.solve(np.eye(2) - cycle[..., :2, :2], cycle[..., :2, 2:])[..., 0]
    return state


def mprage(
    psr: np.ndarray,
    r1: np.ndarray,
    *,
    tr: float,
    ti: float,
    echo_spacing: float,
    flip: np.ndarray | float,
    echoes: int,
    kmf: float,
    r1_bound: float,
    inversion_efficiency: float = 0.96,
    inversion_saturation: float = 0.83,
    pulse_duration: float = 0.001,
    center: float = 0.5,
) -> np.ndarray:
    """Steady-state MPRAGE signal of two pools per unit of proton density.

    ``psr`` (fraction) and ``r1`` (1/s, free water) are of any shape, as is the signal; times in s, angles in degrees.

    Timing as in :func:`~DEMISTCore.simulate.physics.mprage_signal`. The inversion leaves -``inversion_efficiency`` of
    the free and ``inversion_saturation`` of the macromolecular pool (van Gelderen et al., NeuroImage 128:85, 2016,
    on what that does to apparent inversion); every excitation turns the free pool by ``flip`` and saturates the
    macromolecular one by its power.

    Raises:
        ValueError: the train does not fit between inversion and end of the cycle.
    """
    before = round(center * echoes)
    recovery = ti - before * echo_spacing
    rest = tr - ti - (echoes - before) * echo_spacing
    if recovery <= 0 or rest < 0:
        raise ValueError(f"the echo train ({echoes} x {echo_spacing} s) does not fit TI {ti} s and TR {tr} s")

    def relax(duration: float) -> np.ndarray:
        return relaxation(duration, psr, r1, kmf=kmf, r1_bound=r1_bound)

    excitation = relax(echo_spacing) @ pulse(np.cos(np.radians(flip)), bound_saturation(flip, pulse_duration))
    to_centre = np.linalg.matrix_power(excitation, before)
    to_centre = to_centre @ relax(recovery) @ pulse(-inversion_efficiency, inversion_saturation)
    cycle = relax(rest) @ np.linalg.matrix_power(excitation, echoes - before) @ to_centre
    state = (to_centre @ _steady(cycle)[..., None])[..., 0]
    return np.sin(np.radians(flip)) * np.abs(state[..., 0])


def spoiled_echo(
    psr: np.ndarray,
    r1: np.ndarray,
    *,
    tr: float,
    flip: np.ndarray | float,
    kmf: float,
    r1_bound: float,
    pulse_duration: float = 0.001,
) -> np.ndarray:
    """Spoiled gradient echo of two pools per unit of proton density (Ernst's equation where ``psr`` is 0).

    ``psr`` (fraction) and ``r1`` (1/s, free water) are of any shape, as is the signal; times in s, angles in degrees.
    """
    excitation = pulse(np.cos(np.radians(flip)), bound_saturation(flip, pulse_duration))
    cycle = relaxation(tr, psr, r1, kmf=kmf, r1_bound=r1_bound) @ excitation
    return np.sin(np.radians(flip)) * np.abs(_steady(cycle)[..., 0])


def spin_echo(
    psr: np.ndarray,
    r1: np.ndarray,
    *,
    tr: float,
    kmf: float,
    r1_bound: float,
    flip: np.ndarray | float = 90.0,
    pulse_duration: float = 0.002,
) -> np.ndarray:
    """Spin echo of two pools without its T2 decay.

    ``psr`` (fraction) and ``r1`` (1/s, free water) are of any shape, as is the signal; times in s, angles in degrees.

    Excitation of ``flip`` and one refocusing pulse of twice that saturate the macromolecules by their power. The echo
    is proportional to sin^3 of ``flip``: sin of the excitation, sin^2 of half the refocusing angle.
    """
    bound = bound_saturation(flip, pulse_duration) * bound_saturation(2 * np.asarray(flip), pulse_duration)
    # The refocusing pulse turns what excitation left upright; TE is too short for any to come back before.
    left = np.cos(np.radians(flip)) * np.cos(2 * np.radians(flip))
    cycle = relaxation(tr, psr, r1, kmf=kmf, r1_bound=r1_bound) @ pulse(left, bound)
    return np.sin(np.radians(flip)) ** 3 * np.abs(_steady(cycle)[..., 0])


def flair(
    psr: np.ndarray,
    r1: np.ndarray,
    *,
    tr: float,
    ti: float,
    kmf: float,
    r1_bound: float,
    inversion_efficiency: float = 1.0,
    inversion_saturation: float = 0.83,
    train_saturation: float = 0.3,
) -> np.ndarray:
    """Inversion-recovery turbo spin echo of two pools without its T2 decay.

    ``psr`` (fraction) and ``r1`` (1/s, free water) are of any shape, as is the signal; times in s, angles in degrees.

    The inversion acts as in :func:`mprage`; the readout leaves no free and ``train_saturation`` of the macromolecular
    magnetisation.
    """
    shape = np.broadcast_shapes(np.shape(psr), np.shape(r1))
    to_echo = relaxation(ti, psr, r1, kmf=kmf, r1_bound=r1_bound) @ pulse(-inversion_efficiency, inversion_saturation)
    cycle = relaxation(tr - ti, psr, r1, kmf=kmf, r1_bound=r1_bound) @ pulse(0.0, train_saturation, shape) @ to_echo
    return np.abs((to_echo @ _steady(cycle)[..., None])[..., 0, 0])
