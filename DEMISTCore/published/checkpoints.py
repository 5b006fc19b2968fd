"""Weights out of files that somebody else wrote: tensors, or a sentence why not. Nothing in a file is ever executed.

``.safetensors`` is read as such; ``.pt``, ``.pth``, ``.ckpt`` and ``.bin`` by ``torch.load(weights_only=True)``, which
refuses anything but tensors and plain containers.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BundleError
from ..weights import not_finite
from . import keys
from .layouts import build_empty, nearest, shapes

if TYPE_CHECKING:
    from torch import Tensor, nn

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
#: Where trainers put the weights when they save more than that.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "autoencoder", "diffusion", "unet", "ema")


def read_checkpoint(file: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint, by the names they have there (a data-parallel ``module.`` is taken off).

    Raises:
        BundleError: missing, empty, truncated, holding code or anything but a state dict.
    """
    if not file.is_file():
        raise BundleError(f"{file} does not exist; get the model again, or check the path.")
    with open(file, "rb") as stream:
        head = stream.read(64)
    if not head:
        raise BundleError(f"{file} is an empty file; get it again.")
    if head.startswith(b"version https://git-lfs"):
        raise BundleError(f"{file} is a Git LFS pointer, not the weights; run git lfs pull, or download it.")
    if file.suffix not in SUFFIXES:
        raise BundleError(f"{file} is not a checkpoint; give one of {', '.join(SUFFIXES)}.")
    content = _safetensors(file) if file.suffix == ".safetensors" else _pickled(file)
    tensors = _state_dict(content, file)
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def _safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except MemoryError:
        raise
    except Exception as error:  # of a hostile header, more than SafetensorError
        raise BundleError(f"{file} is not a whole safetensors file; get it again.") from error


def _pickled(file: Path) -> Any:
    import torch

    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "truncated" in str(error) or "Ran out of input" in str(error):
            raise BundleError(f"{file} is truncated or damaged; get it again.") from error
        raise BundleError(
            f"{file} holds pickled code or objects, not weights alone, and is refused; get the weights as safetensors "
            "or as a plain state dict."
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged archive leads its reader to
        if "TorchScript" in str(error):
            raise BundleError(f"{file} is TorchScript, which is code, and is refused; get the state dict.") from error
        raise BundleError(f"{file} is truncated, damaged or no checkpoint; get it again.") from error


def _state_dict(content: Any, file: Path, depth: int = 0) -> dict[str, Tensor]:
    import torch

    if isinstance(content, Mapping) and content:
        if all(isinstance(value, torch.Tensor) for value in content.values()):
            return {str(name): tensor.detach() for name, tensor in content.items()}
        inside = [name for name in _WRAPPERS if isinstance(content.get(name), Mapping)]
        if inside and depth < 2:
            return _state_dict(content[inside[0]], file, depth + 1)
    raise BundleError(f"{file} is not a state dict (weights by name); save the network's state_dict() and give that.")


def fill(config: object, tensors: Mapping[str, Tensor], source: Path | str, what: str) -> nn.Module:
    """The network of a configuration with these weights: float32, frozen, on the CPU.

    Args:
        config: an ``AutoencoderConfig`` or a ``UNetConfig``.
        tensors: weights under today's or under GenerativeModels' names.
        source: where they come from, for messages.
        what: the network in words, ``"the autoencoder"``.

    Raises:
        BundleError: a weight is missing, left over, of another shape, NaN or infinite; the sentence says which, and
            which published layout is nearest.
    """
    import torch

    try:
        network = build_empty(config)
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError, AssertionError, IndexError) as error:
        words = " ".join(str(error).split())[:120]
        raise BundleError(f"{source}: {what} cannot be built ({words}); get the model again.") from error
    given, wanted = keys.current(tensors), network.state_dict()
    _check(shapes(given), shapes(wanted), source, what)
    if name := not_finite(given):
        raise BundleError(f"{source} has NaN or infinite weights ({name}); get it again, or train it again.")
    # Assigned, not copied: half a billion parameters should not be there twice.
    network.load_state_dict({name: _aligned(tensor.float()) for name, tensor in given.items()}, assign=True)
    return network.to(memory_format=torch.channels_last_3d).requires_grad_(False).eval()


def _aligned(tensor: Tensor) -> Tensor:
    """The tensor in memory that begins at a multiple of 64 bytes, as torch allocates it.

    In a safetensors file tensors lie at any multiple of 8; matrix products round differently there, and the same
    weights from two files should give the same bytes.
    """
    return tensor if tensor.data_ptr() % 64 == 0 else tensor.clone()


def _check(
    given: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]], source: Path | str, what: str
) -> None:
    missing, unknown = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    wrong = [name for name in wanted if name in given and given[name] != wanted[name]]
    if not (missing or unknown or wrong):
        return
    if wrong:
        name = wrong[0]
        problem = f"{name} is {_times(given[name])} and should be {_times(wanted[name])}"
        others = len(wrong) - 1
    elif missing:
        problem, others = f"{missing[0]} is missing", len(missing) - 1
    else:
        problem, others = f"{unknown[0]} is a weight too many", len(unknown) - 1
    more = f" (and {others} more)" if others else ""
    layout, share = nearest(given)
    near = "no layout is near"
    if share >= 0.01:
        near = f"it is nearest to {layout.title}, {share:.0%} of whose weights fit"
    raise BundleError(f"{source} does not fit {what}: {problem}{more}; {near}.")


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a number"
