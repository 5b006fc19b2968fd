"""What torchrun starts in tests: several trainings one after the other, or the smallest of all, whose rank 1 may die.

torchrun ... torchrun_driver.py stages JSON       the command lines of several stages
torchrun ... torchrun_driver.py line FOLDER STEP  fit a line; rank 1 kills itself after STEP, once (0: never)
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from DEMISTCore import cli, train
from DEMISTCore.training import data, loop
from DEMISTCore.training.checkpoint import Run, checkpoints
from DEMISTCore.training.settings import resolve

torch.set_num_threads(1)


class Line(nn.Module):
    """Fit y = 2 x."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, batch, progress):
        return {"loss": (self.layer(batch["x"]) - 2 * batch["x"].sum(1, keepdim=True)).square().mean()}


class LineStage:
    """Notes which of its samples were used, a line a micro-batch."""

    score = "loss"
    lr_factors: dict = {}  # noqa: RUF012

    def __init__(self, log: Path, items: int, die_at: int) -> None:
        torch.manual_seed(0)
        self.objectives = {"line": Line()}
        self.log, self.items, self.die_at = log, items, die_at
        self.begun = len(checkpoints(log.parent)) > 0

    def batch(self, indices):
        picked = [data.pick(self.items, 0, "line", index) for index in indices]
        with open(self.log, "a", encoding="ascii") as stream:
            stream.write(f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)} {list(indices)} {picked}\n")
        if self.die_at and not self.begun and indices[0] >= self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"x": torch.stack([torch.from_numpy(data.random(1, i).standard_normal(3, "float32")) for i in picked])}

    def validate(self, device):
        return {"loss": float(self.objectives["line"].layer.weight.detach().sub(2).abs().mean())}

    def preview(self, path, device):
        pass

    def table(self):
        return ""

    def finish(self):
        pass


def line(folder: Path, die_at: int, words: list[str]) -> int:
    """Train a line in ``folder``; go on where there is a checkpoint."""
    rank = int(os.environ.get("RANK", 0))
    folder.mkdir(exist_ok=True)
    settings = resolve("regression", "tiny", ["steps=8", "lr=0.05", "device=cpu", "save_every=2", *words])
    stage = LineStage(folder / f"seen-{rank}.txt", 12, die_at if rank == 1 else 0)
    return loop.fit(stage, Run(folder, "regression", settings, None), resume=bool(checkpoints(folder)))


def main() -> int:
    """See above."""
    if sys.argv[1] == "line":
        return line(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
    return max(cli.run(train.main, words) for words in json.loads(sys.argv[2]))


if __name__ == "__main__":
    raise SystemExit(main())
