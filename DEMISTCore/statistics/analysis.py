"""All of it: maps and masks in; table, ROC curves, comparison and figures out."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..clock import STATISTICS, Clock, Progress
from ..errors import InputError
from ..measured.alignment import off_by
from ..volume import Volume, as_volume
from . import checks
from . import intervals as error_bars
from .comparison import compare
from .contrast import contrasts
from .outputs import check_folder, write
from .report import Analysis
from .settings import MeasureSettings
from .table import region_table

if TYPE_CHECKING:
    from ..preprocess import Prepared
    from ..regions import Regions, RegionSettings

log = logging.getLogger(__name__)

Source = Volume | str | os.PathLike


def analyse(
    psr: Source,
    *,
    lesions: Source | None = None,
    t1w: Source | None = None,
    flair: Source | None = None,
    tissue: Source | None = None,
    brain: Source | None = None,
    prepared: Prepared | None = None,
    uncertainty: Source | None = None,
    samples: Sequence[Source] = (),
    reference: Source | None = None,
    suggest: bool = False,
    unchecked: bool = False,
    provenance: Mapping[str, Any] | None = None,
    already_aligned: bool = False,
    out: str | os.PathLike[str] | None = None,
    settings: MeasureSettings | RegionSettings | None = None,
    any_brain_volume: bool = False,
    tsv: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Analysis:
    """Measure a PSR map, synthesized or measured, in lesions and normal-appearing white matter.

    All masks and images are brought to the map's own grid, with a note where that took interpolation. White matter and
    with it NAWM need ``t1w`` or ``tissue``; ROC curves need lesions and NAWM.

    >>> import DEMISTCore.statistics
    >>> DEMISTCore.statistics.analyse("psr.nii.gz", lesions="lesions.nii.gz", t1w="t1w.nii.gz")  # doctest: +SKIP

    Args:
        psr: PSR map, fraction: a file or a :class:`~DEMISTCore.volume.Volume`, as all images here.
        lesions: lesion mask; of a segmentation, all labels above 0.
        t1w: T1-weighted image in the map's space; tissues are segmented on it.
        flair: FLAIR image of the same session; it is registered to the T1w.
        tissue: tissue labels instead of a segmentation: 1 CSF, 2 grey, 3 white matter.
        brain: brain mask. Default: where the map is not the constant 0 of a background.
        prepared: what :func:`DEMISTCore.prepare` made of T1w and FLAIR (``Synthesis.prepared``): spares doing it again.
        uncertainty: SD per voxel, as synthesis writes it. None: the one beside the map, where that is calibrated.
        samples: maps of single seeds, two or more.
        reference: another PSR map of this brain to compare with: measured, or of another time.
        suggest: find lesions on the FLAIR instead of taking a mask; every output says that they are a suggestion.
        unchecked: ``lesions`` is itself a suggestion that no person has checked; every output says so.
        already_aligned: a measured map lies on the T1w, so do not look whether it does.
        provenance: of a synthesized map that is in memory (``Synthesis.provenance``); a file has it beside it.
        out: folder to write to; None: nothing is written.
        settings: :class:`Settings`, or :class:`DEMISTCore.regions.RegionSettings` for the regions alone.
        any_brain_volume: a person says that a volume that no brain has is right; asked for where neither a mask nor the
            map's own outline tells where the brain is, so that it is found on the T1w.
        tsv: write tables as TSV, too.
        overwrite: replace the results of an earlier analysis.
        progress: called with a stage and the share of all work done (0 to 1); may raise to stop, which leaves nothing
            behind.

    Raises:
        InputError: an input, setting or output cannot be used; the sentence says what to do.
    """
    from ..regions import RegionSettings, build_regions

    settings = settings if isinstance(settings, MeasureSettings) else MeasureSettings(regions=settings)
    settings = replace(settings, regions=settings.regions or RegionSettings())
    sources = (psr, lesions, t1w, flair, tissue, brain, uncertainty, samples, reference)
    folder = None if out is None else check_folder(Path(out), overwrite, sources)
    clock = Clock(progress, STATISTICS)
    if suggest and lesions is not None:
        raise InputError("Give a lesion mask, or ask for suggested lesions, not both.")
    if suggest and prepared is None and (t1w is None or flair is None):
        raise InputError("Suggesting lesions takes a T1w and a FLAIR image; give --t1w and --flair.")
    if len(samples) == 1:
        raise InputError("The spread from seed to seed needs the maps of two seeds or more; give another one.")

    notes: list[str] = []
    warnings: list[str] = []
    with clock.part("read"):
        psr = checks.read_map(psr, "PSR map")
        origin = checks.origin(psr, provenance)
        made = checks.synthesis(psr, provenance)
        intervals, why = error_bars.find(made)
        if made is not None and intervals is not None and uncertainty is None:
            uncertainty = error_bars.uncertainty_beside(psr, made)
            intervals, why = (intervals, why) if uncertainty is not None else (None, error_bars.NO_MAP)
        _say(notes, [why] if why else [])
        if intervals is not None and (doubt := intervals.calibration.warning(intervals.ood)):
            warnings.append(doubt)
        inputs = {"PSR map": psr}
        maps = {"uncertainty map": uncertainty, "reference map": reference}
        maps |= {f"map of seed {i + 1}": sample for i, sample in enumerate(samples)}
        for name, source in maps.items():
            if source is not None:
                inputs[name] = checks.read_map(source, name)
        for name, source in {"T1w": t1w, "FLAIR": flair}.items():
            if source is not None:
                inputs[name] = as_volume(source, name)
        masks = _read_masks({"lesion mask": lesions, "tissue map": tissue, "brain mask": brain}, notes)
        masks = {name: mask.aligned_with(psr) for name, mask in masks.items()}
        inputs |= masks
        # What was wrong with the images is wrong with what was measured on the map made of them.
        warnings += (origin or {}).get("warnings", ())
        warnings += [sentence for volume in inputs.values() for sentence in volume.warnings]
        label = psr.path or "The PSR map"
        if origin is None and "T1w" in inputs and not already_aligned:
            off = off_by(psr, inputs["T1w"])
            warnings += [] if off is None else [off]
        _say(notes, warnings)
        aligned = {name: _to_grid(inputs[name], psr, name, notes) for name in maps if name in inputs}

    with clock.part("regions"):
        brain_mask = masks.get("brain mask") or _brain(psr)
        regions = build_regions(
            psr,
            lesion_mask=masks.get("lesion mask"),
            tissue=masks.get("tissue map"),
            t1w=inputs.get("T1w"),
            flair=inputs.get("FLAIR"),
            brain=brain_mask,
            prepared=prepared,
            suggest=suggest,
            unchecked=unchecked,
            settings=settings.regions,
            flair_place=checks.flair_place(origin),
            any_brain_volume=any_brain_volume,
        )
        notes += regions.notes
        for key in ("nawm", "white_matter"):
            if key in regions.masks:
                values = psr.array[(regions.masks[key].array > 0) & np.isfinite(psr.array)]
                if values.size:
                    checks.check_fraction(float(np.median(values)), str(label))

    with clock.part("table"):
        seeds = [aligned[name] for name in maps if name.startswith("map of seed")]
        table = region_table(psr, regions, aligned.get("uncertainty map"), seeds, intervals)
        _say(notes, _about_rows(table))
    with clock.part("curves"):
        declined = _why_no_roc(regions, masks.get("lesion mask"), suggest)
        found = (
            []
            if declined
            else contrasts(
                psr, regions, samples=seeds, block_mm=settings.block_mm, patches_per_lesion=settings.patches_per_lesion
            )
        )
        _say(notes, [sentence for contrast in found for sentence in contrast.notes])
        if found and not any(contrast.voxel for contrast in found):
            declined = "No ROC curve could be made: " + " ".join(found[0].notes)
    comparison = None
    if "reference map" in aligned:
        with clock.part("comparison"):
            comparison = compare(psr, aligned["reference map"], regions, block_mm=settings.block_mm)
            _say(notes, comparison.notes)
    known = "map" if uncertainty is not None else "none"
    kind = "calibrated" if intervals is not None else "seeds" if seeds else known
    analysis = Analysis(
        psr,
        regions,
        table,
        found,
        declined,
        comparison,
        kind,
        tuple(dict.fromkeys(notes)),
        checks.statement(origin),
        origin,
        {name: checks.identity(volume) for name, volume in inputs.items()},
        settings,
        clock.seconds,
        intervals=None if intervals is None else intervals.summary(),
        warnings=tuple(dict.fromkeys(warnings)),
    )
    if folder is not None:
        with clock.part("write"):
            write(analysis, folder, aligned.get("reference map"), find_backdrop(psr, inputs, prepared), tsv)
    clock.end()
    return analysis


def _read_masks(sources: dict[str, Source | None], notes: list[str]) -> dict[str, Volume]:
    from ..regions import read_mask

    given = {name: source for name, source in sources.items() if source is not None}
    return {
        name: as_volume(source, name) if name == "tissue map" else read_mask(source, name, notes)
        for name, source in given.items()
    }


def _to_grid(volume: Volume, psr: Volume, name: str, notes: list[str]) -> Volume:
    """A map on the PSR map's grid, interpolated linearly if it must be, with a note."""
    if volume.grid.same_as(psr.grid):
        return volume
    _say(notes, [f"{volume.path or f'The {name}'} was resampled to the PSR map's grid (linear)."])
    resampled = volume.resampled_to(psr, fill=np.nan)
    if not np.isfinite(resampled.array).any():
        raise InputError(
            f"{volume.path or f'The {name}'} does not overlap the PSR map; give a {name} in the same space."
        )
    return resampled


