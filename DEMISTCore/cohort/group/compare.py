"""Patients against controls, region by region: a linear model with age and sex as covariates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import InputError
from .people import Person
from .tables import Measured, ordered

#: Columns of the comparison, and what they mean.
COLUMNS = {
    "region": "key of the region",
    "patients": "people with disease that have the region",
    "controls": "people without",
    "patients_mean": "mean over patients of the region's mean PSR, as it is",
    "controls_mean": "the same of controls",
    "difference": "patients minus controls, of equal age and sex",
    "ci95_low": "lower end of its 95 % interval (HC3: spread may differ between groups)",
    "ci95_high": "upper end",
    "t": "Student's t",
    "p": "two-sided",
    "p_fdr": "p after Benjamini and Hochberg (1995) over all regions of the table",
    "covariates": "what the model holds constant: age and sex, where they are known and differ",
    "left_out": "people of known group without a known covariate",
}
#: Fewer people of a group say nothing.
_LEAST = 3


def compare(measured: Sequence[Measured], people: Mapping[str, Person]) -> tuple[list[dict[str, Any]], list[str]]:
    """A row a region with the keys of :data:`COLUMNS`, and sentences on what could not be done.

    Each person counts once, by the first session: sessions of one person are not independent.

    Args:
        measured: sessions.
        people: by subject; group, age, sex.

    Raises:
        InputError: statsmodels is not installed.
    """
    first = list({one.subject: one for one in sorted(measured, key=lambda one: one.name, reverse=True)}.values())
    known = [
        one
        for one in sorted(first, key=lambda one: one.name)
        if one.subject in people and people[one.subject].patient is not None
    ]
    counted = [sum(people[one.subject].patient is which for one in known) for which in (True, False)]
    if min(counted) < _LEAST:
        return [], [
            f"Groups were not compared: that takes {_LEAST} patients and {_LEAST} controls at least, and there "
            f"are {counted[0]} and {counted[1]} of known group."
        ]
    rows, notes = [], []
    for region in ordered(known):
        row = _region(region, known, people)
        if row is None:
            notes.append(f"{region} was not compared: too few people have it.")
        else:
            rows.append(row)
    for row, p in zip(rows, _adjusted([row["p"] for row in rows])):
        row["p_fdr"] = p
    return rows, notes


def _region(region: str, known: Sequence[Measured], people: Mapping[str, Person]) -> dict[str, Any] | None:
    table = []
    for one in known:
        person, mean = people[one.subject], one.mean(region)
        if mean is not None:
            table.append((mean, float(bool(person.patient)), person.age_at(one.session), person.sex))
    whole = len(table)
    covariates = []
    if sum(row[2] is not None for row in table) > whole / 2:
        covariates.append("age")
        table = [row for row in table if row[2] is not None]
    if sum(bool(row[3]) for row in table) > len(table) / 2:
        covariates.append("sex")
        table = [row for row in table if row[3]]
    y, patient = (np.array([row[i] for row in table], float) for i in (0, 1))
    columns = [np.ones(len(y)), patient]
    if "age" in covariates:
        age = np.array([row[2] for row in table], float)
        columns.append(age - age.mean() if age.size else age)
    if "sex" in covariates:
        columns.append(np.array([row[3] == "M" for row in table], float))
    covariates = [name for name, column in zip(covariates, columns[2:]) if np.ptp(column) > 0]
    design = np.stack([*columns[:2], *(column for column in columns[2:] if np.ptp(column) > 0)], 1)
    numbers = [int((patient == which).sum()) for which in (1, 0)]
    if min(numbers) < _LEAST or np.linalg.matrix_rank(design) < design.shape[1] or len(y) <= design.shape[1]:
        return None
    try:
        from statsmodels.api import OLS
    except ImportError as error:
        raise InputError('Comparisons need statsmodels; pip install "demist[cohort]".') from error
    fit = OLS(y, design).fit(cov_type="HC3", use_t=True)
    low, high = fit.conf_int(0.05)[1]
    return {
        "region": region,
        "patients": numbers[0],
        "controls": numbers[1],
        "patients_mean": float(y[patient == 1].mean()),
        "controls_mean": float(y[patient == 0].mean()),
        "difference": float(fit.params[1]),
        "ci95_low": float(low),
        "ci95_high": float(high),
        "t": float(fit.tvalues[1]),
        "p": float(fit.pvalues[1]),
        "covariates": " ".join(covariates) or None,
        "left_out": whole - len(y),
    }


def _adjusted(values: Sequence[float]) -> list[float]:
    """p after Benjamini and Hochberg; what has none keeps none.

    >>> [round(p, 3) for p in _adjusted([0.01, 0.04, float("nan"), 0.03])]
    [0.03, 0.04, nan, 0.04]
    """
    from scipy.stats import false_discovery_control

    given = np.array(values, float)
    known = np.isfinite(given)
    if known.any():
        given[known] = false_discovery_control(given[known])
    return given.tolist()
