"""Tissue means from the true segmentation: the population's, and the subject's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...baselines import lookup
from ...measured import is_complete
from ..cases import Case
from .method import Context, Method, Outcome

if TYPE_CHECKING:
    from ...training.data import Session

POPULATION = "population look-up"
OWN_MEANS = "own tissue means (oracle)"


def build(context: Context) -> list[Method]:
    """Both look-ups; the population's only where there is a population."""
    look_up = _population(context)
    return [*([look_up] if look_up else []), own_means()]


def own_means() -> Method:
    """The subject's own true tissue means."""

    def make(case: Case) -> dict[str, Outcome]:
        means = lookup.tissue_means(case.truth[case.mask], case.labels[case.mask])
        return {OWN_MEANS: Outcome(lookup.look_up(means, case.labels))}

    return Method((OWN_MEANS,), {}, make)


def population(means_for: Callable[[Case], lookup.Means], source: str) -> Method:
    """Tissue means of a cohort; ``means_for(case)`` gives those that the subject has no part in."""

    def make(case: Case) -> dict[str, Outcome]:
        return {POPULATION: Outcome(lookup.look_up(means_for(case), case.labels))}

    return Method((POPULATION,), {"source": source}, make)


def _means(context: Context, sessions: Sequence[Session], cache: Path) -> dict[str, lookup.Means]:
    """Tissue means of each subject; a measured map is put where its labels are first."""
    complete = {s.subject: (s.psr, s.dseg) for s in sessions if is_complete(s.psr)}
    means = lookup.cohort_means(complete, cache) if complete else {}
    for session in sessions:
        if not is_complete(session.psr):
            case = Case(
                session,
                "truth",
                context.preprocess,
                context.model.spacing,
                context.model.config.multiple,
                str(context.device),
                context.out / "prepared",
                already_aligned=context.already_aligned,
            )
            means[session.subject] = lookup.tissue_means(case.truth[case.mask], case.labels[case.mask])
    return means


def _population(context: Context) -> Method | None:
    """From another data set, or from all other subjects of the case's own."""
    from ...training.data import index

    if context.lookup_from is not None:
        means = _means(context, index(context.lookup_from), context.out / "lookup.json")
        pooled = lookup.population_means(means.values())
        name = Path(context.lookup_from).name
        context.notes.append(f"Population look-up: tissue means of {len(means)} subjects of `{name}`.")
        return population(lambda case: pooled, json.dumps(pooled))
    cohorts = {}
    for group, sessions in context.cohorts.items():
        if len({s.subject for s in sessions}) < 2:
            context.notes.append("No population look-up: that takes a second subject or --lookup-from.")
            return None
        cohorts[group] = _means(context, sessions, context.out / f"lookup-{group}.json")
    counts = " and ".join(str(len(means) - 1) for means in cohorts.values())
    context.notes.append(f"Population look-up: tissue means of the {counts} other subjects of the same data set.")

    def others(case: Case) -> lookup.Means:
        return lookup.population_means(m for name, m in cohorts[case.group].items() if name != case.session.subject)

    return population(others, json.dumps(cohorts))
