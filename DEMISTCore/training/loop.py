"""The training loop, all of it in :func:`fit`; a stage brings the objective and the data.

Lightning Fabric does precision and devices (bf16 and fp16 autocast, DDP, SLURM); everything else is in plain sight.
Exact resumption needs no saved generator: batches are functions of the sample's index, and torch's global generator
is seeded anew from (seed, step) before each step.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import importlib.util
import logging
import math
import signal
import time
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..devices import pick_device
from ..errors import DemistError, InputError
from . import checkpoint
from .checkpoint import Run
from .groups import Settings
from .ranks import check_launcher, starting
from .stage import Stage

log = logging.getLogger(__name__)


class Ema:
    """Exponential moving average of parameters, in float32.

    a_n = d_n a_{n-1} + (1 - d_n) w_n with d_n = min(decay, (1 + n) / (10 + n)), n = 1, 2, ...: the warm-up of
    TensorFlow's ExponentialMovingAverage, so that a short run is not dominated by the initialisation.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = dict(parameters), decay
        self.average = {name: p.detach().float().clone() for name, p in self.parameters.items()}

    @staticmethod
    def decay_at(update: int, decay: float) -> float:
        """The factor d_n of update n = 1, 2, ..."""
        return min(decay, (1 + update) / (10 + update))

    @torch.no_grad()
    def update(self, number: int) -> None:
        """Take in the present weights as update ``number`` = 1, 2, ..."""
        names = list(self.average)
        torch._foreach_lerp_(
            [self.average[n] for n in names],
            [self.parameters[n].float() for n in names],
            1 - self.decay_at(number, self.decay),
        )

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averaged weights in place of the trained ones for a while."""
        backup = {name: p.detach().clone() for name, p in self.parameters.items()}
        try:
            self._copy(self.average)
            yield
        finally:
            self._copy(backup)

    @torch.no_grad()
    def _copy(self, values: Mapping[str, Tensor]) -> None:
        for name, p in self.parameters.items():
            p.copy_(values[name])


def trainable(objective: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that are trained, by name."""
    return {name: p for name, p in objective.named_parameters() if p.requires_grad}


