"""The posterior mean: networks, training, bundle, synthesis."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from training_data import write_mini_bids

from DEMISTCore import train
from DEMISTCore.baselines import linear
from DEMISTCore.bundle import SAMPLING, load_bundle
from DEMISTCore.cli import run as run_cli
from DEMISTCore.diffusion import SAMPLERS, NoiseSchedule, SeededNoise
from DEMISTCore.errors import InputError
from DEMISTCore.networks import PRESETS, Streams, build_backbone, build_demist, build_mean, filters
from DEMISTCore.networks.knowledge import DESCRIPTION_WIDTH, KNOWN_WIDTH, Bend, describe
from DEMISTCore.networks.local import Local, linear_rows
from DEMISTCore.synthesis import generate
from DEMISTCore.synthesis.given import decode_latent, encode, predict_mean
from DEMISTCore.synthesis.plan import plan_sampling
from DEMISTCore.training.checkpoint import Run
from DEMISTCore.training.groups import LocalSettings
from DEMISTCore.training.local import fit_local
from DEMISTCore.training.warp import wide_at
from DEMISTCore.uncertainty.typical import Typical

torch.set_num_threads(1)
TINY = PRESETS["tiny_mean"]


def randomised(module: torch.nn.Module, scale: float = 0.1) -> torch.nn.Module:
    """Every weight random, those that start at zero too."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return module


@pytest.fixture
def mean():
    torch.manual_seed(1)
    return randomised(build_mean(TINY)).eval()


