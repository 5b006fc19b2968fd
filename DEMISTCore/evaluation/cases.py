"""One session of a data set with its truth, on the grid where maps are compared."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..acquisition import read_sidecar, sidecar_path
from ..errors import InputError
from ..files import sha256
from ..labels import LESION, WHITE
from ..measured import MeasuredMap, is_complete, read_measured
from ..metrics import far_from
from ..volume import Grid, Volume
from .prepared import prepared_once
from .split import near_borders

if TYPE_CHECKING:
    from ..measured.alignment import Alignment
    from ..preprocess import Prepared
    from ..regions.network import Found
    from ..training.data import Session

GRIDS = ("truth", "model")
#: How raw images become the model grid. ``simulated``: the true brain mask, nothing registered or bias-corrected, for
#: data sets simulated as if all that was done already; ``masked``: the true brain mask, all else as ``synthesize`` does
#: it; ``full``: as ``synthesize`` does it, brain extraction included.
PREPROCESS = ("simulated", "masked", "full")
#: Labels of the simulator's segmentations.
#: White matter farther than this (mm) from any lesion is what lesions are told from; errors count as near within it.
GAP_MM = 5.0
#: A single lesion is a region of its own from this size on (ml).
LEAST_LESION_ML = 0.01
#: Names of the data sets of an evaluation.
TEST, SHIFTED = "test", "shifted"


def check_preprocess(name: str) -> None:
    """Refuse a way of preparing that is not in :data:`PREPROCESS`.

    Raises:
        InputError: the sentence names those there are.
    """
    if name not in PREPROCESS:
        raise InputError(f"Unknown preprocess {name!r}; choose {' or '.join(PREPROCESS)}.")


@dataclass(eq=False)
class Case:
    """One session of a data set with its truth, read and prepared when first needed."""

    session: Session
    grid_name: str
    preprocess: str
    spacing: float
    multiple: int
    device: str = "cpu"
    cache: Path | None = None  # folder that keeps prepared scans
    group: str = TEST  # the data set it belongs to
    already_aligned: bool | None = None  # a measured map lies on the T1w; None: if its name says so
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Such as ``sub-001_ses-01``."""
        return self.session.name

    @cached_property
    def digest(self) -> str:
        """Hash of all its files."""
        files = [*self.session.files, *([] if is_complete(self.session.psr) else [sidecar_path(self.session.psr)])]
        return hashlib.sha256(" ".join(sha256(path) for path in files if path.is_file()).encode()).hexdigest()

    @cached_property
    def measured(self) -> MeasuredMap:
        """The truth as it is read: in fractions, with what is known of it."""
        return read_measured(self.session.psr)

    @cached_property
    def placed(self) -> Alignment | None:
        """Where a measured map lies on the T1w; None for complete truths, which lie there."""
        if is_complete(self.session.psr) and self.already_aligned is None:
            return None
        from ..training.groups import PreprocessSettings
        from ..training.prepare import place_measured

        settings = PreprocessSettings(already_aligned=self.already_aligned)
        return place_measured(self.measured, self.session, self.prepared, settings)

    @property
    def motion(self) -> np.ndarray | None:
        """What takes the truth to the T1w, (4, 4) RAS mm; None: it lies there."""
        return None if self.placed is None else self.placed.motion

    @cached_property
    def true_psr(self) -> Volume:
        """The truth on its own grid, moved to the T1w, fraction; 0 where it is unknown."""
        psr = self.measured.psr
        return Volume(psr.array, psr.affine if self.motion is None else self.motion @ psr.affine, psr.path)

    @cached_property
    def true_labels(self) -> Volume:
        """Tissue labels on the truth's grid, lesions included; where a measured map has none, as :attr:`found`."""
        if self.session.dseg is None:
            if is_complete(self.session.psr):
                raise InputError(f"{self.session.psr} has no tissue segmentation (*_dseg) beside it; one is needed.")
            return self._own_labels()
        labels = Volume.read(self.session.dseg)
        if not labels.grid.same_as(self.true_psr.grid):
            if is_complete(self.session.psr):
                raise InputError(f"{self.session.dseg} does not lie on the grid of {self.session.psr}; resample it.")
            labels = labels.resampled_to(self.true_psr.grid, "nearest")  # a measured map has a grid of its own
        array = labels.array.round().astype(np.uint8)
        if self.session.lesion is not None and not (array == LESION).any():
            lesions = Volume.read(self.session.lesion).resampled_to(labels.grid, "nearest").array > 0.5
            array[lesions & (array > 0)] = LESION
        return Volume(array, labels.affine, labels.path)

    @cached_property
    def found(self) -> Found:
        """Tissue and lesions as the tissue network sees them in T1w and FLAIR."""
        from ..regions.network import find_tissue

        return find_tissue(self.prepared.t1w, self.prepared.mask, flair=self.prepared.flair)

    def _own_labels(self) -> Volume:
        """:attr:`found` on the truth's grid, with the lesions that the data set has."""
        tissue, lesions = self.found.tissue, self.found.lesions
        if self.session.lesion is not None:
            lesions = Volume.read(self.session.lesion).resampled_to(tissue.grid, "nearest")
        array = np.where((lesions.array > 0.5) & (tissue.array > 0), np.uint8(LESION), tissue.array)
        return tissue.with_array(array.astype(np.uint8)).resampled_to(self.true_psr.grid, "nearest")

    @cached_property
    def true_mask(self) -> Volume:
        """The true brain; with ``preprocess="full"`` a measured map may do with the one that was extracted."""
        if self.session.mask is None:
            if self.preprocess == "full" and not is_complete(self.session.psr):
                return self.prepared.mask
            raise InputError(
                f"{self.session.psr} has no brain mask (*_desc-brain_mask) beside it; one is needed, "
                "or for measured maps --preprocess full."
            )
        return Volume.read(self.session.mask)

    @property
    def warnings(self) -> list[dict[str, str]]:
        """What the preparation remarked on, a row each; none while no method has needed it."""
        told = list(self.prepared.warnings) if "prepared" in vars(self) else []
        placed = vars(self).get("placed")
        told += placed.alarms if placed is not None else ()
        if "found" in vars(self):
            model = self.found.model
            what = "tissue is what" if self.session.lesion else "tissue and lesions are what"
            told.append(f"There is no tissue segmentation: {what} {model.name} ({model.hash[:12]}) found.")
        return [{"warning": sentence} for sentence in told]

    @cached_property
    def prepared(self) -> Prepared:
        """T1w and FLAIR as the model sees them."""
        start = time.perf_counter()
        mask = None if self.preprocess == "full" else self.session.mask
        correct = self.preprocess != "simulated"
        options: dict[str, Any] = {
            "register": correct,
            "bias_correct": correct,
            "spacing": self.spacing,
            "multiple": self.multiple,
            "any_brain_volume": self.preprocess != "full",  # the data set's own mask is its word
        }

        def make() -> Prepared:
            from ..preprocess import prepare

            given = None if mask is None else self.true_mask
            return prepare(self.session.t1w, self.session.flair, brain_mask=given, device=self.device, **options)

        if self.preprocess != "full":
            self.true_mask  # noqa: B018  says so if there is none
        files = {"T1w": self.session.t1w, "FLAIR": self.session.flair, "mask": mask}
        prepared, known = prepared_once(self.cache, self.name, files, options, make)
        self.timings["read prepared" if known else "prepare"] = time.perf_counter() - start
        return prepared

    @property
    def condition(self) -> np.ndarray:
        """What methods are given: normalized T1w and FLAIR on the model grid, float32 (2, X, Y, Z)."""
        return self.prepared.array

    @cached_property
    def protocol(self) -> Mapping[str, Any] | None:
        """Both BIDS sidecars, by image ("T1w", "FLAIR"); None if neither image has one that can be read."""
        pairs = (("T1w", self.session.t1w), ("FLAIR", self.session.flair))
        told = {what: content for what, path in pairs if (content := read_sidecar(path)[0])}
        return told or None

    @cached_property
    def grid(self) -> Grid:
        """Where maps are compared."""
        return self.true_psr.grid if self.grid_name == "truth" else self.prepared.grid

    @cached_property
    def truth(self) -> np.ndarray:
        """True PSR on the comparison grid; 0 where it is unknown. (X, Y, Z), fraction."""
        if self.measured.known.all():
            return self.true_psr.resampled_to(self.grid, "bspline").array
        return self._on_grid[0]

    @cached_property
    def _on_grid(self) -> tuple[np.ndarray, np.ndarray]:
        return self.measured.on_grid(self.grid, self.motion)

    @cached_property
    def known(self) -> np.ndarray:
        """Where PSR is known on the comparison grid (bool); all of it for complete truths. (X, Y, Z)."""
        if self.measured.known.all() and is_complete(self.session.psr):
            return np.ones(self.grid.shape, bool)
        return self._on_grid[1]

    @property
    def coverage(self) -> float:
        """Share of the brain's voxels in which PSR is known."""
        return float(np.count_nonzero(self.mask) / np.count_nonzero(self.brain))

    @cached_property
    def labels(self) -> np.ndarray:
        """Labels on the comparison grid. (X, Y, Z), integers."""
        return self.true_labels.resampled_to(self.grid, "nearest").array

    @cached_property
    def brain(self) -> np.ndarray:
        """True brain on the comparison grid (bool). (X, Y, Z)."""
        inside = self.true_mask.resampled_to(self.grid, "nearest").array > 0.5
        if not inside.any():
            raise InputError(f"{self.session.mask} is empty; evaluation needs the brain.")
        return inside

    @cached_property
    def mask(self) -> np.ndarray:
        """The brain where PSR is known (bool): where everything is measured. (X, Y, Z)."""
        inside = self.brain & self.known
        if not inside.any():
            raise InputError(
                f"{self.session.psr} does not overlap the brain mask {self.session.mask}; check that both "
                "belong to this session."
            )
        return inside

    @cached_property
    def lesions(self) -> np.ndarray:
        """Lesions in the brain where PSR is known (bool). (X, Y, Z)."""
        return (self.labels == LESION) & self.mask

    @cached_property
    def _far(self) -> np.ndarray:
        """Farther than :data:`GAP_MM` from any lesion (bool), those where PSR is unknown included."""
        return far_from((self.labels == LESION) & self.brain, self.grid.spacing, GAP_MM)

    @cached_property
    def distant_white(self) -> np.ndarray:
        """White matter farther than :data:`GAP_MM` from any lesion (bool). (X, Y, Z)."""
        return (self.labels == WHITE) & self.mask & self._far

    @cached_property
    def near_lesions(self) -> np.ndarray:
        """Lesions and what lies within :data:`GAP_MM` of them (bool); empty without lesions. (X, Y, Z)."""
        return self.mask & ~self._far

    @cached_property
    def single_lesions(self) -> np.ndarray:
        """Lesions numbered from 1, connected by faces, edges or corners; those below :data:`LEAST_LESION_ML` are 0.

        (X, Y, Z), integers.
        """
        from scipy.ndimage import label

        numbers, _ = label(self.lesions, np.ones((3, 3, 3)))
        small = np.bincount(numbers.ravel()) * self.grid.voxel_volume_ml < LEAST_LESION_ML
        small[0] = True
        return np.where(small, 0, np.cumsum(~small))[numbers]

    @cached_property
    def tissues(self) -> np.ndarray:
        """Labels, 0 outside the brain and where PSR is unknown. (X, Y, Z), integers."""
        return np.where(self.mask, self.labels, 0)

    @cached_property
    def borders(self) -> np.ndarray:
        """Voxels at tissue borders (bool), see :func:`.split.near_borders`. (X, Y, Z)."""
        return near_borders(np.where(self.brain, self.labels, 0), self.grid.spacing)

    def to_grid(self, array: np.ndarray) -> np.ndarray:
        """A map on the model grid to the comparison grid: interpolated once, the brain's rim not diluted by zeros.

        (X, Y, Z) both, in the units of ``array``.
        """
        inside, weight = self._weight
        moved = Volume(array * inside, self.prepared.grid.affine).resampled_to(self.grid, "bspline").array
        return np.where(self.mask & (weight > 1e-3), moved / np.maximum(weight, 1e-3), 0).astype(np.float32)

    @cached_property
    def _weight(self) -> tuple[np.ndarray, np.ndarray]:
        """The brain on the model grid, and interpolated onto the comparison grid: the same for every map."""
        inside = (self.prepared.mask.array > 0).astype(np.float32)
        return inside, Volume(inside, self.prepared.grid.affine).resampled_to(self.grid, "bspline").array
