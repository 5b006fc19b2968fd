"""The shifted physics: a scanner that obeys other laws than those a network was trained on.

A test instrument, never training data. R1 is linear in PSR with an iron term of its own for each region, exchange is
fast, noise comes from many coils with a g-factor, bias fields are polynomials or coil sensitivities, filters are those
of other vendors, and protocol ranges overlap those of protocol.py only in part.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .artefacts import Processing
from .physics import csf_null_ti
from .protocol import R1_CSF, Protocol


def shift(drawn: Protocol, rng: np.random.Generator) -> Protocol:
    """``drawn`` with the laws and the ranges of the shifted physics; geometry and movement stay."""
    three_tesla = drawn.field_strength > 2
    changes: dict = {
        # R1 = a + b PSR + iron, after the linear relaxometry model of Callaghan et al., Magn Reson Med 73:1309 (2015).
        "r1_water": float(rng.normal(0.45, 0.02)),
        "r1_macro": float(rng.normal(4.9, 0.3) if three_tesla else rng.normal(7.6, 0.5)),
        "iron": tuple(float(rng.uniform(*r)) for r in ((0.0, 0.04), (0.0, 0.05), (0.04, 0.14))),
        "jitter": (float(rng.normal(1, 0.02)), float(rng.normal(1, 0.02))),
        "flair_tr": float(rng.uniform(6.0, 12.0)),
        "flair_te": float(rng.uniform(0.10, 0.18)),
        "flair_mt": float(rng.uniform(0.0, 1.2)),
        "snr": (float(rng.uniform(18, 50)), float(rng.uniform(14, 40))),
        "bias_kind": str(rng.choice(["polynomial", "coils"])),
        "coils": int(rng.integers(2, 13)),
        "g_factor": float(rng.uniform(0.2, 1.2)),
        "b1": drawn.b1 * float(rng.uniform(0.8, 1.3)),
        "gamma": (float(np.exp(rng.normal(0, 0.06))), float(np.exp(rng.normal(0, 0.06)))),
        "physics": "shifted",
    }
    changes["flair_ti"] = csf_null_ti(R1_CSF, changes["flair_tr"]) * float(rng.uniform(0.94, 1.05))
    if drawn.t1_sequence == "mprage":
        half = 0.5 * drawn.t1_echoes * drawn.t1_echo_spacing
        ti = max(float(rng.uniform(0.85, 1.3)), half + 0.12)
        changes |= {
            "t1_ti": ti,
            "t1_tr": max(float(rng.uniform(1.8, 3.0)), ti + half + 0.02),
            "t1_flip": float(rng.uniform(8, 15)),
        }
    elif drawn.t1_sequence == "spgr":
        changes |= {"t1_tr": float(rng.uniform(0.006, 0.020)), "t1_flip": float(rng.uniform(12, 28))}
    elif drawn.t1_sequence == "ir":
        changes |= {"t1_tr": float(rng.uniform(2.0, 3.0)), "t1_ti": float(rng.uniform(0.9, 1.2))}
    else:
        changes |= {"t1_tr": float(rng.uniform(0.45, 0.80)), "t1_te": float(rng.uniform(0.010, 0.020))}
    changes["processing"] = tuple(_other_vendor(p, rng) for p in drawn.processing)
    return replace(drawn, **changes)


def _other_vendor(drawn: Processing, rng: np.random.Generator) -> Processing:
    """The same k-space and interpolation, another vendor's filter and curve."""
    kind = str(rng.choice(["none", "median", "diffusion", "hann"], p=[0.25, 0.2, 0.25, 0.3]))
    strength = 0.0 if kind == "none" else float(rng.uniform(0.4, 1.0))
    return replace(
        drawn,
        filter=kind,
        strength=strength,
        logarithm=float(rng.uniform(0.2, 0.8)) if rng.random() < 0.5 else 0.0,
    )
