"""One session of one person: the scans that a map is made of, or why there will be none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from .archive.series import Series


@dataclass(frozen=True)
class Session:
    """What is worked on as one: a person on one day.

    Attributes:
        subject, session: BIDS names such as ``sub-01`` and ``ses-02`` ("" without sessions).
        t1w, flair: the scans; None where there is none.
        brain_mask, lesions, tissue: given in the T1w's space instead of being found; None: they are found.
        root: the data set that they lie in; paths in outputs are told from there.
        shown: how the source calls the person, for people to read; any text.
        problem: why it cannot be worked on, one sentence; "" where it can.
        empty: it holds neither T1w nor FLAIR, which is no fault: a session of another kind.
        notes: sentences about the choice of files.
        sidecars: JSON files that hold for an image ("T1w", "FLAIR"), the more general ones first.
        series: DICOM series that the images are still to be made of, by image ("T1w", "FLAIR").
    """

    subject: str
    session: str = ""
    t1w: Path | None = None
    flair: Path | None = None
    brain_mask: Path | None = None
    lesions: Path | None = None
    tissue: Path | None = None
    root: Path | None = None
    shown: str = ""
    problem: str = ""
    empty: bool = False
    notes: tuple[str, ...] = ()
    sidecars: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    series: Mapping[str, Series] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Such as ``sub-01_ses-02``: what every file of the session begins with."""
        return f"{self.subject}_{self.session}" if self.session else self.subject

    @property
    def pair(self) -> tuple[Path, Path]:
        """T1w and FLAIR of a session that is worked on.

        Raises:
            InputError: one of them is missing.
        """
        if self.t1w is None or self.flair is None:
            raise InputError(self.problem or f"{self.name} lacks a T1w or a FLAIR; add the scan.")
        return self.t1w, self.flair

    @property
    def images(self) -> dict[str, Path]:
        """Every image that is read, by what it is."""
        given = {
            "T1w": self.t1w,
            "FLAIR": self.flair,
            "brain mask": self.brain_mask,
            "lesion mask": self.lesions,
            "tissue map": self.tissue,
        }
        return {what: path for what, path in given.items() if path is not None}

    def told(self, path: Path) -> str:
        """A path for outputs, the same wherever the data set is mounted: ``bids:raw:sub-01/anat/...`` (a BIDS URI)."""
        if self.root is not None:
            try:
                return f"bids:raw:{path.relative_to(self.root).as_posix()}"
            except ValueError:
                pass
        return path.name
