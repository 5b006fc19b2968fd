"""The main job: T1w + FLAIR in, PSR map out.

:func:`synthesize` is the whole of it, files included; :func:`generate` is its core, from images on the model grid to
PSR samples on the model grid.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from .bundle import DEFAULT_BUNDLE, Bundle, load_bundle
from .devices import check_device_name, describe_device, peak_memory, pick_device, pick_dtype, require_memory
from .errors import BundleError, DemistError, InputError
from .files import atomic_path, sha256, write_json
from .volume import Volume, as_volume, check_writable

if TYPE_CHECKING:
    import torch

    from .preprocess import Prepared

log = logging.getLogger(__name__)

Source = Volume | str | os.PathLike
Progress = Callable[[str, float], Any]

#: Suffixes that images are written with.
IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
MAX_SEEDS = 256

# Shares of the run time, for the progress callback only.
_WEIGHTS = {"prepare": 45, "encode": 2, "seeds": 50, "write": 3}


@dataclass(frozen=True)
class Estimate:
    """What sampling believes so far: the running estimate of z_0, decoded on demand.

    Attributes:
        seed: whose sample it is.
        step: steps done, 1 to ``steps``.
        steps: steps in all.
        latent: (1, C, x, y, z), scaled as the network sees it.
    """

    seed: int
    step: int
    steps: int
    latent: torch.Tensor
    decode: Callable[[torch.Tensor], np.ndarray] = field(repr=False)
    to_native: Callable[[np.ndarray], Volume] | None = field(default=None, repr=False)

    def psr(self) -> np.ndarray:
        """The estimate as PSR (fraction) on the model grid, (X, Y, Z); takes as long as decoding a sample."""
        return self.decode(self.latent)

    def volume(self) -> Volume:
        """The estimate as PSR (fraction) on the T1w's own grid.

        Raises:
            ValueError: the estimate comes from :func:`generate`, which knows no T1w.
        """
        if self.to_native is None:
            raise ValueError("This estimate knows the model grid only; take psr().")
        return self.to_native(self.psr())


@dataclass(eq=False)
class Reuse:
    """What one synthesis leaves for the next: same images, no second preparation and encoding.

    Handed to several calls of :func:`synthesize` one after the other, it makes no difference to the result: what is
    kept is used only where content of the images, settings, model, device and precision are all the same.

    Attributes:
        prepared: the images of the last call as the model sees them; None before the first.
    """

    prepared: Prepared | None = None
    _prepared_key: tuple | None = field(default=None, repr=False)
    _encoded: Any = field(default=None, repr=False)
    _encoded_key: tuple | None = field(default=None, repr=False)
    _contents: WeakKeyDictionary[Volume, str] = field(default_factory=WeakKeyDictionary, repr=False)

    def content(self, volume: Volume) -> str:
        """Hash of the voxels and their place; computed once per volume."""
        if volume not in self._contents:
            self._contents[volume] = _content(volume)
        return self._contents[volume]

    def knows(self, key: tuple) -> bool:
        """True if images and settings are those that ``prepared`` was made from."""
        return self.prepared is not None and self._prepared_key == key

    def prepared_from(self, images: Mapping[str, Volume]) -> Prepared | None:
        """``prepared``, if these ("T1w", "FLAIR", "brain mask") are among the images it was made from, else None."""
        known = self._prepared_key or ()
        wanted = ((name, volume.shape, self.content(volume)) for name, volume in images.items())
        return self.prepared if all(part in known for part in wanted) else None

    def keep(self, key: tuple, prepared: Prepared) -> None:
        """Keep prepared images, and forget the encoding of others."""
        self._prepared_key, self.prepared = key, prepared
        self._encoded_key = self._encoded = None

    def encoded(self, key: tuple, encode: Callable[[], Any]) -> Any:
        """The condition as ``encode`` makes it, or as it was made for the same images, model, device, precision."""
        key = (self._prepared_key, *key)
        if self._encoded_key != key:
            self._encoded_key = self._encoded = None  # two at once may not fit into memory
            self._encoded = encode()
            self._encoded_key = key
        return self._encoded


@dataclass(eq=False)
class Synthesis:
    """A synthesized PSR map and where it came from.

    Attributes:
        psr: mean over the seeds, fraction, float32, on the T1w's own grid, 0 outside the brain.
        uncertainty: standard deviation over the seeds (ddof 1), fraction, same grid; None for one seed.
        samples: the map of each seed, if asked for.
        mask: brain on the T1w's own grid, uint8.
        provenance: what the JSON sidecar holds.
        prepared: the images as the model saw them.
        model_psr: the mean on the model grid.
        model_uncertainty: the standard deviation on the model grid.
        files: what was written, by kind.
    """

    psr: Volume
    uncertainty: Volume | None
    samples: list[Volume]
    mask: Volume
    provenance: dict[str, Any]
    prepared: Prepared
    model_psr: Volume
    model_uncertainty: Volume | None
    files: dict[str, Path] = field(default_factory=dict)


def synthesize(
    t1w: Source,
    flair: Source,
    *,
    out: str | os.PathLike[str] | None = None,
    bundle: str | os.PathLike[str] | Bundle = DEFAULT_BUNDLE,
    seeds: int | Sequence[int] | None = None,
    steps: int | None = None,
    sampler: str | None = None,
    guidance: Mapping[str, float] | None = None,
    device: str = "auto",
    precision: str = "auto",
    brain_mask: Source | None = None,
    register: bool = True,
    skull_strip: str = "auto",
    bias_correct: bool = True,
    uncertainty: bool | str | os.PathLike[str] = False,
    preview: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    keep_samples: bool = False,
    write_samples: bool = False,
    progress: Progress | None = None,
    estimate: Callable[[Estimate], Any] | None = None,
    reuse: Reuse | None = None,
) -> Synthesis:
    """Synthesize a PSR map from a T1w and a FLAIR image.

    Same input, seeds, bundle and device: same bytes out. Every output is checked before the work starts, and nothing
    is written unless all of it can be.

    >>> import DEMISTCore
    >>> result = DEMISTCore.synthesize("t1w.nii.gz", "flair.nii.gz", out="psr.nii.gz")  # doctest: +SKIP
    >>> result.psr.array.max(), result.uncertainty.array.max()  # doctest: +SKIP

    Args:
        t1w: T1-weighted image (MPRAGE): a file or a :class:`Volume`. The result lies on its grid.
        flair: FLAIR image of the same session, on any grid.
        out: where to write the map (``.nii.gz``, ``.nrrd`` ...), with a JSON sidecar beside it. None: do not write.
        bundle: the model: a name, a folder, a Hugging Face id, or a :class:`Bundle`.
        seeds: how many samples (0, 1, ... n-1), or which seeds. Default: the bundle's recommendation, as for ``steps``
            and ``sampler``.
        steps: sampling steps.
        sampler: ``ddpm``, ``ddim`` or ``dpmpp_2m``.
        guidance: weight by stream (``semantic``, ``spatial``, ``adaptive``, or ``all``), see
            :class:`DEMISTCore.diffusion.Guided`. 1 is plain conditioning, 0 switches a stream off.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:n`` or ``mps``.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        brain_mask: brain mask in the T1w's space instead of brain extraction.
        register, skull_strip, bias_correct: see :func:`DEMISTCore.prepare`.
        uncertainty: write the standard deviation over seeds too: True (beside ``out``) or a path.
        preview: where to draw a picture (``.png``).
        overwrite: replace outputs that exist.
        keep_samples: keep the map of every seed in the result.
        write_samples: write the map of every seed too, beside ``out``: ``psr_seed-0.nii.gz`` and so on. Statistics
            need them to say how far a region's mean moves from seed to seed.
        progress: called with a stage and the share of all work done (0 to 1); may raise
            :class:`~DEMISTCore.errors.Cancelled` to stop, which leaves nothing behind.
        estimate: called after every sampling step with the running :class:`Estimate`; may raise as well.
        reuse: what an earlier call left, for several calls with the same images: only the first prepares them.

    Raises:
        InputError: an input, option or output that cannot be used; the sentence says what to do.
        BundleError: a bundle that cannot be used.
    """
    clock = _Clock(progress)
    if uncertainty is True and out is None:
        uncertainty_path = None
    else:
        uncertainty_path = _uncertainty_path(uncertainty, out)
    sources = (t1w, flair, brain_mask)
    outputs = _outputs(out, uncertainty_path, preview)
    _check_outputs(outputs, overwrite, sources)
    if write_samples and out is None:
        raise InputError("The maps of the seeds are written beside the PSR map; give out (--out) as well.")
    check_device_name(device)
    seed_list = None if seeds is None else check_seeds(seeds)

    with clock.stage("load"):
        torch_device = pick_device(device)
        dtype = pick_dtype(torch_device, precision)
        model = load_bundle(bundle)
        plan = _plan(model, seed_list, steps, sampler, guidance)
        if uncertainty and len(plan["seeds"]) < 2:
            raise InputError("Uncertainty is the spread over seeds and needs at least two; give --seeds 4.")
        if write_samples:
            outputs |= {f"seed {seed}": _beside(out, f"seed-{seed}") for seed in plan["seeds"]}
            _check_outputs(outputs, overwrite, sources)
        t1w, flair = as_volume(t1w, "T1w"), as_volume(flair, "FLAIR")
        if brain_mask is not None:
            brain_mask = as_volume(brain_mask, "brain mask")
        _check_memory(model, t1w, torch_device, dtype)
        inputs = {"T1w": t1w, "FLAIR": flair, "brain mask": brain_mask}
        inputs = {name: volume for name, volume in inputs.items() if volume is not None}
        reuse = reuse or Reuse()
        identities = {name: _identity(volume, reuse) for name, volume in inputs.items()}

    options = {"register": register, "skull_strip": skull_strip, "bias_correct": bias_correct,
               "spacing": model.spacing, "multiple": model.config.multiple, "device": str(torch_device)}  # fmt: skip
    key = (*((name, volume.shape, reuse.content(volume)) for name, volume in inputs.items()), *options.items())
    if reuse.knows(key):
        clock.skip("prepare")
        prepared = reuse.prepared
    else:
        from .preprocess import prepare

        prepared = prepare(
            t1w,
            flair,
            brain_mask=brain_mask,
            **options,
            progress=lambda stage, done: clock.report(stage, "prepare", done),
        )
        reuse.keep(key, prepared)
        clock.add({step.name: step.seconds for step in prepared.steps})
    warnings = list(prepared.warnings)
    if estimate is not None:
        tell = estimate
        estimate = lambda now: tell(replace(now, to_native=prepared.to_native))  # noqa: E731

    native, on_grid = _Spread(), _Spread()
    samples = []
    for sample in generate(
        model,
        prepared.array,
        prepared.mask.array,
        **plan,
        device=torch_device,
        dtype=dtype,
        progress=lambda stage, part, done: clock.report(stage, part, done),
        estimate=estimate,
        timings=clock.seconds,
        reuse=reuse,
    ):
        with clock.stage("to native grid"):
            volume = prepared.to_native(sample)
            native.add(volume.array)
            on_grid.add(sample)
            if keep_samples or write_samples:
                samples.append(volume)

    psr = Volume(native.mean, prepared.native.affine)
    spread = None if native.count < 2 else Volume(native.sd, prepared.native.affine)
    model_psr = Volume(on_grid.mean, prepared.grid.affine)
    model_spread = None if native.count < 2 else Volume(on_grid.sd, prepared.grid.affine)
    provenance = {
        "software": {"name": "DEMIST", "version": _version(), "python": platform.python_version(), "torch": _torch()},
        "statement": model.warning,
        "simulated": model.simulated,
        "quantity": "pool size ratio (PSR), fraction",
        "bundle": _describe_bundle(model),
        "inputs": identities,
        "settings": {
            **plan,
            "device": describe_device(torch_device),
            "precision": str(dtype).removeprefix("torch."),
            "register": register,
            "skull_strip": skull_strip,
            "bias_correct": bias_correct,
        },
        "outputs": {name: str(path) for name, path in outputs.items()},
        "grid": {"shape": list(psr.shape), "spacing_mm": [round(s, 4) for s in psr.spacing], "axes": psr.axcodes},
        "summary": _summary(psr, spread, prepared.native_mask),
        "preparation": {step.name: step.note for step in prepared.steps},
        "warnings": warnings,
    }
    result = Synthesis(
        psr, spread, samples, prepared.native_mask, provenance, prepared, model_psr, model_spread, dict(outputs)
    )
    clock.report("write", "write", 0.0)
    _write(result, outputs, clock)
    clock.report("done", "write", 1.0)
    return result


def generate(
    bundle: Bundle,
    condition: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    seeds: Sequence[int] = (0,),
    steps: int | None = None,
    sampler: str | None = None,
    eta: float | None = None,
    spacing: str | None = None,
    guidance: Mapping[str, float] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    memory: int | None = None,
    progress: Callable[[str, str, float], Any] | None = None,
    estimate: Callable[[Estimate], Any] | None = None,
    timings: dict[str, float] | None = None,
    reuse: Reuse | None = None,
) -> Iterator[np.ndarray]:
    """PSR samples for a prepared pair of images, one per seed, on the model grid.

    What depends on the images alone is computed once. Seeds run one after the other: a sample is the same whatever
    its company, and memory does not grow with their number.

    Args:
        bundle: a demist bundle.
        condition: float32 (2, X, Y, Z), normalised T1w and FLAIR on the model grid: ``Prepared.array``. Extents must
            be multiples of ``bundle.config.multiple``.
        mask: brain on that grid; outside it PSR is 0.
        seeds, steps, sampler, eta, spacing, guidance: see :func:`synthesize`; None takes the bundle's recommendation.
        device: torch device, or a name that :func:`~DEMISTCore.devices.pick_device` knows.
        dtype: precision of the networks; None chooses.
        memory: bytes that decoding may take, see :func:`DEMISTCore.decoding.decode`.
        progress: called with (stage, ``"encode"`` or ``"seeds"``, share of that part done).
        estimate: called after each step with the running :class:`Estimate`.
        timings: seconds by stage are added up in here.
        reuse: of :func:`synthesize`, which knows that these are the images it was made for.

    Yields:
        float32 (X, Y, Z), fraction, 0 or more.
    """
    import torch

    from .decoding import decode
    from .devices import autocast
    from .diffusion import SAMPLERS, Guided, SeededNoise
    from .networks.demist import Streams

    plan = _plan(bundle, list(seeds), steps, sampler, guidance, eta, spacing)
    device = device if isinstance(device, torch.device) else pick_device(device)
    dtype = pick_dtype(device) if dtype is None else dtype
    clock = _Clock(None, timings)
    report = progress or (lambda stage, part, done: None)
    layout = torch.contiguous_format if device.type == "mps" else torch.channels_last_3d
    schedule = replace(bundle.schedule, spacing=plan["spacing"])
    sample = SAMPLERS[plan["sampler"]]
    demist, decoder = bundle.demist.to(device), bundle.autoencoder_psr.to(device)

    def encode() -> Any:
        encoder = bundle.autoencoder_condition.to(device)
        x = torch.from_numpy(np.ascontiguousarray(condition, dtype=np.float32))[None].to(device)
        mu, _ = encoder.encode(x.contiguous(memory_format=layout))
        del x
        return demist.condition((bundle.condition_scale * mu.float()).contiguous(memory_format=layout))

    report("encode", "encode", 0.0)
    with clock.stage("encode"), torch.no_grad(), _deterministic(), autocast(device, dtype):
        given = encode() if reuse is None else reuse.encoded((bundle.hash, str(device), str(dtype)), encode)
    shape = (1, bundle.config.psr.latent_channels, *given.shape)

    def predict(z: torch.Tensor, t: torch.Tensor, on: frozenset[str]) -> torch.Tensor:
        streams = Streams(**{name: name in on for name, _ in demist.built})
        with autocast(device, dtype):
            return demist(z.contiguous(memory_format=layout), t, given, streams)

    def to_psr(z: torch.Tensor, done: Callable[[float], None] | None = None) -> np.ndarray:
        image = decode(decoder, z / bundle.latent_scale, dtype=dtype, memory=memory, progress=done)[0, 0].numpy()
        psr = np.maximum(image * np.float32(bundle.psr_range), 0)
        return psr if mask is None else np.where(mask > 0, psr, np.float32(0))

    guided = Guided(predict, [name for name, built in demist.built if built], plan["guidance"])
    count = len(plan["seeds"])
    for i, seed in enumerate(plan["seeds"]):
        words = f"seed {i + 1} of {count}" if count > 1 else "sampling"
        draw = SeededNoise([seed])

        def step_done(
            step: int, steps: int, x0: torch.Tensor, i: int = i, seed: int = seed, words: str = words
        ) -> None:
            report(words, "seeds", (i + 0.7 * step / steps) / count)
            if estimate is not None:
                estimate(Estimate(seed, step, steps, x0, to_psr))

        report(words, "seeds", i / count)
        with clock.stage("sample"), _deterministic():
            z = sample(guided, draw(shape).to(device), schedule, plan["steps"], noise=draw, eta=plan["eta"],
                       callback=step_done)  # fmt: skip
        with clock.stage("decode"), _deterministic():
            psr = to_psr(z, lambda done, i=i, words=words: report(words, "seeds", (i + 0.7 + 0.3 * done) / count))
        if not np.isfinite(psr).all():
            raise DemistError(
                f"The model gave NaN or infinite values (seed {seed}, {str(dtype).removeprefix('torch.')}); "
                "try --precision fp32, fewer guidance weights, or another bundle."
            )
        yield psr


# Settings -----------------------------------------------------------------------------------------------------------


def check_seeds(seeds: int | Sequence[int]) -> list[int]:
    """The list of seeds that a number of samples, or a list, stands for.

    Raises:
        InputError: none, too many, negative, or twice the same.
    """
    if isinstance(seeds, (int, np.integer)) and not isinstance(seeds, bool):
        if not 1 <= seeds <= MAX_SEEDS:
            raise InputError(f"The number of seeds must be 1 to {MAX_SEEDS}, not {seeds}.")
        return list(range(int(seeds)))
    if isinstance(seeds, (str, bytes)) or not isinstance(seeds, Sequence | np.ndarray):
        raise InputError(f"Seeds are a number of samples, or a list of whole numbers, not {seeds!r}.")
    listed = list(seeds)
    if not listed or len(listed) > MAX_SEEDS:
        raise InputError(f"The number of seeds must be 1 to {MAX_SEEDS}, not {len(listed)}.")
    for seed in listed:
        if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or not 0 <= seed < 2**63:
            raise InputError(f"A seed is a whole number, 0 or more, not {seed!r}.")
    if len(set(listed)) < len(listed):
        raise InputError("The same seed is given twice; a sample must not count double.")
    return [int(seed) for seed in listed]


def _plan(
    bundle: Bundle,
    seeds: list[int] | None,
    steps: int | None,
    sampler: str | None,
    guidance: Mapping[str, float] | None,
    eta: float | None = None,
    spacing: str | None = None,
) -> dict[str, Any]:
    """All sampling settings, the bundle's recommendations filled in, checked."""
    from .diffusion import SAMPLERS, SPACINGS

    if bundle.kind != "demist":
        raise BundleError(
            f"Bundle {bundle.folder} is a foundation without conditioning streams; give a demist bundle, or train one "
            "on it (python -m DEMISTCore.train demist)."
        )
    advice = bundle.sampling
    plan = {
        "seeds": check_seeds(advice["seeds"]) if seeds is None else check_seeds(seeds),
        "sampler": sampler or advice["sampler"],
        "steps": advice["steps"] if steps is None else steps,
        "eta": float(advice["eta"] if eta is None else eta),
        "spacing": spacing or advice["spacing"],
        "guidance": {
            name: float(weight) for name, weight in (advice["guidance"] if guidance is None else guidance).items()
        },
    }
    if plan["sampler"] not in SAMPLERS:
        raise InputError(f"Unknown sampler {plan['sampler']!r}; choose {', '.join(SAMPLERS)}.")
    if plan["spacing"] not in SPACINGS:
        raise InputError(f"Unknown spacing {plan['spacing']!r}; choose {', '.join(SPACINGS)}.")
    limit = bundle.schedule.steps
    if isinstance(plan["steps"], bool) or not isinstance(plan["steps"], int) or not 1 <= plan["steps"] <= limit:
        raise InputError(f"The number of sampling steps must be 1 to {limit}, not {plan['steps']}.")
    if not 0 <= plan["eta"] <= 1:
        raise InputError(f"eta must be 0 to 1, not {plan['eta']}.")
    names = ("semantic", "spatial", "adaptive", "all")
    for name, weight in plan["guidance"].items():
        if name not in names:
            raise InputError(f"Unknown stream {name!r} in guidance; choose {', '.join(names)}.")
        if not np.isfinite(weight):
            raise InputError(f"The guidance weight of {name} must be a number, not {weight}.")
        if name != "all" and not getattr(bundle.config.streams, name):
            raise InputError(f"Bundle {bundle.name} has no {name} stream to guide.")
    return plan


