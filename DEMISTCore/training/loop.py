"""The training loop, all of it in :func:`fit`; a stage brings the objective and the data.

Lightning Fabric does precision and devices (bf16 and fp16 autocast, DDP, SLURM); everything else is in plain sight.
Exact resumption needs no saved generator: batches are functions of the sample's index, and torch's global generator
is seeded anew from (seed, step) before each step.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from ..devices import pick_device
from ..errors import DemistError, InputError
from ..networks.wiring import always_recompute
from ..pooling import Step
from ..weights import misfits
from . import checkpoint, sharded
from .checkpoint import Run
from .ema import Ema
from .groups import Settings
from .ranks import check_launcher, meet_anew, starting
from .reporter import Reporter
from .signals import Signals
from .stage import Stage

log = logging.getLogger(__name__)

#: Of an optimizer's settings, those that say how it computes, and not what.
_HOW = ("foreach", "fused", "capturable", "differentiable")
#: Blocks whose activations are recomputed with ``checkpoint_activations``.
RECOMPUTED = ("AEKLResBlock", "DiffusionUNetResnetBlock", "SpatialAttentionBlock", "TwoConv")


def trainable(objective: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that are trained, by name."""
    return {name: p for name, p in objective.named_parameters() if p.requires_grad}


def fit(stage: Stage, run: Run, *, resume: bool = False) -> int:
    """Train until ``steps`` or ``max_minutes`` are over, or a signal asks to stop; return the exit code.

    With ``steps`` alone, a run that was stopped and resumed has the same final weights as one that was not (on one
    machine's CPU, bit for bit). With ``max_minutes`` the clock decides, and minutes already spent are remembered; what
    the stage has fitted before its first step counts.

    Raises:
        DemistError: the loss or a gradient is not finite; the last good checkpoint stays.
    """
    s, folder = run.settings, run.folder
    sharded.check(stage, s)
    fabric = _fabric(s)
    accumulate, world, clip = s.accumulate, fabric.world_size, s.clip or math.inf
    per_step = s.batch * accumulate * world

    # Models and optimizers
    for objective in stage.objectives.values():
        if s.channels_last:
            objective.to(memory_format=torch.channels_last_3d)
        if s.checkpoint_activations:
            always_recompute(objective, RECOMPUTED)
        objective.to(fabric.device).train()
    objectives = {n: fabric.setup_module(each, move_to_device=False) for n, each in stage.objectives.items()}
    weights = {f"{n}/{k}": p for n, objective in stage.objectives.items() for k, p in trainable(objective).items()}
    first = next(iter(stage.objectives))
    ema = Ema(trainable(stage.objectives[first]), s.ema)
    optimizers = {}
    for name, objective in stage.objectives.items():
        optimizer = torch.optim.AdamW(
            list(trainable(objective).values()),
            lr=s.lr * stage.lr_factors.get(name, 1.0),
            betas=tuple(s.betas),
            weight_decay=s.weight_decay,
            # Weights that are shared out and such as are not do not go together.
            **({"foreach": False} if s.strategy == "fsdp" else {"fused": fabric.device.type in ("cpu", "cuda")}),
        )
        optimizers[name] = fabric.setup_optimizers(optimizer)

    # Where to start
    step, elapsed, best, saved_at = 0, stage.fitted_seconds, math.inf, -1
    begun, before = 0, 0  # the step that is the first one here, and the samples of those before it
    at = dict.fromkeys(("validate", "preview"), step)  # the step that had it last
    if resume and (loaded := checkpoint.newest(folder)) is not None:
        saved, average, state = loaded
        _copy_tensors(weights, saved, run)
        _copy_tensors(ema.average, average, run)
        _load_optimizers(optimizers, fabric, state, run)
        step, elapsed, best = state["step"], state["elapsed"], state["best"]
        saved_at = begun = step
        before = state.get("samples", step * per_step)  # perhaps of another number of processes
        at = state.get("evaluated") or dict.fromkeys(at, step)
        log.info("Resumed at step %d (%.1f minutes).", step, elapsed / 60)
    elif resume:
        log.info("There is no checkpoint yet: the run begins anew.")
    started = time.monotonic() - elapsed
    ending = 0.0  # seconds that what follows the last step takes, as far as is known: max_minutes counts it
    reporter = Reporter(folder, step, elapsed, s, at["validate"]) if fabric.is_global_zero else Reporter.silent()

    def progress() -> float:
        by_steps = step / s.steps if s.steps else 0.0
        by_time = (time.monotonic() - started + ending) / 60 / s.max_minutes if s.max_minutes else 0.0
        return max(by_steps, by_time)

    def first_sample(at: int) -> int:
        return before + (at - begun) * per_step

    def save() -> None:
        nonlocal saved_at
        if saved_at != step:
            state = {
                "step": step,
                "samples": first_sample(step),
                "elapsed": time.monotonic() - started,
                "best": best,
                "evaluated": dict(at),
                "optimizers": {name: sharded.whole(optimizer.state_dict()) for name, optimizer in optimizers.items()},
                "precision": fabric._precision.state_dict(),
            }
            tensors = sharded.whole(weights), sharded.whole(ema.average)
            if fabric.is_global_zero:
                checkpoint.save(folder, step, *tensors, state)
        saved_at = step

    def batches(at: int) -> list[dict[str, Tensor]]:
        """The micro-batches of a step. Ranks and accumulation share out one large batch's indices."""
        start = first_sample(at) + fabric.global_rank * s.batch
        return [stage.batch(range(i, i + s.batch)) for i in range(start, start + per_step, s.batch * world)]

    def evaluate(force: bool = False) -> None:
        """Validation and preview when due; at the end of the run, unless the last step has just had them."""
        nonlocal best, ending
        if not fabric.is_global_zero and s.strategy != "fsdp":
            return
        every = {"validate": s.validate_every, "preview": s.preview_every}
        due = {what: at[what] != step and (force or step % n == 0) for what, n in every.items()}
        at.update({what: step for what, now in due.items() if now})
        if not any(due.values()):
            return
        began = time.monotonic()
        average = sharded.whole(ema.average)
        with _evaluating(stage, ema), torch.no_grad(), autocast(fabric.device, s.precision):
            if not fabric.is_global_zero:
                return  # it has had its part in putting weights together
            values = stage.validate(fabric.device) if due["validate"] else {}
            if due["preview"]:
                picture = folder / "previews" / f"step-{step:08d}.png"
                stage.preview(picture, fabric.device)
                reporter.preview(step, picture)
        if values:
            reporter.validation(step, values)
        ending = max(ending, time.monotonic() - began)
        if (score := values.get(stage.score, math.inf)) < best:
            best = score
            checkpoint.save_best(folder, step, score, average)

    with reporter, Signals() as stop, ThreadPoolExecutor(1) as reader:
        following = reader.submit(batches, step)
        while True:
            done, halt = (progress(), bool(stop)) if world == 1 else fabric.broadcast((progress(), bool(stop)))
            if done >= 1 or halt:
                break
            began = time.monotonic()
            present, following = following.result(), reader.submit(batches, step + 1)
            present = [fabric.to_device(_to_format(batch, s.channels_last)) for batch in present]
            torch.manual_seed(_mix(s.seed, step, fabric.global_rank))
            factor = learning_rate_factor(step, done, s)
            scalars: dict[str, float] = {}
            for name, objective in objectives.items():
                optimizer = optimizers[name]
                for group in optimizer.param_groups:
                    group["lr"] = s.lr * stage.lr_factors.get(name, 1.0) * factor
                optimizer.zero_grad(set_to_none=True)
                together = _rehearsed(stage.objectives[name], present, done, world, s)
                joined = True
                for i, batch in enumerate(present):
                    # DDP must not prepare for a backward pass that never comes: it would still wait in the next step.
                    later = i + 1 < accumulate or not joined
                    with fabric.no_backward_sync(objective, enabled=world > 1 and later):
                        with together.micro_batch(i):
                            losses = objective(batch, done)
                        _require_finite(losses, run, step, batch)
                        if joined := losses["loss"].requires_grad:
                            fabric.backward(losses["loss"] / accumulate)
                    for key, value in losses.items():
                        label = f"{name}/{key}"
                        scalars[label] = scalars.get(label, 0.0) + float(value.detach()) / accumulate
                if all(p.grad is None for group in optimizer.param_groups for p in group["params"]):
                    continue  # an objective that has not joined yet
                # fp16 overflows by design now and then, and the scaler skips those steps; elsewhere it is an error.
                norm = sharded.clip(fabric, objective, optimizer, clip)
                if s.precision != "fp16":
                    _require_finite({f"gradient of {name}": norm}, run, step)
                optimizer.step()
                scalars[f"{name}/gradient"] = float(norm)
            step += 1
            ema.update(step)
            seconds = time.monotonic() - began
            reporter.train(step, {**scalars, "lr": s.lr * factor, "seconds": seconds}, progress(), seconds)
            evaluate()
            if step % s.save_every == 0:
                save()
        following.cancel()
        save()  # before anything that could fail
        if not halt:
            earlier = dict(at)
            evaluate(force=True)
            saved_at = saved_at if at == earlier else -1
            save()
    fabric.barrier()
    if halt:
        log.info("Stopped by %s after step %d and saved; continue with: %s", stop.name, step, resume_command(run))
        return 128 + int(stop.number or 0)  # as a shell says it, so that what comes after && does not run
    log.info("Done: %d steps in %.1f minutes, %s", step, (time.monotonic() - started) / 60, folder)
    return 0


