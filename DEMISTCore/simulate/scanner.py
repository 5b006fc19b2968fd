"""Scan a subject: ideal signals, then bias field, blur, slices, movement, noise and what archives do to images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..labels import WHITE
from ..volume import Volume
from ..volume.grid import triple
from . import artefacts
from .fields import pull, smooth_field
from .protocol import Protocol
from .signals import flair_image, t1_image
from .subject import Subject
from .tissues import CLASS_INDEX, EXTRA

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
    b1 = artefacts.flip_field(subject.psr.shape, protocol.b1, rng) if protocol.b1 else None
    t1w = _scan(
        subject,
        t1_image(subject, protocol, b1),
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
        flair_image(subject, protocol),
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
    "soft tissue": (0.3, 1.6),
    "skin": (0.4, 1.7),
    "bone": (0.0, 0.15),
    "marrow": (0.2, 1.8),
    "dura and sinuses": (0.15, 0.9),
    "eyes and optic nerve": (0.1, 0.5),
    "face": (0.1, 1.0),
}
_EXTRA_FLAIR = {
    "soft tissue": (0.2, 1.5),
    "skin": (0.3, 1.6),
    "bone": (0.0, 0.15),
    "marrow": (0.2, 1.5),
    "dura and sinuses": (0.1, 0.8),
    "eyes and optic nerve": (0.05, 0.6),
    "face": (0.1, 1.0),
}


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
    done = protocol.processing[which]
    image = artefacts.compressed(image, done.logarithm, peak)
    image = image * artefacts.bias_field(signal.shape, protocol.bias[which], protocol.bias_kind, rng)
    x, y, z = (size * zoom for size, zoom in zip(spacing, done.zoom))
    acquired = (x, y, z)
    order = _axis_order(slice_axis)
    sigma = [0.0, 0.0, 0.0]
    for axis, size in zip(order, acquired):
        # A Gaussian profile whose full width at half maximum is the voxel, where it is larger than the tissue's.
        sigma[axis] = max(protocol.blur[which], (size if size > 1.3 else 0.0) / 2.355)
    image = gaussian_filter(image, sigma, truncate=3)
    affine, shape = _scanner_grid(subject, acquired, slice_axis, protocol.obliquity)
    to_source = (np.linalg.inv(subject.affine) @ rigid @ affine).astype(np.float32)
    i, j, k = np.ogrid[: shape[0], : shape[1], : shape[2]]
    coordinates = np.empty((3, *shape), np.float32)
    for row, (along_i, along_j, along_k, start) in zip(coordinates, to_source):
        np.add(np.float32(along_i) * i + np.float32(along_j) * j, np.float32(along_k) * k + start, out=row)
    image = pull(image[None], coordinates)[0]
    stripped = not subject.fractions[EXTRA].any()
    outside = image <= 0.02 * reference
    if done.stripes:
        image = image * artefacts.stripe_gains(shape[2], done.stripes, rng).astype(np.float32)
    noise: np.ndarray | float = reference / protocol.snr[which]
    if protocol.g_factor:
        noise = noise * artefacts.g_factor(shape, protocol.g_factor, rng)
    image = artefacts.received(image, noise, rng, kspace=done.kspace, coils=protocol.coils)
    image = artefacts.filtered(image, done, acquired)
    if stripped:
        # Skull-stripped data sets are exactly zero outside the brain.
        image[outside] = 0
    image = artefacts.winsorized(image, done.winsor, 0.1 * reference)
    if done.interpolation != "none":
        affine, shape = _scanner_grid(subject, spacing, slice_axis, protocol.obliquity)
        image = artefacts.interpolate(image, shape, done.zoom, done.interpolation)
    # Only resampling makes negative values, and only next to what was cut away.
    least = -32768 if stripped and done.interpolation == "cubic" else 0
    return Volume(np.rint(image * (FULL_SCALE / peak)).clip(least, 32767).astype(np.float32), affine)


def _axis_order(slice_axis: int) -> list[int]:
    """Axes of the head along the image's axes."""
    return [axis for axis in range(3) if axis != slice_axis] + [slice_axis]


def _scanner_grid(
    subject: Subject, spacing: tuple[float, float, float], slice_axis: int, obliquity: tuple[float, float, float]
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Affine and shape of an image that covers the subject, slices along ``slice_axis`` of the head, LPS-like axes."""
    order = _axis_order(slice_axis)
    directions = np.zeros((3, 3))
    for column, axis in enumerate(order):
        directions[axis, column] = -1.0 if axis in (0, 1) else 1.0
    turn = _rotation(obliquity)
    extent = np.array(subject.psr.shape, float)[order]
    shape = triple(np.ceil(extent / np.array(spacing)))
    matrix = turn @ directions @ np.diag(spacing)
    centre = (subject.affine @ np.append((np.array(subject.psr.shape) - 1) / 2, 1.0))[:3]
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = centre - matrix @ ((np.array(shape) - 1) / 2)
    return affine, shape


def _rotation(degrees: Sequence[float]) -> np.ndarray:
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
