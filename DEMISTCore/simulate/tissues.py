"""Tissue classes and their magnetic resonance constants, each with its source.

PSR is the macromolecular-to-free pool size ratio (a fraction), R1 and R2 are in 1/s, proton density (PD) is
relative to CSF. Sources, cited by key in the tables below:

- Dortch 2011: Dortch et al., Magn Reson Med 66:1346, selective inversion recovery at 3 T, PSR of white matter
  11.4 +- 1.2 %, of grey matter 7.5 +- 0.7 %, lower in MS lesions and in normal-appearing white matter.
- Dortch 2013: Dortch et al., NeuroImage 64:640, whole-brain PSR (at 7 T), graded from white matter over thalamus and
  pallidum to caudate, putamen and cortex.
- Wansapura 1999: J Magn Reson Imaging 9:531, T2 at 3 T: white matter 80 ms, grey matter 110 ms.
- Stanisz 2005: Magn Reson Med 54:507, T2 at 3 T and 1.5 T: white matter 69/72 ms, grey matter 99/95 ms.
- Abbas 2014: Magn Reson Med 72:1735 and Tofts 2003 (Quantitative MRI of the Brain, Wiley): water content of
  white matter 0.69-0.71, grey matter 0.80-0.84, CSF 1.
- Peran 2007: J Magn Reson Imaging 26:1413, deep-grey T2 shortening by iron (pallidum, putamen).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..labels import BRAINSTEM, CEREBELLAR_CORTEX, CSF, DEEP_GREY, GREY, WHITE

# Compartments: voxels are mixtures of these, and signals (not relaxation times) add up over them.
# Those of the brain are the tissues of tissue maps.
BACKGROUND, EXTRA = 0, 9


@dataclass(frozen=True)
class TissueClass:
    """One anatomical class: its compartment, mean PSR, R2 (1/s, at 3 T), PD, and the label written to ``dseg``."""

    name: str
    compartment: int
    psr: float
    r2: float
    pd: float
    dseg: int
    labels: tuple[int, ...]


# Labels are FreeSurfer's (FreeSurferColorLUT) and, from 500 on, those of extra-cerebral segmentations
# (Puonti et al., NeuroImage 219:117044, 2020; Billot et al., Med Image Anal 86:102789, 2023).
# PSR: Dortch 2011 and 2013, with the cortex of partial-volume-free voxels at the lower end (0.06) of their range.
CLASSES: tuple[TissueClass, ...] = (
    TissueClass("background", BACKGROUND, 0.0, 0.0, 0.0, 0, ()),
    TissueClass("white matter", WHITE, 0.120, 13.3, 0.70, WHITE, (2, 41, 77, 78, 79, 251, 252, 253, 254, 255, 85)),
    TissueClass("cerebellar white matter", WHITE, 0.112, 13.0, 0.71, WHITE, (7, 46)),
    TissueClass("brainstem", WHITE, 0.108, 12.6, 0.74, BRAINSTEM, (16,)),
    TissueClass("ventral diencephalon", WHITE, 0.102, 13.5, 0.75, BRAINSTEM, (28, 60)),
    TissueClass("cortex", GREY, 0.060, 10.2, 0.82, GREY, (3, 42)),
    TissueClass("cerebellar cortex", GREY, 0.062, 10.2, 0.82, CEREBELLAR_CORTEX, (8, 47)),
    TissueClass("thalamus", GREY, 0.084, 11.8, 0.79, DEEP_GREY, (10, 49)),
    TissueClass("caudate", GREY, 0.063, 11.4, 0.81, DEEP_GREY, (11, 50)),
    TissueClass("putamen", GREY, 0.067, 12.2, 0.80, DEEP_GREY, (12, 51)),
    TissueClass("pallidum", GREY, 0.092, 15.0, 0.76, DEEP_GREY, (13, 52)),
    TissueClass("hippocampus", GREY, 0.058, 10.0, 0.83, DEEP_GREY, (17, 53)),
    TissueClass("amygdala and accumbens", GREY, 0.058, 10.3, 0.83, DEEP_GREY, (18, 54, 26, 58)),
    # Choroid plexus is cellular but not myelinated: long T1 and T2, bright in FLAIR inside dark ventricles.
    TissueClass("choroid plexus", GREY, 0.012, 7.5, 0.90, CSF, (31, 63)),
    TissueClass("ventricle", CSF, 0.0, 0.6, 1.0, CSF, (4, 43, 5, 44, 14, 15, 72, 30, 62)),
    TissueClass("outer CSF", CSF, 0.0, 0.6, 1.0, CSF, (24,)),
    # Extra-cerebral classes take part in the images only; their signals are drawn, not computed from PSR.
    TissueClass("soft tissue", EXTRA, 0.0, 0.0, 0.0, 0, (507,)),
    TissueClass("skin", EXTRA, 0.0, 0.0, 0.0, 0, (511,)),
    TissueClass("bone", EXTRA, 0.0, 0.0, 0.0, 0, (515,)),
    TissueClass("marrow", EXTRA, 0.0, 0.0, 0.0, 0, (516,)),
    TissueClass("dura and sinuses", EXTRA, 0.0, 0.0, 0.0, 0, (514, 502)),
    TissueClass("eyes and optic nerve", EXTRA, 0.0, 0.0, 0.0, 0, (506, 508, 530)),
    TissueClass("face", EXTRA, 0.0, 0.0, 0.0, 0, (509,)),
)
CLASS_INDEX: dict[str, int] = {tissue.name: index for index, tissue in enumerate(CLASSES)}

# Labels seen in FreeSurfer-numbered maps that stand for something already in a class above:
# 136/137 and 163/164 lie inside the lateral ventricles and their horns of the two hemispheres: choroid plexus.
_ALIASES = dict.fromkeys((136, 137, 163, 164), "choroid plexus") | {57: "outer CSF", 25: "cortex"}


def class_map(labels: np.ndarray) -> np.ndarray:
    """Map FreeSurfer-numbered ``labels`` (X, Y, Z) to indices into :data:`CLASSES` (uint8).

    Unknown labels from 500 on become soft tissue; unknown cerebral labels fall to outer CSF, the least
    committal class inside the skull.
    """
    values = np.unique(labels.astype(np.int64))
    table = {int(value): 0 for value in values}
    for value in table:
        if value <= 0:
            continue
        known = [index for index, tissue in enumerate(CLASSES) if value in tissue.labels]
        if known:
            table[value] = known[0]
        elif value in _ALIASES:
            table[value] = CLASS_INDEX[_ALIASES[value]]
        elif 1000 <= value < 3000:  # cortical parcellation
            table[value] = CLASS_INDEX["cortex"]
        elif 3000 <= value < 5100:  # white-matter parcellation
            table[value] = CLASS_INDEX["white matter"]
        else:
            table[value] = CLASS_INDEX["soft tissue" if value >= 500 else "outer CSF"]
    lookup = np.array([table[int(value)] for value in values], dtype=np.uint8)
    return lookup[np.searchsorted(values, labels.astype(np.int64))]
