"""How much of the workers' time is work: the cohort engine with tasks that sleep.

python benchmarks/engine_overhead.py --workers 2 --sessions 40 --seconds 1
python benchmarks/engine_overhead.py --workers 2 --gpus 1 --prepare 1 --seconds 0.5 --after 0.2

Everything is the engine's own (index, hashes of inputs, locks, records, results put in place, status.tsv, Dask), but
for what is made: a stage sleeps, and writes a few bytes. So a session takes no processor, and what is left beside the
sleep is the engine. The share is that of the time from the first stage's begin to the last one's end; the seconds until
the first one begins are told apart. Exit code 1 where the share is below ``--least``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "Testing"), str(Path(__file__).parents[1])]


def sleeper(seconds: Mapping[str, float], log: Path) -> Callable[..., Any]:
    """What a worker does with a session in place of :func:`DEMISTCore.cohort.work.work`: that, with stages that sleep.

    Args:
        seconds: by stage; others take none.
        log: folder for when each stage began and ended, a file a process.
    """

    def task(session: Any, options: Any, out: Path, only: Sequence[str] = ()) -> Any:
        import os
        import time

        from DEMISTCore.cohort import stages, work
        from DEMISTCore.cohort.writer import results

        def make(stage: str) -> Callable[[Any], None]:
            def sleep(job: Any) -> None:
                places = job.places
                target = {"report": places.page, "prepare": places.handoff}.get(stage, places.anat(f"{stage}.txt"))
                with results(places, stage, job.keys[stage]) as at:
                    begin = time.time()
                    time.sleep(seconds.get(stage, 0.0))
                    at(target).write_text("slept\n", encoding="ascii")
                    with open(log / str(os.getpid()), "a", encoding="ascii") as stream:
                        stream.write(f"{stage} {begin:.4f} {time.time():.4f} {time.process_time():.4f}\n")

            return sleep

        for stage in stages.RUN:
            stages.RUN[stage] = make(stage)
        return work.work(session, options, out, only)

    return task


def measure(
    sessions: int, seconds: Mapping[str, float], *, workers: int, gpus: int = 0, scheduler: str | None = None
) -> dict[str, float]:
    """Run the engine on sessions that sleep.

    Args:
        sessions: how many.
        seconds: of sleep by stage (``prepare``, ``map``, ``regions``, ``report``).
        workers, gpus: processes, and further ones for the map alone.
        scheduler: address of a cluster of as many that runs already.

    Returns:
        ``share`` (slept over workers times time), ``span_s`` (first begin to last end), ``start_s`` (until the first
        begins), ``wall_s``, ``overhead_ms`` (a session, of a worker's time), ``slept_s``, and what does not depend on
        who else uses the machine: ``worker_cpu_ms`` and ``main_cpu_ms``, processor time a session.
    """
    from cohort_data import write_bids

    from DEMISTCore.bundle import DEFAULT_BUNDLE
    from DEMISTCore.cohort.cluster import run_cluster
    from DEMISTCore.cohort.engine import Ledger
    from DEMISTCore.cohort.index import index_bids
    from DEMISTCore.cohort.options import Options
    from DEMISTCore.cohort.workers import Engine

    with tempfile.TemporaryDirectory() as place:
        log, out = Path(place, "log"), Path(place, "out")
        log.mkdir()
        listed = index_bids(write_bids(Path(place, "bids"), [f"sub-{i:05d}" for i in range(sessions)]))
        options = Options(DEFAULT_BUNDLE, device="cpu", regions="regions" in seconds)
        begin = time.time()
        ledger = Ledger(out, listed)
        engine = Engine(workers, gpus) if scheduler is None else Engine(scheduler=scheduler)
        own = time.process_time()
        run_cluster(listed, options, out, ledger, engine, sleeper(seconds, log))
        own, end = time.process_time() - own, time.time()
        undone = [one.name for one in ledger.rows() if one.state != "done"]
        if undone:
            raise SystemExit(f"{len(undone)} sessions are not done, such as {undone[0]}: {ledger.rows()[0].message}")
        by_worker = [[line.split() for line in path.read_text(encoding="ascii").splitlines()] for path in log.iterdir()]
    lines = [line for worker in by_worker for line in worker]
    first, last = min(float(line[1]) for line in lines), max(float(line[2]) for line in lines)
    # Of the sleep that was asked for, so that a loaded machine's late waking counts as the engine's, too.
    slept = sum(seconds.get(line[0], 0.0) for line in lines)
    span = last - first
    used = sum(float(worker[-1][3]) - float(worker[0][3]) for worker in by_worker)
    return {
        "worker_cpu_ms": 1000 * used / max(1, sessions - len(by_worker)),
        "main_cpu_ms": 1000 * own / sessions,
        "share": slept / (span * (workers + gpus)),
        "span_s": span,
        "start_s": first - begin,
        "wall_s": end - begin,
        "overhead_ms": 1000 * (span * (workers + gpus) - slept) / sessions,
        "slept_s": slept,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and say it."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--workers", type=int, default=2)
    p.add_argument("--gpus", type=int, default=0, help="further workers, for the map alone")
    p.add_argument("--sessions", type=int, default=40)
    p.add_argument("--seconds", type=float, default=1.0, help="of a map")
    p.add_argument("--prepare", type=float, default=0.0, help="of the preparation, with --gpus")
    p.add_argument("--after", type=float, default=0.0, help="of regions")
    p.add_argument("--least", type=float, default=0.9, help="share of work that is asked for")
    args = p.parse_args(argv)
    seconds = {"map": args.seconds}
    if args.gpus:
        seconds["prepare"] = args.prepare
    if args.after:
        seconds["regions"] = args.after
    told = measure(args.sessions, seconds, workers=args.workers, gpus=args.gpus)
    print(json.dumps({name: round(value, 4) for name, value in told.items()}))
    return 0 if args.gpus or told["share"] >= args.least else 1


if __name__ == "__main__":
    raise SystemExit(main())
