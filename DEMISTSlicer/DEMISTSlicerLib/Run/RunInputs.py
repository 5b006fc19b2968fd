"""The volumes that a run is given: checked, written for the worker, known again."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer

from ..I18n import _
from ..RunError import RunError
from .Exchange import writeNode

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode, vtkMRMLVolumeNode

#: Keys that volumes have in a request, and what people call them.
NAMES = {
    "psr": _("PSR map"),
    "lesions": _("lesion mask"),
    "t1w": "T1w",
    "flair": "FLAIR",
    "brain_mask": _("brain mask"),
    "uncertainty": _("uncertainty map"),
    "reference": _("reference map"),
    "nawm_proximal": _("proximal NAWM"),
    "nawm_distal": _("distal NAWM"),
}


@dataclass(frozen=True)
class RunInputs:
    """Volume and segmentation nodes by their keys in the request.

    Attributes:
        nodes: node, or None where none was chosen, by key of :data:`NAMES`.
        segments: ID of the segment that is meant, by key, where it is not all lesions of a segmentation.
        frame: node in whose space the places of all are told; segmentations become masks on its grid.
    """

    nodes: Mapping[str, Any] = field(default_factory=dict)
    frame: Any = None
    segments: Mapping[str, str] = field(default_factory=dict)

    @property
    def given(self) -> list[tuple[str, Any]]:
        """(key, node) of those that were chosen."""
        return [(key, node) for key, node in self.nodes.items() if node is not None]

    def check(self, *required: str) -> None:
        """Refuse what cannot be used.

        Args:
            required: keys of those that there must be.

        Raises:
            RunError: see :func:`checkVolume`; or T1w and FLAIR are the same.
        """
        for key, node in self.nodes.items():
            if node is not None or key in required:
                checkVolume(node, NAMES[key])
        t1 = self.nodes.get("t1w")
        if t1 is not None and t1 is self.nodes.get("flair"):
            raise RunError("input", _("T1w and FLAIR are the same volume; choose two."))

    def checkOutputs(self, outputs: Mapping[str, Any]) -> None:
        """Refuse to write into what is chosen for something else.

        Args:
            outputs: node or None by what people call it.

        Raises:
            RunError: one is among the inputs, or twice among the outputs.
        """
        chosen = [node for _key, node in self.given]
        for name, node in outputs.items():
            if node is None:
                continue
            if any(node is other for other in chosen):
                raise RunError(
                    "input",
                    _("The {name} {called} is chosen for something else already; choose another or a new one.").format(
                        name=name, called=node.GetName()
                    ),
                )
            chosen.append(node)

    def fingerprint(self) -> tuple[Any, ...]:
        """What changes when the images or their places do."""
        return tuple(
            (key, node.GetID(), node.GetImageData().GetMTime() if node.IsA("vtkMRMLVolumeNode") else node.GetMTime())
            for key, node in self.given
        )

    def write(self, folder: Path) -> Generator[None, None, dict[str, Any]]:
        """Write all of them into ``folder``, slab by slab; the value is their references by key."""
        told = {}
        for key, node in self.given:
            segment = self.segments.get(key)
            told[key] = yield from writeNode(node, folder, key, self.frame, self.drawnOn(node), segment)
        return told

    def drawnOn(self, node: vtkMRMLVolumeNode | vtkMRMLSegmentationNode) -> Any:
        """The volume whose grid a segmentation is written on: the FLAIR, if it was drawn on that, else the frame.

        A mask on the FLAIR's grid goes where registration takes the FLAIR; on the frame's it would stay behind.
        """
        flair = self.nodes.get("flair")
        if flair is None or not node.IsA("vtkMRMLSegmentationNode"):
            return self.frame
        role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
        return flair if node.GetNodeReference(role) is flair else self.frame


def checkVolume(node: vtkMRMLVolumeNode | vtkMRMLSegmentationNode | None, name: str) -> None:
    """Refuse what is no 3-D volume of grey values in the scene, or lies under a non-linear transform.

    Args:
        node: what was chosen as ``name`` ("T1w"); segmentations pass, their place is checked all the same.
        name: what people call it.

    Raises:
        RunError: the sentence says what to do.
    """
    if node is None:
        raise RunError("input", _("No {name} is chosen; choose one.").format(name=name))
    if not hasattr(node, "GetParentTransformNode"):
        raise RunError("input", _("The {name} is no volume; choose a volume.").format(name=name))
    called = f"{name} {node.GetName()}"
    if node.GetScene() is None:
        raise RunError("input", _("The {called} is not in the scene any more; choose another.").format(called=called))
    transform = node.GetParentTransformNode()
    if transform is not None and not transform.IsTransformToWorldLinear():
        raise RunError(
            "input",
            _(
                "The {called} is under the non-linear transform {transform}; harden the transform on a copy of the "
                "volume, or take the volume out of it."
            ).format(called=called, transform=transform.GetName()),
        )
    if node.IsA("vtkMRMLSegmentationNode"):
        if node.GetSegmentation().GetNumberOfSegments() == 0:
            raise RunError("input", _("The {called} has no segment; draw one first.").format(called=called))
        return
    if not node.IsA("vtkMRMLScalarVolumeNode"):
        raise RunError("input", _("The {called} is no volume; choose a volume.").format(called=called))
    image = node.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None or not image.GetNumberOfPoints():
        raise RunError("input", _("The {called} holds no image; load it again.").format(called=called))
    if image.GetNumberOfScalarComponents() != 1:
        raise RunError("input", _("The {called} is a colour image; choose one of grey values.").format(called=called))
    if min(image.GetDimensions()) < 2:
        raise RunError("input", _("The {called} is a single slice; choose a 3-D volume.").format(called=called))
