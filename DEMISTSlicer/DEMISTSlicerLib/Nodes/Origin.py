"""How a map was made, and what its uncertainty is, in the words that people read: from its provenance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..I18n import _

#: What the core calls an uncertainty (``provenance["uncertainty"]["kind"]``): what people read, and what that means.
_KINDS = {
    "calibrated standard deviation of the error": (
        _("SD of the error (calibrated)"),
        _("How far the true PSR may be from the map: SD of the error, calibrated on subjects with known PSR."),
    ),
    "predicted standard deviation, not calibrated": (
        _("SD of the error (not calibrated)"),
        _("How far the true PSR may be from the map, as the model itself predicts it; not checked on other subjects."),
    ),
    "standard deviation over seeds": (
        _("SD over seeds"),
        _("How far the model's own samples lie apart; no error bar."),
    ),
}


def howMade(provenance: Mapping[str, Any]) -> str:
    """ "mean", or "4 samples"; empty where the provenance does not tell."""
    settings = provenance.get("settings")
    settings = settings if isinstance(settings, Mapping) else {}
    if settings.get("mode") == "mean":
        return _("mean")
    count = len(settings.get("seeds") or ())
    return _("1 sample") if count == 1 else _("{count} samples").format(count=count) if count else ""


def uncertaintyText(provenance: Mapping[str, Any]) -> tuple[str, str]:
    """What the uncertainty map of a synthesis is called, and an explanation; an unknown kind is called as it says."""
    told = provenance.get("uncertainty")
    kind = str(told.get("kind") or "") if isinstance(told, Mapping) else ""
    if kind in _KINDS:
        return _KINDS[kind]
    if kind and kind != "none":
        return kind[:1].upper() + kind[1:], _("The uncertainty map, in the same unit.")
    return _("Uncertainty"), _("Standard deviation of PSR, in the same unit.")
