"""The end of a fine-tuning: the bundle in its place, and a card that says what it was made of."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle import Bundle, load_bundle
from ..bundle.description import CARD_FILE
from ..files import atomic_path
from . import data
from .check import Report
from .finetune_scale import copy_base, copy_described


def publish(
    source: Path,
    target: Path,
    init: Bundle,
    model: Bundle,
    report: Report,
    entries: Sequence[data.PreparedSession],
    words: dict[str, Any],
    licence: str,
    measured: bool,
    salt: str | None,
    level: str,
    scans: dict[str, list[str]],
) -> None:
    """The bundle in its place: with its base, its licence, and a card that says what it was made of."""
    bundle = load_bundle(source)
    copy_base(bundle, target)
    info = {**bundle.info, "name": target.name, "licence": licence}
    info["training"] = {
        **(info.get("training") or {}),
        "finetune": {
            **words,
            "from": {"name": init.name, "hash": init.hash},
            "data": report.root.name,
            "scans": scans,
        },
    }
    copy_described(source, target, info)
    salt = secrets.token_hex(16) if salt is None else salt
    people = sorted(hashlib.sha256(f"{salt}{name}".encode()).hexdigest()[:16] for name in {e.subject for e in entries})
    with atomic_path(target / CARD_FILE) as temporary:
        card = _card(load_bundle(target), init, report, entries, words, people, measured, level)
        temporary.write_text(card, encoding="utf-8")


def _card(
    bundle: Bundle,
    init: Bundle,
    report: Report,
    entries: Sequence[data.PreparedSession],
    words: dict[str, Any],
    people: Sequence[str],
    measured: bool,
    level: str,
) -> str:
    facts = [one.facts for one in report.usable if one.facts]
    share = np.mean([one["coverage"] for one in facts])
    kinds = " and ".join(sorted({one["units"] for one in facts}))
    moved = [one["registration"]["moved_mm"] for one in facts if one.get("registration")]
    placed = f", registered to the T1w over {np.mean(moved):.1f} mm (at most {max(moved):.1f})" if moved else ""
    steps = ("before", "after") if level == "scale" else ("before", "scaled", "after")
    rows = [
        f"| {name} | " + " | ".join(f"{words[f'metrics_{step}'][key]:.{digits}f}" for step in steps) + " |"
        for name, key, digits in (
            ("PSNR (dB, range 0.2)", "psnr", 2),
            ("MAE (PSR)", "mae", 4),
            ("scale error (%)", "scale_error_percent", 1),
        )
    ]
    judged = "people held out" if words["held_out"] and words["trained"] < words["people"] else "the training itself"
    intervals = (
        f"calibrated on {words['calibrated_on']} people who had no part in training"
        if words["calibrated_on"]
        else f"not calibrated: {words.get('no_intervals', '')}"
    )
    lines = [
        f"# {bundle.name}",
        "",
        f"**{bundle.warning}**",
        "",
        f"{init.name} ({init.hash[:12]}) fitted to {'measured' if measured else 'simulated'} PSR maps, level "
        f"`{level}`. Licence of the weights: {bundle.licence}.",
        "",
        "## Data",
        "",
        f"{words['people']} people, {len(entries)} sessions; maps in {kinds}, known in {share:.0%} of the brain on "
        f"average{placed}. {words['trained']} people were trained on, {words['held_out']} judged on.",
        "",
        "People, by salted hash: " + ", ".join(f"`{name}`" for name in people) + ".",
        "",
        "## Metrics",
        "",
        f"On {judged}, where PSR was measured; mean over people.",
        "",
        f"| | {' | '.join(steps)} |",
        "|---" * (1 + len(steps)) + "|",
        *rows,
        "",
        f"All maps were first multiplied by {words['factor']:.3f}. Intervals: {intervals}.",
        "",
    ]
    return "\n".join(lines)