def scan(shape=(32, 32, 32), batch=1):
    torch.manual_seed(2)
    latent = [n // 4 for n in shape]
    return torch.randn(batch, 2, *shape), torch.randn(batch, 4, *latent), torch.randn(batch, KNOWN_WIDTH)


# ---------------------------------------------------------------------------------------- knowledge


def test_the_description_is_quantiles_and_more():
    rng = np.random.default_rng(0)
    x = rng.normal(0.5, 0.1, (2, 24, 28, 24)).astype(np.float32)
    mask = np.zeros(x.shape[1:], np.uint8)
    mask[4:-4, 4:-4, 4:-4] = 1
    told = describe(x, mask, spacing=4.0)
    assert told.shape == (DESCRIPTION_WIDTH,)
    half = x[:, ::2, ::2, ::2][:, mask[::2, ::2, ::2] > 0]
    assert told[11] == pytest.approx(np.median(half[0]), abs=1e-6)
    assert told[23] == pytest.approx(np.quantile(half[1], 0.01), abs=1e-6)
    # Neighbours of white noise differ by N(0, 2 s^2): the median of its magnitude is 0.6745 sqrt(2) s.
    np.testing.assert_allclose(told[-7:-1], 20 * 0.6745 * 2**0.5 * 0.1, rtol=0.06)
    millilitres = 8 * 4.0**3 * (mask[::2, ::2, ::2] > 0).sum() / 1000
    assert told[-1] == pytest.approx(np.log(millilitres / 1200), abs=1e-5)
    with pytest.raises(ValueError, match="empty"):
        describe(x, np.zeros_like(mask), spacing=4.0)


def test_bending_is_nothing_at_the_start_and_then_one_matrix():
    bend = Bend(6, 5, 2)
    h, knowledge = torch.randn(2, 6, 3, 4, 5), torch.randn(2, 5)
    assert torch.allclose(bend(h, knowledge), h, atol=1e-6)
    randomised(bend, 0.3)
    scale, shift = bend.film(knowledge).chunk(2, 1)
    gate = bend.gate(knowledge)
    for i in range(2):
        matrix = torch.eye(6) + torch.diag(scale[i]) + bend.up @ torch.diag(gate[i]) @ bend.down
        expected = torch.einsum("dc,cxyz->dxyz", matrix, h[i]) + shift[i][:, None, None, None]
        assert torch.allclose(bend(h, knowledge)[i], expected, atol=1e-5)
    dropped = bend(h, knowledge, torch.tensor([0.0, 1.0]))
    assert torch.allclose(dropped[0], h[0], atol=1e-6)
    assert not torch.allclose(dropped[1], h[1], atol=1e-2)


# ------------------------------------------------------------------------------------------ network


def test_a_crop_with_its_place_sees_what_the_whole_volume_shows(mean):
    """Tokens and knowledge are the whole volume's, and places are counted from its centre: inside, nothing differs."""
    x, c, known = scan((160, 32, 32))
    with torch.no_grad():
        whole, spread = mean.decode(mean.see(x, c, known))
        offset = torch.tensor([[4 + 24 / 2 - 40 / 2, 0.0, 0.0]])
        part, part_spread = mean.decode(mean.see(x[:, :, 16:112], c, known, offset=offset))
        elsewhere, _ = mean.decode(mean.see(x[:, :, 16:112], c, known, offset=offset + 5))
    inner = slice(44, 52)  # far from the cut
    assert torch.allclose(part[:, :, inner], whole[:, :, 16:112][:, :, inner], atol=2e-5)
    # The spread reads farther than from here to the cut, though weakly.
    assert torch.allclose(part_spread[:, :, inner], spread[:, :, 16:112][:, :, inner], atol=1e-3)
    assert not torch.allclose(elsewhere[:, :, inner], part[:, :, inner], atol=1e-3)


@pytest.mark.parametrize("stream", ["semantic", "spatial", "adaptive"])
def test_each_stream_has_its_switch(mean, stream):
    x, c, known = scan()
    with torch.no_grad():
        full = mean.decode(mean.see(x, c, known))[0]
        off = mean.decode(mean.see(x, c, known, **{stream: False}))[0]
        keep = {stream: torch.zeros(1)}
        dropped = mean.decode(mean.see(x, c, known, keep=keep))[0]
        kept = mean.decode(mean.see(x, c, known, keep={stream: torch.ones(1)}))[0]
    assert not torch.allclose(full, off, atol=1e-3)
    assert torch.allclose(dropped, off, atol=1e-5)
    assert torch.allclose(kept, full, atol=1e-5)


def test_streams_know_different_things(mean):
    """The guide hears nothing of the protocol, tokens nothing of the crop's images, the knowledge of no place."""
    x, c, known = scan()
    with torch.no_grad():
        a = mean.see(x, c, known)
        other = mean.see(x + 1, c, known)
        assert torch.equal(a.tokens, other.tokens)
        assert torch.equal(a.knowledge, other.knowledge)
        assert torch.equal(mean.see(x, c + 1, known).knowledge, a.knowledge)
        local = {"semantic": False, "adaptive": False}
        assert torch.equal(mean.see(x, c + 1, known + 1, **local).coarse, mean.see(x, c, known, **local).coarse)


def test_no_stream_is_asleep_after_a_few_steps():
    """What the tokens alone can tell is learnt within a few steps."""
    torch.manual_seed(0)
    own = build_mean(TINY)
    x, c, known = scan((16, 16, 16))
    x, c, known = x.expand(2, -1, -1, -1, -1), torch.cat([c, c + 1]), known.expand(2, -1)
    y = torch.tensor([0.5, 1.5])[:, None, None, None, None]  # the scans are the same: only the whole volumes differ
    optimizer = torch.optim.AdamW(own.parameters(), lr=3e-3)
    for _ in range(200):
        (own.decode(own.see(x, c, known, adaptive=False))[0] - y).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        first, second = own.decode(own.see(x, c, known, adaptive=False))[0].mean((1, 2, 3, 4))
    assert second - first > 0.5


def volume(shape=(44, 48, 40)):
    """A blob of a brain with texture: x (2, X, Y, Z), PSR (X, Y, Z)."""
    rng = np.random.default_rng(0)
    x = gaussian_filter(rng.normal(0.5, 0.6, (2, *shape)), (0, 1, 1, 1)).astype(np.float32)
    place = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    x = np.where((place**2).sum(0) < 0.5, x, 0).astype(np.float32)
    return x, (0.2 * np.tanh(x[0] - 0.5 * x[1] ** 2 + 0.1 * gaussian_filter(x[0], 2.5))).astype(np.float32)


def test_near_features_are_what_scipy_measures():
    x = volume()[0]
    where = torch.from_numpy(np.argwhere(x[0] != 0)[::97])
    rows = filters.near(torch.from_numpy(x), where).numpy().T
    at = tuple(where.numpy().T)
    x = np.minimum(x, np.array(filters.BRIGHTEST, np.float32)[:, None, None, None]).astype(np.float64)
    t, f = x
    by_one, by_more = ([gaussian_filter(image, s, mode="constant") for image in x] for s in (1.0, 2.5))
    slopes = [np.stack(np.gradient(image)) for image in by_one]
    expected = [t - 0.5, f - 0.5, by_one[0] - t, by_one[1] - f, by_more[0] - t, by_more[1] - f]
    expected.append(gaussian_filter((t != 0).astype(float), 2.5, mode="constant"))
    expected += [np.linalg.norm(slope, axis=0) for slope in slopes]
    close = [(a[at], b) for a, b in zip(expected, rows)]
    wider = [np.linalg.norm(np.stack(np.gradient(image)), axis=0) for image in by_more]
    close += [(a[at], b) for a, b in zip(wider, rows[10:12])]
    cosine = (slopes[0] * slopes[1]).sum(0) / (expected[7] * expected[8] + 1e-4)
    close.append((cosine[at], rows[9]))
    for number, image in enumerate(by_one):
        bends = np.stack([np.stack(np.gradient(one)) for one in np.gradient(image)])
        bends = np.moveaxis((bends + bends.swapaxes(0, 1)) / 2, (0, 1), (-2, -1))[at]
        close += list(zip(np.linalg.eigvalsh(bends).T, rows[12 + 3 * number :]))
    squares = [gaussian_filter(image**2, 2.5, mode="constant") for image in x]
    close += [(np.sqrt(np.maximum(s - m**2, 0))[at], b) for s, m, b in zip(squares, by_more, rows[18:])]
    assert len(close) == filters.NEAR == len(rows)
    for ours, theirs in close:
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_wide_features_of_a_crop_are_those_of_its_volume():
    x = volume((48, 48, 40))[0]
    whole = filters.wide(torch.from_numpy(x)[None])[0]
    everywhere = filters.fine(whole).numpy()
    start, size = [8, 12, 4], [24, 20, 16]
    crop = filters.fine(torch.from_numpy(wide_at(whole.numpy(), start, size))).numpy()
    part = tuple(slice(a, a + n) for a, n in zip(start, size))
    np.testing.assert_allclose(crop, everywhere[(slice(None), *part)], atol=1e-5)
    # Mirrored along the first axis, and by half a turn about the first: the same places, in another order.
    places = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in size), indexing="ij")).astype(np.float32)
    turned = filters.fine(torch.from_numpy(wide_at(whole.numpy(), start, size, -places))).numpy()
    np.testing.assert_allclose(turned[:, ::-1, ::-1, ::-1], crop, atol=1e-5)
    assert np.isfinite(filters.wide(torch.zeros(1, 2, 16, 16, 16)).numpy()).all()


