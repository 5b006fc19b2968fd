"""How responsive Slicer stays during a run: ``python benchmarks/slicer_responsiveness.py``.

Over the real MRML scene with a Qt event loop off screen (the stand-ins of Testing/slicer_app), real volumes, the real
child process and model. Measured:

- the longest time the main thread was blocked, as the module is opened for the first time and in runs: a Qt timer of
  5 ms looks at the clock; the longest gap counts, and is told with what blocked (slicer_heart.py). The same timer runs
  for as long without a run before, because other work on the machine makes gaps, too;
- seconds from pressing Apply to the first sampling step: first run, second run (worker warm, same images);
- seconds from pressing Cancel to its end, in the middle of preparation and of sampling.

Without --t1w and --flair, a simulated patient of 1 mm (needs the extra "simulate").
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slicer_heart import Gap, Heart

ROOT = Path(__file__).resolve().parents[1]
#: What the module promises, seconds.
BLOCKED, CANCEL, WARM = 0.1, 2.0, 1.0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--t1w", type=Path, help="T1w instead of the simulated patient's")
    p.add_argument("--flair", type=Path, help="FLAIR instead of the simulated patient's")
    p.add_argument("--bundle", default=None, help="model (default: the package's)")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: %(default)s)")
    p.add_argument("--seeds", type=int, default=2, help="samples per run (default: %(default)s)")
    p.add_argument("--steps", type=int, default=None, help="sampling steps (default: the model's)")
    p.add_argument("--opening", action="store_true", help="only open the module, and tell what blocks")
    p.add_argument("--out", type=Path, help="also write the numbers as JSON")
    return p


def turn(seconds: float = 0.0, until: Callable[[], Any] | None = None) -> None:
    """Let the event loop work for some seconds, or until something holds."""
    import slicer_app
    from PySide6 import QtCore

    loop = QtCore.QEventLoop()
    end = time.perf_counter() + seconds
    while not (until() if until is not None else time.perf_counter() > end):
        # Waits for events, as an application does; a loop that polls would compete with the worker.
        loop.processEvents(QtCore.QEventLoop.ProcessEventsFlag.WaitForMoreEvents)
    slicer_app.process_events()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print a Markdown table; exit code 1 if a promise was not kept."""
    args = parser().parse_args(argv)
    if bool(args.t1w) != bool(args.flair):
        parser().error("give both --t1w and --flair, or neither")
    sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "Testing")]
    import slicer_app

    slicer_app.install()
    from slicer_heart import Heart

    heart = Heart()
    turn(1.0)
    heart.take()
    loaded, ahead, opened = opening(heart)
    if args.opening:
        for name, gap in (("loading, as Slicer starts", loaded), ("reading ahead", ahead), ("opening", opened)):
            print(f"{name}: {gap.words(12)}")
        return 0
    from DEMISTSlicerLib.Logic import DEMISTSlicerLogic

    t1, flair = images(args)
    logic = DEMISTSlicerLogic()
    heart.take()
    stages: list[tuple[float, str]] = []

    def progress(words: str, _done: float, _left: float | None) -> None:
        heart.stage = words
        if not stages or stages[-1][1] != words:
            stages.append((time.perf_counter(), words))

    logic.progressChanged.connect(progress)
    options = {"bundle": args.bundle, "device": args.device, "seeds": args.seeds, "steps": args.steps}
    numbers: dict[str, Any] = {"shapes": {"T1w": shape(t1), "FLAIR": shape(flair)}, "options": options}
    numbers["opening_longest_gap_s"] = opened.seconds
    blocked_by = {"opening": opened.words()}
    try:
        turn(5.0)
        numbers["idle_longest_gap_s"] = heart.take().seconds
        for name, preview in (("first", True), ("second", False)):
            stages.clear()
            start = time.perf_counter()
            job = logic.synthesize(t1, flair, **options, preview=preview, wait=False)
            called = time.perf_counter() - start
            turn(until=lambda job=job: not job.isRunning)
            if job.error is not None:
                raise job.error
            gap = heart.take()
            blocked_by[f"{name} run"] = gap.words()
            sampling = next((when for when, words in stages if words.startswith("Sampling")), None)
            numbers[name] = {
                "apply_returns_s": called,
                "longest_gap_s": gap.seconds,
                "longest_gap_in": gap.stage,
                "sampling_starts_s": None if sampling is None else sampling - start,
                "total_s": job.seconds,
                "worker_timings_s": job.result.provenance["timings_s"],
            }
        numbers["cancel"] = {
            where: cancel_seconds(logic, heart, t1, flair, pattern, {**options, **more})
            for where, pattern, more in (
                ("sampling", "Sampling", {}),
                # Another setting, so that the images must be prepared again.
                ("preparation", "Registering", {"biasCorrect": False}),
            )
        }
    finally:
        logic.shutdown()
    numbers["machine"] = {"platform": platform.platform(), "cpus": os.cpu_count(), "load": os.getloadavg()[0]}
    kept = report(numbers)
    for name, words in blocked_by.items():
        print(f"\n{name}: {words}")
    if args.out:
        args.out.write_text(json.dumps(numbers, indent=2, default=str) + "\n")
    return 0 if kept else 1


