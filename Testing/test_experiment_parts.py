"""The parts of the experiment: wavelets, metrics, folds, significance, curves, groups, pairs, bad input."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from training_data import write_mini_bids

from DEMISTCore import metrics
from DEMISTCore.cli import run
from DEMISTCore.errors import InputError
from DEMISTCore.evaluate import main
from DEMISTCore.evaluation.cv import folds as of_folds
from DEMISTCore.evaluation.cv.groups import diagnoses, long_table, regions_within, repeatability
from DEMISTCore.evaluation.cv.recipes import DEMIST_MEAN, DEMIST_SAMPLE, RECIPES, choose, kinds
from DEMISTCore.evaluation.cv.significance import comparisons, fold_means, holm, summary, wilcoxon
from DEMISTCore.statistics.paired_roc import paired_areas

torch.set_num_threads(1)


# --- wavelets ---------------------------------------------------------------------------------------------------------


def test_haar_is_orthonormal_and_comes_back() -> None:
    from DEMISTCore.baselines import haar

    x = torch.randn(2, 3, 4, 6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bands = haar.transform(x)
    assert bands.shape == (2, 24, 2, 3, 4)
    assert torch.allclose(haar.inverse(bands), x, atol=1e-12)
    assert torch.allclose(haar.inverse(haar.hidden(haar.shown(bands))), x, atol=1e-12)
    assert bands.square().sum().item() == pytest.approx(x.square().sum().item())
    with pytest.raises(ValueError, match="even"):
        haar.transform(torch.zeros(1, 1, 3, 4, 4))


def test_haar_bands_are_sums_and_differences_of_their_axes() -> None:
    from DEMISTCore.baselines import haar

    block = torch.randn(2, 2, 2, generator=torch.Generator().manual_seed(1))
    sign = torch.tensor([1.0, -1.0])
    expected = [
        float(torch.einsum("xyz,x,y,z->", block, *(sign if bit else torch.ones(2) for bit in bits))) / 8**0.5
        for bits in np.ndindex(2, 2, 2)  # x slowest: LLL, LLH, LHL, ...
    ]
    found = haar.transform(block[None, None]).flatten().tolist()
    assert found == pytest.approx(expected, abs=1e-6)
    assert haar.shown(haar.transform(block[None, None])).flatten()[0] == pytest.approx(expected[0] / 3, abs=1e-6)


def test_a_clean_prediction_told_as_velocity_is_what_the_sampler_ends_in() -> None:
    from DEMISTCore.baselines.cwdm import as_velocity, schedule
    from DEMISTCore.diffusion import SeededNoise, ddim, ddpm

    target = torch.linspace(-1, 1, 16).reshape(1, 8, 2, 1, 1)
    for sampler in (ddim, ddpm):
        noise = SeededNoise([0])
        found = sampler(as_velocity(lambda z, t: target, schedule()), noise(target.shape), schedule(), 5, noise=noise)
        assert torch.allclose(found, target, atol=1e-4)


# --- losses where PSR is unknown --------------------------------------------------------------------------------------


def baseline_losses(batch: dict[str, torch.Tensor]) -> dict[str, float]:
    """Every baseline's loss of a batch with networks as they begin: U-Nets of diffusion end in zeros, and answer 0."""
    from DEMISTCore.baselines.ldm import build_latent_unet
    from DEMISTCore.diffusion import NoiseSchedule
    from DEMISTCore.losses import PatchGAN
    from DEMISTCore.networks import PRESETS
    from DEMISTCore.training.cwdm import CwdmObjective
    from DEMISTCore.training.ldm import LdmObjective
    from DEMISTCore.training.pix2pix import GeneratorObjective
    from DEMISTCore.training.settings import resolve
    from DEMISTCore.training.vae import VaeObjective

    torch.manual_seed(0)
    images = {name: batch[name] for name in ("x", "y", "known")}
    latents = {"z": batch["y"].expand(-1, 4, -1, -1, -1), "c": batch["x"].repeat(1, 2, 1, 1, 1)}
    latents |= {"known": batch["known"], "noise": torch.zeros_like(latents["z"]), "t": torch.tensor([300])}
    unet = PRESETS["tiny"].backbone
    pix2pix = GeneratorObjective(resolve("pix2pix", "tiny"), PatchGAN(3, 4, 2))
    wavelets = {"noise": torch.zeros(1, 8, *(n // 2 for n in batch["y"].shape[2:])), "t": torch.tensor([300])}
    ldm = LdmObjective(build_latent_unet(unet, 8, 4), NoiseSchedule(), "prediction")
    with torch.no_grad():
        return {
            "pix2pix": float(pix2pix({**images, "index": torch.tensor([0])}, 0.5)["l1"]),
            "cwdm": float(CwdmObjective(resolve("cwdm", "tiny"))({**images, **wavelets}, 0.5)["loss"]),
            "vae": float(VaeObjective(build_latent_unet(unet, 4, 4))(latents, 0.5)["loss"]),
            "ldm": float(ldm(latents, 0.5)["loss"]),
        }


def test_no_baseline_learns_from_voxels_whose_psr_is_unknown() -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (1, 1, 32, 32, 32)
    known = torch.zeros(shape)
    known[..., :15] = 1  # the slab ends within a pair of voxels, of which wavelets make one
    batch = {
        "x": torch.rand((1, 2, 32, 32, 32), generator=generator),
        "y": torch.rand(shape, generator=generator),
        "known": known,
    }
    before = baseline_losses(batch)
    assert all(value > 0 for value in before.values())
    elsewhere = baseline_losses({**batch, "y": torch.where(known > 0, batch["y"], 7.0)})
    assert elsewhere == pytest.approx(before, rel=1e-5)
    here = baseline_losses({**batch, "y": batch["y"] + known})
    assert all(here[name] > 1.01 * before[name] for name in before)


# --- metrics ----------------------------------------------------------------------------------------------------------


def test_metrics_equal_scikit_image_and_monai_on_random_volumes() -> None:
    from monai.metrics import MAEMetric, MSEMetric, PSNRMetric
    from monai.metrics.regression import compute_ssim_and_cs
    from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio

    rng = np.random.default_rng(0)
    truth = rng.random((20, 22, 24)) * 0.15
    made = truth + 0.02 * rng.standard_normal(truth.shape)
    everywhere = np.ones(truth.shape, bool)
    y, y_hat = (torch.from_numpy(a)[None, None] for a in (truth, made))
    assert metrics.psnr(made, truth, everywhere) == pytest.approx(
        peak_signal_noise_ratio(truth, made, data_range=0.2), abs=1e-9
    )
    assert metrics.psnr(made, truth, everywhere) == pytest.approx(PSNRMetric(0.2)(y_hat, y).item(), abs=1e-4)
    assert metrics.mse(made, truth, everywhere) == pytest.approx(MSEMetric()(y_hat, y).item(), rel=1e-6)
    assert metrics.mae(made, truth, everywhere) == pytest.approx(MAEMetric()(y_hat, y).item(), rel=1e-6)
    assert metrics.nmse(made, truth, everywhere) == pytest.approx(normalized_root_mse(truth, made) ** 2, rel=1e-9)
    image, _ = compute_ssim_and_cs(
        y_hat, y, 3, (11, 11, 11), (1.5, 1.5, 1.5), data_range=0.2, kernel_type="gaussian", k1=0.01, k2=0.03
    )
    inner = (slice(5, -5),) * 3  # MONAI has windows that lie wholly inside
    assert metrics.ssim_map(made, truth, everywhere)[inner] == pytest.approx(image[0, 0].numpy(), abs=2e-4)
    part = rng.random(truth.shape) > 0.5
    assert metrics.ssim(made, truth, part) == pytest.approx(float(metrics.ssim_map(made, truth, part)[part].mean()))
    assert np.isnan(metrics.nmse(made, 0 * truth, everywhere))


def scan_with_one_lesion() -> object:
    """White matter all over, a lesion voxel in the middle, a map that is wrong in known ways."""
    from DEMISTCore.evaluation.pair import PairCase
    from DEMISTCore.volume import Grid

    shape = (32, 32, 32)
    labels = np.full(shape, 3, np.uint8)
    labels[16, 16, 16] = 5
    labels[0] = 2
    everywhere = np.ones(shape, bool)
    truth = np.where(labels == 5, 0.06, np.where(labels == 2, 0.07, 0.12)).astype(np.float32)
    truth += 0.001 * np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return PairCase("sub-01", Grid(shape, np.eye(4)), truth, everywhere, everywhere, labels, truth + np.float32(0.01))


def test_places_lie_at_their_distances_from_lesions_and_borders() -> None:
    from DEMISTCore.evaluation.cv.masks import VOXELS, ScanMasks

    case = scan_with_one_lesion()
    places = ScanMasks.of(case)
    at = np.indices(case.labels.shape)
    distance = np.sqrt(((at - 16) ** 2).sum(0))
    white = (case.labels == 3) & (at[0] > 2)  # farther than 2 mm from the cortex at x = 0
    assert (places.nawm["proximal"] == (white & (distance > 2) & (distance <= 6))).all()
    assert (places.nawm["distal"] == (white & (distance > 10))).all()
    assert (places.groups["grey"] == (case.labels == 2)).all()
    assert places.drawn["distal"].size == VOXELS
    assert (places.drawn["distal"] == ScanMasks.of(case).drawn["distal"]).all()
    assert places.nawm["distal"].ravel()[places.drawn["distal"]].all()
    assert places.drawn["lesion"].tolist() == [np.ravel_multi_index((16, 16, 16), case.labels.shape)]


def test_numbers_of_a_map_are_those_of_its_groups() -> None:
    from DEMISTCore.evaluation.cv.masks import ScanMasks
    from DEMISTCore.evaluation.cv.numbers import numbers, region_rows
    from DEMISTCore.evaluation.methods.method import Outcome

    case = scan_with_one_lesion()
    places = ScanMasks.of(case)
    row = numbers(case, places, Outcome(case.psr, np.full(case.psr.shape, 0.01)))
    for group in ("brain", "white", "grey", "lesions"):
        assert row[f"mae_{group}"] == pytest.approx(0.01, rel=1e-4)
        assert row[f"psnr_{group}"] == pytest.approx(20 * np.log10(0.2 / 0.01), abs=1e-3)
    power = np.mean(case.truth[case.labels == 3].astype(float) ** 2)
    assert row["nmse_white"] == pytest.approx(0.01**2 / power, rel=1e-3)
    assert row["sharpness"] == pytest.approx(1, abs=1e-4)
    assert (row["auc_distal"], row["truth_auc_distal"], row["auc_distal_error"]) == (1, 1, 0)
    assert row["interval_coverage"] == 1  # 1.645 SD of 0.01
    assert row["coverage"] == 1
    bias = {region["region"]: region["bias"] for region in region_rows(case, places, Outcome(case.psr))}
    assert set(bias) == {"lesion", "proximal NAWM", "distal NAWM", "NAWM", "white matter", "grey matter"}
    assert list(bias.values()) == pytest.approx([0.01] * 6, rel=1e-4)


# --- folds ------------------------------------------------------------------------------------------------------------


def sessions_of(people: int, several: int = 0) -> list[SimpleNamespace]:
    return [
        SimpleNamespace(subject=f"sub-{i:02d}", name=f"sub-{i:02d}_ses-{k}")
        for i in range(people)
        for k in range(1 + (i < several))
    ]


def test_folds_keep_people_together_and_classes_even() -> None:
    sessions = sessions_of(23, several=9)
    strata = {s.subject: "MS" if int(s.subject[4:]) % 3 else "HC" for s in sessions}
    split = of_folds.make_folds(sessions, 5, strata, seed=1)
    assert sorted(name for fold in split for name in fold.test) == sorted(strata)
    for fold in split:
        assert not set(fold.train) & set(fold.test)
        assert set(fold.train) | set(fold.test) == set(strata)
        assert {strata[name] for name in fold.test} == {"MS", "HC"}
    assert of_folds.make_folds(sessions, 5, strata, seed=1) == split
    table = of_folds.fold_summary(split, sessions, strata)
    assert sum(row["test_scans"] for row in table) == len(sessions)
    with pytest.raises(InputError, match="4 subjects, fewer than 5 folds"):
        of_folds.make_folds(sessions_of(4), 5)


def test_folds_from_a_table_and_what_may_be_wrong_with_it(tmp_path: Path) -> None:
    sessions, path = sessions_of(4), tmp_path / "folds.tsv"

    def table(*rows: tuple[str, str]) -> Path:
        path.write_text("participant_id\tfold\n" + "".join(f"{who}\t{fold}\n" for who, fold in rows))
        return path

    split = of_folds.read_folds(table(("sub-00", "1"), ("01", "2"), ("sub-02", "1"), ("sub-03", "2")), sessions)
    assert [fold.test for fold in split] == [("sub-00", "sub-02"), ("sub-01", "sub-03")]
    for rows, words in (
        ((("sub-00", "1"), ("sub-00", "2"), ("sub-01", "1")), "sub-00 into the folds 1 and 2"),
        ((("sub-00", "1"), ("sub-01", "2"), ("sub-02", "2")), "sub-03 into no fold"),
        ((("sub-00", "1"), ("sub-09", "2")), "sub-09"),
        (tuple((f"sub-0{i}", "1") for i in range(4)), "one fold only"),
    ):
        with pytest.raises(InputError, match=words):
            of_folds.read_folds(table(*rows), sessions)


def test_strata_of_a_table_and_what_may_be_wrong_with_it(tmp_path: Path) -> None:
    sessions = sessions_of(6)

    def table(classes: str, column: str = "diagnosis") -> None:
        rows = "".join(f"sub-0{i}\t{c if c != '-' else 'n/a'}\n" for i, c in enumerate(classes))
        (tmp_path / "participants.tsv").write_text(f"participant_id\t{column}\n{rows}")

    assert of_folds.find_strata(tmp_path, sessions, 2, None)[0] == {}
    with pytest.raises(InputError, match=r"participants\.tsv is not there"):
        of_folds.find_strata(tmp_path, sessions, 2, "diagnosis")
    table("PPCCPC")
    assert of_folds.find_strata(tmp_path, sessions, 3, None)[:2] == (
        dict(zip((s.subject for s in sessions), "PPCCPC")),
        "diagnosis",
    )
    for classes, folds, words in (
        ("PPPPPP", 2, "one class only"),
        ("PPPPPC", 2, "1 subjects of class C"),
        ("PP-CCC", 2, "says nothing of sub-02"),
    ):
        table(classes)
        assert of_folds.find_strata(tmp_path, sessions, folds, None)[2]  # said, and not stratified
        with pytest.raises(InputError, match=words):
            of_folds.find_strata(tmp_path, sessions, folds, "diagnosis")
    with pytest.raises(InputError, match="no column site"):
        of_folds.find_strata(tmp_path, sessions, 2, "site")


def test_one_image_under_two_names_would_be_trained_and_tested_on(tmp_path: Path) -> None:
    from DEMISTCore.training.data import index

    bids = write_mini_bids(tmp_path / "bids", subjects=3, size=16)
    sessions = index(bids)
    split = of_folds.make_folds(sessions, 3)
    of_folds.check_apart(split, sessions)
    shutil.copy(sessions[0].t1w, sessions[1].t1w)
    with pytest.raises(InputError, match="are the same image"):
        of_folds.check_apart(split, index(bids))
    both = of_folds.Fold(1, ("sub-001", "sub-002"), ("sub-002",))
    with pytest.raises(InputError, match="sub-002 is trained on and tested on"):
        of_folds.check_apart([both], sessions[:0])


# --- significance -----------------------------------------------------------------------------------------------------


def made_up_results(people: int = 12) -> pd.DataFrame:
    """A better method, a worse one, and one that is another's twin; two scans of some people."""
    rng, rows = np.random.default_rng(0), []
    for i in range(people):
        base = rng.normal(30, 2)
        for scan in range(1 + i % 2):
            for method, ahead in ((DEMIST_MEAN, 1.0), (DEMIST_SAMPLE, 0.0), ("cWDM", 0.0), ("pix2pix", -1.0)):
                noise = 0.0 if method in (DEMIST_SAMPLE, "cWDM") else rng.normal(0, 0.3)
                rows.append(
                    {
                        "fold": 1 + i % 3,
                        "subject": f"sub-{i:02d}",
                        "session": f"sub-{i:02d}_{scan}",
                        "method": method,
                        "psnr_brain": base + ahead + noise,
                        "mse_brain": 1 / (base + ahead),
                    }
                )
    return pd.DataFrame(rows)


def test_comparisons_equal_scipy_and_statsmodels_over_subjects() -> None:
    from scipy.stats import wilcoxon as by_scipy
    from statsmodels.stats.multitest import multipletests

    results = made_up_results()
    rows = [DEMIST_MEAN, DEMIST_SAMPLE, "cWDM", "pix2pix"]
    found = comparisons(results, rows, {**kinds(list(RECIPES.values()))})
    psnr = found[found["measure"] == "psnr_brain"]
    per = results.pivot_table(index="subject", columns="method", values="psnr_brain")
    pairs = [(a, b) for a in (DEMIST_MEAN, DEMIST_SAMPLE) for b in ("cWDM", "pix2pix")]
    raw = [1.0 if (a, b) == (DEMIST_SAMPLE, "cWDM") else by_scipy(per[a], per[b]).pvalue for a, b in pairs]
    assert psnr["p"].tolist() == pytest.approx(raw)
    assert psnr["p_holm"].tolist() == pytest.approx(multipletests(raw, method="holm")[1].tolist())
    assert list(zip(psnr["method"], psnr["against"])) == pairs
    assert psnr.set_index(["method", "against"]).loc[(DEMIST_MEAN, "cWDM"), "stars"] == "**"
    assert psnr.set_index(["method", "against"]).loc[(DEMIST_SAMPLE, "cWDM"), "stars"] == ""
    assert set(psnr[psnr["best"]]["against"]) == {"cWDM"}
    # Less is better: the one with the smaller error is named.
    mse = found[found["measure"] == "mse_brain"].set_index(["method", "against"])
    assert mse.loc[(DEMIST_MEAN, "pix2pix"), "better"] == DEMIST_MEAN


def test_means_over_folds_are_of_folds_and_scans_of_a_person_count_once() -> None:
    results = made_up_results()
    per_subject = results.groupby(["method", "fold", "subject"])["psnr_brain"].mean()
    per_fold = per_subject.groupby(["method", "fold"]).mean()
    found = summary(results, [DEMIST_MEAN, DEMIST_SAMPLE, "cWDM", "pix2pix"]).set_index("method")
    for method, own in per_fold.groupby("method"):
        assert found.loc[method, "psnr_brain_mean"] == pytest.approx(own.mean())
        assert found.loc[method, "psnr_brain_sd"] == pytest.approx(own.std(ddof=1))
    assert found["subjects"].tolist() == [12] * 4
    assert len(fold_means(results, list(found.index))) == 12


def test_too_few_pairs_and_equal_ones_have_no_small_p() -> None:
    assert np.isnan(wilcoxon(np.arange(5.0), np.arange(5.0) + 1)[1])
    assert wilcoxon(np.ones(8), np.ones(8)) == (0.0, 1.0)
    assert np.isnan(holm([float("nan")])[0])
    assert holm([0.01, float("nan"), 0.04])[::2] == pytest.approx([0.02, 0.04])


# --- curves -----------------------------------------------------------------------------------------------------------


def test_paired_areas_equal_delongs_covariance_formula_and_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(3)
    low = rng.normal(0.07, 0.02, 40)
    high = rng.normal(0.11, 0.02, 60)
    low_b, high_b = low + rng.normal(0, 0.02, 40), high + rng.normal(0, 0.02, 60)
    who_low, who_high = rng.integers(0, 8, 40), rng.integers(0, 9, 60)
    found = paired_areas((low, low_b), (high, high_b), who_low, who_high, resamples=300)
    for area, (a, b) in ((found.first, (low, high)), (found.second, (low_b, high_b))):
        assert area == pytest.approx(roc_auc_score(np.r_[np.ones(40), np.zeros(60)], -np.r_[a, b]))
    kernels = [(a[:, None] < b) + 0.5 * (a[:, None] == b) for a, b in ((low, high), (low_b, high_b))]
    s10, s01 = (np.cov([k.mean(axis) for k in kernels]) for axis in (1, 0))
    cov = s10 / 40 + s01 / 60
    error = np.sqrt(cov[0, 0] + cov[1, 1] - 2 * cov[0, 1])
    assert found.ci == pytest.approx((found.difference - 1.959964 * error, found.difference + 1.959964 * error))
    assert found.ci_bootstrap[0] <= found.difference <= found.ci_bootstrap[1]
    # One observation a patient: clusters are what they are without.
    alone = paired_areas((low, low_b), (high, high_b), np.arange(40), np.arange(40, 100), resamples=10)
    width = (alone.ci_patients[1] - alone.ci_patients[0]) / (alone.ci[1] - alone.ci[0])
    assert width == pytest.approx(1, abs=0.05)
    twin = paired_areas((low, low), (high, high), who_low, who_high, resamples=10)
    assert (twin.difference, twin.p, twin.ci_bootstrap) == (0, 1, (0, 0))


def test_bootstrap_over_patients_is_that_of_resampled_voxels() -> None:
    from DEMISTCore.statistics.paired_roc import kernel_sums

    rng = np.random.default_rng(0)
    low, high, who_low, who_high = rng.random(30), rng.random(50) + 0.2, rng.integers(0, 5, 30), rng.integers(0, 5, 50)
    sums = kernel_sums(low, who_low, high, who_high, range(5))
    drawn = np.array([0, 0, 2, 3, 3])
    expected = metrics.roc_area(
        np.concatenate([low[who_low == p] for p in drawn]), np.concatenate([high[who_high == p] for p in drawn])
    )
    weight = np.bincount(drawn, minlength=5)
    pairs = (weight @ np.bincount(who_low, minlength=5)) * (weight @ np.bincount(who_high, minlength=5))
    assert weight @ sums @ weight / pairs == pytest.approx(expected)


# --- groups and repeat scans ------------------------------------------------------------------------------------------


def region_table(several: bool = True) -> tuple[pd.DataFrame, dict[str, str]]:
    rng, rows, strata = np.random.default_rng(5), [], {}
    for i in range(16):
        who = f"sub-{i:02d}"
        strata[who] = "MS" if i % 2 else "HC"
        person = rng.normal(0, 0.004)
        for scan in range(2 if several else 1):
            for region, mean in (("lesion", 0.08), ("proximal NAWM", 0.10), ("distal NAWM", 0.12)):
                if region == "lesion" and strata[who] == "HC":
                    continue
                true = mean + person - 0.01 * (strata[who] == "MS") + rng.normal(0, 0.001)
                rows.append(
                    {
                        "fold": 1,
                        "subject": who,
                        "session": f"{who}_{scan}",
                        "method": "cWDM",
                        "region": region,
                        "truth": true,
                        "synthesized": true + rng.normal(0, 0.002),
                        "bias": 0.0,
                    }
                )
    return pd.DataFrame(rows), strata


def test_diagnoses_by_a_mixed_model_equal_the_formula_interface() -> None:
    import statsmodels.formula.api as smf

    regions, strata = region_table()
    long = long_table(regions, ["cWDM"])
    found = diagnoses(long, strata).set_index(["source", "region"])
    own = regions[regions["region"] == "distal NAWM"].assign(ms=lambda t: t["subject"].map(strata) == "MS")
    scaled = own.assign(truth=own["truth"] / own["truth"].std(ddof=0), ms=own["ms"].astype(float))
    fit = smf.mixedlm("truth ~ ms", scaled, groups=own["subject"]).fit(reml=True)
    row = found.loc[("reference", "distal NAWM")]
    assert row["difference"] == pytest.approx(fit.params["ms"] * own["truth"].std(ddof=0), rel=1e-3)
    assert row["p"] == pytest.approx(fit.pvalues["ms"], rel=0.05, abs=1e-6)
    assert row["low"] < -0.01 < row["high"]
    assert (row["class"], row["reference"], row["model"]) == ("MS", "HC", "mixed")
    assert ("reference", "lesion") not in found.index  # controls have none
    within = regions_within(long, strata).set_index(["source", "class", "region"])
    assert within.loc[("reference", "MS", "lesion"), "difference"] == pytest.approx(-0.04, abs=0.002)
    assert within.loc[("cWDM", "all", "proximal NAWM"), "difference"] == pytest.approx(-0.02, abs=0.002)


def test_nawm_of_who_has_no_lesions_stands_in_for_the_parts_of_others() -> None:
    regions, strata = region_table(several=False)
    healthy = regions["subject"].map(strata) == "HC"
    whole = regions[healthy & (regions["region"] == "distal NAWM")].assign(region="NAWM")
    found = diagnoses(long_table(pd.concat([regions[~healthy], whole]), ["cWDM"]), strata)
    own = found[found["source"] == "reference"].set_index("region")
    assert set(own.index) == {"lesion", "proximal NAWM", "distal NAWM"}
    sick = regions[~healthy].groupby("region")["truth"].mean()
    for region, row in own.iterrows():
        assert row["difference"] == pytest.approx(sick[region] - whole["truth"].mean())
        assert (row["people"], row["reference_people"]) == (8, 8)


def test_people_scanned_once_need_no_random_intercept() -> None:
    from statsmodels.api import OLS

    regions, strata = region_table(several=False)
    found = diagnoses(long_table(regions, ["cWDM"]), strata).set_index(["source", "region"])
    own = regions[regions["region"] == "distal NAWM"]
    design = np.stack([np.ones(16), own["subject"].map(strata) == "MS"], 1).astype(float)
    fit = OLS(own["truth"].to_numpy(), design).fit(cov_type="HC3", use_t=True)
    row = found.loc[("reference", "distal NAWM")]
    assert (row["difference"], row["p"]) == pytest.approx((fit.params[1], fit.pvalues[1]))
    assert row["model"] == "ordinary"
    assert repeatability(long_table(regions, ["cWDM"])).empty


def test_repeatability_by_hand() -> None:
    table = pd.DataFrame(
        [
            {"subject": who, "session": f"{who}{k}", "region": "NAWM", "source": "reference", "mean": mean}
            for who, means in (("a", (0.10, 0.12)), ("b", (0.11, 0.11)), ("c", (0.20,)))
            for k, mean in enumerate(means)
        ]
    )
    row = repeatability(table).iloc[0]
    assert row["within_sd"] == pytest.approx(np.sqrt((0.02**2 / 2 + 0) / 2))
    assert row["coefficient"] == pytest.approx(1.96 * np.sqrt(2) * row["within_sd"])
    assert (row["people"], row["scans"]) == (2, 4)


# --- bad input --------------------------------------------------------------------------------------------------------


def test_methods_by_name() -> None:
    assert [recipe.name for recipe in choose(["ldm", "demist"])] == ["ldm", "demist"]
    for names, words in ((["cwmd"], "did you mean cwdm"), (["unet", "unet"], "unet twice"), ([], "at least one")):
        with pytest.raises(InputError, match=words):
            choose(names)
    for recipe in RECIPES.values():
        for origin in ({}, {"foundation": "a bundle"}, {"backbone": "a published model"}):
            shares = recipe.stages(**origin)
            assert not shares or sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--methods", "unte"], "There is no method 'unte'; did you mean unet?"),
        (["--folds", "5"], "has 3 subjects, fewer than 5 folds"),
        (["--folds", "many"], "--folds takes a number or a table"),
        (["--minutes", "3", "--steps", "4"], "--minutes or --steps, not both"),
        (["--folds", "3", "--stratify", "diagnosis"], "one class only in the column diagnosis"),
        (["--folds", "3", "max_minutes=3"], "max_minutes is the cross-validation's own"),
        (["--sampler", "euler"], "Unknown sampler 'euler'"),
    ],
)
def test_cv_says_what_is_wrong_in_one_sentence(
    words: list[str], sentence: str, three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(main, ["cv", "--data", str(three), "--out", str(tmp_path / "out"), *words])
    said = capsys.readouterr().err
    assert code == 2
    assert sentence in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bids = write_mini_bids(tmp_path_factory.mktemp("three"), subjects=3, size=32)
    rows = "".join(f"sub-00{i}\tMS\n" for i in (1, 2, 3))
    (bids / "participants.tsv").write_text(f"participant_id\tdiagnosis\n{rows}")
    return bids


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        ("elsewhere", "does not overlap the brain"),
        ("unlabelled", "has no tissue segmentation"),
        ("bare", "has no brain mask"),
    ],
)
def test_what_is_wrong_with_a_scan_is_said_before_any_training(
    spoil: str, sentence: str, three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bids = Path(shutil.copytree(three, tmp_path / "bids"))
    truth = bids / "derivatives/truth/sub-002/anat"
    if spoil == "elsewhere":
        path = truth / "sub-002_desc-truth_PSRmap.nii.gz"
        image = nib.load(path)
        affine = image.affine.copy()
        affine[:3, 3] += 500
        nib.save(nib.Nifti1Image(image.get_fdata().astype(np.float32), affine), path)
    else:
        (truth / f"sub-002_desc-{'tissue_dseg' if spoil == 'unlabelled' else 'brain_mask'}.nii.gz").unlink()
    code = run(
        main,
        [
            "cv",
            "--data",
            str(bids),
            "--out",
            str(tmp_path / "out"),
            "--folds",
            "3",
            "--config",
            "tiny",
            "--preprocess",
            "simulated",
        ],
    )
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2
    assert said.startswith("error: ")
    assert sentence in said
    assert "sub-002" in said
    assert not list((tmp_path / "out").glob("fold-*"))


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_pairs_from_folders(three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, made = three / "derivatives/truth", tmp_path / "made"
    rng = np.random.default_rng(0)
    for path in sorted(truth.glob("sub-*/anat/*PSRmap.nii.gz"))[:2]:
        image = nib.load(path)
        psr = image.get_fdata()
        psr = np.where(psr > 0, np.maximum(psr + 0.005 * rng.standard_normal(psr.shape), 1e-4), 0)
        file = made / f"{path.name.partition('_')[0]}_PSRmap.nii.gz"
        file.parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image((100 * psr).astype(np.float32), image.affine), file)
        file.with_name(file.name.replace(".nii.gz", ".json")).write_text(json.dumps({"Units": "percent"}))
    words = [
        "pair",
        "--measured",
        truth,
        "--synthesized",
        made,
        "--labels",
        truth,
        "--mask",
        truth,
        "--out",
        tmp_path / "out",
    ]
    assert run(main, [str(word) for word in words]) == 0
    assert "2 scans of 2 subjects" in capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "out/pairs.csv")
    assert rows["mae_white"].between(0.003, 0.005).all()  # 0.005 times sqrt(2 / pi)
    assert rows["auc_nawm_difference"].between(-0.2, 0.01).all()
    assert (tmp_path / "out/scatter.png").stat().st_size > 5000
    assert run(main, [str(word) for word in words]) == 2
    assert "there already" in capsys.readouterr().err


