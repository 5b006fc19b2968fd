"""Errors meant for the person at the keyboard: one sentence that names the file and the fix."""

from __future__ import annotations


def printable(words: str, keep: str = "") -> str:
    """Text with control characters (escape sequences, line ends, reversed writing) shown as ``\\x1b`` and the like."""
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode("ascii") for c in words)


class DemistError(Exception):
    """Something the user can fix. The message is one sentence; command lines print it and exit 2.

    What it quotes of a file's content or name may hold anything: consoles, logs and reports get it escaped.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class InputError(DemistError):
    """A file, option or image that cannot be used as given."""


class MemoryShortage(InputError):
    """What was asked for does not fit into memory; less of it, or another machine, does."""


class BundleError(DemistError):
    """A model bundle that is missing, damaged, foreign or does not fit."""


class Terminated(KeyboardInterrupt):
    """A signal asked the process to end; unwinds the stack as Ctrl-C does. ``number`` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


class Cancelled(DemistError):
    """The user asked to stop; nothing half-written is left behind."""
