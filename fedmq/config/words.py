"""The words in which errors speak of values, keys and places in a file."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

Where: TypeAlias = tuple[str | int, ...]

_LONGEST = 60


def shown(value: object) -> str:
    """Return a value of a file as it is named in an error."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    return repr(value) if len(repr(value)) <= _LONGEST else f"a {type(value).__name__}"


def nearest(word: object, known: Iterable[Any]) -> str:
    """Return a question for the known word that is nearest, in brackets, or nothing."""
    found = difflib.get_close_matches(str(word), [str(name) for name in known], n=1, cutoff=0.5)
    return f" (did you mean {found[0]!r}?)" if found else ""


def either(words: Iterable[str]) -> str:
    """Return the words as a choice."""
    return " or ".join(words)


def listed(words: Iterable[str]) -> str:
    """Return the words as a list."""
    return ", ".join(words) or "none"


def dotted(where: Where) -> str:
    """Return a place in a file as ``table.key[index]`` and a space; nothing for the top."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in where).lstrip(".")
    return f"{text} " if text else ""
