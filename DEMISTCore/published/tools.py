"""What one can do with any model's folder: look into it, check it, write it in another form."""

from __future__ import annotations

from pathlib import Path

from ..bundle import DESCRIPTION_FILE, Bundle, find_folder, load_bundle, read_description
from ..bundle.export import export_bundle
from ..errors import BundleError, InputError
from ..guards import protect_folder
from ..schema import printable
from .folder import PATTERNS
from .layouts import build_empty
from .store import KINDS, Model, Stored, export_model, open_model, save_autoencoder, save_model


def open_any(source: str | Path) -> Bundle | Model:
    """A DEMIST bundle or a published model.

    Raises:
        BundleError: neither, or damaged.
    """
    folder = find_folder(source, PATTERNS)
    if (folder / DESCRIPTION_FILE).is_file() and read_description(folder)["kind"] not in KINDS:
        return load_bundle(folder)
    return open_model(folder)


def inspect(source: str | Path) -> str:
    """What a folder holds, as lines of text; hashes are checked, weights are not read.

    Raises:
        BundleError: it holds no model, or a damaged one.
    """
    model = open_any(source)
    rows: list[tuple[str, str]] = [("folder", str(model.folder))]
    if isinstance(model, Bundle):
        rows += [("kind", f"DEMIST bundle ({model.kind})"), ("hash", model.hash), ("licence", model.licence)]
        rows += [(name, f"{entry['bytes'] / 1e6:.1f} MB") for name, entry in model.info["files"].items()]
        if model.base is not None:
            rows += [("base", f"{model.base.name} {model.base.hash[:12]}")]
        if model.kind == "demist":
            advice, mean = model.sampling, model.config.mean is not None
            seeds = len(advice["seeds"]) if isinstance(advice["seeds"], list) else advice["seeds"]
            plan = f"{seeds} seeds, {advice['steps']} steps of {advice['sampler']}"
            rows += [("mean network", "yes" if mean else "no"), ("recommends", advice["mode"]), ("samples", plan)]
            calibration = model.calibration
            rows += [("calibrated", "no" if calibration is None else f"on {calibration.subjects} subjects")]
        rows += [("note", model.warning)]
        return _table(rows)
    form = "our form" if isinstance(model, Stored) else "as published"
    rows.append(("kind", f"{model.title}, {form}"))
    if isinstance(model, Stored):
        rows.append(("hash", model.hash))
        if model.base is not None:
            rows.append(("base", f"{model.base.info['name']} {model.base.hash[:12]}"))
    for part, config, file in (
        ("autoencoder", model.autoencoder_config, model.autoencoder_file),
        ("U-Net", model.unet_config, model.unet_file),
    ):
        if config is None:
            rows.append((part, "none"))
            continue
        count = sum(p.numel() for p in build_empty(config).parameters())
        rows.append((part, f"{count:,} parameters, {file.name if file else 'no weights here'}"))
    if model.unet_config is not None:
        rows.append(("schedule", f"{model.scheduler.describe()}, DDIM, times as in {model.scheduler.spacing}"))
    if model.conditions:
        rows.append(("conditions", ", ".join(model.conditions)))
    rows += [("note", note) for note in model.notes]
    return _table(rows)


def verify(source: str | Path) -> str:
    """Check every hash, load every weight, and say so in a line.

    Raises:
        BundleError: something is missing, damaged, or does not fit.
    """
    model = open_any(source)
    if isinstance(model, Bundle):
        parts = [name.removesuffix(".safetensors") for name in model.info["files"]]
        for part in parts:
            _ = model.demist if part == "streams" else getattr(model, part)
        _ = model.config
        if "backbone" in parts or model.kind == "demist":  # what sampling needs besides weights
            _ = model.schedule, model.latent_scale, model.condition_scale, model.psr_range, model.sampling
        return f"{model.folder}: whole ({', '.join(parts)})."
    _ = model.scheduler if model.unet_config is not None else None
    parts = []
    if model.autoencoder_file is not None:
        _ = model.autoencoder
        parts.append("autoencoder")
    if model.unet_file is not None:
        _ = model.unet
        parts.append("U-Net")
    if not parts:
        raise BundleError(f"{model.folder} describes a model and holds no weights; download it whole.")
    return f"{model.folder}: whole ({', '.join(parts)})."


def convert(
    source: str | Path,
    out: Path,
    *,
    to: str = "demist",
    base: Path | None = None,
    storage: str = "fp32",
    overwrite: bool = False,
) -> list[Path]:
    """Write a model in another form; return the folders written.

    Args:
        source: see :func:`open_any`.
        out: where to.
        to: ``"demist"`` (ours), ``"monai"`` or ``"generative"`` (a MONAI bundle, today's or the older names).
        base, storage, overwrite: for our form, see :func:`.store.save_model`.

    Raises:
        BundleError: the source is no model, or a damaged one.
        InputError: ``out`` is there or cannot be written to, is or holds an input, or the conversion makes no sense.
    """
    protect_folder(out, (source, base))
    model = open_any(source)
    protect_folder(out, (model, base))
    if isinstance(model, Bundle):
        if to != "monai":
            raise InputError(f"{model.folder} is a DEMIST bundle already; it can be converted --to monai.")
        return [export_bundle(model, out)]
    if to == "demist":
        if model.unet_config is None:
            return [save_autoencoder(out, model, storage, overwrite=overwrite).folder]
        if base is None and not isinstance(model, Stored):
            protect_folder(out.with_name(out.name + "-vae"), (model,), "folder of the autoencoder")
        saved = save_model(out, model, base=base, storage=storage, overwrite=overwrite)
        return [one.folder for one in (saved, saved.base) if one is not None]
    export_model(out, model, names=to)
    return [out]


def _table(rows: list[tuple[str, str]]) -> str:
    return "\n".join(f"{printable(name) + ':':<13} {printable(str(value))}" for name, value in rows)