# Outputs ------------------------------------------------------------------------------------------------------------


def stem(path: str | os.PathLike[str]) -> Path:
    """A path without the suffix of an image: ``a/psr.nii.gz`` -> ``a/psr``."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; give a file name, such as {path / 'psr.nii.gz'}.")
    for suffix in IMAGE_SUFFIXES:
        if path.name.lower().endswith(suffix) and len(path.name) > len(suffix):
            return path.with_name(path.name[: -len(suffix)])
    raise InputError(f"{path} is no name for an image; use .nii.gz (or {', '.join(IMAGE_SUFFIXES[1:])}).")


def _uncertainty_path(uncertainty: bool | str | os.PathLike[str], out: str | os.PathLike[str] | None) -> Path | None:
    if uncertainty is False or uncertainty is None:
        return None
    return _beside(out, "uncertainty") if uncertainty is True else Path(uncertainty)


def _beside(out: str | os.PathLike[str], what: str) -> Path:
    """``psr.nii.gz`` -> ``psr_what.nii.gz``."""
    base = stem(out)
    return base.with_name(f"{base.name}_{what}{Path(out).name[len(base.name) :]}")


def _outputs(
    out: str | os.PathLike[str] | None, uncertainty: Path | None, preview: str | os.PathLike[str] | None
) -> dict[str, Path]:
    """Every file to be written, by kind; those of single seeds come later, when the seeds are known."""
    from .preview import check_picture_name

    outputs: dict[str, Path] = {}
    if out is not None:
        outputs["psr"] = Path(out)
        outputs["sidecar"] = stem(out).with_name(stem(out).name + ".json")
    if uncertainty is not None:
        stem(uncertainty)
        outputs["uncertainty"] = uncertainty
    if preview is not None:
        outputs["preview"] = check_picture_name(preview)
    return outputs


def _check_outputs(outputs: Mapping[str, Path], overwrite: bool, inputs: Sequence[Source | None]) -> None:
    """Check every file to be written now rather than after minutes of work."""
    taken: dict[Path, str] = {}
    for source in inputs:
        path = source.path if isinstance(source, Volume) else source
        if isinstance(path, (str, os.PathLike)):
            taken[Path(path).resolve()] = "an input"
    for kind, path in outputs.items():
        there = path.resolve()
        if there in taken:
            raise InputError(f"{path} is {taken[there]} already; give the {kind} another name.")
        taken[there] = f"the {kind}"
        check_writable(path, overwrite=overwrite)
        _check_folder(path)


def _check_folder(path: Path) -> None:
    """Try to write where ``path`` will be: permission bits do not tell of read-only and network file systems."""
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"Cannot write {path}: {error.strerror or error}; choose a folder you can write to."
        ) from error


def _write(result: Synthesis, outputs: Mapping[str, Path], clock: _Clock) -> None:
    """Write everything under temporary names, then rename; an error before that leaves nothing."""
    start = time.perf_counter()
    description = f"PSR (fraction) by DEMIST {_version()}; research estimate"
    with ExitStack() as stack:
        temporary = {kind: stack.enter_context(atomic_path(path)) for kind, path in outputs.items()}
        if "psr" in temporary:
            result.psr.write(temporary["psr"], description=description)
        if "uncertainty" in temporary:
            result.uncertainty.write(temporary["uncertainty"], description=f"SD of {description}")
        for seed, sample in zip(result.provenance["settings"]["seeds"], result.samples):
            if f"seed {seed}" in temporary:
                sample.write(temporary[f"seed {seed}"], description=f"{description}, seed {seed}")
        if "preview" in temporary:
            from .preview import save_figure

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
    from .preview import mosaic

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
            f"{result.provenance['statement']} DEMIST {_version()}, bundle {bundle['name']} {bundle['hash'][:12]}, "
            f"{n} seed{'s' * (n > 1)}, {settings['steps']} steps of {settings['sampler']}."
        ),
    )


# Provenance ---------------------------------------------------------------------------------------------------------


def _identity(volume: Volume, reuse: Reuse) -> dict[str, Any]:
    """What file, with what content."""
    if volume.path is not None and Path(volume.path).is_file():
        return {"file": str(volume.path), "sha256": sha256(volume.path)}
    return {"file": None, "array_sha256": reuse.content(volume)}


def _content(volume: Volume) -> str:
    """SHA-256 of the voxels in C order, and of the affine."""
    digest = hashlib.sha256()
    for start in range(0, volume.shape[0], 16):  # in blocks: other orders need no second copy of the whole
        digest.update(np.ascontiguousarray(volume.array[start : start + 16]))
    digest.update(volume.affine.tobytes())
    return digest.hexdigest()


def _describe_bundle(bundle: Bundle) -> dict[str, Any]:
    described = {
        "name": bundle.name,
        "version": bundle.info.get("version"),
        "hash": bundle.hash,
        "licence": bundle.licence,
    }
    if bundle.base is not None:
        described["base"] = {"name": bundle.base.name, "hash": bundle.base.hash}
    return described


def _summary(psr: Volume, uncertainty: Volume | None, mask: Volume) -> dict[str, float]:
    inside = mask.array > 0
    values = psr.array[inside]
    summary = {
        "brain_volume_ml": round(float(inside.sum()) * mask.grid.voxel_volume_ml, 1),
        "psr_median": round(float(np.median(values)), 4),
        "psr_5_to_95_percentile": [round(float(v), 4) for v in np.percentile(values, (5, 95))],
    }
    if uncertainty is not None:
        summary["uncertainty_median"] = round(float(np.median(uncertainty.array[inside])), 4)
    return summary


def _version() -> str:
    from . import __version__

    return __version__


def _torch() -> str:
    import torch

    return str(torch.__version__)


# Memory, time, statistics -------------------------------------------------------------------------------------------


def model_memory(bundle: Bundle, shape: Sequence[int], dtype: torch.dtype) -> int:
    """About how many bytes synthesis takes at its peak on a model grid of ``shape``, decoding in small tiles."""
    from .decoding import decode_memory, encode_memory, reach

    config = bundle.config
    latent = [-(-n // config.psr.factor) for n in shape]
    margin = 2 * reach(bundle.autoencoder_psr) + 4
    decoding = decode_memory(bundle.autoencoder_psr, tuple(min(n, margin) for n in latent), dtype)
    encoding = encode_memory(bundle.autoencoder_condition, tuple(shape), dtype)
    # Feature maps of U-Net and ControlNet, skips included, per latent position (measured: 12 per network).
    sampling = 30 * config.backbone.channels[0] * int(np.prod(latent)) * 4
    weights = 4 * sum(
        p.numel() for m in (bundle.autoencoder_psr, bundle.autoencoder_condition, bundle.demist) for p in m.parameters()
    )
    images = 60 * int(np.prod(shape))  # condition, result, their copies
    return max(decoding, encoding, sampling) + weights + images


#: Preparation: brain extraction's network, and copies of the images while they are resampled and corrected.
_PREPARE_BASE = 1 << 30
_PREPARE_PER_VOXEL = 48


def _check_memory(bundle: Bundle, t1w: Volume, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse before the work starts; the model grid is guessed: no larger than the T1w, nor than a large head."""
    shape = [min(n, 256.0) / bundle.spacing for n in t1w.grid.extent]
    shape = [int(-(-min(n, 208 / bundle.spacing) // bundle.config.multiple)) * bundle.config.multiple for n in shape]
    prepare = min(_PREPARE_BASE, 200 * int(np.prod(shape))) + _PREPARE_PER_VOXEL * int(np.prod(t1w.shape))
    sampling = model_memory(bundle, shape, dtype)
    what = f"synthesis of {t1w.path or 'a T1w'} ({' x '.join(str(n) for n in t1w.shape)} voxels)"
    require_memory(prepare if device.type == "cuda" else max(prepare, sampling), None, what)
    if device.type == "cuda":
        require_memory(sampling, device, what)


class _Clock:
    """Seconds by stage, and progress over all of them."""

    def __init__(self, progress: Progress | None, seconds: dict[str, float] | None = None) -> None:
        self.seconds: dict[str, float] = {} if seconds is None else seconds
        self._progress = progress
        self._start = time.perf_counter()
        self._weights = dict(_WEIGHTS)

    @property
    def total(self) -> float:
        return time.perf_counter() - self._start

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.add({name: time.perf_counter() - start})

    def add(self, seconds: Mapping[str, float]) -> None:
        for name, value in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value

    def report(self, stage: str, part: str, done: float) -> None:
        if self._progress is None:
            return
        before = 0.0
        for name, weight in self._weights.items():
            if name == part:
                self._progress(stage, min(1.0, (before + weight * done) / sum(self._weights.values())))
            before += weight

    def skip(self, part: str) -> None:
        """A part that need not be done counts for nothing."""
        self._weights[part] = 0


class _Spread:
    """Running mean and standard deviation of maps (Welford 1962), in float64, in the order they come."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, sample: np.ndarray) -> None:
        self.count += 1
        if self.count == 1:
            self._mean, self._squares = sample.astype(np.float64), np.zeros(sample.shape)
            return
        delta = sample - self._mean
        self._mean += delta / self.count
        self._squares += delta * (sample - self._mean)

    @property
    def mean(self) -> np.ndarray:
        return self._mean.astype(np.float32)

    @property
    def sd(self) -> np.ndarray:
        return np.sqrt(self._squares / (self.count - 1)).astype(np.float32)


@contextmanager
def _deterministic() -> Iterator[None]:
    """cuDNN kernels that give the same bytes every time, without touching what the caller has set."""
    import torch

    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
