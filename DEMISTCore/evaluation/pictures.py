"""Figures of an evaluation: every subject's numbers as boxes, and example slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..preview import save_figure
from .cases import TEST
from .figures import Column, box_plots, compare_slices
from .methods import Method, reference
from .methods.bounds import BOUND_RESAMPLED
from .methods.demist import ONE_SEED
from .methods.local import LINEAR
from .methods.lookups import POPULATION
from .methods.regression import REGRESSION
from .store import result_paths

_SHOWN = {"PSNR (dB)": "psnr", "SSIM": "ssim", "Sharpness": "sharpness", "Lesion AUC": "lesion_auc"}


def draw_figures(rows: Sequence[Mapping[str, Any]], methods: Sequence[Method], settings: dict, out: Path) -> None:
    """boxes.png: every subject's numbers; slices.png: the median subject and the worst, by the reference's PSNR.

    A second data set has its own: boxes-shifted.png, slices-shifted.png.
    """
    # Knock-outs fail by so much that they would flatten everything else; the table has them.
    names = [name for method in methods if method.beside is None for name in method.names]
    drawn = [name for name in names if name != BOUND_RESAMPLED]
    for group in dict.fromkeys(row["set"] for row in rows):
        end = "" if group == TEST else f"-{group}"
        own = [row for row in rows if row["set"] == group]
        values = {
            heading: {m: [row[key] for row in own if row["method"] == m] for m in drawn}
            for heading, key in _SHOWN.items()
        }
        footer = f"{settings['warning']} Bundle {settings['bundle']} {settings['bundle_hash'][:12]}."
        against = "the simulated truth" if settings.get("truth") == "simulated" else "the measured maps"
        title = f"PSR against the truth, {group} set" if end else f"PSR against {against}"
        save_figure(box_plots(values, title=title, footer=footer), out / f"boxes{end}.png", dpi=110)
        _draw_slices(own, drawn, out, out / f"slices{end}.png", footer)


def _draw_slices(
    rows: Sequence[Mapping[str, Any]], drawn: Sequence[str], out: Path, picture: Path, footer: str
) -> None:
    chosen = reference(drawn)
    ranked = sorted((row["psnr"], row["session"]) for row in rows if row["method"] == chosen)
    examples = list(dict.fromkeys([ranked[(len(ranked) - 1) // 2][1], ranked[0][1]]))
    kinds = ("median", "worst") if len(examples) > 1 else ("only one",)
    columns = [m for m in drawn if m in (POPULATION, LINEAR, REGRESSION, ONE_SEED, chosen)]
    group = rows[0]["set"]
    cuts = {(s, m): dict(np.load(result_paths(out, group, s, m)[1])) for s in examples for m in columns}
    cuts = {key: {name: a.astype(np.float32) for name, a in cut.items()} for key, cut in cuts.items()}
    first = [cuts[session, columns[0]] for session in examples]
    errors = [
        [np.where(cut["mask"] > 0, cut["psr"] - cut["truth"], np.nan) for cut in (cuts[s, m] for s in examples)]
        for m in columns
    ]
    figure = compare_slices(
        [
            Column.psr("truth", _same_shape([cut["truth"] for cut in first])),
            *(Column.psr(m, _same_shape([cuts[s, m]["psr"] for s in examples])) for m in columns),
            *(Column.difference(f"error, {m}", _same_shape(error)) for m, error in zip(columns, errors)),
        ],
        contours=_same_shape([cut["lesions"] > 0 for cut in first]),
        row_titles=[f"{session} ({what})" for session, what in zip(examples, kinds)],
        aspect=float(first[0]["aspect"]),
        title="Median and worst subject; lesions outlined",
        footer=footer,
    )
    save_figure(figure, picture, dpi=110)


def _same_shape(slices: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Pad slices of different brains to one shape, centred."""
    target = np.max([a.shape for a in slices], axis=0)
    before = [(target - a.shape) // 2 for a in slices]
    return [
        np.pad(a, list(zip(low, target - a.shape - low)), constant_values=np.nan if a.dtype.kind == "f" else 0)
        for a, low in zip(slices, before)
    ]
