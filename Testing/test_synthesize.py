"""The main job, from files to files, with a tiny random model: what comes out, and what is refused."""

from __future__ import annotations

import errno
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import DEMISTCore
from DEMISTCore import cli, devices
from DEMISTCore.bundle import SIMULATED_WARNING, load_bundle
from DEMISTCore.errors import Cancelled, InputError
from DEMISTCore.files import sha256
from DEMISTCore.preview import mosaic, save_figure
from DEMISTCore.synthesis import check_seeds, generate
from DEMISTCore.volume import Volume

# The module; the package's attribute of that name is the function.
synthesize = importlib.import_module("DEMISTCore.synthesize")

ROOT = Path(__file__).parents[1]
QUICK = {"register": False, "bias_correct": False}


@pytest.fixture(scope="module")
def bundle(tiny_bundle):
    return load_bundle(tiny_bundle)


@pytest.fixture
def run(head, bundle):
    """``synthesize`` on the head, quickly."""

    def call(**options):
        return DEMISTCore.synthesize(
            options.pop("t1w", head.t1w),
            options.pop("flair", head.flair),
            **{"bundle": bundle, "brain_mask": head.mask, **QUICK, **options},
        )

    return call


@pytest.fixture(scope="module")
def prepared(head, bundle):
    return DEMISTCore.prepare(head.t1w, head.flair, brain_mask=head.mask, spacing=bundle.spacing, multiple=8, **QUICK)


def command(head, bundle_folder: Path, out: Path, *more: str) -> list[str]:
    return [
        "--t1w",
        str(head.t1w),
        "--flair",
        str(head.flair),
        "--brain-mask",
        str(head.mask),
        "--out",
        str(out),
        "--bundle",
        str(bundle_folder),
        "--no-register",
        "--no-bias-correct",
        *more,
    ]


def everything_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


# What comes out -------------------------------------------------------------------------------------------------------


