"""The trained tissue network: seven classes, lesions among them, from a prepared T1w and, if there is one, FLAIR.

Trained on simulated brains of many contrasts, the idea of SynthSeg (Billot et al., Med Image Anal 86:102789, 2023): a
network that has seen no scanner in particular works on those it never saw. What it says of lesions is a suggestion.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bundle import Described
from ..errors import BundleError, InputError
from ..labels import CSF, GREY, LESION, TISSUE_LABELS, WHITE
from ..schema import number
from ..volume import Volume
from ..weights import misfits, not_finite, shapes_only
from .holes import drop_islands
from .masks import describe, labels_to_grid
from .refine import refine
from .settings import DEFAULT_NETWORK

if TYPE_CHECKING:
    from torch import Tensor, nn

#: Blocks of this many voxels along each axis are folded into channels: full resolution at an eighth of the positions.
FOLD = 2
#: Windows share this part of their extent with the next one.
_OVERLAP = 0.25
#: What was found last, by a hash of the images; two bytes a voxel.
_RECENT: deque[tuple[bytes, Found]] = deque(maxlen=4)
_LOCK = threading.Lock()
PART = "segmentation"


def build_network(channels: Sequence[int]) -> nn.Module:
    """The network: (B, 2, X, Y, Z) to logits (B, 7, X, Y, Z); extents are multiples of 32.

    MONAI's BasicUNet on folded voxels, with instance norms. The FLAIR is all zeros where there is none. ``folded(x)``
    gives the logits with blocks of voxels still folded, (B, 7, 8, X/2, Y/2, Z/2), which is what a loss needs.

    Args:
        channels: widths of its five levels, then of the last decoder block.
    """
    import torch
    from monai.networks.nets import BasicUNet
    from torch import nn

    from ..networks.autoencoder import fold_voxels, unfold_voxels

    class TissueNetwork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unet = BasicUNet(
                spatial_dims=3,
                in_channels=2 * FOLD**3,
                out_channels=len(TISSUE_LABELS) * FOLD**3,
                features=tuple(channels),
                norm=("instance", {"affine": True}),
                dropout=0.0,
            )

        def folded(self, x: Tensor) -> Tensor:
            return self.unet(fold_voxels(x, FOLD)).unflatten(1, (len(TISSUE_LABELS), FOLD**3))

        def forward(self, x: Tensor) -> Tensor:
            return unfold_voxels(self.unet(fold_voxels(x, FOLD)), FOLD)

    return TissueNetwork().to(memory_format=torch.channels_last_3d)


def probabilities(network: nn.Module, array: np.ndarray, mask: np.ndarray, patch: Sequence[int]) -> np.ndarray:
    """Probabilities (7, X, Y, Z) of :data:`TISSUE_LABELS`, float32, 0 outside ``mask``.

    Windows of the training patch, blended by a Gaussian: instance norms see what they saw in training. It runs on the
    CPU, where a brain takes seconds.

    Args:
        network: see :func:`build_network`.
        array: T1w and FLAIR (2, X, Y, Z), normalized, 0 outside the brain; the FLAIR all 0 where there is none.
        mask: brain (X, Y, Z).
        patch: extents of the windows.
    """
    import torch
    from monai.inferers import SlidingWindowInferer

    from ..devices import autocast, pick_dtype

    device = torch.device("cpu")
    inside = np.asarray(mask) > 0
    result = np.zeros((len(TISSUE_LABELS), *inside.shape), np.float32)
    if not inside.any():
        return result
    where = np.nonzero(inside)
    box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in where)
    x = torch.from_numpy(np.ascontiguousarray(np.where(inside, array, 0)[(slice(None), *box)], np.float32))[None]
    x = x.contiguous(memory_format=torch.channels_last_3d)
    infer = SlidingWindowInferer(tuple(patch), 1, _OVERLAP, mode="gaussian", cache_roi_weight_map=True)
    with torch.no_grad(), autocast(device, pick_dtype(device)):
        y = infer(x, lambda window: network(window).float().softmax(1))
    result[(slice(None), *box)] = y[0].numpy()
    return np.where(inside, result, np.float32(0))


@dataclass(eq=False)
class TissueModel(Described):
    """The network on disk, hashes checked; loaded when first asked for, in float32, frozen, on the CPU."""

    @property
    def patch(self) -> tuple[int, int, int]:
        """Extents of the windows it was trained on."""
        return tuple(self.info["model"]["patch"])

    @property
    def lesion_threshold(self) -> float:
        """Probability from which on a voxel is suggested as a lesion."""
        return float(self.info["model"].get("lesion_threshold", 0.5))

    @cached_property
    def network(self) -> nn.Module:
        """The network with its weights."""
        from ..published.checkpoints import read_checkpoint

        file = self.folder / f"{PART}.safetensors"
        stored = read_checkpoint(file)
        with shapes_only():  # a description of a giant is noticed before it is built
            own = build_network(self.info["model"]["channels"]).state_dict()
        if wrong := misfits(own, stored):
            raise BundleError(f"{file} does not fit its own description ({wrong[0]}); get the bundle again.")
        if name := not_finite(stored):
            raise BundleError(f"{file} has NaN or infinite weights ({name}); get the bundle again.")
        network = build_network(self.info["model"]["channels"])
        network.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in stored.items()})
        return network.requires_grad_(False).eval()

    def predict(self, array: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Probabilities (7, X, Y, Z), see :func:`probabilities`."""
        return probabilities(self.network, array, mask, self.patch)


