"""What a DICOM series is: T1w, FLAIR, or of no use here; told by its name and its physics."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: Said of what is neither.
OTHER = "another kind of image"
#: Fewer images are no brain.
_LEAST_IMAGES = 10
#: ms: inversion times that null fluid, and those of T1w FLAIR and STIR, which are called the same.
_FLUID = (1400.0, 3500.0)
_NO_BRAIN = re.compile(
    r"locali[sz]er|scout|survey|smart.?brain|calibration|asset|field.?map|b[01].?map|dwi|dti|diff|adc|trace|tensor|perf"
    r"|\basl\b|swi|swan|\btof\b|angio|\bmra\b|spectro|bold|fmri|\bmip\b|minip|subtract|phoenix|screen|report|t2.?\*"
    r"|\bdir\b|double.?inv|psir|mp2rage|spine|neck|orbit|hals|wirbel"
)
_IS_FLAIR = re.compile(r"flair|dark.?fluid|tirm")
_IS_T1_FLAIR = re.compile(r"t1.{0,3}(flair|tirm|dark)|flair.{0,3}t1")
_IS_T1W = re.compile(r"mp.?rage|bravo|spgr|tfe|tfl|(^|[^a-z0-9])t1")
_IS_OTHER = re.compile(r"t2|(^|[^a-z])(pd|rho)([^a-z]|$)|map")
_IS_POST = re.compile(r"(^|[^a-z])(gd|gad[a-z]*|km|post|ce|mdc|kontrast|contrast|dotarem)([^a-z]|$)|\+c\b|\bc\+")
#: Of (0008,0008): what is computed from images, and what is no magnitude.
_NOT_TAKEN = {
    "LOCALIZER",
    "PROJECTION IMAGE",
    "MIP",
    "ADC",
    "DIFFUSION",
    "PERFUSION",
    "SUBTRACTION",
    "P",
    "PHASE",
    "PHASE MAP",
    "R",
    "REAL",
    "I",
    "IMAGINARY",
    "SCREEN SAVE",
    "MOSAIC",
}


@dataclass(frozen=True)
class Series:
    """One DICOM series.

    Attributes:
        uid, study, patient: as DICOM has them (Series and Study Instance UID, Patient ID).
        number: of the series.
        description: of the series, else of its protocol; any text.
        kind: ``T1w``, ``FLAIR`` or "".
        why_not: why it is of no use, a few words; "" where it is.
        rank: of two of a kind the lower is better.
        date, time: of the study, as DICOM has them.
        age, sex: of the patient, as DICOM has them.
        files: paths.
        digest: of what it holds (all instances' UIDs).
    """

    uid: str
    study: str
    patient: str
    number: int
    description: str
    kind: str
    why_not: str
    rank: tuple
    date: str = ""
    time: str = ""
    age: str = ""
    sex: str = ""
    files: tuple[str, ...] = ()
    digest: str = ""

    @property
    def name(self) -> str:
        """For people: number and description."""
        return f"{self.number} ({self.description or 'without a name'})"


def kind_of(
    *,
    names: Iterable[str],
    image_type: Sequence[str],
    images: int,
    sequence: Iterable[str] = (),
    three_d: bool = False,
    echo_ms: float | None = None,
    repetition_ms: float | None = None,
    inversion_ms: float | None = None,
    contrast: bool = False,
) -> tuple[str, str]:
    """``T1w``, ``FLAIR`` or "", and why it is of no use.

    Args:
        names: descriptions of series, protocol and sequence.
        image_type: values of (0008,0008).
        images: how many slices there are.
        sequence: values of (0018,0020): GR, SE, IR ...
        three_d: acquired as a volume.
        echo_ms, repetition_ms, inversion_ms: times.
        contrast: a contrast agent is named.

    >>> kind_of(names=["t2_tirm_tra_dark-fluid"], image_type=["ORIGINAL", "PRIMARY", "M"], images=30, inversion_ms=2500)
    ('FLAIR', '')
    """
    text = " ".join(names).lower()
    types = {str(part).upper() for part in image_type}
    if _NO_BRAIN.search(text) or types & _NOT_TAKEN:
        return "", OTHER
    kind = ""
    if _IS_T1_FLAIR.search(text):
        return "", OTHER
    if _IS_FLAIR.search(text):
        if inversion_ms is None or _FLUID[0] <= inversion_ms <= _FLUID[1]:
            kind = "FLAIR"
    elif _IS_T1W.search(text) and not _IS_OTHER.search(text):
        kind = "T1w"
    elif not _IS_OTHER.search(text) and echo_ms is not None:
        if inversion_ms is not None and _FLUID[0] < inversion_ms < _FLUID[1] and echo_ms > 60:
            kind = "FLAIR"
        elif "GR" in {str(part).upper() for part in sequence} and three_d and echo_ms < 8:
            kind = "T1w" if (repetition_ms or 0) < 3000 else ""
    if not kind:
        return "", OTHER
    if images < _LEAST_IMAGES:
        return "", f"{images} images only"
    if contrast or _IS_POST.search(text):
        return "", "after contrast agent"
    return kind, ""


def rank_of(image_type: Sequence[str], three_d: bool, slice_mm: float | None) -> tuple:
    """What makes one of two series of a kind the better: original, a volume, not uncorrected, thinner slices."""
    types = {str(part).upper() for part in image_type}
    return ("ORIGINAL" not in types, not three_d, "ND" in types, round(slice_mm, 1) if slice_mm else 99.0)
