"""Level ``scale`` of a fine-tuning: maps that a bundle makes, the factor that fits them, and a bundle that has it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..acquisition import read_protocol
from ..bundle import DESCRIPTION_FILE, Bundle, description_hash, load_bundle
from ..errors import BundleError, InputError
from ..files import atomic_folder
from . import data
from .resolution import as_measured

#: A factor beyond this is no scanner's, but a wrong unit's.
_SCALE_RANGE = (0.4, 2.5)


def predicted(bundle: Bundle, entry: data.PreparedSession, device: Any, dtype: Any) -> np.ndarray:
    """The map that a bundle makes of a prepared session: its mean, or its first sample; (X, Y, Z) fraction."""
    from ..synthesis import generate, plan_sampling

    x = np.asarray(entry.x, np.float32)
    mask = (x != 0).any(0).astype(np.uint8)
    plan = plan_sampling(bundle, seeds=[0]) if bundle.config.mean is None else plan_sampling(bundle, mode="mean")
    protocol, _ = read_protocol(*entry.meta["inputs"][:2])
    [psr] = generate(bundle, x, mask, plan=plan, protocol=protocol, device=device, dtype=dtype)
    return np.asarray(psr, np.float32)


def own_factors(pairs: Sequence[tuple[data.PreparedSession, np.ndarray]]) -> dict[str, float]:
    """By person, what brings the maps closest to the truth, sum(p y) / sum(p p), where it is known.

    A coarse map is compared with the bundle's, seen as coarsely (:mod:`.resolution`). Maps are (X, Y, Z) fractions.
    People of whom the bundle makes empty maps have no factor.
    """
    factors: dict[str, list[float]] = {}
    for entry, psr in pairs:
        where = (np.asarray(entry.labels) > 0) & (np.asarray(entry.known) > 0)
        psr = as_measured(psr, entry.blur)
        p, y = psr[where].astype(np.float64), np.asarray(entry.y, np.float64)[where]
        power = float(p @ p)
        if power > 0:
            factors.setdefault(entry.subject, []).append(float(p @ y) / power)
    return {name: float(np.mean(own)) for name, own in factors.items()}


def best_factor(pairs: Sequence[tuple[data.PreparedSession, np.ndarray]]) -> float:
    """The median over people of :func:`own_factors`; maps are (X, Y, Z) fractions.

    Raises:
        InputError: it is no scanner's factor.
    """
    factors = own_factors(pairs)
    if not factors:
        raise InputError("The bundle makes empty maps of these scans; look at them (check.html).")
    factor = float(np.median(list(factors.values())))
    if not _SCALE_RANGE[0] <= factor <= _SCALE_RANGE[1]:
        raise InputError(
            f"The measured maps are {factor:.2f} times what the bundle makes of the scans, which no "
            "scanner explains; check their units and their fit."
        )
    return factor


def judge(pairs: Sequence[tuple[data.PreparedSession, np.ndarray]]) -> dict[str, float]:
    """PSNR (dB, peak 0.2), MAE (fraction) and scale error (%) where PSR is known, at the truth's resolution; means over
    people."""
    from .. import metrics
    from ..evaluation.split import scale_error_percent

    rows: dict[str, list[list[float]]] = {}
    for entry, psr in pairs:
        where = (np.asarray(entry.labels) > 0) & (np.asarray(entry.known) > 0)
        y, psr = np.asarray(entry.y, np.float32), as_measured(psr, entry.blur)
        rows.setdefault(entry.subject, []).append(
            [metrics.psnr(psr, y, where), metrics.mae(psr, y, where), scale_error_percent(psr, y, where)]
        )
    means = np.mean([np.mean(own, axis=0) for own in rows.values()], axis=0)
    return dict(zip(("psnr", "mae", "scale_error_percent"), (round(float(v), 5) for v in means)))


def with_scale(bundle: Bundle, factor: float, folder: Path) -> Bundle:
    """A bundle whose maps are ``factor`` times those of ``bundle``, in ``folder``, with its own base beside it.

    Networks work in units of the PSR range; a bundle of another scanner has another range and the same weights.
    Calibrated errors do not carry over and are left out.
    """
    if folder.exists():  # of a run that was stopped
        return load_bundle(folder)
    under = base_of(bundle)
    base_folder = folder.with_name(f"{folder.name}-base")
    base = {**under.info, "name": base_folder.name, "psr_range": under.psr_range * factor}
    base["training"] = {**(base.get("training") or {}), "scaled": round(factor, 6), "from": under.hash}
    base["hash"] = description_hash(base)
    if not base_folder.exists():
        copy_described(under.folder, base_folder, base)
    info = {key: value for key, value in bundle.info.items() if key != "uncertainty"}
    info |= {"name": folder.name, "base": {"name": base_folder.name, "hash": base["hash"]}}
    info["training"] = {**(info.get("training") or {}), "scaled": round(factor, 6), "from": bundle.hash}
    copy_described(bundle.folder, folder, info)
    return load_bundle(folder)


def copy_described(source: Path, folder: Path, info: dict[str, Any]) -> None:
    """The files of a bundle with another description, whole or not at all; ``info`` gets its hash."""
    info["hash"] = description_hash(info)
    with atomic_folder(folder) as building:
        for file in source.iterdir():
            if file.is_file() and file.name != DESCRIPTION_FILE:
                shutil.copy2(file, building / file.name)
        text = json.dumps(info, indent=2, ensure_ascii=False) + "\n"
        (building / DESCRIPTION_FILE).write_text(text, encoding="utf-8")


def copy_base(bundle: Bundle, beside: Path) -> None:
    """The base of ``bundle`` beside another folder, where it is looked for; nothing if it is there."""
    base = base_of(bundle)
    target = beside.with_name(base.name)
    if not target.exists():
        copy_described(base.folder, target, dict(base.info))


def base_of(bundle: Bundle) -> Bundle:
    """The foundation under a bundle of streams.

    Raises:
        BundleError: the bundle stands by itself.
    """
    if bundle.base is None:
        raise BundleError(f"Bundle {bundle.folder} names no foundation; give a demist bundle.")
    return bundle.base
