"""Kill trainings and writing at random, go on as the program advises, and compare with what was never disturbed.

python benchmarks/kill_and_resume.py --kills 100 --writes 20 --synthesize 20

Every stage runs on the preset ``tiny`` and a data set of blobs. A run is killed (SIGKILL) at a random one of its file
operations, as Python's audit hooks count them, or at a random moment; some are killed again while they go on. Then the
program's own advice is followed to the end. The last checkpoint's weights, best.safetensors and metrics.csv (but for
the clock) must be those of an undisturbed run, byte for byte, and nothing temporary may be left; or the program must
refuse in a sentence. ``--writes`` kills the writer of a synthesis with made-up maps, ``--synthesize`` the whole
command (map, uncertainty, maps of two seeds, picture, sidecar) from the moment it begins to write: then all files are
there or none, and nothing else after the command's next run. POSIX only: children are forks, so that torch is imported
once.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "Testing"))

from DEMISTCore.training.stages import STAGES

EVENTS = (
    "open",
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.chmod",
    "shutil.rmtree",
    "tempfile.mkstemp",
    "tempfile.mkdtemp",
    "os.scandir",
)
_COMMON = ("--config", "tiny", "steps=4", "save_every=2", "validate_every=2", "log_every=1", "threads=1")


def child(
    work: Callable[[], int],
    log: Path,
    kill_at: int | None = None,
    after: float | None = None,
    counting: list[bool] | None = None,
) -> int:
    """Run ``work`` in a fork; its exit code, or minus the signal's number.

    Args:
        work: what to do.
        log: gets what it prints; operations in its folder count.
        kill_at: die before this file operation, counted from 1.
        after: or after so many seconds.
        counting: operations count while this holds true; None: all of them.
    """
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        try:
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            count = [0]

            def hook(event: str, arguments: tuple) -> None:
                if event not in EVENTS or not (counting is None or counting[0]):
                    return
                if any(str(log.parent) in str(argument) for argument in arguments):
                    count[0] += 1
                    if count[0] == kill_at:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(hook)
            code = work()
            log.with_suffix(".count").write_text(str(count[0]))
        except BaseException as error:
            print(f"child failed: {error!r}", file=sys.stderr)
            code = 99
        sys.stderr.flush()
        os._exit(code)
    end = None if after is None else time.monotonic() + after
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if end is not None and time.monotonic() >= end:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.005)


def train(words: Sequence[object]) -> Callable[[], int]:
    """A training from the command line, in this process."""

    def work() -> int:
        import torch

        from DEMISTCore import train as command
        from DEMISTCore.cli import run

        torch.set_num_threads(1)
        return run(command.main, [str(word) for word in words])

    return work


def content(run: Path) -> dict[str, str]:
    """What must be the same, by name: SHA-256 of weights, and metrics without the clock."""
    from DEMISTCore.training.checkpoint import checkpoints

    last = checkpoints(run)[-1]
    files = {"step": last.name}
    for path in (last / "weights.safetensors", last / "ema.safetensors", run / "best.safetensors"):
        files[path.name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "missing"
    rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()[1:]]
    files["metrics"] = repr([(step, tag, value) for step, _, tag, value in rows if "seconds" not in tag])
    return files


def debris(folder: Path) -> list[str]:
    """Temporary names and locks that should be gone."""
    return [str(path.relative_to(folder)) for path in folder.rglob(".*")]


def trainings(work: Path, kills: int, rng: random.Random) -> collections.Counter[str]:
    """``kills`` kills over all stages; how each ended."""
    from training_data import write_mini_bids

    bids = write_mini_bids(work / "bids", subjects=2)
    whole, cache = work / "whole", work / "whole" / "cache"

    def words(stage: str, out: Path, own_cache: Path) -> list[object]:
        given: list[object] = [stage, "--data", bids, "--out", out, *_COMMON, f"cache={own_cache}"]
        below = {"backbone": "autoencoder", "mean": "backbone", "demist": "backbone", "decoder": "backbone"}.get(stage)
        given += ["--foundation", whole / below] if below else []
        return [*given, "model=tiny_mean"] if stage == "mean" else given

    wanted, count, seconds = {}, {}, {}
    for stage in STAGES:
        start, log = time.monotonic(), work / f"{stage}.log"
        code = child(train(words(stage, whole / stage, cache)), log)
        if code:
            raise SystemExit(f"The undisturbed {stage} ended with {code}:\n{log.read_text()}")
        seconds[stage] = time.monotonic() - start
        count[stage] = int(log.with_suffix(".count").read_text())
        wanted[stage] = content(whole / stage)
        print(f"{stage}: {count[stage]} file operations, {seconds[stage]:.1f} s", flush=True)
    ends: collections.Counter[str] = collections.Counter()
    done = 0
    while done < kills:
        stage = rng.choice(list(STAGES))
        out, log = work / "killed" / stage, work / "killed.log"
        shutil.rmtree(work / "killed", ignore_errors=True)
        out.parent.mkdir()
        given = words(stage, out, out.parent / "cache" if rng.random() < 0.25 else cache)
        resume: list[object] = [stage, "--out", out, "--resume"]
        command, code = given, 0
        for attempt in range(8):
            kill = {}
            if attempt == 0 or (attempt == 1 and rng.random() < 0.3):
                by_time = rng.random() < 0.3
                kill = (
                    {"after": rng.uniform(0, seconds[stage])} if by_time else {"kill_at": rng.randint(1, count[stage])}
                )
            code = child(train(command), log, **kill)
            if code == -signal.SIGKILL:
                done += 1
                command = resume
            elif code == 2 and "leave out --resume" in log.read_text():
                command = given
            else:
                break
        if code == 0:
            end = "identical" if content(out) == wanted[stage] else "DIFFERENT"
            end = f"LEFT {debris(out)}" if debris(out) else end
        else:
            said = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
            end = f"refused: {said[-1]}" if code == 2 and said else f"CODE {code}: {log.read_text()[-800:]}"
        ends[end] += 1
        print(f"{done:4d} {stage:<13}{kill or ''} {end}", flush=True)
    return ends


def writing(work: Path, kills: int, rng: random.Random) -> collections.Counter[str]:
    """``kills`` kills while a synthesis writes its files; how each ended after the next run in that folder."""
    import numpy as np

    from DEMISTCore.clock import SYNTHESIS, Clock
    from DEMISTCore.synthesis.outputs import write
    from DEMISTCore.synthesis.result import Synthesis
    from DEMISTCore.volume import Volume

    values = np.random.default_rng(0).random((24, 24, 24), np.float32) * 0.1

    def run(folder: Path) -> Callable[[], int]:
        def work() -> int:
            psr = Volume(values, np.eye(4))
            files = {
                "psr": folder / "psr.nii.gz",
                "sidecar": folder / "psr.json",
                "uncertainty": folder / "psr_uncertainty.nii.gz",
                "seed 0": folder / "psr_seed-0.nii.gz",
                "seed 1": folder / "psr_seed-1.nii.gz",
            }
            told = {"settings": {"seeds": [0, 1]}, "timings_s": {}}
            # What is not written is not needed here.
            write(Synthesis(psr, psr, [psr, psr], psr, told, None, psr, psr, files), Clock(None, SYNTHESIS))  # type: ignore[arg-type]
            return 0

        return work

    log = work / "write.log"
    if child(run(work / "written"), log):
        raise SystemExit(f"The undisturbed writing failed:\n{log.read_text()}")
    names = sorted(path.name for path in (work / "written").iterdir())
    count = int(log.with_suffix(".count").read_text())
    ends: collections.Counter[str] = collections.Counter()
    for _ in range(kills):
        folder = work / "half"
        shutil.rmtree(folder, ignore_errors=True)
        at = rng.randint(1, count)
        code = child(run(folder), log, kill_at=at)
        at_once = sorted(path.name for path in folder.iterdir() if path.name[0] != ".") if folder.exists() else []
        from DEMISTCore.files import write_json

        write_json(folder / "another.json", {})  # the next run that writes into that folder
        found = sorted(path.name for path in folder.iterdir() if path.name != "another.json")
        end = "all" if found == names else "none" if not found else f"PART {found}"
        if code != -signal.SIGKILL:
            end = f"not killed ({code}), {end}"
        ends[end] += 1
        ends["(only part of them in the moment of the kill)"] += 0 < len(at_once) < len(names)
    return ends


def command(work: Path, kills: int, rng: random.Random) -> collections.Counter[str]:
    """``kills`` kills of the command ``synthesize`` while it writes; how each ended, at once and after the next run."""
    from conftest import save_tiny_bundle, write_head

    from DEMISTCore.cli import run as run_cli

    log = work / "synthesize.log"
    if child(lambda: int(not save_tiny_bundle(work).is_dir()), log):  # torch computes in forks alone
        raise SystemExit(f"No model to synthesize with:\n{log.read_text()}")
    model, head = work / "tiny", write_head(work)

    def synthesize(folder: Path, counting: list[bool], *more: str) -> Callable[[], int]:
        def run() -> int:
            import importlib

            import torch

            torch.set_num_threads(1)
            pipeline = importlib.import_module("DEMISTCore.synthesis.pipeline")
            plain = pipeline.write

            def write(*given: object) -> None:
                counting[0] = True
                plain(*given)
                counting[0] = False

            pipeline.write = write
            words = [
                "--t1w",
                head.t1w,
                "--flair",
                head.flair,
                "--brain-mask",
                head.mask,
                "--bundle",
                model,
                "--out",
                folder / "psr.nii.gz",
                "--uncertainty",
                "--samples",
                "--preview",
                folder / "psr.png",
                "--mode",
                "sample",
                "--seeds",
                "2",
                "--steps",
                "1",
                "--no-register",
                "--no-bias-correct",
                "--device",
                "cpu",
                "-q",
                *more,
            ]
            return run_cli(importlib.import_module("DEMISTCore.synthesize").main, [str(word) for word in words])

        return run

    def there(folder: Path) -> dict[str, str]:
        """Content by name of all that a person sees; of the sidecar, the clock changes."""
        found = sorted(folder.iterdir()) if folder.exists() else []
        return {
            path.name: "" if path.suffix == ".json" else hashlib.sha256(path.read_bytes()).hexdigest()
            for path in found
            if path.name[0] != "."
        }

    whole, counting = work / "synthesized", [False]
    if child(synthesize(whole, counting), log, counting=counting):
        raise SystemExit(f"The undisturbed synthesis failed:\n{log.read_text()}")
    count, wanted = int(log.with_suffix(".count").read_text()), there(whole)
    print(f"synthesize: {len(wanted)} files, {count} file operations while it writes", flush=True)
    ends: collections.Counter[str] = collections.Counter()
    for _ in range(kills):
        folder, counting = work / "half", [False]
        shutil.rmtree(folder, ignore_errors=True)
        code = child(synthesize(folder, counting), log, kill_at=rng.randint(1, count), counting=counting)
        at_once = there(folder)
        again = child(synthesize(folder, [False], "--overwrite"), log)
        told = "all" if at_once == wanted else "none" if not at_once else f"{len(at_once)} of {len(wanted)}"
        end = f"{told} at once" if code == -signal.SIGKILL else f"CODE {code} instead of a kill"
        end += ", then all" if there(folder) == wanted else f", then PART {sorted(there(folder))}"
        end += "" if again == 0 else f", CODE {again}: {log.read_text()[-400:]}"
        ends[end + (f", LEFT {debris(folder)}" if debris(folder) else "")] += 1
    return ends


def main() -> int:
    """Parse, kill, count."""
    p = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    p.add_argument("--kills", type=int, default=100, help="kills of trainings (default: %(default)s)")
    p.add_argument("--writes", type=int, default=20, help="kills of writing (default: %(default)s)")
    p.add_argument("--synthesize", type=int, default=0, help="kills of the command while it writes (default: 0)")
    p.add_argument("--seed", type=int, default=0, help="of the random choices (default: %(default)s)")
    args = p.parse_args()
    rng = random.Random(args.seed)
    bad = False
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        if args.kills or args.synthesize:
            import lightning.fabric  # noqa: F401
            import monai.networks.nets  # noqa: F401
            import torch.utils.tensorboard  # noqa: F401

            import DEMISTCore.training.demist  # noqa: F401
        jobs = (
            ("writing", args.writes, writing),
            ("synthesize", args.synthesize, command),
            ("trainings", args.kills, trainings),
        )
        for what, kills, job in jobs:
            if not kills:
                continue
            ends = job(Path(folder), kills, rng)
            print(f"{what}, {kills} kills:")
            for end, times in ends.most_common():
                print(f"  {times:4d} {end}")
                bad = bad or any(word in end for word in ("DIFFERENT", "LEFT", "CODE", "PART"))
    return int(bad)


if __name__ == "__main__":
    raise SystemExit(main())
