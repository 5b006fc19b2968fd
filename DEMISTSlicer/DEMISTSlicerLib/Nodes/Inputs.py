"""Which volumes of the scene are likely the T1w and the FLAIR."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import slicer

from ..I18n import _
from . import Placement

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLScene

#: What series are called, and what speaks against: the first group scores for, the second rules out.
_T1 = re.compile(r"(?<![a-z0-9])t1(?![0-9])|mp[-_ ]?rage|bravo|spgr|(?<![a-z])tfe|fspgr|(?<![a-z])vibe", re.I)
_FLAIR = re.compile(r"flair|dark[-_ ]?fluid|tirm", re.I)
_CONTRAST = re.compile(r"(?<![a-z])(gd|gad|km|ce|c\+|post|contrast)(?![a-z])|t1c|t1ce|t1gd", re.I)
_OTHER = re.compile(r"psr|uncertainty|mask|label|seg|map(?!p)|adc|dwi|localizer|scout|swi|preview", re.I)
_NAMES = ("SeriesDescription", "ProtocolName", "SequenceName")
#: Tags that two images of one session agree in, and what people call it.
_SESSION = {"patient": ("0010,0020", _("patient")), "study": ("0020,000D", _("study"))}
#: Values of DICOM tags that were asked for, by database, instance and tag.
_KNOWN: dict[tuple[str, str, str], str] = {}
_TAGS = {"description": "0008,103E", "protocol": "0018,1030", "inversion": "0018,0082", "echo": "0018,0081"}


def scores(text: str, inversion: float | None = None, echo: float | None = None) -> tuple[float, float]:
    """How much a description looks like a T1w without contrast agent, and like a FLAIR; 0 or less: not at all.

    Args:
        text: name and series description.
        inversion: inversion time in ms, if known: about 900 in MPRAGE, 1600 to 2800 in FLAIR.
        echo: echo time in ms, if known: below 10 in a gradient-echo T1w, above 60 in a FLAIR.
    """
    if _OTHER.search(text):
        return 0.0, 0.0
    flair = 2.0 if _FLAIR.search(text) else 0.0
    t1 = 2.0 if _T1.search(text) and not flair else 0.0
    if t1 and _CONTRAST.search(text):
        t1 = 1.0  # better than nothing: the model has seen no contrast agent
    if inversion and echo:
        t1 += 0.5 if inversion < 1400 and echo < 15 and not flair else 0.0
        flair += 0.5 if inversion > 1400 and echo > 60 and not t1 else 0.0
    return t1, flair


def describe(node: vtkMRMLScalarVolumeNode) -> tuple[str, float | None, float | None]:
    """Name and DICOM description of a volume node, inversion and echo time in ms where DICOM tells them."""
    text, values = [node.GetName() or ""], {}
    for name in _NAMES:
        text.append(node.GetAttribute(f"DICOM.{name}") or "")
    if node.GetAttribute("DICOM.instanceUIDs"):
        values = dicomTags(node, _TAGS)
        text += [values.get("description", ""), values.get("protocol", "")]
    return " ".join(t for t in text if t), number(values.get("inversion")), number(values.get("echo"))


def dicomTags(node: vtkMRMLScalarVolumeNode, tags: Mapping[str, str]) -> dict[str, str]:
    """Values of a volume's first instance in Slicer's DICOM database, by name; empty where there is none.

    Args:
        node: a volume node.
        tags: by name, as ``"0018,0081"``.
    """
    instances = (node.GetAttribute("DICOM.instanceUIDs") or "").split()
    database = getattr(slicer, "dicomDatabase", None)
    if not instances or database is None or not getattr(database, "isOpen", False):
        return {}
    return instanceTags(database, instances[0], tags)


def instanceTags(database: Any, instance: str, tags: Mapping[str, str]) -> dict[str, str]:
    """Values of one instance of a DICOM database by name, empty where it has none; ``tags``: see :func:`dicomTags`."""
    return {name: _tag(database, instance, tag) for name, tag in tags.items()}


def dicomFiles(node: vtkMRMLScalarVolumeNode | None) -> list[str]:
    """The files that a volume was loaded from, as Slicer's DICOM database knows them; empty if it was not."""
    instances = ((node.GetAttribute("DICOM.instanceUIDs") if node is not None else None) or "").split()
    database = getattr(slicer, "dicomDatabase", None)
    if not instances or database is None or not getattr(database, "isOpen", False):
        return []
    return [path for path in (database.fileForInstance(instance) for instance in instances) if path]


