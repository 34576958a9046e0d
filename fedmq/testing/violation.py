"""What a simulated world says when something does not hold that must."""

from __future__ import annotations


class Violation(AssertionError):
    """Something that must hold does not; the message says what, and how to see it again."""


def demand(holds: bool, sentence: str) -> None:  # noqa: FBT001 - reads as an assertion
    """Raise Violation unless it holds."""
    if not holds:
        raise Violation(sentence)
