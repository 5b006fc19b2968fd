"""How long runs take here: measured in earlier runs, guessed before the first one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import slicer

#: Seconds for a head of 1 mm before anything was measured: a small CPU, and any GPU. "first": loading torch and the
#: model into a fresh worker.
GUESSES = {
    "cpu": {"first": 8.0, "prepare": 25.0, "encode": 2.0, "step": 0.6, "sample": 4.0, "mean": 6.0},
    "gpu": {"first": 12.0, "prepare": 12.0, "encode": 0.2, "step": 0.06, "sample": 0.4, "mean": 0.6},
}
_PREPARE = ("read", "brain mask", "registration", "slices", "resampling", "bias field", "normalisation")
_SETTING = "DEMIST/Timings"


class Timings:
    """Seconds by part of a run and device, kept in Slicer's settings where there are any."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, float]] = self._load()

    def learn(self, device: str, provenance: Mapping[str, Any]) -> None:
        """Take over what a run's provenance tells; a run that reused prepared images says nothing of preparation."""
        timings, settings = provenance.get("timings_s") or {}, provenance.get("settings") or {}
        seeds, steps = len(settings.get("seeds") or ()), settings.get("steps") or 0
        mean = settings.get("mode") == "mean"
        if not mean and (not seeds or not steps):
            return
        known = self._known.setdefault(device, {})
        if "registration" in timings:
            known["prepare"] = sum(timings.get(name, 0.0) for name in _PREPARE)
            known["encode"] = timings.get("encode", 0.0)
        if timings.get("load", 0.0) > 1.0:  # less: it was in memory already
            known["first"] = timings["load"]
        last = timings.get("mean", 0.0) + timings.get("to native grid", 0.0)
        if mean:
            known["mean"] = last
        else:  # a model that has a mean computes it beside its samples, for the uncertainty
            known["step"] = timings.get("sample", 0.0) / (seeds * steps * _evaluations(settings.get("guidance")))
            known["sample"] = (timings.get("decode", 0.0) + last) / seeds
        self._save()

    def seconds(
        self,
        device: str,
        seeds: int,
        steps: int,
        guidance: Any = None,
        *,
        mode: str = "sample",
        prepared: bool = False,
        warm: bool = False,
    ) -> float:
        """How long a run will take, about.

        Args:
            device: as chosen ("auto", "cpu", "cuda:0").
            seeds, steps, guidance: settings of the run; of no account for the mean.
            mode: ``mean`` or ``sample``.
            prepared: the images are those of the last run.
            warm: the worker has the model in memory.
        """
        guess = GUESSES["gpu" if device.startswith(("cuda", "mps")) else "cpu"]
        known = {**guess, **self._known.get(device, {})}
        each = steps * known["step"] * _evaluations(guidance) + known["sample"]
        total = known["mean"] if mode == "mean" else seeds * each
        total += 0 if prepared else known["prepare"] + known["encode"]
        return total + (0 if warm else known["first"])

    def _load(self) -> dict[str, dict[str, float]]:
        settings = _settings()
        try:
            known = json.loads(settings.value(_SETTING) or "{}") if settings is not None else {}
        except (TypeError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def _save(self) -> None:
        settings = _settings()
        if settings is not None:
            settings.setValue(_SETTING, json.dumps(self._known))


def _settings() -> Any:
    """Slicer's own settings; None without the application."""
    find = getattr(getattr(slicer, "app", None), "userSettings", None)
    return find() if callable(find) else None


def _evaluations(guidance: Any) -> int:
    """Network evaluations per step, as DEMISTCore.diffusion.Guided counts them.

    Each weight other than 1 takes one more, without its stream; a stream of weight 0 is off and takes none. One number
    is the weight of all streams.
    """
    weights = guidance if isinstance(guidance, Mapping) else {} if guidance is None else {"all": guidance}
    return 1 + sum(float(weight) != 1 and (name == "all" or float(weight) != 0) for name, weight in weights.items())
