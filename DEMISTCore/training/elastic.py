"""Training under a launcher that starts processes anew (torchrun, a queue): the same command begins a run or goes on.

    torchrun --standalone --nproc-per-node 4 --max-restarts 3 -m DEMISTCore.training.elastic \
        mean --data BIDS --out runs/mean --foundation runs/backbone devices=4

It is ``python -m DEMISTCore.train`` with ``--resume`` put in where there is something to go on with.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..cli import run

_RANKS = ("LOCAL_RANK", "RANK", "SLURM_PROCID")


def arguments(argv: Sequence[str], environment: Mapping[str, str] = os.environ) -> list[str]:
    """A command line of the trainer, with ``--resume`` if its run has begun.

    All processes of a run must decide alike, though they do not start at the same moment. The first one looks for the
    run's configuration, which it is the only one to write. The others look for a checkpoint: none appears before all
    of them have met, and a run without one begins anew in either case.

    Args:
        argv: what follows ``python -m DEMISTCore.train``.
        environment: of the process; launchers tell it which one it is.

    >>> arguments(["mean", "--out", "runs/none", "--config", "tiny"])
    ['mean', '--out', 'runs/none', '--config', 'tiny']
    """
    given = list(argv)
    out = _value(given, "--out")
    if out is None or "--resume" in given:
        return given
    first = not any(int(environment.get(name) or 0) for name in _RANKS)
    begun = (Path(out) / "config.yaml").is_file() if first else any(Path(out, "checkpoints").glob("step-*"))
    return [*_without(given, "--config"), "--resume"] if begun else given


def _value(words: Sequence[str], name: str) -> str | None:
    for i, word in enumerate(words):
        if word == name and i + 1 < len(words):
            return words[i + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


def _without(words: Sequence[str], name: str) -> list[str]:
    """A run that goes on has its configuration already, and takes no other."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word == name:
            skip = True
        elif not word.startswith(f"{name}="):
            kept.append(word)
    return kept


def main(argv: Sequence[str] | None = None) -> int:
    """Begin or go on."""
    import sys

    from .. import train

    return train.main(arguments(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    raise SystemExit(run(main))
