"""The simulator: physics against brute force, anatomy and lesions against statistics, files against the layout."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage, stats
from scipy.spatial.transform import Rotation

from DEMISTCore.cli import run
from DEMISTCore.errors import InputError
from DEMISTCore.labels import CSF, GREY, WHITE
from DEMISTCore.simulate import bids, cohort, fields, lesions, physics, protocol, scanner
from DEMISTCore.simulate.__main__ import main
from DEMISTCore.simulate.anatomy import Anatomy, list_anatomies, load_anatomy
from DEMISTCore.simulate.shape import coordinates, moved_surfaces, surface_shift
from DEMISTCore.simulate.subject import simulate_subject
from DEMISTCore.simulate.tissue_maps import tissue_maps
from DEMISTCore.simulate.tissues import CLASS_INDEX, CLASSES, EXTRA, class_map
from DEMISTCore.volume import Grid, Volume

# --- a small head ----------------------------------------------------------------------------------------------

SIDE = 64
# Radii as a share of the head's, outside in, with FreeSurfer numbers: skin, bone, outer CSF, cortex, white matter.
_SHELLS = ((1.0, 511), (0.94, 515), (0.89, 24), (0.85, 3), (0.71, 2))


def small_labels() -> np.ndarray:
    """A head of nested ellipsoids (64, 64, 64), 1 mm, as FreeSurfer numbers."""
    x, y, z = np.meshgrid(*[np.arange(SIDE) - (SIDE - 1) / 2] * 3, indexing="ij")
    rho = np.sqrt((x / 30) ** 2 + (y / 31) ** 2 + (z / 29) ** 2)
    labels = np.zeros((SIDE,) * 3, np.int16)
    for radius, label in _SHELLS:
        labels[rho < radius] = label
    labels[(labels == 3) & (z < -8) & (y < -6)] = 8
    labels[(labels == 2) & (np.hypot(x, y + 2) < 6) & (z < -8)] = 16
    for side in (-1, 1):
        for (cx, cy, cz), radius, label in (((5, -4, 0), 4, 10), ((11, 3, 0), 3.5, 12), ((9, 0, -3), 2, 13)):
            labels[(x - side * cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < radius**2] = label
        labels[((x - side * 3) / 2.2) ** 2 + ((y - 1) / 9) ** 2 + ((z - 6) / 4) ** 2 < 1] = 4
    return labels


def small_head(pad: int = 0) -> Anatomy:
    affine = np.eye(4)
    affine[:3, 3] = -31.5 - pad
    return Anatomy(np.pad(class_map(small_labels()), pad), affine, "ellipsoids")


@pytest.fixture(scope="module")
def head() -> Anatomy:
    return small_head()


@pytest.fixture(scope="module")
def healthy():
    # Air around the head, so that moving it pushes nothing out of the image.
    return simulate_subject(3, anatomy=small_head(pad=8), healthy=True)


@pytest.fixture(scope="module")
def patients(head):
    """Six people with lesions on one anatomy."""
    return [simulate_subject(seed, anatomy=head, skull=False) for seed in range(10, 16)]


@pytest.fixture(scope="module")
def label_map(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("maps") / "head.nii.gz"
    affine = np.eye(4)
    affine[:3, 3] = -31.5
    nib.save(nib.Nifti1Image(small_labels(), affine), path)
    return path


@pytest.fixture(scope="module")
def drawn() -> list[protocol.Protocol]:
    """Four hundred scanners of the default ranges."""
    return [protocol.draw_protocol(np.random.default_rng(seed)) for seed in range(400)]


def quiet(**changes) -> protocol.Protocol:
    """A noise-free 3 T MPRAGE + FLAIR scanner without bias, gamma, movement or tilt."""
    plain = protocol.Protocol(
        field_strength=3.0,
        r1_water=0.36,
        r1_macro=6.8,
        jitter=(1.0, 1.0),
        t1_sequence="mprage",
        t1_tr=2.3,
        t1_ti=0.9,
        t1_te=0.0,
        t1_flip=9.0,
        t1_echo_spacing=0.007,
        t1_echoes=160,
        flair_tr=9.0,
        flair_ti=2.4,
        flair_te=0.11,
        flair_mt=0.0,
        t1_spacing=(1.0, 1.0, 1.0),
        t1_slice_axis=0,
        flair_spacing=(1.0, 1.0, 1.0),
        flair_slice_axis=2,
        snr=(1e9, 1e9),
        bias=(0.0, 0.0),
        blur=(0.3, 0.3),
        gamma=(1.0, 1.0),
        misregistration=(0.0,) * 6,
        obliquity=(0.0, 0.0, 0.0),
    )
    return replace(plain, **changes)


# --- physics ---------------------------------------------------------------------------------------------------


def bloch_mprage(r1, *, tr, ti, echo_spacing, flip, echoes, inversion_efficiency, center, cycles=40) -> float:
    """MPRAGE pulse by pulse on a magnetisation vector (x, y, z), ideally spoiled; the signal at the centre's pulse."""
    angle = np.radians(flip)
    pulse = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    first = round(center * echoes)

    def wait(m, duration):
        return np.array([0.0, 0.0, 1 + (m[2] - 1) * np.exp(-duration * r1)])  # transverse part spoiled

    m, signal = np.array([0.0, 0.0, 1.0]), 0.0
    for _ in range(cycles):
        m = wait(m * [1, 1, -inversion_efficiency], ti - first * echo_spacing)
        for index in range(echoes):
            m = pulse @ m
            if index == first:
                signal = np.hypot(m[0], m[1])
            m = wait(m, echo_spacing)
        m = wait(m, tr - ti - (echoes - first) * echo_spacing)
    return signal


@pytest.mark.parametrize("r1", [0.24, 0.7, 1.05, 1.5])
@pytest.mark.parametrize(
    ("tr", "ti", "flip", "echoes", "center"),
    [(2.3, 0.9, 9.0, 160, 0.5), (1.7, 1.1, 13.0, 120, 0.4), (2.0, 0.8, 7.0, 40, 0.25)],
)
def test_mprage_closed_form_equals_pulse_by_pulse_bloch(r1, tr, ti, flip, echoes, center):
    options = {"tr": tr, "ti": ti, "echo_spacing": 0.007, "flip": flip, "echoes": echoes, "center": center}
    options["inversion_efficiency"] = 0.96
    expected = bloch_mprage(r1, **options)
    assert physics.mprage_signal(np.array([r1]), 0.8, **options)[0] == pytest.approx(0.8 * expected, rel=1e-6)


