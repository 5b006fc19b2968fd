"""What a neurologist would conclude from the maps: diagnoses and regions compared, and repeat scans.

The same questions are put to the measured and to every synthesized map: a map is as good as the conclusions that it
leads to. Mixed linear models have a random intercept for each person, since several scans, and several regions, are of
one person (N. M. Laird, J. H. Ware, Biometrics 38:963, 1982), fitted by restricted maximum likelihood with statsmodels.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...cohort.group.people import CONTROLS

if TYPE_CHECKING:
    import pandas as pd

#: Regions whose means are compared, by their names in the table of regions.
REGIONS = ("lesion", "proximal NAWM", "distal NAWM", "NAWM")
TRUTH = "reference"
#: Fewer people of a class say nothing of it.
_LEAST = 3
#: A difference between two maps of one person at rest is below this many within-subject SDs 95 times of 100.
_REPEATABILITY = 1.96 * math.sqrt(2)


def long_table(regions: pd.DataFrame, rows: Sequence[str]) -> pd.DataFrame:
    """One row a scan, region and map (``source``: :data:`TRUTH`, or a method), with ``mean`` PSR (fraction)."""
    import pandas as pd

    if not len(regions):
        return pd.DataFrame(columns=["subject", "session", "region", "source", "mean"])
    who = ["subject", "session", "region"]
    truth = regions.drop_duplicates(["session", "region"])[[*who, "truth"]].rename(columns={"truth": "mean"})
    made = regions[[*who, "method", "synthesized"]].rename(columns={"method": "source", "synthesized": "mean"})
    table = pd.concat([truth.assign(source=TRUTH), made.assign(source=made["source"].astype(str))])
    table["source"] = pd.Categorical(table["source"], [TRUTH, *rows], ordered=True)
    return table.sort_values(["source", "region", "session"]).reset_index(drop=True)


def diagnoses(table: pd.DataFrame, strata: Mapping[str, str]) -> pd.DataFrame:
    """Each class against the reference (controls, else the largest), region by region.

    Who has no lesion has nothing near to and nothing far from one: all of that scan's NAWM stands in for the three.

    Columns: ``source``, ``region``, ``class``, ``reference``, ``people``, ``reference_people``, ``class_mean``,
    ``reference_mean``, ``difference`` (of the model), ``low``, ``high`` (95 %), ``p``, ``model`` ("mixed": random
    intercept for persons; "ordinary": nobody was scanned twice).
    """
    import pandas as pd

    table = _stand_in(table[table["subject"].isin(strata)]).assign(klass=lambda t: t["subject"].map(strata))
    told = []
    for (source, region), own in table.groupby(["source", "region"], observed=True, sort=False):
        if region not in REGIONS:
            continue
        people = own.groupby("klass")["subject"].nunique()
        people = people[people >= _LEAST]
        if len(people) < 2:
            continue
        base = reference(people.to_dict())
        for name in (klass for klass in people.index if klass != base):
            pair = own[own["klass"].isin((name, base))]
            is_class = (pair["klass"] == name).to_numpy(float)
            fit = _fit(pair["mean"].to_numpy(float), is_class, pair["subject"].to_numpy())
            means = pair.groupby("klass")["mean"].mean()
            told.append(
                {
                    "source": source,
                    "region": region,
                    "class": name,
                    "reference": base,
                    "people": int(people[name]),
                    "reference_people": int(people[base]),
                    "class_mean": float(means[name]),
                    "reference_mean": float(means[base]),
                    **fit,
                }
            )
    return pd.DataFrame(told)


def _stand_in(table: pd.DataFrame) -> pd.DataFrame:
    """The table with NAWM in the place of lesions, proximal and distal NAWM of scans that have none of them."""
    import pandas as pd

    parts = ("lesion", "proximal NAWM", "distal NAWM")
    known = set(table.loc[table["region"].isin(parts), "session"])
    whole = table[(table["region"] == "NAWM") & ~table["session"].isin(known)]
    return pd.concat([table, *(whole.assign(region=part) for part in parts)], ignore_index=True)


def reference(people: Mapping[str, int]) -> str:
    """The class that others are compared with: controls by one of their usual names, else the largest."""
    healthy = [name for name in people if name.lower() in CONTROLS]
    return healthy[0] if healthy else max(sorted(people), key=lambda name: people[name])


def regions_within(table: pd.DataFrame, strata: Mapping[str, str]) -> pd.DataFrame:
    """Lesions, and proximal NAWM, against distal NAWM of the same people, by class ("all" together, too).

    Columns as of :func:`diagnoses`, with ``against`` in the place of the reference.
    """
    import pandas as pd

    told = []
    classes = {"all": set(table["subject"])}
    for name in sorted(set(strata.values()) - {""}):
        classes[name] = {who for who, klass in strata.items() if klass == name}
    for source, own in table.groupby("source", observed=True, sort=False):
        for klass, who in classes.items():
            for region in ("lesion", "proximal NAWM"):
                pair = own[own["subject"].isin(who) & own["region"].isin((region, "distal NAWM"))]
                both = pair.groupby("session")["region"].nunique()
                pair = pair[pair["session"].isin(both.index[both == 2])]
                if pair["subject"].nunique() < _LEAST:
                    continue
                fit = _fit(
                    pair["mean"].to_numpy(float), (pair["region"] == region).to_numpy(float), pair["subject"].to_numpy()
                )
                means = pair.groupby("region")["mean"].mean()
                told.append(
                    {
                        "source": source,
                        "class": klass,
                        "region": region,
                        "against": "distal NAWM",
                        "people": int(pair["subject"].nunique()),
                        "region_mean": float(means[region]),
                        "against_mean": float(means["distal NAWM"]),
                        **fit,
                    }
                )
    return pd.DataFrame(told)


def _fit(y: np.ndarray, x: np.ndarray, who: np.ndarray) -> dict[str, Any]:
    """The effect of ``x`` (0 or 1) on ``y``, with its interval; people may have several values."""
    import statsmodels.api as sm

    nothing = {"difference": math.nan, "low": math.nan, "high": math.nan, "p": math.nan, "model": ""}
    design = np.stack([np.ones_like(x), x], 1)
    if np.unique(x).size < 2 or y.size <= 2 or np.ptp(y) == 0:
        return nothing
    scale = float(y.std()) or 1.0  # PSR varies in the third digit, and optimizers stop at absolute tolerances
    several = np.unique(who).size < who.size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if several:
                fit = sm.MixedLM(y / scale, design, groups=who).fit(reml=True)
            else:
                fit = sm.OLS(y / scale, design).fit(cov_type="HC3", use_t=True)
            low, high = np.asarray(fit.conf_int(0.05))[1]
            effect, p = float(np.asarray(fit.params)[1]), float(np.asarray(fit.pvalues)[1])
        except (np.linalg.LinAlgError, ValueError):
            return nothing
    return {
        "difference": effect * scale,
        "low": float(low) * scale,
        "high": float(high) * scale,
        "p": p,
        "model": "mixed" if several else "ordinary",
    }


def repeatability(table: pd.DataFrame) -> pd.DataFrame:
    """How far two scans of one person differ, by map and region; empty where nobody was scanned twice.

    Columns: ``source``, ``region``, ``people``, ``scans``, ``within_sd`` (root mean square over persons of their SD),
    ``coefficient`` (of repeatability: 1.96 sqrt(2) of it; J. M. Bland, D. G. Altman, Lancet 327:307, 1986),
    ``within_cv_percent`` (of the mean), ``between_sd`` (SD over persons of their means), ``icc`` (share of the variance
    that is between persons).
    """
    import pandas as pd

    told = []
    for (source, region), own in table.groupby(["source", "region"], observed=True, sort=False):
        by = own.groupby("subject")["mean"]
        sizes = by.size()
        several = sizes.index[sizes > 1]
        if not len(several):
            continue
        kept = own[own["subject"].isin(several)]
        by = kept.groupby("subject")["mean"]
        freedom = (by.size() - 1).to_numpy(float)
        within = math.sqrt(float((by.var(ddof=1).to_numpy(float) * freedom).sum() / freedom.sum()))
        mean = float(kept["mean"].mean())
        between = float(by.mean().std(ddof=1)) if len(several) > 1 else math.nan
        each = float(by.size().mean())
        true = max(between**2 - within**2 / each, 0.0) if math.isfinite(between) else math.nan
        whole = true + within**2
        told.append(
            {
                "source": source,
                "region": region,
                "people": len(several),
                "scans": len(kept),
                "within_sd": within,
                "coefficient": _REPEATABILITY * within,
                "within_cv_percent": 100 * within / mean if mean > 0 else math.nan,
                "between_sd": between,
                "icc": true / whole if whole > 0 else math.nan,
            }
        )
    return pd.DataFrame(told)
