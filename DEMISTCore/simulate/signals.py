"""Ideal T1w and FLAIR of a subject: the two-pool signals of its compartments, added up, before the scanner's faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from ..labels import CSF, GREY, WHITE
from . import exchange
from .fields import pull
from .physics import flair_signal, mprage_signal, r1_from_psr
from .protocol import R1_CSF, R2_CSF, Protocol
from .subject import Subject

#: Signal per unit of proton density, without T2 decay, of PSR, R1 (1/s) and the share of the flip angle asked for.
Equation = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

# Points of the table in PSR, R1 and flip angle: linear interpolation errs by less than 0.4 % of the brightest signal.
_POINTS = (17, 33, 17)


def t1_image(subject: Subject, protocol: Protocol, b1: np.ndarray | None = None) -> np.ndarray:
    """T1w signal (X, Y, Z), float32, of ``subject``.

    Args:
        subject: the person.
        protocol: its T1w sequence.
        b1: share of the flip angle that each voxel gets (X, Y, Z); None: 1 everywhere.
    """
    te = protocol.t1_te if protocol.t1_sequence in ("se", "ir") else 0.0
    return _image(subject, protocol, _t1_equation, b1, te=te)


def flair_image(subject: Subject, protocol: Protocol) -> np.ndarray:
    """FLAIR signal (X, Y, Z), float32, of ``subject``; magnetization transfer as the protocol says."""
    return _image(subject, protocol, _flair_equation, None, te=protocol.flair_te, saturation=protocol.flair_mt)


def tabulated(equation: Equation, psr: np.ndarray, r1: np.ndarray, b1: np.ndarray) -> np.ndarray:
    """``equation`` at every voxel (n,), linearly interpolated from a table over the range of the three arguments.

    A scan has a million voxels and a signal of three smooth arguments.
    """
    axes, index = [], []
    for values, points in zip((psr, r1, b1), _POINTS):
        low, high = float(values.min()), float(values.max())
        axes.append(np.linspace(low, high, points if high - low > 1e-6 else 1))
        index.append((values - low) / max((high - low) / (points - 1), 1e-9) if axes[-1].size > 1 else 0 * values)
    table = equation(*np.meshgrid(*axes, indexing="ij")).astype(np.float32)
    return pull(table[None], np.stack(index).astype(np.float32)[:, :, None, None])[0, :, 0, 0]


#: One tissue where there is some of it: its key, then (n,) each PSR, R1 and R2 (1/s), PD, and indices of the voxels.
Compartment = tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _image(
    subject: Subject,
    protocol: Protocol,
    kind: Callable[..., Equation],
    b1: np.ndarray | None,
    *,
    te: float,
    saturation: float = 0.0,
) -> np.ndarray:
    total = np.zeros(subject.psr.size, np.float32)
    for key, psr, r1, r2, pd, where in _compartments(subject, protocol):
        if not where.size:
            continue
        flips = np.ones(where.size, np.float32) if b1 is None else b1.ravel()[where]
        signal = tabulated(kind(protocol, key), psr, r1, flips) * pd * np.exp(-saturation * psr - te * r2)
        total[where] += subject.fractions[key].ravel()[where] * signal
    return total.reshape(subject.psr.shape)


def _compartments(subject: Subject, protocol: Protocol) -> Iterator[Compartment]:
    """Yield white and grey matter and CSF where there is some of it."""
    # R2 rises a little with field; the table in tissues.py is for 3 T (Stanisz 2005).
    r2_scale = 1.0 if protocol.field_strength > 2 else 0.95
    lesion_r1 = subject.lesion_r1.ravel()
    for key, jitter in ((WHITE, protocol.jitter[0]), (GREY, protocol.jitter[1])):
        where = np.flatnonzero(subject.fractions[key] > 0.004)
        # Where tissue is lost, the water left behind relaxes more like CSF.
        water_rate = protocol.r1_water - 0.10 * subject.water.ravel()[where] + lesion_r1[where]
        psr = subject.compartment_psr[key].ravel()[where]
        if protocol.physics == "shifted":
            r1 = water_rate + protocol.r1_macro * psr + _iron(subject, protocol, key, where)
        else:
            r1 = r1_from_psr(psr, water_rate, protocol.r1_macro)
        # No tissue is slower than water itself, whatever is drawn.
        r1 = np.maximum(r1 * jitter * subject.r1_factor.ravel()[where], R1_CSF)
        yield key, psr, r1, subject.r2[key].ravel()[where] * r2_scale, subject.pd[key].ravel()[where], where
    where = np.flatnonzero(subject.fractions[CSF] > 0.004)
    ones = np.ones(where.size, np.float32)
    yield CSF, 0 * ones, R1_CSF * ones, R2_CSF * ones, ones, where


def _iron(subject: Subject, protocol: Protocol, key: int, where: np.ndarray) -> np.ndarray | float:
    """R1 (1/s) that iron adds in the shifted physics: one value each for white matter, cortex and deep grey."""
    white, cortex, deep = protocol.iron
    if key == WHITE:
        return white
    return np.where(subject.dseg.ravel()[where] == 4, deep, cortex)


def _t1_equation(p: Protocol, key: int) -> Equation:
    pools = {"kmf": p.kmf[0 if key == WHITE else 1], "r1_bound": p.r1_bound}
    # T2* decay is left out: at TE of 2-5 ms it is a few per cent and nearly the same for every tissue.
    if p.t1_sequence == "mprage":
        if p.physics == "shifted":
            one_pool = partial(
                mprage_signal, tr=p.t1_tr, ti=p.t1_ti, echo_spacing=p.t1_echo_spacing, echoes=p.t1_echoes
            )
            return lambda psr, r1, b1: one_pool(r1, 1.0, flip=p.t1_flip * b1)
        two_pools = partial(
            exchange.mprage,
            tr=p.t1_tr,
            ti=p.t1_ti,
            echo_spacing=p.t1_echo_spacing,
            echoes=p.t1_echoes,
            kmf=pools["kmf"],
            r1_bound=p.r1_bound,
            inversion_saturation=p.inversion_saturation,
            pulse_duration=p.pulse_duration,
        )
        return lambda psr, r1, b1: two_pools(psr, r1, flip=p.t1_flip * b1)
    # The shifted physics is the limit of fast exchange: one pool.
    share = 0.0 if p.physics == "shifted" else 1.0
    if p.t1_sequence == "spgr":
        return lambda psr, r1, b1: exchange.spoiled_echo(
            share * psr, r1, tr=p.t1_tr, flip=p.t1_flip * b1, pulse_duration=p.pulse_duration, **pools
        )
    if p.t1_sequence == "ir":
        saturation = {"inversion_saturation": p.inversion_saturation}
        return lambda psr, r1, b1: exchange.flair(share * psr, r1, tr=p.t1_tr, ti=p.t1_ti, **pools, **saturation)
    return lambda psr, r1, b1: exchange.spin_echo(share * psr, r1, tr=p.t1_tr, flip=90.0 * b1, **pools)


def _flair_equation(p: Protocol, key: int) -> Equation:
    if p.physics == "shifted":
        return lambda psr, r1, b1: flair_signal(r1, np.zeros_like(r1), 1.0, tr=p.flair_tr, ti=p.flair_ti, te=0.0)
    return lambda psr, r1, b1: exchange.flair(
        psr,
        r1,
        tr=p.flair_tr,
        ti=p.flair_ti,
        kmf=p.kmf[0 if key == WHITE else 1],
        r1_bound=p.r1_bound,
        inversion_saturation=p.inversion_saturation,
    )