def test_every_drawn_mprage_fits_its_cycle_and_an_impossible_one_says_so(drawn):
    for p in drawn:
        if p.t1_sequence == "mprage":
            signal = physics.mprage_signal(
                np.array([1.05, 0.7, 0.24]),
                np.array([0.7, 0.82, 1.0]),
                tr=p.t1_tr,
                ti=p.t1_ti,
                echo_spacing=p.t1_echo_spacing,
                flip=p.t1_flip,
                echoes=p.t1_echoes,
            )
            assert signal[0] > signal[1] > 0, "white matter is brighter than grey matter on MPRAGE"
    assert {p.t1_sequence for p in drawn} == {"mprage", "spgr", "se", "ir"}
    assert {p.field_strength for p in drawn} == {1.5, 3.0}
    with pytest.raises(ValueError, match="does not fit"):
        physics.mprage_signal(np.array([1.0]), 1.0, tr=1.0, ti=0.9, echo_spacing=0.01, flip=9, echoes=160)


def spin_echo_ir(r1, r2, *, tr, ti, te, efficiency, cycles=12) -> float:
    """Inversion recovery with a 90-180 spin echo on off-resonant isochromats, crushed after the echo."""
    offsets = np.linspace(-40, 40, 201) * 2 * np.pi
    z = np.ones_like(offsets)
    signal = 0.0
    for _ in range(cycles):
        z = 1 + (-efficiency * z - 1) * np.exp(-ti * r1)
        across, z = z * 1j, np.zeros_like(z)  # 90 degrees
        for half in range(2):
            across = across * np.exp((1j * offsets - r2) * te / 2)
            z = 1 + (z - 1) * np.exp(-te / 2 * r1)
            if half == 0:
                across, z = np.conj(across), -z  # 180 degrees
        signal = abs(across.mean())
        z = 1 + (z - 1) * np.exp(-(tr - ti - te) * r1)
    return signal


@pytest.mark.parametrize(("r1", "r2"), [(1.05, 13.3), (0.7, 10.2), (0.55, 6.0)])
def test_flair_equation_against_simulated_spin_echo(r1, r2):
    options = {"tr": 9.0, "ti": 2.4, "te": 0.11}
    expected = spin_echo_ir(r1, r2, efficiency=0.95, **options)
    value = physics.flair_signal(np.array([r1]), np.array([r2]), 0.8, inversion_efficiency=0.95, **options)[0]
    assert value == pytest.approx(0.8 * expected, rel=0.01)  # the refocusing pulse costs TE out of the recovery


def test_flair_equation_is_the_exact_steady_state_of_instant_readout():
    r1, tr, ti, k = 0.24, 7.0, 2.1, 0.9
    z = 1.0
    for _ in range(50):
        z = 1 + (-k * z - 1) * np.exp(-ti * r1)
        before, z = z, 0.0
        z = 1 - np.exp(-(tr - ti) * r1)
    value = physics.flair_signal(np.array([r1]), np.array([0.6]), 1.0, tr=tr, ti=ti, te=0.1, inversion_efficiency=k)[0]
    assert value == pytest.approx(abs(before) * np.exp(-0.06), rel=1e-9)


def test_csf_is_nulled_and_dark_in_every_drawn_flair(drawn):
    for tr in (4.8, 7.0, 11.0):
        ti = physics.csf_null_ti(protocol.R1_CSF, tr)
        assert physics.flair_signal(np.array([protocol.R1_CSF]), np.array([0.6]), 1.0, tr=tr, ti=ti, te=0.1)[0] < 1e-12
    for p in drawn:
        r1 = np.array([protocol.R1_CSF, physics.r1_from_psr(0.12, p.r1_water, p.r1_macro)])
        csf, white = physics.flair_signal(
            r1, np.array([protocol.R2_CSF, 13.3]), np.array([1.0, 0.7]), tr=p.flair_tr, ti=p.flair_ti, te=p.flair_te
        )
        assert csf < white


@pytest.mark.parametrize(
    ("tissue", "psr", "tesla", "low", "high"),
    [
        # T1 in s: Rooney 2007 and Wright 2008 at 1.5 T; Wansapura 1999, Stanisz 2005 and Wright 2008 at 3 T.
        ("white", 0.12, 1.5, 0.56, 0.80),
        ("grey", 0.06, 1.5, 0.92, 1.30),
        ("white", 0.12, 3.0, 0.79, 1.11),
        ("grey", 0.06, 3.0, 1.20, 1.85),
    ],
)
def test_t1_from_psr_is_within_published_ranges(drawn, tissue, psr, tesla, low, high):
    times = [1 / physics.r1_from_psr(psr, p.r1_water, p.r1_macro) for p in drawn if p.field_strength == tesla]
    assert low < np.percentile(times, 2.5)
    assert np.percentile(times, 97.5) < high


def test_r1_is_the_slow_rate_of_two_pools_in_fast_exchange():
    for psr in (0.0, 0.06, 0.12, 0.2):
        r1w, r1m, k = 0.36, 6.8, 1e5  # exchange from the macromolecular pool, 1/s
        bloch_mcconnell = np.array([[-r1w - k * psr, k], [k * psr, -r1m - k]])
        slow = -np.linalg.eigvals(bloch_mcconnell).max()
        assert physics.r1_from_psr(psr, r1w, r1m) == pytest.approx(slow, rel=1e-3)


# --- random fields and deformations ----------------------------------------------------------------------------


def test_smooth_field_has_unit_variance_and_the_asked_correlation_length():
    shape, scale = (40, 36, 44), 4.0
    samples = np.stack([fields.smooth_field(shape, scale, np.random.default_rng(seed)) for seed in range(24)])
    assert samples.dtype == np.float32
    assert abs(samples.mean()) < 0.15
    assert samples.var() == pytest.approx(1.0, abs=0.1)
    # As wide at the border as inside.
    assert samples[:, :2].var() == pytest.approx(1.0, abs=0.2)

    def correlation(lag):
        return (samples[:, lag:] * samples[:, :-lag]).mean() / samples.var()

    # White noise through a Gaussian of sigma has autocorrelation exp(-d^2 / (4 sigma^2)).
    for lag in (2, 4, 8, 12):
        assert correlation(lag) == pytest.approx(np.exp(-((lag / scale) ** 2) / 4), abs=0.07)