def open_network(source: str | os.PathLike[str] = DEFAULT_NETWORK) -> TissueModel:
    """Find a tissue network by name, folder or Hugging Face id, and check its hashes.

    Raises:
        BundleError: not found, damaged, or a bundle of another kind.
    """
    from ..bundle import find_folder

    return _open(str(find_folder(source)))


@lru_cache(maxsize=2)
def _open(folder: str) -> TissueModel:
    from ..bundle import check_files, read_description

    path = Path(folder)
    info = read_description(path)
    if info["kind"] != PART:
        raise BundleError(f"{path} is a {info['kind']} bundle, not a tissue network; give one of kind {PART}.")
    check_files(path, info)
    model = info["model"]
    try:
        _check_model(model)
    except ValueError as error:
        raise BundleError(
            f"{path} has a model description that this version does not understand ({error}); get it again."
        ) from None
    if model.get("classes") != [name for name, _ in TISSUE_LABELS.values()]:
        raise BundleError(f"{path} tells other classes apart than this version knows; update DEMIST.")
    return TissueModel(path, info)


def _check_model(model: Mapping[str, Any]) -> None:
    """ValueError where widths, patch or threshold are not what a network can be built from."""
    for key, count, low, high in (("channels", 6, 1, 4096), ("patch", 3, 32, 1024)):
        values = model.get(key)
        if not isinstance(values, list) or len(values) != count:
            raise ValueError(f"{key} must be {count} numbers")
        for value in values:
            number(value, key, low, high, whole=True)
    if any(n % 32 for n in model["patch"]):
        raise ValueError("patch must be multiples of 32")
    number(model.get("lesion_threshold", 0.5), "lesion_threshold", 0, 2)  # above 1 nothing is suggested


@dataclass(frozen=True, eq=False)
class Found:
    """What the network makes of a brain, on the T1w's grid.

    Attributes:
        tissue: uint8, 0 outside the brain, 1 CSF, 2 grey, 3 white matter (with brainstem and lesions).
        lesions: uint8, 1 in lesions; empty without a FLAIR.
        model: who said so.
    """

    tissue: Volume
    lesions: Volume
    model: TissueModel


def find_tissue(t1w: Volume, brain: Volume, *, flair: Volume | None = None, model: TissueModel | None = None) -> Found:
    """Tissue and lesions of a brain; the T1w alone will do for the tissue.

    The network says what to expect where, the scan's own brightness where borders lie (:mod:`.refine`).

    Args:
        t1w: T1w of any brightness, free of bias as far as possible.
        brain: > 0 inside, on any grid in the T1w's space.
        flair: registered to the T1w, on any grid.
        model: see :func:`open_network`; None: the default one.

    What was found in the last few brains is kept: statistics that follow a synthesis, or are done again with other
    lesions, ask again about the very same images, and a brain takes seconds.

    Raises:
        InputError: the brain is empty or too small.
        BundleError: the network cannot be used.
    """
    model = model or open_network()
    key = _key(t1w, brain, flair)
    with _LOCK:
        found = next((found for kept, found in _RECENT if kept == key and found.model is model), None)
    if found is None:
        found = _find_tissue(t1w, brain, flair, model)
        with _LOCK:
            _RECENT.append((key, found))
    tissue, lesions = (volume.with_array(volume.array.copy()) for volume in (found.tissue, found.lesions))
    return Found(tissue, lesions, model)


