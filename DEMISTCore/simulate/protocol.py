"""Clinical T1w and FLAIR protocols at 1.5 T and 3 T, drawn at random from the ranges used for MS.

Ranges: consensus MS protocols (MAGNIMS-CMSC-NAIMS, Wattjes et al., Lancet Neurol 20:653, 2021), ADNI MPRAGE (Jack et
al., J Magn Reson Imaging 27:685, 2008), and the protocol tables of the public MS lesion sets (Commowick et al., Sci
Rep 8:13650, 2018; Lesjak et al., Neuroinformatics 16:51, 2018).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from .artefacts import Processing
from .physics import csf_null_ti

PHYSICS = ("standard", "shifted")


@dataclass(frozen=True)
class Protocol:
    """One scanner and its two sequences. Times in s, angles in degrees, lengths in mm, rates in 1/s.

    ``t1_sequence``: ``mprage``, ``spgr`` (spoiled gradient echo, no inversion), ``se`` (spin
    echo) or ``ir`` (inversion-recovery turbo spin echo).
    ``r1_water``, ``r1_macro``: two-pool rates at this field. ``jitter``: factors on R1 of white and grey matter that
    stand for what the model leaves out (iron, MT saturation by the inversion train). ``flair_mt``: how strongly the
    refocusing train saturates macromolecules, a factor exp(-flair_mt PSR) on the FLAIR signal: off-resonance
    refocusing darkens white matter most, by about 20 % (Melki and Mulkern, Magn Reson Med 24:189, 1992).

    ``kmf``: exchange rate from the macromolecular pool in white and grey matter; ``r1_bound``: that pool's own R1;
    ``inversion_saturation`` and ``pulse_duration``: what inversion and excitation do to it (exchange.py). ``b1``: size
    of the flip-angle field of the T1w. ``processing``: k-space, interpolation and filters of the two images.
    ``physics``: ``standard`` or ``shifted``, the test instrument; only there do ``iron`` (R1 added to white matter,
    cortex, deep grey), ``coils``, ``g_factor`` and ``bias_kind`` differ from their defaults.
    """

    field_strength: float
    r1_water: float
    r1_macro: float
    jitter: tuple[float, float]
    t1_sequence: str
    t1_tr: float
    t1_ti: float
    t1_te: float
    t1_flip: float
    t1_echo_spacing: float
    t1_echoes: int
    flair_tr: float
    flair_ti: float
    flair_te: float
    flair_mt: float
    t1_spacing: tuple[float, float, float]
    t1_slice_axis: int
    flair_spacing: tuple[float, float, float]
    flair_slice_axis: int
    snr: tuple[float, float]
    bias: tuple[float, float]
    blur: tuple[float, float]
    gamma: tuple[float, float]
    misregistration: tuple[float, ...]
    obliquity: tuple[float, float, float]
    physics: str = "standard"
    kmf: tuple[float, float] = (11.0, 15.0)
    r1_bound: float = 2.5
    inversion_saturation: float = 0.83
    pulse_duration: float = 0.001
    b1: float = 0.0
    processing: tuple[Processing, Processing] = (Processing(), Processing())
    iron: tuple[float, float, float] = (0.0, 0.0, 0.0)
    coils: int = 1
    g_factor: float = 0.0
    bias_kind: str = "random"

    def to_dict(self) -> dict[str, Any]:
        """Plain dict for the sidecar."""
        return asdict(self)


R1_CSF = 1 / 4.2  # Rooney et al., Magn Reson Med 57:308 (2007): CSF T1 about 4.2 s at every field
R2_CSF = 1 / 1.7  # Piechnik et al., Magn Reson Med 61:579 (2009)


def draw_protocol(
    rng: np.random.Generator,
    *,
    bias: float = 0.25,
    misregistration_mm: float = 2.0,
    misregistration_deg: float = 2.0,
    thick_slices: float = 0.4,
    obliquity_deg: float = 6.0,
    physics: str = "standard",
) -> Protocol:
    """Draw a scanner.

    Args:
        rng: source of randomness.
        bias: largest log-SD of the bias field (0.25 for raw scans; about 0.05 for what N4 leaves behind).
        misregistration_mm, misregistration_deg: SD of the patient's movement between T1w and FLAIR.
        thick_slices: share of FLAIR scans with 2-5 mm slices; T1w have slices of 2-4 mm in half of that share.
        obliquity_deg: SD of the tilt of the image axes.
        physics: ``standard``, or ``shifted`` for a scanner that obeys other laws: a test instrument, see shifted.py.

    Raises:
        ValueError: ``physics`` is neither.
    """
    if physics not in PHYSICS:
        raise ValueError(f"physics is {physics!r}; choose {' or '.join(PHYSICS)}")
    three_tesla = rng.random() < 0.6
    # Water R1 is taken as field-independent; the macromolecular T1 grows about linearly with field (Wang 2020). PSR by
    # selective inversion recovery counts about 0.45 of the non-water protons of Wang 2020 (0.12 against 0.27 in white
    # matter), so their R1 of about 3 1/s at 3 T acts per unit PSR as 3 / 0.45 = 6.7 1/s. Callaghan 2015 agrees:
    # 0.27 1/s + 0.40 1/s per p.u. of MT, with about 16 p.u. per unit PSR. These give white / grey matter T1 of about
    # 0.96 / 1.4 s at 3 T and 0.67 / 1.03 s at 1.5 T (Wansapura 1999; Rooney 2007).
    r1_water = float(rng.normal(0.36, 0.02))
    r1_macro = float(rng.normal(6.8, 0.45) if three_tesla else rng.normal(10.6, 0.7))
    sequence = str(rng.choice(["mprage", "spgr", "se", "ir"], p=[0.70, 0.15, 0.08, 0.07]))
    tr = ti = te = flip = spacing = 0.0
    echoes = 0
    if sequence == "mprage":
        echoes = int(rng.integers(120, 193))
        spacing = float(rng.uniform(0.0058, 0.0098))
        ti = float(rng.uniform(0.78, 1.15))
        ti = max(ti, 0.5 * echoes * spacing + 0.12)
        tr = max(float(rng.uniform(1.5, 2.6)), ti + 0.5 * echoes * spacing + 0.02)
        flip = float(rng.uniform(7, 13))
        te = float(rng.uniform(0.002, 0.0045))
    elif sequence == "spgr":
        tr, flip = float(rng.uniform(0.008, 0.026)), float(rng.uniform(15, 32))
        te = float(rng.uniform(0.002, 0.005))
    elif sequence == "ir":
        # Inversion-recovery turbo spin echo, the T1w of Lesjak 2018 (TR 2 s, TI 0.8 s, TE 20 ms); grey matter stays
        # past its null.
        tr, ti, te = float(rng.uniform(1.8, 2.5)), float(rng.uniform(0.85, 1.1)), float(rng.uniform(0.008, 0.022))
    else:
        tr, te = float(rng.uniform(0.40, 0.68)), float(rng.uniform(0.008, 0.016))
    flair_tr = float(rng.uniform(4.8, 11.0))
    flair_ti = csf_null_ti(R1_CSF, flair_tr) * float(rng.uniform(0.90, 1.03))

    def geometry(share: float, thickest: float) -> tuple[tuple[float, float, float], int]:
        if rng.random() >= share:
            size = float(rng.choice([1.0, 1.0, 1.0, rng.uniform(0.8, 1.2)]))
            return (size, size, size), int(rng.choice([0, 2]))
        plane, thick = float(rng.uniform(0.5, 1.0)), float(rng.uniform(2.0, thickest))
        return (plane, plane, thick), int(rng.choice([2, 2, 2, 0]))

    t1_spacing, t1_axis = geometry(thick_slices / 2, 4.0)
    flair_spacing, flair_axis = geometry(thick_slices, 5.0)
    drawn = Protocol(
        field_strength=3.0 if three_tesla else 1.5,
        r1_water=r1_water,
        r1_macro=r1_macro,
        jitter=(float(rng.normal(1, 0.03)), float(rng.normal(1, 0.03))),
        t1_sequence=sequence,
        t1_tr=tr,
        t1_ti=ti,
        t1_te=te,
        t1_flip=flip,
        t1_echo_spacing=spacing,
        t1_echoes=echoes,
        flair_tr=flair_tr,
        flair_ti=float(flair_ti),
        flair_te=float(rng.uniform(0.085, 0.15)),
        flair_mt=float(rng.uniform(0.2, 2.0)),
        t1_spacing=t1_spacing,
        t1_slice_axis=t1_axis,
        flair_spacing=flair_spacing,
        flair_slice_axis=flair_axis,
        snr=(float(rng.uniform(14, 60)), float(rng.uniform(10, 50))),
        bias=(float(rng.uniform(0.1, 1) * bias), float(rng.uniform(0.1, 1) * bias)),
        blur=(float(rng.uniform(0.3, 0.75)), float(rng.uniform(0.3, 0.75))),
        gamma=(float(np.exp(rng.normal(0, 0.1))), float(np.exp(rng.normal(0, 0.1)))),
        misregistration=tuple(
            float(v)
            for v in (
                *rng.normal(0, misregistration_mm / np.sqrt(3), 3),
                *rng.normal(0, misregistration_deg / np.sqrt(3), 3),
            )
        ),
        obliquity=tuple(float(v) for v in rng.normal(0, obliquity_deg / 2, 3)),  # type: ignore[arg-type]
    )
    drawn = replace(
        drawn,
        # Dortch et al., Magn Reson Med 66:1346 (2011).
        kmf=(float(rng.normal(11, 1)), float(rng.normal(15, 1.5))),
        # From 1 1/s, what selective inversion recovery assumes, to what Wang 2020 measured, which grows as the field
        # falls.
        r1_bound=float(rng.uniform(1, 4) * (1 if three_tesla else 1.5)),
        inversion_saturation=float(np.clip(rng.normal(0.83, 0.05), 0.65, 0.95)),
        pulse_duration=float(rng.uniform(0.0005, 0.002)),
        # Dielectric effects grow with the square of the field.
        b1=float(rng.uniform(0.10, 0.25) if three_tesla else rng.uniform(0.02, 0.07)),
        processing=(
            draw_processing(rng, t1_spacing, t1_sequence=sequence, thick_share=thick_slices / 2),
            draw_processing(rng, flair_spacing, t1_sequence="", thick_share=thick_slices),
        ),
    )
    if physics == "shifted":
        from .shifted import shift

        return shift(drawn, rng)
    return drawn


def draw_processing(
    rng: np.random.Generator, spacing: tuple[float, float, float], *, t1_sequence: str, thick_share: float
) -> Processing:
    """Draw what reconstruction and archive do to an image of ``spacing``.

    Half of the images have Gibbs ringing, a quarter is interpolated: thick slices within the slice, isotropic ones from
    voxels of 1.2-2 mm or, in the share ``thick_share``, from slices of 2-3.5 mm, as images resampled to a template
    are. A vendor's filter in two thirds, stripes in half of the two-dimensional ones, clipping in a quarter.
    """
    thick = spacing[2] >= 2
    kspace, zoom, interpolation = np.ones(3), np.ones(3), "none"
    if rng.random() < 0.5:
        # The phase-encoding axes are the ones with a smaller matrix.
        for axis in rng.choice(2 if thick else 3, int(rng.integers(1, 3)), replace=False):
            kspace[axis] = rng.uniform(0.6, 0.95)
    if rng.random() < 0.25:
        interpolation = str(rng.choice(["zero-filled", "linear", "cubic"], p=[0.4, 0.2, 0.4]))
        if thick:
            zoom[:2] = rng.uniform(1.1, 1.6)
        elif rng.random() < thick_share and interpolation != "zero-filled":
            zoom[2] = rng.uniform(2.0, 3.5) / spacing[2]
        else:
            axes = slice(0, 3) if rng.random() < 0.5 else slice(1, 3)
            zoom[axes] = max(rng.uniform(1.2, 2.0) / spacing[0], 1.0)
        if interpolation == "zero-filled":
            kspace, zoom, interpolation = np.minimum(kspace, 1 / zoom), np.ones(3), "none"
    kind = str(rng.choice(["none", "sharpen", "smooth"], p=[0.35, 0.45, 0.2]))
    flat = thick and t1_sequence in ("", "se", "ir")
    return Processing(
        kspace=tuple(float(v) for v in kspace),  # type: ignore[arg-type]
        zoom=tuple(float(v) for v in zoom),  # type: ignore[arg-type]
        interpolation=interpolation,
        stripes=float(rng.uniform(0.005, 0.02)) if flat and rng.random() < 0.5 else 0.0,
        filter=kind,
        strength=0.0 if kind == "none" else float(rng.uniform(0.3, 1.5 if kind == "sharpen" else 1.0)),
        filter_mm=float(rng.uniform(0.5, 1.0)),
        winsor=float(10 ** rng.uniform(-3, -2)) if rng.random() < 0.25 else 0.0,
    )
