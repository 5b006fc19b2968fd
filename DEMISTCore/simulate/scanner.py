"""Scan a subject: signals by compartment, then bias field, blur, slices, movement, Rician noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..volume import Volume
from .fields import pull, smooth_field
from .physics import flair_signal, mprage_signal, r1_from_psr
from .protocol import R1_CSF, R2_CSF, Protocol
from .subject import Subject
from .tissues import CLASS_INDEX, CSF, EXTRA, GREY, WHITE

FULL_SCALE = 1000.0  # brightest brain tissue of a noise-free scan lands near this value


@dataclass(frozen=True, eq=False)
class Scan:
    """T1w and FLAIR of one subject on one scanner, each on its own grid, and the protocol that made them."""

    t1w: Volume
    flair: Volume
    protocol: Protocol


def acquire(subject: Subject, protocol: Protocol, rng: np.random.Generator) -> Scan:
    """Scan ``subject`` with ``protocol``; ``rng`` draws noise, fields and extra-cerebral signals."""
    rigid = _rigid(protocol.misregistration, subject)
    t1w = _scan(
        subject,
        _t1_signal(subject, protocol),
        _EXTRA_T1,
        protocol.t1_spacing,
        protocol.t1_slice_axis,
        protocol,
        0,
        np.eye(4),
        rng,
    )
    flair = _scan(
        subject,
        _flair_signal(subject, protocol),
        _EXTRA_FLAIR,
        protocol.flair_spacing,
        protocol.flair_slice_axis,
        protocol,
        1,
        rigid,
        rng,
    )
    return Scan(t1w, flair, protocol)


# Signals of extra-cerebral tissue relative to white matter: wide uniform ranges, since nothing is measured there
# and the wider they are, the less the network can lean on them (Billot et al. 2023).
_EXTRA_T1 = {
    "soft tissue": (0.3, 1.6), "skin": (0.4, 1.7), "bone": (0.0, 0.15), "marrow": (0.2, 1.8),
    "dura and sinuses": (0.15, 0.9), "eyes and optic nerve": (0.1, 0.5), "face": (0.1, 1.0),
}  # fmt: skip
_EXTRA_FLAIR = {
    "soft tissue": (0.2, 1.5), "skin": (0.3, 1.6), "bone": (0.0, 0.15), "marrow": (0.2, 1.5),
    "dura and sinuses": (0.1, 0.8), "eyes and optic nerve": (0.05, 0.6), "face": (0.1, 1.0),
}  # fmt: skip


def _compartments(subject: Subject, protocol: Protocol, saturation: float):
    """Yield (fraction, r1, r2, pd, where) of white and grey matter and CSF on the voxels that hold some of it.

    ``saturation``: exponent per unit PSR of the signal lost to magnetization transfer.
    """
    # R2 rises a little with field; the table in tissues.py is for 3 T (Stanisz 2005).
    r2_scale = 1.0 if protocol.field_strength > 2 else 0.95
    for key, jitter in ((WHITE, protocol.jitter[0]), (GREY, protocol.jitter[1])):
        where = np.flatnonzero(subject.fractions[key] > 0.004)
        # Where tissue is lost, the water left behind relaxes more like CSF.
        water_rate = protocol.r1_water - 0.10 * subject.water.flat[where]
        psr = subject.compartment_psr[key].flat[where]
        r1 = r1_from_psr(psr, water_rate, protocol.r1_macro) * jitter * subject.r1_factor.flat[where]
        yield (
            subject.fractions[key].flat[where],
            r1,
            subject.r2[key].flat[where] * r2_scale,
            subject.pd[key].flat[where] * np.exp(-saturation * psr),
            where,
        )
    where = np.flatnonzero(subject.fractions[CSF] > 0.004)
    ones = np.ones(where.size, np.float32)
    yield subject.fractions[CSF].flat[where], R1_CSF * ones, R2_CSF * ones, ones, where


def _sum_signals(subject: Subject, protocol: Protocol, equation, saturation: float = 0.0) -> np.ndarray:
    total = np.zeros(subject.psr.size, np.float32)
    for fraction, r1, r2, pd, where in _compartments(subject, protocol, saturation):
        total[where] += (fraction * equation(r1, r2, pd)).astype(np.float32)
    return total.reshape(subject.psr.shape)


def _t1_signal(subject: Subject, p: Protocol) -> np.ndarray:
    if p.t1_sequence == "mprage":
        return _sum_signals(
            subject,
            p,
            lambda r1, r2, pd: mprage_signal(
                r1, pd, tr=p.t1_tr, ti=p.t1_ti, echo_spacing=p.t1_echo_spacing, flip=p.t1_flip, echoes=p.t1_echoes
            ),
        )
    if p.t1_sequence == "spgr":
        cosine, sine = np.cos(np.radians(p.t1_flip)), np.sin(np.radians(p.t1_flip))
        # Ernst and Anderson, Rev Sci Instrum 37:93 (1966)
        return _sum_signals(
            subject,
            p,
            lambda r1, r2, pd: pd * sine * (1 - np.exp(-p.t1_tr * r1)) / (1 - cosine * np.exp(-p.t1_tr * r1)),
        )
    return _sum_signals(subject, p, lambda r1, r2, pd: pd * (1 - np.exp(-p.t1_tr * r1)) * np.exp(-p.t1_te * r2))


def _flair_signal(subject: Subject, p: Protocol) -> np.ndarray:
    return _sum_signals(
        subject,
        p,
        lambda r1, r2, pd: flair_signal(r1, r2, pd, tr=p.flair_tr, ti=p.flair_ti, te=p.flair_te),
        saturation=p.flair_mt,
    )


def _scan(
    subject: Subject,
    signal: np.ndarray,
    extra_ranges: dict[str, tuple[float, float]],
    spacing: tuple[float, float, float],
    slice_axis: int,
    protocol: Protocol,
    which: int,
    rigid: np.ndarray,
    rng: np.random.Generator,
) -> Volume:
    """From ideal signal on the subject's grid to an image on the scanner's grid."""
    from scipy.ndimage import gaussian_filter

    white = subject.fractions[WHITE] > 0.9
    reference = float(np.median(signal[white])) if white.any() else float(signal.max())
    peak = max(reference, float(np.percentile(signal[subject.brain], 99)))
    # A mild power law stands for vendor filters and the magnitude's non-linearities; it widens the contrast range.
    image = peak * (np.maximum(signal, 0) / peak) ** protocol.gamma[which]
    extra = subject.fractions[EXTRA]
    if extra.any():
        texture = 1 + 0.25 * smooth_field(signal.shape, 4.0, rng)
        for name, (low, high) in extra_ranges.items():
            value = rng.uniform(low, high) * reference
            here = subject.extra == CLASS_INDEX[name]
            image[here] += (extra[here] * value * np.maximum(texture[here], 0)).astype(np.float32)
    image = image * np.exp(protocol.bias[which] * smooth_field(signal.shape, float(rng.uniform(45, 90)), rng))
    sigma = [protocol.blur[which]] * 3
    # A Gaussian slice profile whose full width at half maximum is the slice thickness.
    sigma[slice_axis] = max(sigma[slice_axis], (spacing[2] if spacing[2] > 1.3 else 0.0) / 2.355)
    image = gaussian_filter(image, sigma, truncate=3)
    affine, shape = _scanner_grid(subject, spacing, slice_axis, protocol.obliquity)
    to_source = np.linalg.inv(subject.affine) @ rigid @ affine
    index = np.stack(np.meshgrid(*[np.arange(n, dtype=np.float32) for n in shape], indexing="ij"))
    coordinates = np.tensordot(to_source[:3, :3].astype(np.float32), index, 1) + to_source[:3, 3].reshape(3, 1, 1, 1)
    image = pull(image[None], coordinates.astype(np.float32))[0]
    noise = reference / protocol.snr[which]
    if not subject.fractions[EXTRA].any():
        # Skull-stripped data sets are exactly zero outside the brain.
        outside = image <= 0.02 * reference
    real = image + noise * rng.standard_normal(shape, dtype=np.float32)
    imaginary = noise * rng.standard_normal(shape, dtype=np.float32)
    image = np.sqrt(real**2 + imaginary**2)  # Rician: Gudbjartsson and Patz, Magn Reson Med 34:910 (1995)
    if not subject.fractions[EXTRA].any():
        image[outside] = 0
    return Volume(np.rint(image * (FULL_SCALE / peak)).clip(0, 32767).astype(np.float32), affine)


def _scanner_grid(
    subject: Subject, spacing: tuple[float, float, float], slice_axis: int, obliquity: tuple[float, float, float]
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Affine and shape of an image that covers the subject, slices along ``slice_axis`` of the head, LPS-like axes."""
    order = [axis for axis in range(3) if axis != slice_axis] + [slice_axis]
    directions = np.zeros((3, 3))
    for column, axis in enumerate(order):
        directions[axis, column] = -1.0 if axis in (0, 1) else 1.0
    turn = _rotation(obliquity)
    extent = np.array(subject.psr.shape, float)[order]
    shape = tuple(int(n) for n in np.ceil(extent / np.array(spacing)))
    matrix = turn @ directions @ np.diag(spacing)
    centre = (subject.affine @ np.append((np.array(subject.psr.shape) - 1) / 2, 1.0))[:3]
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = centre - matrix @ ((np.array(shape) - 1) / 2)
    return affine, shape  # type: ignore[return-value]


def _rotation(degrees) -> np.ndarray:
    """Rotation matrix from three angles in degrees about x, y, z."""
    x, y, z = np.radians(np.asarray(degrees, float))
    rx = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    ry = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    rz = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return rz @ ry @ rx


def _rigid(parameters: tuple[float, ...], subject: Subject) -> np.ndarray:
    """World-space rigid transform about the head's centre from (x, y, z in mm, three angles in degrees)."""
    centre = (subject.affine @ np.append((np.array(subject.psr.shape) - 1) / 2, 1.0))[:3]
    rotation = _rotation(parameters[3:])
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = centre - rotation @ centre + np.array(parameters[:3])
    return matrix