def test_command_line_and_call_give_the_same_bytes(head, tiny_bundle, run, tmp_path):
    """The whole job as a user starts it, in a process of its own; then in this one; then once more."""
    folders = [tmp_path / name for name in ("command", "call", "again")]
    more = ("--uncertainty", "--preview", str(folders[0] / "p.png"))
    done = subprocess.run(
        [sys.executable, "-m", "DEMISTCore.synthesize", *command(head, tiny_bundle, folders[0] / "psr.nii.gz", *more)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    assert done.returncode == 0, done.stderr
    assert SIMULATED_WARNING in done.stdout
    for words in ("stage", "sample", "decode", "total", "peak memory", "PSR: median", "psr.nii.gz"):
        assert words in done.stdout
    for folder in folders[1:]:
        run(out=folder / "psr.nii.gz", uncertainty=True, preview=folder / "p.png")
    names = ["p.png", "psr.json", "psr.nii.gz", "psr_uncertainty.nii.gz"]
    assert all(everything_in(folder) == names for folder in folders)
    for name in ("p.png", "psr.nii.gz", "psr_uncertainty.nii.gz"):
        first, *others = [(folder / name).read_bytes() for folder in folders]
        assert all(other == first for other in others), name


def test_map_lies_on_the_t1w_and_is_a_psr_map(head, run, tmp_path):
    result = run(out=tmp_path / "psr.nii.gz", uncertainty=True)
    t1w, written = nib.load(head.t1w), nib.load(tmp_path / "psr.nii.gz")
    assert written.shape == t1w.shape
    np.testing.assert_allclose(written.affine, t1w.affine, atol=1e-5)
    assert nib.aff2axcodes(written.affine) == ("L", "P", "S")
    assert written.get_data_dtype() == np.float32
    psr = np.asarray(written.dataobj)
    np.testing.assert_array_equal(psr, result.psr.array)
    mask = np.asarray(nib.load(head.mask).dataobj) > 0.5
    np.testing.assert_array_equal(result.mask.array > 0, mask)
    assert psr.min() >= 0
    assert not psr[~mask].any()
    assert psr[mask].std() > 1e-3
    spread = np.asarray(nib.load(tmp_path / "psr_uncertainty.nii.gz").dataobj)
    assert not spread[~mask].any()
    assert np.median(spread[mask]) > 0


def test_sidecar_says_where_it_comes_from(head, bundle, run, tmp_path):
    result = run(out=tmp_path / "psr.nii.gz", seeds=[3, 8], steps=2, sampler="ddim", guidance={"spatial": 1.5})
    told = json.loads((tmp_path / "psr.json").read_text())
    assert told == json.loads(json.dumps(result.provenance))
    assert told["simulated"] is True
    assert told["statement"] == SIMULATED_WARNING
    assert told["software"]["version"] == DEMISTCore.__version__
    assert told["bundle"]["hash"] == bundle.hash
    assert told["bundle"]["base"] == {"name": "tiny-base", "hash": bundle.base.hash}
    assert told["inputs"]["T1w"] == {"file": str(head.t1w), "sha256": sha256(head.t1w)}
    assert told["inputs"]["FLAIR"]["sha256"] == sha256(head.flair)
    assert told["inputs"]["brain mask"]["sha256"] == sha256(head.mask)
    assert told["output_sha256"]["psr"] == sha256(tmp_path / "psr.nii.gz")
    settings = told["settings"]
    assert (settings["seeds"], settings["steps"], settings["sampler"]) == ([3, 8], 2, "ddim")
    assert settings["guidance"] == {"spatial": 1.5}
    assert settings["register"] is False
    for stage in ("load", "resampling", "encode", "sample", "decode", "to native grid", "write", "total"):
        assert told["timings_s"][stage] >= 0
    assert told["timings_s"]["total"] >= told["timings_s"]["sample"]
    assert told["peak_memory_mb"] > 50
    assert told["warnings"] == result.prepared.warnings


def test_mean_and_spread_are_those_of_the_samples(run):
    result = run(seeds=[4, 0, 11], keep_samples=True)
    samples = np.stack([sample.array for sample in result.samples]).astype(np.float64)
    np.testing.assert_allclose(result.psr.array, samples.mean(0), atol=1e-7)
    np.testing.assert_allclose(result.uncertainty.array, samples.std(0, ddof=1), atol=1e-7)
    alone = run(seeds=[0])
    np.testing.assert_array_equal(alone.psr.array, result.samples[1].array)
    assert alone.uncertainty is None
    assert (samples[0] != samples[1]).any()


def test_maps_of_single_seeds_are_written(head, tiny_bundle, run, tmp_path):
    out = tmp_path / "psr.nii.gz"
    assert cli.run(synthesize.main, command(head, tiny_bundle, out, "--seeds", "3,1", "--samples", "-q")) == 0
    assert everything_in(tmp_path) == ["psr.json", "psr.nii.gz", "psr_seed-1.nii.gz", "psr_seed-3.nii.gz"]
    samples = {n: np.asarray(nib.load(tmp_path / f"psr_seed-{n}.nii.gz").dataobj) for n in (1, 3)}
    np.testing.assert_allclose(np.asarray(nib.load(out).dataobj), (samples[1] + samples[3]) / 2, atol=1e-7)
    np.testing.assert_array_equal(samples[3], run(seeds=[3]).psr.array)
    told = json.loads((tmp_path / "psr.json").read_text())
    assert told["output_sha256"].keys() == {"psr", "seed 1", "seed 3"}
    assert told["outputs"]["seed 3"].endswith("psr_seed-3.nii.gz")


def test_volumes_serve_as_well_as_files(head, run):
    from_files = run(seeds=1)
    t1w, flair, mask = (Volume.read(path) for path in (head.t1w, head.flair, head.mask))
    bare = [Volume(v.array, v.affine) for v in (t1w, flair, mask)]
    result = run(t1w=bare[0], flair=bare[1], brain_mask=bare[2], seeds=1)
    np.testing.assert_array_equal(result.psr.array, from_files.psr.array)
    assert result.provenance["inputs"]["T1w"]["file"] is None
    assert len(result.provenance["inputs"]["T1w"]["array_sha256"]) == 64
    assert result.files == {}


def test_the_recommended_settings_are_the_bundles(run, bundle):
    settings = run().provenance["settings"]
    for key in ("sampler", "steps", "eta", "spacing"):
        assert settings[key] == bundle.sampling[key]
    assert settings["seeds"] == list(range(bundle.sampling["seeds"]))


def test_recommended_guidance_is_taken_unless_something_else_is_asked_for(run, bundle, monkeypatch):
    plain = run(seeds=1, guidance={})
    with monkeypatch.context() as patch:
        patch.setitem(bundle.info, "sampling", {**(bundle.info.get("sampling") or {}), "guidance": {"all": 1.5}})
        advised, undone = run(seeds=1), run(seeds=1, guidance={"all": 1.0})
    assert advised.provenance["settings"]["guidance"] == {"all": 1.5}
    assert np.abs(advised.psr.array - plain.psr.array).max() > 1e-5
    np.testing.assert_array_equal(undone.psr.array, plain.psr.array)
    np.testing.assert_array_equal(run(seeds=1, guidance={"all": 1.5}).psr.array, advised.psr.array)


def test_condition_is_computed_once_and_networks_no_more_than_needed(bundle, prepared, monkeypatch):
    counts = {"encode": 0, "condition": 0, "forward": 0, "control": 0}

    def counting(name, function):
        def wrapper(*args, **kwargs):
            counts[name] += 1
            return function(*args, **kwargs)

        return wrapper

    demist = bundle.demist
    monkeypatch.setattr(bundle.autoencoder_condition, "encode", counting("encode", bundle.autoencoder_condition.encode))
    monkeypatch.setattr(demist, "condition", counting("condition", demist.condition))
    monkeypatch.setattr(demist, "forward", counting("forward", demist.forward))
    monkeypatch.setattr(demist.spatial, "embed", counting("control", demist.spatial.embed))
    samples = list(generate(bundle, prepared.array, prepared.mask.array, seeds=[1, 2, 3], steps=4))
    assert len(samples) == 3
    assert samples[0].shape == prepared.grid.shape
    assert counts == {"encode": 1, "condition": 1, "forward": 12, "control": 1}


def test_guidance(bundle, prepared):
    def psr(**weights):
        plain = {"seeds": [1], "steps": 1, "dtype": torch.float32}
        return next(generate(bundle, prepared.array, prepared.mask.array, guidance=weights, **plain))

    plain = psr()
    np.testing.assert_array_equal(psr(spatial=1, semantic=1.0), plain)
    for weights in ({"spatial": 2.0}, {"semantic": 3.0}, {"adaptive": 4.0}, {"spatial": 0}, {"all": 2.0}):
        assert np.abs(psr(**weights) - plain).max() > 1e-5, weights
    off = {"semantic": 0, "spatial": 0, "adaptive": 0}
    other = np.roll(prepared.array, 5, axis=2)
    bare = [
        next(generate(bundle, x, seeds=[1], steps=1, guidance=off, dtype=torch.float32))
        for x in (prepared.array, other)
    ]
    np.testing.assert_array_equal(bare[0], bare[1])  # with all streams off the images do not matter


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp_2m"])
def test_every_sampler_and_precision(bundle, prepared, sampler):
    full, half = (
        next(generate(bundle, prepared.array, prepared.mask.array, steps=3, sampler=sampler, dtype=dtype))
        for dtype in (torch.float32, torch.bfloat16)
    )
    inside = prepared.mask.array > 0
    assert np.isfinite(full).all()
    assert full[inside].std() > 1e-3
    assert np.corrcoef(full[inside], half[inside])[0, 1] > 0.97


def test_little_memory_decodes_in_tiles_to_the_same_map(bundle, prepared):
    from DEMISTCore.decoding import decode_memory

    latent = tuple(n // bundle.config.psr.factor for n in prepared.grid.shape)
    memory = int(0.7 * decode_memory(bundle.autoencoder_psr, latent, torch.float32))
    plain = {"seeds": [2], "steps": 2, "dtype": torch.float32}
    whole, tiled = (next(generate(bundle, prepared.array, memory=m, **plain)) for m in (1 << 50, memory))
    assert np.abs(whole - tiled).max() < 1e-3 * bundle.psr_range


def test_nan_weights_end_in_a_sentence(bundle, prepared, monkeypatch):
    monkeypatch.setattr(bundle.demist, "forward", lambda z, *_: torch.full_like(z, torch.nan))
    with pytest.raises(DEMISTCore.DemistError, match="NaN or infinite values"):
        next(generate(bundle, prepared.array, steps=1))


# Progress and cancelling ----------------------------------------------------------------------------------------------


def test_progress_and_running_estimate(run, bundle):
    seen, estimates = [], []

    def estimate(e):
        estimates.append((e.seed, e.step, e.steps))
        if e.step == e.steps:
            estimates.append(e.psr())

    result = run(seeds=[5, 6], steps=3, progress=lambda stage, share: seen.append((stage, share)), estimate=estimate)
    shares = [share for _, share in seen]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    stages = [stage for stage, _ in seen]
    for stage in ("read", "resampling", "encode", "seed 1 of 2", "seed 2 of 2", "write", "done"):
        assert stage in stages
    assert [e for e in estimates if isinstance(e, tuple)] == [(s, i, 3) for s in (5, 6) for i in (1, 2, 3)]
    last = [e for e in estimates if isinstance(e, np.ndarray)]
    # The last estimate is the sample: these samplers end on x0.
    np.testing.assert_allclose(np.mean(last, 0), result.model_psr.array, atol=1e-6)


@pytest.mark.parametrize("where", ["read", "resampling", "encode", "seed 2 of 2", "write", "estimate"])
def test_cancelling_leaves_nothing(run, tmp_path, where):
    def progress(stage, share):
        if stage == where:
            raise Cancelled("Stopped.")

    def estimate(e):
        if where == "estimate" and e.step == 2:
            raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        run(
            out=tmp_path / "deep" / "psr.nii.gz",
            uncertainty=True,
            preview=tmp_path / "p.png",
            progress=progress,
            estimate=estimate,
        )
    assert everything_in(tmp_path) == []


def test_a_failing_write_leaves_nothing_and_keeps_what_was_there(run, tmp_path, monkeypatch):
    out = tmp_path / "psr.nii.gz"
    out.write_bytes(b"yesterday's")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("DEMISTCore.preview.save_figure", full)
    with pytest.raises(InputError, match="No space left"):
        run(out=out, preview=tmp_path / "p.png", overwrite=True)
    assert everything_in(tmp_path) == ["psr.nii.gz"]
    assert out.read_bytes() == b"yesterday's"


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM")
def test_a_polite_kill_leaves_nothing(head, tiny_bundle, tmp_path):
    arguments = command(head, tiny_bundle, tmp_path / "psr.nii.gz", "--steps", "1000", "--seeds", "100", "-v")
    started = subprocess.Popen(
        [sys.executable, "-u", "-m", "DEMISTCore.synthesize", *arguments], cwd=ROOT, text=True, stderr=subprocess.PIPE
    )
    told = ""
    for line in started.stderr:
        told += line
        if "normalisation" in line:
            break
    time.sleep(0.3)
    started.send_signal(signal.SIGTERM)
    told += started.communicate(timeout=100)[1]
    assert started.returncode == 143, told
    assert "nothing half-written" in told
    assert everything_in(tmp_path) == []


# Bad input: one sentence, exit code 2, no output ----------------------------------------------------------------------


@pytest.fixture
def refuse(head, tiny_bundle, tmp_path, capsys):
    """Run the command line in this process; it must fail with one sentence that has these words."""
    workplace = tmp_path / "out"
    workplace.mkdir()

    def call(*more: str, words: tuple[str, ...], **change: str) -> str:
        before = everything_in(workplace)
        arguments = command(head, tiny_bundle, workplace / "psr.nii.gz", *more)
        for option, value in change.items():
            arguments[arguments.index("--" + option.replace("_", "-")) + 1] = str(value)
        code = cli.run(synthesize.main, arguments)
        out, err = capsys.readouterr()
        assert code == 2, err
        assert err.startswith("error: ")
        assert err.count("\n") == 1, err
        assert "Traceback" not in err
        assert out == ""
        for word in words:
            assert str(word) in err, err
        assert everything_in(workplace) == before
        return err

    call.folder = workplace
    return call


@pytest.fixture(autouse=True)
def _quiet_logging():
    """``main`` sets up logging for the process; leave it as it was."""
    import logging

    root, package = logging.getLogger(), logging.getLogger("DEMISTCore")
    before = root.handlers[:], root.level, package.level, signal.getsignal(signal.SIGTERM)
    yield
    root.handlers[:], package.level = before[0], before[2]
    root.setLevel(before[1])
    signal.signal(signal.SIGTERM, before[3])


@pytest.mark.parametrize("name", ["psr.nii.gz", "psr.json", "psr_uncertainty.nii.gz", "p.png"])
def test_existing_outputs_are_kept(refuse, name):
    (refuse.folder / name).write_text("precious")
    refuse("--uncertainty", "--preview", str(refuse.folder / "p.png"), words=(name, "exists already", "--overwrite"))
    assert (refuse.folder / name).read_text() == "precious"


def test_existing_maps_of_seeds_are_kept(refuse):
    (refuse.folder / "psr_seed-1.nii.gz").write_text("precious")
    refuse("--samples", "--seeds", "0,1", words=("psr_seed-1.nii.gz", "exists already"))
    assert (refuse.folder / "psr_seed-1.nii.gz").read_text() == "precious"


def test_overwrite_replaces(head, tiny_bundle, tmp_path):
    out = tmp_path / "psr.nii.gz"
    for name in ("psr.nii.gz", "psr.json"):
        (tmp_path / name).write_text("old")
    assert cli.run(synthesize.main, command(head, tiny_bundle, out, "--overwrite", "--seeds", "1", "-q")) == 0
    assert nib.load(out).shape == nib.load(head.t1w).shape
    assert json.loads((tmp_path / "psr.json").read_text())["settings"]["seeds"] == [0]


def test_outputs_that_cannot_be_written(refuse, head, monkeypatch):
    blocker = refuse.folder / "file"
    blocker.write_text("")
    refuse(out=blocker / "psr.nii.gz", words=("Cannot write", "another name"))
    refuse(out=refuse.folder, words=("is a folder; give a file name",))
    refuse(out=refuse.folder / "psr.txt", words=("psr.txt is no name for an image", ".nii.gz"))
    refuse(out=refuse.folder / ".nii.gz", words=("no name for an image",))
    refuse(out=head.t1w, words=("an input already", "another name"))
    refuse("--preview", str(refuse.folder / "p.doc"), words=("p.doc is no name for a picture", ".png"))
    refuse("--uncertainty", str(refuse.folder / "psr.nii.gz"), words=("the psr already",))
    refuse("--uncertainty", str(refuse.folder / "sd"), words=("no name for an image",))

    def read_only(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", read_only)
    refuse(words=("psr.nii.gz: Read-only file system", "choose a folder"))


def test_too_little_memory(refuse, monkeypatch):
    monkeypatch.setattr(devices, "available_memory", lambda device=None: 1 << 20)
    refuse(words=("Too little memory", "t1w.nii.gz", "GiB are free", "close other programs"))


def test_devices_that_are_not_there(refuse, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    refuse("--device", "gpu", words=("Unknown device 'gpu'", "choose auto, cpu"))
    refuse("--device", "cuda", words=("no CUDA GPU", "--device cpu"))
    refuse("--device", "cuda:3", words=("cuda:3",))
    refuse("--device", "mps", words=("no Apple GPU",))
    refuse("--precision", "int4", words=("Unknown precision 'int4'",))


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--seeds", "0", "1 to 256"),
        ("--seeds", "-3", "1 to 256"),
        ("--seeds", "100000", "1 to 256"),
        ("--seeds", "two", "as in 1,2,7"),
        ("--seeds", "1.5", "as in 1,2,7"),
        ("--seeds", "1,2,1", "given twice"),
        ("--seeds", "1,-2", "0 or more"),
        ("--seeds", ",", "1 to 256"),
        ("--steps", "0", "1 to 1000"),
        ("--steps", "1001", "1 to 1000"),
        ("--steps", "ten", "not a whole number"),
        ("--sampler", "euler", "choose ddim, ddpm, dpmpp_2m"),
        ("--guidance", "spacial=2", "Unknown stream 'spacial'"),
        ("--guidance", "spatial", "as in spatial=1.5"),
        ("--guidance", "spatial=much", "as in spatial=1.5"),
        ("--guidance", "spatial=nan", "must be a number"),
    ],
)
def test_bad_sampling_options(refuse, option, value, words):
    refuse(option, value, words=(words,))


def test_uncertainty_of_one_seed(refuse):
    refuse("--seeds", "1", "--uncertainty", words=("at least two", "--seeds 4"))


def test_bad_bundles(refuse, tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refuse(bundle="no-such", words=("There is no bundle 'no-such'",))
    refuse(bundle=refuse.folder, words=("not a DEMIST bundle",))
    refuse(bundle="someone/model", words=("Hugging Face hub is out of reach",))
    refuse(bundle=tiny_bundle.parent / "tiny-base", words=("foundation without conditioning streams",))
    for name in ("tiny", "tiny-base"):
        shutil.copytree(tiny_bundle.parent / name, tmp_path / name)
    weights = tmp_path / "tiny" / "streams.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-64])
    refuse(bundle=tmp_path / "tiny", words=("streams.safetensors is truncated",))
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 255]))
    refuse(bundle=tmp_path / "tiny", words=("wrong SHA-256",))
    weights.write_bytes(whole)
    (tmp_path / "tiny-base").rename(tmp_path / "gone")
    refuse(bundle=tmp_path / "tiny", words=("tiny-base, which is not there",))


def test_bad_images_pass_through(refuse, head, tmp_path):
    refuse(t1w=tmp_path / "nowhere.nii.gz", words=("nowhere.nii.gz does not exist",))
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(head.flair.read_bytes()[:2000])
    refuse(flair=cut, words=("cut.nii.gz", "cut short"))
    image = nib.load(head.flair)
    far = image.affine.copy()
    far[:3, 3] += 5000
    nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32), far), tmp_path / "far.nii.gz")
    refuse(flair=tmp_path / "far.nii.gz", words=("do not overlap", "far.nii.gz"))
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), tmp_path / "empty.nii.gz")
    refuse(brain_mask=tmp_path / "empty.nii.gz", words=("empty.nii.gz", "mask"))


