"""Measured and synthesized maps of the same scans, from files: the numbers of the experiment without its trainings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..commit import staging
from ..errors import InputError
from ..files import is_hidden
from ..guards import protect_folder
from ..measured import MeasuredMap, read_measured
from ..volume import Grid, Volume
from .cases import LESION
from .cohort import require_packages
from .methods.method import Outcome

ROW = "synthesized"
_WRITTEN = ("summary.md", "pairs.csv", "regions.csv", "scatter.png", "bland_altman.png", "roc.png")
_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mgz")
#: What files of a folder are, by their names; the first that matches anything is taken.
_NAMED = {"maps": ("psrmap", "psr", ""), "labels": ("dseg", "tissue"), "lesions": ("lesion",), "mask": ("brain",)}
_ENTITIES = re.compile(r"(sub-[A-Za-z0-9]+)(?:.*?[_/](ses-[A-Za-z0-9]+))?")


@dataclass(frozen=True)
class Pair:
    """The files of one scan; ``name`` such as ``sub-01_ses-02``."""

    name: str
    measured: Path
    synthesized: Path
    labels: Path | None = None
    lesions: Path | None = None
    mask: Path | None = None

    @property
    def subject(self) -> str:
        """Such as ``sub-01``."""
        return self.name.partition("_")[0]


@dataclass(eq=False)
class PairCase:
    """One scan as :class:`.cv.masks.ScanMasks` and :func:`.cv.numbers.numbers` take it, on the measured map's grid."""

    name: str
    grid: Grid
    truth: np.ndarray
    mask: np.ndarray
    brain: np.ndarray
    labels: np.ndarray
    psr: np.ndarray
    notes: list[str] = field(default_factory=list)

    @property
    def lesions(self) -> np.ndarray:
        """Lesions where both maps are known (bool). (X, Y, Z)."""
        return (self.labels == LESION) & self.mask

    @property
    def coverage(self) -> float:
        """Share of the brain in which both maps are known."""
        return float(np.count_nonzero(self.mask) / max(int(np.count_nonzero(self.brain)), 1))


