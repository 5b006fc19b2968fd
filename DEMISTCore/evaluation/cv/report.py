"""From results to files: every table as CSV, ``summary.md``, ``table.tex``, figures.

==========================  ===========================================================================
results.csv                 one row a scan and method: all numbers
regions.csv                 one row a scan, method and region: true and synthesized mean PSR
folds.csv, subjects.csv     who was trained on and tested on, a row a fold and a row a subject
fold_means.csv              one row a method and fold: means over the fold's subjects
summary.csv                 one row a method: mean and SD over folds
significance.csv            each DEMIST row against every baseline: Wilcoxon, Holm
roc.csv                     lesions over all scans: AUC of truth and map, paired DeLong, bootstrap over patients
diagnoses.csv               classes compared by region, from the reference and from each synthesized map
contrasts.csv               lesions and proximal NAWM against distal NAWM of the same people
repeatability.csv           repeat scans of one person
costs.csv, costs.md         seconds, steps, parameters, network passes; the only ones that a clock has a part in
==========================  ===========================================================================

The measures by fold, and the figures, are in ``tensorboard`` as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...commit import staging
from . import folds as of_folds
from .board import write_board
from .folds import Fold
from .groups import diagnoses, long_table, regions_within, repeatability
from .page import costs_page, latex, markdown
from .pooled import Pool, table
from .recipes import Recipe, kinds
from .significance import comparisons, fold_means, summary

if TYPE_CHECKING:
    import pandas as pd

COSTS = "costs"


def report(
    results: Sequence[Mapping[str, Any]],
    recipes: Sequence[Recipe],
    folds: Sequence[Fold],
    sessions: Sequence[Any],
    strata: Mapping[str, str],
    settings: Mapping[str, Any],
    out: Path,
) -> None:
    """Write all of it; files go in place together."""
    from ...preview import save_figure
    from .figures import draw

    rows = [row for recipe in recipes for row in recipe.rows]
    pool = Pool.read(results, rows, out)
    tables = make_tables(results, recipes, folds, sessions, strata, pool)
    figures = draw(results, tables, rows, kinds(recipes), pool, out)
    gone = [out / f"{name}.csv" for name, content in tables.items() if not len(content)]
    with staging(out, remove=gone) as (hidden,):
        for name, content in tables.items():
            if len(content):
                content.to_csv(hidden / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
        (hidden / "table.tex").write_text(latex(tables, rows, kinds(recipes)), encoding="utf-8", newline="\n")
        (hidden / "costs.md").write_text(costs_page(tables[COSTS]), encoding="utf-8", newline="\n")
        text = markdown(tables, recipes, settings, sorted(figures))
        (hidden / "summary.md").write_text(text, encoding="utf-8", newline="\n")
        for name, figure in figures.items():
            save_figure(figure, hidden / name)
    write_board(out / "tensorboard", tables["fold_means"], figures)


def make_tables(
    results: Sequence[Mapping[str, Any]],
    recipes: Sequence[Recipe],
    folds: Sequence[Fold],
    sessions: Sequence[Any],
    strata: Mapping[str, str],
    pool: Pool,
) -> dict[str, pd.DataFrame]:
    """Tables by name; those that nothing belongs into are empty."""
    import pandas as pd

    rows = [row for recipe in recipes for row in recipe.rows]
    whole = _sorted(pd.DataFrame([one["row"] for one in results]), rows)
    who = ("fold", "subject", "session", "method")
    regions = pd.DataFrame(
        [{**{key: one["row"][key] for key in who}, **region} for one in results for region in one["regions"]]
    )
    regions = _sorted(regions, rows) if len(regions) else regions
    long = long_table(regions, rows)
    return {
        "results": whole,
        "regions": regions,
        "folds": pd.DataFrame(of_folds.fold_summary(folds, sessions, strata)),
        "subjects": pd.DataFrame(of_folds.fold_rows(folds, sessions, strata)),
        "fold_means": fold_means(whole, rows),
        "summary": summary(whole, rows),
        "significance": comparisons(whole, rows, kinds(recipes)),
        "roc": table(pool, rows),
        "diagnoses": diagnoses(long, strata),
        "contrasts": regions_within(long, strata),
        "repeatability": repeatability(long),
        COSTS: costs(results, rows),
    }


def costs(results: Sequence[Mapping[str, Any]], rows: Sequence[str]) -> pd.DataFrame:
    """One row a method and fold: what it was trained with, how large it is, and what a map takes."""
    import pandas as pd

    told: dict[tuple[str, int], dict[str, Any]] = {}
    for one in results:
        row, cost = one["row"], one["cost"]
        key = (row["method"], row["fold"])
        seconds, steps = cost["training_seconds"], cost["training_steps"]
        entry = told.setdefault(
            key,
            {
                "method": key[0],
                "fold": key[1],
                "training_seconds": sum(seconds.values()),
                "training_steps": sum(steps.values()),
                "stages": " ".join(f"{name}:{steps[name]}" for name in steps) or "fitted",
                "parameters": cost["parameters"],
                "passes": [],
                "map_seconds": [],
            },
        )
        entry["passes"].append(cost["passes"])
        entry["map_seconds"].append(cost["map_seconds"])
    for entry in told.values():
        passes = [p for p in entry["passes"] if p is not None]
        entry["passes"] = sum(passes) / len(passes) if passes else None
        entry["map_seconds"] = sum(entry["map_seconds"]) / len(entry["map_seconds"])
    order = {row: i for i, row in enumerate(rows)}
    return pd.DataFrame(sorted(told.values(), key=lambda entry: (order[entry["method"]], entry["fold"])))


def _sorted(table: pd.DataFrame, rows: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    table["method"] = pd.Categorical(table["method"], list(rows), ordered=True)
    return table.sort_values(["fold", "session", "method"], kind="stable").reset_index(drop=True)