def test_features_do_not_hang_on_the_slabs():
    x = volume((80, 24, 24))[0]
    coarse = filters.wide(torch.from_numpy(x)[None])[0]
    at, rows = (torch.cat(part) for part in zip(*filters.slabs(torch.from_numpy(x), coarse)))
    assert len(at) == np.count_nonzero((x != 0).any(0))
    assert torch.allclose(rows, filters.rows(torch.from_numpy(x), coarse, at), atol=2e-5)


@pytest.fixture(scope="module")
def drawn():
    """Samples of forty scans, whose description says what T1w is worth; PSR also hangs on how much brain is around."""
    rng = np.random.default_rng(5)
    x, y = volume((32, 32, 32))
    wide = filters.wide(torch.from_numpy(x)[None])[0].numpy()
    brain = filters.fine(torch.from_numpy(wide))[5].numpy()
    told = rng.normal(0, 1, 40)
    known = told[:, None] * np.linspace(-1, 1, KNOWN_WIDTH) + rng.normal(0, 0.02, (40, KNOWN_WIDTH))
    known = known.astype(np.float32)

    def draw(i: int) -> dict[str, np.ndarray]:
        value = y * (1 + 0.3 * told[i % 40]) * 3 + brain
        return {
            "x": x,
            "y": value[None].astype(np.float32),
            "labels": (x[:1] != 0).astype(np.uint8),
            "wide": wide,
            "known": known[i % 40],
        }

    return draw


def test_each_stream_teaches_the_local_part_something(drawn):
    torch.manual_seed(0)
    local = Local(32, 8)
    settings = LocalSettings(crops=2, voxels=256, rounds=60, batch=8, noise=0.3, dropout_scan=0.0)
    fit_local(local, drawn, 40, settings, seed=0)
    off = {"all": {}, "semantic": {"semantic": False}, "spatial": {"spatial": False}, "adaptive": {}, "line": {}}
    errors = {name: [] for name in off}
    for i in range(0, 40, 5):
        sample = {name: torch.from_numpy(value)[None] for name, value in drawn(i).items()}
        where = torch.nonzero(sample["labels"][0, 0])
        y = sample["y"][0, 0][tuple(where.T)]
        for name, switches in off.items():
            known = None if name == "adaptive" else sample["known"]
            image, sure = local(sample["x"], sample["wide"], known, **switches)
            assert not image[0, 0][sample["labels"][0, 0] == 0].any()
            assert torch.isfinite(sure).all()
            values = image[0, 0][tuple(where.T)]
            if name == "line":
                values = linear_rows(filters.rows(sample["x"][0], sample["wide"][0], where)) @ local.line.detach()
            errors[name].append(float((values - y).square().mean()))
    means = {name: np.mean(values) for name, values in errors.items()}
    assert means["all"] < 0.2 * means["line"], means
    assert all(means[name] > 2 * means["all"] for name in ("semantic", "spatial", "adaptive")), means


def test_the_spread_of_the_local_part_is_the_error(drawn):
    """Laplace noise that is twice as wide where T1w is bright: both scales are found."""
    rng = np.random.default_rng(1)

    def noisy(i: int) -> dict[str, np.ndarray]:
        sample = drawn(i)
        t1w = sample["x"][:1]
        return {**sample, "y": (t1w * 0.5 + rng.laplace(0, np.where(t1w > 0.5, 0.2, 0.1))).astype(np.float32)}

    local = Local(16, 4)
    fit_local(local, noisy, 40, LocalSettings(crops=2, voxels=512, rounds=60, batch=4, lr=1e-2), seed=0)
    sample = drawn(0)
    _, sure = local(*(torch.from_numpy(sample[name])[None] for name in ("x", "wide", "known")))
    for where, scale in ((sample["x"][0] > 0.6, 0.2), ((sample["x"][0] < 0.4) & (sample["labels"][0] > 0), 0.1)):
        assert np.median(sure[0, 0].exp().numpy()[where]) == pytest.approx(scale * 2**0.5, rel=0.15)


