"""The child process by itself: its protocol, what it keeps warm, and how it ends."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from DEMISTCore.errors import BundleError, InputError, MemoryShortage, printable
from DEMISTCore.volume import Volume
from DEMISTCore.worker import exchange, protocol, samples
from DEMISTCore.worker.preview import Preview
from DEMISTCore.worker.protocol import EXIT_MISSING, JOBS, KINDS, ProtocolError, Sender, decode, encode
from DEMISTCore.worker.serve import explain

ROOT = Path(__file__).resolve().parents[1]
#: Longest wait for anything (seconds); an idle machine needs a twentieth of it.
LONG = 240.0


class Child:
    """A worker, as a parent sees it."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "DEMISTCore.worker", *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **environment},
        )
        self.messages: queue.Queue[dict | bytes | None] = queue.Queue()
        self._next = 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.messages.put(json.loads(line))  # everything on the output is a message
        self.messages.put(None)

    def raw(self, line: bytes) -> None:
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def ask(self, do: str, **content: object) -> int:
        self._next += 1
        self.raw(encode({"id": self._next, "do": do, **content}))
        return self._next

    def next(self) -> dict:
        message = self.messages.get(timeout=LONG)
        assert message is not None, "the worker has ended"
        return message

    def until(self, id: int | None, *events: str) -> tuple[dict, list[dict]]:
        """The first of these events about a job, and all that came before."""
        before = []
        while True:
            message = self.next()
            if message.get("id") == id and message["event"] in events:
                return message, before
            before.append(message)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[Child]:
    child = Child(tmp_path_factory.mktemp("exchange"), DEMIST_BUNDLES=str(tiny_bundle.parent))
    assert child.next()["event"] == "ready"
    yield child
    child.end()


