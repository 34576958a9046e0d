"""Which chunks of an update are to be sent: so many to leave out, so many to send, in turn, from the first on.

A receipt says so, of an update that did not come through as a whole. However long the update and however torn, that
takes a few bytes and at most `MOST_NUMBERS` numbers: gaps beyond those are asked about again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Spans: TypeAlias = tuple[int, ...]

MOST_NUMBERS: Final = 128
"""Numbers that a receipt carries, two a gap: with the longest of them it still fits into the smallest packet."""
EVERYTHING: Final[Spans] = (0, 65_535)
"""All chunks, however many an update has."""


def gaps(there: Iterable[int], count: int) -> Spans:
    """Return what is missing of `count` chunks where these are `there`; of many gaps the first.

    >>> gaps({0, 1, 4}, 8)
    (2, 2, 1, 3)
    >>> gaps(range(8), 8)
    ()
    """
    found: list[int] = []
    told = at = 0
    for index in [*sorted(there), count]:
        if index > at and len(found) < MOST_NUMBERS:
            found += (at - told, index - at)
            told = index
        at = index + 1
    return tuple(found)


def within(spans: Spans, count: int) -> Iterator[int]:
    """Yield the indexes that are to be sent of `count` chunks.

    >>> list(within((2, 2, 1, 3), 8))
    [2, 3, 5, 6, 7]
    """
    at = 0
    for left_out, sent in zip(spans[::2], spans[1::2], strict=True):
        at += left_out
        yield from range(at, min(at + sent, count))
        at += sent
