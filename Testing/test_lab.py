"""Data sets as labs have them: made, looked at, and learnt from."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
from training_data import write_mini_bids

from DEMISTCore import evaluate, evaluation, train
from DEMISTCore.bundle import load_bundle
from DEMISTCore.cli import run as run_cli
from DEMISTCore.errors import InputError
from DEMISTCore.measured import read_measured
from DEMISTCore.simulate import lab as simulated_lab
from DEMISTCore.simulate.lab import HARMLESS, PLANTED, TROUBLES, Scan, make_lab, psr_of
from DEMISTCore.training import data, prepare
from DEMISTCore.training.check import check
from DEMISTCore.training.finetune import _compare, _people, best_factor, finetune, with_scale
from DEMISTCore.training.finetune import told as report_of
from DEMISTCore.training.finetune_scale import own_factors
from DEMISTCore.training.levels import common_levels, levelled, read_levels
from DEMISTCore.training.settings import resolve
from DEMISTCore.volume import Volume

#: A brain of 30 mm: nothing to register, and no volume to wonder at.
SMALL = (
    "preprocess.already_aligned=true",
    "preprocess.brain_mask=truth",
    "preprocess.bias_correct=false",
    "preprocess.register=false",
    "preprocess.skull_strip=none",
)
STILL = Scan(slices=4, thickness=4.0, in_plane=1.0, moved_mm=(0.0, 0.0), turned_deg=0.0)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_mini_bids(tmp_path_factory.mktemp("source"), subjects=len(TROUBLES) + 2, folded=True)


@pytest.fixture(scope="module")
def troubled(source, tmp_path_factory):
    root = tmp_path_factory.mktemp("lab") / "lab"
    return root, make_lab(source, root, STILL, troubles=True)


@pytest.fixture(scope="module")
def report(troubled, tmp_path_factory):
    out = tmp_path_factory.mktemp("check")
    settings = resolve("demist", "tiny", SMALL)
    return check(troubled[0], settings, out / "cache", out / "page"), out / "page"


def test_a_slab_is_the_truth_in_percent_where_it_is_known(source, tmp_path):
    scan = Scan(slices=8, thickness=2.0, in_plane=1.0, moved_mm=(2.0, 2.0), turned_deg=2.0, noise=0.0, outliers=0.01)
    planted = make_lab(source, tmp_path / "lab", scan)
    name = sorted(planted)[0]
    measured = read_measured(psr_of(tmp_path / "lab", name))
    assert measured.units == "percent"
    assert measured.units_by == "sidecar"
    assert measured.counts["nan"] > 0
    assert measured.counts["high"] > 0
    truth = Volume.read(source / "derivatives/truth" / name / "anat" / f"{name}_desc-truth_PSRmap.nii.gz")
    motion = np.array(planted[name]["motion_ras_mm"])
    back, known = measured.on_grid(truth.grid, np.linalg.inv(motion))
    assert 0.2 < known.sum() / (truth.array > 0).sum() < 0.9
    error = np.abs(back - truth.array)[known & (truth.array > 0)]
    assert np.median(error) < 0.01  # partial volume of thick slices, no more
    wrong, known = measured.on_grid(truth.grid)
    assert np.abs(wrong - truth.array)[known & (truth.array > 0)].mean() > error.mean()
    with pytest.raises(InputError, match="exists already"):
        make_lab(source, tmp_path / "lab", scan)


def test_every_planted_trouble_is_found_and_none_where_there_is_none(troubled, report):
    _, planted = troubled
    found = {one.choice.subject: one for one in report[0].findings}
    assert set(found) == set(planted)
    for subject, told in planted.items():
        one, trouble = found[subject], told["trouble"]
        if trouble is None or trouble in HARMLESS:
            assert not one.errors, (subject, trouble, one.errors)
            assert not one.choice.missing
        elif trouble in ("no FLAIR", "no PSR"):
            assert one.choice.missing == [{"no FLAIR": "FLAIR", "no PSR": "PSRmap"}[trouble]]
        else:
            assert one.errors, (subject, trouble)
    says = {told["trouble"]: " ".join(found[subject].errors) for subject, told in planted.items()}
    assert "fraction" in says["wrong units"]
    assert "another person" in says["other person"]
    assert "does not overlap" in says["elsewhere"]
    assert "covers" in says["thin slab"]
    assert "constant" in says["constant"]
    assert "no PSR map" in says["no PSR map"]
    assert "more than one" in says["two maps"]
    assert "no finite value" in says["empty"]
    rejected = {told["trouble"]: [r.why for r in found[subject].choice.rejected] for subject, told in planted.items()}
    assert any("contrast agent" in why for why in rejected["contrast agent"])
    assert any("template" in why for why in rejected["template space"])
    assert sum("another atlas" in why for why in rejected["template space"]) == 2
    clean = found[min(planted)]
    assert clean.facts["units"] == "percent"
    assert clean.facts["lesion_ml"] > 0  # BIDS's own name of a lesion mask


def test_the_page_holds_everything(report):
    found, folder = report
    page = (folder / "check.html").read_text(encoding="utf-8")
    told = json.loads((folder / "check.json").read_text(encoding="utf-8"))
    assert len(told["sessions"]) == len(found.findings)
    for one in found.findings:
        assert f'id="{one.name}"' in page
        for rejected in one.choice.rejected:
            assert rejected.path.name in page
    prepared = [one for one in found.findings if one.entry is not None]
    assert page.count("data:image/png;base64,") == len(prepared)
    assert "http" not in page.replace("http-equiv", "")


def test_the_command_line_ends_with_2_where_something_would_spoil_a_model(troubled, source, tmp_path, capsys):
    bad = [name for name, told in troubled[1].items() if told["trouble"] and told["trouble"] not in HARMLESS]
    words = ["check", "--data", str(troubled[0]), "--out", str(tmp_path / "check"), *SMALL]
    assert run_cli(train.main, [*words, f"exclude_subjects=[{','.join(bad)}]"]) == 0
    printed = capsys.readouterr().out
    assert "sessions can be trained on" in printed
    keep = [name for name, told in troubled[1].items() if told["trouble"] != "constant"]
    assert run_cli(train.main, [*words, f"exclude_subjects=[{','.join(keep)}]"]) == 2
    assert "constant" in capsys.readouterr().out
    assert run_cli(train.main, ["check", "--data", str(tmp_path / "none"), *SMALL]) == 2
    assert "no folder" in capsys.readouterr().err


def test_training_stops_at_another_persons_map(troubled, tmp_path, capsys):
    root, planted = troubled
    keep = ("other person", None)
    out = [name for name, told in planted.items() if told["trouble"] not in keep]
    words = [
        "regression",
        "--data",
        str(root),
        "--config",
        "tiny",
        "--out",
        str(tmp_path / "run"),
        *SMALL,
        f"exclude_subjects=[{','.join(out)}]",
    ]
    assert run_cli(train.main, words) == 2
    assert "another person" in capsys.readouterr().err
    assert not (tmp_path / "run" / "config.yaml").exists()
    assert run_cli(train.main, [*words, "accept_alarms=true"]) == 0


def test_mixed_units_and_people_without_scans_are_told(source, tmp_path):
    root = tmp_path / "lab"
    planted = make_lab(source, root, STILL)
    names = sorted(planted)[:4]
    psr = Volume.read(psr_of(root, names[1]))
    psr.with_array(psr.array / 100).write(psr_of(root, names[1]))
    psr_of(root, names[1]).with_name(f"{names[1]}_PSRmap.json").unlink()
    rows = [f"{name}\t{'MS' if i else 'HC'}" for i, name in enumerate(names)]
    (root / "participants.tsv").write_text("\n".join(["participant_id\tgroup", *rows, "sub-999\tMS"]) + "\n")
    others = ",".join(sorted(planted)[4:])
    found = check(root, resolve("demist", "tiny", [*SMALL, f"exclude_subjects=[{others}]"]), tmp_path / "cache")
    assert not found.all_errors
    assert any("mixed" in sentence and names[1] in sentence for sentence in found.warnings)
    assert any("sub-999 (no scans)" in sentence for sentence in found.warnings)
    assert found.groups == {"HC": 1, "MS": 3}


# --- fine-tuning ------------------------------------------------------------------------------------------------------


def test_a_bundle_with_another_scale_makes_the_same_maps_times_it(calibrated_bundle, source, tmp_path):
    from DEMISTCore.devices import pick_device, pick_dtype
    from DEMISTCore.training.finetune import predicted

    bundle = load_bundle(calibrated_bundle)
    scaled = with_scale(bundle, 1.25, tmp_path / "scaled")
    assert scaled.psr_range == pytest.approx(1.25 * bundle.psr_range)
    assert scaled.calibration is None  # errors of other maps
    settings = resolve("demist", "tiny", [*SMALL, "preprocess.spacing=4"])
    [entry] = prepare.prepare_cohort(data.index(source)[:1], settings, tmp_path / "cache")
    where = pick_device("cpu")
    first, second = (predicted(model, entry, where, pick_dtype(where, "fp32")) for model in (bundle, scaled))
    np.testing.assert_allclose(second, 1.25 * first, rtol=1e-4, atol=1e-6)
    y = np.asarray(entry.y, np.float64)
    assert best_factor([(entry, y / 1.1)]) == pytest.approx(1.1, rel=1e-3)
    with pytest.raises(InputError, match="no scanner"):
        best_factor([(entry, y / 10)])


def test_coarse_maps_are_sharpened_by_the_mean_before_they_are_encoded(tiny_mean_bundle, source, tmp_path):
    from DEMISTCore.devices import pick_device, pick_dtype
    from DEMISTCore.networks.knowledge import describe
    from DEMISTCore.training.finetune import predicted
    from DEMISTCore.training.foundation import bundle_foundation
    from DEMISTCore.training.latents import encode_cohort
    from DEMISTCore.training.mean import known_of
    from DEMISTCore.training.resolution import as_measured
    from DEMISTCore.training.sharpen import sharpened

    make_lab(source, tmp_path / "lab", replace(STILL, slices=3, thickness=10.0))
    settings = resolve("demist", "tiny", [*SMALL, "preprocess.spacing=4", "flip=false"])
    entries = prepare.prepare_cohort(data.index(tmp_path / "lab")[:2], settings, tmp_path / "cache")
    [entry, other] = entries
    x = np.asarray(entry.x, np.float32)
    described = describe(x, (x != 0).any(0), 4.0)  # as at the time of use: by the true voxel size
    np.testing.assert_array_equal(known_of(entry)[: described.size], described)
    assert np.diag(entry.blur)[2] == pytest.approx((2.5**2 - 1) / (8 * np.log(2)) + 2.5**2 / 6, abs=0.01)
    bundle = load_bundle(tiny_mean_bundle)
    device = pick_device("cpu")
    own = predicted(bundle, entry, device, pick_dtype(device, "fp32"))
    # A map that is just what its scan would see of the network's own is replaced by that.
    np.save(entry.folder / "y.npy", np.where(np.asarray(entry.labels) > 0, as_measured(own, entry.blur), 0))
    foundation = bundle_foundation(bundle.base.folder)
    [sharp, second] = sharpened(entries, bundle.demist.mean_network, foundation, settings)
    inside = np.asarray(entry.labels) > 0
    assert inside.any()
    np.testing.assert_allclose(np.asarray(sharp.y)[inside], own[inside], atol=2e-4)
    assert np.abs(own - np.asarray(entry.y))[inside].max() > 2e-3
    assert sharp.blur is None
    assert (second.name, second.key == other.key) == (other.name, False)
    # Its latents are its own, not those of the coarse map.
    [coarse_z], [sharp_z] = (encode_cohort([one], foundation, settings, tmp_path / "cache") for one in (entry, sharp))
    assert np.abs(np.asarray(coarse_z.z, np.float32) - sharp_z.z).max() > 0
    # A sharp map is left alone.
    [whole] = prepare.prepare_cohort(data.index(source)[:1], settings, tmp_path / "cache")
    assert sharpened([whole], bundle.demist.mean_network, foundation, settings) == [whole]


def test_people_are_brought_to_one_level_before_networks_learn(source, tmp_path):
    settings = resolve("demist", "tiny", [*SMALL, "preprocess.spacing=4"])
    entries = prepare.prepare_cohort(data.index(source)[:3], settings, tmp_path / "cache")
    own = (0.7, 0.9, 0.8)
    pairs = [(entry, np.asarray(entry.y, np.float32) / np.float32(factor)) for entry, factor in zip(entries, own)]
    factors = own_factors(pairs)
    assert list(factors.values()) == pytest.approx(own, rel=2e-3)
    factor = best_factor(pairs)
    assert factor == pytest.approx(0.8, rel=2e-3)  # the median
    (tmp_path / "levels.json").write_text(json.dumps(common_levels(factors, factor)))
    levels = read_levels(tmp_path / "levels.json")
    brought = levelled(entries, levels)
    for entry, new, (_, psr) in zip(entries, brought, pairs):
        np.testing.assert_allclose(new.y, 0.8 * psr, rtol=4e-3, atol=1e-4)
        assert (new.name, new.key == entry.key) == (entry.name, levels[entry.subject] == 1)
        assert new.blur is entry.blur is None
    again = own_factors([(new, psr) for new, (_, psr) in zip(brought, pairs)])
    assert list(again.values()) == pytest.approx([factor] * 3, rel=2e-3)
    assert levelled(entries, {"sub-999": 0.5}) == entries
    for wrong in ("[1, 2]", '{"sub-001": "much"}', '{"sub-001": 0}', "{", '{"sub-001": true}'):
        (tmp_path / "wrong.json").write_text(wrong)
        with pytest.raises(InputError, match=r"wrong\.json"):
            read_levels(tmp_path / "wrong.json")
    with pytest.raises(InputError, match="nowhere"):
        read_levels(tmp_path / "nowhere.json")


def test_a_training_that_loses_against_the_factor_says_so(caplog):
    words = {"level": "streams", "people": 10, "trained": 9, "held_out": 1}
    good, bad = ({"psnr": psnr, "mae": 0.006, "scale_error_percent": 3.0} for psnr in (28.0, 27.5))
    words |= {"metrics_before": bad, "metrics_scaled": good, "metrics_after": bad}
    _compare(words)
    [record] = caplog.records
    assert "On 1 people held out the factor alone does better (PSNR 28.00 dB, after training 27.50" in record.message
    lines = report_of(words, Path("mine")).splitlines()
    assert lines[0].split() == ["on", "people", "held", "out", "before", "scaled", "after"]
    assert lines[1].split() == ["PSNR", "(dB)", "27.50", "28.00", "27.50"]
    caplog.clear()
    for other in (
        {"metrics_after": good},
        {"level": "scale"},
        {"trained": 10},
    ):  # no worse; nothing else; nobody held out
        _compare(words | other)
    assert not caplog.records
    assert report_of(words | {"trained": 10}, Path("mine")).startswith("on all people")


@pytest.mark.parametrize(("people", "held_out"), [(3, 1), (17, 2), (18, 9), (20, 9), (40, 13)])
def test_enough_people_are_held_out_to_measure_the_errors(people, held_out):
    entries = [SimpleNamespace(subject=f"sub-{i:02d}", name=f"sub-{i:02d}") for i in range(people)]
    train, validation_set, to_fit = _people(entries, resolve("demist", "tiny"), "streams")
    assert len(validation_set) == held_out
    assert to_fit == validation_set
    assert not {e.subject for e in train} & {e.subject for e in validation_set}


@pytest.fixture(scope="module")
def shipped(tiny_mean_bundle, tmp_path_factory):
    """The tiny bundle under the name of the one that ships, as a user finds it."""
    return _as_shipped(tiny_mean_bundle, tmp_path_factory.mktemp("shipped"))


def _as_shipped(bundle: Path, root: Path) -> Path:
    import shutil

    from DEMISTCore.bundle import description_hash

    shutil.copytree(bundle.with_name(f"{bundle.name}-base"), root / f"{bundle.name}-base")
    told = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    shutil.copytree(bundle, root / "demist-sim")
    told["name"] = "demist-sim"
    told["hash"] = description_hash(told)
    (root / "demist-sim" / "bundle.json").write_text(json.dumps(told), encoding="utf-8")
    return root


def _commands() -> list[str]:
    page = (Path(__file__).parents[1] / "docs" / "your-scanner.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    lines = [line.replace("\\\n", " ") for block in blocks for line in [block.strip()]]
    return [line for line in lines if line.startswith("python -m DEMISTCore")]


@pytest.mark.slow
def test_the_page_leads_from_a_folder_to_a_bundle(shipped, source, tmp_path, monkeypatch, capsys):
    """docs/your-scanner.md as printed; a miniature model and data set make it minutes."""
    import importlib
    import shlex

    monkeypatch.setenv("DEMIST_BUNDLES", str(shipped))
    monkeypatch.chdir(tmp_path)
    make_lab(source, tmp_path / "my-data", STILL)
    first = sorted(path.name for path in (tmp_path / "my-data").glob("sub-*"))[0]
    here = [
        *SMALL,
        "precision=fp32",
        "mean.steps=2",
        "demist.steps=2",
        "mean.crop=[4,4,4]",
        "mean.margin=2",
        "demist.crop=[4,4,4]",
        "demist.decode=[2,2,2]",
        "demist.decode_halo=1",
        "batch=2",
    ]
    ran = []
    for line in _commands():
        _, _, module, *words = shlex.split(line)
        words = [word.replace("sub-01", first) for word in words]
        if module == "DEMISTCore.train":
            words += SMALL if words[0] == "check" else [*here, "workers=1"]
        elif module == "DEMISTCore.synthesize":
            words += [
                "--skull-strip",
                "none",
                "--brain-mask",
                f"my-data/derivatives/masks/{first}/anat/{first}_desc-brain_mask.nii.gz",
                "--device",
                "cpu",
                "--any-brain-volume",
            ]
        else:
            continue  # simulates: hours of brains
        ran.append(words[0])
        assert run_cli(importlib.import_module(module).main, words) == 0, (line, capsys.readouterr().err)
    assert ran[:3] == ["check", "finetune", "finetune"]
    for name in ("scaled", "mine"):
        bundle = load_bundle(tmp_path / "runs" / name / "bundle" / name)
        assert bundle.simulated  # its base still is
        assert bundle.info["training"]["finetune"]["from"]["name"] == "demist-sim"
        assert "salted hash" in bundle.card
        assert first not in bundle.card
        told = json.loads((tmp_path / "runs" / name / "finetune.json").read_text(encoding="utf-8"))
        assert told["people"] == len(TROUBLES) + 2
        assert told["trained"] + told["held_out"] == told["people"]
        listed = bundle.info["training"]["finetune"]["scans"]
        assert len(listed["trained"]) == (told["trained"] if name == "mine" else 0)
        assert len(listed["trained"]) + len(listed["held_out"]) == told["people"]
        assert abs(told["metrics_after"]["scale_error_percent"]) < abs(told["metrics_before"]["scale_error_percent"])
        run = tmp_path / "runs" / name
        assert (run / "levels.json").is_file() == (name == "mine")
        # One factor is what the level scale does, and what the streams are compared with.
        if name == "scaled":
            assert told["metrics_scaled"] == pytest.approx(told["metrics_after"], rel=1e-3, abs=1e-3)
        assert ("| scaled |" in bundle.card) == (name == "mine")
    levels = json.loads((tmp_path / "runs/mine/levels.json").read_text(encoding="utf-8"))
    assert len(levels) == len(TROUBLES) + 2
    for stage in ("mean", "demist"):
        config = (tmp_path / "runs/mine" / stage / "config.yaml").read_text(encoding="utf-8")
        assert str(tmp_path / "runs/mine/levels.json") in config
    assert (tmp_path / "psr.nii.gz").is_file()
    # The same folder again is refused before anything is done.
    assert run_cli(train.main, ["finetune", "--data", "my-data", "--out", "runs/mine", *here]) == 2


def test_scans_that_were_learnt_are_no_test(tiny_mean_bundle, source, tmp_path):
    from DEMISTCore.bundle import description_hash
    from DEMISTCore.bundle.seen import check_unseen, scan_marks

    scans = {s.name: s.t1w for s in data.index(source)}
    [first, second, *others] = scans
    assert check_unseen(load_bundle(tiny_mean_bundle), scans) is None
    folder = _as_shipped(tiny_mean_bundle, tmp_path) / "demist-sim"
    told = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    told["training"] = {"finetune": {"scans": scan_marks([scans[first]], [scans[second]])}}
    told["hash"] = description_hash(told)
    (folder / "bundle.json").write_text(json.dumps(told), encoding="utf-8")
    bundle = load_bundle(folder)
    with pytest.raises(InputError, match=f"was trained on {first};"):
        check_unseen(bundle, scans)
    assert f"calibrated on {second}:" in check_unseen(bundle, {second: scans[second]})
    assert check_unseen(bundle, {name: scans[name] for name in others}) is None
    moved = tmp_path / "another_name.nii.gz"
    moved.write_bytes(scans[first].read_bytes())
    with pytest.raises(InputError, match="was trained on x;"):
        check_unseen(bundle, {"x": moved})
    out = tmp_path / "results"
    words = ["--data", str(source), "--bundle", str(folder), "--out", str(out)]
    assert run_cli(evaluate.main, words) == 2
    assert not (out / "summary.md").exists()


def test_measured_maps_without_labels_are_judged_by_own_ones(tiny_mean_bundle, source, tmp_path):
    root = tmp_path / "lab"
    make_lab(source, root, STILL)
    for path in root.glob("derivatives/masks/sub-*/anat/*dseg*"):
        path.unlink()
    evaluation.evaluate(
        root,
        tmp_path / "out",
        bundle=tiny_mean_bundle,
        subjects=1,
        seeds=1,
        preprocess="simulated",
        already_aligned=True,
        progress=False,
    )
    warnings = pandas.read_csv(tmp_path / "out" / "warnings.csv")["warning"]
    assert any("no tissue segmentation: tissue is what demist-regions" in told for told in warnings)
    regions = pandas.read_csv(tmp_path / "out" / "regions.csv")
    assert {"White matter", "Cortex", "Lesion"} <= set(regions["region"]), set(regions["region"])


def test_what_cannot_be_fitted(troubled, tiny_bundle, tmp_path, capsys):
    words = ["finetune", "--data", str(troubled[0]), "--out", str(tmp_path / "out"), *SMALL]
    with pytest.raises(InputError, match="level takes"):
        finetune(troubled[0], tmp_path / "out", init=str(tiny_bundle), level="all")
    assert run_cli(train.main, [*words, "--init", str(tiny_bundle.with_name("tiny-base"))]) == 2
    assert "foundation" in capsys.readouterr().err
    assert run_cli(train.main, [*words, "--init", str(tmp_path)]) == 2
    assert "cannot be used" in capsys.readouterr().err
    assert not (tmp_path / "out" / "bundle").exists()


def test_the_lab_command_says_what_it_made(source, tmp_path, capsys):
    words = ["--source", str(source), "--out", str(tmp_path / "lab"), "--troubles", "--thickness", "4"]
    assert run_cli(simulated_lab.main, words) == 0
    assert f"{len(TROUBLES)} with a planted fault" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "lab" / PLANTED).read_text())) == len(TROUBLES) + 2
    assert run_cli(simulated_lab.main, ["--source", str(tmp_path), "--out", str(tmp_path / "b")]) == 2
    assert "no simulated subjects" in capsys.readouterr().err
    assert run_cli(simulated_lab.main, [*words[:4], "--slices", "0"]) == 2


def test_the_decoder_is_trained_too_where_it_is_asked_for(shipped, source, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DEMIST_BUNDLES", str(shipped))
    make_lab(source, tmp_path / "lab", STILL)
    words = ["mean.steps=1", "demist.steps=1", "decoder.steps=2", "mean.crop=[4,4,4]", "mean.margin=2"]
    words += ["demist.crop=[4,4,4]", "demist.decode=[2,2,2]", "demist.decode_halo=1", "decoder.patch=[16,16,16]"]
    words += [*SMALL, "precision=fp32", "batch=2", "workers=1", "--level", "decoder"]
    folder = tmp_path / "runs" / "deep"
    told = run_cli(train.main, ["finetune", "--data", str(tmp_path / "lab"), "--out", str(folder), *words])
    assert told == 0, capsys.readouterr().err
    bundle, before = load_bundle(folder / "bundle" / "deep"), load_bundle("demist-sim")
    assert json.loads((folder / "finetune.json").read_text(encoding="utf-8"))["level"] == "decoder"
    moved = {
        name: float((after - before.autoencoder_psr.state_dict()[name]).abs().max())
        for name, after in bundle.autoencoder_psr.state_dict().items()
    }
    decoder = {name for name in moved if "decoder" in name or "post_quant" in name}
    assert max(moved[name] for name in decoder) > 1e-6
    assert max(moved[name] for name in moved.keys() - decoder) < 1e-3  # as stored: rounded, not trained


@pytest.mark.skipif(os.name == "nt", reason="a script for SLURM, which Windows has not")
@pytest.mark.parametrize(("ends", "again"), [(143, True), (0, False)])
def test_the_slurm_script_hands_itself_in_again_where_training_was_stopped(ends, again, tmp_path):
    """SLURM itself cannot be installed here: what it does to the script is a signal, what the script asks a command."""
    training, scontrol = tmp_path / "python", tmp_path / "scontrol"
    training.write_text(
        f'#!/bin/sh\ntrap "exit {ends}" TERM\necho "$@" > "{tmp_path}/asked"\nwhile :; do sleep 0.1; done\n'
    )
    scontrol.write_text(f'#!/bin/sh\necho "$@" > "{tmp_path}/requeued"\n')
    for path in (training, scontrol):
        path.chmod(0o755)
    told = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": str(training), "SLURM_JOB_ID": "7"}
    script = Path(__file__).parents[1] / "scripts" / "finetune_slurm.sh"
    job = subprocess.Popen(["bash", str(script), "--data", "my data", "--out", "runs/mine"], env=told)
    try:
        begun = time.monotonic()
        while not (tmp_path / "asked").is_file() and time.monotonic() < begun + 60:
            time.sleep(0.05)
        time.sleep(0.5)  # both traps are set once the training has begun
        job.send_signal(signal.SIGUSR1)
        assert job.wait(30) == ends
    finally:
        job.kill()
    asked = "-m DEMISTCore.train finetune --data my data --out runs/mine"
    assert (tmp_path / "asked").read_text().strip() == asked
    assert (tmp_path / "requeued").exists() == again
    if again:
        assert (tmp_path / "requeued").read_text().split() == ["requeue", "7"]
