"""Latent to image, whole or in overlapping tiles that leave no seam.

A decoder of convolutions sees only so far: an output voxel depends on latent voxels within :func:`reach` of it. A tile
that is cut with that much margin all round, decoded, and stripped of the margin again is therefore what decoding the
whole volume gives at that place, up to rounding, and needs no blending. Two things could break this:

- Padding: the margin ends where the volume ends, so tiles at the border see the same zeros as the whole volume does.
- GroupNorm takes its statistics over all it is given. :func:`decode` finds them for the whole volume first, one
  normalization after the other, by running the tiles up to it; then tiles are decoded with these statistics fixed.
  With n normalizations the work is that of up to n partial decodings more, for networks that have GroupNorm (the
  published BraTS autoencoder); the shipped ones normalize per position and need none of it. Such tiles run in
  float32: in bf16 the two ways round differently, by more than a seam may show.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from .devices import autocast, available_memory

Box = tuple[slice, slice, slice]

#: Share of the free memory that decoding may take.
MEMORY_SHARE = 0.7
#: Tensors of the widest kind alive at once in a decoder's last level (measured: 2.9 for fp32 and bf16).
_ALIVE = 3.5


def reach(autoencoder: nn.Module) -> int:
    """How far, in latent voxels, an output voxel can see: the margin that tiles need."""
    radius, voxel = 0.0, 1.0
    for module in _layers(autoencoder):
        if isinstance(module, nn.Upsample):
            voxel /= _zoom(module)
        else:
            radius += voxel * (module.kernel_size[0] // 2)
    # Nearest-neighbour upsampling stays within its own voxel, whose centre may be half a latent voxel away.
    return math.ceil(radius + 0.5)


def factor(autoencoder: nn.Module) -> int:
    """Output voxels per latent voxel along each axis."""
    return _fold(autoencoder) * math.prod(_zoom(m) for m in _layers(autoencoder) if isinstance(m, nn.Upsample))


def decode_memory(autoencoder: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """About how many bytes decoding latents of extents ``shape`` (x, y, z) takes at its peak."""
    widest, zoom = 0, 1
    for module in _layers(autoencoder):
        if isinstance(module, nn.Upsample):
            zoom *= _zoom(module)
        else:
            widest = max(widest, zoom**3 * max(module.in_channels, module.out_channels))
    alive = _ALIVE + 1 if _group_norms(autoencoder) else _ALIVE  # see _accurate
    # The last layer, what is added to it, and the result: float32, a few copies of the image.
    image = 24 * factor(autoencoder) ** 3
    return int(math.prod(shape) * (alive * widest * torch.finfo(dtype).bits // 8 + image))


def encode_memory(autoencoder: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """About how many bytes encoding an image of extents ``shape`` (X, Y, Z) takes at its peak."""
    widest, voxels = 0.0, _fold(autoencoder) ** -3.0
    for module in autoencoder.encoder.modules():
        if isinstance(module, nn.Conv3d):
            widest = max(widest, voxels * module.in_channels)
            voxels /= math.prod(module.stride)
            widest = max(widest, voxels * module.out_channels)
    return int(math.prod(shape) * _ALIVE * widest * torch.finfo(dtype).bits // 8)


def _fold(autoencoder: nn.Module) -> int:
    """Edge of the voxel blocks folded into channels; 1 for MONAI's own networks."""
    return getattr(autoencoder, "fold", 1)


def _layers(autoencoder: nn.Module) -> list[nn.Conv3d | nn.Upsample]:
    return [m for m in autoencoder.decoder.modules() if isinstance(m, (nn.Conv3d, nn.Upsample))]


def _group_norms(autoencoder: nn.Module) -> list[nn.GroupNorm]:
    return [m for m in autoencoder.decoder.modules() if isinstance(m, nn.GroupNorm)]


def _zoom(module: nn.Upsample) -> int:
    zoom = module.scale_factor
    return round(zoom[0] if isinstance(zoom, tuple) else zoom)


