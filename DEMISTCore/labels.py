"""The one table of tissue labels.

Tissue maps hold :data:`CSF`, :data:`GREY` and :data:`WHITE`. Segmentations (``*_dseg.nii.gz``) tell more apart: their
labels are :data:`TISSUE_LABELS`, the first three of which are the same numbers.
"""

from __future__ import annotations

from typing import NamedTuple

CSF, GREY, WHITE = 1, 2, 3
DEEP_GREY, LESION, CEREBELLAR_CORTEX, BRAINSTEM = 4, 5, 6, 7


class TissueLabel(NamedTuple):
    """A label's name, as in a data set's ``dseg.tsv``, and its tissue: CSF, GREY or WHITE."""

    name: str
    tissue: int


TISSUE_LABELS: dict[int, TissueLabel] = {
    CSF: TissueLabel("CSF", CSF),
    GREY: TissueLabel("Cortex", GREY),
    WHITE: TissueLabel("White matter", WHITE),
    DEEP_GREY: TissueLabel("Deep grey matter", GREY),
    LESION: TissueLabel("Lesion", WHITE),
    CEREBELLAR_CORTEX: TissueLabel("Cerebellar cortex", GREY),
    BRAINSTEM: TissueLabel("Brainstem", WHITE),
}
#: Names of all values of a segmentation.
NAMES: dict[int, str] = {0: "Background", **{label: told.name for label, told in TISSUE_LABELS.items()}}


def labels_of(tissue: int) -> tuple[int, ...]:
    """Labels of healthy CSF, GREY or WHITE; lesions are none of them.

    >>> labels_of(GREY), labels_of(WHITE)
    ((2, 4, 6), (3, 7))
    """
    return tuple(label for label, told in TISSUE_LABELS.items() if told.tissue == tissue and label != LESION)
