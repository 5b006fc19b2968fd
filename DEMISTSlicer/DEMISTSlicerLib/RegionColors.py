"""DEMISTCore's colors of regions, wherever DEMISTCore is (see :mod:`.Errors`)."""

from __future__ import annotations

from .Core import ensureCore

ensureCore()

from DEMISTCore.colors import REGION_COLORS  # noqa: E402

__all__ = ["REGION_COLORS"]