def test_pairs_that_do_not_belong_together(three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = sorted(three.glob("derivatives/truth/sub-001/anat/*PSRmap.nii.gz"))[0]
    image = nib.load(measured)
    far = image.affine.copy()
    far[:3, 3] += 500
    nib.save(nib.Nifti1Image(image.get_fdata().astype(np.float32), far), tmp_path / "far.nii.gz")
    code = run(
        main,
        [
            "pair",
            "--measured",
            str(measured),
            "--synthesized",
            str(tmp_path / "far.nii.gz"),
            "--out",
            str(tmp_path / "out"),
        ],
    )
    assert code == 2
    assert "have no voxel in common" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def only(results: pd.DataFrame, rows: list[str]) -> pd.DataFrame:
    return results[results["method"].isin(rows)]


def test_where_a_baseline_is_ahead_is_said_with_its_p_or_why_there_is_none() -> None:
    from DEMISTCore.evaluation.cv.page import _wins

    rows, of = [DEMIST_MEAN, DEMIST_SAMPLE, "cWDM", "pix2pix"], kinds(list(RECIPES.values()))
    swapped = {DEMIST_MEAN: "pix2pix", "pix2pix": DEMIST_MEAN}
    for people, words in (
        (12, r"pix2pix is ahead of DEMIST \(mean\) \(p (= 0\.0\d\d|< 0\.001) after Holm\)"),
        (5, "too few"),
    ):
        results = made_up_results(people).replace({"method": swapped})
        told = "\n".join(_wins({"significance": comparisons(results, rows, of)}, of))
        assert re.search(words, told), told
    results = only(made_up_results(), rows := [DEMIST_MEAN, "pix2pix"])
    assert "No baseline" in _wins({"significance": comparisons(results, rows, of)}, of)[0]


def test_our_rows_are_shaded_in_the_picture_of_the_table() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import to_rgb

    from DEMISTCore.evaluation.cv.figures import table_figure

    rows, of = [DEMIST_MEAN, "cWDM"], kinds(list(RECIPES.values()))
    results = only(made_up_results(), rows)
    tables = {"summary": summary(results, rows), "significance": comparisons(results, rows, of)}
    figure = table_figure(tables, rows, of)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    shade = (255 * np.array(to_rgb("#e3eefa"))).round()
    shaded = (np.abs(np.asarray(canvas.buffer_rgba())[..., :3] - shade).max(-1) < 2).mean()
    assert 0.05 < shaded < 0.6, shaded