def compare_pairs(
    measured: Path,
    synthesized: Path,
    out: Path,
    *,
    labels: Path | None = None,
    lesions: Path | None = None,
    mask: Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Compare maps and write ``summary.md``, ``pairs.csv``, ``regions.csv`` and figures; returns ``out``.

    Args:
        measured, synthesized: a file each, or folders whose files are matched by subject and session.
        out: folder of the results.
        labels, lesions, mask: a file or a folder each; without labels there are no tissues, without either no ROC.
        overwrite: replace results that are there.

    Raises:
        InputError: a file is missing or unreadable, files do not match, or two maps have no voxel in common.
    """
    require_packages()
    import pandas as pd

    from ..statistics.comparison import agreement
    from .cv.figures import bland_altman, region_figure, roc_figure, scatter
    from .cv.masks import AGAINST, ScanMasks
    from .cv.numbers import numbers, region_rows
    from .cv.pooled import Pool, table

    out = Path(out)
    protect_folder(out, (measured, synthesized, labels, lesions, mask), "folder of the results")
    there = [name for name in _WRITTEN if (out / name).exists()]
    if there and not overwrite:
        raise InputError(f"{out / there[0]} is there already; give another folder, or --overwrite.")
    pairs = find_pairs(measured, synthesized, labels=labels, lesions=lesions, mask=mask)
    rows, regions, notes = [], [], []
    voxels: dict[str | None, dict[str, list[np.ndarray]]] = {None: {}, ROW: {}}
    who: dict[str, list[np.ndarray]] = {}
    people = {name: i for i, name in enumerate(sorted({pair.subject for pair in pairs}))}
    for pair in pairs:
        case = read_pair(pair)
        notes += [f"{pair.name}: {note}" for note in case.notes]
        masks, outcome = ScanMasks.of(case), Outcome(case.psr)
        told = agreement(case.psr[case.mask], case.truth[case.mask])
        rows.append(
            {
                "subject": pair.subject,
                "session": pair.name,
                "method": ROW,
                **numbers(case, masks, outcome),
                "pearson": told.pearson,
                "concordance": told.concordance,
                "bias": told.bias,
                "limit_low": told.lower,
                "limit_high": told.upper,
            }
        )
        names = {"subject": pair.subject, "session": pair.name, "method": ROW}
        regions += [{**names, **region} for region in region_rows(case, masks, outcome)]
        for region, where in masks.drawn.items():
            voxels[None].setdefault(region, []).append(case.truth.ravel()[where])
            voxels[ROW].setdefault(region, []).append(case.psr.ravel()[where])
            who.setdefault(region, []).append(np.full(where.size, people[pair.subject]))
    pool = Pool(
        {source: {region: np.concatenate(parts) for region, parts in by.items()} for source, by in voxels.items()},
        {region: np.concatenate(parts) for region, parts in who.items()},
    )
    results, by_region, roc = pd.DataFrame(rows), pd.DataFrame(regions), table(pool, [ROW])
    figures = {}
    if len(by_region):
        figures["scatter.png"] = region_figure(by_region, [ROW], scatter, "Region means")
        figures["bland_altman.png"] = region_figure(by_region, [ROW], bland_altman, "Region means")
    if any(pool.curve(None, region) is not None for region in AGAINST):
        figures["roc.png"] = roc_figure(pool, [ROW])
    from ..preview import save_figure

    with staging(out, remove=[out / name for name in there]) as (hidden,):
        results.to_csv(hidden / "pairs.csv", index=False, float_format="%.6g", lineterminator="\n")
        if len(by_region):
            by_region.to_csv(hidden / "regions.csv", index=False, float_format="%.6g", lineterminator="\n")
        text = _page(results, by_region, roc, notes, sorted(figures))
        (hidden / "summary.md").write_text(text, encoding="utf-8", newline="\n")
        for name, figure in figures.items():
            save_figure(figure, hidden / name)
    return out


def find_pairs(
    measured: Path,
    synthesized: Path,
    *,
    labels: Path | None = None,
    lesions: Path | None = None,
    mask: Path | None = None,
) -> list[Pair]:
    """The scans of which both maps are there, sorted by name.

    Raises:
        InputError: see :func:`compare_pairs`.
    """
    given = {"measured": measured, "synthesized": synthesized, "labels": labels, "lesions": lesions, "mask": mask}
    for what, path in given.items():
        if path is not None and not Path(path).exists():
            raise InputError(f"There is no {path}; check --{what}.")
    if Path(measured).is_dir() != Path(synthesized).is_dir():
        raise InputError("--measured and --synthesized are two files, or two folders.")
    if not Path(measured).is_dir():
        for what in ("labels", "lesions", "mask"):
            path = given[what]
            if path is not None and Path(path).is_dir():
                raise InputError(f"--{what} takes a file where the maps are files.")
        found = _ENTITIES.search(Path(measured).name)
        name = "_".join(part for part in found.groups() if part) if found else _stem(Path(measured))
        return [Pair(name, Path(measured), Path(synthesized), labels, lesions, mask)]
    maps = [_by_scan(Path(path), "maps") for path in (measured, synthesized)]
    others = {
        what: {} if path is None else _by_scan(Path(path), what)
        for what, path in (("labels", labels), ("lesions", lesions), ("mask", mask))
    }
    common = sorted(set(maps[0]) & set(maps[1]))
    if not common:
        raise InputError(
            f"No map in {measured} and {synthesized} is of the same subject and session by its name "
            "(sub-01_ses-02_...)."
        )
    return [
        Pair(name, maps[0][name], maps[1][name], *(_of(others[what], name) for what in ("labels", "lesions", "mask")))
        for name in common
    ]


def read_pair(pair: Pair) -> PairCase:
    """Both maps of a scan on the measured map's grid, with what is known of its tissue.

    Raises:
        InputError: a file cannot be used, or the maps have no voxel in common.
    """
    measured, made = read_measured(pair.measured), read_measured(pair.synthesized, "known")
    grid, notes = measured.psr.grid, [*measured.notes]
    if made.psr.grid.same_as(grid):
        psr, there = made.psr.array, made.known
    else:
        psr, there = made.on_grid(grid)
        notes.append("the synthesized map was interpolated onto the measured one's grid.")
    brain = _brain(pair, grid, psr)
    mask = brain & measured.known & there
    if not mask.any():
        raise InputError(
            f"{pair.measured} and {pair.synthesized} have no voxel in common; give maps of one brain, in one space."
        )
    labels = np.zeros(grid.shape, np.uint8)
    if pair.labels is not None:
        labels = Volume.read(pair.labels).resampled_to(grid, "nearest").array.round().astype(np.uint8)
    if pair.lesions is not None:
        lesions = Volume.read(pair.lesions).resampled_to(grid, "nearest").array > 0.5
        if not (lesions & brain).any():
            notes.append("the lesion mask is empty in this brain.")
        labels[lesions & brain] = LESION
    return PairCase(
        pair.name, grid, _known(measured), mask, brain, np.where(brain, labels, 0), np.where(mask, psr, 0), notes
    )


def _brain(pair: Pair, grid: Grid, psr: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_fill_holes

    if pair.mask is None:
        return binary_fill_holes(psr > 0)
    brain = Volume.read(pair.mask).resampled_to(grid, "nearest").array > 0.5
    if not brain.any():
        raise InputError(f"{pair.mask} is empty where {pair.measured} lies; give the brain mask of this scan.")
    return brain


def _known(measured: MeasuredMap) -> np.ndarray:
    return np.where(measured.known, measured.psr.array, np.float32(0))


def _by_scan(folder: Path, what: str) -> dict[str, Path]:
    """Files of a folder by subject and session."""
    files = sorted(p for p in folder.rglob("*") if p.name.lower().endswith(_SUFFIXES) and not is_hidden(p))
    named: list[Path] = []
    for word in _NAMED[what]:
        named = [path for path in files if word in path.name.lower()]
        if named:
            break
    found: dict[str, Path] = {}
    for path in named:
        match = _ENTITIES.search(path.name)
        if match is None or "uncertainty" in path.name.lower():
            continue
        name = "_".join(part for part in match.groups() if part)
        if name in found:
            raise InputError(f"{found[name]} and {path} are both of {name}; leave one of them out of {folder}.")
        found[name] = path
    if not found:
        raise InputError(f"{folder} holds no {what} named by subject (sub-01_...).")
    return found


def _of(files: dict[str, Path], name: str) -> Path | None:
    """A scan's own file, else its subject's."""
    return files.get(name) or files.get(name.partition("_")[0])


def _stem(path: Path) -> str:
    name = path.name
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _page(results: Any, regions: Any, roc: Any, notes: Sequence[str], figures: Sequence[str]) -> str:
    """``summary.md``."""
    from .cv.numbers import ERRORS, GROUPS
    from .cv.text import number, plus_minus, roc_table, signed, table_of

    lines = [
        "# Measured and synthesized maps",
        "",
        f"{len(results)} scans of {results['subject'].nunique()} subjects. Mean ± SD over scans.",
        "",
        *(f"- {note}" for note in notes),
        *([""] if notes else []),
    ]
    rows = []
    for group in GROUPS:
        by = {key: results[f"{key}_{group}"] for key, *_ in ERRORS}
        if by["mae"].notna().any():
            cells = (plus_minus(f * by[k].mean(), f * by[k].std(), d, " ± ") for k, _, f, d, _ in ERRORS)
            rows.append([group, *cells])
    lines += [table_of(["Where", *(title for _, title, *_ in ERRORS)], rows), ""]
    lines += [
        table_of(
            ["Sharpness", "Bias (1e-3)", "Limits of agreement (1e-3)", "Correlation", "Concordance"],
            [
                [
                    number(results["sharpness"].mean(), 3),
                    signed(1e3 * results["bias"].mean(), 2),
                    " to ".join(signed(1e3 * results[name].mean(), 1) for name in ("limit_low", "limit_high")),
                    number(results["pearson"].mean(), 3),
                    number(results["concordance"].mean(), 3),
                ]
            ],
        ),
        "",
    ]
    if len(regions):
        by_region = regions.groupby("region", sort=False)
        lines += [
            "## Region means (1e-3 PSR)",
            "",
            table_of(
                ["Region", "Scans", "Measured", "Synthesized", "Bias"],
                (
                    [
                        name,
                        str(len(own)),
                        number(1e3 * own["truth"].mean(), 1),
                        number(1e3 * own["synthesized"].mean(), 1),
                        plus_minus(1e3 * own["bias"].mean(), 1e3 * own["bias"].std(), 2, " ± "),
                    ]
                    for name, own in by_region
                ),
            ),
            "",
        ]
    if len(roc):
        lines += ["## Lesions against normal-appearing white matter", "", roc_table(roc), ""]
    lines += [line for name in figures for line in (f"![{name.rpartition('.')[0]}]({name})", "")]
    return "\n".join(lines).rstrip() + "\n"
