"""A simulated data set as a lab would have it: ``python -m DEMISTCore.simulate.lab --source SIM --out LAB``.

Whole true maps in fractions, exactly on the T1w, become what a qMT session gives: a slab of thick slices in percent on
a grid of its own, off the T1w because the person has moved, with noise, voxels without a value and absurd ones, and 0
where nothing was fitted. With ``--troubles`` one fault after the other is planted, a subject each. What was done to
whom is in ``planted.json``: a program that checks such data can be checked with it.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..cli import run
from ..commit import sweep
from ..errors import InputError
from ..files import atomic_folder, write_json
from ..guards import protect_folder
from ..volume import Grid, Volume

PLANTED = "planted.json"
#: Fluid that a fit has clipped at nothing, and impossible values, are written as they are.
_OUTLIER = 1.3
_NOISE = 0.004


@dataclass(frozen=True)
class Scan:
    """How the maps are measured.

    Attributes:
        slices: of the slab.
        thickness: of a slice, mm.
        in_plane: voxel size within a slice, mm.
        percent: in percent, else as a fraction.
        moved_mm: least and most distance that a person moves between T1w and qMT.
        turned_deg: most that a head turns around each axis.
        nan, outliers: shares of the brain's voxels without a value, and with 130 %.
        noise: SD of the values, fraction.
    """

    slices: int = 12
    thickness: float = 5.0
    in_plane: float = 2.0
    percent: bool = True
    moved_mm: tuple[float, float] = (2.0, 6.0)
    turned_deg: float = 3.0
    nan: float = 0.005
    outliers: float = 0.002
    noise: float = _NOISE


def make_lab(
    source: str | Path, out: str | Path, scan: Scan | None = None, *, seed: int = 0, troubles: bool = False
) -> dict[str, dict[str, Any]]:
    """Write the data set ``source`` (as the simulator does) to ``out`` as a lab has it.

    Args:
        source: BIDS data set with ``derivatives/truth``.
        out: new folder.
        scan: how maps are measured.
        seed: of noise, motion and holes; subject by subject.
        troubles: plant :data:`TROUBLES`, one a subject, from the second subject on.

    Returns:
        What is in planted.json, by subject: ``motion_ras_mm`` (4, 4) from the T1w's world to the map's, ``trouble``.

    Raises:
        InputError: ``source`` is no such data set, ``out`` exists, or there are fewer subjects than troubles.
    """
    scan = scan or Scan()
    source, out = Path(source), Path(out)
    protect_folder(out, (source,), "data set")
    subjects = sorted(path.name for path in source.glob("sub-*") if (source / "derivatives/truth" / path.name).is_dir())
    if not subjects:
        raise InputError(f"{source} holds no simulated subjects (sub-*, derivatives/truth/sub-*); simulate some first.")
    names: list[str | None] = [None] * len(subjects)
    if troubles:
        if len(subjects) <= len(TROUBLES):
            raise InputError(f"{source} has {len(subjects)} subjects, and the troubles take {len(TROUBLES) + 1}.")
        names[1 : 1 + len(TROUBLES)] = TROUBLES
    planted: dict[str, dict[str, Any]] = {}
    sweep(out.parent)
    with atomic_folder(out) as root:
        description = {"Name": "Simulated scans with PSR maps as a lab measures them", "BIDSVersion": "1.9.0"}
        write_json(root / "dataset_description.json", {**description, "DatasetType": "raw"})
        for folder in ("qmt", "masks"):
            write_json(
                root / "derivatives" / folder / "dataset_description.json", {**description, "DatasetType": "derivative"}
            )
        for number, (subject, trouble) in enumerate(zip(subjects, names)):
            motion = _write_subject(source, root, subject, scan, np.random.default_rng([seed, number]))
            planted[subject] = {"motion_ras_mm": np.round(motion, 6).tolist(), "trouble": trouble}
        for subject, trouble in zip(subjects, names):
            if trouble is not None:
                TROUBLES[trouble](root, subject, subjects[0])
        write_json(root / PLANTED, planted)
    return planted


def psr_of(root: Path, subject: str) -> Path:
    """A subject's map in a data set that :func:`make_lab` wrote."""
    return root / "derivatives" / "qmt" / subject / "qmt" / f"{subject}_PSRmap.nii.gz"


