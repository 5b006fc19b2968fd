"""The scanner's side of the simulator: exchange against expm, artefacts against numpy, sidecars against BIDS."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg, ndimage, stats

from DEMISTCore.labels import CSF, GREY, WHITE
from DEMISTCore.simulate import artefacts, bids, exchange, physics, protocol, scanner, signals
from DEMISTCore.simulate.anatomy import Anatomy
from DEMISTCore.simulate.artefacts import Processing
from DEMISTCore.simulate.subject import simulate_subject
from DEMISTCore.simulate.tissues import class_map

# --- two pools --------------------------------------------------------------------------------------------------

TISSUES = [(0.12, 1.05, 11.0), (0.06, 0.70, 15.0), (0.02, 0.55, 11.0)]


def generator(psr, r1, kmf, r1_bound):
    """Bloch-McConnell on (Mf, Mm, 1), equilibrium magnetisations 1 and ``psr``, with a slow rate of ``r1``."""
    # R1 of the free pool by root search, not by the closed form under test.
    from scipy.optimize import brentq

    def matrix(free):
        kfm = kmf * psr
        return np.array([[-free - kfm, kmf, free], [kfm, -r1_bound - kmf, r1_bound * psr], [0, 0, 0]])

    free = brentq(lambda f: -np.linalg.eigvals(matrix(f)[:2, :2]).real.max() - r1, -3, 6)
    return matrix(free)


@pytest.mark.parametrize(("psr", "r1", "kmf"), TISSUES)
@pytest.mark.parametrize("r1_bound", [1.0, 4.0])
def test_relaxation_is_the_matrix_exponential(psr, r1, kmf, r1_bound):
    scale = np.diag([1, psr, 1])  # to units of each pool's own equilibrium
    for duration in (0.007, 0.3, 4.0):
        expected = np.linalg.inv(scale) @ linalg.expm(generator(psr, r1, kmf, r1_bound) * duration) @ scale
        found = exchange.relaxation(duration, np.array(psr), np.array(r1), kmf=kmf, r1_bound=r1_bound)
        assert np.allclose(found, expected, atol=1e-7)


@pytest.mark.parametrize(("psr", "r1", "kmf"), TISSUES)
def test_two_pool_mprage_pulse_by_pulse(psr, r1, kmf):
    tr, ti, spacing, flip, echoes, duration = 2.0, 0.9, 0.008, 11.0, 100, 0.001
    rates = generator(psr, r1, kmf, 3.0)
    m, signal = np.array([1.0, psr, 1.0]), 0.0
    # Saturation of the macromolecules grows with the square of the angle from 0.83 at 180 degrees in 1 ms.
    excite = np.diag([np.cos(np.radians(flip)), 0.83 ** ((flip / 180) ** 2), 1])
    step, before, after = (linalg.expm(rates * t) for t in (spacing, ti - 50 * spacing, tr - ti - 50 * spacing))
    for _ in range(12):
        m = before @ (m * [-0.96, 0.8, 1])
        for index in range(echoes):
            if index == 50:
                signal = abs(m[0]) * np.sin(np.radians(flip))
            m = step @ excite @ m
        m = after @ m
    found = exchange.mprage(
        np.array(psr),
        np.array(r1),
        tr=tr,
        ti=ti,
        echo_spacing=spacing,
        flip=flip,
        echoes=echoes,
        kmf=kmf,
        r1_bound=3.0,
        inversion_efficiency=0.96,
        inversion_saturation=0.8,
        pulse_duration=duration,
    )
    assert float(found) == pytest.approx(signal, rel=1e-6)
    with pytest.raises(ValueError, match="does not fit"):
        exchange.mprage(
            np.array(psr), np.array(r1), tr=1.0, ti=0.9, echo_spacing=0.01, flip=9, echoes=160, kmf=11, r1_bound=1
        )


@pytest.mark.parametrize(("psr", "r1", "kmf"), TISSUES)
def test_two_pool_flair_and_spoiled_echo_step_by_step(psr, r1, kmf):
    rates = generator(psr, r1, kmf, 2.0)
    to_echo, rest, tr = (linalg.expm(rates * t) for t in (2.4, 6.6, 0.015))
    m, z = np.array([1.0, psr, 1.0]), np.array([1.0, psr, 1.0])
    excite = np.diag([np.cos(np.radians(25)), 0.83 ** ((25 / 180) ** 2 / 2), 1])  # twice as long, half the power
    for _ in range(8):
        echo = to_echo @ (m * [-0.97, 0.83, 1])
        m = rest @ (echo * [0, 0.3, 1])
    for _ in range(2000):
        z = tr @ excite @ z
    pools = {"kmf": kmf, "r1_bound": 2.0}
    found = exchange.flair(np.array(psr), np.array(r1), tr=9.0, ti=2.4, inversion_efficiency=0.97, **pools)
    assert float(found) == pytest.approx(abs(echo[0]), rel=1e-6)
    found = exchange.spoiled_echo(np.array(psr), np.array(r1), tr=0.015, flip=25.0, pulse_duration=0.002, **pools)
    assert float(found) == pytest.approx(z[0] * np.sin(np.radians(25)), rel=1e-6)


def test_without_macromolecules_two_pools_are_one():
    r1 = np.array([0.24, 0.7, 1.2])
    none = np.zeros(3)
    train = {"tr": 2.3, "ti": 0.9, "echo_spacing": 0.007, "flip": 9.0, "echoes": 160}
    pools = {"kmf": 11.0, "r1_bound": 2.0}
    assert np.allclose(exchange.mprage(none, r1, **train, **pools), physics.mprage_signal(r1, 1.0, **train), rtol=1e-9)
    one = physics.flair_signal(r1, none, 1.0, tr=9.0, ti=2.4, te=0.0)
    assert np.allclose(exchange.flair(none, r1, tr=9.0, ti=2.4, **pools), one, rtol=1e-9)
    e = np.exp(-0.02 * r1)
    ernst = np.sin(0.4) * (1 - e) / (1 - np.cos(0.4) * e)
    assert np.allclose(exchange.spoiled_echo(none, r1, tr=0.02, flip=np.degrees(0.4), **pools), ernst, rtol=1e-9)
    assert np.allclose(exchange.spin_echo(none, r1, tr=0.5, **pools), 1 - np.exp(-0.5 * r1), rtol=1e-9)


def test_slow_exchange_matters_in_mprage_and_hardly_in_flair():
    """The figures of docs/simulator.md: why images are computed with two pools."""
    psr, kmf = (0.12, 0.06), (11.0, 15.0)
    r1 = [physics.r1_from_psr(np.array(p), 0.36, 6.8) for p in psr]
    train = {"tr": 2.3, "ti": 0.9, "echo_spacing": 0.007, "flip": 9.0, "echoes": 160}
    fast = [float(physics.mprage_signal(r, 1.0, **train)) for r in r1]
    slow = [float(exchange.mprage(np.array(p), r, kmf=k, r1_bound=1.0, **train)) for p, r, k in zip(psr, r1, kmf)]
    assert (1 - slow[1] / slow[0]) / (1 - fast[1] / fast[0]) == pytest.approx(1.047, abs=0.005)
    fast = [float(physics.flair_signal(r, np.array(0.0), 1.0, tr=9.0, ti=2.4, te=0.0)) for r in r1]
    slow = [float(exchange.flair(np.array(p), r, tr=9.0, ti=2.4, kmf=k, r1_bound=1.0)) for p, r, k in zip(psr, r1, kmf)]
    assert slow[1] / slow[0] / (fast[1] / fast[0]) == pytest.approx(1.008, abs=0.003)


# --- a head -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def healthy():
    x, y, z = np.meshgrid(*[np.arange(56) - 27.5] * 3, indexing="ij")
    rho = np.sqrt(x**2 + y**2 + z**2)
    labels = np.zeros((56,) * 3, np.int16)
    for radius, label in ((24, 24), (22, 3), (17, 2), (5, 4)):
        labels[rho < radius] = label
    return simulate_subject(3, anatomy=Anatomy(class_map(labels), np.eye(4), "ball"), healthy=True, skull=False)


def plain(**changes) -> protocol.Protocol:
    """A drawn scanner without noise, bias, gamma, movement and tilt."""
    from dataclasses import replace

    drawn = next(
        p
        for p in (protocol.draw_protocol(np.random.default_rng(s)) for s in range(99))
        if p.t1_sequence == "mprage" and p.field_strength == 3
    )
    quiet = {
        "snr": (1e9, 1e9),
        "bias": (0.0, 0.0),
        "gamma": (1.0, 1.0),
        "misregistration": (0.0,) * 6,
        "b1": 0.0,
        "obliquity": (0.0,) * 3,
        "processing": (Processing(), Processing()),
        "t1_spacing": (1.0,) * 3,
        "flair_spacing": (1.0,) * 3,
        "t1_slice_axis": 2,
        "flair_slice_axis": 2,
        "blur": (0.3, 0.3),
    }
    return replace(drawn, **(quiet | changes))


def test_tabulated_signals_are_the_equations(healthy):
    rng = np.random.default_rng(0)
    psr, r1, b1 = rng.uniform(0, 0.16, 4000), rng.uniform(0.35, 1.6, 4000), rng.uniform(0.7, 1.3, 4000)
    for seed in range(12):
        for laws in protocol.PHYSICS:
            p = protocol.draw_protocol(np.random.default_rng(seed), physics=laws)
            for kind in (signals._t1_equation, signals._flair_equation):
                equation = kind(p, WHITE)
                exact = equation(psr, r1, b1)
                error = np.abs(signals.tabulated(equation, psr, r1, b1) - exact).max() / exact.max()
                assert error < 4e-3, (p.t1_sequence, laws)


def test_every_t1w_sequence_shows_white_over_grey_over_fluid():
    psr, r1, pd, r2 = (np.array(v) for v in ([0.12, 0.06, 0.0], [1.05, 0.70, 1 / 4.2], [0.7, 0.82, 1.0], [13, 10, 0.6]))
    seen = set()
    for seed in range(120):
        for laws in protocol.PHYSICS:
            p = protocol.draw_protocol(np.random.default_rng(seed), physics=laws)
            if p.field_strength == 3:
                te = p.t1_te if p.t1_sequence in ("se", "ir") else 0.0
                found = signals._t1_equation(p, WHITE)(psr, r1, np.ones(3)) * pd * np.exp(-te * r2)
                assert found[0] > found[1] > found[2], p
                seen.add(p.t1_sequence)
    assert seen == {"mprage", "spgr", "se", "ir"}


def test_lesion_r1_is_added_to_the_free_water(healthy):
    p = plain()
    own, found = healthy.lesion_r1, []
    try:
        for added in (0.1, 0.3):
            object.__setattr__(healthy, "lesion_r1", np.full(healthy.psr.shape, added, np.float32))
            found.append(next(c for c in signals._compartments(healthy, p) if c[0] == WHITE))
    finally:
        object.__setattr__(healthy, "lesion_r1", own)
    one, other = found
    factor = p.jitter[0] * healthy.r1_factor.ravel()[one[-1]]
    assert np.allclose(other[2] - one[2], 0.2 * factor / (1 + one[1]), atol=1e-5)


def test_flip_field_changes_spoiled_echoes_as_ernst_says(healthy):
    p = plain(t1_sequence="spgr", t1_tr=0.02, t1_flip=20.0, t1_te=0.004)
    b1 = np.full(healthy.psr.shape, 0.8, np.float32)
    csf = (healthy.fractions[CSF] > 0.999) & healthy.brain
    ratio = (signals.t1_image(healthy, p, b1) / np.maximum(signals.t1_image(healthy, p), 1e-9))[csf]
    e = np.exp(-0.02 * protocol.R1_CSF)

    def ernst(degrees):
        return np.sin(np.radians(degrees)) * (1 - e) / (1 - np.cos(np.radians(degrees)) * e)

    assert np.allclose(ratio, ernst(16) / ernst(20), rtol=1e-3)
    flips = np.stack([artefacts.flip_field((60, 70, 60), 0.2, np.random.default_rng(s)) for s in range(12)])
    assert 0.5 <= flips.min() < flips.max() <= 1.5
    assert flips[:, 30, 35, 30].mean() == pytest.approx(1.13, abs=0.06)  # 65 % of 0.2 in the centre
    assert flips[:, 5, 35, 30].mean() < 0.98
    assert flips.mean((1, 2, 3)).std() < 0.1


# --- artefacts ----------------------------------------------------------------------------------------------------


def test_gibbs_ringing_is_numpy_s_truncated_fourier_transform():
    image = np.zeros((40, 31, 8), np.float32)
    image[12:28, 8:20] = 1
    found = artefacts.truncate_kspace(image, (0.6, 1.0, 1.0))
    spectrum = np.fft.fftshift(np.fft.fft(image.astype(float), axis=0), axes=0)
    kept = np.zeros_like(spectrum)
    kept[20 - 12 : 20 + 13] = spectrum[20 - 12 : 20 + 13]
    assert np.allclose(found, np.fft.ifft(np.fft.ifftshift(kept, axes=0), axis=0).real, atol=1e-5)
    # The first overshoot of a truncated step is 9 % (Wilbraham and Gibbs).
    fine = np.zeros((400, 1, 1), np.float32)
    fine[100:300] = 1
    assert artefacts.truncate_kspace(fine, (0.2, 1, 1)).max() == pytest.approx(1.0895, abs=0.01)
    assert np.array_equal(artefacts.truncate_kspace(image, (1.0, 1.0, 1.0)), image)


def test_noise_of_one_and_of_many_coils():
    rng = np.random.default_rng(0)
    signal = np.full((60, 60, 60), 5.0, np.float32)
    one = artefacts.received(signal, 1.0, rng).ravel()
    assert stats.kstest(one, stats.rice(5.0).cdf).pvalue > 1e-3
    many = artefacts.received(signal, 1.0, rng, coils=4).ravel()
    assert stats.kstest(many.astype(float) ** 2, stats.ncx2(8, 25.0).cdf).pvalue > 1e-3
    # Truncated k-space: noise of the same size, but neighbours share it.
    ringing = artefacts.received(np.full((60, 60, 60), 50.0, np.float32), 1.0, rng, kspace=(0.5, 1.0, 1.0))
    centred = ringing - ringing.mean()
    assert centred.std() == pytest.approx(1.0, rel=0.03)
    assert (centred[1:] * centred[:-1]).mean() == pytest.approx(2 / np.pi, abs=0.03)  # sinc(1 / 2)
    assert abs((centred[:, 1:] * centred[:, :-1]).mean()) < 0.02


def test_interpolation_keeps_ramps_and_overshoots_only_when_cubic():
    coarse = np.tile(np.arange(20, dtype=np.float32)[:, None, None], (1, 6, 6))
    for kind in ("linear", "cubic"):
        fine = artefacts.interpolate(coarse, (40, 6, 6), (2.0, 1.0, 1.0), kind)
        assert np.allclose(np.diff(fine[4:-4, 3, 3]), 0.5, atol=1e-5)
        assert fine[:, 3, 3].mean() == pytest.approx(9.5, abs=1e-4)  # about the same centre
    step = (coarse > 9).astype(np.float32)
    assert artefacts.interpolate(step, (40, 6, 6), (2.0, 1, 1), "linear").min() == 0
    assert -0.1 < artefacts.interpolate(step, (40, 6, 6), (2.0, 1, 1), "cubic").min() < -0.01


def test_filters_do_what_their_names_say():
    rng = np.random.default_rng(0)
    image = np.full((40, 40, 40), 100, np.float32)
    image[20:] = 200
    noisy = image + 5 * rng.standard_normal(image.shape).astype(np.float32)

    def after(kind, spacing=(1.0, 1.0, 1.0)):
        return artefacts.filtered(noisy, Processing(filter=kind, strength=0.8), spacing)

    noise = {
        kind: (after(kind) - image)[2:14].std() for kind in ("none", "sharpen", "smooth", "median", "diffusion", "hann")
    }
    assert noise["none"] == pytest.approx(5, rel=0.02)
    assert noise["sharpen"] > 6
    assert max(noise[k] for k in ("smooth", "median", "diffusion", "hann")) < 4.5
    edge = {kind: np.diff(after(kind).mean((1, 2)))[19] for kind in noise}
    assert edge["sharpen"] > 105
    assert edge["diffusion"] == pytest.approx(100, abs=2)
    assert edge["smooth"] < 80
    # Thick slices are filtered in their plane alone.
    flat = artefacts.filtered(np.swapaxes(noisy, 0, 2), Processing(filter="smooth", strength=1.0), (1.0, 1.0, 4.0))
    assert np.diff(flat.mean((0, 1)))[19] == pytest.approx(100, abs=1)


def test_stripes_clipping_and_curve():
    gains = artefacts.stripe_gains(2000, 0.02, np.random.default_rng(0))
    assert abs(gains[::2].mean() - gains[1::2].mean()) == pytest.approx(0.04, abs=0.002)
    image = np.random.default_rng(1).uniform(0, 1, (50, 50, 50)).astype(np.float32)
    clipped = artefacts.winsorized(image, 0.01, 0.0)
    assert clipped.max() == pytest.approx(0.99, abs=0.002)
    assert np.array_equal(clipped[image < 0.98], image[image < 0.98])
    curve = artefacts.compressed(np.array([0.0, 0.5, 1.0]), 1.0, 1.0)
    assert curve == pytest.approx([0, np.log2(1.5), 1])


@pytest.mark.parametrize("kind", ["random", "polynomial", "coils"])
def test_bias_fields_are_smooth_and_of_the_asked_size(kind):
    logs = [np.log(artefacts.bias_field((64, 70, 60), 0.1, kind, np.random.default_rng(s))) for s in range(6)]
    inner = [log[13:-13, 14:-14, 12:-12] for log in logs]
    assert np.sqrt(np.mean(np.square(inner))) == pytest.approx(0.1, rel=0.5)
    assert max(np.abs(np.diff(log, axis=0)).max() for log in inner) < 0.05


def test_interpolated_scans_lie_on_the_written_grid(healthy):
    reference = scanner.acquire(healthy, plain(), np.random.default_rng(0)).t1w
    for kind in ("linear", "cubic"):
        done = (Processing(zoom=(1.0, 1.0, 2.5), interpolation=kind), Processing())
        scan = scanner.acquire(healthy, plain(processing=done), np.random.default_rng(0)).t1w
        assert scan.array.shape == reference.array.shape
        assert np.allclose(scan.affine, reference.affine)
        assert (scan.array.min() < 0) == (kind == "cubic")
        for axis in range(3):
            centroid = [
                np.average(
                    np.arange(v.array.shape[axis]),
                    weights=np.clip(v.array, 0, None).sum(tuple(k for k in range(3) if k != axis)),
                )
                for v in (scan, reference)
            ]
            assert centroid[0] == pytest.approx(centroid[1], abs=0.05)
        sharpness = [np.abs(np.diff(v.array, axis=2)).max() for v in (scan, reference)]
        assert sharpness[0] < 0.75 * sharpness[1]


# --- drawing and sidecars -----------------------------------------------------------------------------------------


def test_drawn_shares_are_as_documented():
    drawn = [protocol.draw_protocol(np.random.default_rng(s)) for s in range(600)]
    t1, flair = ([p.processing[i] for p in drawn] for i in (0, 1))
    assert np.mean([p.t1_spacing[2] >= 2 for p in drawn]) == pytest.approx(0.2, abs=0.06)
    assert max(p.t1_spacing[2] for p in drawn) <= 4
    for images in (t1, flair):
        assert np.mean([min(p.kspace) < 1 for p in images]) == pytest.approx(0.55, abs=0.08)
        assert np.mean([p.interpolation != "none" for p in images]) == pytest.approx(0.15, abs=0.05)
        assert np.mean([p.winsor > 0 for p in images]) == pytest.approx(0.25, abs=0.06)
        assert {p.filter for p in images} == {"none", "sharpen", "smooth"}
    for p in drawn:
        for spacing, done in ((p.t1_spacing, p.processing[0]), (p.flair_spacing, p.processing[1])):
            assert all(z >= 1 for z in done.zoom)
            assert spacing[0] * done.zoom[0] < 2.01
            assert spacing[2] * done.zoom[2] <= 5
    assert any(p.processing[1].stripes for p in drawn)
    # Without thick slices nothing is thicker than 2 mm, interpolated or not.
    still = [protocol.draw_protocol(np.random.default_rng(s), thick_slices=0) for s in range(200)]
    assert max(p.t1_spacing[2] * p.processing[0].zoom[2] for p in still) < 2.01
    assert {p.b1 > 0.08 for p in drawn if p.field_strength == 3} == {True}


def test_shifted_physics_is_another_one(healthy):
    with pytest.raises(ValueError, match="choose standard or shifted"):
        protocol.draw_protocol(np.random.default_rng(0), physics="other")
    draws = {
        k: [protocol.draw_protocol(np.random.default_rng(s), physics=k) for s in range(300)] for k in protocol.PHYSICS
    }
    assert all(p.physics == "shifted" for p in draws["shifted"])
    assert all(p.coils > 1 and p.bias_kind != "random" and max(p.iron) > 0 for p in draws["shifted"])
    assert {p.processing[0].filter for p in draws["shifted"]} == {"none", "median", "diffusion", "hann"}
    # T1 at 3 T stays within what is published (Wansapura 1999, Stanisz 2005, Wright 2008), its relation to PSR not.
    for psr, low, high in ((0.12, 0.79, 1.11), (0.06, 1.15, 1.85)):
        times = [1 / (p.r1_water + p.r1_macro * psr) for p in draws["shifted"] if p.field_strength == 3]
        assert low < np.percentile(times, 2.5) < np.percentile(times, 97.5) < high
    p = next(p for p in draws["shifted"] if p.t1_sequence == "mprage")
    key, psr, r1, *_, where = next(c for c in signals._compartments(healthy, p) if c[0] == WHITE)
    water = p.r1_water + healthy.lesion_r1.ravel()[where]  # vessels have water of their own
    expected = (water + p.r1_macro * psr + p.iron[0]) * p.jitter[0] * healthy.r1_factor.ravel()[where]
    assert np.allclose(r1, expected, rtol=1e-5)
    scan = scanner.acquire(healthy, p, np.random.default_rng(0))
    white, grey = (ndimage.binary_erosion(healthy.fractions[k] > 0.9) for k in (WHITE, GREY))
    t1w = scan.t1w.resampled_to(healthy.grid).array
    assert np.median(t1w[white]) > np.median(t1w[grey]) > 0


def test_sidecars_hold_the_protocol_in_bids_terms():
    seen = set()
    for seed in range(60):
        p = protocol.draw_protocol(np.random.default_rng(seed))
        for suffix in ("T1w", "FLAIR"):
            content = bids._sidecar(p, suffix)
            first = suffix == "T1w"
            assert content["MagneticFieldStrength"] in (1.5, 3.0)
            assert content["RepetitionTime"] == (p.t1_tr if first else p.flair_tr)
            assert 0.001 < content["EchoTime"] < 0.2
            assert 5 < content["FlipAngle"] <= 90
            assert content["SliceThickness"] == pytest.approx(
                (p.t1_spacing if first else p.flair_spacing)[2] * p.processing[0 if first else 1].zoom[2], abs=1e-3
            )
            assert content["MRAcquisitionType"] in ("2D", "3D")
            if content["MRAcquisitionType"] == "2D":
                assert content["SliceThickness"] >= 2
            inverted = not first or p.t1_sequence in ("mprage", "ir")
            assert ("InversionTime" in content) == inverted
            if inverted:
                assert 0.5 < content["InversionTime"] < content["RepetitionTime"]
            seen.add((content["PulseSequenceType"], content["MRAcquisitionType"]))
    assert {("MPRAGE", "3D"), ("SPGR", "3D"), ("FLAIR", "2D"), ("FLAIR", "3D")} <= seen