def opening(heart: Heart) -> tuple[Gap, Gap, Gap]:
    """The longest gap as the module is loaded, while Slicer starts; as it reads ahead; and as it is first opened."""
    import slicer_app

    slicer_app.fresh_scene()
    turn(0.2)
    heart.take()
    module = slicer_app.open_module()
    turn(0.2)
    loaded = heart.take()
    module.code.readAhead()  # as Slicer does when it has started
    turn(until=lambda: not module.code._ahead)
    ahead = heart.take()
    parent = module.widgetRepresentation()
    parent.resize(430, 1800)
    parent.show()
    parent.enter()
    turn(2.0)
    opened = heart.take()
    slicer_app.close_module()
    turn(0.5)
    heart.take()
    return loaded, ahead, opened


def cancel_seconds(logic: Any, heart: Heart, t1: Any, flair: Any, stage: str, options: dict[str, Any]) -> float:
    """From Cancel, in the middle of ``stage``, to the end of the run."""
    heart.stage = ""
    job = logic.synthesize(t1, flair, **options, wait=False)
    turn(until=lambda: heart.stage.startswith(stage) or not job.isRunning)
    turn(0.3)
    start = time.perf_counter()
    logic.cancel()
    turn(until=lambda: not job.isRunning)
    return time.perf_counter() - start


def images(args: argparse.Namespace) -> tuple[Any, Any]:
    """T1w and FLAIR as volume nodes."""
    from slicer_runs import load, volume

    if args.t1w:
        return load(args.t1w, "T1w"), load(args.flair, "FLAIR")
    from DEMISTCore.demo import simulate_patient

    patient = simulate_patient()
    return tuple(volume(v.array, v.affine, n) for v, n in ((patient.t1w, "T1w"), (patient.flair, "FLAIR")))


def shape(node: Any) -> list[int]:
    """Voxels along i, j, k."""
    return list(node.GetImageData().GetDimensions())


def report(numbers: dict[str, Any]) -> bool:
    """Print the table; True if every promise was kept."""
    first, second = numbers["first"], numbers["second"]
    blocked = max(first["longest_gap_s"], second["longest_gap_s"])
    rows = [
        ("main thread blocked, longest, as the module is opened", numbers["opening_longest_gap_s"], BLOCKED),
        ("main thread blocked, longest, without a run", numbers["idle_longest_gap_s"], None),
        (f"main thread blocked, longest, first run ({first['longest_gap_in']})", first["longest_gap_s"], BLOCKED),
        (f"main thread blocked, longest, second run ({second['longest_gap_in']})", second["longest_gap_s"], BLOCKED),
        ("Apply to sampling, first run", first["sampling_starts_s"], None),
        ("Apply to sampling, second run", second["sampling_starts_s"], WARM),
        ("Cancel to its end, sampling", numbers["cancel"]["sampling"], CANCEL),
        ("Cancel to its end, preparation", numbers["cancel"]["preparation"], CANCEL),
    ]
    print(f"T1w {numbers['shapes']['T1w']}, FLAIR {numbers['shapes']['FLAIR']}, {numbers['machine']}\n")
    print("| what | seconds | promised |\n|---|---:|---:|")
    for what, seconds, promised in rows:
        print(f"| {what} | {seconds:.3f} | {'' if promised is None else f'{promised:g}'} |")
    return blocked <= BLOCKED and second["sampling_starts_s"] <= WARM and max(numbers["cancel"].values()) <= CANCEL


if __name__ == "__main__":
    raise SystemExit(main())
