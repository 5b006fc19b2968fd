"""Weights: on disk as safetensors, read as they are, written in fewer bits; and whether they fit a network.

Nothing is code, nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import BundleError
from .files import make_readable

if TYPE_CHECKING:
    from torch import Tensor, nn

STORAGE = ("bf16", "fp16", "fp32")


def read_weights(file: Path) -> dict[str, Tensor]:
    """All tensors of a file, in the number format they were written in.

    Raises:
        BundleError: it cannot be read.
    """
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except MemoryError:
        raise
    except Exception as error:  # of a hostile header, more than SafetensorError
        raise BundleError(f"{file} is not a readable safetensors file; get the bundle again.") from error


@contextmanager
def shapes_only() -> Iterator[None]:
    """Networks built in the block have shapes and no numbers: however large, they take neither memory nor time.

    They are on the meta device, on which torch draws and scales numbers that nobody has by code in Python, for which it
    loads SymPy and its compiler: more than a second of each process that opens a model. That is left out.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class NoNumbers(TorchFunctionMode):
        def __torch_function__(
            self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
        ) -> Any:
            if func in (torch.Tensor.normal_, torch.Tensor.div, torch.Tensor.__truediv__):
                return args[0]
            return (torch.empty if func is torch.randn else func)(*args, **(kwargs or {}))

    with torch.device("meta"), NoNumbers():
        yield


def misfits(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Names of weights that only one side has or, where both have the same names, of those of another shape."""
    return sorted(own.keys() ^ given.keys()) or [name for name in own if own[name].shape != given[name].shape]


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor with a NaN or an infinity; None: there is none."""
    return next((name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())), None)


def write_weights(file: Path, content: Mapping[str, Tensor] | nn.Module, storage: str) -> None:
    """Write a network's weights, or a state dict, in the number format ``storage`` (one of :data:`STORAGE`).

    Of a network with streams, a file called ``streams`` gets these alone. What is no floating-point number stays as it
    is.

    Raises:
        ValueError: an unknown format, NaN or infinite weights, or weights beyond its range.
    """
    import torch
    from safetensors.torch import save_file

    if storage not in STORAGE:
        raise ValueError(f"storage must be one of {', '.join(STORAGE)}, not {storage!r}")
    if isinstance(content, torch.nn.Module):
        streams = getattr(content, "streams_state_dict", None)
        content = streams() if streams and file.stem == "streams" else content.state_dict()
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[storage]
    tensors = {}
    for name, tensor in content.items():
        tensor = tensor.detach().cpu()
        if tensor.is_floating_point():
            if not torch.isfinite(tensor).all():
                raise ValueError(f"{file.stem}: {name} has NaN or infinite values; this is not a trained model")
            tensor = tensor.to(dtype)
            if not torch.isfinite(tensor).all():
                raise ValueError(f"{file.stem}: {name} is beyond the range of {storage}; store it as bf16 or fp32")
        tensors[name] = tensor.contiguous().clone()
    save_file(tensors, file)
    make_readable(file)
