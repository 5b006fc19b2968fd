"""Text for people, in their language: ``from .I18n import _``. Without the Slicer application it stays English."""

from __future__ import annotations

try:
    from slicer.i18n import tr as _
except ImportError:  # MRML without the application (slicer-core)

    def _(text: str) -> str:
        """Give the text back as it is."""
        return text


__all__ = ["_"]
