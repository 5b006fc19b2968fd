"""The worker's sentences in the language of the application."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from ..I18n import _
from .WorkerSentences import sentences


def inLanguage(message: str, translate: Callable[[str], str] = _) -> str:
    """A sentence of the worker, translated if there is a translation of it; else as it came.

    Args:
        message: in English, with names of files and numbers filled in.
        translate: gives the translation of a template.
    """
    for pattern, template in _patterns():
        found = pattern.fullmatch(message)
        if found is not None:
            other = translate(template)
            if other == template:
                return message
            try:
                return other.format(*found.groups())
            except (IndexError, KeyError, ValueError):  # a translator's slip must not hide what went wrong
                return message
    return message


@lru_cache(maxsize=1)
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    """What messages look like, those with most words of their own first: they cannot be mistaken for others."""
    made = []
    for template in sentences(lambda text: text):
        literal = re.split(r"\{\d+\}", template)
        words = [re.escape(part.replace("{{", "{").replace("}}", "}")) for part in literal]
        made.append((sum(map(len, literal)), re.compile("(.*?)".join(words), re.DOTALL), template))
    return tuple((pattern, template) for _length, pattern, template in sorted(made, key=lambda one: -one[0]))
