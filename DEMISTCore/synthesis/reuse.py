"""What one synthesis leaves for the next with the same images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from ..volume import Volume

if TYPE_CHECKING:
    from ..preprocess import Prepared


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
    _adopted: bool = field(default=False, repr=False)
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
        if self._adopted:
            self._prepared_key, self._adopted = key, False
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

    def adopt(self, prepared: Prepared) -> None:
        """Take images that were prepared elsewhere; the next call's images and settings are theirs, says the caller."""
        self.keep((), prepared)
        self._adopted = True

    def encoded(self, key: tuple, encode: Callable[[], Any]) -> Any:
        """The condition as ``encode`` makes it, or as it was made for the same images, model, device, precision."""
        key = (self._prepared_key, *key)
        if self._encoded_key != key:
            self._encoded_key = self._encoded = None  # two at once may not fit into memory
            self._encoded = encode()
            self._encoded_key = key
        return self._encoded


def _content(volume: Volume) -> str:
    """SHA-256 of the voxels in C order, of the affine, and of how a file says it, which results repeat."""
    digest = hashlib.sha256()
    for start in range(0, volume.shape[0], 16):  # in blocks: other orders need no second copy of the whole
        digest.update(np.ascontiguousarray(volume.array[start : start + 16]).data)
    digest.update(volume.affine.tobytes())
    if volume.forms is not None:
        digest.update(volume.forms.tobytes())
    return digest.hexdigest()
