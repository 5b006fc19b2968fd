"""What a cross-validation is asked to do, checked, and what decides its results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..cases import GRIDS, check_preprocess

#: Settings of training that prepare scans as :class:`..cases.Case` does, by its ``preprocess``.
PREPARED_AS = {
    "simulated": (
        "preprocess.register=false",
        "preprocess.bias_correct=false",
        "preprocess.skull_strip=none",
        "preprocess.brain_mask=truth",
    ),
    "masked": ("preprocess.register=true", "preprocess.bias_correct=true", "preprocess.brain_mask=truth"),
    "full": ("preprocess.register=true", "preprocess.bias_correct=true", "preprocess.brain_mask=none"),
}


@dataclass(frozen=True)
class Options:
    """All options of ``evaluate cv`` but for the data set, the results' folder, folds and methods.

    Attributes:
        config: preset or YAML file of all trainings.
        overrides: ``key=value`` for all stages, or ``stage.key=value`` for one.
        foundation: backbone run or foundation bundle made elsewhere; None: trained inside each fold.
        backbone: published diffusion model that DEMIST's streams steer; None: a backbone of each fold.
        init: bundle or published model that the autoencoders of each fold start from; None: from nothing.
        minutes, steps: budget of each method and fold; neither: the preset's own lengths, which are not equal.
        seed: of folds, trainings and samples.
        seeds: samples that DEMIST's mean is taken over where the model has no mean network.
        sampler, sampling_steps: of everything that samples.
        start, detail: of DEMIST's sample, where the model has a mean network (:data:`DEMISTCore.bundle.model`); what
            the shipped model recommends.
        preprocess, grid: see :func:`DEMISTCore.evaluation.evaluate`.
        bids_filter, already_aligned: likewise.
        device, precision: see :func:`DEMISTCore.synthesize`; the device trains, too.
    """

    config: str = "small"
    overrides: tuple[str, ...] = ()
    foundation: str | None = None
    backbone: str | None = None
    init: str | None = None
    minutes: float | None = None
    steps: int | None = None
    seed: int = 0
    seeds: int = 4
    sampler: str = "ddim"
    sampling_steps: int = 50
    start: float = 0.05
    detail: float = 0.4
    preprocess: str = "masked"
    grid: str = "truth"
    bids_filter: str | None = None
    already_aligned: bool | None = None
    device: str = "auto"
    precision: str = "auto"

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            InputError: the sentence says which option, and what it takes.
        """
        from ...diffusion import SAMPLERS

        check_preprocess(self.preprocess)
        if self.grid not in GRIDS:
            raise InputError(f"Unknown grid {self.grid!r}; choose {' or '.join(GRIDS)}.")
        if self.minutes is not None and self.steps is not None:
            raise InputError("A budget is --minutes or --steps, not both.")
        for name, value in (
            ("--minutes", self.minutes),
            ("--steps", self.steps),
            ("--seeds", self.seeds),
            ("--sampling-steps", self.sampling_steps),
        ):
            if value is not None and not value > 0:
                raise InputError(f"{name} must be above 0, not {value}.")
        for name, share in (("--start", self.start), ("--detail", self.detail)):
            if not 0 < share <= 1:
                raise InputError(f"{name} is a share above 0 and at most 1, not {share}.")
        if self.foundation is not None and (self.backbone is not None or self.init is not None):
            raise InputError("--foundation brings autoencoders and backbone; leave out --backbone and --init.")
        if self.seed < 0:
            raise InputError(f"--seed must be 0 or more, not {self.seed}.")
        if self.sampler not in SAMPLERS:
            raise InputError(f"Unknown sampler {self.sampler!r}; choose {', '.join(SAMPLERS)}.")
        for text in self.overrides:
            if "=" not in text:
                raise InputError(f"{text!r} is not a setting; write key=value, for example batch=2 or ldm.lr=1e-4.")
            if text.partition("=")[0].rpartition(".")[2] in ("exclude_subjects", "validation_subjects", "max_minutes"):
                key = text.partition("=")[0]
                raise InputError(f"{key} is the cross-validation's own to set; leave it out (budget: --minutes).")

    def words(self, stage: str) -> list[str]:
        """Settings of a stage: how scans are prepared, the seed, the device, and what the user gave."""
        from ...training.stages import STAGES

        given = [*PREPARED_AS[self.preprocess], f"seed={self.seed}", f"device={self.device.partition(':')[0]}"]
        if self.precision != "auto":
            given.append(f"precision={self.precision}")
        if self.bids_filter is not None:
            given.append(f"bids_filter={Path(self.bids_filter).resolve()}")
        if self.already_aligned is not None:
            given.append(f"preprocess.already_aligned={str(self.already_aligned).lower()}")
        for text in self.overrides:
            first, dot, rest = text.partition(".")
            if dot and first in STAGES and "=" not in first:
                given += [rest] if first == stage else []
            else:
                given.append(text)
        return given

    def length(self, share: float) -> list[str]:
        """The settings that give a stage its share of the budget; none where the preset's own lengths count."""
        if self.steps is not None:
            return [f"steps={max(1, round(self.steps * share))}", "max_minutes=null"]
        if self.minutes is not None:
            return [f"max_minutes={self.minutes * share:.6g}", "steps=null"]
        return []

    def told(self) -> dict[str, Any]:
        """What decides the results, for the record; where it runs does not."""
        return {key: value for key, value in vars(self).items() if key != "device"}
