"""Decoding in tiles gives what decoding the whole volume gives; devices and memory."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from DEMISTCore import decoding, devices
from DEMISTCore.decoding import decode, decode_memory, encode_memory, factor, plan_tiles, reach
from DEMISTCore.errors import InputError
from DEMISTCore.networks import PRESETS, build_autoencoder

ENOUGH = 1 << 50
EXTENTS = (40, 5, 6)  # long, so that tiles have more than margins


def autoencoder(norm: str, fold: int = 1) -> torch.nn.Module:
    """Random weights, those that start at 0 or 1 included."""
    generator = torch.Generator().manual_seed(5)
    config = replace(PRESETS["tiny"].psr, norm=norm, fold=fold, shortcut=fold > 1)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = build_autoencoder(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1 or not parameter.any():
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return network


def latents(network: torch.nn.Module, batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(6)
    channels = network.post_quant_conv.conv.in_channels
    # Not the same everywhere: statistics of a tile must not be those of the volume.
    ramp = torch.linspace(-1, 2, EXTENTS[0]).reshape(-1, 1, 1)
    return torch.randn(batch, channels, *EXTENTS, generator=generator) + ramp


@pytest.mark.parametrize(("norm", "fold"), [("channel", 1), ("group", 1), ("channel", 2)])
def test_whole_decoding_is_the_networks_own(norm, fold):
    network = autoencoder(norm, fold)
    z = latents(network, 2)
    with torch.no_grad():
        expected = network.decode(z)
    assert expected.std() > 0.05
    torch.testing.assert_close(decode(network, z, memory=ENOUGH), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("share", [0.8, 0.6])
@pytest.mark.parametrize(("norm", "fold"), [("channel", 1), ("group", 1), ("channel", 2)])
def test_tiles_leave_no_seam(norm, fold, share):
    """The promise is 1e-3 of the PSR range (1 in the autoencoder's units); it is kept by two orders."""
    network = autoencoder(norm, fold)
    z = latents(network)
    memory = int(share * decode_memory(network, EXTENTS, torch.float32))
    margin = reach(network)
    tiles = plan_tiles(EXTENTS, margin, lambda s: decode_memory(network, s, torch.float32) <= memory)
    assert len(tiles) > 1
    whole, tiled = decode(network, z, memory=ENOUGH), decode(network, z, memory=memory)
    assert float((whole - tiled).abs().max()) < 2e-5
    # The test can fail: tiles without margin do show seams.
    bare = plan_tiles(EXTENTS, 0, lambda s: s[0] <= EXTENTS[0] // 2)
    seamed = torch.cat([decode(network, z[(..., *tile)], memory=ENOUGH) for _, tile in bare], dim=2)
    assert float((whole - seamed).abs().max()) > 1e-2


def test_tiles_in_half_precision_leave_no_seam():
    network = autoencoder("channel")
    z = latents(network)
    memory = int(0.6 * decode_memory(network, EXTENTS, torch.bfloat16))
    whole = decode(network, z, memory=ENOUGH, dtype=torch.bfloat16)
    tiled = decode(network, z, memory=memory, dtype=torch.bfloat16)
    assert tiled.dtype == torch.float32
    assert float((whole - tiled).abs().max()) < 1e-3


@pytest.mark.parametrize("name", ["tiny", "small", "brats"])
def test_reach_is_wide_enough_and_no_wider(name):
    """Decode one latent voxel's influence: nothing beyond the reach, something within one voxel of it."""
    config = PRESETS[name].psr
    thin = replace(config, channels=tuple(8 for _ in config.channels), norm="channel", norm_groups=8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_autoencoder(thin).double().eval()
    distance = reach(network)
    n = 2 * distance + 3
    with torch.no_grad():  # a shortcut makes the last layer start at zero
        torch.nn.init.normal_(network.decoder.blocks[-1].conv.weight)
    z = torch.zeros(1, thin.latent_channels, n, 3, 3, dtype=torch.float64)
    changed = z.clone()
    changed[:, :, n // 2] += 1.0
    with torch.no_grad():
        difference = (network.decode(changed) - network.decode(z)).abs().amax((0, 1, 3, 4))
    per_latent = difference.reshape(n, factor(network)).amax(1) > 0
    touched = np.flatnonzero(per_latent.numpy())
    assert n // 2 - touched[0] <= distance
    assert n // 2 - touched[0] >= distance - 1


def test_group_norm_is_left_as_it_was():
    network = autoencoder("group")
    z = latents(network)
    before = network.decode(z[..., :8, :4, :4]).detach()
    with pytest.raises(RuntimeError, match="enough"):
        decode(network, z, memory=0, progress=_stop_after(0.3))
    decode(network, z, memory=decode_memory(network, EXTENTS, torch.float32) // 2)
    assert not any("forward" in module.__dict__ for module in network.modules())
    assert torch.equal(network.decode(z[..., :8, :4, :4]), before)


def _stop_after(share):
    def progress(done):
        if done > share:
            raise RuntimeError("enough")

    return progress


def test_progress_rises_to_one():
    network = autoencoder("channel")
    seen: list[float] = []
    decode(
        network, latents(network, 2), memory=decode_memory(network, EXTENTS, torch.float32) // 2, progress=seen.append
    )
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert len(seen) > 4


@pytest.mark.parametrize("shape", [(16, 9, 10), (40, 48, 40), (5, 1, 7), (64, 3, 3)])
@pytest.mark.parametrize("margin", [0, 3, 6])
@pytest.mark.parametrize("limit", [0, 500, 4000, 20000, ENOUGH])
def test_plan_covers_every_voxel_once(shape, margin, limit):
    tiles = plan_tiles(shape, margin, lambda size: math.prod(size) <= limit)
    covered = np.zeros(shape, int)
    for core, tile in tiles:
        covered[core] += 1
        for c, t, n in zip(core, tile, shape):
            assert t.start == max(c.start - margin, 0)
            assert t.stop == min(c.stop + margin, n)
    assert (covered == 1).all()
    if limit >= math.prod(shape):
        assert len(tiles) == 1


def test_plan_respects_the_limit_where_it_can():
    tiles = plan_tiles((40, 48, 40), 6, lambda size: math.prod(size) <= 30000)
    assert max(math.prod(t.stop - t.start for t in tile) for _, tile in tiles) <= 30000


def test_memory_estimates_grow_with_volume_and_type():
    network = autoencoder("channel")
    assert decode_memory(network, (8, 8, 8), torch.float32) == 8 * decode_memory(network, (4, 4, 4), torch.float32)
    half, full = (decode_memory(network, (8, 8, 8), t) for t in (torch.bfloat16, torch.float32))
    assert half < full <= 2 * half
    assert encode_memory(network, (32, 32, 32), torch.float32) > 4 * 32**3 * 8


# Devices --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "cuda:a", "", "cpu:0x"])
def test_unknown_devices_are_refused(name):
    with pytest.raises(InputError, match="choose auto, cpu, cuda"):
        devices.pick_device(name)


def test_absent_devices_are_refused(monkeypatch):
    assert devices.pick_device(" CPU ").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert devices.pick_device("auto").type == "cpu"
    for name, there in (("cuda", "no CUDA GPU"), ("cuda:1", "no CUDA GPU"), ("mps", "no Apple GPU")):
        with pytest.raises(InputError, match=there):
            devices.pick_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.pick_device("auto") == torch.device("cuda", 0)
    assert devices.pick_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(InputError, match="cuda:0 to cuda:1"):
        devices.pick_device("cuda:2")


def test_precision_follows_the_hardware(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(devices, "_cpu_has_bf16", lambda: True)
    assert devices.pick_dtype(cpu) == torch.bfloat16
    monkeypatch.setattr(devices, "_cpu_has_bf16", lambda: False)
    assert devices.pick_dtype(cpu) == torch.float32
    assert devices.pick_dtype(cpu, "fp16") == torch.float16
    with pytest.raises(InputError, match="Unknown precision"):
        devices.pick_dtype(cpu, "int8")


def test_container_limits_count(tmp_path, monkeypatch):
    import psutil

    assert devices._container_memory(tmp_path) == []
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert devices._container_memory(tmp_path) == []
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.stat").write_text("anon 3\ninactive_file 400\n")
    assert devices._container_memory(tmp_path) == [4400]
    monkeypatch.setattr(devices, "_container_memory", lambda: [4400])
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**12))
    assert devices.available_memory() == 4400
    with pytest.raises(InputError, match=r"Too little memory: it needs about 2\.0 GiB of memory and 0\.0 GiB are free"):
        devices.require_memory(2 << 30, None, "it")


def test_peak_memory_is_that_of_this_process():
    import psutil

    assert devices.peak_memory() >= 0.5 * psutil.Process().memory_info().rss
    assert devices.peak_memory() < 100 << 30


def test_decoding_takes_its_limit_from_the_device(monkeypatch):
    network = autoencoder("channel")
    z = latents(network)
    counted = []
    run = decoding._run
    monkeypatch.setattr(decoding, "_run", lambda *args: counted.append(1) or run(*args))
    monkeypatch.setattr(decoding, "available_memory", lambda device: ENOUGH)
    whole = decode(network, z)
    assert len(counted) == 1
    monkeypatch.setattr(decoding, "available_memory", lambda d: decode_memory(network, EXTENTS, torch.float32))
    torch.testing.assert_close(decode(network, z), whole, rtol=0, atol=1e-5)
    assert len(counted) > 2
