"""DEMISTCore's test for numbers, wherever DEMISTCore is (see :mod:`.Errors`)."""

from __future__ import annotations

from .Core import ensureCore

ensureCore()

from DEMISTCore.schema import finite  # noqa: E402

__all__ = ["finite"]