def test_the_mean_starts_as_its_local_part_and_that_as_the_linear_baseline(drawn):
    """Without a round of learning the whole network is the model of ``baselines.linear`` on the same voxels."""
    x, y = volume()
    mask = x[0] != 0
    baseline = linear.fit([("one", x, y, mask)], spacing=1.0)
    wide = filters.wide(torch.from_numpy(x)[None])[0].numpy()
    sample = {
        "x": x,
        "y": y[None],
        "labels": mask[None].astype(np.uint8),
        "wide": wide,
        "known": np.zeros(KNOWN_WIDTH, np.float32),
    }
    network = build_mean(TINY)
    fit_local(network.decoder.local, lambda i: sample, 1, LocalSettings(crops=4, voxels=20_000, rounds=0), seed=0)
    with torch.no_grad():
        seen = network.see(torch.from_numpy(x)[None], torch.zeros(1, 4, 4, 4, 4), torch.zeros(1, KNOWN_WIDTH))
        image, spread = network.decode(seen)
    theirs = np.tensordot(baseline.weights, linear.features(x).astype(np.float64), 1)
    difference = (image[0, 0].numpy() - theirs)[mask]
    assert np.abs(difference).max() < 0.02 * np.abs(theirs[mask]).max()  # other voxels were drawn
    assert torch.allclose(spread, torch.full_like(spread, -3.0), atol=1e-5)
    flat = {**sample, "x": np.where(mask, np.float32(0.5), np.float32(0)) * np.ones((2, 1, 1, 1), np.float32)}
    with pytest.raises(InputError, match="hardly vary"):
        fit_local(Local(8), lambda i: flat, 1, LocalSettings(crops=1), seed=0)
    with pytest.raises(InputError, match="no crop has"):
        fit_local(Local(8), lambda i: {**sample, "labels": 0 * sample["labels"]}, 1, LocalSettings(crops=1), seed=0)


def test_how_sure_it_is_does_not_move_the_mean(mean):
    x, c, known = scan((16, 16, 16))
    mean.train()
    mean.decode(mean.see(x, c, known))[1].sum().backward()
    assert mean.decoder.spread.last.bias.grad.abs().sum() > 0
    assert all(p.grad is None or not p.grad.any() for n, p in mean.named_parameters() if "spread" not in n)


def test_levels_must_fit_the_latents():
    with pytest.raises(ValueError, match="levels"):
        build_mean(replace(TINY, mean=replace(TINY.mean, channels=(8,), blocks=(1,), decoder_blocks=(1,))))
    assert build_mean(PRESETS["tiny"]) is None


def test_the_streams_begin_as_the_frozen_backbone_and_share_the_mean(mean):
    torch.manual_seed(0)
    backbone = randomised(build_backbone(TINY.backbone), 0.02)
    demist = build_demist(TINY, backbone)
    demist.mean.load_state_dict(mean.state_dict())
    x, c, known = scan()
    z, t = torch.randn(1, 4, 8, 8, 8), torch.tensor([300])
    with torch.no_grad():
        seen = demist.mean.see(x, c, known)
        condition = demist.condition(c, seen=seen)
        assert torch.equal(demist(z, t, condition), backbone(z, t))
        randomised(demist.spatial)
        randomised(demist.semantic, 0.5)
        assert not torch.allclose(demist(z, t, demist.condition(c, seen=seen)), backbone(z, t), atol=1e-3)
    assert condition.estimate is seen.estimate
    assert condition.mean_token is seen.knowledge
    assert not any(p.requires_grad for p in demist.mean.parameters())
    assert not demist.train().mean.training
    assert not hasattr(demist, "tokens")
    with pytest.raises(ValueError, match="mean network"):
        demist.condition(c)
    listed = demist.stream_parameters()
    assert sum(map(len, listed.values())) == len([n for n, _ in demist.named_parameters() if "backbone" not in n])


# ----------------------------------------------------------------------------------------- samplers


@pytest.mark.parametrize("spacing", ["trailing", "karras", "linspace"])
def test_times_from_a_later_start(spacing):
    schedule = NoiseSchedule(zero_snr=True, spacing=spacing)
    times = schedule.timesteps(4, start=0.4)
    assert times[0] == 399 == schedule.begin(0.4)
    assert times == sorted(set(times), reverse=True)
    assert len(times) == 4
    assert times[-1] >= 0
    assert schedule.timesteps(4, start=1.0)[0] == 999
    assert len(schedule.timesteps(8, start=0.001)) == 8
    with pytest.raises(ValueError, match="start"):
        schedule.timesteps(4, start=0.0)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_perfect_model_ends_at_the_truth_from_any_start(sampler):
    schedule = NoiseSchedule(zero_snr=True)
    truth, noise = torch.randn(1, 2, 3, 3, 3), SeededNoise([1])

    def model(z, t):
        alpha, sigma = schedule.alpha_sigma(t, z)
        return (alpha * z - truth) / sigma  # v of x0 = truth

    begin = schedule.add_noise(torch.zeros_like(truth), torch.randn(truth.shape), schedule.begin(0.5, 3))
    z = SAMPLERS[sampler](model, begin, schedule, 3, noise=noise, start=0.5)
    assert torch.allclose(z, truth, atol=1e-4)