def plan_tiles(shape: tuple[int, ...], margin: int, fits: Callable[[tuple[int, ...]], bool]) -> list[tuple[Box, Box]]:
    """Cut latents of extents ``shape`` into cores, each with the margin it is decoded with.

    Of all cuts into boxes whose tiles (core and margin) ``fits`` accepts, the one that decodes fewest voxels. If none
    fits, the cut with the smallest tiles (cores are never nearly all margin).

    Returns:
        (core, tile) per tile, as slices of the latent volume; one whole tile if all of it fits.
    """
    axes = []
    for n in shape:
        cores = sorted({math.ceil(n / pieces) for pieces in range(1, n + 1)} - set(range(1, max(2, margin // 2))) | {n})
        axes.append([_cut(n, core, margin) for core in cores])
    largest = [[max(t.stop - t.start for _, t in cut) for cut in axis] for axis in axes]
    total = [[sum(t.stop - t.start for _, t in cut) for cut in axis] for axis in axes]
    choices = list(itertools.product(*(range(len(axis)) for axis in axes)))
    fitting = [c for c in choices if fits(tuple(size[i] for size, i in zip(largest, c)))]

    def cost(choice: tuple[int, ...]) -> tuple[int, int]:
        """Latent voxels decoded, number of tiles."""
        return math.prod(t[i] for t, i in zip(total, choice)), math.prod(len(a[i]) for a, i in zip(axes, choice))

    def peak(choice: tuple[int, ...]) -> int:
        return math.prod(size[i] for size, i in zip(largest, choice))

    best = min(fitting, key=cost) if fitting else min(choices, key=lambda choice: (peak(choice), *cost(choice)))
    cuts = itertools.product(*(axis[i] for axis, i in zip(axes, best)))
    return [((x[0], y[0], z[0]), (x[1], y[1], z[1])) for x, y, z in cuts]


def _cut(n: int, core: int, margin: int) -> list[tuple[slice, slice]]:
    """(core, tile) along one axis of length ``n``."""
    return [
        (slice(a, min(a + core, n)), slice(max(a - margin, 0), min(a + core + margin, n))) for a in range(0, n, core)
    ]


@torch.no_grad()
def decode(
    autoencoder: nn.Module,
    z: Tensor,
    *,
    dtype: torch.dtype = torch.float32,
    memory: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Tensor:
    """Decode latents, in tiles where the whole would not fit into memory.

    Args:
        autoencoder: MONAI's ``AutoencoderKL`` (or of its build), in evaluation mode.
        z: (B, L, x, y, z), unscaled, on the autoencoder's device; samples are decoded one after the other.
        dtype: precision of all layers but the last, which is always float32: its output is not rounded.
        memory: bytes that decoding may take; by default 70 % of what is free on the device.
        progress: called with the share of the work that is done; may raise to stop.

    Returns:
        (B, C, X, Y, Z), float32, on the CPU.
    """
    memory = int(MEMORY_SHARE * available_memory(z.device)) if memory is None else memory
    shape, margin = tuple(z.shape[2:]), reach(autoencoder)
    if _group_norms(autoencoder) and decode_memory(autoencoder, shape, dtype) > memory:
        dtype = torch.float32
    tiles = plan_tiles(shape, margin, lambda size: decode_memory(autoencoder, size, dtype) <= memory)
    images = []
    for i, sample in enumerate(z.split(1)):
        images.append(_decode_one(autoencoder, sample, tiles, dtype, _part(progress, i, len(z))))
    return torch.cat(images)


def _part(progress: Callable[[float], None] | None, i: int, n: int) -> Callable[[float], None]:
    """What sample ``i`` of ``n`` tells of its own work, told of all."""

    def report(done: float) -> None:
        if progress:
            progress((i + done) / n)

    return report


def _decode_one(
    autoencoder: nn.Module,
    z: Tensor,
    tiles: list[tuple[Box, Box]],
    dtype: torch.dtype,
    report: Callable[[float], None],
) -> Tensor:
    norms = _group_norms(autoencoder)
    if len(tiles) == 1:
        with _replaced(norms):
            image = _run(autoencoder, z, dtype)
        report(1.0)
        return image.cpu()
    passes, zoom, image = len(norms) + 1, factor(autoencoder), None
    with _replaced(norms):
        for done, norm in enumerate(norms):
            sums = []
            for i, (core, tile) in enumerate(tiles):
                sums.append(_measure(norm, partial(_run, autoencoder, z[(..., *tile)], dtype), core, tile))
                report((done + (i + 1) / len(tiles)) / passes)
            _fix(norm, sum(sums))
        for i, (core, tile) in enumerate(tiles):
            piece = _run(autoencoder, z[(..., *tile)], dtype)
            if image is None:
                image = torch.empty(1, piece.shape[1], *(zoom * n for n in z.shape[2:]))
            image[(..., *_scaled(core, zoom))] = piece[(..., *_scaled(_within(core, tile), zoom))].cpu()
            report((passes - 1 + (i + 1) / len(tiles)) / passes)
    return image


def _run(autoencoder: nn.Module, z: Tensor, dtype: torch.dtype) -> Tensor:
    """``autoencoder.decode``, with the decoder but for its last layer in ``dtype`` and all else in float32."""

    def mixed(x: Tensor) -> Tensor:
        *blocks, last = autoencoder.decoder.blocks
        with autocast(z.device, dtype):
            for block in blocks:
                x = block(x)
        return last(x.float())

    autoencoder.decoder.forward = mixed
    try:
        return autoencoder.decode(_channels_last(z.float()))
    finally:
        del autoencoder.decoder.forward


def _channels_last(x: Tensor) -> Tensor:
    """The faster order for 3-D convolutions where it is supported."""
    return x.contiguous(memory_format=torch.channels_last_3d) if x.device.type != "mps" else x.contiguous()


def _within(core: Box, tile: Box) -> Box:
    x, y, z = (slice(c.start - t.start, c.stop - t.start) for c, t in zip(core, tile))
    return x, y, z


def _scaled(box: Box, zoom: int) -> Box:
    x, y, z = (slice(s.start * zoom, s.stop * zoom) for s in box)
    return x, y, z


# GroupNorm, replaced for the time of a decoding ----------------------------------------------------------------------


@contextmanager
def _replaced(norms: list[nn.GroupNorm]) -> Iterator[None]:
    """Let each normalization compute accurately; afterwards they are what they were."""
    try:
        for norm in norms:
            norm.forward = partial(_accurate, norm)
        yield
    finally:
        for norm in norms:
            norm.__dict__.pop("forward", None)


def _accurate(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """GroupNorm of a contiguous copy.

    On the CPU torch (2.13 and before) sums channels-last input one by one in float32: over the five million voxels of
    a head that is wrong in the third digit. In contiguous order it sums in a tree, accurate to the last.
    """
    return functional.group_norm(x.contiguous(), norm.num_groups, norm.weight, norm.bias, norm.eps)


class _Measured(Exception):
    """Raised by a normalization that is being measured: the rest of the network is not needed."""


def _measure(norm: nn.GroupNorm, run: Callable[[], Tensor], core: Box, tile: Box) -> Tensor:
    """Run a tile up to ``norm``; return (sum, sum of squares, count) of its core per group, float64, (3, groups)."""
    found = []

    def stop(x: Tensor) -> Tensor:
        box = _scaled(_within(core, tile), x.shape[2] // (tile[0].stop - tile[0].start))
        groups = x[(0, slice(None), *box)].float().reshape(norm.num_groups, -1)
        # In blocks, so that float64 never needs a copy of the whole.
        for block in groups.split(1 << 20, dim=1):
            block = block.double() if x.device.type != "mps" else block.cpu().double()
            count = torch.full_like(block[:, 0], block.shape[1])
            found.append(torch.stack([block.sum(1), (block * block).sum(1), count]).cpu())
        raise _Measured

    norm.forward = stop
    with suppress(_Measured):
        run()
    return torch.stack(found).sum(0)


def _fix(norm: nn.GroupNorm, sums: Tensor) -> None:
    """From now on ``norm`` uses these statistics: a batch normalization with fixed mean and variance."""
    total, squares, count = sums
    mean = total / count
    variance = (squares / count - mean**2).clamp_min(0)
    each = norm.num_channels // norm.num_groups
    mean, variance = (v.repeat_interleave(each).float().to(norm.weight.device) for v in (mean, variance))
    norm.forward = lambda x: functional.batch_norm(x, mean, variance, norm.weight, norm.bias, False, 0.0, norm.eps)
