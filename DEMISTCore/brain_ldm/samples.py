"""Synthetic brains as files: one, or a cohort from a table of conditions. Every image says that it is synthetic."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..files import atomic_path, atomic_paths, write_json
from ..preview import check_picture_name, save_figure
from ..schema import read_json, read_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..volume import Volume
    from .model import BrainLDM

log = logging.getLogger(__name__)

NAMES = ("age", "sex", "ventricular_volume", "brain_volume")
DESCRIPTION = "Synthetic T1w (Brain LDM); not a real person"


@dataclass(frozen=True)
class Request:
    """One brain to make: its name, the four conditions in [0, 1], the seed."""

    name: str
    age: float = 0.5
    sex: float = 0.5
    ventricular_volume: float = 0.5
    brain_volume: float = 0.5
    seed: int = 0

    @property
    def conditions(self) -> dict[str, float]:
        """The four by name."""
        return {name: getattr(self, name) for name in NAMES}


@dataclass(frozen=True)
class SampleSettings:
    """How brains are made; the same for a whole cohort."""

    steps: int = 50
    eta: float = 0.0
    shape: tuple[int, int, int] = (160, 224, 160)


def write_sample(
    model: BrainLDM,
    request: Request,
    out: Path,
    settings: SampleSettings | None = None,
    *,
    preview: Path | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], Any] | None = None,
) -> Volume:
    """Make one brain and write it, a JSON sidecar beside it and, if asked for, a picture.

    Raises:
        InputError: a file is there already or cannot be written; see :meth:`.model.BrainLDM.sample`.
    """
    settings = settings or SampleSettings()
    sidecar = sidecar_of(out)
    for path in (out, sidecar, *([check_picture_name(preview)] if preview else [])):
        if path.exists() and not overwrite:
            raise InputError(f"{path} exists already; choose another name or add --overwrite.")
    start = time.monotonic()
    volume = model.sample(
        **request.conditions,
        seed=request.seed,
        steps=settings.steps,
        eta=settings.eta,
        shape=settings.shape,
        progress=progress,
    )
    with atomic_paths([out, sidecar, *([preview] if preview else [])]) as (image, told, *drawn):
        volume.write(image, description=DESCRIPTION)
        write_json(told, _provenance(model, request, settings, time.monotonic() - start))
        for temporary in drawn:
            save_figure(picture(volume, request), temporary)
    return volume


def write_cohort(
    model: BrainLDM,
    requests: Sequence[Request],
    folder: Path,
    settings: SampleSettings | None = None,
    *,
    overwrite: bool = False,
    progress: Callable[[Request, int, int], Any] | None = None,
) -> list[Path]:
    """Make a cohort: ``<name>_T1w.nii.gz`` with a sidecar each, and ``cohort.csv`` that lists them.

    A cohort that was stopped goes on where it was: images whose sidecar says the same are left as they are.

    Args:
        progress: called with (request, steps done, steps); once, with all steps done, for an image that is there.

    Raises:
        InputError: a file of another request is there, or cannot be written.
    """
    settings = settings or SampleSettings()
    paths = []
    for request in requests:
        out = folder / f"{request.name}_T1w.nii.gz"
        paths.append(out)
        if not overwrite and _made(model, request, settings, out):
            log.info("%s is there already", out)
            if progress is not None:
                progress(request, settings.steps, settings.steps)
            continue
        step = None if progress is None else lambda done, total, r=request: progress(r, done, total)
        write_sample(model, request, out, settings, overwrite=overwrite, progress=step)
    with (
        atomic_path(folder / "cohort.csv") as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as stream,
    ):
        table = csv.writer(stream)
        table.writerow(["name", *NAMES, "seed", "file"])
        for request, path in zip(requests, paths):
            table.writerow([request.name, *request.conditions.values(), request.seed, path.name])
    return paths


def read_requests(file: Path) -> list[Request]:
    """Read a CSV of conditions: columns age, sex, ventricular_volume, brain_volume, and maybe name and seed.

    A column that is missing is neutral (0.5); without ``seed`` each row has its own, 0, 1, 2, ...

    Raises:
        InputError: not a readable table, an unknown column, a value that is no number in [0, 1], a name twice.
    """
    try:
        reader = csv.DictReader(io.StringIO(read_text(file, 16 << 20), newline=""))
        rows = list(reader)
        columns = list(reader.fieldnames or ()) if rows else []
        long = next((i for i, row in enumerate(rows) if None in row), None)
        if long is not None:
            raise ValueError(f"line {long + 2} has more values than the header has columns")
        if len(rows) > 100_000:
            raise ValueError("it has more than 100,000 lines")
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{file} cannot be read as a table ({error}); give a CSV file with a header line.") from error
    known = ("name", "seed", *NAMES)
    unknown = [column for column in columns if column not in known]
    if not rows or unknown or not set(columns) & set(NAMES):
        problem = f"has the unknown column {unknown[0]!r}" if unknown else "holds no conditions"
        raise InputError(f"{file} {problem}; its header names some of {', '.join(known)}.")
    requests = []
    for i, row in enumerate(rows):
        where = f"{file}, line {i + 2}"
        name = (row.get("name") or f"brain-{i + 1:04d}").strip()
        if not re.fullmatch(r"[\w.+-]{1,100}", name) or name.startswith("."):
            raise InputError(f"{where}: {name!r} is no file name; use letters, digits, '-' and '_'.")
        conditions = {key: _number(row[key], key, where) for key in NAMES if row.get(key)}
        seed = row.get("seed") or str(i)
        if not re.fullmatch(r"[0-9]{1,18}", seed.strip()):
            raise InputError(f"{where}: seed is {seed!r}, and must be a whole number of at least 0.")
        requests.append(Request(name, **conditions, seed=int(seed)))
    count = Counter(request.name for request in requests)
    twice = next((name for name, times in count.items() if times > 1), None)
    if twice:
        raise InputError(f"{file} names {twice!r} twice; give each brain a name of its own.")
    return requests


def picture(volume: Volume, request: Request) -> Figure:
    """Axial, coronal and sagittal slice through the middle, in radiological convention."""
    from matplotlib.figure import Figure

    data = volume.reoriented("RAS").array
    low, high = np.percentile(data, (0.5, 99.8))
    x, y, z = (n // 2 for n in data.shape)
    slices = (data[::-1, :, z].T, data[::-1, y, :].T, data[x].T)
    widths = [image.shape[1] for image in slices]
    figure = Figure(figsize=(10, 10 * max(s.shape[0] for s in slices) / sum(widths) + 0.6), facecolor="black")
    left, bottom, top = 0.0, 0.3, 0.3
    height = figure.get_figheight()
    for image in slices:
        share = image.shape[1] / sum(widths)
        tall = 10 * image.shape[0] / sum(widths)
        axes = figure.add_axes((left, bottom / height, share, tall / height))
        axes.set_axis_off()
        axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), origin="lower", aspect="equal")
        left += share
    told = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in request.conditions.items())
    small = {"color": "white", "fontsize": 9, "va": "center", "ha": "center"}
    figure.text(0.5, 1 - 0.5 * top / height, f"Synthetic T1w: {told}, seed {request.seed}", **small)
    figure.text(0.5, 0.5 * bottom / height, "Synthetic: shows nobody. Not for clinical use.", **small)
    return figure


def outputs(out: Path, preview: Path | None = None) -> dict[str, Path]:
    """Every file that :func:`write_sample` writes, by what it is."""
    return {"image": out, "sidecar": sidecar_of(out), **({"preview": preview} if preview else {})}


def cohort_outputs(requests: Sequence[Request], folder: Path) -> dict[str, Path]:
    """Every file that :func:`write_cohort` writes, by what it is."""
    files = {"table of the cohort": folder / "cohort.csv"}
    for request in requests:
        one = outputs(folder / f"{request.name}_T1w.nii.gz")
        files |= {f"{kind} of {request.name}": path for kind, path in one.items()}
    return files


def sidecar_of(path: Path) -> Path:
    """The JSON beside an image."""
    name = path.name
    for suffix in (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd"):
        if name.lower().endswith(suffix):
            return path.with_name(name[: -len(suffix)] + ".json")
    return path.with_suffix(".json")


def _provenance(model: BrainLDM, request: Request, settings: SampleSettings, seconds: float) -> dict[str, Any]:
    from .. import __version__
    from ..devices import describe_device
    from .model import WARNING

    return {
        "synthetic": True,
        "statement": WARNING,
        "demist": __version__,
        "model": model.provenance,
        "request": asdict(request),
        "settings": {**asdict(settings), "sampler": "ddim", "shape": list(settings.shape)},
        "device": describe_device(model.device),
        "seconds": round(seconds, 1),
    }


def _made(model: BrainLDM, request: Request, settings: SampleSettings, out: Path) -> bool:
    """True if that very image is there."""
    if not out.exists():
        return False
    try:
        told: Mapping[str, Any] = read_json(sidecar_of(out))
        wanted = json.loads(json.dumps(_provenance(model, request, settings, 0.0)))
        return all(told[key] == wanted[key] for key in ("model", "request", "settings"))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _number(text: str, name: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise InputError(f"{where}: {name} is {text!r}, and must be a number from 0 to 1.")
    return value