def test_smooth_fields_are_drawn_by_the_generator_alone():
    one, same, other = (fields.smooth_field((20, 20, 20), 5.0, np.random.default_rng(s)) for s in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def smallest_jacobian(coordinates: np.ndarray) -> float:
    """Smallest determinant of the Jacobian of a map (3, X, Y, Z), over all eight one-sided stencils of each cell."""
    smallest = np.inf
    for corner in np.ndindex(2, 2, 2):
        columns = []
        for axis in range(3):
            edge = np.diff(coordinates, axis=axis + 1)
            cut = [slice(None)] + [
                slice(None) if k == axis else (slice(1, None) if corner[k] else slice(None, -1)) for k in range(3)
            ]
            columns.append(edge[tuple(cut)])
        jacobian = np.stack(columns, -1).transpose(1, 2, 3, 0, 4)
        smallest = min(smallest, float(np.linalg.det(jacobian).min()))
    return smallest


@pytest.mark.parametrize("seed", range(4))
def test_deformations_never_fold(seed, head):
    rng = np.random.default_rng(seed)
    displacement = fields.diffeomorphism((SIDE,) * 3, rng)
    identity = np.stack(np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij"))
    assert smallest_jacobian(identity + displacement) > 0.1
    assert np.abs(displacement).max() > 2, "and still they move tissue"
    # The whole chain with affine and swollen ventricles, as a subject uses it.
    assert smallest_jacobian(coordinates(head.classes, rng, {})) > 0.05


@pytest.mark.parametrize("shift", [-0.6, -0.2, 0.3, 0.7])
def test_surfaces_move_by_what_is_asked(shift):
    index = np.stack(np.meshgrid(*[np.arange(64.0)] * 3, indexing="ij"))
    ball = np.linalg.norm(index - 31.5, axis=0) <= 24
    moved = fields.pull(ball[None].astype(np.float32), index + surface_shift(ball, shift))[0]

    def radius(volume: np.ndarray) -> float:
        return float((3 * volume.sum() / (4 * np.pi)) ** (1 / 3))

    assert radius(moved) - radius(ball) == pytest.approx(shift, abs=0.12 * abs(shift) + 0.02)
    assert smallest_jacobian(index + surface_shift(ball, shift)) > 0.05


def test_moved_surfaces_change_cortex_and_nothing_else(head):
    def subject(sd: float):
        return simulate_subject(4, anatomy=head, healthy=True, surface_sd=sd)

    plain, moved = subject(0.0), subject(0.4)
    drawn = {"white_surface_mm", "brain_surface_mm"}
    assert drawn <= moved.parameters.keys()
    assert not drawn & plain.parameters.keys()
    assert {k: v for k, v in moved.parameters.items() if k not in drawn} == plain.parameters
    changed = np.abs(moved.fractions[WHITE] - plain.fractions[WHITE]) > 0.05
    assert changed.any()
    # Only next to a surface: deep in white matter and in air nothing moves.
    deep = ndimage.binary_erosion(plain.fractions[WHITE] > 0.98, iterations=4)
    assert deep.any()
    assert not changed[deep].any()
    again = subject(0.4)
    assert np.array_equal(again.psr, moved.psr)


@pytest.mark.parametrize("seed", range(3))
def test_moved_surfaces_never_fold(seed, head):
    rng = np.random.default_rng(seed)
    where = coordinates(head.classes, rng, {})
    assert smallest_jacobian(moved_surfaces(where, head.classes, 0.5, rng, {})) > 0.02


def test_deformation_is_the_flow_of_its_velocity():
    shape, step = (61, 61, 61), 4
    size = fields.coarse_shape(shape, step)
    rng = np.random.default_rng(5)
    velocity = np.stack([3.0 * fields.smooth_field(size, 5.0, rng) for _ in range(3)])
    velocity *= np.prod(np.meshgrid(*[np.hanning(n) for n in size], indexing="ij"), axis=0)  # at rest at the border
    displacement = fields.diffeomorphism(shape, rng, amplitudes=(), extra=velocity)
    # Independent integration of dx/dt = v(x) from a few voxels, Runge-Kutta of order 4 on the coarse grid.
    spacing = (np.array(shape) - 1) / (np.array(size) - 1)
    start = rng.integers(8, 52, (50, 3)).astype(float)

    def v(points):
        return np.stack([ndimage.map_coordinates(c / step, points.T, order=1, mode="nearest") for c in velocity], 1)

    x, h = start / spacing, 1 / 40
    for _ in range(40):
        k1 = v(x)
        k2 = v(x + h / 2 * k1)
        k3 = v(x + h / 2 * k2)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + v(x + h * k3))
    expected = (x - start / spacing) * step
    found = displacement[(slice(None), *start.astype(int).T)].T
    assert np.abs(expected).max() > 2
    assert np.abs(found - expected).max() < 0.2


def test_pull_agrees_with_scipy():
    rng = np.random.default_rng(0)
    image = rng.random((9, 10, 11)).astype(np.float32)
    points = rng.uniform(0.5, 7.5, (3, 4, 5, 6)).astype(np.float32)
    expected = ndimage.map_coordinates(image, points, order=1)
    assert np.allclose(fields.pull(image[None], points)[0], expected, atol=1e-5)


def test_random_affine_has_the_asked_spread():
    matrices = np.stack(
        [fields.random_affine(np.random.default_rng(s), rotation=4, scale=0.03, shear=0) for s in range(400)]
    )
    scales = np.log(np.linalg.norm(matrices, axis=1))
    assert scales.std() == pytest.approx(0.03, rel=0.1)
    turn = fields.random_affine(np.random.default_rng(1), rotation=50, scale=0, shear=0)
    assert np.allclose(turn @ turn.T, np.eye(3), atol=1e-12)


# --- people ----------------------------------------------------------------------------------------------------


def test_same_seed_same_bytes_other_seed_other_person(head):
    one, same, other = (simulate_subject(seed, anatomy=head) for seed in (1, 1, 2))
    for field in ("psr", "dseg", "brain", "water"):
        assert getattr(one, field).tobytes() == getattr(same, field).tobytes()
        assert getattr(one, field).shape != getattr(other, field).shape or (
            getattr(one, field).tobytes() != getattr(other, field).tobytes()
        )
    scans = [cohort.scan_subject(one, seed, scan) for seed, scan in ((1, 0), (1, 0), (1, 1), (2, 0))]
    blobs = [(s.t1w.array.tobytes(), s.flair.array.tobytes()) for s in scans]
    assert blobs[0] == blobs[1]
    assert blobs[0] != blobs[2]
    assert blobs[0] != blobs[3]


def test_no_two_subjects_share_an_anatomy(patients):
    for i, one in enumerate(patients):
        for other in patients[:i]:
            common = [slice(0, min(a, b)) for a, b in zip(one.brain.shape, other.brain.shape)]
            a, b = (np.isin(p.dseg[tuple(common)], (3, 5, 7)) for p in (one, other))
            assert 2 * (a & b).sum() / (a.sum() + b.sum()) < 0.97


def test_partial_volumes_sum_to_one_in_the_brain(healthy):
    fractions = healthy.fractions
    assert all(f.min() >= 0 and f.max() <= 1 + 1e-5 for f in fractions.values())
    inside = sum(fractions.values())[ndimage.binary_erosion(healthy.brain)]
    assert np.abs(inside - 1).max() < 0.02
    mixed = (fractions[WHITE] > 0.1) & (fractions[GREY] > 0.1)
    assert mixed.sum() > 1000, "borders are mixtures"


def test_psr_by_tissue(patients):
    for subject in patients:
        pure = ndimage.binary_erosion
        psr, dseg = subject.psr, subject.dseg
        white = np.median(psr[pure(dseg == 3)])
        cortex = np.median(psr[dseg == 2])
        deep = np.median(psr[dseg == 4])
        assert 0.085 < white < 0.155
        assert 0.03 < cortex < 0.085
        assert cortex < deep < white
        assert np.median(psr[pure(dseg == 1)]) < 0.01
        assert psr[~subject.brain].max() == 0
        assert psr.min() >= 0
        assert psr.max() < 0.2
        assert psr.dtype == np.float32
        assert set(np.unique(dseg)) <= {0, 1, 2, 3, 4, 5, 6, 7}
        assert np.all(dseg[~subject.brain] == 0)


def test_white_matter_psr_spreads_between_people_as_published(head):
    """Dortch 2011: 11.4 +- 1.2 % in white matter, a coefficient of variation of about 10 %."""
    from DEMISTCore.simulate.compartments import channels

    means = []
    for seed in range(300):
        parameters: dict = {}
        channels(head.classes[30:34, 30:34, 30:34], np.random.default_rng(seed), parameters)
        means.append(parameters["psr_means"]["white matter"])
    assert np.mean(means) == pytest.approx(0.12, abs=0.003)
    assert 0.05 < np.std(means) / np.mean(means) < 0.11


def test_healthy_people_have_no_lesions(healthy):
    assert not healthy.lesions.mask.any()
    assert not healthy.lesions.numbers.any()
    assert not np.any(healthy.dseg == 5)
    assert healthy.parameters["lesion_count"] == 0
    assert "nawm_loss" not in healthy.parameters
    assert not healthy.water.any()


def test_without_skull_only_fluid_and_residue_are_left_around_the_brain(head, patients):
    assert any(CLASSES[i].compartment == EXTRA for i in np.unique(head.classes))
    for subject in patients:
        left = subject.parameters["fluid_left_mm"]
        assert 0 <= left <= 5
        outside = ndimage.distance_transform_edt(~subject.brain)
        assert not subject.extra.any()
        assert all(not f[outside > left + 0.01].any() for f in subject.true_fractions.values())
        assert outside[sum(subject.fractions.values()) > 0.01].max() < 8.5, "a rim of dura, no more"
        assert not subject.psr[~subject.brain].any()
        scan = scanner.acquire(subject, quiet(snr=(20.0, 20.0)), np.random.default_rng(0))
        on_grid = scan.t1w.resampled_to(subject.grid).array
        away = outside > 11
        assert not on_grid[away].any(), "exactly zero, as in skull-stripped data sets"


# --- lesions ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def white_ball():
    """White matter of a realistic volume: a ball of 42 mm radius with a ventricle of 12 mm, and the two distances."""
    axis = np.arange(96) - 47.5
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    white = ((radius < 42) & (radius > 12)).astype(np.float32)
    return white, np.maximum(radius - 12, 0), np.maximum(42 - radius, 0)


@pytest.fixture(scope="module")
def grown(white_ball):
    return [lesions.grow(*white_ball, np.random.default_rng(seed), 25) for seed in range(6)]


def test_lesions_lie_in_white_matter(grown, white_ball, patients):
    for found in grown:
        assert not found.mask[white_ball[0] == 0].any()
        assert found.amount.min() >= 0
        assert found.amount.max() <= 1
        assert np.all(found.severity[found.mask] > 0)
        assert np.all((found.numbers > 0) == found.mask)
    for subject in patients:
        beyond = sum(subject.parameters["lesions_beyond"].values())
        cerebral = subject.lesions.mask & (subject.lesions.owner <= subject.lesions.owner.max() - beyond)
        assert np.mean(subject.true_fractions[WHITE][cerebral] > 0.5) > 0.95
        assert np.array_equal(subject.dseg == 5, subject.lesions.mask & subject.brain)


def test_lesion_numbers_and_volumes_are_plausible(grown):
    counts = np.array([lesions.draw_count(np.random.default_rng(seed)) for seed in range(2000)])
    assert 42 < np.median(counts) < 60
    assert counts.min() >= 1
    assert counts.max() <= 300
    totals = [found.mask.sum() / 1000 for found in grown]  # mL
    assert all(0.3 < total < 40 for total in totals)
    sizes = np.concatenate([np.bincount(found.numbers.ravel())[1:] for found in grown])
    sizes = sizes[sizes > 0]
    assert 0.005 < np.median(sizes) / 1000 < 0.1  # mL
    assert sizes.max() > 10 * np.median(sizes), "a few large ones among many small ones"


def test_severity_runs_from_mild_to_black_hole():
    drawn = np.array([lesions.draw_severity(np.random.default_rng(seed)) for seed in range(4000)])
    assert drawn.min() > 0.14
    assert drawn.max() < 0.9
    assert np.mean(drawn > 0.65) == pytest.approx(0.17 * 0.25 / 0.3, abs=0.02)
    assert 0.35 < np.median(drawn) < 0.55


def test_lesions_prefer_ventricles_and_cortex(grown, white_ball):
    white, to_ventricle, to_cortex = white_ball
    centres = []
    for found in grown:
        numbers = [n for n in np.unique(found.numbers) if n]
        centres += [tuple(np.rint(c).astype(int)) for c in ndimage.center_of_mass(found.mask, found.numbers, numbers)]
    index = tuple(np.array(centres).T)
    for distance, reach in ((to_ventricle, 6), (to_cortex, 4)):
        share = np.mean(distance[index] < reach)
        by_chance = np.mean(distance[white > 0] < reach)
        assert share > by_chance
        if distance is to_ventricle:
            assert share > 4 * by_chance
            test = stats.mannwhitneyu(distance[index], distance[white > 0][::50], alternative="less")
            assert test.pvalue < 1e-4


def test_lesions_lose_psr_and_brighten_flair(patients):
    brighter = []
    for subject in patients:
        core = subject.lesions.amount > 0.9
        if core.sum() < 20:
            continue
        near = ndimage.binary_dilation(core, iterations=6) & (subject.dseg == 3)
        assert np.median(subject.psr[core]) < 0.9 * np.median(subject.psr[near])
        scan = scanner.acquire(subject, quiet(), np.random.default_rng(0))
        flair, t1w = (image.resampled_to(subject.grid).array for image in (scan.flair, scan.t1w))
        assert np.median(t1w[core]) < np.median(t1w[near])
        brighter.append(np.median(flair[core]) > np.median(flair[near]))
    # One large black hole, dark on the FLAIR as fluid is, may make up most of a person's lesions.
    assert len(brighter) >= 5
    assert sum(brighter) >= len(brighter) - 1


def test_worse_lesions_have_less_psr(white_ball):
    """Within a lesion the compartment's PSR is (1 - amount x severity) of what it was."""
    white, to_ventricle, to_cortex = (a[16:80, 16:80, 16:80] for a in white_ball)
    found = lesions.grow(white, to_ventricle, to_cortex, np.random.default_rng(2), 12)
    with_lesions, without, _ = tissue_pair(white, found, to_cortex, 7)
    full = (found.amount == 1) & (white > 0)
    assert np.allclose((with_lesions / without)[full], 1 - found.severity[full], atol=0.02)


def tissue_pair(white, found, to_cortex, seed):
    """White-matter PSR with and without lesions, all else equal; and the parameters drawn."""
    zeros = np.zeros_like(white)
    maps = {"white": white, "grey": zeros}
    for kind, value in (("psr", 0.12), ("r2", 13.3), ("pd", 0.7)):
        maps |= {f"{kind} white": value * white, f"{kind} grey": zeros}
    far = np.full(white.shape, 1000.0, np.float32)  # no periventricular caps
    results, parameters = [], {}
    for case in (found, lesions.no_lesions(white.shape)):
        rng = np.random.default_rng(seed)
        found_maps = tissue_maps(maps, case, far, to_cortex.astype(np.float32), rng, parameters)
        results.append(found_maps.psr[WHITE])
    return results[0], results[1], parameters


def test_normal_appearing_white_matter_loss_decays_with_distance(white_ball):
    white, to_ventricle, to_cortex = white_ball
    found = lesions.grow(white, to_ventricle, to_cortex, np.random.default_rng(4), 3)
    for seed in (7, 8):
        with_lesions, without, parameters = tissue_pair(white, found, to_cortex, seed)
        normal = (found.amount == 0) & (white > 0)
        distance = ndimage.distance_transform_edt(~found.mask)
        loss = 1 - with_lesions / np.maximum(without, 1e-6)
        bins = [(2, 4), (4, 7), (7, 11), (11, 16), (16, 24)]
        means = [loss[normal & (distance >= a) & (distance < b)].mean() for a, b in bins]
        assert all(a > b for a, b in pairwise(means))
        truth = parameters["nawm_loss"]
        here = normal & (distance > 3) & (distance < 16)
        line = stats.linregress(distance[here], np.log(loss[here]))
        assert -1 / line.slope == pytest.approx(truth["decay_mm"], rel=0.15)
        assert np.exp(line.intercept) == pytest.approx(truth["at_lesion"], rel=0.4)


def test_lesions_from_masks_are_real_lesions_recombined(head, tmp_path):
    mask = np.zeros((91, 109, 91), np.uint8)
    for centre in ((30, 50, 50), (60, 50, 50), (45, 70, 55), (45, 30, 50), (35, 45, 40)):
        mask[tuple(slice(c - 3, c + 4) for c in centre)] = 1
    files = []
    for name in ("a", "b"):
        files.append(tmp_path / f"{name}.nii.gz")
        Volume(mask, np.diag([2.0, 2.0, 2.0, 1.0])).write(files[-1])
    sources = set()
    for seed in range(4):
        subject = simulate_subject(seed, anatomy=head, skull=False, lesion_masks=files)
        sources.add(subject.parameters["lesion_source"])
        assert subject.parameters["lesion_count"] == subject.lesions.numbers.max()
    assert sources == {"masks", "grown"}
    with pytest.raises(InputError, match="lesion"):
        lesions.from_masks([], subject.fractions[WHITE], subject.brain, np.random.default_rng(0))


# --- scanners --------------------------------------------------------------------------------------------------


def test_noise_is_rician(healthy):
    scans = [
        scanner.acquire(healthy, quiet(snr=(25.0, 30.0)), np.random.default_rng(seed)).t1w.resampled_to(healthy.grid)
        for seed in (0, 1)
    ]
    white = healthy.fractions[WHITE] > 0.95
    sigma = (scans[0].array - scans[1].array)[white].std() / np.sqrt(2)
    assert scans[0].array[white].mean() / sigma == pytest.approx(25, rel=0.05)
    # Away from the head the magnitude is that of noise alone.
    nothing = ndimage.binary_erosion(sum(healthy.fractions.values()) < 1e-4, iterations=2)
    air = np.concatenate([s.array[nothing] for s in scans])
    assert air.size > 10_000
    assert air.mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.06)
    assert air.mean() / air.std() == pytest.approx(np.sqrt(np.pi / 2) / np.sqrt(2 - np.pi / 2), rel=0.05)
    # Kolmogorov-Smirnov against Rayleigh; values are rounded to integers, so spread them over their bin.
    spread = air + np.random.default_rng(2).uniform(-0.5, 0.5, air.size)
    assert stats.kstest(spread, stats.rayleigh(scale=sigma).cdf).statistic < 0.03