def _write_subject(source: Path, root: Path, subject: str, scan: Scan, rng: np.random.Generator) -> np.ndarray:
    shutil.copytree(source / subject, root / subject)
    truth = source / "derivatives" / "truth" / subject / "anat"
    psr = Volume.read(truth / f"{subject}_desc-truth_PSRmap.nii.gz")
    brain = Volume.read(truth / f"{subject}_desc-brain_mask.nii.gz")
    for old, new in (
        ("desc-brain_mask", "desc-brain_mask"),
        ("desc-tissue_dseg", "desc-tissue_dseg"),
        ("desc-lesion_mask", "label-lesion_mask"),
    ):
        target = root / "derivatives" / "masks" / subject / "anat" / f"{subject}_{new}.nii.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(truth / f"{subject}_{old}.nii.gz", target)
    motion = _motion(brain, scan, rng)
    values, units = measure(psr, brain, motion, scan, rng)
    values.write(psr_of(root, subject), dtype=np.float32)
    write_json(
        psr_of(root, subject).with_name(f"{subject}_PSRmap.json"),
        {"Units": units, "Description": "Pool size ratio, selective inversion recovery"},
    )
    return motion


def measure(psr: Volume, brain: Volume, motion: np.ndarray, scan: Scan, rng: np.random.Generator) -> tuple[Volume, str]:
    """A slab of a true map, measured after the head has moved, and its units.

    Args:
        psr: the truth, fraction, on the T1w.
        brain: its brain mask.
        motion: (4, 4) RAS mm, from the T1w's world to that of the qMT session.
        scan: how it is measured.
        rng: source of randomness.
    """
    moved_brain = Volume((brain.array > 0).astype(np.float32), motion @ brain.affine)
    points = moved_brain.grid.to_world(np.argwhere(brain.array > 0)[::7])
    low, high = points.min(0) - 4, points.max(0) + 4
    room = max((high[2] - low[2] - scan.slices * scan.thickness) / 4, 0)
    middle = (low[2] + high[2]) / 2 + rng.uniform(-room, room)
    spacing = np.array([scan.in_plane, scan.in_plane, scan.thickness])
    columns, rows = (int(np.ceil((high - low)[i] / scan.in_plane)) for i in (0, 1))
    shape = (columns, rows, scan.slices)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [low[0], low[1], middle - (scan.slices - 1) / 2 * scan.thickness]
    grid = Grid(shape, affine)
    values = Volume(psr.array, motion @ psr.affine).resampled_to(grid).array
    inside = moved_brain.resampled_to(grid).array > 0.5
    values = np.maximum(values + rng.normal(0, scan.noise, shape), 0)  # a fit ends at 0
    values[inside & (rng.random(shape) < scan.outliers)] = _OUTLIER
    values[inside & (rng.random(shape) < scan.nan)] = np.nan
    values = np.where(inside, values, 0) * (100 if scan.percent else 1)
    return Volume(values.astype(np.float32), affine), "percent" if scan.percent else "fraction"


def _motion(brain: Volume, scan: Scan, rng: np.random.Generator) -> np.ndarray:
    """A turn about the middle of the brain and a shift in any direction."""
    from scipy.spatial.transform import Rotation

    centre = brain.grid.to_world(np.argwhere(brain.array > 0)[::7]).mean(0)
    turn = Rotation.from_euler("xyz", rng.uniform(-1, 1, 3) * scan.turned_deg, degrees=True).as_matrix()
    direction = rng.normal(size=3)
    shift = direction / np.linalg.norm(direction) * rng.uniform(*scan.moved_mm)
    motion = np.eye(4)
    motion[:3, :3] = turn
    motion[:3, 3] = centre + shift - turn @ centre
    return motion


# --- troubles --------------------------------------------------------------------------------------------------------


