"""T1w and FLAIR that belong together, by study: in the scene's subject hierarchy, and in Slicer's DICOM database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import slicer

from ..I18n import _
from . import Placement
from .Inputs import candidates, describe, instanceTags, number, scores

if TYPE_CHECKING:
    from pathlib import Path

    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLScene

#: What is asked of a series' first instance.
_TAGS = {
    "modality": "0008,0060",
    "description": "0008,103E",
    "protocol": "0018,1030",
    "inversion": "0018,0082",
    "echo": "0018,0081",
    "frames": "0028,0008",
    "patient": "0010,0010",
    "date": "0008,0020",
}


@dataclass(frozen=True)
class Study:
    """A pair of images, or why there is none.

    Attributes:
        name: for people: patient and study, or the file's name.
        t1, flair: volume nodes, files, or UIDs of DICOM series; None where there is none.
        images: what the two are called, for people.
        problem: why it cannot be used, in one sentence; empty if it can.
        isDicom: ``t1`` and ``flair`` are series that must be loaded first.
    """

    name: str
    t1: vtkMRMLScalarVolumeNode | Path | str | None = None
    flair: vtkMRMLScalarVolumeNode | Path | str | None = None
    images: str = ""
    problem: str = ""
    isDicom: bool = False


@dataclass(frozen=True)
class Candidate:
    """An image of a study: itself, its name, how much it looks like T1w and FLAIR, and its number of slices."""

    what: Any
    name: str
    looks: tuple[float, float]
    size: int


def chosen(name: str, images: Sequence[Candidate], isDicom: bool = False) -> Study:
    """The T1w and the FLAIR of a study: of each kind what looks most like it, and of equals the one with most slices.

    Series of a scan and thick reformats of it carry the same name, so the number of slices tells; where it does not,
    nobody is guessed.
    """
    found: list[Candidate | None] = []
    problems = []
    for kind, called in enumerate(("T1w", "FLAIR")):
        best = max((image.looks[kind] for image in images), default=0.0)
        alike = [image for image in images if image.looks[kind] == best] if best > 0 else []
        most = [image for image in alike if image.size == max(other.size for other in alike)]
        found.append(most[0] if len(most) == 1 else None)
        if not most:
            problems.append(_("There is no {image} in this study.").format(image=called))
        elif len(most) > 1:
            names = ", ".join(image.name for image in most)
            problems.append(
                _("{count} images look like the {image} ({names}); choose under Inputs.").format(
                    count=len(most), image=called, names=names
                )
            )
    images_ = " + ".join(image.name for image in found if image is not None)
    t1, flair = (None if image is None else image.what for image in found)
    return Study(name, t1, flair, images_, " ".join(problems), isDicom)


def sceneStudies(scene: vtkMRMLScene) -> list[Study]:
    """The studies of the subject hierarchy with what could be a T1w or a FLAIR; without studies, its folders."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    if hierarchy is None:
        return []
    level = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMLevelStudy()
    groups: dict[int, list[Candidate]] = {}
    for node in candidates(scene):
        item = Placement.itemOf(hierarchy, node)
        group = hierarchy.GetItemAncestorAtLevel(item, level) or hierarchy.GetItemParent(item)
        image = node.GetImageData()
        size = 0 if image is None else max(image.GetDimensions())
        groups.setdefault(group, []).append(Candidate(node, node.GetName(), scores(*describe(node)), size))
    found = []
    for group, images in groups.items():
        if any(max(image.looks) > 0 for image in images):
            found.append(chosen(_called(hierarchy, group), images))
    return found


def databaseStudies(database: Any) -> Iterator[Study]:
    """The MR studies of Slicer's DICOM database, one after the other; ``database`` is a ctkDICOMDatabase."""
    for patient in database.patients():
        for study in database.studiesForPatient(patient):
            images, name = [], ""
            for series in database.seriesForStudy(study):
                instances = list(database.instancesForSeries(series))
                told = instanceTags(database, instances[0], _TAGS) if instances else {}
                if told.get("modality") != "MR":
                    continue
                date = told["date"]
                day = f"{date[:4]}-{date[4:6]}-{date[6:8]}" if len(date) == 8 else date
                name = " ".join(part for part in (told["patient"].replace("^", " ").strip(), day) if part)
                text = f"{told['description']} {told['protocol']}"
                looks = scores(text, number(told["inversion"]), number(told["echo"]))
                size = max(len(instances), int(number(told["frames"]) or 0))
                images.append(Candidate(series, told["description"] or series, looks, size))
            if images:
                yield chosen(name or study, images, isDicom=True)


def loadSeries(series: str) -> Any:
    """Load a series of the DICOM database into the scene; the volume node, or None if there came none."""
    from DICOMLib import DICOMUtils

    nodes = [slicer.mrmlScene.GetNodeByID(str(node)) for node in DICOMUtils.loadSeriesByUID([series])]
    return next((node for node in nodes if node is not None and node.IsA("vtkMRMLScalarVolumeNode")), None)


def _called(hierarchy: Any, item: int) -> str:
    """Patient and study, as the hierarchy calls them."""
    top, names = hierarchy.GetSceneItemID(), []
    while item and item != top:
        names.append(hierarchy.GetItemName(item))
        item = hierarchy.GetItemParent(item)
    return " / ".join(reversed(names)) or _("Scene")