def test_tissue_contrast_is_that_of_t1w_and_flair(healthy):
    scan = scanner.acquire(healthy, quiet(), np.random.default_rng(0))
    t1w, flair = (v.resampled_to(healthy.grid).array for v in (scan.t1w, scan.flair))
    parts = {key: healthy.fractions[key] > 0.97 for key in (WHITE, GREY, CSF)}
    t = {key: np.median(t1w[where & healthy.brain]) for key, where in parts.items()}
    f = {key: np.median(flair[where & healthy.brain]) for key, where in parts.items()}
    assert t[WHITE] > 1.15 * t[GREY] > 1.5 * t[CSF]
    assert 1.05 * f[WHITE] < f[GREY]
    assert f[CSF] < 0.3 * f[WHITE]


def test_bias_field_is_smooth_and_of_the_asked_size(healthy):
    squares = []
    for seed in range(4):
        plain, biased = (
            scanner.acquire(healthy, quiet(bias=(size, size)), np.random.default_rng(seed)).t1w.array.astype(float)
            for size in (0.0, 0.2)
        )
        inside = ndimage.binary_erosion(plain > 200, iterations=2)
        field = np.where(inside, np.log(np.maximum(biased, 1) / np.maximum(plain, 1)), 0)
        squares.append((field[inside] ** 2).mean())
        steps = np.abs(np.diff(field, axis=0))[inside[1:] & inside[:-1]]
        assert np.percentile(steps, 99) < 0.03, "no edges of its own"
    assert np.sqrt(np.mean(squares)) == pytest.approx(0.2, rel=0.6)


