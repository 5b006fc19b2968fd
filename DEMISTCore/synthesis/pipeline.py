"""The main job, files included: T1w + FLAIR in, PSR map out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..acquisition import known_keys, protocol_vector, read_protocol
from ..bundle import DEFAULT_BUNDLE, Bundle, load_bundle
from ..clock import SYNTHESIS, Clock, Progress
from ..devices import check_device_name, describe_device, pick_device, pick_dtype
from ..errors import InputError
from ..volume import Volume, as_volume
from .given import Mean
from .memory import check_memory
from .outputs import beside, check_formats, check_outputs, list_outputs, write
from .plan import check_seeds, plan_sampling
from .provenance import identity, provenance
from .result import RunningDeviation, Synthesis
from .reuse import Reuse
from .sampling import Estimate, generate

if TYPE_CHECKING:
    from ..preprocess import Prepared

Source = Volume | str | os.PathLike


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
    mode: str | None = None,
    protocol: Mapping[str, Mapping[str, Any]] | None = None,
    device: str = "auto",
    precision: str = "auto",
    brain_mask: Source | None = None,
    register: bool = True,
    skull_strip: str = "auto",
    bias_correct: bool = True,
    any_brain_volume: bool = False,
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
        sampler: by its name in :data:`DEMISTCore.samplers.SAMPLERS`, such as ``ddim``.
        guidance: weight by stream (``semantic``, ``spatial``, ``adaptive``, or ``all``), see
            :class:`DEMISTCore.diffusion.Guided`. 1 is plain conditioning, 0 switches a stream off.
        mode: ``mean``, the map with the lowest error, in one pass, or ``sample``, maps with realistic detail, one per
            seed. None: the bundle's recommendation, but ``sample`` where seeds, steps or sampler are given.
        protocol: content of the BIDS sidecars, ``{"T1w": {"RepetitionTime": 2.3, ...}, "FLAIR": {...}}``, in seconds,
            degrees, tesla and millimetres. None: read from the JSON files beside the images, where there are any.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:n`` or ``mps``.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        brain_mask: brain mask in the T1w's space instead of brain extraction.
        register, skull_strip, bias_correct, any_brain_volume: see :func:`DEMISTCore.prepare`.
        uncertainty: write the standard deviation too, predicted where the bundle has a mean network, else that over
            seeds: True (beside ``out``) or a path.
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
    clock = Clock(progress, SYNTHESIS)
    sources = (t1w, flair, brain_mask, bundle)
    outputs = list_outputs(out, uncertainty, preview)
    check_outputs(outputs, overwrite, sources)
    if write_samples and out is None:
        raise InputError("The maps of the seeds are written beside the PSR map; give out (--out) as well.")
    check_device_name(device)
    seed_list = None if seeds is None else check_seeds(seeds)

    with clock.stage("load"):
        torch_device = pick_device(device)
        dtype = pick_dtype(torch_device, precision)
        model = load_bundle(bundle)
        plan = plan_sampling(model, seed_list, steps, sampler, guidance, mode=mode)
        if uncertainty and model.config.mean is None and len(plan.seeds) < 2:
            raise InputError("Uncertainty is the spread over seeds and needs at least two; give --seeds 4.")
        if write_samples and out is not None:
            outputs |= {f"seed {seed}": beside(out, f"seed-{seed}") for seed in plan.seeds}
            check_outputs(outputs, overwrite, sources)
        inputs = {"T1w": as_volume(t1w, "T1w"), "FLAIR": as_volume(flair, "FLAIR")}
        if brain_mask is not None:
            inputs["brain mask"] = as_volume(brain_mask, "brain mask")
        check_formats(outputs, inputs["T1w"])
        check_memory(model, inputs["T1w"], torch_device, dtype)
        reuse = reuse or Reuse()
        identities = {name: identity(volume, reuse) for name, volume in inputs.items()}

    chosen = {"register": register, "skull_strip": skull_strip, "bias_correct": bias_correct}
    if any_brain_volume:
        chosen["any_brain_volume"] = True
    grid = {"spacing": model.spacing, "multiple": model.config.multiple}
    prepared = _prepared(inputs, {**chosen, **grid, "device": str(torch_device)}, reuse, clock)
    if estimate is not None:
        tell = estimate
        estimate = lambda now: tell(replace(now, to_native=prepared.to_native))  # noqa: E731

    vector, remarks = _protocol(inputs, protocol)
    native, on_grid = RunningDeviation(), RunningDeviation()
    samples: list[Volume] = []
    means: list[Mean] = []
    for sample in generate(
        model,
        prepared.array,
        prepared.mask.array,
        plan=plan,
        protocol=vector,
        told=means.append,
        device=torch_device,
        dtype=dtype,
        progress=clock.report,
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

    psr, sd = native.volumes(prepared.native)
    model_maps = on_grid.volumes(prepared.grid)
    known = {"kind": "standard deviation over seeds" if sd is not None else "none"}
    if means:
        deviation, known, unlike = _deviation(model, means[0])
        sd = prepared.to_native(deviation)
        model_maps = model_maps[0], Volume(deviation, prepared.grid.affine)
        remarks += unlike
    settings = {
        **plan.to_dict(),
        "device": describe_device(torch_device),
        "precision": str(dtype).removeprefix("torch."),
        **chosen,
    }
    told = provenance(model, identities, settings, outputs, prepared, psr, sd)
    told["warnings"] += remarks
    told["uncertainty"] = known
    if means:
        told["protocol"] = {"known": known_keys(vector), "vector": [round(float(value), 4) for value in vector]}
    result = Synthesis(psr, sd, samples, prepared.native_mask, told, prepared, *model_maps, dict(outputs))
    clock.report("write", "write", 0.0)
    write(result, clock)
    clock.end()
    return result


def _deviation(model: Bundle, mean: Mean) -> tuple[np.ndarray, dict[str, Any], list[str]]:
    """Standard deviation on the model grid, what it is, and a warning where the scans are unlike the training's."""
    if model.calibration is None:
        return mean.sd, {"kind": "predicted standard deviation, not calibrated"}, []
    ood = None if model.typical is None else model.typical.distance(mean.described)
    warning = model.calibration.warning(ood)
    known = {
        "kind": "calibrated standard deviation of the error",
        "ood": ood,
        "widened": model.calibration.widening(ood),
        "calibration": model.calibration.to_dict(),
    }
    return model.calibration.voxel_sd(mean.psr, mean.sd, ood), known, [warning] if warning else []