def learning_rate_factor(step: int, progress: float, s: Settings) -> float:
    """Linear warm-up over ``warmup`` steps times a cosine from 1 to ``lr_end`` over the progress, or 1."""
    warm = min(1.0, (step + 1) / s.warmup) if s.warmup else 1.0
    if s.decay == "constant":
        return warm
    return warm * (s.lr_end + (1 - s.lr_end) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


def resume_command(run: Run) -> str:
    """What to type to go on."""
    return f"python -m DEMISTCore.train {run.stage} --out {run.folder} --resume"


def frozen_hash(module: nn.Module) -> str:
    """SHA-256 over names, shapes and bytes of a module's state: equal exactly when nothing changed."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        value = value.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


# --- parts of the loop ------------------------------------------------------------------------------------------------


def check_machine(s: Settings) -> str:
    """The accelerator's name.

    Raises:
        InputError: lightning is not installed, the device is not there, or it has no fp16 training.
    """
    check_launcher(s.nodes)
    if max(s.betas) >= 1:
        raise InputError(f"betas must be below 1 to train, not {list(s.betas)}.")
    if importlib.util.find_spec("lightning") is None:
        raise InputError('Training needs lightning; install it with: pip install "demist[train]"')
    device = pick_device(s.device).type
    if s.precision == "fp16" and device != "cuda":
        raise InputError("precision=fp16 is for CUDA GPUs; use precision=bf16 or fp32 here.")
    return device


def _fabric(s: Settings) -> Any:
    from lightning.fabric import Fabric

    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    if s.threads:
        torch.set_num_threads(s.threads)
    precision = {"bf16": "bf16-mixed", "fp16": "16-mixed", "fp32": "32-true"}[s.precision]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        world = s.devices * s.nodes
        # Some parameters have no part in some steps (an estimate that trains alone at first, losses of weight 0).
        strategy = "ddp_find_unused_parameters_true" if world > 1 else "auto"
        if world > 1 and s.strategy == "fsdp":
            strategy = sharded.strategy(world)
        fabric = Fabric(
            accelerator=check_machine(s), devices=s.devices, num_nodes=s.nodes, precision=precision, strategy=strategy
        )
        with starting(world):
            meet_anew("nccl" if fabric.device.type == "cuda" else "gloo")
            fabric.launch()
    return fabric


def _require_finite(
    values: Mapping[str, Tensor], run: Run, step: int, batch: Mapping[str, Tensor] | None = None
) -> None:
    for name, value in values.items():
        if not bool(torch.isfinite(value).all()):
            found = checkpoint.checkpoints(run.folder)
            kept = f"the last good checkpoint is {found[-1]}" if found else "there is no checkpoint yet"
            bad = [k for k, v in (batch or {}).items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]
            fix = "Lower lr= or use precision=fp32 in a new run, or go on from there with --resume."
            if bad:
                fix = f"The data ({bad[0]}) hold values that are no numbers: look for them in the images."
            raise DemistError(f"Training stopped at step {step}: {name} is {float(value.detach()):g}; {kept}. {fix}")


@torch.no_grad()
def _rehearsed(
    objective: nn.Module, present: Sequence[dict[str, Tensor]], progress: float, world: int, s: Settings
) -> Step:
    """What the micro-batches of a step take from each other, known before the first of them is computed."""
    step, rehearse = Step(s.accumulate, world), getattr(objective, "rehearse", None)
    if s.accumulate == 1 or rehearse is None:
        return step
    for batch in present:
        with step.rehearsal(), sharded.gathered([objective]), autocast(next(iter(batch.values())).device, s.precision):
            rehearse(batch, progress)
    return step


@contextlib.contextmanager
def _evaluating(stage: Stage, ema: Ema) -> Iterator[None]:
    modes = {m: m.training for objective in stage.objectives.values() for m in objective.modules()}
    for objective in stage.objectives.values():
        objective.eval()
    try:
        with ema.applied(), sharded.gathered(stage.objectives.values()):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def autocast(device: torch.device, precision: str) -> Any:
    """Autocast as Fabric does it in training, for validation and encoding."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")