def _key(*volumes: Volume | None) -> bytes:
    """A hash of the very images: numbers, their type and place."""
    digest = blake2b(digest_size=32)
    for volume in volumes:
        digest.update(b"none" if volume is None else f"{volume.array.dtype} {volume.array.shape}".encode())
        if volume is not None:
            digest.update(np.ascontiguousarray(volume.affine).tobytes())
            digest.update(np.ascontiguousarray(volume.array).reshape(-1).view(np.uint8).data)
    return digest.digest()


def _find_tissue(t1w: Volume, brain: Volume, flair: Volume | None, model: TissueModel) -> Found:
    """See :func:`find_tissue`."""
    from ..preprocess.intensity import normalize
    from ..preprocess.pipeline import model_grid

    inside = brain if brain.grid.same_as(t1w.grid) else brain.resampled_to(t1w, "nearest")
    inside = inside.with_array(((inside.array > 0) & np.isfinite(t1w.array)).astype(np.uint8))
    if not inside.array.any():
        raise InputError(
            f"The brain mask is empty or does not overlap {describe(t1w, 'T1w')}; give a mask that covers the brain."
        )
    grid = model_grid(inside, 1.0, multiple=1)
    mask = inside.resampled_to(grid).array >= 0.5
    if np.count_nonzero(mask) < 1000:
        raise InputError("The brain is too small to tell its tissues apart; check the brain mask.")
    images = [
        volume.with_array(np.nan_to_num(volume.array).astype(np.float32)).resampled_to(grid, "bspline").array
        for volume in (t1w, flair)
        if volume is not None
    ]
    images = normalize(images, mask)
    if flair is None:
        images.append(np.zeros_like(images[0]))
    fractions = model.predict(np.stack(images), mask)
    lookup = np.array([tissue for _, tissue in TISSUE_LABELS.values()], np.uint8)
    prior = np.stack([fractions[lookup == tissue].sum(0) for tissue in (CSF, GREY, WHITE)])
    lesions = (mask & (fractions[list(TISSUE_LABELS).index(LESION)] >= model.lesion_threshold)).astype(np.uint8)
    used = images if flair is not None else images[:1]
    # Lesions after that: one in cortex is an island, too.
    tissue = drop_islands(refine(used, mask, lesions > 0, grid.spacing, prior))
    tissue = np.where(lesions > 0, np.uint8(WHITE), tissue)
    if flair is None:  # a T1w alone shows too few of them
        lesions[:] = 0
    back = labels_to_grid(Volume(tissue, grid.affine), t1w.grid)
    back = back.with_array(np.where(inside.array > 0, back.array, 0).astype(np.uint8))
    spots = labels_to_grid(Volume(lesions, grid.affine), t1w.grid)
    return Found(back, spots.with_array(np.where(back.array == WHITE, spots.array, 0).astype(np.uint8)), model)


def save_network(
    folder: str | os.PathLike[str],
    network: nn.Module | Mapping[str, Tensor],
    *,
    channels: Sequence[int],
    patch: Sequence[int],
    lesion_threshold: float = 0.5,
    training: Mapping[str, Any] | None = None,
    documents: Mapping[str, str | os.PathLike[str]] | None = None,
    simulated: bool = True,
    licence: str = "Apache-2.0",
    description: str = "",
    storage: str = "fp16",
    card: str | None = None,
    overwrite: bool = False,
) -> TissueModel:
    """Save a tissue network as a bundle of kind ``segmentation``, whole or not at all, and open it.

    Raises:
        InputError: the folder exists, or cannot be written to.
        ValueError: weights that are not finite or beyond the number format.
    """
    from ..bundle import CARD_FILE, check_target, header, write_bundle

    folder = Path(folder)
    check_target(folder, overwrite)
    warning = "Tissue and lesions from this network are estimates, not for clinical use"
    info = header(
        PART,
        folder.name,
        licence=licence,
        simulated=simulated,
        description=description or "Tissue and suggested lesions from T1w and FLAIR, for DEMIST's regions.",
        warning=warning + ("; it was trained on simulated images only." if simulated else "."),
    )
    info |= {
        "model": {
            "channels": list(channels),
            "patch": list(patch),
            "classes": [name for name, _ in TISSUE_LABELS.values()],
            "lesion_threshold": float(lesion_threshold),
        },
        "training": dict(training) if training else {},
        "documents": [CARD_FILE, *(documents or {})],
    }
    write_bundle(folder, info, {PART: network}, storage, card, documents or {})
    _open.cache_clear()
    return open_network(folder)