def _protocol(
    inputs: Mapping[str, Volume], given: Mapping[str, Mapping[str, Any]] | None
) -> tuple[np.ndarray, list[str]]:
    """The protocol as the network reads it, and remarks on what could not be used."""
    if given is None:
        return read_protocol(inputs["T1w"].path, inputs["FLAIR"].path)
    unknown = sorted(set(given) - {"T1w", "FLAIR"})
    if unknown or not all(isinstance(part, Mapping) for part in given.values()):
        raise InputError('protocol holds the sidecars\' content by image: {"T1w": {...}, "FLAIR": {...}}.')
    return protocol_vector(given.get("T1w", {}), given.get("FLAIR", {}))


def _prepared(inputs: Mapping[str, Volume], options: Mapping[str, Any], reuse: Reuse, clock: Clock) -> Prepared:
    """The images as the model sees them: what ``reuse`` has of the same images and options, or made now."""
    key = (*((name, volume.shape, reuse.content(volume)) for name, volume in inputs.items()), *options.items())
    if reuse.knows(key) and reuse.prepared is not None:
        clock.skip("prepare")
        return reuse.prepared
    from ..preprocess import prepare

    prepared = prepare(
        inputs["T1w"],
        inputs["FLAIR"],
        brain_mask=inputs.get("brain mask"),
        **options,
        progress=lambda stage, done: clock.report(stage, "prepare", done),
    )
    reuse.keep(key, prepared)
    clock.add({step.name: step.seconds for step in prepared.steps})
    return prepared