# ------------------------------------------------------------------------ training, bundle, synthesis


def train_cli(*words: object) -> int:
    return run_cli(train.main, [str(word) for word in words])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of all stages on three subjects, with a sidecar for one; and the bundle."""
    bids = write_mini_bids(tmp_path_factory.mktemp("bids"), subjects=3, sessions=1)
    (bids / "sub-001/anat/sub-001_T1w.json").write_text(json.dumps({"RepetitionTime": 2.0}))
    root = tmp_path_factory.mktemp("runs")
    common = ("--data", bids, "--config", "tiny", f"cache={root / 'cache'}", "steps=4", "model=tiny_mean")
    assert train_cli("autoencoder", "--out", root / "ae", *common) == 0
    assert train_cli("backbone", "--out", root / "bb", "--foundation", root / "ae", *common) == 0
    on = ("--foundation", root / "bb")
    assert train_cli("mean", "--out", root / "mean", *on, *common, "lr=3e-3", "steps=12") == 0
    assert train_cli("demist", "--out", root / "demist", *on, "--mean", root / "mean", *common, "flip=false") == 0
    assert (
        train_cli(
            "export",
            root / "bb",
            root / "demist",
            "--out",
            root / "tiny",
            "--sampling",
            "mode=mean",
            "start=0.5",
            "steps=2",
            "seeds=2",
        )
        == 0
    )
    return bids, root


def metrics(run: Run) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for line in (run.folder / "metrics.csv").read_text().splitlines()[1:]:
        _, _, tag, value = line.split(",")
        found.setdefault(tag, []).append(float(value))
    return found


def test_the_stage_learns_and_the_bundle_holds_it(runs):
    _, root = runs
    told = metrics(Run.read(root / "mean"))
    assert told["validation/mse"][-1] < told["validation/mse"][0]
    assert {"validation/coverage_90", "validation/rank"} <= set(told)
    bundle = load_bundle(root / "tiny")
    trained = Run.read(root / "mean").weights("ema")
    own = bundle.demist.mean.state_dict()
    name = "guide.first.weight"
    assert torch.allclose(own[name], trained[f"mean.{name}"], atol=1e-3)
    assert bundle.sampling["mode"] == "mean"
    assert bundle.calibration is None
    assert (root / "tiny/mean.yaml").is_file()


def test_the_spread_alone_is_trained_and_a_stream_left_out(runs, capsys):
    bids, root = runs
    common = ("--data", bids, "--config", "tiny", f"cache={root / 'cache'}", "model=tiny_mean")
    words = (*common, "--foundation", root / "bb")
    without = ("model.mean.semantic=false", "model.streams.semantic=false")
    again = ("mean", "--init", root / "mean", *words, "only_spread=true", "lr=3e-3", "steps=12")
    capsys.readouterr()
    assert train_cli(*again, *without, "--out", root / "sure") == 0
    assert "line:" not in capsys.readouterr().err  # it came with the weights; what it misses is what counts
    before, after = (Run.read(root / name).weights("ema") for name in ("mean", "sure"))
    dropped = {name for name in before if name not in after}
    assert dropped
    assert all(name.startswith(("mean.tokens.", "mean.semantic.")) for name in dropped)
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith("mean.decoder.spread.") for name in moved)
    told = metrics(Run.read(root / "sure"))
    assert min(told["validation/surprise"][1:]) < told["validation/surprise"][0]
    assert len(set(told["validation/mse"])) == 1
    # What reads the tokens cannot be kept without them, and whole weights are not dropped in silence.
    capsys.readouterr()
    assert train_cli(*again, without[0], "--out", root / "no") == 2
    assert "model.streams.semantic=false" in capsys.readouterr().err
    wider = "model.mean.channels=[8,24]"
    assert train_cli(*again, *without, wider, "--out", root / "no") == 2
    assert "do not fit the model" in capsys.readouterr().err
    on = ("--mean", root / "sure", "flip=false", "steps=2")
    assert train_cli("demist", "--out", root / "demist2", *words, *on, without[1]) == 0
    assert train_cli("export", root / "bb", root / "demist2", "--out", root / "two", "--sampling", "mode=mean") == 0
    bundle = load_bundle(root / "two")
    assert not bundle.config.mean.semantic
    assert not hasattr(bundle.demist.mean, "tokens")
    x = np.asarray(prepared(runs).x, np.float32)
    first, second = (
        next(generate(bundle, x, (x != 0).any(0), mode=mode, steps=2, seeds=[0], dtype=torch.float32))
        for mode in ("mean", "sample")
    )
    assert np.isfinite(first).all()
    assert np.isfinite(second).all()


def test_another_foundations_mean_is_refused(runs, capsys):
    bids, root = runs
    common = ("--data", bids, "--config", "tiny", f"cache={root / 'cache'}", "steps=1", "model=tiny_mean")
    assert train_cli("autoencoder", "--out", root / "ae2", *common, "seed=5") == 0
    assert train_cli("backbone", "--out", root / "bb2", "--foundation", root / "ae2", *common) == 0
    capsys.readouterr()
    words = ("demist", "--out", root / "no", "--foundation", root / "bb2", *common, "flip=false", "--mean")
    assert train_cli(*words, root / "mean") == 2
    assert "other autoencoders" in capsys.readouterr().err
    assert train_cli(*words, root / "ae2") == 2
    assert "run of autoencoder" in capsys.readouterr().err
    assert train_cli("mean", "--out", root / "no", "--foundation", root / "bb2", *common[:-1]) == 2
    assert "no mean network" in capsys.readouterr().err


def prepared(runs):
    from DEMISTCore.training import data, prepare
    from DEMISTCore.training.settings import resolve

    bids, root = runs
    settings = resolve("mean", "tiny", ["model=tiny_mean"])
    return prepare.prepare_cohort(data.index(bids), settings, root / "cache")[0]


def test_mean_and_samples(runs):
    bundle, entry = load_bundle(runs[1] / "tiny"), prepared(runs)
    x = np.asarray(entry.x, np.float32)
    mask = (x != 0).any(0)
    told = []
    (mean,) = generate(bundle, x, mask, told=told.append, dtype=torch.float32)
    assert np.array_equal(told[0].psr, mean)
    assert (told[0].spread[mask] > 0).all()
    assert not mean[~mask].any()
    (again,) = generate(bundle, x, mask, mode="mean", dtype=torch.float32)
    assert np.array_equal(mean, again)
    samples = list(generate(bundle, x, mask, mode="sample", dtype=torch.float32))
    assert len(samples) == 2
    assert not np.array_equal(samples[0], samples[1])
    (alone,) = generate(bundle, x, mask, seeds=[1], dtype=torch.float32)
    assert np.array_equal(alone, samples[1])
    # A sample is the mean and what its latent adds; from almost no noise that is little.
    (near,) = generate(bundle, x, mask, seeds=[1], steps=1, start=0.001, dtype=torch.float32)
    (far,) = generate(bundle, x, mask, seeds=[1], steps=1, start=1.0, dtype=torch.float32)
    assert np.abs(near - mean)[mask].mean() < np.abs(far - mean)[mask].mean()


def test_the_protocol_reaches_the_mean(runs):
    bundle, entry = load_bundle(runs[1] / "tiny"), prepared(runs)
    randomised(bundle.demist.mean.knowledge, 0.5)
    randomised(bundle.demist.mean.decoder, 0.1)
    x = np.asarray(entry.x, np.float32)
    from DEMISTCore.acquisition import protocol_vector

    plain, told = (
        next(generate(bundle, x, mode="mean", protocol=p, dtype=torch.float32))
        for p in (None, protocol_vector({"RepetitionTime": 4.0}, {})[0])
    )
    assert not np.array_equal(plain, told)


def test_synthesize_reads_the_sidecar_and_says_what_it_did(runs, tmp_path):
    import DEMISTCore

    bids, root = runs
    t1w, flair = (bids / f"sub-001/anat/sub-001_{what}.nii.gz" for what in ("T1w", "FLAIR"))
    plain = {
        "bundle": root / "tiny",
        "skull_strip": "none",
        "bias_correct": False,
        "register": False,
        "device": "cpu",
        "precision": "fp32",
        "any_brain_volume": True,
    }
    out = tmp_path / "psr.nii.gz"
    result = DEMISTCore.synthesize(t1w, flair, out=out, uncertainty=True, **plain)
    told = json.loads((tmp_path / "psr.json").read_text())
    assert told["settings"]["mode"] == "mean"
    assert told["settings"]["seeds"] == []
    assert "not calibrated" in told["uncertainty"]["kind"]
    assert told["protocol"]["known"] == {"T1w": ["RepetitionTime"], "FLAIR": []}
    assert (result.uncertainty.array[result.mask.array > 0] > 0).mean() > 0.9
    assert (tmp_path / "psr_uncertainty.nii.gz").is_file()
    absurd = {"T1w": {"RepetitionTime": 2300}}
    warned = DEMISTCore.synthesize(t1w, flair, protocol=absurd, **plain)
    assert any("RepetitionTime" in sentence for sentence in warned.provenance["warnings"])
    with pytest.raises(InputError, match="T1w"):
        DEMISTCore.synthesize(t1w, flair, protocol={"T2w": {}}, **plain)
    sampled = DEMISTCore.synthesize(t1w, flair, seeds=1, **plain)
    assert sampled.provenance["settings"]["mode"] == "sample"


def test_plans(runs, tiny_bundle):
    bundle, old = load_bundle(runs[1] / "tiny"), load_bundle(tiny_bundle)
    assert plan_sampling(bundle, None, None, None, None).mode == "mean"
    assert plan_sampling(bundle, [3], None, None, None).mode == "sample"
    assert plan_sampling(bundle, None, 5, None, None).steps == 5
    plan = plan_sampling(old)
    assert plan.mode == "sample"
    assert set(plan.to_dict()) == set(SAMPLING)
    assert plan.to_dict()["seeds"] == list(range(old.sampling["seeds"]))
    with pytest.raises(FrozenInstanceError):
        plan.steps = 3
    for arguments, words in (
        ((old, None, None, None, None, None, None, "mean"), "no network for the mean"),
        ((old, None, None, None, None, None, None, "sample", 0.5), "no mean network to start from"),
        ((bundle, None, None, None, None, None, None, "median"), "Unknown mode"),
        ((bundle, None, None, None, {"semantic": 1.5}, None, None, "mean"), "no guidance"),
        ((bundle, None, None, None, {"all": 0.0}, None, None, "mean"), "one by one"),
        ((bundle, None, None, None, None, None, None, "sample", 0.0), "start"),
        ((bundle, None, None, None, None, None, None, "sample", 0.5, 1.5), "detail"),
    ):
        with pytest.raises(InputError, match=words):
            plan_sampling(*arguments)


def test_the_detail_of_a_sample_is_a_share_of_what_sets_it_apart(runs):
    bundle, entry = load_bundle(runs[1] / "tiny"), prepared(runs)
    x, cpu = np.asarray(entry.x, np.float32), torch.device("cpu")
    maps = {}
    for share in (0.0, 0.5, 1.0):
        given = encode(bundle, x, None, cpu, torch.float32)
        z = given.seen.estimate + 1
        maps[share] = decode_latent(bundle, given, z, None, torch.float32, detail=share)
    mean = predict_mean(bundle, encode(bundle, x, None, cpu, torch.float32), None, torch.float32).psr
    np.testing.assert_allclose(maps[0.0], mean, atol=1e-6)
    inside = np.minimum.reduce(list(maps.values())) > 0  # nothing was cut off at 0
    assert inside.mean() > 0.1
    np.testing.assert_allclose(maps[0.5][inside], (maps[0.0] + maps[1.0])[inside] / 2, atol=1e-6)
    assert np.abs(maps[1.0] - maps[0.0]).max() > 1e-3


def test_streams_off_in_the_mean(runs):
    bundle, entry = load_bundle(runs[1] / "tiny"), prepared(runs)
    randomised(bundle.demist.mean.semantic, 0.5)
    randomised(bundle.demist.mean.decoder, 0.1)
    x = np.asarray(entry.x, np.float32)
    full, off = (
        next(generate(bundle, x, mode="mean", guidance=g, dtype=torch.float32)) for g in ({}, {"semantic": 0.0})
    )
    assert not np.array_equal(full, off)
    assert Streams(semantic=False).semantic is False


# ------------------------------------------------------------------------------------------ typical


def test_distances_of_the_training_data_are_about_one():
    rng = np.random.default_rng(0)
    basis = rng.standard_normal((4, 30))
    scores = rng.standard_normal((400, 4)) * [5, 3, 2, 1]
    data = scores @ basis + rng.standard_normal((400, 30))
    typical = Typical.fit(data)
    distances = np.array([typical.distance(d) for d in data])
    # Coordinates along and across are standardised: their squares average to one.
    assert np.mean(distances**2) == pytest.approx(1, abs=0.02)
    far = typical.distance(data.mean(0) + 10 * basis[0] * 5)
    assert far > 1.5 * distances.max()
    off = rng.standard_normal(30)
    assert typical.distance(data.mean(0) + off) > typical.distance(data.mean(0) + off @ np.linalg.pinv(basis) @ basis)
    again = Typical.from_dict(json.loads(json.dumps(typical.to_dict())))
    assert again.distance(data[3]) == pytest.approx(distances[3], rel=1e-2)


def test_what_is_not_typical_is_refused():
    told = Typical.fit(np.random.default_rng(0).standard_normal((20, 5))).to_dict()
    for broken in (
        {},
        None,
        {**told, "mean": ["a"] * 5},
        {**told, "deviations": [1.0]},
        {**told, "mean": [0.0]},
        {**told, "deviations": [0.0] * len(told["deviations"])},
    ):
        with pytest.raises(ValueError, match="typical"):
            Typical.from_dict(broken)
    with pytest.raises(ValueError, match="three"):
        Typical.fit(np.zeros((2, 5)))


# -------------------------------------------------------------------------------------- calibration


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Ten people whose brains are large enough to be taken for brains."""
    return write_mini_bids(tmp_path_factory.mktemp("people"), subjects=10, sessions=1, size=72)