def fit(stage: Stage, run: Run, *, resume: bool = False) -> int:
    """Train until ``steps`` or ``max_minutes`` are over, or a signal asks to stop; return the exit code.

    With ``steps`` alone, a run that was stopped and resumed has the same final weights as one that was not (on one
    machine's CPU, bit for bit). With ``max_minutes`` the clock decides, and minutes already spent are remembered.

    Raises:
        DemistError: the loss or a gradient is not finite; the last good checkpoint stays.
    """
    s, folder = run.settings, run.folder
    fabric = _fabric(s)
    accumulate, world, clip = s.accumulate, fabric.world_size, s.clip or math.inf
    per_step = s.batch * accumulate * world

    # Models and optimizers
    objectives, optimizers = {}, {}
    for objective in stage.objectives.values():
        if s.channels_last:
            objective.to(memory_format=torch.channels_last_3d)
        if s.checkpoint_activations:
            checkpoint_activations(objective)
        objective.to(fabric.device).train()
    weights = {f"{n}/{k}": p for n, objective in stage.objectives.items() for k, p in trainable(objective).items()}
    first = next(iter(stage.objectives))
    ema = Ema(trainable(stage.objectives[first]), s.ema)
    for name, objective in stage.objectives.items():
        optimizer = torch.optim.AdamW(
            list(trainable(objective).values()), lr=s.lr * stage.lr_factors.get(name, 1.0), betas=tuple(s.betas),
            weight_decay=s.weight_decay, fused=fabric.device.type in ("cpu", "cuda"),
        )  # fmt: skip
        objectives[name], optimizers[name] = fabric.setup(objective, optimizer, move_to_device=False)

    # Where to start
    step, elapsed, best, saved_at = 0, 0.0, math.inf, -1
    at = dict.fromkeys(("validate", "preview"), step)  # the step that had it last
    if resume and (loaded := checkpoint.newest(folder)) is not None:
        saved, average, state = loaded
        _copy_tensors(weights, saved, run)
        _copy_tensors(ema.average, average, run)
        _load_optimizers(optimizers, fabric, state, run)
        step, elapsed, best = state["step"], state["elapsed"], state["best"]
        saved_at = step
        at = state.get("evaluated") or dict.fromkeys(at, step)
        log.info("Resumed at step %d (%.1f minutes).", step, elapsed / 60)
    elif resume:
        log.info("There is no checkpoint yet: the run begins anew.")
    started = time.monotonic() - elapsed
    reporter = Reporter(folder, step, elapsed, s, at["validate"]) if fabric.is_global_zero else Reporter.silent()

    def progress() -> float:
        by_steps = step / s.steps if s.steps else 0.0
        by_time = (time.monotonic() - started) / 60 / s.max_minutes if s.max_minutes else 0.0
        return max(by_steps, by_time)

    def save() -> None:
        nonlocal saved_at
        if saved_at != step and fabric.is_global_zero:
            state = {
                "step": step, "elapsed": time.monotonic() - started, "best": best,
                "evaluated": dict(at),
                "optimizers": {name: optimizer.state_dict() for name, optimizer in optimizers.items()},
                "precision": fabric._precision.state_dict(),
            }  # fmt: skip
            checkpoint.save(folder, step, weights, ema.average, state)
        saved_at = step

    def batches(at: int) -> list[dict[str, Tensor]]:
        """The micro-batches of a step. Ranks and accumulation share out one large batch's indices."""
        start = at * per_step + fabric.global_rank * s.batch
        return [stage.batch(range(i, i + s.batch)) for i in range(start, start + per_step, s.batch * world)]

    def evaluate(force: bool = False) -> None:
        """Validation and preview when due; at the end of the run, unless the last step has just had them."""
        nonlocal best
        if not fabric.is_global_zero:
            return
        every = {"validate": s.validate_every, "preview": s.preview_every}
        due = {what: at[what] != step and (force or step % n == 0) for what, n in every.items()}
        at.update({what: step for what, now in due.items() if now})
        if not any(due.values()):
            return
        with _evaluating(stage, ema), torch.no_grad(), autocast(fabric.device, s.precision):
            values = stage.validate(fabric.device) if due["validate"] else {}
            if due["preview"]:
                stage.preview(folder / "previews" / f"step-{step:08d}.png", fabric.device)
        if values:
            reporter.validation(step, values)
        if (score := values.get(stage.score, math.inf)) < best:
            best = score
            checkpoint.save_best(folder, step, score, ema.average)

    with reporter, _Signals() as stop, ThreadPoolExecutor(1) as reader:
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
                for i, batch in enumerate(present):
                    with fabric.no_backward_sync(objective, enabled=world > 1 and i + 1 < accumulate):
                        losses = objective(batch, done)
                        _require_finite(losses, run, step, batch)
                        if losses["loss"].requires_grad:
                            fabric.backward(losses["loss"] / accumulate)
                    for key, value in losses.items():
                        label = f"{name}/{key}"
                        scalars[label] = scalars.get(label, 0.0) + float(value.detach()) / accumulate
                if all(p.grad is None for group in optimizer.param_groups for p in group["params"]):
                    continue  # an objective that has not joined yet
                # fp16 overflows by design now and then, and the scaler skips those steps; elsewhere it is an error.
                norm = fabric.clip_gradients(objective, optimizer, max_norm=clip, error_if_nonfinite=False)
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
            before = dict(at)
            evaluate(force=True)
            saved_at = saved_at if at == before else -1
            save()
    fabric.barrier()
    if halt:
        log.info("Stopped by %s after step %d and saved; continue with: %s", stop.name, step, resume_command(run))
        return 128 + int(stop.number)  # as a shell says it, so that what comes after && does not run
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


def checkpoint_activations(module: nn.Module) -> int:
    """Recompute the residual blocks' activations in the backward pass instead of keeping them; return how many."""
    from torch.utils.checkpoint import checkpoint as recompute

    count = 0
    for child in module.modules():
        if type(child).__name__ in ("AEKLResBlock", "DiffusionUNetResnetBlock", "SpatialAttentionBlock", "TwoConv"):
            child.forward = _Recompute(child.forward, recompute)
            count += 1
    return count


class _Recompute:
    def __init__(self, forward: Any, recompute: Any) -> None:
        self.forward, self.recompute = forward, recompute

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.forward(*args, **kwargs)
        return self.recompute(self.forward, *args, use_reentrant=False, **kwargs)


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
        fabric = Fabric(
            accelerator=check_machine(s), devices=s.devices, num_nodes=s.nodes, precision=precision, strategy=strategy
        )
        with starting(world):
            fabric.launch()
    return fabric


class _Signals:
    """Note SIGTERM, SIGHUP and Ctrl-C, to be obeyed after the step; a second Ctrl-C interrupts at once."""

    number: int | None = None

    def __enter__(self) -> _Signals:
        self.previous = {}
        wanted = [getattr(signal, name, None) for name in ("SIGTERM", "SIGINT", "SIGHUP")]
        with contextlib.suppress(ValueError):  # not in the main thread: then the host application decides
            for n in filter(None, wanted):
                if signal.getsignal(n) != signal.SIG_IGN or n == signal.SIGTERM:  # nohup means what it says
                    self.previous[n] = signal.signal(n, self._note)
        return self

    def _note(self, number: int, frame: Any) -> None:
        if self.number == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self.number is not None

    @property
    def name(self) -> str:
        return "Ctrl-C" if self.number == signal.SIGINT else signal.Signals(self.number).name


