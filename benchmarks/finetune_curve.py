"""What a lab gains by fine-tuning on 2, 5, 10, 20 people, and what slabs lose against whole maps. One command:

    python benchmarks/finetune_curve.py --out runs/curve --anatomies LABEL_MAPS icbm152 --lesion-masks MASKS --minutes 8

A lab is simulated: one scanner of the shifted physics (other laws of relaxation and exchange, another vendor), PSR on a
scale of its own, maps measured as slabs (`DEMISTCore.simulate.lab`: thick slices in percent, moved, with noise and
holes), and the same people's whole maps. Out of a pool of people, each training takes so many, drawn anew; test people
are never drawn. Three ways to use them, each within the same minutes (the scale needs less):

- scale: one factor and, from nine people on, error bars (`finetune --level scale`);
- streams: `finetune`, from the shipped model;
- regression: a U-Net from nothing (`train regression`).

Judged on test people's whole maps, inside the slab that a measurement of theirs would have covered and outside it:
PSNR, the same after each person's own best factor (people differ in their PSR more than scans tell), means of white and
grey matter, share of voxels in their 90 % interval. With ``--whole`` streams are also trained
on the same people's whole maps. What is there already is not computed again.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from DEMISTCore import metrics
from DEMISTCore.bundle import Bundle, load_bundle
from DEMISTCore.files import write_json
from DEMISTCore.labels import GREY, WHITE
from DEMISTCore.simulate.anatomy import TEMPLATE, list_anatomies, load_anatomy
from DEMISTCore.simulate.bids import subject_done, write_description, write_subject
from DEMISTCore.simulate.lab import Scan, make_lab
from DEMISTCore.simulate.protocol import draw_protocol
from DEMISTCore.simulate.scanner import acquire
from DEMISTCore.simulate.subject import simulate_subject
from DEMISTCore.training.data import PreparedSession, index
from DEMISTCore.training.finetune import AS_SYNTHESIS, finetune
from DEMISTCore.training.prepare import prepare_cohort
from DEMISTCore.training.settings import resolve
from DEMISTCore.training.start import start

#: This scanner's PSR, of what the simulator says.
SCALE = 0.85
#: Voxels around the slab that count neither as inside nor as outside.
RIM = 6.0
COLUMNS = (
    *("way", "maps", "people", "draw", "subject", "where"),
    *("psnr", "psnr_level", "white_percent", "grey_percent", "in_90"),
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--anatomies", nargs="+", default=[TEMPLATE])
    p.add_argument("--lesion-masks", type=Path)
    p.add_argument("--pool", type=int, default=20, help="people who may be drawn (default: %(default)s)")
    p.add_argument("--test", type=int, default=6, help="people on whom all is judged (default: %(default)s)")
    p.add_argument("--people", type=int, nargs="+", default=[2, 5, 10, 20])
    p.add_argument("--draws", type=int, default=3)
    p.add_argument(
        "--ways", nargs="+", choices=("scale", "streams", "regression"), default=["scale", "streams", "regression"]
    )
    p.add_argument(
        "--whole", type=int, nargs="*", default=[], help="numbers of people with whom whole maps are tried, too"
    )
    p.add_argument("--minutes", type=float, default=8, help="of each training (default: %(default)s)")
    p.add_argument("--seed", type=int, default=600_000)
    p.add_argument("--workers", type=int, default=1)
    p.add_argument("--init", default="demist-sim")
    p.add_argument("settings", nargs="*", help="key=value of all trainings, as finetune takes them")
    return p


def main() -> int:
    """Simulate the lab, train, judge, write a row a person and the table."""
    args = parser().parse_args()
    whole, slabs = simulate(args)
    bundle = load_bundle(args.init)
    settings = resolve(
        "demist", None, [f"preprocess.spacing={bundle.spacing:g}", *AS_SYNTHESIS, f"workers={args.workers}"]
    )
    names = sorted({s.subject for s in index(whole)})
    pool, test = names[: args.pool], names[args.pool :]
    cache = args.out / "cache"
    judged = [prepare_cohort([s for s in index(root) if s.subject in test], settings, cache) for root in (whole, slabs)]
    pairs = list(zip(*judged, strict=True))
    remember(bundle, args.out / "maps")
    rows = judge(pairs, "as shipped", "none", 0, 0, args.out, partial(by_bundle, args.init))
    for count in args.people:
        for draw in range(args.draws if count < len(pool) else 1):
            chosen = sorted(np.random.default_rng([args.seed, count, draw]).choice(pool, count, replace=False).tolist())
            others = [name for name in names if name not in chosen]
            for way in args.ways:
                for maps, root in (("slabs", slabs), ("whole", whole)):
                    if maps == "whole" and (way != "streams" or count not in args.whole):
                        continue
                    home = args.out / f"{way}-{maps}-{count:02d}-{draw}"
                    shared = [f"cache={cache}", f"exclude_subjects={json.dumps(others)}", *args.settings]
                    make = WAYS[way](root, home, shared, args)
                    rows += judge(pairs, way, maps, count, draw, args.out, make)
                    write(rows, args.out)
    return 0


def remember(bundle: Bundle, folder: Path) -> None:
    """Let every fine-tuning find the shipped model's maps of people in ``folder``: they are the same each time."""
    from DEMISTCore.training import finetune as module
    from DEMISTCore.training.arrays import kept

    folder.mkdir(parents=True, exist_ok=True)
    predicted = module.predicted

    def found(model: Bundle, entry: PreparedSession, *on: Any) -> np.ndarray:
        if model.hash != bundle.hash:
            return predicted(model, entry, *on)
        return kept(folder / f"{entry.key}.npy", lambda: predicted(model, entry, *on))

    module.predicted = found


