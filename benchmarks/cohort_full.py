"""A whole cohort at full size, disturbed in every way, in one command that goes on where it was stopped.

python benchmarks/cohort_full.py --out runs/cohort_full

40 simulated people (whole heads at 1 mm), 12 of them damaged (those of Testing/test_cohort_damage.py), 2 workers:

1. data      the data set, and the damage
2. plain     an undisturbed run: 28 done, 12 with their sentence, exit code 1, the validator passes
3. disturbed the same into another folder, during which a worker is killed (the run goes on by itself), Ctrl-C is sent,
             the scheduler of a cluster is killed, and the disk is full (Linux, root: a file system in memory whose size
             is set to what is there); each time the same command is given again
             of what was done before a disturbance nothing is made again
4. compare   every result of both is the same, byte for byte, and nothing is left over
5. group     tables and comparisons
6. constants for benchmarks/scaling.py --constants (benchmarks/cohort_constants.py)

Each step leaves ``OUT/STEP.json`` and is passed over once it has; the runs themselves go on as they always do. Takes
two hours or three on two cores, and 10 GB.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "Testing"), str(ROOT)]

from cohort_disturbances import WORKERS, command, disturbed, ended, require  # noqa: E402

PEOPLE, SEED = 40, 19_000


def main(argv: Sequence[str] | None = None) -> int:
    """Do what is not done yet."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, default=Path("runs/cohort_full"))
    p.add_argument("--bundle", default="demist-sim")
    p.add_argument("--anatomies", nargs="+", default=["icbm152"], help="as for python -m DEMISTCore.simulate")
    args = p.parse_args(argv)
    out = args.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    steps: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
        "data": data,
        "plain": plain,
        "disturbed": disturbed,
        "compare": compare,
        "group": group,
        "constants": constants,
    }
    for name, step in steps.items():
        told = out / f"{name}.json"
        if told.is_file():
            print(f"{name}: done already ({told})")
            continue
        start = time.monotonic()
        found = step(out, args)
        found["minutes"] = round((time.monotonic() - start) / 60, 1)
        told.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {json.dumps(found)}", flush=True)
    return 0


def data(out: Path, args: argparse.Namespace) -> dict[str, Any]:
    """40 people; the last 12 are damaged."""
    from test_cohort_damage import DAMAGE

    bids = out / "bids"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "DEMISTCore.simulate",
            "--out",
            bids,
            "--subjects",
            str(PEOPLE),
            "--seed",
            str(SEED),
            "--workers",
            str(WORKERS),
            "--resume",
            "--anatomies",
            *args.anatomies,
        ],
        cwd=ROOT,
        check=True,
    )
    shutil.rmtree(bids / "derivatives", ignore_errors=True)  # the truth: nothing of it may be seen
    people = sorted(path.name for path in bids.glob("sub-*"))
    require(len(people) == PEOPLE, f"{bids} holds {len(people)} people")
    for name, person in zip(DAMAGE, people[-len(DAMAGE) :]):
        marker = out / "damaged" / name
        if not marker.exists():
            _damage(name, bids / person)
            marker.parent.mkdir(exist_ok=True)
            marker.write_text(f"{person}\n", encoding="ascii")
    return {"people": PEOPLE, "damaged": dict(zip(DAMAGE, people[-len(DAMAGE) :]))}


def _damage(name: str, person: Path) -> None:
    import nibabel as nib
    import numpy as np
    from test_cohort_damage import DAMAGE

    anat = person / "anat"
    if name == "duplicate":  # takes a session
        (person / "ses-1").mkdir()
        shutil.move(anat, person / "ses-1" / "anat")
        anat = person / "ses-1" / "anat"
        for path in list(anat.iterdir()):
            path.rename(path.with_name(path.name.replace(f"{person.name}_", f"{person.name}_ses-1_")))
        DAMAGE[name][0](anat, f"{person.name}_ses-1")
    elif name == "t2w":  # of this head, at its place: fluid bright, tissue dark
        image = nib.load(anat / f"{person.name}_T1w.nii.gz")
        values = image.get_fdata()
        top = np.percentile(values, 99.5)
        inverted = np.clip(1.2 * top - values, 0, None) * (values > 0.08 * top)
        nib.save(nib.Nifti1Image(inverted.astype(np.float32), image.affine), anat / f"{person.name}_FLAIR.nii.gz")
        (anat / f"{person.name}_FLAIR.json").write_text(json.dumps({"SeriesDescription": "t2_tse_tra"}))
    else:
        DAMAGE[name][0](anat, person.name)


def plain(out: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Undisturbed; what must be true of it."""
    from cohort_data import rows
    from test_cohort_damage import DAMAGE

    from DEMISTCore.cohort.validate import find_validator

    to = out / "plain"
    code = ended(command(out, to, args, "--workers", str(WORKERS)), out / "plain.log")
    require(code == 1, f"exit code {code}, see {out / 'plain.log'}")
    told = rows(to)
    damaged = json.loads((out / "data.json").read_text())["damaged"]
    for name, person in damaged.items():
        row = told[f"{person}_ses-2" if name == "duplicate" else person]
        _, state, words = DAMAGE[name]
        require(row["state"] == state, f"{name} ({person}) is {row['state']}: {row['message']}")
        require(any(word in row["message"] for word in words.split("|")), f"{name}: {row['message']}")
    whole = [row for name, row in told.items() if name.split("_")[0] not in damaged.values()]
    undone = [name for name, row in told.items() if row in whole and row["state"] != "done"]
    require(len(whole) == PEOPLE - len(damaged) and not undone, f"not all others are done: {undone[:3]}")
    done = subprocess.run(
        [find_validator(), str(to)], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    require(done.returncode == 0, f"the validator: {done.stdout[-500:]}")
    return {
        "done": len(whole),
        "seconds_a_session": round(sum(float(row["seconds"]) for row in whole) / len(whole), 1),
        "peak_memory_mb": max(float(row["peak_memory_mb"]) for row in whole),
    }


def compare(out: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Both runs, byte for byte."""
    from cohort_data import results, rows

    one, other = results(out / "plain"), results(out / "disturbed")
    different = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    require(not different, f"{len(different)} results differ, such as {different[:3]}")
    states = [{name: row["state"] for name, row in rows(out / name_of).items()} for name_of in ("plain", "disturbed")]
    require(states[0] == states[1], "sessions ended otherwise")
    left = [str(path) for path in (out / "disturbed").rglob(".tmp-*")]
    require(not left, f"left over: {left[:3]}")
    return {"files": len(one), "same": True}


def group(out: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Tables of all of them."""
    words = [sys.executable, "-m", "DEMISTCore.cohort", str(out / "bids"), str(out / "plain"), "group", "-q"]
    code = ended(words, out / "group.log")
    require(code == 0, f"group ended with {code}; see {out / 'group.log'}")
    return {"tables": sorted(path.name for path in (out / "plain" / "group").iterdir())}


def constants(out: Path, args: argparse.Namespace) -> dict[str, Any]:
    """What this machine takes, for benchmarks/scaling.py."""
    from cohort_constants import measure, processor, rounded

    found = rounded(measure(out / "bids", out / "phases", args.bundle))
    told = {"about": processor(), **found}
    (out / "scaling_constants.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return told


if __name__ == "__main__":
    raise SystemExit(main())
