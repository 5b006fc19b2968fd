"""Nodes that are made in pieces, by generators, made at once where nobody minds waiting."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

Made = TypeVar("Made")


def atOnce(pieces: Generator[bool, None, Made]) -> Made:
    """Run a generator to its end; returns its value."""
    while True:
        try:
            next(pieces)
        except StopIteration as stopped:
            return stopped.value
