"""What a run has made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..Nodes.Origin import howMade

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode


@dataclass
class Result:
    """Nodes in the scene, and where they came from.

    Attributes:
        kind: ``synthesis``, ``regions``, ``brain_ldm``, ``simulate`` or ``dicom``.
        psr: PSR volume node (synthesis, simulate: the true one).
        uncertainty: standard deviation of the error as the model predicts it, or over seeds, as
            ``provenance["uncertainty"]`` says; None if there is none.
        t1w, flair: volume nodes (brain_ldm, simulate).
        segmentation: segmentation node (regions, simulate: the true lesions).
        provenance: bundle, seeds, settings, inputs; what the nodes carry as an attribute, too.
        notes: plain sentences for the user: warnings of the preparation, what was suggested or left out.
        files: what was written, by kind (dicom).
        sanity: ``mean``, ``low`` and ``high`` of the map by region (``nawm``, ``grey_matter``), where it was asked for.
        seconds: from the call to the result.
        samplingAfter: seconds from the worker taking the job to its first sampling step; None if it does not sample.
    """

    kind: str
    psr: vtkMRMLScalarVolumeNode | None = None
    uncertainty: vtkMRMLScalarVolumeNode | None = None
    t1w: vtkMRMLScalarVolumeNode | None = None
    flair: vtkMRMLScalarVolumeNode | None = None
    segmentation: vtkMRMLSegmentationNode | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    sanity: dict[str, dict[str, float | None]] = field(default_factory=dict)
    seconds: float = 0.0
    samplingAfter: float | None = None

    @property
    def how(self) -> str:
        """How the map was made: "mean", or "4 samples"."""
        return howMade(self.provenance)
