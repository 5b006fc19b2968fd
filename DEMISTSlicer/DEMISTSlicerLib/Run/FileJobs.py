"""Runs whose results are files: the scene stays as it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from ..Nodes import Placement, Tables, Volumes
from ..Nodes.Inputs import dicomFiles
from ..Nodes.Segmentation import isSuggested, regionSegments
from . import Arguments, ResultNodes
from .Arguments import wholePath
from .Batch import Batch
from .Callbacks import Callbacks
from .Job import Job
from .Result import Result
from .RunInputs import RunInputs
from .Runs import Runs
from .StatisticsNodes import StatisticsNodes
from .Task import Task
from .Visits import STATISTICS
from .Worker import Worker

if TYPE_CHECKING:
    from slicer import vtkMRMLLabelMapVolumeNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLTableNode

    from DEMISTCore.options import SynthesisOptions


class FileJobs:
    """What the logic can do beside making nodes; see :class:`.Logic.DEMISTSlicerLogic`, which inherits it."""

    _runs: Runs
    _worker: Worker
    _statistics: StatisticsNodes
    synthesize: Callable[..., Any]

    def batch(self, items: Any, **options: Any) -> list[Any]:
        """Synthesize many: pairs of volume nodes, pairs of files, or a folder; see :class:`.Batch.Batch`."""
        return Batch(self.synthesize, self.synthesizeFile).run(items, **options)

    def synthesizeFile(
        self,
        t1: str | os.PathLike[str],
        flair: str | os.PathLike[str],
        out: str | os.PathLike[str],
        options: SynthesisOptions | None = None,
        *,
        overwrite: bool = False,
        brainMask: str | os.PathLike[str] | None = None,
        wait: bool = True,
        onProgress: Callable[..., Any] | None = None,
        onDone: Callable[[Result], Any] | None = None,
        onError: Callable[[str, str], Any] | None = None,
        **given: Any,
    ) -> Result | Job:
        """Synthesize from files to a file, with sidecar and uncertainty beside it; the scene stays as it is.

        Args:
            t1, flair, brainMask: image files.
            out: PSR map to write.
            options, given: as in :meth:`synthesize`; without ``protocol`` the JSON files beside the images are read.
            overwrite: replace it.
            wait, onProgress, onDone, onError: see :meth:`synthesize`.
        """
        self._runs.checkIdle()
        request = {
            "do": "synthesize",
            "out": wholePath(out),
            "overwrite": overwrite,
            **Arguments.options(given, options).request(),
            "t1w": {"file": wholePath(t1)},
            "flair": {"file": wholePath(flair)},
        }
        if brainMask is not None:
            request["brain_mask"] = {"file": wholePath(brainMask)}

        def make(message: dict[str, Any]) -> Generator[Any, None, Result]:
            self._worker.remember(None)
            return (yield from ResultNodes.makeFiles(message))

        return self._runs.run(Task(request, make), wait, Callbacks(onProgress, onDone, onError))

    def exportDicom(
        self,
        psr: vtkMRMLScalarVolumeNode,
        folder: str | os.PathLike[str],
        lesions: vtkMRMLSegmentationNode | vtkMRMLLabelMapVolumeNode | None = None,
        uncertainty: vtkMRMLScalarVolumeNode | None = None,
        table: vtkMRMLTableNode | None = None,
        wait: bool = True,
        onDone: Callable[[Result], Any] | None = None,
        onError: Callable[[str, str], Any] | None = None,
    ) -> Result | Job:
        """Write a map as DICOM: Parametric Map, its uncertainty too, lesions as Segmentation; see DEMISTCore.dicom.

        With the statistics ``table`` of this map, lesions and NAWM are those that were measured, and the table becomes
        a Structured Report (TID 1500) about them; not if the regions were edited since.

        They belong to patient and study of the T1w, if that came from Slicer's DICOM database. ``result.files`` tells
        what was written into ``folder``; existing files of these names are replaced.
        """
        self._runs.checkIdle()
        uncertainty = Volumes.uncertaintyOf(psr) if uncertainty is None else uncertainty
        nodes, segments = {"psr": psr, "uncertainty": uncertainty, "lesions": lesions}, {}
        rows, regions = _measured(table, psr)
        if regions is not None and self._statistics.isEdited(regions):
            rows = []  # the numbers are no longer those of the regions
        for region, segment in regionSegments(regions).items() if rows else ():
            key = "lesions" if region == "lesion" else region
            nodes[key], segments[key] = regions, segment
        inputs = RunInputs(nodes, frame=psr, segments=segments)
        inputs.check("psr")
        t1 = Volumes.t1wOf(psr)
        request = {
            "do": "dicom",
            "out": wholePath(folder),
            "series": dicomFiles(t1) or dicomFiles(psr) or None,
            "unchecked": isSuggested(nodes["lesions"]),
            "provenance": Volumes.provenanceOf(psr) or None,
            "rows": rows or None,
        }
        return self._runs.run(Task(request, ResultNodes.makeDicom, inputs), wait, Callbacks(None, onDone, onError))


def _measured(table: vtkMRMLTableNode | None, psr: vtkMRMLScalarVolumeNode) -> tuple[list[dict[str, Any]], Any]:
    """Rows of the statistics of a map and the segmentation of its regions; nothing of another map's table."""
    if table is None or table.GetAttribute("DEMIST.Table") != STATISTICS:
        return [], None
    regions = table.GetNodeReference(Placement.SEGMENTATION_REFERENCE)
    if table.GetNodeReference(Placement.VOLUME_REFERENCE) is not psr or regions is None:
        return [], None
    return Tables.rowsOf(table), regions
