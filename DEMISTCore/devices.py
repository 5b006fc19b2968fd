"""Where the networks run, in which precision, and whether there is memory enough.

torch is imported only where it is needed, so that a misspelt ``--device`` is refused at once.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError, MemoryShortage

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def check_device_name(name: str) -> str:
    """``name`` in lower case, if it is one that exists.

    Raises:
        InputError: it is not ``auto``, ``cpu``, ``mps``, ``cuda`` or ``cuda:n``.
    """
    lowered = str(name).strip().lower()
    if not _DEVICE.fullmatch(lowered):
        raise InputError(f"Unknown device {name!r}; choose auto, cpu, cuda, cuda:1 (and so on) or mps.")
    return lowered


def pick_device(name: str = "auto") -> torch.device:
    """The torch device of that name; ``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        InputError: the name is unknown, or this machine has no such device.
    """
    name = check_device_name(name)
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise InputError(f"Device {name} was asked for, but PyTorch sees no CUDA GPU here; use --device cpu.")
        index = int(name.partition(":")[2] or 0)
        if index >= count:
            there = "only cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
            raise InputError(f"Device {name} was asked for, but there is {there} here; choose one of these.")
        return torch.device("cuda", index)
    if name == "mps" and not torch.backends.mps.is_available():
        raise InputError("Device mps was asked for, but there is no Apple GPU here; use --device cpu.")
    return torch.device(name)


def describe_device(device: torch.device) -> str:
    """The device in words, for provenance: ``"cpu (2 threads)"``, ``"cuda:0 (NVIDIA ...)"``."""
    import torch

    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)


def pick_dtype(device: torch.device, precision: str = "auto") -> torch.dtype:
    """The type in which convolutions and matrix products run (under autocast).

    ``auto``: bf16 where the hardware computes in it (it halves memory and time), otherwise fp32; on older CUDA GPUs
    fp16. Nothing but speed depends on the choice: weights, noise, sampler states and results are float32.

    Raises:
        InputError: unknown precision.
    """
    import torch

    if precision not in PRECISIONS:
        raise InputError(f"Unknown precision {precision!r}; choose {', '.join(PRECISIONS)}.")
    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    if device.type == "cpu" and _cpu_has_bf16():
        return torch.bfloat16
    return torch.float32


def pick_precision(device: torch.device) -> str:
    """The precision in which to train, by name: :func:`pick_dtype`'s choice."""
    return {"torch.float32": "fp32", "torch.bfloat16": "bf16", "torch.float16": "fp16"}[str(pick_dtype(device))]


def _cpu_has_bf16() -> bool:
    """True if the CPU multiplies bf16 in hardware (AVX-512 BF16 or AMX); elsewhere it is emulated, and slower."""
    import torch

    # Private in torch: where they vanish, fp32 is the safe answer.
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, probe, lambda: False)()) for probe in probes)


def autocast(device: torch.device, dtype: torch.dtype) -> Any:
    """Context in which networks compute in ``dtype``; nothing at all for float32."""
    import torch

    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)


def available_memory(device: torch.device | None = None) -> int:
    """Free bytes on the device; for the CPU (and MPS, which shares it) what this process may still take.

    A container's limit counts as well as the machine's.
    """
    if device is not None and device.type == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    import psutil

    return min([psutil.virtual_memory().available, *_container_memory()])


def _container_memory(root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """What the control group leaves free, for cgroup v2 and v1; empty where there is no limit."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            free = int((root / limit).read_text()) - int((root / used).read_text())
        except (OSError, ValueError):  # no such file, or "max"
            continue
        # Page cache counts as used and is given up on demand.
        return [max(free + _inactive_file(root), 0)]
    return []


def _inactive_file(root: Path) -> int:
    for name in ("memory.stat", "memory/memory.stat"):
        try:
            lines = (root / name).read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            key, _, value = line.partition(" ")
            if key in ("inactive_file", "total_inactive_file"):
                return int(value)
    return 0


def require_memory(needed: int, device: torch.device | None, what: str) -> None:
    """Refuse work that would not fit, before it starts.

    Raises:
        MemoryShortage: less than ``needed`` bytes are free; the sentence says how much is.
    """
    free = available_memory(device)
    if free < needed:
        where = "GPU memory" if device is not None and device.type == "cuda" else "memory"
        fix = "use --device cpu or a larger GPU" if where == "GPU memory" else "close other programs or use a machine"
        fix += "" if where == "GPU memory" else " with more"
        raise MemoryShortage(
            f"Too little memory: {what} needs about {needed / 2**30:.1f} GiB of {where} and "
            f"{free / 2**30:.1f} GiB are free; {fix}."
        )


@contextmanager
def memory_errors() -> Iterator[None]:
    """Memory that runs out inside, on whatever device, raises :class:`~DEMISTCore.errors.MemoryShortage`.

    NumPy and CUDA have types for it. The allocators of the CPU and of Apple's GPUs raise a plain RuntimeError, which
    their words alone tell from others: here, and nowhere else.
    """
    try:
        yield
    except MemoryError as error:
        raise MemoryShortage(_SHORT) from error
    except RuntimeError as error:
        torch = sys.modules.get("torch")
        if torch is None or not (isinstance(error, _cuda_type(torch)) or _UNTYPED.search(str(error))):
            raise
        raise MemoryShortage(_SHORT) from error


_SHORT = "There is not enough memory; close other programs, use fewer seeds, or another device (cpu)."
_UNTYPED = re.compile(r"DefaultCPUAllocator: (can't allocate|not enough) memory|MPS backend out of memory")


def _cuda_type(torch: Any) -> type[Exception]:
    return getattr(torch, "OutOfMemoryError", None) or torch.cuda.OutOfMemoryError


def peak_memory() -> int:
    """Most memory (bytes, resident) this process has held so far."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process(os.getpid()).memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
