"""What scanners, reconstructions and archives do to an image: k-space, interpolation, stripes, filters, clipping.

Arrays are images (X, Y, Z), float32 unless said otherwise, on the scanner's grid, slices along the last axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .fields import smooth_field


@dataclass(frozen=True)
class Processing:
    """What happens to one image on its way to disk; the default leaves it as it is.

    ``kspace``: share of k-space that was sampled along each image axis, the rest being zero-filled. ``zoom``: acquired
    over written voxel size along each axis, and ``interpolation`` (``none``, ``linear``, ``cubic``) what fills in.
    ``stripes``: half the difference in gain between even and odd slices. ``filter``: ``none``, ``sharpen``,
    ``smooth`` or, in the shifted physics, ``median``, ``diffusion``, ``hann``, with ``strength`` (its share) and
    ``filter_mm`` (its width). ``winsor``: share of the brightest tissue voxels that is clipped. ``logarithm``: how
    much a logarithm compresses bright values (0: not at all).
    """

    kspace: tuple[float, float, float] = (1.0, 1.0, 1.0)
    zoom: tuple[float, float, float] = (1.0, 1.0, 1.0)
    interpolation: str = "none"
    stripes: float = 0.0
    filter: str = "none"
    strength: float = 0.0
    filter_mm: float = 0.7
    winsor: float = 0.0
    logarithm: float = 0.0


def truncate_kspace(image: np.ndarray, shares: tuple[float, float, float]) -> np.ndarray:
    """Keep the inner ``shares`` of the spatial frequencies along each axis: Gibbs ringing at every edge.

    (X, Y, Z), in any unit; ``shares`` are fractions.

    Symmetric about zero frequency, so that a real image stays real.
    """
    from scipy import fft

    for axis, share in enumerate(shares):
        size = image.shape[axis]
        cut = int(share * size / 2)
        if share >= 1 or cut >= size // 2:
            continue
        spectrum = fft.rfft(image, axis=axis)
        spectrum[tuple(slice(cut + 1, None) if k == axis else slice(None) for k in range(3))] = 0
        image = fft.irfft(spectrum, n=size, axis=axis)
    return image


def interpolate(image: np.ndarray, shape: tuple[int, int, int], zoom: tuple[float, ...], kind: str) -> np.ndarray:
    """``image`` on a finer grid of ``shape`` about the same centre, voxels smaller by ``zoom`` along each axis.

    ``kind``: ``linear``, or ``cubic`` for the convolution kernel of Keys (IEEE Trans Acoust Speech 29:1153, 1981),
    which overshoots at edges: at the border of a skull-stripped brain values get slightly negative.
    """
    for axis, (size, factor) in enumerate(zip(shape, zoom)):
        old = image.shape[axis]
        if factor == 1 and size == old:
            continue
        where = np.clip((np.arange(size) - (size - 1) / 2) / factor + (old - 1) / 2, 0, old - 1)
        weights = np.zeros((size, old), np.float32)
        base = np.floor(where).astype(int)
        for tap in (-1, 0, 1, 2):
            d = np.abs(where - base - tap)
            if kind == "linear":
                weight = np.maximum(1 - d, 0)
            else:
                far = np.where(d < 2, ((2.5 - 0.5 * d) * d - 4) * d + 2, 0)
                weight = np.where(d < 1, (1.5 * d - 2.5) * d**2 + 1, far)
            np.add.at(weights, (np.arange(size), np.clip(base + tap, 0, old - 1)), weight)
        image = np.moveaxis(np.tensordot(weights, image, (1, axis)), 0, axis)
    return np.ascontiguousarray(image, dtype=np.float32)


def stripe_gains(slices: int, size: float, rng: np.random.Generator) -> np.ndarray:
    """Gain of each slice (n,) of an interleaved acquisition: 1 + ``size`` and 1 - ``size`` in turn, a fifth of it more
    at random.
    """
    sign = 1.0 if rng.random() < 0.5 else -1.0
    return 1 + size * (sign * (-1.0) ** np.arange(slices) + 0.2 * rng.standard_normal(slices))


def filtered(image: np.ndarray, processing: Processing, spacing: tuple[float, float, float]) -> np.ndarray:
    """The vendor's filter. In-plane only where slices are thicker than 2 mm, as vendors do.

    (X, Y, Z), in any unit; ``spacing`` in mm.
    """
    from scipy.ndimage import convolve1d, gaussian_filter, median_filter

    kind, strength = processing.filter, processing.strength
    flat = spacing[2] > 2
    sigma = [0.0 if flat and axis == 2 else processing.filter_mm / spacing[axis] for axis in range(3)]
    if kind in ("sharpen", "smooth"):
        soft = gaussian_filter(image, sigma, truncate=2.5)
        # Unsharp masking adds what smoothing takes away.
        return image + strength * (image - soft) if kind == "sharpen" else image + strength * (soft - image)
    if kind == "median":
        return image + strength * (median_filter(image, (3, 3, 1 if flat else 3)) - image)
    if kind == "hann":
        # A raised-cosine window over k-space, 1 - s + s cos^2(pi f), is this three-tap kernel.
        for axis in range(2 if flat else 3):
            image = convolve1d(image, [strength / 4, 1 - strength / 2, strength / 4], axis=axis, mode="wrap")
        return image
    if kind == "diffusion":
        return _diffused(image, strength, 2 if flat else 3)
    return image


def _diffused(image: np.ndarray, strength: float, axes: int, steps: int = 4) -> np.ndarray:
    """Anisotropic diffusion (Perona and Malik, IEEE Trans Pattern Anal 12:629, 1990): smooths, but not over edges."""
    edge = 0.12 * float(np.percentile(image, 95)) + 1e-12
    for _ in range(steps):
        flow = np.zeros_like(image)
        for axis in range(axes):
            step = np.diff(image, axis=axis)
            step = step * np.exp(-((step / edge) ** 2))
            pad = [(0, 0)] * 3
            pad[axis] = (0, 1)
            flow += np.pad(step, pad)
            pad[axis] = (1, 0)
            flow -= np.pad(step, pad)
        image = image + strength * flow / (2 * axes)
    return image


def winsorized(image: np.ndarray, share: float, least: float) -> np.ndarray:
    """Clip the brightest ``share`` of the voxels above ``least`` to the value where they begin.

    Of any shape and unit; ``share`` is a fraction.
    """
    bright = image[image > least]
    if share <= 0 or not bright.size:
        return image
    return np.minimum(image, np.quantile(bright[:: max(1, bright.size // 200_000)], 1 - share))


def compressed(image: np.ndarray, amount: float, peak: float) -> np.ndarray:
    """log(1 + c x) / log(1 + c) of x = ``image`` / ``peak``, times ``peak``: a vendor's display curve.

    Of any shape; ``peak`` in the unit of ``image``.
    """
    if amount <= 0:
        return image
    return peak * np.log1p(amount * np.maximum(image, 0) / peak) / np.log1p(amount)


def received(
    signal: np.ndarray,
    noise: np.ndarray | float,
    rng: np.random.Generator,
    *,
    kspace: tuple[float, float, float] = (1.0, 1.0, 1.0),
    coils: int = 1,
) -> np.ndarray:
    """Magnitude image of ``signal`` (float32) with the ringing and the correlated noise of a truncated k-space.

    ``signal`` (X, Y, Z); noise in its unit.

    Root sum of squares over ``coils`` channels: Rician noise for one, noncentral chi for more (Gudbjartsson and Patz,
    Magn Reson Med 34:910, 1995; Constantinides et al., Magn Reson Med 38:852, 1997). ``signal`` is the combined one,
    ``noise`` the SD of each real channel in the image, whatever share of k-space it comes from.
    """
    shape = signal.shape
    kept = np.prod([(2 * int(s * n / 2) + 1) / n if s < 1 else 1.0 for s, n in zip(kspace, shape)])
    # One after the other and in place: a scan has ten million voxels.
    added = rng.standard_normal(shape, dtype=np.float32)
    added *= noise / np.sqrt(kept)
    added += signal
    square = truncate_kspace(added, kspace)
    square *= square
    added = rng.standard_normal(shape, dtype=np.float32)
    added *= noise / np.sqrt(kept)
    imaginary = truncate_kspace(added, kspace)
    imaginary *= imaginary
    square += imaginary
    if coils > 1:
        # The other 2 (n - 1) real channels hold noise alone: a chi-square of as many degrees of freedom.
        square += noise**2 * 2 * rng.standard_gamma(coils - 1, shape).astype(np.float32)
    return np.sqrt(square, out=square)


def flip_field(shape: tuple[int, int, int], size: float, rng: np.random.Generator) -> np.ndarray:
    """Share of the flip angle asked for that each voxel gets (float32): the dome of dielectric resonance and more.

    Of ``shape`` (X, Y, Z).

    At 3 T the head's centre gets more and its periphery less, by up to a quarter each (Wang et al., Magn Reson Med
    53:408, 2005; Boudreau et al., J Magn Reson Imaging 46:1673, 2017). ``size``: how far, 0.2 for 3 T.
    """
    if size <= 0:
        return np.ones(shape, np.float32)
    axes = [np.linspace(-1, 1, n, dtype=np.float32) ** 2 for n in shape]
    radius = axes[0][:, None, None] + axes[1][None, :, None] + axes[2][None, None, :]
    dome = 1 - 1.9 * radius  # about 0.2 on average in the brain
    field = 1 + size * (0.65 * np.clip(dome, -1.2, 1) + 0.35 * smooth_field(shape, 45.0, rng)) + 0.04 * rng.normal()
    return np.clip(field, 0.5, 1.5).astype(np.float32)


def bias_field(shape: tuple[int, int, int], size: float, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Receive field of log-SD ``size``: ``random`` (smooth, 45-90 mm), ``polynomial`` (third order) or ``coils``
    (Gaussian sensitivities around the head).
    """
    if kind == "random":
        return np.exp(size * smooth_field(shape, float(rng.uniform(45, 90)), rng))
    axes = np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32) for n in shape], indexing="ij", sparse=True)
    log = np.zeros(shape, np.float32)
    if kind == "polynomial":
        for powers in np.ndindex(4, 4, 4):
            if 0 < sum(powers) <= 3:
                term = rng.normal() * axes[0] ** powers[0] * axes[1] ** powers[1] * axes[2] ** powers[2]
                log = log + term.astype(np.float32)
    else:
        square = np.zeros(shape, np.float32)
        for _ in range(int(rng.integers(6, 13))):
            direction = rng.normal(size=3)
            centre = 1.2 * direction / np.linalg.norm(direction)
            distance = sum((a - c) ** 2 for a, c in zip(axes, centre))
            square += (np.exp(-distance / rng.uniform(1.0, 2.5)) * rng.uniform(0.5, 1)).astype(np.float32)
        log = np.log(square + 0.05)
    inner = log[tuple(slice(n // 5, n - n // 5) for n in shape)]
    return np.exp(size * (log - inner.mean()) / max(float(inner.std()), 1e-6)).clip(0.2, 5)


def g_factor(shape: tuple[int, int, int], size: float, rng: np.random.Generator) -> np.ndarray:
    """Noise amplification of parallel imaging (float32): 1 at the border, 1 + ``size`` near the centre.

    Of ``shape`` (X, Y, Z).
    """
    axes = np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32) for n in shape], indexing="ij", sparse=True)
    centre = rng.uniform(-0.3, 0.3, 3)
    distance = sum((a - c) ** 2 for a, c in zip(axes, centre))
    return (1 + size * np.exp(-distance / rng.uniform(0.2, 0.5))).astype(np.float32)
