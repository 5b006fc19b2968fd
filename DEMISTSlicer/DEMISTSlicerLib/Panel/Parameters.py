"""What the user chose, kept in the scene: saved and restored with it."""

from typing import Annotated, Union

from slicer import (
    vtkMRMLLabelMapVolumeNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLTableNode,
)
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

# No ``from __future__ import annotations`` and no ``X | Y``: the wrapper reads the types themselves. A union of nodes
# must name None, or Slicer refuses to store that nothing is chosen.


@parameterNodeWrapper
class DEMISTParameters:
    """Parameters of the module.

    Distances in mm: NAWM is farther than ``gapMm`` from lesions; proximal NAWM not farther than ``proximalMm``; distal
    NAWM farther than ``distalMm``; all of it farther than ``depthMm`` from other tissue. Defaults
    are those of DEMISTCore.regions.RegionSettings (a test compares them).
    ``earlierTable`` and ``laterTable`` are the statistics of two visits; ``registered``: they lie over each other.
    ``unit`` is ``fraction`` or ``percent``: how PSR is written for people; volumes and tables hold fractions.
    ``mode`` is ``mean`` or ``sample``; empty for the bundle's own, as ``sampler`` is. The panel sets mode, seeds, steps
    and guidance to what the bundle recommends as soon as there are parameters; what stands here is for a scene without
    any bundle.
    """

    t1: vtkMRMLScalarVolumeNode
    flair: vtkMRMLScalarVolumeNode
    brainMask: Union[vtkMRMLLabelMapVolumeNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, None]  # noqa: UP007
    anyBrainVolume: bool = False
    lesions: Union[vtkMRMLSegmentationNode, vtkMRMLLabelMapVolumeNode, None]  # noqa: UP007

    bundle: str = ""
    device: str = "auto"

    preset: str = "balanced"
    mode: str = ""
    sampler: str = ""
    steps: Annotated[int, WithinRange(1, 1000)] = 8
    seeds: Annotated[int, WithinRange(1, 64)] = 4
    firstSeed: Annotated[int, WithinRange(0, 999999)] = 0
    guidance: Annotated[float, WithinRange(0, 10)] = 1.0

    psr: vtkMRMLScalarVolumeNode
    uncertainty: vtkMRMLScalarVolumeNode
    livePreview: bool = True

    view: str = "psr"
    opacity: Annotated[float, WithinRange(0, 1)] = 0.5
    unit: str = "fraction"

    gapMm: Annotated[float, WithinRange(0, 100)] = 2.0
    proximalMm: Annotated[float, WithinRange(0, 100)] = 6.0
    distalMm: Annotated[float, WithinRange(0, 100)] = 10.0
    depthMm: Annotated[float, WithinRange(0, 100)] = 2.0
    statisticsTable: vtkMRMLTableNode

    earlierTable: vtkMRMLTableNode
    laterTable: vtkMRMLTableNode
    registered: bool = False

    generateBundle: str = ""
    age: Annotated[float, WithinRange(0, 1)] = 0.5
    sex: Annotated[float, WithinRange(0, 1)] = 0.5
    ventricularVolume: Annotated[float, WithinRange(0, 1)] = 0.5
    brainVolume: Annotated[float, WithinRange(0, 1)] = 0.5
    generateSteps: Annotated[int, WithinRange(1, 1000)] = 50
    generateSeed: Annotated[int, WithinRange(0, 999999)] = 0
