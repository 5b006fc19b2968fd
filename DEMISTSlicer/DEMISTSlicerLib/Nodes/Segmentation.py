"""Lesions and NAWM as a segmentation that can be edited, and segmentations as label arrays on any grid."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from ..Errors import InputError
from ..I18n import _
from ..RegionColors import REGION_COLORS
from . import Placement, Voxels
from .Pieces import atOnce

if TYPE_CHECKING:
    from slicer import (
        vtkMRMLScalarVolumeNode,
        vtkMRMLSegmentationNode,
        vtkOrientedImageData,
        vtkSegment,
        vtkSegmentation,
    )

#: Tag of a segment that says which region of DEMISTCore.regions it is.
REGION_TAG = "DEMIST.Region"
_CONTEXTS = ("Segmentation category and type - DICOM master list", "Anatomic codes - DICOM master list")
_BRAIN = "SCT^12738006^Brain"
_WHITE = "SCT^389080008^White Matter"


@dataclass(frozen=True)
class Style:
    """How a region looks and what it is in SNOMED CT: category, type and modifier as ``scheme^code^meaning``."""

    name: str
    color: str
    category: str
    type: str
    modifier: str = "^^"

    @property
    def rgb(self) -> tuple[float, float, float]:
        """Red, green, blue, 0 to 1."""
        return tuple(int(self.color[i : i + 2], 16) / 255 for i in (1, 3, 5))

    @property
    def terminology(self) -> str:
        """The entry as Slicer's Terminologies module writes it down."""
        kind, where = _CONTEXTS
        return f"{kind}~{self.category}~{self.type}~{self.modifier}~{where}~{_BRAIN}~^^"


#: Regions of the segmentation, in the order of its list. Colors are those of charts and figures (DEMISTCore.colors):
#: told apart on the PSR colors, and by color-blind eyes.
STYLES: dict[str, Style] = {
    "lesion": Style(
        _("Lesions"), REGION_COLORS["lesion"], "SCT^49755003^Morphologically Altered Structure", "SCT^52988006^Lesion"
    ),
    "nawm_proximal": Style(
        _("Proximal NAWM"),
        REGION_COLORS["nawm_proximal"],
        "SCT^123037004^Anatomical Structure",
        _WHITE,
        "SCT^40415009^Proximal",
    ),
    "nawm_distal": Style(
        _("Distal NAWM"),
        REGION_COLORS["nawm_distal"],
        "SCT^123037004^Anatomical Structure",
        _WHITE,
        "SCT^46053002^Distal",
    ),
}


def regionsToSegmentation(
    result: Mapping[str, np.ndarray],
    referenceNode: vtkMRMLScalarVolumeNode,
    node: vtkMRMLSegmentationNode | None = None,
    suggested: bool = False,
    name: str | None = None,
) -> vtkMRMLSegmentationNode:
    """All of :func:`regionPieces` at once."""
    return atOnce(regionPieces(result, referenceNode, node, suggested, name))


def regionPieces(
    result: Mapping[str, np.ndarray],
    referenceNode: vtkMRMLScalarVolumeNode,
    node: vtkMRMLSegmentationNode | None = None,
    suggested: bool = False,
    name: str | None = None,
) -> Generator[bool, None, vtkMRMLSegmentationNode]:
    """Regions as a vtkMRMLSegmentationNode with lesions, proximal and distal NAWM.

    In pieces: what takes long comes before the node is touched, and after it has all of its regions, so that whoever
    stops leaves none half filled.

    Args:
        result: masks (i, j, k), > 0 inside, on the grid of ``referenceNode``, by the names of DEMISTCore.regions; other
            regions than those of :data:`STYLES` are left out.
        referenceNode: the PSR map or T1w whose grid, transform and place in the subject hierarchy are taken.
        node: segmentation to fill: its regions are replaced, segments of the user's own stay. None makes one.
        suggested: the lesions were found by the computer and not checked; name and attribute say so.
        name: None: made from the reference's.

    Returns:
        The node; as the generator's value.

    Raises:
        InputError: a mask lies on another grid.
    """
    shape = Voxels.shapeOf(referenceNode)
    for key in STYLES:
        if key in result and tuple(result[key].shape) != shape:
            raise InputError(
                _("The mask of {region} does not lie on the grid of {name}; compute it again.").format(
                    region=STYLES[key].name, name=referenceNode.GetName()
                )
            )
    affine, images = Voxels.affineOf(referenceNode), {}
    for key in STYLES:
        if result.get(key) is not None:
            images[key] = _cropped(np.asarray(result[key]), affine)
            yield True
    scene = Placement.sceneOf(node, referenceNode)
    if node is None:
        node = slicer.vtkMRMLSegmentationNode()
        node.SetName(scene.GenerateUniqueName(name or _("{name} regions").format(name=referenceNode.GetName())))
        scene.AddNode(node)
    elif name:
        node.SetName(name)
    node.CreateDefaultDisplayNodes()
    segmentation = node.GetSegmentation()
    modifying = node.StartModify()
    segmentation.SetSourceRepresentationName(_binary())
    node.SetReferenceImageGeometryParameterFromVolumeNode(referenceNode)
    node.SetNodeReferenceID(Placement.VOLUME_REFERENCE, referenceNode.GetID())
    Placement.followTransform(node, referenceNode)
    for key, style in STYLES.items():
        _fill(segmentation, key, style, images.get(key), suggested)
    node.SetAttribute(Placement.SUGGESTED, "1" if suggested else "0")
    node.SetDescription(
        _("Lesions are a suggestion from the FLAIR, not drawn or checked by a person.") if suggested else ""
    )
    node.EndModify(modifying)
    Placement.placeBeside(node, referenceNode)
    yield True
    # One label image instead of one for each region; regions that overlap keep their own. Takes 0.1 s for a head.
    segmentation.CollapseBinaryLabelmaps(False)
    return node


