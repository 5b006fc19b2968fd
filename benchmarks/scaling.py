"""Time and cost of a cohort, and where the bottleneck is, for 100, 10,000 and 1,000,000 scans.

python benchmarks/scaling.py
python benchmarks/scaling.py --constants measured.json --scans 40 --workers 2
python benchmarks/scaling.py --validate

The engine is simulated (engine_simulation.py) with constants from scaling_constants.json, over which those of
``--constants`` go: the same form, or {"prepare_s": 41.5, ...}. Tables are Markdown, as in docs/scaling.md.

``--validate`` runs the engine itself on this machine with stages that sleep (engine_overhead.py) and compares: what one
session costs beyond its sleep is taken from one run, and times of others, with other numbers of sessions, other sleeps
and workers of two kinds, are told before they are measured. Exit code 1 where one is off by more than ``--off``.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine_simulation import Outcome, simulate

HERE = Path(__file__).parent
#: Scans, and the workers (and GPUs) that somebody with as many scans has.
SIZES = (
    (100, 2, 0),
    (100, 8, 0),
    (100, 8, 1),
    (10_000, 64, 0),
    (10_000, 256, 0),
    (10_000, 64, 2),
    (1_000_000, 500, 0),
    (1_000_000, 1000, 0),
    (1_000_000, 2000, 0),
    (1_000_000, 500, 8),
    (1_000_000, 1000, 16),
)
#: Sessions for each worker of the shorter of two simulated runs, and at least so many in all; of more, the rate between
#: the two is what counts.
_ROUNDS, _LEAST = 4, 400


def read_constants(path: Path | None) -> tuple[dict[str, float], dict[str, str]]:
    """Values and where they come from; a file's go over those that stand beside this program.

    Raises:
        SystemExit: a constant that nobody knows, or no number.
    """
    values: dict[str, float] = {}
    origin: dict[str, str] = {}
    for source in (HERE / "scaling_constants.json", path):
        if source is None:
            continue
        told: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
        told.pop("about", None)
        for name, entry in told.items():
            if values and source is path and name not in values:
                raise SystemExit(f"{source} has {name}, which is no constant; known are {', '.join(values)}.")
            value = entry["value"] if isinstance(entry, dict) else entry
            if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
                raise SystemExit(f"{source}: {name} is {value!r}, not a number of 0 or more.")
            values[name] = float(value)
            origin[name] = entry.get("from", "measured") if isinstance(entry, dict) else f"measured ({source.name})"
    return values, origin


def whole(scans: int, constants: Mapping[str, float], workers: int, gpus: int) -> tuple[float, Outcome]:
    """Seconds of a run, and the simulated part of it.

    A million sessions are not simulated one by one: between begin and end the engine is in a steady state, whose rate
    is that of two shorter runs' difference. What grows with the number of records, status.tsv, takes by its rule a
    fiftieth of the time of the process that hands out, at most.
    """
    most = workers * max(_ROUNDS, math.ceil(_LEAST / workers))
    if scans <= 2 * most:
        outcome = simulate(scans, constants, workers=workers, gpus=gpus)
        return outcome.seconds, outcome
    short, long = (simulate(n, constants, workers=workers, gpus=gpus) for n in (most, 2 * most))
    between = long.worked - short.worked
    seconds = constants["index_s"] * scans + constants["start_s"] + long.worked + between / most * (scans - 2 * most)
    busy = {name: (long.busy[name] * long.worked - short.busy[name] * short.worked) / between for name in long.busy}
    return seconds, replace(long, seconds=seconds, busy=busy)


def table(constants: Mapping[str, float], sizes: Sequence[tuple[int, int, int]]) -> Iterator[str]:
    """Markdown, line by line: a row a size."""
    yield "| scans | CPU workers | GPUs | time | core hours | GPU hours | cost | busiest | CPU, GPU, storage, hand |"
    yield "|--:|--:|--:|--:|--:|--:|--:|---|---|"
    for scans, workers, gpus in sizes:
        seconds, outcome = whole(scans, constants, workers, gpus)
        cores, cards = workers * seconds / 3600, gpus * seconds / 3600
        cost = cores * constants["core_hour"] + cards * constants["gpu_hour"]
        used = ", ".join(
            # The difference of two runs has noise, and may lie above all there is.
            f"{min(1.0, outcome.busy[name]):.0%}" if name in outcome.busy else "-"
            for name in ("cpu", "gpu", "storage", "hand")
        )
        cells = (
            f"{scans:,}",
            f"{workers:,}",
            gpus or "-",
            _time(seconds),
            _amount(cores),
            _amount(cards) if gpus else "-",
            _amount(cost),
            _NAMES[outcome.bottleneck],
            used,
        )
        yield f"| {' | '.join(map(str, cells))} |"


_NAMES = {"cpu": "CPU workers", "gpu": "GPUs", "storage": "storage", "hand": "handing out"}


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _time(seconds: float) -> str:
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.1f} days"


def validate(most_off: float) -> int:
    """Compare the simulation with the engine itself, on stages that sleep."""
    from contextlib import closing

    import dask
    from engine_overhead import measure

    from DEMISTCore.cohort.workers import SETTINGS, Engine, processes

    with dask.config.set(SETTINGS):
        alike, kinds = (closing(processes(Engine(*count), None)) for count in ((2, 0), (1, 1)))
    with alike as plain, kinds as mixed:
        return _validate(most_off, measure, plain.scheduler_address, mixed.scheduler_address)


def _validate(most_off: float, measure: Any, plain: str, mixed: str) -> int:
    first = measure(12, {"map": 1.0}, workers=2, scheduler=plain)
    own = max(0.0, first["overhead_ms"] / 1000)
    constants, _ = read_constants(None)
    # Nothing but sleep: what storage, hand-out and records take is in the overhead of a session already.
    constants |= {
        "spread": 0.0,
        "deaths_per_hour": 0.0,
        "input_mb": 0.0,
        "output_mb": 0.0,
        "handoff_mb": 0.0,
        "dispatch_s": 0.0,
        "ledger_s": 0.0,
        "index_s": 0.0,
        "start_s": 0.0,
        "session_s": own,
        "report_s": 0.0,
    }
    print(
        f"One run of 12 sessions on 2 workers: {own * 1000:.0f} ms a session beyond its sleep of 1 s, of which "
        f"{first['worker_cpu_ms']:.0f} ms processor of the worker; {first['main_cpu_ms']:.0f} ms of the one that "
        f"hands out. Share of work {first['share']:.0%}."
    )
    worst = 0.0
    print(
        "| sessions | workers | GPU workers | sleeps (s) | simulated (s) | measured (s) | off |\n"
        "|--:|--:|--:|---|--:|--:|--:|"
    )
    for sessions, workers, gpus, seconds in (
        (40, 2, 0, {"map": 1.0}),
        (15, 2, 0, {"map": 2.0}),
        (16, 1, 1, {"prepare": 1.0, "map": 0.4, "regions": 0.3}),
        (16, 1, 1, {"prepare": 0.3, "map": 1.0, "regions": 0.3}),
    ):
        slept = {f"{name}_s": seconds.get(name, 0.0) for name in ("prepare", "regions")}
        slept |= {"map_cpu_s": seconds["map"], "map_gpu_s": seconds["map"]}
        told = simulate(sessions, {**constants, **slept}, workers=workers, gpus=gpus).worked
        address = mixed if gpus else plain
        found = measure(sessions, seconds, workers=workers, gpus=gpus, scheduler=address)["span_s"]
        off = found / told - 1
        worst = max(worst, abs(off))
        sleeps = ", ".join(f"{name} {value:g}" for name, value in seconds.items())
        print(f"| {sessions} | {workers} | {gpus or '-'} | {sleeps} | {told:.1f} | {found:.1f} | {off:+.0%} |")
    return 0 if worst <= most_off else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Print the constants and the table, or validate."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--constants", type=Path, metavar="FILE", help="measured constants, JSON")
    p.add_argument("--scans", type=int, help="one size instead of the table's")
    p.add_argument("--workers", type=int, default=2)
    p.add_argument("--gpus", type=int, default=0)
    p.add_argument("--validate", action="store_true", help="compare with the engine itself on this machine")
    p.add_argument("--off", type=float, default=0.15, help="share that a time may be off (default: %(default)s)")
    args = p.parse_args(argv)
    if args.validate:
        return validate(args.off)
    constants, origin = read_constants(args.constants)
    print("| constant | value | from |\n|---|--:|---|")
    print("\n".join(f"| `{name}` | {value:g} | {origin[name]} |" for name, value in constants.items()))
    print()
    for line in table(constants, [(args.scans, args.workers, args.gpus)] if args.scans else SIZES):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