def _brain(psr: Volume) -> Volume | None:
    """Where the map is not background, uint8; None if no background was set to 0: then it says nothing of the brain."""
    background = ~np.isfinite(psr.array) | (psr.array == 0)
    return None if background.mean() < 0.05 else psr.with_array(checks.support(psr).astype(np.uint8))


def _say(notes: list[str], sentences: Sequence[str]) -> None:
    """Keep sentences for the outputs, and log them."""
    for sentence in sentences:
        log.info("%s", sentence)
        notes.append(sentence)


def _about_rows(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What a reader should know of regions that are hardly there."""
    notes = []
    for row in rows:
        if row["lesion"] is not None:
            continue
        if row["missing"] == row["voxels"]:
            notes.append(f"{row['name']}: no voxel has a finite PSR value, so there are no numbers for it.")
        elif row["voxels"] - row["missing"] == 1:
            notes.append(f"{row['name']}: one voxel only, so there is no standard deviation.")
        elif row["missing"]:
            notes.append(f"{row['name']}: {row['missing']} of {row['voxels']} voxels without finite PSR were left out.")
    return notes


def _why_no_roc(regions: Regions, mask: Volume | None, suggest: bool) -> str | None:
    """The sentence that declines ROC curves, else None."""
    if regions.lesions is None or not regions.lesions.count:
        if mask is not None and (mask.array > 0).any():
            return (
                f"All lesions of {mask.path or 'the lesion mask'} are smaller than the smallest volume chosen, so "
                "there is no ROC curve; lower --min-lesion."
            )
        if mask is not None:
            return f"{mask.path or 'The lesion mask'} holds no lesion, so there is no ROC curve: nothing to tell apart."
        if suggest:
            return "No lesion was found on the FLAIR, so there is no ROC curve: nothing to tell apart."
        return "No lesions were given, so there is no ROC curve; give a lesion mask, or ask for suggested lesions."
    if not any(key.startswith("nawm") for key in regions.masks):
        return "There is no NAWM, so there is no ROC curve; give a T1w image or a tissue map to find white matter."
    return None


def find_backdrop(psr: Volume, inputs: dict[str, Volume], prepared: Prepared | None) -> tuple[str, Volume] | None:
    """What lesions are drawn on: a FLAIR that is known to be aligned, else the T1w, else the FLAIR as it is."""
    if prepared is not None:
        return "FLAIR", prepared.flair.resampled_to(psr)
    flair = inputs.get("FLAIR")
    if flair is not None and flair.grid.same_as(psr.grid):
        return "FLAIR", flair
    for name in ("T1w", "FLAIR"):
        if name in inputs:
            return name, inputs[name].resampled_to(psr)
    return None
