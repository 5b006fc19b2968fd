"""What stays in memory between jobs: the model, the prepared images, the maps of single seeds, Brain LDM."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..volume import Volume
from . import exchange
from .samples import Samples

if TYPE_CHECKING:
    from ..brain_ldm import BrainLDM
    from ..bundle import Bundle
    from ..preprocess import Prepared
    from ..synthesis import Reuse

#: Volumes remembered: T1w, FLAIR and mask of this job and of the one before.
_VOLUMES = 6
#: Tissue is not segmented on a grid coarser than this (mm).
_FINE = 1.1


class Cache:
    """One model of each kind at a time, the images of the last job, and the single maps of the last runs.

    Attributes:
        samples: maps of single seeds.
    """

    def __init__(self) -> None:
        self.samples = Samples()
        self._bundle: Bundle | None = None
        self._brain_ldm: tuple[tuple, BrainLDM] | None = None
        self._volumes: dict[str, Volume] = {}
        self._reuse: Reuse | None = None

    @property
    def reuse(self) -> Reuse:
        """What synthesis keeps of its images."""
        if self._reuse is None:
            from ..synthesis import Reuse

            self._reuse = Reuse()
        return self._reuse

    def bundle(self, source: str) -> Bundle:
        """The bundle ``source``, loaded and checked unless it is the one in memory.

        Raises:
            BundleError: see :func:`DEMISTCore.bundle.load_bundle`.
        """
        from ..bundle import find_folder, load_bundle, read_description

        folder = find_folder(source)
        kept = self._bundle
        # The description lists the hashes of all weights: as long as it is the same, so is the model.
        if kept is None or kept.folder != folder or kept.hash != read_description(folder)["hash"]:
            kept = self._bundle = None  # two models at once may not fit into memory
            kept = self._bundle = load_bundle(folder)
        return kept

    def brain_ldm(self, source: str, device: str) -> BrainLDM:
        """Brain LDM from ``source`` on ``device``."""
        from ..brain_ldm import BrainLDM

        if self._brain_ldm is None or self._brain_ldm[0] != (source, device):
            self._brain_ldm = None
            self._brain_ldm = ((source, device), BrainLDM.from_pretrained(source, device=device))
        return self._brain_ldm[1]

    def prepared(self, t1w: Volume | None, flair: Volume | None, mask: Volume | None = None) -> Prepared | None:
        """What the last synthesis prepared, if it was from these images and is fine enough to find tissue in.

        Args:
            t1w, flair: as they were given then.
            mask: None accepts whatever brain mask was used.
        """
        if self._reuse is None or t1w is None or flair is None or self._reuse.prepared is None:
            return None
        found = self._reuse.prepared_from({"T1w": t1w, "FLAIR": flair} | ({"brain mask": mask} if mask else {}))
        return found if found is not None and max(found.grid.spacing) <= _FINE else None

    def volume(self, reference: Any, name: str) -> Volume:
        """The volume of a reference; the same object as before if the same content comes again.

        Raises:
            InputError: see :func:`DEMISTCore.worker.exchange.read_reference`.
        """
        if not isinstance(reference, dict) or "npy" not in reference or not Path(reference["npy"]).is_file():
            return exchange.read_reference(reference, name)
        digest = hashlib.sha256(str(reference.get("affine")).encode())
        with open(reference["npy"], "rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
        key = digest.hexdigest()
        volume = self._volumes.pop(key, None) or exchange.read_reference(reference, name)
        self._volumes[key] = volume  # the newest last
        while len(self._volumes) > _VOLUMES:
            del self._volumes[next(iter(self._volumes))]
        return volume
