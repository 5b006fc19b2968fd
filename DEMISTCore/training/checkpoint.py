"""Run folders: the configuration, checkpoints that are whole or absent, the weights handed on to the next stage.

    run/config.yaml                         everything needed to repeat the run
    run/checkpoints/step-00001000/          weights.safetensors, ema.safetensors, state.pt
    run/best.safetensors                    averaged weights at the best validation score
    run/metrics.csv  tensorboard/  previews/  train.log
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import InputError
from ..files import atomic_path
from .settings import Settings, build, read_yaml, to_dict, write_yaml

KEEP = 2


@dataclass
class Run:
    """A run folder and what its ``config.yaml`` says."""

    folder: Path
    stage: str
    settings: Settings
    data: str | None
    foundation: str | None = None
    foundation_hash: str | None = None
    init: str | None = None
    backbone: str | None = None
    mean: str | None = None

    def write(self) -> None:
        """Write ``config.yaml``."""
        from .. import __version__

        write_yaml(
            self.folder / "config.yaml",
            {"demist": __version__, "stage": self.stage, "data": self.data, "foundation": self.foundation,
             "foundation_hash": self.foundation_hash, "init": self.init, "backbone": self.backbone,
             "mean": self.mean,
             "settings": to_dict(self.settings)},
        )  # fmt: skip

    @classmethod
    def read(cls, folder: str | Path) -> Run:
        """Read a run folder.

        Raises:
            InputError: it does not exist or is not a run of the trainer.
        """
        folder = Path(folder)
        if not (folder / "config.yaml").is_file():
            raise InputError(f"{folder} is not a training run: it has no config.yaml.")
        content = read_yaml(folder / "config.yaml")
        try:
            stage, tree = content["stage"], content["settings"]
            settings = build(stage, tree)
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{folder}/config.yaml was not written by the trainer, or was damaged.") from error
        extra = {key: content.get(key) for key in ("data", "foundation", "foundation_hash", "init", "backbone", "mean")}
        return cls(folder, stage, settings, **extra)

    @property
    def foundation_source(self) -> str:
        """Where the earlier stage is: as noted, or, if all runs were moved together, beside this one.

        Raises:
            InputError: none is noted.
        """
        if not self.foundation:
            raise InputError(f"{self.folder}/config.yaml names no foundation; give --foundation.")
        return self._moved(self.foundation)

    @property
    def backbone_source(self) -> str | None:
        """Where the published backbone is, looked for like the earlier stage; None: the foundation has its own."""
        return self._moved(self.backbone) if self.backbone else None

    @property
    def mean_source(self) -> str | None:
        """Where the mean network is, looked for like the earlier stage; None: the streams have none."""
        return self._moved(self.mean) if self.mean else None

    def _moved(self, source: str) -> str:
        beside = self.folder.resolve().parent / Path(source).name
        return str(beside) if not Path(source).exists() and beside.exists() else source

    def latest(self) -> Path:
        """The newest checkpoint.

        Raises:
            InputError: there is none yet.
        """
        found = checkpoints(self.folder)
        if not found:
            raise InputError(f"{self.folder} has no checkpoint yet; train it first.")
        return found[-1]

    def weights(self, which: str = "ema") -> dict[str, Tensor]:
        """Averaged weights of the newest checkpoint ("ema"), or of the best validation score ("best")."""
        path = self.folder / "best.safetensors" if which == "best" else self.latest() / f"{which}.safetensors"
        return read_tensors(path)


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first."""
    return sorted(path for path in (folder / "checkpoints").glob("step-*") if (path / "state.pt").is_file())


def step_of(checkpoint: Path) -> int:
    """The number of steps done when it was written."""
    return int(checkpoint.name.removeprefix("step-"))


def save(folder: Path, step: int, weights: dict[str, Tensor], ema: dict[str, Tensor], state: dict[str, Any]) -> Path:
    """Write a checkpoint under a temporary name, rename it, then drop all but the newest two."""
    target = folder / "checkpoints" / f"step-{step:08d}"
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=target.parent))
    try:
        temporary.chmod(0o755)
        for name, tensors in (("weights", weights), ("ema", ema)):
            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary / f"{name}.safetensors")
        torch.save(state, temporary / "state.pt")
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(f"Cannot write the checkpoint {target}: {error}; free some space, then --resume.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in checkpoints(folder)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """(weights, ema, state) of a checkpoint.

    Raises:
        InputError: a file is missing or damaged; the mend is to delete this checkpoint, an older one is kept.
    """
    try:
        state = torch.load(checkpoint / "state.pt", map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{checkpoint} is damaged; delete that folder and --resume from the one before it.") from error
    return read_tensors(checkpoint / "weights.safetensors"), read_tensors(checkpoint / "ema.safetensors"), state


def save_best(folder: Path, step: int, score: float, ema: dict[str, Tensor]) -> None:
    """Keep the averaged weights of the best validation score."""
    with atomic_path(folder / "best.safetensors") as temporary:
        metadata = {"step": str(step), "score": json.dumps(score)}
        save_file({k: v.detach().cpu().contiguous() for k, v in ema.items()}, temporary, metadata)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file; InputError where it is missing or damaged."""
    try:
        with safe_open(path, "pt"):
            pass
        return load_file(path)
    except FileNotFoundError as error:
        raise InputError(f"There is no {path}; train that stage first.") from error
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged; --resume from an older checkpoint or train again.") from error


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with ``prefix.``, without it."""
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(prefix + ".")}
