"""The experiment in TensorBoard: each measure by fold, a curve a method, and all figures."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .significance import MEASURES
from .store import slug

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def write_board(folder: Path, fold_means: pd.DataFrame, figures: Mapping[str, Figure]) -> None:
    """Write event files anew: a run a method, whose steps are folds, and a run with the figures.

    Args:
        folder: of the event files; what is there goes.
        fold_means: of :func:`.significance.fold_means`.
        figures: by file name.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)
    known = [m.key for m in MEASURES if m.key in fold_means]
    for method, own in fold_means.groupby("method", observed=True, sort=False):
        with SummaryWriter(str(folder / slug(str(method)).rpartition("-")[0])) as board:
            for _, row in own.iterrows():
                for key in known:
                    if np.isfinite(row[key]):
                        board.add_scalar(f"cv/{key}", float(row[key]), int(row["fold"]))
    with SummaryWriter(str(folder / "figures")) as board:
        for name, figure in figures.items():
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            board.add_image(name.rpartition(".")[0], np.asarray(canvas.buffer_rgba())[..., :3], dataformats="HWC")