@pytest.mark.parametrize(("axis", "thick"), [(2, 4.0), (0, 3.0), (1, 5.0)])
def test_thick_slices_and_obliquity_are_as_drawn(healthy, axis, thick):
    tilt = (6.0, -4.0, 3.0)
    scan = scanner.acquire(
        healthy, quiet(flair_spacing=(0.8, 0.8, thick), flair_slice_axis=axis, obliquity=tilt), np.random.default_rng(0)
    )
    for volume, spacing, slice_axis in ((scan.flair, (0.8, 0.8, thick), axis), (scan.t1w, (1.0, 1.0, 1.0), 0)):
        assert volume.spacing == pytest.approx(spacing)
        directions = volume.affine[:3, :3] / volume.spacing
        assert np.allclose(directions.T @ directions, np.eye(3), atol=1e-12)
        assert np.argmax(np.abs(directions[:, 2])) == slice_axis
        # Total turn away from the head's axes: that of the three rotations composed.
        nearest = np.rint(directions)
        angle = np.degrees(np.arccos((np.trace(directions @ nearest.T) - 1) / 2))
        assert angle == pytest.approx(np.degrees(Rotation.from_euler("xyz", tilt, degrees=True).magnitude()), rel=1e-6)
        # The box covers the head, whatever its tilt leaves of the corners.
        centre = Grid(volume.shape, volume.affine).to_world((np.array(volume.shape) - 1) / 2)
        assert np.allclose(centre, healthy.grid.to_world((np.array(healthy.psr.shape) - 1) / 2), atol=1e-9)
    # Each slice averages the tissue over its thickness: recompute one from the ideal signal.
    signal = scanner.flair_image(healthy, scan.protocol)
    sigma = [0.3] * 3
    sigma[axis] = thick / 2.355
    rng = np.random.default_rng(0)
    ideal = ndimage.gaussian_filter(np.where(healthy.fractions[EXTRA] > 0, np.nan, signal), sigma, truncate=3)
    index = rng.integers(0, scan.flair.shape, (4000, 3))
    points = healthy.grid.to_index(scan.flair.grid.to_world(index))
    expected = ndimage.map_coordinates(ideal, points.T, order=1, cval=np.nan)
    found = scan.flair.array[tuple(index.T)]
    valid = np.isfinite(expected) & (expected > 0.02)
    assert valid.sum() > 100
    ratio = found[valid] / expected[valid]
    assert ratio.std() / ratio.mean() < 0.01