def simulate(args: argparse.Namespace) -> tuple[Path, Path]:
    """The lab's people with whole maps, and with slabs."""
    whole, slabs = args.out / "whole", args.out / "slabs"
    anatomies = [name for source in args.anatomies for name in list_anatomies(source)]
    write_description(whole)
    one = partial(person, root=whole, anatomies=anatomies, masks=args.lesion_masks, seed=args.seed)
    todo = [i for i in range(args.pool + args.test) if not subject_done(whole, f"sub-{i + 1:03d}")]
    if args.workers > 1 and todo:
        with get_context("spawn").Pool(args.workers) as workers:
            workers.map(one, todo, chunksize=1)
    else:
        for i in todo:
            one(i)
    if not slabs.exists():
        make_lab(whole, slabs, Scan(), seed=args.seed)
    return whole, slabs


def person(i: int, root: Path, anatomies: Sequence[str], masks: Path | None, seed: int) -> None:
    """One person on the lab's scanner; movement is the person's own."""
    import torch

    torch.set_num_threads(1)
    files = sorted(masks.glob("*.nii*")) if masks else None
    anatomy = load_anatomy(anatomies[i % len(anatomies)])
    subject = simulate_subject(seed + i, anatomy=anatomy, lesion_masks=files, physics="shifted")
    rng = np.random.default_rng([seed, 5, i])
    scanner = draw_protocol(np.random.default_rng([seed, 4]), thick_slices=0.0, physics="shifted")
    scanner = replace(scanner, misregistration=draw_protocol(rng, physics="shifted").misregistration)
    name = f"sub-{i + 1:03d}"
    write_subject(root, name, replace(subject, psr=subject.psr * np.float32(SCALE)), [acquire(subject, scanner, rng)])


Make = Callable[[PreparedSession], tuple[np.ndarray, np.ndarray | None]]


def scale(root: Path, home: Path, shared: list[str], args: argparse.Namespace) -> Make:
    """One factor."""
    return tuned(root, home, shared, args, "scale", [])


def streams(root: Path, home: Path, shared: list[str], args: argparse.Namespace) -> Make:
    """Everything but the decoder; nine tenths of the time for the mean, which is what is judged."""
    own = [
        f"mean.max_minutes={0.9 * args.minutes:g}",
        f"demist.max_minutes={0.1 * args.minutes:g}",
        "mean.steps=null",
        "demist.steps=null",
    ]
    return tuned(root, home, shared, args, "streams", own)


def tuned(root: Path, home: Path, shared: list[str], args: argparse.Namespace, level: str, own: list[str]) -> Make:
    """A bundle by ``finetune``."""
    target = home / "bundle" / home.name
    if not target.exists():
        finetune(root, home, init=args.init, level=level, overrides=[*shared, *own], measured=False)
    return partial(by_bundle, str(target))


def regression(root: Path, home: Path, shared: list[str], args: argparse.Namespace) -> Make:
    """A U-Net from nothing."""
    from DEMISTCore.baselines.regression import load_regression

    bundle = load_bundle(args.init)
    words = [f"preprocess.spacing={bundle.spacing:g}", *AS_SYNTHESIS, *shared, f"max_minutes={args.minutes:g}"]
    if not (home / "finished.json").exists():
        shutil.rmtree(home, ignore_errors=True)
        start("regression", out=home, data=str(root), config="small", overrides=[*words, "steps=null"])
        write_json(home / "finished.json", {})
    network = load_regression(home)

    def make(entry: PreparedSession) -> tuple[np.ndarray, None]:
        x = np.asarray(entry.x, np.float32)
        return network.predict(x, (x != 0).any(0)), None

    return make


WAYS: dict[str, Callable[[Path, Path, list[str], argparse.Namespace], Make]] = {
    "scale": scale,
    "streams": streams,
    "regression": regression,
}


