"""What torchrun starts in tests: several trainings one after the other, or the smallest of all, whose rank 1 may die.

torchrun ... torchrun_driver.py stages JSON       the command lines of several stages, in double precision
torchrun ... torchrun_driver.py line FOLDER STEP  fit a line; rank 1 kills itself after STEP, once (0: never)
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from DEMISTCore import cli, pooling, train
from DEMISTCore.training import data, loop
from DEMISTCore.training.checkpoint import Run, checkpoints
from DEMISTCore.training.settings import resolve
from DEMISTCore.training.stage import Stage

torch.set_num_threads(1)


class Line(nn.Module):
    """Fit y = 2 x, by a loss that is no mean over samples."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, batch, progress):
        x = batch["x"]
        found, true = self.layer(x), 2 * x.sum(1, keepdim=True)
        weight = x[:, :1].abs()
        mean = ((found - true).square() * weight).sum() / pooling.count(weight.sum())
        # Some samples, of a micro-batch perhaps none, against all of the step.
        contrast = pooling.rows((found - true)[x[:, 0] > 0]).exp().sum().log1p()
        return {"loss": mean * pooling.deviation(true) + 0.1 * contrast}

    def rehearse(self, batch, progress):
        self(batch, progress)


class LineStage(Stage):
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


@contextlib.contextmanager
def doubled():
    """Training in double precision.

    AdamW moves a weight by the learning rate even where its gradient is nothing but rounding, of either sign (a bias
    before a normalisation). In single precision that hides what the same training is; in double, such gradients are far
    below AdamW's epsilon.
    """
    fit = loop.fit

    def fit_doubled(stage, run, **how):
        for value in [*stage.objectives.values(), *_modules(vars(stage).values())]:
            value.double()
        drawn = stage.batch
        stage.batch = lambda indices: {
            name: value.double() if value.is_floating_point() else value for name, value in drawn(indices).items()
        }
        # Its own data are of single precision, and it compares bytes.
        stage.validate, stage.preview, stage.finish = lambda _: {stage.score: 0.0}, lambda *_: None, lambda: None
        with Doubled():
            return fit(stage, run, **how)

    loop.fit = fit_doubled
    try:
        yield
    finally:
        loop.fit = fit


class Doubled(TorchFunctionMode):
    """Where single precision is asked for, double is given."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        func = torch.Tensor.double if func is torch.Tensor.float else func
        args = [torch.float64 if value is torch.float32 else value for value in args]
        kwargs = {k: torch.float64 if value is torch.float32 else value for k, value in (kwargs or {}).items()}
        return func(*args, **kwargs)


def _modules(values) -> list[nn.Module]:
    """Frozen ones, which stages keep in lists or beside their objectives."""
    flat = [each for value in values for each in (value if isinstance(value, list) else [value])]
    return [each for each in flat if isinstance(each, nn.Module)]


def main() -> int:
    """See above."""
    if sys.argv[1] == "line":
        return line(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
    with doubled():
        return max(cli.run(train.main, words) for words in json.loads(sys.argv[2]))


if __name__ == "__main__":
    raise SystemExit(main())
