"""The experiment as a person reads it: Markdown with all tables, and the main table in LaTeX (booktabs)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .groups import TRUTH
from .numbers import ERRORS, GROUPS
from .recipes import OURS, Recipe, kinds
from .significance import MAIN, Measure
from .text import MINUS, NO_P, interval, number, p_value, plus_minus, roc_table, signed, table_of

if TYPE_CHECKING:
    import pandas as pd


def markdown(
    tables: Mapping[str, pd.DataFrame], recipes: Sequence[Recipe], settings: Mapping[str, Any], figures: Sequence[str]
) -> str:
    """``summary.md``; nothing in it hangs on a clock."""
    rows = [row for recipe in recipes for row in recipe.rows]
    by_kind = kinds(recipes)
    options = settings["options"]
    budget = (
        f"{options['minutes']:g} minutes"
        if options["minutes"]
        else f"{options['steps']} steps"
        if options["steps"]
        else "the preset's own lengths, which are not equal"
    )
    parts = [
        "# Cross-validation",
        "",
        f"`{settings['data']}`, {len(tables['folds'])} folds by subject, {tables['subjects']['scans'].sum()} scans of "
        f"{len(tables['subjects'])} subjects"
        + (f", stratified by {settings['stratify']}" if settings["stratify"] else "")
        + f"; preset `{options['config']}`, budget of each method and fold: {budget}. Samples: {options['sampler']}, "
        f"{options['sampling_steps']} steps, seed {options['seed']}."
        + (
            f" DEMIST's sample starts from its mean, at {options['start']:g} of the schedule, with "
            f"{options['detail']:g} of what sets it apart."
            if any("mean" in recipe.shares for recipe in recipes)
            else ""
        ),
        "",
        *(f"- {note}" for note in settings["notes"]),
        *([""] if settings["notes"] else []),
        "## Methods",
        "",
        table_of(
            ["Method", "Kind", "Trained stages (share of the budget)", "Source"],
            ([row, by_kind[row], _shares(recipe, options), recipe.source] for recipe in recipes for row in recipe.rows),
        ),
        "",
        "## Results",
        "",
        "Mean ± SD over folds of the folds' means over subjects. Bold: best. Stars: DEMIST better than the best "
        "baseline, Wilcoxon's signed rank test over subjects, p after Holm below 0.05 (*), 0.01 (**), 0.001 (***).",
        "",
        main_table(tables, rows, by_kind),
        "",
        *_wins(tables, by_kind),
        "## Errors by tissue",
        "",
        by_group(tables, rows),
        "",
        "## Each comparison",
        "",
        "Means over subjects of both, and p after Holm over all comparisons of the measure.",
        "",
        _significance(tables["significance"]),
        "",
        "## Lesions against normal-appearing white matter",
        "",
        "Area under the ROC curve over all scans, of the map and of the reference (the PSR that was measured, or "
        "simulated) in the same voxels; the difference with 95 % intervals: by DeLong with patients as clusters, and "
        "by a bootstrap over patients.",
        "",
        roc_table(tables["roc"]),
        "",
        *_further(tables),
        "## Folds",
        "",
        _frame(tables["folds"]),
        "",
    ]
    parts += [line for name in figures for line in (f"![{name.rpartition('.')[0]}]({name})", "")]
    parts.append("Costs of training and of maps: `costs.md`. The same table in LaTeX: `table.tex`.")
    return "\n".join(parts).rstrip() + "\n"


def main_table(tables: Mapping[str, pd.DataFrame], rows: Sequence[str], by_kind: Mapping[str, str]) -> str:
    """The table of the paper, in Markdown."""
    measures = [m for m in MAIN if f"{m.key}_mean" in tables["summary"]]
    header = ["Method", *(f"{m.title} {'↑' if m.better > 0 else '↓'}" for m in measures)]
    lines = []
    for row in rows:
        lines.append([row, *(_cell(tables, row, m, rows, by_kind, "**{}**", " ± ") for m in measures)])
    return table_of(header, lines)


def latex(tables: Mapping[str, pd.DataFrame], rows: Sequence[str], by_kind: Mapping[str, str]) -> str:
    """The same as a LaTeX table for ``\\usepackage{booktabs}``."""
    measures = [m for m in MAIN if f"{m.key}_mean" in tables["summary"]]
    arrows = {1: "$\\uparrow$", -1: "$\\downarrow$"}
    lines = [
        "% \\usepackage{booktabs}",
        "\\begin{table}",
        "  \\centering",
        "  \\small",
        "  \\caption{Mean $\\pm$ SD over folds. Bold: best. Stars: better than the best baseline, Wilcoxon's signed "
        "rank test over subjects, Holm: * $p<0.05$, ** $p<0.01$, *** $p<0.001$.}",
        f"  \\begin{{tabular}}{{l{'c' * len(measures)}}}",
        "    \\toprule",
        "    Method & " + " & ".join(f"{_tex(m.title)} {arrows[m.better]}" for m in measures) + " \\\\",
        "    \\midrule",
    ]
    ours = [row for row in rows if by_kind.get(row) == OURS]
    for part in ([row for row in rows if row not in ours], ours):
        for row in part:
            cells = [_cell(tables, row, m, rows, by_kind, "\\textbf{{{}}}", " $\\pm$ ") for m in measures]
            plain = [cell.replace(MINUS, "$-$").replace("\\*", "*") for cell in cells]
            lines.append("    " + " & ".join([_tex(row), *plain]) + " \\\\")
        if part and part is not ours and ours:
            lines.append("    \\midrule")
    return "\n".join([*lines, "    \\bottomrule", "  \\end{tabular}", "\\end{table}", ""])


def by_group(tables: Mapping[str, pd.DataFrame], rows: Sequence[str]) -> str:
    """Errors in the brain, in white and in grey matter and in lesions."""
    told = tables["summary"].set_index("method")
    header = ["Where", "Method", *(title for _, title, *_ in ERRORS)]
    lines = []
    for group in GROUPS:
        for row in rows:
            cells = [
                plus_minus(
                    factor * told.loc[row, f"{key}_{group}_mean"],
                    factor * told.loc[row, f"{key}_{group}_sd"],
                    digits,
                    " ± ",
                )
                for key, _, factor, digits, _ in ERRORS
            ]
            lines.append([group, row, *cells])
    return table_of(header, lines)


def _cell(
    tables: Mapping[str, pd.DataFrame],
    row: str,
    m: Measure,
    rows: Sequence[str],
    by_kind: Mapping[str, str],
    bold: str,
    between: str,
) -> str:
    told = tables["summary"].set_index("method")
    means = {name: m.better * float(told.loc[name, f"{m.key}_mean"]) for name in rows}
    known = {name: mean for name, mean in means.items() if math.isfinite(mean)}
    text = plus_minus(
        m.factor * told.loc[row, f"{m.key}_mean"], m.factor * told.loc[row, f"{m.key}_sd"], m.digits, between
    )
    if known and row in known and known[row] == max(known.values()):
        text = bold.format(text)
    return text + _stars(tables["significance"], row, m)


def _stars(significance: pd.DataFrame, row: str, m: Measure) -> str:
    if not len(significance):
        return ""
    own = significance[(significance["measure"] == m.key) & (significance["method"] == row) & significance["best"]]
    return str(own.iloc[0]["stars"]).replace("*", "\\*") if len(own) else ""


def _wins(tables: Mapping[str, pd.DataFrame], by_kind: Mapping[str, str]) -> list[str]:
    """Where a baseline is ahead, it is said."""
    table = tables["significance"]
    if not len(table):
        return []
    lines = []
    names = {m.key: m.title for m in MAIN}
    for _, row in table[table["measure"].isin(names) & (table["better"] == table["against"])].iterrows():
        p = p_value(row["p_holm"])
        sure = "too few people for a p" if p == NO_P else f"p {p if p.startswith('<') else f'= {p}'} after Holm"
        lines.append(f"- {names[row['measure']]}: {row['against']} is ahead of {row['method']} ({sure}).")
    return [*(["Where a baseline is ahead:", ""] if lines else ["No baseline is ahead in any of these."]), *lines, ""]


def _significance(table: pd.DataFrame) -> str:
    if not len(table):
        return "Nothing to compare."
    names = {m.key: m for m in MAIN}
    lines = []
    for _, row in table[table["measure"].isin(names)].iterrows():
        m = names[row["measure"]]
        lines.append(
            [
                m.title,
                row["method"],
                row["against"] + (" (best baseline)" if row["best"] else ""),
                str(row["subjects"]),
                number(m.factor * row["mean_method"], m.digits),
                number(m.factor * row["mean_against"], m.digits),
                row["better"] or "–",
                p_value(row["p"]),
                p_value(row["p_holm"]),
            ]
        )
    return table_of(
        ["Measure", "Method", "Against", "Subjects", "Method's mean", "Against's mean", "Better", "p", "p (Holm)"],
        lines,
    )


def _further(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    parts: list[str] = []
    if len(tables["diagnoses"]):
        parts += [
            "## Diagnoses",
            "",
            "Mean PSR (1e-3) of a class less that of the reference, with its 95 % interval: mixed "
            f"linear model, random intercept for each person. `{TRUTH}` is what the maps should say.",
            "",
            table_of(
                ["Region", "Class", "Reference", "Map", "People", "Difference", "95 %", "p"],
                (
                    [
                        row["region"],
                        row["class"],
                        row["reference"],
                        str(row["source"]),
                        f"{row['people']} / {row['reference_people']}",
                        signed(1e3 * row["difference"], 2),
                        interval(1e3 * row["low"], 1e3 * row["high"], 2),
                        p_value(row["p"]),
                    ]
                    for _, row in tables["diagnoses"]
                    .sort_values(["region", "class", "source"], kind="stable")
                    .iterrows()
                ),
            ),
            "",
        ]
    if len(tables["contrasts"]):
        parts += [
            "## Regions of the same people",
            "",
            "Mean PSR (1e-3) of a region less that of distal NAWM, mixed linear model.",
            "",
            table_of(
                ["Class", "Region", "Map", "People", "Difference", "95 %", "p"],
                (
                    [
                        row["class"],
                        row["region"],
                        str(row["source"]),
                        str(row["people"]),
                        signed(1e3 * row["difference"], 2),
                        interval(1e3 * row["low"], 1e3 * row["high"], 2),
                        p_value(row["p"]),
                    ]
                    for _, row in tables["contrasts"]
                    .sort_values(["class", "region", "source"], kind="stable")
                    .iterrows()
                ),
            ),
            "",
        ]
    if len(tables["repeatability"]):
        parts += [
            "## Repeat scans",
            "",
            "SD within persons (1e-3 PSR), the coefficient of repeatability (1.96 √2 of it), "
            "the coefficient of variation, and the share of the variance that is between persons.",
            "",
            table_of(
                ["Region", "Map", "People", "Scans", "Within", "Coefficient", "CV (%)", "ICC"],
                (
                    [
                        row["region"],
                        str(row["source"]),
                        str(row["people"]),
                        str(row["scans"]),
                        number(1e3 * row["within_sd"], 2),
                        number(1e3 * row["coefficient"], 2),
                        number(row["within_cv_percent"], 2),
                        number(row["icc"], 3),
                    ]
                    for _, row in tables["repeatability"].sort_values(["region", "source"], kind="stable").iterrows()
                ),
            ),
            "",
        ]
    return parts


def costs_page(costs: pd.DataFrame) -> str:
    """What each method took, means over folds, in Markdown."""
    lines = []
    for method, own in costs.groupby("method", sort=False):
        size, passes = float(own["parameters"].iloc[0]), float(own["passes"].mean())
        lines.append(
            [
                str(method),
                str(own["stages"].iloc[0]).replace(":", " "),
                number(own["training_steps"].mean(), 0),
                number(own["training_seconds"].mean() / 60, 1),
                f"{int(size):,}" if math.isfinite(size) else "–",
                number(passes, 1),
                number(own["map_seconds"].mean(), 1),
            ]
        )
    header = [
        "Method",
        "Stages",
        "Steps",
        "Minutes of training",
        "Parameters at inference",
        "Passes a map",
        "Seconds a map",
    ]
    told = (
        "Means over folds; stages with their steps in the first fold. Autoencoders are trained once a fold, and "
        "counted for every method that stands on them."
    )
    return f"# Costs\n\n{told}\n\n{table_of(header, lines)}\n"


def _shares(recipe: Recipe, options: Mapping[str, Any]) -> str:
    shares = recipe.stages(options["foundation"], options["backbone"])
    return ", ".join(f"{stage} {share:.0%}" for stage, share in shares.items()) or "least squares"


def _frame(table: pd.DataFrame) -> str:
    header = [str(name).replace("_", " ") for name in table]
    return table_of(header, ([str(value) for value in row] for row in table.to_numpy()))


def _tex(text: str) -> str:
    for plain, escaped in (("&", "\\&"), ("%", "\\%"), ("_", "\\_"), ("|", "$|$")):
        text = text.replace(plain, escaped)
    return text
