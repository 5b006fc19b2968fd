"""Error bars for a trained bundle: its errors on subjects that it was never trained on, stored in it.

The weights stay as they are. Scans are prepared as a patient's are; simulated ones of another physics among them make
the error bars hold beyond the simulator that training drew from.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..acquisition import read_protocol
from ..bundle import DESCRIPTION_FILE, Bundle, check_target, description_hash, load_bundle
from ..devices import pick_device, pick_dtype
from ..errors import BundleError, InputError
from ..files import atomic_folder
from ..guards import protect_folder
from ..networks.knowledge import describe
from ..schema import parse_json
from ..synthesis.given import encode, predict_mean
from ..uncertainty import Case, evaluate_calibration, fit_calibration
from ..uncertainty.typical import Typical
from . import data
from .groups import PreprocessSettings, Settings
from .mean import DESCRIPTION
from .prepare import prepare_cohort
from .resolution import sharp_truth

log = logging.getLogger(__name__)

#: As a patient's scans are prepared.
PATIENT = PreprocessSettings(register=True, brain_mask="none")


def calibrate(
    source: str | Path,
    datasets: Sequence[str | Path],
    out: Path,
    *,
    trained_on: str | Path | None = None,
    check: Sequence[str | Path] = (),
    preprocess: PreprocessSettings = PATIENT,
    cache: Path | None = None,
    workers: int = 1,
    device: str = "auto",
    entries: Sequence[data.PreparedSession] | None = None,
) -> dict[str, Any]:
    """Measure the errors of a bundle's mean on data sets, and write the bundle with its error bars to ``out``.

    Args:
        source: a demist bundle with a mean network.
        datasets: BIDS data sets with PSR, of subjects that had no part in training.
        out: the new bundle's folder.
        trained_on: cache of the training data (the run's ``cache``), whose scans say what is typical; None: what the
            bundle says of that already, else the calibration's own scans.
        check: further data sets, to see whether the intervals hold on them; nothing is fitted there.
        preprocess: how scans are prepared.
        cache: where prepared scans are kept; None: beside ``out``.
        workers: processes that prepare.
        device: see :func:`DEMISTCore.synthesize`.
        entries: prepared sessions of the one data set, where not all of it may be used.

    Returns:
        What was measured: coverage of the intervals on ``check``, by data set.

    Raises:
        InputError: no mean network, too few subjects, or a folder that cannot be used.
    """
    protect_folder(out, (source, datasets, trained_on, check), "calibrated bundle")
    try:
        bundle = load_bundle(source)
    except BundleError as error:
        raise InputError(f"{source} cannot be calibrated: {error}") from error
    if bundle.kind != "demist" or bundle.config.mean is None:
        raise InputError(f"{source} has no mean network, and its errors no model; give a bundle that has one.")
    check_target(out, overwrite=False)
    where = pick_device(device)
    dtype = pick_dtype(where)
    settings = Settings(preprocess=preprocess, workers=workers)
    prepared = {
        str(folder): prepare_cohort(data.index(folder), settings, cache or out.parent / "cache")
        for folder in dict.fromkeys([*map(str, datasets if entries is None else ()), *map(str, check)])
    }
    if entries is not None:
        prepared[str(datasets[0])] = list(entries)
    fitted = [entry for folder in map(str, datasets) for entry in prepared[folder]]
    try:
        if trained_on:
            typical = Typical.fit(_descriptions(trained_on))
        else:  # what a bundle was trained on does not change by calibrating it again
            typical = bundle.typical or Typical.fit(np.stack([_describe(entry) for entry in fitted]))
    except ValueError as error:
        raise InputError(f"These data sets do not tell what is typical: {error}") from error

    def cases(folder: str | Path) -> Iterator[Case]:
        for entry in prepared[str(folder)]:
            mean = _mean(bundle, entry, where, dtype)
            truth, labels = sharp_truth(mean.psr, np.asarray(entry.y, np.float32), entry.blur), np.asarray(entry.labels)
            inside, voxel_ml = (np.asarray(entry.x) != 0).any(0), bundle.spacing**3 / 1000
            inside &= np.asarray(entry.known) > 0
            distance, person = typical.distance(mean.described), f"{folder} {entry.subject}"
            group = _anatomy(Path(entry.meta["inputs"][2]))
            yield Case(mean.psr, mean.sd, truth, labels, inside, voxel_ml, distance, person, group)

    try:
        everyone = (case for folder in datasets for case in cases(folder))
        calibration = fit_calibration(_told(everyone, len(fitted)))
    except ValueError as error:
        raise InputError(f"These data sets give no calibration: {error}") from error
    report = {}
    for folder in check:
        count = len(prepared[str(folder)])
        report[Path(folder).name] = evaluate_calibration(calibration, _told(cases(folder), count))
    _write(
        bundle,
        out,
        {
            "calibration": calibration.to_dict(),
            "typical": typical.to_dict(),
            "data": [Path(folder).name for folder in datasets],
            "sessions": len(fitted),
            "preprocess": asdict(preprocess),
        },
    )
    return report


def _told(cases: Iterator[Case], count: int) -> Iterator[Case]:
    from tqdm import tqdm

    return iter(tqdm(cases, total=count, desc="calibrate", unit="scan"))


def _mean(bundle: Bundle, entry: data.PreparedSession, device: Any, dtype: Any) -> Any:
    x = np.asarray(entry.x, np.float32)
    protocol, _ = read_protocol(*entry.meta["inputs"][:2])
    return predict_mean(bundle, encode(bundle, x, protocol, device, dtype), (x != 0).any(0), dtype)


def _anatomy(psr: Path) -> str | None:
    """The anatomy that a simulated subject was drawn from, noted by the simulator beside its truth; None if unknown."""
    for file in sorted(psr.parent.glob("*_desc-truth_parameters.json")):
        try:
            told = parse_json(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        name = told.get("anatomy") if isinstance(told, dict) else None
        return name if isinstance(name, str) else None
    return None


def _describe(entry: data.PreparedSession) -> np.ndarray:
    x = np.asarray(entry.x, np.float32)
    return describe(x, (x != 0).any(0), entry.spacing)


def _descriptions(cache: str | Path) -> np.ndarray:
    """Of every scan that training has prepared in a cache folder."""
    files = sorted(Path(cache).glob(f"prepared/*/*/{DESCRIPTION}"))
    if len(files) < 3:
        raise InputError(f"{cache} holds no descriptions of training scans; give the cache of the mean's training.")
    return np.stack([np.load(file) for file in files])


def _write(bundle: Bundle, out: Path, uncertainty: dict[str, Any]) -> None:
    info = {**bundle.info, "uncertainty": uncertainty}
    info["hash"] = description_hash(info)
    with atomic_folder(out) as building:
        for file in bundle.folder.iterdir():
            if file.is_file() and file.name != DESCRIPTION_FILE:
                shutil.copy2(file, building / file.name)
        text = json.dumps(info, indent=2, ensure_ascii=False) + "\n"
        (building / DESCRIPTION_FILE).write_text(text, encoding="utf-8")
    log.info("%s: calibrated on %d scans, %s", out, uncertainty["sessions"], info["hash"][:16])
