"""What a training run says of itself while it goes on."""

from __future__ import annotations

import csv
import logging
import math
import time
from pathlib import Path

from ..errors import InputError
from .groups import Settings

log = logging.getLogger(__name__)


class Reporter:
    """Progress bar, TensorBoard and ``metrics.csv`` (step, minutes, tag, value), means over ``log_every`` steps."""

    def __init__(self, folder: Path, step: int, elapsed: float, settings: Settings, validated: int = 0) -> None:
        from tqdm import tqdm

        self.folder, self.settings, self.on = folder, settings, True
        self.csv_path = folder / "metrics.csv"
        self._drop_rows_after(step, validated)
        total = settings.steps
        self.bar = tqdm(total=total, initial=step, desc=folder.name, unit="step", dynamic_ncols=True, mininterval=1)
        self.sums: dict[str, float] = {}
        self.count = 0
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)
        except ImportError as error:
            raise InputError('Training needs tensorboard; install it with: pip install "demist[train]"') from error
        self.start = time.monotonic() - elapsed

    @classmethod
    def silent(cls) -> Reporter:
        """A reporter that says nothing: for all processes but the first."""
        self = cls.__new__(cls)
        self.on = False
        return self

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.on:
            self.bar.close()
            self.board.close()

    def train(self, step: int, scalars: dict[str, float], progress: float, seconds: float) -> None:
        """Note a step's scalars."""
        if not self.on:
            return
        self.bar.update(1)
        for key, value in scalars.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        self.count += 1
        if step % self.settings.log_every == 0 or progress >= 1:
            means = {key: value / self.count for key, value in self.sums.items()}
            self._write(step, {f"train/{key}": value for key, value in means.items()})
            self.sums, self.count = {}, 0
            loss = next((v for k, v in means.items() if k.endswith("/loss")), math.nan)
            self.bar.set_postfix_str(f"{min(progress, 1):.0%} loss {loss:.4f} {means.get('seconds', 0):.2f} s/step")

    def validation(self, step: int, values: dict[str, float]) -> None:
        """Note validation results and say them."""
        if self.on:
            self._write(step, {f"validation/{key}": value for key, value in values.items()})
            log.info("step %d: %s", step, "  ".join(f"{key} {value:.4g}" for key, value in values.items()))

    def preview(self, step: int, picture: Path) -> None:
        """Show a preview (PNG) in TensorBoard as well."""
        if self.on and picture.exists():
            from matplotlib.image import imread

            self.board.add_image("preview", imread(picture)[..., :3], step, dataformats="HWC")

    def _write(self, step: int, values: dict[str, float]) -> None:
        minutes = (time.monotonic() - self.start) / 60
        new = not self.csv_path.exists()
        with self.csv_path.open("a", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            if new:
                writer.writerow(("step", "minutes", "tag", "value"))
            for tag, value in values.items():
                writer.writerow((step, f"{minutes:.3f}", tag, f"{value:.6g}"))
                self.board.add_scalar(tag, value, step)

    def _drop_rows_after(self, step: int, validated: int) -> None:
        """Rows written after the checkpoint that is resumed would appear twice; a kill may have cut the last one."""
        if self.csv_path.exists():
            from ..files import atomic_path

            lines = self.csv_path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            kept = [line for i, line in enumerate(lines) if i == 0 or _row_holds(line, step, validated)]
            with atomic_path(self.csv_path) as temporary:
                temporary.write_text("".join(kept))


def _row_holds(line: str, step: int, validated: int) -> bool:
    words = line.split(",")
    if len(words) != 4 or not line.endswith("\n") or not words[0].isdecimal():
        return False
    return int(words[0]) <= (validated if words[2].startswith("validation/") else step)
