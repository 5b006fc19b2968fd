"""The pictures of docs/slicer.md that show MRML: Slicer's own slice views, off screen, and charts.

    python benchmarks/slicer_pictures.py --t1w T1w.nii.gz --psr out/psr.nii.gz --statistics stats --out docs/images

``out`` holds what ``python -m DEMISTCore.synthesize --uncertainty`` wrote, ``stats`` what ``-m DEMISTCore.statistics``
wrote for it. Needs the extra ``test`` (slicer-core, trame-slicer).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "Testing"))

import slicer_views  # isort: skip  # puts slicer in place

import slicer
from DEMISTSlicerLib.Nodes import Charts, Segmentation, Tables, Volumes
from DEMISTSlicerLib.Views import Jump, Note, Overlay
from PIL import Image, ImageDraw, ImageFont
from slicer_plots import draw

from DEMISTCore.preview import UNCERTAINTY_LIMITS
from DEMISTCore.regions.write import LABELS
from DEMISTCore.statistics.table import COLUMNS
from DEMISTCore.volume import Volume


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("t1w", "psr", "statistics", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--size", type=int, default=360, help="edge of one slice view in pixels")
    parser.add_argument("--lesion", type=int, help="number of the lesion that the views show (default: the largest)")
    told = parser.parse_args()
    slicer_views.SIZE = told.size
    slicer_views.fresh()
    views = slicer_views.views()

    t1w = Volume.read(told.t1w)
    t1 = slicer_views.volume(t1w.array.astype(np.float32), t1w.affine, "T1w")
    t1.GetDisplayNode().AutoWindowLevelOff()
    inside = t1w.array[t1w.array > 0.05 * t1w.array.max()]
    t1.GetDisplayNode().SetWindowLevelMinMax(0, float(np.percentile(inside, 99.7)))
    provenance = json.loads(told.psr.with_name("psr.json").read_text())
    psr = Volumes.createPsrVolume(t1, Volume.read(told.psr).array, None, provenance)
    spread = Volume.read(told.psr.with_name("psr_uncertainty.nii.gz")).array
    Volumes.createPsrVolume(t1, spread, None, provenance, uncertainty=True, psrNode=psr)
    summary = json.loads((told.statistics / "statistics.json").read_text())
    numbers = Volume.read(told.statistics / "lesions_dseg.nii.gz")
    table = Tables.statisticsTable(
        summary["regions"], COLUMNS, positions=Jump.lesionPositions(numbers.array, numbers.affine), volumeNode=psr
    )
    overlay = Overlay.Overlay()
    overlay._note = Note.Note(lambda: [(renderer(view), view.get_view_node()) for view in views.values()])
    lesions = [row for row in summary["regions"] if row["lesion"] is not None]
    largest = max(lesions, key=lambda row: row["volume_ml"])["lesion"]
    point = Jump.jumpToLesion(told.lesion or int(largest), table, centre=False)

    def row(heading: str) -> np.ndarray:
        return np.concatenate(
            [titled(slicer_views.picture(v), heading if not k else "") for k, v in enumerate(views.values())], 1
        )

    for view in views.values():
        view.set_background_volume_id(t1.GetID())
        view.fit_view_to_content()
    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *point, slicer.vtkMRMLSliceNode.OffsetJumpSlice)
    overlay.show(psr, t1, 0.65)
    rows = [row("PSR over T1w")]
    overlay.setView("uncertainty")
    rows.append(row(f"Uncertainty, 0 to {UNCERTAINTY_LIMITS[1]:g}"))
    save(np.concatenate(rows), told.out / "slicer_overlay.png")

    overlay.setView("psr")
    labels = Volume.read(told.statistics / "regions_dseg.nii.gz").array
    keys = {key: index for index, (key, _name) in LABELS.items()}
    masks = {key: labels == keys[key] for key in Segmentation.STYLES}
    masks["lesion"] = numbers.array > 0
    regions = Segmentation.regionsToSegmentation(masks, psr)
    regions.GetDisplayNode().SetOpacity2DFill(0.0)
    regions.GetDisplayNode().SetOpacity2DOutline(1.0)
    regions.GetDisplayNode().SetSliceIntersectionThickness(2)
    save(row("Lesions, proximal and distal NAWM"), told.out / "slicer_regions.png")
    charts = [Charts.rocChart(summary), Charts.boxPlotChart(table)]
    save(np.concatenate([draw(chart, (800, 600)) for chart in charts], 1), told.out / "slicer_charts.png")


def renderer(view: object) -> object:
    """What a view draws slices into; there is no layout manager to ask."""
    return view.render_window().GetRenderers().GetItemAsObject(0)


def titled(image: np.ndarray, text: str) -> np.ndarray:
    """The picture with a heading in its upper left corner."""
    picture = Image.fromarray(image)
    if text:
        ImageDraw.Draw(picture).text((8, 6), text, fill="white", font=ImageFont.load_default(20))
    return np.asarray(picture)


def save(image: np.ndarray, path: Path) -> None:
    """As PNG."""
    Image.fromarray(image).save(path, optimize=True)
    print(path, image.shape)


if __name__ == "__main__":
    main()
