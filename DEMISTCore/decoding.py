"""Latent to image, whole or in overlapping tiles that leave no seam.

A decoder of convolutions sees only so far: an output voxel depends on latent voxels within :func:`reach` of it. A tile
that is cut with that much margin all round, decoded, and stripped of the margin again is therefore what decoding the
whole volume gives at that place, up to rounding, and needs no blending. Two things could break this:

- Padding: the margin ends where the volume ends, so tiles at the border see the same zeros as the whole volume does.
- GroupNorm takes its statistics over all it is given. :func:`decode` finds them for the whole volume first, one
  normalisation after the other, by running the tiles up to it; then tiles are decoded with these statistics fixed.
  With n normalisations the work is that of up to n partial decodings more, for networks that have GroupNorm (the
  published BraTS autoencoder); the shipped ones normalise per position and need none of it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
    radius, scale = 0.0, 1.0
    for module in _leaves(autoencoder.decoder):
        if isinstance(module, nn.Upsample):
            scale /= module.scale_factor[0] if isinstance(module.scale_factor, tuple) else module.scale_factor
        elif isinstance(module, nn.Conv3d):
            radius += scale * (module.kernel_size[0] // 2)
    # Shortcut convolutions (1x1x1) add nothing. Nearest-neighbour upsampling looks at its own voxel only, but the
    # sum is over fractions of a latent voxel, counted from its centre: one is added for the voxel's own extent.
    return math.ceil(radius + 0.5)


def _leaves(module: nn.Module) -> list[nn.Module]:
    return [m for m in module.modules() if isinstance(m, (nn.Conv3d, nn.Upsample))]


def factor(autoencoder: nn.Module) -> int:
    """Output voxels per latent voxel along each axis."""
    return round(math.prod(_scale(m) for m in _leaves(autoencoder.decoder) if isinstance(m, nn.Upsample)))


def _scale(module: nn.Upsample) -> float:
    return module.scale_factor[0] if isinstance(module.scale_factor, tuple) else module.scale_factor


def decode_memory(autoencoder: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """About how many bytes decoding latents of extents ``shape`` (x, y, z) takes at its peak."""
    widest, scale = 0.0, 1
    for module in _leaves(autoencoder.decoder):
        if isinstance(module, nn.Upsample):
            scale *= round(_scale(module))
        else:
            widest = max(widest, scale**3 * max(module.in_channels, module.out_channels))
    size = torch.finfo(dtype).bits // 8
    # The last convolution runs in float32 on its own copy; the result is float32 too.
    return int(math.prod(shape) * (_ALIVE * widest * size + 8 * scale**3))


def plan_tiles(shape: tuple[int, ...], margin: int, fits: Callable[[tuple[int, ...]], bool]) -> list[tuple[Box, Box]]:
    """Cut latents of extents ``shape`` into cores, each with the margin it is decoded with.

    The longest side of the core is halved until ``fits`` accepts the tile (core and margin), or the core is so small
    that cutting further would only decode margins.

    Returns:
        (core, tile) per tile, as slices of the latent volume; one whole tile if all of it fits.
    """
    pieces = [1, 1, 1]

    def sizes(axis: int) -> tuple[int, int]:
        core = math.ceil(shape[axis] / pieces[axis])
        return core, min(shape[axis], core + 2 * margin)

    while not fits(tuple(sizes(axis)[1] for axis in range(3))):
        axis = max(range(3), key=lambda a: sizes(a)[0])
        if sizes(axis)[0] <= max(2, margin // 2):
            break
        pieces[axis] += 1
    cuts = []
    for axis, n in enumerate(shape):
        core = sizes(axis)[0]
        starts = range(0, n, core)
        cuts.append(
            [
                (slice(a, min(a + core, n)), slice(max(a - margin, 0), min(a + core + margin, n)))
                for a in starts
            ]
        )
    return [(tuple(c for c, _ in axes), tuple(t for _, t in axes)) for axes in itertools.product(*cuts)]


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
    tiles = plan_tiles(tuple(z.shape[2:]), reach(autoencoder), lambda s: decode_memory(autoencoder, s, dtype) <= memory)
    images = []
    for i, sample in enumerate(z.split(1)):
        report = (lambda done, i=i: progress((i + done) / len(z))) if progress else (lambda done: None)
        images.append(_decode_one(autoencoder, sample, tiles, dtype, report))
    return torch.cat(images)


def _decode_one(
    autoencoder: nn.Module,
    z: Tensor,
    tiles: list[tuple[Box, Box]],
    dtype: torch.dtype,
    report: Callable[[float], None],
) -> Tensor:
    if len(tiles) == 1:
        image = _run(autoencoder, z, dtype)
        report(1.0)
        return image.cpu()
    norms = [m for m in autoencoder.decoder.modules() if isinstance(m, nn.GroupNorm)]
    passes, zoom, image = len(norms) + 1, factor(autoencoder), None
    with _whole_volume_statistics(norms) as freeze:
        for done, norm in enumerate(norms):
            for i, (core, tile) in enumerate(tiles):
                freeze.measure(norm, lambda tile=tile: _run(autoencoder, _crop(z, tile), dtype), core, tile)
                report((done + (i + 1) / len(tiles)) / passes)
            freeze.fix(norm)
        for i, (core, tile) in enumerate(tiles):
            piece = _run(autoencoder, _crop(z, tile), dtype)
            if image is None:
                image = torch.empty(1, piece.shape[1], *(zoom * n for n in z.shape[2:]))
            image[(..., *_scaled(core, zoom))] = piece[(..., *_scaled(_within(core, tile), zoom))].cpu()
            report((passes - 1 + (i + 1) / len(tiles)) / passes)
    return image


def _run(autoencoder: nn.Module, z: Tensor, dtype: torch.dtype) -> Tensor:
    """One pass through the decoder (the same as ``autoencoder.decode``), its last layer in float32."""
    *blocks, last = autoencoder.decoder.blocks
    with autocast(z.device, dtype):
        x = autoencoder.post_quant_conv(_channels_last(z.float()))
        for block in blocks:
            x = block(x)
    return last(x.float())


def _channels_last(x: Tensor) -> Tensor:
    """The faster order for 3-D convolutions where it is supported."""
    return x.contiguous(memory_format=torch.channels_last_3d) if x.device.type != "mps" else x.contiguous()


def _crop(x: Tensor, box: Box) -> Tensor:
    return x[(..., *box)]


def _within(core: Box, tile: Box) -> Box:
    return tuple(slice(c.start - t.start, c.stop - t.start) for c, t in zip(core, tile))


def _scaled(box: Box, zoom: int) -> Box:
    return tuple(slice(s.start * zoom, s.stop * zoom) for s in box)


class _Measured(Exception):
    """Raised by a normalisation that is being measured: the rest of the network is not needed."""


class _Frozen:
    """GroupNorms that use the statistics of a volume which is never there as a whole."""

    def __init__(self) -> None:
        self.sums: dict[nn.GroupNorm, list[Tensor]] = {}

    def measure(self, norm: nn.GroupNorm, run: Callable[[], Tensor], core: Box, tile: Box) -> None:
        """Run a tile up to ``norm`` and add its core's share of the sums."""

        def stop(x: Tensor) -> Tensor:
            zoom = x.shape[2] // (tile[0].stop - tile[0].start)
            x = x[(..., *_scaled(_within(core, tile), zoom))]
            # Sums over small blocks in float32, over the blocks in float64: exact enough, and no float64 copy.
            x = x.float().flatten(3).unflatten(1, (norm.num_groups, -1))
            rows = torch.stack([x.sum((2, 4)), (x * x).sum((2, 4)), torch.full_like(x[:, :, 0, :, 0], x[0, 0, :, 0].numel())])
            self.sums.setdefault(norm, []).append(rows.double().sum(-1).cpu() if x.device.type != "mps" else rows.cpu().double().sum(-1))
            raise _Measured

        norm.forward = stop
        try:
            run()
        except _Measured:
            return
        finally:
            del norm.forward

    def fix(self, norm: nn.GroupNorm) -> None:
        """From now on ``norm`` uses what was measured: a batch normalisation with fixed statistics."""
        total, squares, count = torch.stack(self.sums.pop(norm)).sum(0)[:, 0]
        mean = total / count
        variance = (squares / count - mean**2).clamp_min(0)
        each = norm.num_channels // norm.num_groups
        mean, variance = (v.repeat_interleave(each).float().to(norm.weight.device) for v in (mean, variance))
        norm.forward = lambda x: functional.batch_norm(x, mean, variance, norm.weight, norm.bias, False, 0.0, norm.eps)


@contextmanager
def _whole_volume_statistics(norms: list[nn.GroupNorm]) -> Iterator[_Frozen]:
    """Hand out a :class:`_Frozen`; afterwards the normalisations are what they were."""
    try:
        yield _Frozen()
    finally:
        for norm in norms:
            norm.__dict__.pop("forward", None)
