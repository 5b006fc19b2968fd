"""Run folders: the configuration, checkpoints that are whole or absent, the weights handed on to the next stage.

run/config.yaml                         everything needed to repeat the run
run/checkpoints/step-00001000/          weights.safetensors, ema.safetensors, state.pt, checksums.json
run/best.safetensors                    averaged weights at the best validation score
run/.lock                               held by the process that trains, see DEMISTCore.lock
run/metrics.csv  tensorboard/  previews/  train.log
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..commit import aside, commit
from ..errors import InputError
from ..files import atomic_path, sha256
from .groups import Settings
from .settings import build, read_yaml, to_dict, write_yaml

S = TypeVar("S", bound=Settings)

log = logging.getLogger(__name__)

KEEP = 2
CHECKSUMS = "checksums.json"
_TEXTS = ("data", "foundation", "foundation_hash", "init", "backbone", "mean", "data_hash")
_FILES = ("weights.safetensors", "ema.safetensors", "state.pt")


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
    data_hash: str | None = None

    def write(self) -> None:
        """Write ``config.yaml``."""
        from .. import __version__

        write_yaml(
            self.folder / "config.yaml",
            {
                "demist": __version__,
                "stage": self.stage,
                "data": self.data,
                "foundation": self.foundation,
                "foundation_hash": self.foundation_hash,
                "init": self.init,
                "backbone": self.backbone,
                "mean": self.mean,
                "data_hash": self.data_hash,
                "settings": to_dict(self.settings),
            },
        )

    def settings_as(self, kind: type[S]) -> S:
        """The settings, with the keys of their stage.

        Raises:
            InputError: the run is of a stage whose settings are not of ``kind``.
        """
        if not isinstance(self.settings, kind):
            raise InputError(f"{self.folder} is a run of {self.stage}; give one of another stage.")
        return self.settings

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
        extra = {key: content.get(key) for key in _TEXTS}
        for key, value in extra.items():
            if not isinstance(value, (str, type(None))):
                raise InputError(f"{folder}/config.yaml was damaged: {key} should be text, not {value!r}.")
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
        """Averaged weights of the newest checkpoint ("ema"), or of the best validation score ("best").

        Raises:
            InputError: there are none, or the file is not as it was written.
        """
        if which == "best":
            return _read_best(self.folder / "best.safetensors")
        latest = self.latest()
        if why := damage(latest, only=f"{which}.safetensors"):
            raise InputError(f"{latest} is damaged ({why}); --resume {self.folder}, which goes on from the one before.")
        return read_tensors(latest / f"{which}.safetensors")


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first: all files there, as long as they were when written."""
    found = [path for path in (folder / "checkpoints").glob("step-*") if path.name[5:].isdecimal()]
    return sorted((path for path in found if not damage(path, content=False)), key=step_of)


def damage(checkpoint: Path, *, only: str | None = None, content: bool = True) -> str | None:
    """What is wrong with a checkpoint's files, in a few words; None: nothing.

    Args:
        checkpoint: its folder.
        only: one file instead of all.
        content: compare SHA-256, not lengths alone.
    """
    sums: dict[str, Any] = {}
    try:
        if (checkpoint / CHECKSUMS).is_file():
            sums = json.loads((checkpoint / CHECKSUMS).read_text(encoding="utf-8"))
            if not isinstance(sums, dict) or set(sums) != set(_FILES):
                return f"{CHECKSUMS} is not as it was written"
        for name in [only] if only else _FILES:
            size = (checkpoint / name).stat().st_size
            if not sums:  # by an earlier version: nothing to compare with
                continue
            if size != sums[name]["bytes"]:
                return f"{name} has {size:,} bytes, not {sums[name]['bytes']:,}"
            if content and sha256(checkpoint / name) != sums[name]["sha256"]:
                return f"{name} has changed since it was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return "it cannot be read"
    return None


def step_of(checkpoint: Path) -> int:
    """The number of steps done when it was written."""
    return int(checkpoint.name.removeprefix("step-"))


