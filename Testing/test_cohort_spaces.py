"""Results in other spaces: where they lie, that transforms on disk lead there and back, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from cohort_data import QUICK, head, results, rows, write_bids

from DEMISTCore.cohort.__main__ import main
from DEMISTCore.cohort.spaces.registration import match
from DEMISTCore.cohort.spaces.templates import IN_WHEEL, Template, check_spaces, load_template
from DEMISTCore.cohort.spaces.xfm import rigid_text, write_h5
from DEMISTCore.cohort.validate import validate
from DEMISTCore.errors import InputError
from DEMISTCore.volume import Volume

LPS = np.array([-1.0, -1.0, 1.0])


def brain(seed: int, affine: np.ndarray | None = None) -> tuple[Volume, Volume]:
    images = head(seed)
    mask = images["desc-brain_mask"]
    affine = np.diag([6.0, 6.0, 6.0, 1.0]) if affine is None else affine
    return Volume((images["T1w"] * mask).astype(np.float32), affine), Volume(mask, affine)


def template_of(volume: Volume, mask: Volume) -> Template:
    return Template("TEST", volume, mask)


@pytest.fixture(scope="module")
def found():
    """A brain turned, stretched and moved away from the template that it is; and what was found."""
    image, mask = brain(0)
    angle = 0.12
    way = np.eye(4)
    way[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    way[:3, :3] = way[:3, :3] * [1.06, 0.97, 1.03]
    way[:3, 3] = 8, -5, 11
    moved = [Volume(volume.array, way @ volume.affine) for volume in (image, mask)]
    return match(*moved, template_of(image, mask)), way, mask


def test_a_known_motion_is_found_and_undone(found):
    result, way, mask = found
    points = mask.grid.to_world(np.argwhere(mask.array > 0)[::37])
    forward, backward = result.forward(), result.backward()
    there = np.array([forward.TransformPoint((p * LPS).tolist()) for p in points]) * LPS
    truth = points @ way[:3, :3].T + way[:3, 3]
    assert np.linalg.norm(truth - points, axis=1).mean() > 12, "the test moves something"
    assert np.linalg.norm(there - truth, axis=1).mean() < 2.0, "a third of a voxel"
    back = np.array([backward.TransformPoint((p * LPS).tolist()) for p in there]) * LPS
    assert np.linalg.norm(back - points, axis=1).max() < 0.5
    assert result.overlap > 0.95
    assert result.smallest > 0, "nothing folds"
    assert not result.warnings


def test_transforms_on_disk_are_itks_and_the_same_bytes(found, tmp_path):
    result, _, mask = found
    for name in ("a.h5", "b.h5"):
        write_h5(result.forward(), tmp_path / name)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    read = sitk.ReadTransform(str(tmp_path / "a.h5"))
    for point in mask.grid.to_world(np.argwhere(mask.array > 0)[::501]):
        given = (point * LPS).tolist()
        np.testing.assert_allclose(read.TransformPoint(given), result.forward().TransformPoint(given), atol=1e-9)


def test_what_does_not_match_warns():
    image, mask = brain(0)
    noise = np.random.default_rng(0).uniform(0, 1, image.shape).astype(np.float32)
    half = mask.with_array(mask.array * (np.arange(mask.shape[0]) < 12)[:, None, None].astype(np.uint8))
    other = match(image.with_array(noise * half.array), half, template_of(image, mask))
    assert "may not lie on the template" in other.warnings[0]


@pytest.fixture(scope="module")
def made(tiny_bundle, tmp_path_factory):
    """A run with both kinds of spaces; the FLAIR lies elsewhere and is finer."""
    root = write_bids(tmp_path_factory.mktemp("spaces") / "bids", ["sub-01"])
    flair = root / "sub-01/anat/sub-01_FLAIR.nii.gz"
    image = nib.load(flair)
    finer = np.repeat(np.asarray(image.dataobj), 2, axis=2)
    affine = image.affine @ np.diag([1, 1, 0.5, 1])
    affine[2, 3] -= 1.5
    nib.save(nib.Nifti1Image(finer, affine), flair)
    template = root.parent / "tpl.nii.gz"
    brain(1)[0].write(template)
    out = root.parent / "out"
    arguments = [
        str(root),
        str(out),
        "participant",
        "--bundle",
        str(tiny_bundle),
        *QUICK,
        "--derivatives",
        str(root / "derivatives/manual"),
        "--output-spaces",
        "FLAIR",
        "TEST",
        "--template",
        f"TEST={template}",
    ]
    assert main(arguments) == 0, rows(out)
    return root, out, arguments


def test_results_lie_on_the_grids_of_their_spaces(made):
    root, out, _ = made
    anat = out / "sub-01/anat"
    flair = nib.load(root / "sub-01/anat/sub-01_FLAIR.nii.gz")
    for space, shape, affine in (("FLAIR", flair.shape, flair.affine), ("TEST", (26, 30, 24), np.diag([6, 6, 6, 1]))):
        for what in (
            "desc-demist_PSRmap",
            "desc-demist_PSRuncertainty",
            "desc-brain_mask",
            "desc-regions_dseg",
            "desc-lesions_dseg",
            "label-lesion_mask",
        ):
            image = nib.load(anat / f"sub-01_space-{space}_{what}.nii.gz")
            assert image.shape == shape
            np.testing.assert_allclose(image.affine, affine, atol=1e-4)
            assert np.asarray(image.dataobj).any(), what
            assert (anat / f"sub-01_space-{space}_{what}.json").is_file()
    labels = np.unique(np.asarray(nib.load(anat / "sub-01_space-TEST_desc-regions_dseg.nii.gz").dataobj))
    own = np.unique(np.asarray(nib.load(anat / "sub-01_desc-regions_dseg.nii.gz").dataobj))
    assert set(labels) <= set(own)


def test_the_map_on_the_flair_is_the_map(made):
    """The pair was not registered, so that each FLAIR voxel reads the map where it lies in the world."""
    _, out, _ = made
    anat = out / "sub-01/anat"
    psr = Volume.read(anat / "sub-01_desc-demist_PSRmap.nii.gz")
    there = Volume.read(anat / "sub-01_space-FLAIR_desc-demist_PSRmap.nii.gz")
    inside = there.array > 0
    read = psr.resampled_to(there.grid).array
    deep = inside & (Volume.read(anat / "sub-01_desc-brain_mask.nii.gz").resampled_to(there.grid).array > 0.999)
    np.testing.assert_allclose(there.array[deep], read[deep], rtol=1e-4, atol=1e-6)


def test_the_transform_on_disk_makes_the_template_space(made):
    """Whoever applies the file to the map gets the map in that space."""
    _, out, _ = made
    anat = out / "sub-01/anat"
    way = sitk.ReadTransform(str(anat / "sub-01_from-T1w_to-TEST_mode-image_xfm.h5"))
    there = sitk.ReadImage(str(anat / "sub-01_space-TEST_desc-demist_PSRmap.nii.gz"))
    psr = sitk.ReadImage(str(anat / "sub-01_desc-demist_PSRmap.nii.gz"))
    mask = sitk.ReadImage(str(anat / "sub-01_desc-brain_mask.nii.gz"), sitk.sitkFloat32)
    weight = sitk.GetArrayFromImage(sitk.Resample(mask, there, way, sitk.sitkLinear, 0.0))
    values = sitk.GetArrayFromImage(sitk.Resample(psr, there, way, sitk.sitkLinear, 0.0))
    deep = weight > 0.999
    assert deep.sum() > 1000
    np.testing.assert_allclose(sitk.GetArrayFromImage(there)[deep], values[deep], rtol=1e-3, atol=1e-5)
    back = sitk.ReadTransform(str(anat / "sub-01_from-TEST_to-T1w_mode-image_xfm.h5"))
    point = (-78.0, -90.0, 72.0)
    np.testing.assert_allclose(back.TransformPoint(way.TransformPoint(point)), point, atol=0.5)


def test_the_same_again_and_the_report_shows_it(made, tmp_path):
    _, out, arguments = made
    before = results(out)
    for path in out.glob("sub-01/anat/*_xfm.h5"):
        path.unlink()
    assert main(arguments) == 0
    assert results(out) == before
    page = (out / "sub-01/sub-01.html").read_text(encoding="utf-8")
    assert "Does the brain lie on TEST?" in page
    told = json.loads((out / "sub-01/anat/sub-01_from-T1w_to-TEST_mode-image_xfm.json").read_text())
    assert 0.8 < told["Overlap"] <= 1
    mask = json.loads((out / "sub-01/anat/sub-01_space-TEST_desc-brain_mask.json").read_text())
    assert mask["SpatialReference"].endswith(".nii.gz")
    assert validate(out) == []


def test_spaces_without_templates_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path))
    with pytest.raises(InputError, match="There is no template of MNI152NLin2009cAsym"):
        check_spaces(["MNI152NLin2009cAsym"], {})
    folder = tmp_path / "tpl-MNI152NLin2009cAsym"
    folder.mkdir()
    brain(2)[0].write(folder / "tpl-MNI152NLin2009cAsym_res-01_desc-brain_T1w.nii.gz")
    check_spaces(["MNI152NLin2009cAsym", "FLAIR"], {})
    with pytest.raises(InputError, match="no name of a space"):
        check_spaces(["../x"], {})
    with pytest.raises(InputError, match="not among --output-spaces"):
        check_spaces(["FLAIR"], {"A": "b.nii.gz"})
    whole = brain(0)[0]
    whole.with_array(whole.array + 100).write(tmp_path / "head.nii.gz")
    with pytest.raises(InputError, match="no template of a brain alone"):
        load_template("X", {"X": str(tmp_path / "head.nii.gz")})


def test_the_template_of_the_wheel_is_a_brain():
    template = load_template(IN_WHEEL, {})
    ml = template.mask.array.sum() * template.mask.grid.voxel_volume_ml
    assert 1800 < ml < 1950
    assert template.image.array[template.mask.array == 0].max() == 0


def test_a_rigid_text_and_its_inverse(tmp_path):
    motion = np.eye(4)
    motion[:3, 3] = 3, -5, 7
    (tmp_path / "a.txt").write_text(rigid_text(motion))
    (tmp_path / "b.txt").write_text(rigid_text(np.linalg.inv(motion)))
    one, other = (sitk.ReadTransform(str(Path(tmp_path, name))) for name in ("a.txt", "b.txt"))
    np.testing.assert_allclose(other.TransformPoint(one.TransformPoint((1.0, 2.0, 3.0))), (1, 2, 3), atol=1e-9)