def _changed(root: Path, subject: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    psr = Volume.read(psr_of(root, subject))
    psr.with_array(change(psr.array).astype(np.float32)).write(psr_of(root, subject))


def _contrast(root: Path, subject: str, first: str) -> None:
    """A T1w after a contrast agent beside the plain one, and before it in the alphabet."""
    for plain in root.glob(f"{subject}/**/anat/*_T1w.nii.gz"):
        image = Volume.read(plain)
        name = plain.name.replace("_T1w", "_ce-gadolinium_T1w")
        image.with_array(image.array * np.float32(1.4)).write(plain.with_name(name))


def _template(root: Path, subject: str, first: str) -> None:
    """What fMRIPrep leaves: a brain mask in a template's space, and labels of FreeSurfer."""
    folder = root / "derivatives" / "fmriprep" / subject / "anat"
    mask = Volume.read(root / "derivatives/masks" / subject / "anat" / f"{subject}_desc-brain_mask.nii.gz")
    Volume(np.flip(mask.array, 0).copy(), mask.affine).write(
        folder / f"{subject}_space-MNI152NLin2009cAsym_desc-brain_mask.nii.gz", dtype=np.uint8
    )
    for name in (f"{subject}_desc-aparcaseg_dseg", f"{subject}_dseg"):
        Volume(mask.array * 1035, mask.affine).write(folder / f"{name}.nii.gz", dtype=np.int16)


def _no_flair(root: Path, subject: str, first: str) -> None:
    for path in [*root.glob(f"{subject}/**/anat/*_FLAIR.*")]:
        path.unlink()


def _no_psr(root: Path, subject: str, first: str) -> None:
    shutil.rmtree(root / "derivatives" / "qmt" / subject)


def _wrong_units(root: Path, subject: str, first: str) -> None:
    write_json(psr_of(root, subject).with_name(f"{subject}_PSRmap.json"), {"Units": "fraction"})


def _other_person(root: Path, subject: str, first: str) -> None:
    shutil.copy2(psr_of(root, first), psr_of(root, subject))


def _elsewhere(root: Path, subject: str, first: str) -> None:
    psr = Volume.read(psr_of(root, subject))
    affine = psr.affine.copy()
    affine[:3, 3] += 400
    Volume(psr.array, affine).write(psr_of(root, subject))


def _thin(root: Path, subject: str, first: str) -> None:
    """Half of the uppermost slice."""
    psr = Volume.read(psr_of(root, subject))
    filled = np.flatnonzero((np.nan_to_num(psr.array) > 0).any((0, 1)))
    array = psr.array.copy()
    array[:, :, : filled[-1]] = 0
    array[: array.shape[0] // 2] = 0
    psr.with_array(array).write(psr_of(root, subject))


def _constant(root: Path, subject: str, first: str) -> None:
    _changed(root, subject, lambda a: np.where(np.nan_to_num(a) > 0, 10, 0))


def _not_psr(root: Path, subject: str, first: str) -> None:
    """A T1 map (ms) under the name of a PSR map."""
    _changed(root, subject, lambda a: np.where(np.nan_to_num(a) > 0, 1800 - 50 * np.nan_to_num(a).clip(0, 20), 0))


def _two_maps(root: Path, subject: str, first: str) -> None:
    shutil.copy2(psr_of(root, subject), psr_of(root, subject).with_name(f"{subject}_desc-again_PSRmap.nii.gz"))


def _empty(root: Path, subject: str, first: str) -> None:
    _changed(root, subject, lambda a: np.full_like(a, np.nan))


#: Faults by name, in the order in which subjects get them; each changes one subject of a data set in place.
TROUBLES: dict[str, Callable[[Path, str, str], None]] = {
    "contrast agent": _contrast,
    "template space": _template,
    "no FLAIR": _no_flair,
    "no PSR": _no_psr,
    "wrong units": _wrong_units,
    "other person": _other_person,
    "elsewhere": _elsewhere,
    "thin slab": _thin,
    "constant": _constant,
    "no PSR map": _not_psr,
    "two maps": _two_maps,
    "empty": _empty,
}
#: Those that leave a usable session: the fault is one file among others, which is passed over.
HARMLESS = ("contrast agent", "template space")


def parser() -> argparse.ArgumentParser:
    """Command-line options."""
    p = argparse.ArgumentParser(
        prog="python -m DEMISTCore.simulate.lab",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        description="Write simulated subjects as a lab has them: PSR slabs in percent, moved, with holes.",
    )
    p.add_argument("--out", required=True, help="folder of the new BIDS data set")
    p.add_argument("--source", help="simulated BIDS data set; without it, one is simulated to OUT-truth")
    p.add_argument("--subjects", type=int, default=24, help="number of subjects to simulate")
    p.add_argument("--physics", choices=("standard", "shifted"), default="shifted", help="of the simulated subjects")
    p.add_argument("--slices", type=int, default=12, help="slices of the slab")
    p.add_argument("--thickness", type=float, default=5.0, help="of a slice, mm")
    p.add_argument("--fraction", action="store_true", help="write fractions instead of percent")
    p.add_argument("--troubles", action="store_true", help=f"plant a fault in each of {len(TROUBLES)} subjects")
    p.add_argument("--seed", type=int, default=0, help="seed of everything random")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, simulate, write."""
    args = parser().parse_args(argv)
    if args.slices < 1 or not 0.5 <= args.thickness <= 20:
        raise InputError("Give --slices of at least 1 and --thickness of 0.5 to 20 mm.")
    if args.seed < 0:
        raise InputError(f"Give --seed of at least 0, not {args.seed}.")
    out = Path(args.out)
    source = args.source
    if source is None:
        from .cohort import simulate_cohort

        source = simulate_cohort(
            out.with_name(out.name + "-truth"),
            subjects=args.subjects,
            seed=5000 + args.seed,
            physics=args.physics,
            skull=False,
            resume=True,
        )
    scan = Scan(slices=args.slices, thickness=args.thickness, percent=not args.fraction)
    planted = make_lab(source, out, scan, seed=args.seed, troubles=args.troubles)
    count = sum(told["trouble"] is not None for told in planted.values())
    print(f"{out}: {len(planted)} subjects, {count} with a planted fault ({out / PLANTED})")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