def segmentationToLabelmap(
    segmentationNode: vtkMRMLSegmentationNode,
    referenceNode: vtkMRMLScalarVolumeNode,
    segmentIds: Sequence[str] | None = None,
) -> np.ndarray:
    """Segments as labels on the grid of a volume, whatever the segmentation's own grid and both their transforms.

    A voxel gets the label of the segment that its centre lies in; where segments overlap, of the last one.

    Args:
        segmentationNode: the segmentation.
        referenceNode: volume whose grid is wanted: any orientation and spacing, sheared ones excepted.
        segmentIds: None: those with lesions, see :func:`lesionSegments`.

    Returns:
        (i, j, k) uint8 (uint16 beyond 255 segments): 0, or 1 + the place of the segment in ``segmentIds``.

    Raises:
        InputError: there is no such segment, the volume has no image, or is under a non-linear transform.
    """
    known = _ids(segmentationNode.GetSegmentation())
    wanted = lesionSegments(segmentationNode) if segmentIds is None else list(segmentIds)
    for segmentId in wanted:
        if segmentId not in known:
            raise InputError(
                _("{name} has no segment {id}; choose another.").format(name=segmentationNode.GetName(), id=segmentId)
            )
    shape = Voxels.shapeOf(referenceNode)
    if not all(shape):
        raise InputError(_("{name} holds no image; load it again.").format(name=referenceNode.GetName()))
    grid = _emptyGrid(shape, Voxels.worldAffine(referenceNode))
    labels = np.zeros(shape, np.uint8 if len(wanted) < 256 else np.uint16)
    source = _withLabelmaps(segmentationNode, grid)
    for index, segmentId in enumerate(wanted, start=1):
        labels[_segmentOnGrid(source, segmentId, grid)] = index
    return labels


def regionSegments(segmentationNode: vtkMRMLSegmentationNode | None) -> dict[str, str]:
    """IDs of the segments that this module made, by region."""
    segmentation = None if segmentationNode is None else segmentationNode.GetSegmentation()
    found = {} if segmentation is None else {regionOf(segmentation.GetSegment(i)): i for i in _ids(segmentation)}
    return {key: found[key] for key in STYLES if key in found}


def lesionSegments(segmentationNode: vtkMRMLSegmentationNode) -> list[str]:
    """The segments that hold lesions: those marked by DEMIST or named so; in any other segmentation, all of them."""
    segmentation = segmentationNode.GetSegmentation()
    ids = _ids(segmentation)
    marked = [i for i in ids if regionOf(segmentation.GetSegment(i)) == "lesion"]
    return marked or [i for i in ids if "lesion" in segmentation.GetSegment(i).GetName().lower()] or ids


def isSuggested(segmentationNode: vtkMRMLSegmentationNode | None) -> bool:
    """Whether its lesions are a suggestion, edited or not, until :func:`acceptSuggestion` says otherwise."""
    return segmentationNode is not None and segmentationNode.GetAttribute(Placement.SUGGESTED) == "1"


def acceptSuggestion(segmentationNode: vtkMRMLSegmentationNode) -> None:
    """The user has checked and corrected the suggested lesions: take the mark off."""
    segmentationNode.SetAttribute(Placement.SUGGESTED, "0")
    segmentationNode.SetDescription("")
    segmentation = segmentationNode.GetSegmentation()
    for index in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(index)
        if regionOf(segment) in STYLES:
            segment.SetName(STYLES[regionOf(segment)].name)


def editStamp(segmentationNode: vtkMRMLSegmentationNode) -> tuple[int, ...]:
    """Changes whenever voxels of a segment do, or segments come and go; means nothing in another session."""
    segmentation = segmentationNode.GetSegmentation()
    images = (segmentation.GetSegment(name).GetRepresentation(_binary()) for name in _ids(segmentation))
    return tuple(0 if image is None else image.GetMTime() for image in images)


