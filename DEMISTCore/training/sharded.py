"""``strategy=fsdp``: each process keeps a part of the weights, their gradients, averages and the optimizer's moments.

PyTorch's ``fully_shard`` (FSDP2; Zhao et al. 2023, arXiv 2304.11277), by Fabric. The parts are put together for a
forward and a backward pass. Checkpoints hold whole tensors: a run goes on with either strategy, and any number of
processes. Every process keeps frozen weights whole, which have no gradient or moments, and scalars, which cannot be
shared out.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from .groups import Settings
from .stage import Stage


def strategy(world: int) -> Any:
    """Fabric's strategy for ``world`` processes."""
    from lightning.fabric.strategies import ModelParallelStrategy

    return ModelParallelStrategy(_shard, data_parallel_size=world, tensor_parallel_size=1)


def check(stage: Stage, s: Settings) -> None:
    """Refuse what cannot be shared out.

    Raises:
        InputError: the stage trains two networks of which one looks into the other, the precision is fp16, or PyTorch
            is too old.
    """
    if s.strategy != "fsdp":
        return
    if importlib.util.find_spec("torch.distributed.fsdp._fully_shard") is None:
        raise InputError("strategy=fsdp needs PyTorch 2.6 or newer; use strategy=ddp.")
    if len(stage.objectives) > 1:
        raise InputError(
            f"strategy=fsdp shares out one network, and here there are {' and '.join(stage.objectives)}; set "
            "lambda_adversarial=0 where the stage has it, or strategy=ddp."
        )
    if s.precision == "fp16":
        raise InputError("strategy=fsdp has no fp16 training; use precision=bf16, fp32, or strategy=ddp.")


def whole(value: Any) -> Any:
    """A nest of mappings and lists with whole tensors; all processes have to ask."""
    if isinstance(value, dict):
        return {key: whole(each) for key, each in value.items()}
    if isinstance(value, list):
        return [whole(each) for each in value]
    return value.full_tensor() if _is_part(value) else value


def like(value: Tensor, target: Tensor) -> Tensor:
    """A whole tensor shared out as ``target`` is, which has the same shape; or in the order that it has in memory.

    Fused optimizers go through memory, and parts are in another order there (``channels_last``) than whole tensors.
    """
    if _is_part(value):
        return value
    if not _is_part(target):
        return value if value.stride() == target.stride() else torch.empty_like(target, dtype=value.dtype).copy_(value)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(target.device), target.device_mesh, target.placements)


def clip(fabric: Any, objective: Any, optimizer: Any, most: float) -> Tensor:
    """Clip the norm of all gradients of an objective and return what it was, a scalar.

    Gradients of scalars are averaged over processes first.
    """
    gradients = [p.grad for p in objective.parameters() if p.grad is not None]
    if not any(_is_part(gradient) for gradient in gradients):
        return fabric.clip_gradients(objective, optimizer, max_norm=most, error_if_nonfinite=False)
    local, alone = torch.zeros((), device=fabric.device), torch.zeros((), device=fabric.device)
    for gradient in gradients:
        if _is_part(gradient):
            local = local + gradient.to_local().square().sum()
        else:
            torch.distributed.all_reduce(gradient)
            gradient /= fabric.world_size
            alone = alone + gradient.square()
    torch.distributed.all_reduce(local)
    norm = (local + alone).sqrt()
    for gradient in gradients:  # as torch.nn.utils.clip_grad_norm_ does
        gradient *= (most / (norm + 1e-6)).clamp(max=1.0)
    return norm


@contextlib.contextmanager
def gathered(objectives: Iterable[nn.Module]) -> Iterator[None]:
    """With whole weights in every process, also where they are used outside of the objectives' own forward passes."""
    parts = [objective for objective in objectives if hasattr(objective, "unshard")]
    for part in parts:
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()


def _is_part(value: Any) -> bool:
    """Whether it is a DTensor; what it is one of takes a second to import, and PyTorch before 2.5 has none."""
    return hasattr(value, "full_tensor")


def _shard(module: nn.Module, mesh: Any) -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    module.to(memory_format=torch.contiguous_format)  # it takes no other
    for parameter in module.parameters():
        torch.distributed.broadcast(parameter.detach(), 0)  # as DDP does: all begin with the first one's
    left = {parameter for parameter in module.parameters() if not parameter.requires_grad or parameter.ndim == 0}
    return fully_shard(module, mesh=mesh["data_parallel"], ignored_params=left)