@pytest.fixture(scope="module")
def calibrated(runs, people):
    """The bundle with error bars from ten people."""
    root = runs[1]
    out = root / "calibrated"  # beside the base
    code = train_cli(
        "calibrate",
        root / "tiny",
        "--data",
        people,
        "--check",
        people,
        "--out",
        out,
        "--prepared",
        "--trained-on",
        root / "cache",
    )
    assert code == 0
    return out


def test_a_calibrated_bundle_is_the_same_model_with_error_bars(runs, calibrated):
    before, after = load_bundle(runs[1] / "tiny"), load_bundle(calibrated)
    assert after.hash != before.hash
    assert after.info["files"] == before.info["files"]
    assert after.calibration.subjects == 10
    assert 0.9 in after.calibration.levels
    assert after.info["uncertainty"]["sessions"] == 10
    # What is typical comes from the training's scans: they are about one away from their own mean.
    described = [np.load(f) for f in (runs[1] / "cache").glob("prepared/*/*/description.npy")]
    distances = [after.typical.distance(d) for d in described]
    assert np.sqrt(np.mean(np.square(distances))) < 1.1
    assert after.typical.distance(described[0] + 1) > 2 * max(distances)


def test_intervals_hold_on_the_calibrations_own_kind(calibrated, people, tmp_path):
    """The very scans again: 90 % intervals hold at least 85 % of all voxels."""
    from DEMISTCore.training import data, prepare
    from DEMISTCore.training.settings import resolve

    bundle = load_bundle(calibrated)
    settings = resolve("mean", "tiny", ["model=tiny_mean"])
    inside = []
    for entry in prepare.prepare_cohort(data.index(people)[:4], settings, tmp_path):
        x, told = np.asarray(entry.x, np.float32), []
        mask = (x != 0).any(0)
        (psr,) = generate(bundle, x, mask, mode="mean", told=told.append, dtype=torch.float32)
        sd = bundle.calibration.voxel_sd(psr, told[0].spread)
        low, high = bundle.calibration.voxel_interval(psr, sd, 0.9)
        truth = np.asarray(entry.y, np.float32)
        inside.append(((truth >= low) & (truth <= high))[mask].mean())
    assert np.mean(inside) > 0.85