def _to_format(batch: dict[str, Tensor], channels_last: bool) -> dict[str, Tensor]:
    if not channels_last:
        return batch
    return {
        k: v.contiguous(memory_format=torch.channels_last_3d) if v.ndim == 5 and v.is_floating_point() else v
        for k, v in batch.items()
    }


@torch.no_grad()
def _copy_tensors(target: Mapping[str, Tensor], source: Mapping[str, Tensor], run: Run) -> None:
    if misfits(target, source):
        raise InputError(f"The checkpoint of {run.folder} does not fit its configuration; start a new run.")
    for name, value in source.items():
        target[name].copy_(sharded.like(value, target[name]))


def _load_optimizers(optimizers: Mapping[str, Any], fabric: Any, state: Mapping[str, Any], run: Run) -> None:
    """Moments and step counts of all optimizers, and fp16's scale.

    How an optimizer computes is no part of that: it stays as it was made for this run's strategy and device.

    Raises:
        InputError: they do not belong to these parameters.
    """
    try:
        for name, optimizer in optimizers.items():
            how = [{key: group[key] for key in _HOW if key in group} for group in optimizer.param_groups]
            optimizer.load_state_dict(state["optimizers"][name])
            for group, own in zip(optimizer.param_groups, how):
                group.update(own)
                for p in group["params"]:
                    moments = optimizer.state.get(p, {})
                    for key, value in moments.items():
                        if key != "step" and value.shape != p.shape:
                            raise ValueError(f"{key} has another shape than its parameter")
                        if key != "step":
                            moments[key] = sharded.like(value, p)
        fabric._precision.load_state_dict(state["precision"])
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(f"The checkpoint of {run.folder} does not fit its configuration; start a new run.") from error


def _mix(*numbers: int) -> int:
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:7], "little")
