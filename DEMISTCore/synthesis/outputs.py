"""The files of a synthesis: their names, checked before the work starts; all of them written, or none."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..clock import Clock
from ..commit import sweep, temporary_prefix
from ..devices import peak_memory
from ..errors import InputError
from ..files import atomic_paths, sha256, write_json
from ..guards import protect_files
from ..volume import Volume, check_holds, check_writable
from .result import Synthesis

#: Suffixes that images are written with.
IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")


def list_outputs(
    out: str | os.PathLike[str] | None,
    uncertainty: bool | str | os.PathLike[str] | None,
    preview: str | os.PathLike[str] | None,
) -> dict[str, Path]:
    """Every file to be written, by kind; those of single seeds come later, when the seeds are known."""
    from ..preview import check_picture_name

    uncertainty = _uncertainty_path(uncertainty, out)
    outputs: dict[str, Path] = {}
    if out is not None:
        outputs["psr"] = Path(out)
        outputs["sidecar"] = _stem(out).with_name(_stem(out).name + ".json")
    if uncertainty is not None:
        _stem(uncertainty)
        outputs["uncertainty"] = uncertainty
    if preview is not None:
        outputs["preview"] = check_picture_name(preview)
    return outputs


def _uncertainty_path(
    uncertainty: bool | str | os.PathLike[str] | None, out: str | os.PathLike[str] | None
) -> Path | None:
    if uncertainty is False or uncertainty is None:
        return None
    if uncertainty is True:
        return None if out is None else beside(out, "uncertainty")
    return Path(uncertainty)


def beside(out: str | os.PathLike[str], what: str) -> Path:
    """``psr.nii.gz`` -> ``psr_what.nii.gz``."""
    base = _stem(out)
    return base.with_name(f"{base.name}_{what}{Path(out).name[len(base.name) :]}")


def _stem(path: str | os.PathLike[str]) -> Path:
    """A path without the suffix of an image: ``a/psr.nii.gz`` -> ``a/psr``."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; give a file name, such as {path / 'psr.nii.gz'}.")
    for suffix in IMAGE_SUFFIXES:
        if path.name.lower().endswith(suffix) and len(path.name) > len(suffix):
            return path.with_name(path.name[: -len(suffix)])
    raise InputError(f"{path} is no name for an image; use .nii.gz (or {', '.join(IMAGE_SUFFIXES[1:])}).")


def check_outputs(outputs: Mapping[str, Path], overwrite: bool, inputs: Sequence[Any]) -> None:
    """Check every file to be written now rather than after minutes of work.

    Raises:
        InputError: one is there already, is an input, or cannot be written.
    """
    protect_files(outputs, inputs)
    taken: dict[Path, str] = {}
    for kind, path in outputs.items():
        there = path.resolve()
        if there in taken:
            raise InputError(f"{path} is {taken[there]} already; give the {kind} another name.")
        taken[there] = f"the {kind}"
        _check_folder(path)
        check_writable(path, overwrite=overwrite)


def check_formats(outputs: Mapping[str, Path], t1w: Volume) -> None:
    """Refuse formats that cannot say where the T1w's voxels lie, before the work.

    Raises:
        InputError: see :func:`DEMISTCore.volume.check_holds`.
    """
    for kind, path in outputs.items():
        if kind not in ("sidecar", "preview"):
            check_holds(path, t1w.grid)


def _check_folder(path: Path) -> None:
    """Try to write where ``path`` will be: permission bits do not tell of read-only and network file systems."""
    if not path.name.lower().endswith((".nii", ".nii.gz", ".json", ".png", ".pdf", ".svg")):
        try:
            str(path.absolute()).encode("utf-8")
        except UnicodeEncodeError as error:  # SimpleITK takes names as text
            raise InputError(f"{path} has letters that are no UTF-8; choose another name, or .nii.gz.") from error
    try:
        folder = path.parent
        while not folder.exists():
            folder = folder.parent
        sweep(folder)
        with tempfile.TemporaryDirectory(prefix=temporary_prefix(), dir=folder) as trial:
            (Path(trial) / path.name).touch()  # too long, or with letters that this file system does not know?
    except (OSError, ValueError) as error:
        raise InputError(
            f"Cannot write {path}: {getattr(error, 'strerror', None) or error}; choose a folder you can write to, or "
            "another name."
        ) from error


def write(result: Synthesis, clock: Clock) -> None:
    """Write ``result.files`` aside, then put all in place together (:mod:`DEMISTCore.commit`); or none of them.

    What is known only now goes into the provenance: seconds, peak memory, hashes of what was written.
    """
    start = time.perf_counter()
    description = f"PSR (fraction) by DEMIST {__version__}; research estimate"
    with atomic_paths(list(result.files.values())) as paths:
        temporary = dict(zip(result.files, paths))
        if "psr" in temporary:
            result.psr.write(temporary["psr"], description=description)
        if "uncertainty" in temporary and result.uncertainty is not None:
            result.uncertainty.write(temporary["uncertainty"], description=f"SD of {description}")
        for seed, sample in zip(result.provenance["settings"]["seeds"], result.samples):
            if f"seed {seed}" in temporary:
                sample.write(temporary[f"seed {seed}"], description=f"{description}, seed {seed}")
        if "preview" in temporary:
            from ..preview import save_figure

            save_figure(draw(result), temporary["preview"])
        clock.add({"write": time.perf_counter() - start})
        result.provenance["timings_s"] = {name: round(s, 3) for name, s in clock.seconds.items()}
        result.provenance["timings_s"]["total"] = round(clock.total, 3)
        result.provenance["peak_memory_mb"] = round(peak_memory() / 2**20)
        if "sidecar" in temporary:
            hashes = {kind: sha256(path) for kind, path in temporary.items() if kind != "sidecar"}
            result.provenance["output_sha256"] = hashes
            write_json(temporary["sidecar"], result.provenance)


def draw(result: Synthesis) -> Any:
    """The preview of a result, a matplotlib figure."""
    from ..preview import mosaic

    settings, bundle = result.provenance["settings"], result.provenance["bundle"]
    n = len(settings["seeds"])
    kind = "simulated-trained research estimate" if result.provenance["simulated"] else "research estimate"
    return mosaic(
        result.prepared.t1w.array,
        result.prepared.flair.array,
        result.model_psr.array,
        result.prepared.mask.array,
        None if result.model_uncertainty is None else result.model_uncertainty.array,
        title=f"PSR synthesized from T1w and FLAIR ({kind})",
        footer=(
            f"{result.provenance['statement']} DEMIST {__version__}, bundle {bundle['name']} {bundle['hash'][:12]}, "
            + (f"{n} seed{'s' * (n > 1)}, {settings['steps']} steps of {settings['sampler']}." if n else "mean.")
        ),
    )
