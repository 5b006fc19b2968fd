"""How command lines end: signals, closed and full outputs, odd names; and what is told apart by more than words."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from DEMISTCore import cli
from DEMISTCore.errors import InputError, MemoryShortage
from DEMISTCore.evaluation.store import result_paths
from DEMISTCore.synthesis.outputs import check_outputs
from DEMISTCore.worker.protocol import Sender, encode
from DEMISTCore.worker.serve import explain

ROOT = Path(__file__).parents[1]
NAME = os.fsdecode(b"caf\xe9")  # Latin-1

PRELUDE = "import os, signal, sys, time\nfrom DEMISTCore.cli import run\n"


def ends(body: str, **options) -> subprocess.CompletedProcess:
    """A command whose main is ``body``."""
    code = PRELUDE + "def main(argv):\n" + "\n".join(f"    {line}" for line in body.splitlines())
    code += "\nraise SystemExit(run(main))\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    return subprocess.run([sys.executable, "-c", code], env=environment, timeout=60, **options)


def test_signals_end_with_their_number_and_unwind():
    for number in (signal.SIGTERM, signal.SIGHUP):
        body = f"try:\n    signal.raise_signal({int(number)})\nfinally:\n    print('unwound')"
        # Under nohup, SIGHUP is ignored by all children, and stays so.
        done = ends(body, capture_output=True, preexec_fn=lambda n=number: signal.signal(n, signal.SIG_DFL))
        assert done.returncode == 128 + number
        assert done.stdout == b"unwound\n"
        assert b"Traceback" not in done.stderr


def test_ignored_signals_stay_ignored():
    done = ends(
        "signal.raise_signal(signal.SIGHUP)",
        capture_output=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    assert done.returncode == 0


def test_a_full_output_is_said():
    with open("/dev/full", "w") as full:
        done = ends("print('x' * 10)", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: Cannot write the output: No space left on device; free some space")
    assert done.stderr.count(b"\n") == 1


def test_a_reader_that_has_gone_ends_it_quietly():
    read, write = os.pipe()
    os.close(read)
    done = ends("print('x' * 100000)", stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (cli.EXIT_PIPE, b"")


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_closed_streams_do_not_become_files(closed, tmp_path):
    """A closed descriptor would be that of the next file; what is printed would land in it."""
    body = f"f = open({str(tmp_path / 'x')!r}, 'w')\nprint('out'); print('err', file=sys.stderr); os.write(1, b'raw')\n"
    body += "f.write('content'); f.close()"

    def close():
        for number in closed:
            os.close(number)

    assert ends(body, preexec_fn=close).returncode == 0
    assert (tmp_path / "x").read_text() == "content"


def test_oserrors_end_in_a_sentence():
    done = ends("open('/nowhere/x')", capture_output=True)
    assert done.returncode == 2
    assert done.stderr == b"error: Cannot use /nowhere/x: No such file or directory; fix that, or choose another.\n"
    assert "ulimit" in cli.sentence(OSError(errno.EMFILE, "Too many open files"))


def test_names_that_the_terminal_does_not_know():
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = ends(f"print({NAME!r})", capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"caf")


def test_control_characters_of_a_name_are_shown_escaped():
    done = ends("from DEMISTCore.errors import InputError\nraise InputError('a\\x1b[2Jb')", capture_output=True)
    assert done.stderr == b"error: a\\x1b[2Jb\n"


# --- 19: names -------------------------------------------------------------------------------------------------------


def test_messages_take_any_name():
    import json

    sent: list[bytes] = []
    Sender(sent.append)(1, "done", files={"psr": Path(NAME)})
    assert json.loads(sent[0])["files"]["psr"] == NAME
    assert encode({"text": "\udcff"}).isascii()


@pytest.mark.parametrize("name", ["x" * 300 + ".nii.gz", NAME + ".nrrd", NAME + ".mha"])
def test_names_that_cannot_be_written_are_refused_before_the_work(name, tmp_path):
    with pytest.raises(InputError, match="name"):
        check_outputs({"psr": tmp_path / name}, False, [])
    assert not list(tmp_path.iterdir())


def test_latin_names_can_be_written(tmp_path):
    check_outputs({"psr": tmp_path / f"{NAME}.nii.gz", "sidecar": tmp_path / f"{NAME}.json"}, False, [])


def test_pictures_take_any_name(tmp_path):
    from matplotlib.figure import Figure

    from DEMISTCore.preview import save_figure

    figure = Figure(figsize=(1, 1))
    figure.text(0.5, 0.5, f"{NAME} $x^ {{$")
    assert save_figure(figure, tmp_path / f"{NAME}.png").stat().st_size > 0


# --- 26: errors by type ----------------------------------------------------------------------------------------------


def test_errors_are_told_apart_by_type_not_by_words():
    from DEMISTCore.devices import require_memory

    with pytest.raises(MemoryShortage) as error:
        require_memory(1 << 60, None, "this")
    assert explain(error.value)[0] == "memory"
    assert explain(InputError("/data/memory/free.nii cannot be read"))[0] == "input"
    assert explain(OSError(errno.EIO, "Input/output error", "/data/x"))[0] == "input"
    assert explain(RuntimeError("no"))[0] == "internal"


# --- 23: modules of the working folder -------------------------------------------------------------------------------


def test_the_worker_takes_no_modules_from_the_working_folder(tmp_path):
    sys.path.insert(0, str(ROOT / "DEMISTSlicer"))
    try:
        from DEMISTSlicerLib.Run.Process import environment, workerArguments
    finally:
        sys.path.remove(str(ROOT / "DEMISTSlicer"))
    for name in ("json", "torch", "numpy", "argparse", "DEMISTCore"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w').close()\nraise SystemExit(77)\n")
    environment = {**os.environ, **environment(), "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        [sys.executable, *workerArguments()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env=environment,
    )
    child.stdin.write(b'{"id": 1, "do": "hello"}\n{"id": 2, "do": "shutdown"}\n')
    child.stdin.flush()  # and stays open: its end would be the parent's
    told = child.stdout.read()
    child.stdin.close()
    assert child.wait(60) == 0
    assert not (tmp_path / "ran").exists()
    assert b'"id": 1, "event": "cancelled"' in told or b'"id": 1, "event": "done"' in told


# --- 24: keys --------------------------------------------------------------------------------------------------------


def test_methods_that_differ_in_a_sign_have_files_of_their_own(tmp_path):
    names = [
        "A+, 1 seed",
        "A-, 1 seed",
        "a+, 1 seed",
        "é, 1 seed",
        "è, 1 seed",
        "demist, 1 seed",
        "DEMIST, 1 seed",
        "x" * 300 + "+, 1 seed",
        "x" * 300 + "-, 1 seed",
        "no stream, 1 seed",
    ]
    paths = [result_paths(tmp_path, "test", "sub-1", name)[0] for name in names]
    assert len({str(path).lower() for path in paths}) == len(names)
    assert max(len(path.name) for path in paths) < 100
    assert result_paths(tmp_path, "test", "sub-1", "DEMIST, 1 seed")[0].name.startswith("demist--1-seed-")


def test_a_bundle_is_compared_under_one_name():
    from DEMISTCore import evaluate

    with pytest.raises(InputError, match="twice"):
        evaluate.main(["--data", "x", "--out", "y", "--compare", "A=one", "A=two"])


def test_a_damaged_result_is_made_again(tmp_path):
    from types import SimpleNamespace

    from DEMISTCore.evaluation.methods import Outcome
    from DEMISTCore.evaluation.store import read_result, write_result

    ones = np.ones((4, 4, 4), np.float32)
    case = SimpleNamespace(
        name="sub-1", group="test", lesions=ones > 0, mask=ones > 0, truth=ones, grid=SimpleNamespace(spacing=(1, 1, 1))
    )
    row = {"fingerprint": "f", "method": "A", "regions": [{"mean": None}]}
    write_result(tmp_path, case, "A", Outcome(ones), row)
    assert read_result(tmp_path, case, "A", "f")["method"] == "A"
    numbers, picture = result_paths(tmp_path, "test", "sub-1", "A")
    whole = picture.read_bytes()
    picture.write_bytes(whole[: len(whole) // 2])
    assert read_result(tmp_path, case, "A", "f") is None
    picture.write_bytes(whole)
    for text in ("[1]", '{"fingerprint": "f"}', '{"fingerprint": "f", "method": "A", "regions": [3]}', "[" * 9999):
        numbers.write_text(text)
        assert read_result(tmp_path, case, "A", "f") is None
