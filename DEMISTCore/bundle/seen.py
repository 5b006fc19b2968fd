"""Whether a model has seen the scans that it is to be judged on.

A fine-tuned bundle lists its people's T1w by the hash of their content (``training.finetune.scans``): whoever has the
same file can tell, nobody else can.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..files import sha256

if TYPE_CHECKING:
    from .model import Bundle

#: Digits of a hash that are kept: two scans of a million share one with a chance of one in 30 millions.
_DIGITS = 16
TRAINED, HELD_OUT = "trained", "held_out"


def scan_mark(t1w: Path) -> str:
    """What a bundle lists a scan by: the hash of its T1w file."""
    return sha256(t1w)[:_DIGITS]


def scan_marks(trained: Iterable[Path], held_out: Iterable[Path]) -> dict[str, list[str]]:
    """The entry ``scans`` of a fine-tuned bundle, of the T1w files of both sides."""
    return {TRAINED: sorted(map(scan_mark, trained)), HELD_OUT: sorted(map(scan_mark, held_out))}


def check_unseen(bundle: Bundle, scans: Mapping[str, Path]) -> str | None:
    """Refuse scans (T1w files by name) that a bundle was trained on; a sentence about those it was validated on.

    Raises:
        InputError: the model has learnt some of these scans.
    """
    known = _scans(bundle)
    if not any(known.values()):
        return None
    marks = {name: scan_mark(t1w) for name, t1w in scans.items()}
    learnt = [name for name, mark in marks.items() if mark in known[TRAINED]]
    if learnt:
        raise InputError(
            f"{bundle.name} was trained on {_some(learnt)}; what it makes of scans it has learnt says "
            "nothing of new ones: leave these out."
        )
    chosen = [name for name, mark in marks.items() if mark in known[HELD_OUT]]
    if not chosen:
        return None
    return (
        f"{bundle.name} was validated or calibrated on {_some(chosen)}: its error bars fit these better than "
        "anybody new."
    )


def _scans(bundle: Bundle) -> dict[str, set[str]]:
    """What the bundle lists; nothing for bundles without such lists, or with something else in their place."""
    told: Any = bundle.info
    for key in ("training", "finetune", "scans"):
        told = told.get(key) if isinstance(told, dict) else None
    told = told if isinstance(told, dict) else {}
    lists = {side: told.get(side) for side in (TRAINED, HELD_OUT)}
    return {side: {str(mark) for mark in marks} if isinstance(marks, list) else set() for side, marks in lists.items()}


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