def save(folder: Path, step: int, weights: dict[str, Tensor], ema: dict[str, Tensor], state: dict[str, Any]) -> Path:
    """Write a checkpoint aside and put it in place, then drop all but the newest two.

    An older one of the same step goes only when the new one is there. Later ones, from which a run could not be
    resumed (:func:`newest`), go as well.
    """
    target = folder / "checkpoints" / f"step-{step:08d}"
    try:
        with aside(target) as temporary:
            for name, tensors in (("weights", weights), ("ema", ema)):
                own = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
                save_file(own, temporary / f"{name}.safetensors")
            torch.save(state, temporary / "state.pt")
            sums = {n: {"sha256": sha256(temporary / n), "bytes": (temporary / n).stat().st_size} for n in _FILES}
            (temporary / CHECKSUMS).write_text(json.dumps(sums, indent=1), encoding="utf-8")
            commit([(temporary, target)])
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(f"Cannot write the checkpoint {target}: {error}; free some space, then --resume.") from error
    keep = [path for path in checkpoints(folder) if step_of(path) <= step][-KEEP:]
    for old in (folder / "checkpoints").glob("step-*"):
        if old not in keep:
            shutil.rmtree(old, ignore_errors=True)
    return target


def newest(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]] | None:
    """(weights, ema, state) of the newest checkpoint that is as it was written; None where there never was one.

    Raises:
        InputError: all of them are damaged.
    """
    there = sorted((p for p in (folder / "checkpoints").glob("step-*") if p.name[5:].isdecimal()), key=step_of)
    for path in reversed(there):
        try:
            loaded = load(path)
        except InputError as error:
            log.warning("%s", error)
            continue
        if path is not there[-1]:
            log.warning("Going on from %s instead.", path)
        return loaded
    if there:
        raise InputError(f"Every checkpoint in {folder / 'checkpoints'} is damaged; start a new run elsewhere.")
    return None


def load(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """(weights, ema, state) of a checkpoint.

    Raises:
        InputError: a file is missing or is not as it was written.
    """
    if why := damage(checkpoint):
        raise InputError(f"{checkpoint} is damaged ({why}); an older one, if there is any, serves --resume.")
    try:
        state = torch.load(checkpoint / "state.pt", map_location="cpu", weights_only=True)
        _check_state(state)
    except Exception as error:  # of a file that was not written here, anything
        raise InputError(f"{checkpoint} is damaged (state.pt is no state of a training run); remove it.") from error
    return read_tensors(checkpoint / "weights.safetensors"), read_tensors(checkpoint / "ema.safetensors"), state


def _check_state(state: Any) -> None:
    step, elapsed, best = state["step"], state["elapsed"], state["best"]
    if not isinstance(step, int) or not 0 <= step < 1 << 40 or not 0 <= float(elapsed) < 1e10 or best != best:
        raise ValueError("out of range")
    samples = state.get("samples", 0)  # none in those of an earlier version
    if not isinstance(samples, int) or not 0 <= samples < 1 << 60:
        raise ValueError("out of range")
    evaluated = state.get("evaluated")
    if evaluated and not all(isinstance(evaluated[what], int) for what in ("validate", "preview")):
        raise ValueError("out of range")
    if not isinstance(state["optimizers"], dict) or not isinstance(state["precision"], dict):
        raise ValueError("no optimizers")


def save_best(folder: Path, step: int, score: float, ema: dict[str, Tensor]) -> None:
    """Keep the averaged weights of the best validation score."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in ema.items()}
    with atomic_path(folder / "best.safetensors") as temporary:
        # One entry: safetensors writes several in any order, and same run means same bytes.
        told = {"step": step, "score": score, "sha256": _digest(tensors)}
        save_file(tensors, temporary, {"best": json.dumps(told)})


def _read_best(path: Path) -> dict[str, Tensor]:
    tensors = read_tensors(path)
    with safe_open(path, "pt") as file:
        told = (file.metadata() or {}).get("best")
    try:
        whole = told is None or json.loads(told)["sha256"] == _digest(tensors)  # None: by an earlier version
    except (ValueError, TypeError, KeyError, RecursionError):
        whole = False
    if not whole:
        raise InputError(f"{path} is damaged (changed since it was written); use the last weights, or train again.")
    return tensors


def _digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file; InputError where it is missing or damaged."""
    try:
        with safe_open(path, "pt"):
            pass
        return load_file(path)
    except FileNotFoundError as error:
        raise InputError(f"There is no {path}; train that stage first.") from error
    except Exception as error:  # of a hostile header, more than SafetensorError
        raise InputError(f"{path} is damaged; --resume from an older checkpoint or train again.") from error


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with ``prefix.``, without it."""
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(prefix + ".")}
