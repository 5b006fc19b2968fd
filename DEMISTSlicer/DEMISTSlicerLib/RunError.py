"""What goes wrong in a run, for the person in front of the screen."""

from __future__ import annotations


class RunError(Exception):
    """One sentence that names the thing and the fix.

    Attributes:
        kind: ``input``, ``bundle`` (the model), ``memory``, ``dependency`` (a missing Python package), ``cancelled``
            or ``internal``.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
