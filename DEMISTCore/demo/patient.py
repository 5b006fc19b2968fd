"""The demo's patient: drawn from an anatomy with lesions, and scanned as in a clinic."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..volume import Volume

if TYPE_CHECKING:
    from ..simulate.scanner import Scan
    from ..simulate.subject import Subject

#: The demo's patient: some 90 mostly small lesions, 4 ml in all, and enlarged ventricles.
PATIENT_SEED = 1


@dataclass(frozen=True, eq=False)
class Patient:
    """Two scans and, on the T1w's grid, the truth they were made from."""

    t1w: Volume
    flair: Volume
    psr: Volume
    labels: Volume
    lesions: Volume
    brain: Volume
    protocol: dict[str, Any]


def simulate_patient(seed: int = PATIENT_SEED, anatomy: Any = None) -> Patient:
    """Draw and scan a patient; the same seed gives the same patient.

    Args:
        seed: of anatomy, lesions, scanner and noise.
        anatomy: :class:`DEMISTCore.simulate.anatomy.Anatomy`; None takes the ICBM-152 template.

    Raises:
        InputError: nilearn, which holds the template, is not installed.
    """
    from ..simulate.subject import simulate_subject

    subject = simulate_subject(seed, anatomy=anatomy)
    scan = _scan(subject, seed)
    grid = scan.t1w.grid

    def mask(array: np.ndarray) -> Volume:
        return Volume(subject.volume(array.astype(np.uint8)).resampled_to(grid, "nearest").array, grid.affine)

    brain, lesions = mask(subject.brain), mask(subject.lesions.mask & subject.brain)
    psr = subject.volume(subject.psr).resampled_to(grid, "bspline").array
    return Patient(
        t1w=scan.t1w,
        flair=scan.flair,
        psr=Volume(np.where(brain.array > 0, psr, np.float32(0)), grid.affine),
        labels=mask(subject.dseg),
        lesions=lesions,
        brain=brain,
        protocol=scan.protocol.to_dict(),
    )


def _scan(subject: Subject, seed: int) -> Scan:
    """Scan with a protocol that most MS clinics know: MPRAGE of 1 mm at 3 T, axial FLAIR with slices of 3 mm.

    The first scanner of the seed's that has this MPRAGE is taken, with its own timing, noise and bias fields.
    """
    from ..simulate.artefacts import Processing
    from ..simulate.protocol import draw_protocol
    from ..simulate.scanner import acquire

    for scanner in range(1000):
        rng = np.random.default_rng([int(seed), 22, scanner])
        protocol = draw_protocol(rng)
        if protocol.t1_sequence == "mprage" and protocol.field_strength == 3 and protocol.t1_spacing == (1, 1, 1):
            break
    # As acquired, without what archives and vendors add.
    plain = replace(protocol, flair_spacing=(0.9, 0.9, 3.0), flair_slice_axis=2, processing=(Processing(),) * 2)
    return acquire(subject, plain, rng)
