"""The files of an analysis: tables, figures, region masks and statistics.json, all of them written or none."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..commit import staging
from ..errors import InputError
from ..files import write_json
from ..guards import protect_files
from ..volume import Volume, check_writable
from .comparison import COLUMNS as COMPARISON_COLUMNS
from .report import Analysis
from .table import write_table

#: Every file that an analysis may write.
OUTPUTS = (
    "regions.csv",
    "regions.tsv",
    "statistics.json",
    "roc.png",
    "boxes.png",
    "overlay.png",
    "comparison.csv",
    "comparison.tsv",
    "bland_altman.png",
    "regions_dseg.nii.gz",
    "regions_dseg.tsv",
    "regions_dseg.json",
    "lesions_dseg.nii.gz",
)


def check_folder(out: Path, overwrite: bool, inputs: Iterable[Any] = ()) -> Path:
    """``out``, unless it is a file, cannot be written to, or holds results that may not be replaced, or an input.

    Raises:
        InputError: one of these.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; give a folder (--out).")
    protect_files({name: out / name for name in OUTPUTS}, inputs)
    for name in OUTPUTS:
        check_writable(out / name, overwrite=overwrite)
    return out


def write(
    analysis: Analysis, out: Path, reference: Volume | None, backdrop: tuple[str, Volume] | None, tsv: bool
) -> None:
    """Write everything into a hidden folder beside the results, then move it into place, all together or not at all.

    Args:
        analysis: its ``files`` are filled in.
        out: folder, made if it is not there.
        reference: the map that it was compared with, on its grid.
        backdrop: what lesions are drawn on, by name.
        tsv: write tables as TSV, too.

    Raises:
        InputError: the folder cannot be written to.
    """
    earlier: list[Path] = []
    try:
        with staging(out, remove=earlier) as (hidden,):
            files = _draw_and_write(analysis, hidden, reference, backdrop, tsv)
            analysis.files.update({kind: out / path.name for kind, path in files.items()})
            analysis.files["json"] = out / "statistics.json"
            write_json(hidden / "statistics.json", analysis.summary())
            written = {path.name for path in hidden.iterdir()}
            earlier += [out / name for name in OUTPUTS if name not in written]
    except BaseException:
        analysis.files.clear()
        raise


def _draw_and_write(
    analysis: Analysis, folder: Path, reference: Volume | None, backdrop: tuple[str, Volume] | None, tsv: bool
) -> dict[str, Path]:
    from ..preview import save_figure
    from ..regions import write_regions
    from . import figures

    psr, regions = analysis.psr, analysis.regions
    footer = analysis.statement
    if regions.lesions is not None and regions.lesions.suggested:
        footer = f"{regions.lesions.note} {footer}"
    source = Path(psr.path).name if psr.path else "PSR map"
    files = {"table": write_table(folder / "regions.csv", analysis.table)}
    if tsv:
        files["table (TSV)"] = write_table(folder / "regions.tsv", analysis.table)
    if any(contrast.voxel or contrast.lesion for contrast in analysis.contrasts):
        suggested = regions.lesions is not None and regions.lesions.suggested
        figure = figures.roc_figure(
            analysis.contrasts, suggested=suggested, title=f"Lesions against NAWM by PSR: {source}", footer=footer
        )
        files["ROC curves"] = save_figure(figure, folder / "roc.png")
    if any(row["lesion"] is None and np.isfinite(row["median"]) for row in analysis.table):
        figure = figures.box_figure(analysis.table, title=f"PSR by region: {source}", footer=footer)
        files["box plots"] = save_figure(figure, folder / "boxes.png")
    figure = figures.overlay_figure(psr, regions, backdrop=backdrop, title=source, footer=footer)
    files["overlay"] = save_figure(figure, folder / "overlay.png")
    if analysis.comparison is not None and reference is not None:
        rows, columns = analysis.comparison.regions, tuple(COMPARISON_COLUMNS)
        files["comparison"] = write_table(folder / "comparison.csv", rows, columns)
        if tsv:
            files["comparison (TSV)"] = write_table(folder / "comparison.tsv", rows, columns)
        where = np.zeros(psr.shape, bool)
        for mask in regions.masks.values():
            where |= mask.array > 0
        figure = figures.bland_altman_figure(
            psr, reference, analysis.comparison, where, title=f"{source} minus reference", footer=footer
        )
        files["Bland-Altman"] = save_figure(figure, folder / "bland_altman.png")
    kinds = {"regions_dseg.nii.gz": "region masks", "lesions_dseg.nii.gz": "lesion numbers"}
    files |= {kinds[path.name]: path for path in write_regions(regions, folder) if path.name in kinds}
    return files
