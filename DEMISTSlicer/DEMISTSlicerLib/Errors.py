"""DEMISTCore's errors for what the user can fix, wherever DEMISTCore is.

In a source checkout DEMISTCore is not on Slicer's path; whoever imports from here need not know.
"""

from __future__ import annotations

from .Core import ensureCore

ensureCore()

from DEMISTCore.errors import DemistError, InputError  # noqa: E402

__all__ = ["DemistError", "InputError"]
