"""Constants of benchmarks/scaling.py, measured on this machine.

python benchmarks/cohort_constants.py --out runs/constants
python benchmarks/scaling.py --constants runs/constants/scaling_constants.json

Two simulated people (whole heads at 1 mm) on one thread, phase by phase; the first warms up. Then the engine's own
part: its start, the index, handing out, records. All seconds are processor seconds of the process, so that others on
the machine do not count; on an idle one they are the time, but for waiting for the disk. ``--instructions avx2``
measures what a processor without AVX-512 and AMX would take: PyTorch and its libraries are told to use no more.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from DEMISTCore.cohort.session import Session

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "Testing"), str(ROOT)]

SEED, PEOPLE = 19_000, 2
#: Of the small sessions whose images take no time.
_FEW, _MANY = 20, 200
#: Read by oneDNN, ATen and MKL when they are loaded.
_AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
PHASES = {"prepare": "prepare_s", "map": "map_cpu_s", "regions": "regions_s", "report": "report_s"}


def measure(bids: Path, out: Path, bundle: str, precision: str = "auto") -> dict[str, float]:
    """All that can be measured on one machine.

    Args:
        bids: data set with at least two sessions that can be worked on.
        out: folder for the results, emptied first.
        bundle: name or folder of the model.
        precision: of the networks.

    Returns:
        Constants by name, as in ``scaling_constants.json``.
    """
    return {**phases(bids, out, bundle, precision), **engine(bundle)}


def phases(bids: Path, out: Path, bundle: str, precision: str = "auto") -> dict[str, float]:
    """Processor seconds of each phase of the second of two sessions, memory, and sizes of files."""
    import torch

    from DEMISTCore.cohort.index import index_bids
    from DEMISTCore.cohort.names import SessionPaths
    from DEMISTCore.cohort.options import Options
    from DEMISTCore.cohort.work import work
    from DEMISTCore.cohort.workers import load_libraries

    load_libraries()
    torch.set_num_threads(1)
    shutil.rmtree(out, ignore_errors=True)
    options = Options(bundle, device="cpu", precision=precision, threads=1)
    people = [one for one in index_bids(bids) if not one.problem][:PEOPLE]
    if len(people) < PEOPLE:
        sys.exit(f"{bids} holds {len(people)} sessions that can be worked on; give {PEOPLE}.")
    found: dict[str, float] = {}
    for session in people:
        peaks = []
        for phase, name in PHASES.items():
            begin, wall = time.process_time(), time.perf_counter()
            outcome = work(session, options, out, (phase,))
            found[name] = time.process_time() - begin
            print(
                f"{session.name} {phase}: {found[name]:.1f} s of processor, {time.perf_counter() - wall:.1f} s",
                file=sys.stderr,
                flush=True,
            )
            if outcome.status.state == "failed":
                sys.exit(f"{session.name} failed: {outcome.status.message}")
            peaks.append(outcome.status.peak_memory_mb or 0)
            if phase == "prepare":
                found["handoff_mb"] = SessionPaths(out, session).handoff.stat().st_size / 1e6
    found["memory_gib"] = max(peaks) / 1024
    found["input_mb"] = _size(people[1].pair)
    found["output_mb"] = _size(path for path in (out / people[1].subject).rglob("*") if path.is_file())
    return found


def engine(bundle: str) -> dict[str, float]:
    """Processor seconds of the engine's own: a start, a session in the index, handing out, locks and records."""
    from cohort_data import write_bids
    from engine_overhead import measure as overhead

    from DEMISTCore.cohort.index import index_bids
    from DEMISTCore.cohort.status import write_table

    code = "from DEMISTCore.cohort.workers import load_libraries as load; from DEMISTCore.bundle import load_bundle; "
    before = _children()
    subprocess.run([sys.executable, "-c", f"{code} load(); load_bundle({bundle!r})"], cwd=ROOT, check=True)
    found = {"start_s": _children() - before}
    with tempfile.TemporaryDirectory() as place:
        bids = write_bids(Path(place, "bids"), [f"sub-{i:05d}" for i in range(_MANY)])
        index_bids(write_bids(Path(place, "one"), ["sub-1"]))  # loads PyBIDS
        begin = time.process_time()
        listed = index_bids(bids)
        found["index_s"] = (time.process_time() - begin) / _MANY
        found["ledger_s"] = _ledger(Path(place, "out"), listed, write_table)
    # With stages of a second, what a worker does beside them; without, what the one that hands out can. Its start, with
    # the workers', is in the shorter run as well.
    found["session_s"] = overhead(20, {"map": 1.0}, workers=2)["worker_cpu_ms"] / 1000
    used = [n * overhead(n, {"map": 0.0}, workers=2)["main_cpu_ms"] / 1000 for n in (_FEW, _MANY)]
    found["dispatch_s"] = (used[1] - used[0]) / (_MANY - _FEW)
    return found


def _ledger(out: Path, listed: Sequence[Session], write_table: Any) -> float:
    from DEMISTCore.cohort.status import Status, save

    for session in listed:
        save(out, Status(session.subject, session.session, "done", "report", "A sentence.", seconds=1.0))
    begin = time.process_time()
    write_table(out)
    return (time.process_time() - begin) / len(listed)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _size(paths: Any) -> float:
    return sum(path.stat().st_size for path in paths) / 1e6


def rounded(found: dict[str, float]) -> dict[str, float]:
    """To three digits."""
    return {name: float(f"{value:.3g}") for name, value in found.items()}


def processor() -> str:
    """Its name and what it multiplies with, as far as the system says."""
    try:
        lines = dict(
            [part.strip() for part in line.split(":", 1)]
            for line in Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines()
            if ":" in line
        )
    except OSError:
        import platform

        return platform.processor()
    known = [name for name in ("amx_tile", "avx512_bf16", "avx512f", "avx2") if name in lines.get("flags", "").split()]
    return f"{lines.get('model name', 'unknown')}, model {lines.get('model', '?')} ({', '.join(known)})"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and write the file."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, default=Path("runs/constants"))
    p.add_argument("--bids", type=Path, help="data set with two sessions or more (default: two simulated people)")
    p.add_argument("--bundle", default="demist-sim")
    p.add_argument("--instructions", choices=("all", "avx2"), default="all", help="what the processor may use")
    args = p.parse_args(argv)
    out = args.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    fewer = args.instructions == "avx2"
    if fewer and any(os.environ.get(name) != value for name, value in _AVX2.items()):
        os.environ.update(_AVX2)
        os.execv(sys.executable, [sys.executable, *sys.argv])  # the libraries look when they are loaded
    bids = args.bids or out / "bids"
    if args.bids is None:
        words = ["--out", bids, "--subjects", str(PEOPLE), "--seed", str(SEED), "--resume"]
        subprocess.run([sys.executable, "-m", "DEMISTCore.simulate", *words], cwd=ROOT, check=True)
    to = out / f"phases-{args.instructions}"
    # Without AVX-512 there is no bf16.
    found = phases(bids, to, args.bundle, "fp32") if fewer else measure(bids, to, args.bundle)
    name = "scaling_constants.json" if not fewer else "scaling_constants_avx2.json"
    told = rounded(found)
    (out / name).write_text(json.dumps({"about": processor(), **told}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({"about": processor(), **told}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