def _tag(database: Any, instance: str, tag: str) -> str:
    """A value of the DICOM database, asked for once: an instance never changes, and a slow disk holds up the panel."""
    key = (str(getattr(database, "databaseFilename", "")), instance, tag)
    if key not in _KNOWN:
        _KNOWN[key] = database.instanceValue(instance, tag) or ""
    return _KNOWN[key]


def number(text: str | None) -> float | None:
    """The number that a DICOM value holds; None for none."""
    try:
        return float(text) if text else None
    except ValueError:
        return None


def guess(scene: vtkMRMLScene) -> tuple[vtkMRMLScalarVolumeNode | None, vtkMRMLScalarVolumeNode | None]:
    """The likely T1w and FLAIR of the scene: nodes, or None where nothing looks like one.

    The best of each kind; among equals the one that was loaded first. Made by this module, or a label map: never.
    """
    best: list[tuple[float, Any]] = [(0.0, None), (0.0, None)]
    for node in candidates(scene):
        for kind, score in enumerate(scores(*describe(node))):
            if score > best[kind][0]:
                best[kind] = (score, node)
    return best[0][1], best[1][1]


def candidates(scene: vtkMRMLScene) -> list[vtkMRMLScalarVolumeNode]:
    """Volumes that could be a scan: no label map, nothing hidden, nothing that this module made."""
    nodes = scene.GetNodesByClass("vtkMRMLScalarVolumeNode")
    nodes.UnRegister(scene)
    found = []
    for index in range(nodes.GetNumberOfItems()):
        node = nodes.GetItemAsObject(index)
        madeHere = node.GetAttribute(Placement.QUANTITY) or node.GetAttribute(Placement.PROVENANCE)
        if not (node.IsA("vtkMRMLLabelMapVolumeNode") or node.GetHideFromEditors() or madeHere):
            found.append(node)
    return found


def hint(t1: vtkMRMLScalarVolumeNode | None, flair: vtkMRMLScalarVolumeNode | None) -> str:
    """One sentence on what is missing or unusual about the images chosen; empty when all is well."""
    if t1 is None or flair is None:
        return _("Choose a T1w and a FLAIR of the same session.")
    if t1 is flair:
        return _("The same volume is chosen as T1w and as FLAIR; choose the FLAIR.")
    for node, name in ((t1, "T1w"), (flair, "FLAIR")):
        image = node.GetImageData()
        if image is None or min(image.GetDimensions()) < 2:
            return _("{name} is not a 3-D image; choose another.").format(name=f"{name} ({node.GetName()})")
    doubt = doubtOf(t1, flair)
    if doubt:
        return doubt
    if _CONTRAST.search(t1.GetName() or ""):
        return _("The T1w seems to be with contrast agent, which the model has never seen.")
    return ""


def doubtOf(t1: vtkMRMLScalarVolumeNode | None, flair: vtkMRMLScalarVolumeNode | None) -> str:
    """Why these two should not be used without a second look: swapped, of two patients or studies, or far apart.

    One sentence; empty where nothing speaks against them.
    """
    if t1 is None or flair is None or t1 is flair:
        return ""
    t1AsT1, t1AsFlair = scores(*describe(t1))
    flairAsT1, flairAsFlair = scores(*describe(flair))
    if t1AsFlair > t1AsT1 and flairAsT1 > flairAsFlair:
        return _("By their names, T1w and FLAIR are swapped.")
    tags = {name: tag for name, (tag, _word) in _SESSION.items()}
    mine, other = dicomTags(t1, tags), dicomTags(flair, tags)
    for name, (_tag, word) in _SESSION.items():
        if mine.get(name) and other.get(name) and mine[name] != other[name]:
            return _("T1w and FLAIR are not of the same {what} (DICOM).").format(what=word)
    if not _overlap(t1, flair):
        return _("T1w and FLAIR lie at different places: their images do not overlap.")
    return ""


def _overlap(a: vtkMRMLScalarVolumeNode, b: vtkMRMLScalarVolumeNode) -> bool:
    """Whether the boxes around two volumes, in the world, have anything in common; True where one has no image."""
    boxes = []
    for node in (a, b):
        box = [0.0] * 6
        node.GetRASBounds(box)
        boxes.append(box)
    if any(box[0] > box[1] for box in boxes):
        return True
    return all(boxes[0][i] < boxes[1][i + 1] and boxes[1][i] < boxes[0][i + 1] for i in (0, 2, 4))
