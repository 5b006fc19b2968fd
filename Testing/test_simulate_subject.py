"""Simulated people: kinds and places of lesions, tracts, residue of extraction, and the shifted person."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, stats

from DEMISTCore.cli import run
from DEMISTCore.errors import InputError
from DEMISTCore.labels import CSF, GREY, WHITE
from DEMISTCore.simulate import lesion_kinds, lesions, residue, shifted_tissue
from DEMISTCore.simulate.__main__ import main
from DEMISTCore.simulate.anatomy import Anatomy
from DEMISTCore.simulate.physics import r1_from_psr
from DEMISTCore.simulate.subject import simulate_subject
from DEMISTCore.simulate.tissues import CLASS_INDEX, CLASSES
from DEMISTCore.simulate.tracts import STEP, TRACTS, tract_atlas, tract_factors

SIDE = 72


def small_head() -> Anatomy:
    """Ellipsoids: cortex around white matter with nuclei, ventricles, brainstem, cerebellum and a sinus above."""
    x, y, z = np.meshgrid(*[np.arange(SIDE) - (SIDE - 1) / 2] * 3, indexing="ij")
    rho = np.sqrt((x / 30) ** 2 + (y / 31) ** 2 + (z / 29) ** 2)
    classes = np.zeros((SIDE,) * 3, np.uint8)
    for radius, name in ((1.0, "skin"), (0.94, "outer CSF"), (0.86, "cortex"), (0.72, "white matter")):
        classes[rho < radius] = CLASS_INDEX[name]
    classes[(np.hypot(x, z - 27) < 1.6) & (classes == CLASS_INDEX["outer CSF"])] = CLASS_INDEX["dura and sinuses"]
    low = (z < -9) & (rho < 0.72)
    classes[low & (y < -6)] = CLASS_INDEX["cerebellar white matter"]
    classes[low & (np.hypot(x, y + 1) < 6)] = CLASS_INDEX["brainstem"]
    for side in (-1, 1):
        for (cx, cy, cz), radius, name in (
            ((5, -4, 0), 4, "thalamus"),
            ((5, 7, 2), 2.5, "caudate"),
            ((14, 1, 0), 3.5, "putamen"),
        ):
            classes[(x - side * cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < radius**2] = CLASS_INDEX[name]
        inside = ((x - side * 4) / 2.4) ** 2 + ((y - 1) / 9) ** 2 + ((z - 6) / 3) ** 2 < 1
        classes[inside] = CLASS_INDEX["ventricle"]
    affine = np.eye(4)
    affine[:3, 3] = -(SIDE - 1) / 2
    return Anatomy(classes, affine, "ellipsoids")


@pytest.fixture(scope="module")
def head() -> Anatomy:
    return small_head()


@pytest.fixture(scope="module")
def patients(head):
    return [simulate_subject(seed, anatomy=head, skull=False) for seed in range(20, 25)]


@pytest.fixture(scope="module")
def shifted(head):
    return [simulate_subject(seed, anatomy=head, skull=False, physics="shifted") for seed in range(20, 23)]


# --- lesion kinds ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {k: np.array([lesion_kinds.draw_properties(k, rng) for _ in range(600)]) for k in lesion_kinds.KINDS}


def lesion_r1(values: np.ndarray, r1_water: float = 0.36) -> np.ndarray:
    """Observed R1 at full amount, as the scanner computes it."""
    severity, r1 = values[:, 0], values[:, 1]
    return r1_from_psr(0.12 * (1 - severity), r1_water - 0.10 * severity + r1, 6.8)


def test_kinds_do_what_their_names_say(drawn):
    assert sum(lesion_kinds.KINDS.values()) == pytest.approx(1)
    normal = r1_from_psr(0.12, 0.36, 6.8)
    rate = {kind: lesion_r1(values) / normal for kind, values in drawn.items()}
    assert np.median(rate["isointense"]) == pytest.approx(1, abs=0.1)
    assert np.median(rate["bright"]) > 1.05
    assert np.median(rate["ordinary"]) < 0.85
    assert np.percentile(rate["black hole"], 95) < 0.75
    assert np.percentile(rate["cavity"], 95) < 0.45, "close to fluid, 0.24 / 1.05"
    assert drawn["cavity"][:, 0].min() > 0.85
    assert drawn["oedema"][:, 0].max() < 0.2, "hardly any PSR lost"
    assert np.median(rate["oedema"]) < 0.9
    for values in drawn.values():
        assert np.all((values[:, 0] > 0) & (values[:, 0] < 1))
        assert values[:, 2].min() > 0.2, "T2 is longer in every lesion"
        assert np.all((values[:, 3] >= 0) & (values[:, 3] <= 1))
    assert drawn["ordinary"][:, 1].min() < 0 < drawn["ordinary"][:, 1].max(), "both signs"


def test_neither_r1_nor_t2_is_a_ruler_for_psr(drawn):
    rng = np.random.default_rng(1)
    shares = np.array(list(lesion_kinds.KINDS.values()))
    values = np.concatenate([v[: round(600 * s)] for v, s in zip(drawn.values(), shares)])
    values = values[rng.permutation(len(values))]
    psr = 0.12 * (1 - values[:, 0])
    r1 = stats.spearmanr(lesion_r1(values), psr)[0]
    assert 0.3 < r1 < 0.8
    assert -0.75 < stats.spearmanr(values[:, 2], psr)[0] < -0.1


def test_the_darker_on_t1w_the_longer_t2_and_isointense_lesions_have_lost_psr(drawn):
    """As on real scans; and none is a ruler for another."""
    ordinary = drawn["ordinary"]
    assert -0.97 < stats.spearmanr(lesion_r1(ordinary), ordinary[:, 2])[0] < -0.6
    assert np.median(drawn["black hole"][:, 2]) > 1.4 * np.median(ordinary[:, 2])
    isointense = drawn["isointense"]
    assert isointense[:, 0].min() >= 0.2
    assert np.median(isointense[:, 2]) < np.median(ordinary[:, 2])


def test_oedema_is_wide_and_soft_and_other_lesions_keep_their_shape(monkeypatch):
    axis = np.arange(48) - 24
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    amount = np.clip(5.5 - radius, 0, 1).astype(np.float32)
    owner = (amount > 0).astype(np.uint16)
    ball = lesions.plain(amount, amount * 0.4, (amount > 0.5).astype(np.uint16), owner)
    white = np.ones_like(amount)
    for kind, wider in (("oedema", True), ("ordinary", False)):
        monkeypatch.setattr(lesion_kinds, "KINDS", {kind: 1.0})
        found, tally = lesion_kinds.characterise(ball, white, np.random.default_rng(3))
        assert tally == {kind: 1}
        assert np.array_equal(found.numbers > 0, found.mask)
        assert (found.mask.sum() > 1.5 * ball.mask.sum()) == wider
        assert np.array_equal(found.amount, ball.amount) != wider
        assert len(np.unique(found.severity[found.owner == 1])) == 1
        assert not found.r1[found.owner == 0].any()


def test_lesions_lie_beyond_cerebral_white_matter_and_are_few(patients):
    totals = {name: sum(p.parameters["lesions_beyond"][name] for p in patients) for name in lesions.BEYOND}
    assert sum(totals.values()) >= 5
    assert all(max(p.parameters["lesions_beyond"].values()) <= 12 for p in patients)
    for subject in patients:
        assert np.array_equal(subject.dseg == 5, subject.lesions.mask & subject.brain)
        assert not subject.lesions.mask[(subject.true_fractions[CSF] > 0.6) & subject.brain].any()
    sites = np.zeros((40, 40, 40), bool)
    sites[10:30, 10:30, 10:30] = True
    places = dict.fromkeys(("cerebellum", "cortical"), sites)
    domain = dict.fromkeys(places, sites.astype(np.float32))
    counts = []
    for seed in range(60):
        found, added = lesions.grow_beyond(lesions.no_lesions(sites.shape), places, domain, np.random.default_rng(seed))
        assert added["brainstem"] == 0, "no place, no lesion"
        assert not found.mask[~sites].any()
        counts.append(added["cerebellum"])
    assert 0.7 < np.mean(counts) < 2.8
    assert min(counts) == 0


def test_lesion_psr_and_r1_are_what_was_drawn(patients):
    for subject in patients:
        full = (subject.lesions.amount == 1) & (subject.true_fractions[WHITE] > 0.99) & (subject.fractions[GREY] < 0.01)
        assert np.allclose(subject.water[full], subject.lesions.severity[full], atol=1e-5)
        nothing = (subject.lesions.amount == 0) & (subject.fractions[WHITE] > 0.99)
        assert np.abs(subject.lesion_r1[nothing]).max() < 0.02, "but for a trace of a vessel"
        assert subject.lesion_r1.dtype == np.float32
        if full.sum() > 50:
            ratio = subject.lesion_r1[full] / np.where(subject.lesions.r1[full] == 0, np.nan, subject.lesions.r1[full])
            assert np.nanmedian(ratio) == pytest.approx(1, abs=0.35)


# --- tracts ----------------------------------------------------------------------------------------------------


def template_like() -> np.ndarray:
    """A cerebrum of 140 x 172 mm at 2 mm; thalami, putamina and ventricles with atria where ICBM-152 has them."""
    x, y, z = np.meshgrid(*(np.arange(-a, a + 1, 2.0) for a in (78, 96, 84)), indexing="ij")
    y, z = y - 20, z + 5  # millimetres as in MNI, origin at the anterior commissure
    classes = np.zeros(x.shape, np.uint8)
    rho = np.sqrt((x / 70) ** 2 + ((y + 18) / 86) ** 2 + ((z - 8) / 68) ** 2)
    classes[rho < 1] = CLASS_INDEX["cortex"]
    classes[rho < 0.93] = CLASS_INDEX["white matter"]
    a = np.abs(x)
    classes[((a - 10) / 9) ** 2 + ((y + 4) / 46) ** 2 + ((z - 17) / 7) ** 2 < 1] = CLASS_INDEX["ventricle"]
    classes[((a - 21) / 7) ** 2 + ((y + 40) / 12) ** 2 + ((z - 8) / 12) ** 2 < 1] = CLASS_INDEX["ventricle"]
    classes[((a - 12) / 9) ** 2 + ((y + 18) / 14) ** 2 + ((z - 7) / 8) ** 2 < 1] = CLASS_INDEX["thalamus"]
    classes[((a - 29) / 5) ** 2 + ((y + 2) / 17) ** 2 + ((z - 3) / 11) ** 2 < 1] = CLASS_INDEX["putamen"]
    return classes, np.stack([x, y, z])


def test_tracts_lie_where_atlases_have_them():
    classes, world = template_like()
    atlas = tract_atlas(classes)
    assert atlas.keys() == TRACTS.keys()

    def at(name: str, *mm: float) -> float:
        index = np.argmin(((world - np.reshape(mm, (3, 1, 1, 1))) ** 2).sum(0))
        return float(atlas[name].flat[index])

    # MNI coordinates as in the JHU white-matter atlas (Mori et al., NeuroImage 40:570, 2008).
    for side in (-1, 1):
        assert at("internal capsule", side * 22, -8, 6) > 0.6
        assert at("corticospinal tract", side * 24, -16, 20) > 0.4
        assert at("optic radiation", side * 32, -42, 6) > 0.4
        assert at("frontal", side * 20, 48, 10) > 0.7
        assert at("internal capsule", side * 40, -40, 40) < 0.05
    assert at("splenium", 0, -38, 20) > 0.3
    assert at("genu", 0, 34, 20) > 0.3
    assert at("splenium", 0, 34, 20) < 0.05
    inner = ndimage.binary_erosion(classes == CLASS_INDEX["white matter"])
    for values in atlas.values():
        assert values.min() >= 0
        assert values.max() <= 1.05
        steps = np.abs(np.diff(values, axis=0))[inner[1:] & inner[:-1]]
        assert steps.max() < 0.5, "no hard edges inside white matter"


def test_tract_factors_keep_the_class_mean_and_are_each_person_s_own():
    classes, _ = template_like()
    fine = classes.repeat(STEP, 0).repeat(STEP, 1).repeat(STEP, 2)[:-1, :-1, :-1]
    where = np.stack(np.meshgrid(*[np.arange(n, dtype=np.float32) for n in fine.shape], indexing="ij"))
    people = []
    for seed in (0, 0, 1):
        parameters: dict = {}
        psr, r2 = tract_factors(fine, where, np.random.default_rng(seed), parameters)
        assert psr.shape == r2.shape == fine.shape
        white = fine == CLASS_INDEX["white matter"]
        assert psr[white].mean() == pytest.approx(1, abs=0.01)
        assert r2[white].mean() == pytest.approx(1, abs=0.01)
        assert 0.85 < psr[white].min() < 0.99
        assert 1.04 < psr[white].max() < 1.4
        people.append((psr, parameters["tracts"]))
    assert np.array_equal(people[0][0], people[1][0])
    assert people[0][1] != people[2][1]
    assert set(people[0][1]) == set(TRACTS)
    # Linear: the factor at a place follows from the strengths written down and the atlas.
    atlas = tract_atlas(classes)
    strengths = {name: values[0] for name, values in people[0][1].items()}
    plain = 1 + sum(strengths[name] * atlas[name] for name in atlas)
    plain /= plain[classes == CLASS_INDEX["white matter"]].mean()
    assert np.allclose(people[0][0][::STEP, ::STEP, ::STEP], plain, atol=1e-3)


def test_a_head_without_thalami_has_no_tracts():
    classes, _ = template_like()
    classes[classes == CLASS_INDEX["thalamus"]] = CLASS_INDEX["white matter"]
    assert tract_atlas(classes) == {}


# --- residue ---------------------------------------------------------------------------------------------------


def test_residue_leaves_truth_alone_and_is_not_myelin(head, patients):
    left_something = 0
    for subject in patients:
        truth = sum(subject.compartment_psr[k] * subject.fractions[k] for k in (WHITE, GREY))
        uncut = sum(subject.fractions.values()) > 0.01
        inside = subject.brain & uncut
        assert np.allclose(truth[inside], subject.psr[inside], atol=2e-5), "PSR times fraction is the person's"
        assert not subject.psr[~subject.brain].any()
        rim = ~subject.brain & (subject.fractions[GREY] - subject.true_fractions[GREY] > 0.3)
        left_something += rim.sum()
        # Free of PSR, yet its own R1 tells it from cerebrospinal fluid.
        pure = rim & (subject.true_fractions[GREY] < 0.01)
        if pure.any():
            assert subject.compartment_psr[GREY][pure].max() < 5e-3
            assert np.median(subject.lesion_r1[pure] + 0.36) > 0.4
        assert max(f.max() for f in subject.fractions.values()) < 1.001
        assert sum(subject.fractions.values()).max() < 1.02
    assert left_something > 100


def test_mixing_keeps_tissue_and_averages_the_rest():
    shape = (3, 1, 1)

    def full(*values: float) -> np.ndarray:
        return np.array(values, np.float32).reshape(shape)

    fractions = {WHITE: full(0, 0, 1), GREY: full(0, 0.6, 0), CSF: full(1, 0.4, 0)}
    psr = {GREY: full(0.05, 0.06, 0.05)}
    r2, pd, added = {GREY: full(10, 10, 10)}, {GREY: full(0.8, 0.8, 0.8)}, full(0, 0, 0)
    thing = residue.Residue(full(0.5, 0.9, 0.7), full(1.36, 1.36, 1.36), full(20, 20, 20), full(0.6, 0.6, 0.6))
    residue.mix_in(thing, fractions, psr, r2, pd, added, r1_water=0.36)
    assert fractions[GREY].ravel() == pytest.approx([0.5, 1.0, 0.0])
    assert fractions[CSF].ravel() == pytest.approx([0.5, 0.0, 0.0])
    assert (psr[GREY] * fractions[GREY]).ravel() == pytest.approx([0, 0.036, 0])
    assert r2[GREY].ravel()[:2] == pytest.approx([20, 0.6 * 10 + 0.4 * 20])
    assert added.ravel() == pytest.approx([1.0, 0.4, 0.0])


def test_extraction_bites_the_surface_only(head):
    brain = np.zeros((60, 60, 60), bool)
    brain[10:50, 10:50, 10:50] = True
    depth = ndimage.distance_transform_cdt(brain, "taxicab")
    bites = [residue.bitten(brain, np.random.default_rng(seed), {}) for seed in range(30)]
    real = [b for b in bites if b is not None and (b & brain).any()]
    assert 5 <= len(real) <= 25, "not everybody's"
    assert max(depth[b & brain].max() for b in real) == 2
    assert max((b & brain & (depth == 1)).sum() / (depth == 1).sum() for b in real) < 0.5


def test_vessels_are_thin_and_stay_in_fluid():
    fluid = np.zeros((64, 64, 64), np.float32)
    fluid[:, :32] = 1
    for seed in range(3):
        found = residue.vessels(fluid, np.ones(fluid.shape, bool), np.random.default_rng(seed), {})
        assert not found.fraction[:, 32:].any()
        here = found.fraction > 0.5
        assert 0.0005 < here[:, :32].mean() < 0.1
        assert ndimage.distance_transform_edt(here).max() < 3


def test_with_a_skull_nothing_is_cut_or_left(head):
    subject = simulate_subject(21, anatomy=head, skull=True)
    assert not {"residue", "bitten_ml"} & subject.parameters.keys()
    inside = ndimage.binary_erosion(subject.brain)
    assert np.abs(sum(subject.fractions.values())[inside] - 1).max() < 0.02


# --- determinism and the shifted person ------------------------------------------------------------------------

_MAPS = ("psr", "dseg", "brain", "water", "lesion_r1", "r1_factor")


@pytest.mark.parametrize("physics", ["standard", "shifted"])
def test_the_same_seed_is_the_same_person(head, patients, shifted, physics):
    again = simulate_subject(21, anatomy=head, skull=False, physics=physics)
    first = (patients if physics == "standard" else shifted)[1]
    for name in _MAPS:
        assert getattr(again, name).tobytes() == getattr(first, name).tobytes()
    for key in (WHITE, GREY, CSF):
        assert again.fractions[key].tobytes() == first.fractions[key].tobytes()
    assert again.parameters == first.parameters
    assert again.physics == again.parameters["physics"] == physics


def test_shifted_people_are_plausible_and_follow_other_laws(patients, shifted):
    for subject in shifted:
        white = np.median(subject.psr[ndimage.binary_erosion(subject.dseg == 3)])
        grey = np.median(subject.psr[subject.dseg == 2])
        assert 0.07 < white < 0.16
        assert grey < white
        assert subject.psr.max() < 0.25
        assert np.array_equal(subject.dseg == 5, subject.lesions.mask & subject.brain)
        assert {"everywhere", "plateau"} <= subject.parameters["nawm_loss"].keys()
        assert "lesion_kinds" not in subject.parameters
        # Concentric: a lesion's severity is not one number.
        many = [len(np.unique(subject.lesions.severity[subject.lesions.numbers == n])) for n in range(1, 6)]
        assert max(many) > 1
    assert all(p.parameters["lesion_kinds"] for p in patients)


def test_box_blur_is_the_mean_of_a_cube():
    image = np.zeros((9, 9, 9))
    image[4, 4, 4] = 1
    for width in (1.0, 1.6, 2.2, 3.0):
        blurred = shifted_tissue.box_blur(image, width)
        assert blurred.sum() == pytest.approx(1)
        assert blurred[4, 4, 4] == pytest.approx(width**-3)
        assert blurred[3, 4, 4] == pytest.approx((width - 1) / 2 * width**-3)


def test_unknown_physics_is_refused(head, capsys, tmp_path):
    with pytest.raises(InputError, match="--physics"):
        simulate_subject(0, anatomy=head, physics="quantum")
    with pytest.raises(SystemExit) as stop:
        run(main, ["--out", str(tmp_path / "x"), "--physics", "quantum"])
    assert stop.value.code == 2
    assert "--physics" in capsys.readouterr().err


def test_classes_of_the_head_are_those_tracts_ask_for():
    names = {tissue.name for tissue in CLASSES}
    assert {"white matter", "thalamus", "caudate", "putamen", "pallidum", "ventricle", "brainstem"} <= names