@pytest.fixture(scope="module")
def pair(head, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """References to the small head's images, as a parent writes them."""
    folder = tmp_path_factory.mktemp("pair")
    names = {"t1w": head.t1w, "flair": head.flair, "brain_mask": head.mask}
    return {key: exchange.write_reference(Volume.read(path), folder, key) for key, path in names.items()}


@pytest.fixture
def run(child: Child, pair: dict) -> dict:
    """A request for a quick synthesis."""
    return {
        **pair,
        "bundle": "tiny",
        "seeds": [0, 1],
        "device": "cpu",
        "precision": "fp32",
        "register": False,
        "bias_correct": False,
        "folder": str(child.folder),
    }


def is_gone(pid: int) -> bool:
    """True if there is no such process, or only its exit code is left."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


# --- lines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"garbage\n", "not JSON"),
        (b"\xff\xfe\n", "not JSON"),
        (b"[1, 2]\n", "no JSON object"),
        (b'{"do": "hello"}\n', "whole number as its id"),
        (b'{"id": true, "do": "hello"}\n', "whole number as its id"),
        (b'{"id": 1, "do": "format"}\n', "no job 'format'"),
        (b'{"id": 1, "do": "cancel"}\n', "which job to cancel"),
        (b"[" * 100_000, "not JSON"),
        (b" " * (protocol.MAX_LINE + 1), "no request"),
    ],
)
def test_a_line_that_is_no_request_is_named(line, sentence):
    with pytest.raises(ProtocolError, match=sentence):
        decode(line)


def test_lines_are_json_whatever_a_result_holds():
    told = {"a": np.float32(0.5), "b": [float("nan"), np.inf], "c": Path("x"), "d": np.arange(2), "e": (1, None)}
    line = encode(told)
    assert json.loads(line) == {"a": 0.5, "b": [None, None], "c": "x", "d": [0, 1], "e": [1, None]}
    assert line.count(b"\n") == 1
    assert b"\n" not in encode({"text": "two\nlines"})[:-1]


# --- volumes -------------------------------------------------------------------------------------------------------


def test_volumes_cross_unchanged_in_the_order_of_vtk(tmp_path):
    array = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
    affine = np.array([[0.7, -0.1, 0, 1 / 3], [0.1, 0.7, 0, -2.7], [0, 0, 3.3, 1e-7], [0, 0, 0, 1]])
    reference = json.loads(encode(exchange.write_reference(Volume(array, affine), tmp_path, "x")))
    assert np.load(reference["npy"]).flags.f_contiguous
    back = exchange.read_reference(reference, "T1w")
    assert np.array_equal(back.array, array)
    assert np.array_equal(back.affine, affine)  # to the last bit
    assert back.array.flags.c_contiguous


def test_bad_references_are_named(tmp_path):
    np.save(tmp_path / "flat.npy", np.zeros((3, 3)))
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY")
    np.save(tmp_path / "good.npy", np.zeros((3, 3, 3)))
    eye = np.eye(4).tolist()
    for reference, sentence in (
        (None, "must be given as"),
        ({"npy": str(tmp_path / "none.npy"), "affine": eye}, "is gone"),
        ({"npy": str(tmp_path / "flat.npy"), "affine": eye}, "no 3-D array"),
        ({"npy": str(tmp_path / "pickled.npy"), "affine": eye}, "cannot be read"),
        ({"npy": str(tmp_path / "cut.npy"), "affine": eye}, "cannot be read"),
        ({"npy": str(tmp_path / "good.npy")}, "without a 4x4 affine"),
        ({"npy": str(tmp_path / "good.npy"), "affine": "north"}, "cannot be read"),
    ):
        with pytest.raises(InputError, match=sentence):
            exchange.read_reference(reference, "T1w")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "psr.npy").symlink_to("/dev/full")  # every write there fails for want of space
    with pytest.raises(InputError, match="no space left"):
        exchange.write_reference(Volume(np.zeros((64, 64, 64)), np.eye(4)), tmp_path, "psr")
    assert not any(tmp_path.iterdir())


# --- errors --------------------------------------------------------------------------------------------------------


def test_errors_have_a_kind_and_one_sentence():
    for error, kind, word in (
        (InputError("x is bad; fix it."), "input", "fix"),
        (InputError("/free/memory/t1w.nii: Too little memory of what it was."), "input", "memory"),
        (MemoryShortage("Too little memory: x needs 9 GiB and 1 GiB are free; close."), "memory", "GiB"),
        (BundleError("no bundle"), "bundle", "no bundle"),
        (ModuleNotFoundError("No module named 'monai'", name="monai"), "dependency", "monai is missing"),
        (OSError(errno.ENOSPC, "No space left on device", "psr.nii.gz"), "input", "no space left"),
        (ZeroDivisionError("a\nb"), "internal", "ZeroDivisionError: a b"),
    ):
        found, sentence = explain(error)
        assert (found, kind in KINDS) == (kind, True)
        assert word in sentence
        assert "\n" not in sentence


def test_memory_that_ran_out_is_told_by_its_type_on_every_device():
    import torch

    from DEMISTCore.devices import memory_errors

    class Other(RuntimeError): ...

    huge = 1 << 60
    for fail in (
        lambda: (_ for _ in ()).throw(MemoryError()),
        lambda: np.zeros(huge, np.uint8),  # NumPy's own type
        lambda: torch.empty(huge, dtype=torch.uint8),  # torch on the CPU: words alone
        lambda: (_ for _ in ()).throw(torch.cuda.OutOfMemoryError("CUDA")),
    ):
        with pytest.raises(MemoryShortage, match="not enough memory") as caught, memory_errors():
            fail()
        assert explain(caught.value)[0] == "memory"
    for error in (Other("the tale of an out of memory error"), RuntimeError("shape mismatch")):
        with pytest.raises(type(error)), memory_errors():
            raise error


def test_a_worker_without_its_packages_ends_with_a_code_of_its_own(tmp_path):
    (tmp_path / "numpy.py").write_text("raise ModuleNotFoundError(\"No module named 'numpy'\", name='numpy')")
    variables = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[1]}"}
    ran = subprocess.run([sys.executable, "-m", "DEMISTCore.worker"], env=variables, capture_output=True, text=True)
    assert ran.returncode == EXIT_MISSING
    assert ran.stderr == "The Python package numpy is missing.\n"


# --- preview -------------------------------------------------------------------------------------------------------


def test_previews_are_thinned_by_time_and_cost(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("DEMISTCore.worker.preview.time.monotonic", lambda: clock[0])
    sent = []

    class FakeContext:
        def give(self, volume, name):
            clock[0] += 3.0  # what decoding costs
            return name

        def send(self, event, **content):
            sent.append((clock[0], content["step"]))

    class FakeEstimate:
        seed, steps = 0, 1000

        def __init__(self, step):
            self.step = step

        def volume(self):
            return None

    preview = Preview(FakeContext())
    for step in range(1, 1001):
        clock[0] += 0.25
        preview(FakeEstimate(step))
    times = [when for when, _ in sent]
    assert len(sent) > 5
    assert min(np.diff(times)) > 2.0
    assert 3.0 * len(sent) <= 0.2 * clock[0] + 3.0
    assert sent[-1][1] < 1000  # the last estimate is the sample itself


# --- the process ---------------------------------------------------------------------------------------------------


def test_garbage_is_answered_and_does_no_harm(child):
    child.raw(b"garbage\n\n\xff\n{}\n")
    for _ in range(3):
        message = child.next()
        assert (message["event"], message["id"], message["kind"]) == ("error", None, "input")
    number = child.ask("nonsense")
    message, _ = child.until(number, "error")
    assert all(job in message["message"] for job in JOBS)
    child.ask("cancel", target=12345)  # of nothing: no answer, no harm
    number = child.ask("hello")
    assert child.next() == {"id": number, "event": "accepted"}
    told, _ = child.until(number, "done")
    assert told["pid"] == child.process.pid


def test_a_run_a_warm_run_and_what_they_say(child, run):
    results = []
    for _ in range(2):
        number = child.ask("synthesize", preview=True, **run)
        done, before = child.until(number, "done", "error")
        assert done["event"] == "done", done
        results.append((done, before, *(exchange.read_reference(done[k], k) for k in ("psr", "uncertainty"))))
    (first, before, psr, spread), (second, again, psr2, spread2) = results
    stages = [message["stage"] for message in before if message["event"] == "progress"]
    assert stages[0] == "load"
    assert {"brain mask", "normalisation", "encode", "seed 1 of 2", "seed 2 of 2", "done"} <= set(stages)
    shares = [message["done"] for message in before if message["event"] == "progress"]
    assert shares == sorted(shares)
    estimates = [message for message in before if message["event"] == "estimate"]
    assert estimates
    assert estimates[0]["volume"]["affine"] == first["psr"]["affine"] == run["t1w"]["affine"]
    # The second one prepares and encodes nothing, and gives the same bytes.
    stages = {message["stage"] for message in again if message["event"] == "progress"}
    assert "normalisation" not in stages
    assert second["timings"].keys().isdisjoint({"normalisation", "brain mask"})
    assert np.array_equal(psr.array, psr2.array)
    assert np.array_equal(spread.array, spread2.array)
    assert 0 < psr.array.max() < 1
    # The first progress of the first step comes from the sampler: nothing stood between it and the request.
    assert second["sampling_after"] < first["sampling_after"]


def test_the_mean_its_uncertainty_and_the_protocol(child, run, tiny_mean_bundle, head, tmp_path):
    """Mode mean: no seeds, no previews, an uncertainty all the same; into a file, too. The protocol is heard."""
    import DEMISTCore

    plain = {**run, "bundle": str(tiny_mean_bundle), "seeds": None}
    protocol = {"T1w": {"RepetitionTime": 2.3, "InversionTime": 0.9}, "FLAIR": {"EchoTime": 0.09}}
    made, maps = {}, {}
    for name, given in {
        "bundle": {},
        "mean": {"mode": "mean", "preview": True},
        "sample": {"mode": "sample"},
        "told": {"protocol": protocol},
        "file": {"out": str(tmp_path / "psr.nii.gz")},
    }.items():
        done, before = child.until(child.ask("synthesize", **{**plain, **given}), "done", "error")
        assert done["event"] == "done", done
        assert not [message for message in before if message["event"] == "estimate"]
        made[name] = done
        if name != "file":  # the next run writes into the same files
            maps[name] = exchange.read_reference(done["psr"], "PSR").array
    settings = {name: done["provenance"]["settings"] for name, done in made.items()}
    assert [settings[name]["mode"] for name in made] == ["mean", "mean", "sample", "mean", "mean"]
    assert settings["bundle"]["seeds"] == []
    assert settings["sample"]["seeds"] == [0, 1]
    assert made["bundle"]["sampling_after"] is None
    assert "mean" in made["mean"]["timings"]
    assert np.array_equal(maps["bundle"], maps["mean"])
    assert not np.array_equal(maps["mean"], maps["told"])
    direct = DEMISTCore.synthesize(
        head.t1w,
        head.flair,
        brain_mask=head.mask,
        bundle=tiny_mean_bundle,
        device="cpu",
        precision="fp32",
        register=False,
        bias_correct=False,
        protocol=protocol,
    )
    assert np.array_equal(maps["told"], direct.psr.array)
    spread = exchange.read_reference(made["told"]["uncertainty"], "uncertainty").array
    assert np.array_equal(spread, direct.uncertainty.array)
    assert Volume.read(made["file"]["files"]["uncertainty"]).array.max() > 0


def test_a_mode_that_cannot_be_is_said(child, run):
    for given, words in (
        ({"mode": "mean"}, "no network for the mean"),
        ({"mode": "median"}, "Unknown mode"),
        ({"mode": 3}, "mode must be text"),
        ({"protocol": {"T1w": [1]}}, "protocol.T1w must have keys"),
        ({"protocol": {"T2w": {}}}, "T1w"),
    ):
        told, _ = child.until(child.ask("synthesize", **{**run, **given}), "done", "error")
        assert told["event"] == "error"
        assert words in told["message"]
        assert told["kind"] == "input"


def test_a_calibration_travels_from_synthesis_to_statistics(child, run, calibrated_bundle, tmp_path):
    done, _ = child.until(child.ask("synthesize", **{**run, "bundle": str(calibrated_bundle), "seeds": None}), "done")
    provenance = done["provenance"]
    assert provenance["uncertainty"]["kind"] == "calibrated standard deviation of the error"
    psr, spread = (exchange.read_reference(done[name], name) for name in ("psr", "uncertainty"))
    lesions = np.zeros(psr.shape, np.float32)
    lesions[20:23, 24:27, 18:21] = 1
    volumes = {"psr": psr, "uncertainty": spread, "lesions": psr.with_array(lesions)}
    given = {name: exchange.write_reference(volume, tmp_path, name) for name, volume in volumes.items()}
    told, _ = child.until(
        child.ask("statistics", **given, provenance=provenance, folder=str(child.folder)), "done", "error"
    )
    assert told["event"] == "done", told
    row = next(row for row in told["rows"] if row["region"] == "lesion" and row["lesion"] is None)
    # s = 0.05 m with a quantile of 2: 10 % each way.
    assert (row["mean_ci90_low"], row["mean_ci90_high"]) == pytest.approx((0.9 * row["mean"], 1.1 * row["mean"]))
    assert not any("seed to seed" in note for note in told["notes"])


def test_the_worker_gives_what_synthesize_gives(child, run, tiny_bundle, head):
    import DEMISTCore

    number = child.ask("synthesize", **run)
    done, _ = child.until(number, "done", "error")
    direct = DEMISTCore.synthesize(
        head.t1w,
        head.flair,
        brain_mask=head.mask,
        bundle=tiny_bundle,
        seeds=[0, 1],
        device="cpu",
        precision="fp32",
        register=False,
        bias_correct=False,
    )
    assert np.array_equal(exchange.read_reference(done["psr"], "PSR").array, direct.psr.array)


def test_what_is_kept_is_used_for_the_same_images_only(child, run, head, tmp_path):
    """After a run, others with one thing changed give what a fresh worker would."""

    def ask(**change):
        number = child.ask("synthesize", **{**run, "seeds": [0], **change})
        done, _ = child.until(number, "done", "error")
        assert done["event"] == "done", done
        return done, exchange.read_reference(done["psr"], "PSR").array

    _, plain = ask()
    brighter = Volume.read(head.flair)
    brighter = brighter.with_array(brighter.array * np.linspace(0.5, 1.5, brighter.shape[0])[:, None, None])
    moved = np.array(run["flair"]["affine"])
    moved[0, 3] += 6.0
    for change in (
        {"flair": exchange.write_reference(brighter.with_array(brighter.array.astype(np.float32)), tmp_path, "flair")},
        {"flair": {**run["flair"], "affine": moved.tolist()}},
        {"bias_correct": True},
    ):
        done, other = ask(**change)
        assert "normalisation" in done["timings"]
        assert not np.array_equal(other, plain)
        done, again = ask()
        assert "normalisation" in done["timings"]
        assert np.array_equal(again, plain)


def test_prepared_images_are_found_again_by_their_content(tiny_bundle, head):
    import DEMISTCore
    from DEMISTCore.synthesis import Reuse
    from DEMISTCore.worker.cache import Cache

    cache = Cache()
    t1w, flair, mask = (Volume.read(path) for path in (head.t1w, head.flair, head.mask))
    assert cache.prepared(t1w, flair) is None
    cache._reuse = Reuse()
    result = DEMISTCore.synthesize(
        t1w,
        flair,
        bundle=tiny_bundle,
        seeds=[0],
        steps=1,
        device="cpu",
        brain_mask=mask,
        register=False,
        bias_correct=False,
        reuse=cache.reuse,
    )
    same = t1w.with_array(t1w.array.copy())
    for images in ({"T1w": same, "FLAIR": flair}, {"T1w": t1w, "FLAIR": flair, "brain mask": mask}):
        assert cache.reuse.prepared_from(images) is result.prepared
    other = Volume(t1w.array + 1, t1w.affine)
    assert cache.reuse.prepared_from({"T1w": other, "FLAIR": flair}) is None
    assert cache.prepared(t1w, flair) is None  # its grid of 4 mm is too coarse to find tissue in


def test_a_worker_can_be_told_to_load_the_model_before_it_is_needed(child):
    number = child.ask("hello", devices=True, bundle="tiny")
    told, _ = child.until(number, "done", "error")
    assert told["bundle"]["name"] == "tiny"
    assert told["devices"][-1][0] == "cpu"
    number = child.ask("hello", bundle="no-such-model")
    assert child.until(number, "done", "error")[0]["kind"] == "bundle"


def test_cancel_in_the_middle_of_sampling_keeps_the_worker_warm(child, run):
    number = child.ask("synthesize", **{**run, "seeds": list(range(40))})
    while True:
        message = child.next()
        assert message.get("event") != "done"
        if message.get("stage", "").startswith("seed"):
            break
    child.ask("cancel", target=number)
    last, _ = child.until(number, "cancelled", "done", "error")
    assert last["event"] == "cancelled"
    number = child.ask("hello")
    told, _ = child.until(number, "done")
    assert told["pid"] == child.process.pid


def test_a_waiting_job_can_be_cancelled_before_it_begins(child, run):
    first = child.ask("synthesize", **run)
    second = child.ask("synthesize", **run)
    child.ask("cancel", target=second)
    done, _ = child.until(first, "done", "error", "cancelled")
    assert done["event"] == "done"
    last, before = child.until(second, "done", "error", "cancelled")
    assert last["event"] == "cancelled"
    assert not [m for m in before if m.get("id") == second and m["event"] == "progress"]


def test_an_id_in_use_is_refused(child, run):
    number = child.ask("synthesize", **run)
    child.raw(encode({"id": number, "do": "hello"}))
    message, _ = child.until(number, "error")
    assert "already" in message["message"]
    assert child.until(number, "done", "error", "cancelled")[0]["event"] == "done"


def test_what_is_wrong_comes_back_as_a_sentence(child, run, tmp_path):
    for change, kind, words in (
        ({"bundle": "no-such-model"}, "bundle", "no-such-model"),
        ({"t1w": None}, "input", "no T1w"),
        ({"t1w": {**run["t1w"], "npy": str(tmp_path / "gone.npy")}}, "input", "is gone"),
        ({"folder": str(tmp_path / "gone")}, "input", "folder"),
        ({"steps": -3}, "input", "steps"),
        ({"seeds": [1, 1]}, "input", "twice"),
        ({"sampler": "euler"}, "input", "euler"),
        ({"device": "cuda:77"}, "input", "cuda"),
        ({"guidance": {"all": "much"}}, "input", "much"),
    ):
        number = child.ask("synthesize", **{**run, **change})
        message, _ = child.until(number, "error", "done", "cancelled")
        assert (message["event"], message.get("kind")) == ("error", kind), message
        assert words in message["message"]
        assert message["message"].endswith(".")


def test_statistics_of_a_map_in_memory(child, tmp_path):
    rng = np.random.default_rng(5)
    shape = (40, 40, 24)
    x, y, z = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij")
    brain = (x / 18) ** 2 + (y / 18) ** 2 + (z / 10) ** 2 < 1
    lesion = (x - 8) ** 2 + y**2 + z**2 < 9
    psr = np.where(brain, 0.12 - 0.06 * lesion + 0.01 * rng.standard_normal(shape), 0).astype(np.float32)
    tissue = np.where(brain, 3, 0).astype(np.uint8)
    affine = np.diag([1.0, 1.0, 1.5, 1.0])
    volumes = {"psr": psr, "lesions": lesion.astype(np.uint8), "tissue": tissue}
    given = {key: exchange.write_reference(Volume(array, affine), tmp_path, key) for key, array in volumes.items()}
    number = child.ask("statistics", folder=str(tmp_path), distances={"distal_mm": 9.0, "proximal_mm": [2, 5]}, **given)
    done, _ = child.until(number, "done", "error")
    assert done["event"] == "done", done
    rows = {row["region"]: row for row in done["rows"] if row["lesion"] is None}
    assert rows["lesion"]["mean"] == pytest.approx(0.06, abs=0.005)
    assert rows["nawm_distal"]["mean"] == pytest.approx(0.12, abs=0.005)
    assert done["summary"]["settings"]["regions"]["distal_mm"] == 9.0
    assert done["summary"]["roc"]["against"]["nawm"]["voxel"]["auc"] > 0.99
    masks = {key: exchange.read_reference(told, key, None).array for key, told in done["masks"].items()}
    assert set(masks) == {"lesion", "nawm_proximal", "nawm_distal"}
    assert np.array_equal(masks["lesion"] > 0, lesion)
    assert done["lesions"] == 1
    (point,) = done["positions"].values()  # inside the lesion, in RAS mm
    assert lesion[tuple(np.round(np.linalg.inv(affine) @ [*point, 1])[:3].astype(int))]
    number = child.ask("statistics", folder=str(tmp_path), distances={"colour": 1}, **given)
    assert "colour" in child.until(number, "error")[0]["message"]


def test_what_a_person_says_of_the_brain_reaches_the_statistics(monkeypatch):
    """Given to the worker, the word arrives where the volume is judged; without it, it is not said."""
    import DEMISTCore.statistics
    from DEMISTCore.worker import jobs

    heard = []

    def analyse(*_, **options):
        heard.append(options["any_brain_volume"])
        raise InputError("Enough.")

    class Context:
        cache = type("Cache", (), {"prepared": lambda *_: None, "samples": type("S", (), {"of": lambda *_: []})()})()

        def __init__(self, request):
            self.request = request

        def volume(self, key, *_):
            return key

        needed = volume

        def progress(self, *_):
            pass

        interruptible = staticmethod(contextlib.nullcontext)

    monkeypatch.setattr(DEMISTCore.statistics, "analyse", analyse)
    for request in ({}, {"any_brain_volume": True}):
        with pytest.raises(InputError, match="Enough"):
            jobs.statistics(Context(request))
    assert heard == [False, True]


def test_statistics_know_how_far_means_move_from_seed_to_seed(child, run, tiny_bundle, head, tmp_path):
    """seed_sd is that of the maps of single seeds, as ``--samples`` of the command line would give it."""
    import DEMISTCore

    seeds = [3, 5, 8]
    number = child.ask("synthesize", **{**run, "seeds": seeds})
    done, _ = child.until(number, "done", "error")
    assert done["event"] == "done", done
    direct = DEMISTCore.synthesize(
        head.t1w,
        head.flair,
        brain_mask=head.mask,
        bundle=tiny_bundle,
        seeds=seeds,
        device="cpu",
        precision="fp32",
        register=False,
        bias_correct=False,
        keep_samples=True,
    )
    psr = exchange.read_reference(done["psr"], "PSR map")
    lesions = np.zeros(psr.shape, np.uint8)
    lesions[20:24, 24:28, 18:22] = 1
    given = {
        "psr": exchange.write_reference(psr, tmp_path, "psr"),
        "lesions": exchange.write_reference(psr.with_array(lesions), tmp_path, "lesions"),
        "provenance": done["provenance"],
        "folder": str(tmp_path),
    }
    told, _ = child.until(child.ask("statistics", **given), "done", "error")
    assert told["event"] == "done", told
    rows = [row for row in told["rows"] if row["region"] == "lesion"]
    expected = np.std([sample.array[lesions > 0].mean(dtype=np.float64) for sample in direct.samples], ddof=1)
    assert expected > 0
    for row in rows:
        assert row["seed_sd"] == pytest.approx(expected, rel=1e-4)
        assert row["uncertainty"] >= row["seed_sd"]  # what the map of SDs alone could say: an upper bound
    assert not any("SD over seeds" in note for note in told["notes"])

    # A map that was changed since is not the mean of these seeds, and the notes say why there is no number.
    changed = psr.with_array(psr.array * np.float32(1.01))
    given["psr"] = exchange.write_reference(changed, tmp_path, "changed")
    told, _ = child.until(child.ask("statistics", **given), "done", "error")
    assert {row["seed_sd"] for row in told["rows"]} == {None}
    assert any("SD over seeds" in note for note in told["notes"])


@pytest.mark.parametrize(
    ("provenance", "said"),
    [({"settings": {"seeds": [0, 1]}}, True), ({"settings": {"seeds": [0]}}, False), (None, False), ({}, False)],
)
def test_only_what_could_be_known_is_missed(provenance, said):
    from DEMISTCore.worker.jobs import _about_seeds

    psr = Volume(np.zeros((2, 2, 2), np.float32), np.eye(4))
    assert bool(_about_seeds(provenance, [])) == said
    assert not _about_seeds(provenance, [psr, psr])


def test_maps_of_single_seeds_are_kept_within_a_budget(monkeypatch):
    rng = np.random.default_rng(0)
    kept = samples.Samples()
    brain = np.zeros((12, 10, 8), bool)
    brain[2:9, 2:8, 2:6] = True

    def run_of(count: int) -> tuple[Volume, list[Volume]]:
        maps = [Volume(np.where(brain, rng.random(brain.shape), 0).astype(np.float32), np.eye(4)) for _ in range(count)]
        return maps[0].with_array(np.mean([m.array for m in maps], axis=0)), maps

    (first, maps), (second, _more) = run_of(3), run_of(2)
    kept.keep(first, maps)
    assert [np.array_equal(a.array, b.array) for a, b in zip(kept.of(first), maps, strict=True)] == [True] * 3
    shaken = Volume(first.array, first.affine + 1e-9 * rng.standard_normal((4, 4)) * (np.arange(4) < 3)[:, None])
    assert len(kept.of(shaken)) == 3  # rounded on its way
    assert not kept.of(Volume(first.array, np.diag([2.0, 1, 1, 1])))  # moved
    assert not kept.of(second)
    monkeypatch.setattr(samples, "BUDGET", int(brain.sum()) * (8 + 4 * 3))
    kept.keep(second, _more)
    assert len(kept.of(second)) == 2
    assert not kept.of(first)
    assert not kept.affordable(1, brain.shape)
    monkeypatch.setattr(samples, "available_memory", lambda: 4 * 4 * brain.size * 2)
    assert kept.affordable(2, brain.shape)
    assert not kept.affordable(3, brain.shape)


def test_simulating_needs_a_whole_number(child, tmp_path):
    number = child.ask("simulate", seed="x", folder=str(tmp_path))
    message, _ = child.until(number, "error", "done")
    assert "whole number" in message["message"]


def test_shutdown_ends_it_politely(tmp_path):
    child = Child(tmp_path)
    assert child.next()["event"] == "ready"
    child.ask("shutdown")
    assert child.process.wait(LONG) == 0


# --- no orphans ----------------------------------------------------------------------------------------------------


def test_it_ends_with_its_input_in_the_middle_of_a_computation(tmp_path, pair, tiny_bundle):
    private = tmp_path / "DEMIST-private"
    private.mkdir()
    (private / "t1w.npy").write_bytes(b"patient")
    child = Child(tmp_path, "--folder", str(private), DEMIST_BUNDLES=str(tiny_bundle.parent))
    assert child.next()["event"] == "ready"
    child.ask(
        "synthesize",
        **pair,
        bundle="tiny",
        seeds=list(range(200)),
        device="cpu",
        register=False,
        bias_correct=False,
        folder=str(private),
    )
    while not child.next().get("stage", "").startswith("seed"):
        pass
    child.process.stdin.close()
    assert child.process.wait(LONG) == 0
    assert not private.exists()  # images of a patient do not stay behind


def test_it_removes_no_folder_that_is_not_its_parents_private_one(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    child = Child(tmp_path, "--folder", str(precious))
    assert child.next()["event"] == "ready"
    child.process.stdin.close()
    assert child.process.wait(LONG) == 0
    assert precious.exists()


@pytest.mark.skipif(os.name == "nt" or not Path("/proc").exists(), reason="looks at /proc")
def test_it_ends_when_its_parent_is_killed_though_the_pipe_stays_open(tmp_path):
    """A third process holds the worker's input open, as programs that a parent starts may do."""
    code = (
        "import os, subprocess, sys, time\n"
        "r, w = os.pipe()\n"
        "child = subprocess.Popen([sys.executable, '-m', 'DEMISTCore.worker'], stdin=r, stdout=subprocess.PIPE)\n"
        "holder = subprocess.Popen(['sleep', '600'], pass_fds=[w])\n"
        "child.stdout.readline()\n"
        "print(child.pid, holder.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    worker, holder = map(int, parent.stdout.readline().split())
    try:
        assert not is_gone(worker)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        end = time.monotonic() + 60
        while not is_gone(worker) and time.monotonic() < end:
            time.sleep(0.1)
        assert is_gone(worker)
    finally:
        os.kill(holder, signal.SIGKILL)


def test_starting_the_worker_loads_nothing_heavy():
    code = "import sys, DEMISTCore.worker.serve, DEMISTCore.worker.jobs; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"torch", "monai", "SimpleITK", "scipy"}.isdisjoint(loaded.split())


def test_messages_of_two_threads_do_not_mix():
    out = io.BytesIO()
    send = Sender(out.write)
    threads = [
        threading.Thread(target=lambda k=k: [send(k, "log", text="x" * 500) for _ in range(200)]) for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = out.getvalue().splitlines()
    assert len(lines) == 800
    assert all(len(json.loads(line)["text"]) == 500 for line in lines)


# --- hostile lines, odd names, signals --------------------------------------------------------------------------------


def test_no_line_and_no_name_ends_the_worker(child):
    child.raw(b'{"id": 1, "do": "' + b"x" * (2 * protocol.MAX_LINE) + b'"}\n')
    message, _ = child.until(None, "error")
    assert message["kind"] == "input"
    assert "no request" in message["message"]
    name = os.fsdecode(b"/nowhere/caf\xe9.npy")
    number = child.ask("regions", t1w={"npy": name, "affine": np.eye(4).tolist()})
    message, _ = child.until(number, "error")
    assert message["kind"] == "input"
    assert printable(name) in message["message"]
    number = child.ask("synthesize", t1w=7)
    message, _ = child.until(number, "error")
    assert message["kind"] == "input"
    assert "t1w must be" in message["message"]
    child.until(child.ask("hello"), "done")


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("threads", ["1", "4"])
def test_signals_clean_up(number, threads, tmp_path, monkeypatch):
    # Threads that numpy starts with its import must not take the signal.
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", threads)
    private = tmp_path / "DEMIST-x"
    private.mkdir()
    (private / "t1w.npy").write_bytes(b"a patient")
    before = signal.getsignal(number)
    if before == signal.SIG_IGN:  # under nohup, which its children inherit
        signal.signal(number, signal.SIG_DFL)
    child = Child(private, "--folder", str(private))
    signal.signal(number, before)
    child.until(child.ask("hello"), "done")
    child.process.send_signal(number)
    assert child.process.wait(LONG) == 128 + number
    assert not private.exists()
