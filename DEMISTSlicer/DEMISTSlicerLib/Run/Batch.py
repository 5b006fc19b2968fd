"""Many pairs of images one after the other, from the console."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..I18n import _
from ..Nodes.Studies import Study
from ..RunError import RunError
from .BatchResult import BatchResult

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode

_SUFFIX = re.compile(r"\.(nii\.gz|nii|nrrd|nhdr|mha|mhd|mgz)$", re.IGNORECASE)
_T1W = re.compile(r"(?<![a-z0-9])(t1w?|mprage)(?![a-z0-9])", re.IGNORECASE)
_FLAIR = re.compile(r"(?<![a-z0-9])(t2)?flair(?![a-z0-9])", re.IGNORECASE)


class Batch:
    """Synthesizes pair after pair; one that fails does not stop the others.

    Args:
        synthesize: makes nodes of T1w and FLAIR nodes: :meth:`.Logic.DEMISTSlicerLogic.synthesize`.
        synthesizeFile: makes a file of T1w and FLAIR files: :meth:`.Logic.DEMISTSlicerLogic.synthesizeFile`.
    """

    def __init__(self, synthesize: Callable[..., Any], synthesizeFile: Callable[..., Any]) -> None:
        self._synthesize, self._synthesizeFile = synthesize, synthesizeFile

    def run(
        self,
        items: str | os.PathLike[str] | Sequence[Any],
        outputFolder: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        onItem: Callable[[BatchResult, int, int], Any] | None = None,
        **options: Any,
    ) -> list[BatchResult]:
        """Synthesize all of ``items``.

        Args:
            items: a folder, in which T1w and FLAIR are found by name (BIDS or not), or pairs (T1w, FLAIR): of volume
                nodes, whose maps come into the scene, or of files, whose maps are written as files.
            outputFolder: where maps of files go; None: beside the T1w. A map that is there is not made again, so a
                batch that was stopped goes on where it was.
            overwrite: make them again all the same.
            onItem: called with (result, how many are done, how many there are).
            options: of :meth:`.Logic.DEMISTSlicerLogic.synthesize`.

        Raises:
            RunError: nothing to do, or an item is no pair; problems of single items are in their results.
        """
        root = Path(items) if isinstance(items, (str, os.PathLike)) else None
        studies = findStudies(root) if root is not None else [_study(item) for item in items]
        if not studies:
            raise RunError("input", _("There is nothing to do: give pairs of T1w and FLAIR, or a folder with some."))
        results: list[BatchResult] = []
        for study in studies:
            if study.problem:
                result = BatchResult(study.name, "failed", message=study.problem)
            else:
                result = self._one(study.t1, study.flair, root, outputFolder, overwrite, options)
            results.append(result)
            if onItem is not None:
                onItem(result, len(results), len(studies))
            if result.status == "cancelled":
                break
        return results

    def _one(
        self,
        t1: vtkMRMLScalarVolumeNode,
        flair: vtkMRMLScalarVolumeNode,
        root: Path | None,
        folder: Any,
        overwrite: bool,
        options: dict[str, Any],
    ) -> BatchResult:
        files = isinstance(t1, Path)
        name = _SUFFIX.sub("", t1.name) if files else t1.GetName()
        try:
            if not files:
                made = self._synthesize(t1, flair, **options)
                return BatchResult(name, "done", made.psr, made.uncertainty, seconds=made.seconds)
            out = outputFile(t1, root, folder)
            if out.exists() and not overwrite:
                return BatchResult(name, "skipped", out, _uncertaintyFile(out))
            made = self._synthesizeFile(t1, flair, out, overwrite=overwrite, **options)
            return BatchResult(name, "done", out, _uncertaintyFile(out), seconds=made.seconds)
        except RunError as error:
            return BatchResult(name, "cancelled" if error.kind == "cancelled" else "failed", message=str(error))


def findPairs(folder: Path) -> list[tuple[Path, Path]]:
    """The pairs of :func:`findStudies` that can be used: T1w and FLAIR files."""
    return [(study.t1, study.flair) for study in findStudies(folder) if not study.problem]


def findStudies(folder: Path) -> list[Study]:
    """T1w and FLAIR files below ``folder`` that belong together: same folder, and same name but for the contrast.

    Where a folder has one of each, their names need not agree. An image of one kind without one of the other is told
    as a study with a problem.

    Raises:
        RunError: it is no folder.
    """
    if not folder.is_dir():
        raise RunError("input", _("{folder} is no folder; give one with T1w and FLAIR images.").format(folder=folder))
    found = []
    for place in sorted({folder, *(path for path in folder.rglob("*") if path.is_dir())}):
        # macOS writes a note of its Finder beside each file on foreign disks: ._T1w.nii.gz is no scan.
        shown = [path for path in place.iterdir() if not path.name.startswith(".")]
        images = sorted(path for path in shown if path.is_file() and _SUFFIX.search(path.name))
        t1s = {_T1W.sub("", path.name): path for path in images if _T1W.search(path.name)}
        flairs = {_FLAIR.sub("", path.name): path for path in images if _FLAIR.search(path.name)}
        if len(t1s) == len(flairs) == 1:
            found.append(_files(folder, *t1s.values(), *flairs.values()))
            continue
        for rest in sorted({*t1s, *flairs}, key=lambda rest: t1s.get(rest) or flairs[rest]):
            found.append(_files(folder, t1s.get(rest), flairs.get(rest)))
    return found


def _files(root: Path, t1: Path | None, flair: Path | None) -> Study:
    """Two files as a study, or what is missing."""
    first = t1 or flair
    name = _SUFFIX.sub("", first.relative_to(root).as_posix())
    problem = ""
    if t1 is None or flair is None:
        problem = _("{name} has no {other} beside it that is named alike.").format(
            name=first.name, other="FLAIR" if flair is None else "T1w"
        )
    return Study(name, t1, flair, " + ".join(path.name for path in (t1, flair) if path is not None), problem)


def outputFile(t1: Path, root: Path | None, folder: Any) -> Path:
    """``sub-01_T1w.nii.gz`` -> ``sub-01_PSR.nii.gz``, beside it or at the same place below ``folder``."""
    stem = _SUFFIX.sub("", t1.name)
    name, found = _T1W.subn("PSR", stem, count=1)
    name = f"{name if found else stem + '_PSR'}.nii.gz"
    if folder is None:
        return t1.with_name(name)
    below = t1.parent.relative_to(root) if root is not None else Path()
    return Path(folder) / below / name


def _uncertaintyFile(psr: Path) -> Path | None:
    path = psr.with_name(psr.name.replace(".nii.gz", "_uncertainty.nii.gz"))
    return path if path.exists() else None


def _study(item: Any) -> Study:
    """An item as nodes or as paths."""
    if isinstance(item, (str, os.PathLike)) or not isinstance(item, Sequence) or len(item) != 2:
        raise RunError("input", _("Each item of a batch is a pair of T1w and FLAIR, not {item!r}.").format(item=item))
    kinds = {isinstance(one, (str, os.PathLike)) for one in item}
    if len(kinds) > 1 or any(one is None for one in item):
        raise RunError("input", _("T1w and FLAIR of a batch are both volume nodes, or both files."))
    t1, flair = (Path(one) for one in item) if kinds == {True} else item
    return Study(t1.name if kinds == {True} else t1.GetName(), t1, flair)