def regionOf(segment: vtkSegment) -> str:
    """The region of DEMISTCore.regions that a segment is, or an empty text."""
    value = vtk.reference("")
    return str(value) if segment.GetTag(REGION_TAG, value) else ""


# --- parts --------------------------------------------------------------------------------------------------------


def _fill(
    segmentation: vtkSegmentation, key: str, style: Style, image: vtkOrientedImageData | None, suggested: bool
) -> None:
    """Replace or add one region's segment; without an image, take it away."""
    existing = next((i for i in _ids(segmentation) if regionOf(segmentation.GetSegment(i)) == key), None)
    if image is None:
        if existing is not None:
            segmentation.RemoveSegment(existing)
        return
    name = _("{region} (suggested)").format(region=style.name) if suggested and key == "lesion" else style.name
    if existing is not None:
        # The colour may be the user's own by now, so it stays.
        segment = segmentation.GetSegment(existing)
        if segmentation.IsSharedBinaryLabelmap(existing):
            segmentation.SeparateSegmentLabelmap(existing)
        segment.SetName(name)
        segment.SetLabelValue(1)
        segment.AddRepresentation(_binary(), image)
        segment.Modified()
        return
    segment = slicer.vtkSegment()
    segment.SetName(name)
    segment.SetColor(*style.rgb)
    segment.SetTerminology(style.terminology)
    segment.SetTag(REGION_TAG, key)
    segment.AddRepresentation(_binary(), image)
    segmentation.AddSegment(segment, key)


def _cropped(mask: np.ndarray, affine: np.ndarray) -> Any:
    """The mask's bounding box as vtkOrientedImageData: most of a head is outside, and every voxel costs time.

    An empty mask gives one empty voxel.
    """
    box = []
    for axis in range(3):
        there = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append((int(there[0]), int(there[-1]) + 1) if there.size else (0, 1))
    image = Voxels.imageFromArray(mask[tuple(slice(*b) for b in box)] > 0)
    image.SetExtent(*(v for low, high in box for v in (low, high - 1)))
    return Voxels.orientedImage(image, affine)


def _segmentOnGrid(source: vtkMRMLSegmentationNode, segmentId: str, grid: vtkOrientedImageData) -> np.ndarray:
    """Voxels (i, j, k) bool of ``grid``, which lies in the world, whose centre lies in the segment."""
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    image = slicer.vtkOrientedImageData()
    if not logic.GetSegmentBinaryLabelmapRepresentation(source, segmentId, image, True) or image.IsEmpty():
        return np.zeros(grid.GetDimensions(), bool)
    onGrid = slicer.vtkOrientedImageData()
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(image, grid, onGrid, False)
    labels = vtk_to_numpy(onGrid.GetPointData().GetScalars()).reshape(grid.GetDimensions()[::-1]).T
    # Segments that do not overlap share one image; the segment's own label tells them apart.
    return labels == source.GetSegmentation().GetSegment(segmentId).GetLabelValue()


def _withLabelmaps(segmentationNode: vtkMRMLSegmentationNode, grid: vtkOrientedImageData) -> vtkMRMLSegmentationNode:
    """The segmentation, or a copy with label images if it is made of surfaces only; the original is not changed."""
    if segmentationNode.GetSegmentation().ContainsRepresentation(_binary()):
        return segmentationNode
    if not segmentationNode.GetSegmentation().GetNumberOfSegments():
        return segmentationNode
    copy = slicer.vtkMRMLSegmentationNode()
    segmentation = slicer.vtkSegmentation()
    segmentation.DeepCopy(segmentationNode.GetSegmentation())
    copy.SetAndObserveSegmentation(segmentation)
    if segmentationNode.GetParentTransformNode() is not None:
        copy.SetScene(segmentationNode.GetScene())
        copy.SetAndObserveTransformNodeID(segmentationNode.GetTransformNodeID())
    geometry = slicer.vtkSegmentationConverter.SerializeImageGeometry(grid)
    segmentation.SetConversionParameter("Reference image geometry", geometry)
    if not segmentation.CreateRepresentation(_binary()):
        raise InputError(
            _("{name} cannot be turned into voxels; draw its segments again.").format(name=segmentationNode.GetName())
        )
    return copy


def _emptyGrid(shape: tuple[int, int, int], affine: np.ndarray) -> Any:
    image = vtk.vtkImageData()
    image.SetDimensions(*shape)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    image.GetPointData().GetScalars().Fill(0)
    return Voxels.orientedImage(image, affine)


def _ids(segmentation: vtkSegmentation) -> list[str]:
    return [segmentation.GetNthSegmentID(i) for i in range(segmentation.GetNumberOfSegments())]


def _binary() -> str:
    return slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