class Reporter:
    """Progress bar, TensorBoard and ``metrics.csv`` (step, minutes, tag, value), means over ``log_every`` steps."""

    def __init__(self, folder: Path, step: int, elapsed: float, settings: Settings, validated: int = 0) -> None:
        from tqdm import tqdm

        self.folder, self.settings, self.on = folder, settings, True
        self.csv_path = folder / "metrics.csv"
        self._drop_rows_after(step, validated)
        total = settings.steps
        self.bar = tqdm(total=total, initial=step, desc=folder.name, unit="step", dynamic_ncols=True, mininterval=1)
        self.sums: dict[str, float] = {}
        self.count = 0
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)
        except ImportError as error:
            raise InputError('Training needs tensorboard; install it with: pip install "demist[train]"') from error
        self.start = time.monotonic() - elapsed

    @classmethod
    def silent(cls) -> Reporter:
        """A reporter that says nothing: for all processes but the first."""
        self = cls.__new__(cls)
        self.on = False
        return self

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.on:
            self.bar.close()
            self.board.close()

    def train(self, step: int, scalars: dict[str, float], progress: float, seconds: float) -> None:
        """Note a step's scalars."""
        if not self.on:
            return
        self.bar.update(1)
        for key, value in scalars.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        self.count += 1
        if step % self.settings.log_every == 0 or progress >= 1:
            means = {key: value / self.count for key, value in self.sums.items()}
            self._write(step, {f"train/{key}": value for key, value in means.items()})
            self.sums, self.count = {}, 0
            loss = next((v for k, v in means.items() if k.endswith("/loss")), math.nan)
            self.bar.set_postfix_str(f"{min(progress, 1):.0%} loss {loss:.4f} {means.get('seconds', 0):.2f} s/step")

    def validation(self, step: int, values: dict[str, float]) -> None:
        """Note validation results and say them."""
        if self.on:
            self._write(step, {f"validation/{key}": value for key, value in values.items()})
            log.info("step %d: %s", step, "  ".join(f"{key} {value:.4g}" for key, value in values.items()))

    def _write(self, step: int, values: dict[str, float]) -> None:
        minutes = (time.monotonic() - self.start) / 60
        new = not self.csv_path.exists()
        with self.csv_path.open("a", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            if new:
                writer.writerow(("step", "minutes", "tag", "value"))
            for tag, value in values.items():
                writer.writerow((step, f"{minutes:.3f}", tag, f"{value:.6g}"))
                self.board.add_scalar(tag, value, step)

    def _drop_rows_after(self, step: int, validated: int) -> None:
        """Rows written after the checkpoint that is resumed would appear twice; a kill may have cut the last one."""
        if self.csv_path.exists():
            from ..files import atomic_path

            lines = self.csv_path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            kept = [line for i, line in enumerate(lines) if i == 0 or _row_holds(line, step, validated)]
            with atomic_path(self.csv_path) as temporary:
                temporary.write_text("".join(kept))


def _row_holds(line: str, step: int, validated: int) -> bool:
    words = line.split(",")
    if len(words) != 4 or not line.endswith("\n") or not words[0].isdecimal():
        return False
    return int(words[0]) <= (validated if words[2].startswith("validation/") else step)


def _require_finite(
    values: Mapping[str, Tensor], run: Run, step: int, batch: Mapping[str, Tensor] | None = None
) -> None:
    for name, value in values.items():
        if not bool(torch.isfinite(value).all()):
            found = checkpoint.checkpoints(run.folder)
            kept = f"the last good checkpoint is {found[-1]}" if found else "there is no checkpoint yet"
            bad = [k for k, v in (batch or {}).items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]
            mend = "Lower lr= or use precision=fp32 in a new run, or go on from there with --resume."
            if bad:
                mend = f"The data ({bad[0]}) hold values that are no numbers: look for them in the images."
            raise DemistError(f"Training stopped at step {step}: {name} is {float(value.detach()):g}; {kept}. {mend}")


@contextlib.contextmanager
def _evaluating(stage: Stage, ema: Ema) -> Iterator[None]:
    modes = {m: m.training for objective in stage.objectives.values() for m in objective.modules()}
    for objective in stage.objectives.values():
        objective.eval()
    try:
        with ema.applied():
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
    if set(target) != set(source) or any(target[k].shape != source[k].shape for k in target):
        raise InputError(f"The checkpoint of {run.folder} does not fit its configuration; start a new run.")
    for name, value in source.items():
        target[name].copy_(value)


def _load_optimizers(optimizers: Mapping[str, Any], fabric: Any, state: Mapping[str, Any], run: Run) -> None:
    """Moments and step counts of all optimizers, and fp16's scale.

    Raises:
        InputError: they do not belong to these parameters.
    """
    try:
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
            for group in optimizer.param_groups:
                for p in group["params"]:
                    for key, value in optimizer.state.get(p, {}).items():
                        if key != "step" and value.shape != p.shape:
                            raise ValueError(f"{key} has another shape than its parameter")
        fabric._precision.load_state_dict(state["precision"])
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(f"The checkpoint of {run.folder} does not fit its configuration; start a new run.") from error


def _mix(*numbers: int) -> int:
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:7], "little")