def by_bundle(source: str, entry: PreparedSession) -> tuple[np.ndarray, np.ndarray | None]:
    """The mean of a bundle, and where its 90 % intervals begin and end, (2, X, Y, Z), if it has any."""
    from DEMISTCore.acquisition import read_protocol
    from DEMISTCore.devices import pick_device, pick_dtype
    from DEMISTCore.synthesis import generate, plan_sampling

    bundle = load_bundle(source)
    x = np.asarray(entry.x, np.float32)
    protocol, _ = read_protocol(*entry.meta["inputs"][:2])
    told: list[Any] = []
    device = pick_device("auto")
    plan = plan_sampling(bundle, mode="mean")
    mask = (x != 0).any(0).astype(np.uint8)
    [psr] = generate(
        bundle, x, mask, plan=plan, protocol=protocol, device=device, dtype=pick_dtype(device), told=told.append
    )
    if bundle.calibration is None:
        return psr, None
    ood = None if bundle.typical is None else bundle.typical.distance(told[0].described)
    sd = bundle.calibration.voxel_sd(told[0].psr, told[0].sd, ood)
    return psr, np.stack(bundle.calibration.voxel_interval(told[0].psr, sd, 0.9))


def judge(
    pairs: Sequence[tuple[PreparedSession, PreparedSession]],
    way: str,
    maps: str,
    people: int,
    draw: int,
    out: Path,
    make: Make,
) -> list[dict[str, Any]]:
    """Rows of all test people; read if they are there with all columns."""
    kept = out / "rows" / f"{way}-{maps}-{people:02d}-{draw}.json"
    rows = json.loads(kept.read_text()) if kept.is_file() else []
    if rows and set(rows[0]) == set(COLUMNS):
        return rows
    rows = []
    for whole, slab in pairs:
        psr, interval = make(whole)
        for where, inside in places(whole, slab):
            rows.append(
                {
                    "way": way,
                    "maps": maps,
                    "people": people,
                    "draw": draw,
                    "subject": whole.subject,
                    "where": where,
                    **measured(psr, interval, np.asarray(whole.y, np.float32), np.asarray(whole.labels), inside),
                }
            )
    write_json(kept, rows)
    return rows


def places(whole: PreparedSession, slab: PreparedSession) -> Iterator[tuple[str, np.ndarray]]:
    """Voxels inside and outside a person's own slab, its holes and rim left out; both sessions lie on one grid."""
    from scipy import ndimage

    brain = (np.asarray(whole.labels) > 0) & (np.asarray(whole.known) > 0)
    covered = np.asarray(slab.known) > 0
    yield "inside", brain & covered
    yield "outside", brain & (ndimage.distance_transform_edt(~covered) > RIM)


def measured(
    psr: np.ndarray, interval: np.ndarray | None, y: np.ndarray, labels: np.ndarray, where: np.ndarray
) -> dict[str, float | None]:
    """PSNR (dB), as it is and after the best factor; bias of the means of white and grey matter (percent); share of
    voxels inside their 90 % interval."""
    p = psr[where].astype(np.float64)
    level = np.float32((p @ y[where]) / (p @ p))
    row: dict[str, float | None] = {
        "psnr": metrics.psnr(psr, y, where),
        "psnr_level": metrics.psnr(psr * level, y, where),
    }
    for name, label in (("white_percent", WHITE), ("grey_percent", GREY)):
        tissue = where & (labels == label)
        row[name] = 100 * float(psr[tissue].mean() / y[tissue].mean() - 1) if tissue.any() else None
    row["in_90"] = None if interval is None else float(((y >= interval[0]) & (y <= interval[1]))[where].mean())
    return row


def write(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """All rows as CSV, and means over people and draws as Markdown."""
    with (out / "curve.csv").open("w", newline="") as stream:
        table = csv.DictWriter(stream, COLUMNS)
        table.writeheader()
        table.writerows(rows)
    lines = [
        "| way | maps | people | where | PSNR (dB) | own factor (dB) | white (%) | grey (%) | in 90 % |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    keys = list(dict.fromkeys((r["way"], r["maps"], r["people"], r["where"]) for r in rows))
    for key in keys:
        own = [r for r in rows if (r["way"], r["maps"], r["people"], r["where"]) == key]
        cells = []
        for name, form in (
            ("psnr", "{:.2f}"),
            ("psnr_level", "{:.2f}"),
            ("white_percent", "{:+.1f}"),
            ("grey_percent", "{:+.1f}"),
            ("in_90", "{:.2f}"),
        ):
            by_draw: dict[int, list[float]] = {}
            for r in own:
                if r[name] is not None:
                    by_draw.setdefault(r["draw"], []).append(r[name])
            means = [float(np.mean(v)) for v in by_draw.values()]
            spread = f" ± {np.std(means, ddof=1):.2f}" if len(means) > 1 else ""
            cells.append(form.format(np.mean(means)) + spread if means else "")
        lines.append("| " + " | ".join([*map(str, key), *cells]) + " |")
    (out / "curve.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