def test_seeds_in_python():
    assert check_seeds(3) == [0, 1, 2]
    assert check_seeds((5, 2)) == [5, 2]
    assert check_seeds(np.array([7])) == [7]
    for bad in (0, True, [], "4", [1.0], [True], [2**63], None):
        with pytest.raises(InputError):
            check_seeds(bad)


# Command line and preview ---------------------------------------------------------------------------------------------


def test_help_loads_nothing_heavy():
    code = (
        "import sys; import DEMISTCore.synthesize as s; assert 'PSR' in s.parser().format_help();"
        "heavy = {'torch', 'monai', 'numpy', 'nibabel', 'SimpleITK', 'scipy', 'matplotlib', 'tqdm'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_package_attribute_can_be_called_whatever_was_imported_before(head, bundle):
    code = (
        "import DEMISTCore; assert callable(DEMISTCore.synthesize); import DEMISTCore.synthesize as module;"
        "assert callable(DEMISTCore.synthesize) and module.parser"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    with pytest.raises(InputError, match="1 to 256"):
        synthesize(head.t1w, head.flair, bundle=bundle, seeds=0)


def test_seed_words():
    parse = synthesize.parser().parse_args
    required = ["--t1w", "a", "--flair", "b", "--out", "c"]
    assert parse([*required, "--seeds", "4"]).seeds == 4
    assert parse([*required, "--seeds", "1,2,7"]).seeds == [1, 2, 7]
    assert parse([*required, "--seeds", "7,"]).seeds == [7]
    assert parse([*required, "--guidance", "spatial=1.5,all=2"]).guidance == {"spatial": 1.5, "all": 2.0}
    assert parse([*required, "--uncertainty"]).uncertainty is True
    assert parse([*required]).uncertainty is False


def test_preview_is_a_picture_with_its_warning(tmp_path):
    shape = (40, 50, 30)
    mask = np.zeros(shape, np.uint8)
    mask[5:35, 5:45, 5:25] = 1
    t1w = mask.astype(np.float32)
    t1w[30:35] = 3  # the patient's right
    psr = np.where(mask, np.float32(0.12), 0)
    figure = mosaic(t1w, t1w, psr, mask, 0.1 * psr, footer="research estimate", columns=4)
    texts = [text.get_text() for text in figure.texts]
    assert any("research estimate" in text and "radiological convention" in text for text in texts)
    bars = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert bars == ["PSR (fraction)", "SD of PSR (fraction)"]
    panels = [axes for axes in figure.axes if axes.images and not axes.get_ylabel()]
    assert len(panels) == 16
    shown = np.asarray(panels[0].images[0].get_array())  # rows from posterior to anterior, columns as on the screen
    third = shown.shape[1] // 3
    assert np.nanmax(shown[:, :third]) == 3  # the patient's right is on the left
    assert np.nanmax(shown[:, -third:]) == 1
    for name in ("a.png", "b.png"):
        save_figure(figure, tmp_path / name, dpi=50)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_preview_of_nothing_does_not_fail(tmp_path):
    nothing = np.zeros((8, 9, 10), np.float32)
    save_figure(mosaic(nothing, nothing, nothing, nothing), tmp_path / "p.png", dpi=30)


def test_preview_leaves_matplotlib_alone():
    code = (
        "import sys, numpy as np; from DEMISTCore.preview import mosaic; a = np.ones((9, 9, 9), 'f4');"
        "mosaic(a, a, a, a, columns=2); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
