"""``prepare``: two raw images in, what the model sees out, and ``Prepared.to_native``, the exact way back.

Each image is interpolated once: the FLAIR goes through rigid motion and resampling in one step, because a rigid
motion only changes where its voxels lie (its affine). Brightness that alternates between slices is evened out
before, because it belongs to the slices. Bias fields are smooth and multiplicative, so they are estimated and removed
afterwards, on the model grid, where both images are isotropic.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from ..clock import Progress
from ..commit import staging
from ..errors import InputError
from ..files import write_json
from ..guards import protect_files
from ..volume import Grid, Order, Volume, as_volume, check_writable
from ..volume.grid import triple
from . import checks
from .brain import check_covers, check_extent, check_volume, find_brain, require_brain
from .contrast import contrast_warnings, name_warnings
from .intensity import normalize
from .placing import Places, place
from .recorder import Recorder, Step
from .zero import bring_to_zero

Source = Volume | str | os.PathLike  # an image, or the file it is in
SkullStrip = Literal["auto", "deepbet", "none"]

# What write_prepared writes.
_FILES = ("t1w.nii.gz", "flair.nii.gz", "mask.nii.gz", "native_mask.nii.gz", "steps.json")


@dataclass(eq=False)
class Prepared:
    """The pair as the model sees it, with the way back.

    Attributes:
        t1w: normalized, 0 outside the mask, on the model grid (isotropic; axes R, A, S to the nearest).
        flair: likewise, registered to the T1w.
        mask: uint8 brain mask on the model grid.
        native: the T1w's own grid, with its file's own way of saying so.
        native_mask: uint8 brain mask on the T1w's own grid.
        steps: what was done, in order, with times.
        warnings: sentences for the user.
        flair_motion: (4, 4) rigid motion in RAS mm that took the FLAIR onto the T1w; identity if not registered.
        flair_native: the FLAIR's own grid as scanned, before that motion; None if unknown.
    """

    t1w: Volume
    flair: Volume
    mask: Volume
    native: Grid
    native_mask: Volume
    steps: list[Step] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    flair_motion: np.ndarray = field(default_factory=lambda: np.eye(4))
    flair_native: Grid | None = None

    @property
    def array(self) -> np.ndarray:
        """The condition, float32 (2, X, Y, Z): T1w, FLAIR."""
        return np.stack([self.t1w.array, self.flair.array]).astype(np.float32, copy=False)

    @property
    def grid(self) -> Grid:
        """The model grid."""
        return self.mask.grid

    def to_native(self, array: np.ndarray, order: Order = "linear") -> Volume:
        """Take a map (X, Y, Z) on the model grid to the T1w's own grid; 0 outside ``native_mask``.

        Interpolation is normalized by the mask (map x mask over mask, both interpolated), so that voxels at the
        rim of the brain are not diluted by the zeros outside. ``order="nearest"`` keeps labels and their type.
        """
        if tuple(array.shape) != self.grid.shape:
            raise ValueError(f"A map of {tuple(array.shape)} voxels does not lie on the model grid {self.grid.shape}.")
        inside = self.native_mask.array > 0
        if order == "nearest":
            native = Volume(np.asarray(array), self.grid.affine).resampled_to(self.native, "nearest").array
            return self.native.volume(np.where(inside, native, native.dtype.type(0)))
        mask = (self.mask.array > 0).astype(np.float32)
        weight = Volume(mask, self.grid.affine).resampled_to(self.native, order).array
        native = Volume(np.asarray(array, np.float32) * mask, self.grid.affine).resampled_to(self.native, order).array
        seen = inside & (weight > 1e-3)
        result = np.zeros(self.native.shape, np.float32)
        result[seen] = native[seen] / weight[seen]
        return self.native.volume(result)


def prepare(
    t1w: Source,
    flair: Source,
    *,
    brain_mask: Source | None = None,
    register: bool = True,
    skull_strip: SkullStrip = "auto",
    bias_correct: bool = True,
    spacing: float = 1.0,
    shape: tuple[int, int, int] | None = None,
    multiple: int = 16,
    device: str = "cpu",
    any_brain_volume: bool = False,
    progress: Progress | None = None,
) -> Prepared:
    """Bring a raw T1w and FLAIR of any orientation, spacing and grid to the model grid.

    Args:
        t1w: image or file; its grid is the one results return to.
        flair: image or file, anywhere near the T1w in world space.
        brain_mask: image or file: 0 and 1, labels, or fractions (0.5 and more count). In the T1w's space on any grid,
            or on the FLAIR's own grid: then it goes where the FLAIR goes. Gaps are filled, specks left out.
        register: rigid registration of the FLAIR to the T1w. Off: world coordinates are trusted.
        skull_strip: "auto" takes the outline of images that are skull-stripped already and runs deepbet on others;
            "deepbet" always runs it; "none" takes all that is not empty background as brain.
        bias_correct: N4 bias field correction of both images, and even brightness of interleaved thick slices.
        spacing: voxel size of the model grid, mm.
        shape: shape of the model grid; None fits it to the brain.
        multiple: the fitted shape is rounded up to multiples of this.
        device: where deepbet runs: "cpu", "cuda", "cuda:1", "mps".
        any_brain_volume: a person says that a brain outside :data:`.brain.POSSIBLE_BRAIN_ML` is right.
        progress: called with the stage that begins and the share of the work done (0 to 1); it may raise
            (:class:`~DEMISTCore.errors.Cancelled`) to stop.

    Returns:
        The pair on the model grid, masks, steps with times, and warnings. Same input, same bytes.

    Raises:
        InputError: an image that cannot be used; the sentence names the file and the fix.
    """
    if skull_strip not in ("auto", "deepbet", "none"):
        raise InputError(f"Unknown skull_strip {skull_strip!r}; choose auto, deepbet or none.")
    checks.check_grid_options(spacing, shape, multiple)
    run = Recorder(progress)

    with run.step("read") as note:
        t1 = checks.load_image(t1w, "T1w", run.warnings)
        fl = checks.load_image(flair, "FLAIR", run.warnings)
        checks.check_overlap(t1, fl)
        if brain_mask is not None:
            brain_mask = as_volume(brain_mask, "brain mask").aligned_with(t1)
            run.warnings += brain_mask.warnings
        note.append("; ".join(f"{n} {_grid_note(v)}" for n, v in (("T1w", t1), ("FLAIR", fl))))
        for sentence in name_warnings(t1, fl):
            run.warn(sentence)
        zeroed = [bring_to_zero(volume, name) for volume, name in ((t1, "T1w"), (fl, "FLAIR"))]
        for brought in zeroed:
            if brought.warning:
                run.warn(brought.warning)
        t1, fl = (brought.volume for brought in zeroed)
        t1_factors, fl_factors = (bias_correct and brought.true for brought in zeroed)

    with run.step("brain mask") as note:
        said: list[str] = []
        found = find_brain(t1, fl, brain_mask, skull_strip, device, note, said)
        # A mask on the FLAIR's grid goes with the FLAIR, so the FLAIR must find its way without it.
        seen = find_brain(t1, fl, None, skull_strip, device, note, said) if found.on_flair and register else found
        for sentence in said:
            run.warn(sentence)
        brain = found.volume

    motion = np.eye(4)
    with run.step("registration") as note:
        if register:
            from .registration import register_rigid

            result = register_rigid(t1, fl, seen.volume, tick=run.tick)
            motion = result.motion
            note.append(result.note)
            if result.warning:
                run.warn(result.warning)
        else:
            note.append("off")
    if found.on_flair:
        brain = place(brain, "brain mask", Places({"T1w": t1.grid}, fl.grid, motion), said := [])
        check_covers(t1, brain, str(found.given), said)
        for sentence in said:
            run.warn(sentence)
    flair_native = fl.grid
    fl = Volume(fl.array, motion @ fl.affine, fl.path)

    with run.step("slices") as note:
        if bias_correct:
            from .bias import correct_interleave

            t1, t1_odd = correct_interleave(t1, brain) if t1_factors else (t1, 0.0)
            fl, fl_odd = correct_interleave(fl, brain) if fl_factors else (fl, 0.0)
            odd = [f"{name} by {share:.1%}" for name, share in (("T1w", t1_odd), ("FLAIR", fl_odd)) if share]
            note.append("odd and even slices differed: " + ", ".join(odd) if odd else "even")
        else:
            note.append("off")

    with run.step("resampling") as note:
        native_brain = brain.resampled_to(t1).array >= 0.5
        require_brain(native_brain, t1, found)
        covered = Volume(np.ones(fl.shape, np.uint8), fl.affine).resampled_to(t1, "nearest").array > 0
        _check_coverage(native_brain, covered, fl, run)
        native_brain &= covered
        native_mask = t1.grid.volume(native_brain.astype(np.uint8))
        volume = check_volume(native_mask, t1, found, any_brain_volume, said := [])
        check_extent(native_mask, said)
        for sentence in said:
            run.warn(sentence)
        grid = model_grid(native_mask, spacing, shape, multiple)
        t1_model = t1.resampled_to(grid, "bspline").array
        fl_model = fl.resampled_to(grid, "bspline").array
        inside = brain.resampled_to(grid).array >= 0.5
        for image in (t1, fl):
            inside &= Volume(np.ones(image.shape, np.uint8), image.affine).resampled_to(grid, "nearest").array > 0
        _check_grid(volume, inside, grid, run)
        note.append(f"model grid {' x '.join(map(str, grid.shape))} at {spacing:g} mm")

    with run.step("bias field") as note:
        if bias_correct:
            from .bias import correct_bias

            t1_model, t1_range = correct_bias(t1_model, inside, spacing) if t1_factors else (t1_model, 0.0)
            run.tick(0.5)
            fl_model, fl_range = correct_bias(fl_model, inside, spacing) if fl_factors else (fl_model, 0.0)
            note.append(f"N4 evened out {t1_range:.0%} in the T1w and {fl_range:.0%} in the FLAIR")
        else:
            note.append("off")

    with run.step("normalisation"):
        pair = normalize((t1_model, fl_model), inside, spacing)
        for values, scan, name in zip(pair, (t1, fl), ("T1w", "FLAIR")):
            if not values.any():
                raise InputError(
                    f"{checks.describe(scan, name)} is constant inside the brain; check that the mask and the "
                    "image belong together."
                )
        signal = fl_model if zeroed[1].true else None
        for sentence in contrast_warnings(pair[0], pair[1], inside, spacing, t1_factors, signal):
            run.warn(sentence)

    run.done()
    return Prepared(
        t1w=Volume(pair[0], grid.affine, t1.path),
        flair=Volume(pair[1], grid.affine, fl.path),
        mask=Volume(inside.astype(np.uint8), grid.affine),
        native=t1.grid,
        native_mask=native_mask,
        steps=run.steps,
        warnings=run.warnings,
        flair_motion=motion,
        flair_native=flair_native,
    )


def model_grid(
    mask: Volume,
    spacing: float = 1.0,
    shape: tuple[int, int, int] | None = None,
    multiple: int = 16,
    margin: float = 4.0,
) -> Grid:
    """The isotropic grid the model works on: axes nearest to R, A, S, around the brain.

    The axes are the mask's own (flipped and swapped to RAS, freed of shear), and where its spacing is the model's,
    voxels coincide too: a 1 mm T1w, oblique or not, is then cropped and not interpolated, and results return to it
    untouched.

    Args:
        mask: brain mask, > 0 inside, on the T1w's grid.
        spacing: voxel size, mm.
        shape: None fits the box of the brain plus ``margin`` mm on each side, rounded up to ``multiple``; a given
            shape is centred on that box.
        multiple: what the sides of a fitted shape are multiples of.
        margin: mm, see ``shape``.

    Raises:
        InputError: the mask is empty.
    """
    ras = mask.reoriented("RAS")
    inside = ras.array > 0
    if not inside.any():
        raise InputError("The brain mask is empty; give a mask that covers the brain.")
    ends = []
    for axis in range(3):
        there = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        ends.append((there[0] - 0.5, there[-1] + 0.5))
    rotation = ras.grid.rotation
    # Coordinates along the grid's axes, in mm.
    corners = ras.grid.to_world(np.array(np.meshgrid(*ends, indexing="ij")).reshape(3, -1).T) @ rotation
    low, high = corners.min(0), corners.max(0)
    if shape is None:
        voxels = np.ceil((high - low + 2 * margin) / spacing - 1e-6)
        sides = (np.ceil(voxels / multiple) * multiple).astype(int)
    else:
        sides = np.array(shape, int)
    first = (low + high) / 2 - (sides - 1) / 2 * spacing
    lattice = ras.affine[:3, 3] @ rotation
    same = np.isclose(ras.spacing, spacing, rtol=1e-3) & np.allclose(ras.affine[:3, :3], rotation * ras.spacing)
    # + 1/4, not 1/2: half a voxel is a common remainder, and must not round by the last bit.
    first = np.where(same, lattice + np.floor((first - lattice) / spacing + 0.25) * spacing, first)
    affine = np.eye(4)
    affine[:3, :3] = rotation * spacing
    affine[:3, 3] = rotation @ first
    return Grid(triple(sides), affine)


def write_prepared(prepared: Prepared, folder: str | os.PathLike[str], *, overwrite: bool = False) -> list[Path]:
    """Write the pair and masks as NIfTI and ``steps.json`` into ``folder``; returns the paths.

    Raises:
        InputError: see :func:`check_target`.
    """
    check_target(folder, overwrite=overwrite, inputs=(prepared.t1w, prepared.flair))
    folder = Path(folder)
    volumes = (prepared.t1w, prepared.flair, prepared.mask, prepared.native_mask)
    paths = [folder / name for name in _FILES]
    report = {
        "t1w": str(prepared.t1w.path) if prepared.t1w.path else None,
        "flair": str(prepared.flair.path) if prepared.flair.path else None,
        "model_grid": {"shape": prepared.grid.shape, "affine": prepared.grid.affine.tolist()},
        "native_grid": {"shape": prepared.native.shape, "affine": prepared.native.affine.tolist()},
        "flair_motion_ras_mm": prepared.flair_motion.tolist(),
        "steps": [{"name": s.name, "seconds": round(s.seconds, 3), "note": s.note} for s in prepared.steps],
        "warnings": prepared.warnings,
    }
    with staging(folder) as (hidden,):
        for path, volume in zip(paths, volumes):
            volume.write(hidden / path.name, description="DEMIST preprocess")
        write_json(hidden / paths[-1].name, report)
    return paths


def check_target(
    folder: str | os.PathLike[str], *, overwrite: bool = False, inputs: Sequence[Source | None] = ()
) -> None:
    """Refuse an output folder early.

    Raises:
        InputError: it cannot be written to, or holds results that may not be replaced, or one of ``inputs`` under the
            name of a result.
    """
    if Path(folder).exists() and not Path(folder).is_dir():
        raise InputError(f"{folder} is a file; give a folder.")
    protect_files({name: Path(folder) / name for name in _FILES}, inputs)
    for name in _FILES:
        check_writable(Path(folder) / name, overwrite=overwrite)


def _check_coverage(brain: np.ndarray, covered: np.ndarray, flair: Volume, run: Recorder) -> None:
    """Say so if the FLAIR does not show all of the brain."""
    missing = 1.0 - np.count_nonzero(brain & covered) / np.count_nonzero(brain)
    label = checks.describe(flair, "FLAIR")
    if missing > 0.9:
        raise InputError(f"{label} shows less than a tenth of the brain in the T1w; give two images of one person.")
    if missing > 0.01:
        run.warn(f"{label} does not show {missing:.0%} of the brain in the T1w; that part of the result stays empty.")


def _check_grid(volume: float, inside: np.ndarray, grid: Grid, run: Recorder) -> None:
    """Draw attention to a model grid that cuts the brain of ``volume`` ml."""
    kept = np.count_nonzero(inside) * grid.voxel_volume_ml
    if kept == 0:
        raise InputError("No brain is left on the model grid; give a brain mask or a larger shape.")
    if kept < 0.97 * volume:
        run.warn(f"The model grid holds only {kept / volume:.0%} of the brain; give a larger shape.")


def _grid_note(volume: Volume) -> str:
    size = " x ".join(map(str, volume.shape))
    return f"{size} voxels of {' x '.join(f'{s:.3g}' for s in volume.spacing)} mm, {volume.axcodes}"