def test_the_drawn_rigid_movement_really_maps_flair_to_t1w(healthy):
    movement = (3.0, -2.0, 1.5, 5.0, -4.0, 6.0)
    still = scanner.acquire(healthy, quiet(), np.random.default_rng(0)).flair
    moved = scanner.acquire(healthy, quiet(misregistration=movement), np.random.default_rng(0)).flair
    # A point at world q of the moved scan shows the tissue at world R (q - c) + c + t of the head.
    centre = healthy.grid.to_world((np.array(healthy.psr.shape) - 1) / 2)

    def agreement(x, y, z, *degrees):
        back = np.eye(4)
        back[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
        back[:3, 3] = centre - back[:3, :3] @ centre + (x, y, z)
        fixed = Volume(moved.array, back @ moved.affine).resampled_to(healthy.grid).array
        return np.corrcoef(fixed[inside], reference[inside])[0, 1]

    reference = still.resampled_to(healthy.grid).array
    inside = ndimage.binary_erosion(healthy.brain, iterations=2)
    best = agreement(*movement)
    assert best > 0.98
    assert agreement(0, 0, 0, 0, 0, 0) < best - 0.1
    for parameter, step in enumerate((0.6, 0.6, 0.6, 2.5, 2.5, 2.5)):
        for sign in (-1, 1):
            other = list(movement)
            other[parameter] += sign * step
            assert agreement(*other) < best


def test_default_protocols_move_and_tilt_and_options_stop_that(drawn):
    still = [
        protocol.draw_protocol(
            np.random.default_rng(s),
            bias=0,
            misregistration_mm=0,
            misregistration_deg=0,
            thick_slices=0,
            obliquity_deg=0,
        )
        for s in range(50)
    ]
    shifts = np.array([p.misregistration for p in drawn])
    assert np.linalg.norm(shifts[:, :3], axis=1).mean() == pytest.approx(2.0 * np.sqrt(8 / (3 * np.pi)), rel=0.15)
    thick = np.mean([p.flair_spacing[2] >= 2 for p in drawn])
    assert thick == pytest.approx(0.4, abs=0.1)
    assert all(not any(p.misregistration) and not any(p.obliquity) and max(p.flair_spacing) < 1.3 for p in still)
    assert all(p.bias == (0, 0) for p in still)


# --- anatomies -------------------------------------------------------------------------------------------------


def test_class_map_covers_known_parcellated_and_unknown_labels():
    labels = np.array([[0, 2, 41, 3, 1005, 3012], [4, 24, 16, 10, 507, 999], [77, 62, 163, 200, -3, 600]])
    names = [[CLASSES[i].name for i in row] for row in class_map(labels)]
    assert names == [
        ["background", "white matter", "white matter", "cortex", "cortex", "white matter"],
        ["ventricle", "outer CSF", "brainstem", "thalamus", "soft tissue", "soft tissue"],
        ["white matter", "ventricle", "choroid plexus", "outer CSF", "background", "soft tissue"],
    ]
    assert class_map(labels).dtype == np.uint8
    seen = [label for tissue in CLASSES for label in tissue.labels]
    assert len(seen) == len(set(seen)), "no label belongs to two classes"


def test_label_map_of_any_orientation_and_spacing_gives_the_same_head(label_map, tmp_path):
    reference = load_anatomy(str(label_map))
    turned = Volume.read(label_map).reoriented("LSP")
    other = tmp_path / "turned.nii.gz"
    Volume(turned.array.astype(np.int16), turned.affine).write(other)
    assert np.array_equal(load_anatomy(str(other)).classes, reference.classes)
    coarse = tmp_path / "coarse.nii.gz"
    affine = np.diag([1.6, 1.6, 1.6, 1.0])
    Volume(small_labels(), affine).write(coarse)
    enlarged = load_anatomy(str(coarse))
    assert enlarged.classes.shape == (103, 103, 103)
    share = np.mean(enlarged.classes == CLASS_INDEX["white matter"]) / np.mean(
        reference.classes == CLASS_INDEX["white matter"]
    )
    assert share == pytest.approx(1, abs=0.08)


def test_anatomies_are_listed_in_order_and_missing_ones_are_named(tmp_path):
    for name in ("b.nii.gz", "a.mgz", "c.nii", "notes.txt"):
        (tmp_path / name).touch()
    assert [Path(p).name for p in list_anatomies(tmp_path)] == ["a.mgz", "b.nii.gz", "c.nii"]
    assert list_anatomies() == ["icbm152"]
    with pytest.raises(InputError, match="nowhere"):
        list_anatomies(tmp_path / "nowhere")


@pytest.mark.slow
def test_the_template_makes_a_person_of_human_size():
    pytest.importorskip("nilearn")
    subject = simulate_subject(1, skull=False)
    litres = subject.brain.sum() / 1e6
    assert 1.1 < litres < 2.2
    share = {label: np.mean(subject.dseg[subject.brain] == label) for label in range(1, 8)}
    assert 0.25 < share[3] < 0.55
    assert 0.25 < share[2] < 0.55
    assert 0.005 < share[4] < 0.08
    assert share[7] < 0.05
    assert 0.0 < subject.parameters["lesion_volume_ml"] < 60
    white = np.median(subject.psr[subject.dseg == 3])
    assert 0.085 < white < 0.15
    assert np.median(subject.psr[subject.dseg == 5]) < white
    scan = cohort.scan_subject(subject, 1)
    assert scan.t1w.array.max() > 500
    assert scan.flair.array.max() > 500


# --- files -----------------------------------------------------------------------------------------------------


def fingerprints(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def data_set(label_map, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("bids") / "set"
    argv = ["--out", str(root), "--subjects", "2", "--scans", "2", "--seed", "5", "--anatomies", str(label_map)]
    assert run(main, [*argv, "--no-skull"]) == 0
    return root


def test_the_data_set_is_complete_bids(data_set):
    description = json.loads((data_set / "dataset_description.json").read_text())
    assert description["BIDSVersion"]
    assert description["DatasetType"] == "raw"
    truth = data_set / "derivatives" / "truth"
    assert json.loads((truth / "dataset_description.json").read_text())["DatasetType"] == "derivative"
    expected = {"dataset_description.json"}
    expected |= {f"derivatives/truth/{name}" for name in ("dataset_description.json", "desc-tissue_dseg.tsv")}
    for sub in ("sub-001", "sub-002"):
        for ses in ("ses-01", "ses-02"):
            for suffix in ("T1w", "FLAIR"):
                expected |= {f"{sub}/{ses}/anat/{sub}_{ses}_{suffix}{end}" for end in (".nii.gz", ".json")}
        for name in (
            "desc-truth_PSRmap.nii.gz",
            "desc-truth_PSRmap.json",
            "desc-tissue_dseg.nii.gz",
            "desc-lesion_mask.nii.gz",
            "desc-brain_mask.nii.gz",
            "desc-truth_parameters.json",
            "label-WM_probseg.nii.gz",
            "label-GM_probseg.nii.gz",
            "label-CSF_probseg.nii.gz",
        ):
            expected.add(f"derivatives/truth/{sub}/anat/{sub}_{name}")
    assert set(fingerprints(data_set)) == expected


def test_sidecars_and_truth_say_what_was_done(data_set):
    folder = data_set / "derivatives" / "truth" / "sub-001" / "anat"
    parameters = json.loads((folder / "sub-001_desc-truth_parameters.json").read_text())
    assert parameters["seed"] == 5
    assert parameters["anatomy"] == "head.nii.gz"
    assert len(parameters["scans"]) == 2
    for index, scan in enumerate(parameters["scans"], start=1):
        stem = data_set / "sub-001" / f"ses-{index:02d}" / "anat" / f"sub-001_ses-{index:02d}"
        flair = json.loads(Path(f"{stem}_FLAIR.json").read_text())
        assert flair["MagneticFieldStrength"] == scan["field_strength"]
        assert flair["InversionTime"] == pytest.approx(scan["flair_ti"])
        assert json.loads(Path(f"{stem}_T1w.json").read_text())["RepetitionTime"] == pytest.approx(scan["t1_tr"])
        image = nib.load(f"{stem}_T1w.nii.gz")
        assert image.get_data_dtype() == np.int16
        assert image.header.get_zooms() == pytest.approx(scan["t1_spacing"], rel=1e-5)
    psr = nib.load(folder / "sub-001_desc-truth_PSRmap.nii.gz")
    assert psr.get_data_dtype() == np.float32
    subject = simulate_subject(5, anatomy=small_head(), skull=False)
    assert np.allclose(psr.get_fdata(), subject.psr, atol=1e-6)
    assert np.allclose(psr.affine, subject.affine)
    parts = [nib.load(folder / f"sub-001_label-{label}_probseg.nii.gz").get_fdata() for label in ("WM", "GM", "CSF")]
    assert np.allclose(parts[0], np.where(subject.brain, subject.true_fractions[WHITE], 0), atol=5.1e-4)
    assert np.sum(parts, 0).max() < 1.002
    assert not np.any(np.sum(parts, 0)[~subject.brain])
    dseg = nib.load(folder / "sub-001_desc-tissue_dseg.nii.gz")
    lesion = nib.load(folder / "sub-001_desc-lesion_mask.nii.gz")
    assert np.array_equal(dseg.get_fdata() == 5, lesion.get_fdata() == 1)
    names = (data_set / "derivatives" / "truth" / "desc-tissue_dseg.tsv").read_text().splitlines()
    assert names[0] == "index\tname"
    assert len(names) == 9


def test_resume_keeps_finished_subjects_and_completes_the_rest(data_set, label_map, tmp_path):
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(data_set, root)
    before = fingerprints(root)
    shutil.rmtree(root / "sub-002")  # as if stopped there
    kept = root / "sub-001" / "ses-01" / "anat" / "sub-001_ses-01_T1w.nii.gz"
    written = kept.stat().st_mtime_ns
    argv = ["--out", str(root), "--subjects", "2", "--scans", "2", "--seed", "5", "--anatomies", str(label_map)]
    assert run(main, [*argv, "--no-skull", "--resume"]) == 0
    assert kept.stat().st_mtime_ns == written
    assert fingerprints(root) == before


def test_workers_make_the_same_data_set(data_set, label_map, tmp_path):
    root = tmp_path / "set"
    argv = ["--out", str(root), "--subjects", "2", "--scans", "2", "--seed", "5", "--anatomies", str(label_map)]
    assert run(main, [*argv, "--no-skull", "--workers", "2"]) == 0
    assert fingerprints(root) == fingerprints(data_set)


def test_a_worker_s_error_is_the_command_s(capsys, tmp_path, label_map):
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"no image")
    argv = ["--out", str(tmp_path / "set"), "--subjects", "2", "--anatomies", str(bad), "--workers", "2"]
    assert run(main, argv) == 2
    assert "bad.nii.gz" in capsys.readouterr().err
    assert run(main, [*argv[:-1], "0"]) == 2


@pytest.fixture(scope="module")
def scanned(healthy):
    return healthy, scanner.acquire(healthy, quiet(), np.random.default_rng(0))


@pytest.mark.parametrize("at", [1, 3, 9, 12])
def test_an_interrupted_run_leaves_no_half_subject(label_map, tmp_path, monkeypatch, scanned, at):
    root = tmp_path / "set"
    count = 0
    write = Volume.write

    def stop_at(self, *args, **kwargs):
        nonlocal count
        count += 1
        if count == at:
            raise KeyboardInterrupt
        return write(self, *args, **kwargs)

    monkeypatch.setattr(Volume, "write", stop_at)
    monkeypatch.setattr(cohort, "simulate_subject", lambda *a, **k: scanned[0])
    monkeypatch.setattr(cohort, "scan_subject", lambda *a, **k: scanned[1])
    argv = ["--out", str(root), "--subjects", "2", "--anatomies", str(label_map)]
    assert run(main, argv) == 130
    monkeypatch.setattr(Volume, "write", write)
    complete = (at - 1) // 9  # nine images a subject
    assert len(list(root.glob("sub-*"))) == complete
    assert len(list((root / "derivatives" / "truth").glob("sub-*"))) == complete
    assert not [p for p in root.rglob("*") if p.name.startswith(".tmp")]
    assert run(main, [*argv, "--resume"]) == 0
    assert [bids.subject_done(root, f"sub-{n:03d}") for n in (1, 2)] == [True, True]


def test_one_scan_needs_no_session_folder(tmp_path, scanned):
    subject, scan = scanned
    bids.write_description(tmp_path)
    bids.write_subject(tmp_path, "sub-007", subject, [scan])
    assert (tmp_path / "sub-007" / "anat" / "sub-007_T1w.nii.gz").exists()
    assert bids.subject_done(tmp_path, "sub-007")
    # Writing again replaces.
    bids.write_subject(tmp_path, "sub-007", subject, [scan, scan])
    assert not (tmp_path / "sub-007" / "anat").exists()
    assert (tmp_path / "sub-007" / "ses-02" / "anat" / "sub-007_ses-02_FLAIR.nii.gz").exists()


# --- bad input -------------------------------------------------------------------------------------------------


def refused(capsys, *argv: str) -> str:
    """Run the command line; it must end with exit code 2 and one line on stderr, which is returned."""
    assert run(main, [str(a) for a in argv]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line and not line.startswith("simulate:")]
    lines = [line for line in lines if "\r" not in line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def test_bad_sources_are_named(capsys, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    out = tmp_path / "out"
    assert str(empty) in refused(capsys, "--out", out, "--anatomies", empty)
    assert str(tmp_path / "gone") in refused(capsys, "--out", out, "--anatomies", tmp_path / "gone")
    no_brain = tmp_path / "no_brain.nii.gz"
    Volume(np.full((40, 40, 40), 507, np.int16), np.eye(4)).write(no_brain)
    assert "no_brain.nii.gz has no white matter" in refused(capsys, "--out", out, "--anatomies", no_brain)
    corrupt = tmp_path / "corrupt.nii.gz"
    corrupt.write_bytes(b"this is not a gzip file at all")
    assert "corrupt.nii.gz" in refused(capsys, "--out", out, "--anatomies", corrupt)
    assert not out.exists()


def test_bad_lesion_mask_folders_are_named(capsys, tmp_path, label_map):
    base = ("--out", tmp_path / "out", "--overwrite", "--anatomies", label_map, "--no-skull", "--lesion-masks")
    assert "gone" in refused(capsys, *base, tmp_path / "gone")
    (tmp_path / "none").mkdir()
    assert "none" in refused(capsys, *base, tmp_path / "none")


def test_a_folder_in_use_is_left_alone(capsys, tmp_path, label_map):
    (tmp_path / "mine.txt").write_text("keep me")
    assert "--overwrite" in refused(capsys, "--out", tmp_path, "--anatomies", label_map)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    assert "mine.txt" in refused(capsys, "--out", tmp_path / "mine.txt", "--anatomies", label_map)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--subjects", "0"),
        ("--subjects", "-3"),
        ("--scans", "0"),
        ("--seed", "-1"),
        ("--bias", "-0.1"),
        ("--misregistration", "-1"),
        ("--thick-slices", "1.5"),
        ("--obliquity", "nan"),
        ("--surface-sd", "0.9"),
        ("--exclude", "head.nii.gz"),
    ],
)
def test_impossible_numbers_are_refused(capsys, tmp_path, label_map, option, value):
    message = refused(capsys, "--out", tmp_path / "out", "--anatomies", label_map, option, value)
    assert option in message
    assert not (tmp_path / "out").exists()


def test_the_command_itself_exits_with_2(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "DEMISTCore.simulate", "--out", str(tmp_path / "x"), "--subjects", "0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