def test_synthesis_uses_the_calibration_and_tells_unusual_scans(calibrated, runs, tmp_path):
    import DEMISTCore
    from DEMISTCore.volume import Volume

    t1w, flair = (runs[0] / f"sub-001/anat/sub-001_{what}.nii.gz" for what in ("T1w", "FLAIR"))
    plain = {
        "bundle": calibrated,
        "skull_strip": "none",
        "bias_correct": False,
        "register": False,
        "device": "cpu",
        "precision": "fp32",
        "any_brain_volume": True,
    }
    usual = DEMISTCore.synthesize(t1w, flair, **plain).provenance["uncertainty"]
    assert usual["kind"] == "calibrated standard deviation of the error"
    assert usual["widened"] == 1.0
    noisy = Volume.read(flair)
    noise = np.random.default_rng(0).normal(0, 0.5 * noisy.array.max(), noisy.shape).astype(np.float32)
    odd = DEMISTCore.synthesize(t1w, noisy.with_array(np.where(noisy.array != 0, noisy.array + noise, 0)), **plain)
    assert odd.provenance["uncertainty"]["widened"] > 1.0
    assert any("unlike those" in sentence for sentence in odd.provenance["warnings"])


def test_what_cannot_be_calibrated(runs, people, tiny_bundle, tmp_path, capsys):
    root = runs[1]
    words = ("--data", people, "--prepared", "--out")
    assert train_cli("calibrate", tiny_bundle, *words, tmp_path / "a") == 2
    assert "no mean network" in capsys.readouterr().err
    assert train_cli("calibrate", root / "tiny", *words, root / "tiny") == 2
    assert train_cli("calibrate", root / "tiny", *words, tmp_path / "b", "--trained-on", tmp_path) == 2
    assert "no descriptions" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_a_map_is_what_was_trained_though_its_bends_go_into_the_weights():
    """Training bends each voxel's hidden layers, a map's voxels share one scan: two ways of computing the same."""
    torch.manual_seed(0)
    local = Local(16, 4).double()
    for parameter in local.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    rows, bends = torch.randn(50, filters.NEAR + filters.WIDE).double(), torch.randn(4, 16).double()
    with torch.no_grad():
        standard = local.standard_rows(rows)
        mean, sure = local.beyond(standard, bends)
        mapped, mapped_sure = local.at(rows, bends)
    torch.testing.assert_close(mapped, linear_rows(rows) @ local.line + mean)
    torch.testing.assert_close(mapped_sure, sure)


def test_curvatures_are_the_eigenvalues_of_the_hessian():
    h = torch.randn(200, 3, 3).double()
    h = h + h.transpose(1, 2)
    h[:3] = torch.eye(3) * torch.tensor([0.0, 1.0, -2.0])[:, None, None]  # all three alike
    found = filters.eigenvalues({(i, j): h[:, i, j] for i in range(3) for j in range(i, 3)})
    np.testing.assert_allclose(found.T.numpy(), np.linalg.eigvalsh(h.numpy()), atol=1e-6)
