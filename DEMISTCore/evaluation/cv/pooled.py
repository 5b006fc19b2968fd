"""Lesions against white matter over all scans together: curves of the truth and of each method, compared.

Up to so many voxels of each region and scan (:data:`.masks.VOXELS`), the same ones for the truth and for all methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...statistics.contrast import curve
from ...statistics.paired_roc import PairedAreas, paired_areas
from .folds import fold_folder
from .masks import AGAINST
from .store import arrays, scan_arrays

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Pool:
    """Voxels of all scans.

    Attributes:
        values: by source (truth is None) and region, (n,).
        patients: whose they are, by region, (n,).
    """

    values: Mapping[str | None, Mapping[str, np.ndarray]]
    patients: Mapping[str, np.ndarray]

    @classmethod
    def read(cls, results: Sequence[Mapping[str, Any]], rows: Sequence[str], out: Path) -> Pool:
        """From what is stored of the scans for which every row has a result."""
        scans: dict[tuple[int, str], dict[str, Any]] = {}
        for one in results:
            row = one["row"]
            scans.setdefault((row["fold"], row["session"]), {"subject": row["subject"], "rows": set()})["rows"].add(
                row["method"]
            )
        regions = ("lesion", *AGAINST)
        values: dict[str | None, dict[str, list[np.ndarray]]] = {
            source: {region: [] for region in regions} for source in (None, *rows)
        }
        who: dict[str, list[np.ndarray]] = {region: [] for region in regions}
        people = {name: i for i, name in enumerate(sorted({scan["subject"] for scan in scans.values()}))}
        for (fold, session), scan in sorted(scans.items()):
            folder = out / fold_folder(fold) / "results"
            truth = scan_arrays(folder, session)
            if truth is None or not set(rows) <= scan["rows"]:
                continue
            made = {row: arrays(folder, session, row) for row in rows}
            for region in regions:
                values[None][region].append(truth[f"at_{region}"])
                who[region].append(np.full(truth[f"at_{region}"].size, people[scan["subject"]]))
                for row in rows:
                    values[row][region].append(made[row][f"at_{region}"])
        return cls(
            {source: {region: _joined(parts) for region, parts in by.items()} for source, by in values.items()},
            {region: _joined(parts) for region, parts in who.items()},
        )

    def curve(self, source: str | None, region: str) -> tuple[np.ndarray, np.ndarray] | None:
        """False and true positive rates, (k,) each, of lesions against a region; None where there is neither."""
        low, high = self.values[source]["lesion"], self.values[source][region]
        if not low.size or not high.size:
            return None
        fpr, tpr, _ = curve(low.astype(np.float64), high.astype(np.float64))
        return fpr, tpr

    def compared(self, row: str, region: str) -> PairedAreas | None:
        """A method's area minus the truth's, over the same voxels; None where there is no area."""
        low, high = self.patients["lesion"], self.patients[region]
        if not low.size or not high.size:
            return None
        made, truth = self.values[row], self.values[None]
        return paired_areas((made["lesion"], truth["lesion"]), (made[region], truth[region]), low, high)


def table(pool: Pool, rows: Sequence[str]) -> pd.DataFrame:
    """One row a method and kind of white matter: areas over all scans, their difference and how sure it is."""
    import pandas as pd

    told = []
    for region in AGAINST:
        for row in rows:
            pair = pool.compared(row, region)
            if pair is None:
                continue
            told.append(
                {
                    "against": region,
                    "method": row,
                    "patients": pair.patients,
                    "lesion_voxels": int(pool.patients["lesion"].size),
                    "nawm_voxels": int(pool.patients[region].size),
                    "auc": pair.first,
                    "truth_auc": pair.second,
                    "difference": pair.difference,
                    "delong_low": pair.ci[0],
                    "delong_high": pair.ci[1],
                    "delong_p": pair.p,
                    "patients_low": pair.ci_patients[0],
                    "patients_high": pair.ci_patients[1],
                    "patients_p": pair.p_patients,
                    "bootstrap_low": pair.ci_bootstrap[0],
                    "bootstrap_high": pair.ci_bootstrap[1],
                }
            )
    return pd.DataFrame(told)


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0)
